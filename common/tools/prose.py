#!/usr/bin/env python3
"""Is the English of this tree plain? Reports phrases that readers had to read twice, each with
what to write instead.

    common/tools/prose.py [FILE...]         these files, or all of the tree
    common/tools/prose.py --since BASE      the subjects of the commits in BASE..HEAD, too
    common/tools/prose.py --count           only how many findings each file has

It reads Markdown, the comments and strings of C, Python, shell and make, and test names.
A finding is a phrase of PATTERNS. A sentence of a Markdown file with more than 35 words is only
a warning. The words `prose: ok` in a comment on the same line allow the phrases of that line.
Exit status: 0 no findings (there may be warnings), 1 findings, 2 called wrongly.
"""

import argparse
import collections
import io
import pathlib
import re
import subprocess
import sys
import token
import tokenize

# pattern: a regular expression, or several in a list; case counts only where "(?-i:" says so
# say:     what to write instead
# yes, no: an example that it finds, and one that it must not find
# where:   a regular expression for the paths to look in ("subject" is a commit's subject)
# unless:  found in the same paragraph, this makes the phrase right
Pattern = collections.namedtuple("Pattern", "pattern say yes no where unless",
                                 defaults=("", None))
BE = r"(?:is|are|was|were|be|been|being)"
HAVE = r"(?:has|have|had|is|are|was|were|be)"
CLIENT = r"(?:clients?|peers?|connections?|newcomers?)"
PATTERNS = [
    Pattern(r"\bnewcomers?\b", "new connection, new client",
            "One newcomer waits.", "One new connection waits."),
    Pattern(r"\bshow(?:s|n|ed|ing)?(?: (?!how|what|that)[\w'-]+){0,2} "
            r"(?<!find )(?<!point )(?<!run )(?<!way )(?<!carry )out\b(?! of\b)",
            "reject", "It shows the client out.", "It shows how to find out, and the way out."),
    Pattern(r"\bknock(?:s|ed|ing)?\b", "connect; a pending connection",
            "Nobody knocked.", "Nobody connected."),
    Pattern(r"\b(?:owes?|owed)\b|\bowing\b(?! to\b)", "unsent; what is still to be sent",
            "It owes three bytes.", "Three bytes are unsent, owing to back pressure."),
    Pattern(r"\bfull house\b", "out of descriptors; at capacity",
            "A full house rejects.", "A full table rejects."),
    Pattern(r"\b(?:lent|lends?|lending)\b", "provided; passed",
            "The buffer is lent.", "The length is passed."),
    Pattern(r"\bwhom\b", "begin with the noun: \"the client that ...\"",
            "To whom it sends.", "The client that it sends to."),
    Pattern(r"\baloud\b", "with a message",
            "It is skipped aloud.", "It is skipped with a message. That is allowed."),
    Pattern(r"\btalkers?\b", "active client",
            "Ten talkers.", "Ten clients that talk."),
    Pattern(r"\bnor (?:is|are|was|were|do|does|did|has|have|had|can|could|may|will|would|must|"
            r"should|need)\b", "a sentence of its own, with \"not\"",
            "Nor is it idle.", "It is neither idle nor busy."),
    Pattern([r"(?<!regardless )(?<!because )(?<!instead )(?<!outside )\bof what\b",
             r"\bof whom\b"], "name the thing",
            "A list of what is missing.", "It works regardless of what is missing."),
    Pattern(r"(?:(?:^|(?<=: ))who|(?<=[.;!?] )(?-i:Who)) [^ .?!;:]+ [^.?!;:]+(?=[.;]|$)",
            "name the subject: \"a client that ...\"",
            "Who sends (a little) is not closed.", "Who is idle? Everybody who waits."),
    Pattern(r"(?:^|(?<=[.:;] ))whoever\b", "name the subject: \"the program that ...\"",
            "Whoever started us may block it.", "It stays the same, whoever calls it."),
    Pattern([r"\bone who\b", r"\b(?:nor|than|except|from|for|to|of) who (?!\w+s\?)"],
            "a client that",
            "One who connects late waits.", "Someone who connects late waits."),
    Pattern(r"\b(?:tell(?:s|ing)?|told) of\b", "report, say, describe",
            "One recv, telling of it.", "It tells when it sleeps."),
    Pattern(r"\blaps?\b", "iteration",
            "Once a lap.", "Once an iteration, which may overlap."),
    Pattern(r"\bnap(?:s|ped|ping)?\b", "sleep interval",
            "It naps for a second.", "In step 4 the nap has a length.",
            r"^(?!step[45]_|README)", r"step ?4"),
    Pattern([rf"\b(?:{CLIENT}|who|(?:some|every|no)body) (?:(?:that|who|which) )?"
             rf"(?:{HAVE} )?(?:been |already |long |all )?gone\b",
             r"\bas soon as (?:it|he|she) is gone\b",
             r"\b(?:when|until|once) (?:they|one|it) (?:has|have) gone\b(?! \w)"],
            "disconnected, closed",
            "The client has gone.", "The file is gone."),
    Pattern(r"\b(?:un)?hear(?:d|s|ing)?\b", "received, read; last_active",
            "It cannot hear another one.", "Near its heart."),
    Pattern(r"\buntaken\b", "in the send queue (sendq)",
            "Bytes lie untaken.", "Bytes lie in the send queue."),
    Pattern(r"\b(?:the|a|smallest|below|this|its) floors?\b(?! of\b)", "baseline",
            "Twice the floor.", "It uses floor() to round."),
    Pattern(r"\btolls?\b", "slow system calls",
            "A toll on each call.", "It tolerates each call."),
    Pattern([r"\brefus(?:e|es|ed|ing) (?:(?:a|an|the|one|any|every|new|further|other|such|all|"
             r"each|more|third|politely) ){0,3}(?:clients?|peers?|newcomers?|them|him|"
             r"everybody|anybody|people)\b",
             rf"\b(?:clients?|peers?|newcomers?|they|it|third|next|others?|rest|who) "
             rf"(?:\w+ )?{BE} (?:\w+ )?refused\b",
             rf"\b(?:client|connection|one more|of [\d%]+)\b[^.,:;]* {BE} refused\b",
             r"\brefusals?\b"], "reject, rejected, rejections",
            "It refuses every new client.", "Connection refused. It refuses the option."),
    Pattern([rf"\bsilent (?:\w+ )?(?:{CLIENT}|ones?|among)\b", r"\bby silence\b",
             rf"\b(?:{CLIENT}|who|others) (?:that |who |may )?(?:{BE}|stays?|stayed) "
             r"(?:\w+ )?silent\b",
             r"\b(?:longest|more are) silent\b|\bsilent (?:for|longest|cost)\b",
             r"\bthe silent\b(?! \w)"], "idle",
            "A silent client costs nothing.", "The check is silent."),
    Pattern(r"\bburi(?:es|ed)\b|\bbury(?:ing)?\b", "reap",
            "It buries its children.", "It is busy."),
    Pattern(r"\blet in\b", "accept, accepted",
            "Nobody is let in.", "The caller may let it in time."),
    Pattern(r"\bbut for\b", "except",
            "All of them, but for one.", "Not for one but for all.", "",
            r"\bnot\b[^.]*but for"),
    Pattern(r"\b(?:the shop|behind the house|in good order)\b", "the technical term",
            "It closes the shop.", "It closes the listener."),
    Pattern(r"\bin vain\b", "without result; with EAGAIN",
            "It asks in vain.", "It asks invariably."),
    Pattern(r"\bfor want of\b", "because ... is missing",
            "Skipped for want of a tool.", "Users ask for it and want one."),
    Pattern(r"\b(?:whereupon|whence|thence|thereof|therein|whereof|wherein|lest|hither|"
            r"thither|unto|forthwith|hitherto|betwixt)\b", "an everyday word",
            "It sleeps, lest it spins.", "It sleeps, or else it would spin."),
    Pattern(r"\bdear(?:er|est)?\b", "expensive; it costs more",
            "A call is dear.", "There is a dearth of calls."),
    Pattern(r"\b(?:anew|afresh|hence)\b", "again; so",
            "It is opened anew.", "It is opened again."),
    Pattern(r"\b(?:in|most|least|for|of|after|by|with|within) so (?:many|much|long)\b"
            r"(?!(?: \w+){0,2} that\b)", "this many, this long",
            "It returns after so many seconds.", "It waits for so many clients that it fails."),
    Pattern(r"(?:^|(?<=[.:;] ))so (?:many|much|long)\b(?![^.]* that\b)",
            "this many, this long",
            "So many clients connect.", "It has so many clients that it fails."),
    Pattern(r"\bcall(?:s|ed|ing)? (?:them|all|(?:its|the) \w+) in(?=[.,;]|$)", "stop",
            "It calls its children in.", "It calls the children in order."),
    Pattern(r"\bbe it\b", "even if it is",
            "A client, be it idle, counts.", "A client counts, maybe it is idle."),
    Pattern(r"\bshall\b", "will; must", "It shall fail.", "It must fail."),
    Pattern(r"^Let\b.*\b(?:be|not|say|hear|have|know|go|stay|see|take)\b",
            "the change itself: \"Reject ...\", \"Wait for ...\"",
            "Let a client be idle", "Reject a client that is idle", r"^subject$"),
]
WORDS = 35          # a longer sentence is a warning
# They quote what they look for.
QUOTES = {"common/tools/prose.py", "common/tests/test_prose.py"}
SKIPPED = {"build", "__pycache__", ".git", "node_modules"}
C, PYTHON, MARKDOWN, SHELL = ".c .h", ".py", ".md", ".sh .mk .yml .supp"


