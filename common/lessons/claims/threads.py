"""Claims about threads, pools, coroutines and computing."""

import asyncio
import concurrent.futures
import os
import resource
import time

from . import Figure, Undecided, claim
from .lab import figures, until


@claim("A thread costs 8 MB of memory.", "folklore; \"4 MB?\" in lecture notes",
       "8 MiB of addresses are reserved for its stack. Memory is used only for the pages that "
       "it touches: two here, three in step 2.",
       "threads that write to nearly all of their stacks")
def threads_cost_8_mb(lab):
    count = lab.either(200, 20)

    def memory(threads):
        """(resident, virtual) bytes of a program with this many threads besides its own."""
        process = lab.process([lab.program("stacks"), threads, lab.either(1, 7 << 20)])
        if not until(lambda: process.size() > 0
                     and figures.threads(process.pid) == threads + 1):
            raise Undecided("the threads were not started: " + process.output(200))
        return figures.resident_bytes(process.pid), figures.virtual_bytes(process.pid)
    resident, reserved = ((many - one) / count / 1024
                          for many, one in zip(memory(count + 1), memory(1)))
    lab.show(f"{count} threads more: {resident:.1f} KiB resident each, "
             f"{reserved:.0f} KiB reserved")
    return [Figure("resident for each thread", resident, "KiB", low=4000, within=4),
            Figure("reserved for each thread", reserved, "KiB", within=8)]


@claim("More threads are faster.", "folklore",
       "Threads that compute share the processors, which are busy already. "
       "Threads that wait do so at the same time.",
       "threads that wait instead of computing", on="whether they compute or wait", slow=True)
def more_threads_are_faster(lab):
    processors = len(os.sched_getaffinity(0))

    def cpu_seconds(workers):
        """Processor time of computing jobs, shared by this many processes."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        children = []
        for _ in range(workers):
            child = os.fork()
            if child == 0:
                for _ in range(16 * processors // workers):
                    sum(range(100000))
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def elapsed_seconds(workers):
        """Of jobs that wait, shared by this many threads."""
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for _ in range(16 * processors):
                pool.submit(time.sleep, 0.005)
        return time.perf_counter() - began
    result = []
    for what, seconds in (("processor time of jobs that compute",
                           lab.either(cpu_seconds, elapsed_seconds)),
                          ("time of jobs that wait", elapsed_seconds)):
        few, many = (min(seconds(workers) for _ in range(3))
                     for workers in (processors, processors * 8))
        lab.show(f"{what}: {processors} workers {few * 1000:.0f} ms, {processors * 8} workers "
                 f"{many * 1000:.0f} ms")
        result.append(Figure(f"{what}, with eight times as many workers", many / few, "times",
                             high=0.7, within=4))
    return result


@claim("async makes computing faster.", "folklore",
       "Coroutines share one thread. They gain where they wait, not where they compute.",
       "coroutines that wait", slow=True)
def async_computes_faster(lab):
    async def compute():
        sum(range(20000))
        await asyncio.sleep(0)

    async def wait():
        await asyncio.sleep(0.003)
    job = lab.either(compute, wait)

    async def measure():
        apart, together = [], []
        for _ in range(20):         # the shortest of each: a busy machine spoils some
            began = time.perf_counter()
            for _ in range(4):
                await job()
            apart.append(time.perf_counter() - began)
            began = time.perf_counter()
            await asyncio.gather(*(job() for _ in range(4)))
            together.append(time.perf_counter() - began)
        return min(apart), min(together)
    apart, at_once = asyncio.run(measure())
    lab.show(f"four jobs: one by one {apart * 1000:.1f} ms, gathered {at_once * 1000:.1f} ms")
    return [Figure("time of four computing coroutines together, against one by one",
                   at_once / apart, "times", high=0.7, within=1.7)]


@claim("gather returns results in the order in which the jobs finish.", "folklore",
       "The results stand in the order of the arguments, whenever each was finished.",
       "asyncio.as_completed, which has the other order")
def gather_orders_by_time(lab):
    async def jobs():
        second = asyncio.Event()

        async def first_job():
            await second.wait()         # it finishes last
            return "a"

        async def second_job():
            second.set()
            return "b"
        both = first_job(), second_job()
        if lab.doctored:
            return [await each for each in asyncio.as_completed(both)]
        return await asyncio.gather(*both)
    order = "".join(asyncio.run(jobs()))
    lab.show(f"a finishes after b; the results: {order}")
    return [Figure("first to finish and first in the result, of 1 time",
                   int(order == "ba"), low=1)]


@claim("A context switch costs a microsecond.", "folklore",
       "The switch itself takes one or a few. But the next thread finds the caches filled with "
       "other data, and that costs many times as much.",
       "threads that use no memory", on="how much memory the threads use", slow=True)
def switches_cost_a_microsecond(lab):
    program = lab.program("switches")

    def on_one_processor():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def microseconds(kilobytes):
        done = lab.run(program, kilobytes, prepare=on_one_processor)
        if done.status:
            raise Undecided(done.stderr.strip())
        lab.show(done.stdout.strip())
        return float(done.stdout.split()[0])
    sizes = lab.either((128, 256, 512, 768, 1024), (0,))    # one of them fills the cache
    return [Figure("a switch to a process that uses no memory", microseconds(0), "µs", high=5,
                   within=6),
            Figure("a switch after which up to 1,024 KiB are read, less the reading alone",
                   max(map(microseconds, sizes)), "µs", high=7, within=8)]
