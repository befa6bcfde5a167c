#!/usr/bin/env python3
"""The ledger of claims (common/lessons/claims.md) says what is measured, and would notice if it
did not. Here are the claims that a count decides at once; claims.py --check has all of them."""

import contextlib
import importlib.util
import io
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

LESSONS = pathlib.Path(__file__).resolve().parents[1] / "lessons"
spec = importlib.util.spec_from_file_location("claims_runner", LESSONS / "claims.py")
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
claims = runner.claims
EVERYTHING = claims.load()
COMMAND = [sys.executable, str(LESSONS / "claims.py")]


class Page(unittest.TestCase):
    """The committed page and a measurement agree."""

    def test_the_page_shows_what_was_recorded(self):
        self.assertEqual(runner.page_problem(EVERYTHING, runner.read_record()), "")

    def test_every_claim_is_decided_by_a_figure_and_explained(self):
        self.assertGreaterEqual(len(EVERYTHING), 40)
        self.assertLessEqual(len(EVERYTHING), 60)
        self.assertEqual(len({claim.name for claim in EVERYTHING}), len(EVERYTHING))
        for claim in EVERYTHING:
            with self.subTest(claim.name):
                self.assertTrue(claim.sentence.endswith("."))
                for text in claim.by, claim.why, claim.opposite:
                    self.assertTrue(text)
                entry = runner.read_record()["claims"][claim.name]
                self.assertEqual(entry["verdict"] == claims.DEPENDS and not claim.on, False)


def add_measurements():
    """A test for each claim that is decided at once, and one for its counterpart."""
    record = runner.read_record()["claims"] if runner.RECORD.exists() else {}

    def add(claim, name, function):
        def test(self):
            entry = record[claim.name]
            if entry["verdict"] == claims.UNDECIDED:
                self.skipTest("the page does not decide it")
            wrong, reason = function(claim, entry)
            if reason:
                self.skipTest(reason)
            self.assertEqual(wrong, "", claim.sentence)
        setattr(Page, f"test_{claim.measure.__name__}{name}", test)
    for claim in EVERYTHING:
        if not claim.slow:
            add(claim, "", runner.check)
            add(claim, "_can_come_out_otherwise", runner.check_opposite)


add_measurements()


def ledger(*figures, doctored=(), slow=False):
    """A claim that measures these figures one after the other, and others when doctored."""
    ready = {False: list(figures), True: list(doctored) or list(figures)}

    def made_up(lab):
        values = ready[lab.doctored]
        figure = values.pop(0) if len(values) > 1 else values[0]
        if figure is None:
            raise claims.Undecided("no luck")
        return [figure]
    claim = claims.Claim("It is so.", "nobody", "No reason.", "another one", slow=slow)
    claim.measure, claim.name, claim.theme = made_up, "made-up", "streams"
    return claim


def count(value, **options):
    return claims.Figure("things", value, low=3, **options)


def entry(verdict, value):
    return {"verdict": verdict, "figures": [["things", value, ""]]}


class Verdicts(unittest.TestCase):
    def test_bands(self):
        high, low = count(4), count(2)
        self.assertEqual(claims.verdict([high]), claims.TRUE)
        self.assertEqual(claims.verdict([low]), claims.FALSE)
        self.assertEqual(claims.verdict([high, low]), claims.DEPENDS)
        self.assertEqual(claims.verdict([high, claims.Figure("a remark", 1)]), claims.TRUE)
        self.assertEqual(claims.verdict([high], [2]), claims.FALSE)

    def test_figures_that_agree(self):
        self.assertTrue(count(4).agrees(4))
        self.assertFalse(count(4).agrees(5))
        self.assertTrue(count(4.0, within=2).agrees(8.0))
        self.assertFalse(count(4.0, within=2).agrees(8.1))
        self.assertTrue(count(0.0, slack=1).agrees(0.9))
        self.assertFalse(count(0.0, within=2).agrees(0.9))

    def test_a_count_settles_it_at_once_and_a_time_when_two_tries_agree(self):
        self.assertEqual(runner.settle(ledger(count(4), count(2)))[0], claims.TRUE)
        self.assertEqual(runner.settle(ledger(count(4), count(2), count(2), slow=True))[0],
                         claims.FALSE)

    def test_what_cannot_be_measured_is_not_decided(self):
        self.assertEqual(runner.settle(ledger(None)), (claims.UNDECIDED, [], "no luck"))
        self.assertEqual(runner.check(ledger(None), entry(claims.TRUE, 4)), ("", "no luck"))

    def test_a_claim_without_an_end_is_stopped(self):
        def sleeps(lab):
            runner.claims.lab.time.sleep(5)
        claim = ledger(None)
        claim.measure = sleeps
        with mock.patch.object(runner.claims.lab, "SECONDS", 0.05):
            self.assertEqual(runner.attempt(claim)[2], "not done after 0.05 seconds")


