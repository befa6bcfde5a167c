"""The grader: stages, points, hints, and the reports for people and for machines."""

import argparse
import copy
import json
import os
import pathlib
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile
from concurrent.futures import ThreadPoolExecutor
from unittest import mock
from xml.etree import ElementTree

from grading_tools import (BROKEN, CLIENTS, COURSE, ECHO, GRADE, HINTS, REFERENCE, ROOT,
                           SERVERS, STAGES, STREAMS, grade, grade_broken, hints_for, hints_of,
                           most, outcome, points, up_to)

import broken   # noqa: E402
from check_server.command import REGISTRY   # noqa: E402
from check_server import runner, server     # noqa: E402
from grading import run, words      # noqa: E402
from grading.course import Graded, Invalid, read     # noqa: E402
from grading.memory import Memory   # noqa: E402
from lib import figures     # noqa: E402
from lib.reports import FAIL    # noqa: E402
from lib.servers import free_port       # noqa: E402

WRAP = "off-by-one-at-the-wrap"
# Some of the broken servers, whose bugs show soon; long_grade.py runs all of them.
SOON = (WRAP, "crashes-at-the-wrap", "forgets-state-between-packets", "greets-with-a-line",
        "echoes-everything", "waits-for-a-line", "waits-for-the-end-of-a-message",
        "wraps-one-too-early")


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, mode=0o644):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)


class Stages(unittest.TestCase):
    def test_a_bug_costs_its_case_and_the_run_ends_with_its_stage(self):
        done = grade_broken(WRAP)
        self.assertEqual(done.returncode, 1, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[0].split(), "stage 1 greet one client 4/4".split())
        self.assertRegex(lines[1], r"^stage 2  answer every byte +4/6   byte 0xFF was answered "
                                   r"with 0xFF, expected 0x00$")
        self.assertRegex(done.stdout, r"\n +hint: What is 255 \+ 1 in one byte\?\n")
        self.assertRegex(done.stdout, r"\nstage 3  any packets +-   waits for stage 2\n")
        self.assertIn("\n8 of 61 points (main part), 0 of 17 (hardened part).\n", done.stdout)
        self.assertIn("\nNext: stage 2. ", done.stdout)
        self.assertRegex(done.stdout, r"\nOnly this stage: .* --stage 2 \S+ -- --bug \S+\nAll "
                                      r"stages, whatever fails: .* --all \S+ -- --bug \S+\n$")
        self.assertEqual(points(done.data), {"main": 8, "hardened": 0})

    def test_the_failure_is_shown_side_by_side_and_can_be_repeated(self):
        done = grade_broken(WRAP, "--stage", "2")
        expected, received, mark = re.search(
            r"expected (.*)\n +received (.*)\n( +\^\^\^\^) byte 255", done.stdout).groups()
        self.assertEqual(expected.split()[-2:], ["\\xff", "\\x00"])
        self.assertEqual(received.split()[-2:], ["\\xff", "\\xff"])
        line = next(line for line in done.stdout.splitlines() if "received" in line)
        self.assertEqual(line[len(mark) - 4:], "\\xff")
        self.assertRegex(done.stdout, r"its output ends:\n +\| Listening on 127")
        command = re.search(r"again: +(.*)", done.stdout)[1]
        again = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, encoding="utf-8",
                               env={**os.environ, "GRADE_MEMORY": ""})
        self.assertEqual(again.returncode, 1)
        self.assertIn(expected, again.stdout)

    def test_the_command_for_only_this_stage_names_the_same_server_and_options(self):
        """Also if the path has a space, and the server has arguments."""
        with tempfile.TemporaryDirectory(prefix="a b") as folder:
            server = os.path.join(folder, "server")
            shutil.copy(BROKEN, server)
            for name in "bugs.py", "reference.py":
                os.symlink(os.path.join(SERVERS, name), os.path.join(folder, name))
            typed = shlex.quote(server)
            for options, command in (
                    (["--as-make"], f"make grade SERVER={typed} STAGE=2 ARGS='--bug {WRAP}'"),
                    (["--capacity=9", "--slow-factor=2"],
                     f"{GRADE} --stage 2 --capacity 9 --slow-factor 2 {typed} -- "
                     f"--bug {WRAP}")):
                done = grade(*options, server, "--", "--bug", WRAP)
                self.assertIn(f"\nOnly this stage: {command}\n", done.stdout)

    def test_a_case_whose_parent_failed_is_not_judged(self):
        done = grade_broken("drops-the-last-byte", "--stage", "2", "--stage", "4")
        self.assertRegex(done.stdout, r"\nstage 4 .*\n +at length: .* --stage 4 ")
        del done.data["stages"][1:]
        self.assertEqual([(case["name"], case["status"]) for stage in done.data["stages"]
                          for case in stage["cases"]],
                         [("known-exchange", "failed"), ("all-byte-values", "not judged"),
                          ("markers", "not judged")])

    def test_one_client_at_a_time_is_enough_for_the_first_five_stages(self):
        done = grade(os.path.join(ROOT, "step1_sequential", "server"))  # step 3: long_grade.py
        self.assertEqual(points(done.data), {"main": up_to(5), "hardened": 0}, done.stdout)
        self.assertIn("While the server waits for the first client", done.stdout)

    def test_capacity_leaves_out_what_needs_more(self):
        done = grade("--capacity=20", "--stage=6", "--stage=10", "--case=thousand-clients",
                     REFERENCE)
        self.assertIn("left out: thousand-clients: needs 1000 clients", done.stdout)
        self.assertEqual((done.data["points"], done.data["max_points"]), (0, 0))

    @unittest.skipUnless(figures.AVAILABLE, "needs Linux's /proc")
    def test_the_buffers_of_asyncio_are_no_unbounded_buffer(self):
        done = grade("--seed=1", "--case=never-reading-client", STREAMS)
        self.assertEqual((done.returncode, done.data["points"]), (0, 1), done.stdout)

    def test_on_a_terminal_each_case_is_named_while_it_runs(self):
        master, terminal = os.openpty()
        self.addCleanup(os.close, master)
        command = [sys.executable, GRADE, "--stage=1", REFERENCE]
        for term, shown in ("xterm", ["\r\x1b[Kstage 1  greet one client"]), ("dumb", []):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal,
                                  encoding="utf-8", env={**os.environ, "TERM": term})
            self.assertEqual(done.stdout.splitlines()[0].split()[-1], "4/4")
            os.write(terminal, b"the end")
            drawn = ""
            while "the end" not in drawn:
                drawn += os.read(master, 1000).decode()
            self.assertEqual(re.findall(r"\r\x1b\[K[^\r]{25}", drawn)[:1], shown)
            self.assertTrue(drawn.endswith("\r\x1b[Kthe end" if shown else "the end"), drawn)
        os.close(terminal)

    def test_the_same_seed_repeats_the_run(self):
        first, second = (grade("--seed=Ada", "--stage=3", BROKEN, "--", "--bug",
                               "forgets-a-marker-that-ends-a-packet") for _ in range(2))
        self.assertEqual(outcome(first.data), outcome(second.data))
        self.assertEqual(first.data["seed"], "Ada")

    def test_usage_errors(self):
        for arguments, said in (
                ([], "PATH is missing"), (["/dev/null/x"], "no such file: /dev/null/x"),
                ([__file__], "not an executable file"),
                (["--stage=99", REFERENCE], "no stage 99"),
                (["--case=nothing", REFERENCE], "no case nothing"),
                (["--user=no such user", REFERENCE], "there is no user no such user"),
                (["--course=/dev/null/x", REFERENCE], "/dev/null/x"),
                (["--hints=0", REFERENCE], "must be at least 1")):
            with self.subTest(arguments):
                done = grade(*arguments)
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertIn(said, done.stderr)
                self.assertNotIn("Traceback", done.stderr)


