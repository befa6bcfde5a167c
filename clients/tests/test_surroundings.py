#!/usr/bin/env python3
"""The suite and the grader on machines that lack something, and with servers that cannot be
started or tell wrong ports: it is said in one line, and nothing passes or fails by mistake."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest
from xml.etree import ElementTree

from grading_tools import CLIENTS, GRADE, REFERENCE

from lib import figures, processes, servers     # noqa: E402

SUITE = os.path.join(CLIENTS, "check-server.py")
DEMO = os.path.join(CLIENTS, "demo.py")
PRINTS = """\
import sys, socket
s = socket.create_server(("{host}", int(sys.argv[-1])), family=socket.{family})
print("{line}", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b"*")
    c.recv(1)
    c.close()
"""


def run(*command, shell=""):
    """Run a tool, after these commands of a shell; its output goes to pipes."""
    return subprocess.run(["sh", "-c", f'{shell} exec "$@"', "sh", sys.executable, *command],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, encoding="utf-8", timeout=120,
                          env={**os.environ, "GRADE_MEMORY": ""})


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def script(self, text):
        path = self.folder / "server"
        path.write_bytes(text.encode())
        path.chmod(0o755)
        return str(path)


class LackTest(Folder):
    """What a machine lacks is no fault of a server, and no success either."""

    NO_FILES = "ulimit -f 0;"       # as if every disk was full

    def test_no_temporary_folder(self):
        done = run(SUITE, REFERENCE, shell=self.NO_FILES)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stdout, "lacks what the case needs: No usable temporary dir")
        self.assertRegex(done.stdout, r"\n0 passed, 0 failed, \d+ skipped\n$")
        self.assertIn("nothing was tested", done.stderr)
        done = run(DEMO, "--steps", "1", shell=self.NO_FILES)
        self.assertRegex(done.stderr, r"^demo: No usable temporary [^\n]*\n$")

    def test_the_grader_gives_no_good_mark_if_it_can_judge_nothing(self):
        for shell in self.NO_FILES, "ulimit -n 50;":
            with self.subTest(shell):
                done = run(GRADE, REFERENCE, shell=shell)
                self.assertIn("\n0 of 0 points", done.stdout)
                self.assertEqual((done.returncode, done.stderr),
                                 (1, "grade.py: no case could be judged on this machine\n"))

    def test_no_further_thread_is_one_line(self):
        program = ("import sys; sys.path.insert(0, sys.argv[1])\n"
                   "from lib.processes import program\n"
                   "def main(): raise {}\n"
                   "program(main)")
        for error, wanted in (('RuntimeError("can\'t start new thread")',
                               r"\A[^\n]*thread\n\Z"),
                              ("MemoryError()", r"\A[^\n]*out of memory\n\Z"),
                              ("RuntimeError('ours')", "Traceback"),
                              ("OSError(5)", "Traceback")):
            with self.subTest(error):
                done = run("-c", program.format(error), CLIENTS)
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr, wanted)


class StartTest(Folder):
    """A server that cannot be started, or listens where nobody looks."""

    def first_failure(self, server, *options):
        done = run(SUITE, "--quick", "--contract=basic", "--only=greeting", *options, server)
        self.assertEqual(done.returncode, 1, done.stdout)
        lines = [line.strip() for line in done.stdout.split("\n")]
        return lines[2 if lines[1].startswith("the second try counts") else 1]

    def test_why_a_script_cannot_be_started(self):
        for text, reason in (
                ("#!/bin/sh\r\nexit 0\r\n", "its lines end as on Windows"),
                ("#!/no/such/program -x\n", "does not exist: /no/such/program"),
                ("exit 0\n", "neither a program for this machine nor a script with `#!`")):
            with self.subTest(text):
                self.assertIn(reason, self.first_failure(self.script(text)))
        with self.assertRaisesRegex(OSError, "No such file"):
            processes.Process([str(self.folder / "absent")])

    def test_a_port_that_cannot_be_is_none(self):
        for port in "99999", "0", "9" * 5000, "\u0668\u0660":
            self.assertIsNone(servers.listening(f"Listening on 127.0.0.1:{port}\n"), port)
        self.assertEqual(servers.listening("x\nListening on [::1]:80\r\n"), ("::1", 80))
        server = self.script(f"#!{sys.executable}\n" + PRINTS.format(
            host="127.0.0.1", family="AF_INET", line="Listening on 127.0.0.1:99999"))
        done = run(SUITE, "--quick", "--contract=basic", "--only=greeting", server)
        self.assertNotIn("the case itself broke", done.stdout)
        self.assertIn("Connection reset by peer", done.stdout)     # it was reached

    @unittest.skipUnless(figures.AVAILABLE, "needs Linux's /proc")
    def test_where_it_listens_is_said(self):
        for host, family, line, reason in (
                ("127.0.0.1", "AF_INET", "Listening on 127.0.0.1:1", "port 1 as it prints"),
                ("::", "AF_INET6", "", "takes IPv6 only")):
            with self.subTest(host):
                server = self.script(f"#!{sys.executable}\n" + PRINTS.format(
                    host=host, family=family, line=line))
                self.assertIn(reason, self.first_failure(server))


class EndedTest(Folder):
    """A run that is ended leaves no result that looks like success."""

    def end_after_first_line(self, *command):
        with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE,
                              env={**os.environ, "GRADE_MEMORY": ""}) as tool:
            self.assertTrue(tool.stdout.readline())
            tool.send_signal(signal.SIGTERM)
            self.assertEqual(tool.wait(60), 128 + signal.SIGTERM)

    def test_junit_and_json(self):
        junit, data = self.folder / "results.xml", self.folder / "results.json"
        for command in (SUITE, "--junit", junit), (GRADE, "--junit", junit, "--json", data):
            with self.subTest(command[0]):
                junit.write_text("of an earlier run")
                data.write_text("of an earlier run")
                self.end_after_first_line(*command, REFERENCE)
                suite = ElementTree.parse(junit).getroot()
                self.assertEqual((suite.get("tests"), suite.get("failures")), ("1", "1"))
        self.assertEqual(data.read_text(), "")

    def test_a_server_that_is_not_built_is_a_failure(self):
        (self.folder / "Makefile").write_text("all:\n\tfalse\n")
        junit = self.folder / "results.xml"
        self.assertEqual(run(GRADE, "--junit", junit, self.folder).returncode, 1)
        self.assertEqual(ElementTree.parse(junit).getroot().get("failures"), "1")


if __name__ == "__main__":
    unittest.main()
