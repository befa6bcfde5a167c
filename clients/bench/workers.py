"""How workers on one port scale: message rate, CPU per message and memory, by their number."""

import json
import os
import statistics

import lab
import tables
from lib import servers
from lib.processes import capture

NAME, ALONE = "step6/workers", "step6"      # the workers, and one loop
CPUS_NEEDED = 4         # half of them are for the load
CONNECTIONS = 100
ROUNDS = 3


def run(subject, arguments, server_cpus, load_cpus, duration=0.5):
    """The load client's report of a server on some CPUs."""
    command = [*subject.command, *arguments]
    with servers.Server(command, patience=lab.PATIENCE,
                        prepare=on_cpus(server_cpus)) as server:
        client = capture(
            [str(lab.LOAD_CLIENT), "--connections", str(CONNECTIONS),
             "--duration", str(duration), "--warmup", "0.1",
             "--threads", str(len(load_cpus)), "--server-pid", str(server.pid),
             "--json", "-", "127.0.0.1", str(server.port)],
            lab.MINUTE, prepare=on_cpus(load_cpus))
    if client.trouble or not client.stdout:
        raise lab.Trouble(f"{subject.name}: {client.trouble or client.stderr.strip()}")
    report = json.loads(client.stdout)
    if report["errors"]["total"] or not report["messages"]:
        raise lab.Trouble(f"{subject.name}: {report['errors'].get('first') or 'no answer'}")
    return report


def on_cpus(cpus):
    return lambda: os.sched_setaffinity(0, cpus)


def all_cpus():
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def enough_cpus():
    return len(all_cpus()) >= CPUS_NEEDED


def split():
    """The CPUs for the server, and those for the load. Where there are too few, one for each:
    then only CPU time tells something."""
    cpus = all_cpus()
    half = len(cpus) // 2 if enough_cpus() else 1
    return cpus[-half:], cpus[:half]


def counts():
    return range(1, max(len(split()[0]), 2) + 1)


def cost_ratio(workers, single, count):
    """CPU time of a message with so many workers, against that of one loop. Each is the least
    of some runs, in turn, because other programs can only make a message dearer."""
    server_cpus, load_cpus = split()
    costs = [[run(subject, arguments, server_cpus, load_cpus, 0.25)["server"]
              ["cpu_us_per_message"] for subject, arguments in
              ((workers, ("--workers", str(count))), (single, ()))] for _ in range(ROUNDS)]
    with_workers, alone = map(min, zip(*costs))
    return with_workers / alone


def measure(subjects):
    """A row for one loop and for each number of workers; none where they are not chosen."""
    by_name = {subject.name: subject for subject in subjects}
    if NAME not in by_name or ALONE not in by_name:
        return []
    server_cpus, load_cpus = split()
    runs = {0: []}
    for _ in range(ROUNDS):
        runs[0].append(run(by_name[ALONE], (), server_cpus[:1], load_cpus))
        for count in counts():
            runs.setdefault(count, []).append(run(
                by_name[NAME], ("--workers", str(count)), server_cpus[-count:], load_cpus))

    def median(count, value):
        return statistics.median(map(value, runs[count]))

    return [{
        "workers": count,       # 0: one loop, without workers
        "rate": (median(count, lambda report: report["messages_per_second"])
                 if enough_cpus() else None),
        "cpu_us": median(count, lambda report: report["server"]["cpu_us_per_message"]),
        "resident": median(count, lambda report: report["server"]["resident_connected"]),
    } for count in runs]


def table(rows):
    """The table for the terminal."""
    if not rows:
        return "Workers were not measured: step6 and its variant workers were not both chosen."
    alone = rows[0]
    cells = [["workers", "messages a second", "CPU per message", "resident", "per worker"]]
    for row in rows:
        count = row["workers"]
        more = (row["resident"] - alone["resident"]) / 1024
        cells.append([
            str(count) if count else "none (server)",
            f"{row['rate']:,.0f} ({row['rate'] / alone['rate']:.2f}x)" if row["rate"]
            else "not measured here",
            f"{tables.three(row['cpu_us'])} µs ({row['cpu_us'] / alone['cpu_us']:.2f}x)",
            f"{row['resident'] / 1024:,.0f} KiB",
            f"{more / count:,.0f} KiB" if count else "-"])
    return (f"Workers on one port, {CONNECTIONS} connections. Messages a second need at least "
            f"{CPUS_NEEDED} CPUs:\nhalf of them are for the load\n\n" + tables.align(cells))
