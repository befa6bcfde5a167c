#!/usr/bin/env python3
"""Is it true? Measures sentences that people say: what `make claims` calls.

    common/lessons/claims.py                    all claims: a line for each
    common/lessons/claims.py NAME...            these, with their working
    common/lessons/claims.py --opposite NAME... with the counterpart, for which the opposite
                                                verdict comes out

    --list      the names
    --fast      only those that a count decides in less than 0.3 seconds
    --check     compare with the page: verdicts, and figures within their limits. Writes TAP
    --write     measure, and write claims.json and the page claims.md

NAME is a part of a name. With --check and --opposite, the counterpart must give the opposite
verdict. A measurement that disagrees is repeated, up to three times in all. Exit status: 0 all
is well, 1 the page and a measurement differ, 2 called wrongly.
"""

import argparse
import datetime
import gc
import json
import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import claims                                                       # noqa: E402
from claims import DEPENDS, FALSE, TITLES, TRIES, TRUE, UNDECIDED   # noqa: E402
from claims.lab import TREE, Lab                                    # noqa: E402
from lib import processes, reports                                  # noqa: E402

PAGE, RECORD = HERE / "claims.md", HERE / "claims.json"
BEGIN, END = "<!-- claims begin -->\n", "<!-- claims end -->\n"


def nothing(line):
    """The working is not shown."""


def attempt(claim, doctored=False, say=nothing):
    """One measurement: (verdict, figures, the reason if it is not decided)."""
    try:
        with Lab(doctored, say) as lab:
            figures = claim.measure(lab)
    except (claims.Undecided, OSError, processes.Trouble) as problem:
        return UNDECIDED, [], str(problem) or type(problem).__name__
    finally:
        gc.collect()    # a socket in a cycle would stay open
    return claims.verdict(figures), figures, ""


def tries(claim, doctored=False, say=nothing):
    """Measurements, up to three. What cannot be measured is tried again only if times decide:
    the machine may have been busy."""
    for count in range(1, TRIES + 1):
        result = attempt(claim, doctored, say)
        if result[0] != UNDECIDED or not claim.slow or count == TRIES:
            yield result
        if result[0] == UNDECIDED and not claim.slow:
            return


def settle(claim, doctored=False, say=nothing):
    """Measures until it is settled: a count at once, a time when two tries agree."""
    seen = {}
    for result in tries(claim, doctored, say):
        if result[0] == UNDECIDED or not claim.slow or result[0] in seen:
            return result
        seen[result[0]] = result
    return UNDECIDED, [], f"{TRIES} tries gave {len(seen)} verdicts"


def difference(claim, entry, result):
    """What differs between the page and a measurement, or ""."""
    found, figures, _ = result
    if found != entry["verdict"]:
        return f"the page says {entry['verdict']}, measured: {found} ({shown(figures)})"
    if [each.what for each in figures] != [what for what, _, _ in entry["figures"]]:
        return "the page has other figures; claims.py --write writes it again"
    for figure, (what, value, unit) in zip(figures, entry["figures"]):
        if not figure.agrees(value):
            return f"{what}: the page says {number(value, unit)}, measured: " + \
                number(figure.value, unit)
    if claims.verdict(figures, [value for _, value, _ in entry["figures"]]) != found:
        return f"the figures on the page do not give the verdict {found}"
    return ""


def check(claim, entry):
    """What is wrong with the page, after up to three tries; and why it cannot be decided."""
    wrong = []
    for result in tries(claim):
        if result[0] == UNDECIDED:
            return ("; then ".join(wrong), "") if wrong else ("", result[2])
        wrong.append(difference(claim, entry, result))
        if not wrong[-1]:
            return "", ""
    return "; then ".join(dict.fromkeys(wrong)), ""


def check_opposite(claim, entry):
    """The same for the counterpart, whose verdict must be the opposite one."""
    seen = []
    for found, figures, reason in tries(claim, doctored=True):
        if found == UNDECIDED:
            return "", reason
        if found in opposites(entry["verdict"]):
            return "", ""
        seen.append(f"{found} ({shown(figures)})")
    return f"not the opposite of {entry['verdict']}: {'; then '.join(seen)}", ""


