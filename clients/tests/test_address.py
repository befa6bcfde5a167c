"""Every client takes all forms of a server's address, and tries all addresses of a name."""

import os
import socket
import subprocess
import sys
import tempfile
import unittest

from little_server import LittleServer

CLIENTS = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, CLIENTS)
from lib import address  # noqa: E402

PROGRAMS = (
    [sys.executable, "simple-client.py", "--time-scale", "0"],
    [sys.executable, "demos/async-pitfall.py", "-n", "1"],
    [sys.executable, "never-read.py", "--bytes", "1K"],
    [sys.executable, "../step6_epoll/demos/edge_client.py"],
    ["build/demos/interactive"],
    ["load-client", "--connections", "1", "--duration", "0.1", "--warmup", "0"],
)
STARTERS = (    # without an address these start a server of their own, which is no echo server
    [sys.executable, "../step7_libuv/demos/prime_client.py"],
    [sys.executable, "../step8_ae/demos/slow_client.py"],
)


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


def in_a_mount_namespace(command, hosts):
    """The command that runs `command` with another /etc/hosts; None if this is not allowed."""
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", *command]
    trial = subprocess.run([*command[:6], "true"], stderr=subprocess.DEVNULL)
    return command if trial.returncode == 0 else None


class Forms(unittest.TestCase):
    def test_right(self):
        for words, result in ((["h", "80"], ("h", 80)), (["h:80"], ("h", 80)),
                              (["::1", "80"], ("::1", 80)), (["[::1]", "80"], ("::1", 80)),
                              (["[::1]:80"], ("::1", 80))):
            self.assertEqual(address.parse(*words), result)

    def test_wrong(self):
        for words, message in (
                (["localhost"], "localhost: expected HOST PORT, HOST:PORT or [ADDRESS]:PORT"),
                (["::1"], "::1: expected HOST PORT, HOST:PORT or [ADDRESS]:PORT"),
                (["::1:80"], "::1:80: expected HOST PORT, HOST:PORT or [ADDRESS]:PORT"),
                (["h:80", "80"], "h:80 80: expected one port, got two"),
                (["[::1]:80", "80"], "[::1]:80 80: expected one port, got two"),
                ([":80"], ":80: expected a host before the port"),
                (["", "80"], " 80: expected a host before the port"),
                (["h:"], "h:: expected a port from 1 to 65535"),
                (["h", "+80"], "h +80: expected a port from 1 to 65535"),
                (["h", "\u0663"], "h \u0663: expected a port from 1 to 65535")):
            with self.subTest(words):
                with self.assertRaises(ValueError) as caught:
                    address.parse(*words)
                self.assertEqual(str(caught.exception), message)


class Addresses(unittest.TestCase):
    def reaches(self, command):
        result = subprocess.run(command, cwd=CLIENTS, stdin=subprocess.DEVNULL, timeout=30,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual((result.returncode, result.stderr), (0, b""), command)

    def all_reach(self, *words):
        for program in PROGRAMS:
            self.reaches([*self.found(program), *map(str, words)])

    @staticmethod
    def found(program):
        return program if program[0] == sys.executable else [
            os.path.join(CLIENTS, program[0]), *program[1:]]

    def test_ipv4(self):
        with LittleServer("concurrent") as server:
            self.all_reach(server.host, server.port)
            self.all_reach(f"{server.host}:{server.port}")
            self.all_reach("localhost", server.port)
            self.all_reach(f"localhost:{server.port}")

    @unittest.skipUnless(has_ipv6(), "no IPv6 here")
    def test_ipv6(self):
        with LittleServer("concurrent", socket.AF_INET6) as server:
            self.all_reach("::1", server.port)
            self.all_reach("[::1]", server.port)
            self.all_reach(f"[::1]:{server.port}")

    def test_the_server_listens_at_the_second_address(self):
        with LittleServer("concurrent") as server, tempfile.NamedTemporaryFile("w") as hosts:
            hosts.write("::1 localhost\n127.0.0.1 localhost\n")
            hosts.flush()
            for program in PROGRAMS:
                command = in_a_mount_namespace(
                    [*self.found(program), "localhost", str(server.port)], hosts.name)
                if command is None:
                    self.skipTest("needs root and mount namespaces")
                self.reaches(command)

    def test_usage_errors(self):
        for program in PROGRAMS + STARTERS:
            for words in (["127.0.0.1", "0"], ["127.0.0.1:65536"], ["127.0.0.1:http"],
                          ["127.0.0.1:80", "80"], ["[::1]80"], [":80"]):
                result = subprocess.run([*self.found(program), *words], cwd=CLIENTS, timeout=30,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
                self.assertEqual((result.returncode, result.stdout), (2, b""), (program, words))
                self.assertIn(b"expected", result.stderr)


if __name__ == "__main__":
    unittest.main()
