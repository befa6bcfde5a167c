#!/usr/bin/env python3
"""Each thing to try that a step's README asks for shows what stepN/tries/README.md answers.

The test of question 3 of step 1 is called test_1_3_..."""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

CLIENTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CLIENTS))

from lib import figures             # noqa: E402
from lib.servers import Server      # noqa: E402
from lib.tree import steps    # noqa: E402
from lib.tries import Patched       # noqa: E402

STEP = {number: folder for number, folder in steps()}
PATIENCE = 30       # seconds for anything that must happen
SHORT = 0.3         # seconds in which something must not happen
DELAYED_ACK_MS = 35     # 40 on Linux; the client's clock is not the kernel's


def soon(condition):
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def report(output, pattern):
    """Numbers of the report that a server prints at its end."""
    return [int(number) for number in re.search(pattern, output).groups()]


class Tries(unittest.TestCase):
    @contextlib.contextmanager
    def patched(self, number, name, *options, make=(), **how):
        with Patched(STEP[number].name, name, *make) as program:
            with Server([program, *options], **how) as server:
                yield server

    def plain(self, number, *options, program="server", **how):
        return Server([STEP[number] / program, *options], **how)

    def stop(self, server, status=0):
        """Its whole output."""
        self.assertEqual(server.stop(), status)
        return server.output()

    def client(self, server):
        sock = server.connect(PATIENCE)
        self.addCleanup(sock.close)
        return sock

    def greeted(self, server):
        sock = self.client(server)
        self.assertEqual(sock.recv(1), b"*")
        return sock

    def ask(self, sock, data, answer):
        sock.sendall(data)
        self.assertEqual(sock.recv(100), answer)

    def expect_nothing(self, sock):
        with self.assertRaises(socket.timeout):
            sock.settimeout(SHORT)
            sock.recv(1)
        sock.settimeout(PATIENCE)

    def load(self, server, *options):
        return subprocess.run(
            [str(CLIENTS / "load-client"), *options, "127.0.0.1", str(server.port)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=60)

    # Step 1: sequential

    def test_1_1_the_first_client_waits_for_the_end(self):
        with self.patched(1, "never-close") as server:
            first = self.greeted(server)
            first.shutdown(socket.SHUT_WR)
            self.ask(self.greeted(server), b"^b$", b"c")
            self.expect_nothing(first)      # not even the end
        with self.plain(1) as server:
            first = self.greeted(server)
            first.shutdown(socket.SHUT_WR)
            self.assertEqual(first.recv(1), b"")

    def test_1_2_it_rejects_clients_and_goes_on(self):
        with self.patched(1, "never-close", prepare=lambda: resource.setrlimit(
                resource.RLIMIT_NOFILE, (20, 20))) as server:
            answers = []
            for _ in range(20):
                sock = self.client(server)
                answers.append(sock.recv(1))
                sock.close()
            served = answers.count(b"*")
            self.assertGreater(served, 10)
            self.assertEqual(answers, [b"*"] * served + [b""] * (20 - served))
            self.assertIsNone(server.poll())
            self.assertIn("rejected: Too many open files\n", self.stop(server))

    def test_1_3_each_message_waits_for_a_delayed_acknowledgement(self):
        with self.patched(1, "byte-by-byte", "--quiet") as server:
            slow = self.load(server, "-c", "1", "-d", "2").stdout
        with self.plain(1, "--quiet") as server:
            fast = self.load(server, "-c", "1", "-d", "1").stdout
        median = r"(?m)^latency +\S+ \w+ +\S+ \w+ +([\d.]+) (\w+)"
        value, unit = re.search(median, slow).groups()
        self.assertEqual(unit, "ms")
        self.assertGreater(float(value), DELAYED_ACK_MS)
        value, unit = re.search(median, fast).groups()
        self.assertTrue(unit == "us" or float(value) < 10, fast)

    # Step 2: thread per client

    def test_2_1_serve_client_overflows_a_small_stack(self):
        with self.patched(2, "small-stacks") as server:
            self.assertEqual(self.client(server).recv(1), b"")
            self.assertEqual(server.wait(PATIENCE), -signal.SIGSEGV)

    def test_2_2_a_data_race_is_reported(self):
        with self.patched(2, "no-lock", make=["SAN=thread"]) as server:
            for _ in range(50):
                self.greeted(server).close()
            server.stop()
            self.assertIn("WARNING: ThreadSanitizer: data race", server.output())

    def test_2_3_a_thread_for_each_client(self):
        with self.plain(2, "--quiet") as server:
            before = figures.resident_bytes(server.pid)
            clients = [self.greeted(server) for _ in range(400)]
            self.assertEqual(figures.threads(server.pid), 1 + len(clients))
            each = (figures.resident_bytes(server.pid) - before) / len(clients)
            self.assertLess(each, 64 * 1024)
            self.assertGreater(figures.virtual_bytes(server.pid), len(clients) * 256 * 1024)

    # Step 3: blocking

    def test_3_1_it_hardly_sleeps(self):
        with self.plain(3) as server:
            self.assertEqual(self.load(server, "--bulk", "64K", "-d", "1").returncode, 0)
            slept = sorted(map(float, re.findall(r"\(slept ([\d.]+) ms", self.stop(server))))
        self.assertGreater(len(slept), 100)
        self.assertLess(slept[len(slept) // 2], 1)

    def test_3_2_the_signal_interrupts_recv(self):
        with self.plain(3) as server:
            self.greeted(server)
            self.assertTrue(soon(lambda: "Calling recv...\n" in server.output()))
            self.assertEqual(server.stop(signal.SIGINT), 0)
            self.assertIn("recv failed: Interrupted system call\n", server.output())

    def test_3_3_eagain_is_an_error_or_burns_the_cpu(self):
        with self.patched(3, "non-blocking") as server:
            self.assertEqual(self.greeted(server).recv(1), b"")
            self.assertIn("recv failed: Resource temporarily unavailable\n", self.stop(server))
        with self.patched(3, "ask-again") as server:
            sock = self.greeted(server)
            self.assertTrue(soon(lambda: figures.cpu_seconds(server.pid) > 0.3))
            self.ask(sock, b"^a$", b"b")
            sock.close()
            said = self.stop(server)
        self.assertLess(said.count("Calling recv..."), 4)
        calls, again = report(said, r"(\d+) recv, (\d+) of them EAGAIN")
        self.assertGreater(again, 1000)
        self.assertEqual(calls - again, 2)

    def test_3_4_the_same_loop_on_a_file_a_pipe_and_a_socket(self):
        self.demo(3)

    def demo(self, number):
        """The test of the demonstration that the question names."""
        done = subprocess.run([sys.executable, str(STEP[number] / "tests/test_demos.py")],
                              stderr=subprocess.PIPE, encoding="utf-8", timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)

    # Step 4: non-blocking polling

    def test_4_1_no_interval_is_right(self):
        self.demo(4)

    def test_4_2_no_call_is_useful(self):
        with self.plain(4, "--quiet", "--interval-ms", "10") as server:
            clients = [self.greeted(server) for _ in range(100)]
            server.send_signal(signal.SIGUSR1)      # a report
            pattern = r"(\d+) recv, (\d+) of them EAGAIN"
            self.assertTrue(soon(lambda: re.search(pattern, server.output())))
            server.send_signal(signal.SIGSTOP)
            before, _ = report(server.output(), pattern)
            server.send_signal(signal.SIGCONT)
            time.sleep(0.5)
            said = self.stop(server)
            calls, again = map(int, re.findall(pattern, said)[-1])
            self.assertGreaterEqual(calls - before, 3 * len(clients))
            self.assertGreaterEqual(again, calls - len(clients))    # they end at the stop

    def test_4_3_it_sleeps_sixteen_times(self):
        size = 1 << 20
        seconds = []
        for server in (self.patched(4, "always-nap", "--quiet", "--interval-ms", "50"),
                       self.plain(4, "--quiet", "--interval-ms", "50")):
            with server as running:
                sock, began, received = self.greeted(running), time.monotonic(), 0
                sender = threading.Thread(target=sock.sendall, args=(b"^" + b"a" * size,))
                sender.start()
                while received < size:
                    received += len(sock.recv(size))
                seconds.append(time.monotonic() - began)
                sender.join()
        slow, fast = seconds
        self.assertGreaterEqual(slow, 15 * 0.05)
        self.assertLess(fast, slow)

    # Step 5: select

    def test_5_1_a_socket_is_nearly_always_writable(self):
        with self.patched(5, "both-sets", "--quiet") as server:
            self.greeted(server)
            self.assertTrue(soon(lambda: figures.cpu_seconds(server.pid) > 0.3))
            waits, = report(self.stop(server), r"Waits: (\d+)")
            self.assertGreater(waits, 1000)
        with self.plain(5, "--quiet") as server:
            self.greeted(server)
            waits, = report(self.stop(server), r"Waits: (\d+)")
            self.assertLess(waits, 10)

    def test_5_2_the_highest_descriptor_is_never_answered(self):
        with self.patched(5, "one-too-few") as server:
            first = self.greeted(server)
            first.sendall(b"^a$")
            self.expect_nothing(first)
            second = self.greeted(server)
            self.assertEqual(first.recv(10), b"b")
            second.sendall(b"^b$")
            self.ask(first, b"^c$", b"d")
            self.expect_nothing(second)

    def test_5_3_poll_has_no_limit_of_its_own(self):
        def beyond():
            """All but a few descriptors below FD_SETSIZE are open in the server."""
            resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(
                resource.RLIMIT_NOFILE)[1]))
            for fd in range(20, 1015):
                os.dup2(0, fd)

        with self.plain(5, prepare=beyond) as server:
            answers = [self.client(server).recv(1) for _ in range(40)]
            self.assertEqual(answers[-1], b"")
            self.assertIn("rejected: descriptor beyond FD_SETSIZE\n", self.stop(server))
        with self.plain(5, program="build/variants/poll", prepare=beyond) as server:
            clients = [self.greeted(server) for _ in range(40)]
            scanned = r"(\d+) descriptors scanned"
            before, = report(self.ask_for_report(server), scanned)
            for _ in range(10):
                self.ask(clients[-1], b"^a$", b"b")
            after, = report(self.ask_for_report(server), scanned)
            self.assertGreaterEqual(after - before, 10 * len(clients))

    def ask_for_report(self, server):
        """The last report of a server that goes on."""
        count = server.output().count("Waits: ")
        server.send_signal(signal.SIGUSR1)
        self.assertTrue(soon(lambda: server.output().count("Waits: ") > count))
        return server.output().rpartition("Clients: ")[2]

    # Step 6: epoll

    def test_6_1_epoll_reports_a_pointer_to_freed_memory(self):
        with self.patched(6, "never-close", "--quiet", make=["SAN=address"]) as server:
            self.greeted(server).close()
            self.assertNotEqual(server.wait(PATIENCE) or 0, 0)
            self.assertRegex(server.output(), r"heap-use-after-free[^!]*in pump_client")

    def test_6_2_the_rest_of_a_message_is_not_reported(self):
        options = "-c", "1", "-s", "100000", "-d", "1"
        with self.patched(6, "edge", "--quiet") as server:
            done = self.load(server, *options)
            self.assertEqual(done.returncode, 1)
            self.assertLess(self.messages(done), 100)
        with self.plain(6, "--quiet") as server:
            done = self.load(server, *options)
            self.assertEqual(done.returncode, 0)
            self.assertGreater(self.messages(done), 100)

    def messages(self, done):
        return int(re.search(r"(?m)^messages +([\d,]+)", done.stdout)[1].replace(",", ""))

    def test_6_3_one_wait_for_each_event(self):
        waits = r"Waits: (\d+), reporting (\d+) events"
        with self.patched(6, "one-event", "--quiet") as server:
            self.assertEqual(self.load(server, "-c", "50", "-d", "1").returncode, 0)
            calls, events = report(self.stop(server), waits)
            self.assertGreaterEqual(calls, events)
        with self.plain(6, "--quiet") as server:
            self.assertEqual(self.load(server, "-c", "50", "-d", "1").returncode, 0)
            calls, events = report(self.stop(server), waits)
            self.assertGreater(events, calls)

    # Step 7: libuv

    def feed(self, server, most):
        """Send without reading, until the server has not read for a while; the bytes sent."""
        sock = self.greeted(server)
        sock.settimeout(1)
        sock.sendall(b"^")
        sent = 0
        with contextlib.suppress(socket.timeout):
            while sent < most:
                sent += sock.send(b"a" * 65536)
        return sent

    def test_7_1_it_stores_answers_without_limit(self):
        with self.patched(7, "no-back-pressure", "--quiet") as server:
            before = figures.resident_bytes(server.pid)
            self.assertGreaterEqual(self.feed(server, 100 << 20), 100 << 20)
            self.assertGreater(figures.resident_bytes(server.pid) - before, 50 << 20)
            server.send_signal(signal.SIGKILL)      # the queue of writes is broken
        with self.plain(7, "--quiet") as server:
            before = figures.resident_bytes(server.pid)
            self.assertLess(self.feed(server, 100 << 20), 100 << 20)
            self.assertLess(figures.resident_bytes(server.pid) - before, 1 << 20)

    def test_7_2_libuv_still_uses_the_memory(self):
        with self.patched(7, "free-early", "--quiet", make=["SAN=address"]) as server:
            self.greeted(server).close()
            self.assertNotEqual(server.wait(PATIENCE) or 0, 0)
            self.assertRegex(server.output(), r"heap-use-after-free[^!]*in client_closed")

    def test_7_3_handles_that_count_and_handles_left_open(self):
        with self.patched(7, "timer-counts") as server:
            self.greeted(server).close()
            self.assertIsNone(server.stop(signal.SIGINT, 3))    # it had to be killed
        with self.patched(7, "timer-left-open") as server:
            self.greeted(server).close()
            self.assertIn("server: a handle was left open\n", self.stop(server, 1))

    # Step 8: ae

    def test_8_1_the_loop_calls_for_a_closed_descriptor(self):
        for backend in "poll", "select":
            with self.subTest(backend), self.patched(
                    8, "never-forget", "--quiet",
                    make=["SAN=address", f"BACKEND={backend}"]) as server:
                self.greeted(server).close()
                self.assertNotEqual(server.wait(PATIENCE) or 0, 0)
                self.assertRegex(server.output(), r"heap-use-after-free[^!]*in pump_client")
        with self.patched(8, "never-forget", "--quiet",
                          make=["SAN=address", "BACKEND=epoll"]) as server:
            self.greeted(server).close()
            self.ask(self.greeted(server), b"^a$", b"b")
            self.stop(server)

    @unittest.skipIf(shutil.which("strace") is None, "strace is not installed")
    def test_8_2_a_timer_is_the_time_limit_of_the_wait(self):
        with Patched(STEP[8].name, "a-timer", "BACKEND=epoll") as program:
            trace = program.with_name("trace")
            with Server(["strace", "-qq", "-o", trace, program]) as strace:
                self.assertTrue(soon(lambda: strace.output().count("0 clients\n") >= 2))
                server, = (pid for pid in strace.members() if pid != strace.pid)
                os.kill(server, signal.SIGTERM)
                self.assertEqual(strace.wait(PATIENCE), 0)
            text = trace.read_text().partition("Listening on")[2].partition("SIGTERM")[0]
        limits = list(map(int, re.findall(r"epoll_wait\(\d+, .*, (-?\d+)\) +=", text)))
        self.assertGreaterEqual(len(limits), 3)
        self.assertTrue(all(0 <= limit <= 1000 for limit in limits), limits)
        self.assertNotRegex(text, "timer|alarm|sleep")

    def test_8_3_the_first_of_the_list_is_always_served_first(self):
        ratio, waits = [], []
        for name in "only-the-first", None:
            with (self.patched(8, name, "--quiet", make=["BACKEND=poll"]) if name else
                  self.plain(8, "--quiet", program="build/variants/ae_poll")) as server:
                said = self.load(server, "-c", "100", "-d", "2").stdout
                least, most = re.search(r"(?m)^fairness +([\d,]+) to ([\d,]+)", said).groups()
                ratio.append(int(most.replace(",", "")) / max(1, int(least.replace(",", ""))))
                calls, events = report(self.stop(server), r"Waits: (\d+), reporting (\d+)")
                waits.append(calls / events)
        self.assertGreater(ratio[0], ratio[1])
        self.assertGreaterEqual(waits[0], 1)
        self.assertLess(waits[1], 1)


if __name__ == "__main__":
    unittest.main()
