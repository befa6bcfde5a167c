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
                        first the cases that only wait, later those that measure time
    build/variants/*    the same with tests/lesson_NAME.py, and --quick unless --full is given
    both of them        through common/tests/faults.c (build/tests/faults_*), and inject.py

A part fails if it reports a failure, reports nothing or less than it planned, exits with
another status than 0, crashes, takes or prints too much, leaves processes behind, or if a
sanitizer complains about any of its processes. The other parts go on. The whole output of each
part is kept in build/check/.

Parts run in three groups, one after another, in each the longest first:

    beside      most parts. They mostly wait, so two of them run for each processor, and more
                while the processors are idle.
    timed       cases and tests that measure time, and nothing else. They sleep more than nine
                tenths of the time, so two of them run for each processor.
    alone       what claims something about cost, and what takes very long: one by one

Exit status: 0 nothing failed, 1 something failed, 2 wrong command line, 128 + the number of the
signal that ended it. All that was started has ended by then.
"""

import argparse
import concurrent.futures
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
NAMED = 5       # failures that are only named after a sanitizer's report
READ = 8 << 20  # bytes of a part's output that are looked at
GRACE = 3       # seconds that parts have to end what they started
LOOK = 0.5      # seconds between two looks at what runs
REPORT_EVERY = 30   # seconds between two lines about what is running, without a terminal
WHEN = "beside", "timed", "alone"   # the order in which parts run, and beside which others
PROCESSORS = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
              else os.cpu_count() or 1)
IDLE_ENOUGH = 0.15  # the idle share of the processors that is enough for one part more
# Those that take long start first, also in a first run: seconds.
EXPECTED = {"test_broken_servers.py": 120, "test_grade.py": 70, "test_check_server.py": 60,
            "test_load_client.py": 40, "test_fleet.py": 35, "test_workers.py": 30,
            "test_tools.py": 28, "test_docs.py": 22, "test_page.py": 20, "test_begin.py": 17,
            "test_check_all.py": 15, "test_demo.py": 15}
TIMED = "step8_ae/test_demos.py",   # Python tests that compare times with limits
SANITIZERS = "ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"


class Part:
    """One program to run, and its results."""

    def __init__(self, area, name, command, limit, when="beside", expected=2.0, in_c=False):
        self.area, self.name, self.command = area, name, command
        self.limit = limit          # seconds
        self.when = when            # one of WHEN
        self.expected = expected    # seconds, as a guess, until a run has shown it
        self.in_c = in_c            # cmocka writes its TAP to both streams
        self.results = []           # (status, name, lines that belong to it)
        self.complained = False     # a sanitizer did, and its report is the first result
        self.output, self.errors = [], []
        self.began, self.seconds = None, 0.0
        self.cpu_seconds = 0.0

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
            part.results.insert(0, part.results.pop())
            part.complained = True
        if left:
            part.failed("left processes behind: " + ", ".join(left))
        return part

    def wait(self, part, process):
        """Until it has ended; return how, if not well."""
        limit = part.limit * self.slow
        status = process.wait(limit)
        part.cpu_seconds = process.cpu_used
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
                       "timed" if f"{area.name}/{path.name}" in TIMED else "beside",
                       EXPECTED.get(path.name, 8))
        for path in sorted(area.glob("tests/long_*.py")) if level == "--full" else []:
            yield Part(area.name, path.name,
                       [sys.executable, str(HERE / "unittest_tap.py"), str(path)], 3600,
                       when="alone", expected=900)
        for path in sorted(area.glob("tests/check-*.py")):
            if path.name != "check-all.py":     # this program
                documents = path.name == "check-docs.py"
                yield Part(area.name, path.name, [sys.executable, str(path)],
                           300 if documents else 60, expected=60 if documents else 2)
    claims = root / "clients/bench/check.py"
    if claims.is_file() and not steps:
        yield Part("clients", "bench/check.py", [sys.executable, str(claims)], 120,
                   when="alone", expected=35)
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
                   limit, when="timed", expected=8)
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
    print(f"{verdict:<4}  {part!s:<44} {', '.join(numbers):<34} {part.seconds:6.1f} s")
    if count[FAIL]:
        tell_failures(part)
        print()
    sys.stdout.flush()


def tell_failures(part):
    """Show each failure with its lines. Where a sanitizer complained, most other failures have
    the same cause, so some are named and the rest are counted."""
    failures = [(name, lines) for status, name, lines in part.results if status == FAIL]
    shown = 1 if part.complained else len(failures)
    for name, lines in failures[:shown]:
        print(f"\nFAIL  {part}: {clean(name)}")
        for line in lines[:SHOWN]:
            print("      " + clean(line))
        if len(lines) > SHOWN:
            print(f"      ... {len(lines) - SHOWN} lines more in build/check/")
    for name, _ in failures[shown:shown + NAMED]:
        print(f"FAIL  {part}: {clean(name)}")
    if len(failures) > shown + NAMED:
        print(f"FAIL  {part}: {len(failures) - shown - NAMED} more, see "
              f"build/check/{str(part).replace('/', '-')}.out")


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
        """Seconds until the end. For each kind of parts: all that is left, divided by how many
        ran at the same time so far, but at least as much as its longest part."""
        now, total = time.monotonic(), 0.0
        for when in WHEN:
            mine = [part for part in self.parts if part.when == when]
            spent = {part: part.seconds if part in done else now - part.began
                     for part in mine if part.began}
            left = [max(1.0, self.estimate(part) - spent.get(part, 0.0))
                    for part in mine if part not in done]
            began = min((part.began for part in mine if part.began), default=now)
            at_once = sum(spent.values()) / (now - began) if now - began > 5 else 0.0
            total += max([sum(left) / max(1.0, at_once or self.jobs[when]), *left], default=0.0)
        return total

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


class Processors:
    """How idle the processors have been recently, by Linux's /proc/stat; 0 elsewhere."""

    def __init__(self):
        self.share, self.since, self.before = 0.0, time.monotonic(), self.ticks()

    @staticmethod
    def ticks():
        """Idle ones, and all: see proc(5)."""
        try:
            with open("/proc/stat", encoding="ascii") as file:
                ticks = [int(each) for each in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return 0, 0
        return sum(ticks[3:5]), sum(ticks)

    def idle(self):
        if time.monotonic() - self.since > LOOK:
            now = self.ticks()
            self.share = (now[0] - self.before[0]) / max(1, now[1] - self.before[1])
            self.since, self.before = time.monotonic(), now
        return self.share

    def forget(self):
        """A part has been started: what it needs is still to be seen."""
        self.share, self.since, self.before = 0.0, time.monotonic(), self.ticks()


def run_all(parts, runner, most):
    """Each kind after the one before it, the longest parts first."""
    jobs = {"beside": most, "timed": min(most, 2 * PROCESSORS), "alone": 1}
    progress = Progress(parts, jobs, runner.logs / "seconds.json")
    done, processors = [], Processors()

    def may_start(when, running):
        """Parts mostly wait. So each processor gets two, and then more while it is idle."""
        return running < jobs[when] and (when != "beside" or running < 2 * PROCESSORS
                                         or processors.idle() > IDLE_ENOUGH)

    with concurrent.futures.ThreadPoolExecutor(max(jobs.values())) as pool:
        for when in WHEN:
            waiting = sorted((part for part in parts if part.when == when),
                             key=progress.estimate)
            running = set()
            while waiting or running:
                while waiting and may_start(when, len(running)):
                    running.add(pool.submit(runner.run, waiting.pop()))
                    processors.forget()
                ended, running = concurrent.futures.wait(
                    running, LOOK, concurrent.futures.FIRST_COMPLETED)
                if ended:
                    progress.clear()
                for each in ended:
                    done.append(each.result())
                    tell(each.result())
                if running:
                    progress.show(done)
    progress.save()


def summarise(parts, seconds):
    print(f"\n{'':<26} {'passed':>7} {'failed':>7} {'skipped':>7} {'seconds':>9}")
    for area in sorted({part.area for part in parts},
                       key=lambda area: (area.startswith("step"), area != "common", area)):
        mine = [part for part in parts if part.area == area]
        count = sum((part.count() for part in mine), Counter())
        red = ", ".join(part.name for part in mine if part.count()[FAIL])
        print(f"{area:<26} {count[OK]:7} {count[FAIL]:7} {count[SKIP]:7} "
              f"{sum(part.seconds for part in mine):9.1f}"
              f"{'   FAILED: ' + red if red else ''}")
    print(f"{'whole run':<26} {seconds:33.1f}")
    tell_longest(parts, seconds)
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


def tell_longest(parts, seconds):
    """What a run waits for: the parts that took longest, and how much of it they computed."""
    work = sum(part.cpu_seconds for part in parts)
    if not work:        # only Linux tells
        return
    print(f"\nCPU time: {work:.1f} s, {100 * work / (seconds * PROCESSORS):.0f} % of the "
          f"time of {PROCESSORS} processors\n\n"
          f"{'the longest parts':<44} {'seconds':>15} {'of CPU':>8}")
    for part in sorted(parts, key=lambda part: part.seconds, reverse=True)[:10]:
        print(f"{part!s:<44} {part.seconds:15.1f} {part.cpu_seconds:8.1f}")


def write_junit(folder, parts):
    """One file per part, in the form CI systems read."""
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
    add("--jobs", type=int, default=4 * PROCESSORS, metavar="N",
        help="how many parts that measure no time run at once, at most (default: four per "
        "processor, because they mostly wait; but more than two only while it is idle)")
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
    try:
        runner = Runner(settings.tree, settings.slow)
        if settings.junit:
            settings.junit.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"check-all.py: cannot keep the results: {error}")
    run_all(parts, runner, settings.jobs)
    failed = summarise(parts, time.monotonic() - began)
    if settings.junit:
        write_junit(settings.junit, parts)
    return 1 if failed else 0


if __name__ == "__main__":
    processes.program(main, grace=GRACE)
