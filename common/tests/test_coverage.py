#!/usr/bin/env python3
"""What coverage.py reports for given counts; with gcc, also for a program that was run."""

import contextlib
import importlib.util
import io
import pathlib
import shutil
import subprocess
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[1] / "tools/coverage.py"
SPEC = importlib.util.spec_from_file_location("coverage", str(TOOL))
coverage = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(coverage)


class CoverageTest(unittest.TestCase):
    def report(self, counts):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            short = coverage.report(counts)
        return short, out.getvalue()

    def test_ranges(self):
        self.assertEqual(coverage.ranges([]), "")
        self.assertEqual(coverage.ranges([3, 4, 5, 9, 11, 12]), "3-5 9 11-12")

    def test_limits(self):
        for name, limit in [("common/net.c", 95), ("step8_ae/ae_poll.c", 95),
                            ("step8_ae/server.c", 90), ("step2_x/variants/pool.c", 90),
                            ("common/tests/test_net.c", None), ("step3_x/demos/y.c", 0)]:
            self.assertEqual(coverage.limit_of(name), limit, name)

    def test_report(self):
        short, said = self.report({"common/net.c": {n: n != 7 for n in range(1, 11)},
                                   "common/echo.c": {1: 5},
                                   "common/tests/test_net.c": {1: 0}})
        self.assertEqual(short, ["common/net.c"])
        self.assertRegex(said, r"common/net\.c +10 +90\.0% +7   BELOW 95 %")
        self.assertRegex(said, r"common/echo\.c +1 +100\.0%")
        self.assertNotIn("test_net", said)

    @unittest.skipUnless(shutil.which("gcc") and shutil.which("gcov"), "needs gcc and gcov")
    def test_counts_are_added_up_over_programs(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="coverage-")).resolve()
        self.addCleanup(shutil.rmtree, folder)
        self.addCleanup(setattr, coverage, "COPY", coverage.COPY)
        coverage.COPY = folder
        (folder / "common").mkdir()
        (folder / "common/x.c").write_text("int main(int n, char **v)\n{\n    if (n > 1)\n"
                                           "        return !v;\n    return 0;\n}\n")
        for step, arguments in ("a", ["x"]), ("b", []):
            build = folder / step / "build"
            build.mkdir(parents=True)
            for command in (["gcc", "--coverage", "-c", "-o", "x.o", "../../common/x.c"],
                            ["gcc", "--coverage", "-o", "x", "x.o"], ["./x", *arguments]):
                subprocess.run(command, cwd=str(build), check=True)
        lines = coverage.collect()["common/x.c"]
        self.assertEqual([lines[number] for number in (3, 4, 5)], [2, 1, 1])

    @unittest.skipUnless(shutil.which("gcc") and shutil.which("gcov"), "needs gcc and gcov")
    def test_what_a_child_does_counts(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="coverage-")).resolve()
        self.addCleanup(shutil.rmtree, folder)
        self.addCleanup(setattr, coverage, "COPY", coverage.COPY)
        coverage.COPY = folder
        (folder / "part/build").mkdir(parents=True)
        (folder / "part/x.c").write_text(
            "#include <sys/wait.h>\n#include <unistd.h>\nint main(void)\n{\n"
            "    if (fork() == 0)\n        _exit(0);\n    return !wait(NULL);\n}\n")
        (folder / "Makefile").write_text(
            "all:\n\tcd part && $(CC) $(CFLAGS) -c -o build/x.o x.c\n"
            "\tcd part && $(CC) $(CFLAGS) $(LDFLAGS) -o x build/x.o $(LDLIBS)\ntests:\n")
        self.assertTrue(coverage.build())
        self.assertEqual(set(coverage.collect()["part/x.c"].values()), {0})
        subprocess.run([str(folder / "part/x")], check=True)
        lines = coverage.collect()["part/x.c"]
        self.assertEqual([lines[number] for number in (5, 6, 7)], [1, 1, 1])
        (folder / "part/x.c").write_text("int main(void)")
        self.assertFalse(coverage.build())


if __name__ == "__main__":
    unittest.main()
