#!/usr/bin/env python3
"""By how many lines do neighbouring servers differ?

A reader of `make diff` should see the concurrency model and nothing else, so each pair of
neighbours has a budget of lines. The distance is the number of lines removed plus the number of
lines added by a line-by-line comparison of the two files. Empty lines do not count, and neither
does the first comment of each file, which describes the model. Writes TAP.

    check-distance.py           compare each pair with its budget
    check-distance.py --list    print the distances only
"""

import difflib
import pathlib
import runpy
import sys

HERE = pathlib.Path(__file__).resolve().parent
# One server, another server, the most lines by which they may differ. "6/edge" is a variant.
BUDGETS = [
    ("1", "2", 55),
    ("1", "3", 50),
    ("1", "4", 95),
    ("4", "5", 58),
    ("5", "6", 82),
    ("6", "7", 260),
    ("6", "8", 112),
    ("6", "6/edge", 80),
    ("6", "6/kqueue", 80),
    ("2", "2/fork", 110),
    ("2", "2/pool", 110),
    ("1", "2/prefork", 30),
    ("6", "6/workers", 190),
]
NOTES = {("1", "4"): "    the turning point: a client becomes an object"}

sources = runpy.run_path(str(HERE / "check-same.py"))["sources"]


def counted_lines(text):
    """The lines of a C file that count: not empty, and after the first comment."""
    if text.startswith("/*"):
        text = text.partition("*/")[2]
    return [line for line in text.splitlines() if line.strip()]


def distance(one, other):
    """Lines removed plus lines added between two texts. `autojunk` is off because it would not
    match frequent lines, such as a lone brace."""
    matcher = difflib.SequenceMatcher(None, counted_lines(one), counted_lines(other),
                                      autojunk=False)
    return sum(end_a - start_a + end_b - start_b
               for kind, start_a, end_a, start_b, end_b in matcher.get_opcodes()
               if kind != "equal")


def measure(tree, budgets):
    """For each pair: its two names, its budget, and its distance, or None and the name of a
    server that does not exist."""
    texts = {label: path.read_text(encoding="utf-8") for label, path in sources(tree)}
    for one, other, budget in budgets:
        missing = next((label for label in (one, other) if label not in texts), None)
        lines = None if missing else distance(texts[one], texts[other])
        yield one, other, budget, lines, missing


def main(tree, budgets):
    print(f"1..{len(budgets)}")
    failed = 0
    for number, (one, other, budget, lines, missing) in enumerate(measure(tree, budgets), 1):
        good = lines is not None and lines <= budget
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - {one} and {other} differ by at most "
              f"{budget} lines")
        if missing:
            print(f"# there is no server {missing}")
        elif not good:
            print(f"# they differ by {lines}: make diff A={one} B={other}")
    return 1 if failed else 0


def show(tree, budgets):
    for one, other, budget, lines, missing in measure(tree, budgets):
        found = f"no server {missing}" if missing else f"{lines:4} lines"
        note = NOTES.get((one, other), "")
        print(f"make diff A={one} B={other:<9} {found}, budget {budget:3}{note}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--list"]):
        print("usage: check-distance.py [--list]", file=sys.stderr)
        sys.exit(2)
    sys.exit((show if sys.argv[1:] else main)(HERE.parents[1], BUDGETS))
