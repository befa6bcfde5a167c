"""The demonstrations in demos/ show what they claim to show."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import unittest

STEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(STEP, "..", "clients"))

from lib.servers import Server      # noqa: E402

SLOW_COMMAND = os.path.join(STEP, "build", "demos", "slow_command")
MODES = "block", "slices", "worker"


def run(*command):
    result = subprocess.run([*map(str, command)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
    return result.returncode, result.stdout, result.stderr


def slow_client(*arguments):
    return run(sys.executable, os.path.join(STEP, "demos", "slow_client.py"), *arguments)


@contextlib.contextmanager
def slow_command(mode, descriptors=None):
    """The server on a free port. Yields the port."""
    limit = [] if descriptors is None else [
        "sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]
    with Server([*limit, SLOW_COMMAND, "--mode", mode]) as server:
        yield server.port


def read_now(sock):
    """What has arrived."""
    try:
        return sock.recv(1000)
    except BlockingIOError:
        return b""


def ask(port, *pieces):
    """Sends the pieces and a last line. Returns all lines that arrive before its answer."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        for piece in [*pieces, b"end\n"]:
            sock.sendall(piece)
        lines = []
        for line in sock.makefile("r"):
            if line == "end\n":
                return lines
            lines.append(line.rstrip("\n"))
    raise AssertionError(f"closed after {lines}")


