"""The command line of check-server.py."""

import argparse
import importlib.util
import os
import re
import sys
import time
import traceback
from importlib.machinery import SourceFileLoader

from lib.processes import allow_descriptors
from lib.reports import FAIL, OK

from . import cases     # noqa: F401  importing them registers them
from .registry import REGISTRY
from .reporters import All, JUnit, Lines, Tap
from .runner import chosen, probe, run

EPILOG = """\
What a server of your own must do, in any language:

- speak the protocol: send `*` to each new client; between `^` and `$` answer every byte b with
  b+1 modulo 256; when the client shuts down its sending side, send all answers, then close;
- take the port as its last argument and listen there on 127.0.0.1;
- survive its clients, whatever they do;
- on SIGTERM exit with status 0 within two seconds.

If it prints `Listening on ADDRESS:PORT` once it accepts, the suite starts at once; otherwise
the suite waits until the port answers.

Cases about other options run if `PATH_TO_SERVER --help` mentions the option, and are skipped
otherwise. --contract basic skips them all, --contract full demands them all.

Exit status: 0 nothing failed, 1 something failed or no case could run, 2 wrong command line,
128 + the number of the signal that ended it. All that the servers started has ended by then.
"""
PATIENCE = 5.0      # seconds that a case waits for anything
DESCRIPTORS = 1 << 20   # as many as possible: a client needs one here, too
OUR_OPTIONS = ("--port", "--bind", "--max-clients", "--quiet", "--stats", "--help",
               "--version", "--idle-timeout")


def parser():
    parser = argparse.ArgumentParser(
        prog="check-server.py", usage="%(prog)s [OPTIONS] PATH_TO_SERVER [-- SERVER_ARGS]",
        description="Start an echo server again and again and see whether it keeps its "
        "promises.", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", metavar="PATH_TO_SERVER", nargs="?",
                        help="a program, or a script with `#!` on its first line")
    add = parser.add_argument
    add("--serial", action="store_true", help="the server takes one client at a time")
    add("--capacity", type=natural, metavar="N",
        help="the server takes N clients at once and rejects more (default: no limit)")
    add("--contract", choices=("auto", "basic", "full"), default="auto",
        help="which options the server has (default: ask its --help)")
    add("--ephemeral", action="store_true",
        help="pass port 0 and take the port from the `Listening on` line")
    add("--only", action="append", default=[], metavar="GLOB", help="only these cases")
    add("--skip", action="append", default=[], metavar="GLOB", help="not these cases")
    add("--also", action="append", default=[], metavar="FILE.py",
        help="cases of your own, to be run after ours")
    add("--all", action="store_true",
        help="go on although no further case can pass; else such a run ends early")
    add("--list", action="store_true", help="list the cases and end")
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--quick", dest="level", action="store_const", const="quick",
                       default="normal",
                       help="less work, about ten seconds, also if cases fail")
    level.add_argument("--full", dest="level", action="store_const", const="full",
                       help="more work, below two minutes")
    add("--seed", type=int, metavar="N", help="repeat a run's random choices")
    add("--slow-factor", type=factor, metavar="X",
        default=os.environ.get("CHECK_SLOW") or "1",
        help="wait X times as long, for a sanitizer or valgrind (default: $CHECK_SLOW or 1)")
    timed = parser.add_mutually_exclusive_group()
    timed.add_argument("--timed", action="store_true", default=None,
                       help="only the cases that measure time: nothing should run beside them")
    timed.add_argument("--not-timed", dest="timed", action="store_false",
                       help="only the other cases: these may run side by side")
    add("--tap", action="store_true", help="write TAP instead of lines")
    add("--junit", metavar="FILE", help="write JUnit XML as well")
    return parser


def natural(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text!r}")
    return int(text)


def factor(text):
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.1 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"must be a number from 0.1 to 1000, not {text!r}")
    return number


def main(arguments=None):
    began = time.monotonic()
    arguments = sys.argv[1:] if arguments is None else arguments
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    command = parser()
    settings = command.parse_args(arguments[:cut])
    settings.server_args = arguments[cut + 1:]
    try:
        for path in settings.also:
            load(path)
    except ValueError as error:
        command.error(f"--also: {error}")
    selected = chosen(REGISTRY.cases, settings.only, settings.skip, settings.timed)
    if settings.list:
        for case in selected:
            print(f"{case.name:<28} {case.level:<6}  {case.promise}")
        return 0
    if not selected:
        command.error("no case matches")
    if settings.server is None:
        command.error("PATH_TO_SERVER is missing")
    if not (os.path.isfile(settings.server) and os.access(settings.server, os.X_OK)):
        command.error(f"not an executable file: {settings.server}")
    settings.typed, settings.server = settings.server, os.path.abspath(settings.server)
    if settings.seed is None:
        settings.seed = int(time.time() * 1000) % 1000000
    settings.began, settings.patience, settings.server_options = began, PATIENCE, {}
    settings.most_files = allow_descriptors(DESCRIPTORS)
    reporters = [Tap() if settings.tap else Lines()]
    if settings.junit:
        reporters.append(JUnit(settings.junit, os.path.relpath(settings.server)))
    try:
        for reporter in reporters:
            reporter.prepare()
    except OSError as error:
        command.error(str(error))
    learn_options(settings)
    counts = run(selected, settings, All(reporters))
    if not (counts[OK] or counts[FAIL] or settings.only or settings.skip or settings.timed):
        print("check-server.py: no case could run, so nothing was tested", file=sys.stderr)
        return 1
    return 1 if counts[FAIL] else 0


def learn_options(settings):
    """Which options the server has; strict means that it claims to be one of ours."""
    if settings.contract == "full":
        settings.options = set(OUR_OPTIONS)
    elif settings.contract == "basic":
        settings.options = set()
    else:
        settings.options = set(re.findall(r"--[a-z][a-z-]+", probe(settings)))
    settings.strict = {"--port", "--bind"} <= settings.options


def load(path, timed=True):
    """Import a file of further cases under a name of its own; ValueError: why that fails.
    Cases that do not say whether they measure time, and so are to run alone, are taken to be
    `timed`."""
    ours = len(REGISTRY.cases)
    if not os.path.isfile(path):
        raise ValueError(f"no such file: {path}")
    name = re.sub(r"\W", "_", os.path.abspath(path))
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, path))
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except SyntaxError as error:    # which says in which line
        raise ValueError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == path]
        raise ValueError(f"{path}{f' line {lines[-1]}' if lines else ''}: "
                         f"{type(error).__name__}: {error}") from error
    for case in REGISTRY.cases[ours:]:
        case.timed = timed if case.timed is None else case.timed
