"""The command line of begin.py: folders to begin with."""

import argparse
import os
import shutil

from lib.tree import ROOT

from . import exercise

STARTERS = ROOT / "clients" / "courses" / "starters"


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
        shutil.copytree(STARTERS / settings.language, settings.folder, dirs_exist_ok=True)
    else:
        known = exercise.read()
        if settings.step not in known:
            parser.error(f"no exercise for step {settings.step!r}: there are "
                         f"{', '.join(known)}")
        exercise.make(known[settings.step], settings.folder)
    print(f"Made {settings.folder}: read {os.path.join(settings.folder, 'README.md')}")
    return 0
