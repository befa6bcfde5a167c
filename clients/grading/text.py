"""The report on a terminal: a line per stage, and what the first failure needs."""

import os
import shlex
import shutil
import sys
import threading
import time

from lib.reports import clean, quote

from . import words
from .run import FAILED, LEFT_OUT, NOT_JUDGED, PASSED, WAITING

DETAILS = ("full", "own-output", "none")


class Text:
    def __init__(self, course, settings, memory):
        self.course, self.settings, self.memory = course, settings, memory
        self.width = max(len(stage.name) for stage in course.stages)
        self.part = course.parts[0].name
        self.explained = False
        self.drawing = None
        self.terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def case(self, stage, graded):
        """What runs now, and for how long: on a terminal a line that is drawn each second until
        the stage's own line replaces it."""
        self.stop_drawing()
        if self.terminal:
            line = clean(f"{self.beginning(stage)}         {graded.case.name}")
            self.drawing, self.case_ends = threading.Thread(
                target=self.draw, args=[line], daemon=True), threading.Event()
            self.drawing.start()

    def draw(self, line):
        began = time.monotonic()
        width = shutil.get_terminal_size().columns - 1      # a longer one would not go away
        while True:
            drawn = f"{line}, {time.monotonic() - began:.0f} s"
            print(f"\r\033[K{drawn[:width]}", end="", file=sys.stderr, flush=True)
            if self.case_ends.wait(1):
                print("\r\033[K", end="", file=sys.stderr, flush=True)
                return

    def stop_drawing(self):
        if self.drawing:
            self.case_ends.set()
            self.drawing.join()
            self.drawing = None

    def beginning(self, stage):
        return f"stage {stage.number:<2} {stage.name:<{self.width}}"

    def stage(self, judged):
        self.stop_drawing()
        if judged.stage.part != self.part:
            self.part = judged.stage.part
            title = next(part.title for part in self.course.parts if part.name == self.part)
            say(f"\n{title}")
        points = {WAITING: "-", LEFT_OUT: "-"}.get(
            judged.status, f"{judged.points}/{judged.most}")
        say(f"{self.beginning(judged.stage)} {points:>5}   {self.explain(judged)}".rstrip())
        for outcome in judged.outcomes:
            if outcome.status == LEFT_OUT:
                say(f"         left out: {outcome.graded.case.name}: {outcome.reason}")
        if judged.failures and not self.explained:
            self.explained = True
            self.failure(judged)
        elif judged.failures and self.settings.failure_details == "full":
            say(f"         at length: {self.only(judged.stage)}")

    def explain(self, judged):
        if judged.status == WAITING:
            return judged.why_waiting
        if judged.failures and self.settings.failure_details == "full":
            return words.in_one_line(judged.failures[0].result)
        return ""

    def failure(self, judged):
        """The first failure of the run, at length; the others of its stage, in a line each."""
        first, *others = judged.failures
        if self.settings.failure_details == "full":
            self.hint(first)
            say(f"         {first.graded.case.name}: {first.graded.case.promise}")
        if self.settings.failure_details != "none":
            for line in details(first, self.settings):
                say("           " + line)
        if self.settings.failure_details != "full":
            return
        for outcome in others:
            say(f"         {outcome.graded.case.name}: {words.in_one_line(outcome.result)}")
        for outcome in judged.outcomes:
            if outcome.status == NOT_JUDGED:
                say(f"         {outcome.graded.case.name}: not judged, {outcome.reason}")

    def hint(self, outcome):
        asked = self.settings.hint or self.settings.hints
        if not outcome.hint:
            if asked:
                say("         (there is no hint for this failure)")
            return
        count = self.memory.hints(outcome, self.settings.hint, self.settings.hints)
        for line in outcome.hint.lines[:count]:
            say(f"         hint: {line}")
        if count < len(outcome.hint.lines):
            say(f"         (another hint: {'HINT=1' if self.settings.as_make else '--hint'})")
        elif asked:
            say("         (this was the last hint)")

    def end(self, found):
        say("")
        news = self.memory.news(found)
        if news:
            say(news)
        say(summary(self.course, found))
        if self.settings.stages or self.settings.cases:
            return
        failed = next((judged for judged in found if judged.status == FAILED), None)
        if not failed:
            say("All stages are complete.")
            return
        stage = failed.stage
        say(f"Next: stage {stage.number}. It asks for {stage.model}: read "
            f"{' and '.join(stage.teaches)}.")
        say(f"Only this stage: {self.only(stage)}")
        if not self.settings.all:
            say(f"All stages, whatever fails: {self.command('ALL=1', '--all')}")

    def only(self, stage):
        return self.command(f"STAGE={stage.number}", "--stage", str(stage.number))

    def command(self, variable, *options):
        """The command that runs it again with this, in the form that was used."""
        if self.settings.as_make:
            more = shlex.join(self.settings.server_args)
            return f"make grade SERVER={quote([self.settings.typed])} {variable}" + (
                f" ARGS={shlex.quote(more)}" if more else "")
        return quote(words.with_arguments(
            [self.settings.program, *options, *self.settings.repeat, self.settings.typed],
            self.settings))


def details(outcome, settings):
    """What a failure shows, as far as --failure-details allows."""
    if settings.failure_details == "full":
        yield from words.evidence(outcome.result)
    if settings.failure_details != "none":
        yield from words.own_output(outcome.result)
    if settings.failure_details == "full":
        yield f"again:    {words.again(outcome, settings)}"


def totals(course, found):
    """[(part, points, most)] of the parts that were run."""
    return [(part, sum(judged.points for judged in found if judged.stage.part == part.name),
             sum(judged.most for judged in found if judged.stage.part == part.name))
            for part in course.parts
            if any(judged.stage.part == part.name for judged in found)]


def summary(course, found):
    sums = totals(course, found)
    first = f"{sums[0][1]} of {sums[0][2]} points" + (
        f" ({sums[0][0].name} part)" if len(sums) > 1 else "")
    return ", ".join([first, *(f"{points} of {most} ({part.name} part)"
                               for part, points, most in sums[1:])]) + "."


def complete(course, found):
    """Whether all that was run of the first part passed; of the last, if only that was run."""
    first = [judged for judged in found if judged.stage.part == course.parts[0].name]
    return all(judged.status in (PASSED, LEFT_OUT) for judged in first or found)


def say(line):
    print("\n".join(clean(part) for part in line.split("\n")), flush=True)
