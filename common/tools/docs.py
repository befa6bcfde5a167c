#!/usr/bin/env python3
"""Runs what the documents show: every command, compared with what stands below it.

    common/tools/docs.py                    all Markdown files; without what takes long
    common/tools/docs.py --full FILE...     these, and also what takes long
    common/tools/docs.py --update FILE...   what no longer holds is replaced by what the run
                                            printed, and sealed; --fresh: everything is

docs_markdown.py says what kinds of blocks there are and which comments mark them,
docs_compare.py what counts as equal, docs_figures.py where the figures in the text come from.
Each document is run in a copy of the tree, in a network of its own where the system permits
that; else its ports 80xx are replaced by free ones. A command that says where it listens is a
server: it stays until the block ends, or until the next server comes. Afterwards nothing may be
left. Writes TAP. Exit status: 0 all documents are right, 1 one is wrong, 2 called wrongly.
"""

import argparse
import ast
import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = str(TREE / "common/tools"), str(TREE / "clients")     # also with PYTHONSAFEPATH

import docs_compare as compare          # noqa: E402
import docs_figures                     # noqa: E402
import docs_markdown as markdown        # noqa: E402
from docs_session import (              # noqa: E402
    ELSEWHERE, Session, Skipped, Wrong, copy_tree, cpu_seconds, enter_network)
from lib import processes, reports      # noqa: E402

TRIES = 3               # for what shows figures: a busy machine disturbs them
SHOWN = 60              # lines of output in a report
MOST = 8                # of the blocks that need the most CPU, in a report
# A document with this in it may change the tree that it runs in.
CHANGES = re.compile(r"BACKEND=|SAN=|<!-- file|^    \S*cc ", re.MULTILINE)
SEALED = re.compile(r"<!-- sealed: \w* -->")
TYPED = re.compile(r"<- typed: (.*)$")
OK, FAIL, SKIP = reports.OK, reports.FAIL, reports.SKIP