def kind_of(path):
    """Which language a file is in, or None for a file that is not read."""
    if path.name in ("Makefile", "Dockerfile") or str(path).endswith(".ci/run"):
        return SHELL
    return next((kind for kind in (C, PYTHON, MARKDOWN, SHELL)
                 if path.suffix and path.suffix in kind.split()), None)


class Text:
    """A piece of prose: its lines joined by blanks, and where each of them came from."""

    def __init__(self):
        self.text, self.starts = "", []

    def add(self, number, line):
        self.text += " " if self.text else ""
        self.starts.append((len(self.text), number))
        self.text += line.strip()

    def line(self, offset):
        return [number for start, number in self.starts if start <= offset][-1]


def paragraphs(numbered):
    """Joins (line number, text) to Texts: an empty line, or a gap between numbers, divides."""
    current = Text()
    before = None
    for number, line in numbered:
        if current.text and (not line.strip() or number > before + 1):
            yield current
            current = Text()
        if line.strip():
            current.add(number, line)
        before = number
    if current.text:
        yield current


def is_phrase(string):
    """Strings of one word are keys and names, not something to read."""
    return re.search(r"[A-Za-z]{2,}[,.:;]?\s+[A-Za-z]", string) is not None


def named(number, name):
    """The name of a test, as a sentence."""
    words = re.sub(r"^test_", "", name).replace("_", " ")
    text = Text()
    text.add(number, words[:1].upper() + words[1:])
    return text


