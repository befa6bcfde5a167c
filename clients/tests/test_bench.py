"""The parts of the benchmark that measure nothing: medians, tables, pictures, README files."""

import copy
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from collections import Counter, deque

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench")
sys.path.insert(0, BENCH)

import bench        # noqa: E402 (found only now)
import check        # noqa: E402
import insert       # noqa: E402
import lab          # noqa: E402
import plots        # noqa: E402
import tables       # noqa: E402
import timers       # noqa: E402
import workers      # noqa: E402
from lib.seals import seal  # noqa: E402


def load_run(cost, **more):
    return {"rate": 1000.0, "mb_per_second": 1.0, "cpu_us": cost, "cpu_share": 0.5,
            "threads": 1, "resident_before": 1 << 20, "resident_connected": (1 << 20) + 6400,
            "p50_us": 50.0, "p99_us": 90.0, "client_share": 0.5, "client_delay": 0.0, **more}


def a_result():
    """Three servers as the benchmark would find them."""
    found = {}
    for point in 1, 100, 10000:
        found["load", point, "baseline"] = [load_run(2.0), load_run(4.0), load_run(3.0)]
        found["load", point, "step6"] = [load_run(2.2), load_run(4.0), load_run(3.0)]
        found["load", point, "step5"] = [
            {"reason": "max 1000"} if point > 1000 else load_run(5.0)]
    for point in 0, 900, 15000:
        found["idle", point, "step6"] = [load_run(3.0)]
        found["idle", point, "step5"] = [
            {"reason": "max 1000"} if point > 1000 else load_run(3.0 + point / 90)]
    found["bulk", 65536, "step6"] = [load_run(1.0, mb_per_second=1500.0, p50_us=None)]
    for price in 100, 400:
        found["call", price, "baseline"] = [load_run(3.0 + price / 500)]
        found["call", price, "step6/io_uring"] = [load_run(3.0)]
    found["idle_cpu", 100, "step6"] = [{"cpu_share": 0.0}]
    return {"date": "2025-01-31", "machine": "a machine", "rounds": 3, "interval_rate": 50,
            "servers": [{"name": "baseline", "model": "epoll, raw bytes", "step": None},
                        {"name": "step5", "model": "select", "step": 5},
                        {"name": "step6", "model": "epoll", "step": 6},
                        {"name": "step6/io_uring", "model": "io_uring", "step": 6}],
            "engine": [{"payload": 30, "engine_ns": 10.0, "bytewise_ns": 20.0,
                        "engine_gb_per_s": 3.0, "bytewise_gb_per_s": 1.0}],
            "cells": bench.summarise(found)}


class Summary(unittest.TestCase):
    def test_ratios_are_taken_within_a_round(self):
        cell = tables.Results(a_result()).cell("load", 100, "step6")
        self.assertEqual(cell["cpu_us"], 3.0)
        self.assertEqual(cell["cpu_us_x"], 1.0)     # of 1.1, 1, 1
        self.assertAlmostEqual(cell["cpu_us_spread"], 0.3)

    def test_a_server_that_cannot_has_a_reason_instead(self):
        cell = tables.Results(a_result()).cell("load", 10000, "step5")
        self.assertEqual(cell["reason"], "max 1000")
        self.assertNotIn("cpu_us", cell)

    def test_derived_figures(self):
        results = tables.Results(a_result())
        self.assertEqual(results.per_connection("step6"), (0.64, 10000))
        self.assertEqual(results.per_connection("step5"), (64, 100))
        self.assertEqual(results.idlest("step6"), (15000, 3.0))
        self.assertEqual(results.idle_factor(15000, "step6"), 1)
        self.assertAlmostEqual(results.idle_factor(900, "step5"), 13 / 3)
        self.assertEqual((results.idlest("baseline"), results.idle_factor(0, "baseline")),
                         (None, None))
        self.assertEqual(results.idle_cpu("step6"), 0)
        self.assertIsNone(results.idle_cpu("step5"))


