#!/usr/bin/env python3
"""One blocking read inside a coroutine, and ten connections stand in line.

    ../../step4_nonblocking_poll/server 8080 &
    ./async-pitfall.py 127.0.0.1 8080

Ten coroutines talk to an echo server at the same time. Where each waits for an answer it lets
the others run: `await`. Then the same once more, with a read that waits for the answer itself:
while it does, the event loop stands still and with it the nine others.

It takes a server with some delay to see it. Step 4 naps up to 200 ms before it looks at its
clients, which can stand for the way to a server far off.
"""

import argparse
import asyncio
import os
import socket
import sys
import time

MESSAGE, ANSWER = b"^abc$", b"bcd"
PATIENCE = 30  # seconds


async def awaited_read(sock, count):
    return await asyncio.get_running_loop().sock_recv(sock, count)


async def blocking_read(sock, count):
    sock.settimeout(PATIENCE)
    data = sock.recv(count)  # the pitfall: nobody else runs until this returns
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


async def talk(address, read):
    loop = asyncio.get_running_loop()
    with socket.socket(address[0]) as sock:
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address[1])
        except OSError as error:    # asyncio's own text lacks the reason
            raise cannot_connect(*address[1][:2], os.strerror(error.errno)) from error
        await read_exactly(read, sock, b"*")
        await loop.sock_sendall(sock, MESSAGE)
        await read_exactly(read, sock, ANSWER)


async def talk_all(address, read, connections):
    """Returns how long all of them took."""
    start = time.monotonic()
    everybody = asyncio.gather(*(talk(address, read) for _ in range(connections)))
    await asyncio.wait_for(everybody, PATIENCE)
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description="What one blocking read does to asyncio.")
    parser.add_argument("-n", "--connections", type=int, default=10, metavar="N")
    parser.add_argument("host", metavar="HOST")
    parser.add_argument("port", metavar="PORT", type=int)
    options = parser.parse_args()
    if options.connections < 1 or not 1 <= options.port <= 65535:
        parser.error("N must be positive and PORT between 1 and 65535")

    try:
        (family, _, _, _, place), *_ = socket.getaddrinfo(options.host, options.port,
                                                          type=socket.SOCK_STREAM)
    except OSError as error:
        raise cannot_connect(options.host, options.port, error.strerror) from error
    elapsed = {}
    for name, read in (("awaited", awaited_read), ("blocking", blocking_read)):
        elapsed[name] = asyncio.run(talk_all((family, place), read, options.connections))
        print(f"{options.connections} connections, {name + ' read:':14} {elapsed[name]:7.3f} s",
              flush=True)
    ratio = elapsed["blocking"] / elapsed["awaited"]
    if elapsed["blocking"] < 0.1:
        print("This server answers too fast to tell: try step 4.")
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
