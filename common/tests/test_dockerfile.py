"""dockerfile-check.sh carries out what the Dockerfile says, in order, and sees it fail."""

import os
import subprocess
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
# Stands in for the machine: notes what it should run, reads its input, and fails where told.
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
                [os.path.join(HERE, "../tools/dockerfile-check.sh"), *([machine] if prefix else [])],
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
            "cat >'/tmp/setup.sh'", "sh /tmp/setup.sh check", "useradd",
            "chown -R 'student' '/home/student/echo'",
            "su -s /bin/sh student -c cd '/home/student/echo' && { make")]
        self.assertEqual(places, sorted(places))
        for step in "step1_sequential", "step6_epoll", "step8_ae":
            self.assertIn("common/build-aux/docker-entry.sh %s --quiet 0" % step, ran)

    def test_any_failure_is_one(self):
        for step, named in (("setup.sh check", "RUN sh /tmp/setup.sh"), ("tar -C", "COPY"),
                            ("{ make", "RUN make"), ("id -u)\" != 0", "root"),
                            ("step3_blocking --quiet", "step3_blocking")):
            result, _ = self.check(step)
            self.assertEqual((step, result.returncode), (step, 1))
            self.assertIn(named, result.stderr)

    def test_leaves_machines_alone_that_are_not_for_it(self):
        result, ran = self.check("debian_version")
        self.assertEqual((result.returncode, ran.count("\n")), (2, 1))
        self.assertEqual(self.check(prefix=False)[0].returncode, 2)


if __name__ == "__main__":
    unittest.main()
