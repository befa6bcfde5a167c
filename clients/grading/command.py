"""The command line of grade.py."""

import argparse
import functools
import os
import pwd
import random
import shutil
import sys

from check_server import cases      # noqa: F401  importing them registers them
from check_server.command import DESCRIPTORS, factor, load, natural
from check_server.registry import REGISTRY
from lib.processes import allow_descriptors, capture
from lib.reports import clean, lines
from lib.tree import ROOT

from . import files
from .course import Invalid, read
from .memory import Memory
from .run import LEFT_OUT, Judged, run
from .text import DETAILS, Text, complete, say

COURSE = ROOT / "clients" / "courses" / "echo.json"
BUILD_SECONDS = 300
BUILD_LINES = 20
EPILOG = """\
PATH is a program, or a folder: then make builds it there, and the program is PATH/server. The
server takes the port as its last argument, and listens on 127.0.0.1.

The stages come in order, and the run ends after the first one that fails. clients/README.md
describes the JSON, clients/TEACHING.md how to grade a class.

Exit status: 0 the first part is complete, 1 it is not or no case could be judged, 2 wrong
command line or course, 128 + the number of the signal that ended it.
"""


def parser():
    parser = argparse.ArgumentParser(
        prog="grade.py", usage="%(prog)s [OPTIONS] PATH [-- SERVER_ARGS]",
        description="Grade an echo server stage by stage.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="PATH", nargs="?")
    add = parser.add_argument
    add("--course", metavar="FILE", default=str(COURSE), help="another course")
    add("--list", action="store_true", help="list the stages and their cases, and end")
    add("--stage", dest="stages", type=natural, action="append", metavar="N", default=[],
        help="only this stage")
    add("--case", dest="cases", action="append", metavar="NAME", default=[],
        help="only this case")
    add("--all", action="store_true", help="go on after a stage that fails")
    add("--hint", action="store_true", help="show one hint more than last time")
    add("--hints", type=natural, metavar="N", help="show N hints")
    add("--seed", metavar="TEXT", help="for all random choices: a number, or a student's name")
    add("--capacity", type=natural, metavar="N",
        help="the server takes N clients at once: leave out what needs more")
    add("--slow-factor", type=factor, metavar="X", default=os.environ.get("CHECK_SLOW") or "1",
        help="wait X times as long (default: $CHECK_SLOW or 1)")
    add("--user", metavar="NAME", help="run the server as this user (needs root)")
    add("--failure-details", choices=DETAILS, default="full",
        help="show all about a failure, only what the server printed, or only points")
    add("--json", metavar="FILE", help="write the results as JSON")
    add("--gradescope", metavar="FILE", help="write Gradescope's results.json")
    add("--github", action="store_true",
        help="annotate failures, and write the summary that $GITHUB_STEP_SUMMARY names")
    add("--junit", metavar="FILE", help="write JUnit XML")
    add("--as-make", action="store_true", help=argparse.SUPPRESS)   # speak make's language
    return parser


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    command = parser()
    settings = command.parse_args(arguments[:cut])
    settings.server_args = arguments[cut + 1:]
    try:
        course = read(settings.course, REGISTRY, lambda path: load(path, timed=False))
    except Invalid as error:
        command.error(clean(str(error)))
    except OSError as error:
        command.error(clean(f"--course: cannot read {settings.course}: {error.strerror}"))
    if settings.list:
        list_stages(course)
        return 0
    stages = chosen(course, settings, command)
    prepare(settings, command, course)
    if settings.github:
        print(files.stop_commands(settings), flush=True)
    memory = Memory(settings.server)
    trouble = build(settings)
    if not trouble and not is_program(settings.server):
        if not os.path.isdir(settings.path):
            command.error(f"not an executable file: {settings.path}")
        trouble = [f"there is no program {settings.server}"]
    if trouble:
        return not_built(course, trouble, settings)
    text = Text(course, settings, memory)
    found = run(stages, settings, settings.all or bool(settings.stages or settings.cases), text)
    text.end(found)
    write_files(course, found, settings)
    if all(outcome.status == LEFT_OUT for judged in found for outcome in judged.outcomes):
        print("grade.py: no case could be judged on this machine", file=sys.stderr)
        return 1
    return 0 if complete(course, found) else 1


def chosen(course, settings, command):
    for number in settings.stages:
        if number > len(course.stages):
            command.error(f"no stage {number}: there are 1 to {len(course.stages)}")
    names = {graded.case.name for stage in course.stages for graded in stage.cases}
    for name in settings.cases:
        if name not in names:
            command.error(f"this course has no case {name}; --list lists them")
    return [stage for stage in course.stages
            if (not settings.stages or stage.number in settings.stages)
            and (not settings.cases
                 or any(graded.case.name in settings.cases for graded in stage.cases))]


def prepare(settings, command, course):
    """What the cases of check-server.py and the reports need to know."""
    if settings.path is None:
        command.error("PATH is missing")
    if not os.path.exists(settings.path):
        command.error(f"no such file: {settings.path}")
    settings.typed = settings.path
    settings.server = os.path.abspath(settings.path)
    if os.path.isdir(settings.path):
        settings.server = os.path.join(settings.server, "server")
    settings.program = sys.argv[0]
    settings.seed = settings.seed or str(random.SystemRandom().randrange(1000000))
    settings.contract, settings.options, settings.strict = "basic", set(), False
    settings.ephemeral, settings.also, settings.only = False, [], []
    settings.most_files = allow_descriptors(DESCRIPTORS)
    # Whether it is idle is what some cases are about, and no other loses points for it.
    settings.server_options, settings.uid = {"calm": False}, None
    if settings.user is not None:
        try:
            settings.uid = pwd.getpwnam(settings.user).pw_uid
        except KeyError:
            command.error(f"--user: there is no user {settings.user}")
        if os.geteuid() not in (0, settings.uid):
            command.error("--user: only root may run a server as another user")
        settings.server_options["user"] = settings.uid
    settings.repeat = [word for option, value in (
        ("--capacity", settings.capacity),
        ("--course", None if settings.course == str(COURSE) else settings.course),
        ("--user", settings.user),
        ("--slow-factor", None if settings.slow_factor == 1 else f"{settings.slow_factor:g}"),
    ) if value is not None for word in (option, str(value))]
    trouble = files.start(settings, course.title)
    if trouble:
        command.error(clean(trouble))


def is_program(path):
    return os.path.isfile(path) and os.access(path, os.X_OK)


def build(settings):
    """Build a folder's server; what make printed, if it failed."""
    if not os.path.isdir(settings.path):
        return []
    if not any(os.path.exists(os.path.join(settings.path, name))
               for name in ("Makefile", "makefile", "GNUmakefile")):
        return []
    if shutil.which("make") is None:
        return ["make is not installed"]

    env, become = dict(os.environ), None
    if settings.uid is not None:    # compilers keep files in the home directory
        env["HOME"] = pwd.getpwuid(settings.uid).pw_dir
        become = functools.partial(os.setreuid, settings.uid, settings.uid)
    done = capture(["make", "-C", settings.path], BUILD_SECONDS, prepare=become, env=env)
    if done.status == 0:
        return []
    return [f"make failed: {done.trouble or f'exit status {done.status}'}",
            *lines(done.stdout + done.stderr)[-BUILD_LINES:]]


def not_built(course, trouble, settings):
    """Nothing was run: no points, and why."""
    for line in trouble:
        say(line)
    nothing = [Judged(stage, [], course.stages[0]) for stage in course.stages]
    say(f"0 of {sum(judged.most for judged in nothing)} points.")
    write_files(course, nothing, settings, "\n".join(map(clean, trouble)))
    return 1


def write_files(course, found, settings, trouble=""):
    if settings.json:
        files.write_json(settings.json, course, found, settings)
    if settings.gradescope:
        files.write_gradescope(settings.gradescope, course, found, settings, trouble)
    if settings.junit:
        files.write_junit(settings.junit, course, found, settings, trouble)
    if settings.github:
        for line in files.annotations(found, settings, trouble):
            print(line, flush=True)
        if os.environ.get("GITHUB_STEP_SUMMARY"):
            files.write_summary(os.environ["GITHUB_STEP_SUMMARY"], course, found, settings,
                                trouble)


def list_stages(course):
    for stage in course.stages:
        most = sum(graded.points for graded in stage.cases)
        say(f"stage {stage.number:<2} {stage.name}: {most} points, {stage.part} part")
        say(f"         {stage.model}: {' and '.join(stage.teaches)}")
        for graded in stage.cases:
            say(f"  {graded.points:>4}   {graded.case.name}: {graded.case.promise}")
