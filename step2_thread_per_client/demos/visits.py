#!/usr/bin/env python3
"""What a visit costs a server: a client that connects, sends a message, and leaves.

For each model it prints the CPU time of a visit, of all processes and threads of the server.
Exit status: 0 all are measured, 1 a server did not start or a client was not served, 2 wrong
command line.
"""

import argparse
import pathlib
import resource
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients"))

from lib.processes import Trouble, program  # noqa: E402
from lib.servers import Server              # noqa: E402

MODELS = {"process per client": "step2_thread_per_client/build/variants/fork",
          "thread per client": "step2_thread_per_client/server",
          "epoll": "step6_epoll/server"}


def visit(server):
    with server.connect() as client, client.makefile("rb") as answers:
        client.sendall(b"^abc$")
        if answers.read(4) != b"*bcd":
            raise Trouble("a client was not served")


def cost(path, count):
    """CPU milliseconds of a visit. The start and the end of the server are not counted."""
    used = []
    for visits in 0, count:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with Server([ROOT / path, "--quiet"]) as server:
            for _ in range(visits):
                visit(server)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return max(0, used[1] - used[0]) / count * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", "--visits", type=int, default=2000, metavar="N",
                        help="how many (default 2000)")
    options = parser.parse_args()
    if options.visits < 1:
        parser.error(f"-n {options.visits}: expected at least 1")
    print(f"{options.visits} visits, one after another:\n\n"
          f"  {'':20} CPU time of a visit")
    for name, path in MODELS.items():
        if (ROOT / path).exists():
            print(f"  {name:20}{cost(path, options.visits):17.3f} ms", flush=True)
        else:
            print(f"  {name:20} skip: {path} is not built")


if __name__ == "__main__":
    program(main, "visits.py")
