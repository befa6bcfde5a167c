"""Runs cases one after another and tells a reporter how each went."""

import fnmatch
import shlex
import signal
import sys
import threading
import time
import traceback
from collections import namedtuple

from lib import figures, processes
from lib.reports import FAIL, OK, SKIP, quote

from .errors import Failure, NeverListens, OutOfTime, Skip
from .registry import LEVELS
from .server import Server
from .trial import Trial

STALL = 0.05    # seconds that nothing ran here: no case can tell whether the server was late
QUICK_SECONDS = 10      # after which --quick ends a run in which something has failed
QUICK_PATIENCE = 2.0    # seconds that --quick waits for anything once something has failed
QUICK_CASE_SECONDS = 12     # that a case may take with --quick
QUICK_BASIC_SECONDS = 5     # the same for a basic case, and for each after a failure
LEAST_SECONDS = 3       # that a basic case may take however late it is
BASIC = "greets-a-client", "greeting", "known-exchange"   # without these nearly all fails
TURN_SECONDS = 1.0      # within which a server greets a client whose turn it is

Result = namedtuple("Result", """case status seconds reason details final note
                    error server remarks""", defaults=(None, None, ()))
Result.__doc__ = """How a case went; for a failure also the exception, the server as Seen, and
what _consequences() found out."""
Seen = namedtuple("Seen", "command state log")


class StallWatch:
    """Measures the longest time that this process had to wait for a processor. A thread sleeps
    briefly, again and again, and sees how long it really slept. The CPU time that our other
    threads used meanwhile does not count."""

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


class Alarm:
    """Raises OutOfTime in the main thread after this many seconds, until it is switched off. It
    strikes again each second, because code that catches all exceptions may have caught it."""

    on = False

    @classmethod
    def install(cls):
        signal.signal(signal.SIGALRM, cls._strike)

    @classmethod
    def _strike(cls, *_):
        if cls.on:      # a signal that was under way when it was switched off does nothing
            raise OutOfTime()

    @classmethod
    def set(cls, seconds):
        cls.on = True
        signal.setitimer(signal.ITIMER_REAL, seconds, 1)

    @classmethod
    def off(cls):
        cls.on = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def chosen(cases, only, skip, timed=None):
    """The cases whose names match any of `only` (all, if none) and none of `skip`; only those
    that measure time, or only the others, unless `timed` is None."""
    return [case for case in cases
            if (not only or any(fnmatch.fnmatch(case.name, glob) for glob in only))
            and not any(fnmatch.fnmatch(case.name, glob) for glob in skip)
            and timed in (None, bool(case.timed))]


def probe(settings):
    """What the server's --help says, or "" if it has none."""
    try:
        done = processes.capture([settings.server, *settings.server_args, "--help"],
                                 timeout=2 * settings.slow_factor)
    except OSError:
        return ""
    return done.stdout if done.status == 0 else ""


def why_not(case, settings):
    """The reason to skip a case here, or None."""
    if LEVELS.index(case.level) > LEVELS.index(settings.level):
        return "not with --quick" if settings.level == "quick" else "only with --full"
    for need in case.needs:
        if need == "concurrent" and settings.serial:
            return "the server takes one client at a time"
        if need == "linux" and not figures.AVAILABLE:
            return "needs Linux's /proc"
        if need == "ours" and not settings.strict:
            return "needs the whole command line (see --contract)"
        if need.startswith("--") and need not in settings.options:
            return f"the server has no option {need}"
    if settings.capacity is not None and case.clients > settings.capacity:
        return f"needs {case.clients} clients at once, the server takes {settings.capacity}"
    if case.clients + 100 > settings.most_files:
        return (f"needs {case.clients + 100} open files, the limit here is "
                f"{settings.most_files}")
    return None


def run(cases, settings, reporter):
    """Run them all; return how many passed, failed and were skipped."""
    counts = {OK: 0, FAIL: 0, SKIP: 0}
    reporter.start(cases)
    Alarm.install()
    settings.failed, not_run = False, ""
    for case in cases:
        if not_run:
            result = Result(case, SKIP, 0.0, f"not run: {not_run}", [], False, "")
        else:
            result, not_run = _judge(case, settings)
            if result.status == FAIL:
                settings.failed = True
                if settings.level == "quick":
                    settings.patience = QUICK_PATIENCE
                if case.name in BASIC and not settings.only:
                    not_run = not_run or (
                        f"a server that fails {case.name} fails nearly everything")
            if settings.all:
                not_run = ""
            not_run = not_run or _too_late(settings)
        counts[result.status] += 1
        reporter.case(result)
    reporter.end(counts)
    return counts


def _is_quick(settings):
    return settings.level == "quick" and not settings.only


def _seconds_left(settings):
    """Until --quick ends the run if something has failed."""
    return QUICK_SECONDS - (time.monotonic() - settings.began) / settings.slow_factor


def _too_late(settings):
    """Why no further case is run, or ""."""
    if _is_quick(settings) and settings.failed and _seconds_left(settings) <= 0:
        return f"--quick ends after {QUICK_SECONDS} s once something has failed"
    return ""


def _limit_factor(case, settings):
    """The part of its time that a case may take: less with --quick, unless the server is one of
    ours: some of its cases start dozens of processes, slowly on a busy machine."""
    if not _is_quick(settings):
        return 1
    seconds = case.limit if settings.strict else QUICK_CASE_SECONDS
    if settings.failed:
        seconds = min(QUICK_BASIC_SECONDS, max(_seconds_left(settings), 0.5))
    elif case.name in BASIC:
        seconds = min(QUICK_BASIC_SECONDS, max(_seconds_left(settings), LEAST_SECONDS))
    return min(1, seconds / case.limit)


