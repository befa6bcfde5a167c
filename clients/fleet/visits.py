"""Clients for a fleet: visitors who come by a schedule and leave, and guests who stay."""

import asyncio
import socket
import threading
import time

GREETING, MESSAGE, ANSWER = b"*", b"^abc$", b"bcd"
PATIENCE = 10       # seconds that a visitor waits for anything


class Visits(threading.Thread):
    """An open loop: `rate` visitors a second, by a schedule that does not wait for the servers.
    Each sends `messages`, one every `gap` seconds, checks the answers, and leaves.

    visitors    how many came
    sent        messages; for each an answer must come
    latencies   seconds from when a message was due to its answer
    trouble     what went wrong, a line for each visitor who missed an answer
    """

    def __init__(self, address, rate, messages=1, gap=0.0):
        super().__init__(daemon=True)
        self.address, self.rate, self.messages, self.gap = address, rate, messages, gap
        self.over = threading.Event()
        self.visitors = self.sent = 0
        self.latencies, self.trouble = [], []

    @property
    def answered(self):
        return len(self.latencies)

    @property
    def lost(self):
        """Messages without an answer; with those that a visitor could not even send."""
        return self.visitors * self.messages - self.answered

    def end(self):
        """No more visitors; wait for those who are there."""
        self.over.set()
        self.join((self.messages + 2) * PATIENCE)

    def run(self):
        asyncio.run(self._come())

    async def _come(self):
        began, visits = time.monotonic(), []
        while not self.over.is_set():
            due = began + self.visitors / self.rate
            await asyncio.sleep(max(0, due - time.monotonic()))
            self.visitors += 1
            visits.append(asyncio.ensure_future(self._visit(due)))
        await asyncio.gather(*visits)

    async def _visit(self, due):
        writer = None
        try:
            reader, writer = await self._within(asyncio.open_connection(*self.address))
            await self._expect(reader, GREETING)
            for number in range(self.messages):
                at = due + number * self.gap
                await asyncio.sleep(max(0, at - time.monotonic()))
                writer.write(MESSAGE)
                self.sent += 1
                await self._expect(reader, ANSWER)
                self.latencies.append(time.monotonic() - at)
            writer.write_eof()
            rest = await self._within(reader.read())
            if rest:
                raise ValueError(f"{rest!r} came after the last answer")
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as problem:
            self.trouble.append(f"{type(problem).__name__}: {problem}")
        finally:
            if writer:
                writer.close()

    async def _expect(self, reader, expected):
        came = await self._within(reader.readexactly(len(expected)))
        if came != expected:
            raise ValueError(f"{came!r} came, not {expected!r}")

    @staticmethod
    def _within(what):
        return asyncio.wait_for(what, PATIENCE)


class Guest:
    """A client that stays."""

    def __init__(self, address):
        self.sock = socket.create_connection(address, PATIENCE)
        self.port = self.sock.getsockname()[1]

    def is_served(self, expected=ANSWER):
        """Send a message, and look for its answer."""
        try:
            self.sock.sendall(MESSAGE)
            return self._read(len(expected)) == expected
        except OSError:
            return False

    def is_greeted(self):
        return self._read(1) == GREETING

    def _read(self, size):
        came = b""
        while len(came) < size:
            piece = self.sock.recv(size - len(came))
            if not piece:
                break
            came += piece
        return came

    def is_cut_off(self, seconds):
        """Whether its connection ends within this time."""
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1) == b""
        except socket.timeout:
            return False
        except OSError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)

    def close(self):
        self.sock.close()
