#!/usr/bin/env python3
"""Draws recordings as SVG pictures for the READMEs, and names the pictures there.

    clients/replay/pictures.py              all pictures, and the READMEs' lines about them
    clients/replay/pictures.py --check      is each picture what would be drawn? writes nothing

A README shows the picture NAME in front of `<!-- picture:NAME -->`. The pictures are in the
step's folder pictures/. They follow the reader's light or dark scheme, and need no colour to be
understood. Exit status: 0, or 1 if --check finds a difference.
"""

import argparse
import datetime
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

WIDTH, LEFT, ROW, BAR = 820, 160, 21, 13
LETTER = 7.3        # the width of a letter
SLEEPS = "nanosleep", "clock_nanosleep"
STYLE = """
text { font: 12px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1c1f23 }
.soft { fill: #5b636d } .b, .c, .k, .s { font-weight: bold }
.c { fill: #8a5a00 } .k { fill: #19714a } .s { fill: #0b57a4 }
.curve { fill: none; stroke: #44536a; stroke-width: 1.6 }
.point { fill: #44536a; stroke: #44536a }
.e { text-anchor: end } .m { text-anchor: middle }
.paper { fill: #fdfdfb } .line { stroke: #d0d4d9 } .idle, .alive { fill: #7b838c }
.wait { stroke: #8a5a00; stroke-width: .7; fill: url(#h) } .h { fill: #8a5a00 }
.served { fill: #8a5a00 } .asleep { fill: #bccbe0 } .call { fill: #0b57a4 }
.open { fill: none; stroke: #5b636d } .level { fill: #19714a }
.cost { fill: #bccbe0; stroke: #44536a }
.bit { fill: none; stroke: #5b636d } .one { fill: #1c1f23; stroke: #1c1f23 }
.ink { fill: #fdfdfb }
@media (prefers-color-scheme: dark) {
text { fill: #e6e6e3 } .soft { fill: #a5adb6 }
.c { fill: #e5b454 } .k { fill: #62c98d } .s { fill: #7db8f5 }
.paper { fill: #14171a } .line { stroke: #3a4149 }
.idle, .alive { fill: #8d959e } .wait { stroke: #e5b454 } .h { fill: #e5b454 }
.served { fill: #e5b454 } .asleep { fill: #3f546f } .call { fill: #7db8f5 }
.open { stroke: #a5adb6 } .level { fill: #62c98d } .cost { fill: #3f546f; stroke: #a9bbd4 }
.curve { stroke: #a9bbd4 } .point { fill: #a9bbd4; stroke: #a9bbd4 }
.bit { stroke: #a5adb6 } .one { fill: #e6e6e3; stroke: #e6e6e3 } .ink { fill: #14171a } }
"""


DASHES = ("", "7 3", "2 3", "8 3 2 3", "4 2", "12 4")


