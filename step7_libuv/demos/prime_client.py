#!/usr/bin/env python3
"""Sends small numbers to prime_server all the time, while other clients send large ones.

Without HOST it starts the server itself, once in each mode. Watch the worst answer time of
the small requests. In block mode it is the time of all large requests together. In pool mode
large requests delay nobody else until there are as many as the pool has threads.
"""

import argparse
import os
import pathlib
import socket
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))

from lib import address                     # noqa: E402
from lib.processes import program           # noqa: E402
from lib.servers import Server              # noqa: E402

SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "demos",
                      "prime_server")
LARGE = 99999999999999997       # the largest prime below 10^17
CROWDS = 0, 1, 2, 4, 5          # this many large requests at a time
PAUSE = 0.01                    # seconds between two small requests
SHORTEST = 0.3                  # seconds of small requests, if there is nothing large


class Asker:
    def __init__(self, place, patience):
        self.sock = address.connect(*place, patience)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("r", encoding="ascii", newline="\n")

    def ask(self, number, expected):
        self.sock.sendall(b"%d\n" % number)
        answer = self.file.readline()
        if answer != expected + "\n":
            raise ValueError(f"{number} should be {expected}, not {answer!r}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()


def small_requests(place, crowd, large, patience):
    """Sends 7 and 9 until the large requests are answered. Returns the answer times of the
    small requests and of the large ones."""
    times, large_times, errors = [], [], []

    def ask_large(asker):
        asked = time.monotonic()
        try:
            asker.ask(large, "prime")
            large_times.append(time.monotonic() - asked)
        except (OSError, ValueError) as error:
            errors.append(error)

    # All clients connect before the first large number is sent: a busy server accepts none.
    askers = [Asker(place, patience) for _ in range(crowd + 1)]
    threads = [threading.Thread(target=ask_large, args=(asker,)) for asker in askers[1:]]
    with askers[0] as small:
        for number in 7, 9:     # now the server has accepted all of them
            small.ask(number, "prime" if number == 7 else "composite")
        for thread in threads:
            thread.start()
        time.sleep(PAUSE)
        enough = time.monotonic() + SHORTEST
        while (time.monotonic() < enough
               or any(thread.is_alive() for thread in threads)):
            asked = time.monotonic()
            small.ask(*[(7, "prime"), (9, "composite")][len(times) % 2])
            times.append(time.monotonic() - asked)
            time.sleep(PAUSE)
    for thread, asker in zip(threads, askers[1:]):
        thread.join()
        with asker:
            pass
    if errors:
        raise errors[0]
    return times, large_times


def table(place, large, patience):
    with Asker(place, patience):        # without a server there should be no heading
        pass
    print("  large requests   the last after   small requests: answered    median     worst")
    for crowd in CROWDS:
        times, large_times = small_requests(place, crowd, large, patience)
        print(f"  {crowd:14} "
              f"{(f'{1000 * max(large_times):.0f}' if large_times else '-')!s:>13} ms "
              f"{len(times):26} {1000 * statistics.median(times):7.1f} ms "
              f"{1000 * max(times):6.0f} ms", flush=True)


def run_server(mode, large, patience):
    with Server([SERVER, "--mode", mode]) as server:
        print(f"prime_server --mode {mode}", flush=True)
        table(server.address, large, patience)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--large", type=int, default=LARGE, metavar="PRIME",
        help=f"the large number (default {LARGE})")
    add("--patience", type=float, default=120, metavar="SECONDS",
        help="the most an answer may take (default 120)")
    address.add_arguments(parser, "a server is started in each mode")
    options = parser.parse_args()
    if not 0 < options.patience <= 3600:
        parser.error(f"--patience {options.patience:g}: expected seconds above 0, up to 3600")
    if not 2 <= options.large < 2 ** 64:
        parser.error(f"--large {options.large}: expected a number from 2 to 2^64-1")
    if options.host is not None:
        address.resolve(parser, options)
        table((options.host, options.port), options.large, options.patience)
    else:
        for mode in "block", "pool":
            run_server(mode, options.large, options.patience)


if __name__ == "__main__":
    program(main, "prime_client")
