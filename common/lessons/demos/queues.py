#!/usr/bin/env python3
"""The four queues of a TCP server, as the kernel counts them: lesson 2. Linux only.

    common/lessons/demos/queues.py

Asks the kernel after each call (getsockopt TCP_INFO, ioctl, /proc/net/tcp). A listener has a
SYN queue and an accept queue; a connection has a receive buffer and a send buffer.
"""

import argparse
import array
import contextlib
import fcntl
import pathlib
import select
import socket
import sys
import termios
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "clients"))

from lib.processes import program   # noqa: E402

STATES = {1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2",
          6: "TIME_WAIT", 7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN",
          11: "CLOSING", 12: "NEW_SYN_RECV"}
PATIENCE = 5        # seconds for what happens at once on a machine that is not busy


def tcp_info(sock, offset):
    """One field of getsockopt(TCP_INFO): see tcp(7) and linux/tcp.h."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return info[0] if offset == 0 else int.from_bytes(info[offset:offset + 4], sys.byteorder)


def state_of(sock):
    return STATES[tcp_info(sock, 0)]


def accept_queue(listener):
    return tcp_info(listener, 24)   # tcpi_unacked, which a listener uses for this


def queued(sock, request):
    size = array.array("i", [0])
    fcntl.ioctl(sock, request, size)
    return size[0]


def buffers(client, server):
    """(bytes in the client's send buffer, bytes in the server's receive buffer)"""
    return queued(client, termios.TIOCOUTQ), queued(server, termios.FIONREAD)


def state_without_descriptor(port, remote):
    """What is left of a socket that was closed; "none" if nothing is."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in file:
            if f":{port:04X}" in line and f":{remote:04X}" in line:
                _, local, other, state, *_ = line.split()
                if local.endswith(f":{port:04X}") and other.endswith(f":{remote:04X}"):
                    return STATES[int(state, 16)]
    return "none"


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("queues.py: the kernel does not show what was expected")
        time.sleep(0.002)


def the_listener(keep):
    """Five clients connect to a listener with backlog 2, which does not accept yet."""
    listener = keep(socket.create_server(("127.0.0.1", 0), backlog=2))
    port = listener.getsockname()[1]
    clients = [keep(socket.socket()) for _ in range(5)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
    wait_until(lambda: accept_queue(listener) == 3)

    def row(what):
        states = [state_of(client) for client in clients]
        print(f"  {what:42}{states.count('ESTABLISHED'):8}{states.count('SYN_SENT'):10}"
              f"{accept_queue(listener):14}")
    print("A listener: listen(fd, 2), and five clients connect")
    print(f"  {'':42}{'connected':>9}{'SYN_SENT':>9}{'accept queue':>14}")
    row("no accept so far")
    accepted = keep(listener.accept()[0])
    row("after one accept")
    wait_until(lambda: accept_queue(listener) == 3)
    row("one second later: SYN sent again")
    print(f"  listener: descriptor {listener.fileno()}, port {port}; "
          f"connection: descriptor {accepted.fileno()}, port {accepted.getsockname()[1]}")
    for client in clients:
        client.close()


def connection(keep):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = keep(socket.create_connection(listener.getsockname(), PATIENCE))
        server = keep(listener.accept()[0])
    return client, server


def the_connection(keep):
    client, server = connection(keep)

    def row(what, result):
        print(f"  {what:34}{result:>10}{buffers(client, server)[0]:>16}"
              f"{buffers(client, server)[1]:>18}")
    print("\nA connection: the server does not read at first")
    print(f"  {'':34}{'returned':>10}{'send buffer':>16}{'receive buffer':>18}\n"
          f"  {'':34}{'':10}{'of the client':>16}{'of the server':>18}")
    sent = client.send(bytes(1000))
    wait_until(lambda: buffers(client, server) == (0, 1000))
    row("client: send(1000 bytes)", sent)
    row("server: recv(at most 400 bytes)", len(server.recv(400)))
    client.setblocking(False)
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += client.send(bytes(1 << 16))
            select.select([], [client], [], 0.05)   # the kernel moves bytes to the other side
    row("client: send until EAGAIN", total)
    taken = 0
    while taken < total + 600:
        taken += len(server.recv(1 << 20))
    wait_until(lambda: buffers(client, server) == (0, 0))
    row("server: recv until all is there", taken)


def outcome(client):
    try:
        data = client.recv(100)
        return f"recv returns {len(data)}" + (": the end" if not data else " bytes")
    except ConnectionResetError:
        return "recv fails: ECONNRESET"


def the_end(keep):
    print("\nThe end: the server calls close first")
    print(f"  {'':34}{'the client sees':>24}{'server side':>14}{'client side':>14}")
    for unread in 0, 5:
        client, server = connection(keep)
        ports = client.getsockname()[1], server.getsockname()[1]
        if unread:
            client.send(bytes(unread))
            wait_until(lambda: buffers(client, server) == (0, unread))
        server.close()
        seen = outcome(client)
        client.close()
        end = "none" if unread else "TIME_WAIT"
        wait_until(lambda: state_without_descriptor(*reversed(ports)) == end
                   and state_without_descriptor(*ports) == "none")
        print(f"  {f'close with {unread} bytes unread':34}{seen:>24}{end:>14}{'none':>14}")


def main():
    argparse.ArgumentParser(description="Shows the four queues of a TCP server.").parse_args()
    if not sys.platform.startswith("linux"):
        print("skip  queues.py: it needs Linux")
        return
    with contextlib.ExitStack() as kept:
        for part in the_listener, the_connection, the_end:
            part(kept.enter_context)


if __name__ == "__main__":
    program(main, "queues.py")
