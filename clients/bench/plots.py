"""The results of a benchmark as pictures: SVG, drawn by gnuplot, with a key beside each,
and line and point styles that can be told apart in black and white."""

import math
import shutil
import subprocess

import tables

# One style per server, the same in all pictures: point type, dash type, colour.
STYLES = {
    "baseline": (2, 3, "#808080"), "redis PING": (3, 3, "#808080"),
    "step2": (9, 1, "#8b1a1a"), "step2/fork": (8, 2, "#8b1a1a"),
    "step4": (13, 1, "#8a6500"),
    "step5": (5, 1, "#c04000"), "step5/poll": (4, 2, "#c04000"),
    "step6": (7, 1, "#00458b"), "step6/io_uring": (6, 4, "#00458b"),
    "step7": (11, 1, "#006400"), "step8": (10, 2, "#6a0dad"),
}
NAMES = {"step2": "2 threads", "step2/fork": "2 fork", "step4": "4 polling",
         "step5": "5 select", "step5/poll": "5 poll", "step6": "6 epoll",
         "step6/io_uring": "6 io_uring", "step7": "7 libuv", "step8": "8 ae"}


class Panel:
    """One diagram. Its axes are logarithmic, except those where differences count, and not
    ratios."""

    def __init__(self, title, xlabel, lines, y_axis=None, x_axis=None):
        self.title, self.xlabel = title, xlabel
        self.lines = [(name, points) for name, points in lines if len(points) > 1]
        if self.lines:
            self.x = (x_axis or Axis)(x for _, points in self.lines for x, _ in points)
            self.y = (y_axis or Axis)((y for _, points in self.lines for _, y in points), 1.05)

    def script(self, data):
        commands = [f"set title {quoted(self.title)}", f"set xlabel {quoted(self.xlabel)}",
                    self.x.scale + " x", self.y.scale + " y",
                    f"set xrange [{self.x.low * 0.9999!r}:{self.x.high!r}]",
                    f"set yrange [{self.y.low!r}:{self.y.high!r}]",
                    f"set xtics ({self.x.tics()})", f"set ytics ({self.y.tics()})"]
        curves = []
        # The key names the lines in the order in which they end, the highest first.
        for name, points in sorted(self.lines, key=lambda line: line[1][-1][1], reverse=True):
            block = f"$line{len(data)}"
            values = "\n".join(f"{x!r} {y!r}" for x, y in points)
            data.append(f"{block} << END\n{values}\nEND")
            point, dash, colour = style(name)
            curves.append(f"{block} with linespoints pt {point} dt {dash} lc rgb '{colour}' "
                          f"lw 1.6 ps 0.8 title {quoted(NAMES.get(name, name))}")
        return "\n".join([*commands, "plot " + ", \\\n    ".join(curves)])


class Axis:
    """A logarithmic axis between round numbers."""

    scale = "set logscale"
    ROUND = [factor * 10.0 ** exponent for exponent in range(-9, 12) for factor in (1, 2, 5)]

    def __init__(self, values, margin=1.0):
        values = list(values)
        self.low = max(each for each in self.ROUND if each <= min(values) / margin)
        self.high = max(values) if margin == 1 else min(
            each for each in self.ROUND if each >= max(values) * margin)

    def tics(self):
        """Powers of ten; where those would be few, also 2 and 5 times those."""
        steps = self.ROUND if self.high / self.low < 300 else self.ROUND[::3]
        return ", ".join(f'"{each:,.10g}" {each!r}'
                         for each in steps if self.low <= each <= self.high)


class IntervalAxis(Axis):
    """A logarithmic axis with a place for zero as well."""

    ZERO = 0.5

    def tics(self):
        steps = [each for each in (1, 2, 5, 10, 20, 50, 100, 200) if each <= self.high]
        return ", ".join([f'"0" {self.ZERO!r}'] * (self.low == self.ZERO) +
                         [f'"{each}" {each}' for each in steps])


