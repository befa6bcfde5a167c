#!/usr/bin/env python3
"""Records what the commands of the lessons print, and inserts it into the pages.

    common/lessons/record.py                compare the pages with the recorded outputs
    common/lessons/record.py --write        run all commands, record their outputs, insert them
    common/lessons/record.py --write NAME...    only these
    common/lessons/record.py --list         the names

A page shows an output between `<!-- output: NAME -->` and `<!-- end -->`. Exit status: 0 all is
well, 1 a page shows something else or a command failed, 2 called wrongly.
"""

import argparse
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parents[1]
sys.path.insert(0, str(TREE / "clients"))

from lib.processes import Trouble, capture, program     # noqa: E402

SECONDS = 120       # for one command
BLOCK = re.compile(r"(<!-- output: ([\w-]+) -->\n)(.*?)(<!-- end -->\n)", re.S)
DEMO = ["Step 1 -", r"conn0", r"conn1", r"conn4", "Step 2 -", r"conn0", r"conn4", "Step 6 -",
        r"conn0", r"conn4", "░ waiting for"]

# name: (the command or the name of another output,
#        patterns of the lines to show in their order; None: all lines)
OUTPUTS = {
    "trace-1": ("make trace STEP=1", [r"recvfrom\(5, \"xyz.*slept"]),
    "trace-4": ("make trace STEP=4", ["recvfrom.*= -1 EAGAIN", "clock_nanosleep",
                                      r"recvfrom\(\d, \"xyz"]),
    "trace-6": ("make trace STEP=6", [r"epoll_wait.* = 1 .*slept 0\.[12]",
                                      r"recvfrom\(\d, \"xyz"]),
    "trace-io_uring": ("make trace STEP=6/io_uring", [r"io_uring_enter.*slept 0\.[12]"]),
    "queues": ("common/lessons/demos/queues.py", None),
    "phases": ("common/lessons/build/demos/phases", None),
    "descriptors": ("common/lessons/build/demos/descriptors", None),
    "read_anything": ("step3_blocking/build/demos/read_anything", None),
    "demo": ("make demo STEPS=1,2,6", DEMO),
    "models": ("common/lessons/demos/models.py", None),
    "models-short": ("models", ["tasks", "a client", "thread per", "epoll", "fibers"]),
    "fd_sets": ("common/lessons/build/demos/fd_sets", None),
    "idle_curve": ("common/lessons/demos/idle_curve.py", [
        r"select +0", r"select +300", r"select +600", r"select +900", r"poll +0", r"poll +900",
        r"epoll +0", r"epoll +900"]),
    "epoll_lists": ("common/lessons/build/demos/epoll_lists", None),
    "slow_client": ("step8_ae/demos/slow_client.py", None),
    "prime_client": ("step7_libuv/demos/prime_client.py", [
        "mode pool", "large requests", r"^ +0 ", r"^ +1 ", r"^ +2 ", r"^ +4 ", r"^ +5 "]),
    "permits": ("common/lessons/demos/permits.py", None),
    "sharing": ("step6_epoll/demos/sharing.py", None),
    "sizes": ("common/lessons/demos/sizes.py", None),
}


def chosen(text, patterns):
    """The lines to show: all of them, or the first for each pattern, in order."""
    lines = text.rstrip().split("\n")
    if patterns is None:
        return lines
    found, at = [], 0
    for pattern in patterns:
        while at < len(lines) and not re.search(pattern, lines[at]):
            at += 1
        if at == len(lines):
            raise LookupError(f"no line with {pattern}")
        found.append(lines[at])
        at += 1
    return found


def path_of(name):
    return HERE / "output" / f"{name}.txt"


def shown(name):
    """A recorded output as a block of a page; "" if it was never recorded."""
    path = path_of(name)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return "".join(f"    {line}".rstrip() + "\n" for line in lines)


def printed(command):
    """What a command prints, or another output."""
    if command in OUTPUTS:
        return path_of(command).read_text(encoding="utf-8")
    print(f"$ {command}", flush=True)
    done = capture(command.split(), SECONDS, cwd=str(TREE))
    if done.status != 0:
        raise Trouble(done.trouble or
                      f"exit status {done.status}: {done.stderr.strip()[-300:]}")
    return done.stdout


def record(name):
    command, patterns = OUTPUTS[name]
    lines = chosen(printed(command), patterns)
    path_of(name).parent.mkdir(exist_ok=True)
    path_of(name).write_text(
        "".join(re.sub(r"data=\{[^}]*\}", "...", line).rstrip() + "\n" for line in lines),
        encoding="utf-8")


def pages():
    return sorted(HERE.glob("*.md"))


def insert(page):
    text = page.read_text(encoding="utf-8")
    new = BLOCK.sub(lambda found: found[1] + (shown(found[2]) or found[3]) + found[4], text)
    if new != text:
        page.write_text(new, encoding="utf-8")


def problems():
    """What a page shows that was not recorded."""
    used = set()
    for page in pages():
        for _, name, block, _ in BLOCK.findall(page.read_text(encoding="utf-8")):
            used.add(name)
            if name not in OUTPUTS:
                yield f"{page.name}: there is no output {name}"
            elif not block or block != shown(name):
                yield f"{page.name}: the output {name} is not what was recorded"
    for name in sorted(set(OUTPUTS) - used):
        yield f"no page shows the output {name}"


def main():
    parser = argparse.ArgumentParser(description="Records what the lessons show.")
    parser.add_argument("--write", action="store_true", help="run, record and insert")
    parser.add_argument("--list", action="store_true", help="the names")
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these")
    options = parser.parse_args()
    for name in options.names:
        if name not in OUTPUTS:
            parser.error(f"no output {name}: there are {' '.join(OUTPUTS)}")
    if options.list:
        print("\n".join(OUTPUTS))
        return 0
    failed = []
    if options.write:
        for name in options.names or OUTPUTS:
            try:
                record(name)
            except (LookupError, OSError, Trouble) as problem:
                failed.append(f"{name}: {problem}")
        for page in pages():
            insert(page)
    failed += problems()
    for problem in failed:
        print(f"record.py: {problem}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    program(main, "record.py")
