#!/usr/bin/env python3
"""Folders to begin with: each starter earns exactly stage 1. Each exercise compiles without
warnings and earns nothing, until what was removed is put back.

`make check-full` also runs long_begin.py: the same for every language, step and stage."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

CLIENTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CLIENTS))

from grading import exercise            # noqa: E402
from grading.begin import STARTERS      # noqa: E402
from lib import figures                 # noqa: E402

TOOLS = {"c": "cc", "cpp": "c++", "go": "go", "java": "javac", "javascript": "node",
         "python": "python3", "rust": "rustc"}
STAGE_1 = 4     # its points


def run(*command, **options):
    return subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          encoding="utf-8", timeout=600, **options)


def begin(*arguments):
    return run(sys.executable, CLIENTS / "begin.py", *arguments)


def make(target, *settings, **environment):
    done = run("make", "-s", "-C", CLIENTS.parent, target, *settings,
               env={**os.environ, "MAKEFLAGS": "", **environment})
    return done.returncode, done.stdout, done.stderr


def grade(folder, *options):
    """[points of each stage], as far as the run came."""
    result = pathlib.Path(tempfile.mkdtemp(dir=folder), "result.json")
    done = run(sys.executable, CLIENTS / "grade.py", "--json", result, *options, folder,
               env={**os.environ, "GRADE_MEMORY": f"{result}.memory"})
    if not result.stat().st_size:
        raise AssertionError(done.stdout + done.stderr)
    return [stage["points"] for stage in json.loads(result.read_text())["stages"]
            if stage["status"] != "waiting"]


class Folders(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        os.chmod(self.temporary.name, 0o755)    # some cases run the server as another user
        self.folder = pathlib.Path(self.temporary.name, "my folder")


class Begin(Folders):
    def test_every_language_has_a_starter_of_about_thirty_lines(self):
        self.assertEqual({path.name for path in STARTERS.iterdir()}, set(TOOLS))
        for language in TOOLS:
            with self.subTest(language):
                files = {path.name: path for path in (STARTERS / language).iterdir()}
                self.assertIn("Makefile", files)
                self.assertIn("make grade SERVER=FOLDER", files["README.md"].read_text())
                sources = [path for name, path in files.items() if "erver." in name
                           and not name.endswith(".sh")]
                self.assertEqual(len(sources), 1)
                self.assertLessEqual(len(sources[0].read_text().splitlines()), 40)

    def test_make_starter(self):
        # The folder has a space in its name.
        status, out, errors = make("starter", "LANG=c", f"DIR={self.folder}")
        self.assertEqual((status, errors), (0, ""))
        self.assertIn(f"read {self.folder}/README.md", out)
        self.assertIn(f"`make grade SERVER='{self.folder}'`",
                      (self.folder / "README.md").read_text())

    def test_the_language_of_the_environment_is_not_the_starter_s(self):
        status, _, errors = make("starter", f"DIR={self.folder}", LANG="c")
        self.assertEqual(status, 2)
        self.assertIn("usage: make starter LANG=c DIR=PATH", errors)
        self.assertFalse(self.folder.exists())

    def test_make_exercise(self):
        status, _, errors = make("exercise", "STEP=1", f"DIR={self.folder}")
        self.assertEqual((status, errors), (0, ""))
        self.assertIn("/* your code */", (self.folder / "server.c").read_text())
        status, _, errors = make("exercise", f"DIR={self.folder}")
        self.assertEqual(status, 2)
        self.assertIn("usage: make exercise STEP=6 DIR=PATH", errors)

    def test_an_empty_folder_is_filled(self):
        self.folder.mkdir()
        self.assertEqual(begin("starter", "c", self.folder).returncode, 0)

    def test_nothing_is_overwritten(self):
        self.folder.mkdir()
        (self.folder / "server.c").write_text("mine")
        file, dangling = self.folder / "server.c", self.folder.with_name("dangling")
        dangling.symlink_to("nowhere")
        for kind in ("starter", "c"), ("exercise", "1"):
            for there in self.folder, file, dangling:
                with self.subTest(kind=kind, there=there):
                    done = begin(*kind, there)
                    self.assertEqual(done.returncode, 2)
                    self.assertIn(f"{there} exists already, and nothing is overwritten",
                                  done.stderr)
        self.assertEqual(os.listdir(self.folder), ["server.c"])
        self.assertEqual(file.read_text(), "mine")

    def test_complaints(self):
        for arguments, words in (
                (["starter", "cobol", self.folder],
                 "no starter in 'cobol': there are c, cpp, go, java, javascript, python, rust"),
                (["exercise", "9", self.folder],
                 "no exercise for step '9': there are 1, 2, 3, 4, 5, 6, 7, 8"),
                (["starter", "c"], "required: DIR"), ([], "required: starter|exercise")):
            with self.subTest(words):
                done = begin(*arguments)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(words, done.stderr)
        done = begin("starter", "c", "/proc/mine")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "^begin.py: .*/proc/mine")


class Starters(Folders):
    def earns_stage_1(self, language):
        if shutil.which(TOOLS[language]) is None:
            if os.environ.get("REQUIRE_STARTERS"):
                self.fail(f"{TOOLS[language]} is not installed")
            self.skipTest(f"{TOOLS[language]} is not installed")
        begin("starter", language, self.folder)
        self.assertEqual(grade(self.folder), [STAGE_1, 0])

    def test_c_earns_stage_1_and_no_more(self):
        self.earns_stage_1("c")

    def test_python_earns_stage_1_and_no_more(self):
        self.earns_stage_1("python")


class Exercises(Folders):
    def test_each_compiles_and_lacks_only_what_was_removed(self):
        tasks = exercise.read()
        self.assertEqual(list(tasks), list("12345678"))
        for number, task in tasks.items():
            with self.subTest(number):
                folder = self.folder / number
                removed = exercise.make(task, folder)
                source = folder / task.get("file", "server.c")
                self.assertEqual(set(removed), set(task["blanks"]))
                self.assertEqual(source.read_text().count(exercise.MARK), len(removed))
                if figures.AVAILABLE or "epoll" not in source.read_text():
                    done = run("make", "-s", "-C", folder, "CFLAGS=-Werror -fsyntax-only")
                    self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertNotIn("uring.c", os.listdir(folder))     # a variant's
                self.assertEqual(exercise.fill(source.read_text(), removed),
                                 (exercise.ROOT / task["folder"] / source.name).read_text())

    def test_one_earns_nothing_until_it_is_filled(self):
        removed = exercise.make(exercise.read()["1"], self.folder)
        self.assertEqual(grade(self.folder), [0])
        source = self.folder / "server.c"
        source.write_text(exercise.fill(source.read_text(), removed))
        self.assertEqual(grade(self.folder, "--stage", "1"), [STAGE_1])

    def test_it_builds_with_a_copy_of_the_library(self):
        begin("exercise", "6", self.folder)
        self.assertEqual(sorted(os.listdir(self.folder)), ["Makefile", "README.md", "server.c"])
        shutil.copytree(CLIENTS.parent / "common", self.folder / "mine",
                        ignore=shutil.ignore_patterns("build", "tests", "tools"))
        done = run("make", "-n", "-C", self.folder, "COMMON=mine")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("-I'mine'", done.stdout)
        self.assertNotIn(str(CLIENTS.parent / "common"), done.stdout)

    def test_a_function_that_is_not_there(self):
        with self.assertRaisesRegex(exercise.Broken, "there is no function serve"):
            exercise.blank("void serve(void);\nint main(void)\n{\n}\n", {"serve": []})


if __name__ == "__main__":
    unittest.main()
