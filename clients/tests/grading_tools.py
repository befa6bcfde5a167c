"""What the tests of the grader share."""

import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.dirname(HERE)
ROOT = os.path.dirname(CLIENTS)
SERVERS = os.path.join(HERE, "servers")
GRADE = os.path.join(CLIENTS, "grade.py")
COURSE = os.path.join(CLIENTS, "courses", "echo.json")
BROKEN = os.path.join(SERVERS, "broken.py")
REFERENCE = os.path.join(SERVERS, "reference.py")
THREADS = os.path.join(SERVERS, "threads.py")
STREAMS = os.path.join(SERVERS, "streams.py")
sys.path[:0] = [CLIENTS, SERVERS]

with open(COURSE, encoding="utf-8") as file:
    ECHO = json.load(file)
STAGES = [stage for part in ECHO["parts"] for stage in part["stages"]]
HINTS = [(case["case"], hint) for stage in STAGES for case in stage["cases"]
         for hint in case.get("hints", [])]


def grade(*arguments, memory="", timeout=300, env=None):
    """Run grade.py; the finished process, with its JSON as `data` (None if it wrote none)."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "results.json")
        done = subprocess.run(
            [sys.executable, GRADE, "--json", path, *arguments], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, encoding="utf-8",
            timeout=timeout, env={**os.environ, "GRADE_MEMORY": str(memory), **(env or {})})
        done.data = None
        if os.path.exists(path) and os.path.getsize(path):
            with open(path, encoding="utf-8") as results:
                done.data = json.load(results)
    return done


def grade_broken(bug, *options, **more):
    return grade("--seed", "1", *options, BROKEN, "--", "--bug", bug, **more)


def points(data):
    """{part: points}"""
    return {part["name"]: part["points"] for part in data["parts"]}


def most(part):
    return sum(case["points"] for each in ECHO["parts"] if each["name"] == part
               for stage in each["stages"] for case in stage["cases"])


def up_to(number):
    """The points of the stages up to this one."""
    return sum(case["points"] for stage in STAGES[:number] for case in stage["cases"])


def hints_of(data):
    """The first lines of the hints that were given."""
    return {case["hint"] for stage in data["stages"] for case in stage["cases"]
            if case["hint"]}


def hints_for(bug):
    """The first lines of the hints that are bound to a broken server."""
    return {hint["lines"][0] for _, hint in HINTS if bug in hint["bugs"]}


def outcome(data):
    """What must be the same in each run: points, and how each case went."""
    return points(data), [(case["name"], case["status"], case["points"])
                          for stage in data["stages"] for case in stage["cases"]]
