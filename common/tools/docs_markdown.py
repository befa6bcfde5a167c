"""What a Markdown file shows: its blocks, what kind each is, and its links.

A block is a fenced or indented part of the text. Its kind follows from what it looks like:

    transcript  it has lines that begin with "$ ": commands, each with what it prints
    commands    its first line begins with a command word: commands that must succeed
    synopsis    a command with words such as HOST or [OPTIONS]: compared with --help
    excerpt     parts of the output of a command. The command is the last one named in the text
                before it, if that ends with a colon
    code        fenced, in a programming language: C must stand in a source of the tree or
                compile, Python and JSON must be correct
    picture     it has arrows or lines drawn with characters
    unknown     none of these: it needs a comment that says what it is

Comments before a block, which a reader of the page does not see, say what no rule can tell:

    <!-- not run: REASON -->    nothing of the block is run
    <!-- long -->               run by check-full only
    <!-- from: COMMAND -->      an excerpt of the output of this command
    <!-- with: COMMAND -->      this server runs meanwhile
    <!-- client: COMMAND -->    runs while the server in `from` does
    <!-- file: NAME -->         the text of a file that later commands use
    <!-- exit: N -->            the exit status of the last command, if it is not 0
    <!-- figures -->            all numbers are measured, not only those with a unit
    <!-- figures: chance -->    and chance decides them: only their places are compared
    <!-- output: NAME -->       an excerpt that common/lessons/record.py has recorded
    <!-- sealed: HASH -->       written by `docs.py --update`: the figures are those of a run

They stand at the end of the line before the block, or on a line of their own.
"""

import pathlib
import re
import sys
import unicodedata

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))

from lib.seals import seal      # noqa: E402

MARKER = re.compile(r"<!-- *(not run|long|from|with|client|file|exit|figures|sealed|output)\b"
                    r":? *(.*?) *-->")
BENCH = re.compile(r"<!-- bench:(\S+) begin -->(.*?)<!-- bench:\1 end(?: (\w+))? -->",
                   re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
FENCE = re.compile(r" {0,3}(```+|~~~+) *(\w*)")
ITEM = re.compile(r"( *)([-*+]|\d+[.)]) +")
COMMAND = re.compile(
    r"(?:\w+=\S* )*(?:\./|clients/\S|common/\S|step\d\S*/\S|\(|(?:make|cc|gcc|cd|diff|docker|"
    r"strace|ulimit|ps|printf|echo|sh|bash|nc|curl|git|debootstrap|python3|seq|timeout|"
    r"redis-cli|ss|cat|head|grep|sed|awk|perf|gdb|kill|sleep|cp|mkdir)(?= |$))")
PLACEHOLDER = re.compile(r"\[(?!::)[-A-Za-z]|(?<![\w=-])(?:HOST|PORT|FILE|COMMAND|DIR|NAME|"
                         r"OPTION\w*|YOUR\w*|[A-Z]+_[A-Z_]+)(?![\w=])")
DRAWN = re.compile(r"[\u2190-\u21ff\u2500-\u259f]|--+>|<--+|\+--|--\+|==+>|^\s*\|.*\|\s*$|"
                   r"^\s*[|v^]\s*$", re.MULTILINE)
CODE_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)(?: \"[^\"]*\")?\)")
SHELL = "", "sh", "bash", "shell", "console", "text"


