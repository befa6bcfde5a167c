#!/usr/bin/env python3
"""A correct echo server: what every case of check-server.py must accept.

It keeps all promises in the plainest way; broken.py derives from it, one bug at a time.
"""

import argparse
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import termios
import time
from collections import OrderedDict

LINGER = 0.05   # seconds without activity after which a client is closed at the stop
CHUNK = 64 * 1024
NAME = "server"
ACCEPT_AGAIN = {errno.EINTR, errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN,
                errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET, errno.EHOSTUNREACH,
                errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EAGAIN}
COUNTERS = """accept_calls recv_calls recv_again send_calls send_short send_again wait_calls
    wait_events descriptors_scanned interest_changes threads_created threads_max clients_served
    clients_rejected clients_refused clients_max
    bytes_in bytes_out cpu_user_seconds cpu_system_seconds
    voluntary_switches involuntary_switches peak_rss_bytes""".split()
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Conn:
    """One client: where it is in the protocol, and its unsent answers."""

    def __init__(self, sock, peer):
        self.sock = sock
        self.peer = peer
        self.inside = False
        self.unsent = b""
        self.ended = False      # it will send no more
        self.sendq = 0          # bytes its kernel had not taken when it was last active

    def feed(self, data):
        """The answers to what came, a span at a time."""
        answer = []
        at = 0
        while at < len(data):
            mark = data.find(b"$" if self.inside else b"^", at)
            end = mark if mark >= 0 else len(data)
            if self.inside:
                answer.append(data[at:end].translate(self.table))
            if mark >= 0:
                self.inside = not self.inside
            at = end + 1
        return b"".join(answer)

    table = bytes((byte + 1) % 256 for byte in range(256))


