#!/usr/bin/env python3
"""Shows the system calls of a server that serves two clients: `make trace STEP=5`, or 6/edge.

    common/tools/trace.py step5_select/server
    common/tools/trace.py step6_epoll/build/variants/edge [OPTION OF THE SERVER]...

Runs the server under strace, lets clients/simple-client.py talk to it, and stops it. What it
prints begins when the server listens and ends when it is told to stop: only the calls that
matter to this step, and how long each of them slept. Exit status: 0 it worked, or strace is
absent and that is said; 1 it failed; 2 called wrongly.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

TREE = pathlib.Path(__file__).resolve().parents[2]
CLIENTS = ["-n", "2", "--time-scale", "0.2"]
LIMIT = 40          # lines to print
SLEPT = 0.02        # seconds that count as sleep
SECONDS = 60        # for the clients
SHORTER = [         # what strace prints in full, and what a reader needs of it
    (r" <[\d.]+>$", ""),
    (r"\{sa_family=\w+, (\w+=htons\(\d+\))[^}]*\}", r"{\1}"),
    (r"\{sigmask=\w+, sigsetsize=\d+\}", "..."),
    (r"(= -1 E\w+) \(.*\)", r"\1"),
    (r"^(clone3?)\(.*\)(?= +=)", r"\1(...)"),
    (r"\)\s+= ", ") = "),
]
EPOLL = "epoll_ctl epoll_wait epoll_pwait epoll_pwait2"
SELECT = "select pselect6"
POLL = "poll ppoll"
EVERY = "accept accept4 recvfrom sendto close"
# What shows the model of each server, in addition to EVERY. A variant not in this table has the
# calls of its step.
CALLS = {
    "1": "",
    "2": "clone clone3",
    "2/fork": "clone clone3 fork vfork wait4 waitid",
    "2/pool": "clone clone3 futex",
    "3": "",
    "4": "clock_nanosleep nanosleep",
    "5": SELECT,
    "5/poll": POLL,
    "6": EPOLL,
    "6/io_uring": "io_uring_enter",
    "6/kqueue": POLL,       # on Linux a stand-in for kqueue, made of poll
    "7": EPOLL + " read write",
    "8": " ".join((EPOLL, SELECT, POLL)),
    "8/fiber": EPOLL + " rt_sigprocmask",
}


def name_of(server):
    """"6" for step6_epoll/server, "6/edge" for step6_epoll/build/variants/edge."""
    found = re.search(r"step(\d+)_[^/]*/(?:server|build/variants/(\w+))$", str(server))
    if found is None:
        return None
    step, variant = found.groups()
    return f"{step}/{variant}" if variant else step


def calls_of(name):
    calls = CALLS.get(name, CALLS.get(name.partition("/")[0]))
    words = f"{EVERY} {calls}" if calls is not None else \
        " ".join((EVERY, *sorted(set(CALLS.values()))))
    # write shows where to begin; the mark "?" allows names that this system does not know
    return ",".join("?" + word for word in dict.fromkeys(words.split() + ["write"]))


def readable(lines, task):
    """The part of a trace between "Listening on" and the stop. Numbers the threads or processes
    (`task` says which) where there are several, and tells the time of a call that slept."""
    begin = next((i + 1 for i, line in enumerate(lines) if '"Listening on' in line), 0)
    end = next((i for i, line in enumerate(lines) if "--- SIGTERM" in line), len(lines))
    chosen, numbers = [], {}
    for line in lines[begin:end]:
        found = re.match(r"(\d+) +(.*)", line)
        if found is None or re.match(r"write\([12],|[+]{3}|---", found.group(2)):
            continue
        process, call = found.groups()
        if re.search("= ([?] ERESTART|-1 EINTR)", call):    # the stop interrupts this call
            continue
        number = numbers.setdefault(process, len(numbers) + 1)
        time = re.search(r" <([\d.]+)>$", call)
        for long, short in SHORTER:
            call = re.sub(long, short, call)
        if time and float(time.group(1)) >= SLEPT:
            call = f"{call:<66} <- slept {float(time.group(1)):.2f} s"
        chosen.append((number, call))
    width = len(str(len(numbers)))
    return [f"{task} {number:{width}}  {call}" if len(numbers) > 1 else call
            for number, call in chosen]


def stop(process):
    """Ends the server and strace, which is in the same group and lets the signal pass."""
    for number in signal.SIGTERM, signal.SIGKILL:
        try:
            os.killpg(process.pid, number)
            process.wait(5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        break


def trace(server, name, options, folder):
    """Runs it all; returns the lines of the trace, or None and what went wrong."""
    log, log_of_strace = folder / "trace", folder / "errors"
    with open(log_of_strace, "w+b") as errors:
        process = subprocess.Popen(
            ["strace", "-f", "-T", "-s", "40", "-e", "trace=" + calls_of(name), "-o", str(log),
             str(server), "--quiet", *options, "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            start_new_session=True)
        try:
            first = process.stdout.readline().decode(errors="replace")
            address = re.match(r"Listening on (.*):(\d+)$", first)
            if address is None:
                stop(process)
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()
                return None, said or f"the server said {first!r} instead of where it listens"
            client = subprocess.run(
                [sys.executable, str(TREE / "clients/simple-client.py"), *CLIENTS,
                 address.group(1).strip("[]"), address.group(2)],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=SECONDS)
        finally:
            stop(process)
            process.stdout.close()
    if client.returncode != 0:
        return None, "the clients failed: " + client.stderr.decode(errors="replace").strip()
    return log.read_text(errors="replace").splitlines(), None


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print("usage: common/tools/trace.py SERVER [OPTION OF THE SERVER]...", file=sys.stderr)
        return 2
    server = pathlib.Path(sys.argv[1]).resolve()
    name = name_of(server)
    if name is None or not os.access(str(server), os.X_OK):
        print(f"trace: {sys.argv[1]}: not the server of a step, or not built; expected for "
              "example step5_select/server", file=sys.stderr)
        return 2
    if shutil.which("strace") is None:
        print("skip  trace: strace is not installed (sh common/build-aux/setup.sh watch "
              "installs it where there is one)")
        return 0
    for number in signal.SIGHUP, signal.SIGTERM:    # the server ends in each case
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        try:
            lines, wrong = trace(server, name, sys.argv[2:], pathlib.Path(folder))
        except subprocess.TimeoutExpired:
            lines, wrong = None, f"the clients were not served in {SECONDS} seconds"
        except KeyboardInterrupt:
            return 130
    if wrong:
        print(f"trace: {wrong}", file=sys.stderr)
        return 1
    shown = readable(lines, "process" if name == "2/fork" else "thread")
    print("\n".join(shown[:LIMIT]))
    if len(shown) > LIMIT:
        print(f"... and {len(shown) - LIMIT} more calls")
    return 0


if __name__ == "__main__":
    sys.exit(main())
