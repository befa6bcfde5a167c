#!/usr/bin/env python3
"""Which figures stand in the text of the documents, and where does each come from?

    common/tools/docs_figures.py                    compares all documents with the ledger
    common/tools/docs_figures.py --write FILE...    writes their figures into the ledger, and
                                                    drops sources that no figure has any more

A block of a document shows what a run printed, and its seal tells when somebody changed it.
This checks the other figures: in sentences, tables, remarks, and blocks that no run prints.
There are two rules:

- figures.txt, the ledger, lists them for each document, in their order. So a figure cannot be
  changed unnoticed. Number words count, too, except "one".
- A figure of a sentence or table is measured if it has a unit, a decimal point or a comma. It
  must stand in a block or a measured table of its page, rounded to the places that the text
  shows. After "about", "more than" and the like it may differ by half, so that the next
  measurement does not make it wrong. Any other such figure has its source in the ledger, in a
  line below its document: the figure, two blanks, the source. A source "FILE: TEXT" is a text
  of that file. A source "FILE" is a document in which the figure was measured. Others are for
  the reader.

docs.py applies both rules. Exit status: 0 all figures are right, 1 one is wrong, 2 called
wrongly.
"""

import argparse
import difflib
import pathlib
import re
import sys

import docs_compare as compare
import docs_markdown as markdown

TREE = pathlib.Path(__file__).resolve().parents[2]
LEDGER = pathlib.Path(__file__).with_name("figures.txt")
CLAIMS = re.compile(r"<!-- claims begin -->.*?<!-- claims end -->", re.DOTALL)
LINK = re.compile(r"\]\([^)\s]*\)")
SYMBOL = r"(?:[nuµm]?s|%|[KMG]i?B(?:/s)?|B|[KMG]Hz)(?![\w/])"
WORD = r"(?:seconds?|minutes?|hours?|bytes?|times|cores?|cycles)\b"
UNIT = rf"(?:{SYMBOL}|{WORD})"
SPELLED = ("two three four five six seven eight nine ten eleven twelve fifteen twenty thirty "
           "forty fifty sixty seventy eighty ninety hundreds? thousands? millions? billions? "
           "half halves twice quarters? fifths? tenths? hundredths? thousandths?").split()
FIGURE = re.compile(rf"(?<![\w.]){compare.NUMBER}(?!\w)(?:\s?{UNIT})?|"
                    rf"(?<![\w-])(?:{'|'.join(SPELLED)})(?!\w)", re.IGNORECASE)
NAME = re.compile(r"\b(?:chapter|section|steps?|RFC|JDK) [\d., ]+|\d+(?:\.\d+){3}",
                  re.IGNORECASE)    # and addresses
ROUGHLY = re.compile(r"\b(?:about|nearly|almost|some|more than|less than|over|below|at most|at "
                     r"least|up to|well under|around)(?: \w+){0,1}\s+$", re.IGNORECASE)
HEAD = """\
# The figures of each document that no run writes, in their order, and below them the sources of
# those that are measured or fixed elsewhere. docs_figures.py explains and writes this file."""
SOFT = 3 / 2            # the factor by which a figure after "about" may differ


def kept(found):
    """Removes what was found, but leaves the lines their numbers."""
    return "\n" * found[0].count("\n")


def own_text(text):
    """What no run has written: sentences, tables, blocks without a seal, and remarks."""
    text = CLAIMS.sub(kept, markdown.BENCH.sub(kept, text))
    lines = markdown.prose(text).split("\n")
    for block in markdown.blocks(text):
        compared = block.kind() in ("transcript", "excerpt") \
            and not {"long", "not run"} & set(block.markers)
        for number, line in enumerate(block.lines, block.line - 1):
            if compared or {"sealed", "output"} & set(block.markers):
                remark = compare.REMARK.search(line)    # a seal leaves it out
                line = remark[0] if remark and "output" not in block.markers else ""
            lines[number] = line
    return LINK.sub("]", "\n".join(lines))


def figures(text):
    """Yields (line number, figure, is it only roughly right?) of a text."""
    for found in FIGURE.finditer(text):
        before = text[max(0, found.start() - 40):found.start()]
        figure = " ".join(found[0].split())
        yield (text.count("\n", 0, found.start()) + 1,
               figure.lower() if figure.isalpha() else figure, bool(ROUGHLY.search(before)))


def measured(text):
    """The same for figures of sentences and tables that are measured, or fixed elsewhere."""
    text = CLAIMS.sub(kept, markdown.BENCH.sub(kept, text))
    text = LINK.sub("]", markdown.CODE_SPAN.sub(kept, markdown.prose(text)))
    text = NAME.sub(lambda found: "-" * len(found[0]), text)
    return [found for found in figures(text) if re.match(r"\d", found[1])
            and (re.search(r"[.,]", found[1]) or not found[1].isdigit())]


