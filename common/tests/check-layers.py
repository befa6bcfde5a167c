#!/usr/bin/env python3
"""Which part of the tree may use which. Each rule below is a promise that can be checked in the
text of the sources: what a source includes, and what a library does not do.
Writes TAP."""

import fnmatch
import pathlib
import re
import sys

# The headers of this project that a source may include. The first pattern that matches decides.
# A source that no pattern matches is an error: give it a place.
BASE = "address clock net options stats"    # sockets, counters, what the user chose
PROGRAM = BASE + " log server stop"         # what makes a step a program
LAYERS = [
    ("*/tests/*", "*"),
    ("*/demos/*", "*"),
    ("common/lessons/*", ""),                       # small programs, each alone
    ("common/echo.?", "echo"),
    ("common/address.?", "address"),
    ("common/clock.?", "clock"),
    ("common/stats.?", "stats"),
    ("common/net.?", "net address stats"),
    ("common/idle.?", "idle clock net stop"),
    ("common/log.?", "log"),
    ("common/options.?", "options log"),
    ("common/stop.?", "stop log net"),
    ("common/activation.?", "activation net"),
    ("common/server.?", "activation " + PROGRAM),
    ("common/stream.?", "stream " + PROGRAM),
    ("common/conn.?", "conn echo idle " + PROGRAM),
    ("common/drain.?", "drain conn clock stop"),
    ("common/threads.?", "threads stats stop"),
    ("common/children.?", "children clock log net server stats stop"),
    ("common/cpus.?", "cpus"),
    ("step[123]_*/server.c", "stream threads echo " + PROGRAM),
    ("step[456]_*/server.c", "conn drain " + PROGRAM),
    ("step7_*/server.c", "uvnet echo server"),
    ("step7_*/uvnet.?", "uvnet idle log net server stats stop"),  # libuv owns the socket
    ("step8_*/server.c", "conn drain ae count " + PROGRAM),
    ("step8_ae/count.?", "ae count server stats"),
    ("step8_ae/ae*.?", "ae*"),                      # to be lifted out and used elsewhere
    ("step8_ae/variants/coroutine.h", ""),          # knows stacks only
    ("step6_*/uring.?", "uring log net server stats stop"),  # how the ring is made
    ("step6_*/variants/workers.c", "conn cpus drain stream threads " + PROGRAM),
    ("step2_*/variants/*", "stream threads children echo " + PROGRAM),
    ("step*/variants/*", "conn drain stream idle echo ae coroutine count uring " + PROGRAM),
    ("clients/*", "*"),
]
# System headers that only a few sources need.
RESERVED = {
    "uv.h": ["step7_*", "clients/bench/timers.c"],      # measured beside ae
    "pthread.h": ["common/cpus.c", "common/log.c", "common/net.c", "common/server.c",
                  "common/stats.c", "common/stop.c", "common/threads.c", "step2_*",
                  "step6_epoll/variants/workers.c", "*/demos/*", "*/tests/*", "clients/*",
                  "common/lessons/*"],
    "sys/select.h": ["step5_*", "step8_ae/ae_select.c", "*/tests/*", "clients/*",
                     "common/lessons/*"],
    "sys/wait.h": ["common/children.c", "*/demos/*", "*/tests/*", "clients/*",
                   "common/lessons/*"],
}
# Only Linux has these. Outside LINUX_FILES they need an #ifdef __linux__ around them.
LINUX_ONLY = {"argp.h", "liburing.h", "sys/epoll.h", "sys/eventfd.h", "sys/inotify.h",
              "sys/prctl.h", "sys/sendfile.h", "sys/signalfd.h", "sys/timerfd.h"}
LINUX_FILES = ["step6_*", "step8_ae/ae_epoll.c", "clients/bench/*", "*/demos/*", "*/tests/*",
               "common/lessons/*"]
# The other steps that a Makefile may name, and why.
BORROWED = {
    ("step4_nonblocking_poll", "step5_select"),         # its demo runs that server, too
}
# Each of these depends on the time of day. When that is set back, a wait would last for hours.
TIME_OF_DAY = re.compile(
    r"\bCLOCK_REALTIME\b|(?<![\w.>])(gettimeofday|time|pthread_cond_timedwait|sem_timedwait|"
    r"pthread_mutex_timedlock|mtx_timedlock|cnd_timedwait)\s*\(")
