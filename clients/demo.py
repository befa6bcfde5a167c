#!/usr/bin/env python3
"""The same clients against every step's server, one step after another, drawn as they run.

For each step: start its server on a free port, let simple-client's connections talk to it,
draw one row per connection, stop the server. At the end a table compares the steps. All
figures come from this run: times from the clients, costs from the server's --stats.

Exit status: 0 if every server answered correctly and stopped when asked to, 1 if one did not,
2 for a wrong command line, 128 + the signal's number (130 for Ctrl-C) if stopped.
"""

import argparse
import collections
import errno
import importlib.util
import itertools
import json
import math
import os
import re
import signal
import statistics
import sys
import tempfile
import textwrap
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))     # also with PYTHONSAFEPATH

from lib import reports, tree                       # noqa: E402
from lib.processes import (                         # noqa: E402
    OUTPUT_LIMIT, POLL, Process, Trouble, end_all, lacking)
from lib.servers import START_SECONDS, listening_at  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
STOP_SECONDS = 2
DYING_SECONDS = 0.3
FRAME_SECONDS = 1 / 15
NARROWEST = 60      # columns; on a narrower terminal the picture is drawn once, at its end
NO_BREAK = "\u00a0"  # a space at which no line is broken


def load_simple_client():
    """Load simple-client.py as a module: the name of the file is no name for import."""
    spec = importlib.util.spec_from_file_location("simple_client",
                                                  os.path.join(HERE, "simple-client.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


simple_client = load_simple_client()


class Interrupt:
    """Remembers the first signal that asks us to stop. The waits for a server's start and for
    the clients look here often; the wait for a server's end is short.

    An exception from the signal handler could strike after a server was started and before we
    know its pid, and so leave the server running.
    """

    signal = None

    @classmethod
    def catch(cls):
        def remember(number, _):
            cls.signal = cls.signal or number

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, remember)


# Which servers there are.

Step = collections.namedtuple("Step", "label program source")


def find_steps(root, numbers, variants):
    """The servers under root in the order of the course, each step's variants behind it."""
    os.listdir(root)    # raises an error if there is no such folder
    return [Step(f"{each.step}/{each.variant}" if each.variant else str(each.step),
                 str(each.path), str(each.source))
            for each in tree.servers(root, numbers) if variants or not each.variant]


def read_heading(step):
    """The model and what it asks, from the first line of the source."""
    try:
        with open(step.source, encoding="utf-8", errors="replace") as file:
            line = file.readline()
    except OSError:
        line = ""
    match = re.match(r"/\*+\s*(.+?) - (.+?)(?:: (.+?))?\.?\s*(?:\*/)?\s*$", line)
    if match:
        return match[2], match[3] or ""
    return os.path.basename(os.path.dirname(step.program)), ""


# One server.

class Server(Process):
    """A server, with all that it starts."""

    def __init__(self, program, stats):
        self.address = None
        try:
            super().__init__([program, "--stats", stats, "0"])
        except OSError as error:
            raise Trouble(f"cannot start {program}: {error.strerror}") from error

    def wait_until_listening(self):
        """Sets `address`, unless a signal asks us to stop before the server listens."""
        deadline = time.monotonic() + START_SECONDS
        while not Interrupt.signal:
            ended = self.poll() is not None     # asked first: the line may come just before
            self.address = listening_at(self)
            if self.address:
                return
            if ended:
                raise Trouble(f"the server {self.how_it_ended()} before it listened")
            if time.monotonic() > deadline:
                raise Trouble(f"the server did not say where it listens in {START_SECONDS} s")
            time.sleep(POLL)

    def stop(self, dying_seconds):
        """Stop the server, by force if necessary.

        It is trouble if force is necessary, if the server exits with an error, or if it ends by
        itself within dying_seconds: its clients notice a crash before its parent does.
        """
        died = self.wait(dying_seconds) is not None
        self.send_signal(signal.SIGTERM)
        stopped = self.wait(STOP_SECONDS) is not None
        self.end()
        if not stopped:
            raise Trouble(f"the server did not stop within {STOP_SECONDS} s of SIGTERM")
        if died or self.poll():
            raise Trouble(f"the server {self.how_it_ended()} "
                          + ("in mid-run" if died else "when it was asked to stop"))

    def how_it_ended(self):
        status = self.poll()
        if self.flooded:
            return f"printed more than {OUTPUT_LIMIT >> 20} MiB"
        if status < 0:
            return f"was killed by signal {-status} ({signal.strsignal(-status)})"
        return f"exited with status {status}"


# One run: a server, the clients, and the result.

class Run:
    """What happened to one step; `connections` may be read while the clients run."""

    def __init__(self, step):
        self.step = step
        self.model, self.motto = read_heading(step)
        self.connections = []
        self.troubles, self.last_words = [], []
        self.stats = {}

    def go(self, clients, scale, watch):
        with tempfile.TemporaryDirectory() as folder:
            stats = os.path.join(folder, "stats.json")
            try:
                server = Server(self.step.program, stats)
            except Trouble as trouble:
                self.troubles.append(str(trouble))
                return
            try:
                server.wait_until_listening()
                if not Interrupt.signal:
                    self.run_clients(server.address, clients, scale, watch)
            except Trouble as trouble:
                self.troubles.append(str(trouble))
            finally:
                self.stop(server)
            self.read_stats(stats)

    def run_clients(self, address, clients, scale, watch):
        timeout = simple_client.default_timeout(clients, scale)
        self.connections = simple_client.make_connections(clients, *address, scale, timeout)
        simple_client.start(self.connections)
        for connection in self.connections:
            while connection.is_alive():
                if Interrupt.signal:
                    return
                watch(self)
                connection.join(FRAME_SECONDS)
        failed = [each for each in self.connections if each.failure]
        if failed:
            raise Trouble(f"{len(failed)} of {clients} clients failed; "
                          f"{failed[0].name}: {failed[0].failure}")

    def stop(self, server):
        try:
            server.stop(DYING_SECONDS if self.troubles else 0)
        except Trouble as trouble:
            if server.address:
                self.troubles.append(str(trouble))
        if self.troubles:
            self.last_words = reports.lines(server.output())[-5:]
        server.output_file.close()

    def read_stats(self, path):
        try:
            with open(path) as file:
                self.stats = json.load(file)
        except (OSError, ValueError):
            pass  # a server of your own need not count its costs

    # The figures of the run, in seconds, all from the clients' timestamps.

    @property
    def elapsed(self):
        return max(each.closed or each.now() for each in self.connections)

    @property
    def longest_wait(self):
        """For the greeting."""
        return max(each.greeted or each.closed or each.now() for each in self.connections)

    @property
    def longest_answer(self):
        return max((end - start for each in self.connections
                    for start, end in waits(each, self.elapsed)[1:]), default=0)

    @property
    def service(self):
        """How long a client was served on average, from its greeting to its end."""
        times = [each.closed - each.greeted for each in self.connections]
        return sum(times) / len(times)

    @property
    def at_once(self):
        """The most clients that were between greeting and disconnecting at the same time."""
        changes = sorted(change for each in self.connections if each.greeted
                         for change in ((each.greeted, 1),
                                        (each.disconnecting or each.closed or math.inf, -1)))
        return max(itertools.accumulate(change for _, change in changes), default=0)


def waits(connection, now):
    """The spans in which this client waited for the server, in their order.

    First for the greeting, then for the answer to each message, at last for the close.
    """
    end = connection.closed or now
    arrivals, received, expected = [], 0, 0
    for at, data in list(connection.receives):
        received += len(data)
        arrivals.append((at, received))
    spans = [(0, connection.greeted or end)]
    for (start, _), (_, answer, _) in zip(list(connection.sends), simple_client.SCRIPT):
        expected += len(answer)
        spans.append((start, next((at for at, total in arrivals if total >= expected), end)))
    if connection.disconnecting:
        spans.append((connection.disconnecting, end))
    return spans


# The picture.

WAITING, SERVED, IDLE, FAILED = range(4)
MEANING = {WAITING: "waiting for the server", SERVED: "being served",
           IDLE: "idle between messages"}


class Screen:
    """Standard output: a terminal that is drawn on, or a file that gets each line once."""

    def __init__(self, colour):
        self.terminal = sys.stdout.isatty()
        self.live = self.terminal and os.environ.get("TERM", "dumb") != "dumb"
        self.colour = self.live and colour and not os.environ.get("NO_COLOR")
        unicode = speaks_unicode()
        self.glyphs = "\u2591\u2588\u2500X" if unicode else ".#-X"
        self.line, self.tick = "\u2500\u252c" if unicode else "-+"
        self.drawn = 0  # how many lines of the picture may still be redrawn

    @property
    def size(self):
        """Columns and lines, asked again for each frame: the window may change."""
        columns, lines = os.get_terminal_size(sys.stdout.fileno()) if self.terminal else (0, 0)
        return max(NARROWEST, min(columns or 80, 160)), lines or 50

    @property
    def too_narrow(self):
        return self.live and 0 < os.get_terminal_size(sys.stdout.fileno()).columns < NARROWEST

    def paint(self, text, code):
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def bold(self, text):
        return self.paint(text, "1")

    def alarm(self, text):
        return self.paint(text, "1;31")

    def cells(self, states):
        """The characters for a row of states; None is an empty cell."""
        codes = {WAITING: "33", SERVED: "1;32", IDLE: "36", FAILED: "1;31"}
        row = ""
        for state, group in itertools.groupby(states):
            length = len(list(group))
            row += (" " * length if state is None
                    else self.paint(self.glyphs[state] * length, codes[state]))
        return row

    def print(self, *lines):
        print(*lines, sep="\n", flush=True)

    def draw(self, lines, last=False):
        """Draw over the lines drawn before, in one write so that nothing flickers."""
        if not self.live or (self.too_narrow and not self.drawn):
            if last:
                self.print(*lines)
            return
        back = f"\x1b[{self.drawn}A" if self.drawn else ""
        sys.stdout.write(back + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
        sys.stdout.flush()
        self.drawn = 0 if last else len(lines)

    def show_cursor(self, visible):
        if self.live:
            sys.stdout.write("\x1b[?25h" if visible else "\x1b[?25l")
            sys.stdout.flush()


def speaks_unicode():
    """Whether both Python and the locale that the user chose mean UTF-8.

    In the plain C locale Python sets LC_CTYPE to a UTF-8 locale by itself. The user's terminal
    may not support that.
    """
    environment = dict(os.environ)
    if environment.get("LC_CTYPE") == "C.UTF-8" and not environment.get("LC_ALL"):
        del environment["LC_CTYPE"]
    locale = next((environment[name] for name in ("LC_ALL", "LC_CTYPE", "LANG")
                   if environment.get(name)), "C")
    return all("utf8" in name.lower().replace("-", "")
               for name in (locale, sys.stdout.encoding))


def timeline(connection, now, width, horizon):
    """The state of the connection in each of the `width` cells from 0 to the horizon.

    An answer that takes less than a cell is one cell of being served. One that takes longer is
    a wait, with one cell of being served at its end.
    """
    cells = [None] * width
    end = connection.closed or now

    def fill(start, end, state):
        first, last = (min(width - 1, int(at / horizon * width)) for at in (start, end))
        cells[first:last + 1] = [state] * (last + 1 - first)

    if connection.greeted:
        fill(connection.greeted, end, IDLE)
    spans = waits(connection, now)
    for start, until in spans:
        fill(start, until, SERVED if until - start < horizon / width else WAITING)
    for _, until in spans:
        if until < end or connection.closed:
            fill(until, until, SERVED)
    if connection.failure:
        fill(end, end, FAILED)
    return cells


def ruler(screen, width, horizon):
    """The time axis: a line with ticks at round times, and the times under it."""
    step = next(nice for nice in (digit * 10.0 ** power for power in range(-3, 6)
                                  for digit in (1, 2, 5)) if width * nice / horizon >= 10)
    line, labels = list(screen.line * width), ""
    for count in range(int(horizon / step) + 1):
        at = int(count * step / horizon * width)
        label = f"{count * step:g}"
        if at < width and at + len(label) <= width:
            line[at] = screen.tick
            labels = labels.ljust(at) + label
    return "".join(line), labels + " s"


def pauses(scale):
    """How long the pauses are, so that nobody compares times of different scales."""
    if scale in (0, 1):
        return "no pauses" if scale == 0 else "pauses at full length"
    parts = round(1 / scale)
    if parts > 1 and abs(parts * scale - 1) < 1e-9:
        return f"pauses at 1/{parts} of their length"
    return f"pauses at {scale:g} times their length"


def wrap(text, width):
    """Lines that are narrower than the screen; NO_BREAK holds words together."""
    return [line.replace(NO_BREAK, " ") for line in textwrap.wrap(text, width - 3)]


def legend(screen, width, scale):
    """Lines of (what to show, how wide it is), no wider than the width."""
    items = [(f"{screen.cells([state])} {meaning}", len(meaning) + 2)
             for state, meaning in MEANING.items()]
    items.append((pauses(scale), len(pauses(scale))))
    lines, room = [], 0
    for text, length in items:
        if length + 3 > room:
            lines.append(text)
            room = width - length
        else:
            lines[-1] += "   " + text
            room -= length + 3
    return lines


def picture(screen, run, scale):
    """The rows, the axis, the legend and the figures, as wide as the screen."""
    width, height = screen.size
    rows = run.connections
    name_width = max(len(each.name) for each in rows)
    columns = width - name_width - 21
    turn = simple_client.PAUSES * scale
    horizon = max(1.05 * turn * min(len(rows), 6), 1.02 * run.elapsed, 0.01)
    margin = " " * (name_width + 3)
    below = [margin + line for line in ruler(screen, columns, horizon)]
    below += [margin + line for line in legend(screen, width - len(margin) - 1, scale)]
    below += ["  " + screen.bold(line) for line in wrap(
        f"{run.elapsed:.3f} s in all, {run.at_once} of {len(rows)} served at once, "
        f"longest wait for the greeting {run.longest_wait:.3f} s", width)]
    room = height - len(below) - 3     # the heading, the line of progress, the cursor
    shown = rows if len(rows) <= room else rows[:max(1, room - 1)]
    lines = []
    for each in shown:
        word, until = (("failed", each.closed) if each.failure else ("waited", each.greeted)
                       if each.greeted else ("waits", each.now()))
        lines.append(f"  {each.name:<{name_width}} "
                     + screen.cells(timeline(each, each.now(), columns, horizon))
                     + f"  {word:<6} {until or each.now():6.3f} s")
    if len(shown) < len(rows):
        lines.append(f"  ... and {len(rows) - len(shown)} more")
    return lines + below


# The summary.

HEADS = (("step", ""), ("model", ""), ("elapsed", "s"), ("longest", "wait, s"),
         ("served", "at once"), ("threads", ""), ("CPU", "ms"), ("memory", "MiB"))


def table(screen, runs):
    """One line per step: as many columns as fit, and a bar for the time if there is room."""
    rows = [*zip(*HEADS), *([run.step.label, run.model, *figures(run)] for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    while sum(widths) + 2 * len(widths) > screen.size[0] - 1 and len(widths) > 3:
        widths.pop()
    room = screen.size[0] - sum(widths) - 2 * len(widths)
    lines = ["  ".join(cell.ljust(width) if column < 2 else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths)))
             for row in rows]
    slowest = max((run.elapsed for run in runs if run.connections), default=1)
    for index, run in enumerate(runs, 2):
        if run.troubles:
            lines[index] = screen.alarm(lines[index])
        elif room > 15:
            bar = [SERVED] * math.ceil(run.elapsed / slowest * (room - 4))
            lines[index] += "   " + screen.cells(bar)
    return ["  " + line for line in [*map(screen.bold, lines[:2]), *lines[2:]]]


def figures(run):
    """The cells of the table that are numbers, in the order of HEADS."""
    cells = ["-"] * 6
    if run.connections:
        cells[:3] = f"{run.elapsed:.3f}", f"{run.longest_wait:.3f}", str(run.at_once)
    if run.troubles:
        cells[0] = "FAILED"
    if "threads_max" in run.stats:
        cells[3] = str(run.stats["threads_max"])
    if "cpu_user_seconds" in run.stats:
        seconds = run.stats["cpu_user_seconds"] + run.stats["cpu_system_seconds"]
        cells[4] = f"{seconds * 1000:.1f}"
    if "peak_rss_bytes" in run.stats:
        cells[5] = f"{run.stats['peak_rss_bytes'] / 2**20:.1f}"
    return cells


def steps_named(runs):
    """Step 2 / Steps 1 and 3 / Steps 2, 4 and 5."""
    labels = [run.step.label for run in runs]
    if len(labels) == 1:
        return f"Step {labels[0]}"
    return f"Steps {', '.join(labels[:-1])} and {labels[-1]}"


def between(seconds):
    """0.44 s / 0.44 to 0.83 s."""
    low, high = f"{min(seconds):.2f}", f"{max(seconds):.2f}"
    return (low if low == high else f"{low} to {high}") + f"{NO_BREAK}s"


def remarks(runs):
    """What the table shows, in sentences."""
    good = [run for run in runs if not run.troubles]
    clients = len(good[0].connections) if good else 0
    if clients < 2:
        return ["One client alone does not show how the models differ."] if good else []
    said = []
    for at_once in sorted({run.at_once for run in good}):
        group = [run for run in good if run.at_once == at_once]
        service = sum(run.service for run in group) / len(group)
        if at_once == 1:
            said.append(f"{steps_named(group)} served one client after another: {clients} x "
                        f"{service:.2f} s = {clients * service:.2f}{NO_BREAK}s. "
                        f"The last client waited "
                        f"{between([run.longest_wait for run in group])} for its greeting.")
        else:
            elapsed = between([run.elapsed for run in group])
            said.append(f"{steps_named(group)} served {at_once} clients at once: all "
                        f"{clients} were done after {elapsed}.")
    usual = statistics.median_low(run.longest_answer for run in good)
    late = [run for run in good if run.longest_answer > max(0.02, 5 * usual)]
    if late:
        others = max(run.longest_answer for run in good if run not in late)
        said.append(f"{steps_named(late)} let a client wait up to "
                    f"{between([run.longest_answer for run in late])} for one answer, "
                    f"the others at most {others:.3f}{NO_BREAK}s.")
    threads = [run.stats.get("threads_max", 1) for run in good]
    for run, count in zip(good, threads):
        if count > min(threads):
            said.append(f"{steps_named([run])} used {count} threads for {clients} clients, "
                        f"others {min(threads)}.")
    return said


def numbers(text):
    """An argparse type: step numbers like 1,2,6; nothing stands for all."""
    words = [word for word in re.split(r"[,\s]+", text.strip()) if word]
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"expected step numbers such as 1,2,6, not {text!r}")
    return set(map(int, words))


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description="Run the same clients against the server of every step and draw what "
                    "happens.")
    parser.add_argument("--clients", type=simple_client.number(int, 1, 1000), default=5,
                        metavar="N", help="how many clients at the same time (default 5)")
    parser.add_argument("--scale", type=simple_client.number(float, 0, 100), default=0.2,
                        metavar="X", help="multiply the clients' pauses by X (default 0.2; 1 "
                                          "to show it to a class)")
    parser.add_argument("--steps", type=numbers, default=set(), metavar="1,2,6",
                        help="only these steps (default: all)")
    parser.add_argument("--variants", action="store_true",
                        help="also run those variants of the steps that are built")
    parser.add_argument("--no-color", action="store_true",
                        help="no colours (there are none either if NO_COLOR is set, or in a "
                             "file)")
    parser.add_argument("--json", metavar="FILE", help="write all figures and timestamps")
    parser.add_argument("--svg", metavar="FILE", help="draw this run as a picture (SVG)")
    parser.add_argument("root", metavar="ROOT", nargs="?", default=os.path.dirname(HERE),
                        help="the folder with the steps (default: the one that holds clients/)")
    return parser.parse_args(arguments)