class SlowCommand(unittest.TestCase):
    def each_mode(self, check):
        for mode in MODES:
            with self.subTest(mode), slow_command(mode) as port:
                check(port)

    def test_answers_keep_their_order(self):
        lines = b"".join(b"SLOW %d\nline %d\n" % (n % 4, n) for n in range(100))
        expected = [word for n in range(100) for word in ("done", f"line {n}")]
        self.each_mode(lambda port: self.assertEqual(ask(port, lines), ["hello", *expected]))

    def test_lines_come_in_any_pieces(self):
        def check(port):
            self.assertEqual(ask(port, b"SL", b"OW 1", b"\nx\n", b"\nSLOW\n"),
                             ["hello", "done", "x", "", "SLOW"])
            for bad in b"-1", b"", b" 1", b"+1", b"1 ", b"1x", b"60001", b"9" * 99:
                self.assertEqual(ask(port, b"SLOW " + bad + b"\n"),
                                 ["hello", "error: SLOW takes 0 to 60000"], bad)
            for size, answer in (127, "x" * 127), (128, "error: line too long"), \
                    (1000, "error: line too long"):
                self.assertEqual(ask(port, b"x" * size + b"\ny\n"), ["hello", answer, "y"])

        self.each_mode(check)

    def test_many_commands_at_once_and_clients_that_disconnect(self):
        def check(port):
            for _ in range(10):
                with socket.create_connection(("127.0.0.1", port)) as sock:
                    sock.sendall(b"SLOW 10\nSLOW 10\n")
            answers = []
            threads = [threading.Thread(
                target=lambda: answers.append(ask(port, b"SLOW 10\nx\n"))) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(answers, 10 * [["hello", "done", "x"]])

        self.each_mode(check)

    def test_too_much_work_is_rejected_and_others_are_still_served(self):
        with slow_command("worker") as port:
            answers = []
            with contextlib.ExitStack() as stack:
                for _ in range(600):    # its worker's socket has room for some hundreds
                    sock = socket.create_connection(("127.0.0.1", port), 20)
                    stack.enter_context(sock).sendall(b"SLOW 60000\n")
                    if sock.recv(6) == b"hello\n":
                        sock.settimeout(0)
                        answers.append(sock)
                self.assertEqual(ask(port), ["hello"])
                read = [read_now(sock) for sock in answers]
        self.assertEqual(set(read), {b"", b"error: too much work is pending\n"})

    def test_usage(self):
        usage = "usage: slow_command [--mode block|slices|worker] [PORT]\n"
        for options, error in (
                (["--mode", "fast"], "--mode: 'fast' is not block, slices or worker"),
                (["--mode"], "option '--mode' needs a value: block, slices or worker"),
                (["--what"], "unknown option '--what'"),
                (["1", "2"], "unexpected argument '2': at most one PORT is expected"),
                (["http"], "PORT: 'http' is not a whole number from 0 to 65535"),
                (["65536"], "PORT: '65536' is not a whole number from 0 to 65535"),
                ([""], "PORT: '' is not a whole number from 0 to 65535")):
            self.assertEqual(run(SLOW_COMMAND, *options),
                             (2, "", f"slow_command: {error}\n{usage}"), options)
        self.assertEqual(run(SLOW_COMMAND, "--help"), (0, usage, ""))

    def test_a_port_in_use(self):
        with slow_command("block") as port:
            self.assertEqual(run(SLOW_COMMAND, port), (
                1, "", f"slow_command: cannot listen on 127.0.0.1:{port}: "
                       "Address already in use\n"))

    def test_without_a_free_descriptor_it_rejects_and_serves_the_others(self):
        with slow_command("block", descriptors=16) as port, contextlib.ExitStack() as stack:
            clients, greeting = [], b"hello\n"
            while greeting == b"hello\n" and len(clients) < 17:
                sock = socket.create_connection(("127.0.0.1", port), 20)
                clients.append(stack.enter_context(sock))
                greeting = sock.recv(6)
            self.assertEqual(greeting, b"")
            clients[0].sendall(b"x\n")
            self.assertEqual(clients[0].recv(2), b"x\n")

    def test_signals_end_it_also_as_process_1(self):
        unshare = [shutil.which("unshare") or "unshare", "--map-root-user", "--pid", "--fork",
                   "--kill-child"]
        try:
            subprocess.run([*unshare, "true"], check=True, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            self.skipTest("unshare(1) cannot make a process namespace here")
        if os.environ.get("CHECK_EMULATED"):
            self.skipTest("process 1 would be the emulator")
        for number in signal.SIGTERM, signal.SIGINT:
            for prefix in [], unshare:
                with self.subTest(number, prefix=prefix[:1]), \
                        subprocess.Popen([*prefix, SLOW_COMMAND, "--mode", "worker", "0"],
                                         stdout=subprocess.PIPE, encoding="ascii") as started:
                    try:
                        self.assertIn("Listening", started.stdout.readline())
                        server = started.pid
                        if prefix:
                            with open(f"/proc/{server}/task/{server}/children",
                                      encoding="ascii") as children:
                                server = int(children.read())
                        os.kill(server, number)
                        status = started.wait(10)
                    finally:
                        started.kill()      # or leaving the block would wait for it
                    self.assertEqual(status, 128 + number if prefix else -number)


class SlowClient(unittest.TestCase):
    MS = 600

    def test_other_clients_wait_for_all_of_it_for_a_slice_or_not_at_all(self):
        status, printed, errors = slow_client("--ms", self.MS)
        self.assertEqual((status, errors), (0, ""))
        rows = {mode: [float(ms) for ms in re.findall(r"([\d.]+) ms", re.search(
            rf"^{mode} +(.*)$", printed, re.M).group(1))] for mode in MODES}
        for mode, (before, during, after, connected, greeted, took) in rows.items():
            self.assertGreaterEqual(took, self.MS, mode)
            self.assertLess(connected, 0.3 * self.MS, mode)
            self.assertLess(max(before, after), 0.3 * self.MS, mode)
            if mode == "block":
                self.assertGreater(during, 0.8 * self.MS)
                self.assertGreater(greeted, 0.6 * self.MS)
            else:
                self.assertLess(during, 0.3 * self.MS, mode)
                self.assertLess(greeted, 0.3 * self.MS, mode)

    def test_errors(self):
        self.assertEqual(slow_client("--ms", "-1")[0], 2)
        self.assertEqual(slow_client("localhost", "http")[0], 2)
        self.assertEqual(slow_client(65536)[0], 2)
        with slow_command("block") as port:
            pass
        self.assertEqual(slow_client("127.0.0.1", port), (
            1, "",
            f"slow_client: cannot connect to 127.0.0.1 port {port}: Connection refused\n"))


if __name__ == "__main__":
    unittest.main()
