"""The lesson of workers: four ways to share one port, and what is common to all loops."""

import json
import os
import pathlib
import runpy
import select
import signal
import tempfile
import time

from check_server import case

sharing = runpy.run_path(str(pathlib.Path(__file__).parents[1] / "demos/sharing.py"))

WORDS = "accept", "listener", "exclusive", "reuseport"


def threads(s):
    return sorted(map(int, os.listdir(f"/proc/{s.pid}/task")))


@case("a wrong --share is a usage error that names the option, the value and the words")
def wrong_word(t):
    for word in "", "acc", "accept|listener", "Accept":
        done = t.run("--share", word, "0")
        line = done.stderr.partition("\n")[0]
        t.check(done.status == 2, f"--share '{word}': exit status {done.status}")
        for part in ("--share", f"'{word}'", *WORDS):
            t.check(part in line, f"--share '{word}': no {part} in: {line}")


@case("it has a thread for each worker, and one more if that only accepts", needs="linux")
def a_thread_for_each_worker(t):
    t.not_emulated()
    for word in WORDS:
        with t.server("--workers", "3", "--share", word) as s:
            if s.sanitized():
                t.skip("a sanitizer has threads of its own")
            wanted = 4 if word == "accept" else 3
            t.check(s.threads() == wanted, f"--share {word}: {s.threads()} threads")


@case("--pin: each worker runs on one CPU only, and they take turns", needs="linux")
def pinned(t):
    t.not_emulated()
    cpus = sorted(os.sched_getaffinity(0))
    with t.server("--workers", "3", "--share", "listener", "--pin") as s:
        s.serves()
        if s.sanitized():
            t.skip("a sanitizer has threads of its own")
        wanted = [{cpus[number % len(cpus)]} for number in range(3)]
        t.check(s.eventually(lambda: [os.sched_getaffinity(tid) for tid in threads(s)]
                             == wanted), "a worker is not on its CPU")


@case("--max-clients limits all workers together, whoever accepts", clients=10)
def one_limit_for_all(t):
    for word in WORDS:
        with t.server("--share", word, "--max-clients", "10") as s:
            admitted, rejected = s.fill(25)
            t.check((len(admitted), rejected) == (10, 15),
                    f"--share {word}: {len(admitted)} admitted, {rejected} rejected")
            admitted[3].close()
            t.check(s.eventually(s.try_client), f"--share {word}: no place becomes free")


@case("its report has the clients that each worker has served, on SIGUSR1 and at exit",
      clients=40)
def the_report_lists_workers(t):
    for word in WORDS:
        with tempfile.NamedTemporaryFile() as file:
            def report():
                with open(file.name, encoding="ascii") as text:
                    return json.loads(text.read() or "{}")

            with t.server("--share", word, "--workers", "4", "--stats", file.name) as s:
                s.crowd(40)
                s.signal(signal.SIGUSR1)
                found = s.eventually(report)
                t.check(len(found["workers"]) == 4 and sum(found["workers"]) == 40 ==
                        found["clients_served"], f"--share {word}: {found}")
                s.stop()
            t.check(sum(report()["workers"]) == report()["clients_served"],
                    f"--share {word}: {report()}")


@case("an acceptor spreads the clients evenly", clients=40)
def the_acceptor_takes_turns(t):
    with tempfile.NamedTemporaryFile() as file:
        with t.server("--share", "accept", "--workers", "4", "--stats", file.name,
                      health=False) as s:
            s.crowd(40)
            s.stop()
        served = json.load(file)["workers"]
    t.check(served == [10] * 4, f"{served}")


@case("a worker that hangs delays its own clients and no others, who get all answers later",
      needs="linux", clients=40)
def a_hung_worker(t):
    t.not_emulated()
    for word in WORDS:
        with t.server("--workers", "4", "--share", word) as s:
            if s.sanitized():
                t.skip("a sanitizer has threads of its own")
            clients = s.crowd(40)
            with sharing["suspended"](s, sharing["Way"](word, [None]), 4):
                for client in clients:
                    client.send(b"^abc$")
                if word == "accept":    # the other ways do not spread clients evenly
                    t.check(s.eventually(lambda: unanswered(clients) == 10),
                            f"{unanswered(clients)} of 40 clients wait for one of 4 workers")
            for client in clients:
                client.expect(b"bcd")


def unanswered(clients):
    sockets = [client.sock for client in clients]
    return len(sockets) - len(select.select(sockets, [], [], 0)[0])


@case("--idle-timeout: each worker closes its own clients", clients=20)
def each_worker_closes_its_own(t):
    for word in WORDS:
        with t.server("--share", word, "--idle-timeout", "0.2") as s:
            clients, began = s.crowd(20), time.monotonic()
            for client in clients:
                client.expect_end()
            seconds = time.monotonic() - began
            t.check(seconds < 1.5 * t.slow, f"--share {word}: it took {seconds:.1f} s")


@case("two servers do not share a port by mistake, not even with --share reuseport")
def a_port_is_taken(t):
    with t.server("--share", "reuseport") as s:
        done = t.run("--share", "reuseport", str(s.port))
        t.check(done.status == 1 and "in use" in done.stderr,
                f"a second server: exit status {done.status}, {done.stderr}")
        s.serves()


@case("a stop ends all loops, however many clients each has", clients=200)
def all_loops_stop(t):
    for word in WORDS:
        with t.server("--share", word) as s:
            clients = s.crowd(200)
            clients[0].send(b"^abc").expect(b"bcd")
            status, seconds = s.stop()
            t.check(status == 0 and seconds < t.slow, f"--share {word}: {seconds:.1f} s")
