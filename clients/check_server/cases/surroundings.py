"""What a server may find where it is started: closed or full outputs, limits, namespaces."""

import os
import pty
import resource
import shutil
import signal
import subprocess
import time

from lib import figures
from lib.processes import Process, capture

from ..protocol import message
from ..registry import case

MIB = 1 << 20
SECOND_SIGNAL = 1.5     # seconds after the first


@case("started without descriptors 0 to 2 it serves, and no log line reaches a client",
      needs="ours")
def closed_descriptors(t):
    for closed in ((0, 1, 2), (0, 1), (0,), (1,), (2,))[:t.scale(2, 5, 5)]:
        with t.server(closed=closed) as s:
            client = s.connect().greeting()
            s.serves_others()
            client.send(b"^abc$").expect(b"bcd").expect_silence(0.05).finish()


@case("started with every signal blocked it still ends on SIGTERM and SIGINT",
      needs="ours")
def blocked_signals(t):
    for signum in (signal.SIGTERM, signal.SIGINT):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with t.server() as s:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                s.serves()
                s.stop(signum)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@case("when the reader of its standard output has closed it, no client is lost, also if a "
      "signal comes then", needs="ours")
def closed_output(t):
    reader, writer = os.pipe()
    with t.server(stdout=writer, stderr=subprocess.STDOUT) as s:
        os.close(writer)
        os.close(reader)
        for _ in range(3):
            s.serves()
        client = s.connect().greeting()
        for _ in range(3):      # the failed write must not hide that errno
            s.signal(signal.SIGUSR1)
            t.pause(0.01)
            client.send(b"^abc$").expect(b"bcd")
        client.finish()


@case("a standard output that is full and never read delays no client", needs="ours")
def unread_output(t):
    fill_with_log(t, *os.pipe())


@case("a terminal as standard output that is full and never read delays no client",
      level="normal", needs="ours")
def unread_terminal(t):
    fill_with_log(t, *pty.openpty())


def fill_with_log(t, reader, writer):
    try:
        with t.server(stdout=writer, stderr=subprocess.STDOUT) as s:
            for _ in range(20):     # two lines for each of 2000 clients fill any pipe
                for client in [s.connect() for _ in range(100)]:
                    client.reset()
                s.clients.clear()
                s.serves_soon()
    finally:
        os.close(reader)
        os.close(writer)


@case("a standard error that is full and never read does not keep it from starting",
      needs="ours")
def unread_error_output(t):
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x")
        except BlockingIOError:
            os.set_blocking(writer, True)
        with t.server(stderr=writer, rlimits={resource.RLIMIT_NOFILE: 64}) as s:
            s.serves()
    finally:
        os.close(reader)
        os.close(writer)


@case("an alarm that its parent has set harms neither it nor a client", needs="ours")
def stray_alarm(t):
    with t.server() as s:
        client = s.connect().greeting().send(b"^a").expect(b"b")
        s.signal(signal.SIGALRM)
        t.pause(0.05)
        client.send(b"b").expect(b"c").finish()
        s.serves()


@case("with its standard output on a full disk it serves clients", needs=("ours", "linux"))
def full_disk(t):
    with open("/dev/full", "wb") as full, t.server(stdout=full) as s:
        s.serves()


@case("when no file may grow (RLIMIT_FSIZE) it serves without its log", needs="ours")
def file_size_limit(t):
    with t.server(rlimits={resource.RLIMIT_FSIZE: 100}) as s:
        for _ in range(3):
            s.serves()


# Containers.

def needs_namespaces(t, *options):
    """Skip unless this user may make such namespaces."""
    if shutil.which("unshare") is None:
        t.skip("unshare is not installed")
    tried = capture(["unshare", *options, "true"], t.patience)
    if tried.status != 0:
        t.skip(f"no such namespaces here: {(tried.trouble or tried.stderr).strip()}")


@case("as process 1 of a container it ends on SIGTERM, also one from before it listens",
      needs=("ours", "linux"))
def stop_as_process_1(t):
    t.not_emulated()
    needs_namespaces(t, "--pid", "--fork")
    server = [t.settings.server, *t.settings.server_args, "0"]
    in_namespace = ["unshare", "--pid", "--fork", "--kill-child"]
    # A blocked signal waits, here until the server unblocks it.
    early = ["sh", "-c", 'kill -TERM $$ && exec "$@"', "sh"]

    def block():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    with Process([*in_namespace, *early, *server], prepare=block) as process:
        if process.wait(SECOND_SIGNAL * t.slow) is None:
            terminate_children(process.pid)
        status = process.wait(2 * t.slow)
        t.check(status is not None, "SIGTERM came before it listened, and again later, and it "
                "is still running")
    with Process([*in_namespace, *server]) as process:
        deadline = time.monotonic() + t.patience
        while "Listening on" not in process.output() and time.monotonic() < deadline:
            time.sleep(0.01)
        terminate_children(process.pid)
        status = process.wait(2 * t.slow)
        t.check(status == 0, "SIGTERM as process 1: " + (
            "still running after 2 s" if status is None else f"exit status {status}"))


def terminate_children(pid):
    """unshare itself does not pass on a signal."""
    for entry in figures.table().values():
        if entry.parent == pid:
            os.kill(entry.pid, signal.SIGTERM)


@case("without /dev/null it serves, or says that /dev/null is missing", needs=("ours", "linux"))
def no_dev_null(t):
    t.not_emulated()
    needs_namespaces(t, "--mount")
    without = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh"]
    if capture([*without, "true"], t.patience).status != 0:
        t.skip("nothing may be mounted here")
    probe = capture([*without, t.settings.server, *t.settings.server_args, "--port", "no"],
                    t.patience)
    t.check(probe.status == 2, f"it does not even look at its command line: {probe}")
    with Process([*without, t.settings.server, *t.settings.server_args, "0"]) as process:
        deadline = time.monotonic() + t.patience
        while (not process.output() and process.poll() is None
               and time.monotonic() < deadline):
            time.sleep(0.01)
        said = process.output()
        t.check(said.startswith("Listening on") or "/dev/null" in said,
                f"it says {said!r}, and not that /dev/null is missing")


SET_FORWARD = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *t)
{
    int result = (int)syscall(SYS_clock_gettime, clock, t);
    if (clock == CLOCK_REALTIME)
        t->tv_sec += 3600;
    return result;
}
"""


@case("at a stop it measures its wait by a clock that cannot be set", needs=("ours", "linux"))
def wall_clock_set_forward(t):
    # The server reads a wall clock that is an hour ahead of the one that the kernel waits by,
    # as if it had been set back in between.
    with t.preloaded(SET_FORWARD) as env, t.server(env=env, health=False) as s:
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 * MIB), until_stuck=0.1)
        s.stop()
