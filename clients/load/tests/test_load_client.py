"""The load client with servers that keep the protocol, break it, stall, or do not exist."""

import csv
import json
import os
import pty
import re
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "load-client")
BASELINE = os.path.join(os.path.dirname(CLIENT), "build", "bench", "baseline")
NEXT = bytes((byte + 1) % 256 for byte in range(256))
PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"


class Server:
    """Serves each client in a thread of its own (or all in one, one by one). Remembers the
    clients and the number of messages. `spoil` may change the answers of a connection."""

    def __init__(self, mode="echo", greeting=b"*", serial=False, spoil=None, host="127.0.0.1"):
        self.mode, self.greeting, self.serial, self.spoil = mode, greeting, serial, spoil
        self.peers, self.messages, self.lock = [], 0, threading.Lock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.bind((host, 0))
        self.listener.listen(100)
        self.host, self.port = self.listener.getsockname()[:2]
        threading.Thread(target=self.accept_clients, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def accept_clients(self):
        while True:
            try:
                client, peer = self.listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peers.append(peer[0])
            if self.serial:
                self.serve_client(client)
            else:
                threading.Thread(target=self.serve_client, args=(client,), daemon=True).start()

    def serve_client(self, client):
        with client:
            try:
                client.sendall(self.greeting if self.mode == "echo" else b"")
                for answers in self.converse(client):
                    client.sendall(answers)
            except OSError:
                pass

    def converse(self, client):
        """The answers to each piece of data. `spoil` also gets the client, to close it."""
        inside, sent = False, 0
        while True:
            data = client.recv(1 << 16)
            if not data:
                return
            if self.mode == "raw":
                answers, messages = data, 1
            elif self.mode == "redis":
                answers, messages = PONG * data.count(PING), data.count(PING)
            else:
                answers, messages = b"", 0
                for piece in re.findall(rb"[^$^]+|.", data, re.DOTALL):
                    messages += piece == b"$"
                    if not inside:
                        inside = piece == b"^"
                    elif piece == b"$":
                        inside = False
                    else:
                        answers += piece.translate(NEXT)
            with self.lock:
                self.messages += messages
            if self.spoil:
                answers = self.spoil(client, answers, sent)
            sent += len(answers)
            yield answers


def command(*arguments, **options):
    """Options as the command line has them: connections=2 is --connections 2."""
    for name, value in options.items():
        arguments += ("--" + name.replace("_", "-"), str(value))
    return [CLIENT, *map(str, arguments)]


def run(*arguments, limits=None, inherited=(), **options):
    return subprocess.run(command(*arguments, **options), timeout=20, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", preexec_fn=limits,
                          pass_fds=inherited)


def children_cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class LoadTest(unittest.TestCase):
    def measure(self, server, status=0, **options):
        """Runs the client for a moment and returns its report."""
        options = {"duration": 0.2, "warmup": 0.05, "json": "-", **options}
        result = run(server.host, server.port, **options)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report["status"], status)
        if status == 0:
            self.assertEqual(result.stderr, "")
            self.assertEqual(report["errors"]["total"], 0)
        return report


