#!/usr/bin/env python3
"""Inserts the results of a benchmark into README files, between markers:

    <!-- bench:NAME begin -->
    ... replaced ...
    <!-- bench:NAME end HASH -->

HASH is a seal: common/tools/docs.py notices a figure that was changed by hand. The markers may
stand in one line, with nothing but the text between the two. NAME is one of: machine (where and
when the figures were taken), comparison (a row per step), variants (a row per variant), idle
(cost against idle connections), calls (cost against what a system call costs), workers (cost by
the number of workers, and of the load client's threads), and cost-SERVER (sentences about
one server: cost-step6, cost-step5/poll). Without a README as an argument the results are also
copied to clients/bench/results.json, from which `make page` draws its charts.
"""

import argparse
import json
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))     # also with PYTHONSAFEPATH

import lab          # noqa: E402
import tables       # noqa: E402
import workers      # noqa: E402
from lib.seals import seal                              # noqa: E402
from tables import duration, size, three, two           # noqa: E402

KEPT = lab.TREE / "clients/bench/results.json"
MARKED = re.compile(r"(<!-- bench:(\S+) begin -->(\n?))(.*?)<!-- bench:\2 end(?: (\w+))? -->",
                    re.DOTALL)
BEGIN = re.compile(r"<!-- bench:\S+ begin -->")


class Unknown(Exception):
    """A marker with an unknown name."""


def markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def machine(results):
    delay = tables.disturbance(results)
    busy = "" if delay < tables.MUCH else (
        f" The machine did other work, too: the load client waited {100 * delay:.0f} % of the "
        "time for its CPU.")
    raw = results.raw
    return (f"Measured on {raw['date']}, {raw['machine']}: {tables.rounds(raw['rounds'])}."
            f"{busy}")


def comparison(results, variants=False):
    """What a reader compares the models by. The reasons for gaps stand in their places."""
    busy = [point for point in (100, 10000) if point in results.points("load")]
    most = max(results.points("idle"), default=0)
    rows = [["server", "model",
             *(f"CPU per message, {point:,} connections" for point in busy),
             f"median latency, {busy[0]}", f"CPU per message, 10 among {most:,} idle",
             "memory per connection", "idle CPU", "one stream"]]
    for server in results.servers:
        name = server["name"]
        if ("/" in name) == variants or name == "baseline":
            rows.append([name, server["model"],
                         *(cost(results.cell("load", point, name)) for point in busy),
                         latency(results.cell("load", busy[0], name)),
                         idlest_cost(results, name, most), *others(results, name)])
    return markdown(rows)


def cost(cell):
    if not cell or "reason" in cell:
        return cell.get("reason", tables.NOTHING)
    text = three(cell["cpu_us"]) + " µs"
    return text + (f" ({cell['cpu_us_x']:.2f}x)" if cell.get("cpu_us_x") else "")


def latency(cell):
    return duration(cell["p50_us"]) if cell.get("p50_us") else tables.NOTHING


def idle_cost(results, point, name):
    cell = results.cell("idle", point, name)
    if not cell or "reason" in cell:
        return cell.get("reason", tables.NOTHING)
    factor = results.idle_factor(point, name)
    return three(cell["cpu_us"]) + " µs" + (f" ({factor:.2f}x)" if factor else "")


def idlest_cost(results, name, most):
    """At the most idle connections there were figures for."""
    if not results.idlest(name):
        return tables.NOTHING
    point, _ = results.idlest(name)
    return idle_cost(results, point, name) + (f" at {point:,}" if point < most else "")


def others(results, name):
    each, cpu = results.per_connection(name), results.idle_cpu(name)
    stream = results.bulk(name)
    return [size(each[0]) if each else tables.NOTHING,
            tables.NOTHING if cpu is None else f"{100 * cpu:.1f} %",
            two(stream) + " MB/s" if stream else tables.NOTHING]


def idle(results):
    rows = [["server", *(f"{point:,} idle" for point in results.points("idle"))]]
    rows += [[server["name"], *(idle_cost(results, point, server["name"])
                                for point in results.points("idle"))]
             for server in results.servers if results.cell("idle", 0, server["name"])]
    return markdown(rows)


