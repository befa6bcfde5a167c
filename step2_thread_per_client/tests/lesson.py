"""The lesson of step 2: the scheduler serves all clients, and each costs a thread."""

import json
import os
import signal
import tempfile

from check_server import case, proc


@case("it has a thread for each client and one more; each thread ends with its client",
      needs="linux", clients=50)
def a_thread_for_each_client(t):
    t.not_emulated()
    with t.server() as s:
        if s.sanitized():
            t.skip("a sanitizer has threads of its own")
        t.check(s.threads() == 1, f"{s.threads()} threads without a client")
        for count in 1, 10, 50:
            clients = s.crowd(count)
            t.check(s.threads() == count + 1,
                    f"{s.threads()} threads for {count} clients")
            for client in clients:
                client.close()
            t.check(s.eventually(lambda: s.threads() == 1), "threads are left behind")


@case("its stacks are small: an idle client reserves less than a MiB of addresses",
      needs="linux", clients=100)
def small_stacks(t):
    with t.server() as s:
        if s.sanitized():
            t.skip("a sanitizer has stacks of its own")
        clients, before = s.crowd(1), proc.virtual_bytes(s.pid)
        clients += s.crowd(100)
        each = (proc.virtual_bytes(s.pid) - before) / 100
        t.check(each < 1 << 20, f"{each / 1024:.0f} KiB reserved for a client")


@case("its report includes the counters of threads that still run")
def running_threads_are_counted(t):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats.json")

        def report():
            with open(path, encoding="ascii") as file:
                text = file.read()
            return json.loads(text) if text.endswith("}\n") else None

        with t.server("--stats", path) as s:
            for client in s.crowd(3):
                client.send(b"^abc$").expect(b"bcd")
            s.signal(signal.SIGUSR1)
            cost = s.eventually(report)
            for key, wanted in (("bytes_in", 15), ("threads_created", 3), ("threads_max", 4)):
                t.check(cost and cost[key] == wanted,
                        f"{key} should be {wanted}: {cost!r}")
