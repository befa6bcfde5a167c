#!/usr/bin/env python3
"""check-all.py against small trees whose tests are shell scripts: everything that can go wrong
with a part must be counted, named, and reflected in the exit status."""

import importlib.util
import io
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock
from xml.etree import ElementTree

CHECK_ALL = pathlib.Path(__file__).resolve().parent / "check-all.py"
sys.path.insert(0, str(CHECK_ALL.parents[2] / "clients"))

from lib import figures     # noqa: E402

spec = importlib.util.spec_from_file_location("check_all", CHECK_ALL)
check_all = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_all)

SERVER = """
import sys
print("# " + " ".join(sys.argv[1:]))
print("1..2")
print("ok 1 - answers")
print("ok 2 - crowd # SKIP one at a time")
"""
INJECT = 'print("1..1\\nok 1 - survives")\n'


class CheckAllTest(unittest.TestCase):
    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="check-all-"))
        self.addCleanup(shutil.rmtree, self.tree)

    def put(self, path, text=""):
        path = self.tree / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def program(self, name, *output, then="", area="common"):
        """A test program, "built" from its source: prints lines, then does something."""
        self.put(f"{area}/tests/{name}.c")
        self.put(f"{area}/build/tests/{name}",
                 "\n".join(["#!/bin/sh", "cat <<END", *output, "END", then, ""]))

    def step(self, number, flags=""):
        folder = f"step{number}_x"
        self.put("clients/check-server.py", SERVER)
        self.put("clients/tests/inject.py", INJECT)
        self.put(folder + "/server")
        self.put(folder + "/tests/lesson.py")
        self.put(folder + "/Makefile", "print-suite-args:\n\t@echo $(FLAGS$(VARIANT))\n"
                 f"FLAGS = {flags}\nFLAGSpool = --capacity 4\n")

    def run_it(self, *arguments, **environment):
        done = subprocess.run(
            [sys.executable, str(CHECK_ALL), "--tree", str(self.tree), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": "/usr/bin:/bin", **environment}, encoding="utf-8", timeout=60)
        return done.returncode, done.stdout

    def expect(self, status, last, *words, arguments=(), **environment):
        got, said = self.run_it(*arguments, **environment)
        self.assertEqual(said.splitlines()[-1], last, said)
        for word in words:
            self.assertIn(word, said)
        self.assertEqual(got, status, said)
        return said

    def test_all_is_well(self):
        self.program("test_one", "1..2", "ok 1 - a", "ok 2 - b")
        self.put("clients/tests/test_two.py", "import unittest\nclass T(unittest.TestCase):\n"
                 "    def test_a(self): pass\n"
                 "    @unittest.skip('no tool')\n    def test_b(self): pass\n")
        self.expect(0, "3 passed, 0 failed, 1 skipped", "    1  no tool")

    def test_a_failure_is_shown_and_the_rest_goes_on(self):
        self.program("test_a", "1..2", "not ok 1 - sum", "# 1 != 2", "ok 2", then="exit 1")
        self.program("test_b", "1..1", "ok 1 - fine")
        failure = "FAIL  common/test_a: sum\n      # 1 != 2\n"
        said = self.expect(1, "2 passed, 1 failed, 0 skipped", "FAILED: test_a")
        at_once, _, at_the_end = said.partition("whole run")
        self.assertIn(failure, at_once)
        self.assertIn(failure, at_the_end)

    def test_status_and_output_must_agree(self):
        self.program("test_a", "1..1", "ok 1", then="exit 3")
        self.expect(1, "1 passed, 1 failed, 0 skipped", "exit status 3")

    def test_a_reported_failure_counts_though_the_status_is_0(self):
        self.program("test_a", "1..1", "not ok 1 - x")
        self.expect(1, "0 passed, 1 failed, 0 skipped")

    def test_crash(self):
        self.program("test_a", "1..3", "ok 1", then="kill -SEGV $$")
        self.expect(1, "1 passed, 1 failed, 0 skipped", "killed by signal 11 (SIGSEGV)")

    def test_a_crash_after_the_last_test(self):
        self.program("test_a", "1..1", "ok 1", then="kill -ABRT $$")
        self.expect(1, "1 passed, 1 failed, 0 skipped", "SIGABRT")

    def test_less_than_planned(self):
        self.program("test_a", "1..3", "ok 1")
        self.expect(1, "1 passed, 1 failed, 0 skipped", "2 of 3 tests never reported")

    def test_nothing_tested(self):
        self.program("test_a", then="true")
        self.program("test_b", "1..0")
        self.expect(1, "0 passed, 2 failed, 0 skipped", "it tested nothing")

    def test_no_plan(self):
        self.program("test_a", "ok 1 - a")
        self.expect(1, "1 passed, 1 failed, 0 skipped", "ended early")

    def test_too_slow(self):
        self.program("test_a", "1..1", "ok 1", then="sleep 60")
        self.expect(1, "1 passed, 1 failed, 0 skipped", "not done after 0.12 s",
                    CHECK_SLOW="0.001")

    @unittest.skipUnless(pathlib.Path("/proc/self/environ").exists(), "needs Linux's /proc")
    def test_left_behind(self):
        self.program("test_a", "1..1", "ok 1", then="setsid sleep 61 &")
        self.expect(1, "1 passed, 1 failed, 0 skipped", "left processes behind: sleep 61")

    def test_output_without_end(self):
        self.program("test_a", "1..1", "ok 1", then="exec yes")
        said = self.expect(1, "1 passed, 1 failed, 0 skipped", "printed more than 32 MiB")
        self.assertLess(len(said), 10000)
        self.assertLess((self.tree / "build/check/common-test_a.out").stat().st_size, 1 << 28)

    def test_what_looks_like_a_result_and_is_none(self):
        self.program("test_a", "1..1", "ok 1 - a", "# b\x0cnot ok 2 - b\r# \u2028not ok 3 - c")
        self.put("clients/tests/test_b.py", "import os, unittest\n"
                 "class T(unittest.TestCase):\n"
                 "    def test_a(self): os.system('echo not ok 5 - x; echo 1..9')\n")
        self.expect(0, "2 passed, 0 failed, 0 skipped")

    def test_output_that_no_terminal_and_no_xml_may_see(self):
        self.put("common/tests/test_a.c")
        self.put("common/build/tests/test_a", "#!/bin/sh\n"
                 "printf 'not ok 1 - \\374ber \\033[31m\\n# \\377\\000\\n1..1\\n'; exit 1\n")
        said = self.expect(1, "0 passed, 1 failed, 0 skipped", "\\x1b[31m",
                           arguments=("--junit", str(self.tree / "junit")),
                           LC_ALL="C", PYTHONIOENCODING="ascii")
        self.assertTrue(all(char == "\n" or char.isprintable() for char in said))
        ElementTree.parse(str(self.tree / "junit/common-test_a.xml"))

    @unittest.skipUnless(figures.AVAILABLE, "needs Linux's /proc")
    def test_signals_end_what_was_started(self):
        self.program("test_a", "1..1", "ok 1", then="setsid sleep 62 & sleep 62")
        for number in signal.SIGHUP, signal.SIGINT, signal.SIGTERM:
            run = subprocess.Popen([sys.executable, str(CHECK_ALL), "--tree", str(self.tree)],
                                   stdout=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(
                                       signal.SIGINT, signal.SIG_DFL))
            deadline = time.monotonic() + 10
            while self.sleepers() < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            run.send_signal(number)
            self.assertEqual(run.wait(15), 128 + number)
            self.assertEqual(self.sleepers(), 0)

    @staticmethod
    def sleepers():
        return sum(figures.command_line(pid) == "sleep 62" for pid in figures.table())

    def test_many_reports_of_a_sanitizer_are_one_failure(self):
        self.program("test_a", "1..1", "ok 1", then="for i in 1 2 3; do echo ERROR $i > "
                     "build/check/common-test_a.sanitizer.$i; done")
        said = self.expect(1, "1 passed, 1 failed, 0 skipped", "a sanitizer complained 3 times",
                           "2 more in", "ERROR 1")
        self.assertNotIn("ERROR 2", said)

    def test_failures_beside_a_report_of_a_sanitizer_are_named_or_counted(self):
        results = [line for i in range(1, 41) for line in (f"not ok {i} - case {i}.", "# why")]
        self.program("test_a", *results, "1..40",
                     then="echo ERROR 1 > build/check/common-test_a.sanitizer.1; exit 1")
        said = self.expect(1, "0 passed, 41 failed, 0 skipped", "ERROR 1", "test_a: case 5.",
                           "test_a: 35 more, see build/check/common-test_a.out")
        self.assertNotIn("case 6.", said)
        self.assertNotIn("# why", said)
        self.assertLess(said.index("ERROR 1"), said.index("case 1."))

    @unittest.skipUnless(shutil.which("gcc"), "needs gcc")
    def test_a_sanitizer_s_report_on_a_process_that_is_not_waited_for(self):
        self.program("test_a", "1..1", "ok 1 - a", then="build/leaks 2>/dev/null || true")
        self.program("test_b", "1..1", "ok 1 - b", then="build/ends")
        (self.tree / "build").mkdir()
        for name, body in ("leaks", "volatile char *p = malloc(9); p = 0"), ("ends", "exit(0)"):
            source = f"#include <stdlib.h>\nint main(void) {{ {body}; }}"
            if subprocess.run(["gcc", "-fsanitize=address", "-w", "-x", "c", "-", "-o",
                               str(self.tree / "build" / name)],
                              input=source, encoding="utf-8").returncode:
                self.skipTest("gcc has no sanitizers here")
        for _ in range(2):      # what the first run left does not count in the second
            self.expect(1, "2 passed, 1 failed, 0 skipped", "common/test_a: a sanitizer",
                        "detected memory leaks", ASAN_OPTIONS="detect_leaks=1")

    def test_a_source_that_was_not_built(self):
        self.put("common/tests/test_new.c")
        self.expect(1, "0 passed, 1 failed, 0 skipped", "common/test_new")

    def test_a_program_without_a_source_is_ignored(self):
        self.program("test_a", "1..1", "ok 1")
        self.put("common/build/tests/test_old", "#!/bin/sh\nexit 1\n")
        self.expect(0, "1 passed, 0 failed, 0 skipped")

    def test_one_source_many_programs(self):
        for name in "test_ae_epoll", "test_ae_poll":
            self.put("step8_ae/build/tests/" + name, "#!/bin/sh\necho 1..1; echo ok 1\n")
        self.put("step8_ae/tests/test_ae.c")
        self.step(1)
        self.put("step8_ae/server")
        self.put("step8_ae/Makefile", "print-suite-args:\n")
        self.expect(0, "8 passed, 0 failed, 4 skipped")

    def test_cmocka_s_own_dialect(self):
        self.program("test_a", "1..2", "not ok 1 # SKIP b", "ok 2 - a", "# ok - g")
        self.expect(0, "1 passed, 0 failed, 1 skipped")

    def test_a_group_whose_setup_failed(self):
        self.program("test_a", "1..1", "not ok 0 - g [  FAILED  ] GROUP SETUP", then="exit 1")
        self.expect(1, "0 passed, 1 failed, 0 skipped")

    def test_python_that_does_not_load(self):
        self.put("clients/tests/test_two.py", "import nonsense\n")
        self.expect(1, "0 passed, 1 failed, 0 skipped", "No module named 'nonsense'")

    def test_servers_variants_lessons_and_flags(self):
        self.step(1, "--serial")
        self.step(2)
        self.put("step2_x/build/variants/pool", "")
        said = self.run_it("--list", "--full")[1]
        self.assertEqual(said.count("inject.py"), 3)
        self.assertEqual(said.count(" --timed "), said.count(" --not-timed "))
        lines = [line.replace(str(self.tree) + "/", "") for line in said.splitlines()
                 if "inject.py" not in line and " --timed " not in line]
        self.assertEqual([line.partition(" --tap --ephemeral ")[2] for line in lines], [
            "--serial --full --not-timed --also step1_x/tests/lesson.py step1_x/server",
            "--full --not-timed --also step2_x/tests/lesson.py step2_x/server",
            "--capacity 4 --full --not-timed step2_x/build/variants/pool"])
        self.assertIn("--capacity 4 --quick", self.run_it("--list")[1])
        self.expect(0, "8 passed, 0 failed, 5 skipped", "5  one at a time")

    def test_steps(self):
        for number in 1, 2, 3:
            self.step(number)
        self.program("test_a", "1..1", "ok 1")
        said = self.expect(0, "6 passed, 0 failed, 4 skipped", arguments=("--steps", "1,3"))
        self.assertNotIn("step2_x", said)

    def test_a_server_that_was_not_built(self):
        shutil.copy(CHECK_ALL.parents[2] / "clients/check-server.py", self.tree)
        self.step(1)
        (self.tree / "step1_x/server").unlink()
        self.put("clients/check-server.py", "import sys\nsys.exit('not an executable file')\n")
        self.expect(1, "1 passed, 2 failed, 0 skipped", "not an executable file")

    def test_junit(self):
        self.program("test_a", "1..2", "ok 2", "not ok 1 - a<b", "# \001")
        self.expect(1, "1 passed, 1 failed, 0 skipped",
                    arguments=("--junit", str(self.tree / "junit")))
        suite = ElementTree.parse(str(self.tree / "junit/common-test_a.xml")).getroot()
        self.assertEqual((suite.get("tests"), suite.get("failures")), ("2", "1"))
        self.assertEqual(suite.findall("testcase")[1].get("name"), "a<b")

    @unittest.skipUnless(figures.AVAILABLE, "needs Linux's /proc")
    def test_the_processor_time_of_a_part_includes_its_children(self):
        self.program("test_a", "1..1", "ok 1", then="sh -c 'i=0; "
                     "while [ $i -lt 300000 ]; do i=$((i + 1)); done'; true")
        self.program("test_b", "1..1", "ok 1", then="sleep 0.3")
        said = self.expect(0, "2 passed, 0 failed, 0 skipped")
        self.assertRegex(said, r"(?m)^common/test_a +\d+\.\d +(0\.[1-9]|[1-9]\d*\.\d)$")
        self.assertRegex(said, r"(?m)^common/test_b +\d+\.\d +0\.0$")

    def test_a_folder_for_the_results_that_cannot_be_made(self):
        self.put("common/tests/test_a.py")
        self.put("junit")
        status, said = self.run_it("--junit", str(self.tree / "junit"))
        self.assertRegex(said, r"\Acheck-all\.py: cannot keep the results: .*junit'\n\Z")
        self.assertEqual(status, 1)
        shutil.rmtree(self.tree / "build")
        self.put("build")
        status, said = self.run_it()
        self.assertRegex(said, r"\Acheck-all\.py: cannot keep the results: .*build.*\n\Z")
        self.assertEqual(status, 1)

    def test_usage(self):
        self.assertEqual(self.run_it()[0], 2)       # an empty tree proves nothing
        self.program("test_a", "1..1", "ok 1")
        for wrong in ("nonsense",), ("--steps", "x"), ("--jobs", "0"), ("--quick", "--full"):
            self.assertEqual(self.run_it(*wrong)[0], 2, wrong)
        self.assertEqual(self.run_it(CHECK_SLOW="much")[0], 2)


class PretendingRunner:
    """Runs nothing, and notes which parts ran at the same time."""

    def __init__(self, logs):
        self.logs, self.lock, self.running, self.seen = logs, threading.Lock(), [], []
        self.barrier = None     # where parts wait for one another, if they do

    def run(self, part):
        part.began = time.monotonic()
        with self.lock:
            self.running.append(part)
            self.seen.append(tuple(self.running))
        if self.barrier:
            self.barrier.wait(10)
        else:
            time.sleep(0.02)
        with self.lock:
            self.running.remove(part)
        return part


class Scheduling(unittest.TestCase):
    TWO_EACH = 2 * check_all.PROCESSORS

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.runner = PretendingRunner(pathlib.Path(folder.name))

    def run_parts(self, parts, most, idle):
        with mock.patch.object(check_all.Processors, "idle", lambda _: idle), \
                mock.patch("sys.stdout", io.StringIO()):
            check_all.run_all(parts, self.runner, most)

    @staticmethod
    def parts(count, when="beside", expected=1.0):
        return [check_all.Part("common", f"{when}{number}", [], 1, when, expected + number)
                for number in range(count)]

    def test_more_parts_start_while_the_processors_are_idle(self):
        most = 2 * self.TWO_EACH
        self.runner.barrier = threading.Barrier(most)
        self.run_parts(self.parts(most), most, idle=1.0)
        self.assertEqual(max(map(len, self.runner.seen)), most)

    def test_busy_processors_get_two_parts_each(self):
        self.run_parts(self.parts(5 * self.TWO_EACH), 4 * self.TWO_EACH, idle=0.0)
        self.assertEqual(max(map(len, self.runner.seen)), self.TWO_EACH)

    def test_what_measures_time_has_nothing_that_computes_beside_it(self):
        self.run_parts([*self.parts(3, "alone"), *self.parts(3 * self.TWO_EACH, "timed"),
                        *self.parts(9)], 4 * self.TWO_EACH, idle=1.0)
        for together in self.runner.seen:
            self.assertEqual(len({part.when for part in together}), 1)
            if together[0].when != "beside":
                self.assertLessEqual(len(together), 1 if together[0].when == "alone"
                                     else self.TWO_EACH)

    def test_no_more_run_than_were_asked_for(self):
        self.run_parts([*self.parts(3), *self.parts(3, "timed")], 1, idle=1.0)
        self.assertEqual(max(map(len, self.runner.seen)), 1)

    def test_the_longest_start_first_as_guessed_or_as_seen_in_the_last_run(self):
        for known, order in ("", [2, 1, 0]), ('{"common/beside1": 9}', [1, 2, 0]):
            (self.runner.logs / "seconds.json").write_text(known, encoding="utf-8")
            self.runner.seen, parts = [], self.parts(3)
            self.run_parts(parts, 1, idle=1.0)
            self.assertEqual(self.runner.seen, [(parts[number],) for number in order])

    def test_what_is_left_depends_on_how_many_run_at_once(self):
        parts = [*self.parts(4, expected=8.5), *self.parts(2, "timed", 4.5),
                 *self.parts(1, "alone", 7.0)]
        progress = check_all.Progress(parts, {"beside": 4, "timed": 2, "alone": 1},
                                      self.runner.logs / "none")
        self.assertAlmostEqual(progress.left([]), 11.5 + 5.5 + 7)     # the longest one counts
        progress.jobs["beside"] = 1
        self.assertAlmostEqual(progress.left([]), 40 + 5.5 + 7)
        for part in parts[:2]:      # in 10 s one has ended after 9, the other has not
            part.began = time.monotonic() - 10
        parts[0].seconds = 9.0
        self.assertAlmostEqual(progress.left(parts[:1]), 23 / 1.9 + 5.5 + 7, 1)

    def test_every_part_that_a_table_names_exists(self):
        names = {str(part) for part in check_all.find_parts(CHECK_ALL.parents[2], [], "")}
        self.assertLessEqual(set(check_all.TIMED), names)
        self.assertLessEqual(set(check_all.EXPECTED),
                             {name.partition("/")[2] for name in names})

    def test_only_ticks_since_the_last_look_count(self):
        with mock.patch.object(check_all.Processors, "ticks",
                               mock.Mock(side_effect=[(50, 100), (70, 200), (170, 300)])), \
                mock.patch.object(check_all, "LOOK", 0):
            processors = check_all.Processors()
            time.sleep(0.001)
            self.assertAlmostEqual(processors.idle(), 0.2)
            time.sleep(0.001)
            self.assertAlmostEqual(processors.idle(), 1.0)


if __name__ == "__main__":
    unittest.main()