class Block:
    def __init__(self, line, language=""):
        self.line = line            # number of its first line, from 1; of a fence the one after
        self.language = language
        self.indent = ""
        self.lines = []
        self.markers = {}
        self.before = ""            # the text between it and the block before
        self.marker_line = 0        # of the last line of that text; 0: there is only a heading

    def text(self):
        return "\n".join(self.lines)

    def figures(self):
        """Which of its numbers are figures: those with a unit; "all"; or all by "chance"."""
        return (self.markers["figures"] or "all") if "figures" in self.markers else ""

    def command(self):
        """The command whose output this is, if the text says so."""
        if "from" in self.markers:
            return self.markers["from"]
        paragraph = COMMENT.sub("", self.before).strip().rpartition("\n\n")[2]
        named = [span.replace("\n", " ") for _, span in CODE_SPAN.findall(paragraph)
                 if COMMAND.match(span) and not PLACEHOLDER.search(span)
                 and not re.search(r"\.(c|h|md|mk)$", span)]
        return named[-1] if named and paragraph.rstrip().endswith(":") else ""

    def kind(self):
        if "file" in self.markers:
            return "file"
        if "output" in self.markers:
            return "recorded"
        if self.language not in SHELL:
            return "code"
        if any(line.startswith("$ ") for line in self.lines):
            return "transcript"
        if "from" not in self.markers and COMMAND.match(self.lines[0]):
            return "synopsis" if PLACEHOLDER.search(self.text()) else "commands"
        if self.command():
            return "excerpt"
        return "picture" if DRAWN.search(self.text()) else "unknown"


def blocks(text):
    """The blocks of a Markdown text, in order."""
    found, since, text_line = [], [], 0
    lines, number, offset, blank = text.split("\n"), 0, 0, True

    def add(block, first):
        block.before = "\n".join(since)
        block.markers = {name: rest for name, rest in MARKER.findall(block.before)}
        block.marker_line = text_line
        while block.lines and not block.lines[-1].strip():
            block.lines.pop()
        if block.lines:
            found.append(block)
        since.clear()

    while number < len(lines):
        line = lines[number]
        indent = len(line) - len(line.lstrip(" "))
        fence = FENCE.match(line) if indent < 4 or offset else None
        item = ITEM.match(line)
        if fence:
            block = Block(number + 2, fence[2])
            block.indent = line[:indent]
            number += 1
            while number < len(lines) and not lines[number].strip().startswith(fence[1]):
                block.lines.append(lines[number][indent:])
                number += 1
            number += 1
            add(block, text_line)
            blank, text_line = True, 0
        elif line.strip() and blank and indent >= offset + 4:
            block = Block(number + 1)
            block.indent = " " * (offset + 4)
            while number < len(lines) and (not lines[number].strip()
                                           or lines[number].startswith(block.indent)):
                block.lines.append(lines[number][len(block.indent):])
                number += 1
            add(block, text_line)
            blank, text_line = True, 0
        else:
            if item:
                offset = len(item[0])
            elif line.strip() and indent == 0 and blank:
                offset = 0
            since.append(line)
            blank = not line.strip() or line.startswith("#") or line.endswith("-->")
            if line.strip() and not line.startswith(("#", "|")):
                text_line = number + 1
            number += 1
    return found


def logical(lines):
    """Commands of several lines as one each: after a backslash, and until brackets close."""
    found, rest = [], ""
    for line in lines:
        rest = f"{rest}\n{line}" if rest else line
        bare = re.sub(r"'[^']*'|\"[^\"]*\"|(?<!\S)#.*", "", rest)
        if rest.endswith("\\") or (bare.lstrip().startswith("(")
                                   and bare.count("(") > bare.count(")")):
            continue
        if bare.strip():
            found.append(rest)
        rest = ""
    return found + ([rest] if rest else [])


def transcript(block):
    """[(command, number of the first line of its output, the number after the last)]"""
    found, number = [], 0
    while number < len(block.lines):
        line = block.lines[number]
        if not line.startswith("$ "):
            if not found:
                raise ValueError(f"line {block.line + number}: output before the first command")
            number += 1
            found[-1][2] = number
            continue
        text = line[2:]
        number += 1
        while text.endswith("\\") and number < len(block.lines):
            text += "\n" + block.lines[number]
            number += 1
        found.append([text, number, number])
    return [tuple(each) for each in found]


