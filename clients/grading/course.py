"""Reads a course, a JSON file, and checks it: stages, cases, points, parents and hints."""

import json
import os
import re
from collections import namedtuple

from lib.tree import ROOT

Course = namedtuple("Course", "path title parts stages")
Part = namedtuple("Part", "name title")
Stage = namedtuple("Stage", "number part name model teaches one_at_a_time cases")
Graded = namedtuple("Graded", "case points parent hints")
Hint = namedtuple("Hint", "bugs reason log lines")

KINDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list",
         dict: "an object"}


class Invalid(ValueError):
    """The course file is wrong; the text says where."""


def read(path, registry, load):
    """The course in a file. `registry` knows the cases; load(file) adds those of a file."""
    try:
        with open(path, encoding="utf-8-sig") as file:  # some editors write the signature
            data = json.load(file, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise Invalid(f"{path}: not UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise Invalid(
            f"{path} line {error.lineno} column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path}: {error}") from error
    top = Reader(path, "", data)
    top.allow("title", "also", "parts")
    for number, file in enumerate(top.get("also", list, [])):
        item = top.item("also", number, file, str)
        try:
            load(os.path.join(os.path.dirname(path), file))
        except ValueError as error:
            item.wrong(str(error))
    parts, stages, known = [], [], {case.name: case for case in registry.cases}
    for part in top.items("parts"):
        part.allow("name", "title", "stages")
        parts.append(Part(part.text("name"), part.text("title")))
        for stage in part.items("stages"):
            stages.append(_stage(stage, len(stages) + 1, parts[-1].name, known, stages))
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            top.wrong(f"two parts are called {name!r}")
    return Course(path, top.text("title"), parts, stages)


def _object(pairs):
    """An object of the file. JSON lets a name come twice, and Python forgets the first."""
    found = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{json.dumps(name)} is there twice in one object, which begins "
                             f"with {json.dumps(dict(pairs[:1]))[:60]}")
        found[name] = value
    return found


def _stage(reader, number, part, known, before):
    reader.allow("name", "model", "teaches", "see", "one_at_a_time", "cases")
    teaches = [reader.text("teaches"), *(
        reader.item("see", place, page, str).data
        for place, page in enumerate(reader.get("see", list, [])))]
    for page in teaches:
        if not _is_ours(page):
            reader.wrong(f"no such file in this project: {page!r}")
    stage = Stage(number, part, reader.text("name"), reader.text("model"), teaches,
                  reader.get("one_at_a_time", bool, False), [])
    names = {graded.case.name for earlier in before for graded in earlier.cases}
    same_mode = {graded.case.name for earlier in before for graded in earlier.cases
                 if earlier.one_at_a_time == stage.one_at_a_time}
    for item in reader.items("cases"):
        graded = _graded(item, known)
        if graded.case.name in same_mode:
            item.wrong(f"the case {graded.case.name!r} was there before")
        if graded.parent is not None and graded.parent not in names:
            item.wrong(f"\"parent\" must be an earlier case, not {graded.parent!r}")
        if stage.one_at_a_time and "concurrent" in graded.case.needs:
            item.wrong(f"{graded.case.name!r} needs several clients at once, but the stage "
                       "says \"one_at_a_time\"")
        same_mode.add(graded.case.name)
        names.add(graded.case.name)
        stage.cases.append(graded)
    return stage


def _is_ours(file):
    """Whether this is the path of a file of the project, which the Gradescope package holds."""
    try:
        path = (ROOT / file).resolve()
        return path.is_file() and ROOT in path.parents and not os.path.isabs(file)
    except (OSError, ValueError):   # too long, or with a null byte
        return False


def _graded(reader, known):
    reader.allow("case", "points", "parent", "hints")
    name = reader.text("case")
    if name not in known:
        reader.wrong(f"no case is called {name!r}; check-server.py --list lists them")
    needs = [need for need in known[name].needs if need not in ("concurrent", "linux")]
    if needs:
        reader.wrong(f"{name!r} is not for every server: it needs {' and '.join(needs)}")
    points = reader.get("points", int)
    if points < 0:
        reader.wrong(f"\"points\" must be at least 0, not {points}")
    if points and known[name].timed:
        reader.wrong(f"{name!r} measures time, so it must have 0 points: results on a shared "
                     "machine vary")
    return Graded(known[name], points, reader.get("parent", str, None),
                  [_hint(hint) for hint in reader.items("hints", [])])


def _hint(reader):
    reader.allow("bugs", "reason", "log", "lines")
    patterns = []
    for name in "reason", "log":
        pattern = reader.get(name, str, "")
        try:
            patterns.append(re.compile(pattern))
        except re.error as error:
            reader.wrong(f"\"{name}\" is no regular expression: {error}")
    return Hint(reader.texts("bugs"), *patterns, reader.texts("lines"))


class Reader:
    """A value of the file, and its place in it for messages."""

    def __init__(self, path, place, data, kind=dict):
        self.path, self.place, self.data = path, place, data
        # To Python, true is a number as well.
        if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
            self.wrong(f"must be {KINDS[kind]}, not {json.dumps(data)[:60]}")

    def wrong(self, message):
        raise Invalid(f"{self.path}: {self.place + ': ' if self.place else ''}{message}")

    def allow(self, *names):
        for name in self.data:
            if name not in names:
                self.wrong(f"{name!r} is unknown here; there are {', '.join(names)}")

    def at(self, name):
        return f"{self.place}.{name}" if self.place else name

    def get(self, name, kind, *default):
        if name not in self.data:
            if not default:
                self.wrong(f"\"{name}\" is missing")
            return default[0]
        return Reader(self.path, self.at(name), self.data[name], kind).data

    def text(self, name):
        text = self.get(name, str)
        if not text.strip():
            self.wrong(f"\"{name}\" is empty")
        return text

    def item(self, name, number, data, kind):
        return Reader(self.path, f"{self.at(name)}[{number}]", data, kind)

    def items(self, name, *default):
        """The objects of a list, which must not be empty unless it may be absent."""
        data = self.get(name, list, *default)
        if not data and not default:
            self.wrong(f"\"{name}\" is empty")
        return [self.item(name, number, item, dict) for number, item in enumerate(data)]

    def texts(self, name):
        data = self.get(name, list)
        if not data:
            self.wrong(f"\"{name}\" is empty")
        items = [self.item(name, number, item, str) for number, item in enumerate(data)]
        for item in items:
            if not item.data.strip():
                item.wrong("must not be empty")
        return [item.data for item in items]
