"""demo.py: what it draws and says about good and bad servers, and that it stops all of them."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import types
import unittest

TESTS = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(TESTS, "..", "demo.py")
sys.path.insert(0, os.path.dirname(DEMO))
import demo  # noqa: E402

PLAIN = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


class Course:
    """A directory of steps, each of them little_server.py in one of its modes."""

    def __init__(self, *modes):
        self.folder = tempfile.TemporaryDirectory()
        self.root = self.folder.name
        for number, mode in enumerate(modes, 1):
            step = os.path.join(self.root, f"step{number}_{mode.replace('-', '_')}")
            self.add_server(os.path.join(step, "server"), mode)
            with open(os.path.join(step, "server.c"), "w") as file:
                file.write(f"/* Step {number} - model {mode}: what is asked?\n *\n */\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def add_server(self, path, mode, before=""):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(f'#!/bin/sh\necho $$ >> {self.root}/pids\n{before}\n'
                       f'exec {sys.executable} {TESTS}/little_server.py {mode} "$@"\n')
        os.chmod(path, 0o755)

    def run(self, *arguments, env=PLAIN):
        return subprocess.run([sys.executable, DEMO, "--scale", "0.02", *arguments, self.root],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                              encoding="utf-8", timeout=30)

    def pids(self):
        try:
            with open(os.path.join(self.root, "pids")) as file:
                return [int(line) for line in file]
        except FileNotFoundError:
            return []


def is_running(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


class Plain(unittest.TestCase):
    def test_two_models(self):
        with Course("sequential", "concurrent", "sequential") as course:
            result = course.run("--scale", "0.05")      # 0.1 s a client, so that five overlap
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        out = result.stdout
        self.assertNotIn("\x1b", out)
        self.assertLessEqual(max(map(len, out.splitlines())), 80)
        self.assertIn("Step 1 - model sequential: what is asked?\n", out)
        self.assertEqual(len(re.findall("^  conn[0-4] ", out, re.M)), 15)
        self.assertIn("1 of 5 served at once", out)
        self.assertIn("5 of 5 served at once", out)
        self.assertRegex(out, r"\n  1 +model sequential( +0\.\d{3}){2}( +1){2}( +3\.0){2}\n")
        self.assertIn("  Steps 1 and 3 served one client after another: 5 x 0.1", out)
        self.assertIn("  Step 2 served 5 clients at once: all 5 were done after 0.", out)

    def test_rows_are_a_staircase_on_a_sequential_server(self):
        with Course("sequential") as course:
            out = course.run("--clients", "3", "--scale", "0.05").stdout
        names, rows = zip(*re.findall(r"^  (conn\d) (\u2591*)\u2588", out, re.M))
        self.assertEqual(names, ("conn0", "conn1", "conn2"))    # not in the order of greeting
        rows = sorted(rows)
        self.assertGreater(len(rows[1]), 10)
        self.assertGreater(len(rows[2]), len(rows[1]) + 10)

    def test_rows_are_in_the_order_of_the_names(self):
        run = demo.Run(demo.Step("1", "/nowhere/server", "/nowhere/server.c"))
        run.connections = [connection(greeted, (greeted, greeted + 0.1), disconnecting=8,
                                      closed=9) for greeted in (3, 1, 2)]
        for number, each in enumerate(run.connections):
            each.name = f"conn{number}"
        lines = demo.picture(demo.Screen(False), run, 1)
        self.assertEqual([line.split()[0] for line in lines[:3]], ["conn0", "conn1", "conn2"])

    def test_the_picture_says_how_long_the_pauses_are(self):
        for scale, words in (("0.02", "pauses at 1/50 of their length"), ("0", "no pauses"),
                             ("0.03", "pauses at 0.03 times their length")):
            with Course("concurrent") as course:
                self.assertIn(f"        {words}\n", course.run("--scale", scale).stdout)
        self.assertEqual(demo.pauses(1), "pauses at full length")
        self.assertEqual(demo.pauses(0.2), "pauses at 1/5 of their length")

    def test_choice_of_steps(self):
        with Course("concurrent", "concurrent", "concurrent") as course:
            out = course.run("--steps", "1,3").stdout
            self.assertEqual(re.findall(r"^Step (\d) - ", out, re.M), ["1", "3"])
            self.assertEqual(len(course.run("--steps", "").stdout.split("Step 3 - ")), 2)
            missing = course.run("--steps", "1,7")
            self.assertEqual((missing.returncode, missing.stdout), (2, ""))
            self.assertIn("no step 7 in", missing.stderr)

    def test_variants(self):
        with Course("sequential") as course:
            step = os.path.join(course.root, "step1_sequential")
            for name in ("pool", "relinked"):
                course.add_server(os.path.join(step, "build", "variants", name), "concurrent")
            os.mkdir(os.path.join(step, "variants"))
            for name in ("pool", "notbuilt"):
                with open(os.path.join(step, "variants", f"{name}.c"), "w") as file:
                    file.write("/* Step 1, variant - a pool: who is free? */\n")
            self.assertNotIn("pool", course.run().stdout)
            result = course.run("--variants")
        self.assertEqual(result.returncode, 0)
        self.assertIn("\nStep 1/pool - a pool: who is free?\n", result.stdout)
        self.assertIn("\nStep 1/relinked - model sequential: what is asked?\n", result.stdout)
        self.assertNotIn("notbuilt", result.stdout)

    def test_ascii(self):
        with Course("sequential") as course:
            for env in ({"LC_ALL": "C"}, {}, {"LANG": "de_DE.ISO-8859-1"}):
                with self.subTest(env):
                    out = course.run(env={"PATH": PLAIN["PATH"], **env}).stdout
                    self.assertTrue(out.isascii())
                    self.assertIn(". waiting for the server   # being served", out)
            self.assertFalse(course.run(env={"PATH": PLAIN["PATH"],
                                             "LANG": "en_US.UTF-8"}).stdout.isascii())

    def test_json(self):
        with Course("concurrent") as course:
            path = os.path.join(course.root, "run.json")
            course.run("--json", path, "--scale", "0.5")    # so that all five overlap
            with open(path) as file:
                step, = json.load(file)["steps"]
            before = course.pids()
            result = course.run("--json", "/nonexistent/run.json")
            self.assertEqual(course.pids(), before)
        self.assertEqual((step["step"], step["model"], step["at_once"], step["troubles"]),
                         ("1", "model concurrent", 5, []))
        self.assertEqual(len(step["connections"]), 5)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertRegex(result.stderr, r"^demo: cannot write /nonexistent/run.json: .*\n$")

    def test_usage(self):
        with Course("concurrent") as course:
            for arguments in (["--clients", "0"], ["--scale", "-1"], ["--steps", "one"],
                              ["--what"]):
                with self.subTest(arguments):
                    self.assertEqual(course.run(*arguments).returncode, 2)
            self.assertIn("--steps: expected step numbers such as 1,2,6, not 'one'",
                          course.run("--steps", "one").stderr)

    def test_nobody_reads(self):
        with Course("concurrent") as course:
            for redirection in ("| true", ">&-"):
                with self.subTest(redirection):
                    command = f'"$@" {redirection}'
                    result = subprocess.run(
                        ["sh", "-c", command, "sh", sys.executable, DEMO, "--scale", "0",
                         course.root], stderr=subprocess.PIPE, timeout=30)
                    self.assertEqual(result.stderr, b"")
                    self.assertFalse(any(map(is_running, course.pids())))


class Troubles(unittest.TestCase):
    def test_each_is_said_and_the_next_step_runs(self):
        troubles = {
            "refuses-to-start": "the server exited with status 1 before it listened",
            "crashes": r"the server was killed by signal 11 \(.*\) in mid-run",
            "leaves": "the server exited with status 0 in mid-run",
            "wrong-byte": "5 of 5 clients failed; conn0: wrong answer: expected b'bcdbcuf",
            "early-close": "5 of 5 clients failed; conn0: closed early",
            "exits-3": "the server exited with status 3 when it was asked to stop",
            "ignores-sigterm": "the server did not stop within 2 s of SIGTERM",
        }
        with Course(*troubles, "concurrent") as course:
            result = course.run()
            self.assertFalse(any(map(is_running, course.pids())))
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        parts = re.split(r"^(?=Step \d - |  step  model)", result.stdout, flags=re.M)[1:]
        for part, (mode, trouble) in zip(parts, troubles.items()):
            with self.subTest(mode):
                self.assertRegex(part, f"FAILED: .*{trouble}")
        self.assertIn("    | little_server: about to crash\n", parts[1])
        self.assertIn("    | little_server: cannot listen", parts[0])
        self.assertNotIn("FAILED", parts[7])
        self.assertEqual(len(re.findall(r"^  \d +model .* FAILED ", parts[8], re.M)), 7)
        self.assertIn("Steps 1, 2, 3, 4, 5, 6 and 7 FAILED", parts[8])

    def test_a_server_that_prints_without_end(self):
        with Course("concurrent") as course:
            course.add_server(os.path.join(course.root, "step1_concurrent", "server"),
                              "concurrent", "exec yes")
            result = course.run()
            self.assertFalse(any(map(is_running, course.pids())))
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        self.assertIn("FAILED: the server printed more than 32 MiB before it listened",
                      result.stdout)
        self.assertLess(len(result.stdout), 5000)

    def test_what_a_server_starts_is_ended(self):
        with Course("concurrent") as course:
            pids = f"{course.root}/pids"
            course.add_server(os.path.join(course.root, "step1_concurrent", "server"),
                              "concurrent", "setsid sh -c 'echo $$ >> \"$0\"; exec sleep 100' "
                              f"{pids} &\n"
                              f"until [ $(wc -l < {pids}) = 2 ]; do sleep 0.01; done")
            result = course.run()
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertEqual(len(course.pids()), 2)
            self.assertFalse(any(map(is_running, course.pids())))

    def test_not_built(self):
        with Course("concurrent", "concurrent") as course:
            os.remove(os.path.join(course.root, "step1_concurrent", "server"))
            result = course.run()
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        self.assertRegex(result.stdout, "FAILED: cannot start .*/server: No such file")
        self.assertIn("Step 2 served 5", result.stdout)


class Stopped(unittest.TestCase):
    def test_signals_leave_nothing_behind(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number), Course("silent", "concurrent") as course:
                process = subprocess.Popen([sys.executable, DEMO, course.root], env=PLAIN,
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                with process:
                    while not course.pids():
                        self.assertIsNone(process.poll())
                        time.sleep(0.01)
                    process.send_signal(number)
                    _, errors = process.communicate(timeout=20)
                self.assertEqual((process.returncode, errors), (128 + number, b""))
                self.assertEqual(len(course.pids()), 1)
                self.assertFalse(is_running(course.pids()[0]))


class Terminal(unittest.TestCase):
    def see(self, *arguments, columns=80, **env):
        """All that the demo writes to a terminal."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        with Course("concurrent") as course:
            process = subprocess.Popen([sys.executable, DEMO, "--scale", "0.1", *arguments,
                                        course.root],
                                       env={**PLAIN, **env}, stdout=slave, stderr=slave)
            os.close(slave)
            seen = b""
            while True:
                try:
                    data = os.read(master, 4096)
                except OSError:  # what Linux says when the other side is closed
                    data = b""
                if not data:
                    break
                seen += data
            os.close(master)
            self.assertEqual(process.wait(20), 0)
        return seen.decode()

    def test_live_and_in_colour(self):
        seen = self.see(TERM="xterm")
        self.assertGreater(seen.count("being served"), 2)
        self.assertIn("\x1b[1;32m", seen)
        self.assertIn("\x1b[11A", seen)  # back over the picture
        self.assertIn("server 1 of 1", seen)
        self.assertLess(seen.index("\x1b[?25l"), seen.index("\x1b[?25h"))

    def test_no_colour(self):
        seen = self.see(TERM="xterm", NO_COLOR="1")
        self.assertGreater(seen.count("being served"), 2)
        self.assertNotRegex(seen, r"\x1b\[[\d;]*m")

    def test_dumb_terminal(self):
        for columns in 60, 80:
            seen = self.see(TERM="dumb", columns=columns)
            self.assertNotIn("\x1b", seen)
            self.assertEqual(seen.count("conn4"), 1)
            self.assertLess(max(map(len, seen.splitlines())), columns)

    def test_lines_fit_the_terminal(self):
        for columns in 60, 61, 70, 77, 100:
            seen = self.see("--clients", "12", TERM="xterm", columns=columns)
            lines = re.sub(r"\x1b\[\??[\d;]*[A-Za-z]", "", seen).replace("\r", "").split("\n")
            self.assertLess(max(map(len, lines)), columns)
            self.assertGreater(seen.count("idle between messages"), 2)
            for words in "step", "model concurrent", "longest", "12 of 12":
                self.assertIn(words, seen)

    def test_a_terminal_that_is_too_narrow_is_not_drawn_on(self):
        seen = self.see(TERM="xterm", columns=40)
        self.assertEqual(seen.count("idle between messages"), 1)