class Hopeless(Folder):
    """Whatever a hopeless server does, it has its result within ten seconds."""

    SCRIPTS = {
        "never answers": "import socket, sys, time\nserver = socket.create_server(("
                         "'127.0.0.1', int(sys.argv[-1])))\ntime.sleep(99)",
        "never listens": "import time\ntime.sleep(99)",
        "prints without end": "while True: print('menu> ' * 1000)",
        "forks": "import os, time\nfor _ in range(5): os.fork()\ntime.sleep(99)",
        "daemonises": "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\ntime.sleep(99)",
        "reads": "import sys\nsys.stdin.read()\nraise SystemExit(3)",
        "exits": "raise SystemExit(0)",
        "greets late and answers slowly":
            "import os, signal, socket, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n"
            "server = socket.create_server(('127.0.0.1', int(sys.argv[-1])))\n"
            "while True:\n    client, _ = server.accept()\n    time.sleep(1)\n"
            "    client.send(b'*')\n    for byte in client.recv(99)[1:9]:\n"
            "        time.sleep(1)\n        client.send(bytes([byte + 1]))\n",
    }

    def run_one(self, name):
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!{sys.executable}\n{self.SCRIPTS[name]}\n")
        os.chmod(path, 0o755)
        began = time.monotonic()
        done = grade(path)
        return done, time.monotonic() - began

    def test_is_done_within_ten_seconds(self):
        with ThreadPoolExecutor() as pool:
            runs = dict(zip(self.SCRIPTS, pool.map(self.run_one, self.SCRIPTS)))
        for name, (done, seconds) in runs.items():
            with self.subTest(name):
                if seconds >= 10:   # eight ran at the same time
                    done, seconds = self.run_one(name)
                self.assertLess(seconds, 10)
                earned = 4 if "slowly" in name else 0
                self.assertEqual((done.returncode, done.data["points"]), (1, earned),
                                 done.stderr)
                self.assertRegex(done.stdout, r"(?m)^stage [12]  \w+ (one client|every byte)"
                                              r" +0/[46]   \S")
                self.assertLess(len(done.stdout), 5000)
        if figures.AVAILABLE:
            self.assertEqual([pid for pid in figures.table()
                              if self.folder in figures.command_line(pid)], [])


