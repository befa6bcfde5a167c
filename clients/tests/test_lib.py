#!/usr/bin/env python3
"""clients/lib: nothing that was started survives, nothing hangs, all that grows is bounded."""

import concurrent.futures
import contextlib
import fcntl
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest
from unittest import mock
from xml.etree import ElementTree

CLIENTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CLIENTS))

from lib import figures, processes, reports, servers, tree     # noqa: E402

LINUX = unittest.skipUnless(figures.AVAILABLE, "needs Linux's /proc")
LISTENER = """
import signal, socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[-1])))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(f"Listening on 127.0.0.1:{s.getsockname()[1]}", flush=True)
while True:
    signal.pause()
"""
SIMPLE = """
import socket, sys
client = socket.create_server(("127.0.0.1", int(sys.argv[-1]))).accept()[0]
client.sendall(b"*")
while client.recv(100):
    pass
"""


def alive(pid):
    entry = figures.table().get(pid)
    return entry is not None and entry.state not in "ZX"


def shell(script):
    return ["/bin/sh", "-c", script]


class Starting(unittest.TestCase):
    def test_marks_differ_also_among_threads(self):
        """Two programs with one mark would be taken for each other's, and ended."""
        def start(_):
            with processes.Process(["true"]) as process:
                return process.mark

        before = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, before)
        sys.setswitchinterval(1e-6)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            marks = list(pool.map(start, range(100)))
        self.assertEqual(len(set(marks)), len(marks))

    def pid_written_to(self, path):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            text = pathlib.Path(path).read_text() if os.path.exists(path) else ""
            if text.endswith("\n"):
                return int(text)
            time.sleep(0.01)
        return self.fail(f"nobody wrote {path}")

    def leaves_nobody(self, script, by=lambda process: process.end()):
        """The script starts a process and writes its id to $1."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "pid")
            process = processes.Process(["/bin/sh", "-c", script, "sh", path])
            pid = self.pid_written_to(path)
            self.assertTrue(alive(pid))
            by(process)
            self.assertFalse(alive(pid))
            self.assertFalse(alive(process.pid))
            process.output_file.close()
            self.assertEqual([figures.command_line(p) for p in processes.strays()], [])

    @LINUX
    def test_ends_a_child(self):
        self.leaves_nobody('sleep 60 & echo $! > "$1"; wait')

    @LINUX
    def test_ends_a_child_that_takes_no_notice_of_sigterm(self):
        self.leaves_nobody('trap "" TERM; sleep 60 & echo $! > "$1"; wait',
                           lambda process: process.end(grace=0.1))

    @LINUX
    def test_finds_a_child_whose_parent_ends_during_the_look(self):
        with processes.Process(shell("sleep 60 & wait")) as process:
            while not (found := figures._children(process.pid)):
                time.sleep(0.01)

            def after_its_end(pid, children=figures._children):
                if pid == process.pid:
                    os.kill(pid, signal.SIGKILL)
                    while figures.table()[found[0]].parent != os.getpid():
                        time.sleep(0.01)
                return children(pid)

            with mock.patch.object(figures, "_children", after_its_end):
                self.assertIn(found[0], figures.family())

    @LINUX
    def test_ends_a_daemon_that_left_its_session(self):
        self.leaves_nobody('setsid sh -c \'echo $$ > "$1"; exec sleep 60\' sh "$1" & exit 0')

    @LINUX
    def test_ends_a_daemon_that_cleared_its_environment_as_well(self):
        self.leaves_nobody(
            'setsid env -i sh -c \'echo $$ > "$1"; exec sleep 60\' sh "$1" & sleep 0.1; exit 0',
            lambda process: processes.end_all())

    @LINUX
    def test_knows_all_its_descendants(self):
        """There are so many that the kernel lists them in several pieces."""
        script = ("import os, threading\n"
                  "def start(number):\n"
                  "    if all(os.fork() for _ in range(number)):\n"
                  "        print('.', end='', flush=True)\n"
                  "    threading.Event().wait()\n"
                  "threading.Thread(target=start, args=(3,)).start()\n"
                  "start(800)\n")
        with processes.Process([sys.executable, "-c", script]) as process:
            deadline = time.monotonic() + 60
            while process.output().count(".") < 2 and time.monotonic() < deadline:
                time.sleep(processes.POLL)
            family = figures.family()
            self.assertEqual(set(family), figures.with_descendants({os.getpid()},
                                                                   figures.table()))
            self.assertEqual(len(process.members()), 804)
            process.end()
            self.assertEqual(process.members(), [])

    def test_counts_no_process_that_has_ended(self):
        with processes.Process(shell("(exit 0) & exec sleep 60")) as process:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and not any(
                    (entry.parent, entry.state) == (process.pid, "Z")
                    for entry in figures.table().values()):
                time.sleep(0.01)
            self.assertEqual(process.members(), [process.pid])

    def test_waits_for_the_end_also_where_there_is_no_pidfd_open(self):
        for missing in False, True:
            with self.subTest(missing=missing), contextlib.ExitStack() as stack:
                if missing:
                    stack.enter_context(mock.patch.object(
                        os, "pidfd_open", mock.Mock(side_effect=OSError), create=True))
                process = stack.enter_context(processes.Process(shell("sleep 0.1; exit 3")))
                self.assertIsNone(process.wait(0))
                for seconds in None, 10, 0:
                    self.assertEqual(process.wait(seconds), 3)

    def test_a_wait_may_have_no_time_left_or_months(self):
        with processes.Process(["sleep", "60"]) as process:
            timer = threading.Timer(5, process.popen.kill)  # to poll(2), -1 means without limit
            timer.start()
            self.addCleanup(timer.cancel)
            self.assertIsNone(process.wait(-1))
        with processes.Process(shell("exit 3")) as process:
            self.assertEqual(process.wait(10 ** 7), 3)

    @unittest.skipUnless(shutil.which("strace"), "needs strace")
    def test_waits_for_the_end_of_a_program_that_is_traced(self):
        command = ["strace", "-D", "-o", "/dev/null", *shell("exit 3")]
        with processes.Process(command) as process:
            if process.wait(10) != 3:
                self.skipTest("strace may not trace here")
        for _ in range(20):     # its tracer is told first that it has ended
            with processes.Process(command) as process:
                self.assertEqual(process.wait(10), 3)

    @unittest.skipUnless(figures.AVAILABLE and hasattr(os, "pidfd_open"), "needs pidfd_open")
    def test_knows_the_processor_time_of_a_program_and_its_children(self):
        count = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done"
        with processes.Process(shell(f"sh -c '{count}'; true")) as process:
            process.wait(30)
        self.assertGreater(process.cpu_used, 0.01)
        with processes.Process(["sleep", "0.1"]) as process:
            process.wait(30)
        self.assertLess(process.cpu_used, 0.05)

    def test_captures_status_output_and_error_output(self):
        done = processes.capture(shell("echo out; echo err >&2; exit 3"), 5)
        self.assertEqual(done, (3, "out\n", "err\n", ""))

    def test_does_not_wait_for_a_child_that_keeps_the_output_open(self):
        began = time.monotonic()
        done = processes.capture(shell("sleep 60 & echo out"), 5)
        self.assertEqual((done.status, done.stdout), (0, "out\n"))
        self.assertLess(time.monotonic() - began, 4)

    def test_ends_what_runs_too_long(self):
        done = processes.capture(shell("sleep 60; true"), 0.1)
        self.assertIsNone(done.status)
        self.assertIn("still running after 0.1 s", done.trouble)

    def test_bounds_the_output(self):
        for stream in "", " >&2":
            done = processes.capture(shell(f"yes 0123456789{stream}"), 30, limit=1 << 20)
            self.assertIsNone(done.status)
            self.assertIn("more than 1024 KiB", done.trouble)
            self.assertLess(len(done.stdout + done.stderr), 3 << 20)
            self.assertIn("bytes are left out", done.stdout + done.stderr)

    def test_an_output_that_another_thread_closes_has_no_size(self):
        """The watcher asks for the size, and must survive that."""
        class ClosedMeanwhile:
            @staticmethod
            def fileno():
                return resource.getrlimit(resource.RLIMIT_NOFILE)[0]    # never open

        with processes.Process(["true"]) as process:
            process.files.append(ClosedMeanwhile())
            self.assertEqual(process.size(), 0)

    def test_a_program_that_cannot_be_started(self):
        with self.assertRaises(OSError):
            processes.capture(["/no/such/program"], 1)


class Signals(unittest.TestCase):
    SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from lib import processes

def main():
    with processes.Process(["sleep", "60"]) as process:
        print(process.pid, flush=True)
        process.wait(60)

processes.program(main)
"""

    def start(self, signum=signal.SIGINT, action=signal.SIG_DFL):
        """A shell starts background jobs with SIGINT ignored."""
        tool = subprocess.Popen([sys.executable, "-c", self.SCRIPT, str(CLIENTS)],
                                stdout=subprocess.PIPE, encoding="utf-8",
                                preexec_fn=lambda: signal.signal(signum, action))
        self.addCleanup(tool.stdout.close)
        self.addCleanup(tool.wait)
        self.addCleanup(tool.kill)
        return tool, int(tool.stdout.readline())

    def test_end_what_was_started_and_then_the_program(self):
        for number in processes.SIGNALS:
            with self.subTest(number):
                tool, pid = self.start()
                began = time.monotonic()
                tool.send_signal(number)
                self.assertEqual(tool.wait(10), 128 + number)
                self.assertLess(time.monotonic() - began, 5)
                with self.assertRaises(ProcessLookupError):
                    os.kill(pid, 0)

    def test_that_are_ignored_stay_ignored(self):
        tool, pid = self.start(signal.SIGHUP, signal.SIG_IGN)
        tool.send_signal(signal.SIGHUP)
        with self.assertRaises(subprocess.TimeoutExpired):
            tool.wait(0.3)
        os.kill(pid, 0)
        tool.terminate()
        self.assertEqual(tool.wait(10), 128 + signal.SIGTERM)

    def test_that_the_parent_ignores_or_blocks(self):
        """A status is seen although SIGCHLD was ignored, and alarms and stops arrive."""
        script = self.SCRIPT.replace('["sleep", "60"]', '["sh", "-c", "exit 3"]').replace(
            "process.wait(60)", "print(process.wait(60), signal.pthread_sigmask(0, ()))")

        def prepare():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGTERM])

        done = subprocess.run([sys.executable, "-c", "import signal" + script, str(CLIENTS)],
                              stdout=subprocess.PIPE, encoding="utf-8", timeout=60,
                              preexec_fn=prepare, check=True)
        self.assertRegex(done.stdout, r"\A\d+\n3 set\(\)\n\Z")

    def test_every_program_that_starts_others_heeds_them(self):
        for path in sorted(tree.ROOT.glob("[cs]*/**/*.py")):
            text = path.read_text(encoding="utf-8")
            if ("__main__" in text and re.search(r"\b(Server|Process|capture)\(", text)
                    and not {"build", "tests", "node_modules"} & {*path.parts}):
                with self.subTest(path=path):
                    self.assertTrue(re.search(r"\bprogram\(main|\bend_all\(", text))


