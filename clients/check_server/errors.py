"""The ways a case can end other than well."""


class Failure(Exception):
    """The server broke a promise. `client`, if any, tells what was sent and what came."""

    def __init__(self, message, client=None):
        super().__init__(message)
        self.client = client


class Skip(Exception):
    """The case says nothing about this server here; the reason is printed."""


class OutOfTime(Exception):
    """The case as a whole ran past its limit."""
