#!/usr/bin/env python3
"""Runs the unit tests and a choice of the suite under valgrind: what `make memcheck` calls.

    memcheck.py [PART...]       only programs with this in their path

Looks for memory errors, leaks, and descriptors that are still open at the end. Whether the
tests pass is `make check`'s business: some of them ask for limits that valgrind does not keep.
What valgrind said is kept in build/memcheck/. Exit status 1 if anything was found.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]
LOGS = TREE / "build" / "memcheck"
FOUND = 99      # valgrind's exit status for a finding
SLOW = "5"      # how much more patience the suite is asked to have
LIMIT = 300     # seconds, for one unit test
UNKNOWN = ["io_uring"]      # to valgrind 3.19: its server there never hears of a client
# Opened by whoever started the program; or by a server, to have it as long as it lives.
OPEN_TO_THE_END = re.compile(r"^Open .*(<inherited|\b(cli_wakeup_fd|cli_start) )", re.S)
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


def unit_test(program):
    """Descriptors are the main process's affair, and only if every test cleared up."""
    name = program.name
    with subprocess.Popen(valgrind(name, str(program)), stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            return [f"not done after {LIMIT} s"]
    found = [text for text in findings(name + ".*.log") if not text.startswith("Open ")]
    if status == 0:
        found += [text for text in findings(f"{name}.{process.pid}.log")
                  if text.startswith("Open ")]
    return found


def server(program):
    """The suite's verdict counts for this much: a server with a finding ends with FOUND."""
    name = f"{program.relative_to(TREE).parts[0]}-{program.name}"
    wrapper = LOGS / name
    wrapper.write_text("#!/bin/sh\nexec "
                       f"{' '.join( shlex.quote(word) for word in valgrind(name, str(program)))} \"$@\"\n")
    wrapper.chmod(0o755)
    step, variant = program.parent, []
    if program.name != "server":
        step, variant = program.parents[2], ["VARIANT=" + program.name]
    told = subprocess.run(["make", "-s", "--no-print-directory", "-C", str(step),
                           "print-suite-args", *variant],
                          stdout=subprocess.PIPE, encoding="utf-8")
    options = shlex.split(told.stdout)
    cut = options.index("--") if "--" in options else len(options)
    only = [word for case in CASES for word in ("--only", case)]
    done = subprocess.run(
        [sys.executable, str(TREE / "clients/check-server.py"), "--quick", "--ephemeral",
         "--slow-factor", SLOW, *only, *options[:cut], str(wrapper), *options[cut:]],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding="utf-8")
    (LOGS / (name + ".suite")).write_text(done.stdout)
    if " 0 passed" in "\n" + done.stdout or done.returncode not in (0, 1):
        return [f"the suite tested nothing: {done.stdout[-500:]}"]
    return list(findings(name + ".*.log"))


def programs():
    for path in sorted([*TREE.glob("*/build/tests/*"), *TREE.glob("*/build/load/tests/*")]):
        if path.name.startswith(("test_", "replay_")) and path.is_file() \
                and os.access(str(path), os.X_OK):
            yield path, unit_test
    for path in sorted([*TREE.glob("step*_*/server"), *TREE.glob("step*_*/build/variants/*")]):
        if path.is_file() and os.access(str(path), os.X_OK):
            yield path, None if path.name in UNKNOWN else server


def main(only):
    if shutil.which("valgrind") is None:
        demanded = os.environ.get("REQUIRE_ALL", "0") != "0"
        print(f"{'FAIL' if demanded else 'skip'}  memcheck: valgrind is not installed")
        return 1 if demanded else 0
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
        print(f"{('FAIL' if found else 'ok')!s:<5} {name}", flush=True)
        for paragraph in found[:5]:
            print("      " + paragraph.replace("\n", "\n      "))
        if len(found) > 5:
            print(f"      ... and {len(found) - 5} more in build/memcheck/")
    print(f"memcheck: {ran} programs, {failed} with findings")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