class Server:
    conn_class = Conn
    greeting = b"*"
    backlog = 4096
    accept_burst = 100

    def __init__(self, options):
        self.options = options
        self.conns = OrderedDict()      # by time of the last byte from each, oldest first
        self.selector = selectors.DefaultSelector()
        self.scratch = memoryview(bytearray(CHUNK))     # what arrives, from any client
        self.stopping = self.report_wanted = False
        self.rejection_said = float("-inf")
        self.report_lost = False
        self.counters = dict.fromkeys(COUNTERS, 0)

    # Starting.

    def open_stats(self):
        if self.options.stats:
            self.stats_file = (os.fdopen(os.dup(1), "w") if self.options.stats == "-"
                               else open(self.options.stats, "w", encoding="utf-8",
                                         opener=open_at_once))

    @staticmethod
    def explain(message):
        """What a usage error says before the usage."""
        return message

    @staticmethod
    def fail(what, error):
        sys.stderr.write(f"{NAME}: {what}: {error.strerror or error}\n")
        return 1

    def listen(self):
        host = self.options.bind
        infos = socket.getaddrinfo(host, self.options.port, type=socket.SOCK_STREAM,
                                   flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = infos[0]
        self.listener = socket.socket(family, kind, proto)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(address)
        self.listener.listen(self.backlog)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept_clients)
        self.spare = os.dup(0)

    def announce(self):
        host, port = self.listener.getsockname()[:2]
        self.say(f"Listening on {f'[{host}]' if ':' in host else host}:{port}")
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if most < 1024:
            self.say(f"{NAME}: room for {most - self.listener.fileno() - 5} clients only "
                     f"(open files are limited to {most})")

    def say(self, line):
        """A log line is never worth a client: drop it if it cannot go at once."""
        ready = select.poll()
        ready.register(1, select.POLLOUT)
        try:
            if ready.poll(0) == [(1, select.POLLOUT)]:
                os.write(1, (line + "\n").encode())
        except OSError:
            pass

    # Running.

    def catch_signals(self):
        self.wake, self.wake_writer = socket.socketpair()
        self.wake.setblocking(False)
        self.wake_writer.setblocking(False)
        self.selector.register(self.wake, selectors.EVENT_READ, self.drain_wake)
        signal.set_wakeup_fd(self.wake_writer.fileno(), warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self.stop)
        self.unblock_signals()
        signal.signal(signal.SIGUSR1, self.want_report)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)   # exec hands down those set before
        if os.isatty(1):    # with room for a byte it is called writable: open it for ourselves
            os.dup2(os.open(os.ttyname(1), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY), 1)

    def unblock_signals(self):
        """The program that started us may have blocked them."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())

    def run(self):
        while not self.stopping:
            for key, mask in self.selector.select(self.timeout()):
                if isinstance(key.data, Conn):
                    self.pump(key.data, mask)
                else:
                    key.data()
            self.close_idle()
            if self.report_wanted:
                self.report_wanted = False
                self.write_stats()
        self.finish()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(signum, signal.SIG_IGN)   # Python's own end puts back the default

    def want_report(self, *_):
        self.report_wanted = True   # it is not written here: another may come in mid-writing

    def stop(self, signum, _):
        if self.stopping and signum == signal.SIGINT:
            os._exit(0)
        self.stopping = True

    def drain_wake(self):
        self.wake.recv(4096)

    def timeout(self):
        if not self.options.idle_timeout or not self.conns:
            return None
        oldest = next(iter(self.conns.values()))
        return max(0.0, oldest + self.options.idle_timeout - time.monotonic())

    def close_idle(self):
        while self.timeout() == 0.0:
            conn = next(iter(self.conns))
            if self.has_moved(conn):
                self.is_active(conn)
            else:
                self.drop(conn)

    def has_moved(self, conn):
        """A client that takes answers is active, although it may take too little for us to send
        more. So is one with unread input, which may have come while we could not run."""
        return send_queue(conn.sock) < conn.sendq if conn.unsent else readable(conn.sock)

    def is_active(self, conn):
        self.conns[conn] = time.monotonic()
        self.conns.move_to_end(conn)
        conn.sendq = send_queue(conn.sock)

    # Clients.

    def accept_clients(self):
        for _ in range(self.accept_burst):
            try:
                sock, peer = self.listener.accept()
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self.reject_by_spare()
                elif error.errno not in ACCEPT_AGAIN:
                    time.sleep(0.01)    # it may last (EPERM), so do not spin
                return
            try:
                self.admit(sock, peer)
            except (OSError, MemoryError):
                sock.close()

    def reject_by_spare(self):
        """Out of descriptors: close the reserved one, to accept the connection and close it."""
        os.close(self.spare)
        try:
            sock, peer = self.listener.accept()
            sock.close()
            self.rejected(peer, "no descriptor left")
        except OSError:
            time.sleep(0.01)    # it saw nobody, so it rejected nobody
        self.spare = os.dup(0)

    def admit(self, sock, peer):
        if self.options.max_clients and len(self.conns) >= self.options.max_clients:
            sock.close()
            self.rejected(peer, "at --max-clients")
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn = self.conn_class(sock, peer)
        conn.unsent = self.greeting
        self.selector.register(sock, selectors.EVENT_READ, conn)
        self.conns[conn] = time.monotonic()
        self.counters["clients_served"] += 1
        self.counters["clients_max"] = max(self.counters["clients_max"], len(self.conns))
        self.say_of(conn, "connected")
        self.pump(conn, selectors.EVENT_WRITE)

    def rejected(self, peer, why):
        self.counters["clients_rejected"] += 1
        self.counters["clients_refused"] += 1
        if time.monotonic() - self.rejection_said > 1.0:
            self.say(f"peer {peer[:2]} rejected: {why}")
            self.rejection_said = time.monotonic()

    def pump(self, conn, mask):
        """One client's turn: one read at most, and none while answers are unsent."""
        if conn not in self.conns:
            return
        try:
            if mask & selectors.EVENT_READ and not conn.unsent:
                self.read(conn)
            self.write(conn)
            if conn.ended and not conn.unsent:
                self.end(conn)
                return
            self.selector.modify(conn.sock, selectors.EVENT_WRITE if conn.unsent
                                 else selectors.EVENT_READ, conn)
        except (OSError, MemoryError) as error:
            self.lost(conn, error)      # it costs this client only

    def read(self, conn):
        try:
            data = bytes(self.scratch[:conn.sock.recv_into(self.scratch)])
        except BlockingIOError:
            return
        if data:
            self.counters["bytes_in"] += len(data)
            self.is_active(conn)
            conn.unsent = conn.feed(data)
        else:
            conn.ended = True

    def write(self, conn):
        if conn.unsent:
            try:
                sent = conn.sock.send(conn.unsent)
            except BlockingIOError:
                return
            conn.unsent = conn.unsent[sent:]
            self.counters["bytes_out"] += sent
            self.is_active(conn)

    def end(self, conn):
        """It sends no more, and all its answers are sent."""
        self.drop(conn)

    def lost(self, conn, error):
        self.drop(conn)

    def drop(self, conn):
        del self.conns[conn]
        self.selector.unregister(conn.sock)
        conn.sock.close()
        self.say_of(conn, "disconnected")

    def say_of(self, conn, what):
        if not self.options.quiet:
            self.say(f"peer {conn.peer[:2]} {what}")

    # Stopping.

    def finish(self):
        """Serve clients that still send, and send answers to those that read. The others have a
        second."""
        self.selector.unregister(self.listener)
        self.listener.close()
        began = time.monotonic()
        while self.conns and time.monotonic() < began + 1.0:
            for key, mask in self.selector.select(0.01):
                if isinstance(key.data, Conn):
                    self.pump(key.data, mask)
                else:
                    key.data()
            for conn in list(self.conns):
                if self.has_finished(conn, began):
                    self.drop(conn)
        for conn in list(self.conns):
            self.drop(conn)
        self.write_stats()

    def has_finished(self, conn, began):
        """To close with unread input would be a reset."""
        return (time.monotonic() - max(self.conns[conn], began) > LINGER and not conn.unsent
                and send_queue(conn.sock) == 0 and not readable(conn.sock))

    def write_stats(self):
        if self.options.stats:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            self.counters.update({
                "threads_max": 1, "cpu_user_seconds": usage.ru_utime,
                "cpu_system_seconds": usage.ru_stime,
                "peak_rss_bytes": usage.ru_maxrss * 1024})
            try:
                again = os.path.isfile(self.options.stats)  # a second replaces the first
                if again:
                    self.stats_file.seek(0)
                self.stats_file.write(json.dumps(self.counters) + "\n")
                self.stats_file.flush()
                if again:
                    self.stats_file.truncate()
            except OSError as error:
                self.report_lost = self.fail(f"cannot write {self.options.stats}", error)