def mark(kind, x, y):
    """A mark of 7 pixels: square, triangle, diamond, triangle, cross, disc."""
    shapes = (f"M{x - 3.5:.1f} {y - 3.5:.1f}h7v7h-7z", f"M{x:.1f} {y - 4:.1f}l4 7h-8z",
              f"M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
              f"M{x:.1f} {y + 4:.1f}l4 -7h-8z", f"M{x - 4:.1f} {y:.1f}h8M{x:.1f} {y - 4:.1f}v8",
              f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0")
    return shapes[kind % len(shapes)]


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

    def curve(self, points, number, kind=""):
        """A line with points; number chooses its dashes and marks, so nobody needs colours."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        kind = f" {kind}" if kind else ""
        self.parts.append(f'<polyline class="curve{kind}" points="{path}" '
                          f'stroke-dasharray="{DASHES[number % len(DASHES)]}"/>')
        self.parts += [f'<path class="point{kind}" d="{mark(number, x, y)}"/>'
                       for x, y in points]

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
            self.picture.text(self.x(at), bottom + 13, f"{at / 1e6:g} s", "soft m")
            at += step
        self.picture.parts += rows


def client_row(picture, axis, client, y):
    """Hatched: waits for the greeting. Solid: waits for an answer. Thin: idle."""
    picture.text(LEFT - 8, y + 11, client["name"], "e")
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
    picture.text(LEFT - 8, y + 11, name, "e")
    picture.bar(axis.x(start), axis.x(axis.end if end is None else end), y + BAR / 2 - 1,
                "alive", 2)
    for call in recording["calls"]:
        if call[TASK] != number or (call[END] or axis.end) < axis.start:
            continue
        until = axis.end if call[END] is None else call[END]
        x1, x2 = axis.x(call[START]), axis.x(until)
        picture.bar(x1, x2, y, "asleep" if model.has_slept(call) else "call", title=call[NAME])
        if x2 - x1 > LETTER * len(call[NAME]) + 6:
            picture.text(x1 + 3, y + 10.5, call[NAME])


def task_names(recording):
    counts, names = {}, []
    for kind, *_ in recording["tasks"]:
        counts[kind] = counts.get(kind, 0) + 1
        names.append("main" if kind == "main" else f"{kind} {counts[kind]}")
    return names


def level_row(picture, axis, changes, y):
    """A step function; its height is a share of its largest value."""
    steps, value = [], 0
    for at, change in changes:
        value += change
        steps.append((at, value))
    most = max([value for _, value in steps], default=0)
    for (at, value), (until, _) in zip(steps, steps[1:] + [(axis.end, 0)]):
        if value > 0 and until > at:
            high = max(2, BAR * value / most)
            picture.bar(axis.x(at), axis.x(until), y + BAR - high, "level", f"{high:.1f}",
                        title=f"{value:,}")
    picture.line(LEFT, y + BAR, WIDTH - 15, y + BAR)
    return most


def legend(picture, y, group, kind, entries):
    picture.text(8, y + 11, group, kind)
    x = LEFT
    for sign, words in entries:
        thin = sign in ("idle", "alive")
        picture.bar(x, x + 18, y + (5 if thin else 0), sign, 2 if thin else BAR)
        picture.text(x + 23, y + 11, words, "soft")
        x += 23 + LETTER * len(words) + 16


CLIENT_WORDS = "Clients", "c", (("wait", "wait for the greeting"),
                                ("served", "wait for an answer"), ("idle", "idle"))
KERNEL_WORDS = "Kernel", "k", (("level", "the higher, the more clients or bytes wait"),)
SERVER_WORDS = "Server", "s", (("asleep", "a call that sleeps"),
                               ("call", "one that does not sleep"),
                               ("alive", "no call: it computes"))


def title_of(recording):
    _, _, demo = recording["server"].rpartition("/demos/")
    return f"{demo if ' ' in demo else recording['source'].replace('/server.c', '')}: " \
           f"{recording['title']}"


def run(recording, buffers=False):
    """The clients, and what each thread or process of the server does meanwhile. With the
    unread bytes of each client, if they are what is to be seen."""
    picture = Picture(title_of(recording))
    last = max(client["close"] or 0 for client in recording["clients"])
    axis = Axis(picture, -0.01 * last, 1.02 * last)
    picture.text(8, 19, picture.title, "b")
    y = top = 32
    greets = any(client["greeting"] is not None for client in recording["clients"])
    picture.text(8, y + 11, "Clients", "c")
    for client in recording["clients"]:
        client_row(picture, axis, {**client, "greets": greets}, y)
        y += ROW
    kernel = model.follows_bytes(recording)
    if kernel:
        y += 4
        picture.text(8, y + 11, "Kernel", "k")
        rows = [("accept queue", model.arrivals(recording))]
        if buffers:
            rows += [(f"{client['name']} unread", model.unread(recording, number))
                     for number, client in enumerate(recording["clients"])]
        for name, changes in rows:
            picture.text(LEFT - 8, y + 11, name, "e")
            level_row(picture, axis, changes, y)
            y += ROW
    y += 4
    picture.text(8, y + 11, "Server", "s")
    for number, name in enumerate(task_names(recording)):
        task_row(picture, axis, recording, number, name, y)
        y += ROW
    axis.draw(top - 4, y)
    y += 26
    for words in (CLIENT_WORDS, *([KERNEL_WORDS] if kernel else []), SERVER_WORDS):
        legend(picture, y, *words)
        y += ROW - 2
    picture.height = y + 2
    return picture.svg()


def queues(recording):
    return run(recording, buffers=True)


def ways(*recordings):
    """Only the servers' rows, of several servers with the same clients."""
    picture = Picture("Three ways to five clients: processes, threads, one loop")
    last = max(client["close"] or 0 for made in recordings for client in made["clients"])
    axis = Axis(picture, -0.01 * last, 1.02 * last)
    picture.text(8, 19, picture.title, "b")
    y = top = 32
    for made in recordings:
        words = {"main": "one loop", "thread": "threads", "process": "processes"}
        picture.text(8, y + 11, words[made["tasks"][-1][0]], "s")
        for number, name in enumerate(task_names(made)):
            task_row(picture, axis, made, number, name, y)
            y += ROW
        y += 8
    axis.draw(top - 4, y - 6)
    legend(picture, y + 20, *SERVER_WORDS)
    picture.height = y + 42
    return picture.svg()


def duration(microseconds):
    return f"{microseconds / 1000:.0f} ms" if microseconds >= 10000 else \
        f"{microseconds / 1000:.1f} ms" if microseconds >= 1000 else f"{microseconds} µs"


def phases(*recordings):
    """One read of each server: in which call it waits, and which one copies. Not to scale."""
    picture = Picture("The two phases of a read, in four recorded servers (not to scale)")
    picture.text(8, 19, picture.title, "b")
    left, wide = (170, 400, 610), (215, 195, 190)
    for x, words in zip(left, ("phase 1: wait for bytes", "bytes lie in the kernel",
                               "phase 2: copy them")):
        picture.text(x, 44, words, "soft")
    y = 56
    for made in recordings:
        wait, copy, sent, size = longest_wait(made)
        picture.text(8, y + 18, " ".join(made["source"].split("_")[:2]).split("/")[0], "b")
        picture.bar(left[0], left[0] + wide[0], y, "asleep", 27)
        picture.text(left[0] + 6, y + 18, f"{wait[NAME]}: {duration(wait[END] - wait[START])}")
        picture.bar(left[1], left[1] + wide[1], y + 7, "level", 13)
        picture.text(left[1], y + 36, f"{size} bytes, "
                     f"for {duration(copy[END] - sent)}", "soft")
        if copy is wait:
            picture.text(left[2] + 6, y + 18, "the same recvfrom")
            picture.bar(left[2], left[2] + wide[2], y, "open", 27)
        else:
            picture.bar(left[2], left[2] + wide[2], y, "open", 27)
            picture.text(left[2] + 6, y + 18,
                         f"{copy[NAME]}: {duration(copy[END] - copy[START])}")
        y += 48
    picture.height = y + 2
    return picture.svg()


def longest_wait(recording):
    """(call that waits, call that copies, time at which the client sent, bytes): of all
    messages the one for which the server slept longest."""
    calls, found = recording["calls"], []
    for number, client in enumerate(recording["clients"]):
        received = [call for call in calls if call[CLIENT] == number
                    and call[NAME] in model.RECEIVE and (model.amount(call) or 0) > 0]
        for copy, send in zip(received, client["sends"]):
            before = [call for call in calls if call[TASK] == copy[TASK]
                      and call[START] < copy[START] and call[NAME] in (*model.WAIT, *SLEEPS)]
            wait = before[-1] if before else copy
            if wait[START] < send[0] and model.amount(copy) == send[1]:
                found.append((wait, copy, send[0], send[1]))
    return max(found, key=lambda each: each[0][END] - each[0][START])


def lists(recording):
    """epoll's two lists: a frame while a descriptor is on the interest list, filled while it is
    on the ready list."""
    picture = Picture(f"{title_of(recording)}: epoll's interest list and ready list")
    names, spans, open_now = {recording["listener"]: "listener"}, [], {}
    last = max(client["close"] or 0 for client in recording["clients"])
    axis = Axis(picture, -0.01 * last, 1.02 * last)
    for call in recording["calls"]:
        if call[NAME] in model.ACCEPT and (model.amount(call) or -1) >= 0:
            names[model.amount(call)] = recording["clients"][call[CLIENT]]["name"]
        added = re.match(r"epoll_ctl\(\d+, EPOLL_CTL_(ADD|DEL), (\d+)", call[TEXT])
        if added and added[1] == "ADD" and call[RESULT] == "0":
            number = int(added[2])
            open_now[number] = names.get(number, "wake-up"), call[END]
        elif added or call[NAME] == "close":
            number = int(added[2] if added else re.search(r"\d+", call[TEXT])[0])
            if number in open_now:
                spans.append((number, *open_now.pop(number), call[END]))
    spans += [(number, *each, axis.end) for number, each in open_now.items()]
    picture.text(8, 19, picture.title, "b")
    y = top = 32
    for number, name, start, end in sorted(spans):
        picture.text(LEFT - 8, y + 11, f"{name}: {number}", "e")
        picture.bar(axis.x(start), axis.x(end), y, "open")
        for since, until in ready_spans(recording, name):
            if since < end:
                picture.bar(axis.x(max(since, start)), max(axis.x(min(until, end)),
                            axis.x(since) + 2.5), y + 2, "level", BAR - 4)
        y += ROW
    y += 4
    task_row(picture, axis, recording, 0, "main", y)
    y += ROW
    axis.draw(top - 4, y)
    legend(picture, y + 24, "Kernel", "k", (("open", "on the interest list"),
                                            ("level", "on the ready list, too")))
    legend(picture, y + 24 + ROW, *SERVER_WORDS)
    picture.height = y + 28 + 2 * ROW
    return picture.svg()


def ready_spans(recording, name):
    """When a descriptor can be read: unread bytes, the client's end, a client in the queue."""
    client = next((number for number, each in enumerate(recording["clients"])
                   if each["name"] == name), None)
    changes = model.arrivals(recording) if name == "listener" else \
        [] if client is None else model.unread(recording, client)
    value, since = 0, None
    for at, change in changes:
        value += change
        if value and since is None:
            since = at
        elif not value and since is not None:
            yield since, at
            since = None
    if client is not None and recording["clients"][client]["disconnect"] is not None:
        yield recording["clients"][client]["disconnect"], float("inf")


def sockets(recording):
    """The life of each descriptor, from socket() or accept() to close()."""
    picture = Picture(f"{recording['source']}: its sockets, from socket() to close()")
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
    picture.text(8, 19, picture.title, "b")
    y = 32
    for number, start, name, call, end in sorted(spans, key=lambda span: span[1]):
        picture.text(LEFT - 8, y + 11, f"{name}: {number}", "e")
        picture.bar(axis.x(start), axis.x(end), y, "cost",
                    title=f"descriptor {number}, from {call}() to close()")
        if axis.x(end) - axis.x(start) > 95:
            picture.text(axis.x(start) + 3, y + 10.5, call)
            picture.text(axis.x(end) - 3, y + 10.5, "close", "e")
        y += ROW
    axis.draw(28, y)
    picture.text(8, y + 34, "Name: number of the descriptor. A number is used again as soon as "
                            "it is free.", "soft")
    picture.height = y + 42
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
    picture.text(8, 19, picture.title, "b")
    size, left = 47, 100
    for number in range(max(inside) + 1):
        x = left + number * size
        picture.text(x + size / 2, 42, str(number), "soft m")
        name = names.get(number, "wake-up" if number in inside else "")
        picture.text(x + size / 2, 58 + 14 * (number % 2), name, "m")
        for row, chosen in enumerate((inside, out)):
            y = 80 + row * 40
            picture.bar(x, x + size, y, "one" if number in chosen else "bit", 28)
            picture.text(x + size / 2, y + 18, str(int(number in chosen)),
                         "m ink" if number in chosen else "m")
    picture.text(left - 8, 42, "descriptor", "e soft")
    for row, words in enumerate(("given", "returned")):
        picture.text(left - 8, 80 + row * 40 + 18, words, "e b")
    picture.text(8, 172, f"{call[TEXT]} = {call[RESULT]}"[:100], "soft")
    picture.height = 182
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
    legend(picture, y + 24, *CLIENT_WORDS)
    picture.height = y + 46
    return signed(picture.svg(), {"recorded": datetime.date.today().isoformat(),
                                  "machine": model.machine()})


# What the table of the top README says (`make bench` writes it).

BARS = 200
SHORT = {"step2": "2 threads", "step2/fork": "2 fork", "step4": "4 polling",
         "step5": "5 select", "step5/poll": "5 poll", "step6": "6 epoll", "step7": "7 libuv",
         "step8": "8 ae"}


def number_of(cell):
    """The cost in a cell such as `17.6 µs (5.09x) at 900` or `1.40 KiB`: µs or bytes."""
    found = re.match(r"([\d.,]+) (µs|B|KiB|MiB)", cell)
    if not found:
        return None
    return float(found[1].replace(",", "")) * {"KiB": 1024, "MiB": 1 << 20}.get(found[2], 1)


def table_of(text, name):
    """The cells of a table that the benchmark has inserted."""
    table = re.search(rf"bench:{name} begin -->\n(.*?)<!-- bench", text, re.S)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in table.strip().splitlines()]
    return rows[0], rows[2:]


