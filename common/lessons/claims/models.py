"""Claims about the servers of this course, decided by what they count."""

import contextlib
import os
import socket
import threading

from . import Figure, claim
from .lab import NEVER, figures, greet, raise_limit, read_exactly, talk

ROUNDS = 200         # messages that one client sends


def _calls_per_message(lab, name, clients, rounds, arguments=()):
    """Waits, recvs and sends, divided by the messages of this many clients."""
    server = lab.counted_server(name, *arguments)
    sockets = [greet(lab.connect(server)) for _ in range(clients)]
    for _ in range(rounds):
        for sock in sockets:        # all at once, so that one wait may report several
            sock.sendall(b"^abc$")
        for sock in sockets:
            read_exactly(sock, 3)
    counters = server.finish()
    calls = sum(counters[key] for key in ("wait_calls", "recv_calls", "send_calls"))
    return calls / (rounds * clients)


@claim("epoll makes fewer system calls than select.", "folklore; lecture notes",
       "Both make a wait, a recv and a send for a message. They differ in the price of the "
       "wait. A wait with several ready clients saves calls in both.",
       "step 4, which asks each client in turn, in the place of select", slow=True)
def epoll_makes_fewer_calls(lab):
    other = lab.either("step5", "step4")
    pause = ("--interval-ms", "0") if lab.doctored else ()
    result = []
    for what, clients, rounds in ("one client", 1, ROUNDS), ("100 clients", 100, ROUNDS // 20):
        epoll = _calls_per_message(lab, "step6", clients, rounds)
        select = _calls_per_message(lab, other, clients, rounds, pause)
        lab.show(f"{what}: {epoll:.2f} calls a message with epoll, {select:.2f} with the other")
        result += [Figure(f"{what}, calls for a message with epoll", epoll, within=1.5),
                   Figure("with select", select, within=1.5),
                   Figure("ratio", epoll / select, high=0.7, within=1.5)]
    return result


@claim("select solves C10k: it serves tens of thousands of clients.", "lecture notes",
       "It serves as many as there are descriptors with numbers below 1,024. Step 5 rejects "
       "the others.",
       "poll, with the same loop", slow=True)
def select_solves_c10k(lab):
    raise_limit(3000)
    server = lab.server(lab.either("step5", "step5/poll"), "--quiet")
    served, clients = 0, [lab.connect(server) for _ in range(1100)]
    for sock in clients:
        with contextlib.suppress(ConnectionResetError):
            served += sock.recv(1) == b"*"
    lab.show(f"1,100 clients at the same time: {served} are served")
    return [Figure("clients served at the same time, of 1,100", served, low=1100, slack=10)]


@claim("A client that does not read harms only itself.", "folklore",
       "It holds up whatever thread sends to it. A server with one blocking call for all "
       "clients stands still. One with an object for each client goes on.",
       "a thread for each client in the place of the sequential server",
       on="what the server waits in", slow=True)
def slow_readers_harm_themselves(lab):
    def served(name):
        server = lab.server(name, "--quiet")
        rude = greet(lab.connect(server))
        rude.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            rude.send(b"^")
            while True:
                rude.send(b"a" * (1 << 16))
        other = lab.connect(server)
        other.settimeout(NEVER * 6)
        try:
            count = int(other.recv(1) == b"*")
        except socket.timeout:
            count = 0
        rude.close()
        lab.show(f"a client sends without reading: another one is "
                 f"{'served' if count else 'not served'}")
        return count
    return [Figure("other clients served by epoll", served("step6"), low=1),
            Figure("other clients served by the sequential server",
                   served(lab.either("step1", "step2")), low=1)]


@claim("A pool of threads solves blocking.", "folklore",
       "It moves the limit. A pool of N serves N idle clients, and the next one waits.",
       "a thread for each client", on="whether a thread is free", slow=True)
def pools_solve_blocking(lab):
    def served(others):
        server = lab.server(*lab.either(("step2/pool", "--workers", 4), ("step2",)), "--quiet")
        for _ in range(others):
            greet(lab.connect(server))
        client = lab.connect(server)
        client.settimeout(NEVER * 4)
        try:
            count = int(client.recv(1) == b"*")
        except socket.timeout:
            count = 0
        lab.show(f"pool of 4, {others} idle clients: the next is "
                 f"{'served' if count else 'not served'}")
        return count
    return [Figure("next clients served, 3 idle ones in a pool of 4", served(3), low=1),
            Figure("next clients served, 4 idle ones in a pool of 4", served(4), low=1)]


def _threads_with_clients(lab, name):
    server = lab.server(name, "--quiet")
    for _ in range(50):
        talk(greet(lab.connect(server)), 1)
    count = figures.threads(server.pid)
    lab.show(f"{count} threads with 50 clients")
    return count


@claim("libuv does the I/O of sockets in its pool of threads.", "folklore about Node.js",
       "Sockets are non-blocking, in the thread of the loop. The pool is for files, names and "
       "the work that a program gives to it.",
       "the server with a thread for each client", slow=True)
def libuv_reads_in_threads(lab):
    count = _threads_with_clients(lab, lab.either("step7", "step2"))
    return [Figure("threads of a server with 50 clients", count, low=2)]


@claim("ae has a pool of threads for heavy work.", "lecture notes",
       "It has one thread, and no pool. Redis has threads of its own for some jobs, beside ae.",
       "the server with a thread for each client", slow=True)
def ae_has_a_pool(lab):
    count = _threads_with_clients(lab, lab.either("step8", "step2"))
    return [Figure("threads of a server with 50 clients", count, low=2)]


@claim("On Linux libuv waits in select.", "lecture notes",
       "It waits in epoll; on macOS in kqueue, on Windows in IOCP.",
       "step 5, which does wait in select", slow=True)
def libuv_waits_in_select(lab):
    server = lab.server(lab.either("step7", "step5"), "--quiet")
    found = 0
    for name in os.listdir(f"/proc/{server.pid}/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{server.pid}/fd/{name}") == "anon_inode:[eventpoll]"
    lab.show(f"epoll instances of the server: {found}")
    return [Figure("epoll instances of the server", found, high=0)]


@claim("The kernel does the work in the background, so a slow callback delays nobody else.",
       "\"I/O is asynchronous\"",
       "The kernel moves bytes. It does not run your callbacks: while one computes, the loop "
       "serves nobody.",
       "a thread that computes beside the loop")
def slow_callbacks_delay_nobody(lab):
    """A loop with two clients, of which one asks for a computation."""
    slow, other = lab.tcp_pair(), lab.tcp_pair()
    finished, answered = threading.Event(), []

    def compute():
        finished.wait(NEVER * 4)        # it computes until the bystander gives up

    def loop():
        slow[1].recv(1)
        if lab.doctored:
            threading.Thread(target=compute).start()
        else:
            compute()
        answered.append(other[1].recv(1))
        other[1].sendall(b"!")
    thread = threading.Thread(target=loop)
    thread.start()
    slow[0].sendall(b"s")
    other[0].sendall(b"o")
    other[0].settimeout(NEVER)
    try:
        count = len(other[0].recv(1))
    except socket.timeout:
        count = 0
    finished.set()
    thread.join()
    lab.show(f"while a callback computes, a bystander got {count} answers")
    return [Figure("answers to a bystander while a callback computes", count, low=1)]
