"""Tests of the runner for documents: what it tells apart, what it compares, what it reports."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "common/tools"))

import docs_compare as compare      # noqa: E402
import docs_figures                 # noqa: E402
import docs_markdown as markdown    # noqa: E402
from lib.seals import seal          # noqa: E402

SERVER = """#!/usr/bin/env python3
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print("Listening on 127.0.0.1:" + sys.argv[1], flush=True)
    while True:
        client = listener.accept()[0]
        client.sendall(b"hello\\n")
        client.close()
"""
CLIENT = """#!/usr/bin/env python3
import socket, sys
print(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10).recv(100).decode(), end="")
"""
SHOW = """#!/bin/sh
echo "took 1.5 ms"
echo "7 clients"
"""


def only(text):
    found = markdown.blocks(text)
    assert len(found) == 1, found
    return found[0]


class MarkdownTest(unittest.TestCase):
    def test_kinds(self):
        for kind, text in [
                ("transcript", "a\n\n    $ make\n    done\n"),
                ("commands", "a\n\n    make -C step1 run     # here\n"),
                ("commands", "```sh\nclients/load-client 127.0.0.1 8080\n```\n"),
                ("synopsis", "a\n\n    clients/load-client [OPTIONS] HOST PORT\n"),
                ("excerpt", "What `make trace STEP=1` shows:\n\n    accept(3) = 5\n"),
                ("excerpt", "a\n<!-- from: make demo -->\n\n    Step 1\n"),
                ("picture", "a\n\n    accept --> recv\n"),
                ("picture", "a\n\n    \u2500\u2500\u2588\n"),
                ("code", "```python\nx = 1\n```\n"),
                ("file", "<!-- file: a.py -->\n\n```python\nx = 1\n```\n"),
                ("unknown", "What `make` shows.\n\n    some text\n")]:
            self.assertEqual(only(text).kind(), kind, text)

    def test_what_is_no_block(self):
        for text in "a\n    continued\n", "- item\n\n  its text\n", "1. a\n   `make`\n":
            self.assertEqual(markdown.blocks(text), [], text)

    def test_a_marker_holds_for_one_block(self):
        text = "a <!-- not run: why -->\n\n    make\n\nb\n\n    make\n"
        first, second = markdown.blocks(text)
        self.assertEqual(first.markers, {"not run": "why"})
        self.assertEqual(second.markers, {})

    def test_lines_of_a_block(self):
        block = only("# A\n\n    one\n\n      two\n\nb\n")
        self.assertEqual((block.line, block.lines), (3, ["one", "", "  two"]))

    def test_commands_of_several_lines(self):
        lines = ["(a &", " b)   # )", "c \\", "  d", "# only a remark", "e '('"]
        self.assertEqual(markdown.logical(lines), ["(a &\n b)   # )", "c \\\n  d", "e '('"])

    def test_anchors(self):
        text = "# What `x`: a [b](c)?\n\n## What it costs\n\n## What it costs\n\n    # none\n"
        self.assertEqual(markdown.anchors(text),
                         {"what-x-a-b", "what-it-costs", "what-it-costs-1"})

    def test_comments_that_can_be_seen(self):
        text = "a <!-- from: b --c -->\n<!-- from: b --c -->\nd <!-- e -->\n"
        self.assertEqual([line for line, _ in markdown.visible_comments(text)], [1])
        text = "<!-- a --> <!-- b -->\ntext <!-- c -->\n<!-- d --> *text*\n"
        self.assertEqual([line for line, _ in markdown.visible_comments(text)], [3])


class CompareTest(unittest.TestCase):
    def expect(self, matches, shown, printed, **how):
        try:
            compare.align(shown.split("\n"), printed.split("\n"), **how)
            self.assertTrue(matches, f"{shown!r} matches {printed!r}")
        except compare.Differs as difference:
            self.assertFalse(matches, f"{shown!r}: {difference}")

    def test_lines(self):
        for matches, shown, printed in [
                (True, "a\nb", "a\nb"), (False, "a\nb", "a\nc"), (False, "a", "a\nb"),
                (False, "a\nb", "a"), (True, "a  b", "a b"), (True, "a  <- why", "a"),
                (True, "...\nb", "a\nb"), (True, "a\n...", "a\nb\nc"),
                (True, "a\n...\nc", "a\nb\nb\nc"), (False, "a\n...\nc", "a\nb\nc\nd"),
                (False, "...\na\nc", "a\nb\nc"), (True, "x(...) = 1", "x(2, 3) = 1"),
                (False, "a\n...\nb\nc", "a\nb\nd"), (True, "a\n\nb", "a\nb")]:
            self.expect(matches, shown, printed)

    def test_an_excerpt_may_leave_out_lines_but_keeps_their_order(self):
        self.expect(True, "a\nc", "a\nb\nc\nd", excerpt=True)
        self.expect(False, "c\na", "a\nb\nc\nd", excerpt=True)

    def test_classes(self):
        for matches, shown, printed in [
                (True, "peer (127.0.0.1, 41072) connected", "peer (127.0.0.1, 9) connected"),
                (True, "at 127.0.0.1:8080", "at 127.0.0.1:40001"),
                (True, "INFO:2025-03-26 17:34:15,783:x", "INFO:2026-01-01 00:00:00,001:x"),
                (False, "INFO:2025-03-26 17:34:15,783:x", "INFO:2026-01-01 00:00:00,001:y"),
                (False, "7 clients", "8 clients"), (False, "exit 1", "exit 10"),
                (True, "took 1.5 ms", "took 3.25 ms"), (False, "took 1.5 ms", "took 1.5 s"),
                (False, "took 1.5 s", "took 15 s"), (False, "took 100 ms", "took 900 ms"),
                (True, "100.0 %", "99.3 %"), (False, "100.0 %", "5 %"),
                (False, "12.4 KiB", "124 KiB"), (True, "12.4 KiB", "13.0 KiB"),
                (True, "recvfrom(5, \"a\", 9, 0) = 1", "recvfrom(7, \"a\", 9, 0) = 1"),
                (False, "recvfrom(5, \"a\", 9, 0) = 1", "recvfrom(7, \"a\", 9, 0) = 2"),
                (False, "recvfrom(5, \"a\", 9, 0) = 1", "recvfrom(7, \"b\", 9, 0) = 1"),
                (True, "accept(3, {}) = 5", "accept(4, {}) = 11"),
                (False, "accept(3) = -1 EAGAIN", "accept(3) = 5")]:
            self.expect(matches, shown, printed)

    def test_a_block_of_figures(self):
        self.expect(True, "busy  966712  21", "busy  400000  25", figures="all")
        self.expect(False, "busy  966712  21", "busy  100000  21", figures="all")
        self.expect(True, "busy  966712  21", "busy  100000  0", figures="chance")
        self.expect(False, "busy  966712  21", "busy  100000", figures="chance")

    def test_the_seal_sees_every_figure_and_no_remark(self):
        sealed = compare.seal(["took 1.5 ms    <- why"])
        self.assertEqual(sealed, compare.seal(["took  1.5 ms"]))
        self.assertNotEqual(sealed, compare.seal(["took 1.6 ms"]))

    def test_replaced(self):
        self.assertEqual(compare.replaced(["took 1.5 ms   <- why"], ["took 2.5 ms"]),
                         ["took 2.5 ms   <- why"])
        self.assertEqual(compare.replaced(["...", "b 1", "..."], ["a", "b 22", "c"]),
                         ["...", "b 22", "..."])
        with self.assertRaises(compare.Differs):
            compare.replaced(["...", "b 1"], ["a", "c 1"])


PAGE = """# A page of 9 lines

