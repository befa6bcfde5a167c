#!/usr/bin/env python3
"""One blocking read inside a coroutine, and ten connections are served one after another.

    ../../step4_nonblocking_poll/server 8080 &
    ./async-pitfall.py 127.0.0.1 8080

Ten coroutines talk to an echo server at the same time. While one waits for an answer with
`await`, the others run. Then the program does the same with a read that blocks: during this
read the event loop stands still, and so do the nine other coroutines.

The effect shows only if the server takes some time to answer. Step 4 sleeps up to 200 ms
before it looks at its clients. This stands for the network delay of a distant server.
"""

import argparse
import asyncio
import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from lib import address  # noqa: E402

MESSAGE, ANSWER = b"^abc$", b"bcd"
PATIENCE = 30  # seconds


async def awaited_read(sock, count):
    return await asyncio.get_running_loop().sock_recv(sock, count)


async def blocking_read(sock, count):
    sock.settimeout(PATIENCE)
    data = sock.recv(count)  # the pitfall: no other coroutine runs until this returns
    sock.settimeout(0)
    return data


async def read_exactly(read, sock, expected):
    data = b""
    while len(data) < len(expected):
        piece = await read(sock, len(expected) - len(data))
        if not piece:
            raise ConnectionError("the server closed early")
        data += piece
    if data != expected:
        raise ConnectionError(f"expected {expected!r}, received {data!r}")


def cannot_connect(host, port, why):
    return OSError(f"cannot connect to {host} port {port}: {why}")


async def connect(addresses):
    """A socket that is connected to the first of the addresses that accepts."""
    problem = None
    for family, place in addresses:
        try:
            sock = socket.socket(family)
        except OSError as error:
            problem = cannot_connect(*place[:2], error.strerror)
            continue
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, place)
            return sock
        except OSError as error:    # asyncio's own text lacks the reason
            sock.close()
            problem = cannot_connect(*place[:2], os.strerror(error.errno))
    raise problem


async def talk(addresses, read):
    with await connect(addresses) as sock:
        await read_exactly(read, sock, b"*")
        await asyncio.get_running_loop().sock_sendall(sock, MESSAGE)
        await read_exactly(read, sock, ANSWER)


async def talk_all(addresses, read, connections):
    """Returns how long all of them took."""
    start = time.monotonic()
    everybody = asyncio.gather(*(talk(addresses, read) for _ in range(connections)))
    await asyncio.wait_for(everybody, PATIENCE)
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description="What one blocking read does to asyncio.")
    parser.add_argument("-n", "--connections", type=int, default=10, metavar="N",
                        help="connections at the same time (default 10)")
    address.add_arguments(parser)
    options = parser.parse_args()
    address.resolve(parser, options)
    if options.connections < 1:
        parser.error(f"-n {options.connections}: expected at least 1")

    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", error)
        raise cannot_connect(options.host, options.port, why) from error
    addresses = [(family, place) for family, _, _, _, place in found]
    elapsed = {}
    for name, read in (("awaited", awaited_read), ("blocking", blocking_read)):
        elapsed[name] = asyncio.run(talk_all(addresses, read, options.connections))
        print(f"{options.connections} connections, {name + ' read:':14} {elapsed[name]:7.3f} s",
              flush=True)
    ratio = elapsed["blocking"] / elapsed["awaited"]
    if elapsed["blocking"] < 0.1:
        print("This server answers too fast to show the difference: try step 4.")
    else:
        print(f"The blocking read makes them take {ratio:.1f} times as long.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except asyncio.TimeoutError:
        sys.exit(f"async-pitfall: no answer within {PATIENCE} s")
    except OSError as error:
        sys.exit(f"async-pitfall: {error.strerror or error}")
