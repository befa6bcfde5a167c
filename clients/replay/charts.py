#!/usr/bin/env python3
"""Draws the results of `make bench` as SVG for the page: charts.py RESULTS FOLDER

Which curves there are, and their axes, is what clients/bench/plots.py says. Each line has its
name at its end, and dashes and points of its own, so nobody needs the colours.
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

WIDTH, LEFT, RIGHT, TOP, HEIGHT = 620, 60, 110, 34, 300


def tics(axis):
    found = re.findall(r'"([^"]*)" ([\d.e+-]+)', axis.tics())
    return [(label, float(value)) for label, value in found]


def share(axis, value):
    """Where a value is on an axis of plots.py: 0 at the low end, 1 at the high one."""
    if axis.scale.startswith("unset"):
        return (value - axis.low) / (axis.high - axis.low)
    return math.log(value / axis.low) / math.log(axis.high / axis.low)


def spread_out(heights, gap=15):
    """Sorted heights, moved upwards so that names of lines do not cover each other."""
    placed = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
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
    heights = spread_out([end * room for end, _, _ in ends])
    for number, ((_, name, points), height) in enumerate(zip(ends, heights)):
        picture.curve([(x(a), y(b)) for a, b in points], number)
        last = HEIGHT - 22 - height
        at = x(points[-1][0])
        if at < WIDTH - RIGHT - 4:      # a line that ends early has its name there
            last = y(points[-1][1]) - 8
        picture.text(at + 8, last + 4, plots.NAMES.get(name, name))
    picture.text(LEFT, HEIGHT + 32, about, "soft")
    return picture.svg()


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