class LinearAxis:
    """An axis from zero to a round number, or to the largest value if there is no margin."""

    scale = "unset logscale"
    low = 0

    def __init__(self, values, margin=1.0):
        most = max(values) * margin
        self.step = min(each for each in Axis.ROUND if each * 6 >= most)
        self.high = most if margin == 1 else self.step * math.ceil(most / self.step)

    def tics(self):
        return ", ".join(f'"{self.step * i:,.10g}" {self.step * i!r}'
                         for i in range(math.floor(self.high / self.step + 1e-9) + 1))


def style(name):
    return STYLES.get(name, (1, 5, "#404040"))


def quoted(text):
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def curves(results, experiment, key, extra=(), without=(), scale=1.0, shift=0):
    """The lines of one picture: the steps, servers that are not ours, `extra` variants."""
    for server in results.servers:
        name = server["name"]
        if name not in without and ("/" not in name or name in extra):
            yield name, [(point + shift, value * scale)
                         for point, value in results.curve(experiment, name, key)
                         if value > 0 and point + shift > 0]


def intervals(results, key, scale):
    """The curve of step 4, by its interval."""
    return [(server["name"], [(ms or IntervalAxis.ZERO, value * scale) for ms, value
                              in results.curve("interval", server["name"], key) if value > 0])
            for server in results.servers]


def pictures(results):
    """The name of each picture, and its panels."""
    fast = ("step6/io_uring",)
    yield "latency", [
        Panel("Median latency, µs", "connections", curves(results, "load", "p50_us", fast)),
        Panel("99th percentile of latency, µs", "connections",
              curves(results, "load", "p99_us", fast))]
    yield "throughput", [
        Panel("Messages a second", "connections", curves(results, "load", "rate", fast),
              LinearAxis),
        Panel("CPU of the server per message, µs", "connections",
              curves(results, "load", "cpu_us", fast))]
    yield "idle", [
        Panel("CPU per message, µs: 10 connections are active, the others idle",
              "connections in all",
              curves(results, "idle", "cpu_us", ("step5/poll",), ("baseline",), shift=10))]
    yield "memory", [
        Panel("Resident memory of the server, MiB: all connections are idle", "connections",
              curves(results, "load", "resident_connected", ("step2/fork",), ("baseline",),
                     1 / (1 << 20)))]
    yield "calls", [
        Panel("CPU of the server per message, µs: 100 connections",
              "what a system call costs, ns", curves(results, "call", "cpu_us", fast),
              LinearAxis, LinearAxis)]
    yield "interval", [
        Panel(f"Step 4: % of a CPU, with 100 connections and {results.raw['interval_rate']} "
              "messages a second", "interval, ms",
              intervals(results, "cpu_share", 100), None, IntervalAxis),
        Panel("Step 4: median latency, ms", "interval, ms",
              intervals(results, "p50_us", 1e-3), None, IntervalAxis)]


def script(panels, path):
    data = []
    plots = [panel.script(data) for panel in panels]
    return "\n".join([
        "set encoding utf8",
        f"set terminal svg noenhanced size {720 * len(panels)},460 font 'Helvetica,14' "
        "background '#ffffff'",
        f"set output {quoted(str(path))}", "set border 3",
        "set tics nomirror", "set grid back lc rgb '#d8d8d8' lw 1",
        "set key outside right center Left reverse",
        *data, f"set multiplot layout 1,{len(panels)}", *plots, "unset multiplot", ""])


def draw(raw, folder):
    """Draws the pictures for which there are results; returns a line about them."""
    program = shutil.which("gnuplot")
    if not program:
        return "no plots: gnuplot is not installed (Debian: gnuplot-nox)"
    drawn = []
    for name, panels in pictures(tables.Results(raw)):
        path = folder / (name + ".svg")
        path.unlink(missing_ok=True)        # an earlier run may have measured other things
        panels = [panel for panel in panels if panel.lines]
        if not panels:
            continue
        run = subprocess.run([program], input=script(panels, path), encoding="utf-8",
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode:
            return "no plots: gnuplot failed: " + run.stdout.strip()
        drawn.append(path.name)
    return f"{folder}/: results.json {' '.join(drawn)}"
