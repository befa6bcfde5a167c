#!/usr/bin/env python3
"""The scripts behind `make fuzz`, `make matrix` and `make check-full` can fail, each in a small
tree that holds one mistake. The Makefiles report wrong arguments and missing libraries, and
work in unusual environments."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parents[1]
TARGET = """
#include "fuzz.h"
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    MUST(!(size > 1 && data[0] == '%s' && data[1] == '$'));
    return 0;
}
"""
MAKEFILE = """
all tests: build/program
build/program: program.c ; mkdir -p build && $(CC) $(CFLAGS) $(SANITIZE) -Wall -o $@ $<
SANITIZE = $(if $(SAN),-fsanitize=$(SAN))
"""
CHECK_ALL = """
import pathlib, subprocess, sys
tree = pathlib.Path(__file__).resolve().parents[2]
sys.exit(subprocess.call(str(tree / "common/build/program")) and 1)
"""
STAGES = {"common/tests/check-all.py": "check", "common/tools/docs.py": "docs",
          "clients/bench/check.py": "bench-check",
          "common/lessons/claims.py": "claims",
          "common/tools/lint.sh": "lint", "common/tools/memcheck.py": "memcheck",
          "common/tools/fuzz.sh": "fuzz", "common/tools/coverage.py": "coverage",
          "common/tools/matrix.sh": "matrix"}


def has_fuzzer():
    probe = subprocess.run(
        ["clang", "-fsanitize=fuzzer", "-x", "c", "-", "-o", "/dev/null"],
        input="int LLVMFuzzerTestOneInput(const char *s, long n) { return !s && n; }",
        encoding="utf-8", stderr=subprocess.DEVNULL) if shutil.which("clang") else None
    return probe is not None and probe.returncode == 0


class ToolTest(unittest.TestCase):
    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="tools-"))
        self.addCleanup(shutil.rmtree, self.tree)

    def put(self, path, text=""):
        path = self.tree / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def tool(self, name):
        """Copies common/NAME into the small tree."""
        (self.tree / "common" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE.parent / name, self.tree / "common" / name)

    def expect(self, status, *words, command=(), path=None, **environment):
        variables = {name: value for name, value in os.environ.items()
                     if not name.endswith("SAN_OPTIONS")}   # the mistakes here are meant
        variables.update({"REQUIRE_ALL": "0"}, **environment)
        if path is not None:    # a machine without the tool
            (self.tree / "bin").mkdir(exist_ok=True)
            for name in path:
                if not (self.tree / "bin" / name).exists():
                    (self.tree / "bin" / name).symlink_to(shutil.which(name))
            variables["PATH"] = str(self.tree / "bin")
        done = subprocess.run(["sh", *command], cwd=str(self.tree), env=variables, timeout=100,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              encoding="utf-8", errors="replace")
        for word in words:
            self.assertIn(word, done.stdout)
        self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout


class FuzzTest(ToolTest):
    def setUp(self):
        super().setUp()
        self.tool("tools/fuzz.sh")
        self.tool("tests/fuzz.h")
        self.put("common/echo.c", "typedef int echo;\n")
        self.put("common/tests/corpus/x/seed", "^a")
        self.put("common/tests/fuzz_x.c", TARGET % "^")

    def fuzz(self, status, *words, seconds="2", **how):
        return self.expect(status, *words, command=["common/tools/fuzz.sh", seconds], **how)

    @unittest.skipUnless(has_fuzzer(), "needs clang with libFuzzer")
    def test_finds_and_goes_on(self):
        self.put("common/tests/fuzz_y.c", TARGET.replace("MUST", "(void)") % "?")
        self.put("common/tests/corpus/y/seed")
        self.fuzz(1, "FAIL  fuzz_x", "fuzz_x.c:5: !(size > 1", "ok    fuzz_y: ", " runs in ")
        self.assertEqual(len(list(self.tree.glob("build/fuzz/x-crash-*"))), 1)

    @unittest.skipUnless(has_fuzzer(), "needs clang with libFuzzer")
    def test_a_seed_that_fails(self):
        self.put("common/tests/corpus/x/seed", "^$")
        self.fuzz(1, "FAIL  fuzz_x", seconds="1")

    def test_an_absent_fuzzer(self):
        tools = "sh", "dirname", "mkdir"
        self.fuzz(0, "skip  fuzz: clang is not installed", path=tools)
        self.fuzz(1, "FAIL  fuzz: clang is not installed", path=tools, REQUIRE_ALL="1")

    def test_usage(self):
        self.fuzz(2, "usage", seconds="soon")

    @unittest.skipUnless(shutil.which("gcc"), "needs gcc")
    def test_replay(self):
        """The same target without a fuzzer. A failure ends the run before the plan is met."""
        self.tool("tests/replay.c")
        (self.tree / "common/build/tests").mkdir(parents=True)
        subprocess.run(["gcc", "-D_GNU_SOURCE", "-o", "../build/tests/replay_x", "fuzz_x.c",
                        "replay.c"], cwd=str(self.tree / "common/tests"), check=True)
        replay = ["-c", "common/build/tests/replay_x"]
        self.expect(0, "1..1\nok 1 - seed\n", command=replay)
        self.put("common/tests/corpus/x/seed2", "^$")
        self.expect(128 + 6, "1..2\nok 1 - seed\n", "!(size > 1", command=replay)
        shutil.rmtree(str(self.tree / "common/tests/corpus/x"))
        self.expect(128 + 6, "count > 0", command=replay)


class MatrixTest(ToolTest):
    def setUp(self):
        super().setUp()
        self.tool("tools/matrix.sh")
        for part in "common", "clients", "step7_x":
            self.put(part + "/Makefile", MAKEFILE)
            self.put(part + "/program.c", "int main(void) { return 0; }\n")
        self.put("Makefile")
        self.put("common/tests/check-all.py", CHECK_ALL)

    def matrix(self, status, *words, row="gcc-O0", **how):
        return self.expect(status, *words, command=["common/tools/matrix.sh", row], **how)

    @unittest.skipUnless(shutil.which("gcc"), "needs gcc")
    def test_rows(self):
        self.assertEqual(self.matrix(0, "ok    gcc-O0: ").count("\n"), 1)
        self.assertFalse((self.tree / "common/build").exists())
        self.put("common/program.c", "int main(void) { return 3; }\n")
        self.matrix(1, "FAIL  gcc-O0: ")
        self.put("step7_x/program.c", "int main(void) { int unused; return 0; }\n")
        self.matrix(1, "unused", "FAIL  gcc-O0: it does not build")

    @unittest.skipUnless(shutil.which("gcc"), "needs gcc")
    def test_flags_arrive(self):
        self.put("common/program.c", "#include <assert.h>\nint main(void) { assert(0); }\n")
        self.matrix(1, "FAIL  gcc-O0")
        self.matrix(0, "ok    gcc-NDEBUG", row="gcc-NDEBUG")

    @unittest.skipUnless(shutil.which("gcc"), "needs gcc")
    def test_sanitizers(self):
        self.put("common/program.c", "#include <stdlib.h>\nint main(void)\n{\n"
                 "    volatile char *p = calloc(9, 1);\n    return p[9] & 0;\n}\n")
        self.matrix(0, "ok    gcc-O0")
        self.matrix(1, "FAIL  sanitizers", row="sanitizers")

    def test_an_absent_compiler(self):
        tools = "sh", "dirname", "mkdir"
        self.matrix(0, "skip  clang-O0: no clang", row="clang-O0", path=tools)
        self.matrix(1, "FAIL  clang-O0: no clang", row="clang-O0", path=tools, REQUIRE_ALL="1")

    def test_an_unknown_row(self):
        self.matrix(2, "no row tcc", row="tcc")


class CheckFullTest(ToolTest):
    def setUp(self):
        super().setUp()
        self.tool("tools/check-full.sh")
        for stage in STAGES:
            self.put(stage, f"#!/bin/sh\necho ran {stage} $*\n")

    def test_every_stage_counts(self):
        command = ["common/tools/check-full.sh", *STAGES.values()]
        said = self.expect(0, command=command)
        for stage in STAGES:
            self.assertIn("ran " + stage, said)
        self.assertNotIn("FAIL", said)
        for stage in STAGES:
            with self.subTest(stage=stage):
                self.put(stage, "#!/bin/sh\nexit 1\n")
                said = self.expect(1, "FAIL  " + STAGES[stage], command=command)
                for other in STAGES:
                    self.assertEqual("ran " + other in said, other != stage)
                self.put(stage, f"#!/bin/sh\necho ran {stage} $*\n")

    def test_chosen_stages(self):
        said = self.expect(0, "ok    lint", "ok    fuzz",
                           command=["common/tools/check-full.sh", "lint", "fuzz"])
        self.assertEqual(said.count("ran "), 2)
        self.expect(2, "no stage lintt", command=["common/tools/check-full.sh", "lintt"])

    def test_cdpath_does_not_lead_to_another_tree(self):
        for part in "bin", "tools":
            (self.tree / "other/common" / part).mkdir(parents=True)
        self.expect(0, "ran common/tools/lint.sh", CDPATH=str(self.tree / "other"),
                    command=["common/tools/check-full.sh", "lint"])

    def test_a_dockerfile_that_cannot_be_tried_here(self):
        here = {"command": ["common/tools/check-full.sh", "dockerfile-check"],
                "path": ("sh", "dirname", "date", "id")}
        self.expect(0, "skip  dockerfile-check: needs root, and debootstrap", **here)
        self.expect(1, "FAIL  dockerfile-check", REQUIRE_ALL="1", **here)

    @unittest.skipUnless(os.getuid() == 0, "only root may make a machine")
    def test_a_dockerfile_on_a_machine_made_for_it(self):
        here = {"command": ["common/tools/check-full.sh", "dockerfile-check"]}
        self.put("bin/debootstrap", "#!/bin/sh\n")
        here["PATH"] = f"{self.tree / 'bin'}:{os.environ['PATH']}"
        for status, word in (0, "ok    dockerfile-check"), (1, "FAIL  dockerfile-check"):
            self.put("common/tools/dockerfile-check.sh",
                     f"#!/bin/sh\ntest -d $2 && echo on $1; exit {status}\n")
            self.expect(status, "on chroot", word, **here)

    def test_without_a_container_engine(self):
        here = {"command": ["common/tools/check-full.sh", "container-check"],
                "path": ("sh", "dirname", "date", "id")}
        self.expect(0, "skip  container-check: needs root, buildah and debootstrap", **here)
        self.expect(1, "FAIL  container-check", REQUIRE_ALL="1", **here)

    @unittest.skipUnless(os.getuid() == 0, "only root may make a machine")
    def test_a_container_engine(self):
        for tool in "debootstrap", "buildah":
            self.put(f"bin/{tool}", "#!/bin/sh\n")
        here = {"command": ["common/tools/check-full.sh", "container-check"],
                "PATH": f"{self.tree / 'bin'}:{os.environ['PATH']}"}
        for status, word in (0, "ok    container-check"), (1, "FAIL  container-check"):
            self.put("common/tools/container-check.sh", f"#!/bin/sh\nexit {status}\n")
            self.expect(status, word, **here)


class WorkflowTest(unittest.TestCase):
    """What GitHub runs (.github/workflows/ci.yml), read line by line: there is no YAML here."""

    def test_every_stage_of_check_full_runs(self):
        script = (HERE.parent / "tools/check-full.sh").read_text(encoding="utf-8")
        stages = re.search("^stages='(.*)'$", script, re.M)[1].split()
        workflow = (TREE / ".github/workflows/ci.yml").read_text(encoding="utf-8")
        listed = re.search(r"^        stage:\n((?:          - .*\n)+)", workflow, re.M)[1]
        ran = re.findall(r"[\w-]{2,}", listed)
        for words in re.findall(r'make check-full STAGE="([^"$]*)"', workflow):
            ran += words.split()
        self.assertEqual(sorted(ran), sorted(stages))

    def test_the_rows_for_other_processors_run_on_debian(self):
        workflow = (TREE / ".github/workflows/ci.yml").read_text(encoding="utf-8")
        matrix = (HERE.parent / "tools/matrix.sh").read_text(encoding="utf-8")
        rows = re.findall(r"^row (\S+)", matrix.partition("\ncross=yes\n")[2], re.M)
        job = workflow.partition("image: debian:")[2]
        self.assertEqual(re.search(r'make matrix ROW="(.*)"', job)[1].split(), rows)


class ScriptsTest(unittest.TestCase):
    SCRIPTS = [*(script for script in sorted(TREE.glob("[cs]*/**/*.sh"))
                 if "node_modules" not in script.parts), TREE / ".ci/run"]

    def test_no_script_follows_cdpath(self):
        for script in self.SCRIPTS:
            for line in script.read_text(encoding="utf-8").splitlines():
                if re.search(r"""\bcd "?\$""", line):
                    self.assertIn("CDPATH='' cd ", line, script)

    @unittest.skipUnless(shutil.which("git") and (TREE / ".git").exists(), "needs a git clone")
    def test_scripts_keep_unix_line_ends(self):
        done = subprocess.run(["git", "check-attr", "eol", "--", *map(str, self.SCRIPTS)],
                              cwd=str(TREE), stdout=subprocess.PIPE, encoding="utf-8",
                              check=True)
        self.assertEqual({line.rpartition(" ")[2] for line in done.stdout.splitlines()}, {"lf"})

    @unittest.skipUnless(shutil.which("git") and (TREE / ".git").exists(), "needs a git clone")
    def test_git_holds_nothing_at_the_top_that_a_tool_left_there(self):
        done = subprocess.run(["git", "ls-tree", "--name-only", "HEAD"], cwd=str(TREE),
                              stdout=subprocess.PIPE, encoding="utf-8", check=True)
        self.assertEqual([name for name in done.stdout.splitlines()
                          if not re.match(r"\.|step\d_", name)],
                         ["LICENSE", "Makefile", "README.md", "clients", "common"])


