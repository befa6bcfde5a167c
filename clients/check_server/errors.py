"""The ways a case can end other than well."""


class Failure(Exception):
    """The server broke a promise. `client`, if any, tells what was sent and what came. It is
    final where a machine that stands still is no excuse: the server did too much, not too
    little."""

    def __init__(self, message, client=None, final=False):
        super().__init__(message)
        self.client = client
        self.final = final


class NeverListens(Failure):
    """The server cannot be reached at all. If none of its starts went better, the run ends."""


class Skip(Exception):
    """The case says nothing about this server here; the reason is printed."""


class OutOfTime(Exception):
    """The case as a whole ran past its limit."""
