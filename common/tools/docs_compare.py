"""Compares what a document shows with what a program printed.

Shown                   matches
    ...                 as a line: any lines; within a line: any text
    text   <- remark    the text; the remark is for the reader
    17:34:15, 2026-11-21, 127.0.0.1:8080, (127.0.0.1, 40001), htons(8080), 0x7fc908031740,
    --seed 4711, process 4711, [4711]
                        any other time, date, port, address or process id
    1.25 s, 12.4 KiB, 99.3 %, 0.5
                        a figure: another one that is near. So are all numbers in a block with
                        the marker `figures`
    7                   the same number: everything else is compared exactly

In a line that shows a system call, its descriptors are classes, too.

Figures differ from run to run. So that nobody can change what a document shows, `docs.py
--update` seals the block: it writes a hash of the text beside it.
"""

import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))

from lib import seals   # noqa: E402

FACTOR = 8              # by which figures of two runs may differ,
SLACK = {"time": 0.05, "%": 15, "size": 2048, "": 5}    # or by this: seconds, bytes, ...
COARSE = 1.0            # seconds, where they are shown in seconds
TIMES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
SIZES = {"B": 1, "KB": 1e3, "MB": 1e6, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
UNIT = r"(?:ns|us|µs|ms|s|%|MB/s|KB|MB|[KMG]iB|B|times)(?![\w/])"
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
CLASSES = [     # what is never compared, and the pattern that takes its place
    *((each, each) for each in (
        r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d(?:[.,]\d+)?", r"0x[0-9a-f]+", r"htons\(\d+\)")),
    (r"(?<=127\.0\.0\.1, )\d+|(?<=127\.0\.0\.1:)\d+|(?<=\[::1\]:)\d+|(?<='::1', )\d+|"
     r"(?<='127\.0\.0\.1', )\d+", r"\d+"),
    (r"(?<=--seed )\d+|(?<=process )\d+|(?<=pid )\d+|(?<=\[)\d{3,}(?=\])", r"\d+"),
    (r"127\.0\.0\.1", r"127\.0\.0\.1"),
    (r"[░█─┬]{2,}|[░█]", r"[░█─┬]+"),
]
CALL = re.compile(r"^(?:(?:thread|process) +\d+ +)?\w+\(.*|.*(?:resumed|unfinished)")
DESCRIPTORS = (r"(?<=\()\d+(?=[,)])|(?<=EPOLL_CTL_ADD, )\d+|(?<=EPOLL_CTL_MOD, )\d+|"
               r"(?<=EPOLL_CTL_DEL, )\d+|(?<=u32=)\d+|(?<=u64=)\d+|(?<=fd=)\d+")
MAKES_DESCRIPTOR = re.compile(r"\b(?:accept4?|clone3?|fork|epoll_create1|socket)\b")
REMARK = re.compile(r"(?:^|\s+)<- .*$")


class Pattern:
    """One line as shown."""

    def __init__(self, line, figures=""):
        self.line, self.figures, self.chance = line, [], figures == "chance"
        self.varies = False         # is anything in it not compared exactly?
        line = REMARK.sub("", line).rstrip()
        call = CALL.match(line)
        parts = [f"(?P<c{i}>{pattern})" for i, (pattern, _) in enumerate(CLASSES)]
        if call:
            parts.append(f"(?P<fd>{DESCRIPTORS})")
            parts.append(r"(?P<set>(?<=\[)\d+(?: \d+)*(?=\]))")
        parts += [r"(?P<any>\.\.\.+)", rf"(?P<figure>(?<![\w.]){NUMBER}(?P<unit> ?{UNIT})?)",
                  r"(?P<space>\s+)"]
        result, at = [], 0
        for found in re.finditer("|".join(parts), line):
            result.append(re.escape(line[at:found.start()]))
            result.append(self._part(found, figures, bool(call)))
            at = found.end()
        result.append(re.escape(line[at:]))
        self.regex = re.compile("".join(result) + r"\s*")

    def _part(self, found, figures, call):
        kind = found.lastgroup if found.lastgroup != "unit" else "figure"
        if kind == "any":
            return ".*"
        if kind == "space":
            return r"\s+"
        self.varies = self.varies or kind != "figure"
        if kind == "fd":
            return r"\d+"
        if kind == "set":
            return r"\d+(?: \d+)*"
        if kind != "figure":
            return CLASSES[int(kind[1:])][1]
        text, unit = found["figure"], found["unit"] or ""
        if call and MAKES_DESCRIPTOR.search(found.string) and found.end() == len(found.string):
            self.varies = True
            return r"\d+"
        if not figures and (call or not unit and "." not in text):
            return re.escape(text)
        self.figures.append(value(text))
        self.varies = True
        return rf"({NUMBER}(?: ?{UNIT})?)"

    def matches(self, line):
        """Does a printed line match? A remark in it may be left out, or be a part of it."""
        for each in dict.fromkeys((line, REMARK.sub("", line))):
            found = self.regex.fullmatch(each.strip("\r"))
            if found and (self.chance or all(near(shown, value(other)) for shown, other in
                                             zip(self.figures, found.groups()))):
                return True
        return False


def value(text):
    """A figure in its base unit, what kind of unit that is, and how far others may be away."""
    found = re.match(rf"({NUMBER}) ?(.*)", text)
    unit = found[2]
    kind = "time" if unit in TIMES else "size" if unit in SIZES else unit if unit == "%" else ""
    slack = COARSE if unit == "s" else SLACK[kind]
    scale = TIMES.get(unit) or SIZES.get(unit) or 1
    return float(found[1].replace(",", "")) * scale, kind, slack


def near(shown, other):
    (a, kind, slack), (b, other_kind, _) = shown, other
    low, high = sorted((a, b))
    return kind == other_kind and (high - low <= slack or low > 0 and high / low <= FACTOR)


def has_figures(lines, figures=""):
    """Or addresses and the like, which are not compared exactly either."""
    return any(Pattern(line, figures).varies for line in lines if not line.startswith("$ "))


def seal(lines):
    """The seal for what is shown, without the remarks."""
    return seals.seal("\n".join(REMARK.sub("", line) for line in lines))


class Differs(Exception):
    """What is shown was not printed; the text is for people."""


def align(shown, printed, figures="", excerpt=False):
    """Maps the number of each line shown to that of the line printed that it matches. In an
    excerpt any lines may be left out. Raises Differs."""
    segments, start_anchored, end_anchored = [[]], not excerpt, not excerpt
    for number, line in enumerate(shown):
        if not line.strip():
            continue
        if line.strip() == "..." or excerpt:
            if not segments[-1] and len(segments) == 1:
                start_anchored = False
            segments.append([])
        if line.strip() != "...":
            segments[-1].append((number, Pattern(line, figures)))
    end_anchored = end_anchored and bool(segments[-1])
    printed = [(number, line) for number, line in enumerate(printed) if line.strip()]
    segments = [(each, index == 0) for index, each in enumerate(segments) if each]
    found, at = {}, 0
    for index, (segment, first) in enumerate(segments):
        only = [at] if first and start_anchored else range(at, len(printed) + 1)
        if end_anchored and index == len(segments) - 1:
            only = [place for place in only if place == len(printed) - len(segment)]
        best = (-1, None)
        for place in only:
            count = 0
            for (number, pattern), (_, line) in zip(segment, printed[place:]):
                if not pattern.matches(line):
                    break
                count += 1
            if count > best[0]:
                best = count, place
            if count == len(segment):
                break
        count, place = best
        if count < len(segment):
            wrong = segment[max(count, 0)][1].line
            printed_here = printed[place + count][1] if place is not None and \
                place + count < len(printed) else "the end"
            raise Differs(f"shown:   {wrong.strip()}\nprinted: {printed_here.strip()}"
                          if first or count > 0 or end_anchored and index == len(segments) - 1
                          else f"shown, but not printed: {wrong.strip()}")
        for (number, _), (line_number, _) in zip(segment, printed[place:]):
            found[number] = line_number
        at = place + len(segment)
    if end_anchored and at < len(printed) or not segments and not excerpt and printed \
            and start_anchored:
        raise Differs(f"printed, but not shown: {printed[at][1].strip()}")
    return found


def replaced(shown, printed, figures="", excerpt=False):
    """The lines to show after this run: those that match by form, with the figures of the run.
    Remarks stay. Raises Differs if the forms differ."""
    def form(line):
        return re.sub(r"\s+", " ", re.sub(r"\d[\d,.]*", "0", REMARK.sub("", line))).strip()

    if not excerpt and not any(line.strip() == "..." for line in shown):
        remarks = {form(line): REMARK.search(line)[0] for line in shown if REMARK.search(line)}
        return [line.rstrip() + ("" if REMARK.search(line) else remarks.get(form(line), ""))
                for line in printed]
    try:
        found = align(shown, printed, figures, excerpt)
    except Differs:
        found = align([form(line) if line.strip() != "..." else line for line in shown],
                      [form(line) for line in printed], "", excerpt)
    result = list(shown)
    for number, place in found.items():
        old, new = shown[number], printed[place].rstrip()
        remark = REMARK.search(old)
        if "..." in old:
            continue
        if remark:
            plain = REMARK.sub("", new).rstrip()
            column = remark.start() + len(remark[0]) - len(remark[0].lstrip())
            new = plain.ljust(column - 1) + " " + remark[0].strip()
        else:
            new = REMARK.sub("", new) if CALL.match(new) else new
        result[number] = new
    return result
