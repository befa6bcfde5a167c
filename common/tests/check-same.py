#!/usr/bin/env python3
"""Are the functions that several steps repeat on purpose still the same, to the byte?

Each step is read on its own, so it repeats what its neighbours say about things it does not
teach; a repair made in one copy and forgotten in another is what this finds. SAME is the list
of such functions; a repeat that is not on it is reported as well, so that the list is whole.
Writes TAP."""

import difflib
import pathlib
import re
import sys

# function: the steps, or STEP/VARIANT, that share it
SAME = [
    ("accept_client", "1 3"),
    ("serve_client", "1 2 2/fork 2/pool"),
    ("drop_client", "4 5 5/poll"),
    ("drop_client", "6 6/edge"),
    ("pump_client", "5 5/poll"),
    ("list_remove", "6/io_uring 7"),
    ("main", "1 2 2/fork 5 5/poll 6 6/edge 6/kqueue 8"),
]


def sources(tree):
    """What the table calls a source, to the file: "6" is step 6's server.c, "6/edge" a
    variant."""
    for path in sorted([*tree.glob("step*_*/server.c"), *tree.glob("step*_*/variants/*.c")]):
        step = re.match(r"step(\d+)", path.relative_to(tree).parts[0]).group(1)
        yield (step if path.name == "server.c" else "%s/%s" % (step, path.stem)), path


def functions(text):
    """Name to (first line number, lines) of each function defined in C text of our format: it
    starts in the first column, and so does the brace that ends it."""
    found, lines = {}, text.splitlines()
    for i, line in enumerate(lines):
        name = re.match(r"[A-Za-z_][^=;]*?\b(\w+)\(", line)
        if name is None:
            continue
        opening = next((j for j in range(i, len(lines)) if lines[j] == "{"
                        or lines[j].endswith(";")), None)
        if opening is not None and lines[opening] == "{" and "}" in lines[opening:]:
            found[name.group(1)] = i + 1, lines[i:lines.index("}", opening) + 1]
    return found


def compare(name, steps, parsed):
    """What is wrong with one row of the table."""
    first = None
    for step in steps:
        if step not in parsed:
            yield "there is no such source: " + step
            continue
        path, defined = parsed[step]
        if name not in defined:
            yield "%s does not define %s" % (path, name)
            continue
        number, lines = defined[name]
        if first is None:
            first = path, number, lines
        elif lines != first[2]:
            yield from difflib.unified_diff(
                first[2], lines, "%s:%d" % first[:2], "%s:%d" % (path, number), lineterm="")


def unlisted(table, parsed):
    """Repeats that the table does not know."""
    steps = sorted(parsed)
    for i, one in enumerate(steps):
        for other in steps[i + 1:]:
            for name in sorted(set(parsed[one][1]) & set(parsed[other][1])):
                listed = any(row == name and {one, other} <= set(members.split())
                             for row, members in table)
                if not listed and parsed[one][1][name][1] == parsed[other][1][name][1]:
                    yield "%s is the same in %s and %s" % (
                        name, parsed[one][0], parsed[other][0])


def main(tree, table):
    parsed = {label: (path.relative_to(tree), functions(path.read_text(encoding="utf-8")))
              for label, path in sources(tree)}
    rows = [("%s is the same in steps %s" % (name, members),
             compare(name, members.split(), parsed)) for name, members in table]
    rows.append(("the list of repeats is whole", unlisted(table, parsed)))
    print("1..%d" % len(rows))
    failed = 0
    for number, (what, wrong) in enumerate(rows, 1):
        wrong = list(wrong)
        failed += bool(wrong)
        print("%s %d - %s" % ("not ok" if wrong else "ok", number, what))
        for line in wrong:
            print("# " + line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(__file__).resolve().parents[2], SAME))
