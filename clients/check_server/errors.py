"""The ways in which a case can end, if it does not pass."""


class Failure(Exception):
    """The server broke a promise. `client`, if any, knows what was sent and what came. `final`
    forbids a second try: that the machine was busy does not excuse a server that did too much.
    """

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
