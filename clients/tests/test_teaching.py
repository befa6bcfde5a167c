"""Every command of clients/TEACHING.md runs, and prints what the page shows."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from grading_tools import CLIENTS, ECHO, HINTS, ROOT, STAGES, most, up_to

import broken   # noqa: E402
from lib.processes import Process   # noqa: E402
from lib.servers import free_port   # noqa: E402

PAGE = pathlib.Path(CLIENTS, "TEACHING.md").read_text(encoding="utf-8")
SECONDS = 300
# The others take longer: long_teaching.py runs them.
SHORT = "An assignment of two weeks", "Common mistakes"


def sections():
    """{heading: text}"""
    parts = re.split(r"(?m)^## (.*)\n", PAGE)
    return dict(zip(parts[1::2], parts[2::2]))


def commands(text):
    """[(terminal, command, the lines of output shown)] of the blocks of a section."""
    found = []
    for line in text.splitlines():
        started = re.match(r"    ([AB])\$ (.*)", line)
        if started:
            found.append((*started.groups(), []))
        elif line.startswith("    ") and found:
            found[-1][2].append(line[4:])
    return found


def pattern(shown):
    """A line `...` stands for any lines, and in a line for any text."""
    parts = ["(?:.*\n)*?" if line == "..." else
             ".*".join(re.escape(part) for part in line.split("...")) + "\n" for line in shown]
    return re.compile("".join(parts))


class Commands(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        shutil.copytree(os.path.join(CLIENTS, "courses/starters/python"),
                        os.path.join(self.folder, "submissions/ada"))
        self.port = free_port()
        self.server = None
        self.addCleanup(self.stop_server)

    def ours(self, text):
        """The same with a port and folders that are free."""
        text = text.replace("8080", str(self.port))
        return re.sub(r"/tmp/|(?<= )(?=submissions/)", self.folder + "/", text)

    def stop_server(self):
        if self.server:
            self.server.signal_group(signal.SIGINT)
            self.server.wait(10)
            self.server.end()
            self.server.output_file.close()
            self.server = None

    def run_section(self, text):
        env = {**os.environ, "NO_INSTALL": "1", "GRADE_MEMORY": "", "MAKEFLAGS": ""}
        for terminal, command, shown in commands(text):
            command, expected = self.ours(command), [self.ours(line) for line in shown]
            if terminal == "A":
                self.stop_server()
                self.server = Process(["bash", "-c", command], env=env, cwd=ROOT)
                self.await_line(expected[-1])
                continue
            done = subprocess.run(["bash", "-c", command], env=env, cwd=ROOT, encoding="utf-8",
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=SECONDS)
            with self.subTest(command):
                said = re.sub(r"(?m)^make.*\n", "", done.stdout)    # that something failed
                said = said if said.endswith("\n") else said + "\n"
                self.assertRegex(said, pattern(expected))
                self.assertIn(done.returncode, (0, 1, 2) if "grade" in command else (0,))
        self.stop_server()

    def await_line(self, line):
        for _ in range(1000):
            if line in self.server.output():
                return
            if self.server.wait(0.02) is not None:
                break
        self.fail(self.server.output())


class ThePage(Commands):
    def test_shows_what_its_commands_print(self):
        for heading in SHORT:
            with self.subTest(heading):
                self.run_section(sections()[heading])

    def test_names_the_points_of_the_course(self):
        text = sections()["An assignment of two weeks"]
        rows = re.findall(r"(?m)^\| [^|]*\| (?:stages (\d+) (?:and|to) (\d+): [^|]*|the main "
                          r"part) \| (\d+) \|", text)
        for first, last, points in rows:
            wanted = up_to(int(last)) - up_to(int(first) - 1) if last else most("main")
            self.assertEqual(int(points), wanted, (first, last))
        self.assertEqual(rows[-1][1], str(len(STAGES)))
        self.assertIn(f"the end of stage 5: {up_to(5)} points", text.replace("\n", " "))

    def test_lists_the_mistake_of_each_hint_under_its_stage(self):
        stage_of = {case["case"]: number for number, stage in enumerate(
            (stage for part in ECHO["parts"] for stage in part["stages"]), 1)
            for case in stage["cases"] if "hints" in case}
        rows = re.findall(r"(?m)^\| (\d+) \| [^|]+ \| `([\w-]+)` \|$", PAGE)
        first = {}      # for some mistakes hints stand at several cases
        for case, hint in HINTS:
            first.setdefault(hint["bugs"][0], stage_of[case])
        self.assertEqual([(bug, int(number)) for number, bug in rows], list(first.items()))
        self.assertLessEqual({bug for _, bug in rows}, set(broken.BUGS))


if __name__ == "__main__":
    unittest.main()
