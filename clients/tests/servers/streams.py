#!/usr/bin/env python3
"""An echo server with asyncio's streams, as a student would write it: `streams.py PORT`.

It reads on from a client only when the answers to it are sent, or fit into a bounded buffer."""

import asyncio
import os
import signal
import sys


def answer(inside, data):
    """Whether a message is open after the data, and the answers to it."""
    answers = bytearray()
    for byte in data:
        if not inside:
            inside = byte == ord("^")
        elif byte == ord("$"):
            inside = False
        else:
            answers.append((byte + 1) % 256)
    return inside, answers


async def serve(reader, writer):
    inside = False
    try:
        writer.write(b"*")
        while True:
            data = await reader.read(65536)
            if not data:
                break
            inside, answers = answer(inside, data)
            writer.write(answers)
            await writer.drain()
    except OSError:
        pass    # the client is lost, and nothing else
    finally:
        writer.close()


async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[-1]), backlog=1000)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except OSError as error:
        sys.exit(f"server: {error}")
