#!/usr/bin/env python3
"""Draws recordings as SVG pictures for the READMEs, and names the pictures there.

    clients/replay/pictures.py              all pictures, and the READMEs' lines about them
    clients/replay/pictures.py --check      is each picture what would be drawn? writes nothing

A README shows the picture NAME in front of `<!-- picture:NAME -->`. The pictures are in the
step's folder pictures/. They follow the reader's light or dark scheme, and need no colour to be
understood. Exit status: 0, or 1 if --check finds a difference.
"""

import argparse
import math
import os
import pathlib
import re
import sys
from html import escape

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import recording as model       # noqa: E402
from recording import CLIENT, END, NAME, RESULT, START, TASK, TEXT      # noqa: E402

WIDTH, LEFT, ROW, BAR = 820, 110, 19, 11
SLEEP = 1000        # microseconds; a call that takes longer has slept
STYLE = """
text { font: 11px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1c1f23 }
.soft { fill: #5b636d } .b { font-weight: bold }
.e { text-anchor: end } .m { text-anchor: middle }
.paper { fill: #fdfdfb } .line { stroke: #d0d4d9 } .idle, .alive { fill: #7b838c }
.wait { stroke: #8a5a00; stroke-width: .7; fill: url(#h) } .h { fill: #8a5a00 }
.served { fill: #8a5a00 } .asleep { fill: #b9c4d3 } .call { fill: #b04a00 }
.open { fill: #b9c4d3; stroke: #44536a } .bit { fill: none; stroke: #5b636d }
.one { fill: #1c1f23; stroke: #1c1f23 } .ink { fill: #fdfdfb }
@media (prefers-color-scheme: dark) {
text { fill: #e6e6e3 } .soft { fill: #a5adb6 }
.paper { fill: #14171a } .line { stroke: #3a4149 }
.idle, .alive { fill: #8d959e } .wait { stroke: #e5b454 } .h { fill: #e5b454 }
.served { fill: #e5b454 } .asleep { fill: #46566b } .call { fill: #ff9d57 }
.open { fill: #46566b; stroke: #a9bbd4 } .bit { stroke: #a5adb6 }
.one { fill: #e6e6e3; stroke: #e6e6e3 } .ink { fill: #14171a } }
"""


class Picture:
    def __init__(self, title, width=WIDTH):
        self.title, self.width, self.height, self.parts = title, width, 10, []

    def text(self, x, y, words, kind=""):
        attribute = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}"{attribute}>'
                          f"{escape(words)}</text>")

    def bar(self, x1, x2, y, kind, height=BAR, title=""):
        inside = f"><title>{escape(title)}</title></rect>" if title else "/>"
        self.parts.append(f'<rect class="{kind}" x="{x1:.1f}" y="{y:.1f}" '
                          f'width="{max(x2 - x1, 1.2):.1f}" height="{height}"{inside}')

    def line(self, x1, y1, x2, y2):
        self.parts.append(f'<line class="line" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" '
                          f'y2="{y2:.1f}"/>')

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} '
                f'{self.height:.0f}" width="{self.width}" role="img">\n'
                f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style>\n"
                '<defs><pattern id="h" width="5" height="5" patternUnits="userSpaceOnUse" '
                'patternTransform="rotate(45)"><rect class="h" width="1.6" height="5"/>'
                '</pattern></defs>\n'
                f'<rect class="paper" width="{self.width}" height="{self.height:.0f}" '
                'rx="6"/>\n'
                + "\n".join(self.parts) + "\n</svg>\n")


class Axis:
    """Seconds from left to right, with marks at round times."""

    def __init__(self, picture, start, end):
        self.picture, self.start, self.end = picture, start, end
        self.scale = (WIDTH - LEFT - 15) / (end - start)

    def x(self, at):
        return LEFT + (min(max(at, self.start), self.end) - self.start) * self.scale

    def draw(self, top, bottom):
        rows, self.picture.parts = self.picture.parts, []      # the lines are behind the bars
        step = next(each for each in (1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 1e8)
                    if (self.end - self.start) / each <= 9)
        at = 0.0
        while at <= self.end:
            self.picture.line(self.x(at), top, self.x(at), bottom)
            self.picture.text(self.x(at), bottom + 12, f"{at / 1e6:g} s", "soft m")
            at += step
        self.picture.parts += rows