def show(screen, run, options, progress):
    """Run one step under its heading; the picture is live on a terminal, else drawn once."""
    def watch(run):
        screen.draw([*picture(screen, run, options.scale), f"  {progress}"])

    title = f"Step {run.step.label} - {run.model}" + (f": {run.motto}" if run.motto else "")
    screen.print(*map(screen.bold, wrap(title, screen.size[0])))
    run.go(options.clients, options.scale, watch)
    if run.connections:
        screen.draw(picture(screen, run, options.scale), last=True)
    for trouble in run.troubles:
        screen.print("  " + screen.alarm(f"FAILED: {trouble}"))
    for line in run.last_words:
        screen.print(f"    | {line[:screen.size[0] - 7]}")
    screen.print("")


def summary(screen, runs):
    screen.print(*table(screen, runs), "")
    for remark in remarks(runs):
        for line in wrap(remark, screen.size[0]):
            screen.print("  " + line)
    failed = [run for run in runs if run.troubles]
    if failed:
        screen.print("  " + screen.alarm(f"{steps_named(failed)} FAILED: see above."))


def report_of(options, runs):
    return {"clients": options.clients, "scale": options.scale, "steps": [
        {"step": run.step.label, "model": run.model, "motto": run.motto,
         "troubles": run.troubles, "last_words": run.last_words, "stats": run.stats,
         **({"elapsed": run.elapsed, "longest_wait": run.longest_wait, "at_once": run.at_once,
             "longest_answer": run.longest_answer} if run.connections else {}),
         "connections": [each.report() for each in run.connections]}
        for run in runs]}


