#!/usr/bin/env python3
"""trace.py shows the calls between a server's first line and its stop, and nothing else."""

import os
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "tools/trace.py"
TRACE = runpy.run_path(str(SOURCE))
LOG = [
    '7     close(9)                          = 0 <0.000010>',
    '7     write(1, "Listening on 127.0.0.1:4711\\n", 27) = 27 <0.000010>',
    '7     accept(3, {sa_family=AF_INET, sin_port=htons(5), sin_addr=inet_addr("127.0.0.1")}, '
    '[16]) = 5 <0.250000>',
    '7     write(2, "peer connected", 14)    = 14 <0.000010>',
    '7     recvfrom(5, 0x1, 9, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable) '
    '<0.000010>',
    '7     accept(3, 0x1, [128])             = ? ERESTARTSYS (To be restarted) <1.000000>',
    '7     --- SIGTERM {si_signo=SIGTERM} ---',
    '7     close(5)                          = 0 <0.000010>',
]


def strace_works():
    return shutil.which("strace") is not None and subprocess.run(
        ["strace", "-o", "/dev/null", "true"], stderr=subprocess.DEVNULL).returncode == 0


class TraceTest(unittest.TestCase):
    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="trace-"))
        self.addCleanup(shutil.rmtree, str(self.tree))
        (self.tree / "common/tools").mkdir(parents=True)
        shutil.copy(str(SOURCE), str(self.tree / "common/tools"))

    def put(self, path, text):
        path = self.tree / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *words, **environment):
        return subprocess.Popen(
            [sys.executable, "common/tools/trace.py", *words], cwd=str(self.tree),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            env={**os.environ, **environment})

    def trace(self, *words, **environment):
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=90)
        return process.returncode, out, err

    def test_what_is_shown(self):
        accept, recv = TRACE["readable"](LOG, "thread")
        self.assertEqual(accept.split("<-"), [
            f"{'accept(3, {sin_port=htons(5)}, [16]) = 5':<66} ", " slept 0.25 s"])
        self.assertEqual(recv, "recvfrom(5, 0x1, 9, 0, NULL, NULL) = -1 EAGAIN")

    def test_threads_are_numbered(self):
        shown = TRACE["readable"]([*LOG[:3], "8     close(5) = 0 <0.1>"], "thread")
        self.assertEqual([line[:9] for line in shown], ["thread 1 ", "thread 2 "])

    def test_names_of_servers(self):
        for path, name in (("/x/step6_epoll/server", "6"), ("step6_epoll/serverx", None),
                           ("/x/step6_epoll/build/variants/edge", "6/edge"),
                           ("/bin/true", None)):
            self.assertEqual(TRACE["name_of"](path), name)

    def test_each_step_has_its_calls(self):
        for name, call in (("5", "pselect6"), ("5/poll", "poll"), ("6/edge", "epoll_wait"),
                           ("8/ae_poll", "poll"), ("9", "epoll_wait")):
            self.assertIn(",?" + call, TRACE["calls_of"](name))
        self.assertNotIn("epoll", TRACE["calls_of"]("5"))

    def test_usage(self):
        self.put("step1_x/server", "#!/bin/sh\n")
        self.put("other", "#!/bin/sh\n")
        for words in [], ["--help"], ["step1_x/nonesuch"], ["other"], ["step2_x/server"]:
            status, out, err = self.trace(*words)
            self.assertEqual((status, out), (2, ""), words)
            self.assertEqual(err.count("\n"), 1)

    def test_without_strace(self):
        self.put("step1_x/server", "#!/bin/sh\n")
        (self.tree / "bin").mkdir()
        status, out, _ = self.trace("step1_x/server", PATH=str(self.tree / "bin"))
        self.assertEqual(status, 0)
        self.assertIn("skip  trace: strace is not installed", out)

    @unittest.skipUnless(strace_works(), "needs strace, and the permission to trace")
    def test_a_server_that_fails(self):
        self.put("step1_x/server", "#!/bin/sh\necho no port left\n")
        status, out, err = self.trace("step1_x/server")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("no port left", err)

    @unittest.skipUnless(strace_works(), "needs strace, and the permission to trace")
    def test_clients_that_fail(self):
        self.put("step1_x/server", "#!/bin/sh\necho Listening on 127.0.0.1:1\nexec sleep 60\n")
        self.put("clients/simple-client.py", "import sys\nsys.exit('wrong answer')\n")
        status, out, err = self.trace("step1_x/server")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("the clients failed: wrong answer", err)

    @unittest.skipUnless(strace_works(), "needs strace, and the permission to trace")
    def test_it_shows_some_calls_and_counts_the_rest(self):
        self.put("step7_x/server", "#!/bin/sh\necho Listening on 127.0.0.1:1\n"
                 "for i in 1 2 3; do echo $i >/dev/null; done\nexec sleep 60\n")
        self.put("clients/simple-client.py", "import time\ntime.sleep(1)\n")
        self.put("common/tools/trace.py",
                 SOURCE.read_text(encoding="utf-8").replace("LIMIT = 40 ", "LIMIT = 2 "))
        status, out, err = self.trace("step7_x/server")
        self.assertEqual((status, err), (0, ""))
        lines = out.splitlines()
        self.assertEqual(len(lines), 3)
        self.assertRegex(lines[-1], r"^\.\.\. and \d+ more calls$")

    @unittest.skipUnless(strace_works(), "needs strace, and the permission to trace")
    def test_a_signal_ends_the_server_too(self):
        self.put("step1_x/server", "#!/bin/sh\necho $$ >pid\necho Listening on 127.0.0.1:1\n"
                 "exec sleep 60\n")
        self.put("clients/simple-client.py",
                 "import time\nopen('begun', 'w').close()\ntime.sleep(60)\n")
        os.mkfifo(str(self.tree / "begun"))
        for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:
            process = self.start("step1_x/server")
            (self.tree / "begun").read_text()
            process.send_signal(number)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, 128 + number)
            with self.assertRaises(ProcessLookupError):
                os.kill(int((self.tree / "pid").read_text()), 0)


if __name__ == "__main__":
    unittest.main()