def client_row(picture, axis, client, y):
    """Hatched: waits for the greeting. Solid: waits for an answer. Thin: idle."""
    picture.text(LEFT - 8, y + 10, client["name"], "e")
    close, greeting = client["close"] or axis.end, client["greeting"]
    connected = client["connect"]
    if connected is None:
        return
    if client.get("greets", True):
        until = close if greeting is None else greeting
        picture.bar(axis.x(connected), axis.x(until), y, "wait", title="waits for the greeting")
        if greeting is None:
            return
    else:       # this server has no greeting
        greeting = connected
    picture.bar(axis.x(greeting), axis.x(close), y + BAR / 2 - 1, "idle", 2)
    waiting = None
    events = sorted([(send[0], 0, send[3]) for send in client["sends"]]
                    + [(receive[0], 1, receive[1]) for receive in client["receives"]])
    expected = received = 0
    for at, kind, value in events:
        expected, received = (value, received) if kind == 0 else (expected, received + value)
        if waiting is None and received < expected:
            waiting = at
        elif waiting is not None and received >= expected:
            picture.bar(axis.x(waiting), max(axis.x(at), axis.x(waiting) + 2), y, "served",
                        title="waits for an answer")
            waiting = None
    if waiting is not None:
        picture.bar(axis.x(waiting), axis.x(close), y, "served", title="waits for an answer")


def task_row(picture, axis, recording, number, name, y):
    _, _, start, end = recording["tasks"][number]
    picture.text(LEFT - 8, y + 10, name, "e")
    picture.bar(axis.x(start), axis.x(axis.end if end is None else end), y + BAR / 2 - 1,
                "alive", 2)
    for call in recording["calls"]:
        if call[TASK] != number or (call[END] or axis.end) < axis.start:
            continue
        until = axis.end if call[END] is None else call[END]
        slept = until - call[START] >= SLEEP
        x1, x2 = axis.x(call[START]), axis.x(until)
        picture.bar(x1, x2, y, "asleep" if slept else "call", title=call[NAME])
        if x2 - x1 > 7 * len(call[NAME]) + 6:
            picture.text(x1 + 3, y + 9.5, call[NAME])


def task_names(recording):
    counts, names = {}, []
    for kind, *_ in recording["tasks"]:
        counts[kind] = counts.get(kind, 0) + 1
        names.append("main" if kind == "main" else f"{kind} {counts[kind]}")
    return names


def legend(picture, y, entries):
    x = LEFT
    for kind, words in entries:
        thin = kind in ("idle", "alive")
        picture.bar(x, x + 18, y + (4 if thin else 0), kind, 2 if thin else BAR)
        picture.text(x + 23, y + 10, words, "soft")
        x += 23 + 6.7 * len(words) + 20


CLIENT_WORDS = (("wait", "waits for the greeting"), ("served", "waits for an answer"),
                ("idle", "idle"))
SERVER_WORDS = (("asleep", "a call that sleeps"), ("call", "a call that returns at once"),
                ("alive", "no call: it computes"))


def run(recording):
    """The clients, and what each thread or process of the server does meanwhile."""
    picture = Picture(f"{recording['source']}: {recording['title']}")
    last = max(client["close"] or 0 for client in recording["clients"])
    axis = Axis(picture, -0.01 * last, 1.02 * last)
    y = top = 10
    greets = any(client["greeting"] is not None for client in recording["clients"])
    for client in recording["clients"]:
        client_row(picture, axis, {**client, "greets": greets}, y)
        y += ROW
    y += 6
    for number, name in enumerate(task_names(recording)):
        task_row(picture, axis, recording, number, name, y)
        y += ROW
    axis.draw(top - 4, y)
    legend(picture, y + 22, CLIENT_WORDS)
    legend(picture, y + 40, SERVER_WORDS)
    picture.height = y + 58
    return picture.svg()


def sockets(recording):
    """The life of each descriptor, from socket() or accept() to close()."""
    picture = Picture(f"{recording['source']}: its sockets from socket() to close()")
    spans, open_now = [], {}
    for call in recording["calls"]:
        count = model.amount(call)
        if call[NAME] == "socket" and count is not None:
            open_now[count] = (call[START], "listener", "socket")
        elif call[NAME] in model.ACCEPT and count is not None and count >= 0:
            open_now[count] = (call[START] if call[END] is None else call[END],
                               recording["clients"][call[CLIENT]]["name"], "accept")
        elif call[NAME] == "close":
            number = int(re.search(r"\d+", call[TEXT])[0])
            if number in open_now:
                spans.append((number, *open_now.pop(number), call[START]))
    last = max(span[4] for span in spans)
    axis = Axis(picture, -0.02 * last, 1.02 * last)
    y = 10
    for number, start, name, call, end in sorted(spans, key=lambda span: span[1]):
        picture.text(LEFT - 8, y + 10, f"{name}: {number}", "e")
        picture.bar(axis.x(start), axis.x(end), y, "open",
                    title=f"descriptor {number}, from {call}() to close()")
        if axis.x(end) - axis.x(start) > 110:
            picture.text(axis.x(start) + 3, y + 9.5, f"{call}()")
            picture.text(axis.x(end) - 3, y + 9.5, "close()", "e")
        y += ROW
    axis.draw(6, y)
    picture.text(LEFT, y + 30, "name: number of the descriptor. A number is used again as soon "
                               "as it is free.", "soft")
    picture.height = y + 40
    return picture.svg()