ENGINE_MAY_INCLUDE = {"assert.h", "limits.h", "stdbool.h", "stddef.h", "stdint.h", "string.h"}
LIBRARIES = [f"common/{name}.?" for name in
             "activation address children clock conn cpus drain echo idle net stats stream "
             "threads".split()]
LIBRARIES += ["step8_ae/ae*.?"]
PRINTS_OR_EXITS = re.compile(
    r"(?<![\w.>])(v?f?printf|v?dprintf|f?puts|f?putc|putchar|fwrite|perror|psignal|v?syslog|"
    r"v?errx?|v?warnx?|exit|_exit|_Exit|quick_exit|abort)\s*\(")
README_LINES = 60


class Source:
    """A C file: its name in the tree, its text, its code (comments and the insides of strings
    blanked), and what it includes."""

    def __init__(self, tree, path):
        self.name = str(path.relative_to(tree))
        self.top = self.name.partition("/")[0]
        self.text = path.read_text(encoding="utf-8")
        self.code = strip(self.text)
        self.includes = []      # (where, header, in #ifdef __linux__?)
        self.ours = []          # (where, file in the tree, or None if there is none)
        for number, guarded, kind, header in scan(self.code):
            where = f"{self.name}:{number}: #include {header}"
            if kind == "<":
                self.includes.append((where, header, guarded))
                continue
            folders = [path.parent, *(tree / name for name in
                       ("common", "step6_epoll", "step8_ae", "clients/load"))]
            found = [(folder / header).resolve() for folder in folders
                     if (folder / header).is_file()]
            self.ours.append((where, found[0].relative_to(tree) if found else None))

    def matches(self, patterns):
        return any(fnmatch.fnmatchcase(self.name, pattern) for pattern in patterns)


def strip(text):
    """Blanks comments and the insides of strings, but not the names in #include lines. The
    numbers of lines do not change."""
    def blank(match):
        found = match.group(0)
        return found if found[0] == "#" else re.sub(r"[^\n]", " ", found)

    return re.sub(r"""#\s*include[^\n]*|/\*.*?\*/|//[^\n]*|(["'])(?:\\.|(?!\1).)*?\1""",
                  blank, text, flags=re.S)


def scan(code):
    """The #includes: line number, whether only Linux compiles it, kind, header."""
    guards = []
    for number, line in enumerate(code.splitlines(), 1):
        directive = re.match(r"\s*#\s*(\w+)(.*)", line)
        if directive is None:
            continue
        word, rest = directive.groups()
        if word in ("elif", "else", "endif") and guards:
            guards.pop()
        if word in ("if", "ifdef", "ifndef", "elif", "else"):
            guards.append(word in ("if", "ifdef", "elif") and "__linux__" in rest)
        include = re.match(r'\s*([<"])([^>"]+)', rest)
        if word == "include" and include:
            yield (number, any(guards), *include.groups())


RULES = []


def rule(promise):
    def register(function):
        RULES.append((promise, function))
        return function
    return register


@rule("every source includes only what its layer may know")
def layers(sources, tree):
    for source in sources:
        allowed = next((may for pattern, may in LAYERS
                        if fnmatch.fnmatchcase(source.name, pattern)), None)
        if allowed is None:
            yield source.name + ": LAYERS has no place for it"
            continue
        for where, header in source.ours:
            if header is None:
                yield where + ": no such file in the tree"
            elif not any(fnmatch.fnmatchcase(header.stem, may) for may in allowed.split()):
                yield f"{where}: it may include: {allowed}"


@rule("no step includes another step's file")
def steps_apart(sources, tree):
    for source in sources:
        for where, header in source.ours:
            if source.top.startswith("step") and header is not None \
                    and header.parts[0].startswith("step") and header.parts[0] != source.top:
                yield where
    for makefile in sorted(tree.glob("step*_*/Makefile")):
        for number, line in enumerate(makefile.read_text(encoding="utf-8").splitlines(), 1):
            found = re.findall(r"/(step\d+_[\w/.-]*)", line.partition("#")[0])
            step = makefile.parent.name
            if any(name.partition("/")[0] != step and (step, name) not in BORROWED
                   for name in found):
                yield f"{makefile.relative_to(tree)}:{number}: {line.strip()}"