class Trouble(unittest.TestCase):
    def test_a_copy_that_fails_is_one_line(self):
        script = ("import shutil, sys; sys.path.insert(0, sys.argv[1]); "
                  "from lib import processes; "
                  "processes.program(lambda: shutil.copytree(*sys.argv[2:]), 'tool')")
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "from"))
            for name in "one", "two":
                os.symlink("nothing", os.path.join(folder, "from", name))
            done = subprocess.run([sys.executable, "-c", script, str(CLIENTS),
                                   os.path.join(folder, "from"), os.path.join(folder, "to")],
                                  stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Atool: cannot copy to \S+: .*No such file.*\n\Z")


class Limits(unittest.TestCase):
    def test_descriptors_are_raised_as_far_as_is_allowed(self):
        script = ("import resource, sys; sys.path.insert(0, sys.argv[1]); "
                  "from lib.processes import allow_descriptors; "
                  "print(*(allow_descriptors(int(wanted)) for wanted in sys.argv[2:]), "
                  "*resource.getrlimit(resource.RLIMIT_NOFILE))")

        def prepare():
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))

        for wanted, printed in ((["32"], "64 64 128"), (["100"], "100 100 128"),
                                (["1000", "10"], "128 128 128 128")):
            done = subprocess.run([sys.executable, "-c", script, str(CLIENTS), *wanted],
                                  stdout=subprocess.PIPE, encoding="utf-8", timeout=60,
                                  preexec_fn=prepare, check=True)
            self.assertEqual(done.stdout.strip(), printed)


