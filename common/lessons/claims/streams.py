"""Claims about bytes on their way, and about how a connection ends."""

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time

from . import Figure, claim
from .lab import NEVER, arrived, greet, read_exactly, read_to_end, until


@claim("One send arrives as one recv.", "tutorials, first chat servers",
       "TCP carries a stream of bytes. It keeps their order, but not where a send ended.",
       "a Unix socket of type SOCK_SEQPACKET, which keeps messages apart")
def one_send_is_one_recv(lab):
    def packets():
        return lab.unix_pair(socket.SOCK_SEQPACKET)
    client, server = lab.either(lab.tcp_pair, packets)()
    client.send(b"abc")
    client.send(b"def")
    arrived(server, 3 if lab.doctored else 6)
    got = len(server.recv(100))
    lab.show(f"send 3 bytes, send 3 bytes: recv returned {got}")
    return [Figure("the first recv after two sends of 3 bytes returned", got, "bytes", high=3)]


@claim("send has returned, so the data has arrived.", "folklore",
       "send returns when the kernel has a copy. Only an answer of the other program shows "
       "that it has read the data.",
       "a send that waits for an answer of the other program")
def send_returned_so_it_arrived(lab):
    client, server = lab.tcp_pair()
    received = []

    def receive():
        received.append(len(read_exactly(server, 1000)))
        server.sendall(b"+")
    reader = threading.Thread(target=receive)
    if lab.doctored:
        reader.start()
    client.sendall(b"x" * 1000)
    if lab.doctored:
        client.recv(1)
        reader.join()
    there = sum(received)
    lab.show(f"send(1000) returned; the receiving program has {there} bytes, "
             f"and never called recv before")
    return [Figure("bytes that the receiver had read when send of 1,000 bytes returned", there,
                   low=1000)]


def _bytes_that_survive_close(lab, unread_byte):
    """Percent of the bytes sent before close, as a client finds that reads afterwards."""
    client, server = lab.tcp_pair()
    if unread_byte:
        client.sendall(b"?")
        arrived(server, 1)
    server.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 64 << 20:
            sent += server.send(b"x" * (1 << 16))
    server.setblocking(True)
    if lab.doctored:        # the careful end: no more to send, then read until the end
        server.shutdown(socket.SHUT_WR)
        result = []
        reader = threading.Thread(target=lambda: result.append(read_to_end(client)))
        reader.start()
        reader.join()
        client.close()
        read_to_end(server)
        received, error = result[0]
    else:
        server.close()
        received, error = read_to_end(client)
    lab.show(f"{'one byte unread' if unread_byte else 'nothing unread'}: sent {sent}, "
             f"close, received {received} {error}")
    return 100 * received / sent


@claim("close sends everything that was written.", "folklore",
       "The kernel goes on sending after close. But if close finds unread bytes in the receive "
       "buffer, it sends a reset, and drops what was still to be sent.",
       "shutdown(SHUT_WR), then recv until the end, then close",
       on="whether all input was read before")
def close_sends_everything(lab):
    return [Figure("arrived, if all input was read before close",
                   _bytes_that_survive_close(lab, False), "%", low=100),
            Figure("arrived, if one byte of input was unread",
                   _bytes_that_survive_close(lab, True), "%", low=100, slack=75)]


@claim("After shutdown(SHUT_WR) a connection is over.", "folklore",
       "It ends one direction. The other direction stays open: a half-close.",
       "a program that calls close instead of shutdown")
def half_closed_means_closed(lab):
    server = lab.server("step6", "--quiet")
    client = greet(lab.connect(server))
    client.sendall(b"^abc$")
    got = 0
    if lab.doctored:
        client.close()
        with contextlib.suppress(OSError):
            got = len(client.recv(100))
    else:
        client.shutdown(socket.SHUT_WR)
        got, _ = read_to_end(client)
    lab.show(f"sent ^abc$, {lab.either('shutdown(SHUT_WR)', 'close')}, received {got} bytes")
    return [Figure("answers of 3 bytes received after it", got, "bytes", high=0)]