@rule("clients know the wire, and ae.h, but no server's sources")
def clients_apart(sources, tree):
    for source in sources:
        if source.top == "clients" and source.name != "clients/bench/engine.c":
            for where, header in source.ours:
                if header is not None and header.parts[0] != "clients" \
                        and str(header) != "step8_ae/ae.h":
                    yield where


@rule("nothing in common/ includes a step's or a client's file")
def common_below(sources, tree):
    for source in sources:
        if source.top == "common":
            for where, header in source.ours:
                if header is not None and header.parts[0] != "common":
                    yield where


@rule("the protocol engine uses no socket, clock, heap or stdio")
def engine(sources, tree):
    for source in sources:
        if source.matches(["common/echo.?"]):
            for where, header, _ in source.includes:
                if header not in ENGINE_MAY_INCLUDE:
                    yield where


@rule("a model's own header is included by that model only")
def reserved(sources, tree):
    for source in sources:
        for where, header, _ in source.includes:
            if header in RESERVED and not source.matches(RESERVED[header]):
                yield where


@rule("headers that only Linux has are included only where Linux is required")
def portable(sources, tree):
    for source in sources:
        for where, header, guarded in source.includes:
            if (header in LINUX_ONLY or header.startswith("linux/")) and not guarded \
                    and not source.matches(LINUX_FILES):
                yield where


@rule("libraries neither print nor exit")
def libraries(sources, tree):
    for source in sources:
        if source.matches(LIBRARIES):
            for number, line in enumerate(source.code.splitlines(), 1):
                call = PRINTS_OR_EXITS.search(line)
                if call:
                    yield f"{source.name}:{number}: calls {call.group(1)}"


@rule("every server says where its wait happens and when it breaks")
def headers(sources, tree):
    for source in sources:
        if source.matches(["step*_*/server.c", "step*/variants/*.c"]):
            first = source.text.partition("*/")[0]
            for label in "Wait happens in", "Breaks when":
                if not re.search(rf"^ \*   {label} +\S", first, re.M):
                    yield f'{source.name}: its first comment has no line "{label}"'


@rule("every server has the same functions, run_server and main last")
def shape(sources, tree):
    for source in sources:
        if source.matches(["step*_*/server.c"]):
            found = re.findall(r"^[A-Za-z_][^=;\n]*?\b(\w+)\([^;{]*?\)\n\{", source.code, re.M)
            if "serve_client" not in found and \
                    not {"accept_client", "pump_client"} <= set(found):
                yield f"{source.name}: neither serve_client nor accept_ and pump_client"
            if found[-2:] != ["run_server", "main"]:
                yield f"{source.name}: ends with {', '.join(found[-2:])}"


@rule("waits and time limits do not depend on the time of day")
def monotonic(sources, tree):
    for source in sources:
        if source.top != "clients" and not source.matches(["*/tests/*"]):
            for number, line in enumerate(source.code.splitlines(), 1):
                use = TIME_OF_DAY.search(line)
                if use:
                    yield f"{source.name}:{number}: uses {use.group(1) or use.group(0)}"


@rule(f"every step has a README of at most {README_LINES} lines")
def readmes(sources, tree):
    for step in sorted(tree.glob("step*_*")):
        readme = step / "README.md"
        if not readme.is_file():
            yield f"{step.name}/ has none"
        else:
            lines = len(readme.read_text(encoding="utf-8").splitlines())
            if lines > README_LINES:
                yield f"{step.name}/README.md has {lines}"


def main(tree):
    files = [path for pattern in ("common", "clients", "step*_*")
             for folder in sorted(tree.glob(pattern)) for path in sorted(folder.rglob("*.[ch]"))
             if "build" not in path.relative_to(tree).parts]
    sources = [Source(tree, path) for path in files]
    print(f"1..{len(RULES)}")
    failed = 0
    for number, (promise, function) in enumerate(RULES, 1):
        wrong = list(function(sources, tree))
        failed += bool(wrong)
        print(f"{'not ok' if wrong else 'ok'} {number} - {promise}")
        for line in wrong:
            print("# " + line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(__file__).resolve().parents[2]))