def _judge(case, settings):
    """The case's result, after a second try if the first is in doubt; and why the cases after
    it need not be run, or ""."""
    settings.limit_factor = _limit_factor(case, settings)
    with StallWatch() as watch:
        result, not_run = run_case(case, settings)
    if isinstance(result.error, OutOfTime) and _too_late(settings):
        # The run's time is over, and not the case's.
        result = Result(case, SKIP, result.seconds, f"not run: {_too_late(settings)}", [],
                        False, "")
    elif result.status == FAIL and not result.final and watch.longest > STALL:
        settings.limit_factor = _limit_factor(case, settings)
        result, not_run = run_case(case, settings)
        result = result._replace(
            note="the second try counts: during the first the suite got no processor for "
                 f"{watch.longest:.2f} s")
    return result, not_run


def run_case(case, settings):
    """The case's result, and why the cases after it need not be run, or ""."""
    began = time.monotonic()

    def result(status, reason="", details=(), final=False, *more):
        return Result(case, status, time.monotonic() - began, reason, list(details), final, "",
                      *more)

    reason = why_not(case, settings)
    if reason:
        return result(SKIP, reason), ""
    trial = Trial(case, settings)
    try:
        error = _call(case, trial, _limit(case, settings))
        if error is None:
            return result(OK), ""
        if isinstance(error, Skip):
            return result(SKIP, str(error)), ""
        lack = processes.lacking(error)
        if lack:
            return result(SKIP, f"this machine lacks what the case needs: {lack}"), ""
        not_run, remarks = _consequences(error, trial, settings)
        server = _seen(trial)
        return result(FAIL, _describe(error, case, settings),
                      [*remarks, *_details(trial, error, server, settings)],
                      getattr(error, "final", False), error, server, remarks), not_run
    finally:
        for server in trial.servers:
            server.kill()
            server.log.close()


def _limit(case, settings):
    """The seconds after which the case as a whole has failed."""
    return case.limit * settings.slow_factor * settings.limit_factor


def _call(case, trial, limit):
    """Run the case under its time limit; return the exception it ended with, or None. The
    limit is off when this returns, whenever it strikes."""
    try:
        try:
            Alarm.set(limit)
            case.function(trial)
        finally:
            Alarm.off()
    except Exception as error:  # a case that breaks must not take the others with it
        Alarm.off()
        if isinstance(error, OutOfTime):
            error.client = trial.unfinished()
            if trial.servers and not Server.has_listened:
                return NeverListens("neither printed `Listening on ADDRESS:PORT` nor accepted "
                                    f"within {limit:.3g} s")
        return error
    return None


def _describe(error, case, settings):
    if isinstance(error, OutOfTime):
        came = error.client.came.total if error.client else 0
        slowly = f": the answers come, but slowly ({came} bytes so far)" if came > 1 else ""
        return f"not done after {_limit(case, settings):.3g} s{slowly}"
    if isinstance(error, Failure):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{place.filename} line {place.lineno}"
    if isinstance(error, AssertionError):
        return f"{str(error) or 'assertion failed'}, {where}"
    return f"the case itself broke: {type(error).__name__}: {error}, {where}"


def _consequences(error, trial, settings):
    """After some failures further cases would only cost time: why they are not run, or "", and
    lines for the report."""
    if isinstance(error, NeverListens) and not Server.has_listened:
        return "the server cannot be reached", []
    client = getattr(error, "client", None)
    if client is not None and client.came.total == 0 and _takes_turns(trial, settings):
        hint = ["it serves one client at a time: if it is meant to, check it with --serial"]
        return ("" if settings.only else "the server serves one client at a time"), hint
    return "", []


def _takes_turns(trial, settings):
    """Whether a second client is greeted as soon as the first has left, and not before."""
    if settings.serial:
        return False
    server = Trial(trial.case, settings).server()
    seconds = TURN_SECONDS * settings.slow_factor
    try:
        server.start()
        first, second = server.connect(patience=seconds), server.connect(patience=seconds)
        first.greeting()
        second.expect_silence(seconds)
        first.close()
        second.greeting()
        return True
    except (Failure, Skip, OSError):
        return False
    finally:
        server.kill()
        server.log.close()


def _seen(trial):
    """The last server that the case started."""
    for server in trial.servers[-1:]:
        return Seen(shlex.join(server.command), server.describe(), server.log_tail())
    return None


def _details(trial, error, server, settings):
    """What one needs to understand a failure, and to repeat it."""
    client = getattr(error, "client", None)
    if client is not None:
        yield f"client sent {client.sent}"
        yield f"client got  {client.came}"
    if server:
        yield f"server      {server.command}: {server.state}"
        yield f"its log {'ends:' if server.log else 'is empty'}"
        for line in server.log:
            yield f"  | {line}"
    yield f"again with  {again(trial.case, settings)}"


def again(case, settings):
    """The whole command that runs this case once more, as a shell takes it."""
    words = [sys.argv[0], "--only", case.name, "--seed", str(settings.seed)]
    words += ["--serial"] if settings.serial else []
    words += ["--ephemeral"] if settings.ephemeral else []
    words += [f"--{settings.level}"] if settings.level != "normal" else []
    words += ["--contract", settings.contract] if settings.contract != "auto" else []
    words += ["--capacity", str(settings.capacity)] if settings.capacity is not None else []
    words += ["--slow-factor", f"{settings.slow_factor:g}"] if settings.slow_factor != 1 else []
    for path in settings.also:
        words += ["--also", path]
    words.append(settings.typed)
    return quote(words + (["--", *settings.server_args] if settings.server_args else []))