class Text(unittest.TestCase):
    def test_three_digits(self):
        for value, text in [(0, "0.00"), (1.234, "1.23"), (9.994, "9.99"), (9.996, "10.0"),
                            (99.96, "100"), (999.6, "1,000"), (12345, "12,345")]:
            self.assertEqual(tables.three(value), text)
        for value, text in [(984, "980"), (1021, "1,000"), (33.6, "34"), (1243, "1,200")]:
            self.assertEqual(tables.two(value), text)
        self.assertEqual([tables.size(n) for n in (64, 2048, 3 << 20)],
                         ["64 B", "2.00 KiB", "3.00 MiB"])

    def test_terminal(self):
        text = tables.terminal(a_result())
        self.assertRegex(text, r"step6 +epoll +3\.00 ±30% 1\.00x +3\.00 ±30% 1\.00x +3\.0")
        self.assertRegex(text, r"step5 +select .* max 1000\n")
        self.assertIn("medians of 3 rounds, how far apart these were; and", text)
        self.assertRegex(text, r"\nserver +100 ns +400 ns\nbaseline +3\.20 .*\n"
                         r"step6/io_uring +3\.00 0\.94x +3\.00 0\.79x\n\n")
        self.assertLessEqual(max(map(len, text.splitlines())), 100)

    def test_results_that_call_the_baseline_floor(self):
        old = json.loads(json.dumps(a_result()).replace('"baseline"', '"floor"'))
        self.assertEqual(tables.terminal(old), tables.terminal(a_result()))

    def test_one_round(self):
        results = a_result()
        found = {("load", 1, name): [load_run(2.0)] for name in ("baseline", "step6")}
        results.update(rounds=1, cells=bench.summarise(found))
        text = tables.terminal(results)
        self.assertIn("one round; and multiples of", text)
        self.assertNotIn("±", text)

    def test_the_machine_is_described(self):
        for release, shown in [("6.18.44-a-b7", "6.18.44"), ("14.0-RELEASE", "14.0"),
                               ("6.1.0.x", "6.1.0")]:
            system = unittest.mock.Mock(sysname="Linux", release=release)
            with unittest.mock.patch("os.uname", return_value=system):
                self.assertTrue(lab.machine().endswith(", Linux " + shown), lab.machine())


class Pictures(unittest.TestCase):
    def test_axis(self):
        axis = plots.Axis([3, 700], 1.05)
        self.assertEqual((axis.low, axis.high), (2, 1000))
        self.assertIn('"1,000" 1000.0', axis.tics())

    def test_linear_axis(self):
        axis = plots.LinearAxis([3, 700], 1.05)
        self.assertEqual((axis.low, axis.high), (0, 800))
        self.assertTrue(axis.tics().endswith('"600" 600.0, "800" 800.0'), axis.tics())
        axis = plots.LinearAxis([3, 700])
        self.assertEqual((axis.low, axis.high), (0, 700))
        self.assertTrue(axis.tics().endswith('"400" 400.0, "600" 600.0'), axis.tics())

    def test_interval_axis(self):
        axis = plots.IntervalAxis([0.5, 20, 200])
        self.assertEqual((axis.low, axis.high), (0.5, 200))
        self.assertTrue(axis.tics().startswith('"0" 0.5, "1" 1, '), axis.tics())
        self.assertTrue(plots.IntervalAxis([1, 200]).tics().startswith('"1" 1, '))

    def test_the_key_names_the_lines_from_the_highest_to_the_lowest(self):
        panel = plots.Panel("", "", [("x", [(1, 1), (10, 2)]), ("step6", [(1, 1), (10, 5)])])
        script = panel.script([])
        self.assertLess(script.index("title '6 epoll'"), script.index("title 'x'"))

    def test_drawn(self):
        with tempfile.TemporaryDirectory() as folder:
            said = plots.draw(a_result(), pathlib.Path(folder))
            if "not installed" in said:
                self.skipTest(said)
            self.assertIn("latency.svg", said)
            svg = (pathlib.Path(folder) / "idle.svg").read_text()
            self.assertIn("5 select", svg)
            self.assertIn("6 epoll", svg)


