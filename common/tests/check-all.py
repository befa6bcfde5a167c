#!/usr/bin/env python3
"""Runs every test of the tree, once it is built, and sums them up: what `make check` calls.

Each part is a program that writes TAP to its standard output:

    */tests/test_*.c    cmocka tests, built to build/tests/test_*
    */tests/fuzz_*.c    fuzz targets, which replay their corpus: build/tests/replay_*
    */tests/test_*.py   unittest tests, also those of a folder in it: clients/load/tests;
                        with --full also */tests/long_*.py
    */tests/check-*.py  checks of the tree itself
    clients/bench/check.py
                        what the course claims about cost; not if steps were chosen
    clients/fleet/check.py
                        a server behind HAProxy; not if steps were chosen
    step*/server        through check-server.py, with the step's own cases in tests/lesson.py:
                        first the cases that only wait, then alone those that measure time
    build/variants/*    the same with tests/lesson_NAME.py, and --quick unless --full is given
    both of them        through common/tests/faults.c (build/tests/faults_*), and inject.py

A part fails if it reports a failure, reports nothing or less than it planned, exits with
another status than 0, crashes, takes or prints too much, leaves processes behind, or if a
sanitizer complains about any of its processes. The other parts go on. The whole output of each
part is kept in build/check/. Parts that only wait run side by side; parts that measure time run
alone.

Exit status: 0 nothing failed, 1 something failed, 2 wrong command line, 128 + the number of the
signal that ended it. Whatever was started has ended by then.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time
from collections import Counter

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "clients"))

from lib import figures, processes, reports, tree   # noqa: E402
from lib.reports import FAIL, OK, SKIP, clean       # noqa: E402

LINE = re.compile(r"(ok|not ok)\b[ \t]*(?:\d+)?[ \t]*(?:- )?(.*)")
SHOWN = 40      # lines of output per failure
READ = 8 << 20  # bytes of a part's output that are looked at
GRACE = 3       # seconds that parts have to end what they started
REPORT_EVERY = 30   # seconds between two lines about what is running, without a terminal
SANITIZERS = "ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"


class Part:
    """One program to run, and its results."""

    def __init__(self, area, name, command, limit, alone=False, expected=2.0, in_c=False):
        self.area, self.name, self.command = area, name, command
        self.limit, self.alone = limit, alone
        self.expected = expected    # seconds, as a guess, until a run has shown it
        self.in_c = in_c            # cmocka writes its TAP to both streams
        self.results = []           # (status, name, lines that belong to it)
        self.output, self.errors = [], []
        self.began, self.seconds = None, 0.0
        self.work = 0.0             # seconds of processor time

    def __str__(self):
        return f"{self.area}/{self.name}"

    def count(self):
        return Counter(status for status, _, _ in self.results)

    def failed(self, why, lines=None):
        if lines is None:
            lines = [*self.output, *self.errors][-SHOWN:]
        self.results.append((FAIL, why, lines))

    def judge(self, ended):
        """Take the results from the output, which is TAP. A plan is required. Several groups,
        each with a plan, may follow one another. `ended` says how the program ended, if it
        did not end well."""
        planned, seen = None, 0
        for line in self.output + (self.errors if self.in_c else []):
            plan, result = re.match(r"1\.\.(\d+)", line), LINE.match(line)
            if plan:
                planned = (planned or 0) + int(plan.group(1))
            elif result:
                seen += 1
                self.take(*result.groups())
            elif line.startswith("Bail out!"):
                self.failed(line)
            elif self.results and line.strip():
                self.results[-1][2].append(line)
        if not planned and not seen:
            self.failed(ended or "it tested nothing")
        elif planned is None:
            self.failed(ended or "no plan: it ended early")
        elif seen < planned:
            self.failed(ended or f"{planned - seen} of {planned} tests never reported")
        elif ended and not (ended.startswith("exit") and self.count()[FAIL]):
            self.failed(ended)

    def take(self, verdict, name):
        name, _, directive = name.partition("# ")
        if re.match("skip", directive, re.I):     # cmocka 1.1.5 says "not ok 3 # SKIP name"
            reason = directive[len("skip"):].strip()
            self.results.append((SKIP, name.strip() or reason, [reason]))
        else:
            self.results.append((OK if verdict == "ok" else FAIL, name.strip(), []))


class Runner:
    """Runs parts, some at a time."""

    def __init__(self, root, slow):
        self.root, self.slow = root, slow
        self.logs = root / "build" / "check"
        self.logs.mkdir(parents=True, exist_ok=True)

    def run(self, part):
        log = self.logs / str(part).replace("/", "-")
        environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
        for name in SANITIZERS:     # they write to LOG.sanitizer.PID
            environment[name] = f"{environment.get(name, '')}:log_path='{log}.sanitizer'"
        for old in log.parent.glob(log.name + ".sanitizer.*"):
            old.unlink()
        part.began = time.monotonic()
        # Two files: half a line on one stream must not meet a line of the other.
        with open(f"{log}.out", "w+b") as out, open(f"{log}.err", "w+b") as err:
            try:
                process = processes.Process(part.command, output=out, stderr=err,
                                            cwd=str(self.root), env=environment)
            except OSError as error:        # most likely it was not built
                part.failed(str(error))
                return part
            ended = self.wait(part, process)
            left = [figures.command_line(pid) for pid in process.left_behind(1)]
            process.end()
            part.seconds = time.monotonic() - part.began
            part.output = reports.lines(processes.read_bounded(out, READ))
            part.errors = reports.lines(processes.read_bounded(err, READ))
        part.judge(ended)
        found = complaints(log)
        if found:
            others = f"; {len(found) - 1} more in {log}.sanitizer.*" if found[1:] else ""
            part.failed(f"a sanitizer complained {len(found)} times: see {found[0]}{others}",
                        reports.lines(head(found[0])))
        if left:
            part.failed("left processes behind: " + ", ".join(left))
        return part

    def wait(self, part, process):
        """Until it has ended; return how, if not well."""
        limit = part.limit * self.slow
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and not os.waitid(
                os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.02)
        with contextlib.suppress(OSError):
            part.work = figures.cpu_seconds_with_waited(process.pid)
        status = process.wait(0)
        if process.flooded:
            return f"ended because it printed more than {process.limit >> 20} MiB"
        if status is None:
            process.end(GRACE)
            return f"not done after {limit:g} s"
        return how_it_ended(status)


def complaints(log):
    """Files with what sanitizers said; but not that strace kept one from looking for leaks."""
    return [path for path in sorted(log.parent.glob(log.name + ".sanitizer.*"))
            if b"ERROR" in path.read_bytes() or b"under ptrace" not in path.read_bytes()]


def head(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(1 << 16)


def how_it_ended(status):
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:      # real-time signals have no names
            name = "a real-time signal"
        return f"killed by signal {-status} ({name})"
    return f"exit status {status}" if status else ""


def find_parts(root, steps, level):
    """All the parts there are in the tree, or only those of some steps."""
    step_areas = [area for _, area in tree.steps(root, steps)]
    for area in ([] if steps else [root / "common", root / "clients"]) + step_areas:
        for folder in "tests", "load/tests":
            yield from unit_tests(area, folder)
        for path in sorted([*area.glob("tests/test_*.py"), *area.glob("*/tests/test_*.py")]):
            yield Part(area.name, path.name,
                       [sys.executable, str(HERE / "unittest_tap.py"), str(path)], 600,
                       expected=100 if path.name == "test_check_server.py" else 8)
        for path in sorted(area.glob("tests/long_*.py")) if level == "--full" else []:
            yield Part(area.name, path.name,
                       [sys.executable, str(HERE / "unittest_tap.py"), str(path)], 3600,
                       alone=True, expected=900)
        for path in sorted(area.glob("tests/check-*.py")):
            if path.name != "check-all.py":     # this program
                documents = path.name == "check-docs.py"
                yield Part(area.name, path.name, [sys.executable, str(path)],
                           300 if documents else 60, expected=60 if documents else 2)
    claims = root / "clients/bench/check.py"
    if claims.is_file() and not steps:
        yield Part("clients", "bench/check.py", [sys.executable, str(claims)], 120, alone=True,
                   expected=60)
    behind = root / "clients/fleet/check.py"
    if behind.is_file() and not steps:
        yield Part("clients", "fleet/check.py", [sys.executable, str(behind)], 180,
                   expected=15)
    for server in tree.servers(root, steps):
        yield from suites(root, server, level)


def unit_tests(area, folder):
    """The programs built from the test sources. A source without a program is a part too, and
    fails; a program without a source is left over from an earlier build. One source may make
    several programs, such as test_ae_epoll and test_ae_select. Fuzz targets replay their
    corpus."""
    stems = [path.stem for path in sorted((area / folder).glob("test_*.c"))]
    stems += [path.stem.replace("fuzz", "replay") for path in (area / folder).glob("fuzz_*.c")]
    for stem in stems:
        built = [path for path in sorted((area / "build" / folder).glob(f"{stem}*"))
                 if tree.is_program(path) and stem == max(
                     (other for other in stems if path.name.startswith(other)), key=len)]
        for program in built or [area / "build" / folder / stem]:
            yield Part(area.name, program.name, [str(program)], 120, in_c=True)


def suites(root, server, level):
    """The suite, and the same server while its calls fail: by faults.c, and by the kernel."""
    options, arguments = tree.suite_arguments(server)
    name, path = server.variant or "server", str(server.path)
    tail = [path, *(["--", *arguments] if arguments else [])]
    command = [sys.executable, str(root / "clients/check-server.py"), "--contract", "full",
               "--tap", "--ephemeral", *options]
    level = level or ("--quick" if server.variant else "")  # all variants at length take long
    lesson = server.area / "tests" / (
        f"lesson_{server.variant}.py" if server.variant else "lesson.py")
    also = ["--also", str(lesson)] if lesson.is_file() else []
    if level == "--quick":
        yield Part(server.area.name, name, [*command, level, *also, *tail], 180, expected=12)
    else:
        command += [level] if level else []
        limit = 600 if level else 180
        yield Part(server.area.name, name, [*command, "--not-timed", *also, *tail], limit,
                   expected=35)
        yield Part(server.area.name, f"{name} timed", [*command, "--timed", *also, *tail],
                   limit, alone=True, expected=8)
    if (root / "common/tests/faults.c").is_file():
        faults = server.area / f"build/tests/faults_{name}"
        yield Part(server.area.name, faults.name, [str(faults), *arguments], 120, in_c=True)
    if (root / "clients/tests/inject.py").is_file():
        yield Part(server.area.name, f"{name} under faults",
                   [sys.executable, str(root / "clients/tests/inject.py"), *tail], 120,
                   expected=15)


def tell(part):
    count = part.count()
    verdict = FAIL if count[FAIL] else OK
    numbers = [f"{count[OK]} passed"]
    numbers += [f"{count[FAIL]} failed"] if count[FAIL] else []
    numbers += [f"{count[SKIP]} skipped"] if count[SKIP] else []
    print(f"{verdict:<4}  {part!s:<44} {', '.join(numbers):<34} {part.seconds:6.1f} s"
          f" {part.work:6.1f} s")
    if count[FAIL]:
        tell_failures(part)
        print()
    sys.stdout.flush()


def tell_failures(part):
    for status, name, lines in part.results:
        if status == FAIL:
            print(f"\nFAIL  {part}: {clean(name)}")
            for line in lines[:SHOWN]:
                print("      " + clean(line))
            if len(lines) > SHOWN:
                print(f"      ... {len(lines) - SHOWN} lines more in build/check/")


class Progress:
    """What is running and about how long is left: on a terminal a line that is drawn again and
    again, elsewhere a line now and then. Estimates come from the last run."""

    def __init__(self, parts, jobs, file):
        self.parts, self.jobs, self.file = parts, jobs, file
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.said = time.monotonic()
        self.expected = {}
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            self.expected = {name: float(seconds) for name, seconds in known.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            pass    # the first run, or a file that was cut short

    def estimate(self, part):
        return self.expected.get(str(part), part.expected)

    def left(self, done):
        """Seconds."""
        now, side_by_side, alone = time.monotonic(), 0.0, 0.0
        for part in self.parts:
            if part not in done:
                spent = now - part.began if part.began else 0.0
                left = max(1.0, self.estimate(part) - spent)
                if part.alone:
                    alone += left
                else:
                    side_by_side += left
        return side_by_side / self.jobs + alone

    def line(self, done):
        running = [str(part) for part in self.parts if part.began and part not in done]
        minutes, seconds = divmod(round(self.left(done)), 60)
        return (f"{len(done)} of {len(self.parts)} parts done, about {minutes}:{seconds:02} "
                f"left; running: {', '.join(running)}")

    def show(self, done):
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{self.line(done)[:width]}", end="", flush=True)
        elif time.monotonic() - self.said > REPORT_EVERY:
            self.said = time.monotonic()
            print(f"      {self.line(done)}", flush=True)

    def clear(self):
        self.said = time.monotonic()
        if self.terminal:
            print("\r\033[K", end="", flush=True)

    def save(self):
        known = {**self.expected, **{str(part): round(part.seconds, 1) for part in self.parts}}
        self.file.write_text(json.dumps(known, indent=1), encoding="utf-8")


def run_all(parts, runner, jobs):
    """Side by side those that only wait, the longest first; then one by one the others."""
    progress = Progress(parts, jobs, runner.logs / "seconds.json")
    done = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        def run(batch):
            waiting = {pool.submit(runner.run, part) for part in batch}
            while waiting:
                ended, waiting = concurrent.futures.wait(
                    waiting, 0.5, concurrent.futures.FIRST_COMPLETED)
                if ended:
                    progress.clear()
                for each in ended:
                    done.append(each.result())
                    tell(each.result())
                if waiting:
                    progress.show(done)

        run(sorted((part for part in parts if not part.alone), key=progress.estimate,
                   reverse=True))
        for part in parts:
            if part.alone:
                run([part])
    progress.save()


def summarise(parts, seconds):
    print(f"\n{'':<26} {'passed':>7} {'failed':>7} {'skipped':>7} {'seconds':>9}")
    for area in dict.fromkeys(part.area for part in parts):
        mine = [part for part in parts if part.area == area]
        count = sum((part.count() for part in mine), Counter())
        red = ", ".join(part.name for part in mine if part.count()[FAIL])
        print(f"{area:<26} {count[OK]:7} {count[FAIL]:7} {count[SKIP]:7} "
              f"{sum(part.seconds for part in mine):9.1f}"
              f"{sum(part.work for part in mine):9.1f}"
              f"{'   FAILED: ' + red if red else ''}")
    print(f"{'whole run':<26} {seconds:33.1f}")
    reasons = Counter(lines[0] for part in parts for status, _, lines in part.results
                      if status == SKIP)
    if reasons:
        print("\nskipped:")
        for reason, times in reasons.most_common():
            print(f"{times:5}  {clean(reason) or '(no reason given)'}")
    for part in parts:
        tell_failures(part)
    count = sum((part.count() for part in parts), Counter())
    print(f"\n{count[OK]} passed, {count[FAIL]} failed, {count[SKIP]} skipped")
    return count[FAIL]


def write_junit(folder, parts):
    """One file per part, in the form CI systems read."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        results = [reports.Result(status, name, 0.0, (lines or [""])[0] if status == SKIP
                                  else name, lines) for status, name, lines in part.results]
        reports.write_junit(folder / f"{str(part).replace('/', '-')}.xml", str(part), results)


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="check-all.py", description=__doc__.partition("\n\n")[0],
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("only", metavar="PART", nargs="*", help="only the parts with this in their name")
    add("--steps", metavar="N,...", default="", help="only the parts of these steps")
    add("--jobs", type=int, default=max(3, 2 * (os.cpu_count() or 1)), metavar="N",
        help="how many parts that measure no time run at once (default: two per processor, "
        "at least 3: they mostly wait)")
    add("--junit", type=pathlib.Path, metavar="DIR", help="write JUnit XML, a file per part")
    add("--list", action="store_true", help="list the parts and end")
    add("--tree", type=pathlib.Path, default=HERE.parents[1], help=argparse.SUPPRESS)
    level = parser.add_mutually_exclusive_group()
    for flag in "--quick", "--full":
        level.add_argument(flag, dest="level", action="store_const", const=flag,
                           help="passed on to check-server.py")
    settings = parser.parse_args(arguments)
    if not re.fullmatch(r"(\d+(,\d+)*)?", settings.steps):
        parser.error(f"--steps takes numbers, such as 1,6, not {settings.steps!r}")
    settings.steps = {int(number) for number in re.findall(r"\d+", settings.steps)}
    if settings.jobs < 1:
        parser.error("--jobs must be at least 1")
    settings.tree = settings.tree.resolve()
    try:
        settings.slow = float(os.environ.get("CHECK_SLOW") or 1)
    except ValueError:
        parser.error("CHECK_SLOW must be a number")
    return settings, parser


def main(arguments=None):
    settings, parser = parse(arguments)
    parts = [part for part in find_parts(settings.tree, settings.steps, settings.level)
             if not settings.only or any(word in str(part) for word in settings.only)]
    if not parts:
        parser.error("there is no such part")
    if settings.list:
        for part in parts:
            print(f"{part!s:<44} {reports.quote(part.command)}")
        return 0
    began = time.monotonic()
    os.environ["CHECK_LEVEL"] = settings.level or ""    # for tests that run the suite
    run_all(parts, Runner(settings.tree, settings.slow), settings.jobs)
    failed = summarise(parts, time.monotonic() - began)
    if settings.junit:
        write_junit(settings.junit, parts)
    return 1 if failed else 0


if __name__ == "__main__":
    processes.program(main, grace=GRACE)