class Document:
    """One Markdown file while its blocks are run."""

    def __init__(self, path, settings):
        self.path, self.folder, self.full = path, settings.child, settings.full
        self.update, self.fresh = settings.update, settings.fresh
        self.text = path.read_text("utf-8")
        self.last_try = True
        self.ports = None           # other ports for 80xx, if the network is not our own

    def results(self):
        """Yields a dictionary for each block, in order."""
        blocks = markdown.blocks(self.text)
        if all(block.kind() in ("picture", "unknown") for block in blocks):
            yield from (self.result(block) for block in blocks)
            return
        if not enter_network():
            self.ports = {}
        for block in blocks:
            yield self.result(block)

    def result(self, block):
        began, used, kind = time.monotonic(), cpu_seconds(), block.kind()
        first = next((line for line in block.lines if line.strip()), "").strip()
        result = {"line": block.line, "kind": kind, "name": f"{kind}: {first[:60]}",
                  "status": OK, "reason": "", "lines": None}
        try:
            shows = "not run" in block.markers or kind in ("transcript", "excerpt")
            if shows and not self.update:
                self.check_seal(block)
            if "not run" in block.markers:
                result["lines"] = block.lines
                raise Skipped("not run: " + (block.markers["not run"] or "without a reason"))
            if "long" in block.markers and not self.full:
                raise Skipped("takes long: make check-full STAGE=docs")
            varies = kind == "excerpt" or kind == "transcript" and self.has_figures(block)
            tries = TRIES if varies else 1
            for number in range(tries):
                self.last_try = number == tries - 1
                try:
                    result["lines"] = getattr(self, kind)(block)
                    break
                except Wrong:
                    if self.last_try:
                        raise
        except Skipped as why:
            result.update(status=SKIP, reason=str(why))
        except (Wrong, ValueError, OSError) as why:
            result.update(status=FAIL, reason=str(why))
        result["seconds"] = time.monotonic() - began
        result["cpu"] = cpu_seconds() - used
        return result

    def has_figures(self, block):
        return compare.has_figures(block.lines, block.figures())

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
            raise Wrong(f"the language {block.language} is unknown here: mark the block")

    def c_code(self, block):
        """It stands in the sources, or it compiles."""
        def plain(text):
            return re.sub(r"\s+", " ", text).strip()

        wanted = [plain(line) for line in block.lines]
        wanted = [line for line in wanted if line not in ("", "...", "/* ... */")]
        for path in [*TREE.glob("*/*.[ch]"), *TREE.glob("*/*/*.[ch]")]:
            lines = {plain(line) for line in path.read_text("utf-8").split("\n")}
            if all(line in lines for line in wanted):
                return
        done = subprocess.run(
            ["cc", "-D_GNU_SOURCE", f"-I{TREE}/common", f"-I{TREE}/step8_ae", "-fsyntax-only",
             "-x", "c", "-"], input=block.text(), encoding="utf-8", stderr=subprocess.PIPE)
        if done.returncode:
            raise Wrong(f"stands in no source, and does not compile:\n{done.stderr}")

    def synopsis(self, block):
        text = re.sub(r"\n +(?=[\[-])", " ", block.text())     # its options may need two lines
        for command in markdown.logical(text.split("\n")):
            words = command.split()
            if not (self.folder / words[0]).is_file():
                raise Wrong(f"there is no {words[0]}")
            status, output = self.session(block).run(f"{words[0]} --help")
            absent = [option for option in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", command)
                      if not re.search(rf"(?<![\w-]){option}(?![\w-])", output)]
            if status != 0 or absent:
                raise Wrong(f"{words[0]} --help: exit status {status}, does not name {absent}")

    def session(self, block):
        return Session(self.folder, self.ports, "long" in block.markers)

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
            raise Wrong(f"{command}\nexit status {status} instead of {expected}; it printed\n"
                        f"{output}")
        skipped = re.match(r"skip  (.*)", output)
        if skipped:
            raise Skipped(skipped[1])

    def transcript(self, block):
        lines, parts = list(block.lines), markdown.transcript(block)
        with self.commands_of(block) as session:
            outputs = []
            for number, (command, begin, end) in enumerate(parts):
                typed = []          # what stands before it on the line, and the text
                for line in block.lines[begin:end]:
                    keys = TYPED.search(line)
                    if keys:
                        line = line[:keys.start()]
                        typed.append((line[:line.rindex(keys[1])], keys[1]))
                status, output = session.run(command, typed)
                self.judge(block, command, status, output, number == len(parts) - 1)
                outputs.append("" if status is None and end == begin else output)
        if all(begin == end for _, begin, end in parts):
            return None             # it shows only commands
        for (command, begin, end), output in reversed(list(zip(parts, outputs))):
            lines[begin:end] = self.compared(block, block.lines[begin:end], output, False)
        return lines

    def excerpt(self, block):
        if ELSEWHERE.match(block.command()):
            if self.update:
                return block.lines
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
        return self.compared(block, block.lines, output, True)

    def recorded(self, block):
        """A lesson shows what record.py has recorded. The command still prints the like."""
        sys.path.insert(0, str(TREE / "common/lessons"))
        import record
        name = block.markers["output"]
        if record.shown(name).rstrip() != "\n".join(
                f"    {line}".rstrip() for line in block.lines).rstrip():
            raise Wrong("it was changed by hand: common/lessons/record.py --write " + name)
        if not self.full:
            raise Skipped("takes long: make check-full STAGE=docs")
        command, _ = record.OUTPUTS[name]
        command, _ = record.OUTPUTS.get(command, (command, None))
        with self.commands_of(block) as session:
            status, output = session.run(command)
            self.judge(block, command, status, output, True)
        try:
            compare.align(block.lines, reports.lines(output), "chance", True)
        except compare.Differs as difference:
            raise Wrong(f"{difference}\nAll that was printed:\n{output}") from None

    def compared(self, block, shown, output, excerpt):
        printed = reports.lines(output)
        many = block.figures()
        try:
            if self.fresh:
                return compare.replaced(shown, printed, many, excerpt)
            try:
                compare.align(shown, printed, many, excerpt)
            except compare.Differs:
                if not self.update or not self.last_try:
                    raise
                return compare.replaced(shown, printed, many, excerpt)
        except compare.Differs as difference:
            raise Wrong(f"{difference}\nAll that was printed:\n{output}") from None
        return shown

    def check_seal(self, block):
        """Also for blocks that are not run, or not now: no figure is changed unnoticed."""
        if self.has_figures(block) and block.markers.get("sealed") != compare.seal(block.lines):
            raise Wrong("its figures were changed by hand, or come from no run: common/tools/"
                        f"docs.py --update {'--full ' * ('long' in block.markers)}"
                        f"{self.path.relative_to(TREE)}")


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
        mark = ""
        if compare.has_figures(result["lines"], block.figures()):
            mark = f"<!-- sealed: {compare.seal(result['lines'])} -->"
        if "sealed" in block.markers:
            number = max(number for number in range(begin) if SEALED.search(lines[number]))
            lines[number] = SEALED.sub(mark, lines[number]).rstrip()
        elif mark and block.marker_line:
            lines[block.marker_line - 1] += " " + mark
        elif mark:
            lines[begin:begin] = [mark]
    path.write_text("\n".join(lines), "utf-8")
    return lines != before


