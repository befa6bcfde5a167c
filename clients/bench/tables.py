"""The results of a benchmark as text: for the terminal, and for the README files."""

NOTHING = "-"
NAPS = "step4"  # its cost with few connections varies: an iteration without work sleeps
MUCH = 0.05     # of the load client's time spent waiting for its CPU: worth a remark


class Results:
    """Answers questions about results.json. Older files have other names for some things."""

    OLD = {"floor": "baseline", "silent": "idle_cpu"}

    def __init__(self, results):
        def name(old):
            return self.OLD.get(old, old)

        self.raw = results
        self.servers = [{**server, "name": name(server["name"])}
                        for server in results["servers"]]
        self.cells = {(name(cell["experiment"]), cell["point"], name(cell["server"])): cell
                      for cell in results["cells"]}

    def points(self, experiment):
        return sorted({point for kind, point, _ in self.cells if kind == experiment})

    def cell(self, experiment, point, server):
        return self.cells.get((experiment, point, server), {})

    def value(self, experiment, point, server, key):
        return self.cell(experiment, point, server).get(key)

    def curve(self, experiment, server, key):
        """The points where there is a figure, and the figures."""
        pairs = [(point, self.value(experiment, point, server, key))
                 for point in self.points(experiment)]
        return [(point, value) for point, value in pairs if value is not None]

    def per_connection(self, server):
        """Bytes of resident memory for each of the most connections it was given, while all of
        them were idle; and how many those were."""
        found = None
        for point in self.points("load"):
            cell = self.cell("load", point, server)
            if point >= 100 and cell.get("resident_connected") is not None:
                grown = cell["resident_connected"] - cell["resident_before"]
                found = max(grown, 0) / point, point
        return found

    def start_memory(self, server):
        return self.value("load", 1, server, "resident_before")

    def idle_factor(self, point, server):
        """What a message costs among this many idle connections, as a multiple of its cost
        among none; None where that is not known, or a matter of chance."""
        cost, alone = (self.value("idle", each, server, "cpu_us") for each in (point, 0))
        return cost / alone if cost and alone and server != NAPS else None

    def idlest(self, server):
        """The most idle connections there is a figure for, and it; None where there is none."""
        return (self.curve("idle", server, "cpu_us") or [None])[-1]

    def bulk(self, server, key="mb_per_second"):
        return self.value("bulk", 65536, server, key)

    def idle_cpu(self, server):
        points = self.points("idle_cpu")
        return self.value("idle_cpu", points[0], server, "cpu_share") if points else None


def three(value):
    """Three significant digits, without an exponent."""
    if value >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def two(value):
    """Two significant digits, for figures that mean no more."""
    return f"{float(f'{value:.2g}'):,.10g}"


def size(value):
    if value < 1 << 10:
        return f"{round(value)} B"
    if value < 1 << 20:
        return three(value / (1 << 10)) + " KiB"
    return three(value / (1 << 20)) + " MiB"


def duration(us):
    return three(us) + " µs" if us < 1000 else three(us / 1000) + " ms"


