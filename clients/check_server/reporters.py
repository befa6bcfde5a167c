"""The forms of a report: lines for people, TAP for harnesses, JUnit XML for CI."""

import sys

from lib import reports
from lib.reports import FAIL, OK, SKIP, clean


def summary(counts):
    return f"{counts[OK]} passed, {counts[FAIL]} failed, {counts[SKIP]} skipped"


class Lines:
    """One line per case as it ends, more only for a failure; in the end one for each reason to
    skip cases, and the summary."""

    def __init__(self, out=sys.stdout):
        self.out = out

    def prepare(self):
        """Find out before the run whether its results can be written."""

    def start(self, cases):
        self.width = max((len(case.name) for case in cases), default=0)
        self.skipped = {}       # reason: the names of the cases

    def case(self, result):
        if result.status == SKIP:
            self.skipped.setdefault(result.reason, []).append(result.case.name)
            return
        self.say(f"{result.status:<4}  {result.case.name:<{self.width}}  {result.case.promise} "
                 f"({result.seconds:.2f} s)")
        if result.note:
            self.say("        " + result.note)
        if result.status == FAIL:
            for line in [*reports.lines(result.reason), *result.details]:
                self.say("        " + line)

    def end(self, counts):
        for reason, names in self.skipped.items():
            which = f"{len(names)} cases" if names[1:] else names[0]
            self.say(f"{SKIP:<4}  {which} -- {reason}")
        self.say(summary(counts))

    def say(self, line):
        print(clean(line), file=self.out, flush=True)


class Tap(Lines):
    """Test Anything Protocol, version 13."""

    def start(self, cases):
        self.number = 0
        self.say("TAP version 13")
        self.say(f"1..{len(cases)}")

    def case(self, result):
        self.number += 1
        self.say(reports.tap_line(
            result.status != FAIL, self.number, f"{result.case.name}: {result.case.promise}",
            "SKIP " + result.reason if result.status == SKIP else ""))
        if result.note:
            self.say("# " + result.note)
        if result.status == FAIL:
            for line in [*reports.lines(result.reason), *result.details]:
                self.say("# " + line)

    def end(self, counts):
        self.say("# " + summary(counts))


class JUnit:
    """One <testsuite> in a file, in the form that CI systems read."""

    def __init__(self, path, suite):
        self.path = path
        self.suite = suite
        self.results = []

    def prepare(self):
        reports.start_junit(self.path, self.suite)

    def start(self, cases):
        pass

    def case(self, result):
        self.results.append(reports.Result(
            result.status, result.case.name, result.seconds, result.reason,
            [result.case.promise, *result.details]))

    def end(self, counts):
        reports.write_junit(self.path, self.suite, self.results)


class All:
    """Several reporters as one."""

    def __init__(self, reporters):
        self.reporters = reporters

    def start(self, cases):
        for reporter in self.reporters:
            reporter.start(cases)

    def case(self, result):
        for reporter in self.reporters:
            reporter.case(result)

    def end(self, counts):
        for reporter in self.reporters:
            reporter.end(counts)