class GarbageCollectors(Folder):
    """A server whose memory grows and shrinks as a garbage collector's does."""

    def test_cost_no_points(self):
        server = self.write("server", f"""#!{sys.executable}
import sys
sys.path.insert(0, {os.path.dirname(BROKEN)!r})
import reference

class Conn(reference.Conn):
    garbage = []

    def feed(self, data):
        if sum(map(len, self.garbage)) > 40 << 20:
            self.garbage.clear()
        self.garbage.append(bytearray(data))
        return super().feed(data)

class Server(reference.Server):
    conn_class = Conn

sys.exit(reference.main(Server))
""", 0o755)
        done = grade("--seed=1", "--case=never-reading-client", "--case=never-reading-trickle",
                     "--case=bytes-outside-messages", server)
        self.assertEqual((done.returncode, done.data["points"]), (0, 3), done.stdout)


@unittest.skipUnless(figures.AVAILABLE, "needs Linux's /proc")
class Runtimes(Folder):
    """What a correct server does because of the language that it is written in."""

    def run_with(self, case, methods):
        server = self.write("server", f"""#!{sys.executable}
import os, resource, sys, threading
sys.path.insert(0, {os.path.dirname(BROKEN)!r})
import reference

class Server(reference.Server):
{methods}

sys.exit(reference.main(Server))
""", 0o755)
        return grade("--seed=1", f"--case={case}", server)

    THREAD = """
    begun = set()

    def drop(self, conn):
        super().drop(conn)
        served = self.counters["clients_served"]
        if served in %s and served not in self.begun:
            self.begun.add(served)
            threading.Thread(target=threading.Event().wait, daemon=True).start()
"""

    def test_that_start_a_thread_when_they_first_need_it_cost_no_points(self):
        done = self.run_with("no-leaks", self.THREAD % "(1000, 2000, 4000)")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_that_start_threads_again_and_again_do(self):
        done = self.run_with("no-leaks", self.THREAD % "range(1000, 1000000, 1000)")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stdout, r"\d+ threads before 3000 clients .*, \d+ after")

    def test_that_need_much_memory_for_each_client_cost_no_points(self):
        done = self.run_with("out-of-memory", """
    def admit(self, sock, peer):
        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            raise MemoryError
        super().admit(sock, peer)
""")
        self.assertEqual(done.returncode, 0, done.stdout)


class Hints(unittest.TestCase):
    def test_are_bound_to_broken_servers_and_lead_from_a_question_to_the_line(self):
        for case, hint in HINTS:
            with self.subTest(case, bugs=hint["bugs"]):
                self.assertGreaterEqual(len(hint["lines"]), 3)
                self.assertIn("?", hint["lines"][0])
                for bug in hint["bugs"]:
                    self.assertIn(bug, broken.BUGS)

    def test_appear_for_their_bug_and_for_no_other(self):
        for bug in SOON:
            with self.subTest(bug):
                done = grade_broken(bug)
                self.assertEqual(hints_of(done.data), hints_for(bug), done.stdout)

    def test_come_one_at_a_time(self):
        lines = next(hint["lines"] for _, hint in HINTS if WRAP in hint["bugs"])
        with tempfile.TemporaryDirectory() as folder:
            def shown(*options):
                done = grade_broken(WRAP, "--case=all-byte-values", *options,
                                    memory=os.path.join(folder, "memory"))
                return [line for line in lines if f"hint: {line}\n" in done.stdout]

            self.assertEqual(shown(), lines[:1])
            self.assertEqual(shown(), lines[:1])
            self.assertEqual(shown("--hint"), lines[:2])
            self.assertEqual(shown(), lines[:2])
            self.assertEqual(shown("--hints=9"), lines)
            self.assertEqual(shown(), lines[:2])
            done = grade_broken(WRAP, "--case=all-byte-values", "--hint")
            self.assertNotIn("the last hint", done.stdout)
            done = grade_broken(WRAP, "--case=all-byte-values", "--hints=9")
            self.assertIn(f"hint: {lines[-1]}\n         (this was the last hint)\n",
                          done.stdout)
            done = grade_broken("counts-no-rejections", "--stage=1", "--hint")
            self.assertNotIn("hint", done.stdout)
            done = grade("--case=known-exchange", "--hint", "/bin/false")
            self.assertIn("(there is no hint for this failure)\n", done.stdout)

    def test_of_a_server_that_ended_are_not_those_of_one_that_runs(self):
        hints = next(case.hints for stage in read(COURSE, REGISTRY, None).stages
                     for case in stage.cases
                     if case.case.name == "half-close-with-unsent-answers")
        for state, bugs in (("running as process 7", ["closes-at-half-close"]),
                            ("exited with status 1", None)):
            result = FakeResult(None, "receiving failed: [Errno 104] Connection reset by peer",
                                runner.Seen("", state, []))
            hint = run.find_hint(Graded(None, 2, None, hints), result)
            self.assertEqual(hint and hint.bugs, bugs)

    def test_fit_what_other_languages_print(self):
        hints = next(case.hints for stage in read(COURSE, REGISTRY, None).stages
                     for case in stage.cases if case.case.name == "all-byte-values")
        for line in ("thread 'main' panicked at 'attempt to add with overflow', server.rs:20",
                     "RangeError: The value of \"value\" is out of range."):
            seen = runner.Seen("", "running", [line])
            result = FakeResult(None, "got b'' and then the end of the connection", seen)
            hint = run.find_hint(Graded(None, 2, None, hints), result)
            self.assertEqual(hint and hint.bugs, ["crashes-at-the-wrap"])


