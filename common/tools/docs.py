#!/usr/bin/env python3
"""Runs what the documents show: every command, compared with what stands below it.

    common/tools/docs.py                    all Markdown files; without what takes long
    common/tools/docs.py --full FILE...     these, and also what takes long
    common/tools/docs.py --update FILE...   write what the run printed into the files

docs_markdown.py says what kinds of blocks there are and which comments mark them,
docs_compare.py what counts as equal. Each document is run in a copy of the tree, in a network
of its own where the system permits that; else its ports 80xx are replaced by free ones. A
command that says where it listens is a server: it stays until the block ends, or until the
next server comes. Afterwards nothing may be left. Writes TAP. Exit status: 0 all documents are
right, 1 one is wrong, 2 called wrongly.
"""

import argparse
import ast
import concurrent.futures
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "clients"))

import docs_compare as compare      # noqa: E402
import docs_markdown as markdown    # noqa: E402
from lib import figures, processes, reports, servers    # noqa: E402

SECONDS = 100           # for a command
LONG_SECONDS = 900      # for one in a block marked as long
START_SECONDS = 10      # until a server listens
END_SECONDS = 10        # until it has stopped
TRIES = 3               # for what shows figures: a busy machine disturbs them
SHOWN = 60              # lines of output in a report
LISTENS = re.compile(r"^Listening on ", re.MULTILINE)
OPTIONAL = ("nc docker debootstrap strace redis-server redis-cli redis-benchmark gnuplot bear valgrind "
            "perf clang ps ss gdb").split()
# What `make check` itself consists of, and what takes minutes: only whether make knows it.
ELSEWHERE = re.compile(r"make (?:-C (\S+) )?(check-full|check|test|bench-check|bench|memcheck|fuzz|"
                       r"coverage|matrix|lint|format-check|format|dockerfile-check)\b")
TYPED = re.compile(r"<- typed: (.*)$")
TYPE = re.compile(r"#.*\btype:? (\S+)")
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
OK, FAIL, SKIP = reports.OK, reports.FAIL, reports.SKIP


class Wrong(Exception):
    """A block is not as it is shown; the text is for people."""


class Skipped(Exception):
    """Something cannot be run here."""