def no_diag(*_):
    raise OSError("no such thing")


class Servers(unittest.TestCase):
    def test_is_listening_and_ends(self):
        with servers.Server([sys.executable, "-c", LISTENER]) as server:
            server.connect().close()
            if figures.AVAILABLE:
                self.assertEqual(figures.listens_at(server.members()), [server.address])
        self.assertEqual(server.poll(), 0)

    def test_that_does_not_start(self):
        for script in "echo no such thing; exit 1", "exec yes", "exec sleep 60":
            with self.assertRaises(servers.Trouble) as caught:
                servers.Server(shell(script), patience=0.5)
            self.assertIn("does not start", str(caught.exception))
            self.assertLess(len(str(caught.exception)), 300)

    def test_a_simple_server_survives_the_look_at_it(self):
        """It has greeted when the look ends. Unread, that would reset the connection."""
        def greeted(*arguments, connect=socket.create_connection):
            client = connect(*arguments)
            client.recv(1, socket.MSG_PEEK)
            return client

        with mock.patch("socket.create_connection", greeted), \
                servers.Server([sys.executable, "-c", SIMPLE],
                               port=servers.free_port()) as server:
            self.assertEqual(server.wait(5), 0, server.output())

    @LINUX
    def test_addresses_of_both_families(self):
        for family, host in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"):
            with socket.socket(family) as listener:
                try:
                    listener.bind((host, 0))
                except OSError:
                    continue    # no IPv6 here
                listener.listen()
                self.assertIn((host, listener.getsockname()[1]),
                              figures.listens_at([os.getpid()]))

    @LINUX
    def test_an_ipv4_address_of_an_ipv6_socket(self):
        """Java listens at ::ffff:127.0.0.1 if it is told to listen at 127.0.0.1."""
        with socket.socket(socket.AF_INET6) as listener:
            try:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                listener.bind(("::ffff:127.0.0.1", 0))
            except OSError as error:
                self.skipTest(f"no IPv6 here: {error}")
            listener.listen()
            address = "127.0.0.1", listener.getsockname()[1]
            diag = figures._diag
            for figures._diag in diag, no_diag:
                try:
                    self.assertIn(address, figures.listens_at([os.getpid()]))
                    with socket.create_connection(address) as client, listener.accept()[0]:
                        client.sendall(b"abc")
                        self.assertEqual(figures.unread_bytes(client), 3)
                finally:
                    figures._diag = diag

    @LINUX
    def test_unread_bytes_and_listeners_with_and_without_sock_diag(self):

        def unread_here(client):
            return struct.unpack("i", fcntl.ioctl(client, termios.FIONREAD, bytes(4)))[0]

        diag, seen = figures._diag, []
        try:
            for figures._diag in diag, no_diag:
                with socket.create_server(("127.0.0.1", 0)) as listener, \
                        socket.create_connection(listener.getsockname()) as client, \
                        listener.accept()[0] as other:
                    client.sendall(b"abcde")
                    self.assertEqual(figures.unread_bytes(client, other), 5)
                    other.recv(3)
                    self.assertEqual(figures.unread_bytes(client), 2)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    other.setblocking(False)
                    sent = other.send(bytes(1 << 20))   # more than the client's kernel takes
                    (unread, waiting), = figures.queues(client)
                    self.assertEqual(unread, 2)
                    self.assertGreater(waiting, 0)
                    self.assertEqual(waiting + unread_here(client), sent)
                    self.assertIn(listener.getsockname(), figures.listens_at([os.getpid()]))
                    self.assertNotIn(client.getsockname(), figures.listens_at([os.getpid()]))
                    other.shutdown(socket.SHUT_RDWR)
                    seen.append(figures.unread_bytes(listener))     # it has no other end
        finally:
            figures._diag = diag
        self.assertEqual(seen, [0, 0])