class SecondTries(unittest.TestCase):
    """If the machine was busy, a case has a second try, and more time as a whole."""

    def limits(self, passed):
        settings = argparse.Namespace(cases=["greeting"], stages=[])
        limits = []

        def run_case(case, settings):
            limits.append(settings.limit_factor)
            return runner.Result(case, FAIL, 20.0, "not done after 20 s", [], False, ""), ""

        with mock.patch.object(run, "run_case", run_case), \
                mock.patch.object(run, "STALL", -1.0):
            run._try(REGISTRY.cases[0], settings, passed)
        return limits

    def test_have_more_time_unless_nothing_has_passed_so_far(self):
        self.assertEqual(self.limits({"greeting": True}), [1, run.SECOND_LIMIT])
        self.assertEqual(self.limits({}), [1, 1])


class Ports(unittest.TestCase):
    def test_that_another_program_takes_cost_no_points(self):
        for has_listened in True, False:
            with socket.create_server(("127.0.0.1", 0)) as other, \
                    mock.patch.object(server.Server, "has_listened", has_listened), \
                    mock.patch.object(server, "free_port", side_effect=[
                        other.getsockname()[1], free_port()]):
                with server.Server([sys.executable, REFERENCE], strict=False) as started:
                    started.serves_others()
                self.assertEqual(started.stopped.status, 0)


class HowItEnded(Folder):
    def test_is_seen_when_a_server_ends_soon_after_its_connection(self):
        server = self.write("server", f"""#!{sys.executable}
import os, signal, socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[-1])))
print(f"Listening on 127.0.0.1:{sys.argv[-1]}", flush=True)
server.accept()[0].close()
time.sleep(0.8)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGPIPE)
""", 0o755)
        self.assertRegex(grade(server).stdout,
                         r"^stage 1 .* the server died \(killed by SIGPIPE\): ")


class Remembers(Folder):
    def test_what_passed_the_last_time(self):
        server = self.write("server", f"#!/bin/sh\nexec {sys.executable} {BROKEN} --bug "
                            f"$(cat {self.path('bug')}) $1\n", 0o755)
        memory = self.path("memory")
        said = []
        for bug in "greets-twice", "drops-the-last-byte", "greets-twice":
            self.write("bug", bug)
            said.append(grade(server, memory=memory).stdout)
        self.assertNotIn("New", said[0])
        self.assertIn("\nNew: stage 1.\n", said[1])
        self.assertIn("\nPassed before, but not now: stage 1.\n", said[2])

    def test_and_keeps_what_another_run_has_written_meanwhile(self):
        path = self.path("memory")
        first, second = Memory("/a", path), Memory("/b", path)
        first.news([])
        second.news([])
        with open(path, encoding="utf-8") as file:
            self.assertEqual(sorted(json.load(file)), ["/a", "/b"])

    def test_and_needs_no_memory(self):
        for text in "", "[]", "[[[", '{"/s": 3}', '{"/s": {"passed": 1, "hints": {"a": "b"}}}':
            with self.subTest(text):
                memory = Memory("/s", self.write("memory", text))
                self.assertEqual(memory.news([]), "")
        for path in "", os.path.join(self.path("memory"), "below a file"):
            self.assertEqual(Memory("/s", path).news([]), "")

    def test_and_replaces_nothing_but_a_file(self):
        os.mkfifo(self.path("fifo"))
        os.symlink(self.write("file", "{}"), self.path("link"))
        os.mkdir(self.path("folder"))
        for name in "fifo", "link", "folder":
            before = os.lstat(self.path(name))
            self.assertEqual(Memory("/s", self.path(name)).news([]), "")
            after = os.lstat(self.path(name))
            self.assertEqual((after.st_ino, after.st_mode), (before.st_ino, before.st_mode),
                             name)
        self.assertEqual(sorted(os.listdir(self.folder)), ["fifo", "file", "folder", "link"])