class Readme(unittest.TestCase):
    def fill(self, text, results=None):
        return insert.fill(text, tables.Results(results or a_result()))

    def marked(self, name, content=""):
        end = f"end {seal(content)}" if content else "end"
        return f"a\n<!-- bench:{name} begin -->\n{content}<!-- bench:{name} {end} -->\nz\n"

    def test_replaced_between_the_markers_only(self):
        filled = self.fill(self.marked("machine", "old\n"))
        self.assertEqual(filled, self.marked(
            "machine", "Measured on 2025-01-31, a machine: medians of 3 rounds.\n"))
        self.assertEqual(self.fill(filled), filled)

    def test_the_results_that_fill_all_readmes_are_kept_for_the_charts(self):
        with tempfile.TemporaryDirectory() as folder:
            tree, source = pathlib.Path(folder), pathlib.Path(folder, "new.json")
            source.write_text(json.dumps(a_result()))
            kept = tree / "kept.json"
            with unittest.mock.patch("lab.TREE", tree), \
                    unittest.mock.patch("insert.KEPT", kept), \
                    unittest.mock.patch("sys.argv", ["insert.py", "--results", str(source)]), \
                    unittest.mock.patch("sys.stdout"):
                (tree / "README.md").write_text(self.marked("machine"))
                self.assertEqual(insert.main(), 0)
                self.assertEqual(json.loads(kept.read_text()), a_result())
                sys.argv[-1] = os.path.relpath(kept)    # they may be filled in from the copy
                self.assertEqual(insert.main(), 0)
            self.assertEqual(json.loads(kept.read_text()), a_result())

    def test_a_busy_machine_is_reported(self):
        results = a_result()
        for cell in results["cells"]:
            cell["client_delay"] = 0.3
        self.assertIn("waited 30 % of the time", self.fill(self.marked("machine"), results))

    def test_in_one_line(self):
        filled = self.fill("a <!-- bench:machine begin -->old<!-- bench:machine end --> z\n")
        text = "Measured on 2025-01-31, a machine: medians of 3 rounds."
        self.assertEqual(filled, f"a <!-- bench:machine begin -->{text}"
                         f"<!-- bench:machine end {seal(text)} --> z\n")

    def test_comparison(self):
        filled = self.fill(self.marked("comparison"))
        self.assertIn("| step5 | select | 5.00 µs (2.50x) | max 1000 | 50.0 µs "
                      "| 13.0 µs (4.33x) at 900 | 64 B | - | - |", filled)

    def test_figures_that_vary_are_not_compared(self):
        results = a_result()
        results["servers"].append({"name": "step4", "model": "nonblocking poll", "step": 4})
        results["cells"] += bench.summarise(
            {("idle", point, "step4"): [load_run(2.0 + point / 100)] for point in (0, 15000)})
        self.assertIn("| step4 | 2.00 µs | - | 152 µs |",
                      self.fill(self.marked("idle"), results))
        self.assertIn("With 15,000 idle connections beside ten active ones it costs 152 µs.",
                      self.fill(self.marked("cost-step4"), results))

    def test_calls(self):
        filled = self.fill(self.marked("calls"))
        self.assertIn("| server | 100 ns a call | 400 ns a call |\n", filled)
        self.assertIn("| step6/io_uring | 3.00 µs (0.94x) | 3.00 µs (0.79x) |\n", filled)
        self.assertNotIn("step5", filled)

    def test_sentence(self):
        filled = self.fill(self.marked("cost-step6"))
        self.assertIn("A message costs 3.00 µs of CPU time at 100 connections "
                      "(1.00 x the baseline)", filled)
        self.assertIn("One stream passes at 1,500 MB/s.", filled)

    def test_errors(self):
        for text in (self.marked("weather"), self.marked("cost-step9"),
                     "<!-- bench:machine begin -->\n", "<!-- bench:machine begin -->\n"
                     "<!-- bench:idle end -->\n"):
            with self.assertRaises(insert.Unknown):
                self.fill(text)

    def test_without_peers_or_steps(self):
        results = copy.deepcopy(a_result())
        results["servers"] = results["servers"][:1]
        results["cells"] = [cell for cell in results["cells"] if cell["server"] == "baseline"]
        self.assertIn("baseline", self.fill(self.marked("comparison"), results))
        tables.terminal(results)


