#!/usr/bin/env python3
"""Which lines do the tests reach? What `make coverage` calls.

    coverage.py [--keep] [PART...]

Builds a copy of the tree in build/coverage/ with gcc's --coverage, runs the tests there (the
suites with --quick; PARTs as check-all.py takes them) and prints for each file the share of
lines that ran, and which did not. Exit status 1 if a file falls short of its limit. Whether the
tests pass does not matter here: a test may make calls fail that gcc needs to write its counts.
`make check` says whether they pass.
"""

import argparse
import fnmatch
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "clients"))

from lib.processes import Process, program  # noqa: E402
from lib.reports import unavailable     # noqa: E402

COPY = TREE / "build" / "coverage"
FLAGS = "-O0 -g --coverage -fprofile-update=atomic"
EXIT = """/* Counts are written by exit, and now also by _exit, which ends forked children; but
 * not in faults.c's programs, where the calls that writing takes would be made to fail. */
void __gcov_dump(void);
int __wrap_main(int argc, char **argv) __attribute__((weak));
void __real__exit(int status) __attribute__((noreturn));
void __wrap__exit(int status);
void __wrap__exit(int status)
{
    if (!__wrap_main)
        __gcov_dump();
    __real__exit(status);
}
"""
PARTS = [*(f"common/{path.stem}" for path in sorted(TREE.glob("common/tests/test_*.c"))),
         "common/replay_", "clients/test_hist", "clients/test_load", "step"]
LIMITS = [      # the first pattern decides; per cent of lines
    ("*/tests/*", None),    # not even listed
    ("*/demos/*", 0),
    ("clients/*.c", 0),
    ("common/*.c", 95),
    ("step8_ae/ae*.c", 95),
    ("step*.c", 90),
]


def copy_tree():
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for path in TREE.glob("*"):
        if path.is_dir() and path.name != "build":
            shutil.copytree(str(path), str(COPY / path.name),
                            ignore=shutil.ignore_patterns("build", "server", "__pycache__"))
        elif path.is_file():
            shutil.copy2(str(path), str(COPY))


def build():
    """Returns whether that went well."""
    (COPY / "exit.c").write_text(EXIT)
    # In the environment, where the Makefiles can add to them.
    environment = {**os.environ, "LDFLAGS": "-Wl,--wrap=_exit",
                   "LDLIBS": shlex.quote(str(COPY / "exit.o"))}
    make = ["make", "-s", "-j2", "CC=gcc", "CFLAGS=" + FLAGS]
    return all(subprocess.run(command, cwd=str(COPY), env=environment,
                              stdout=subprocess.DEVNULL).returncode == 0
               for command in (["gcc", "-c", "exit.c"], make + ["all"], make + ["tests"]))


def ranges(numbers):
    """[3, 4, 5, 9] as "3-5 9"."""
    spans = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return " ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def limit_of(name):
    return next((limit for pattern, limit in LIMITS
                 if fnmatch.fnmatchcase(name, pattern)), None)


def collect():
    """{file: {line: how often it ran}}, added up over all programs a source went into; the
    files that never ran among them."""
    counts = {}
    for data in COPY.glob("*/build/**/*.gcno"):
        told = subprocess.run(["gcov", "--json-format", "--stdout", str(data)], cwd=str(COPY),
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        told = json.loads(told.stdout)
        for entry in told["files"]:
            path = pathlib.Path(told["current_working_directory"], entry["file"]).resolve()
            if COPY in path.parents:
                lines = counts.setdefault(str(path.relative_to(COPY)), {})
                for line in entry["lines"]:
                    number = line["line_number"]
                    lines[number] = lines.get(number, 0) + max(line["count"], 0)
    return counts


def report(counts):
    """Prints the table; returns the names of the files that fall short."""
    short = []
    print(f"\n{'':<36} {'lines':>6} {'reached':>8}   {'not reached'}")
    for name, lines in sorted(counts.items()):
        limit = limit_of(name)
        if limit is None or not lines:
            continue
        missed = [number for number, count in sorted(lines.items()) if not count]
        share = 100 * (len(lines) - len(missed)) / len(lines)
        print(f"{name!s:<36} {len(lines):6} {share:7.1f}%   "
              f"{ranges(missed)}{f'   BELOW {limit} %' if share < limit else ''}")
        if share < limit:
            short.append(name)
    return short


def main():
    parser = argparse.ArgumentParser(prog="coverage.py", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", metavar="PART", nargs="*", default=PARTS,
                        help="run only the parts of the tests with this in their name")
    parser.add_argument("--keep", action="store_true",
                        help="do not copy and build again, and add to what ran before")
    settings = parser.parse_args()
    absent = [tool + " is not installed" for tool in ("gcc", "gcov") if not shutil.which(tool)]
    if sys.platform == "darwin":
        absent = ["gcc is clang on this system"]
    if absent:
        return unavailable("coverage", ", ".join(absent))
    os.umask(0)     # servers that gave up their rights are to add to the counts as well
    if not settings.keep:
        copy_tree()
        if not build():
            print("FAIL  coverage: the build failed")
            return 1
    command = [sys.executable, str(COPY / "common/tests/check-all.py"), "--quick"]
    environment = {**os.environ, "CHECK_SLOW": os.environ.get("CHECK_SLOW", "2")}
    with Process([*command, *settings.parts], stdout=1, stderr=2, env=environment) as tests:
        tests.wait(None)
    short = report(collect())
    print("\nbelow the limit: " + ", ".join(short) if short else
          "\nevery file reaches its limit")
    return 1 if short else 0


if __name__ == "__main__":
    program(main, grace=5)
