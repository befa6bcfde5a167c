#!/usr/bin/env python3
"""Draws the results of `make bench` as SVG for the page: charts.py RESULTS FOLDER

Which curves there are, and their axes, is what clients/bench/plots.py says. Each line has its
name at its end, and dashes and marks of its own, so nobody needs the colours.
"""

import json
import math
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "bench")]

import plots            # noqa: E402
import tables           # noqa: E402
from pictures import Picture    # noqa: E402

WIDTH, LEFT, RIGHT, TOP, HEIGHT = 620, 74, 110, 34, 300
# Each server has the same colour, dashes and marks in all charts: light and dark scheme.
ORDER = list(plots.STYLES)
COLOURS = {
    "2": ("#a3262a", "#f28b82"), "4": ("#7a5a00", "#e5b454"), "5": ("#b84a00", "#ff9d57"),
    "6": ("#0b57a4", "#7db8f5"), "7": ("#19714a", "#62c98d"), "8": ("#6a2fb5", "#c8a2ff")}
OTHER = "#5b636d", "#a5adb6"


def colours(scheme):
    rules = []
    for kind, name in enumerate([*ORDER, ""]):
        found = re.match(r"step(\d)", name)
        colour = (COLOURS.get(found[1], OTHER) if found else OTHER)[scheme]
        rules.append(f".v{kind} {{ stroke: {colour} }} .v{kind}.point, .n{kind} "
                     f"{{ fill: {colour} }}")
    return "\n".join(rules)


STYLE = f"""
.halo {{ paint-order: stroke; stroke: #fdfdfb; stroke-width: 3; font-weight: bold }}
{colours(0)}
@media (prefers-color-scheme: dark) {{
.halo {{ stroke: #14171a }}
{colours(1)} }}
"""


def tics(axis):
    found = re.findall(r'"([^"]*)" ([\d.e+-]+)', axis.tics())
    return [(label, float(value)) for label, value in found]


def share(axis, value):
    """Where a value is on an axis of plots.py: 0 at the low end, 1 at the high one."""
    if axis.scale.startswith("unset"):
        return (value - axis.low) / (axis.high - axis.low)
    return math.log(value / axis.low) / math.log(axis.high / axis.low)


def spread_out(heights, room, gap=15):
    """Sorted heights, moved apart so that names of lines do not cover each other; the highest
    stays within the room."""
    placed = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    for place in range(len(placed) - 1, -1, -1):
        placed[place] = min(placed[place], room - gap * (len(placed) - 1 - place))
    return placed


def draw(panel, about):
    picture = Picture(panel.title, WIDTH)
    picture.height = HEIGHT + 44
    picture.text(LEFT, 18, panel.title, "b")

    def x(value):
        return LEFT + share(panel.x, value) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - 22 - share(panel.y, value) * (HEIGHT - 22 - TOP)

    for label, value in tics(panel.x):
        picture.line(x(value), TOP, x(value), HEIGHT - 22)
        picture.text(x(value), HEIGHT - 8, label, "soft m")
    for label, value in tics(panel.y):
        picture.line(LEFT, y(value), WIDTH - RIGHT, y(value))
        picture.text(LEFT - 5, y(value) + 4, label, "soft e")
    picture.text(WIDTH - RIGHT, HEIGHT + 8, panel.xlabel, "e")
    ends = sorted((share(panel.y, points[-1][1]), name, points) for name, points in panel.lines)
    room = HEIGHT - 22 - TOP
    # A line that ends early has its name there, the others have theirs on the right.
    whole = [points[-1][0] == max(each[-1][0] for _, _, each in ends) for _, _, points in ends]
    heights = iter(spread_out([end * room for (end, *_), far in zip(ends, whole) if far],
                              room))
    names = []
    for (_, name, points), far in zip(ends, whole):
        kind = ORDER.index(name) if name in ORDER else len(ORDER)
        picture.curve([(x(a), y(b)) for a, b in points], kind, f"v{kind}")
        last = HEIGHT - 22 - next(heights) if far else y(points[-1][1]) + 14
        names.append((x(points[-1][0]) + 8, last + 4, plots.NAMES.get(name, name),
                      f"halo n{kind}"))
    for name in names:      # in front of all lines
        picture.text(*name)
    picture.text(LEFT, HEIGHT + 32, about, "soft")
    return picture.svg().replace("</style>", f"{STYLE}</style>", 1)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: charts.py RESULTS FOLDER")
    raw = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    about = f"Measured on {raw['date']}, {raw['machine']}."
    for name, panels in plots.pictures(tables.Results(raw)):
        for number, panel in enumerate(panels):
            if panel.lines:
                path = folder / f"{name}-{number}.svg"
                path.write_text(draw(panel, about), encoding="utf-8")


if __name__ == "__main__":
    main()