def value(figure):
    number = re.match(compare.NUMBER, figure)[0]
    return float(number.replace(",", "")), len(number.partition(".")[2])


def printed(text):
    """The numbers that runs have written into a document."""
    blocks = [block.text() for block in markdown.blocks(text)
              if block.kind() in ("transcript", "excerpt", "recorded")
              or {"sealed", "output"} & set(block.markers)]
    parts = [*blocks, *(found[0] for found in markdown.BENCH.finditer(text)),
             *(found[0] for found in CLAIMS.finditer(text))]
    return [float(number.replace(",", ""))
            for number in re.findall(compare.NUMBER, "\n".join(parts))]


def stands_in(figure, roughly, numbers):
    wanted, places = value(figure)
    return any(round(number, places) == wanted or roughly and wanted and number
               and max(number / wanted, wanted / number) <= SOFT for number in numbers)


def read_ledger(path=LEDGER):
    """{document: (its figures in order, {figure: its source})}, or None without a ledger"""
    if not path.exists():
        return None
    found, sources = {}, {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith(" "):
            figure, _, source = line.strip().partition("  ")
            sources[figure] = source.strip()
        else:
            name, _, rest = line.partition(":")
            sources = {}
            found[name] = ([each.strip() for each in rest.split(";") if each.strip()], sources)
    return found


def write_ledger(ledger, path=LEDGER):
    old = path.read_text("utf-8") if path.exists() else HEAD
    head = [line for line in old.splitlines() if line.startswith("#")]
    lines = [*head, ""]
    for name, (order, sources) in sorted(ledger.items()):
        lines.append(f"{name}: {'; '.join(order)}")
        lines += [f"    {figure}  {source}" for figure, source in sources.items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def wrong_source(figure, source, root):
    """Why the source of a figure does not show it, or ""."""
    name, _, words = source.partition(": ")
    if not re.fullmatch(r"[\w./-]+\.\w+|[\w.-]+/[\w./-]+", name):
        return ""           # for the reader
    if not (root / name).is_file():
        return f"{figure}: there is no {name}"
    text = (root / name).read_text("utf-8")
    if words:
        return "" if words in text else f"{figure}: {name} does not contain {words!r}"
    return "" if stands_in(figure, True, printed(text)) else f"{figure}: not measured in {name}"


def wrong_figures(name, text, ledger, root=TREE):
    """Yields (line, what is wrong) for the figures of the document with this name."""
    if ledger is None:
        return
    found = list(figures(own_text(text)))
    order, sources = ledger.get(name, ([], {}))
    now = [figure for _, figure, _ in found]
    for what, i, j, k, m in difflib.SequenceMatcher(None, order, now, False).get_opcodes():
        if what != "equal":
            line = found[min(k, len(found) - 1)][0] if found else 1
            yield line, (f"the ledger has {'; '.join(order[i:j]) or 'no figure'!r}, the text "
                         f"{'; '.join(now[k:m]) or 'no figure'!r}. If the text is right: "
                         f"common/tools/docs_figures.py --write {name}")
    numbers = printed(text)
    for line, figure, roughly in measured(text):
        problem = wrong_source(figure, sources[figure], root) if figure in sources else ""
        if figure not in sources and not stands_in(figure, roughly, numbers):
            problem = f"{figure}: no block of the page has it, and the ledger no source"
        if problem:
            yield line, problem
    for figure in sorted(set(sources) - {figure for _, figure, _ in measured(text)}):
        yield 1, f"{figure}: the ledger has a source for it, but the text does not name it"


def main():
    usage, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=usage, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write them into the ledger")
    parser.add_argument("files", metavar="FILE", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    for path in options.files:
        if not path.is_file() or TREE not in path.resolve().parents:
            parser.error(f"{path}: not a file of this tree")
    ledger, wrong = read_ledger(), False
    if ledger is None and not options.write:
        print(f"{LEDGER} is missing: docs_figures.py --write makes it")
        return 1
    ledger = ledger or {}
    for path in [path.resolve() for path in options.files] or markdown.documents(TREE):
        name, text = str(path.relative_to(TREE)), path.read_text("utf-8")
        if options.write:
            named, (_, old) = {found[1] for found in measured(text)}, ledger.get(name, ([], {}))
            sources = {figure: source for figure, source in old.items() if figure in named}
            order = [figure for _, figure, _ in figures(own_text(text))]
            ledger[name] = order, sources
        for line, problem in wrong_figures(name, text, ledger):
            print(f"{name}:{line}: {problem}")
            wrong = True
    if options.write:
        write_ledger(ledger)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
