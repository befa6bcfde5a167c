#!/usr/bin/env python3
"""memcheck.py can fail: a leak, a read of nothing, a descriptor left open, each in a child
process too; and what is excused is excused."""

import importlib.util
import pathlib
import shutil
import subprocess
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[1] / "tools/memcheck.py"
SPEC = importlib.util.spec_from_file_location("memcheck", str(TOOL))
memcheck = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(memcheck)

PROGRAM = """
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void server_start(void) { open("/dev/null", O_RDONLY); }
int main(void) { char *volatile p; volatile int sum = 0; (void)p; (void)sum; (void)server_start;
    %s
    return 0; }
"""


@unittest.skipUnless(shutil.which("gcc") and shutil.which("valgrind"), "needs gcc and valgrind")
class MemcheckTest(unittest.TestCase):
    def findings(self, body):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="memcheck-"))
        self.addCleanup(shutil.rmtree, folder)
        self.addCleanup(setattr, memcheck, "LOGS", memcheck.LOGS)
        memcheck.LOGS = folder
        subprocess.run(["gcc", "-g", "-O0", "-w", "-x", "c", "-o", str(folder / "test_x"), "-"],
                       input=PROGRAM % body, encoding="utf-8", check=True)
        return "\n".join(memcheck.unit_test(folder / "test_x"))

    def test_nothing(self):
        self.assertEqual(self.findings('p = malloc(9); free(p); close(open("/", 0));'), "")

    def test_leak(self):
        self.assertIn("definitely lost", self.findings("p = malloc(9); p = 0;"))

    def test_read_beyond(self):
        self.assertIn("Invalid read", self.findings("p = malloc(9); sum = p[9]; free(p);"))

    def test_in_a_child(self):
        self.assertIn("definitely lost", self.findings(
            "if (fork() == 0) { p = malloc(9); p = 0; _exit(0); } wait(NULL);"))

    def test_one_that_does_not_end(self):
        self.addCleanup(setattr, memcheck, "LIMIT", memcheck.LIMIT)
        memcheck.LIMIT = 1
        self.assertEqual(self.findings("for (;;) pause();"), "not done after 1 s")

    def test_descriptor(self):
        self.assertIn("Open file descriptor", self.findings('open("/dev/null", O_RDONLY);'))

    def test_descriptors_a_program_keeps_as_long_as_it_lives(self):
        self.assertEqual(self.findings("server_start();"), "")

    def test_descriptors_after_a_failed_test(self):
        self.assertEqual(self.findings('open("/dev/null", O_RDONLY); return 1;'), "")


if __name__ == "__main__":
    unittest.main()
