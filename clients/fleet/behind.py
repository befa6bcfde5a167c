#!/usr/bin/env python3
"""A server behind HAProxy, as one program: behind.py SERVER [OPTION]... PORT

It prints `Listening on ADDRESS:PORT` like a server, and on SIGTERM ends like one, so that
check-server.py can check it. Options go to the server.
"""

import pathlib
import signal
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = str(HERE), str(HERE.parent)          # also with PYTHONSAFEPATH

from lib import processes               # noqa: E402
from lib.servers import Server          # noqa: E402
from machines import Balancer           # noqa: E402


def main():
    if len(sys.argv) < 3 or not sys.argv[-1].isdecimal():
        print("usage: behind.py SERVER [OPTION]... PORT", file=sys.stderr)
        return 2
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with Server(sys.argv[1:-1], prepare=unblock) as server, \
            Balancer({"s1": server.address}, port=int(sys.argv[-1]), prepare=unblock) as front:
        front.wait(lambda states: "s1" in states, 10, "HAProxy has started")
        print(f"Listening on 127.0.0.1:{front.port}", flush=True)
        signal.sigwait([signal.SIGTERM])
        front.process.send_signal(signal.SIGUSR1)   # no new clients
        return server.stop()


def unblock():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


if __name__ == "__main__":
    processes.program(main, name="behind.py")
