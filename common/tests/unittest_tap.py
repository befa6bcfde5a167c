#!/usr/bin/env python3
"""Runs one file of unittest tests and reports in TAP, the format every part of `make check`
speaks: unittest_tap.py FILE.py

The plan comes last, so a run that dies early has none and counts as failed."""

import importlib.util
import os
import pathlib
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))

from lib.processes import program           # noqa: E402
from lib.reports import tap_comment, tap_line   # noqa: E402


class Tap(unittest.TestResult):
    """One line per test; what went wrong follows it as comment lines."""

    def __init__(self, module, out):
        super().__init__()
        self.module, self.out = module, out
        self.count = self.failed = 0
        self.clear()

    def clear(self):
        self.wrong, self.skipped_because = [], None

    def startTest(self, test):
        self.clear()

    def stopTest(self, test):
        self.report(test)

    def report(self, test):
        self.count += 1
        self.failed += bool(self.wrong)
        name = test.id().replace(self.module + ".", "", 1)
        skip = "" if self.skipped_because is None else f"SKIP {self.skipped_because}"
        self.out.write(tap_line(not self.wrong, self.count, name, skip) + "\n")
        self.out.write(tap_comment("\n".join(self.wrong)) if self.wrong else "")
        self.out.flush()

    def addError(self, test, error):
        self.wrong.append(self._exc_info_to_string(error, test))
        if not isinstance(test, unittest.TestCase):  # setUpClass or setUpModule: no stopTest
            self.report(test)
            self.clear()

    addFailure = addError

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.wrong.append(subtest._subDescription())
            self.wrong.append(self._exc_info_to_string(error, test))

    def addSkip(self, test, reason):
        self.skipped_because = reason.replace("\n", " ")
        if not isinstance(test, unittest.TestCase):
            self.report(test)
            self.clear()

    def addUnexpectedSuccess(self, test):
        self.wrong.append("passed, but was expected to fail")


def main():
    if len(sys.argv) != 2 or not os.path.isfile(sys.argv[1]):
        print("usage: unittest_tap.py FILE.py", file=sys.stderr)
        return 2
    # What tests and their programs print must not be taken for results.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    path = pathlib.Path(sys.argv[1]).resolve()
    sys.path[0] = str(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = Tap(path.stem, out)
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    print(f"1..{result.count}", file=out, flush=True)
    return 1 if result.failed else 0


if __name__ == "__main__":
    for number in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT:
        if signal.getsignal(number) == signal.SIG_IGN:  # nohup, or a shell's "&": the programs
            signal.signal(number, signal.SIG_DFL)       # under test would inherit that
    program(main)
