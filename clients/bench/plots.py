"""The results of a benchmark as pictures: SVG, drawn by gnuplot, with the name of each line at
its end, and line and point styles that stay apart in black and white."""

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
GAP = 0.055         # between two names, as a share of the picture's height


class Panel:
    """One diagram: lines, and where their names go. Its axes are logarithmic, but for those
    where what counts is how much, not how many times as much."""

    def __init__(self, title, xlabel, lines, y_axis=None, x_axis=None):
        self.title, self.xlabel = title, xlabel
        self.lines = [(name, points) for name, points in lines if len(points) > 1]
        if self.lines:
            self.x = (x_axis or Axis)(x for _, points in self.lines for x, _ in points)
            self.y = (y_axis or Axis)((y for _, points in self.lines for _, y in points), 1.05)

    def labels(self):
        """The name of each line: beside the picture, as high as the line ends but not too near
        the next name; of one that ends early, below its end, or above if it is the highest."""
        ends = sorted((self.y.share(points[-1][1]), points[-1], name)
                      for name, points in self.lines)
        early = [(end, name) for _, end, name in ends if self.x.share(end[0]) < 0.99]
        late = [(height, name) for height, end, name in ends if self.x.share(end[0]) >= 0.99]
        for (x, y), name in early:
            highest = all(dict(points).get(x, y) <= y for _, points in self.lines)
            yield name, f"first {x!r}, first {y!r} offset character 0.6, character {0.8 if highest else -0.8}"
        heights = spread_out([height for height, _ in late])
        for (_, name), height in zip(late, heights):
            yield name, f"graph 1.02, graph {height:.4f}"

    def script(self, data):
        commands = ["unset label", f"set title {quoted(self.title)}",
                    f"set xlabel {quoted(self.xlabel)}",
                    self.x.scale + " x", self.y.scale + " y",
                    f"set xrange [{self.x.low * 0.9999!r}:{self.x.high!r}]",
                    f"set yrange [{self.y.low!r}:{self.y.high!r}]",
                    f"set xtics ({self.x.tics()})", f"set ytics ({self.y.tics()})"]
        commands += [f"set label {quoted(NAMES.get(name, name))} at {place} left textcolor "
                     f"rgb '{style(name)[2]}'"
                     for name, place in self.labels()]
        parts = []
        for name, points in self.lines:
            block = f"$line{len(data)}"
            data.append("%s << END\n%s\nEND" % (
                block, "\n".join("%r %r" % pair for pair in points)))
            parts.append("%s with linespoints pt %d dt %d lc rgb '%s' lw 1.6 ps 0.8 notitle"
                         % (block, *style(name)))
        return "\n".join([*commands, "plot " + ", \\\n    ".join(parts)])


class Axis:
    """A logarithmic axis between round numbers."""

    scale = "set logscale"
    ROUND = [factor * 10.0 ** exponent for exponent in range(-9, 12) for factor in (1, 2, 5)]

    def __init__(self, values, margin=1.0):
        values = list(values)
        self.low = max(each for each in self.ROUND if each <= min(values) / margin)
        self.high = max(values) if margin == 1 else min(
            each for each in self.ROUND if each >= max(values) * margin)

    def share(self, value):
        """Where a value stands: 0 at the low end, 1 at the high."""
        return math.log(value / self.low) / math.log(self.high / self.low)

    def tics(self):
        """Powers of ten; where those would be few, also 2 and 5 times those."""
        steps = self.ROUND if self.high / self.low < 300 else self.ROUND[::3]
        return ", ".join(f'"{"{:,.10g}".format(each)}" {each!r}'
                         for each in steps if self.low <= each <= self.high)


class NapAxis(Axis):
    """A logarithmic axis with a place for nought as well."""

    NOUGHT = 0.5

    def tics(self):
        steps = [each for each in (1, 2, 5, 10, 20, 50, 100, 200) if each <= self.high]
        return ", ".join([f'"0" {self.NOUGHT!r}'] * (self.low == self.NOUGHT) +
                         [f'"{each}" {each}' for each in steps])


