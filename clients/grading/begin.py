"""The command line of begin.py: folders to begin with."""

import argparse
import os
import pathlib
import shlex
import shutil

from lib.tree import ROOT

from . import exercise

STARTERS = ROOT / "clients" / "courses" / "starters"


def make_starter(language, folder):
    shutil.copytree(STARTERS / language, folder, dirs_exist_ok=True)
    readme = pathlib.Path(folder, "README.md")
    readme.write_text(readme.read_text(encoding="utf-8").replace(
        "SERVER=FOLDER", f"SERVER={shlex.quote(os.path.abspath(folder))}"), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(
        prog="begin.py", description="Make a folder to begin with.",
        epilog="Exit status: 0 it was made, 1 it could not be made, 2 wrong command line.")
    kinds = parser.add_subparsers(dest="kind", metavar="starter|exercise", required=True)
    starter = kinds.add_parser("starter", help="a server that earns stage 1")
    starter.add_argument("language", metavar="LANGUAGE")
    starter.add_argument("folder", metavar="DIR")
    blanks = kinds.add_parser("exercise", help="a step of ours with functions to fill in")
    blanks.add_argument("step", metavar="STEP")
    blanks.add_argument("folder", metavar="DIR")
    settings = parser.parse_args()
    if os.path.lexists(settings.folder) and not (
            os.path.isdir(settings.folder) and not os.listdir(settings.folder)):
        parser.error(f"{settings.folder} exists already, and nothing is overwritten")
    if settings.kind == "starter":
        languages = sorted(path.name for path in STARTERS.iterdir() if path.is_dir())
        if settings.language not in languages:
            parser.error(f"no starter in {settings.language!r}: there are "
                         f"{', '.join(languages)}")
        make_starter(settings.language, settings.folder)
    else:
        known = exercise.read()
        if settings.step not in known:
            parser.error(f"no exercise for step {settings.step!r}: there are "
                         f"{', '.join(known)}")
        exercise.make(known[settings.step], settings.folder)
    print(f"Made {settings.folder}: read {os.path.join(settings.folder, 'README.md')}")
    return 0