class CourseFiles(Folder):
    def refused(self, change, said):
        course = copy.deepcopy(ECHO)
        change(course)
        path = self.write("course.json", json.dumps(course))
        with self.assertRaises(Invalid) as raised:
            read(path, REGISTRY, lambda file: None)
        self.assertIn(said, str(raised.exception))
        self.assertIn("course.json: ", str(raised.exception))

    def test_are_checked_when_they_are_read(self):
        def first(course):
            return course["parts"][0]["stages"][0]

        def case(course):
            return first(course)["cases"][0]

        for change, said in (
                (lambda c: c.pop("title"), '"title" is missing'),
                (lambda c: c.update(parts=[]), '"parts" is empty'),
                (lambda c: c.update(parts=3), "parts: must be a list, not 3"),
                (lambda c: c.update(more=1), "'more' is unknown here"),
                (lambda c: first(c).update(name=" "), 'stages[0]: "name" is empty'),
                (lambda c: first(c).update(teaches="no"), "no such file in this project: 'no'"),
                (lambda c: first(c).update(see=["README.md", "no"]), "this project: 'no'"),
                (lambda c: first(c).update(see=[3]), "see[0]"),
                (lambda c: first(c).update(teaches=__file__), "no such file in this project"),
                (lambda c: first(c).update(teaches="x" * 5000), "no such file in this project"),
                (lambda c: case(c).update(case="no"), "no case is called 'no'"),
                (lambda c: case(c).update(case="bind"), "it needs ours"),
                (lambda c: case(c).update(case="fairness"), "must have 0 points"),
                (lambda c: case(c).update(case="two-hundred-clients", parent="no"),
                 "must be an earlier case"),
                (lambda c: case(c).update(case="thousand-clients"), "several clients at once"),
                (lambda c: case(c).update(points=-1), "at least 0, not -1"),
                (lambda c: case(c).update(points=True), "points: must be a whole number"),
                (lambda c: first(c)["cases"].append(case(c)), "was there before"),
                (lambda c: case(c)["hints"][0].update(reason="("), "is no regular expression"),
                (lambda c: case(c)["hints"][0].update(lines=[]), '"lines" is empty'),
                (lambda c: case(c)["hints"][0].update(lines=[3]), "lines[0]: must be a text"),
                (lambda c: case(c)["hints"][0].update(lines=[" "]),
                 "lines[0]: must not be empty"),
                (lambda c: c.update(also=[3]), "also[0]: must be a text, not 3")):
            with self.subTest(said):
                self.refused(change, said)

    def test_that_are_no_json_are_refused_with_the_place(self):
        done = grade("--course", self.write("course.json", '{"title": "x",\n}'), "x")
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("course.json line 2 column 1", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_that_cannot_be_read_are_refused_in_one_line(self):
        for text, said in (
                ("[" * 99999, "course.json: maximum recursion depth"),
                ("1" * 5000, "course.json: Exceeds the limit" if sys.version_info >= (3, 11)
                 else "course.json: must be an object"),
                ('{"title": "x", "title": "y"}', 'course.json: "title" is there twice')):
            with self.subTest(text[:20]):
                done = grade("--course", self.write("course.json", text), "x")
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertIn(said, done.stderr)
                self.assertNotIn("Traceback", done.stderr)
        done = grade("--course", self.folder, "x")
        self.assertIn(f"--course: cannot read {self.folder}: Is a directory", done.stderr)

    def test_may_begin_with_a_byte_order_mark(self):
        course = self.write("course.json", "\ufeff" + json.dumps(ECHO))
        done = grade("--course", course, "--list")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_say_why_a_file_of_further_cases_cannot_be_read(self):
        """One that ends Python must not end the grader as if all had passed."""
        course = self.write("course.json", json.dumps({**ECHO, "also": ["mine"]}))
        for text, said in (
                (None, "no such file: "), ("\n1 / 0", "mine line 2: ZeroDivisionError: "),
                ("raise SystemExit(0)", "mine line 1: SystemExit: 0"), ("def (", "line 1"),
                ("from check_server import case\n@case('x', needless=1)\ndef x(t): pass\n",
                 "mine line 2: TypeError: ")):
            with self.subTest(text):
                if text is not None:
                    self.write("mine", text)
                done = grade("--course", course, REFERENCE)
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertIn("course.json: also[0]: ", done.stderr)
                self.assertIn(said, done.stderr)
                self.assertNotIn("Traceback", done.stderr)

    def test_may_have_cases_of_their_own(self):
        self.write("mine.py", 'from check_server import case\n@case("it is mine")\n'
                   'def mine(t):\n    with t.server() as s:\n        s.serves()\n')
        path = self.write("course.json", json.dumps({
            "title": "Mine", "also": ["mine.py"], "parts": [{
                "name": "a", "title": "A", "stages": [{
                    "name": "one", "model": "any", "teaches": "README.md",
                    "cases": [{"case": "mine", "points": 7}]}]}]}))
        done = grade("--course", path, REFERENCE)
        self.assertEqual((done.returncode, points(done.data)), (0, {"a": 7}), done.stderr)

    def test_ours_gives_points_only_to_what_is_counted(self):
        self.assertEqual((most("main"), most("hardened")), (61, 17))
        self.assertEqual(len(ECHO["parts"][0]["stages"]), 10)
        self.assertEqual([stage.get("one_at_a_time", False) for stage in STAGES],
                         [True] * 5 + [False] * 8)


class Reports(Folder):
    """Each is checked against the format that is published for it."""

    @classmethod
    def setUpClass(cls):
        cls.full = cls.run_with()

    @staticmethod
    def run_with(*options):
        """Run it with every report; the process, with the reports as attributes."""
        with tempfile.TemporaryDirectory() as folder:
            junit, scope, summary = (os.path.join(folder, name) for name in "abc")
            done = grade_broken("drops-the-last-byte", "--stage=1", "--stage=2", "--github",
                                "--junit", junit, "--gradescope", scope, *options,
                                env={"GITHUB_STEP_SUMMARY": summary})
            with open(scope, encoding="utf-8") as file:
                done.gradescope = json.load(file)
            with open(summary, encoding="utf-8") as file:
                done.markdown = file.read()
            done.xml = ElementTree.parse(junit).getroot()
        return done

    def test_neutral_results(self):
        data = self.full.data
        self.assertEqual(set(data), {"format", "course", "server", "seed", "points",
                                     "max_points", "parts", "stages", "next"})
        self.assertEqual((data["format"], data["points"], data["max_points"]),
                         ("echo-grade-1", 4, 10))
        for stage in data["stages"]:
            self.assertEqual(set(stage), {"number", "name", "part", "status", "points",
                                          "max_points", "cases"})
            self.assertEqual(stage["points"], sum(case["points"] for case in stage["cases"]))
            for case in stage["cases"]:
                self.assertEqual(set(case), {"name", "promise", "status", "points",
                                             "max_points", "reason", "hint", "details"})
        failed = data["stages"][1]["cases"][0]
        self.assertEqual(failed["status"], "failed")
        self.assertIn("expected b'bcdbcuf', got b'bcdbcu'", failed["reason"])

    def test_gradescope(self):
        report = self.full.gradescope
        self.assertLessEqual(set(report), {"score", "execution_time", "output", "output_format",
                                           "visibility", "stdout_visibility", "extra_data",
                                           "tests", "leaderboard"})
        self.assertEqual(report["score"], 4)
        for test in report["tests"]:
            self.assertLessEqual(set(test), {
                "score", "max_score", "status", "name", "name_format", "number", "output",
                "output_format", "tags", "visibility", "extra_data"})
            self.assertIn(test["status"], ("passed", "failed"))
            self.assertIn(test["visibility"], ("visible", "hidden", "after_due_date",
                                               "after_published"))
            self.assertEqual(test["output_format"], "text")
            self.assertIsInstance(test["number"], str)
            self.assertTrue(0 <= test["score"] <= test["max_score"])
        self.assertEqual([test["score"] for test in report["tests"]], [4, 0])

    def test_github(self):
        markdown = self.full.markdown
        found = [line for line in self.full.stdout.splitlines() if line.startswith("::")]
        self.assertEqual(len(found), 3)
        self.assertRegex(found[2], r"^::error title=stage 2%2C answer every byte::known-"
                                   r"exchange: expected .*%0Ahint: How many ")
        self.assertIn("| 2 | answer every byte | 0/6 | ", markdown)
        for line in markdown.splitlines():
            if line.startswith("| "):
                self.assertEqual(len(re.findall(r"(?<!\\)\|", line)), 5, line)
        self.assertEqual(markdown.count("```"), 2)

    def test_junit(self):
        xml = self.full.xml
        self.assertEqual((xml.tag, xml.get("tests"), xml.get("failures"), xml.get("skipped")),
                         ("testsuite", "4", "1", "2"))
        self.assertEqual(xml[1].get("name"), "stage 2: known-exchange")

    def test_show_only_as_much_as_is_wanted(self):
        for level, shown, hidden in (
                ("own-output", ("Listening on",), ("bcdbcu", "hint", "How many")),
                ("none", (), ("Listening on", "bcdbcu", "hint", "How many"))):
            done = self.run_with("--failure-details", level)
            everything = [done.stdout, json.dumps(done.data).replace('"hint": ""', ""),
                          json.dumps(done.gradescope), done.markdown,
                          ElementTree.tostring(done.xml, "unicode")]
            for report in everything:
                for word in hidden:
                    self.assertNotIn(word, report, level)
            for word in shown:
                self.assertIn(word, everything[0], level)
            self.assertEqual(done.data["points"], 4)

    def test_that_cannot_be_written_are_refused_before_the_run(self):
        missing = self.path("no/such")
        for options, name in ((["--json", missing], "--json"),
                              (["--junit", missing], "--junit"),
                              (["--gradescope", missing], "--gradescope"),
                              (["--github"], "$GITHUB_STEP_SUMMARY")):
            with self.subTest(name):
                done = grade(*options, REFERENCE, env={"GITHUB_STEP_SUMMARY": missing})
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                self.assertIn(f"{name}: cannot write {missing}: No such file or directory\n",
                              done.stderr)

    def test_cannot_be_steered_by_what_a_server_prints(self):
        server = self.write("nasty", "#!/bin/sh\nprintf '::error::x\\n##[error]y\\n\\033[31m```"
                            "\\n<b>|\\n'\nexit 3\n", 0o755)
        summary = self.path("summary")
        done = grade("--github", server, env={"GITHUB_STEP_SUMMARY": summary})
        self.assertNotIn("\x1b", done.stdout)
        # GitHub takes ##[ for a command anywhere in a line, unless commands are stopped.
        token = re.match("::stop-commands::(.{32})\n", done.stdout)[1]
        inside, outside = done.stdout.split(f"\n::{token}::\n")
        self.assertIn("##[error]y", inside)
        self.assertRegex(outside, "^::error title=stage 1.*\n$")
        with open(summary, encoding="utf-8") as file:
            self.assertEqual(file.read().count("```"), 2)


class Words(unittest.TestCase):
    def test_say_what_is_missing_and_what_is_too_much(self):
        for wanted, got, said in (
                (b"bcdbcuf", b"cdbcuf", "the answer to byte 0x61 is missing"),
                (b"bcdbcuf", b"dbcuf", "2 answers are missing, beginning with that to "
                                       "byte 0x61"),
                (b"bcdef", b"bc\0\0def", "2 bytes too many before the answer to byte 0x63, "
                                         "beginning with 0x00"),
                (b"bcdbcuf", b"_bcd_bc", "1 byte too many before the answer to byte 0x61, "
                                         "beginning with 0x5F"),
                (b"bcdbcuf", b"bcddebc", "2 bytes too many before the answer to byte 0x61, "
                                         "beginning with 0x64"),
                (b"234", b"\n23", "1 byte too many before the answer to byte 0x31, "
                                  "beginning with 0x0A"),
                (2 * bytes(range(50)), bytes(range(20, 50)),
                 "byte 0xFF was answered with 0x14, expected 0x00"),
                (b"\0", b"\xff", "byte 0xFF was answered with 0xFF, expected 0x00")):
            result = FakeResult(FakeError(wanted, got), "the reason")
            self.assertEqual(words.in_one_line(result), said)
        self.assertEqual(words.in_one_line(FakeResult(FakeError(b"abc", b"ab"), "why")), "why")

    def test_say_that_a_server_ended_later_than_it_had_to(self):
        seen = runner.Seen("server", "exited with status 0", [])
        for reason, later in (("still running 2 s after SIGTERM", ", later"), ("wrong", "")):
            self.assertEqual(list(words.own_output(FakeResult(None, reason, seen))),
                             [f"server    exited with status 0{later}"])

    def test_mark_the_first_byte_that_differs(self):
        for wanted, got in ((b"abc", b"abd"), (b"abc", b"ab"), (b"ab", b"abc"), (b"\n", b""),
                            (b"x" * 50 + b"\0", b"x" * 50 + b"y"), (b"a\xff\0", b"a\xffb")):
            first, second, mark = words.side_by_side(wanted, got)
            column = mark.index("^")
            before = {line[8:column].ljust(column) for line in (first, second)}
            self.assertEqual(len(before), 1, (first, second, mark))
            self.assertNotEqual(first[column:], second[column:])

    def test_count_the_answers_that_came_before(self):
        error = FakeError(b"abc", b"abd")
        for reason, byte in ("3001 bytes were right, then: why", 3003), ("why", 3):
            shown = list(words.evidence(FakeResult(error, reason)))
            self.assertTrue(shown[2].endswith(f"^ byte {byte} of the answers"), shown)


class FakeError:
    def __init__(self, wanted, got):
        self.wanted, self.got, self.client = wanted, got, None


class FakeResult:
    def __init__(self, error, reason, server=None):
        self.error, self.reason, self.server, self.remarks = error, reason, server, []


class Folders(Folder):
    """A folder is built, then its program is graded."""

    def test_that_cannot_be_built_earn_nothing_and_say_why(self):
        self.write("Makefile", "server:\n\t@echo it is broken; exit 3\n")
        report, summary = self.path("report.json"), self.path("summary")
        done = grade("--github", "--gradescope", report, self.folder,
                     env={"GITHUB_STEP_SUMMARY": summary})
        self.assertEqual((done.returncode, done.data["points"], done.data["max_points"]),
                         (1, 0, 78))
        self.assertIn("it is broken", done.stdout)
        with open(report, encoding="utf-8") as file:
            self.assertIn("it is broken", json.load(file)["output"])
        self.assertRegex(done.stdout, "(?m)^::error title=build::make failed: .*it is broken")
        with open(summary, encoding="utf-8") as file:
            self.assertRegex(file.read(), r"```text\nmake failed: (.*\n)+it is broken\n")

    @unittest.skipUnless(os.geteuid() == 0, "only root may choose the user")
    def test_are_built_and_run_as_the_user_that_was_chosen(self):
        os.chmod(self.folder, 0o777)
        self.write("Makefile", "server:\n\t@echo '#!/bin/sh' > $@; "
                   "echo 'id -u; stat -c %u $$0' "
                   ">> $@; chmod 755 $@\n")
        done = grade("--user=nobody", self.folder)
        uid = pwd.getpwnam("nobody").pw_uid
        self.assertEqual(done.stdout.count(f"| {uid}\n"), 2, done.stdout)

    @unittest.skipUnless(os.geteuid() == 0, "only root may choose the user")
    def test_of_another_user_earn_the_points_for_memory(self):
        done = grade("--user=nobody", "--stage=12", REFERENCE)
        self.assertIn("9 of 9 points", done.stdout)

    def test_without_a_server_earn_nothing(self):
        done = grade(self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no program", done.stdout)


class Gradescope(Folder):
    def package(self, *arguments):
        return subprocess.run([os.path.join(CLIENTS, "courses/gradescope/package.py"),
                               *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              encoding="utf-8")

    def test_a_package_that_cannot_be_written_is_one_line(self):
        package = self.path("package.zip/here.zip")
        self.write("package.zip", "a file where a folder is wanted")
        done = self.package(package)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(f"cannot write {package}", done.stderr)

    def lay_out(self, *course):
        """The folder of a container with the package in it, and without a submission."""
        done = self.package(self.path("package.zip"), *course)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for name in "source", "submission", "results":
            os.mkdir(self.path(name))
        with zipfile.ZipFile(self.path("package.zip")) as file:
            for entry in file.infolist():
                path = file.extract(entry, self.path("source"))
                os.chmod(path, entry.external_attr >> 16)
        self.assertTrue(os.access(self.path("source/setup.sh"), os.X_OK))
        shutil.copy(self.path("source/run_autograder"), self.folder)
        self.write("submission_metadata.json",
                   json.dumps({"id": 1, "users": [{"id": 7, "email": "a@b"}, {"id": 3}]}))
        os.chmod(self.folder, 0o755)

    def run_there(self):
        """What it prints, and its results."""
        env = {name: value for name, value in os.environ.items() if name != "GRADE_MEMORY"}
        done = subprocess.run([self.path("run_autograder")], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, encoding="utf-8", cwd=self.folder,
                              env={**env, "AUTOGRADER": self.folder})
        self.assertEqual(done.returncode, 0, done.stdout)
        with open(self.path("results/results.json"), encoding="utf-8") as file:
            return done.stdout, json.load(file)

    def test_the_package_grades_a_submission_in_a_folder_laid_out_as_there(self):
        self.lay_out()
        # As Gradescope unpacks a zip of a folder
        shutil.copytree(os.path.join(CLIENTS, "courses/starters/c"),
                        self.path("submission/mine"))
        os.mkdir(self.path("submission/__MACOSX"))
        said, results = self.run_there()
        self.assertIn("--seed 3-7", said)
        self.assertEqual(results["score"], up_to(1))

    def test_another_run_in_the_same_container_does_not_know_of_the_first(self):
        self.lay_out()
        for status, earned in ("0", up_to(1)), ("1", 0):
            shutil.rmtree(self.path("submission"))
            shutil.copytree(os.path.join(CLIENTS, "courses/starters/python"),
                            self.path("submission"))
            source = pathlib.Path(self.path("submission/server.py"))
            source.write_text(source.read_text().replace("os._exit(0)", f"os._exit({status})"))
            said, results = self.run_there()
            self.assertEqual(results["score"], earned)
            self.assertNotIn("Passed before", said)
        self.assertFalse(os.path.exists(self.path("source/clients/build")))

    def test_a_submission_of_one_file_without_a_makefile_says_what_is_missing(self):
        self.lay_out()
        self.write("submission/server.c", "int main(void) {}\n")
        self.assertRegex(self.run_there()[1]["output"],
                         r"^there is no program .*/submission/server$")

    def test_the_package_of_another_course(self):
        os.mkdir(self.path("course"))
        self.write("course/mine.py", 'from check_server import case\n@case("it is mine")\n'
                   'def mine(t):\n    with t.server() as s:\n        s.connect().greeting()\n')
        course = {"title": "Mine", "also": ["mine.py"], "parts": [{
            "name": "a", "title": "A", "stages": [{
                "name": "one", "model": "any", "teaches": "README.md",
                "cases": [{"case": "mine", "points": 7}]}]}]}
        self.lay_out(self.write("course/mine.json", json.dumps(course)))
        self.write("submission/server", f"#!/bin/sh\nexec {sys.executable} {REFERENCE} $1\n",
                   0o755)
        self.assertEqual(self.run_there()[1]["score"], 7)

        for change, said in (({"also": ["../mine.py"]}, "no such file: "),
                             ({"also": ["../other.py", "mine.py"]}, "in the folder of the"),
                             ({"parts": []}, '"parts" is empty')):
            with self.subTest(change):
                self.write("other.py", "")
                wrong = self.write("course/wrong.json", json.dumps({**course, **change}))
                done = self.package(self.path("wrong.zip"), wrong)
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertRegex(done.stderr, f"^package.py: .*wrong.json: .*{said}.*\n$")
        self.assertFalse(os.path.exists(self.path("wrong.zip")))
        done = subprocess.run(["make", "-s", "-C", ROOT, "gradescope.zip", f"COURSE={wrong}"],
                              stderr=subprocess.PIPE, encoding="utf-8",
                              env={**os.environ, "MAKEFLAGS": ""})
        self.assertEqual(done.returncode, 2)
        self.assertIn('wrong.json: "parts" is empty', done.stderr)

    def test_without_a_program_the_first_stage_waits_for_no_stage(self):
        os.mkdir(self.path("empty"))
        report, summary = self.path("results.json"), self.path("summary")
        subprocess.run([os.path.join(CLIENTS, "grade.py"), "--github", "--gradescope", report,
                        self.path("empty")], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL,
                       env={**os.environ, "GITHUB_STEP_SUMMARY": summary, "GRADE_MEMORY": ""})
        with open(report, encoding="utf-8") as file:
            tests = json.load(file)["tests"]
        self.assertIn("It is not run: there is no program.", tests[0]["output"])
        self.assertIn("It waits for stage 1.", tests[1]["output"])
        with open(summary, encoding="utf-8") as file:
            text = file.read()
        self.assertIn("is not run: there is no program", text)


if __name__ == "__main__":
    unittest.main()
