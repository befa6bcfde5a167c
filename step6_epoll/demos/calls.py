#!/usr/bin/env python3
"""Shows how many system calls epoll and io_uring make for a message, and which part of their
CPU time is the kernel's.

clients/load-client sends, and each server counts its calls (--stats). strace -c counts as many.
Exit status: 0 all is measured, 1 a program failed, 2 wrong command line.
"""

import argparse
import json
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients"))

from lib.processes import Trouble, capture, program     # noqa: E402
from lib.servers import Server              # noqa: E402

MODELS = {      # name: (program, its counters of calls; recv and send of io_uring are requests)
    "epoll": ("step6_epoll/server", ("wait_calls", "recv_calls", "send_calls")),
    "io_uring": ("step6_epoll/build/variants/io_uring", ("wait_calls",)),
}
CLIENTS = 1, 100


def measured(path, counters, clients, seconds):
    """System calls for a message, and the kernel's share of the CPU time in per cent."""
    with tempfile.NamedTemporaryFile("r") as stats, tempfile.NamedTemporaryFile("r") as report:
        with Server([path, "--quiet", "--stats", stats.name]) as server:
            done = capture([str(ROOT / "clients/load-client"), "-c", str(clients), "-w", "0",
                            "-d", str(seconds), "--json", report.name,
                            f"127.0.0.1:{server.port}"], seconds + 60)
            if done.status != 0:
                raise Trouble(f"load-client: {done.stderr.strip() or done.trouble}")
        cost, messages = json.load(stats), json.load(report)["messages"]
    calls = sum(cost[name] for name in counters)
    system, user = cost["cpu_system_seconds"], cost["cpu_user_seconds"]
    return calls / messages, 100 * system / (system + user)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=2, metavar="S",
                        help="how long to send messages, for each row (default 2)")
    options = parser.parse_args()
    if not 0 < options.seconds < 3600:
        parser.error(f"--seconds {options.seconds:g}: expected more than 0, less than 3600")
    try:
        for path, _ in MODELS.values():
            with Server([ROOT / path, "--quiet"]):
                pass
    except Trouble as problem:      # many systems switch io_uring off
        print(f"skip  calls.py: {problem}")
        return
    print(f"{'':26}calls for a message   CPU time in the kernel")
    for name, (path, counters) in MODELS.items():
        for clients in CLIENTS:
            calls, share = measured(ROOT / path, counters, clients, options.seconds)
            what = f"{name}, {clients} client{'s' * (clients > 1)}"
            print(f"{what:26}{calls:19.2f}{share:23.0f} %", flush=True)


if __name__ == "__main__":
    program(main, "calls.py")