A thread costs about 12 KiB, its switch 1.3 µs. (recv(2), lesson 4.) Two of 100 clients wait:

<!-- sealed: 0 -->
    $ ./show
    each costs 12.4 KiB, 1.26 µs     <- after 5 s

| step 3 | 8,000 |
"""
LEDGER = {"a.md": (["9", "12 KiB", "1.3 µs", "2", "4", "two", "100", "5 s", "3", "8,000"],
                   {"8,000": "b.md: many = 8000"})}


class FiguresTest(unittest.TestCase):
    """Figures that stand in sentences, in tables, and in blocks that no run prints."""

    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="docs-test-"))
        self.addCleanup(shutil.rmtree, self.tree)
        (self.tree / "b.md").write_text(
            "many = 8000\n\n<!-- sealed: 0 -->\n    $ ./a\n    7.9 s\n")

    def wrong(self, text, ledger=None):
        return [what for _, what in
                docs_figures.wrong_figures("a.md", text, ledger or LEDGER, self.tree)]

    def test_a_changed_figure_is_noticed(self):
        self.assertEqual(self.wrong(PAGE), [])
        for old, new in (("9 lines", "8 lines"), ("about 12", "about 13"), ("1.3", "1.4"),
                         ("Two", "Three"), ("100 c", "101 c"), ("5 s", "6 s"),
                         ("8,000", "9,000"), ("12 KiB", "12 MiB"), ("Two of 100", "Many")):
            self.assertIn("docs_figures.py --write a", self.wrong(PAGE.replace(old, new))[0])

    def test_measured_figures_follow_their_block(self):
        self.assertEqual(self.wrong(PAGE.replace("12.4", "14.9")), [])
        self.assertIn("12 KiB: no block", self.wrong(PAGE.replace("12.4", "24.8"))[0])
        self.assertIn("1.3 µs: no block", self.wrong(PAGE.replace("1.26", "1.21"))[0])

    def test_sources(self):
        order = LEDGER["a.md"][0]
        for source, problem in (
                ("b.md: many = 8001", "8,000: b.md does not contain 'many = 8001'"),
                ("c/d.md: many", "8,000: there is no c/d.md"),
                ("b.md", "8,000: not measured in b.md")):
            self.assertEqual(self.wrong(PAGE, {"a.md": (order, {"8,000": source})}), [problem])
        self.assertEqual(self.wrong(PAGE, {"a.md": (order, {"8,000": "an example: many"})}), [])
        self.assertIn("ledger no source", self.wrong(PAGE, {"a.md": (order, {})})[0])
        self.assertIn("the text does not name it", self.wrong(
            PAGE, {"a.md": (order, {"8,000": "", "7 s": ""})})[0])
        page = PAGE.replace("8,000", "about 7 s")
        ledger = {"a.md": ([*order[:-1], "7 s"], {"7 s": "b.md"})}
        self.assertEqual(self.wrong(page, ledger), [])

    def test_what_is_printed_is_left_to_the_seals(self):
        for begin, end in (("<!-- bench:a begin -->", "<!-- bench:a end 1 -->"),
                           ("<!-- claims begin -->", "<!-- claims end -->")):
            self.assertEqual(self.wrong(f"{PAGE}{begin} 5 ms {end}\n"), [])
        for marker in "not run: why", "long":
            block = f"b <!-- {marker} -->\n\n    make check     # 5 minutes\n"
            self.assertIn("'5 minutes'", self.wrong(PAGE + block)[0])

    def test_the_ledger_is_read_as_it_was_written(self):
        path = self.tree / "figures.txt"
        self.assertIsNone(docs_figures.read_ledger(path))
        path.write_text("# A remark\n")
        docs_figures.write_ledger(LEDGER, path)
        self.assertEqual(docs_figures.read_ledger(path), LEDGER)
        self.assertTrue(path.read_text().startswith("# A remark\n"))

    def test_a_ledger_that_is_missing_is_written(self):
        tools = self.tree / "common/tools"
        tools.mkdir(parents=True)
        for path in (TREE / "common/tools").glob("docs*.py"):
            shutil.copy(path, tools)
        shutil.copytree(TREE / "clients/lib", self.tree / "clients/lib")
        (self.tree / "b.md").write_text("Two of 3.\n")

        def run(*arguments):
            done = subprocess.run([sys.executable, str(tools / "docs_figures.py"), *arguments],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  encoding="utf-8")
            return done.returncode, done.stdout
        status, said = run()
        self.assertEqual(status, 1)
        self.assertIn("figures.txt is missing", said)
        self.assertEqual(run("--write"), (0, ""))
        self.assertEqual((tools / "figures.txt").read_text(),
                         f"{docs_figures.HEAD}\n\nb.md: two; 3\n")
        self.assertEqual(run(), (0, ""))
        with (tools / "figures.txt").open("a") as ledger:
            ledger.write("    7 s  a source that nothing names any more\n")
        self.assertEqual(run()[0], 1)
        self.assertEqual(run("--write"), (0, ""))
        self.assertNotIn("7 s", (tools / "figures.txt").read_text())

    def test_no_figure_was_measured_by_hand(self):
        """Each has a command that measures it again."""
        for name, (_, sources) in docs_figures.read_ledger().items():
            for figure, source in sources.items():
                self.assertNotIn("by hand", source, f"{name}: {figure}")

    def test_every_document_of_the_tree_is_in_the_ledger(self):
        names = {str(path.relative_to(TREE)) for path in markdown.documents(TREE)}
        self.assertEqual(set(docs_figures.read_ledger()), names)

    def test_one_figure_of_each_document_is_changed(self):
        """Whatever it is, a check that runs no command notices it."""
        ledger = docs_figures.read_ledger()
        for path in markdown.documents(TREE):
            name, text = str(path.relative_to(TREE)), path.read_text("utf-8")
            self.assertEqual(list(docs_figures.wrong_figures(name, text, ledger)), [], name)
            own = docs_figures.own_text(text).split("\n")
            for number, line in enumerate(text.split("\n")):
                if line == own[number] and re.search(r"(?<=[ (])[1-9](?=[\d,. ])", line):
                    changed = text.split("\n")
                    changed[number] = re.sub(
                        r"(?<=[ (])[1-9](?=[\d,. ])", lambda found: str(int(found[0]) % 9 + 1),
                        line, count=1)
                    changed = "\n".join(changed)
                    self.assertNotEqual(list(docs_figures.wrong_figures(
                        name, changed, ledger)), [], f"{name}: {line}")
                    break


class RunTest(unittest.TestCase):
    """The runner in a small tree."""

    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="docs-test-"))
        self.addCleanup(shutil.rmtree, self.tree)
        (self.tree / "common/tools").mkdir(parents=True)
        for path in (TREE / "common/tools").glob("docs*.py"):
            shutil.copy(path, self.tree / "common/tools")
        shutil.copytree(TREE / "clients/lib", self.tree / "clients/lib")
        for name, text in ("server", SERVER), ("client", CLIENT), ("show", SHOW):
            (self.tree / name).write_text(text)
            (self.tree / name).chmod(0o755)

    def run_docs(self, text, status, *words, arguments=(), **environment):
        path = self.tree / "a.md"
        if text is not None:
            path.write_text(text)
        variables = {name: value for name, value in os.environ.items()
                     if name not in ("SAN", "CHECK_SLOW")}
        done = subprocess.run(
            [sys.executable, str(self.tree / "common/tools/docs.py"), *arguments, str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=100,
            env=dict(variables, **environment))
        for word in words:
            self.assertIn(word, done.stdout)
        self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout

    def test_a_server_and_its_client(self):
        """The server is stopped at the end: the second block uses the same port."""
        block = "a\n\n    ./server 8080     # one terminal\n    ./client 8080     # another\n\n"
        shown = "b\n\n    $ ./server 8080 &\n    $ ./client 8080\n    hello\n"
        self.run_docs(block + shown, 0, "ok 2 - a.md:3 commands", "ok 3 - a.md:8 transcript")
        self.run_docs(block + shown.replace("hello", "hullo"), 1, "not ok 3", "shown:   hullo",
                      "printed: hello")

    def test_ports_where_there_is_no_network_of_its_own(self):
        session = self.tree / "common/tools/docs_session.py"
        text = session.read_text()
        cut = text.replace("libc.unshare(", "libc.close(-1 or ")
        self.assertNotEqual(cut, text)
        session.write_text(cut)
        self.run_docs("a\n\n    $ ./server 8080 &\n    $ ./client 8080\n    hello\n", 0)

    def test_markers_that_start_a_server_or_give_the_command(self):
        self.run_docs("a <!-- with: ./server 8080 -->\n\n    $ ./client 8080\n    hello\n"
                      "\nb <!-- from: ./server 8081 --><!-- client: ./client 8081 -->\n\n"
                      "    Listening on 127.0.0.1:1\n", 0, arguments=["--update"])
        self.run_docs(None, 0)

    def test_whatever_is_left_running_is_a_failure(self):
        self.run_docs("a\n\n    (sleep 4711 & )\n", 1, "left running: sleep 4711")
        running = set()
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                running.add(path.read_bytes())
        self.assertNotIn(b"sleep\0004711\0", running)

    def test_commands_that_fail(self):
        self.run_docs("a\n\n    cat nonesuch-file\n", 1, "nonesuch-file")
        self.run_docs("a <!-- exit: 1 -->\n\n    cat nonesuch-file\n", 0)
        self.run_docs("a <!-- exit: 1 -->\n\n    echo\n", 1, "exit status 0 instead of 1")

    def test_a_changed_figure_is_noticed_and_an_update_restores_it(self):
        text = "a\n\n    $ ./show\n    took 2.5 ms     <- why\n    7 clients\n"
        self.run_docs(text, 1, "--update")          # no seal yet
        self.run_docs(None, 0, "a.md: updated", arguments=["--update"])
        self.run_docs(None, 0)
        sealed = (self.tree / "a.md").read_text()
        self.assertIn("took 2.5 ms     <- why", sealed)     # it is near enough
        for old, new in ("2.5 ms", "2.4 ms"), ("7 clients", "8 clients"):
            self.run_docs(sealed.replace(old, new), 1, "not ok 2")
            self.run_docs(None, 0, arguments=["--update"])
            self.run_docs(None, 0)
        self.run_docs(None, 0, arguments=["--fresh"])
        fresh = (self.tree / "a.md").read_text()
        self.assertIn("took 1.5 ms     <- why", fresh)
        self.assertEqual(fresh.count("sealed"), 1)
        self.run_docs(None, 0)

    def test_what_is_not_marked_is_a_failure(self):
        text = "a\n\n    some text\n"
        self.run_docs(text, 1, "not ok 2 - a.md:3 unknown", "Say what it is")
        self.run_docs(f"<!-- not run: a poem -->\n{text}", 0, "SKIP not run: a poem")

    def test_what_takes_long(self):
        text = "a <!-- long -->\n\n    cat nonesuch-file\n"
        self.run_docs(text, 0, "SKIP takes long")
        self.run_docs(text, 1, "nonesuch-file", arguments=["--full"])

    def test_a_changed_figure_is_noticed_also_where_nothing_is_run(self):
        for marker, command in ("not run: why", "./show"), ("long", "./show"):
            text = f"a <!-- {marker} -->\n\n    $ {command}\n    took 1.5 ms\n    7 clients\n"
            self.run_docs(text, 1, "changed by hand, or come from no run")
            self.run_docs(None, 0, "updated", arguments=["--update", "--full"])
            self.run_docs(None, 0, "SKIP")
            self.run_docs((self.tree / "a.md").read_text().replace("1.5", "1.6"), 1)

    def test_typing(self):
        (self.tree / "echo.py").write_text("print('said', input('say: '))\n")
        self.run_docs("a\n\n    $ python3 echo.py\n    say: hi      <- typed: hi\n"
                      "    said hi\n", 0)

    def test_links(self):
        (self.tree / "b.md").write_text("# Here\n")
        self.run_docs("[x](b.md#here) `[y](c.md)` [z](https://example.org/)\n", 0)
        for link in "c.md", "b.md#there", "#a", "../b.md":
            self.run_docs(f"text\n[x]({link})\n", 1, "not ok 1 - a.md links", "line 2: ")

    def test_figures_of_the_benchmark(self):
        text = "a <!-- bench:a begin -->1 µs<!-- bench:a end %s -->\n"
        self.run_docs(text % seal("1 µs"), 0)
        self.run_docs(text % seal("2 µs"), 1, "line 1: the figures bench:a were changed by")
        self.run_docs(text.replace(" %s", ""), 1, "changed by hand")

    def test_commands_within_the_text(self):
        (self.tree / "Makefile").write_text("all demo: ; @:\n")
        self.run_docs("`make`, `make demo N=5`, `clients/lib/tree.py`\n", 0)
        self.run_docs("text\n`make dem`\n", 1, "line 2: make does not know make dem")
        self.run_docs("`clients/nonesuch.py -n 5`\n", 1, "there is no clients/nonesuch.py")

    def test_code(self):
        self.run_docs("```python\nx = 1\n```\n", 0)
        self.run_docs("```python\nx = = 1\n```\n", 1)
        self.run_docs("```c\nint f(void) { return g; }\n```\n", 1, "does not compile")

    def test_every_document_of_the_tree_is_found(self):
        for built in "build", "e/node_modules/f":
            (self.tree / built).mkdir(parents=True)
            (self.tree / built / "b.md").write_text("a\n\n    some text\n")
        (self.tree / "c").mkdir()
        (self.tree / "c/d.md").write_text("a\n")
        out = subprocess.run([sys.executable, str(self.tree / "common/tools/docs.py")],
                             stdout=subprocess.PIPE, encoding="utf-8", timeout=100).stdout
        self.assertEqual(re.findall(r"- (\S+) links, seals", out), ["c/d.md"])

    def test_usage(self):
        self.run_docs("", 2, "not a file of this tree", arguments=["/etc/passwd"])


if __name__ == "__main__":
    unittest.main()