def costs(readme, clients):
    """The cost of a message against the number of idle connections, and memory."""
    picture = Picture("What an idle connection costs", WIDTH)
    heads, rows = table_of(clients, "idle")
    points = [int(re.sub(r"\D", "", head)) for head in heads[1:]]
    lines = []
    for name, *cells in rows:
        values = [(point, number_of(cell)) for point, cell in zip(points, cells)]
        if name in SHORT and name not in ("step7", "step8"):
            lines.append((SHORT[name], [each for each in values if each[1]]))
    left, right, top, bottom = 62, 400, 44, 290
    low, high = 2.0, max(value for _, values in lines for _, value in values) * 1.3

    def x(point):
        return left + math.log(1 + point / 30) / math.log(1 + points[-1] / 30) * (right - left)

    def y(value):
        return bottom - math.log(value / low) / math.log(high / low) * (bottom - top)

    picture.text(8, 19, "CPU per message (µs), 10 active among idle ones", "b")
    for tick in (2, 5, 10, 20, 50, 100, 200, 500):
        if low <= tick <= high:
            picture.line(left, y(tick), right, y(tick))
            picture.text(left - 6, y(tick) + 4, str(tick), "soft e")
    for point in points:
        picture.line(x(point), top, x(point), bottom)
        picture.text(x(point), bottom + 16, f"{point:,}", "soft m")
    picture.text(left, bottom + 32, "idle connections", "soft")
    ends = [bottom + 4]
    for number, (name, values) in enumerate(sorted(lines, key=lambda line: line[1][-1][1])):
        picture.curve([(x(point), y(value)) for point, value in values], number)
        whole = values[-1][0] == points[-1]
        if whole:       # names of lines that end together stand above each other
            ends.append(min(y(values[-1][1]) + 4, ends[-1] - 14))
        picture.text(x(values[-1][0]) + 8, ends[-1] if whole else y(values[-1][1]) + 16,
                     name if whole else f"{name} (max {limit_of(rows, name)})")
    heads, rows = table_of(readme, "comparison")
    index = next(i for i, head in enumerate(heads) if "memory per" in head)
    values = [(SHORT.get(row[0], row[0]), row[index], number_of(row[index])) for row in rows]
    values = [each for each in values if each[2]]
    start, label = 528, 606
    picture.text(start, 19, "memory per connection", "b")
    least = min(value for *_, value in values) / 1.3
    span = math.log(max(value for *_, value in values) / least)
    for row, (name, words, value) in enumerate(values):
        width = math.log(value / least) / span * (WIDTH - label - 85)
        picture.text(label - 6, 55 + row * 24, name, "e")
        picture.bar(label, label + width, 44 + row * 24, "cost")
        picture.text(label + width + 5, 55 + row * 24, words)
    machine = re.search(r"bench:machine begin -->\s*(.*?)\s*<!--", readme, re.S)
    picture.text(8, bottom + 52, "Axes and bars are logarithmic. "
                 + (machine[1].split(": ")[0] + "." if machine else ""), "soft")
    picture.height = bottom + 62
    return picture.svg()