class ClosedLoop(LoadTest):
    def test_report(self):
        with Server() as server:
            report = self.measure(server, connections=3)
        self.assertEqual(len(server.peers), 3)
        self.assertEqual(report["connections"]["made"], 3)
        self.assertGreater(report["messages"], 10)
        self.assertGreaterEqual(server.messages, report["messages"])
        self.assertAlmostEqual(report["bytes"], 30 * report["messages"], delta=30)
        latency = report["latency_us"]
        figures = [latency[key] for key in ("min", "p50", "p90", "p99", "p99_9", "max")]
        self.assertEqual(figures, sorted(figures))
        self.assertLessEqual(latency["min"], latency["mean"])
        self.assertLessEqual(latency["mean"], latency["max"])
        self.assertAlmostEqual(latency["count"], report["messages"], delta=6)
        self.assertAlmostEqual(report["littles_law"]["in_flight"], 3, delta=0.1)
        self.assertTrue(report["littles_law"]["consistent"], report["littles_law"])
        self.assertLessEqual(report["fairness"]["min"], report["messages"] / 3)
        self.assertGreaterEqual(report["fairness"]["max"], report["messages"] / 3)
        self.assertEqual(report["unanswered"], 0)
        self.assertNotIn("uncorrected_us", report)

    def test_pipeline_keeps_that_many_in_flight(self):
        with Server() as server:
            report = self.measure(server, connections=2, pipeline=8)
        self.assertAlmostEqual(report["littles_law"]["in_flight"], 16, delta=0.5)

    def test_pipeline_of_more_than_is_sent_at_once(self):
        with Server() as server:
            report = self.measure(server, connections=1, pipeline=3000, size=100)
        self.assertGreater(report["messages"], 0)

    def test_only_answers_within_the_window_count(self):
        """The first comes after 300 of 500 ms, the second after 600."""
        def slowly(_client, answers, _sent):
            time.sleep(0.3)
            return answers
        with Server(spoil=slowly) as server:
            report = self.measure(server, connections=1, duration=0.5, warmup=0)
        self.assertEqual(report["messages"], 1)
        self.assertEqual(report["bytes"], 30)

    def test_think_time_is_kept(self):
        with Server() as server:
            report = self.measure(server, connections=4, think_ms=50, duration=0.5, warmup=0.1)
        self.assertGreater(report["messages"], 20)
        self.assertLessEqual(report["messages"], 44)

    def test_size(self):
        with Server() as server:
            for size in 3, 4, 5000, 300000:
                report = self.measure(server, connections=1, size=size)
                self.assertGreater(report["messages"], 0)

    def test_a_message_larger_than_all_buffers(self):
        with Server() as server:
            for duration in 1, 4, 12:   # our server is slow, and the machine may be busy
                report = self.measure(server, connections=1, size="8M", duration=duration)
                if report["bytes"] > 8 << 20:
                    return
        self.fail(f"{report['bytes']} bytes in {duration} s")

    def test_threads_share_the_connections(self):
        with Server() as server:
            report = self.measure(server, connections=5, threads=2)
        self.assertEqual(report["connections"]["made"], 5)
        self.assertGreater(report["fairness"]["min"], 0)
        self.assertAlmostEqual(report["littles_law"]["in_flight"], 5, delta=0.1)
        self.assertAlmostEqual(report["latency_us"]["count"], report["messages"], delta=10)

    def test_idle_connections_send_nothing(self):
        with Server() as server:
            report = self.measure(server, connections=1, idle=20)
        self.assertEqual(len(server.peers), 21)
        self.assertEqual(report["connections"]["idle"], 20)
        self.assertEqual(report["fairness"]["min"], report["fairness"]["max"])

    def test_ramp(self):
        for threads, connections in (1, 11), (2, 12):
            with Server() as server:
                report = self.measure(server, connections=connections, ramp=100,
                                      threads=threads)
            self.assertGreaterEqual(report["connections"]["seconds"], 0.1)

    def test_sources_take_turns(self):
        with Server() as server:
            self.measure(server, connections=4, source="127.0.0.2,127.0.0.3")
        self.assertEqual(sorted(server.peers), ["127.0.0.2"] * 2 + ["127.0.0.3"] * 2)

    def test_bulk_streams(self):
        with Server() as server:
            report = self.measure(server, bulk="300K", duration=0.4)
        self.assertEqual(report["connections"]["made"], 1)
        self.assertGreater(report["mb_per_second"], 1)
        self.assertIsNone(report["latency_us"])

    def test_modes_raw_and_redis(self):
        for mode, size in ("raw", 1), ("raw", 100), ("redis", None):
            with Server(mode) as server:
                options = {"size": size} if size else {}
                report = self.measure(server, connections=2, mode=mode, **options)
            self.assertGreater(report["messages"], 10)

    def test_redis_pipeline(self):
        with Server("redis") as server:
            self.measure(server, connections=2, mode="redis", pipeline=5)

    def reaches(self, *arguments):
        result = run(*arguments, duration=0.1, warmup=0, connections=1)
        self.assertEqual((result.returncode, result.stderr), (0, ""), arguments)

    def test_forms_of_the_address(self):
        with Server() as server:
            for host in "127.0.0.1", "localhost":
                self.reaches(f"{host}:{server.port}")

    def test_ipv6(self):
        try:
            server = Server(host="::1")
        except OSError:
            self.skipTest("no IPv6 here")
        with server:
            self.assertRegex(self.measure(server)["address"], r"^\[::1\]:\d+$")
            self.reaches(f"[::1]:{server.port}")
            self.reaches("[::1]", server.port)

    def test_a_name_with_several_addresses(self):
        """The server listens at the last of them only."""
        found = socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
        try:
            server = Server(host=found[-1][4][0])
        except OSError:
            self.skipTest("localhost has an address here that cannot be used")
        with server:
            server.host = "localhost"
            self.measure(server)
            self.measure(server, source=socket.gethostbyname("localhost")
                         if found[-1][0] == socket.AF_INET else "::1")


