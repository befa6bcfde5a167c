"""The lesson of fork: a process for each client, and each must be reaped."""

import os
import signal
import time

from check_server import case
from lib import figures


def children(pid):
    """The numbers of its child processes, zombies included."""
    return [entry.pid for entry in figures.table().values() if entry.parent == pid]


@case("it has a process for each client, and no zombie after they have left", needs="linux",
      clients=50)
def a_process_for_each_client(t):
    with t.server() as s:
        for count in 1, 10, 50:
            clients = s.crowd(count)
            t.check(len(children(s.pid)) == count,
                    f"{len(children(s.pid))} processes for {count} clients")
            for client in clients:
                client.close()
            t.check(s.eventually(lambda: not children(s.pid)),
                    f"left behind: {children(s.pid)}")


@case("it reaps children even if it was started with SIGCHLD blocked", needs="linux",
      clients=50)
def blocked_sigchld(t):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        with t.server() as s:
            for client in s.crowd(50):
                client.close()
            t.check(s.eventually(lambda: not children(s.pid)),
                    f"left behind: {children(s.pid)}")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@case("a process has the descriptor of its own client and no other", needs="linux",
      clients=20)
def no_descriptor_leaks(t):
    with t.server() as s:
        clients = s.crowd(20)
        for pid in children(s.pid):
            folder = f"/proc/{pid}/fd"
            sockets = [fd for fd in os.listdir(folder)
                       if os.readlink(os.path.join(folder, fd)).startswith("socket:")]
            t.check(len(sockets) == 1, f"process {pid} has {len(sockets)} sockets")
        clients[0].close()
        clients[-1].send(b"^abc").expect(b"bcd")


@case("a process that is killed disconnects its own client and no other", needs="linux")
def only_one_dies(t):
    with t.server() as s:
        first = s.connect().greeting()
        victim, = children(s.pid)
        second = s.connect().greeting()
        os.kill(victim, signal.SIGKILL)
        first.expect_closed()
        second.send(b"^abc$").expect(b"bcd")
        t.check(s.eventually(lambda: victim not in children(s.pid)), "it became a zombie")


@case("a second SIGINT, however soon it comes, leaves no process behind")
def second_interrupt_at_once(t):
    for number in t.rounds(t.scale(20, 50, 200), 2):
        with t.server("--quiet") as s:
            s.crowd(2)
            s.signal(signal.SIGINT)
            until = time.monotonic() + 1e-5 * number
            while time.monotonic() < until:
                pass
            if s.alive():
                s.process.send_signal(signal.SIGINT)
            t.check(s.wait(2 * t.slow).status == 0, s.describe())   # fails if one is left


@case("at a stop it ends all its processes, also one that is suspended (SIGSTOP)",
      needs="linux", clients=150)
def all_stop(t):
    with t.server() as s:
        s.crowd(150)    # more than its list of children has room for at first
        started = children(s.pid)
        os.kill(min(started), signal.SIGSTOP)
        s.stop()
        left = [pid for pid in started if os.path.exists(f"/proc/{pid}")]
        t.check(not left, f"left behind: {left}")
