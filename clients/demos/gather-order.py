#!/usr/bin/env python3
"""What await and gather promise about order, and what happens to a task that nobody awaits.

Three jobs A, B and C take 0.1, 0.2 and 0.3 s, in random order. Each part shows in which order
the jobs finish and in which order their results are returned. The two can differ.
"""

import argparse
import asyncio
import random
import sys
import time

NAMES = "ABC"


class Stage:
    """Runs jobs and remembers when they started and finished."""

    def __init__(self, seconds):
        self.seconds = seconds  # by name
        self.begin()

    def begin(self):
        self.start, self.finished = time.monotonic(), []

    async def job(self, name):
        await asyncio.sleep(self.seconds[name])
        self.finished.append(name)
        return name

    def say(self, title, results):
        print(f"{title}\n    finished  {' '.join(self.finished) or 'none'}\n"
              f"    results   {' '.join(results) or 'none'}\n"
              f"    after     {time.monotonic() - self.start:.2f} s", flush=True)
        self.begin()


async def show(stage):
    results = await asyncio.gather(*(stage.job(name) for name in NAMES))
    stage.say("gather: finished in any order, results in the order of the arguments", results)

    tasks = [asyncio.create_task(stage.job(name)) for name in NAMES]
    stage.say("create_task: started, and nothing is finished before we first await", [])
    results = [await task for task in tasks]
    stage.say("await task by task: all run meanwhile, results in the order of await", results)

    results = [await stage.job(name) for name in NAMES]
    stage.say("await coroutine by coroutine: each starts only now, the times add up", results)

    jobs = [stage.job(name) for name in NAMES]
    results = [await finished for finished in asyncio.as_completed(jobs)]
    stage.say("as_completed: results in the order in which the jobs finish", results)

    # The variable is needed: the garbage collector may remove a task without a reference.
    forgotten = asyncio.create_task(stage.job(max(NAMES, key=stage.seconds.get)))
    await asyncio.sleep(0)
    return forgotten


def main():
    parser = argparse.ArgumentParser(description="The order of asyncio's tasks and results.")
    parser.add_argument("--seed", type=int, help="give the jobs the same times again")
    parser.add_argument("--time-scale", type=float, default=1.0, metavar="X",
                        help="multiply all times by X")
    options = parser.parse_args()
    if not 0 <= options.time_scale <= 100:
        parser.error(f"--time-scale {options.time_scale:g}: expected a number from 0 to 100")

    seconds = [0.1, 0.2, 0.3]
    random.Random(options.seed).shuffle(seconds)
    stage = Stage({name: s * options.time_scale for name, s in zip(NAMES, seconds)})
    print("Jobs: " + ", ".join(f"{name} takes {s:.2f} s" for name, s in stage.seconds.items()))
    forgotten = asyncio.run(show(stage))
    results = [] if forgotten.cancelled() else [forgotten.result()]
    stage.say("a task nobody awaits: the loop ends, and cancels it", results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:    # standard output was closed, or is full
        sys.exit(f"gather-order: {error.strerror}")