def write_json(file, report):
    with file:
        json.dump(report, file, indent=1)
        file.write("\n")


def write_svg(file, report):
    sys.path.insert(0, os.path.join(HERE, "replay"))
    import pictures     # only here: without --svg the demo needs nothing from replay/
    with file:
        file.write(pictures.of_demo(report))


def main(arguments=None):
    options = parse_arguments(arguments)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stdout.reconfigure(errors="replace")
    Interrupt.catch()
    try:
        steps = find_steps(options.root, options.steps, options.variants)
    except OSError as error:
        sys.exit(f"demo: cannot read {options.root}: {error.strerror}")
    missing = options.steps - {int(step.label.split("/")[0]) for step in steps}
    if missing or not steps:
        print(f"demo: no step {', '.join(map(str, sorted(missing)))} in {options.root}",
              file=sys.stderr)
        return 2
    outputs = []
    for path, write in (options.json, write_json), (options.svg, write_svg):
        try:
            if path:
                outputs.append((open(path, "w", encoding="utf-8"), write))
        except OSError as error:    # better now than after all steps
            sys.exit(f"demo: cannot write {path}: {error.strerror}")
    screen = Screen(not options.no_color)
    screen.show_cursor(False)
    runs = []
    try:
        for number, step in enumerate(steps, 1):
            runs.append(Run(step))
            show(screen, runs[-1], options, f"server {number} of {len(steps)}")
            if Interrupt.signal:
                screen.print("demo: interrupted")
                return 128 + Interrupt.signal
        summary(screen, runs)
    finally:
        screen.show_cursor(True)
    for file, write in outputs:
        try:
            write(file, report_of(options, runs))
        except OSError as error:
            sys.exit(f"demo: cannot write {file.name}: {error.strerror}")
    return 1 if any(run.troubles for run in runs) else 0


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except Exception as error:
        if lacking(error):
            print(f"demo: {lacking(error)}", file=sys.stderr)
        elif getattr(error, "errno", None) not in (errno.EPIPE, errno.EIO):
            raise   # and those two are a closed pipe, a closed terminal
        status = 128 + Interrupt.signal if Interrupt.signal else 1
    finally:
        end_all()
    os._exit(status)