class Falsified(unittest.TestCase):
    """What is wrong with the page is noticed."""

    def test_a_verdict(self):
        self.assertEqual(runner.check(ledger(count(4)), entry(claims.TRUE, 4)), ("", ""))
        for verdict in claims.FALSE, claims.DEPENDS:
            self.assertIn(f"the page says {verdict}, measured: true (things: 4)",
                          runner.check(ledger(count(4)), entry(verdict, 4))[0])

    def test_a_count(self):
        self.assertIn("things: the page says 5, measured: 4",
                      runner.check(ledger(count(4)), entry(claims.TRUE, 5))[0])

    def test_a_time_of_another_class(self):
        time = count(4.0, within=100)
        self.assertEqual(runner.check(ledger(time), entry(claims.TRUE, 40.0))[0], "")
        self.assertIn("measured: 4", runner.check(ledger(time), entry(claims.TRUE, 500.0))[0])
        self.assertIn("do not give the verdict true",
                      runner.check(ledger(time), entry(claims.TRUE, 2.0))[0])

    def test_a_figure_that_was_renamed(self):
        other = {"verdict": claims.TRUE, "figures": [["other things", 4, ""]]}
        self.assertIn("other figures", runner.check(ledger(count(4)), other)[0])

    def test_one_try_of_three_is_enough(self):
        self.assertEqual(runner.check(ledger(count(2), count(5), count(4)),
                                      entry(claims.TRUE, 4))[0], "")

    def test_a_claim_that_cannot_fail(self):
        """Its counterpart gives the same verdict."""
        wrong, _ = runner.check_opposite(ledger(count(4)), entry(claims.TRUE, 4))
        self.assertIn("not the opposite of true: true (things: 4)", wrong)
        self.assertEqual(runner.check_opposite(ledger(count(4), doctored=[count(2)]),
                                               entry(claims.TRUE, 4)), ("", ""))

    def test_any_text_of_the_page(self):
        page = runner.PAGE.read_text(encoding="utf-8")
        record = runner.read_record()
        with tempfile.TemporaryDirectory() as folder:
            changed = pathlib.Path(folder) / "claims.md"
            with mock.patch.object(runner, "PAGE", changed):
                for old, new in (("**false**. Said", "**true**. Said"), (": 13.", ": 14."),
                                 ("of 6: 0.", "of 6: 1."), ("Measured on", "On")):
                    self.assertIn(old, page)
                    changed.write_text(page.replace(old, new, 1), encoding="utf-8")
                    self.assertIn("of the ledger", runner.page_problem(EVERYTHING, record))
                changed.write_text(page, encoding="utf-8")
                self.assertEqual(runner.page_problem(EVERYTHING, record), "")

    def test_a_claim_that_is_missing(self):
        self.assertIn("other claims: ", runner.page_problem(EVERYTHING[1:],
                                                            runner.read_record()))


class Command(unittest.TestCase):
    def run_it(self, *arguments):
        done = subprocess.run([*COMMAND, *arguments], stdout=subprocess.PIPE, encoding="utf-8",
                              stderr=subprocess.STDOUT, timeout=60)
        return done.returncode, done.stdout

    def test_one_claim_with_its_working(self):
        status, said = self.run_it("one-send-is-one-recv")
        self.assertEqual(status, 0, said)
        for text in ("One send arrives as one recv.", "Said by: ", "recv returned 6",
                     "\nfalse: "):
            self.assertIn(text, said)

    def test_its_counterpart(self):
        status, said = self.run_it("--opposite", "one-send-is-one-recv")
        self.assertEqual(status, 0, said)
        self.assertIn("\ntrue: ", said)

    def test_complaints(self):
        status, said = self.run_it("no-such-claim")
        self.assertEqual(status, 2)
        self.assertIn("no claim has no-such-claim in its name; see --list", said)
        self.assertEqual(self.run_it("--check", "--write")[0], 2)
        self.assertEqual(self.run_it("--write", "--opposite")[0], 2)

    def test_list(self):
        status, said = self.run_it("--list", "--fast")
        self.assertEqual(status, 0)
        self.assertIn("one-send-is-one-recv ", said)
        self.assertNotIn("nagle", said)

    def test_check_writes_tap_and_fails_for_a_wrong_page(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "claims.md"
            page.write_text(runner.PAGE.read_text(encoding="utf-8").replace(
                "**false**. Said", "**true**. Said", 1), encoding="utf-8")
            out = io.StringIO()
            with mock.patch.object(runner, "PAGE", page), \
                    contextlib.redirect_stdout(out):
                self.assertEqual(runner.tap([ledger(count(4))], EVERYTHING, False), 1)
            self.assertRegex(out.getvalue(), r"^1\.\.2\nnot ok 1 - the page .*\n# claims.md, ")

    def test_write(self):
        """Writes what it measured, and the page passes its own check."""
        claim = EVERYTHING[0]
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "claims.md"
            record = pathlib.Path(folder) / "claims.json"
            page.write_text(f"before\n{runner.BEGIN}old\n{runner.END}after\n", encoding="utf-8")
            with mock.patch.multiple(runner, PAGE=page, RECORD=record), \
                    contextlib.redirect_stdout(io.StringIO()):
                runner.write([claim], [claim])
                self.assertEqual(runner.page_problem([claim], runner.read_record()), "")
            text = page.read_text(encoding="utf-8")
            self.assertRegex(text, r"(?s)^before\n.*### .*\*\*false\*\*.*after\n$")
            self.assertNotIn("old", text)


if __name__ == "__main__":
    unittest.main()
