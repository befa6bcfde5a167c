"""Text from elsewhere made harmless, and the two formats that machines read: TAP and JUnit.

Before the output of a server or the name of a path reaches a terminal, TAP or XML, it goes
through clean(). So it can neither steer a terminal nor look like a result.
"""

import os
import re
import shlex
import sys
from collections import namedtuple
from xml.etree import ElementTree

OK, FAIL, SKIP = "ok", "FAIL", "skip"

Result = namedtuple("Result", "status name seconds reason details")

# A line of a trace, as Java, JavaScript, Python, Go and Rust print it; not what it is about.
FRAME = re.compile(r"\s|-----|stack backtrace:|note: |goroutine \d|created by |\[signal |PC="
                   r"|exit status \d|SIGABRT: |runtime: g |stack: |0x\w+:|\w+ +0x\w+$"
                   r"|[\w./*()]+\(.*\)$")


def clean(text):
    """One line without control characters: those that cannot be printed become \\x1b or the
    like. Bytes that are no UTF-8, which Python keeps as lone surrogates, become \\udcff."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char):
    return char.encode("unicode_escape").decode("ascii")


def lines(text):
    """The lines of a text, each clean. Only a newline ends a line: str.splitlines() would also
    do so at a form feed, behind which a server could hide what looks like a result."""
    found = [clean(line.rstrip("\r")) for line in text.split("\n")]
    return found[:-1] if found and not found[-1] else found


def tail(lines, most):
    """The last lines. Where they begin within a stack trace, what happened stands above it in
    most languages, in a line (in Rust two): these come first, and fewer of the last."""
    start = len(lines) - most
    above = max(start, 0)
    while above > 0 and FRAME.match(lines[above]):
        above -= 1
    if (above >= start or FRAME.match(lines[above])
            or lines[above].startswith("Traceback ")):      # Python says it last
        return lines[-most:]
    first = above - 1 if above and " panicked at " in lines[above - 1] else above
    told = [*lines[first:above + 1], "  ..."]
    return told + lines[len(told) - most:]


def quote(words):
    """A command as a shell takes it; also where a path holds bytes that cannot be printed."""
    return " ".join(shlex.quote(word) if word.isprintable() else _dollar_quoted(word)
                    for word in words)


def _dollar_quoted(word):
    def shown(byte):
        plain = 32 <= byte < 127 and byte not in b"'\\"
        return chr(byte) if plain else f"\\x{byte:02x}"

    return "$'" + "".join(map(shown, os.fsencode(word))) + "'"


def any_text_may_be_printed():
    """In a locale that lacks a character, print an escape in its place instead of failing."""
    for stream in sys.stdout, sys.stderr:
        if hasattr(stream, "reconfigure"):      # a test may have put something else there
            stream.reconfigure(errors="backslashreplace")


def tap_line(passed, number, name, directive=""):
    """One result. A `#` in the name would start a directive, so it is left out."""
    name = clean(name).replace("#", "")
    end = f" # {clean(directive)}" if directive else ""
    return f"{'ok' if passed else 'not ok'} {number} - {name}{end}"


def tap_comment(text):
    return "".join(f"# {line}\n" for line in lines(text))


def start_junit(path, suite):
    """Before a run: see that the file can be written. A run that is ended leaves a failure in
    it, not the results of the run before."""
    with open(path, "w", encoding="utf-8"):
        pass
    if os.path.isfile(path):    # a terminal or a pipe is to get one document only
        write_junit(path, suite, [Result(FAIL, "whole run", 0.0, "the run was ended", [])])


def write_junit(path, suite, results):
    """One <testsuite> in a file, in the form that CI systems read."""
    def count(status):
        return str(sum(result.status == status for result in results))

    suite = clean(suite)
    root = ElementTree.Element(
        "testsuite", name=suite, tests=str(len(results)), failures=count(FAIL),
        skipped=count(SKIP), errors="0",
        time=f"{sum(result.seconds for result in results):.3f}")
    for result in results:
        case = ElementTree.SubElement(root, "testcase", name=clean(result.name),
                                      classname=suite, time=f"{result.seconds:.3f}")
        if result.status == FAIL:
            failure = ElementTree.SubElement(case, "failure", message=clean(result.reason))
            failure.text = "\n".join(clean(line) for line in result.details)
        elif result.status == SKIP:
            ElementTree.SubElement(case, "skipped", message=clean(result.reason))
    ElementTree.ElementTree(root).write(str(path), encoding="utf-8", xml_declaration=True)


def unavailable(what, why):
    """Say that a tool of this machine is missing; return the exit status. It is a failure
    where everything is demanded: REQUIRE_ALL=1."""
    demanded = os.environ.get("REQUIRE_ALL", "0") != "0"
    print(f"{FAIL if demanded else SKIP}  {what}: {why}", flush=True)
    return int(demanded)