@unittest.skipUnless(shutil.which("make"), "needs make")
class MakeTest(unittest.TestCase):
    tree = TREE

    def make(self, *words, **environment):
        done = subprocess.run(["make", "-s", *words], cwd=str(self.tree),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                              timeout=100,
                              env={**os.environ, "NO_INSTALL": "1", "MAKEFLAGS": "",
                                   **environment})
        return done.returncode, done.stdout, done.stderr

    def fails(self, message, *words, **environment):
        """Nothing is built, and the first line says why, below what cannot be built here."""
        status, out, err = self.make(*words, **environment)
        self.assertEqual((status, out), (2, ""), words)
        said = [line for line in err.splitlines() if not line.startswith("skip  ")]
        self.assertIn(message, said[0])


class MakefileTest(MakeTest):
    def test_a_step_that_does_not_exist(self):
        for target in "check", "demo", "tests":
            for steps in "9", "1,9", "9 2":
                self.fails("no step 9: there are 1 2 3 4 5 6 7 8", target, "STEP=" + steps)
        for target in "run", "trace":
            self.fails("no step 9: there are 1 2 3 4 5 6 7 8", target, "STEP=9")
            self.fails("step 6 has edge", target, "STEP=6/nonesuch")
            self.fails(f"usage: make {target} STEP=6", target)
            self.fails(f"usage: make {target} STEP=6", target, "STEP=5,6")

    def test_chosen_steps(self):
        for words, last in (([], "common/tests/check-all.py"),
                            (["STEP=2,1"], "common/tests/check-all.py --steps 2,1"),
                            (["STEP=2 1"], "common/tests/check-all.py --steps 2,1")):
            for target in "check", "test":
                _, out, _ = self.make("-n", target, *words)
                self.assertEqual(out.splitlines()[-1].strip(), last)

    def test_a_step_is_asked_only_for_its_own_tools(self):
        for steps, asked in ("STEP=1", "1"), ("STEPS=1,2", "1 2"), ("N=5", "1 2 3 4 5 6 7 8"):
            for target, group in ("demo", "build"), ("check", "check"):
                _, out, _ = self.make("-n", target, steps)
                self.assertIn(f"sh common/build-aux/setup.sh {group} {asked}\n", out)
        _, out, _ = self.make("-n", "step1_sequential")
        self.assertIn("sh common/build-aux/setup.sh build 1\n", out)

    def test_diff(self):
        status, out, err = self.make("diff", "A=6", "B=6/edge")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("--- step6_epoll/server.c", out)
        self.assertIn("+++ step6_epoll/variants/edge.c", out)
        self.assertNotIn("\033", out)
        self.assertEqual(self.make("diff", "A=1", "B=1")[:2], (0, ""))
        self.fails("no server 9: there are 1 2 2/fork", "diff", "A=9", "B=1")
        self.fails("no server 6/nonesuch: there are", "diff", "A=6", "B=6/nonesuch")
        self.fails("usage: make diff A=5 B=6", "diff", "A=5")
        self.assertIn("make diff A=1 B=4 ", self.make("diff")[1])

    def test_targets_inside_a_step(self):
        step = ["-n", "--no-print-directory", "-C", "step6_epoll"]
        for words, last in ((["demo"], "    --steps 6 \\"),
                            (["run", "ARGS=8080"], "./server 8080"),
                            (["run", "VARIANT=edge"], "./build/variants/edge "),
                            (["trace"], "../common/tools/trace.py server "),
                            (["test"], "../common/tests/check-all.py step6_epoll")):
            status, out, err = self.make(*step, *words)
            self.assertEqual(status, 0, err)
            self.assertIn(last + "\n", out)
        _, out, _ = self.make(*step, "diff", "B=7")
        self.assertIn("step6_epoll/server.c step7_libuv/server.c", out)

    def test_an_unknown_back_end(self):
        for words in ["BACKEND=foo"], ["-C", "step8_ae", "BACKEND=foo"]:
            self.fails("BACKEND=foo: this system has ", *words)

    @unittest.skipUnless(shutil.which("bmake"), "needs bmake")
    def test_bsd_make(self):
        for folder in sorted([TREE, TREE / "common", *TREE.glob("step*_*")]):
            with self.subTest(folder.name):
                done = subprocess.run(["bmake", "all"], cwd=str(folder), encoding="utf-8",
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      timeout=60, env={**os.environ, "MAKEFLAGS": ""})
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stdout, r"^[^\n]*these Makefiles need GNU make[^\n]*\n$")

    def test_everything_has_a_target_that_help_names(self):
        _, out, _ = self.make("help")
        for target in ("demo", "fleet", "run", "trace", "diff", "grade", "starter", "exercise",
                       "gradescope.zip", "check", "test", "check-full", "lint", "format",
                       "format-check", "memcheck", "fuzz", "coverage", "matrix",
                       "dockerfile-check", "container-check", "bench", "bench-check",
                       "claims", "docs",
                       "compile_commands.json", "page", "record", "clean"):
            self.assertIn("make " + target, out)
            if target == "compile_commands.json" and not shutil.which("bear"):
                continue    # make runs that line even with -n, because it calls make
            self.assertEqual(self.make("-n", target, "STEP=1" if target in ("run", "trace") else
                                       "N=5")[0], 0, target)


