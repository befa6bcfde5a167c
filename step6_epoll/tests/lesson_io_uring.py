"""The lesson of io_uring: one system call for many requests, and a kernel may refuse it."""

import shutil
import subprocess

from check_server import case


@case("for many clients it needs fewer waits than it receives messages", clients=50)
def fewer_calls_than_messages(t):
    def talk(s):
        clients = s.crowd(50)
        for _ in range(40):
            with s.frozen():    # so that all are ready at once
                for client in clients:
                    client.send(b"^a$")
            for client in clients:
                client.expect(b"b")

    cost = t.cost_of(talk)
    t.check(cost["recv_calls"] >= 2000, "%d messages received" % cost["recv_calls"])
    t.check(cost["wait_calls"] < cost["recv_calls"] / 2,
            "%d waits for %d messages" % (cost["wait_calls"], cost["recv_calls"]))


@case("it counts what was done for it, though it made no call")
def counts_what_was_done(t):
    def talk(s):
        client = s.connect().greeting()
        for _ in range(10):
            client.send(b"^ab$").expect(b"bc")
        client.finish()

    cost = t.cost_of(talk)
    for key, wanted in (("recv_calls", 11), ("recv_again", 0),     # with the end
                        ("send_calls", 11), ("send_again", 0), ("send_short", 0)):
        t.check(cost[key] == wanted, f"{key} is {cost[key]}, not {wanted}")
    t.check(1 <= cost["accept_calls"] <= 3, "accept_calls is %d" % cost["accept_calls"])


@case("where the kernel refuses io_uring it says so and exits with status 1", needs="linux")
def refused_by_the_kernel(t):
    if not shutil.which("strace"):
        t.skip("strace, which refuses in the kernel's place, is not installed")
    ended = subprocess.run(
        ["strace", "-o", "/dev/null", "-e", "trace=io_uring_setup",
         "-e", "inject=io_uring_setup:error=EPERM", t.settings.server, "0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=t.patience, encoding="utf-8", check=False)
    t.check(ended.returncode == 1, f"exit status {ended.returncode}")
    t.check("does not allow io_uring" in ended.stderr, f"it said {ended.stderr!r}")
    t.check("Listening" not in ended.stdout, "it said that it listens")


@case("who has sent much and is silent now keeps no large buffer", needs="linux", clients=100)
def silent_after_much(t):
    with t.server("--quiet") as s:
        clients = s.crowd(100)
        before = s.memory()
        for client in clients:
            client.exchange(b"^" + b"a" * 40000 + b"$")
            client.exchange(b"^" + b"a" * 40000 + b"$")
        each = (s.memory() - before) / len(clients)
        t.check(each < 4096 or s.sanitized(), f"{each} bytes for a silent client")
