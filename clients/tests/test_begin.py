"""Folders to begin with: starters earn stage 1, and exercises what their blanks leave."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

from grading_tools import AT_LENGTH, CLIENTS, ROOT, grade, points, up_to

from grading import exercise    # noqa: E402

BEGIN = os.path.join(CLIENTS, "begin.py")
NEEDS = {"c": "cc", "cpp": "c++", "go": "go", "java": "javac", "javascript": "node",
         "python": "python3", "rust": "rustc"}
# The machine with every toolchain sets this.
ALL = os.environ.get("REQUIRE_STARTERS", "0") != "0"
LANGUAGES = list(NEEDS) if AT_LENGTH or ALL else ["c", "python"]
STEPS = list(exercise.read()) if AT_LENGTH else ["2", "6"]


def begin(*arguments):
    return subprocess.run([sys.executable, BEGIN, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8")


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name


class Starters(Folder):
    def earned(self, language):
        """Its code, and how it was graded; None without the toolchain."""
        if not (shutil.which(NEEDS[language]) or language in ("c", "python") or ALL):
            return None
        folder = os.path.join(self.folder, language)
        self.assertEqual(begin("starter", language, folder).returncode, 0)
        code = next(path for path in pathlib.Path(folder).iterdir()
                    if path.suffix not in ("", ".md", ".sh"))
        return code.read_text(encoding="utf-8"), grade("--seed=1", folder)

    def test_are_short_and_earn_exactly_stage_1(self):
        with ThreadPoolExecutor(4) as pool:
            runs = dict(zip(LANGUAGES, pool.map(self.earned, LANGUAGES)))
        for language, run in runs.items():
            with self.subTest(language):
                if run is None:
                    self.skipTest(f"{NEEDS[language]} is not installed")
                code, done = run
                self.assertLessEqual(len(code.splitlines()), 40)
                self.assertEqual(points(done.data), {"main": up_to(1), "hardened": 0},
                                 done.stdout)

    def test_overwrite_nothing_and_know_their_languages(self):
        for arguments, said in ((("starter", "c", self.folder), None),
                                (("starter", "c", self.folder), "nothing is overwritten"),
                                (("starter", "cobol", "x"), "there are c, cpp, go, "),
                                (("exercise", "9", "x"), "there are 1, 2, 3"), ((), "usage")):
            done = begin(*arguments)
            self.assertEqual(done.returncode, 2 if said else 0, done.stderr)
            self.assertIn(said or "", done.stderr)
            self.assertNotIn("Traceback", done.stderr)


class Exercises(Folder):
    def exercise(self, step):
        folder = os.path.join(self.folder, step)
        exercise.make(exercise.read()[step], folder)
        built = subprocess.run(
            ["make", "-C", folder, "CFLAGS=-O1 -Werror", f"COURSE={ROOT}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
        return folder, built, grade("--seed=1", folder)

    def test_are_there_for_every_step(self):
        self.assertEqual(list(exercise.read()), list("12345678"))

    def test_compile_without_warnings_and_earn_less_than_the_step(self):
        with ThreadPoolExecutor(4) as pool:
            for folder, built, done in pool.map(self.exercise, STEPS):
                with self.subTest(folder):
                    self.assertEqual(built.returncode, 0, built.stdout)
                    self.assertEqual(done.returncode, 1)
                    self.assertLess(points(done.data)["main"], up_to(2), done.stdout)

    def test_and_what_was_removed_makes_them_the_step_again(self):
        for step in exercise.read().values():
            with self.subTest(step["folder"]):
                name = step.get("file", "server.c")
                folder = os.path.join(self.folder, step["folder"])
                removed = exercise.make(step, folder)
                self.assertEqual(set(removed), set(step["blanks"]))
                blanked = pathlib.Path(folder, name).read_text(encoding="utf-8")
                original = pathlib.Path(ROOT, step["folder"], name).read_text(encoding="utf-8")
                self.assertNotEqual(blanked, original)
                self.assertEqual(exercise.fill(blanked, removed), original)

    def test_that_are_filled_in_earn_what_the_step_earns(self):
        step = exercise.read()["1"]
        folder = os.path.join(self.folder, "solved")
        removed = exercise.make(step, folder)
        path = pathlib.Path(folder, "server.c")
        path.write_text(exercise.fill(path.read_text(encoding="utf-8"), removed),
                        encoding="utf-8")
        done = grade("--stage=1", "--stage=2", "--stage=3", folder)
        self.assertEqual(points(done.data), {"main": up_to(3)}, done.stdout)

    def test_name_functions_that_are_there(self):
        with self.assertRaises(exercise.Broken):
            exercise.blank("int main(void)\n{\n}\n", {"gone": []})


class Make(Folder):
    def make(self, *arguments):
        done = subprocess.run(["make", "-s", *arguments], cwd=ROOT, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, encoding="utf-8",
                              env={**os.environ, "LANG": "C.UTF-8", "GRADE_MEMORY": os.devnull})
        return done.returncode, done.stdout

    def test_takes_what_the_programs_take(self):
        starter = os.path.join(self.folder, "a starter")
        self.assertEqual(self.make("starter", "LANG=python", f"DIR={starter}")[0], 0)
        status, said = self.make("grade", "SERVER=clients/tests/servers/broken.py", "STAGE=1",
                                 "ARGS=--bug greets-twice", "HINT=1")
        self.assertEqual((status, len(re.findall("(?m)^ +hint: ", said))), (2, 2), said)
        self.assertIn("(another hint: HINT=1)", said)

    def test_explains_itself(self):
        for target, said in ("grade", "usage: make grade SERVER="), (
                "starter", "usage: make starter LANG=c"), (
                "exercise", "usage: make exercise STEP=6 DIR="):
            status, out = self.make(target)
            self.assertEqual(status, 2)
            self.assertIn(said, out)


if __name__ == "__main__":
    unittest.main()
