#!/usr/bin/env python3
"""ae in another program: each of its files compiles alone as strict C11, and what ae.h says to
take is all that a program needs."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

STEP = pathlib.Path(__file__).resolve().parents[1]
DOUBLE = STEP.parent / "common/tests/kqueue"
COMPILERS = [shlex.split(os.environ.get("CC") or "cc")]
COMPILERS += [[name] for name in ("gcc", "clang") if shutil.which(name)]
STRICT = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror"]
BACK_ENDS = [path.stem[len("ae_"):] for path in sorted(STEP.glob("ae_*.c"))
             if sys.platform == "linux" or path.stem != "ae_epoll"]
PROGRAM = """
#include "ae.h"
#include <stdio.h>
static int again(aeEventLoop *loop, long long id, void *calls)
{
    (void)id;
    if (++*(int *)calls == 3)
        aeStop(loop);
    return 1;
}
int main(void)
{
    int calls = 0;
    aeEventLoop *loop = aeCreateEventLoop(64);
    if (loop == NULL || aeCreateTimeEvent(loop, 1, again, &calls, NULL) == AE_ERR)
        return 1;
    aeMain(loop);
    aeDeleteEventLoop(loop);
    printf("%s %d", aeGetApiName(), calls);
    return 0;
}
"""


class LiftOutTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.mkdtemp(prefix="lift out ")
        self.addCleanup(shutil.rmtree, folder)
        self.folder = pathlib.Path(folder)
        for path in STEP.glob("ae*.[ch]"):
            shutil.copy(str(path), folder)
        (self.folder / "program.c").write_text(PROGRAM)

    def compile(self, compiler, *arguments):
        """Where the system has no kqueue, the double stands in for it, after all folders."""
        return subprocess.run(
            [*compiler, *STRICT, "-idirafter", str(DOUBLE), *arguments],
            cwd=str(self.folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace")

    def test_each_file_is_strict_c(self):
        for compiler in COMPILERS:
            for source in ["ae.c", *(f"ae_{name}.c" for name in BACK_ENDS)]:
                for macro in [], ["-D_GNU_SOURCE"], ["-D_POSIX_C_SOURCE=200809L"]:
                    with self.subTest(compiler=compiler, source=source, macro=macro):
                        done = self.compile(compiler, *macro, "-c", "-o", os.devnull, source)
                        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_each_header_is_complete(self):
        for header in "ae.h", "ae_backend.h":
            (self.folder / "alone.c").write_text(f'#include "{header}"\nint unused;\n')
            done = self.compile(COMPILERS[0], "-c", "-o", os.devnull, "alone.c")
            self.assertEqual((done.returncode, done.stdout), (0, ""), header)

    def test_a_program_needs_ae_and_one_back_end(self):
        for name in BACK_ENDS:
            sources = ["program.c", "ae.c", f"ae_{name}.c"]
            if name == "kqueue" and sys.platform == "linux":
                sources.append(str(DOUBLE / "kqueue_double.c"))
            with self.subTest(name):
                done = self.compile(COMPILERS[0], "-o", "program", *sources)
                self.assertEqual((done.returncode, done.stdout), (0, ""))
                run = subprocess.run([str(self.folder / "program")], stdout=subprocess.PIPE,
                                     timeout=30, encoding="utf-8")
                self.assertEqual((run.returncode, run.stdout), (0, f"{name} 3"))


if __name__ == "__main__":
    unittest.main()
