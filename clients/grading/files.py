"""The reports that machines read: results in JSON, Gradescope's, GitHub's, JUnit's."""

import json
import os
import secrets

from lib import reports
from lib.reports import clean

from . import words
from .run import FAILED, LEFT_OUT, NOT_JUDGED, PASSED, WAITING
from .text import details, summary, totals

FORMAT = "echo-grade-1"


def as_data(course, found, settings):
    """The results, as clients/README.md describes them."""
    sums = totals(course, found)
    return {
        "format": FORMAT,
        "course": course.title,
        "server": clean(settings.typed),
        "seed": clean(settings.seed),
        "points": sum(points for _, points, _ in sums),
        "max_points": sum(most for _, _, most in sums),
        "parts": [{"name": part.name, "points": points, "max_points": most}
                  for part, points, most in sums],
        "next": next((judged.stage.number for judged in found if judged.status == FAILED),
                     None),
        "stages": [{
            "number": judged.stage.number, "name": judged.stage.name,
            "part": judged.stage.part, "status": judged.status,
            "points": judged.points, "max_points": judged.most,
            "cases": [_case(outcome, settings) for outcome in judged.outcomes],
        } for judged in found],
    }


def _case(outcome, settings):
    full = settings.failure_details == "full"
    return {
        "name": outcome.graded.case.name, "promise": outcome.graded.case.promise,
        "status": outcome.status,
        "points": outcome.graded.points if outcome.status == PASSED else 0,
        "max_points": 0 if outcome.status == LEFT_OUT else outcome.graded.points,
        "reason": clean(_reason(outcome)) if full or outcome.status != FAILED else "",
        "hint": outcome.hint.lines[0] if outcome.hint and full else "",
        "details": [clean(line) for line in _details(outcome, settings)],
    }


def _reason(outcome):
    return words.in_one_line(outcome.result) if outcome.status == FAILED else outcome.reason


def _details(outcome, settings):
    return list(details(outcome, settings)) if outcome.status == FAILED else []


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def write_json(path, course, found, settings):
    write(path, json.dumps(as_data(course, found, settings), indent=1) + "\n")


# Gradescope: https://gradescope-autograders.readthedocs.io/en/latest/specs/

def write_gradescope(path, course, found, settings, trouble=""):
    tests = []
    for judged in found:
        lines = [f"{judged.stage.name}: it asks for {judged.stage.model}."]
        if judged.status == WAITING:
            lines.append(f"It {judged.why_waiting}.")
        for outcome in judged.outcomes:
            lines += _lines(outcome, settings)
        tests.append({
            "name": f"{judged.stage.name} ({judged.stage.part} part)",
            "number": str(judged.stage.number),
            "score": judged.points, "max_score": judged.most,
            "status": "passed" if judged.status in (PASSED, LEFT_OUT) else "failed",
            "output": "\n".join(map(clean, lines)), "output_format": "text",
            "visibility": "visible"})
    report = {"score": sum(judged.points for judged in found),
              "output": trouble or summary(course, found), "output_format": "text",
              "visibility": "visible", "stdout_visibility": "hidden", "tests": tests}
    write(path, json.dumps(report, indent=1) + "\n")


def _lines(outcome, settings):
    case = outcome.graded.case
    if settings.failure_details == "none":
        return [f"{outcome.status}: {case.name}"]
    line = f"{outcome.status}: {case.name}: {case.promise}"
    if outcome.status in (NOT_JUDGED, LEFT_OUT):
        line += f" ({outcome.reason})"
    if outcome.hint and settings.failure_details == "full":
        line += f"\nhint: {outcome.hint.lines[0]}"
    return [*line.split("\n"), *("    " + each for each in _details(outcome, settings))]


# GitHub Actions: a summary in Markdown, and an annotation per failure on standard output.

def write_summary(path, course, found, settings, trouble=""):
    """Append the job's summary to the file that $GITHUB_STEP_SUMMARY names."""
    rows = [f"### {_markdown(course.title)}: {_markdown(summary(course, found))}", "",
            "| stage | | points | |", "|---:|---|---:|---|"]
    for judged in found:
        points = f"{judged.points}/{judged.most}"
        note = (judged.why_waiting if judged.waits_for else
                words.in_one_line(judged.failures[0].result)
                if judged.failures and settings.failure_details == "full" else "")
        rows.append(f"| {judged.stage.number} | {_markdown(judged.stage.name)} | "
                    f"{'-' if judged.status in (WAITING, LEFT_OUT) else points} | "
                    f"{_markdown(note)} |")
    blocks = [_lines(outcome, settings) for judged in found for outcome in judged.failures[:1]]
    for shown in [trouble.split("\n"), *blocks] if trouble else blocks:
        rows += ["", "```text", *(clean(line).replace("```", "` ` `") for line in shown), "```"]
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n".join(rows) + "\n")


def stop_commands(settings):
    """The line after which GitHub takes nothing that is printed for a command, such as what a
    server prints: `##[` begins one anywhere in a line."""
    settings.token = secrets.token_hex(16)
    return f"::stop-commands::{settings.token}"


def annotations(found, settings, trouble=""):
    """Workflow commands, a line for each failure; in a message % and line ends are escaped."""
    yield f"::{settings.token}::"       # from here on commands are taken again
    if trouble:
        yield f"::error title=build::{_escaped(trouble)}"
    for judged in found:
        for outcome in judged.failures:
            title = f"stage {judged.stage.number}, {judged.stage.name}"
            message = (f"{outcome.graded.case.name}: {_reason(outcome)}"
                       if settings.failure_details == "full" else outcome.graded.case.name)
            if outcome.hint and settings.failure_details == "full":
                message += f"\nhint: {outcome.hint.lines[0]}"
            yield f"::error title={_escaped(title, ':,')}::{_escaped(message)}"


def _escaped(text, more=""):
    text = "\n".join(map(clean, text.split("\n"))).replace("%", "%25").replace("\n", "%0A")
    for char in more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def _markdown(text):
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join("\\" + char if char in "\\`*_[]|#" else char for char in text)


# JUnit

def write_junit(path, course, found, settings, trouble=""):
    status = {PASSED: reports.OK, FAILED: reports.FAIL}
    results = [reports.Result(
        status.get(outcome.status, reports.SKIP),
        f"stage {judged.stage.number}: {outcome.graded.case.name}",
        outcome.result.seconds if outcome.result else 0.0,
        _reason(outcome) if settings.failure_details == "full" or outcome.status != FAILED
        else "failed", _details(outcome, settings))
        for judged in found for outcome in judged.outcomes]
    if trouble:
        first, *more = trouble.split("\n")
        results.append(reports.Result(reports.FAIL, "build", 0.0, first, more))
    reports.write_junit(path, course.title, results)


def start(settings, title):
    """Before the run: see that the files can be written, and drop what an earlier run left.
    Return what is wrong, or ""."""
    summary_file = os.environ.get("GITHUB_STEP_SUMMARY") if settings.github else None
    for option, path, begin in (
            ("--json", settings.json, lambda path: write(path, "")),
            ("--gradescope", settings.gradescope, lambda path: write(path, "")),
            ("--junit", settings.junit, lambda path: reports.start_junit(path, title)),
            ("$GITHUB_STEP_SUMMARY", summary_file, lambda path: open(path, "ab").close())):
        try:
            if path:
                begin(path)
        except OSError as error:
            return f"{option}: cannot write {path}: {error.strerror}"
    return ""
