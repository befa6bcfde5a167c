#!/usr/bin/env python3
"""Inserts the results of a benchmark into README files, between markers:

    <!-- bench:NAME begin -->
    ... replaced ...
    <!-- bench:NAME end -->

or in one line, with nothing but the text between the two. NAME is one of: machine (where and
when the figures were taken), comparison (a row per step), variants (a row per variant), idle
(cost against idle connections), calls (cost against what a system call costs), and cost-SERVER
(a sentence on one server: cost-step6, cost-step5/poll).
"""

import argparse
import json
import pathlib
import re
import sys

import lab
import tables
from tables import duration, size, three, two

MARKED = re.compile(r"(<!-- bench:(\S+) begin -->(\n?))(.*?)(<!-- bench:\2 end -->)", re.DOTALL)
BEGIN = re.compile(r"<!-- bench:\S+ begin -->")


class Unknown(Exception):
    """A marker with a name that nothing is known of."""


def markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def machine(results):
    delay = tables.disturbance(results)
    busy = "" if delay < tables.MUCH else (
        " It was busy otherwise: the load client waited %.0f %% of the time for its CPU."
        % (100 * delay))
    return "Measured on %s, %s: %s.%s" % (
        results.raw["date"], results.raw["machine"], tables.rounds(results.raw["rounds"]), busy)


def comparison(results, variants=False):
    """What a reader compares the models by. The reasons for gaps stand in their places."""
    busy = [point for point in (100, 10000) if point in results.points("load")]
    most = max(results.points("idle"), default=0)
    rows = [["server", "model",
             *("CPU per message, {:,} connections".format(point) for point in busy),
             "median latency, %d" % busy[0], "CPU per message, 10 among {:,} idle".format(most),
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
    return text + (" (%.2fx)" % cell["cpu_us_x"] if cell.get("cpu_us_x") else "")


def latency(cell):
    return duration(cell["p50_us"]) if cell.get("p50_us") else tables.NOTHING


def idle_cost(results, point, name):
    cell = results.cell("idle", point, name)
    if not cell or "reason" in cell:
        return cell.get("reason", tables.NOTHING)
    factor = results.idle_factor(point, name)
    return three(cell["cpu_us"]) + " µs" + (" (%.2fx)" % factor if factor else "")


def idlest_cost(results, name, most):
    """At the most idle connections there were figures for."""
    if not results.idlest(name):
        return tables.NOTHING
    point, _ = results.idlest(name)
    return idle_cost(results, point, name) + (" at {:,}".format(point) if point < most else "")


def others(results, name):
    each, cpu = results.per_connection(name), results.idle_cpu(name)
    stream = results.bulk(name)
    return [size(each[0]) if each else tables.NOTHING,
            tables.NOTHING if cpu is None else "%.1f %%" % (100 * cpu),
            two(stream) + " MB/s" if stream else tables.NOTHING]


def idle(results):
    rows = [["server", *("{:,} idle".format(point) for point in results.points("idle"))]]
    rows += [[server["name"], *(idle_cost(results, point, server["name"])
                                for point in results.points("idle"))]
             for server in results.servers if results.cell("idle", 0, server["name"])]
    return markdown(rows)


def calls(results):
    prices = results.points("call")
    rows = [["server", *("%d ns a call" % price for price in prices)]]
    rows += [[server["name"], *(cost(results.cell("call", price, server["name"]))
                                for price in prices)]
             for server in results.servers if results.curve("call", server["name"], "cpu_us")]
    return markdown(rows)


def sentence(results, name):
    """What one server costs."""
    if name not in {server["name"] for server in results.servers}:
        raise Unknown("no results for %s" % name)
    parts = []
    for point in results.points("load"):
        cell = results.cell("load", point, name)
        if cell.get("cpu_us") and (point in (100, 10000) or server_takes_one(results, name)):
            parts.append("%s of CPU per message at {:,} connection%s".format(point) % (
                cost(cell).replace("x)", " x the baseline)"), "s"[:point - 1]))
    if results.idlest(name):
        point, among = results.idlest(name)
        factor = results.idle_factor(point, name)
        parts.append(("%.2f x as much" % factor if factor else three(among) + " µs") +
                     " with {:,} silent connections beside ten that talk".format(point))
    start, each = results.start_memory(name), results.per_connection(name)
    if start:
        parts.append(size(start) + " of memory" + (
            ", and %s for each silent connection" % size(each[0]) if each else ""))
    if results.idle_cpu(name) is not None:
        parts.append("%.1f %% of a CPU while 100 clients are silent"
                     % (100 * results.idle_cpu(name)))
    if results.bulk(name):
        parts.append("one stream passes at %s MB/s" % two(results.bulk(name)))
    return "Measured on %s ([where](../README.md#what-they-cost)): %s." % (
        results.raw["date"], "; ".join(parts))


def server_takes_one(results, name):
    return not results.cell("load", 100, name).get("cpu_us")


BLOCKS = {"machine": machine, "comparison": comparison, "idle": idle, "calls": calls,
          "variants": lambda results: comparison(results, True)}


def block(name, results):
    if name.startswith("cost-"):
        return sentence(results, name[len("cost-"):])
    if name not in BLOCKS:
        raise Unknown("nothing is called bench:%s" % name)
    return BLOCKS[name](results)


def fill(text, results):
    if len(BEGIN.findall(text)) != len(MARKED.findall(text)):
        raise Unknown("a marker has no end, or the wrong one")
    return MARKED.sub(lambda found: found[1] + block(found[2], results) + found[3] + found[5],
                      text)


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
                raise lab.Trouble("%s: %s" % (path, trouble)) from None
            if filled != text:
                path.write_text(filled)
                print("%s: %d filled in" % (path, len(MARKED.findall(text))))
    except (OSError, ValueError, lab.Trouble) as trouble:
        print("insert.py: %s" % trouble, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