class OpenLoop(LoadTest):
    def test_the_schedule_is_kept(self):
        with Server() as server:
            report = self.measure(server, connections=3, rate=200, duration=0.5)
        self.assertAlmostEqual(report["latency_us"]["count"], 100, delta=1)
        self.assertLess(report["latency_us"]["p50"], 50000)
        self.assertTrue(0 < report["late_us"] < 20000)

    def test_a_stall_is_not_omitted(self):
        """The server freezes for 300 of 600 ms. A client that waits for it counts one slow
        message, but 60 messages were due in this time."""
        def freeze(_client, answers, sent):
            if sent == 30 * 20:
                time.sleep(0.3)
            return answers
        with Server(spoil=freeze) as server:
            report = self.measure(server, connections=1, rate=200, duration=0.6, warmup=0)
        corrected, uncorrected = report["latency_us"], report["uncorrected_us"]
        self.assertAlmostEqual(corrected["count"], 120, delta=2)
        self.assertGreater(corrected["p90"], 100000)
        self.assertLess(corrected["max"], 600000)
        self.assertLess(uncorrected["p90"], 50000)
        self.assertGreater(uncorrected["max"], 290000)

    def test_one_client_at_a_time(self):
        """The second connection is never served. The figures of the closed loop do not show
        it. In the open loop half of all messages wait for ever, and count."""
        with Server(serial=True) as server:
            closed = self.measure(server, status=3, connections=2, duration=0.3)
        self.assertEqual(closed["connections"]["waiting"], 1)
        self.assertEqual(closed["fairness"]["min"], 0)
        self.assertLess(closed["latency_us"]["p99"], 100000)
        with Server(serial=True) as server:
            opened = self.measure(server, status=3, connections=2, rate=200, duration=0.3,
                                  warmup=0)
        self.assertAlmostEqual(opened["unanswered"], 30, delta=6)
        self.assertGreater(opened["latency_us"]["p90"], 150000)
        self.assertLess(opened["uncorrected_us"]["p90"], 100000)

    def test_a_thread_that_is_not_answered_counts_too(self):
        """All connections of the first thread have the same source address here."""
        def ignore_one(client, answers, _sent):
            return b"" if client.getpeername()[0] == "127.0.0.2" else answers
        with Server(spoil=ignore_one) as server:
            report = self.measure(server, status=1, connections=4, threads=2, pipeline=50,
                                  rate=200, duration=0.3, warmup=0,
                                  source="127.0.0.2,127.0.0.3")
        self.assertAlmostEqual(report["latency_us"]["count"], 60, delta=4)
        self.assertIn(report["unanswered"], range(28, 59))      # half of all, at least
        self.assertEqual(report["fairness"]["min"], 0)
        self.assertGreater(report["fairness"]["max"], 0)


