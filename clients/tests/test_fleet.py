"""`make fleet`: what it promises holds, it ends on signals, and says what is missing."""

import contextlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLEET = ROOT / "clients/fleet"
sys.path[:0] = [str(ROOT / "clients"), str(FLEET)]

from lib import figures, processes, servers     # noqa: E402
import machines                         # noqa: E402
import visits                           # noqa: E402

REQUIRED = os.environ.get("REQUIRE_ALL", "0") != "0"
SMALL = ["--clients", "9", "--rate", "40", "--seconds", "1", "--interval-ms", "300"]
COMMAND = [sys.executable, str(FLEET / "fleet.py"), *SMALL]


class Fleet(unittest.TestCase):
    def setUp(self):
        if not (machines.haproxy() or REQUIRED):
            self.skipTest("haproxy is not installed")

    def test_it_keeps_its_promises(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "figures.json")
            done = processes.capture([*COMMAND, "--json", path], 120)
            self.assertEqual((done.status, done.stderr), (0, ""), done.stdout)
            with open(path, encoding="ascii") as file:
                found = json.load(file)
        self.assertEqual(found["killed"], {"clients": 9, "own": 3, "cut_off": 3})
        restarted = found["restarted"]
        self.assertEqual(restarted["lost"], 0)
        self.assertEqual(restarted["answered"], restarted["messages"])
        self.assertGreater(restarted["messages"], 200)
        self.assertEqual(set(found["slow"]), {"roundrobin", "leastconn"})
        self.assertGreater(found["slow"]["roundrobin"]["slow_share"], 0.2)  # a third of them
        for line in ("s2 DOWN", "s1 UP", "cut off: 3 of its own 3 clients",
                     "All is as promised"):
            self.assertIn(line, done.stdout)

    def test_signals_end_it_with_all_that_it_started(self):
        for number, options in ((signal.SIGINT, []), (signal.SIGTERM, []),
                                (signal.SIGHUP, ["--no-namespaces"])):
            with self.subTest(number.name), tempfile.TemporaryDirectory() as folder:
                environment = {**os.environ, "TMPDIR": folder}
                with processes.Process([*COMMAND, *options], env=environment) as fleet:
                    deadline = time.monotonic() + 30
                    while "2. " not in fleet.output() and time.monotonic() < deadline:
                        time.sleep(0.05)
                    self.assertIn("2. ", fleet.output())
                    fleet.send_signal(number)
                    self.assertEqual(fleet.wait(20), 128 + number)
                    left = [figures.command_line(pid) for pid in fleet.left_behind(1)]
                    self.assertEqual(left, [])
                    self.assertEqual(os.listdir(folder), [])

    def test_a_restart_without_draining_is_noticed(self):
        """The count of lost answers can fail: here nobody waits until the clients have left."""
        script = (f"import sys; sys.path[:0] = [{str(ROOT / 'clients')!r}, {str(FLEET)!r}]\n"
                  "import fleet, machines\n"
                  "from lib import processes\n"
                  "machines.Balancer.set_state = lambda *_: None\n"
                  "machines.Machine.stop = machines.Machine.kill\n"
                  "fleet.DRAIN_SECONDS = 0\n"
                  "wait = machines.Balancer.wait\n"
                  "machines.Balancer.wait = lambda self, condition, seconds, what: (\n"
                  "    wait(self, condition, seconds, what) if seconds else 0)\n"
                  "processes.program(fleet.main)\n")
        done = processes.capture([sys.executable, "-c", script, *SMALL, "--no-namespaces"], 120)
        self.assertEqual(done.status, 1, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"FAILED: \d+ clients sent \d+ messages; .* were lost")


class Missing(unittest.TestCase):
    def run_without_haproxy(self, required):
        script = (f"import sys; sys.path.insert(0, {str(FLEET)!r})\n"
                  "import fleet; fleet.haproxy = lambda: None\n"
                  "sys.exit(fleet.main())")
        return processes.capture([sys.executable, "-c", script], 20,
                                 env={**os.environ, "REQUIRE_ALL": required})

    def test_haproxy(self):
        done = self.run_without_haproxy("0")
        self.assertEqual((done.status, done.stdout),
                         (0, "skip  fleet: haproxy is not installed\n"))
        done = self.run_without_haproxy("1")
        self.assertEqual((done.status, done.stdout),
                         (1, "FAIL  fleet: haproxy is not installed\n"))

    def test_usage(self):
        for arguments, message in (
                (["--rate", "0"], "--rate: 0: expected a whole number from 1 to 1000"),
                (["--interval-ms", "x"],
                 "--interval-ms: x: expected a whole number from 10 to 500"),
                (["--json", "/dev/null/file"], "/dev/null/file"),
                (["more"], "more")):
            done = processes.capture([*COMMAND, *arguments], 20)
            self.assertEqual((done.status, done.stdout), (2, ""), arguments)
            self.assertIn(message, done.stderr)


class Configuration(unittest.TestCase):
    @unittest.skipUnless(machines.haproxy(), "haproxy is not installed")
    def test_it_is_valid_as_it_stands(self):
        file = str(FLEET / "haproxy.cfg")
        done = processes.capture([machines.haproxy(), "-c", "-f", file], 20)
        self.assertEqual((done.status, done.stderr), (0, ""), done.stdout)

    @unittest.skipUnless(machines.haproxy(), "haproxy is not installed")
    def test_drain_keeps_the_clients_and_maint_does_not(self):
        with servers.Server([machines.program(6), "--quiet"]) as server, \
                machines.Balancer({"s1": server.address}) as balancer:
            balancer.wait_until_up()
            guest = visits.Guest(balancer.address)
            with contextlib.closing(guest):
                self.assertTrue(guest.is_greeted())
                balancer.set_state("s1", "drain")
                self.assertTrue(guest.is_served())
                balancer.set_state("s1", "maint")
                self.assertTrue(guest.is_cut_off(10))


if __name__ == "__main__":
    unittest.main()
