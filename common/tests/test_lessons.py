#!/usr/bin/env python3
"""The lessons are complete and short, their links lead somewhere, every idea of the course has
its place in the text, and the demonstrations show what the pages say."""

import csv
import os
import pathlib
import re
import subprocess
import sys
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]
LESSONS = TREE / "common/lessons"
PAGES = sorted(LESSONS.glob("[0-9][0-9]-*.md"))
SECTIONS = ["See it", "The common mistake", "Three questions", "Read next"]
LINES = 75      # a screen and a half
KINDS = {"F": 24, "S": 23, "C": 11, "K": 23, "P": 6, "E": 35}


def read(path):
    return path.read_text(encoding="utf-8")


def slug(heading):
    """The anchor that a heading gets on a page."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def sections(text):
    """{anchor: what stands below this heading, up to the next heading}"""
    found, fenced, current = {}, False, None
    for line in text.split("\n"):
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"#+ (.*)", line)
        if heading:
            current = slug(heading[1])
            found[current] = ""
        elif current is not None:
            found[current] += line + "\n"
    return found


def without_space(text):
    return " ".join(text.split())


def problem_of(row, tree=TREE):
    """Why the place of a row does not show it, or ""."""
    name, _, anchor = row["place"].partition("#")
    path = tree / name
    if not path.is_file():
        return f"{row['id']}: there is no file {name}"
    text = read(path)
    if anchor:
        if anchor not in sections(text):
            return f"{row['id']}: {name} has no section #{anchor}"
        text = sections(text)[anchor]
    for words in row["words"].split("; "):
        if without_space(words) not in without_space(text.replace("**", "")) \
                and without_space(words) not in without_space(text):
            return f"{row['id']} ({row['what']}): {row['place']} lacks {words!r}"
    return ""


def rows():
    with open(LESSONS / "rows.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


class RowsTest(unittest.TestCase):
    def test_every_row_has_its_place(self):
        self.assertEqual([problem for problem in map(problem_of, rows()) if problem], [])

    def test_no_row_is_missing(self):
        found = {row["id"] for row in rows()}
        expected = {f"{kind}{number}" for kind, count in KINDS.items()
                    for number in range(1, count + 1)}
        self.assertEqual(expected - found, set())
        self.assertEqual(len(found), len(rows()), "an id occurs twice")
        for row in rows():
            for words in row["words"].split("; "):
                self.assertGreaterEqual(len(words), 3, row["id"])

    def test_a_row_without_its_place_is_reported(self):
        row = {"id": "K1", "what": "x", "words": "four quadrants; never said before",
               "place": "common/lessons/01-blocking-and-asynchronous.md#four-quadrants"}
        self.assertIn("lacks", problem_of(row))
        self.assertIn("no section", problem_of({**row, "place": "README.md#nowhere"}))
        self.assertIn("no file", problem_of({**row, "place": "nowhere.md"}))
        self.assertEqual(problem_of({**row, "words": "synchronous"}), "")


class PagesTest(unittest.TestCase):
    def test_each_has_its_parts(self):
        self.assertGreaterEqual(len(PAGES), 12)
        for number, page in enumerate(PAGES, 1):
            with self.subTest(page=page.name):
                text = read(page)
                headings = re.findall(r"(?m)^## (.*)$", text)
                self.assertTrue(page.name.startswith(f"{number:02}-"))
                self.assertRegex(text, rf"\A# Lesson {number}: .*\n\n\*.*\?")
                self.assertEqual([each for each in headings if each in SECTIONS], SECTIONS)
                self.assertIn("\n    ", sections(text)["see-it"])
                self.assertRegex(sections(text)["see-it"], r"make |common/lessons/|step\d_")
                answers = re.findall(
                    r"<details><summary>(.*?\?)</summary>\n\n(.+?)\n</details>", text, re.S)
                self.assertEqual(len(answers), 3)
                self.assertEqual(text.count("<details>"), 3)

    def test_each_is_short(self):
        for page in PAGES:
            with self.subTest(page=page.name):
                shown = re.sub(r"<details>.*?</details>\n?|<!--.*?-->\n", "", read(page),
                               flags=re.S)
                self.assertLessEqual(shown.count("\n"), LINES)

    def test_the_index_names_all(self):
        index = read(LESSONS / "README.md")
        for page in PAGES:
            self.assertIn(f"]({page.name})", index)
        for demo in [*LESSONS.glob("demos/*.py"), *LESSONS.glob("demos/*.c")]:
            name = f"build/demos/{demo.stem}" if demo.suffix == ".c" else f"demos/{demo.name}"
            self.assertIn(f"`{name}`", index)

    def test_index_and_steps_agree(self):
        """Each step names a page to read before it and one to read after it."""
        index = {}
        for name, before, after in re.findall(
                r"(?m)^\| \[[^]]*\]\(([^)]*)\) \|[^|]*\|([^|]*)\|([^|]*)\|$",
                read(LESSONS / "README.md")):
            for when, steps in ("before", before), ("after", after):
                for step in re.findall(r"\d", steps):
                    index[int(step), when] = name
        linked = {}
        for readme in TREE.glob("step*/README.md"):
            for when, name in re.findall(
                    r"Read (before|after): \[[^]]*\]\(\.\./common/lessons/([^)]*)\)",
                    read(readme)):
                linked[int(re.search(r"step(\d+)", str(readme.parent.name))[1]), when] = name
        self.assertEqual(len(linked), 2 * len(list(TREE.glob("step*/README.md"))))
        self.assertEqual(index, linked)
        self.assertIn("](common/lessons/README.md)", read(TREE / "README.md"))

    def test_links_and_anchors(self):
        for page in [*PAGES, LESSONS / "README.md", LESSONS / "glossary.md",
                     *TREE.glob("step*/README.md"), TREE / "README.md"]:
            for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
                if target.startswith(("http://", "https://")):
                    continue
                with self.subTest(page=page.name, target=target):
                    name, _, anchor = target.partition("#")
                    path = (page.parent / name).resolve() if name else page
                    self.assertTrue(path.exists())
                    if anchor:
                        self.assertIn(anchor, sections(read(path)))


class OutputsTest(unittest.TestCase):
    def test_outputs_are_those_that_were_recorded(self):
        done = subprocess.run([sys.executable, str(LESSONS / "record.py")],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              encoding="utf-8")
        self.assertEqual((done.returncode, done.stdout), (0, ""))


class GlossaryTest(unittest.TestCase):
    def test_terms(self):
        terms = re.findall(r"(?m)^- \*\*(.*?)\*\*: .*\]\(.*\)$", read(LESSONS / "glossary.md"))
        lines = [line for line in read(LESSONS / "glossary.md").split("\n")
                 if line.startswith("- ")]
        self.assertEqual(len(terms), len(lines), "a term without an explanation and a place")
        self.assertEqual(terms, sorted(terms, key=str.lower))
        for term in ("multiplexing", "C10k", "reactor", "proactor", "head-of-line blocking",
                     "back pressure", "thundering herd", "Slowloris", "Nagle's algorithm",
                     "delayed ACK", "file descriptor", "event-loop iteration", "thread pool"):
            self.assertIn(term, terms)


def run(name, *arguments):
    program = [sys.executable, str(LESSONS / "demos" / name)] if name.endswith(".py") else [
        str(LESSONS / "build/demos" / name)]
    return subprocess.run([*program, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", timeout=60)


def built(path):
    return (TREE / path).exists()


@unittest.skipUnless(sys.platform.startswith("linux"), "needs Linux")
class DemosTest(unittest.TestCase):
    def show(self, name, *arguments):
        if not name.endswith(".py") and not built(f"common/lessons/build/demos/{name}"):
            self.skipTest(f"{name} is not built: make common/lessons")
        done = run(name, *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def figures(self, text, name):
        """The numbers behind a name."""
        found = re.search(rf"(?m)^ *{re.escape(name)}  +(.*)$", text)
        self.assertIsNotNone(found, f"{name} is missing in:\n{text}")
        return [float(each) for each in re.findall(r"\d+(?:\.\d+)?", found[1])]

    def same_as_on_the_page(self, page, text):
        """What comes out the same everywhere."""
        shown = without_space(read(LESSONS / page))
        for line in text.splitlines():
            self.assertIn(without_space(line), shown)

    def test_descriptors(self):
        self.same_as_on_the_page("04-descriptors.md", self.show("descriptors"))

    def test_fd_sets(self):
        self.same_as_on_the_page("06-fd-set.md", self.show("fd_sets"))

    def test_epoll_lists(self):
        self.same_as_on_the_page("07-epoll.md", self.show("epoll_lists"))

    def test_phases(self):
        text = self.show("phases")
        number, slept, cpu = self.figures(text, "nothing there: sleep, then copy 1 byte")[-3:]
        self.assertEqual(number, 1)
        self.assertGreater(slept, 50)
        self.assertLess(cpu, slept / 4)
        self.assertIn("131072 bytes", text)
        self.assertEqual(re.findall(r"poll says (\w+): (\w+)", text), [
            ("readable", "yes"), ("writable", "yes"), ("writable", "no")])
        self.assertEqual(len(re.findall("EAGAIN", text)), 2)
        self.assertLess(self.figures(text.replace("took:", "took  "),
                                     "a non-blocking send of 8388608 bytes took")[0], 8388608)

    def test_queues(self):
        text = self.show("queues.py")
        self.assertEqual(self.figures(text, "no accept so far"), [3, 2, 3])
        self.assertEqual(self.figures(text, "after one accept")[2], 2)
        self.assertEqual(self.figures(text, "client: send(1000 bytes)"), [1000, 0, 1000])
        self.assertEqual(self.figures(text, "server: recv(at most 400 bytes)"), [400, 0, 600])
        total, sending, receiving = self.figures(text, "client: send until EAGAIN")
        self.assertEqual(total + 600, sending + receiving)
        self.assertRegex(text, r"0 bytes unread +recv returns 0: the end +TIME_WAIT")
        self.assertRegex(text, r"5 bytes unread +recv fails: ECONNRESET +none")

    def test_permits(self):
        text = self.show("permits.py", "--requests", "1500")
        fibers, database, *_ = self.figures(text, "no permits")
        self.assertEqual(fibers, database)
        self.assertGreater(database, 300)
        permits = self.figures(text, "30 permits")
        self.assertEqual(permits[1], 30)
        bounded = self.figures(text, "30 permits, queue of 200")
        self.assertLessEqual(bounded[0], 230)
        self.assertGreater(bounded[5], 100)
        self.assertLess(bounded[2], permits[2])
        for row in permits, bounded:
            self.assertEqual(sum(row[3:]), 1500)

    @unittest.skipUnless(built("clients/load-client") and built("step6_epoll/server")
                         and built("step2_thread_per_client/server"), "needs steps 2 and 6")
    def test_models(self):
        text = self.show("models.py", "--idle", "30", "--seconds", "0.3", "step2", "step6")
        threads, loop = (self.figures(text, name) for name in ("thread per client", "epoll"))
        self.assertEqual((threads[0], loop[0]), (32, 1))
        self.assertGreater(threads[1], 5 * loop[1])
        self.assertGreater(threads[3], 2 * loop[3])

    @unittest.skipUnless(built("clients/load-client") and built("step6_epoll/server")
                         and built("step5_select/build/variants/poll"), "needs steps 5 and 6")
    def test_idle_curve(self):
        def costs():
            text = self.show("idle_curve.py", "--seconds", "0.2", "0", "900")
            return {name: float(cost) for name, cost in re.findall(
                r"(?m)^ +(\w+) +900 idle +([\d.]+)", text)}
        for _ in range(3):      # a busy machine may disturb one measurement
            found = costs()
            if min(found["select"], found["poll"]) > 1.5 * found["epoll"]:
                return
        self.fail(f"900 idle clients cost select, poll and epoll the same: {found}")

    def test_sizes(self):
        text = self.show("sizes.py")
        self.assertEqual(self.figures(text, "epoll: create, ctl, wait"), [3])
        functions, lines = self.figures(text, "ae with one back-end")[:2]
        header = read(TREE / "step8_ae/ae.h")
        self.assertEqual(functions, len(set(re.findall(r"(?m)^(?!typedef).*\b(ae[A-Z]\w+)\(",
                                                       header))))
        on_page = self.figures(read(LESSONS / "12-call-library-runtime.md"),
                               "ae with one back-end")
        self.assertEqual(functions, on_page[0])
        self.assertAlmostEqual(lines, on_page[1], delta=on_page[1] / 20)

    def test_wrong_arguments(self):
        for name, arguments in {"queues.py": ["x"], "sizes.py": ["x"],
                                "permits.py": ["--requests", "0"],
                                "models.py": ["step99"], "idle_curve.py": ["901"]}.items():
            with self.subTest(name=name):
                self.assertEqual(run(name, *arguments).returncode, 2)
        if built("common/lessons/build/demos/descriptors"):
            self.assertEqual(run("descriptors", "x").returncode, 2)


if __name__ == "__main__":
    os.chdir(TREE)
    unittest.main()