class NoAnswers(LoadTest):
    """A server that does nothing makes no errors, but the exit status is not 0."""

    def problem(self, status, server, **options):
        report = self.measure(server, status=status, **options)
        self.assertEqual(report["errors"]["total"], 0)
        return report["problem"]

    def test_never(self):
        for options in ({}, {"rate": 100}, {"bulk": "64K"}, {"think_ms": 10}, {"threads": 2}):
            with self.subTest(options), Server(spoil=lambda *_: b"") as server:
                self.assertIn("no message was answered", self.problem(1, server, **options))
        with Server("raw", spoil=lambda *_: b"") as server:
            self.assertIn("no message was answered", self.problem(1, server, mode="raw"))

    def test_the_text_says_so(self):
        with Server(spoil=lambda *_: b"") as server:
            result = run(server.host, server.port, duration=0.1, warmup=0)
        self.assertEqual(result.returncode, 1)
        self.assertIn("problem      no message was answered", result.stdout)
        self.assertIn("missing      10 messages have no answer", result.stdout)

    def test_only_in_the_warm_up(self):
        began = time.monotonic()

        def answer_early(_client, answers, _sent):
            return answers if time.monotonic() < began + 0.5 else b""
        with Server(spoil=answer_early) as server:
            self.assertIn("no message was answered", self.problem(1, server, warmup=1))

    def test_not_to_the_end(self):
        with Server(spoil=lambda _, answers, sent: answers if sent < 3000 else b"") as server:
            report = self.measure(server, status=1, connections=3, duration=0.5, warmup=0)
        self.assertGreater(report["messages"], 0)
        self.assertEqual((report["missing"], report["problem"]),
                         (3, "the server stopped answering"))

    def test_idle_connections_are_not_greeted(self):
        with Server(serial=True) as server:
            self.assertIn("not greeted", self.problem(3, server, connections=1, idle=2))

    def test_interrupted_before_the_window(self):
        with Server() as server:
            process = subprocess.Popen(
                command(server.host, server.port, warmup=60, json="-"), stdout=subprocess.PIPE)
            while server.messages < 10:
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            process.terminate()
            report = json.loads(process.communicate(timeout=10)[0])
        self.assertEqual((process.returncode, report["messages"]), (1, 0))


