"""Claims about bytes on their way, and about how a connection ends."""

import contextlib
import os
import signal
import socket
import threading
import time

from . import Figure, claim
from .lab import NEVER, arrived, greet, read_exactly, read_to_end, unread, until


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


@claim("recv fills the buffer that it is given.", "programs that forget the loop",
       "recv returns what is there now. Only 0 means that no more will come.",
       "recv with MSG_WAITALL")
def recv_fills_its_buffer(lab):
    client, server = lab.tcp_pair()
    client.sendall(b"first")
    arrived(server, 5)
    later = threading.Timer(NEVER, client.sendall, [b"and the rest "[:11]])
    later.start()
    got = len(server.recv(16, lab.either(0, socket.MSG_WAITALL)))
    later.join()
    lab.show(f"16 bytes come in two parts: recv(16) returned {got}")
    return [Figure("recv(16) returned, while 5 of 16 bytes were there,", got, "bytes", low=16)]


@claim("send has returned, so the data has arrived.", "folklore",
       "send returns when the kernel has a copy. Only an answer of the other program shows that "
       "it has read the data.",
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
    """Percent of what was sent before close, seen by a client that reads afterwards."""
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
    nothing = lab.keep(open(os.devnull, "rb", buffering=0))
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


@claim("send fails as soon as the other side has closed.", "folklore",
       "The first send is accepted. The other side answers it with a reset, and the send after "
       "that one fails.",
       "a Unix socket, whose both ends are in one kernel")
def send_fails_at_once(lab):
    client, server = lab.either(lab.tcp_pair, lab.unix_pair)()
    client.close()
    count = 0
    with contextlib.suppress(OSError):
        for _ in range(50):
            server.send(b"x")
            count += 1
            time.sleep(0.005)
    lab.show(f"{count} sends were accepted after the peer had closed")
    return [Figure("sends accepted after the other side had closed", count, high=0)]


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


@claim("A socket that is writable takes whatever is sent.", "folklore",
       "Writable means that some room is there. A larger send blocks, or a non-blocking one "
       "takes a part.",
       "a message of 1,000 bytes, which fits into the empty send buffer")
def writable_takes_all(lab):
    client, _ = lab.tcp_pair()
    wanted = lab.either(64 << 20, 1000)
    took = client.send(b"x" * wanted, socket.MSG_DONTWAIT)
    lab.show(f"send of {wanted} bytes took {took}")
    return [Figure("taken at once of a large message", 100 * took / wanted, "%", low=100,
                   within=10)]


@claim("setsockopt(SO_RCVBUF, n) gives a buffer of n bytes.", "tuning guides",
       "Linux doubles the number, for its own bookkeeping (socket(7)).",
       "SO_RCVLOWAT, which is taken as it is")
def so_rcvbuf_is_exact(lab):
    client, _ = lab.tcp_pair()
    option = lab.either(socket.SO_RCVBUF, socket.SO_RCVLOWAT)
    client.setsockopt(socket.SOL_SOCKET, option, 10000)
    got = client.getsockopt(socket.SOL_SOCKET, option)
    lab.show(f"set 10000, got {got}")
    return [Figure("set to 10,000, it is", got, "bytes", high=10000)]


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


@claim("An idle TCP connection sends packets now and then.", "folklore",
       "It sends nothing. A peer that vanished without a word is not noticed. Keep-alive is an "
       "option, and waits two hours by default.",
       "a program that sends a byte every few milliseconds")
def idle_connections_send(lab):
    client, _ = lab.tcp_pair()

    def segments():
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int.from_bytes(info[136:140], "little") if len(info) >= 140 else 0
    before = segments()
    for _ in range(10):
        time.sleep(NEVER / 5)
        if lab.doctored:
            client.send(b".")
    count = segments() - before
    lab.show(f"{count} segments sent in {2 * NEVER} s")
    return [Figure("packets sent while idle", count, low=1)]


@claim("A client that sends can be sure that somebody reads.", "folklore",
       "The kernel takes the bytes into two buffers, even if the server never calls accept.",
       "a client that waits for the answer to each message before it sends on")
def bytes_are_read_at_once(lab):
    listener = lab.listener()
    client = lab.connect(listener)
    client.settimeout(NEVER)
    sent = 0
    with contextlib.suppress(socket.timeout):
        for _ in range(100):
            if lab.doctored:
                client.recv(1)          # the greeting that a server of this course sends
            sent += client.send(b"x" * 100)
    lab.show(f"nobody called accept; {sent} bytes are sent; unread by the client: "
             f"{unread(client)}")
    return [Figure("bytes sent to a server that never calls accept", sent, high=0)]
