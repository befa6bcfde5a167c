"""Our own steps with functions emptied, as clients/courses/exercises.json names them."""

import json
import os
import pathlib
import re

from lib.tree import ROOT

DATA = ROOT / "clients" / "courses" / "exercises.json"
LIBRARIES = {"step7_libuv": "libuv"}
MAKEFILE = """\
# Builds the exercise with the library of the course, which is in this folder:
COURSE ?= {course}
STEP = $(COURSE)/{folder}
CFLAGS ?= -O2 -g
FLAGS = -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -pthread -I. -I$(COURSE)/common \\
        -Wall -Wextra -Wpedantic -Wshadow -Wconversion
LIBS = {libraries}

server: {sources} $(STEP)/build/libcommon.a
	$(CC) $(FLAGS) $(CFLAGS) -o $@ {sources} $(STEP)/build/libcommon.a $(LIBS)
$(STEP)/build/libcommon.a:
	$(MAKE) -C $(STEP) build/libcommon.a
clean:
	rm -f server
"""


class Broken(Exception):
    """A function that exercises.json names is not in the source."""


def read():
    with open(DATA, encoding="utf-8") as file:
        return json.load(file)


def body_of(source, name):
    """The place of a function's body in a source: from behind its { to its }."""
    found = re.search(rf"^(?!typedef)\w[^;{{}}()]*\b{name}\([^;{{}}]*\)\n{{\n(.*?)^}}\n", source,
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
        lines = ["/* yours */", *stub]
        source = source[:start] + "".join(f"    {line}\n" for line in lines) + source[end:]
    return source, removed


def fill(source, removed):
    """Put back what was removed."""
    for name, body in removed.items():
        start, end = body_of(source, name)
        source = source[:start] + body + source[end:]
    return source


def make(exercise, folder):
    """Write the exercise into a folder; return what was removed."""
    folder, step = pathlib.Path(folder), ROOT / exercise["folder"]
    blanked = exercise.get("file", "server.c")
    sources = sources_of(exercise)
    os.makedirs(folder, exist_ok=True)
    for path in [*sources, *sorted(step.glob("*.h"))]:
        text = path.read_text(encoding="utf-8")
        if path.name == blanked:
            text, removed = blank(text, exercise["blanks"])
        (folder / path.name).write_text(text, encoding="utf-8")
    package = LIBRARIES.get(step.name)
    (folder / "Makefile").write_text(MAKEFILE.format(
        course=ROOT, folder=step.name, sources=" ".join(path.name for path in sources),
        libraries=f"$(shell pkg-config --cflags --libs {package})" if package else ""),
        encoding="utf-8")
    (folder / "README.md").write_text("\n".join([
        f"# {step.name}, with blanks", "", *exercise["task"], "",
        f"Look for `/* yours */` in `{blanked}`. Remove the lines below it, too: they only keep the",
        "compiler from warning.", "",
        "- `make` builds the program `server`.",
        "- `make grade SERVER=THIS_FOLDER`, in the folder of the course, says what it earns.",
        f"- `{step.name}/README.md` is the lesson, and `{step.name}/{blanked}` one solution.", ""]),
        encoding="utf-8")
    return removed


def sources_of(exercise):
    """The C files of the step: of the back-ends only the one with the blanks."""
    blanked = exercise.get("file", "server.c")
    return [path for path in sorted((ROOT / exercise["folder"]).glob("*.c"))
            if not path.name.startswith("ae_") or path.name == blanked]