def prose(text):
    """The text without blocks and comments; code within a line stays."""
    keep = text.split("\n")
    for block in blocks(text):
        for number in range(block.line - 1, block.line - 1 + len(block.lines)):
            keep[number] = ""
    return COMMENT.sub(lambda found: "\n" * found[0].count("\n"), "\n".join(keep))


def anchors(text):
    """The anchors of a text, as GitHub makes them of its headings."""
    found, count = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text)), {}
    for line in prose(text).split("\n"):
        heading = re.match(r"#{1,6} +(.*?)(?: +#+)? *$", line)
        if heading:
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading[1])
            slug = "".join(c for c in title.lower() if c in " -_"
                           or unicodedata.category(c)[0] in "LN").strip().replace(" ", "-")
            number = count[slug] = count.get(slug, -1) + 1
            found.add(f"{slug}-{number}" if number else slug)
    return found


def visible_comments(text):
    """Yields (line, what is wrong) for each comment that a reader of the page would notice: one
    within a line must not contain two hyphens, and after one that begins a line no text is
    taken for Markdown."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("<!--") and COMMENT.sub("", line).strip():
            yield number, "it begins with a comment, so its text is not taken for Markdown"
        for found in COMMENT.finditer(line):
            if found.start() > 0 and not line.startswith("<!--") and "--" in found[0][4:-3]:
                yield number, f"{found[0]} contains --, so it must begin a line of its own"


def changed_figures(text):
    """Yields (line, what is wrong) for figures of the benchmark whose seal does not fit."""
    for found in BENCH.finditer(text):
        if found[3] != seal(found[2]):
            yield (text.count("\n", 0, found.start()) + 1, f"the figures bench:{found[1]} were "
                   "changed by hand; clients/bench/insert.py writes those of a run")


def known_to_make(words, root):
    """Does make know the targets of this command, such as ["make", "-C", "step1", "run"]?"""
    words = [word for word in words[1:] if not re.match(r"\w+=", word)]
    where = words[words.index("-C") + 1] if "-C" in words[:-1] else "."
    files = [root / where / "Makefile", root / "common/build-aux/step.mk"][:1 + (where != ".")]
    text = "\n".join(path.read_text("utf-8") for path in files if path.is_file())
    targets = [word for word in words if re.fullmatch(r"[a-z][\w.-]*", word) and word != where]
    rule = r"^(?![#\t])[^:=\n]*(?<![\w-])%s(?![\w-])[^:=\n]*:"
    return all(re.search(rule % re.escape(target), text, re.MULTILINE) for target in targets)


def broken_commands(text, root):
    """Yields (line, what is wrong) for each command named in the text that cannot exist."""
    text = prose(text)
    for found in CODE_SPAN.finditer(text):
        words = found[2].split()
        line = text.count("\n", 0, found.start()) + 1
        if words[:1] == ["make"] and not PLACEHOLDER.search(found[2]):
            if not known_to_make(words, root):
                yield line, f"make does not know {found[2]}"
        elif words and re.match(r"(?:clients|common|step\d+_\w+)/[\w./-]+$", words[0]):
            if not (root / words[0]).exists():
                yield line, f"there is no {words[0]}"


def broken_links(path, root):
    """Yields (line, what is wrong) for each link to a file or an anchor that does not exist."""
    text = CODE_SPAN.sub(lambda span: re.sub(r"[^\n]", " ", span[0]),
                         prose(path.read_text("utf-8")))
    for found in LINK.finditer(text):
        target = found[1]
        line = text.count("\n", 0, found.start()) + 1
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists():
            yield line, f"no file {target}"
        elif root not in file.parents and file != root:
            yield line, f"{target} is outside of the tree"
        elif anchor and (file.suffix != ".md"
                         or anchor not in anchors(file.read_text("utf-8"))):
            yield line, f"no heading for {target}"


def documents(root):
    """Every Markdown file of the tree, without what was built."""
    return sorted(path for path in pathlib.Path(root).rglob("*.md")
                  if not {"build", "node_modules", ".git"} & set(path.relative_to(root).parts))
