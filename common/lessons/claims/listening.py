"""Claims about listening, connecting, accepting, and port numbers."""

import contextlib
import errno
import os
import select
import socket
import time

from . import Figure, claim
from .lab import NEVER, PATIENCE, greet, until

MANY = 20


def _connect_many(lab, address, count):
    """How many of this many clients are connected soon."""
    connected, poll = 0, select.poll()
    for _ in range(count):
        sock = lab.keep(socket.socket())
        sock.setblocking(False)
        sock.connect_ex(address)
        poll.register(sock, select.POLLOUT)
    deadline = time.monotonic() + NEVER
    while connected < count and time.monotonic() < deadline:
        for number, events in poll.poll(NEVER * 1000):
            poll.unregister(number)
            connected += not events & (select.POLLERR | select.POLLHUP)
    return connected


@claim("A busy server refuses connections.", "folklore",
       "The kernel completes the connection, and keeps it in the accept queue. The client "
       "waits there. Refused means that nobody listens.",
       "a server that closes its listening socket while it serves")
def busy_servers_refuse(lab):
    if lab.doctored:
        listener = lab.listener()
        lab.connect(listener)
        lab.keep(listener.accept()[0])
        address = listener.getsockname()
        listener.close()
    else:
        server = lab.server("step1", "--quiet")
        greet(lab.connect(server))          # keeps a sequential server busy
        address = server.address
    refused = 0
    for _ in range(5):
        sock = lab.keep(socket.socket())
        refused += sock.connect_ex(address) == errno.ECONNREFUSED
    lab.show(f"{refused} of 5 connects fail: Connection refused")
    return [Figure("connections refused by a busy server, of 5", refused, low=5)]


def _holds_connection(pid, server_port, client_port):
    """Whether a descriptor of the process is the server's end of this connection."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    with open("/proc/net/tcp", encoding="ascii") as table:
        for fields in map(str.split, list(table)[1:]):
            if fields[1].endswith(f":{server_port:04X}") \
                    and fields[2].endswith(f":{client_port:04X}"):
                return f"socket:[{fields[9]}]" in inodes
    return False


@claim("listen(fd, 5) limits a server to five clients.", "tutorials",
       "The backlog bounds only those connections that are not yet accepted.",
       "a server that never calls accept")
def backlog_limits_clients(lab):
    listener = lab.listener(backlog=5)
    count = 0
    if lab.doctored:
        count = _connect_many(lab, listener.getsockname(), MANY)
    else:
        for _ in range(MANY):
            lab.connect(listener)
            lab.keep(listener.accept()[0])
            count += 1
    lab.show(f"backlog 5: {count} of {MANY} clients are connected at the same time")
    return [Figure("connected at the same time, with a backlog of 5", count, "clients",
                   high=6)]         # the kernel keeps one more


@claim("accept turns the listening socket into the connection.", "misread tutorials",
       "accept returns a second socket. The listening one never carries a byte, and goes on "
       "listening.",
       "a UDP server that connects its only socket to the first peer")
def one_socket_for_both(lab):
    if lab.doctored:
        server, client = (lab.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                          for _ in range(2))
        server.bind(("127.0.0.1", 0))
        client.sendto(b"first", server.getsockname())
        server.connect(server.recvfrom(10)[1])
        sockets = {os.fstat(server.fileno()).st_ino}
    else:
        listener = lab.listener()
        lab.connect(listener)
        accepted = lab.keep(listener.accept()[0])
        sockets = {os.fstat(each.fileno()).st_ino for each in (listener, accepted)}
    lab.show(f"sockets of the server: {sorted(sockets)}")
    return [Figure("sockets of a server with one client", len(sockets), high=1)]


@claim("SO_REUSEADDR lets another program steal a port.", "Windows, where it does",
       "On Linux no second socket may listen at the port while one does. SO_REUSEPORT allows "
       "it, if both sockets set it and belong to the same user.",
       "SO_REUSEPORT on both sockets")
def so_reuseaddr_steals(lab):
    option = lab.either(socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    stolen, address = 0, ("127.0.0.1", 0)
    for _ in range(2):
        sock = lab.keep(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        with contextlib.suppress(OSError):
            sock.bind(address)
            sock.listen()
            stolen += address[1] != 0
            address = sock.getsockname()
    lab.show(f"second sockets that listen at the same port: {stolen}")
    return [Figure("sockets that took over a port where another one listens", stolen, low=1)]


@claim("A server can be started again at once without SO_REUSEADDR.", "folklore",
       "The side that closes first keeps the connection in TIME_WAIT for a minute. If that is "
       "the server, its port is in use. SO_REUSEADDR ignores such connections.",
       "a server that sets SO_REUSEADDR", on="which side closed first")
def restart_needs_no_option(lab):
    def restarts(server_first):
        listener = lab.keep(socket.socket())
        if lab.doctored:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        client = lab.connect(listener)
        accepted = listener.accept()[0]
        for each in (accepted, client) if server_first else (client, accepted):
            each.close()
            time.sleep(NEVER / 5)
        listener.close()
        again = lab.keep(socket.socket())
        if lab.doctored:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            again.bind(address)
            return 1
        except OSError as error:
            lab.show(f"bind: {error.strerror}")
            return 0
    return [Figure("second starts, if the client closed first", restarts(False), low=1),
            Figure("second starts, if the server closed first", restarts(True), low=1)]


@claim("One new connection wakes all processes that wait for it.", "the thundering herd",
       "The kernel wakes one of the processes that sleep in accept. But poll and select "
       "wake them all, and so does epoll if each has its own: the listener is ready for all.",
       "processes that all sleep in accept", on="the call in which they sleep")
def connections_wake_all(lab):
    def woken(wait_in_poll):
        listener = lab.listener()
        listener.settimeout(None)
        reading, writing = os.pipe()
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                try:
                    if wait_in_poll:
                        poll = select.poll()
                        poll.register(listener, select.POLLIN)
                        poll.poll()
                    else:
                        listener.accept()
                    os.write(writing, b".")
                    time.sleep(PATIENCE)
                finally:
                    os._exit(0)
            children.append(child)
        try:
            until(lambda: all(_state(child) == "S" for child in children))
            lab.connect(listener)
            count = len(read_within(reading, NEVER))
        finally:
            for child in children:
                os.kill(child, 9)
                os.waitpid(child, 0)
            os.close(reading)
            os.close(writing)
        lab.show(f"4 processes in {'poll' if wait_in_poll else 'accept'}: {count} are woken")
        return count
    return [Figure("woken of 4 in accept", woken(False), low=4),
            Figure("woken of 4 in poll", woken(not lab.doctored), low=4)]


def _state(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0]


def read_within(reading, seconds):
    """What a pipe has got after this time."""
    time.sleep(seconds)
    os.set_blocking(reading, False)
    with contextlib.suppress(BlockingIOError):
        return os.read(reading, 100)
    return b""
