#!/usr/bin/env python3
"""inject.py: the reference server passes, and broken ones fail for their own bug."""

import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def load():
    spec = importlib.util.spec_from_file_location("inject", str(HERE / "inject.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


inject = load()
RESET = inject.Fault(inject.RECV, "ECONNRESET", "1", 1, None)
AGAIN = inject.Fault(inject.RECV, "EAGAIN", "1+2", 0, "blocking")


def may_trace():
    """Is strace here, and does the system let it attach?"""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", "60"]) as victim:
        strace = subprocess.run(["timeout", "-s", "INT", "1", "strace", "-p", str(victim.pid)],
                                stderr=subprocess.PIPE, encoding="utf-8")
        victim.kill()
    return "attached" in strace.stderr


@unittest.skipUnless(may_trace(), "strace is not installed, or may not attach")
class InjectTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="inject-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def fault(self, fault, *arguments, server="broken.py"):
        command = [str(HERE / "servers" / server), *arguments]
        return inject.try_fault(fault, command, self.folder)

    def test_correct_server(self):
        self.assertTrue(self.fault(RESET, server="reference.py"))
        self.assertTrue(self.fault(AGAIN, server="reference.py"))

    def test_a_call_it_does_not_make(self):
        self.assertFalse(self.fault(RESET._replace(calls="sendfile"), server="reference.py"))

    def test_a_row_that_is_not_for_it(self):
        self.assertFalse(self.fault(RESET._replace(unless="non-blocking"),
                                    server="reference.py"))

    def test_wrong_bytes(self):
        with self.assertRaisesRegex(inject.Wrong, "wrong byte, at 4"):
            self.fault(AGAIN, "--bug", "answers-after-the-end")

    def test_dies(self):
        with self.assertRaisesRegex(inject.Wrong, "it died|clients lost"):
            self.fault(RESET, "--bug", "dies-on-reset")

    def test_loses_more_clients_than_the_fault_explains(self):
        with self.assertRaisesRegex(inject.Wrong, "1 of 4 clients lost, for 1 errors"):
            self.fault(RESET._replace(lost=0), server="reference.py")

    def test_rejects_without_a_line(self):
        with self.assertRaisesRegex(inject.Wrong, "1 clients were rejected, but it says "):
            self.fault(inject.Fault("epoll_ctl", "ENOSPC", "1", 1, None),
                       server="reference.py")

    def lasting(self, error, body):
        server = self.folder / "server.py"
        server.write_text(LASTING.format(folder=str(HERE / "servers"), body=body))
        server.chmod(0o755)
        return inject.try_lasting(error, [str(server)], self.folder)

    def test_accept_that_fails_for_good(self):
        for error in inject.LASTING:
            self.assertTrue(self.lasting(error, "super().reject_by_spare()"))

    def test_accept_that_fails_for_good_and_a_server_that_spins(self):
        with self.assertRaisesRegex(inject.Wrong, "it spins: .* accept calls"):
            self.lasting("EMFILE", "pass")

    def test_accept_that_fails_for_good_and_a_server_that_counts_rejections(self):
        with self.assertRaisesRegex(inject.Wrong, "[01] clients were rejected, but it "):
            self.lasting("ENFILE", "super().reject_by_spare(); "
                         "self.say('1 clients served; 3 rejected')")

    def test_does_not_end(self):
        self.addCleanup(setattr, inject, "PATIENCE", inject.PATIENCE)
        inject.PATIENCE = 2
        with self.assertRaisesRegex(inject.Wrong, "SIGTERM does not end it"):
            self.fault(RESET, "--bug", "ignores-sigterm")

    def test_waits_for_ever(self):
        self.addCleanup(setattr, inject, "PATIENCE", inject.PATIENCE)
        inject.PATIENCE = 2
        with self.assertRaisesRegex(inject.Wrong, "waits for ever"):
            self.fault(RESET, "--bug", "never-closes")


LASTING = """#!/usr/bin/env python3
import sys
sys.path.insert(0, {folder!r})
import reference

class Server(reference.Server):
    def reject_by_spare(self):
        {body}

sys.exit(reference.main(Server))
"""


class CommandLineTest(unittest.TestCase):
    def run_it(self, *arguments, **environment):
        return subprocess.run(
            [sys.executable, str(HERE / "inject.py"), *arguments], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=60)

    def test_usage(self):
        for wrong in (), ("/bin/true", "--port"), ("/nonexistent",):
            self.assertEqual(self.run_it(*wrong).returncode, 2)

    def test_without_strace(self):
        done = self.run_it("/bin/true", PATH="/nonexistent")
        self.assertEqual(done.returncode, 0)
        self.assertIn("# SKIP strace is not installed", done.stdout)
        done = self.run_it("/bin/true", PATH="/nonexistent", REQUIRE_ALL="1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("not ok 1", done.stdout)


if __name__ == "__main__":
    unittest.main()
