#!/usr/bin/env python3
"""The suite as a program: its options, reports and limits, and how it meets other people's
servers. test_broken_servers.py shows what its cases catch."""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.dirname(HERE)
SERVERS = os.path.join(HERE, "servers")
SUITE = os.path.join(CLIENTS, "check-server.py")
REFERENCE = os.path.join(SERVERS, "reference.py")
BROKEN = os.path.join(SERVERS, "broken.py")
sys.path.insert(0, CLIENTS)

from check_server import Model, naive_answer, runner     # noqa: E402
from check_server.command import REGISTRY   # noqa: E402
from check_server.errors import Failure     # noqa: E402
from check_server.protocol import random_input  # noqa: E402
from check_server.server import Server  # noqa: E402
from lib import figures     # noqa: E402


def check_server(*arguments):
    return subprocess.run([sys.executable, SUITE, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", check=False)


def interruptible():
    """A shell starts background jobs with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class TheSuite(unittest.TestCase):
    def test_ends_quietly_when_its_output_is_closed(self):
        for options in ["--list"], ["--quick", REFERENCE]:
            with self.subTest(options):
                reader, writer = os.pipe()
                os.close(reader)
                with open(writer, "wb") as output:
                    done = subprocess.run([sys.executable, SUITE, *options], stdout=output,
                                          stderr=subprocess.PIPE, check=False)
                self.assertEqual((done.returncode, done.stderr), (1, b""))

    def test_usage_errors(self):
        for arguments in ([], ["/no/such/server"], [HERE], ["--slow-factor=0", REFERENCE],
                          ["--only=no-such-case", REFERENCE], ["--capacity=x", REFERENCE],
                          ["--also=/no/such/file", REFERENCE], ["--no-such", REFERENCE],
                          ["--junit=/no/such/folder/x", REFERENCE], [__file__]):
            with self.subTest(arguments):
                done = check_server(*arguments)
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertNotIn("Traceback", done.stderr)

    def test_a_run_in_which_no_case_can_run_is_no_success(self):
        """Each case needs more descriptors than that. One that was asked for may be skipped."""
        limited = ["sh", "-c", 'ulimit -n 50 && exec "$@"', "sh", sys.executable, SUITE]
        for options, status in ((), 1), (("--only=greeting",), 0):
            done = subprocess.run([*limited, *options, REFERENCE], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, encoding="utf-8", check=False)
            self.assertRegex(done.stdout, r"\n0 passed, 0 failed, \d+ skipped\n$")
            self.assertEqual(done.returncode, status, done.stdout)
            self.assertEqual("nothing was tested" in done.stderr, status == 1)

    @unittest.skipUnless(shutil.which("unshare") and os.geteuid() == 0, "needs root, unshare")
    def test_a_machine_without_loopback_is_no_fault_of_the_server(self):
        done = subprocess.run(["unshare", "-n", sys.executable, SUITE, "--only=greeting",
                               "--only=known-exchange", "--ephemeral", REFERENCE],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              encoding="utf-8", check=False)
        if done.stdout.startswith("unshare: "):
            self.skipTest(done.stdout)
        self.assertIn("is its loopback interface up?): ", done.stdout)
        self.assertTrue(done.stdout.endswith("0 passed, 0 failed, 2 skipped\n"), done.stdout)


class TheReports(unittest.TestCase):
    BOTH = ("--only=known-exchange", "--only=all-byte-values", "--contract=full", BROKEN, "--",
            "--bug", "off-by-one-at-the-wrap")

    def test_lines(self):
        done = check_server(*self.BOTH)
        self.assertRegex(done.stdout, r"(?m)^ok +known-exchange +the known .* \(\d\.\d\d s\)$")
        self.assertIn(r"from byte 251 on expected b'\xfc\xfd\xfe\xff\x00', "
                      r"got b'\xfc\xfd\xfe\xff\xff'", done.stdout)
        self.assertIn("client sent 257 bytes: ", done.stdout)
        self.assertIn("  | Listening on 127.0.0.1:", done.stdout)
        self.assertRegex(done.stdout, r"again with  .*check-server\.py --only all-byte-values "
                                      r"--seed \d+ --contract full .* -- --bug off-by-one-.*\n")
        self.assertTrue(done.stdout.endswith("\n1 passed, 1 failed, 0 skipped\n"))

    def test_tap(self):
        lines = check_server("--tap", *self.BOTH).stdout.splitlines()
        self.assertEqual(lines[:2], ["TAP version 13", "1..2"])
        self.assertRegex(lines[2], "^ok 1 - known-exchange: ")
        self.assertRegex(lines[3], "^not ok 2 - all-byte-values: ")
        self.assertEqual(lines[-1], "# 1 passed, 1 failed, 0 skipped")

    def test_junit(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "report.xml")
            check_server("--junit", path, *self.BOTH)
            suite = ElementTree.parse(path).getroot()
        self.assertEqual((suite.get("tests"), suite.get("failures")), ("2", "1"))
        self.assertEqual([len(case) for case in suite.iter("testcase")], [0, 1])


class OtherPeoplesServers(unittest.TestCase):
    """Start scripts, daemons, servers that print anything: nothing hangs, nothing survives, and
    what they print stays text."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.mark = os.path.join(self.folder, "echo.py")    # on every command line of theirs
        self.script("echo.py", ECHO)

    def script(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        os.chmod(path, 0o755)
        return path

    def left(self):
        return [pid for pid in figures.table() if self.folder in figures.command_line(pid)]

    def check(self, server, *options, status=1, env=None):
        """Run the suite on it; nothing of it may be left then."""
        began = time.monotonic()
        done = subprocess.run([sys.executable, SUITE, *options, server],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                              encoding="utf-8", env={**os.environ, **(env or {})})
        self.seconds = time.monotonic() - began
        self.assertEqual(done.returncode, status, done.stdout)
        self.assertNotIn("Traceback", done.stdout)
        if figures.AVAILABLE:
            self.assertEqual(self.left(), [], done.stdout)
        return done.stdout

    def test_a_start_script_whose_program_takes_no_notice_of_help(self):
        server = self.script("start.sh", f'#!/bin/sh\n{self.mark} "$@"\n')
        self.check(server, "--only=greeting", status=1)     # the script dies, the program not
        self.assertLess(self.seconds, 20)

    def test_a_daemon(self):
        server = self.script("daemon.py", "#!/usr/bin/env python3\nimport os, sys, time\n"
                             "if os.fork():\n    time.sleep(0.2)\n    os._exit(0)\n"
                             f"os.setsid()\nos.execv({self.mark!r}, ['x', *sys.argv[1:]])\n")
        self.assertIn("in the background", self.check(server, "--only=greeting",
                                                      "--contract=basic"))

    def test_one_that_prints_without_end(self):
        for text in "exec yes 'menu> '", "exec cat /dev/zero":
            said = self.check(self.script("menu.sh", f"#!/bin/sh\n{text}\n"), "--only=greeting")
            self.assertIn("printed more than", said)
            self.assertIn("\n0 passed, 1 failed, 0 skipped\n", said)
            self.assertLess(len(said), 10000)

    NASTY = (b"\x1b[31m\xfc\xff K\xc3\xb6nig \x0c\xc2\x85not ok 9 - x\rBail out!\n"
             b"not ok 7 - y\nok 8\n1..9\n")

    def test_what_they_print_stays_text(self):
        text = b"#!/bin/sh\ncat <<'END'\n" + self.NASTY + b"END\nexit 3\n"
        server = self.script(os.fsdecode(b"caf\xe9 \x1b[31m"), text)
        report = os.path.join(self.folder, "report.xml")
        for env in {"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C.UTF-8"}:
            said = self.check(server, "--only=greeting", "--only=known-exchange",
                              "--contract=basic", "--tap", "--junit", report, env=env)
            lines = said.splitlines()
            self.assertTrue(all(char.isprintable() or char == "\n" for char in said), said)
            self.assertEqual([line for line in lines if not line.startswith("#")],
                             ["TAP version 13", "1..2", *lines[2:3], *lines[-2:-1]])
            self.assertTrue(lines[2].startswith("not ok 1 - greeting"))
            self.assertEqual(len(list(ElementTree.parse(report).getroot())), 2)

    @unittest.skipUnless(figures.AVAILABLE, "needs Linux's /proc")
    def test_one_that_forgot_htons_is_told_where_it_listens(self):
        swapped = ECHO.replace(", port))", ", swapped))")
        server = self.script("swapped.py", swapped)
        for _ in range(5):      # another program may have the swapped port: then try another
            said = self.check(server)
            if "already in use" not in said:
                break
        self.assertRegex(said, r"listens on 127\.0\.0\.1 port \d+, not on .* htons")
        self.assertRegex(said, r"\n0 passed, 1 failed, \d\d+ skipped\n")

    def test_a_server_without_output_may_open_more_after_it_listens(self):
        late = ECHO.replace("\n\ndef serve", """
end = time.monotonic() + 0.7
while time.monotonic() < end:
    pass
kept = [os.dup(0) for _ in range(10)]

def serve""")
        server = self.script("late.py", late)
        self.check(server, "--only=greeting", "--contract=basic", status=0)

    def test_one_that_never_listens_ends_the_run(self):
        said = self.check(self.script("never.sh", "#!/bin/sh\nexec sleep 60\n"),
                          "--slow-factor=0.2")
        self.assertRegex(said, r"\n0 passed, 1 failed, \d\d+ skipped\n")
        self.assertLess(self.seconds, 10)

    def test_one_that_takes_turns_is_told_about_serial(self):
        done = check_server("--slow-factor=0.4", BROKEN, "--", "--bug", "serves-one-at-a-time")
        self.assertEqual(done.returncode, 1)
        self.assertIn("check it with --serial", done.stdout)
        self.assertRegex(done.stdout, r"\n\d passed, 1 failed, \d\d+ skipped\n")

    def test_one_that_fails_the_first_cases_ends_the_run(self):
        server = self.script("wrong.py", ECHO.replace("(byte + 1)", "(byte + 2)"))
        said = self.check(server, "--contract=basic")
        self.assertRegex(said, "(?m)^ok +greets-a-client ")
        self.assertRegex(said, r"(?m)^skip +\d\d cases -- not run: a server that fails greet")
        self.assertEqual(len(re.findall("(?m)^FAIL ", said)), 1)

    def test_skipped_cases_are_grouped_by_reason(self):
        said = self.check(self.mark, "--contract=basic", "--only=greeting", "--only=bind",
                          "--only=listening-line", "--only=max-clients", status=0)
        self.assertRegex(said, r"(?m)^skip +2 cases -- needs the whole command line")
        self.assertRegex(said, r"(?m)^skip +max-clients -- the server has no option --max-")
        self.assertEqual(len(re.findall("(?m)^skip ", said)), 2)

    def test_quick_is_quick_for_servers_that_fail_too(self):
        server = self.script("silent.py", ECHO.replace('c.sendall(b"*")', "pass"))
        said = self.check(server, "--quick", "--contract=basic", "--all")
        self.assertIn("not run: --quick ends after", said)
        self.assertLess(self.seconds, 20)

    def test_quick_does_not_wait_for_slow_answers(self):
        server = self.script("slow.py", ECHO.replace(
            "answer.append((byte + 1) & 255)",
            "c.sendall(bytes([byte + 1])); signal.sigtimedwait([], 0.9)"))
        said = self.check(server, "--quick", "--contract=basic")
        self.assertRegex(said, r"(?m)^FAIL +greeting .*\n(.*\n)? +not done after [345]\S* s: "
                               r"the answers come, but slowly \(\d bytes so far\)$")

    def test_quick_does_not_wait_long_for_slow_answers_to_much(self):
        done = check_server("--quick", "--contract=basic", "--slow-factor=0.25", BROKEN, "--",
                            "--bug", "receives-byte-by-byte")
        self.assertRegex(done.stdout, r"(?m)^FAIL +one-mebibyte-message .*\n(.*\n)? +not done "
                                      r"after 3 s: the answers come, but slowly ")

    def test_quick_leaves_our_own_servers_the_whole_time_of_a_case(self):
        """Some of their cases start dozens of processes."""
        case = next(case for case in REGISTRY.cases if case.name == "wrong-command-lines")
        for strict in True, False:
            settings = argparse.Namespace(level="quick", only=[], failed=False, strict=strict,
                                          began=time.monotonic(), slow_factor=1)
            self.assertEqual(runner._limit_factor(case, settings) == 1, strict)

    def test_quick_says_that_a_server_never_listens(self):
        server = self.script("never.sh", "#!/bin/sh\nexec sleep 60\n")
        said = self.check(server, "--quick", "--contract=basic", "--slow-factor=0.25")
        self.assertRegex(said, r"(?m)^ +neither printed .* nor accepted within [01]\S* s$")
        self.assertIn(" cases -- not run: the server cannot be reached", said)

    def test_the_line_again_with_repeats_the_failure(self):
        lesson = self.script("a lesson.py", LESSON)
        done = check_server("--serial", "--contract=full", "--capacity=3", "--slow-factor=0.5",
                            "--quick", "--ephemeral", "--also", lesson, "--only=bad-lesson",
                            BROKEN, "--", "--bug", "off-by-one-at-the-wrap")
        command = re.search(r"again with  (.*)", done.stdout)[1]
        again = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, encoding="utf-8")
        self.assertEqual(again.returncode, 1)

        def same(text):
            return re.sub(r" +the second try.*\n|\d+\.\d\d s|\d{4,}|process \d+", "", text)

        self.assertEqual(same(again.stdout), same(done.stdout))
        for option in ("--serial", "--capacity 3", "--contract full", "--slow-factor 0.5",
                       "--quick", "--ephemeral", "--also '", "-- --bug"):
            self.assertIn(option, command)

    def test_dying_of_sigterm_fails_the_cases_about_stopping_and_no_others(self):
        said = self.check(self.script("dies.py", ECHO.replace("signal.signal", "0 and id")),
                          "--contract=basic", "--only=greeting", "--only=stop-*")
        self.assertRegex(said, "(?m)^ok +greeting ")
        for case in "alone", "with-clients", "under-load", "with-a-client-that-never-reads":
            self.assertRegex(said, f"(?m)^FAIL +stop-{case} ")

    @unittest.skipUnless(figures.AVAILABLE, "needs Linux's /proc")
    def test_signals_end_the_servers_and_the_suite(self):
        for number in signal.SIGHUP, signal.SIGINT, signal.SIGTERM:
            tool = subprocess.Popen([sys.executable, SUITE, "--contract=basic", "--only=stop-*",
                                     self.mark], stdout=subprocess.DEVNULL,
                                    preexec_fn=interruptible)
            deadline = time.monotonic() + 10
            while len(self.left()) < 2 and time.monotonic() < deadline:
                time.sleep(0.005)       # one is the suite, whose argument it is
            tool.send_signal(number)
            self.assertEqual(tool.wait(10), 128 + number)
            self.assertEqual(self.left(), [])

    @unittest.skipUnless(shutil.which("unshare") and os.geteuid() == 0, "needs root, unshare")
    def test_zombies_are_not_left_behind(self):
        server = self.script("forks.py", FORKS)
        done = subprocess.run(
            ["unshare", "-p", "-f", "--mount-proc", "--kill-child", sys.executable, SUITE,
             "--contract=basic", "--only=stop-with-clients", server], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", timeout=60)
        if "unshare" in done.stdout:
            self.skipTest(done.stdout.strip())
        self.assertEqual(done.returncode, 0, done.stdout)


class TimeLimits(unittest.TestCase):
    def test_that_strike_late_end_one_case_only(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "late.py")
            with open(path, "w", encoding="utf-8") as file:
                file.write(LATE)
            done = check_server("--also", path, "--only=a-late*", "--only=b-*", "--only=c-*",
                                "--contract=basic", REFERENCE)
        second_try = r".*\n(?: +the second try.*\n)? +"     # a busy machine may stand still
        self.assertRegex(done.stdout, rf"(?m)^FAIL +a-late {second_try}described slowly$")
        self.assertRegex(done.stdout, rf"(?m)^FAIL +b-endless {second_try}not done "
                                      r"after 0\.2 s$")
        self.assertRegex(done.stdout, r"(?m)^skip +c-lacking .*this machine lacks")
        self.assertIn("\n0 passed, 2 failed, 1 skipped\n", done.stdout)


LATE = """
import errno
import time
from check_server import Failure, case

class Slow(Failure):
    def __str__(self):
        time.sleep(1.5)
        return "described slowly"

@case("it fails just before its time is over", limit=0.3)
def a_late(t):
    raise Slow("")

@case("it does not end", limit=0.2)
def b_endless(t):
    while True:
        pass

@case("the machine has no descriptor left")
def c_lacking(t):
    raise OSError(errno.EMFILE, "Too many open files")
"""

ECHO = """#!/usr/bin/env python3
import os, signal, socket, sys, threading, time

port = int(sys.argv[-1]) if sys.argv[-1].isdigit() else 0
swapped = (port & 255) << 8 | port >> 8
try:
    listener = socket.create_server(("127.0.0.1", port))
except OSError as error:
    sys.exit(str(error))

def serve(c):
    inside = False
    with c:
        c.sendall(b"*")
        while True:
            data = c.recv(65536)
            if not data:
                return
            answer = bytearray()
            for byte in data:
                if not inside:
                    inside = byte == 94
                elif byte == 36:
                    inside = False
                else:
                    answer.append((byte + 1) & 255)
            c.sendall(answer)

def quietly(c):
    try:
        serve(c)
    except OSError:
        pass

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    threading.Thread(target=quietly, args=listener.accept()[:1], daemon=True).start()
"""
FORKS = """#!/usr/bin/env python3
import os, signal, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[-1])))
children = []

def stop(*_):
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)

signal.signal(signal.SIGTERM, stop)
while True:
    client, _ = listener.accept()
    pid = os.fork()
    if pid:
        children.append(pid)
        client.close()
        continue
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    client.sendall(b"*")
    while True:
        data = client.recv(65536)
        if not data:
            os._exit(0)
        client.sendall(data.strip(b"^$").translate(bytes((b + 1) % 256 for b in range(256))))
"""


class FurtherCases(unittest.TestCase):
    def test_are_run_after_ours_and_judged_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "lesson.py")
            with open(path, "w", encoding="utf-8") as file:
                file.write(LESSON)
            done = check_server("--also", path, "--only=*lesson*", "--contract=basic",
                                REFERENCE)
        self.assertRegex(done.stdout, "(?m)^ok +good-lesson ")
        self.assertRegex(done.stdout, "(?m)^FAIL +bad-lesson ")
        self.assertRegex(done.stdout, "(?m)^skip +skipped-lesson .*no option --max-clients")
        self.assertIn("expected b'xyz', got b'bcd'", done.stdout)


class AMachineThatStandsStill(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cases = os.path.join(folder.name, "stalls.py")
        with open(self.cases, "w", encoding="utf-8") as file:
            file.write(STALLS)

    def run_case(self, name):
        return check_server("--also", self.cases, "--only", name, "--contract=basic",
                            REFERENCE).stdout

    def test_is_good_for_a_second_try(self):
        self.assertRegex(self.run_case("one-stall"), r"ok .*\n +the second try .* 0\.\d\d s\n")
        self.assertRegex(self.run_case("stalls"), r"FAIL .*\n +the second try .*\n +time 2\n")

    def test_is_no_excuse_for_doing_too_much(self):
        self.assertRegex(self.run_case("too-much"), r"FAIL .* s\)\n +time 1\n")

    def test_is_not_one_that_computes(self):
        said = self.run_case("no-stall")
        for _ in range(5):     # it may indeed stand still, but not each time
            if "the second try" in said:
                said = self.run_case("no-stall")
        self.assertRegex(said, r"FAIL .* s\)\n +time 1\n")


STALLS = """
import subprocess
from check_server import case
from check_server.errors import Failure

times = {}

def fail(t, upto, stop):
    times[upto] = times.get(upto, 0) + 1
    if stop:
        subprocess.run(["sh", "-c", "kill -STOP $PPID; sleep 0.4; kill -CONT $PPID"])
    t.check(times[upto] > upto, f"time {times[upto]}")

@case("it fails while the machine stands still")
def one_stall(t):
    fail(t, 1, True)

@case("it fails again")
def stalls(t):
    fail(t, 2, True)

@case("it does too much, while the machine stands still")
def too_much(t):
    try:
        fail(t, 4, True)
    except Failure as failure:
        raise Failure(str(failure), final=True)

@case("it fails, and the machine was there all the time")
def no_stall(t):
    for _ in range(1000):       # in pieces, so that a busy machine delays each of them little
        sum(range(30000))
    fail(t, 3, False)
"""

LESSON = """
from check_server import case

@case("it holds")
def good_lesson(t):
    with t.server() as s:
        s.connect().greeting().send(b"^abc$").expect(b"bcd")
        s.wait_log("connected")
        assert s.threads() == 1
        assert s.stop().status == 0

@case("it does not hold")
def bad_lesson(t):
    with t.server() as s:
        s.connect().greeting().send(b"^abc$").expect(b"xyz")

@case("it cannot be checked", needs="--max-clients")
def skipped_lesson(t):
    raise AssertionError
"""


@unittest.skipUnless(figures.AVAILABLE, "there is no /proc")
class AServerThatRunsWithNothingToDo(unittest.TestCase):
    def looks(self, *shares, forks=0):
        """How many looks check_calm takes. Each finds a share of the time that the server runs;
        during the first ones it forks."""
        server, left, children = Server.__new__(Server), list(shares), []
        server.patience = 5

        def look(*_):
            if len(shares) - len(left) < forks:
                children.append(len(left))
            return left.pop(0)

        with unittest.mock.patch.object(Server, "cpu_share", look), \
                unittest.mock.patch.object(Server, "pid", 1), \
                unittest.mock.patch.object(figures, "children", lambda _: list(children)):
            server.check_calm()
        return len(shares) - len(left)

    def test_is_reported(self):
        self.assertEqual(self.looks(0.1, 0.5), 1)
        for forks in range(3):
            with self.assertRaisesRegex(Failure, "it runs for 30 %"):
                self.looks(*[0.4] * forks, 0.3, 0.1, forks=forks)

    def test_may_still_fork_its_workers(self):
        self.assertEqual(self.looks(0.4, 0.3, 0.1, forks=2), 3)


class TheModel(unittest.TestCase):
    def test_agrees_with_the_naive_rule_at_every_split(self):
        rng = random.Random(1)
        for _ in range(50):
            data = random_input(rng, rng.randrange(60))
            for at in range(len(data) + 1):
                model = Model()
                self.assertEqual(model.feed(data[:at]) + model.feed(data[at:]),
                                 naive_answer(data), data)


if __name__ == "__main__":
    unittest.main()
