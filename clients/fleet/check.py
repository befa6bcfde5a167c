#!/usr/bin/env python3
"""Check a server of step 6 behind HAProxy with the suite, and write TAP.

The suite checks what a client sees (--contract basic). The cases below do not run: a proxy
changes what they check. All others must pass as they do without HAProxy.
"""

import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = str(HERE), str(HERE.parent)          # also with PYTHONSAFEPATH

from lib import processes, reports          # noqa: E402
from machines import haproxy, program       # noqa: E402

SECONDS = 120

# Why a proxy changes a case, and the names of the cases.
CHANGED = {
    "it limits the descriptors, threads or memory of the program that was started. Here that "
    "is behind.py, and HAProxy, which does not start with so few":
        ["out-of-descriptors-*", "lowered-descriptor-limit", "out-of-threads", "out-of-memory",
         "memory-returns"],
    "it watches the memory and CPU time of the program that was started. Here that is "
    "behind.py, which does nothing, so the case could not fail":
        ["never-reading-client", "never-reading-trickle", "bytes-outside-messages", "no-leaks",
         "idle-clients"],
    "it stops the program that was started with SIGSTOP. Here that is behind.py only":
        ["stopped-and-continued"],
    "it opens more connections than the 5000 that haproxy.cfg allows for a server. The others "
    "wait in HAProxy's queue, and are disconnected after 5 s (timeout queue)":
        ["ten-thousand-idle"],
    "it measures how long a client waits while others send without pause. Each of them has "
    "16 KiB of answers in HAProxy's buffers in addition to those in the kernel's":
        ["fairness"],
    "it looks for addresses at which the program listens. HAProxy listens where it is told":
        ["listens-on-loopback", "busy-port-is-a-failure"],
}


def main():
    if not haproxy():
        if reports.unavailable("fleet", "haproxy is not installed"):
            print("1..1\nnot ok 1 - haproxy is not installed")
            return 1
        print("1..1\nok 1 # SKIP haproxy is not installed")
        return 0
    skip = [f"--skip={name}" for names in CHANGED.values() for name in names]
    command = [sys.executable, str(HERE.parent / "check-server.py"), "--tap", "--quick",
               "--ephemeral", "--contract", "basic", *skip, str(HERE / "behind.py"),
               "--", str(program(6))]
    for reason, names in CHANGED.items():
        print(f"# not run: {', '.join(names)}\n#     because {reason}.", flush=True)
    # The suite kills some servers at once. Files that behind.py then leaves are deleted here.
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        process = processes.Process(command, output=sys.stdout.buffer,
                                    env={**os.environ, "TMPDIR": folder})
        status = process.wait(SECONDS)
        process.end()
    return 1 if status is None else status


if __name__ == "__main__":
    processes.program(main, name="check.py")