class SlowSyscalls(unittest.TestCase):
    """The program that makes system calls slower."""

    def setUp(self):
        if not lab.SLOW_SYSCALLS.exists():
            self.skipTest("slow_syscalls is not built: it is for Linux")
        if lab.price_of_a_call(0) is None:
            self.skipTest("this system allows no filter")

    def slow_syscalls(self, *arguments):
        return subprocess.run([lab.SLOW_SYSCALLS, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, encoding="utf-8")

    def test_the_price_rises_with_the_divisions(self):
        self.assertGreater(lab.price_of_a_call(1000), 2 * lab.price_of_a_call(0))

    def test_the_program_is_run_as_it_is(self):
        run = self.slow_syscalls("50", "sh", "-c", "echo $1; exit 3", "sh", "two words")
        self.assertEqual((run.returncode, run.stdout, run.stderr), (3, "two words\n", ""))

    def test_errors(self):
        for arguments, status, message in [
                ([], 2, "usage: slow_syscalls N"), (["4001"], 2, "N from 0 to 4000"),
                (["-1"], 2, "N from 0"), (["7x", "true"], 2, "N from 0"),
                (["7", "/no/such/program"], 1,
                 "slow_syscalls: /no/such/program: No such file")]:
            run = self.slow_syscalls(*arguments)
            self.assertEqual((run.returncode, run.stdout), (status, ""))
            self.assertIn(message, run.stderr)

    def test_where_it_is_not_to_be_had(self):
        with unittest.mock.patch("lab.SLOW_SYSCALLS", "/no/such/program"):
            self.assertIsNone(lab.price_of_a_call(0))


class CommandLines(unittest.TestCase):
    def test_usage_errors(self):
        for program, arguments, message in [
                ("bench.py", ["--steps", "six"], "--steps takes numbers, such as 1,6, not"),
                ("bench.py", ["--rounds", "0"], "--rounds takes a number from 1 to 100, not 0"),
                ("bench.py", ["--steps", "1,9"], "--steps takes numbers from 1 to 8, not 1,9"),
                ("insert.py", ["--nonsense"], "unrecognized arguments")]:
            run = subprocess.run([sys.executable, os.path.join(BENCH, program), *arguments],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 encoding="utf-8")
            self.assertEqual((run.returncode, run.stdout), (2, ""))
            self.assertIn(message, run.stderr)

    def test_the_programs_in_c_say_how_they_are_called(self):
        for path in lab.BASELINE, lab.ENGINE, timers.PROGRAM:
            if not path.exists():
                continue    # it is for Linux, or needs libuv
            for argument, status in (("--help", 0), ("--what", 2)):
                run = subprocess.run([path, argument], stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, encoding="utf-8", timeout=20)
                said = (run.stdout, run.stderr)[:: 1 if status == 0 else -1]
                self.assertEqual(run.returncode, status)
                self.assertRegex(said[0], fr"^usage: {path.name}\b")
                self.assertEqual(said[1], "")

    def test_as_many_rounds_as_asked_for(self):
        plan = bench.Plan(quick=False, rounds=7)
        subject = lab.baseline()
        self.assertEqual({job.turn for job in plan.jobs([subject])}, set(range(7)))
        progress = bench.Progress(plan.jobs([subject]), plan)
        progress.began -= 10000     # late as it is, the next round begins
        self.assertFalse(progress.overdue(5, plan, 1))
        usual = bench.Plan(quick=False)
        self.assertEqual(usual.rounds, 3)
        self.assertTrue(progress.overdue(5, usual, 1))

    def test_no_results(self):
        run = subprocess.run([sys.executable, os.path.join(BENCH, "insert.py"), "--results",
                              "/no/such/file"], stderr=subprocess.PIPE, encoding="utf-8")
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stderr, r"^insert\.py: .*No such file")