def readable(sock):
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def send_queue(sock):
    """How many bytes that were sent the other side's kernel has not taken yet."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]


def open_at_once(path, flags):
    """A fifo without a reader is an error, and not to be waited for."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def port_number(text):
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"not a port: {text!r}")
    return number


def positive(text):
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number < 1 << 31:
        raise argparse.ArgumentTypeError(f"not a positive number: {text!r}")
    return number


def seconds(text):
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"not a time in seconds: {text!r}")
    return number


class Parser(argparse.ArgumentParser):
    def _print_message(self, message, file=None):
        """As usual, but it reports when it fails."""
        (file or sys.stderr).write(message)
        (file or sys.stderr).flush()

    def error(self, message):
        """What is wrong comes first, before the usage."""
        self.exit(2, f"{self.prog}: {self.explain(message)}\n{self.format_usage()}")


def word(text):
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def parser(explain):
    command = Parser(prog=NAME, allow_abbrev=False)
    command.explain = explain
    add = command.add_argument
    add("-p", "--port", type=port_number, default=8080)
    add("-b", "--bind", type=word, default="127.0.0.1")
    add("-m", "--max-clients", type=positive)
    add("-q", "--quiet", action="store_true")
    add("-s", "--stats", type=word)
    add("-i", "--idle-timeout", type=seconds)
    add("-V", "--version", action="version", version=NAME + " 1.0")
    add("positional", metavar="PORT", nargs="?", type=port_number)
    return command


def fill_standard_descriptors():
    """They may be missing: a client must never become standard output. So may /dev/null."""
    while True:
        try:
            descriptor = os.open(os.devnull, os.O_RDWR)
        except OSError:
            descriptor = socket.socket().detach()
        if descriptor > 2:
            os.close(descriptor)
            return


def give_memory_back():
    """Makes glibc map each large block by itself, and return it once it is freed: else what a
    busy client leaves on the heap looks as if the next one cost it."""
    mmap_threshold = -3
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(mmap_threshold, CHUNK // 2)


def main(server_class=Server, arguments=None):
    fill_standard_descriptors()
    give_memory_back()
    try:
        options = parser(server_class.explain).parse_args(arguments)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)    # what is unwritten is tried again
        return server_class.fail("cannot write to standard output", error)
    if options.positional is not None:
        options.port = options.positional
    server = server_class(options)
    try:
        what = f"cannot write {options.stats}"
        server.open_stats()
        what = f"cannot listen on {options.bind}:{options.port}"
        server.listen()
    except (OSError, UnicodeError) as error:
        return server.fail(what, error)
    server.catch_signals()
    server.announce()
    server.run()
    return 1 if server.report_lost else 0


if __name__ == "__main__":
    sys.exit(main())