def opposites(verdict):
    return {TRUE: (FALSE,), FALSE: (TRUE,), DEPENDS: (TRUE, FALSE),
            UNDECIDED: (TRUE, FALSE, DEPENDS)}[verdict]


# What people read.

def number(value, unit):
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if value < 1000 else \
        f"{value:,.0f}"
    return f"{text} {unit}".strip()


def shown(figures):
    records = [each if isinstance(each, list) else each.record() for each in figures]
    return "; ".join(f"{what}: {number(value, unit)}" for what, value, unit in records)


def label(claim, verdict):
    return f"{verdict} (on {claim.on})" if verdict == DEPENDS and claim.on else verdict


def machine():
    model = "unknown processor"
    try:
        found = re.search(r"^model name\s*: (.*)$",
                          pathlib.Path("/proc/cpuinfo").read_text(), re.M)
        model = found.group(1) if found else model
    except OSError:
        pass
    system = os.uname()
    release = re.match(r"[\d.]*", system.release)[0].rstrip(".")
    return f"{model}, {os.cpu_count()} CPUs, {system.sysname} {release}"


def text_of_page(everything, record):
    """What stands between the markers of the page."""
    count = {verdict: sum(entry["verdict"] == verdict for entry in record["claims"].values())
             for verdict in (TRUE, FALSE, DEPENDS, UNDECIDED)}
    everything = [claim for claim in everything if claim.name in record["claims"]]
    lines = [f"Measured on {record['date']}: {record['machine']}.", "",
             f"{len(everything)} claims: " + ", ".join(
                 f"{number_of} {verdict}" for verdict, number_of in count.items() if number_of)
             + "."]
    for theme, title in TITLES.items():
        chosen = [claim for claim in everything if claim.theme == theme]
        if chosen:
            lines += ["", f"## {title}"]
        for claim in chosen:
            entry = record["claims"][claim.name]
            lines += ["", f"### {claim.sentence}", "",
                      f"**{label(claim, entry['verdict'])}**. Said by: {claim.by}.", "",
                      f"- Measured: {shown(entry['figures'])}." if entry["figures"] else
                      f"- Not measured: {entry['reason']}.",
                      f"- Why: {claim.why}",
                      f"- The opposite comes out with: {claim.opposite}.",
                      f"- Command: `make claims ONLY={claim.name}`"]
    return "\n".join(lines) + "\n"


def read_page():
    """(before, between, after) the markers."""
    text = PAGE.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    between, ended, after = rest.partition(END)
    if not (found and ended):
        raise processes.Trouble(f"{PAGE} lacks {BEGIN.strip()} or {END.strip()}")
    return before + BEGIN, between, END + after


def read_record():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def page_problem(everything, record):
    """How the page differs from the record, or ""."""
    names = [claim.name for claim in everything]
    if sorted(names) != sorted(record["claims"]):
        return "claims.json has other claims: " + ", ".join(
            sorted(set(names) ^ set(record["claims"])))
    expected = text_of_page(everything, record).split("\n")
    for line, (wanted, found) in enumerate(zip(expected, read_page()[1].split("\n")), 1):
        if wanted != found:
            return (f"claims.md, line {line} of the ledger: {found!r}, "
                    f"but claims.json: {wanted!r}")
    return "" if len(expected) == len(read_page()[1].split("\n")) else "claims.md is cut short"


def write(chosen, everything):
    """Measures the chosen claims, and writes the record and the page."""
    record = read_record() if RECORD.exists() else {"claims": {}}
    record.update(date=datetime.date.today().isoformat(), machine=machine())
    known = record["claims"]
    for claim in chosen:
        found, figures, reason = settle(claim)
        known[claim.name] = {"verdict": found, "figures": [each.record() for each in figures],
                             **({"reason": reason} if reason else {})}
        tell(claim, (found, figures, reason))
    record["claims"] = {claim.name: known[claim.name] for claim in everything
                        if claim.name in known}
    before, _, after = read_page()
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(before + text_of_page(everything, record) + after, encoding="utf-8")
    return 0


