#!/usr/bin/env python3
"""Echo servers with one bug each: `broken.py --bug drops-the-last-byte [OPTIONS] [PORT]`.

Each is the reference server with one thing changed, and says which case must catch it.
"""

import os
import select
import signal
import sys

import reference
from reference import Conn, Server

BUGS = {}


def bug(caught_by):
    """Register a server class as broken in a way that the case `caught_by` must notice."""
    def register(server_class):
        name = "".join("-" + char.lower() if char.isupper() else char
                       for char in server_class.__name__).strip("-")
        server_class.caught_by = caught_by
        BUGS[name] = server_class
        return server_class
    return register


# Wrong answers.

@bug("known-exchange")
class DropsTheLastByte(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data)[:-1]


@bug("all-byte-values")
class OffByOneAtTheWrap(Server):
    class conn_class(Conn):
        table = Conn.table[:255] + b"\xff"


@bug("known-exchange")
class AnswersAfterTheEnd(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data.replace(b"$", b""))


@bug("markers")
class RestartsAtAMarkerInside(Server):
    class conn_class(Conn):
        def feed(self, data):
            answer = b""
            for byte in data:
                if byte == ord("^"):
                    self.inside = False
                answer += super().feed(bytes([byte]))
            return answer


@bug("every-split-point")
class ForgetsStateBetweenPackets(Server):
    class conn_class(Conn):
        def feed(self, data):
            self.inside = False
            return super().feed(data)


@bug("state-is-per-connection")
class SharesStateBetweenClients(Server):
    class conn_class(Conn):
        def feed(self, data):
            self.inside = Conn.inside
            answer = super().feed(data)
            Conn.inside = self.inside
            return answer

    Conn.inside = False


@bug("many-messages-in-one-packet")
class AnswersOneMessagePerPacket(Server):
    class conn_class(Conn):
        def feed(self, data):
            end = data.find(b"$")
            return super().feed(data[:end + 1] if end >= 0 else data)


@bug("late-reader")
class LosesWhatDidNotFit(Server):
    def write(self, conn):
        super().write(conn)
        conn.unsent = b""


@bug("greeting")
class GreetsNobody(Server):
    greeting = b""


@bug("greeting")
class GreetsTwice(Server):
    greeting = b"**"


@bug("greeting")
class GreetsWhenSpokenTo(Server):
    greeting = b""

    class conn_class(Conn):
        greeted = False

        def feed(self, data):
            answer = (b"" if self.greeted else b"*") + super().feed(data)
            self.greeted = True
            return answer


@bug("half-close-with-answers-owed")
class ClosesAtHalfClose(Server):
    def pump(self, conn, mask):
        super().pump(conn, mask)
        goodbye = select.poll()
        goodbye.register(conn.sock, select.POLLRDHUP)
        if conn in self.conns and goodbye.poll(0):
            self.drop(conn)


@bug("half-close-with-answers-owed")
class NeverCloses(Server):
    kept = []

    def end(self, conn):
        self.selector.unregister(conn.sock)
        del self.conns[conn]
        self.kept.append(conn)


# Clients that leave.

@bug("reset-in-mid-message")
class DiesOnReset(Server):
    def lost(self, conn, error):
        raise error


@bug("stop-with-clients")
class IgnoresSigterm(Server):
    def run(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        super().run()

    def stop(self, signum, _):
        self.stopping = signum == signal.SIGINT


@bug("stop-with-clients")
class DiesOfSigterm(Server):
    def stop(self, signum, _):
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


@bug("stop-with-clients")
class WaitsForItsClientsToLeave(Server):
    def finish(self):
        self.stopping = False
        while self.conns:
            for key, mask in self.selector.select():
                if isinstance(key.data, Conn):
                    self.pump(key.data, mask)


def main():
    if len(sys.argv) < 3 or sys.argv[1] != "--bug" or sys.argv[2] not in BUGS:
        sys.stderr.write("usage: broken.py --bug NAME [OPTIONS] [PORT]\nNAME is one of: %s\n"
                         % " ".join(BUGS))
        return 2
    return reference.main(BUGS[sys.argv[2]], sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
