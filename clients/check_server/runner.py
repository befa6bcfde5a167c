"""Runs cases one after another and tells a reporter how each went."""

import fnmatch
import shlex
import signal
import subprocess
import threading
import time
import traceback
from collections import namedtuple

from . import proc
from .errors import Failure, OutOfTime, Skip
from .registry import LEVELS
from .trial import Trial

OK, FAIL, SKIP = "ok", "FAIL", "skip"

STALL = 0.05    # seconds that nothing ran here: no case can tell whether the server was late

Result = namedtuple("Result", "case status seconds reason details final note")


class StallWatch:
    """How long at most the machine let us wait for a processor: a thread sleeps little, and
    looks for how long. What our other threads computed meanwhile does not count."""

    def __enter__(self):
        self.longest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _run(self):
        over, idle = False, time.monotonic() - time.process_time()
        while not over:
            over = self._over.wait(0.01)
            before, idle = idle, time.monotonic() - time.process_time()
            self.longest = max(self.longest, idle - before)


def chosen(cases, only, skip):
    """The cases whose names match any of `only` (all, if none) and none of `skip`."""
    return [case for case in cases
            if (not only or any(fnmatch.fnmatch(case.name, glob) for glob in only))
            and not any(fnmatch.fnmatch(case.name, glob) for glob in skip)]


def probe(settings):
    """What the server's --help says, or "" if it has none: asked once, ended if need be."""
    try:
        process = subprocess.Popen(
            [settings.server, *settings.server_args, "--help"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8",
            errors="replace", start_new_session=True)
    except OSError:
        return ""
    try:
        text = process.communicate(timeout=2 * settings.slow_factor)[0]
        return text if process.returncode == 0 else ""
    except subprocess.TimeoutExpired:
        return ""
    finally:
        process.kill()
        process.communicate()


def why_not(case, settings):
    """The reason to skip a case here, or None."""
    if LEVELS.index(case.level) > LEVELS.index(settings.level):
        return "not with --quick" if settings.level == "quick" else "only with --full"
    for need in case.needs:
        if need == "concurrent" and settings.serial:
            return "the server takes one client at a time"
        if need == "linux" and not proc.AVAILABLE:
            return "needs Linux's /proc"
        if need == "ours" and not settings.strict:
            return "needs the whole command line (see --contract)"
        if need.startswith("--") and need not in settings.options:
            return "the server has no option %s" % need
    if settings.capacity is not None and case.clients > settings.capacity:
        return "needs %d clients at once, the server takes %d" % (
            case.clients, settings.capacity)
    if case.clients + 100 > settings.most_files:
        return "needs %d open files, the limit here is %d" % (
            case.clients + 100, settings.most_files)
    return None


def run(cases, settings, reporter):
    """Run them all; return how many passed, failed and were skipped."""
    counts = {OK: 0, FAIL: 0, SKIP: 0}
    reporter.start(cases)
    signal.signal(signal.SIGALRM, _out_of_time)
    for case in cases:
        with StallWatch() as watch:
            result = _run_case(case, settings)
        if result.status == FAIL and not result.final and watch.longest > STALL:
            result = _run_case(case, settings)._replace(
                note="the second try, for in the first the machine stood still for %.2f s"
                % watch.longest)
        counts[result.status] += 1
        reporter.case(result)
    reporter.end(counts)
    return counts


def _out_of_time(*_):
    raise OutOfTime()


def _run_case(case, settings):
    began = time.monotonic()

    def result(status, reason="", details=(), final=False):
        return Result(case, status, time.monotonic() - began, reason, list(details), final, "")

    reason = why_not(case, settings)
    if reason:
        return result(SKIP, reason)
    trial = Trial(case, settings)
    limit = case.limit * settings.slow_factor
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        case.function(trial)
        return result(OK)
    except Skip as skip:
        return result(SKIP, str(skip))
    except OutOfTime:
        return result(FAIL, "not done after %g s" % limit, _details(trial, None, settings))
    except Failure as failure:
        return result(FAIL, str(failure), _details(trial, failure.client, settings),
                      failure.final)
    except AssertionError as error:
        return result(FAIL, "%s, %s" % (str(error) or "assertion failed", _place(error)),
                      _details(trial, None, settings))
    except Exception as error:     # a case that breaks must not take the others with it
        return result(FAIL, "the case itself broke: %s: %s, %s" % (
            type(error).__name__, error, _place(error)), _details(trial, None, settings))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for server in trial.servers:
            server.kill()
            server.log.close()


def _place(error):
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return "%s line %d" % (frame.filename, frame.lineno)


def _details(trial, client, settings):
    """What one needs to understand a failure, and to have it again."""
    if client is not None:
        yield "client sent %s" % client.sent
        yield "client got  %s" % client.came
    for server in trial.servers[-1:]:
        yield "server      %s: %s" % (shlex.join(server.command), server.describe())
        tail = server.log_tail()
        yield "its log %s" % ("ends:" if tail else "is empty")
        for line in tail:
            yield "  | %s" % line
    level = "" if settings.level == "normal" else " --" + settings.level
    yield "again with  --only %s --seed %s%s" % (trial.case.name, settings.seed, level)
