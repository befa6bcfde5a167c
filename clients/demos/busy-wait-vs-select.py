#!/usr/bin/env python3
"""The same download twice: in a busy loop, and with select, which sleeps until bytes arrive.

A server in this program sends a piece every now and then. Both clients use a non-blocking
socket, and both receive the last byte at the same time. Watch the calls and the CPU time:
nearly every recv of the busy loop fails with EAGAIN, and asking keeps a CPU busy.

Exit status: 0 if all bytes arrived, 1 if not, 2 for a wrong command line, 130 for Ctrl-C.
"""

import argparse
import collections
import select
import socket
import sys
import threading
import time

Result = collections.namedtuple("Result", "size elapsed cpu recvs empty selects")


def send_slowly(listener, pieces, gap):
    client, _ = listener.accept()
    with client:
        for _ in range(pieces):
            time.sleep(gap)
            client.sendall(bytes(1000))


def download(address, wait):
    """Read until the server closes, calling `wait` before each read. Count the calls."""
    recvs = empty = selects = size = 0
    with socket.create_connection(address) as sock:
        sock.setblocking(False)
        start, cpu = time.monotonic(), time.thread_time()
        while True:
            selects += wait(sock)
            recvs += 1
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                empty += 1
                continue
            if not data:
                break
            size += len(data)
        elapsed, cpu = time.monotonic() - start, time.thread_time() - cpu
    return Result(size, elapsed, cpu, recvs, empty, selects)


def do_not_wait(_):
    return 0


def wait_with_select(sock):
    select.select([sock], [], [])
    return 1


def measure(wait, pieces, gap):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=send_slowly, args=(listener, pieces, gap), daemon=True)
        server.start()
        result = download(listener.getsockname(), wait)
        server.join()
    return result


def main():
    parser = argparse.ArgumentParser(description="A download in a busy loop, and with select.")
    parser.add_argument("--pieces", type=int, default=20, metavar="N",
                        help="pieces of 1000 bytes to download (default 20)")
    parser.add_argument("--gap-ms", type=int, default=50, metavar="MS",
                        help="the server's pause before each (default 50)")
    options = parser.parse_args()
    if not 1 <= options.pieces <= 100000:
        parser.error(f"--pieces {options.pieces}: expected a number from 1 to 100000")
    if not 0 <= options.gap_ms <= 60000:
        parser.error(f"--gap-ms {options.gap_ms}: expected a number from 0 to 60000")

    print(f"{options.pieces} pieces of 1000 bytes, one every {options.gap_ms} ms:\n")
    print(f"{'':10} {'bytes':>8} {'elapsed':>9} {'CPU time':>9} {'recv calls':>11} "
          f"{'EAGAIN':>9} {'select calls':>13}")
    results = {}
    for name, wait in (("busy loop", do_not_wait), ("select", wait_with_select)):
        result = results[name] = measure(wait, options.pieces, options.gap_ms / 1000)
        if result.size != options.pieces * 1000:
            sys.exit(f"busy-wait-vs-select: expected {options.pieces * 1000} bytes, "
                     f"received {result.size}")
        print(f"{name:10} {result.size:8} {result.elapsed:7.3f} s {result.cpu:7.3f} s "
              f"{result.recvs:11} {result.empty:9} {result.selects:13}", flush=True)
    busy, asleep = results["busy loop"], results["select"]
    print(f"\nThe busy loop used {100 * busy.cpu / busy.elapsed:.0f} % of a CPU, and made "
          f"{busy.recvs / options.pieces:.0f} calls for each piece.\n"
          f"With select it was {100 * asleep.cpu / asleep.elapsed:.0f} %, and "
          f"{(asleep.recvs + asleep.selects) / options.pieces:.0f} calls for each piece.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"busy-wait-vs-select: {error.strerror or error}")