def pieces(number, text):
    """The lines of a comment or string that begins in line `number`."""
    return [(number + i, line) for i, line in enumerate(text.split("\n"))]


def read_c(source):
    comments = []
    for found in re.finditer(
            r"""/\*(.*?)\*/|//([^\n]*)|'(?:\\.|[^'\\\n])*'|"((?:\\.|[^"\\\n])*)\"""",
            source, re.S):
        number = source.count("\n", 0, found.start()) + 1
        block, line, string = found.groups()
        if string is not None:
            if is_phrase(string):
                yield from paragraphs(pieces(number, string.replace("\\n", " ")))
        elif line is not None:
            comments.append((number, line))
        elif block is not None:
            yield from paragraphs((at, re.sub(r"^\s*\* ?", "", text))
                                  for at, text in pieces(number, block))
    yield from paragraphs(comments)
    for found in re.finditer(r"^static void (\w+)\(void \*\*", source, re.M):
        yield named(source.count("\n", 0, found.start()) + 1, found.group(1))


def read_python(source):
    comments, before = [], None
    literal = (token.STRING, getattr(token, "FSTRING_MIDDLE", token.STRING))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    for kind, string, (number, _), _, _ in tokens:
        if kind == token.COMMENT:
            comments.append((number, string.lstrip("#!")))
        elif kind in literal and is_phrase(string):
            string = re.sub(r"^[A-Za-z]*(?:\"\"\"|'''|[\"'])|[\"']+$", "", string)
            yield from paragraphs(pieces(number, string.replace("\\n", " ")))
        elif kind == token.NAME and before == "def" and string.startswith("test_"):
            yield named(number, string)
        before = string
    yield from paragraphs(comments)


def read_shell(source):
    comments = []
    for number, line in enumerate(source.split("\n"), 1):
        for found in re.finditer(
                r"""(?:^|(?<=[\s;@]))#(?!!)(.*)|"((?:\\.|[^"\\])*)"|'([^']*)'""", line):
            comment, double, single = found.groups()
            if comment is not None:
                comments.append((number, comment.lstrip("#")))
            elif is_phrase(double or single or ""):
                yield from paragraphs([(number, double or single)])
    yield from paragraphs(comments)


def blank(found):
    """Blanks of the same length, so that everything else keeps its place."""
    return re.sub(r"[^\n]", " ", found.group(0))


