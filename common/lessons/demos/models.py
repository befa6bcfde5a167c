#!/usr/bin/env python3
"""The models side by side: what a message and an idle client cost. Lessons 5 and 8. Linux only.

    common/lessons/demos/models.py              all of them: ten seconds
    common/lessons/demos/models.py step2 step6  only these

Each server first holds idle clients, then answers messages of clients/load-client. Context
switches are those of all its threads and processes: a voluntary one is a thread that falls
asleep, an involuntary one is a thread that the scheduler interrupts.
"""

import argparse
import contextlib
import json
import pathlib
import resource
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "clients"))

from lib import figures, processes, servers     # noqa: E402

PATIENCE = 60       # seconds
LOAD_CLIENT = ROOT / "clients/load-client"
MODELS = {      # name: (program, options, what it is, clients at a time)
    "step1": ("step1_sequential/server", (), "sequential, 1 client", 1),
    "step2/fork": ("step2_thread_per_client/build/variants/fork", (), "process per client", 0),
    "step2": ("step2_thread_per_client/server", (), "thread per client", 0),
    "step4": ("step4_nonblocking_poll/server", ("--interval-ms", "1"), "polling, 1 ms", 0),
    "step5": ("step5_select/server", (), "select", 0),
    "step6": ("step6_epoll/server", (), "epoll", 0),
    "step8/fiber": ("step8_ae/build/variants/fiber", (), "fibers", 0),
}


def tasks(server):
    """Its threads, of all its processes."""
    return sum(figures.threads(pid) for pid in figures.members(server.pid))


def idle_cost(server, count):
    """(processes and threads, KiB of memory for each) with this many idle clients."""
    with contextlib.ExitStack() as kept:
        kept.enter_context(server.connect()).recv(1)    # what is set up once exists now
        before = figures.own_bytes(server.pid)
        for _ in range(count):
            kept.enter_context(server.connect()).recv(1)
        memory = figures.own_bytes(server.pid) - before
        return tasks(server), memory / max(count, 1) / 1024


def load(server, clients, seconds):
    """How many messages were answered."""
    with tempfile.NamedTemporaryFile() as report:
        done = processes.capture([str(LOAD_CLIENT), "-c", str(clients), "-w", "0", "-d",
                                  str(seconds), "--json", report.name,
                                  f"127.0.0.1:{server.port}"], seconds + PATIENCE)
        if done.status != 0:
            raise processes.Trouble(f"load-client: {done.stdout}{done.stderr}".strip())
        return json.loads(pathlib.Path(report.name).read_text(encoding="utf-8"))["messages"]


def row(name, options):
    path, arguments, what, limit = MODELS[name]
    command = [ROOT / path, "--quiet", *arguments]
    count, memory = 1, "-"
    if not limit:
        with servers.Server(command) as server:
            count, memory = idle_cost(server, options.idle)
            memory = f"{memory:.1f} KiB"
    with servers.Server(command) as server:
        messages = load(server, limit or options.clients, options.seconds)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)    # the server has ended in between
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"  {what:22}{count:7}{memory:>12}{cpu / messages * 1e6:14.1f} µs"
          f"{(after.ru_nvcsw - before.ru_nvcsw) / messages:12.3f}"
          f"{(after.ru_nivcsw - before.ru_nivcsw) / messages:14.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="What each model costs, side by side.")
    parser.add_argument("--idle", metavar="N", type=int, default=200, help="idle clients (200)")
    parser.add_argument("--clients", metavar="N", type=int, default=50,
                        help="active clients (50)")
    parser.add_argument("--seconds", metavar="S", type=float, default=1.0,
                        help="of messages, for each model (1)")
    parser.add_argument("models", metavar="MODEL", nargs="*",
                        help="one of: " + " ".join(MODELS))
    options = parser.parse_args()
    if options.idle < 1 or options.clients < 1 or not 0 < options.seconds < 3600:
        parser.error("--idle, --clients and --seconds: expected more than 0")
    unknown = set(options.models) - set(MODELS)
    if unknown:
        parser.error(f"no model {min(unknown)}: there are {' '.join(MODELS)}")
    if not figures.AVAILABLE:
        print("skip  models.py: it needs Linux's /proc")
        return
    print(f"{options.idle} idle clients, then {options.clients} that send:\n\n"
          f"  {'':22}{'tasks':>7}{'memory of':>12}{'CPU for':>17}"
          f"{'switches for a message':>26}"
          f"\n  {'':22}{'':7}{'a client':>12}{'a message':>17}{'voluntary':>12}"
          f"{'involuntary':>14}")
    for name in options.models or MODELS:
        path = ROOT / MODELS[name][0]
        if not path.exists():
            print(f"  {MODELS[name][2]:22} skip: {path.relative_to(ROOT)} is not built")
            continue
        row(name, options)


if __name__ == "__main__":
    processes.program(main, "models.py")
