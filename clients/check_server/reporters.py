"""How a run is told: lines for people, TAP for harnesses, JUnit XML for CI."""

import sys
from xml.etree import ElementTree

from .runner import FAIL, OK, SKIP


def summary(counts):
    return "%d passed, %d failed, %d skipped" % (counts[OK], counts[FAIL], counts[SKIP])


class Lines:
    """One line per case as it ends, more only for a failure, and the summary."""

    def __init__(self, out=sys.stdout):
        self.out = out

    def start(self, cases):
        self.width = max((len(case.name) for case in cases), default=0)

    def case(self, result):
        promise = result.case.promise
        if result.status == SKIP:
            promise += " -- skipped: " + result.reason
        self.say("%-4s  %-*s  %s (%.2f s)" % (
            result.status, self.width, result.case.name, promise, result.seconds))
        if result.note:
            self.say("        " + result.note)
        if result.status == FAIL:
            for line in [*result.reason.splitlines(), *result.details]:
                self.say("        " + line)

    def end(self, counts):
        self.say(summary(counts))

    def say(self, line):
        print(line, file=self.out, flush=True)


class Tap(Lines):
    """Test Anything Protocol, version 13."""

    def start(self, cases):
        self.number = 0
        self.say("TAP version 13")
        self.say("1..%d" % len(cases))

    def case(self, result):
        self.number += 1
        name = "%s: %s" % (result.case.name, result.case.promise)
        self.say("%s %d - %s%s" % (
            "not ok" if result.status == FAIL else "ok", self.number, name.replace("#", ""),
            " # SKIP " + result.reason if result.status == SKIP else ""))
        if result.note:
            self.say("# " + result.note)
        if result.status == FAIL:
            for line in [*result.reason.splitlines(), *result.details]:
                self.say("# " + line)

    def end(self, counts):
        self.say("# " + summary(counts))


class JUnit:
    """One <testsuite> in a file, in the form CI systems read."""

    def __init__(self, path, suite):
        self.path = path
        self.suite = suite
        self.results = []

    def start(self, cases):
        with open(self.path, "w", encoding="utf-8"):
            pass    # an unwritable file is found out before the run, not after it

    def case(self, result):
        self.results.append(result)

    def end(self, counts):
        suite = ElementTree.Element(
            "testsuite", name=self.suite, tests=str(len(self.results)),
            failures=str(counts[FAIL]), skipped=str(counts[SKIP]), errors="0",
            time="%.3f" % sum(result.seconds for result in self.results))
        for result in self.results:
            element = ElementTree.SubElement(
                suite, "testcase", name=result.case.name, classname=self.suite,
                time="%.3f" % result.seconds)
            if result.status == FAIL:
                failure = ElementTree.SubElement(
                    element, "failure", message=_printable(result.reason))
                failure.text = _printable("\n".join([result.case.promise, *result.details]))
            elif result.status == SKIP:
                ElementTree.SubElement(element, "skipped", message=_printable(result.reason))
        ElementTree.ElementTree(suite).write(self.path, encoding="utf-8",
                                             xml_declaration=True)


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


def _printable(text):
    """XML 1.0 has no place for control characters, not even escaped."""
    return "".join(char if char == "\n" or " " <= char <= "\ud7ff" else "?" for char in text)
