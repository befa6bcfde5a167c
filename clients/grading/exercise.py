"""Our own steps with functions emptied, as clients/courses/exercises.json names them."""

import json
import os
import pathlib
import re
import shlex

from lib.tree import ROOT

DATA = ROOT / "clients" / "courses" / "exercises.json"
MARK = "/* your code */"
MAKEFILE = ROOT / "clients" / "courses" / "exercise.mk"
README = """\
# Exercise: {step}

{task}

Look for `{mark}` in `{file}`, and remove the lines below it as well. They keep the compiler
from warning, or report that the function is empty.

- `make` builds the program `server`, with the library of the course: {root}/common.
  Its headers (`echo.h` and others) say what its functions do.
- To grade it, type this in the folder of the course, {root}:

      make grade SERVER={folder}

- The lesson is `{step}/README.md` in that folder, and `{step}/{file}` is one solution.
"""


class Broken(Exception):
    """A function that exercises.json names is not in the source."""


def read():
    with open(DATA, encoding="utf-8") as file:
        return json.load(file)


def body_of(source, name):
    """The place of a function's body in a source: from behind its { to its }."""
    found = re.search(rf"^\w[^;{{}}()]*\b{name}\([^;{{}}]*\)\n{{\n(.*?)^}}\n", source,
                      re.MULTILINE | re.DOTALL)
    if not found:
        raise Broken(f"there is no function {name}")
    return found.start(1), found.end(1)


def blank(source, blanks):
    """The source with these functions emptied, and what was removed: {name: body}."""
    removed = {}
    for name, stub in blanks.items():
        start, end = body_of(source, name)
        removed[name] = source[start:end]
        lines = "".join(f"    {line}\n" for line in [MARK, *stub])
        source = source[:start] + lines + source[end:]
    return source, removed


def fill(source, removed):
    """Put back what was removed."""
    for name, body in removed.items():
        start, end = body_of(source, name)
        source = source[:start] + body + source[end:]
    return source


def make(exercise, folder):
    """Write the exercise into a folder; return what was removed."""
    folder, step = pathlib.Path(folder).absolute(), ROOT / exercise["folder"]
    blanked, package = exercise.get("file", "server.c"), exercise.get("library")
    sources = sources_of(exercise)
    os.makedirs(folder, exist_ok=True)
    for path in [*sources, *used(sorted(step.glob("*.h")))]:
        text = path.read_text(encoding="utf-8")
        if path.name == blanked:
            text, removed = blank(text, exercise["blanks"])
        (folder / path.name).write_text(text, encoding="utf-8")
    makefile = MAKEFILE.read_text(encoding="utf-8")
    for word, value in (
            ("@COMMON@", str(ROOT / "common").replace("$", "$$")),
            ("@SOURCES@", " ".join(path.name for path in sources)),
            ("@FLAGS@", f" $(shell pkg-config --cflags {package})" if package else ""),
            ("@LIBRARIES@", f" $(shell pkg-config --libs {package})" if package else "")):
        makefile = makefile.replace(word, value)
    (folder / "Makefile").write_text(makefile, encoding="utf-8")
    (folder / "README.md").write_text(README.format(
        step=step.name, file=blanked, root=ROOT, mark=MARK,
        folder=shlex.quote(str(folder)), task="\n".join(exercise["task"])), encoding="utf-8")
    return removed


def sources_of(exercise):
    """The C files of the step: of the back-ends only the one with the blanks, and nothing that
    only variants use."""
    blanked = exercise.get("file", "server.c")
    return [path for path in used(sorted((ROOT / exercise["folder"]).glob("*.c")))
            if path.name == blanked or not path.name.startswith("ae_")]


def used(paths):
    return [path for path in paths if not path.name.startswith("uring")]
