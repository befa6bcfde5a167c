"""dockerfile-check.sh carries out the instructions of the Dockerfile, and notices a failure.
docker-entry.sh becomes the server."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
# Stands in for the machine: notes each command, reads its input, and fails where it is told to.
MACHINE = """#!/bin/sh
echo "$@" >>"$NOTES"
case "$*" in
*"$FAILS_AT"*) exit 1 ;;
*no_such_step*) exit 2 ;;
*"sh -c cat"* | *"tar -C"*) cat >/dev/null ;;
esac
"""


class DockerfileCheck(unittest.TestCase):
    def check(self, fails_at="never", prefix=True):
        with tempfile.TemporaryDirectory() as folder:
            machine, notes = os.path.join(folder, "machine"), os.path.join(folder, "notes")
            with open(machine, "w", encoding="ascii") as file:
                file.write(MACHINE)
            os.chmod(machine, 0o755)
            environment = dict(os.environ, NOTES=notes, FAILS_AT=fails_at)
            environment.pop("DOCKERFILE_CHECK_HERE", None)
            result = subprocess.run(
                [os.path.join(HERE, "../tools/dockerfile-check.sh"),
                 *([machine] if prefix else [])],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=60,
                env=environment)
            with open(notes, "a+", encoding="utf-8") as file:
                file.seek(0)
                ran = file.read()
        return result, ran

    def test_runs_every_instruction_in_order(self):
        result, ran = self.check()
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        places = [ran.index(word) for word in (
            "cat >'/tmp/setup.sh'", "sh /tmp/setup.sh check", "sh /tmp/setup.sh watch",
            "useradd",
            "chown -R 'student' '/home/student/echo'",
            "su -s /bin/sh student -c cd '/home/student/echo' && { make")]
        self.assertEqual(places, sorted(places))
        for step in "step1_sequential", "step6_epoll", "step8_ae":
            self.assertIn(f"common/build-aux/docker-entry.sh {step} --quiet 0", ran)

    def test_any_failure_is_one(self):
        for step, named in (("setup.sh check", "RUN sh /tmp/setup.sh"), ("tar -C", "COPY"),
                            ("{ make", "RUN make"), ("id -u)\" != 0", "root"),
                            ("step3_blocking --quiet", "step3_blocking")):
            result, _ = self.check(step)
            self.assertEqual((step, result.returncode), (step, 1))
            self.assertIn(named, result.stderr)

    def test_does_not_change_a_machine_that_is_not_meant_for_it(self):
        result, ran = self.check("debian_version")
        self.assertEqual((result.returncode, ran.count("\n")), (2, 1))
        self.assertEqual(self.check(prefix=False)[0].returncode, 2)


class DevContainer(unittest.TestCase):
    def test_strace_may_trace_in_it(self):
        folder = pathlib.Path(HERE).parents[1] / ".devcontainer"
        settings = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
        self.assertTrue((folder / settings["build"]["dockerfile"]).is_file())
        self.assertTrue((folder / settings["build"]["context"] / "common/build-aux").is_dir())
        self.assertIn("--cap-add=SYS_PTRACE", settings["runArgs"])


class DockerEntry(unittest.TestCase):
    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="entry-"))
        self.addCleanup(shutil.rmtree, str(self.tree))
        for folder in ("common/build-aux", "step1_x/build/variants",
                       "elsewhere/common/build-aux"):
            (self.tree / folder).mkdir(parents=True)
        shutil.copy(os.path.join(HERE, "../build-aux/docker-entry.sh"),
                    str(self.tree / "common/build-aux"))
        for program in "step1_x/server", "step1_x/build/variants/v":
            (self.tree / program).write_text('#!/bin/sh\necho "$0 $$ $*"\n')
            (self.tree / program).chmod(0o755)

    def enter(self, *words, path=""):
        process = subprocess.Popen(
            ["common/build-aux/docker-entry.sh", *words], cwd=str(self.tree),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            env=dict(os.environ, CDPATH=str(self.tree / "elsewhere"),
                     PATH=f"{path}:{os.environ['PATH']}"))
        out, err = process.communicate(timeout=60)
        return process.returncode, process.pid, out, err

    def test_becomes_the_server(self):
        """Process 1 of a container is the server, so that it gets the signals."""
        for step, program in (("step1_x", "step1_x/server"),
                              ("step1_x/build/variants/v", "step1_x/build/variants/v")):
            status, pid, out, err = self.enter(step, "--quiet", "0")
            self.assertEqual((status, out, err),
                             (0, f"{program} {pid} --bind 0.0.0.0 --quiet 0\n", ""))

    def test_handles_sigterm_before_it_becomes_the_server(self):
        stand_in = self.tree / "dirname"    # the script calls it
        stand_in.write_text('#!/bin/sh\nkill -TERM $PPID\necho common/build-aux\n')
        stand_in.chmod(0o755)
        status, _, out, err = self.enter("step1_x", path=str(self.tree))
        self.assertEqual((status, out, err), (0, "", ""))

    def test_a_step_that_does_not_exist(self):
        for words in [], ["step9_x"]:
            status, _, out, err = self.enter(*words)
            self.assertEqual((status, out, err.splitlines()[1:]), (2, "", ["step1_x"]))


if __name__ == "__main__":
    unittest.main()