def enter_network():
    """Give this process a network of its own, with only the loopback device. Returns whether
    the system permits that."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
                return False
            pathlib.Path("/proc/self/setgroups").write_text("deny")
            pathlib.Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            pathlib.Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        with socket.socket() as device:     # SIOCGIFFLAGS, and SIOCSIFFLAGS with IFF_UP
            request = fcntl.ioctl(device, 0x8913, struct.pack("16sh14x", b"lo", 0))
            flags = struct.unpack("16sh14x", request)[1] | 1
            fcntl.ioctl(device, 0x8914, struct.pack("16sh14x", b"lo", flags))
        return True
    except (OSError, AttributeError):
        return False


def copy_tree(folder):
    """A copy of the tree as built: documents may build it in other ways. make builds nothing
    again, because the times of the files stay."""
    def left_out(path, names):
        inside = pathlib.Path(path).relative_to(TREE)
        return [name for name in names if name in (".git", "__pycache__", "corpus")
                or inside.parts == () and name == "build"
                or inside.name in ("build", "load") and name == "tests"]
    shutil.copytree(TREE, folder, symlinks=True, ignore=left_out)


def environment():
    chosen = dict(os.environ, NO_INSTALL="1", LC_ALL="C.UTF-8", TERM="dumb", PAGER="cat",
                  PYTHONDONTWRITEBYTECODE="1")
    for name in "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "GNUMAKEFLAGS", "STEP", "STEPS":
        chosen.pop(name, None)
    return chosen


class Session:
    """The commands of one block, and the servers that they started."""

    def __init__(self, folder, ports, seconds):
        self.folder, self.ports, self.seconds = folder, ports, seconds
        self.started = []           # (process, command, whether it is in the background)
        self.last = None            # process id for $!

    def replaced(self, text):
        """A command with other ports, where the network is not our own."""
        def port(found):
            return str(self.ports.setdefault(found[0], servers.free_port()))
        return text if self.ports is None else re.sub(r"(?<![\w.])80\d\d(?!\w)", port, text)

    def run(self, command, typed=()):
        """Run one command; return (exit status, output), or (None, output) if it is a server."""
        text = self.replaced(command.strip())
        if self.last:
            text = text.replace("$!", str(self.last))
        background = re.search(r"(?<!&)&\s*(#.*)?$", text)
        text = text[:background.start()] if background else text
        if ELSEWHERE.match(text):
            return self.known_to_make(text), ""
        missing = [name for name in OPTIONAL if re.search(rf"(?:^|[|;(] *)(?:\w+=\S* )*{name} ", text + " ")
                   and not shutil.which(name)]
        if missing:
            raise Skipped(f"{missing[0]} is not installed")
        if typed:
            return self.on_terminal(text, list(typed))
        stdin = subprocess.DEVNULL
        keys = TYPE.search(text)
        if keys:
            stdin = tempfile.TemporaryFile()
            stdin.write(keys[1].encode() + b"\n")
            stdin.seek(0)
        process = processes.Process(["bash", "-c", text], stdin=stdin, cwd=str(self.folder),
                                    env=environment())
        listening = self.wait(process, bool(background), text)
        if not listening:
            output, status = process.output(), process.poll()
            process.end()
            if status is None:
                raise Wrong(f"{command}\nstill ran after {self.seconds} s; it printed\n{output}")
            return status, output
        if not background:
            self.stop([each for each in self.started if not each[2]])
        else:
            self.last = process.pid
        self.started.append((process, command, bool(background)))
        return None, process.output()

    def known_to_make(self, text):
        """0 if make knows the target, without running it."""
        where, target = ELSEWHERE.match(text).groups()
        files = [self.folder / (where or ".") / "Makefile", self.folder / "common/build-aux/step.mk"]
        found = any(re.search(rf"^[^:=\n#\t]*\b{target}\b[^:=\n]*:", path.read_text("utf-8"), re.MULTILINE)
                    for path in files[:2 if where else 1])
        return 0 if found else 2

    def wait(self, process, background, text):
        """Until it has ended, or listens as a server does: then True."""
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            if process.wait(0.02) is not None:
                return False
            if not text.startswith("(") and LISTENS.search(process.output(1 << 12)):
                return True
            if background and time.monotonic() > deadline - self.seconds + START_SECONDS:
                return True
        return False

    def on_terminal(self, text, typed):
        """Run it on a terminal, and type each text when what stands before it has come."""
        master, slave = pty.openpty()
        with processes.Process(["bash", "-c", text], stdin=slave, stdout=slave, stderr=slave,
                               cwd=str(self.folder), env=environment()) as process:
            os.close(slave)
            output, since, deadline = "", time.monotonic(), time.monotonic() + self.seconds
            while time.monotonic() < deadline:
                if select.select([master], [], [], 0.05)[0]:
                    try:
                        data = os.read(master, 4096)
                    except OSError:     # the other side is closed: it has ended
                        break
                    output, since = output + data.decode(errors="replace"), time.monotonic()
                line = output.replace("\r", "").rpartition("\n")[2]
                if typed and line.strip() == typed[0][0].strip():
                    os.write(master, typed.pop(0)[1].encode() + b"\n")
                elif not typed and time.monotonic() - since > 0.5:
                    os.write(master, b"\x04")
                    since = deadline
            status = process.wait(END_SECONDS)
        os.close(master)
        return status, output.replace("\r", "").replace("^D\b\b", "")

    def stop(self, chosen):
        for each in chosen:
            process, command, _ = each
            process.signal_group(signal.SIGTERM)
            status = process.wait(END_SECONDS)
            output = process.output()
            process.end()
            self.started.remove(each)
            if status is None or status not in (0, -signal.SIGTERM) and not command.lstrip().startswith("make"):
                raise Wrong(f"{command}\nended with status {status} when it was stopped; it printed\n{output}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.stop(list(self.started))
            deadline = time.monotonic() + 2
            while processes.strays() and time.monotonic() < deadline:
                time.sleep(0.02)
                processes.reap()
            left = [figures.command_line(pid) for pid in processes.strays()]
        finally:
            processes.end_all()
        if left and kind is None:
            raise Wrong("left running: " + ", ".join(left))


class Document:
    """One Markdown file while its blocks are run."""

    def __init__(self, path, full, update):
        self.path, self.full, self.update = path, full, update
        self.text = path.read_text("utf-8")
        self.ports = None
        self.folder = None

    def results(self):
        """Yields a dictionary for each block, in order."""
        blocks = markdown.blocks(self.text)
        if all(block.kind() in ("picture", "unknown") for block in blocks):
            yield from (self.result(block) for block in blocks)
            return
        if not enter_network():
            self.ports = {}
        with tempfile.TemporaryDirectory(prefix="docs-") as folder:
            self.folder = pathlib.Path(folder) / TREE.name
            copy_tree(self.folder)
            for block in blocks:
                yield self.result(block)

    def result(self, block):
        began, kind = time.monotonic(), block.kind()
        first = next((line for line in block.lines if line.strip()), "").strip()
        result = {"line": block.line, "kind": kind, "name": f"{kind}: {first[:60]}",
                  "status": OK, "reason": "", "lines": None}
        try:
            if "not run" in block.markers:
                raise Skipped("not run: " + (block.markers["not run"] or "without a reason"))
            if "long" in block.markers and not self.full:
                raise Skipped("takes long: make check-full STAGE=docs")
            tries = TRIES if kind in ("transcript", "excerpt") and self.has_figures(block) else 1
            for number in range(1 if self.update else tries):
                try:
                    result["lines"] = getattr(self, kind)(block)
                    break
                except Wrong:
                    if number == tries - 1 or self.update:
                        raise
        except Skipped as why:
            result.update(status=SKIP, reason=str(why))
        except (Wrong, ValueError, OSError) as why:
            result.update(status=FAIL, reason=str(why))
        result["seconds"] = round(time.monotonic() - began, 2)
        return result

    def has_figures(self, block):
        return compare.has_figures(block.lines, "figures" in block.markers)

    # One function for each kind. They return the lines that the run would show, or None.

    def picture(self, _):
        return None

    def unknown(self, block):
        raise Wrong("neither a command nor a picture. Say what it is in the text before it: "
                    "<!-- from: COMMAND --> or <!-- not run: REASON -->")

    def file(self, block):
        path = self.folder / block.markers["file"]
        path.write_text(block.text() + "\n", "utf-8")
        path.chmod(0o755)

    def code(self, block):
        if block.language == "python":
            ast.parse(block.text())
        elif block.language == "json":
            json.loads(block.text())
        elif block.language == "c":
            self.c_code(block)
        else:
            raise Wrong(f"nothing is known of the language {block.language}: mark it")

    def c_code(self, block):
        """It stands in the sources, or it compiles."""
        def plain(text):
            return re.sub(r"\s+", " ", text).strip()

        wanted = [plain(line) for line in block.lines if plain(line) not in ("", "...", "/* ... */")]
        for path in [*TREE.glob("*/*.[ch]"), *TREE.glob("*/*/*.[ch]")]:
            lines = {plain(line) for line in path.read_text("utf-8").split("\n")}
            if all(line in lines for line in wanted):
                return
        done = subprocess.run(
            ["cc", "-D_GNU_SOURCE", f"-I{TREE}/common", f"-I{TREE}/step8_ae", "-fsyntax-only",
             "-x", "c", "-"], input=block.text(), encoding="utf-8", stderr=subprocess.PIPE)
        if done.returncode:
            raise Wrong("stands in no source of the tree, and does not compile:\n" + done.stderr)

    def synopsis(self, block):
        for command in markdown.logical(re.sub(r"\n +(?=[\[-])", " ", block.text()).split("\n")):
            words = command.split()
            if not (self.folder / words[0]).is_file():
                raise Wrong(f"there is no {words[0]}")
            status, output = self.session(block).run(f"{words[0]} --help")
            absent = [option for option in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", command)
                      if not re.search(rf"(?<![\w-]){option}(?![\w-])", output)]
            if status != 0 or absent:
                raise Wrong(f"{words[0]} --help exits with {status}, and does not name {absent}")

    def session(self, block):
        return Session(self.folder, self.ports,
                       LONG_SECONDS if "long" in block.markers else SECONDS)

    @contextlib.contextmanager
    def commands_of(self, block):
        with self.session(block) as session:
            if "with" in block.markers:
                status, output = session.run(block.markers["with"] + " &")
                if status is not None:
                    raise Wrong(f"{block.markers['with']}: exit status {status}\n{output}")
            yield session

    def commands(self, block):
        with self.commands_of(block) as session:
            each = markdown.logical(block.lines)
            for number, command in enumerate(each):
                status, output = session.run(command)
                self.judge(block, command, status, output, number == len(each) - 1)

    def judge(self, block, command, status, output, last):
        expected = int(block.markers.get("exit", 0)) if last else 0
        if status not in (None, expected) and not (command.startswith("diff ") and status == 1):
            raise Wrong(f"{command}\nexit status {status} instead of {expected}; it printed\n{output}")
        skipped = re.match(r"skip  (.*)", output)
        if skipped:
            raise Skipped(skipped[1])

    def transcript(self, block):
        lines, parts = list(block.lines), markdown.transcript(block)
        with self.commands_of(block) as session:
            outputs = []
            for number, (command, begin, end) in enumerate(parts):
                typed = [(line[:line.rindex(keys[1])], keys[1]) for line, keys in
                         ((TYPED.sub("", line), TYPED.search(line)) for line in block.lines[begin:end])
                         if keys]
                status, output = session.run(command, typed)
                self.judge(block, command, status, output, number == len(parts) - 1)
                outputs.append("" if status is None and end == begin else output)
        for (command, begin, end), output in reversed(list(zip(parts, outputs))):
            lines[begin:end] = self.compared(block, block.lines[begin:end], output, False)
        return self.sealed(block, lines)

    def excerpt(self, block):
        if ELSEWHERE.match(block.command()):
            raise Skipped(f"{block.command()} runs elsewhere")
        with self.commands_of(block) as session:
            status, output = session.run(block.command())
            self.judge(block, block.command(), status, output, True)
            if status is None:      # a server: all that it says until it stops
                process = session.started[-1][0]
                client = block.markers.get("client")
                if client:
                    self.judge(block, client, *session.run(client), True)
                session.stop(session.started[-1:])
                output = process.output()
        return self.sealed(block, self.compared(block, block.lines, output, True))

    def compared(self, block, shown, output, excerpt):
        printed = reports.lines(output)
        many = "figures" in block.markers
        try:
            if self.update:
                return compare.replaced(shown, printed, many, excerpt)
            compare.align(shown, printed, many, excerpt)
        except compare.Differs as difference:
            raise Wrong(f"{difference}\nAll that was printed:\n{output}") from None
        return shown

    def sealed(self, block, lines):
        if not self.update and self.has_figures(block) \
                and block.markers.get("sealed") != compare.seal(block.lines):
            raise Wrong("its figures were changed by hand, or come from no run: "
                        f"common/tools/docs.py --update {self.path.name}")
        return lines


def write_back(path, results):
    """Put what the run printed into the document, and seal it. Returns the lines changed."""
    lines = path.read_text("utf-8").split("\n")
    before = list(lines)
    for block, result in reversed(list(zip(markdown.blocks("\n".join(lines)), results))):
        if result["lines"] is None:
            continue
        begin = block.line - 1
        lines[begin:begin + len(block.lines)] = [
            (block.indent + line).rstrip() for line in result["lines"]]
        many = "figures" in block.markers
        for number in range(begin - 1, -1, -1):     # the marker's place: in the text before
            if "<!-- sealed:" in lines[number] and "sealed" in block.markers:
                lines[number] = re.sub(r" *<!-- sealed: \w* -->", "", lines[number])
                if not lines[number]:
                    del lines[number]
                break
            if number < begin - 1 - block.before.count("\n"):
                break
        if compare.has_figures(result["lines"], many):
            mark = f"<!-- sealed: {compare.seal(result['lines'])} -->"
            if block.marker_line:
                lines[block.marker_line - 1] += " " + mark
            else:
                lines[begin:begin] = [mark, ""]
    path.write_text("\n".join(lines), "utf-8")
    return lines != before


def run_document(path, settings):
    """In a process of its own: the results, and what went wrong otherwise."""
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--child", str(path)]
    command += ["--full"] * settings.full + ["--update"] * settings.update
    done = processes.capture(command, 3600 if settings.full or settings.update else 600, limit=32 << 20)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return results, "" if done.status == 0 else (done.trouble or done.stderr or "it ended early")


class Report:
    """TAP, and what to count."""

    def __init__(self):
        self.number, self.failed, self.count, self.reasons = 0, 0, {}, []

    def tell(self, status, name, reason=""):
        self.number += 1
        self.failed += status == FAIL
        directive = f"SKIP {reason}" if status == SKIP else ""
        print(reports.tap_line(status != FAIL, self.number, name, directive))
        if status == FAIL:
            lines = reason.split("\n")
            print(reports.tap_comment("\n".join(lines[:SHOWN])), end="")
        sys.stdout.flush()

    def block(self, name, result):
        kind = result["kind"] if result["status"] != SKIP else "skipped"
        self.count[kind] = self.count.get(kind, 0) + 1
        if result["status"] == SKIP:
            self.reasons.append(f"{name}:{result['line']}: {result['reason']}")
        self.tell(result["status"], f"{name}:{result['line']} {result['name']}", result["reason"])

    def end(self):
        counted = ", ".join(f"{number} {kind}" for kind, number in sorted(self.count.items()))
        print(f"1..{self.number}")
        print(reports.tap_comment("\n".join([f"blocks: {counted}", *self.reasons])), end="")


def parse(arguments):
    usage, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(prog="docs.py", description=usage, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="run also what takes long")
    parser.add_argument("--long", action="store_true", help="run only documents with such blocks")
    parser.add_argument("--update", action="store_true",
                        help="write the figures and lines of this run into the files")
    parser.add_argument("--list", action="store_true", help="only say what each block is")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", metavar="FILE", type=pathlib.Path,
                        help="default: every Markdown file of the tree")
    settings = parser.parse_args(arguments)
    for path in settings.files:
        if not path.is_file() or TREE not in path.resolve().parents:
            parser.error(f"{path}: not a file of this tree")
    settings.files = [path.resolve() for path in settings.files] or markdown.documents(TREE)
    return settings


def show_kinds(files):
    for path in files:
        for block in markdown.blocks(path.read_text("utf-8")):
            marks = "; ".join(f"{name}: {rest}" for name, rest in block.markers.items())
            print(f"{path.relative_to(TREE)}:{block.line:<4} {block.kind():<10} "
                  f"{block.lines[0].strip()[:50]:<50}  {marks or block.command()}")


def main(arguments=None):
    settings = parse(sys.argv[1:] if arguments is None else arguments)
    if settings.child:
        for result in Document(settings.files[0], settings.full, settings.update).results():
            print(json.dumps(result), flush=True)
        return 0
    if settings.list:
        show_kinds(settings.files)
        return 0
    report, files = Report(), settings.files
    if settings.long:
        settings.full = True
        files = [path for path in files if "<!-- long" in path.read_text("utf-8")]
    instrumented = os.environ.get("SAN") or float(os.environ.get("CHECK_SLOW") or 1) != 1
    with concurrent.futures.ThreadPoolExecutor(max(1, settings.jobs)) as pool:
        waiting = {} if instrumented else {
            pool.submit(run_document, path, settings): path for path in files}
        for path in files:
            wrong = [f"line {line}: {what}" for line, what in
                     [*markdown.broken_links(path, TREE),
                      *markdown.visible_comments(path.read_text("utf-8"))]]
            report.tell(FAIL if wrong else OK, f"{path.relative_to(TREE)} links", "\n".join(wrong))
        for each in concurrent.futures.as_completed(waiting):
            path, (results, trouble) = waiting[each], each.result()
            for result in results:
                report.block(path.relative_to(TREE), result)
            if trouble:
                report.tell(FAIL, f"{path.relative_to(TREE)} could not be run", trouble)
            elif settings.update and write_back(path, results):
                print(f"# {path.relative_to(TREE)}: updated")
    if instrumented:
        report.tell(SKIP, "blocks", "the documents show what ordinary builds do")
    report.end()
    return 1 if report.failed else 0


if __name__ == "__main__":
    processes.program(main)
