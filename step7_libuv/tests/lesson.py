"""The lesson of step 7: one loop for sockets and timers, in a library with needs of its own."""

import os
import pathlib
import re
import resource

from check_server import case
from lib.processes import capture

TABLE_SIZE = 8190       # libuv's table of descriptors grows when a higher one comes


@case("it answers while a timer runs, and the timer closes only the idle client")
def answers_while_a_timer_runs(t):
    with t.server("--idle-timeout", str(0.5 * t.slow)) as s:
        idle = s.connect().greeting()
        active = s.connect().greeting()
        for _ in range(10):
            active.send(b"^abc$").expect(b"bcd")
            t.pause(0.1)
        idle.expect_end()
        active.send(b"^abc$").expect(b"bcd")


@case("with too few descriptors for libuv it ends with one clear line; libuv would abort",
      needs="linux")
def too_few_descriptors(t):
    t.not_emulated()
    with t.server() as s:
        if s.sanitized():
            t.skip("a sanitizer opens files of its own at the end")
    for count in range(4, 11):
        done = capture(["sh", "-c", f'ulimit -n {count}; exec "$0" 0', t.settings.server],
                       t.patience)
        t.check(done.status == 1 and done.stderr.count("\n") == 1 and
                "oo many open files" in done.stderr,
                f"with {count}: {done.status}, {done.stderr!r}")


@case("it survives when libuv's table of descriptors must grow and there is no memory",
      needs="linux", level="normal", clients=TABLE_SIZE + 10, limit=60)
def table_grows_without_memory(t):
    with t.server() as s:
        if s.sanitized():
            t.skip("a sanitizer needs all the address space")
        proc = pathlib.Path(f"/proc/{s.pid}")
        clients = []
        while len(clients) < TABLE_SIZE - 40:   # in groups that fit into the backlog
            clients += s.crowd(50)
        clients += s.crowd(TABLE_SIZE - 3 - len(os.listdir(proc / "fd")))
        size = 1024 * int(re.search(r"VmSize:\s+(\d+)", (proc / "status").read_text()).group(1))
        _, maximum = resource.prlimit(s.pid, resource.RLIMIT_AS)
        resource.prlimit(s.pid, resource.RLIMIT_AS, (size, maximum))
        s.fill(20)
        resource.prlimit(s.pid, resource.RLIMIT_AS, (maximum, maximum))
        t.check(s.alive(), f"it ended: {s.describe()}")
        for client in clients[::500]:
            client.send(b"^abc$").expect(b"bcd")
        for client in s.clients:
            client.reset()      # this leaves no port in TIME_WAIT
        s.clients.clear()
        s.serves_soon()