class Copies:
    """Copies of the tree. Documents run in one after another, until one may have changed it."""

    def __init__(self, folder):
        self.folder, self.free = pathlib.Path(folder), queue.Queue()

    @contextlib.contextmanager
    def one(self, text):
        try:
            folder = self.free.get_nowait()
        except queue.Empty:
            folder = pathlib.Path(tempfile.mkdtemp(dir=str(self.folder))) / TREE.name
            copy_tree(folder)
        yield folder
        if CHANGES.search(text):
            shutil.rmtree(folder.parent)
        else:
            self.free.put(folder)


def run_document(path, settings, copies):
    """In a process of its own: the results, and what went wrong otherwise."""
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), str(path)]
    command += [f"--{name}" for name in ("full", "update", "fresh") if getattr(settings, name)]
    with copies.one(path.read_text("utf-8")) as folder:
        done = processes.capture([*command, "--child", str(folder)],
                                 3600 if settings.full else 600, limit=32 << 20)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    ended = done.trouble or done.stderr or "it ended early"
    return results, "" if done.status == 0 else ended


class Report:
    """TAP, and what to count."""

    def __init__(self):
        self.number, self.failed, self.count, self.reasons, self.costs = 0, 0, {}, [], []

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
        self.costs.append((result["cpu"], f"{name}:{result['line']}", result["seconds"]))
        title = f"{name}:{result['line']} {result['name']}"
        self.tell(result["status"], title, result["reason"])

    def end(self):
        counted = ", ".join(f"{number} {kind}" for kind, number in sorted(self.count.items()))
        print(f"1..{self.number}")
        costs = [f"{cpu:6.2f} s of CPU in {seconds:6.1f} s: {name}"
                 for cpu, name, seconds in sorted(self.costs, reverse=True)[:MOST]]
        lines = [f"blocks: {counted}", *self.reasons, *costs]
        print(reports.tap_comment("\n".join(lines)), end="")


def parse(arguments):
    usage, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(prog="docs.py", description=usage, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="run also what takes long")
    parser.add_argument("--long", action="store_true", help="only documents with such blocks")
    parser.add_argument("--update", action="store_true",
                        help="write the figures and lines of this run into the files")
    parser.add_argument("--fresh", action="store_true",
                        help="the same, also where what is shown still holds")
    parser.add_argument("--list", action="store_true", help="only say what each block is")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N",
                        help="how many documents run at once (default: one per processor)")
    parser.add_argument("--child", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", metavar="FILE", type=pathlib.Path,
                        help="default: every Markdown file of the tree")
    settings = parser.parse_args(arguments)
    settings.update = settings.update or settings.fresh
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
        for result in Document(settings.files[0], settings).results():
            print(json.dumps(result), flush=True)
        return 0
    if settings.list:
        show_kinds(settings.files)
        return 0
    report, files = Report(), settings.files
    if settings.long:
        settings.full = True
        files = [path for path in files
                 if re.search("<!-- (?:long|output)", path.read_text("utf-8"))]
    instrumented = os.environ.get("SAN") or float(os.environ.get("CHECK_SLOW") or 1) != 1
    with tempfile.TemporaryDirectory(prefix="docs-") as folder, \
            concurrent.futures.ThreadPoolExecutor(max(1, settings.jobs)) as pool:
        copies, ledger = Copies(folder), docs_figures.read_ledger()
        waiting = {} if instrumented else {
            pool.submit(run_document, path, settings, copies): path for path in files}
        for path in files:
            name, text = str(path.relative_to(TREE)), path.read_text("utf-8")
            wrong = [f"line {line}: {what}" for line, what in
                     [*markdown.broken_links(path, TREE), *markdown.visible_comments(text),
                      *markdown.changed_figures(text), *markdown.broken_commands(text, TREE),
                      *docs_figures.wrong_figures(name, text, ledger)]]
            report.tell(FAIL if wrong else OK, f"{name} links, seals and figures",
                        "\n".join(wrong))
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