def connection(greeted, *exchanges, disconnecting=None, closed=None, failure=None):
    """One that was greeted, then sent each message and got its answer at these times."""
    script = [answer for _, answer, _ in demo.simple_client.SCRIPT]
    return types.SimpleNamespace(
        name="conn0", greeted=greeted, disconnecting=disconnecting, closed=closed,
        failure=failure, connected=0, now=lambda: closed,
        sends=[(at, b"") for at, _ in exchanges],
        receives=[(at, script[i]) for i, (_, at) in enumerate(exchanges) if at is not None])


class Figures(unittest.TestCase):
    def cells(self, conn, now):
        glyphs = {None: " ", demo.WAITING: ".", demo.SERVED: "#", demo.IDLE: "-",
                  demo.FAILED: "X"}
        return "".join(glyphs[state] for state in demo.timeline(conn, now, 20, 20))

    def test_timeline(self):
        done = connection(4.5, (4.5, 4.6), (8, 8.1), (12, 12.1), disconnecting=15, closed=15.1)
        self.assertEqual(self.cells(done, 18), "....#---#---#--#    ")
        late = connection(2.5, (2.5, 5.5), (8, 10), (12, 14), disconnecting=15, closed=17)
        self.assertEqual(self.cells(late, 18), "..#..#--..#-..#..#  ")

    def test_timeline_of_the_present(self):
        self.assertEqual(self.cells(connection(None), 3), "....                ")
        self.assertEqual(self.cells(connection(1, (1, 1.1)), 3), ".#--                ")
        self.assertEqual(self.cells(connection(1, (1, 1.1), (3, None)), 6.5),
                         ".#-....             ")
        self.assertEqual(self.cells(connection(1, (1, None), closed=4, failure="reset"), 9),
                         ".#..X               ")

    def test_at_once_and_waits(self):
        run = demo.Run(demo.Step("1", "/nowhere/server", "/nowhere/server.c"))
        run.connections = [connection(0.5, (0.5, 1), disconnecting=5, closed=6),
                           connection(5.5, (6, 9), disconnecting=10, closed=10.5)]
        self.assertEqual((run.at_once, run.longest_wait, run.longest_answer, run.elapsed),
                         (1, 5.5, 3, 10.5))
        run.connections[1].greeted = 4
        self.assertEqual(run.at_once, 2)


if __name__ == "__main__":
    unittest.main()
