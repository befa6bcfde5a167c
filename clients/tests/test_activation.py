"""Started by socket activation, the servers take the socket that is passed. So every connection
succeeds while one server replaces another. And the unit files are in order."""

import os
import pathlib
import shutil
import socket
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNITS = ROOT / "clients/fleet"
sys.path.insert(0, str(ROOT / "clients"))

from lib import processes, servers, tree    # noqa: E402

# What systemd does between fork and exec. The socket is descriptor 3.
ACTIVATE = ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec "$@"',
            "sh"]


class Activated(servers.Server):
    """A server that gets a socket in place of a port."""

    def __init__(self, program, listener, arguments=()):
        def prepare():
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)     # dup2 changes nothing if it has that number already

        super().__init__([*ACTIVATE, program, "--quiet", *arguments], prepare=prepare)


def exchange(address, seconds=20):
    """One client: it sends before it is greeted, so the server has its message when it accepts
    it. Returns what came until the end."""
    with socket.create_connection(address, seconds) as client:
        client.sendall(b"^abc$")
        client.shutdown(socket.SHUT_WR)
        came = b""
        while True:
            piece = client.recv(100)
            if not piece:
                return came
            came += piece


class Clients:
    """Clients who come all the time, some at once, until told to stop."""

    def __init__(self, address, at_once=8):
        self.address, self.over = address, threading.Event()
        self.served, self.trouble = 0, []
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(at_once)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.over.is_set() and len(self.trouble) < 5:
            try:
                came = exchange(self.address)
            except OSError as error:
                came = error
            with self.changed:
                if came == b"*bcd":
                    self.served += 1
                else:
                    self.trouble.append(came)
                self.changed.notify_all()

    def wait_for(self, count, seconds=20):
        """Until `count` more were served, or one was not."""
        with self.changed:
            target = self.served + count
            self.changed.wait_for(lambda: self.served >= target or self.trouble, seconds)

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)


class SocketActivation(unittest.TestCase):
    def test_each_server_takes_the_socket(self):
        for program in tree.servers():
            if not tree.is_program(program.path):
                continue    # some variants cannot be built everywhere
            with self.subTest(program=str(program.path)), \
                    socket.create_server(("127.0.0.1", 0)) as listener:
                listener.setblocking(False)     # as the server before may have left it
                address = listener.getsockname()
                try:
                    server = Activated(program.path, listener)
                except processes.Trouble as trouble:
                    self.assertIn("this kernel does not allow io_uring", str(trouble))
                    continue
                with server:
                    self.assertEqual(server.address, address)
                    self.assertEqual(exchange(address), b"*bcd")
                    self.assertEqual(server.stop(), 0)

    def test_every_connection_succeeds_during_a_restart(self):
        """A server stops, then the next one starts. The last one is another model."""
        prefork = "step2_thread_per_client/build/variants/prefork"
        workers = ("step6_epoll/build/variants/workers", "--workers", "4", "--share")
        for commands in ([("step1_sequential/server",)] * 2, [(prefork,)] * 2,
                         [("step6_epoll/server",), ("step8_ae/server",),
                          ("step1_sequential/server",)],
                         *([(*workers, way)] * 3 for way in
                           ("accept", "listener", "exclusive", "reuseport"))):
            if not tree.is_program(ROOT / commands[0][0]):
                continue    # some variants cannot be built everywhere
            with self.subTest(commands), socket.create_server(("127.0.0.1", 0)) as listener:
                clients = Clients(listener.getsockname())
                for name, *arguments in commands:
                    with Activated(ROOT / name, listener, arguments) as server:
                        clients.wait_for(20)
                        self.assertEqual(server.stop(), 0)
                with Activated(ROOT / "step1_sequential/server", listener):
                    clients.wait_for(20)
                    clients.end()
                self.assertEqual(clients.trouble, [])
                self.assertGreater(clients.served, 20 * len(commands))

    def test_systemds_own_tool(self):
        tool = shutil.which("systemd-socket-activate") or self.skipTest(
            "systemd-socket-activate is not installed")
        port = servers.free_port()
        command = [tool, f"--listen=127.0.0.1:{port}", ROOT / "step6_epoll/server", "--quiet"]
        with processes.Process(list(map(str, command))) as server:
            deadline = time.monotonic() + 20
            while "Listening on" not in server.output() and time.monotonic() < deadline:
                time.sleep(0.01)
            self.assertEqual(exchange(("127.0.0.1", port)), b"*bcd")    # starts the server
            self.assertIn(f"\nListening on 127.0.0.1:{port}\n", "\n" + server.output())
            self.assertEqual(server.end(10), 0)

    def test_wrong_sockets_are_reported(self):
        with socket.socket() as bound, tempfile.TemporaryFile() as file:
            for passed, reason in ((bound, "not a listening TCP socket"),
                                   (file, "Socket operation on non-socket")):
                with self.assertRaisesRegex(processes.Trouble, reason):
                    Activated(ROOT / "step6_epoll/server", passed)


class Units(unittest.TestCase):
    """systemd's own analysis; the program is ours, where it was built."""

    def setUp(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("systemd-analyze is not installed")
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        for path in UNITS.glob("echo@.*"):
            text = path.read_text(encoding="utf-8").replace("/opt/echo/", f"{ROOT}/")
            name = path.name.replace("@", "@step6_epoll")
            pathlib.Path(self.folder.name, name).write_text(text, encoding="utf-8")

    def analyze(self, *arguments):
        done = processes.capture(["systemd-analyze", *arguments], 60, cwd=self.folder.name)
        self.assertEqual(done.status, 0, done.stdout + done.stderr)
        return done

    def test_they_are_valid(self):
        names = ["./echo@step6_epoll.service", "./echo@step6_epoll.socket"]
        done = self.analyze("verify", "--man=no", *names)
        about_us = [line for line in done.stderr.splitlines() if "echo@" in line]
        self.assertEqual(about_us, [])

    def test_restarts_are_not_limited(self):
        """systemd closes the socket of a service that it will not start again. It counts the
        starts, also those by hand, unless the unit says otherwise."""
        text = (UNITS / "echo@.service").read_text(encoding="utf-8")
        unit = text[text.index("[Unit]"):text.index("[Service]")]
        self.assertIn("\nStartLimitIntervalSec=0\n", unit)

    def test_the_service_is_hardened(self):
        """systemd rates the exposure of a service from 0 to 10; below 2 is its "OK"."""
        done = self.analyze("security", "--offline=yes", "--threshold=15", "--no-pager",
                            "./echo@step6_epoll.service")
        self.assertIn("Overall exposure level", done.stdout)


if __name__ == "__main__":
    unittest.main()