def read_markdown(source):
    """Of code only what explains it is prose: a `# comment`, or a remark after `<-`."""
    source = re.sub(r"<!--.*?-->", blank, source, flags=re.S)
    source = re.sub(r"`[^`\n]+`", lambda m: "x" * len(m.group(0)), source)
    source = re.sub(r"\]\([^)\s]*\)", blank, source).replace("[", " ")
    numbered, remarks, fenced = [], [], False
    for number, line in enumerate(source.split("\n"), 1):
        fence = line.startswith("```")
        fenced = fenced != fence
        after_blank = not numbered or not numbered[-1][1].strip()
        if fence or fenced or (line.startswith("    ") and after_blank):
            numbered.append((number, ""))
            remark = re.search(r"(?:<-|\s#)\s+(.*)", line)
            if remark:
                remarks.append((number, remark.group(1)))
        elif line.startswith("|"):
            for cell in line.split("|"):
                remarks.append((number, cell))
        elif line.startswith("#"):
            numbered.append((number, ""))
            remarks.append((number, line.lstrip("#") + ":"))
        else:
            item = re.match(r"\s*(?:[-*+]|\d+\.)\s+", line)
            if item:
                numbered.append((number, ""))
            numbered.append((number, line[item.end():] if item else line))
    yield from paragraphs(numbered)
    for number, remark in remarks:
        yield from paragraphs([(number, remark)])


READERS = {C: read_c, PYTHON: read_python, MARKDOWN: read_markdown, SHELL: read_shell}


def compiled():
    for entry in PATTERNS:
        patterns = [entry.pattern] if isinstance(entry.pattern, str) else entry.pattern
        yield re.compile("|".join(patterns), re.I), entry


COMPILED = list(compiled())


def phrases(name, text):
    """What the patterns find in one string: (where it starts, where it ends, its pattern)."""
    for regex, entry in COMPILED:
        if not re.search(entry.where, name) \
                or entry.unless and re.search(entry.unless, text, re.I):
            continue
        for found in regex.finditer(text):
            yield found.start(), found.end(), entry


def long_sentences(text):
    start = 0
    for end in re.finditer(r"[.!?][)\"'*]*(?= |$)|$", text):
        sentence = text[start:end.end()]
        count = len(re.findall(r"\S*\w\S*", sentence))
        if count > WORDS:
            yield start + len(sentence) - len(sentence.lstrip()), count
        start = end.end()


def check_file(name, path):
    """The findings and the warnings of one file, as lines to print."""
    source = path.read_text(encoding="utf-8", errors="replace")
    lines = source.split("\n")
    kind = kind_of(path)
    findings, warnings = set(), set()
    for text in READERS[kind](source):
        for start, end, entry in phrases(name, text.text):
            first, last = text.line(start), text.line(end - 1)
            if not any("prose: ok" in line for line in lines[first - 1:last]):
                findings.add((first, f"{name}:{first}: \"{text.text[start:end]}\": "
                                     f"instead: {entry.say}"))
        if kind == MARKDOWN:
            for start, count in long_sentences(text.text):
                warnings.add((text.line(start), f"{name}:{text.line(start)}: warning: "
                                                f"a sentence of {count} words"))
    return [line for _, line in sorted(findings)], [line for _, line in sorted(warnings)]


def check_subjects(tree, base):
    done = subprocess.run(["git", "-C", str(tree), "log", "--format=%h %s", base + "..HEAD"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                          errors="replace")
    if done.returncode != 0:
        print(f"prose: --since {base}: {done.stderr.strip()}", file=sys.stderr)
        sys.exit(2)
    for line in done.stdout.splitlines():
        commit, _, subject = line.partition(" ")
        for start, end, entry in phrases("subject", subject):
            yield f"{commit}: \"{subject[start:end]}\": instead: {entry.say}"


def files_of(tree):
    for path in sorted(tree.rglob("*")):
        parts = path.relative_to(tree).parts
        if not SKIPPED & set(parts) and kind_of(path) and path.is_file() \
                and "/".join(parts) not in QUOTES:
            yield path


def main():
    parser = argparse.ArgumentParser(description="Reports phrases that are not plain English.")
    parser.add_argument("--since", metavar="BASE", help="the commits in BASE..HEAD, too")
    parser.add_argument("--count", action="store_true", help="only a number for each file")
    parser.add_argument("files", metavar="FILE", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    tree = pathlib.Path(__file__).resolve().parents[2]
    for path in options.files:
        if not path.is_file() or kind_of(path) is None:
            parser.error(f"{path}: not a file that can be read as C, Python, shell or Markdown")
    findings, warnings = [], []
    for path in options.files or files_of(tree):
        full = path.resolve()
        name = str(full.relative_to(tree) if tree in full.parents else path)
        found, warned = check_file(name, full)
        if options.count and found + warned:
            print(f"{len(found):5} {len(warned):5} {name}")
        findings += found
        warnings += warned
    if options.since:
        findings += check_subjects(tree, options.since)
    if options.count:
        print(f"{len(findings):5} {len(warnings):5} findings and warnings in all")
    else:
        print("\n".join(findings + warnings), end="\n" if findings + warnings else "")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
