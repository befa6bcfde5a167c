"""The ways in which a case can end, if it does not pass."""


class Failure(Exception):
    """The server broke a promise. `client`, if any, knows what was sent and what came. `final`
    forbids a second try: a busy machine does not excuse a server that did too much. `wanted`
    and `got`, if any, are the bytes that differ.
    """

    def __init__(self, message, client=None, final=False, wanted=None, got=None):
        super().__init__(message)
        self.client = client
        self.final = final
        self.wanted = wanted
        self.got = got


class NeverListens(Failure):
    """The server cannot be reached at all. If no start of this run succeeded, the run ends."""


class Skip(Exception):
    """The case says nothing about this server here; the reason is printed."""


class OutOfTime(Exception):
    """The case as a whole ran past its limit, while this client, if any, waited for answers."""

    client = None