def align(rows, left=1):
    """Columns as wide as needed; the first `left` of them to the left, the others to the
    right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) if i < left else text.rjust(width)
                               for i, (text, width) in enumerate(zip(row, widths))).rstrip()
                     for row in rows)


def cost_cell(cell):
    """CPU per message and how that compares to the baseline."""
    if not cell:
        return NOTHING
    if "reason" in cell:
        return cell["reason"]
    spread, factor = cell.get("cpu_us_spread"), cell.get("cpu_us_x")
    return three(cell["cpu_us"]) + (
        "" if spread is None else f" ±{round(100 * spread)}%") + (
        f" {factor:.2f}x" if factor else "")


def rounds(number):
    return f"medians of {number} rounds" if number > 1 else "one round"


def calls(results):
    rows = [["server"] + [f"{price} ns" for price in results.points("call")]]
    for server in results.servers:
        if results.curve("call", server["name"], "cpu_us"):
            rows.append([server["name"]] + [
                cost_cell(results.cell("call", price, server["name"]))
                for price in results.points("call")])
    return align(rows)


def figure_cell(cell, key, show):
    if not cell or "reason" in cell:
        return NOTHING
    return show(cell[key])


def costs(results):
    rows = [["server", "model"] + [f"{point:,}" for point in results.points("load")]]
    for server in results.servers:
        rows.append([server["name"], server["model"]] + [
            cost_cell(results.cell("load", point, server["name"]))
            for point in results.points("load")])
    return align(rows, 2)


def figures(results, *columns):
    """A row per server; for each column of (key, how to show it) all numbers of connections."""
    rows = [["server"] + [f"{point:,}" for point in results.points("load")]
            * len(columns)]
    for server in results.servers:
        cells = [results.cell("load", point, server["name"])
                 for point in results.points("load")]
        rows.append([server["name"]] + [figure_cell(cell, key, show)
                                        for key, show in columns for cell in cells])
    return align(rows)


def others(results):
    idle = results.points("idle")
    rows = [["server", "start", "per conn.", "idle CPU", "MB/s", "x baseline"] +
            [f"{point:,} idle" for point in idle]]
    for server in results.servers:
        name = server["name"]
        start, each = results.start_memory(name), results.per_connection(name)
        cpu, stream = results.idle_cpu(name), results.bulk(name)
        factor = results.bulk(name, "mb_per_second_x")
        rows.append([
            name, size(start) if start else NOTHING, size(each[0]) if each else NOTHING,
            NOTHING if cpu is None else f"{100 * cpu:.2f} %",
            three(stream) if stream else NOTHING, f"{factor:.2f}" if factor else NOTHING,
            *(idle_cell(results, point, name) for point in idle)])
    return align(rows)


def idle_cell(results, point, name):
    cell = results.cell("idle", point, name)
    if not cell or "reason" in cell:
        return cell.get("reason", NOTHING)
    factor = results.idle_factor(point, name)
    return three(cell["cpu_us"]) + (f" {factor:.2f}x" if factor and point else "")


def notes(results):
    """What went wrong, where a cell has no room for it."""
    return "".join(
        f"{cell['server']}, {cell['experiment']} at {cell['point']:,}: {cell['detail']}\n"
        for cell in results.cells.values() if cell.get("detail"))


def disturbance(results):
    """The share of the time that the load client waited for its CPU, in the middle."""
    delays = sorted(cell["client_delay"] for cell in results.cells.values()
                    if cell.get("client_delay") is not None)
    return delays[len(delays) // 2] if delays else 0


def engine(raw):
    short = next(row for row in raw["engine"] if row["payload"] == 30)
    best = max(raw["engine"], key=lambda row: row["engine_gb_per_s"])
    return (f"The protocol engine alone: {three(short['engine_ns'])} ns for a message of 32 "
            f"bytes, {short['bytewise_ns'] / short['engine_ns']:.1f} x as fast as "
            f"byte by byte;\nup to {three(best['engine_gb_per_s'])} GB/s, "
            f"{best['engine_gb_per_s'] / best['bytewise_gb_per_s']:.1f} x as fast, when "
            "messages are long.")


TERMINAL = """\
{date}, {machine}

CPU of the server per message of 32 bytes in µs, closed loop, by connections:
{rounds}; and multiples of the baseline, the smallest
epoll loop there can be

{costs}

Thousands of messages a second, by connections

{rates}

Median latency, and its 99th percentile, by connections

{latencies}

Memory resident at start and for each idle connection, CPU used while 100 connections are
idle, a stream through one connection, and CPU per message in µs of 10 connections among idle
ones, also as a multiple of the cost without them

{others}

{calls}{engine}
"""
CALLS = """\
CPU of the server per message in µs, 100 connections, by what a system call costs: the first
figure is this machine's own

{}

"""
BUSY = """
The machine was busy with other things: the load client waited {:.0f} % of the time for its CPU.
"""


def terminal(raw):
    results = Results(raw)
    delay = disturbance(results)
    return TERMINAL.format(
        date=raw["date"], machine=raw["machine"],
        rounds=rounds(raw["rounds"]) + (
            ", how far apart these were" if raw["rounds"] > 1 else ""), costs=costs(results),
        rates=figures(results, ("rate", lambda rate: three(rate / 1000))),
        latencies=figures(results, ("p50_us", duration), ("p99_us", duration)),
        others=others(results), engine=engine(raw),
        calls=CALLS.format(calls(results)) if results.points("call") else "") + (
            BUSY.format(100 * delay) if delay >= MUCH else "") + notes(results)