def fd_set(recording):
    """The sets of one real pselect6: what the kernel gets, and what it leaves in them."""
    calls = [call for call in recording["calls"] if call[NAME] == "pselect6"
             and "(in [" in (call[RESULT] or "")]
    call = max(calls, key=lambda call: len(re.findall(r"\d+", call[TEXT])))
    inside = {int(n) for n in re.search(r"\[([\d ]*)\]", call[TEXT])[1].split()}
    out = {int(n) for n in re.search(r"in \[([\d ]*)\]", call[RESULT])[1].split()}
    names = {recording["listener"]: "listener"}
    for each in recording["calls"]:
        if each[NAME] in model.ACCEPT and each[START] < call[START] and model.amount(each) > 0:
            names[model.amount(each)] = recording["clients"][each[CLIENT]]["name"]
    picture = Picture("The read set of a pselect6 call, before it and after it")
    size, most = 40, max(inside)
    for number in range(most + 1):
        x = LEFT + number * size
        picture.text(x + size / 2, 20, str(number), "soft m")
        name = names.get(number, "wake-up" if number in inside else "")
        picture.text(x + size / 2, 34 + 11 * (number % 2), name, "m")
        for row, chosen in enumerate((inside, out)):
            y = 52 + row * 44
            picture.bar(x, x + size, y, "one" if number in chosen else "bit", 26)
            picture.text(x + size / 2, y + 17, str(int(number in chosen)),
                         "m ink" if number in chosen else "m")
    for row, words in enumerate(("given", "returned")):
        picture.text(LEFT - 8, 52 + row * 44 + 17, words, "e b")
    picture.text(LEFT, 156, f"{call[TEXT]} = {call[RESULT]}"[:100], "soft")
    picture.height = 168
    return picture.svg()


def of_demo(report):
    """The picture of a run of clients/demo.py, from what its --json writes."""
    picture = Picture("The same clients, served by each step")
    steps = [step for step in report["steps"] if step["connections"]]
    last = max((each["close"] or 0 for step in steps for each in step["connections"]),
               default=1) * 1e6
    axis = Axis(picture, -0.01 * last, 1.02 * max(last, 1))
    y = top = 10
    for step in steps:
        picture.text(8, y + 11, f"Step {step['step']}: {step['model']}", "b")
        y += ROW
        for connection in step["connections"]:
            expected, sends = 0, []
            for send in connection["sends"]:
                expected += {14: 7, 7: 3, 15: 8}.get(send["bytes"], 0)
                sends.append([send["at"] * 1e6, send["bytes"], "", expected])
            micro = {key: None if connection[key] is None else connection[key] * 1e6
                     for key in ("connect", "greeting", "close")}
            client_row(picture, axis, {
                "name": connection["name"], **micro, "sends": sends,
                "receives": [[one["at"] * 1e6, one["bytes"], ""]
                             for one in connection["receives"]]}, y)
            y += ROW - 3
        y += 8
    axis.draw(top, y)
    legend(picture, y + 22, CLIENT_WORDS)
    picture.height = y + 42
    return picture.svg()


# What the table of the top README says (`make bench` writes it).

BARS = 250


def number_of(cell):
    """The cost in a cell such as `17.6 µs (5.09x) at 900` or `1.40 KiB`: µs or bytes."""
    found = re.match(r"([\d.,]+) (µs|B|KiB|MiB)", cell)
    if not found:
        return None
    return float(found[1].replace(",", "")) * {"KiB": 1024, "MiB": 1 << 20}.get(found[2], 1)


