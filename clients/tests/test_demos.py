"""The demonstrations in clients/demos/ show what they claim to show."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import unittest
import unittest.mock

from little_server import LittleServer

CLIENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
INTERACTIVE = os.path.join(CLIENTS, "build", "demos", "interactive")
PROMPT = "write message : "
CONNECTED = "socket created\nconnected to the server\n"


def run(program, *arguments, **options):
    command = [program] if program == INTERACTIVE else [
        sys.executable, os.path.join(CLIENTS, "demos", program)]
    return subprocess.run([*command, *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="latin-1", timeout=60, **options)


class BusyWaitVsSelect(unittest.TestCase):
    def test_same_bytes_and_time_at_another_cost(self):
        result = run("busy-wait-vs-select.py", "--pieces", 10, "--gap-ms", 20)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        row = r" +(\d+) +([\d.]+) s +([\d.]+) s +(\d+) +(\d+) +(\d+)\n"
        busy, asleep = (list(map(float, re.search(name + row, result.stdout).groups()))
                        for name in ("busy loop", "select"))
        for size, elapsed, _, _, _, _ in (busy, asleep):
            self.assertEqual(size, 10000)
            self.assertGreaterEqual(elapsed, 0.18)
        self.assertGreater(busy[2], 4 * asleep[2])       # CPU
        self.assertGreater(busy[3], 100 * asleep[3])     # recv calls
        self.assertGreater(busy[4], 0.9 * busy[3])       # EAGAIN
        self.assertEqual(asleep[3], asleep[5])
        self.assertLessEqual(asleep[3], 11)

    def test_missing_bytes(self):
        """A server that ends early makes no error in the client, but it is no success."""
        spec = importlib.util.spec_from_file_location(
            "busy_wait", os.path.join(CLIENTS, "demos", "busy-wait-vs-select.py"))
        demo = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(demo)
        demo.send_slowly = lambda listener, *_: listener.accept()[0].close()
        with unittest.mock.patch("sys.argv", ["x"]), unittest.mock.patch("builtins.print"):
            with self.assertRaisesRegex(SystemExit, "expected 20000 bytes, received 0"):
                demo.main()

    def test_usage(self):
        for arguments in (["--pieces", "0"], ["--gap-ms", "-1"], ["--what"],
                          ["--gap-ms", 10 ** 20]):
            result = run("busy-wait-vs-select.py", *arguments)
            self.assertEqual(result.returncode, 2)
            self.assertIn(" ".join(map(str, arguments)), result.stderr)


class AsyncPitfall(unittest.TestCase):
    def test_a_blocking_read_stops_the_others(self):
        with LittleServer("late") as server:
            result = run("async-pitfall.py", server.host, server.port)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        awaited, blocking = map(float, re.findall(r"read: +([\d.]+) s", result.stdout))
        self.assertLess(awaited, 6 * LittleServer.DELAY)
        self.assertGreaterEqual(blocking, 10 * LittleServer.DELAY)
        self.assertIn("times as long", result.stdout)

    def test_on_a_fast_server_it_says_that_it_cannot_tell(self):
        with LittleServer("concurrent") as server:
            result = run("async-pitfall.py", "-n", 2, server.host, server.port)
        self.assertIn("This server answers too fast to show the difference", result.stdout)

    def test_failures(self):
        with LittleServer("early-close") as server:
            result = run("async-pitfall.py", server.host, server.port)
            place = server.host, server.port
        self.assertEqual((result.returncode, result.stderr),
                         (1, "async-pitfall: the server closed early\n"))
        result = run("async-pitfall.py", *place)
        self.assertEqual((result.returncode, result.stderr), (
            1, f"async-pitfall: cannot connect to {place[0]} port {place[1]}: "
               "Connection refused\n"))
        self.assertEqual(run("async-pitfall.py", "localhost", 0).returncode, 2)


class GatherOrder(unittest.TestCase):
    def test_every_claim(self):
        orders, together = set(), []
        for seed in range(4):
            result = run("gather-order.py", "--time-scale", 0.4, "--seed", seed)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            taken = re.findall(r"([ABC]) takes ([\d.]+) s", result.stdout)
            by_time = " ".join(name for name, _ in sorted(taken, key=lambda job: job[1]))
            orders.add(by_time)
            parts = re.findall(r"^(\S+) .*\n    finished  (.*)\n    results   (.*)\n"
                               r"    after     ([\d.]+) s$", result.stdout, re.M)
            self.assertEqual([part[:3] for part in parts], [
                ("gather:", by_time, "A B C"),
                ("create_task:", "none", "none"),
                ("await", by_time, "A B C"),
                ("await", "A B C", "A B C"),
                ("as_completed:", by_time, by_time),
                ("a", "none", "none")])
            gather, _, by_task, by_coroutine, _, _ = (float(part[3]) for part in parts)
            self.assertGreater(by_coroutine, 0.23)  # 0.4 * (0.1 + 0.2 + 0.3), or longer
            together.append(max(gather, by_task))
        self.assertGreater(len(orders), 1)
        self.assertLess(min(together), 0.2)  # 0.4 * 0.3, on a machine that has time for us

    def test_usage(self):
        for value in "-1", "nan", "101":
            result = run("gather-order.py", "--time-scale", value)
            self.assertEqual(result.returncode, 2)
            self.assertIn(f"--time-scale {value}: expected", result.stderr)


class Interactive(unittest.TestCase):
    def type(self, text):
        with LittleServer("concurrent") as server:
            return run(INTERACTIVE, server.host, server.port, input=text)

    def test_replies_until_bye(self):
        result = self.type("hello\n\nbye\nnever sent\n")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(result.stdout, f"{CONNECTED}{PROMPT}Server reply : ifmmp\n"
                                        f"{PROMPT}Server reply : \n"
                                        f"{PROMPT}exiting...\n")

    def test_end_of_input(self):
        result = self.type("abc\nno newline")
        self.assertEqual(result.stdout, f"{CONNECTED}{PROMPT}Server reply : bcd\n"
                                        f"{PROMPT}Server reply : op!ofxmjof\n"
                                        f"{PROMPT}\nexiting...\n")
        self.assertEqual(self.type("").stdout, f"{CONNECTED}{PROMPT}\nexiting...\n")

    def test_end_of_input_waits_until_the_server_closes(self):
        with LittleServer("never-closes") as server:
            client = subprocess.Popen([INTERACTIVE, server.host, str(server.port)],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            with client:
                with self.assertRaises(subprocess.TimeoutExpired):
                    client.wait(0.5)
                server.clients[0].shutdown(socket.SHUT_WR)
                self.assertEqual(client.wait(20), 0)
        with LittleServer("extra-byte") as server:
            result = run(INTERACTIVE, server.host, server.port, input="")
        self.assertEqual(result.returncode, 1)
        self.assertIn("sent bytes that are no answer", result.stderr)

    def test_long_lines_and_odd_bytes(self):
        line = re.sub(r"[\n\f$]", "", "".join(map(chr, range(256)))) * 4000  # \f makes \r
        expected = "".join(chr((ord(char) + 1) % 256) for char in line)
        self.assertEqual(self.type(line + "\nbye").stdout,
                         f"{CONNECTED}{PROMPT}Server reply : {expected}\n"
                         f"{PROMPT}exiting...\n")

    def test_raw(self):
        """All that the server sends is printed, until it closes after the end of the input."""
        for text, answer in (("^abc$de^abte$f", "*bcdbcuf"), ("", "*"), ("bye\n^bye", "*czf"),
                             ("^" + "x" * 1000000, "*" + "y" * 1000000)):
            with LittleServer("concurrent") as server:
                result = run(INTERACTIVE, "--raw", server.host, server.port, input=text)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertEqual(result.stdout, answer)

    def test_raw_when_the_server_closes(self):
        with LittleServer("early-close") as server:
            client = subprocess.Popen([INTERACTIVE, "--raw", server.host, str(server.port)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE)
            client.stdin.write(b"^abc$")
            client.stdin.flush()
            with client:
                self.assertEqual(client.wait(20), 1)
                self.assertIn(b"server: closed the connection", client.stderr.read())

    def test_the_end_mark_is_no_text(self):
        self.assertIn("cannot contain a $", self.type("abc$d\nbye\n").stdout)

    def test_notices_that_the_server_closes_while_nobody_types(self):
        with LittleServer("concurrent") as server:
            client = subprocess.Popen([INTERACTIVE, server.host, str(server.port)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE)
            expected = f"{CONNECTED}{PROMPT}".encode()
            self.assertEqual(client.stdout.read(len(expected)), expected)
        with client:
            self.assertEqual(client.wait(20), 1)
            self.assertIn(b"server: closed the connection", client.stderr.read())

    def test_server_closes_instead_of_answering(self):
        with LittleServer("early-close") as server:
            result = run(INTERACTIVE, server.host, server.port, input="abc\n")
        self.assertEqual(result.returncode, 1)
        self.assertIn("interactive: server: ", result.stderr)

    def test_says_that_it_waits_for_the_greeting(self):
        with LittleServer("silent") as server:
            client = subprocess.Popen([INTERACTIVE, server.host, str(server.port)],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            with client:
                self.assertIn(b"not greeted us", [client.stdout.readline()
                                                  for _ in range(3)][2])
                client.kill()

    def test_cannot_connect(self):
        with LittleServer("concurrent") as server:
            place = server.host, server.port
        result = run(INTERACTIVE, *place, input="")
        self.assertEqual((result.returncode, result.stdout, result.stderr),
                         (1, "socket created\n", f"interactive: cannot connect to {place[0]} "
                          f"port {place[1]}: Connection refused\n"))
        result = run(INTERACTIVE, "host.invalid", input="")
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot connect to host.invalid port 8080: ", result.stderr)
        result = run(INTERACTIVE, "--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("usage: ", result.stdout)
        for arguments, message in (
                (["--what"], "--what: expected --raw or --help"),
                (["127.0.0.1", 65536], "65536: expected a port from 1 to 65535"),
                (["127.0.0.1", "+80"], "+80: expected a port from 1 to 65535"),
                (["127.0.0.1:http"], "http: expected a port from 1 to 65535"),
                (["127.0.0.1:80", 80], ":80: expected one port"),
                (["[::1]80"], "80: expected one port"),
                ([":80"], "HOST: expected a name or an address"),
                (["a", 1, 2], "2: expected no third argument")):
            result = run(INTERACTIVE, *arguments, input="")
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertIn(f"interactive: {message}\nusage: ", result.stderr)

    def test_started_without_descriptors(self):
        with LittleServer("concurrent") as server:
            result = run(INTERACTIVE, server.host, server.port,
                         preexec_fn=lambda: [os.close(fd) for fd in (0, 1, 2)])
        self.assertEqual(result.returncode, 0)      # closed is as good as ended


if __name__ == "__main__":
    unittest.main()
