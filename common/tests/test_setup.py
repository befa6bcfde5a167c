#!/usr/bin/env python3
"""setup.sh on machines made of stubs: the PATH holds only what a test puts there."""
import ast
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

SETUP = pathlib.Path(__file__).resolve().parents[1] / "build-aux/setup.sh"
MANAGERS = ("apt-get", "dnf", "apk", "pacman", "brew")


class Machine:
    """A folder that is the whole PATH. A package manager in it logs its
    arguments and "installs" the tools that it was made with."""

    def __init__(self, folder):
        self.bin = pathlib.Path(folder)
        for tool in ("sh", "env", "tr", "cat", "touch", "chmod", "grep"):
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.user(0)

    def script(self, name, body):
        path = self.bin / name
        path.write_text("#!/bin/sh\n" + body + "\n")
        path.chmod(0o755)

    def user(self, uid):
        self.script("id", f"echo {uid}")

    def tools(self, *names):
        for name in names:
            self.script(name, "exit 0")
        self.script("pkg-config", '[ -e "${0%/*}/lib-$2" ]')

    def library(self, name):
        (self.bin / ("lib-" + name)).touch()

    def manager(self, name, installs=(), status=0):
        here = "${0%/*}"
        lines = [f'echo "{name} $*" >>"{here}/log"']
        lines += [f'touch "{here}/{tool}"; chmod +x "{here}/{tool}"' for tool in installs]
        self.script(name, "\n".join([*lines, f"exit {status}"]))

    def run(self, group="check", **environment):
        done = subprocess.run(
            [str(self.bin / "sh"), str(SETUP), *group.split()], stdin=subprocess.DEVNULL,
            env={"PATH": str(self.bin), **environment}, timeout=30,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        return done.returncode, done.stdout

    def log(self):
        log = self.bin / "log"
        return log.read_text().splitlines() if log.exists() else []


class SetupTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.mkdtemp(prefix="setup-")
        self.addCleanup(shutil.rmtree, folder)
        self.machine = Machine(folder)

    def all_but_cmocka(self):
        self.machine.tools("cc", "make", "python3")
        self.machine.library("libuv")

    def test_silent_where_nothing_is_missing(self):
        self.all_but_cmocka()
        self.machine.library("cmocka")
        self.machine.manager("apt-get")
        self.assertEqual(self.machine.run("check"), (0, ""))
        self.assertEqual(self.machine.log(), [])

    def test_the_demo_needs_no_cmocka(self):
        self.all_but_cmocka()
        self.assertEqual(self.machine.run("build"), (0, ""))

    def test_only_step_7_needs_libuv(self):
        self.machine.tools("cc", "make", "python3")
        (self.machine.bin / "pkg-config").unlink()
        for steps in "1", "1 2 3 4 5 6 8":
            self.assertEqual(self.machine.run("build " + steps), (0, ""))
        for steps in "", " 7", " 1 7":
            status, said = self.machine.run("build" + steps)
            self.assertEqual(status, 1)
            self.assertIn("missing on this machine: pkg-config, libuv\n", said)

    def test_the_steps_that_need_a_library_are_those_whose_makefile_names_it(self):
        for makefile in sorted(SETUP.parents[2].glob("step*_*/Makefile")):
            number = makefile.parent.name[len("step"):].partition("_")[0]
            libraries = re.findall(r"^PKGS *= *(.*)", makefile.read_text(), re.M)
            self.machine.tools("cc", "make", "python3")
            status, said = self.machine.run("build " + number)
            self.assertEqual(status, 1 if libraries else 0, makefile)
            for library in libraries:
                self.assertIn("machine: " + library, said)

    def test_an_old_python_is_missing(self):
        self.all_but_cmocka()
        self.machine.script("python3", 'case $2 in *"(3, 8)"*) exit 1 ;; esac')
        status, said = self.machine.run("build")
        self.assertEqual(status, 1)
        self.assertIn("missing on this machine: python3 (3.8 or newer)\n", said)

    def test_the_scripts_need_no_newer_python(self):
        tree = SETUP.parents[2]
        for path in [*tree.glob("c*/**/*.py"), *tree.glob("step*_*/**/*.py")]:
            with self.subTest(str(path.relative_to(tree))):
                text = path.read_text(encoding="utf-8")
                for node in ast.walk(ast.parse(text, feature_version=(3, 8))):
                    # Python 3.8 wants parentheses here; ast of later versions does not say so.
                    if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple) \
                            and any(isinstance(part, ast.Starred) for part in node.iter.elts):
                        line = text.splitlines()[node.lineno - 1]
                        self.assertEqual(line[node.iter.col_offset], "(", line)
                self.assertNotRegex(text, r"\.(remove(prefix|suffix)|bit_count)\(|"
                                    r"(->|:) (dict|list|set|tuple)\[")

    def test_what_the_readmes_suggest(self):
        self.all_but_cmocka()
        self.machine.tools("strace")
        self.machine.manager("apt-get", installs=["nc"])
        self.assertEqual(self.machine.run("watch")[0], 0)
        self.assertTrue(self.machine.log()[-1].endswith(" netcat-openbsd"))

    def test_says_that_a_tool_is_missing_and_installs_it(self):
        self.all_but_cmocka()
        self.machine.manager("apt-get", installs=["lib-cmocka"])
        status, said = self.machine.run("check")
        self.assertEqual(status, 0, said)
        self.assertIn("missing on this machine: libcmocka\n", said)
        self.assertEqual(self.machine.log(), [
            "apt-get -qq update",
            "apt-get -qq install -y --no-install-recommends libcmocka-dev"])

    def test_a_bare_machine_under_each_package_manager(self):
        for name in MANAGERS:
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                machine = Machine(folder)
                if name == "brew":  # the compiler comes with Xcode, not with brew
                    machine.script("cc", "exit 0")
                machine.script("stub-pkg-config", '[ -e "${0%/*}/lib-$2" ]')
                machine.manager(name, ["cc", "make", "python3", "lib-libuv", "lib-cmocka"])
                status, said = machine.run("check", PKG_CONFIG="stub-pkg-config")
                self.assertEqual(status, 0, said)
                self.assertTrue(machine.log()[-1].startswith(name + " "), machine.log())
                for word in ("python", "libuv", "cmocka"):
                    self.assertIn(word, machine.log()[-1])

    def test_no_install_only_prints(self):
        self.all_but_cmocka()
        self.machine.manager("dnf")
        status, said = self.machine.run("check", NO_INSTALL="1")
        self.assertEqual(status, 1)
        self.assertIn("dnf install -q -y libcmocka-devel", said)
        self.assertEqual(self.machine.log(), [])

    def test_sudo_when_not_root(self):
        self.all_but_cmocka()
        self.machine.user(1000)
        self.machine.script("sudo", 'echo sudo >>"${0%/*}/log"; "$@"')
        self.machine.manager("apk", installs=["lib-cmocka"])
        self.assertEqual(self.machine.run("check")[0], 0)
        self.assertEqual(self.machine.log(), ["sudo", "apk add -q cmocka-dev"])

    def test_brew_is_never_run_by_sudo(self):
        self.all_but_cmocka()
        self.machine.user(501)
        self.machine.manager("brew", installs=["lib-cmocka"])
        self.assertEqual(self.machine.run("check")[0], 0)
        self.assertEqual(self.machine.log(), ["brew install -q cmocka"])

    def test_neither_root_nor_sudo(self):
        self.all_but_cmocka()
        self.machine.user(1000)
        self.machine.manager("apt-get")
        status, said = self.machine.run("check")
        self.assertEqual(status, 1)
        self.assertIn("not root and there is no sudo", said)
        self.assertEqual(self.machine.log(), [])

    def test_no_package_manager(self):
        status, said = self.machine.run("build")
        self.assertEqual(status, 1)
        self.assertIn("a C compiler (cc), make, pkg-config, libuv, python3 (3.8 or newer)\n",
                      said)
        self.assertIn("by hand", said)

    def test_installation_fails(self):
        self.all_but_cmocka()
        self.machine.manager("apt-get", status=100)
        status, said = self.machine.run("check")
        self.assertEqual(status, 1)
        self.assertIn("that failed; please install by hand: libcmocka", said)

    def test_installation_claims_success_but_changed_nothing(self):
        self.all_but_cmocka()
        self.machine.manager("apt-get")
        status, said = self.machine.run("check")
        self.assertEqual(status, 1)
        self.assertIn("still missing after that: libcmocka", said)

    def test_a_compiler_without_a_c_library_is_missing(self):
        self.all_but_cmocka()
        self.machine.script("cc", "exit 1")
        self.machine.manager("apt-get")
        said = self.machine.run("build")[1]
        self.assertIn("a C compiler (cc)", said)
        self.assertIn(" gcc libc6-dev", said)

    def test_a_compiler_chosen_by_name(self):
        self.all_but_cmocka()
        self.machine.script("clang", "exit 0")
        (self.machine.bin / "cc").unlink()
        self.assertEqual(self.machine.run("build", CC="clang"), (0, ""))

    def test_libraries_of_another_processor(self):
        self.all_but_cmocka()
        self.machine.manager("apt-get")
        for system, words in (("ID=debian", "dpkg --add-architecture arm64 && "),
                              ("ID=ubuntu", "setup: cross is for Debian only")):
            with tempfile.NamedTemporaryFile("w") as release:
                release.write(system + "\n")
                release.flush()
                said = self.machine.run("cross", NO_INSTALL="1", OS_RELEASE=release.name)[1]
                self.assertIn(words, said)

    def test_usage(self):
        for wrong in "", "everything", "full 1", "watch 1", "build one":
            self.assertEqual(self.machine.run(wrong)[0], 2, wrong)


if __name__ == "__main__":
    unittest.main()
