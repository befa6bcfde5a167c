#!/usr/bin/env python3
"""N clients talk to one echo server at the same time and check its answers.

Every client connects, waits for the greeting `*`, sends three messages with a pause after
each, and disconnects. Meanwhile a second thread reads the answers, because they may come at
any time and in any pieces. On a server that serves one client after another, five clients take
five times as long as one. On a concurrent server they take as long as one.

The log and `Elapsed:` go to standard output, one line per failed connection to standard error.
Exit status: 0 if all answers of every connection were right, 1 if a connection failed, 2 for a
wrong command line, 130 if interrupted.
"""

import argparse
import io
import json
import logging
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))     # also with PYTHONSAFEPATH

from lib import address             # noqa: E402

# What every client sends: (message, the expected answer, the pause after it in seconds).
SCRIPT = (
    (b"^abc$de^abte$f", b"bcdbcuf", 1.0),
    (b"xyz^123", b"234", 1.0),
    (b"25$^ab0000$abab", b"36bc1111", 0.2),
)
EXPECTED = b"".join(answer for _, answer, _ in SCRIPT)
PAUSES = sum(pause for _, _, pause in SCRIPT)

log = logging.getLogger("simple-client")


class Failure(Exception):
    """The server broke the protocol."""


class Connection(threading.Thread):
    """One client: this thread sends, a second one reads the answers.

    Times are seconds since `epoch`, a moment of the monotonic clock that all connections
    share; None means not yet. Other threads may read them while the client runs.
    """

    def __init__(self, name, host, port, time_scale, epoch, timeout):
        super().__init__(name=name, daemon=True)
        self.host, self.port, self.time_scale = host, port, time_scale
        self.epoch, self.timeout = epoch, timeout
        self.connected = self.greeted = self.disconnecting = self.closed = None
        self.local_port = None
        self.sends, self.receives = [], []  # of (time, bytes)
        self.doing = f"connecting to {host} port {port}"
        self.over = threading.Event()  # set when one half has failed
        self.failures = []
        self.complete = False  # all answers were verified, and the server closed

    @property
    def failure(self):
        """The first thing that went wrong: the rest follows from it. None if all is well."""
        if self.failures:
            return self.failures[0]
        if not self.complete and not self.is_alive():
            return f"ended while {self.doing}"
        return None

    def now(self):
        return round(time.monotonic() - self.epoch, 6)

    def run(self):
        try:
            with socket.create_connection((self.host, self.port), self.time_left()) as sock:
                self.connected = self.now()
                self.local_port = sock.getsockname()[1]
                self.wait_for_greeting(sock)
                reader = threading.Thread(target=self.do_half, args=(self.read_answers, sock),
                                          daemon=True)
                reader.start()
                self.do_half(self.send_messages, sock)
                reader.join()
        except (Failure, OSError, RuntimeError, UnicodeError) as error:
            self.failures.append(self.explain(error))
        self.closed = self.now()

    def do_half(self, half, sock):
        """Send the messages or read the answers. If that fails, end the other half too."""
        try:
            half(sock)
        except (Failure, OSError) as error:
            self.failures.append(self.explain(error))
            self.over.set()
            try:
                sock.shutdown(socket.SHUT_RDWR)  # unlike close(), wakes the other thread
            except OSError:
                pass  # the server has closed already

    def wait_for_greeting(self, sock):
        """The kernel connects us at once; the greeting shows that the server accepted us."""
        self.doing = "waiting for the greeting"
        sock.settimeout(self.time_left())
        greeting = sock.recv(1)
        if not greeting:
            raise Failure("closed early: the server sent no greeting")
        if greeting != b"*":
            raise Failure(f'the server greeted with {greeting!r} instead of {b"*"!r}')
        self.greeted = self.now()
        log.info(f"{self.name} connected...")

    def send_messages(self, sock):
        self.doing = "exchanging messages"
        for message, _, pause in SCRIPT:
            log.info(f"{self.name} sending {message!r}")
            self.sends.append((self.now(), message))
            sock.sendall(message)
            if self.over.wait(pause * self.time_scale):
                return
        log.info(f"{self.name} disconnecting")
        self.doing = "waiting for the server to close"
        self.disconnecting = self.now()
        sock.shutdown(socket.SHUT_WR)  # answers may still arrive: the other thread reads

    def read_answers(self, sock):
        """Read until the server closes, which it must not do before we have disconnected."""
        answers = b""
        while True:
            sock.settimeout(self.time_left())
            data = sock.recv(4096)
            if not data:
                break
            self.receives.append((self.now(), data))
            log.info(f"{self.name} received {data!r}")
            answers += data
            if not EXPECTED.startswith(answers):
                raise Failure(f"wrong answer: expected {EXPECTED!r}, received {answers!r}")
        if answers != EXPECTED or self.disconnecting is None:
            raise Failure(f"closed early: expected {EXPECTED!r}, received {answers!r}")
        self.complete = True

    def time_left(self):
        left = self.timeout - self.now()
        if left <= 0:
            raise socket.timeout
        return left

    def explain(self, error):
        if isinstance(error, socket.timeout):
            return f"timed out after {self.timeout:g} s while {self.doing}"
        if isinstance(error, OSError):
            return f"{error.strerror or error} while {self.doing}"
        return str(error)

    def report(self):
        """The connection for JSON; in `data` one character stands for one byte."""
        def exchange(events):
            return [{"at": at, "bytes": len(data), "data": data.decode("latin-1")}
                    for at, data in events]

        return {"name": self.name, "failure": self.failure, "local_port": self.local_port,
                "connect": self.connected, "greeting": self.greeted,
                "sends": exchange(self.sends), "receives": exchange(self.receives),
                "disconnect": self.disconnecting, "close": self.closed}