def can_be_process_1():
    trial = ["unshare", "-p", "-f", "--mount-proc", "true"]
    try:
        return subprocess.run(trial, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


@unittest.skipUnless(can_be_process_1(), "needs root and unshare")
class ProcessOne(unittest.TestCase):
    """The kernel ignores the default action of a signal for process 1 of a container."""

    def start(self, *arguments, **options):
        """Starts the client as process 1; returns it, and how to send it a signal."""
        process = subprocess.Popen(["unshare", "-p", "-f", "--kill-child", "--mount-proc",
                                    *command(*arguments, **options)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        path = f"/proc/{process.pid}/task/{process.pid}/children"
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with open(path) as file:
                children = file.read().split()
            if children and os.readlink(f"/proc/{children[0]}/exe").endswith("load-client"):
                return process, lambda number: os.kill(int(children[0]), number)
            time.sleep(0.01)
        self.fail("the client does not start")

    def test_a_signal_before_the_run(self):
        with open(os.path.join(os.path.dirname(CLIENT), "build", "flags")) as file:
            if "-fsanitize=thread" in file.read():
                self.skipTest("the thread sanitizer delays the signal until open returns")
        with tempfile.TemporaryDirectory() as folder:
            fifo = os.path.join(folder, "fifo")     # to open it waits for a reader
            os.mkfifo(fifo)
            process, send = self.start("127.0.0.1", 1, json=fifo)
            deadline = time.monotonic() + 10
            while process.poll() is None and time.monotonic() < deadline:
                send(signal.SIGTERM)    # the first may come before main
                time.sleep(0.05)
            self.assertEqual(process.returncode, 128 + signal.SIGTERM)

    def test_a_second_signal(self):
        with Server(spoil=lambda *_: b"") as server:
            process, send = self.start(server.host, server.port, connections=1)
            while not server.messages:
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            send(signal.SIGINT)
            send(signal.SIGTERM)
            self.assertEqual(process.wait(10), 128 + signal.SIGTERM)


class Trouble(LoadTest):
    def spoiled(self, kind, spoil, message="", **options):
        with Server(spoil=spoil) as server:
            report = self.measure(server, status=1, connections=2, **options)
        self.assertGreaterEqual(report["errors"][kind], 1)
        self.assertIn(message, report["errors"]["first"])
        return report

    def test_wrong_byte(self):
        def spoil(_client, answers, sent):
            return answers[:7] + b"?" + answers[8:] if sent >= 300 else answers
        self.spoiled("wrong_byte", spoil, "byte 7 of an answer was 0x3f, expected 0x")

    def test_lost_byte(self):
        self.spoiled("wrong_byte", lambda _, answers, sent: answers[sent == 300:], pipeline=2)

    def test_byte_too_many(self):
        self.spoiled("surplus",
                     lambda _, answers, sent: answers + b"!" * (sent == 300), "more bytes")

    def test_wrong_byte_in_bulk(self):
        spoiled = []

        def spoil(_client, answers, sent):
            if sent > 1000000 and not spoiled:
                spoiled.append(sent)
                answers = answers[:-1] + bytes([answers[-1] ^ 1])
            return answers
        with Server(spoil=spoil) as server:
            report = self.measure(server, status=1, bulk="1M", duration=1)
        self.assertEqual(report["errors"]["wrong_byte"], 1)

    def test_closed_by_the_server(self):
        def spoil(client, answers, sent):
            if sent >= 300:
                client.shutdown(socket.SHUT_RDWR)
            return answers
        report = self.spoiled("closed", spoil)
        self.assertTrue(report["interrupted"])
        self.assertEqual(report["connections"]["lost"], 2)

    def test_what_a_lost_connection_sent_is_not_in_flight(self):
        lost = []

        def spoil(client, answers, _sent):
            if not lost or client in lost:
                lost.append(client)
                client.shutdown(socket.SHUT_RDWR)
            return answers
        report = self.spoiled("closed", spoil, warmup=0, duration=0.5)
        self.assertEqual(report["connections"]["lost"], 1)
        self.assertLess(report["littles_law"]["in_flight"], 1.7)

    def test_lost_while_it_sends_its_first_message(self):
        """It is greeted late, receives bytes that are no answer, and is reset: one error."""
        with Server(serial=True) as server, subprocess.Popen(
                command(server.host, server.port, connections=2, warmup=0, duration=1,
                        json="-"), stdout=subprocess.PIPE) as client:
            deadline = time.monotonic() + 20
            while server.messages == 0 and time.monotonic() < deadline:
                time.sleep(0.01)
            late, _ = server.listener.accept()
            late.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.kill(client.pid, signal.SIGSTOP)     # so that it finds all of it at once
            late.sendall(b"*junk")
            late.close()
            os.kill(client.pid, signal.SIGCONT)
            report = json.loads(client.communicate()[0])
        self.assertEqual(report["errors"]["total"], 1)
        self.assertEqual(report["connections"]["waiting"], 0)
        self.assertEqual(report["connections"]["lost"], 1)

    def test_the_server_ends_during_the_run(self):
        if not os.path.exists(BASELINE):
            self.skipTest("no baseline here")
        with subprocess.Popen([BASELINE, "0"], stdout=subprocess.PIPE) as baseline:
            port = baseline.stdout.readline().split(b":")[1].decode().strip()
            end = threading.Timer(0.3, baseline.kill)
            end.start()
            result = run("127.0.0.1", port, mode="raw", duration=5, warmup=0,
                         server_pid=baseline.pid)
            end.join()
        self.assertEqual(result.returncode, 1)
        self.assertIn("server       figures skipped: it ended during the run", result.stdout)

    def test_reset_by_the_server(self):
        def spoil(client, answers, sent):
            if sent >= 300:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            return answers
        self.spoiled("reset", spoil)

    def test_wrong_greeting(self):
        with Server(greeting=b"#") as server:
            result = run(server.host, server.port, connections=1, duration=0.2)
        self.assertEqual(result.returncode, 1)
        self.assertIn("the first byte was not the greeting '*'", result.stderr)

    def test_no_greeting(self):
        with Server("raw") as server:
            result = run(server.host, server.port, connections=1, duration=0.2)
        self.assertEqual(result.returncode, 3)
        self.assertIn("no greeting came", result.stderr)
        self.assertIn("--mode", result.stderr)

    def test_nobody_listens(self):
        with Server() as server:
            pass
        began = time.monotonic()
        result = run(server.host, server.port)
        self.assertLess(time.monotonic() - began, 2)    # it does not wait long
        self.assertEqual(result.returncode, 3)
        self.assertEqual(result.stderr,
                         f"load-client: 127.0.0.1:{server.port}: Connection refused\n")
        self.assertEqual(result.stdout, "")

    def test_too_few_descriptors(self):
        def lower(hard=None):
            def limits():
                soft_and_hard = (20, hard or resource.getrlimit(resource.RLIMIT_NOFILE)[1])
                resource.setrlimit(resource.RLIMIT_NOFILE, soft_and_hard)
                if hard and os.getuid() == 0:
                    os.setuid(65534)        # root may raise any limit
            return limits
        with Server() as server:
            raised = run(server.host, server.port, connections=30, duration=0.1, warmup=0,
                         limits=lower())
            self.assertEqual((raised.returncode, raised.stderr), (0, ""))
            stuck = run(server.host, server.port, connections=30, duration=0.1, warmup=0,
                        limits=lower(20))
        self.assertEqual(stuck.returncode, 3)
        self.assertIn("the limit is 20 and cannot be raised", stuck.stderr)
        self.assertIn("not connected (the first: Too many open files)", stuck.stdout)

    def test_inherited_descriptors(self):
        inherited = [os.dup(2) for _ in range(60)]
        with Server() as server:
            result = run(server.host, server.port, connections=10, duration=0.1, warmup=0,
                         inherited=inherited)
        for descriptor in inherited:
            os.close(descriptor)
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_usage_errors(self):
        for arguments, message in [
                ([], "expected HOST and PORT, got 0 arguments"),
                (["1", "2", "3"], "expected HOST and PORT, got 3 arguments"),
                (["localhost"], "localhost: expected HOST PORT, HOST:PORT or [ADDRESS]:PORT"),
                (["::1"], "::1: expected HOST PORT, HOST:PORT or [ADDRESS]:PORT"),
                (["[::1]8080"], "[::1]8080: expected [ADDRESS] PORT or [ADDRESS]:PORT"),
                (["[::1]:80", "80"], "[::1]:80: expected [ADDRESS] PORT or [ADDRESS]:PORT"),
                (["h:80", "80"], "h:80 80: expected one port, got two"),
                ([":80"], "port 80: expected a host before it"),
                (["h:http"], "--port http: expected a whole number from 1 to 65535"),
                (["h:"], "--port : expected a whole number from 1 to 65535"),
                (["localhost", "http"], "--port http: expected a whole number from 1 to 65535"),
                (["-c", "0", "h", "1"], "--connections 0: expected a whole number from 1"),
                (["-c", "ten", "h", "1"], "--connections ten: expected"),
                (["-c", "-1", "h", "1"], "--connections -1: expected"),
                (["-s", "2", "h", "1"], "--size 2: expected at least 3 bytes"),
                (["-s", "12Q", "h", "1"], "--size 12Q: expected a number of bytes"),
                (["-s", "1KB", "h", "1"], "--size 1KB: expected a number of bytes"),
                (["-m", "raw", "-s", "0", "h", "1"], "--size 0: expected a number of bytes"),
                (["-d", "0", "h", "1"], "--duration 0: expected seconds from 0.001 on"),
                (["-d", "nan", "h", "1"], "--duration nan: expected seconds"),
                (["-r", "fast", "h", "1"], "--rate fast: expected messages a second"),
                (["-m", "http", "h", "1"], "--mode http: expected echo, raw or redis"),
                (["-t", "3", "-c", "2", "h", "1"], "--threads 3: expected no more than"),
                (["-t", "3", "-c", "2", "-i", "9", "h", "1"], "--threads 3: expected no more"),
                (["-t", "1025", "-c", "2000", "h", "1"], "--threads 1025: expected a whole"),
                (["-r", "5", "--think-ms", "1", "h", "1"], "--rate keeps a schedule"),
                (["--bulk", "1M", "-s", "9", "h", "1"], "--bulk gives the size itself"),
                (["--bulk", "1M", "-P", "9", "h", "1"], "expected no --pipeline"),
                (["--bulk", "1M", "-r", "9", "h", "1"], "expected no --rate"),
                (["--bulk", "1M", "--think-ms", "9", "h", "1"], "expected no --think-ms"),
                (["--bulk", "1M", "-c", "9", "h", "1"], "--bulk uses one connection"),
                (["-m", "redis", "-s", "9", "h", "1"], "--mode redis always sends"),
                (["-m", "redis", "--bulk", "9", "h", "1"], "expected no --bulk"),
                (["--json", "/no/such/file", "127.0.0.1", "1"], "--json /no/such/file: No "),
                (["--json", "-", "--csv", "-", "h", "1"], "only one of"),
                (["--csv", "-", "--hgrm", "-", "h", "1"], "only one of"),
                (["--source", "127.0.0.2,x y", "127.0.0.1", "1"], "--source x y: expected"),
                (["--server-pid", "0", "h", "1"], "--server-pid 0: expected"),
                (["--server-pid", "2147483647", "127.0.0.1", "1"], "there is no such process"),
                (["--frequency", "1"], "--frequency: there is no such option"),
                (["-Z"], "-Z: there is no such option"),
                (["--rate"], "--rate: expected a value"),
                (["--help=3"], "--help=3: there is no such option, or it takes no")]:
            with self.subTest(arguments):
                result = run(*arguments)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertIn(message, result.stderr)
                self.assertTrue(result.stderr.endswith("Try 'load-client --help'.\n"))

    def test_a_closed_standard_output(self):
        """The report must not be written to another descriptor of the client."""
        with Server() as server:
            result = run(server.host, server.port, duration=0.1, warmup=0,
                         limits=lambda: (os.close(0), os.close(1)))
        self.assertEqual(result.returncode, 1)
        self.assertIn("could not be written", result.stderr)

    def test_help_and_version(self):
        self.assertRegex(run("--version").stdout, r"^load-client \d")
        result = run("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for option in ("connections duration warmup size pipeline threads think-ms idle ramp "
                       "bulk mode source rate server-pid json csv interval hgrm").split():
            self.assertIn("--" + option, result.stdout)

    def test_a_full_disk(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full here")
        with Server() as server:
            result = run(server.host, server.port, duration=0.1, warmup=0, json="/dev/full")
        self.assertEqual(result.returncode, 1)
        self.assertIn("could not be written", result.stderr)


class Reports(LoadTest):
    def test_text(self):
        with Server() as server:
            result = run(server.host, server.port, connections=2, duration=0.2, warmup=0,
                         server_pid=os.getpid())
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for pattern in (r"connections  2 of 2", r"messages     [\d,]+ in 0.20 s: [\d,]+ a sec",
                        r"min +mean +p50 +p90 +p99 +p99.9 +max", r"latency  .* us",
                        r"fairness     [\d,]+ to", r"Little's law 2.00 in flight",
                        r"client .* CPU per message", r"server .* CPU per message",
                        r"resident .* MiB", r"errors       none"):
            self.assertRegex(result.stdout, pattern)

    def test_cpu_and_memory(self):
        """This process is the server, and the client is its only child. So the CPU times of
        both are known here as well."""
        with Server() as server:
            before, children = time.process_time(), children_cpu()
            report = self.measure(server, connections=5, server_pid=os.getpid(), duration=0.5)
            mine, its = time.process_time() - before, children_cpu() - children
        self.assertTrue(0.4 * mine < report["server"]["cpu_seconds"] <= mine, (mine, report))
        self.assertTrue(0.4 * its < report["client"]["cpu_seconds"] <= its, (its, report))
        mine = report["server"]
        self.assertGreaterEqual(mine["threads"], 6)
        self.assertGreater(mine["resident_before"], 1 << 20)
        self.assertGreater(mine["voluntary_switches_per_message"], 0)
        self.assertAlmostEqual(mine["cpu_us_per_message"] * report["messages"] / 1e6,
                               mine["cpu_seconds"], delta=0.001)

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder, Server() as server:
            paths = {kind: os.path.join(folder, kind) for kind in ("json", "csv", "hgrm")}
            result = run(server.host, server.port, duration=0.5, warmup=0.1, interval=0.1,
                         connections=2, **paths)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn("messages", result.stdout)
            with open(paths["json"]) as file:
                report = json.load(file)
            with open(paths["csv"]) as file:
                rows = list(csv.DictReader(file))
            with open(paths["hgrm"]) as file:
                percentiles = file.read()
        self.check_rows(rows, report)
        self.check_percentiles(percentiles, report)

    def check_rows(self, rows, report):
        self.assertEqual([round(float(row["elapsed_s"]), 1) for row in rows],
                         [0.1, 0.2, 0.3, 0.4, 0.5])
        self.assertEqual({row["connections"] for row in rows}, {"2"})
        total = sum(int(row["messages"]) for row in rows)
        self.assertAlmostEqual(total, report["messages"], delta=report["messages"] * 0.1)
        self.assertLessEqual(float(rows[0]["p50_us"]), float(rows[0]["max_us"]))

    def check_percentiles(self, text, report):
        rows = [list(map(float, row)) for row in re.findall(
            r"^ +([\d.]+) +([01]\.\d+) +(\d+)", text, re.MULTILINE)]
        for column in zip(*rows):
            self.assertEqual(list(column), sorted(column))
        latency = report["latency_us"]
        self.assertEqual(rows[-1][1:], [1.0, latency["count"]])
        self.assertAlmostEqual(rows[-1][0], latency["max"] / 1000, places=3)
        median = next(row for row in rows if row[1] == 0.5)
        self.assertAlmostEqual(median[0], latency["p50"] / 1000, delta=latency["p50"] / 1e6)
        self.assertGreaterEqual(median[2], latency["count"] / 2)
        self.assertRegex(text, r"#\[Mean +=.*StdDeviation")
        self.assertRegex(text, r"#\[Max +=.*Total count +=")

    def test_interrupt_ends_early_with_a_report(self):
        for number in signal.SIGINT, signal.SIGTERM:
            with Server() as server:
                process = subprocess.Popen(
                    command(server.host, server.port, duration=60, warmup=0, json="-"),
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                while server.messages < 10:
                    self.assertIsNone(process.poll())
                    time.sleep(0.01)
                time.sleep(0.2)
                began = time.monotonic()
                process.send_signal(number)
                output, errors = process.communicate(timeout=10)
            self.assertLess(time.monotonic() - began, 3)
            report = json.loads(output)
            self.assertEqual((process.returncode, errors), (0, b""))
            self.assertTrue(report["interrupted"])
            self.assertGreater(report["messages"], 0)
            self.assertTrue(0.1 < report["seconds"] < 5, report["seconds"])
            self.assertTrue(report["littles_law"]["consistent"], report["littles_law"])

    def test_interrupts_when_nothing_comes(self):
        """One signal before the first greeting; two while answers are missing, the second of
        which ends the client at once."""
        for first, then, status in ((signal.SIGINT, None, 3),
                                    (signal.SIGINT, signal.SIGTERM, -signal.SIGTERM)):
            with Server(greeting=b"*" if then else b"", spoil=lambda *_: b"") as server:
                process = subprocess.Popen(command(server.host, server.port, connections=1),
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                while not (server.messages if then else server.peers):
                    self.assertIsNone(process.poll())
                    time.sleep(0.01)
                process.send_signal(first)
                if then:
                    time.sleep(0.1)
                    process.send_signal(then)
                output, errors = process.communicate(timeout=10)
            self.assertEqual((process.returncode, output), (status, b""))
            self.assertEqual(b"interrupted before the first" in errors, then is None)

    def test_progress_on_a_terminal_only(self):
        with Server() as server:
            master, slave = pty.openpty()
            process = subprocess.Popen(command(server.host, server.port, duration=0.6),
                                       stdout=subprocess.DEVNULL, stderr=slave)
            process.wait(10)
            os.close(slave)
            shown = os.read(master, 1 << 16).decode()
            os.close(master)
        self.assertRegex(shown, r"\r\d+ messages a second, \d+ in flight, \d s left")
        self.assertTrue(shown.endswith("\r\x1b[K"))      # and leaves the line clean

    def test_a_busy_client_warns(self):
        """A client that never waits is the bottleneck itself. Here it must verify each message,
        while the baseline sends them back a packet at a time."""
        with Server() as server:
            calm = self.measure(server, rate=30)
        self.assertFalse(calm["client"]["bottleneck"])
        self.assertLess(calm["client"]["cpu_share"], 0.5)
        if not os.path.exists(BASELINE):
            self.skipTest("no baseline here")
        with subprocess.Popen([BASELINE, "0"], stdout=subprocess.PIPE) as baseline:
            port = baseline.stdout.readline().split(b":")[1].decode().strip()
            for _ in range(10):     # on a busy machine the baseline may be the bottleneck
                busy = run("127.0.0.1", port, mode="raw", size=1, connections=16,
                           pipeline=1000, duration=0.3, warmup=0)
                if "warning" in busy.stdout:
                    break
            baseline.kill()
        self.assertEqual(busy.returncode, 0)
        self.assertIn("warning: the client was busy", busy.stdout)


if __name__ == "__main__":
    unittest.main()