@claim("recv returns 0 when there is nothing to read.", "non-blocking programs of beginners",
       "0 is the end of the stream. An idle socket gives -1 and EAGAIN, or sleeps.",
       "read of a regular file, which does return 0 when there is nothing more")
def recv_of_nothing_is_0(lab):
    client, server = lab.tcp_pair()
    server.setblocking(False)
    nothing = lab.keep(tempfile.TemporaryFile(buffering=0))
    try:
        got = len(nothing.read(10) if lab.doctored else server.recv(10))
    except BlockingIOError:
        got = -1
    lab.show(f"nothing to read: {got}")
    client.close()
    until(lambda: server.recv(10, socket.MSG_PEEK) == b"") if not lab.doctored else None
    return [Figure("the call returned", got, low=0, high=0)]


@claim("SIGPIPE only hits pipes.", "folklore; the signal's name",
       "A send to a connection that the other side has closed raises it, too. The default "
       "action ends the process.",
       "send with MSG_NOSIGNAL: then an error is all")
def sigpipe_only_hits_pipes(lab):
    client, server = lab.tcp_pair()
    flags = lab.either(0, socket.MSG_NOSIGNAL)

    def write_on():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)   # Python ignores it otherwise
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):
                server.send(b"x", flags)
                time.sleep(0.002)
        return 0
    client.close()
    ended = int(lab.in_child(write_on))
    lab.show(f"send to a socket whose peer has closed: the process ended by signal {ended}")
    return [Figure("the signal that ended a program that sent to a closed connection",
                   ended, high=0)]


@claim("close tells the other side that the connection ends.", "folklore",
       "The connection ends when the last descriptor of it is closed. A process that was "
       "forked may hold a copy.",
       "shutdown, which ends the connection for all its descriptors",
       on="whether another process holds a copy")
def close_ends_a_connection(lab):
    def seen(copies):
        client, server = lab.tcp_pair()
        copy = os.dup(server.fileno()) if copies else None
        if lab.doctored:
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        client.settimeout(NEVER)
        try:
            ended = client.recv(1) == b""
        except socket.timeout:
            ended = False
        if copy is not None:
            os.close(copy)
        lab.show(f"{copies} copies: the other side {'sees' if ended else 'does not see'} the "
                 "end")
        return int(ended)
    return [Figure("ends seen, without a copy", seen(0), low=1),
            Figure("ends seen, with a copy", seen(1), low=1)]


@claim("Nagle's algorithm does not matter today.", "folklore",
       "It delays a small send while an earlier one is not acknowledged. Together with delayed "
       "acknowledgements, two small sends and a wait for the answer take 40 ms.",
       "TCP_NODELAY on the sending side", on="whether a request is sent in parts", slow=True)
def nagle_does_not_matter(lab):
    def milliseconds(parts):
        client, server = lab.tcp_pair()
        if lab.doctored:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def answer():
            with contextlib.suppress(OSError):
                while len(read_exactly(server, 2)) == 2:
                    server.sendall(b"!")
        thread = threading.Thread(target=answer)
        thread.start()
        times = []
        for _ in range(20):
            began = time.perf_counter()
            for part in parts:
                client.send(part)
            client.recv(1)
            times.append(time.perf_counter() - began)
        client.close()
        thread.join()
        lab.show(f"{len(parts)} sends a request: " + " ".join(
            f"{each * 1000:.2f}" for each in times) + " ms")
        return sorted(times)[-4] * 1000     # the first ones are acknowledged at once
    return [Figure("a request in one send", milliseconds([b"ab"]), "ms", high=20, slack=10),
            Figure("a request in two sends", milliseconds([b"a", b"b"]), "ms", high=20,
                   within=2, slack=10)]
