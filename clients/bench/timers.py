"""What a timer costs in ae and in libuv, measured by timers.c in one run."""

import json

import lab
import tables
from lib.processes import capture

PROGRAM = lab.TREE / "clients/build/bench/timers"
FEW, MANY = 1000, 100000        # timers, as in timers.c
COLUMNS = {"create": "create_ns", "delete": "delete_ns", "re-arm": "rearm_ns",
           "idle": "idle_ns"}
KEYS = tuple(COLUMNS.values())


def measure():
    """The figures of each library and number of timers; none where libuv is not installed."""
    if not PROGRAM.exists():
        return []
    run = capture([str(PROGRAM)], lab.MINUTE)
    if run.status != 0:
        raise lab.Trouble(f"{PROGRAM.name} failed: {run.trouble or run.stderr.strip()}")
    return json.loads(run.stdout)


def by_library(figures, count):
    return {row["library"]: row for row in figures if row["timers"] == count}


def table(figures):
    """The table for the terminal."""
    if not figures:
        return "Timers were not measured: libuv is not installed."
    rows = [["library", "timers", *COLUMNS]]
    for row in figures:
        rows.append([row["library"], f"{row['timers']:,}",
                     *(tables.three(row[key] / 1000) for key in KEYS)])
    return ("Timers among others, in µs: to create one, to delete one, an iteration of the loop"
            "\nthat calls one and re-arms it, and an iteration that calls none\n\n"
            + tables.align(rows))