class Text(unittest.TestCase):
    NASTY = "a\x1b[31m\r\x0c\u2028\x85not ok 5 - \ud800\udcff# SKIP\x00\tz\xa0\u202eé"

    def test_is_made_harmless(self):
        clean = reports.clean(self.NASTY)
        self.assertTrue(clean.isprintable())
        self.assertTrue(clean.endswith("\\u202eé"))
        clean.encode("utf-8")

    def test_cannot_look_like_a_result(self):
        comment = reports.tap_comment("x\n" + self.NASTY + "\nnot ok 1 - y")
        self.assertTrue(all(line.startswith("# ") for line in comment.splitlines()))
        self.assertNotIn("#", reports.tap_line(True, 1, "a # SKIP b\nnot ok 2"))
        self.assertNotIn("\n", reports.tap_line(True, 1, "a", "SKIP b\nnot ok 2"))

    def test_makes_well_formed_xml(self):
        results = [reports.Result(status, self.NASTY, 0.1, self.NASTY, [self.NASTY, "]]>&<"])
                   for status in (reports.OK, reports.FAIL, reports.SKIP)]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.xml")
            reports.write_junit(path, self.NASTY, results)
            suite = ElementTree.parse(path).getroot()
        self.assertEqual([suite.get(key) for key in ("tests", "failures", "skipped")],
                         ["3", "1", "1"])

    def test_quoting_survives_a_shell(self):
        words = ["plain", "two words", "it's", os.fsdecode(b"caf\xe9\x1b'$"), "\n"]
        done = subprocess.run(["bash", "-c", f"printf '%s\\0' {reports.quote(words)}"],
                              stdout=subprocess.PIPE, check=True)
        self.assertEqual(done.stdout.split(b"\0")[:-1], [os.fsencode(word) for word in words])
        self.assertTrue(reports.quote(words).isprintable())

    def test_the_end_of_a_log_tells_what_a_stack_trace_is_about(self):
        frames = [f"\tat java.base/java.net.ServerSocket.accept({n})" for n in range(9)]
        for told, trace in (
                ('Exception in thread "main" java.net.SocketException: x', frames),
                ("TypeError: x is not a function",
                 [f"    at f (server.js:{n})" for n in range(9)]),
                ("panic: runtime error: index out of range [3]",
                 ["[signal SIGSEGV: segmentation violation]", "goroutine 1 [running]:",
                  "main.serve({0x4e1f88, 0xc0})", "\t/home/a/main.go:12 +0x1d",
                  "main.(*room).enter(...)", "\t/home/a/main.go:30", "exit status 2"]),
                ("runtime/cgo: pthread_create failed: Resource temporarily unavailable",
                 ["SIGABRT: abort", "PC=0x7f8353016eec m=6 sigcode=18446744073709551610",
                  "runtime: g 0: unknown pc 0x7f8353016eec", "stack: frame={sp:0x7f, fp:0x0}",
                  "0x00007f8329a69890:  0x0000000000000000", "rax    0x0", "rip    0x7f22e"])):
            shown = reports.tail(["Listening", told, *trace], 6)
            self.assertEqual(shown, [told, "  ...", *trace[-4:]])
        rust = ["thread '<unnamed>' panicked at server.rs:34:50:",
                "called `Option::unwrap()` on a `None` value"]
        trace = ["stack backtrace:", *["   0: rust_begin_unwind", "    at panic.rs:3"] * 3,
                 "note: Some details are omitted."]
        for log in ([*rust, *trace], ["Listening", *rust, *trace]):
            self.assertEqual(reports.tail(log, 6), [*rust, "  ...", *trace[-3:]])
        python = ["Traceback (most recent call last):", *["  File x"] * 8, "ValueError: x"]
        for log in (python, python[1:], ["one"], [f"line {n}" for n in range(9)],
                    ["told", *frames[:5]], [*frames, "Listening", *"abcde"]):
            self.assertEqual(reports.tail(log, 6), log[-6:])


