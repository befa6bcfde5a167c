"""The steps of the course, their variants, and how the suite is to check each server."""

import os
import pathlib
import re
import shlex
from collections import namedtuple

from .processes import capture

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAKE_SECONDS = 60

Program = namedtuple("Program", "path area step variant source")
Program.__doc__ = """A server: its program, its step's folder and number, the variant's name
("" for the step's own server), and its source."""


def steps(root=ROOT, numbers=()):
    """[(number, folder)] of the steps in the order of the course; only these, if any."""
    found = []
    for folder in pathlib.Path(root).glob("step*_*"):
        match = re.fullmatch(r"step(\d+)_\w+", folder.name)
        if match and folder.is_dir() and (not numbers or int(match[1]) in numbers):
            found.append((int(match[1]), folder))
    return sorted(found)


def is_program(path):
    return path.is_file() and os.access(path, os.X_OK)


def servers(root=ROOT, numbers=()):
    """Each step's own server, built or not, and after it the variants that were built."""
    for number, folder in steps(root, numbers):
        yield Program(folder / "server", folder, number, "", folder / "server.c")
        for path in sorted(folder.glob("build/variants/*")):
            if "." not in path.name and is_program(path):
                source = folder / "variants" / f"{path.name}.c"
                yield Program(path, folder, number, path.name,
                              source if source.exists() else folder / "server.c")


def suite_arguments(program):
    """Arguments for check-server.py, and for the server, from the step's Makefile."""
    done = capture(["make", "-s", "--no-print-directory", "-C", str(program.area),
                    "print-suite-args", f"VARIANT={program.variant}"], MAKE_SECONDS)
    words = shlex.split(done.stdout if done.status == 0 else "")
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut + 1:]