def limit_of(rows, name):
    """How many connections the server can have at most, as the table says."""
    own = next(row for row in rows if SHORT.get(row[0]) == name)
    return next((cell.replace("max ", "") for cell in own if cell.startswith("max ")), "?")


# name of the picture: (function, recording, the folder of its README, what it shows)
PICTURES = {
    **{f"step{server}": (run, f"{server}-five", server, "five clients and the server's calls")
       for server in "12345678"},
    "queues": (queues, "1-early", "1", "clients that send before the server accepts them"),
    "sockets": (sockets, "1-five", "1", "the life of each socket, from socket() to close()"),
    "fd_set": (fd_set, "5-five", "5", "the read set of a pselect6 call, before and after it"),
    "fork": (run, "2-fork-five", "2", "five clients, a process for each"),
    "pool": (run, "2-pool-five", "2", "five clients and the threads of the pool"),
    "ways": (ways, ("2-fork-five", "2-five", "6-five"), "5",
             "five clients, served by processes, by threads, and by one loop"),
    "phases": (phases, ("3-five", "4-five", "5-five", "6-five"), "3",
               "in which call each model waits for bytes, and in which one it copies them"),
    "lists": (lists, "6-five", "6", "when each descriptor is on epoll's two lists"),
    "fiber": (run, "8-fiber-five", "8", "five clients and a loop that switches fibers"),
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
    return svg.replace(f" {height}\"", f" {height + 20}\"").replace(
        f'height="{height}"', f'height="{height + 20}"').replace(
        "\n</svg>", f'\n<text class="soft" x="8" y="{height + 9}">{line}</text>\n</svg>')


def outputs():
    """(path, its text) of all pictures, and of the READMEs and lessons that show them."""
    for name, (draw, sources, step, _) in PICTURES.items():
        made = [model.load(HERE / "recordings" / f"{source}.json")
                for source in ([sources] if isinstance(sources, str) else sources)]
        yield folder_of(step) / "pictures" / f"{name}.svg", signed(draw(*made), made[-1])
    top = (ROOT / "README.md").read_text(encoding="utf-8")
    if "bench:comparison begin" in top:
        clients = (ROOT / "clients/README.md").read_text(encoding="utf-8")
        yield HERE / "pictures" / "costs.svg", costs(top, clients)
    for readme in sorted([ROOT / "README.md", *ROOT.glob("*/README.md"),
                          *ROOT.glob("*/*/README.md"), *ROOT.glob("common/lessons/*.md")]):
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
