#!/usr/bin/env python3
"""Are the functions that several steps repeat on purpose still equal, to the byte?

Each step is read on its own, so it repeats some functions of its neighbours. This finds a
repair that was made in one copy and forgotten in another. SAME is the list of these functions.
A repeat that is not in the list is reported as well, so that the list is complete. Writes
TAP."""

import difflib
import pathlib
import re
import sys

# function: the steps, or STEP/VARIANT, that share it
SAME = [
    ("serve_client", "1 2 2/fork 2/pool 2/prefork"),
    ("pump_client", "4 5 5/poll"),
    ("pump_client", "6 6/workers"),
    ("watch", "6 6/workers"),
    ("main", "1 2 2/fork 5 5/poll 6 6/edge 6/io_uring 6/kqueue 8 8/fiber"),
]


def sources(tree):
    """Pairs of a source's name in the table and its file: "6" is step 6's server.c, "6/edge" is
    a variant of it."""
    for path in sorted([*tree.glob("step*_*/server.c"), *tree.glob("step*_*/variants/*.c")]):
        step = re.match(r"step(\d+)", path.relative_to(tree).parts[0]).group(1)
        yield (step if path.name == "server.c" else f"{step}/{path.stem}"), path


def functions(text):
    """Maps the name of each function defined in C text to (number of its first line, lines). In
    our format a function starts in the first column, and so does the brace that ends it."""
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
    """Yields what is wrong with one row of the table."""
    first = None
    for step in steps:
        if step not in parsed:
            yield f"there is no such source: {step}"
            continue
        path, defined = parsed[step]
        if name not in defined:
            yield f"{path} does not define {name}"
            continue
        number, lines = defined[name]
        if first is None:
            first = path, number, lines
        elif lines != first[2]:
            yield from difflib.unified_diff(
                first[2], lines, f"{first[0]}:{first[1]}", f"{path}:{number}", lineterm="")


def unlisted(table, parsed):
    """Yields the repeats that are not in the table."""
    steps = sorted(parsed)
    for i, one in enumerate(steps):
        for other in steps[i + 1:]:
            for name in sorted(set(parsed[one][1]) & set(parsed[other][1])):
                listed = any(row == name and {one, other} <= set(members.split())
                             for row, members in table)
                if not listed and parsed[one][1][name][1] == parsed[other][1][name][1]:
                    yield f"{name} is the same in {parsed[one][0]} and {parsed[other][0]}"


def main(tree, table):
    parsed = {label: (path.relative_to(tree), functions(path.read_text(encoding="utf-8")))
              for label, path in sources(tree)}
    rows = [(f"{name} is the same in steps {members}",
             compare(name, members.split(), parsed)) for name, members in table]
    rows.append(("the list of repeats is complete", unlisted(table, parsed)))
    print(f"1..{len(rows)}")
    failed = 0
    for number, (what, wrong) in enumerate(rows, 1):
        wrong = list(wrong)
        failed += bool(wrong)
        print(f"{'not ok' if wrong else 'ok'} {number} - {what}")
        for line in wrong:
            print("# " + line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(__file__).resolve().parents[2], SAME))
