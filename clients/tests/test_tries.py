#!/usr/bin/env python3
"""Every thing to try that a step's README asks for has an answer, and a test in long_tries.py;
its patches fit the sources of today. `make check-full` runs long_tries.py."""

import os
import pathlib
import re
import shutil
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = str(HERE), str(HERE.parent)          # also with PYTHONSAFEPATH

import long_tries                           # noqa: E402
from lib.tree import ROOT, steps            # noqa: E402
from lib.tries import Patched, apply        # noqa: E402

COUNT = {"Three": 3, "Four": 4, "Five": 5}


class Answers(unittest.TestCase):
    def test_every_question_has_an_answer_and_a_test(self):
        tests = [name for name in dir(long_tries.Tries) if name.startswith("test_")]
        for number, folder in steps():
            with self.subTest(folder.name):
                readme = (folder / "README.md").read_text(encoding="utf-8")
                heading, questions = re.search(
                    r"(?ms)^## (\w+) things to try\n(.*)^\[Answers\]\(tries/README\.md\)\.",
                    readme).groups()
                asked = re.findall(r"(?m)^(\d)\. ", questions)
                self.assertEqual(asked, [str(n + 1) for n in range(COUNT[heading])])
                answers = (folder / "tries/README.md").read_text(encoding="utf-8")
                self.assertEqual(re.findall(r"<summary>Question (\d)<", answers), asked)
                self.assertEqual(answers.count("<details>"), answers.count("</details>"))
                self.assertEqual([name.split("_")[2] for name in tests
                                  if name.startswith(f"test_{number}_")], asked)

    def test_every_patch_is_linked_and_tested(self):
        source = (HERE / "long_tries.py").read_text(encoding="utf-8")
        for number, folder in steps():
            answers = (folder / "tries/README.md").read_text(encoding="utf-8")
            patches = {path.name for path in folder.glob("tries/*.patch")}
            self.assertEqual(set(re.findall(r"\]\(([^)]+\.patch)\)", answers)), patches)
            for patch in patches:
                self.assertIn(f'"{patch[:-len(".patch")]}"', source)


@unittest.skipIf(shutil.which("git") is None, "git is not installed")
class Patches(unittest.TestCase):
    def test_each_fits(self):
        for patch in sorted(ROOT.glob("step*/tries/*.patch")):
            with self.subTest(patch.name):
                apply(patch, ROOT, "--check")

    def test_one_that_does_not_fit(self):
        with tempfile.TemporaryDirectory() as empty:
            with self.assertRaisesRegex(ValueError, "^git: .*server.c"):
                apply(ROOT / "step1_sequential/tries/never-close.patch", empty)

    def test_the_copy_is_built_and_removed(self):
        patched = Patched("step1_sequential", "never-close")
        with patched as program:
            self.assertTrue(os.access(program, os.X_OK))
            self.assertIn("/* close(fd); */", program.with_name("server.c").read_text())
        self.assertFalse(patched.folder.exists())


if __name__ == "__main__":
    unittest.main()
