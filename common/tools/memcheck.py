#!/usr/bin/env python3
"""Runs the unit tests and a choice of the suite under valgrind: what `make memcheck` calls.

    memcheck.py [PART...]       only programs with this in their path

Looks for memory errors, leaks, and descriptors that are still open at the end. `make check`
tells whether the tests pass: some of them set limits that valgrind does not keep. What valgrind
reports is kept in build/memcheck/. Exit status 1 if it reported anything.
"""

import pathlib
import re
import shlex
import shutil
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "clients"))

from lib import tree                                # noqa: E402
from lib.processes import Process, capture, program     # noqa: E402
from lib.reports import clean, unavailable          # noqa: E402

LOGS = TREE / "build" / "memcheck"
FOUND = 99      # valgrind's exit status for a finding
SLOW = "5"      # how much more patience the suite is asked to have
LIMIT = 300     # seconds, for one unit test
SUITE_LIMIT = 1800
UNKNOWN = ["io_uring"]      # to valgrind 3.19: there the server never sees a client
# Opened by the program's parent; or by a server that keeps it as long as it lives.
OPEN_TO_THE_END = re.compile(r"^Open .*(<inherited|\b(stop_wakeup_fd|server_start) )", re.S)
CASES = """known-exchange many-messages-in-one-packet half-close-with-unsent-answers late-reader
    random-fragments reset-* disconnect-in-mid-send never-reading-client reused-descriptors
    interrupted max-clients idle-timeout help-and-version wrong-command-lines
    stats-file stop-with-clients stop-alone stop-under-load""".split()


def valgrind(name, program):
    """The command that runs a program; each process of it gets a log of its own."""
    return ["valgrind", "--quiet", "--leak-check=full", "--track-fds=yes",
            f"--suppressions={TREE / 'common/tools/valgrind.supp'}",
            f"--error-exitcode={FOUND}", f"--log-file={LOGS}/{name}.%p.log", program]


def findings(pattern):
    """What the logs say, a paragraph each."""
    for log in sorted(LOGS.glob(pattern)):
        text = re.sub(r"^==\d+== ?", "", log.read_text(errors="replace"), flags=re.M)
        text = re.sub(r"^FILE DESCRIPTORS.*\n", "", text, flags=re.M)
        for paragraph in text.split("\n\n"):
            if paragraph.strip() and not OPEN_TO_THE_END.search(paragraph):
                yield paragraph.strip()


def unit_test(path):
    """Only the main process must have closed its descriptors, and only if every test passed."""
    with Process(valgrind(path.name, str(path))) as process:
        status = process.wait(LIMIT)
        if process.flooded:
            return ["it printed without end"]
        if status is None:
            return [f"not done after {LIMIT} s"]
    if not list(LOGS.glob(f"{path.name}.{process.pid}.log")):
        return ["valgrind wrote no log: was it run at all?"]
    found = [text for text in findings(f"{path.name}.*.log") if not text.startswith("Open ")]
    if status == 0:
        found += [text for text in findings(f"{path.name}.{process.pid}.log")
                  if text.startswith("Open ")]
    return found


def server(path):
    """A server with a finding ends with status FOUND, by which the suite notices it."""
    name = f"{path.relative_to(TREE).parts[0]}-{path.name}"
    wrapper = LOGS / name
    command = " ".join(shlex.quote(word) for word in valgrind(name, str(path)))
    wrapper.write_text(f"#!/bin/sh\nexec {command} \"$@\"\n")
    wrapper.chmod(0o755)
    subject = next(each for each in tree.servers(TREE) if each.path == path)
    options, arguments = tree.suite_arguments(subject)
    only = [word for case in CASES for word in ("--only", case)]
    done = capture(
        [sys.executable, str(TREE / "clients/check-server.py"), "--quick", "--ephemeral",
         "--slow-factor", SLOW, *only, *options, str(wrapper),
         *(["--", *arguments] if arguments else [])], SUITE_LIMIT)
    (LOGS / (name + ".suite")).write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.status not in (0, 1) or not re.search(r"^[1-9]\d* passed", done.stdout, re.M):
        return [f"the suite tested nothing: {done.trouble} {done.stdout[-500:]}"]
    return list(findings(name + ".*.log"))


def programs():
    for path in sorted([*TREE.glob("*/build/tests/*"), *TREE.glob("*/build/load/tests/*")]):
        if path.name.startswith(("test_", "replay_")) and tree.is_program(path):
            yield path, unit_test
    for subject in tree.servers(TREE):
        if tree.is_program(subject.path):
            yield subject.path, None if subject.path.name in UNKNOWN else server


def main():
    only = sys.argv[1:]
    if shutil.which("valgrind") is None:
        return unavailable("memcheck", "valgrind is not installed")
    shutil.rmtree(str(LOGS), ignore_errors=True)
    LOGS.mkdir(parents=True)
    failed = ran = 0
    for path, run in programs():
        name = str(path.relative_to(TREE))
        if only and not any(word in name for word in only):
            continue
        if run is None:
            print(f"skip  {name}: under valgrind its system calls do nothing")
            continue
        found = run(path)
        ran += 1
        failed += bool(found)
        print(f"{'FAIL' if found else 'ok':<5} {name}", flush=True)
        for paragraph in found[:5]:
            for line in paragraph.split("\n"):
                print("      " + clean(line))
        if len(found) > 5:
            print(f"      ... and {len(found) - 5} more in build/memcheck/")
    print(f"memcheck: {ran} programs, {failed} with findings")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    program(main)
