"""The ledger of claims: sentences that people say, and a measurement that decides each.

A claim is a function. It measures, and returns Figures. A figure that decides has a band:
inside it the sentence holds. If all hold, the sentence is true. If none holds, it is false.
Otherwise it depends on what differs between the figures.

A claim that cannot come out otherwise says nothing. So each function also runs against a
counterpart (Lab.either), for which the opposite verdict must come out.
"""

import importlib
import pkgutil

TRUE, FALSE, DEPENDS = "true", "false", "it depends"
UNDECIDED = "not decided on this machine"
TRIES = 3
CLAIMS = []


class Undecided(Exception):
    """The claim cannot be measured here; the text says why."""


class Figure:
    """What was measured. The sentence holds between `low` and `high`, if one of them is given.
    A later measurement agrees if it differs by the factor `within` or less, or by `slack`."""

    def __init__(self, what, value, unit="", low=None, high=None, within=1.0, slack=0):
        self.what, self.unit = what, unit
        self.value = value if isinstance(value, int) else float(f"{value:.3g}")
        self.low, self.high = low, high
        self.within, self.slack = within, slack

    @property
    def decides(self):
        return self.low is not None or self.high is not None

    def holds(self, value=None):
        value = self.value if value is None else value
        return ((self.low is None or value >= self.low)
                and (self.high is None or value <= self.high))

    def agrees(self, value):
        """Whether another measurement of the same figure may have this value."""
        small, large = sorted((self.value, value))
        return large - small <= self.slack or (small > 0 and large / small <= self.within)

    def record(self):
        return [self.what, self.value, self.unit]


def verdict(figures, values=None):
    """The verdict of these figures, or of other values in their bands."""
    values = values or [figure.value for figure in figures]
    held = {figure.holds(value) for figure, value in zip(figures, values) if figure.decides}
    return DEPENDS if len(held) == 2 else TRUE if held == {True} else FALSE


class Claim:
    """A sentence, who says it, why the verdict is what it is, and the function that measures.

    opposite   the counterpart for which the opposite verdict comes out
    on         if it depends: on what
    slow       it takes more than 0.3 seconds, or a time decides
    """

    def __init__(self, sentence, by, why, opposite, on="", slow=False):
        self.sentence, self.by, self.why = sentence, by, why
        self.opposite, self.on, self.slow = opposite, on, slow
        self.measure = self.name = self.theme = None

    def __call__(self, measure):
        self.measure, self.name = measure, measure.__name__.replace("_", "-")
        self.theme = measure.__module__.rpartition(".")[2]
        CLAIMS.append(self)
        return measure


claim = Claim


def load():
    """All claims, theme by theme."""
    if not CLAIMS:
        for module in pkgutil.iter_modules(__path__):
            importlib.import_module(f"{__name__}.{module.name}")
        CLAIMS.sort(key=lambda each: list(TITLES).index(each.theme))
    return CLAIMS


TITLES = {
    "streams": "Bytes, ends and errors",
    "listening": "Listening, ports and accept",
    "readiness": "select, poll and epoll",
    "kernel": "Descriptors, calls and processes",
    "models": "Servers of this course",
    "threads": "Threads, pools and computing",
    "cost": "What it costs",
}