def calls(results):
    prices = results.points("call")
    rows = [["server", *(f"{price} ns a call" for price in prices)]]
    rows += [[server["name"], *(cost(results.cell("call", price, server["name"]))
                                for price in prices)]
             for server in results.servers if results.curve("call", server["name"], "cpu_us")]
    return markdown(rows)


def scaling(results):
    """Workers, and the load client's threads."""
    figures = results.raw.get("workers")
    if not isinstance(figures, dict):
        raise Unknown("no results for workers")
    return (f"{markdown([workers.WORKERS, *workers.rows(figures, 'workers')])}\n\n"
            f"{workers.per_worker(figures)}\n\n"
            f"{markdown([workers.THREADS, *workers.rows(figures, 'threads')])}")


def sentences(results, name):
    """What one server costs."""
    if name not in {server["name"] for server in results.servers}:
        raise Unknown(f"no results for {name}")
    date = results.raw["date"]
    said, at = [f"Measured on {date} ([where](../README.md#what-they-cost))."], []
    for point in results.points("load"):
        cell = results.cell("load", point, name)
        if cell.get("cpu_us") and (point in (100, 10000) or server_takes_one(results, name)):
            factor = cell.get("cpu_us_x")
            at.append(f"{three(cell['cpu_us'])} µs{' of CPU time' * (not at)} at {point:,} "
                      f"connection{'s'[:point - 1]}" + (
                          f" ({factor:.2f} x the baseline)" if factor else ""))
    if at:
        said.append(f"A message costs {' and '.join(at)}.")
    if results.idlest(name):
        point, among = results.idlest(name)
        factor = results.idle_factor(point, name)
        said.append(f"With {point:,} idle connections beside ten active ones it costs " + (
            f"{factor:.2f} times as much as without them." if factor
            else f"{three(among)} µs."))
    start, each = results.start_memory(name), results.per_connection(name)
    if start:
        said.append(f"The server takes {size(start)} of memory" + (
            f", and {size(each[0])} for each idle connection." if each else "."))
    if results.idle_cpu(name) is not None:
        said.append(f"While 100 clients are idle it uses {100 * results.idle_cpu(name):.1f} % "
                    "of a CPU.")
    if results.bulk(name):
        said.append(f"One stream passes at {two(results.bulk(name))} MB/s.")
    return " ".join(said)


def server_takes_one(results, name):
    return not results.cell("load", 100, name).get("cpu_us")


BLOCKS = {"machine": machine, "comparison": comparison, "idle": idle, "calls": calls,
          "workers": scaling,
          "variants": lambda results: comparison(results, True)}


def block(name, results):
    if name.startswith("cost-"):
        return sentences(results, name[len("cost-"):])
    if name not in BLOCKS:
        raise Unknown(f"nothing is called bench:{name}")
    return BLOCKS[name](results)


def fill(text, results):
    if len(BEGIN.findall(text)) != len(MARKED.findall(text)):
        raise Unknown("a marker has no end, or the wrong one")

    def filled(found):
        inside = block(found[2], results) + found[3]
        return f"{found[1]}{inside}<!-- bench:{found[2]} end {seal(inside)} -->"
    return MARKED.sub(filled, text)


def parse(arguments):
    usage, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(prog="insert.py", description=usage, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, metavar="FILE",
                        default=lab.TREE / "build/bench/results.json",
                        help="default: build/bench/results.json")
    parser.add_argument("files", metavar="README", nargs="*", type=pathlib.Path,
                        help="default: every README.md of the tree")
    return parser.parse_args(arguments)


def main():
    settings = parse(sys.argv[1:])
    files = settings.files or sorted([lab.TREE / "README.md", *lab.TREE.glob("*/README.md")])
    try:
        results = tables.Results(json.loads(settings.results.read_text()))
        for path in files:
            text = path.read_text()
            try:
                filled = fill(text, results)
            except Unknown as trouble:
                raise lab.Trouble(f"{path}: {trouble}") from None
            if filled != text:
                path.write_text(filled)
                print(f"{path}: {len(MARKED.findall(text))} filled in")
        if not settings.files and settings.results.resolve() != KEPT.resolve():
            shutil.copyfile(settings.results, KEPT)     # what the READMEs say, the charts show
            print(f"{KEPT}: the figures of the charts")
    except (OSError, ValueError, lab.Trouble) as trouble:
        print(f"insert.py: {trouble}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