# What the command does.

def tell(claim, result):
    found, figures, reason = result
    print(f"{label(claim, found)}: {claim.sentence}\n    {shown(figures) or reason}",
          flush=True)


def live(chosen, opposite, working):
    """Measures and shows; exit status 1 if a verdict differs from the page's."""
    record = read_record()["claims"] if RECORD.exists() else {}
    wrong = 0
    for claim in chosen:
        if working:
            print(f'"{claim.sentence}" ({claim.name})\nSaid by: {claim.by}')
            if opposite:
                print(f"With: {claim.opposite}")
        result = settle(claim, opposite, (lambda line: print(f"    {line}", flush=True))
                        if working else nothing)
        tell(claim, result)
        if working:
            print(f"    Why: {claim.why}\n")
        entry = record.get(claim.name, {"verdict": UNDECIDED})["verdict"]
        expected = opposites(entry) if opposite else (entry,)
        if UNDECIDED not in (result[0], entry) and result[0] not in expected:
            print(f"    The page says {entry}: {PAGE.relative_to(TREE)}")
            wrong += 1
    return int(wrong > 0)


def tap(chosen, everything, opposite):
    """Compares with the page, or tries the counterparts."""
    record = read_record()
    problem = page_problem(everything, record)
    print(f"1..{len(chosen) + 1}\n"
          + reports.tap_line(not problem, 1, "the page shows what was recorded"))
    print(reports.tap_comment(problem) if problem else "", end="", flush=True)
    failed = int(bool(problem))
    slow_machine = float(os.environ.get("CHECK_SLOW") or 1) > 1
    for count, claim in enumerate(chosen, 2):
        entry = record["claims"].get(claim.name, {"verdict": "missing", "figures": []})
        if claim.slow and slow_machine:
            wrong, reason = "", "CHECK_SLOW: this is not the time to measure"
        elif entry["verdict"] in (UNDECIDED, "missing"):
            wrong, reason = "", "the page does not decide it"
        else:
            wrong, reason = (check_opposite if opposite else check)(claim, entry)
        print(reports.tap_line(not wrong, count, claim.name,
                               f"SKIP {reason}" if reason else ""))
        print(reports.tap_comment(f"{claim.sentence}\n{wrong}") if wrong else "", end="",
              flush=True)
        failed += bool(wrong)
    return int(failed > 0)


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="claims.py", description=__doc__.partition("\n\n")[0],
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", metavar="NAME", nargs="*",
                        help="only claims with this in the name")
    for flag in "list", "fast", "opposite":
        parser.add_argument(f"--{flag}", action="store_true")
    what = parser.add_mutually_exclusive_group()
    for flag in "check", "write":
        what.add_argument(f"--{flag}", action="store_true")
    settings = parser.parse_args(arguments)
    if settings.write and settings.opposite:
        parser.error("--write takes no --opposite")
    settings.everything = claims.load()
    settings.chosen = [claim for claim in settings.everything
                       if not (settings.fast and claim.slow) and
                       (not settings.only or any(part in claim.name for part in settings.only))]
    exact = [claim for claim in settings.chosen if claim.name in settings.only]
    if len(exact) == len(set(settings.only)) > 0:
        settings.chosen = exact
    if not settings.chosen:
        parser.error(f"no claim has {' or '.join(settings.only)} in its name; see --list")
    return settings


def main():
    settings = parse(sys.argv[1:])
    if settings.list:
        print("\n".join(f"{claim.name:36} {claim.sentence}" for claim in settings.chosen))
        return 0
    if settings.write:
        return write(settings.chosen, settings.everything)
    if settings.check:
        return tap(settings.chosen, settings.everything, settings.opposite)
    return live(settings.chosen, settings.opposite, bool(settings.only))


if __name__ == "__main__":
    processes.program(main, "claims")
