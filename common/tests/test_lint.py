#!/usr/bin/env python3
"""lint.sh can fail: each installed analyser gets one mistake to find."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
CONFIGURATION = (".clang-tidy", ".clang-format", ".flake8")
GOOD = "int good(int n)\n{\n    return n + 1;\n}\n"


class LintTest(unittest.TestCase):
    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="lint-"))
        self.addCleanup(shutil.rmtree, self.tree)
        for folder in "common/tools", "clients", "step1_x", ".ci":
            (self.tree / folder).mkdir(parents=True)
        for name in CONFIGURATION:
            shutil.copy(HERE.parents[1] / name, self.tree)
        for name in "lint.sh", "prose.py":
            shutil.copy(HERE.parent / "tools" / name, self.tree / "common/tools")
        self.put("common/good.c", GOOD)
        self.put(".ci/run", "#!/bin/sh\necho fine\n")

    def put(self, path, text):
        (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
        (self.tree / path).write_text(text)

    def lint(self, *arguments, **environment):
        done = subprocess.run(
            ["sh", str(self.tree / "common/tools/lint.sh"), *arguments],
            env={**os.environ, "REQUIRE_ALL": "0", **environment}, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
        return done.returncode, done.stdout

    def finds(self, tool, path, text, words, *arguments):
        if shutil.which(tool) is None:
            self.skipTest(tool + " is not installed")
        self.put(path, text)
        status, said = self.lint(*arguments)
        self.assertEqual(status, 1, said)
        self.assertIn("FAIL  " + tool, said)
        self.assertIn(words, said)

    def test_nothing_to_find(self):
        status, said = self.lint()
        self.assertEqual(status, 0, said)
        self.assertNotIn("FAIL", said)

    def test_clang_tidy(self):
        self.finds("clang-tidy", "common/bad.c",
                   "int bad(const int *n);\nint bad(const int *n)\n{\n"
                   "    return n == 0 ? *n : 1;\n}\n", "clang-analyzer-core.NullDereference")

    def test_gcc_analyser(self):
        self.finds("gcc", "clients/bad.c",
                   "#include <stdlib.h>\nvoid bad(char *p)\n{\n    free(p);\n    free(p);\n}\n",
                   "-Wanalyzer-double-free")

    def test_cppcheck(self):
        self.finds("cppcheck", "step1_x/bad.c",
                   "int bad(void)\n{\n    int a[2] = {0};\n    return a[2];\n}\n",
                   "arrayIndexOutOfBounds")

    def test_the_gallery_of_wrong_programs_is_left_out(self):
        bad = "int bad(void)\n{\n    int a[2] = {0};\n    return a[2];\n}\n"
        self.put("common/lessons/gallery/wrong/bad.c", bad)
        status, said = self.lint()
        self.assertEqual(status, 0, said)
        self.put("common/lessons/gallery/right/bad.c", bad)
        self.assertEqual(self.lint()[0], 1)

    def test_shellcheck(self):
        self.finds("shellcheck", "common/bad.sh", "#!/bin/sh\nrm $1\n", "SC2086")

    def test_shellcheck_reads_the_ci_script(self):
        self.finds("shellcheck", ".ci/run", "#!/bin/sh\nrm $1\n", "SC2086")

    def test_flake8(self):
        self.finds("flake8", "clients/bad.py", "import os\n", "F401")

    def test_prose(self):
        self.put("clients/README.md", "A newcomer waits.\n")  # prose: ok
        status, said = self.lint()
        self.assertEqual(status, 1, said)
        self.assertIn("FAIL  prose\nclients/README.md:1: ", said)

    def test_a_warning_of_prose_is_no_failure(self):
        self.put("clients/README.md", "word " * 36 + "end.\n")
        status, said = self.lint()
        self.assertEqual(status, 0, said)
        self.assertIn("clients/README.md:1: warning: a sentence of 37 words", said)

    def test_format(self):
        self.finds("clang-format", "common/bad.h", "int  bad;\n", "bad.h:1", "format")
        self.assertEqual(self.lint("format-fix")[0], 0)
        self.assertEqual((self.tree / "common/bad.h").read_text(), "int bad;\n")
        self.assertEqual(self.lint("format")[0], 0)

    def test_an_absent_tool(self):
        """With an almost empty PATH each tool is skipped with a message, or demanded."""
        path = self.tree / "bin"
        path.mkdir()
        for tool in "sh", "dirname", "find", "sort", "echo", "wc", "tr", "cat":
            (path / tool).symlink_to(shutil.which(tool))
        status, said = self.lint(PATH=str(path))
        self.assertEqual(status, 0, said)
        for tool in "clang-tidy", "gcc", "cppcheck", "shellcheck", "flake8", "python3":
            self.assertIn(f"skip  {tool}: not installed", said)
        status, said = self.lint(PATH=str(path), REQUIRE_ALL="1")
        self.assertEqual(status, 1, said)
        self.assertIn("FAIL  cppcheck: not installed", said)

    def test_a_source_that_does_not_compile_here_is_skipped_with_a_message(self):
        self.put("common/bsd.c", "#include <sys/event.h>\nint x[-1];\n")
        status, said = self.lint()
        self.assertEqual(status, 0, said)
        self.assertIn("skip  common/bsd.c", said)

    def test_usage(self):
        self.assertEqual(self.lint("everything")[0], 2)


if __name__ == "__main__":
    unittest.main()
