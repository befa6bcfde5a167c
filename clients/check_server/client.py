"""A client that remembers what it sent, knows which answers to expect, with time limits."""

import contextlib
import errno
import fcntl
import os
import select
import selectors
import signal
import socket
import struct
import termios
import time

from lib.figures import queues

from .errors import Failure, Skip
from .protocol import GREETING, Model, message

CHUNK = 256 * 1024
REST_SECONDS = 0.2      # in which the rest of wrong answers must come, to be shown


class Excerpt:
    """The first and last bytes of a stream, and how many there were."""

    EDGE = 40

    def __init__(self):
        self.total = 0
        self.head = b""
        self.tail = b""

    def add(self, data):
        self.total += len(data)
        if len(self.head) < self.EDGE:
            self.head += bytes(data[:self.EDGE - len(self.head)])
        self.tail = (self.tail + bytes(data[-self.EDGE:]))[-self.EDGE:]

    def __str__(self):
        if self.total <= self.EDGE:
            return f"{self.total} bytes: {self.head!r}"
        return f"{self.total} bytes: {self.head!r} ... {self.tail!r}"


class Client:
    """One connection. A method that waits fails after `patience` seconds without progress.

    send() also feeds the model, so settle() and exchange() know what must come back;
    expect() compares with the bytes given. All return the client, to be chained.
    """

    def __init__(self, address, patience=5.0, rcvbuf=None):
        self.patience = patience
        self.model = Model()
        self.sent = Excerpt()
        self.sent_last = Excerpt()      # by the last send()
        self.was_right = False          # an expect() before it was met
        self.came = Excerpt()
        self.expected = bytearray()     # answers by the model that have not come yet
        self.outbox = memoryview(b"")
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Before connecting: the receive buffer decides the window that is offered.
            if rcvbuf:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.settimeout(patience)
            self.sock.connect(address)
        except OSError as error:
            self.sock.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise Skip(f"this machine has no port left to connect from: {error}") from error
            if error.errno == errno.ENETUNREACH:
                raise Skip(f"this machine has no way to {address[0]} (is its loopback "
                           f"interface up?): {error}") from error
            hint = " (is its backlog long enough?)" if isinstance(error, socket.timeout) else ""
            raise Failure(f"cannot connect to {address[0]} port {address[1]}: "
                          f"{error}{hint}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fail(self, message, wanted=None, got=None):
        raise Failure(message, self, wanted=wanted, got=got)

    # Sending.

    def send(self, data):
        """Send it all; the server must take it without being read from meanwhile."""
        self.sent.add(data)
        self.sent_last = Excerpt()
        self.sent_last.add(data)
        self.expected += self.model.feed(data)
        self.sock.settimeout(self.patience)
        try:
            self.sock.sendall(data)
        except OSError as error:
            self.fail(f"sending failed: {error}")
        return self

    def push(self, data, until_stuck=1.0, piece=CHUNK, pause=0):
        """Send, never reading, until all is sent or nothing moves; return how much was.
        With a pause after each piece, most pieces are received one by one."""
        rest = memoryview(data)
        self.sock.settimeout(until_stuck)
        try:
            while rest:
                sent = self.sock.send(rest[:piece])
                self.sent.add(rest[:sent])
                rest = rest[sent:]
                if pause:
                    time.sleep(pause)
        except OSError as error:
            if not isinstance(error, socket.timeout):
                self.fail(f"sending failed: {error}")
        taken = len(data) - len(rest)
        self.expected += self.model.feed(data[:taken])
        return taken

    def half_close(self):
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.fail(f"shutting down the sending side failed: {error}")
        return self

    # Receiving.

    def receive(self, most=CHUNK, timeout=None):
        """Some bytes; b"" at the end; None when nothing came in time."""
        self.sock.settimeout(self.patience if timeout is None else timeout)
        try:
            data = self.sock.recv(most)
        except (socket.timeout, BlockingIOError):
            return None
        except OSError as error:
            return self.fail(f"receiving failed: {error}")
        self.came.add(data)
        return data

    def expect(self, wanted):
        """Exactly these bytes come next."""
        got = bytearray()
        while len(got) < len(wanted):
            data = self.receive(len(wanted) - len(got))
            got += data or b""
            if not data or not wanted.startswith(bytes(got)):
                if data:
                    got += self._rest(len(wanted) - len(got))
                self.fail(_difference(wanted, bytes(got)) + _ending(data, self.patience),
                          wanted, bytes(got))
        del self.expected[:len(wanted)]
        self.was_right = True
        return self

    def _rest(self, most):
        """What else comes at once: what a failure shows must not depend on packets."""
        rest = bytearray()
        self.sock.settimeout(min(REST_SECONDS, self.patience))
        with contextlib.suppress(OSError):
            while len(rest) < most:
                data = self.sock.recv(most - len(rest))
                if not data:
                    break
                self.came.add(data)
                rest += data
        return rest

    def greeting(self):
        """The greeting comes next. (It is no answer, so the model does not expect it.)"""
        data = self.receive(len(GREETING))
        if data != GREETING:
            self.fail(f"expected the greeting {GREETING!r}, got "
                      f"{data or b''!r}{_ending(data, self.patience)}")
        return self

    def admitted(self, timeout=None):
        """True when greeted, False when rejected: closed or reset before any byte."""
        self.sock.settimeout(self.patience if timeout is None else timeout)
        try:
            data = self.sock.recv(1)
        except (ConnectionResetError, BrokenPipeError):
            return False
        except OSError as error:
            return self.fail(f"neither greeted nor rejected: {error}")
        self.came.add(data)
        if data not in (GREETING, b""):
            self.fail(f"expected the greeting {GREETING!r} or the end, got {data!r}")
        return data == GREETING

    def settle(self):
        """All expected answers come, byte for byte."""
        exchange_all([(self, b"")])
        return self

    def exchange(self, data):
        """Send and read at the same time, whatever the size, until all is answered."""
        exchange_all([(self, data)])
        return self

    def exchange_slowly(self, data, pause):
        """As exchange(), but pausing before every look at what has come."""
        self._begin(data)
        deadline = time.monotonic() + self.patience
        while self.outbox or self.expected:
            before = (len(self.outbox), len(self.expected))
            self._write_some()
            time.sleep(pause)
            if self.expected:
                self._read_some()
            if before != (len(self.outbox), len(self.expected)):
                deadline = time.monotonic() + self.patience
            elif time.monotonic() > deadline:
                self.fail(f"nothing moved for {self.patience:g} s")
        return self

    def expect_silence(self, seconds=0.1):
        data = self.receive(timeout=seconds)
        if data is not None:
            self.fail(f"expected silence, got {_shown(data) if data else 'the end'}")
        return self

    def expect_end(self):
        """The server closes, in order (no reset) and without a further byte."""
        data = self.receive()
        if data != b"":
            came = f"nothing for {self.patience:g} s" if data is None else _shown(data)
            self.fail(f"expected the end of the connection, got {came}")
        return self

    def expect_closed(self):
        """The server drops the connection, by whatever means, whatever still came first."""
        deadline = time.monotonic() + self.patience
        try:
            while time.monotonic() < deadline:
                if self.receive() == b"":
                    return self
        except Failure:
            return self
        return self.fail(f"still connected after {self.patience:g} s")

    def finish(self):
        """Settle, close the sending side, and see the server close, too."""
        self.settle()
        self.half_close()
        self.expect_end()
        self.close()
        return self

    def flood_until_reset(self, data):
        """Send what the server takes and read nothing, until a reset comes. Return when bytes
        last moved in either direction (time.monotonic()), or None if no reset comes in time."""
        ready = select.poll()
        rest, unread, moved = memoryview(data), -1, time.monotonic()
        deadline = moved + self.patience
        self.sock.setblocking(False)
        while time.monotonic() < deadline:
            counted = self.unread()
            ready.register(self.sock, select.POLLOUT if rest else 0)    # and errors, always
            events = ready.poll(10)
            if events and events[0][1] & (select.POLLERR | select.POLLHUP):
                return moved
            sent = 0
            if events:
                try:
                    sent = self.sock.send(rest[:CHUNK])
                except BlockingIOError:
                    pass
                except ConnectionError:
                    return moved
                rest = rest[sent:]
            if sent or counted != unread:
                unread, moved = counted, time.monotonic()
        return None

    # Leaving.

    def close(self):
        self.sock.close()

    def reset(self):
        """Disconnect by a reset instead of a close."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF):  # macOS: the peer was first
                raise
        self.sock.close()

    def unacknowledged(self):
        """Bytes sent that the other side's kernel has not taken yet (Linux)."""
        return struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0" * 4))[0]

    def unread(self):
        """Bytes that have come and were not received yet."""
        return struct.unpack("i", fcntl.ioctl(self.sock, termios.FIONREAD, bytes(4)))[0]

    def kept_answers(self):
        """Answers in the server's own memory: all to what was pushed, without those in a queue
        of the kernel's, and without those to bytes that are still in one (Linux)."""
        queued = self.unacknowledged() + self.unread() + sum(map(sum, queues(self.sock)))
        return len(self.expected) - queued

    # The two halves exchange_all() drives.

    def _begin(self, data):
        self.outbox = memoryview(data)
        self.expected += self.model.feed(data)
        self.sock.settimeout(0)

    def _write_some(self):
        try:
            sent = self.sock.send(self.outbox[:CHUNK])
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(f"sending failed: {error}")
        self.sent.add(self.outbox[:sent])
        self.outbox = self.outbox[sent:]

    def _read_some(self):
        data = self.receive(min(CHUNK, len(self.expected)), timeout=0)
        if data is None:
            return
        wanted = bytes(self.expected[:len(data)])
        if not data:
            self.fail(f"the server closed with {len(self.expected)} answers missing")
        if data != wanted:
            self.fail(f"{self.came.total - len(data)} bytes were right, then: "
                      f"{_difference(wanted, data)}", wanted, data)
        del self.expected[:len(data)]


def exchange_all(work):
    """Send every client's bytes and read all its answers, for all clients at the same time."""
    with selectors.DefaultSelector() as selector:
        for client, data in work:
            client._begin(data)
            events = (selectors.EVENT_WRITE if data else 0) | (
                selectors.EVENT_READ if client.expected else 0)
            if events:
                selector.register(client.sock, events, client)
        while selector.get_map():
            patience = max(key.data.patience for key in selector.get_map().values())
            ready = selector.select(patience)
            if not ready:
                client = next(iter(selector.get_map().values())).data
                client.fail(f"{len(client.outbox)} bytes unsent and {len(client.expected)} "
                            "answers missing, and nothing moved for "
                            f"{patience:g} s")
            for key, mask in ready:
                client = key.data
                if mask & selectors.EVENT_WRITE:
                    client._write_some()
                if mask & selectors.EVENT_READ:
                    client._read_some()
                events = (selectors.EVENT_WRITE if client.outbox else 0) | (
                    selectors.EVENT_READ if client.expected else 0)
                if not events:
                    selector.unregister(client.sock)
                elif events != key.events:
                    selector.modify(client.sock, events, client)


class Flood:
    """`with Flood(address, 3):` processes that send without pause and read what comes."""

    LIMIT = 60.0    # seconds, after which they end by themselves
    MUCH = 1 << 20  # bytes

    def __init__(self, address, count):
        self.address = address
        self.count = count
        self.pids = []

    def __enter__(self):
        self.reports, self.report = os.pipe()
        for _ in range(self.count):
            try:
                pid = os.fork()
            except OSError as error:
                self.__exit__()
                raise Skip(f"this machine starts no further process: {error}") from error
            if pid == 0:
                try:
                    self._run()
                finally:
                    os._exit(0)
            self.pids.append(pid)
        return self

    def __exit__(self, *_):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(self.reports)
        os.close(self.report)

    def wait(self, seconds):
        """Until each has sent something and one has received much, but at most this long: a
        server may serve none of them."""
        deadline, came = time.monotonic() + seconds, b""
        while came.count(b"s") < self.count or b"r" not in came:
            left = max(0, deadline - time.monotonic())
            if not select.select([self.reports], [], [], left)[0]:
                return
            came += os.read(self.reports, 100)

    def _run(self):
        data = message(CHUNK)
        with Client(self.address) as client, selectors.DefaultSelector() as selector:
            client.send(data[:1])
            os.write(self.report, b"s")
            client.sock.settimeout(0)
            selector.register(client.sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
            end, total = time.monotonic() + self.LIMIT, 0
            while time.monotonic() < end:
                for _, mask in selector.select(1):
                    try:
                        if mask & selectors.EVENT_WRITE:
                            client.sock.send(data)
                        if mask & selectors.EVENT_READ:
                            size = len(client.sock.recv(CHUNK))
                            if not size:
                                return
                            if total < self.MUCH <= total + size:
                                os.write(self.report, b"r")
                            total += size
                    except BlockingIOError:
                        pass


def _difference(wanted, got):
    """What differs, without the long part before it that does not."""
    first = next((at for at, (a, b) in enumerate(zip(wanted, got)) if a != b), len(got))
    start, end = max(0, first - 4) if len(wanted) > 40 else 0, first + 20
    where = f"from byte {start + 1} on " if start else ""
    return f"{where}expected {_shown(wanted[start:end])}, got {_shown(got[start:end])}"


def _shown(data, most=60):
    return repr(data) if len(data) <= most else f"{data[:most]!r}... ({len(data)} bytes)"


def _ending(data, patience):
    if data is None:
        return f" and then nothing for {patience:g} s"
    return " and then the end of the connection" if data == b"" else ""
