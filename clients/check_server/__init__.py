"""The conformance suite for echo servers: one client suite for every server.

A case is a function that takes a trial `t`, starts the server and talks to it:

    from check_server import case

    @case("the second client waits until the first leaves")
    def second_client_waits(t):
        with t.server("--max-clients", "2") as s:
            first = s.connect().greeting()
            second = s.connect()
            second.expect_silence()
            first.close()
            second.greeting().send(b"^abc$").expect(b"bcd")

Leaving the `with` block checks the server's health: it is alive, serves, is idle, keeps no
descriptor, and ends within two seconds of SIGTERM. Nothing more is needed. trial.py, server.py
and client.py say what `t`, `s` and a client offer; `proc` is what /proc says (lib/figures.py).
"""

from lib import figures as proc

from .client import Client, exchange_all
from .errors import Failure, Skip
from .protocol import Model, naive_answer
from .registry import case

__all__ = ["Client", "Failure", "Model", "Skip", "case", "exchange_all", "naive_answer", "proc"]
