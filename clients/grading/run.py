"""Runs the stages of a course on a server."""

import time
from collections import namedtuple

from check_server.errors import NeverListens
from check_server.runner import BASIC, STALL, Alarm, Seen, StallWatch, run_case
from check_server.server import Server
from lib import reports

PATIENCE = 2.5      # seconds that a case waits for anything
SECOND_PATIENCE = 5.0   # in a second try, because the machine was busy in the first
SECOND_LIMIT = 4    # times as long may a case take in a second try
HOPELESS_SECONDS = 8    # in which a server that answers no known exchange is done
LEAST_SECONDS = 4       # that a case may take meanwhile
HOPEFUL = "known-exchange"

PASSED, FAILED, NOT_JUDGED, LEFT_OUT = "passed", "failed", "not judged", "left out"
WAITING = "waiting"     # of a stage: one before it failed

Outcome = namedtuple("Outcome", "graded status reason result hint")
Outcome.__doc__ = """How a case went; a failed one with the suite's result, and a hint or None.
A case is left out if it cannot be judged here: its points do not count at all."""


class Judged(namedtuple("Judged", "stage outcomes waits_for")):
    """A stage and how its cases went; none if an earlier stage failed."""

    @property
    def points(self):
        return sum(outcome.graded.points for outcome in self.outcomes
                   if outcome.status == PASSED)

    @property
    def most(self):
        """The points that it could earn."""
        if self.waits_for:
            return sum(graded.points for graded in self.stage.cases)
        return sum(outcome.graded.points for outcome in self.outcomes
                   if outcome.status != LEFT_OUT)

    @property
    def status(self):
        if self.waits_for:
            return WAITING
        found = {outcome.status for outcome in self.outcomes}
        return (FAILED if found & {FAILED, NOT_JUDGED} else
                LEFT_OUT if found == {LEFT_OUT} else PASSED)

    @property
    def why_waiting(self):
        """Why its status is WAITING, in words. The first stage waits only for a program."""
        return ("is not run: there is no program" if self.waits_for is self.stage else
                f"waits for stage {self.waits_for.number}")

    @property
    def failures(self):
        return [outcome for outcome in self.outcomes if outcome.status == FAILED]


def run(stages, settings, everything, text):
    """Run the stages, until one fails unless `everything` is wanted. text.case() learns of
    each case before it begins, text.stage() how each stage went."""
    Alarm.install()
    passed, found = {}, []      # case's name: whether it passed
    failed, settings.began = None, time.monotonic()
    for stage in stages:
        if failed and not everything:
            judged = Judged(stage, [], failed)
        else:
            settings.serial = stage.one_at_a_time
            outcomes = []
            for graded in _wanted(stage, settings):
                text.case(stage, graded)
                outcomes.append(_judge(graded, passed, settings))
            judged = Judged(stage, outcomes, None)
            if judged.status == FAILED:
                failed = failed or stage
        found.append(judged)
        text.stage(judged)
    return found


def _wanted(stage, settings):
    return [graded for graded in stage.cases
            if not settings.cases or graded.case.name in settings.cases]


def _judge(graded, passed, settings):
    if not passed.get(graded.parent, True):
        passed[graded.case.name] = False
        return Outcome(graded, NOT_JUDGED, f"it needs {graded.parent}", None, None)
    result = _try(graded.case, settings, passed)
    if result.status == reports.SKIP:
        return Outcome(graded, LEFT_OUT, result.reason, result, None)
    passed[graded.case.name] = result.status == reports.OK
    if result.status == reports.OK:
        return Outcome(graded, PASSED, "", result, None)
    return Outcome(graded, FAILED, result.reason, result, find_hint(graded, result))


def _try(case, settings, passed):
    """The case's result; after a second try if the machine was busy. That one is more patient,
    unless nothing has passed so far: a hopeless server is to be done soon."""
    second_patience = SECOND_PATIENCE if any(passed.values()) else PATIENCE
    settings.patience, settings.level = PATIENCE, case.level
    settings.limit_factor = _limit_factor(case, settings, passed)
    with StallWatch() as watch:
        result, _ = run_case(case, settings)
    if result.status != reports.FAIL or result.final or watch.longest <= STALL or (
            isinstance(result.error, NeverListens) and not Server.has_listened):
        return result
    settings.patience = second_patience
    if settings.limit_factor < 1:
        settings.limit_factor = min(1, HOPELESS_SECONDS / case.limit)
    elif second_patience > PATIENCE:
        settings.limit_factor = SECOND_LIMIT
    began = time.monotonic()
    result, _ = run_case(case, settings)
    return result._replace(seconds=time.monotonic() - began)


def _limit_factor(case, settings, passed):
    """The part of its time that a case may take: less while the server may be hopeless. One
    that takes long to start has as long again as it has taken so far."""
    if settings.cases or settings.stages or case.name not in BASIC or HOPEFUL in passed:
        return 1
    spent = (time.monotonic() - settings.began) / settings.slow_factor
    return min(1, max(HOPELESS_SECONDS - spent, spent, LEAST_SECONDS) / case.limit)


def find_hint(graded, result):
    """The first hint that fits what happened, or None."""
    server = result.server or Seen("", "", [])
    reason = "\n".join([result.reason, *result.remarks, server.state])
    log = "\n".join(server.log)
    for hint in graded.hints:
        if hint.reason.search(reason) and hint.log.search(log):
            return hint
    return None