class MakeInACopyTest(MakeTest):
    """Builds in a copy of the tree whose path has blanks in it."""

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="make in a copy ")
        self.addCleanup(shutil.rmtree, folder)
        self.tree = pathlib.Path(folder) / "the tree"
        ignored = shutil.ignore_patterns("build", "server", "__pycache__")
        self.tree.mkdir()
        shutil.copy(TREE / "Makefile", self.tree)
        for part in "common", "step1_sequential", "step7_libuv":
            shutil.copytree(TREE / part, self.tree / part, ignore=ignored)

    def test_step_7_without_libuv(self):
        stub = self.tree / "pkg-config"
        stub.write_text("#!/bin/sh\nexit 1\n")
        stub.chmod(0o755)
        self.fails("setup: missing on this machine: libuv", "-C", "step7_libuv",
                   PKG_CONFIG="../pkg-config")
        self.assertFalse(list(self.tree.glob("step7_libuv/build/*.o")))
        self.assertEqual(self.make("-n", "-C", "step1_sequential",
                                   PKG_CONFIG="../pkg-config")[0], 0)

    def test_where_nothing_can_be_written_one_line_says_so(self):
        (self.tree / "step1_sequential/build").write_text("a file where a folder is wanted")
        status, out, err = self.make("-C", "step1_sequential")
        self.assertEqual((status, out), (2, ""))
        first, second = err.splitlines()
        self.assertIn("build", first)
        self.assertRegex(second, r"^make.* Error 1$")

    def test_an_unusual_environment(self):
        """Settings that users have for other purposes change nothing."""
        (self.tree / "garbage").mkdir()
        for name in "json.py", "argparse.py", "re.py":
            (self.tree / "garbage" / name).write_text("raise SystemExit('imported garbage')\n")
        (self.tree / "elsewhere/common/tools").mkdir(parents=True)
        odd = {"MAKEFLAGS": "R", "TESTS": "x", "OBJS": "x.o", "PKGS": "x", "SUITE": "--x",
               "STEP_FLAGS": "-x", "ABSENT": "x", "EXTRA_VARIANTS": "x", "CFLAGS": "-O0",
               "VARIANT": "x",
               "CDPATH": str(self.tree / "elsewhere"), "POSIXLY_CORRECT": "1", "LC_ALL": "C",
               "GREP_OPTIONS": "--color=always", "TMPDIR": str(self.tree),
               "PYTHONPATH": str(self.tree / "garbage"), "PYTHONSAFEPATH": "1",
               "PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error"}
        status, out, err = self.make("-j2", "-C", "step1_sequential", **odd)
        self.assertEqual((status, err), (0, ""))
        self.assertTrue((self.tree / "step1_sequential/server").exists(), out)
        self.assertEqual(self.make("-C", "step1_sequential", "print-suite-args", **odd),
                         (0, "--serial\n", ""))
        status, out, err = self.make("diff", **odd)
        self.assertEqual(status, 0, err)
        self.assertIn("make diff A=1 B=4 ", out)


if __name__ == "__main__":
    unittest.main()