def default_timeout(clients, time_scale):
    """Enough for a server that serves the clients one after another, and for a slow one."""
    return 10 + 2 * clients * PAUSES * time_scale


def make_connections(clients, host, port, time_scale, timeout):
    epoch = time.monotonic()
    return [Connection(f"conn{i}", host, port, time_scale, epoch, timeout)
            for i in range(clients)]


def start(connections):
    for connection in connections:
        try:
            connection.start()
        except RuntimeError as error:  # no more threads
            connection.failures.append(str(error))


def number(kind, low, high):
    """An argparse type: a number of that kind from low to high."""
    def parse(text):
        if not low <= kind(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return kind(text)
    parse.__name__ = "number"
    return parse


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description="Run N clients against an echo server at the same time and verify the "
                    "answers.")
    parser.add_argument("-n", "--clients", type=number(int, 1, 10000), default=1, metavar="N",
                        help="how many connections at the same time (default 1)")
    parser.add_argument("--time-scale", type=number(float, 0, 100), default=1.0, metavar="X",
                        help="multiply every pause by X (default 1: each client pauses for "
                             f"{PAUSES:.1f} s in all)")
    parser.add_argument("--timeout", type=number(float, 0.001, 1e6), metavar="SECONDS",
                        help="give up this long after the start (default: 10 s plus twice the "
                             "time that N clients take one after another)")
    parser.add_argument("--json", metavar="FILE",
                        help="write the local port and the timestamps of every connection; "
                             "with - they go to standard output, the log to standard error")
    address.add_arguments(parser)
    options = parser.parse_args(arguments)
    address.resolve(parser, options)
    if options.timeout is None:
        options.timeout = default_timeout(options.clients, options.time_scale)
    return options


def set_up_log(stream):
    """Log lines to the stream, failures to stderr. Drop lines that cannot be written."""
    logging.raiseExceptions = False
    nowhere = io.StringIO()
    lines = logging.StreamHandler(stream or nowhere)
    lines.addFilter(lambda record: record.levelno < logging.ERROR)
    failures = logging.StreamHandler(sys.stderr or nowhere)
    failures.setLevel(logging.ERROR)
    for handler in (lines, failures):
        handler.setFormatter(logging.Formatter("%(levelname)s:%(asctime)s:%(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)


def write_report(file, options, started, elapsed, connections):
    report = {"host": options.host, "port": options.port, "time_scale": options.time_scale,
              "started": started, "elapsed": elapsed,
              "connections": [connection.report() for connection in connections]}
    try:
        with file:
            json.dump(report, file, indent=1)
            print(file=file)
    except OSError as error:
        raise Failure(f"cannot write the report: {error.strerror}") from error


def main(arguments=None):
    options = parse_arguments(arguments)
    out = sys.stderr if options.json == "-" else sys.stdout
    set_up_log(out)
    try:
        report = open(1 if options.json == "-" else options.json or os.devnull, "w")
    except OSError as error:
        log.error(f"cannot write {options.json}: {error.strerror}")
        return 1

    started = time.time()
    connections = make_connections(options.clients, options.host, options.port,
                                   options.time_scale, options.timeout)
    try:
        start(connections)
        for connection in connections:
            while connection.is_alive():
                connection.join()
    finally:
        elapsed = connections[0].now()
        write_report(report, options, started, elapsed, connections)

    failed = [connection for connection in connections if connection.failure]
    for connection in failed:
        log.error(f"{connection.name} failed: {connection.failure}")
    try:
        print(f"Elapsed: {elapsed:.4f}", file=out, flush=True)
    except OSError:
        pass  # the log was closed; the exit status still says the result
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    except Failure as failure:
        log.error(str(failure))
        status = 1
    os._exit(status)  # at once, although threads may still wait
