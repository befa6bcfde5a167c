#!/usr/bin/env python3
"""Runs every test of the tree, once it is built, and sums them up: what `make check` calls.

Each part is a program that speaks TAP on its standard output:

    */tests/test_*.c    cmocka tests, built to build/tests/test_*
    */tests/fuzz_*.c    fuzz targets, which replay their corpus: build/tests/replay_*
    */tests/test_*.py   unittest tests
    */tests/check-*.py  checks of the tree itself
    clients/bench/check.py
                        what the course claims about cost; unless steps were chosen
    step*/server        through check-server.py, with the lesson in tests/lesson.py; so are the
                        variants in build/variants/, with tests/lesson_NAME.py, but
                        with --quick unless --full is asked for; and all of them through
                        common/tests/faults.c, in build/tests/faults_*, and through inject.py

A part fails by what it reports, by reporting nothing or less than it planned, by its exit
status, by a crash, by taking too long, by leaving processes behind, and by what a sanitizer
said of any of its processes, whoever waited for it and whatever its exit status. The others
go on. The whole output of each part is kept in build/check/. Exit status: 0 nothing failed, 1
something did, 2 called wrongly.
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from xml.etree import ElementTree

HERE = pathlib.Path(__file__).resolve().parent
OK, FAIL, SKIP = "ok", "FAIL", "skip"
LINE = re.compile(r"(ok|not ok)\b[ \t]*(?:\d+)?[ \t]*(?:- )?(.*)")
SHOWN = 40      # lines of output per failure
SANITIZERS = "ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"


class Part:
    """One program to run, and what came of it."""

    def __init__(self, area, name, command, limit, alone=False):
        self.area, self.name, self.command = area, name, command
        self.limit, self.alone = limit, alone
        self.results = []           # (status, name, lines that belong to it)
        self.output = []
        self.seconds = 0.0

    def __str__(self):
        return f"{self.area}/{self.name}"

    def count(self):
        return Counter(status for status, _, _ in self.results)

    def failed(self, why, lines=None):
        self.results.append((FAIL, why, self.output[-SHOWN:] if lines is None else lines))

    def judge(self, ended):
        """Take the results from the output, which is TAP. A plan is demanded, and kept;
        several groups, each with a plan, may follow one another. `ended` says how the program
        ended, if not well."""
        planned, seen = None, 0
        for line in self.output:
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
    """Runs parts, some at a time, and can end what it started."""

    def __init__(self, tree, slow):
        self.tree, self.slow = tree, slow
        self.logs = tree / "build" / "check"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.running, self.lock, self.stopped = set(), threading.Lock(), False

    def run(self, part):
        log = self.logs / str(part).replace("/", "-")
        mark = f"{part}:{os.getpid()}"
        environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", CHECK_PART=mark)
        for name in SANITIZERS:     # they write to LOG.sanitizer.PID
            environment[name] = f"{environment.get(name, '')}:log_path='{log}.sanitizer'"
        for old in log.parent.glob(log.name + ".sanitizer.*"):
            old.unlink()
        began = time.monotonic()
        # Apart, because cmocka writes to both, and a buffered half-line must not meet another.
        with open(f"{log}.out", "w+b") as out, open(f"{log}.err", "w+b") as err:
            with self.lock:
                if self.stopped:
                    return part
                try:
                    process = subprocess.Popen(
                        part.command, cwd=self.tree, env=environment, stdout=out, stderr=err,
                        stdin=subprocess.DEVNULL, start_new_session=True)
                except OSError as error:        # most likely it was not built
                    part.failed(str(error))
                    return part
                self.running.add(process)
            try:
                ended = how_it_ended(process.wait(part.limit * self.slow))
            except subprocess.TimeoutExpired:
                end(process)
                ended = f"not done after {part.limit * self.slow:g} s"
            self.running.discard(process)
            part.seconds = time.monotonic() - began
            for stream in out, err:
                stream.seek(0)
                part.output += stream.read().decode("utf-8", "replace").splitlines()
        part.judge(ended)
        for complaint in complaints(log):
            part.failed(f"a sanitizer complained: see {complaint}",
                        complaint.read_text(errors="replace").splitlines())
        orphans = left_behind(mark)
        if orphans:
            part.failed("left processes behind: " + ", ".join(orphans))
        return part

    def stop(self):
        with self.lock:
            self.stopped = True
            running = list(self.running)
        for process in running:
            end(process)


def complaints(log):
    """Files with what sanitizers said; but not that strace kept one from looking for leaks."""
    return [path for path in sorted(log.parent.glob(log.name + ".sanitizer.*"))
            if b"ERROR" in path.read_bytes() or b"under ptrace" not in path.read_bytes()]


def how_it_ended(status):
    if status < 0:
        return f"killed by signal {-status} ({signal.Signals(-status).name})"
    return f"exit status {status}" if status else ""


def end(process):
    """SIGTERM first: check-server.py then ends the servers it started."""
    for number, patience in (signal.SIGTERM, 5), (signal.SIGKILL, 5):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
            pass


def left_behind(mark):
    """What still runs with the part's mark in its environment (where there is a /proc)
    although the part has ended; it is killed. A process that is just ending is given time."""
    mark = b"CHECK_PART=" + mark.encode()

    def alive():
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    yield int(entry.name), words.strip()
            except (OSError, UnicodeDecodeError):
                pass

    deadline = time.monotonic() + 1
    while list(alive()) and time.monotonic() < deadline:
        time.sleep(0.02)
    found = list(alive())
    for pid, _ in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [words for _, words in found]


def find_parts(tree, steps, level):
    """All the parts there are in the tree, or only those of some steps."""
    step_areas = [area for area in sorted(tree.glob("step*_*"))
                  if not steps or int(re.findall(r"\d+", area.name)[0]) in steps]
    for area in ([] if steps else [tree / "common", tree / "clients"]) + step_areas:
        for folder in "tests", "load/tests":
            yield from unit_tests(area, folder)
        for path in sorted([*area.glob("tests/test_*.py"), *area.glob("load/tests/test_*.py")]):
            yield Part(area.name, path.name,
                       [sys.executable, str(HERE / "unittest_tap.py"),
                        str(path)], 300)
        for path in sorted(area.glob("tests/check-*.py")):
            if path.name == "check-all.py":     # this program
                continue
            yield Part(area.name, path.name, [sys.executable, str(path)], 60)
    claims = tree / "clients/bench/check.py"
    if claims.is_file() and not steps:
        yield Part("clients", "bench/check.py", [sys.executable, str(claims)], 120, alone=True)
    for area in step_areas:
        for server in [area / "server", *sorted(area.glob("build/variants/*"))]:
            if server.name == "server" or runnable(server):
                yield from suites(tree, area, server, level)


def runnable(path):
    return path.is_file() and os.access(path, os.X_OK)


def unit_tests(area, folder):
    """The programs built from the test sources. A source without a program is a part too, and
    fails; a program without a source is a leftover. One source may make several programs,
    test_ae.c for one test_ae_epoll and test_ae_select. Fuzz targets replay their corpus."""
    stems = [path.stem for path in sorted((area / folder).glob("test_*.c"))]
    stems += [path.stem.replace("fuzz", "replay") for path in (area / folder).glob("fuzz_*.c")]
    for stem in stems:
        built = [path for path in sorted((area / "build" / folder).glob(f"{stem}*"))
                 if runnable(path) and stem == max(
                     (other for other in stems if path.name.startswith(other)), key=len)]
        for program in built or [area / "build" / folder / stem]:
            yield Part(area.name, program.name, [str(program)], 120)


def suites(tree, area, server, level):
    """The suite, and the same server while its calls fail: ours, and the kernel's."""
    variant = "" if server.name == "server" else server.name
    flags = subprocess.run(
        ["make", "-s", "--no-print-directory", "-C", str(area), "print-suite-args"]
        + (["VARIANT=" + variant] if variant else []),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
    options = shlex.split(flags.stdout)
    split = options.index("--") if "--" in options else len(options)
    command = [sys.executable, str(tree / "clients/check-server.py"), "--contract", "full",
               "--tap", "--ephemeral", *options[:split]]
    if level or variant:        # so that a run of all variants stays below ten minutes
        command.append(level or "--quick")
    lesson = area / "tests" / (f"lesson_{variant}.py" if variant else "lesson.py")
    if lesson.is_file():
        command += ["--also", str(lesson)]
    yield Part(area.name, server.name, [*command, str(server), *options[split:]],
               600 if level == "--full" else 180, alone="--quick" not in command)
    if (tree / "common/tests/faults.c").is_file():
        faults = area / "build/tests" / ("faults_" + server.name)
        yield Part(area.name, faults.name, [str(faults), *options[split + 1:]], 120)
    yield Part(area.name, server.name + " under faults",
               [sys.executable, str(tree / "clients/tests/inject.py"), str(server),
                *options[split:]], 120)


def tell(part):
    count = part.count()
    verdict = FAIL if count[FAIL] else OK
    figures = [f"{count[OK]} passed"]
    figures += [f"{count[FAIL]} failed"] if count[FAIL] else []
    figures += [f"{count[SKIP]} skipped"] if count[SKIP] else []
    print(f"{verdict!s:<4}  {part!s:<44} {', '.join(figures)!s:<34} {part.seconds:6.1f} s")
    if count[FAIL]:
        tell_failures(part)
        print()
    sys.stdout.flush()


def tell_failures(part):
    for status, name, lines in part.results:
        if status == FAIL:
            print(f"\nFAIL  {part}: {name}")
            for line in lines[:SHOWN]:
                print("      " + line)
            if len(lines) > SHOWN:
                print(f"      ... {len(lines) - SHOWN} lines more in build/check/")


def run_all(parts, runner, jobs):
    """Those that bear company first, then one by one those that measure time."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            waiting = [pool.submit(runner.run, part) for part in parts if not part.alone]
            for done in concurrent.futures.as_completed(waiting):
                tell(done.result())
            for part in parts:
                if part.alone:
                    tell(pool.submit(runner.run, part).result())
        except BaseException:
            runner.stop()
            raise


def summarise(parts, seconds):
    print(f"\n{'':<26} {'passed':>7} {'failed':>7} {'skipped':>7} {'seconds':>9}")
    for area in dict.fromkeys(part.area for part in parts):
        mine = [part for part in parts if part.area == area]
        count = sum((part.count() for part in mine), Counter())
        red = ", ".join(part.name for part in mine if part.count()[FAIL])
        print(f"{area!s:<26} {count[OK]:7} {count[FAIL]:7} {count[SKIP]:7} "
              f"{sum(part.seconds for part in mine):9.1f}{'   FAILED: ' + red if red else ''}")
    print(f"{'whole run':<26} {seconds:36.1f}")
    reasons = Counter(lines[0] for part in parts for status, _, lines in part.results
                      if status == SKIP)
    if reasons:
        print("\nskipped:")
        for reason, times in reasons.most_common():
            print(f"{times:5}  {reason or '(no reason given)'}")
    for part in parts:
        tell_failures(part)
    count = sum((part.count() for part in parts), Counter())
    print(f"\n{count[OK]} passed, {count[FAIL]} failed, {count[SKIP]} skipped")
    return count[FAIL]


def write_junit(folder, parts):
    """One file per part, in the form CI systems read."""
    def printable(text):    # XML 1.0 has no place for control characters, not even escaped
        return "".join(c if c == "\n" or " " <= c <= "\ud7ff" else "?" for c in text)

    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        count = part.count()
        suite = ElementTree.Element(
            "testsuite", name=str(part), tests=str(len(part.results)), errors="0",
            failures=str(count[FAIL]), skipped=str(count[SKIP]), time=f"{part.seconds:.3f}")
        for status, name, lines in part.results:
            case = ElementTree.SubElement(suite, "testcase", classname=str(part),
                                          name=printable(name))
            if status == FAIL:
                failure = ElementTree.SubElement(case, "failure", message=printable(name))
                failure.text = printable("\n".join(lines))
            elif status == SKIP:
                ElementTree.SubElement(case, "skipped", message=printable(lines[0]))
        ElementTree.ElementTree(suite).write(
            str(folder / (str(part).replace("/", "-") + ".xml")), "utf-8", True)


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="check-all.py", description=__doc__.partition("\n\n")[0],
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("only", metavar="PART", nargs="*", help="only the parts with this in their name")
    add("--steps", metavar="N,...", default="", help="only the parts of these steps")
    add("--jobs", type=int, default=2, metavar="N",
        help="how many parts that measure no time run at once (default: 2)")
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
            print(f"{part!s:<44} {shlex.join(part.command)}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    runner = Runner(settings.tree, settings.slow)
    try:
        run_all(parts, runner, settings.jobs)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    failed = summarise(parts, time.monotonic() - began)
    if settings.junit:
        write_junit(settings.junit, parts)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