def costs(readme):
    """Bars as long as the logarithm of the cost: one picture for two columns of the table."""
    table = re.search(r"bench:comparison begin -->\n(.*?)<!-- bench", readme, re.S)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in table.strip().splitlines()]
    machine = re.search(r"bench:machine begin -->\s*(.*?)\s*<!--", readme, re.S)
    heads, rows = rows[0], rows[2:]
    columns = [(index, head) for index, head in enumerate(heads)
               if "among" in head or "memory per" in head]
    picture = Picture("What an idle connection costs, server by server")
    for place, (index, head) in enumerate(columns):
        left = 8 + place * (WIDTH // 2)
        picture.text(left, 20, head, "b")
        values = [(row, number_of(row[index])) for row in rows]
        values = [(row, value) for row, value in values if value]
        low = min(value for _, value in values) / 1.3
        span = math.log(max(value for _, value in values) / low)
        y = 32
        for row, value in values:
            width = math.log(value / low) / span * (BARS - 80)
            picture.text(left + 84, y + 10, row[0], "e")
            picture.bar(left + 92, left + 92 + width, y, "open")
            picture.text(left + 97 + width, y + 10, row[index].split(" (")[0]
                         + (" at 900" if "at 900" in row[index] else ""))
            y += ROW
            picture.height = max(picture.height, y)
    for line, words in enumerate(("The length of a bar is the logarithm of the cost.",
                                  machine[1].split(": ")[0] + "." if machine else "")):
        picture.text(8, picture.height + 14 + 16 * line, words, "soft")
    picture.height += 42
    return picture.svg()


# name of the picture: (function, recording, the folder of its README, what it shows)
PICTURES = {
    **{f"step{server}": (run, f"{server}-five", server, "five clients and the server's calls")
       for server in "12345678"},
    "sockets": (sockets, "1-five", "1", "the life of each socket, from socket() to close()"),
    "fd_set": (fd_set, "5-five", "5", "the read set of a pselect6 call, before and after it"),
    "fork": (run, "2-fork-five", "2", "five clients, a process for each"),
    "pool": (run, "2-pool-five", "2", "five clients and the threads of the pool"),
    "edge_wrong": (run, "6-edge_wrong-edge", "6", "an edge-triggered server that reads once"),
    "edge": (run, "6-edge-edge", "6", "an edge-triggered server that reads until EAGAIN"),
    "primes": (run, "7-prime_server-mode-pool-primes", "7",
               "five large primes in a pool of four threads"),
    "block": (run, "8-slow_command-mode-block-slow-command", "8",
              "one slow command in the callback"),
    "worker": (run, "8-slow_command-mode-worker-slow-command", "8",
               "one slow command in another process"),
}
MARK = re.compile(r"(?:!\[[^\]]*\]\([^)]*\) )?<!-- picture:(\w+) -->")


def folder_of(step):
    return next(ROOT.glob(f"step{step}_*"))


def line_for(name, readme):
    if name == "costs":
        return "![What an idle connection costs](clients/replay/pictures/costs.svg)"
    _, _, step, words = PICTURES[name]
    path = folder_of(step) / "pictures" / f"{name}.svg"
    target = os.path.relpath(path, readme.parent)
    return f"![A recorded run: {words}]({target})"


def signed(svg, made):
    """The picture with a line about when and where it was recorded."""
    height = int(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])
    line = escape(f"Recorded on {made['recorded']}, {made['machine']}.")
    return svg.replace(f" {height}\"", f" {height + 16}\"").replace(
        f'height="{height}"', f'height="{height + 16}"').replace(
        "\n</svg>", f'\n<text class="soft" x="{LEFT}" y="{height + 7}">{line}</text>\n</svg>')


def outputs():
    """(path, its text) of all pictures, and of the READMEs that show them."""
    for name, (draw, source, step, _) in PICTURES.items():
        made = model.load(HERE / "recordings" / f"{source}.json")
        yield folder_of(step) / "pictures" / f"{name}.svg", signed(draw(made), made)
    top = (ROOT / "README.md").read_text(encoding="utf-8")
    if "bench:comparison begin" in top:
        yield HERE / "pictures" / "costs.svg", costs(top)
    for readme in sorted([ROOT / "README.md", *ROOT.glob("*/README.md"),
                          *ROOT.glob("*/*/README.md")]):
        text = readme.read_text(encoding="utf-8")
        if MARK.search(text):
            yield readme, MARK.sub(lambda found, readme=readme: f"{line_for(found[1], readme)} "
                                   f"<!-- picture:{found[1]} -->", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    status = 0
    for path, text in outputs():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if options.check:
            print(f"not ok  {path.relative_to(ROOT)}: clients/replay/pictures.py draws another")
            status = 1
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    return status


if __name__ == "__main__":
    sys.exit(main())
