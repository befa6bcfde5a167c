#!/usr/bin/env python3
"""Ten thousand fibers and a database with 30 connections: lesson 10.

    common/lessons/demos/permits.py                     ten thousand requests: 15 seconds
    common/lessons/demos/permits.py --requests 1000     the same at a tenth of the length

Requests arrive twice as fast as the database answers. Each has a fiber of its own (a coroutine
of asyncio), and each client gives up after a quarter of a second. The server uses a pool of
permits: a fiber without a permit waits.
"""

import argparse
import asyncio
import contextlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "clients"))

from lib.processes import program   # noqa: E402

CONNECTIONS = 30    # queries that the database works on at a time
QUERY = 0.015       # seconds that it works on one
RATE = 4000         # requests a second: twice what it can do
PATIENCE = 0.25     # seconds after which a client has given up


class Database:
    """Works on CONNECTIONS queries at a time. The others wait in a queue of its own."""

    def __init__(self):
        self.room = asyncio.Semaphore(CONNECTIONS)
        self.present = self.most = 0

    async def query(self):
        self.present += 1
        self.most = max(self.most, self.present)
        async with self.room:
            await asyncio.sleep(QUERY)
        self.present -= 1


class Results:
    def __init__(self):
        self.fibers = self.most = self.in_time = self.late = self.rejected = 0
        self.longest = 0.0


async def request(database, permits, queue, results):
    """One fiber: `queue` fibers at most may wait for a permit; None: any number."""
    if queue is not None and results.fibers >= CONNECTIONS + queue:
        results.rejected += 1
        return
    results.fibers += 1
    results.most = max(results.most, results.fibers)
    began = time.monotonic()
    async with permits or contextlib.AsyncExitStack():
        await database.query()
    took = time.monotonic() - began
    results.longest = max(results.longest, took)
    if took <= PATIENCE:
        results.in_time += 1
    else:
        results.late += 1
    results.fibers -= 1


async def run(count, permits, queue):
    database, results, tasks = Database(), Results(), set()
    permits = asyncio.Semaphore(permits) if permits else None
    began = time.monotonic()
    while len(tasks) < count:
        due = min(count, int((time.monotonic() - began) * RATE))
        while len(tasks) < due:
            tasks.add(asyncio.ensure_future(request(database, permits, queue, results)))
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    return database, results


def main():
    parser = argparse.ArgumentParser(description="What a pool of permits bounds, and what not.")
    parser.add_argument("--requests", metavar="N", type=int, default=10000,
                        help="requests in all (10000)")
    options = parser.parse_args()
    if not 1 <= options.requests <= 1000000:
        parser.error("--requests: expected 1 to 1000000")
    print(f"{options.requests} requests at {RATE} a second; the database answers "
          f"{CONNECTIONS / QUERY:.0f} a second\n\n"
          f"  {'':26}{'fibers':>8}{'at the':>11}{'longest':>11}{'answered':>10}"
          f"{'answered':>10}\n"
          f"  {'':26}{'at most':>8}{'database':>11}{'answer':>11}{'in time':>10}"
          f"{'too late':>10}{'rejected':>10}")
    for name, permits, queue in (("no permits", None, None),
                                 ("30 permits", CONNECTIONS, None),
                                 ("30 permits, queue of 200", CONNECTIONS, 200)):
        database, results = asyncio.run(run(options.requests, permits, queue))
        print(f"  {name:26}{results.most:8}{database.most:11}{results.longest:9.2f} s"
              f"{results.in_time:10}{results.late:10}{results.rejected:10}", flush=True)


if __name__ == "__main__":
    program(main, "permits.py")