class Tree(unittest.TestCase):
    def test_finds_steps_variants_and_arguments(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path in ("step10_ten/server", "step2_two/server", "step2_two/variants/pool.c",
                         "step2_two/build/variants/pool", "step2_two/build/variants/pool.o"):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).touch(mode=0o755)
            (root / "step2_two/Makefile").write_text(
                "print-suite-args:\n\t@echo --serial $(VARIANT) -- --once\n")
            found = list(tree.servers(root))
            self.assertEqual([(each.step, each.variant) for each in found],
                             [(2, ""), (2, "pool"), (10, "")])
            self.assertEqual(found[1].source, root / "step2_two/variants/pool.c")
            self.assertEqual(tree.suite_arguments(found[1]), (["--serial", "pool"], ["--once"]))
            self.assertEqual(tree.suite_arguments(found[2]), ([], []))


class EnvironmentTest(unittest.TestCase):
    """Settings that users have for other purposes change nothing."""

    TOOLS = ("begin.py", "bench/bench.py", "bench/check.py", "bench/insert.py",
             "check-server.py", "demo.py", "fleet/capacity.py", "fleet/fleet.py", "grade.py",
             "never-read.py", "simple-client.py", "tests/servers/broken.py",
             "../common/tools/docs.py")

    def test_tools_find_their_modules_with_safe_path(self):
        for tool in self.TOOLS:
            with self.subTest(tool=tool):
                done = subprocess.run(
                    [CLIENTS / tool, "--help"], stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                    env={**os.environ, "PYTHONSAFEPATH": "1", "CHECK_SLOW": ""})
                self.assertIn("usage:", done.stdout)

    def test_tools_end_without_a_prompt(self):
        """With PYTHONINSPECT Python opens a prompt after a program, if it has a terminal."""
        master, terminal = os.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, terminal)
        for tool in set(self.TOOLS) - {"tests/servers/broken.py"}:     # that is no tool
            with self.subTest(tool=tool):
                done = subprocess.run([CLIENTS / tool, "--help"], stdin=terminal, timeout=30,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      encoding="utf-8",
                                      env={**os.environ, "PYTHONINSPECT": "1"})
                self.assertIn("usage:", done.stdout)
                self.assertNotIn("SystemExit", done.stdout)

    def test_assert_holds_in_cases_of_ones_own(self):
        """PYTHONOPTIMIZE drops every assert: such a case would always pass."""
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "own.py"
            file.write_text("from check_server.registry import case\n"
                            "@case('fails')\ndef own(t):\n    assert False, 'wrong'\n")
            done = subprocess.run(
                [CLIENTS / "check-server.py", "--also", file, "--only", "own", "/bin/true"],
                stdout=subprocess.PIPE, encoding="utf-8",
                env={**os.environ, "PYTHONOPTIMIZE": "1"})
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn("wrong", done.stdout)

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_output_that_cannot_be_written_is_one_line(self):
        for tool in "check-server.py", "../common/lessons/demos/queues.py":
            with self.subTest(tool=tool), open("/dev/full", "w", encoding="ascii") as full:
                done = subprocess.run([CLIENTS / tool, "--help"], stdout=full,
                                      stderr=subprocess.PIPE, encoding="utf-8")
                self.assertEqual((done.returncode, done.stderr),
                                 (1, f"{tool.rpartition('/')[2]}: No space left on device\n"))


if __name__ == "__main__":
    unittest.main()