class LinearAxis:
    """An axis from nought, to a round number unless there is to be no margin."""

    scale = "unset logscale"
    low = 0

    def __init__(self, values, margin=1.0):
        most = max(values) * margin
        self.step = min(each for each in Axis.ROUND if each * 6 >= most)
        self.high = most if margin == 1 else self.step * math.ceil(most / self.step)

    def share(self, value):
        return value / self.high

    def tics(self):
        return ", ".join(f'"{"{:,.10g}".format(self.step * i)}" {self.step * i!r}'
                         for i in range(math.floor(self.high / self.step + 1e-9) + 1))


def style(name):
    return STYLES.get(name, (1, 5, "#404040"))


def quoted(text):
    return "'%s'" % text.replace("'", "''")


def spread_out(heights):
    """Pushes sorted heights apart to at least GAP, as little as possible, and stays within 0
    and 1."""
    placed = list(heights)
    for _ in range(500):
        for i in range(len(placed) - 1):
            lack = GAP - (placed[i + 1] - placed[i])
            if lack > 0:
                placed[i] -= lack / 2
                placed[i + 1] += lack / 2
    room = 1 - GAP * (len(placed) - 1)
    return [min(max(height, GAP * i), room + GAP * i) for i, height in enumerate(placed)]


def curves(results, experiment, key, extra=(), without=(), scale=1.0, shift=0):
    """The lines of one picture: steps, what is no step of ours, `extra` variants."""
    for server in results.servers:
        name = server["name"]
        if name not in without and ("/" not in name or name in extra):
            yield name, [(point + shift, value * scale)
                         for point, value in results.curve(experiment, name, key)
                         if value > 0 and point + shift > 0]


def naps(results, key, scale):
    """The curve of step 4, by its nap."""
    return [(server["name"], [(nap or NapAxis.NOUGHT, value * scale) for nap, value
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
        Panel("CPU per message, µs: 10 connections talk, the others are silent",
              "connections in all",
              curves(results, "idle", "cpu_us", ("step5/poll",), ("baseline",), shift=10))]
    yield "memory", [
        Panel("Resident memory of the server, MiB: all connections are silent", "connections",
              curves(results, "load", "resident_connected", ("step2/fork",), ("baseline",),
                     1 / (1 << 20)))]
    yield "calls", [
        Panel("CPU of the server per message, µs: 100 connections",
              "what a system call costs, ns", curves(results, "call", "cpu_us", fast),
              LinearAxis, LinearAxis)]
    yield "interval", [
        Panel(f"Step 4: % of a CPU, with 100 connections and {results.raw['interval_rate']} "
              "messages a second", "nap, ms",
              naps(results, "cpu_share", 100), None, NapAxis),
        Panel("Step 4: median latency, ms", "nap, ms",
              naps(results, "p50_us", 1e-3), None, NapAxis)]


def script(panels, path):
    data = []
    plots = [panel.script(data) for panel in panels]
    return "\n".join([
        "set encoding utf8",
        f"set terminal svg noenhanced size {720 * len(panels)},460 font 'Helvetica,14' "
        "background '#ffffff'",
        f"set output {quoted(str(path))}", "set border 3",
        "set tics nomirror", "set grid back lc rgb '#d8d8d8' lw 1", "set rmargin 19",
        *data, f"set multiplot layout 1,{len(panels)}", *plots, "unset multiplot", ""])


def draw(raw, folder):
    """Draws what there is data for; says, in a line, what became of it."""
    program = shutil.which("gnuplot")
    if not program:
        return "no plots: gnuplot is not installed (Debian: gnuplot-nox)"
    drawn = []
    for name, panels in pictures(tables.Results(raw)):
        path = folder / (name + ".svg")
        path.unlink(missing_ok=True)        # of an earlier run, which measured other things
        panels = [panel for panel in panels if panel.lines]
        if not panels:
            continue
        run = subprocess.run([program], input=script(panels, path), encoding="utf-8",
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode:
            return "no plots: gnuplot failed: " + run.stdout.strip()
        drawn.append(path.name)
    return f"{folder}/: results.json {' '.join(drawn)}"