class Timers(unittest.TestCase):
    def test_a_row_for_each_library_and_number(self):
        figures = [{"library": name, "timers": count, "create_ns": 80.0, "delete_ns": 1500.0,
                    "rearm_ns": 250.0, "idle_ns": 200.0}
                   for name in ("ae", "libuv") for count in (1000, 100000)]
        rows = [line.split() for line in timers.table(figures).splitlines()[-4:]]
        self.assertEqual(rows[1], ["ae", "100,000", "0.08", "1.50", "0.25", "0.20"])
        self.assertEqual([row[0] for row in rows], ["ae", "ae", "libuv", "libuv"])
        self.assertEqual(timers.by_library(figures, 1000)["libuv"], figures[2])

    def test_without_libuv(self):
        with unittest.mock.patch.object(timers, "PROGRAM", pathlib.Path("/nonexistent")):
            self.assertIn("libuv is not installed", timers.table(timers.measure()))


class WorkersTest(unittest.TestCase):
    FIGURES = {
        "workers": [{"workers": 0, "rate": None, "cpu_us": 4.0, "resident": 1 << 20},
                    {"workers": 1, "rate": None, "cpu_us": 4.0, "resident": 1126400},
                    {"workers": 2, "rate": None, "cpu_us": 4.4, "resident": 1228800}],
        "threads": [{"threads": 1, "rate": None, "cpu_us": 5.0},
                    {"threads": 2, "rate": None, "cpu_us": 5.1}],
        "per_worker": 71680.0}

    def test_too_few_cpus_for_the_rate(self):
        text = workers.table(self.FIGURES)
        self.assertEqual(text.count("not measured here"), 5)
        self.assertRegex(text, r"\n2 +not measured here +4\.40 µs \(1\.10x\) +1\.17 MiB\n")
        self.assertIn("A further worker takes 70.0 KiB of memory.", text)
        self.assertRegex(text, r"\n2 +not measured here +5\.10 µs \(1\.02x\)$")

    def test_the_rates_against_one_loop_and_one_thread(self):
        figures = {**self.FIGURES, **{
            kind: [dict(row, rate=1000.0 * max(row[kind], 1)) for row in self.FIGURES[kind]]
            for kind in ("workers", "threads")}}
        self.assertEqual(workers.table(figures).count("2,000 (2.00x)"), 2)

    def test_in_a_readme(self):
        results = tables.Results({**a_result(), "workers": self.FIGURES})
        text = insert.block("workers", results)
        self.assertIn("| 2 | not measured here | 4.40 µs (1.10x) | 1.17 MiB |", text)
        self.assertIn("| 2 | not measured here | 5.10 µs (1.02x) |", text)
        with self.assertRaises(insert.Unknown):
            insert.block("workers", tables.Results(a_result()))

    def test_servers_that_were_not_chosen(self):
        self.assertIsNone(workers.measure([]))
        self.assertIn("not measured", workers.table(None))

    def test_each_side_is_measured_with_each_number(self):
        """Here the server costs 10 for each worker, the load client 1 for each thread; and in
        all rounds but the second, something else on the machine adds to that."""
        rounds = Counter()

        def run(subject, arguments, _server_cpus, _load_cpus, **more):
            count = int(arguments[-1]) if arguments else 1
            rounds[subject.name, arguments, str(more)] += 1
            noise = 0 if rounds[subject.name, arguments, str(more)] == 2 else 7
            return {"messages_per_second": 1,
                    "server": {"cpu_us_per_message": 10.0 * count + noise,
                               "resident_connected": 1000 * count},
                    "client": {"cpu_us_per_message": 1.0 * more.get("threads", 99) + noise}}

        subjects = [lab.Subject(name, [], "") for name in (workers.ALONE, workers.NAME)]
        with unittest.mock.patch.object(workers, "run", run), \
                unittest.mock.patch.object(workers, "all_cpus", lambda: [0, 1]):
            found = workers.measure(subjects)
        self.assertEqual([(row["workers"], row["cpu_us"]) for row in found["workers"]],
                         [(0, 10), (1, 10), (2, 20)])
        self.assertEqual([(row["threads"], row["cpu_us"], row["rate"])
                          for row in found["threads"]], [(1, 1, None), (2, 2, None)])
        self.assertEqual(found["per_worker"], 1000)

    def ratio(self, *costs):
        """What three runs in each of the rounds give: one loop, the workers, one loop again."""
        return workers.decided(*self.ratios([1], *costs)[1], limit=1.05)

    def ratios(self, counts, *costs):
        reports = iter([{"server": {"cpu_us_per_message": cost}}
                        for cost in costs * workers.ROUNDS])
        with unittest.mock.patch.object(workers, "run", lambda *_: next(reports)):
            return workers.cost_ratios(None, None, counts)

    def test_numbers_of_workers_share_the_runs_of_one_loop(self):
        self.assertEqual(self.ratios([1, 2], 4.0, 5.0, 6.0, 4.0), {1: (1.25, 1), 2: (1.5, 1)})
        bench = check.Bench.__new__(check.Bench)
        bench.subjects = dict.fromkeys(["step6", "step6/workers"])
        bench.worker_costs = {1: deque(maxlen=2), 2: deque(maxlen=2)}
        measured = iter([{1: (1.0, 1), 2: (1.1, 1)}, {1: (1.01, 1), 2: (1.2, 1.3)},
                         {1: (1.02, 1), 2: (1.3, 1)}])
        with unittest.mock.patch.object(workers, "cost_ratios", lambda *_: next(measured)):
            self.assertEqual([bench.with_workers(1, 1.05) for _ in range(3)], [1.0, 1.01, 1.02])
            with self.assertRaises(workers.Undecided):      # of the two latest
                bench.with_workers(2, 1.15)
            self.assertEqual(bench.with_workers(2, 1.15), 1.3)
            self.assertRaises(StopIteration, bench.with_workers, 2, 1.15)

    def test_noise_above_the_limit_decides_nothing(self):
        self.assertEqual(self.ratio(4.0, 4.0, 4.0), 1)
        self.assertEqual(self.ratio(4.0, 6.0, 4.0), 1.5)    # the loop agrees with itself
        self.assertEqual(self.ratio(4.0, 4.0, 5.0), 1)      # noise, but cheap enough
        with self.assertRaises(workers.Undecided):
            self.ratio(4.0, 6.0, 5.0)

    def test_a_claim_that_is_not_decided(self):
        def noisy(_):
            raise workers.Undecided("noise")

        self.assertEqual(check.Claim("", (), None, 1.05, noisy).test(None)[0], None)
        self.assertEqual(check.Claim("", (), None, 1.05, lambda _: 2).test(None)[0], False)
        outcomes = iter([None, 1, 1])

        def noisy_at_first(_):
            return next(outcomes) or noisy(_)

        self.assertEqual(check.Claim("", (), None, 1.05, noisy_at_first).test(None)[0], True)
        outcomes = iter([None, 2, 2, 2, 2])     # an attempt needs two figures to fail
        self.assertEqual(check.Claim("", (), None, 1.05, noisy_at_first).test(None)[0], False)

    def test_each_side_has_cpus_of_its_own(self):
        for count in 1, 2, 3, 4, 9:
            with unittest.mock.patch.object(workers, "all_cpus", lambda: list(range(count))):
                server, load = workers.split()
                self.assertEqual(len(server), count // 2 if count >= 4 else 1)
                self.assertEqual(len(load), len(server))
                self.assertTrue(count == 1 or not set(server) & set(load))
                self.assertEqual(max(workers.counts()), max(len(server), 2))


if __name__ == "__main__":
    unittest.main()
