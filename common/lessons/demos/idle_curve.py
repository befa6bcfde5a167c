#!/usr/bin/env python3
"""What a message costs as the number of idle clients grows: the curve of lessons 6 and 7.

    common/lessons/demos/idle_curve.py          ten seconds

Ten clients send messages to step 5 (select), to its variant poll, and to step 6 (epoll). Prints
the CPU time of the server for a message, as a number and as a bar. Linux only.
"""

import argparse
import json
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "clients"))

from lib import figures, processes, servers     # noqa: E402

SERVERS = {"select": "step5_select/server", "poll": "step5_select/build/variants/poll",
           "epoll": "step6_epoll/server"}
ACTIVE = 10
BAR = 2             # characters for a microsecond


def cost(server, idle, seconds):
    """Microseconds of the server's CPU time for a message."""
    with tempfile.NamedTemporaryFile() as report:
        done = processes.capture(
            [str(ROOT / "clients/load-client"), "-c", str(ACTIVE), "-i", str(idle), "-w", "0.1",
             "-d", str(seconds), "--server-pid", str(server.pid), "--json", report.name,
             f"127.0.0.1:{server.port}"], seconds + 60)
        if done.status != 0:
            raise processes.Trouble(f"load-client: {done.stdout}{done.stderr}".strip())
        found = json.loads(pathlib.Path(report.name).read_text(encoding="utf-8"))
    return found["server"]["cpu_us_per_message"]


def main():
    parser = argparse.ArgumentParser(description="What idle clients add to each message.")
    parser.add_argument("--seconds", metavar="S", type=float, default=0.8,
                        help="for each measurement (0.8)")
    parser.add_argument("idle", metavar="N", type=int, nargs="*", default=[0, 300, 600, 900],
                        help="numbers of idle clients (0 300 600 900)")
    options = parser.parse_args()
    if not 0 < options.seconds < 3600 or not all(0 <= n <= 900 for n in options.idle):
        parser.error("expected more than 0 seconds, and from 0 to 900 idle clients")
    if not figures.AVAILABLE:
        print("skip  idle_curve.py: it needs Linux's /proc")
        return
    print(f"CPU time of the server for a message, {ACTIVE} active clients:\n")
    for name, path in SERVERS.items():
        for idle in options.idle:
            with servers.Server([ROOT / path, "--quiet"]) as server:
                took = cost(server, idle, options.seconds)
            print(f"  {name:8}{idle:5} idle{took:8.1f} µs  {'█' * round(took * BAR)}",
                  flush=True)


if __name__ == "__main__":
    processes.program(main, "idle_curve.py")
