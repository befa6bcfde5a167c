"""Echo servers with one bug each, which broken.py starts by name.

Each is the reference server with one thing changed; bug() names the cases that must catch it.
They are a module of their own, so that Python need not compile them each time one is started.
"""

import contextlib
import ctypes
import errno
import math
import mmap
import os
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time

from reference import CHUNK, Conn, Server, send_queue

BUGS = {}
CLIENTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FAIR_ACCEPT = os.path.join(CLIENTS, "check_server", "fair_accept.py")


def bug(*caught_by, suite=()):
    """Register a server that each of these cases must fail; `suite` are options for it."""
    def register(server_class):
        name = "".join("-" + char.lower() if char.isupper() else char
                       for char in server_class.__name__).strip("-")
        server_class.caught_by = caught_by
        server_class.suite_options = suite
        BUGS[name] = server_class
        return server_class
    return register


# Wrong answers, or slow ones.

@bug("known-exchange", "large-messages-at-once")
class DropsTheLastByte(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data)[:-1]


@bug("greeting", "known-exchange")
class DestroysARunningThread(Server):
    def admit(self, sock, peer):
        self.say("terminate called without an active exception")
        os.abort()


@bug("known-exchange")
class EndsWhenAClientLeaves(Server):
    def drop(self, conn):
        super().drop(conn)
        if not self.stopping:
            self.say("EOF")
            os._exit(1)


@bug("known-exchange")
class EchoesEverything(Server):
    class conn_class(Conn):
        def feed(self, data):
            return data


@bug("known-exchange")
class AnswersEveryByte(Server):
    class conn_class(Conn):
        def feed(self, data):
            return data.translate(self.table)


@bug("known-exchange")
class EchoesWhatIsOutside(Server):
    class conn_class(Conn):
        def feed(self, data):
            answer = b""
            for byte in data:
                ignored = not self.inside and byte != ord("^")
                answer += super().feed(bytes([byte])) + (bytes([byte]) if ignored else b"")
            return answer


@bug("known-exchange")
class AnswersWithLines(Server):
    class conn_class(Conn):
        def feed(self, data):
            answer = super().feed(data)
            return answer + b"\n" if answer else b""


@bug("known-exchange")
class SendsTheWholeBuffer(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data) + bytes(16)


@bug("known-exchange")
class SendsWhatAnEarlierPacketLeft(Server):
    class conn_class(Conn):
        buffer = b""

        def feed(self, data):
            answer = super().feed(data)
            self.buffer = answer + self.buffer[len(answer):]
            return self.buffer


@bug("known-exchange")
class ClosesAfterAMessage(Server):
    class conn_class(Conn):
        def feed(self, data):
            data, end, _ = data.partition(b"$")
            self.ended = bool(end)
            return super().feed(data)


@bug("known-exchange")
class ServesOnePacketPerClient(Server):
    class conn_class(Conn):
        def feed(self, data):
            self.ended = True
            return super().feed(data)


class Collects(Server):
    """Answers nothing until an end has come."""

    class conn_class(Conn):
        end, kept = b"", b""

        def feed(self, data):
            whole, end, self.kept = (self.kept + data).rpartition(self.end)
            return super().feed(whole + end)


@bug("known-exchange")
class WaitsForALine(Collects):
    class conn_class(Collects.conn_class):
        end = b"\n"


@bug("known-exchange")
class WaitsForTheEndOfAMessage(Collects):
    class conn_class(Collects.conn_class):
        end = b"$"


@bug("known-exchange")
class BreaksWhenItAnswers(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().fed(data)


@bug("known-exchange")
class AnswersTheMarker(Server):
    class conn_class(Conn):
        def feed(self, data):
            return (b"" if self.inside or b"^" not in data else b"_") + super().feed(data)


@bug("known-exchange")
class AnswersTheEnd(Server):
    class conn_class(Conn):
        def feed(self, data):
            answer = b""
            for byte in data:
                answer += b"%" if self.inside and byte == ord("$") else b""
                answer += super().feed(bytes([byte]))
            return answer


@bug("known-exchange")
class AnswersOneBytePerPacket(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data)[:1]


@bug("known-exchange")
class AnswersSlowly(Server):
    def write(self, conn):
        unsent, conn.unsent = conn.unsent, conn.unsent[:1]
        super().write(conn)
        conn.unsent = unsent[1:]
        time.sleep(1)


@bug("many-messages-in-one-packet", "one-mebibyte-message", "sixty-four-mebibyte-message",
     suite=("--slow-factor=0.1",))      # it answers until the case's time is over
class ReceivesByteByByte(Server):
    def __init__(self, options):
        super().__init__(options)
        self.scratch = self.scratch[:1]

    def read(self, conn):
        super().read(conn)
        time.sleep(0.001)   # so that it is slow on each machine


@bug("all-byte-values")
class SendsCharacters(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data).decode("latin-1").encode()


@bug("all-byte-values")
class DecodesText(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data.decode().encode())


@bug("all-byte-values")
class EndsStringsAtZero(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data.partition(b"\0")[0]).partition(b"\0")[0]


@bug("all-byte-values")
class EndsAnswersAtZero(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data).partition(b"\0")[0]


@bug("all-byte-values")
class IgnoresNegativeBytes(Server):
    class conn_class(Conn):
        def feed(self, data):
            return super().feed(data.decode("ascii", "ignore").encode())


@bug("all-byte-values")
class OffByOneAtTheWrap(Server):
    class conn_class(Conn):
        table = Conn.table[:255] + b"\xff"


@bug("all-byte-values")
class TakesTheLargestByteForTheEnd(Server):
    class conn_class(Conn):
        def feed(self, data):
            data, end, _ = data.partition(b"\xff")
            self.ended = bool(end)
            return super().feed(data)


@bug("all-byte-values")
class WrapsOneTooEarly(Server):
    class conn_class(Conn):
        table = bytes((byte + 1) % 255 for byte in range(256))


@bug("all-byte-values")
class TakesOnlySevenBits(Server):
    class conn_class(Conn):
        table = bytes((byte + 1) % 128 for byte in range(256))


@bug("all-byte-values")
class CrashesAtTheWrap(Server):
    class conn_class(Conn):
        def feed(self, data):
            if self.inside or b"^" in data:
                bytes([byte + 1 for byte in data])
            return super().feed(data)


@bug("markers")
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


@bug("every-split-point", "byte-by-byte", "random-fragments")
class ForgetsStateBetweenPackets(Server):
    class conn_class(Conn):
        def feed(self, data):
            self.inside = False
            return super().feed(data)


@bug("every-split-point")
class ForgetsAMarkerThatEndsAPacket(Server):
    class conn_class(Conn):
        def feed(self, data):
            answer = super().feed(data)
            if data.endswith(b"^"):
                self.inside = False
            return answer


@bug("state-is-per-connection", "chaos")
class SharesStateBetweenClients(Server):
    class conn_class(Conn):
        shared = False

        def feed(self, data):
            self.inside = type(self).shared
            answer = super().feed(data)
            type(self).shared = self.inside
            return answer


@bug("reused-descriptors")
class KeepsStateByDescriptor(Server):
    class conn_class(Conn):
        left = {}

        def __init__(self, sock, peer):
            super().__init__(sock, peer)
            self.inside = self.left.get(sock.fileno(), False)

        def feed(self, data):
            answer = super().feed(data)
            self.left[self.sock.fileno()] = self.inside
            return answer


@bug("two-hundred-clients", "state-is-per-connection")
class SharesStateBetweenThreads(Server):
    """Each new client resets it, so nothing is wrong with one after another."""

    class conn_class(Conn):
        shared, large = False, False

        def __init__(self, sock, peer):
            super().__init__(sock, peer)
            type(self).shared = False

        def feed(self, data):
            self.large = self.large or len(data) > 1000     # these would fail by chance
            if self.large:
                return super().feed(data)
            self.inside = self.shared
            answer = super().feed(data)
            type(self).shared = self.inside
            return answer


@bug("large-messages-at-once")
class SharesABufferBetweenThreads(Server):
    class conn_class(Conn):
        user, buffer = None, b""

        def feed(self, data):
            """Another client's thread has received into the buffer before this one answers."""
            cls = type(self)
            if (cls.user not in (None, self) and cls.user.sock.fileno() >= 0
                    and min(len(data), len(cls.buffer)) > 10000):
                data, cls.buffer = cls.buffer[:len(data)] + data[len(cls.buffer):], data
            else:
                cls.buffer = data
            cls.user = self
            return super().feed(data)


@bug("many-messages-in-one-packet")
class AnswersOneMessagePerPacket(Server):
    class conn_class(Conn):
        def feed(self, data):
            end = data.find(b"$")
            return super().feed(data[:end + 1] if end >= 0 else data)


@bug("late-reader", "half-close-with-unsent-answers", "slow-reader")
class LosesWhatDidNotFit(Server):
    class conn_class(Conn):
        lost = False

    def write(self, conn):
        if not conn.lost:
            super().write(conn)
        conn.lost = conn.lost or bool(conn.unsent)  # and all that comes later, whoever reads it
        conn.unsent = b""


@bug("half-close-with-unsent-answers", "late-reader")
class SendsAgainWhatWasSent(Server):
    def write(self, conn):
        unsent = conn.unsent
        super().write(conn)
        if conn.unsent and send_queue(conn.sock) > 1 << 20:   # nobody reads
            conn.unsent = unsent


@bug("sixty-four-mebibyte-message", "one-mebibyte-message")
class RefusesLongMessages(Server):
    class conn_class(Conn):
        length = 0

        def feed(self, data):
            self.length = self.length + len(data) if self.inside else 0
            if self.length > 500000:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            return super().feed(data)


@bug("late-reader", "idle-clients")
class AsksForRoomForEver(Server):
    def pump(self, conn, mask):
        super().pump(conn, mask)
        if conn in self.conns:
            self.selector.modify(conn.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, conn)


@bug("answers-come-together")
class SendsByteByByte(Server):
    def write(self, conn):
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        if len(conn.unsent) > 100:
            super().write(conn)
            return
        for at in range(len(conn.unsent)):
            conn.sock.send(conn.unsent[at:at + 1])
        conn.unsent = b""


@bug("disconnect-in-mid-send")
class SendsEachByteAlone(Server):
    """The first 6 MiB not, so that only the largest messages take too long, on each machine."""

    class conn_class(Conn):
        answers = 0

        def feed(self, data):
            answer = super().feed(data)
            self.answers += len(answer)
            return answer

    def write(self, conn):
        rest = b""
        if conn.answers > 6 << 20:
            rest, conn.unsent = conn.unsent[1:], conn.unsent[:1]
            time.sleep(0.0001)
        super().write(conn)
        conn.unsent += rest


@bug("greets-a-client", "greeting")
class GreetsNobody(Server):
    greeting = b""


@bug("known-exchange", "greeting")
class GreetsOnlyTheFirstClient(Server):
    def admit(self, sock, peer):
        super().admit(sock, peer)
        self.greeting = b""


@bug("greets-a-client", "greeting")
class GreetsWithWords(Server):
    greeting = b"Hello"


@bug("greets-a-client", "greeting")
class GreetsTwice(Server):
    greeting = b"**"


@bug("greets-a-client", "greeting")
class GreetsWithALine(Server):
    greeting = b"*\n"


@bug("greets-a-client", "greeting")
class GreetsWhenSpokenTo(Server):
    greeting = b""

    class conn_class(Conn):
        greeted = False

        def feed(self, data):
            answer = (b"" if self.greeted else b"*") + super().feed(data)
            self.greeted = True
            return answer


@bug("greets-a-client", "stop-alone")
class ExitsOneOnSigterm(Server):
    def stop(self, signum, frame):
        super().stop(signum, frame)
        self.report_lost = True


@bug("half-close-with-unsent-answers")
class ClosesAtHalfClose(Server):
    def pump(self, conn, mask):
        super().pump(conn, mask)
        if conn not in self.conns:
            return
        end = select.poll()
        end.register(conn.sock, select.POLLRDHUP)
        if end.poll(0) and len(conn.sock.recv(1000, socket.MSG_PEEK)) == 1000:
            self.drop(conn)     # much is unread: it depends on nobody's speed


@bug("half-close-with-unsent-answers")
class NeverCloses(Server):
    kept = []

    def end(self, conn):
        self.selector.unregister(conn.sock)
        del self.conns[conn]
        self.kept.append(conn)


# One client hurts others.

@bug("reset-before-greeting", "reset-in-mid-message", "reset-with-unsent-answers",
     "connect-and-leave")
class DiesOnReset(Server):
    def lost(self, conn, error):
        raise error


class HasLittleRoom(Server):
    """It cannot send all before a reset comes, however busy the machine."""

    def run(self):
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        super().run()


@bug("disconnect-in-mid-send")
class DiesOfSigpipe(HasLittleRoom):
    def run(self):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        super().run()


@bug("reset-with-unsent-answers", "disconnect-in-mid-send")
class SendsAgainAfterAnError(Server):
    def lost(self, conn, error):
        if len(conn.unsent) > 1000:     # more than the greeting
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            with contextlib.suppress(OSError):
                conn.sock.send(b"x")
        super().lost(conn, error)


@bug("reset-with-unsent-answers", "disconnect-in-mid-send")
class EndsWhenASendFails(Server):
    def lost(self, conn, error):
        if len(conn.unsent) > 1000:
            self.say("terminate called after throwing an instance of 'std::runtime_error'")
            os.abort()
        super().lost(conn, error)


@bug("reset-before-greeting")
class StopsAcceptingAfterAReset(HasLittleRoom):
    accept_burst = 1
    deaf = False

    def lost(self, conn, error):
        super().lost(conn, error)
        self.deaf = True

    def accept_clients(self):
        if self.deaf:
            time.sleep(0.01)
        else:
            super().accept_clients()


@bug("reset-before-greeting", "reset-in-mid-message", "connect-and-leave")
class LeaksADescriptorOnError(HasLittleRoom):
    kept = []

    def lost(self, conn, error):
        self.kept.append(os.dup(conn.sock.fileno()))
        super().lost(conn, error)


@bug("chaos")
class LeaksADescriptorWhenSendFails(Server):
    kept = []

    def lost(self, conn, error):
        if len(conn.unsent) > 1:
            self.kept.append(os.dup(conn.sock.fileno()))
        super().lost(conn, error)


@bug("never-reading-client", "never-reading-trickle")
class BuffersWithoutBound(Server):
    def pump(self, conn, mask):
        if mask & selectors.EVENT_READ and conn in self.conns:
            unsent, conn.unsent = conn.unsent or bytearray(), b""
            try:
                self.read(conn)
            except OSError as error:
                self.lost(conn, error)
                return
            unsent += conn.unsent       # in place, because copies would take long
            conn.unsent = unsent
        super().pump(conn, selectors.EVENT_WRITE)
        if conn in self.conns and conn.unsent:
            self.selector.modify(conn.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, conn)


@bug("bytes-outside-messages")
class KeepsWhatItIgnores(Server):
    class conn_class(Conn):
        ignored = None

        def feed(self, data):
            if not self.inside:
                self.ignored = self.ignored or bytearray()
                self.ignored += data
            return super().feed(data)


@bug("half-close-and-never-read", "stop-with-a-client-that-never-reads")
class BlocksInSend(Server):
    def write(self, conn):
        conn.sock.setblocking(True)
        conn.sock.sendall(conn.unsent)
        conn.sock.setblocking(False)
        conn.unsent = b""


@bug("one-byte-a-second")
class HasNoPatienceWithSlowReaders(Server):
    def write(self, conn):
        began = time.monotonic()
        super().write(conn)
        while conn.unsent:
            if time.monotonic() > began + 0.02:
                raise TimeoutError
            time.sleep(0.005)
            super().write(conn)


@bug("one-byte-a-second")
class ClosesClientsThatPause(Server):
    def __init__(self, options):
        super().__init__(options)
        self.options.idle_timeout = 1.5


@bug("idle-clients")
class Spins(Server):
    def timeout(self):
        return 0.0

    def close_idle(self):
        pass    # so that there is a client to spin for


@bug("urgent-data")
class TakesUrgentDataForAnError(Server):
    def read(self, conn):
        urgent = select.poll()
        urgent.register(conn.sock, select.POLLPRI)
        if urgent.poll(0):
            raise OSError("exceptional condition")
        super().read(conn)


@bug("urgent-data-is-not-answered")
class TakesUrgentDataForData(Server):
    def admit(self, sock, peer):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        super().admit(sock, peer)


@bug("two-hundred-clients", "thousand-clients")
class ServesOneAtATime(Server):
    accept_burst = 1
    most = 1

    def accept_clients(self):
        if len(self.conns) < self.most:
            super().accept_clients()
        else:
            time.sleep(0.001)   # the listener stays ready meanwhile


@bug("two-hundred-clients", "thousand-clients")
class ServesTenAtATime(ServesOneAtATime):
    most = 10


@bug("two-hundred-clients", "thousand-clients", "idle-clients")
class HoldsALockInRecv(Server):
    """As threads that take a lock before recv. Its holder takes it again before any other."""

    def is_active(self, conn):
        pass    # the clients stay in the order in which they came

    def read(self, conn):
        if conn is next(iter(self.conns)):
            super().read(conn)
        else:
            time.sleep(0.001)


@bug("idle-clients")
class TakesTurnsInRecv(HoldsALockInRecv):
    is_active = Server.is_active    # the next holder is the client that has waited longest

    class conn_class(Conn):
        received = 0

        def feed(self, data):
            self.received += len(data)
            return super().feed(data)

    def read(self, conn):
        if conn.received > 1 << 16:     # else it depends on timing how large messages go
            Server.read(self, conn)
        else:
            super().read(conn)


@bug("stop-with-clients")
class PassesAPointerToItsDescriptor(Server):
    """The variable is overwritten by the next accept before the thread has read it."""

    kept = []

    def accept_clients(self):
        time.sleep(0.1)     # until the thread runs
        super().accept_clients()
        if self.kept:
            super().admit(*self.kept.pop())

    def admit(self, sock, peer):
        self.kept.append((sock, peer))


@bug("two-hundred-clients", "thousand-clients")
class HasAShortBacklog(Server):
    backlog = 0
    accept_burst = 1

    def accept_clients(self):
        time.sleep(0.005)
        super().accept_clients()


@bug("ten-thousand-idle")
class DiesOfTooManyToSelect(Server):
    def __init__(self, options):
        super().__init__(options)
        self.selector = selectors.SelectSelector()


@bug("ten-thousand-idle")
class IsFullAtFiveThousand(Server):
    def admit(self, sock, peer):
        if len(self.conns) < 5000:
            super().admit(sock, peer)
        else:
            sock.close()


@bug("beyond-capacity", suite=("--capacity", "1000"))
class GoesBeyondSelect(Server):
    def admit(self, sock, peer):
        if sock.fileno() >= 1024:
            os.abort()
        super().admit(sock, peer)


@bug("fairness", "served-amid-floods", "one-turn-each")
class StarvesOthers(Server):
    def pump(self, conn, mask):
        """Serve this one for as long as it has anything to say, and once it has said much wait
        for more."""
        super().pump(conn, mask)
        end = time.monotonic() + 5      # it must be possible to stop it
        more, before = select.poll(), self.counters["bytes_in"]
        while conn in self.conns and time.monotonic() < end:
            more.register(conn.sock, select.POLLOUT if conn.unsent else select.POLLIN)
            much = self.counters["bytes_in"] - before > 16 * CHUNK
            if not more.poll(200 if much else 5):
                return
            super().pump(conn, selectors.EVENT_READ | selectors.EVENT_WRITE)


@bug("new-connections-take-turns", suite=("--also", FAIR_ACCEPT))
class AcceptsAllFirst(Server):
    accept_burst = 100000


@bug("stopped-and-continued", "interrupted", "closed-output")
class TakesAnInterruptForTheEnd(Server):
    def run(self):
        signal.signal(signal.SIGCONT, self.hang_up)
        signal.signal(signal.SIGUSR1, self.hang_up)
        super().run()

    def hang_up(self, *_):
        if self.conns:
            self.drop(next(iter(self.conns)))


@bug("chaos", "reused-descriptors")
class ClosesTheWrongClient(Server):
    def lost(self, conn, error):
        self.drop(conn)
        if len(self.conns) > 1:
            self.drop(next(iter(self.conns)))


# Limits.

@bug("no-leaks")
class LeaksADescriptorPerClient(Server):
    kept = []

    def drop(self, conn):
        self.kept.append(os.dup(conn.sock.fileno()))
        super().drop(conn)


@bug("no-leaks")
class LeaksMemory(Server):
    kept = []

    def drop(self, conn):
        self.kept.append(os.urandom(2000))
        super().drop(conn)


@bug("no-leaks")
class LeaksALittle(Server):
    """32 bytes per client: malloc gives no less. They are not taken from the memory that
    Python has free after its start, in which they would fit for long."""

    kept = mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE)

    def drop(self, conn):
        self.kept.write(bytes(32))
        super().drop(conn)


@bug("no-leaks")
class LeaksUnsentAnswers(Server):
    kept = []

    def drop(self, conn):
        if conn.unsent:
            self.kept.append(mmap.mmap(-1, len(conn.unsent)))   # as in LeaksALittle
            self.kept[-1].write(conn.unsent)
        super().drop(conn)


@bug("no-leaks")
class LeaksAThreadPerClient(Server):
    never = threading.Event()

    def drop(self, conn):
        if threading.active_count() < 500:
            threading.Thread(target=self.never.wait, daemon=True).start()
        super().drop(conn)


@bug("no-leaks")
class LeavesZombies(Server):
    def drop(self, conn):
        super().drop(conn)
        if self.counters["clients_served"] < 500 and os.fork() == 0:
            os._exit(0)


@bug("out-of-descriptors-12", "out-of-descriptors-64", "out-of-descriptors-256")
class DiesOutOfDescriptors(Server):
    def reject_by_spare(self):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@bug("out-of-descriptors-64")
class LeavesThemWaitingOutOfDescriptors(Server):
    def reject_by_spare(self):
        time.sleep(0.01)


@bug("out-of-descriptors-12", "out-of-descriptors-64", "out-of-descriptors-256")
class StopsAcceptingOutOfDescriptors(Server):
    def reject_by_spare(self):
        self.say(os.strerror(errno.EMFILE))
        self.selector.modify(self.listener, selectors.EVENT_WRITE)  # which never comes


@bug("lowered-descriptor-limit")
class DiesOfTooManyToPoll(Server):
    def __init__(self, options):
        super().__init__(options)
        self.selector = selectors.PollSelector()


def memory_is_short():
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


class HasAThreadPerClient(Server):
    class conn_class(Conn):
        left = None

    def admit(self, sock, peer):
        super().admit(sock, peer)
        conn = next(reversed(self.conns), None)
        if conn and not conn.left and len(self.conns) < 500:
            conn.left = threading.Event()
            try:
                threading.Thread(target=conn.left.wait, daemon=True).start()
            except RuntimeError as error:
                if not memory_is_short():
                    self.without_thread(error)

    def drop(self, conn):
        if conn.left:
            conn.left.set()
        super().drop(conn)


@bug("out-of-threads")
class DiesWithoutThreads(HasAThreadPerClient):
    def without_thread(self, error):
        self.say(repr(error))
        os.abort()


@bug("out-of-threads")
class StopsAcceptingWithoutThreads(HasAThreadPerClient):
    def without_thread(self, error):
        self.say(repr(error))
        self.selector.modify(self.listener, selectors.EVENT_WRITE)  # which never comes


@bug("out-of-memory")
class DiesWithoutMemory(Server):
    def lost(self, conn, error):
        if isinstance(error, MemoryError):
            os.abort()
        super().lost(conn, error)

    def write(self, conn):
        super().write(conn)
        if conn.unsent:
            conn.buffer = bytearray(16 * CHUNK)     # more than Python may have free already


@bug("out-of-memory")
class HasARuntimeThatDiesWithoutMemory(DiesWithoutMemory):
    def lost(self, conn, error):
        if isinstance(error, MemoryError):
            os.write(1, b"FATAL ERROR: Reached heap limit - JavaScript heap out of memory\n")
        super().lost(conn, error)


@bug("memory-returns")
class DiesWhileMemoryIsShort(Server):
    def admit(self, sock, peer):
        if memory_is_short():
            os.abort()
        super().admit(sock, peer)


@bug("memory-returns")
class AllocatesForEachRecv(Server):
    def read(self, conn):
        if memory_is_short():
            raise MemoryError
        super().read(conn)


@bug("memory-returns")
class HasARuntimeThatDiesWhileMemoryIsShort(Server):
    def admit(self, sock, peer):
        if memory_is_short():
            os.write(1, b"runtime/cgo: pthread_create failed: Resource unavailable\n")
            os._exit(2)
        super().admit(sock, peer)


@bug("memory-returns")
class TakesNobodyOnceMemoryWasShort(Server):
    short = False

    def admit(self, sock, peer):
        self.short = self.short or memory_is_short()
        if self.short:
            raise MemoryError
        super().admit(sock, peer)


@bug("max-clients")
class IgnoresMaxClients(Server):
    def admit(self, sock, peer):
        self.options.max_clients = None
        super().admit(sock, peer)


@bug("max-clients")
class CountsClientsForEver(Server):
    def admit(self, sock, peer):
        if self.counters["clients_served"] == self.options.max_clients:
            sock.close()
        else:
            super().admit(sock, peer)


@bug("rejections-in-the-log")
class LogsEveryRejection(Server):
    def rejected(self, peer, why):
        self.rejection_said = float("-inf")
        super().rejected(peer, why)


@bug("rejections-in-the-log", "out-of-descriptors-12", "out-of-descriptors-64",
     "out-of-descriptors-256")
class RejectsWithoutALine(Server):
    def rejected(self, peer, why):
        self.counters["clients_rejected"] += 1


@bug("max-clients")
class CountsALeavingClientTooLong(Server):
    left = float("-inf")

    def drop(self, conn):
        super().drop(conn)
        self.left = time.monotonic()

    def admit(self, sock, peer):
        if self.options.max_clients == 1 and time.monotonic() < self.left + 0.005:
            sock.close()
            self.rejected(peer, "at --max-clients")
        else:
            super().admit(sock, peer)


@bug("rejections-are-counted")
class CountsNoRejections(Server):
    def rejected(self, peer, why):
        super().rejected(peer, why)
        self.counters["clients_rejected"] -= 1


@bug("few-descriptors-are-reported")
class HidesHowFewClientsItCanTake(Server):
    def say(self, line):
        if "room for" not in line:
            super().say(line)


@bug("idle-timeout")
class NeverClosesIdleClients(Server):
    def timeout(self):
        return None

    def close_idle(self):
        pass


@bug("idle-timeout")
class SeesIdleClientsOnlyWhenOthersSend(Server):
    def timeout(self):
        return None

    def close_idle(self):
        limit = self.options.idle_timeout or float("inf")
        for conn, since in list(self.conns.items()):
            if since + limit < time.monotonic():
                self.drop(conn)


@bug("idle-timeout-amid-signals")
class TakesASignalForActivity(Server):
    def want_report(self, *_):
        super().want_report()
        for conn in list(self.conns):
            self.conns[conn] = time.monotonic()


@bug("idle-timeout-frozen")
class LooksForIdleClientsFirst(Server):
    def pump(self, conn, mask):
        self.close_idle()
        if conn in self.conns:
            super().pump(conn, mask)

    def has_moved(self, conn):
        return conn.unsent and super().has_moved(conn)


@bug("idle-timeout-spares-active-clients")
class TakesSlowReadersForIdle(Server):
    def close_idle(self):
        while self.timeout() == 0.0:
            self.drop(next(iter(self.conns)))


@bug("idle-timeout-spares-active-clients")
class ClosesActiveClientsToo(Server):
    def read(self, conn):
        since = self.conns[conn]
        super().read(conn)
        self.conns[conn] = since
        self.conns.move_to_end(conn, last=False)


# Starting.

@bug("greets-a-client")
class ListensElsewhere(Server):
    def listen(self):
        self.options.port = 0
        super().listen()

    def announce(self):
        pass


@bug("greets-a-client")
class NeverListens(Server):
    def listen(self):
        self.listener = socket.socket()
        self.spare = os.dup(0)

    def announce(self):
        pass


@bug("greets-a-client")
class EndsAtItsStart(Server):
    def listen(self):
        raise SystemExit(sys.argv[99])


@bug("greets-a-client")
class SaysThatItListensTooEarly(Server):
    def listen(self):
        self.say(f"Listening on 127.0.0.1:{self.options.port}")
        time.sleep(0.3)
        super().listen()

    def announce(self):
        pass


@bug("known-exchange")
class EndsAfterOneClient(Server):
    def drop(self, conn):
        super().drop(conn)
        self.stopping = True


@bug("listening-line")
class DoesNotSayThatItListens(Server):
    def announce(self):
        pass


@bug("bind")
class PrintsAddressesWithoutBrackets(Server):
    def say(self, line):
        super().say(line.replace("[", "").replace("]", ""))


@bug("port-of-another-server")
class SharesItsPort(Server):
    def listen(self):
        socket.SO_REUSEADDR = socket.SO_REUSEPORT
        super().listen()


@bug("busy-port", "busy-port-is-a-failure")
class ExitsZeroWhenItCannotListen(Server):
    @staticmethod
    def fail(what, error):
        Server.fail(what, error)
        return 0


@bug("busy-port", "privileged-port", "unknown-host", "unwritable-stats-file",
     "help-into-a-full-disk")
class DiesWithATraceback(Server):
    @staticmethod
    def fail(what, error):
        raise error


@bug("wrong-command-lines")
class ExitsOneOnUsageErrors(Server):
    exit_status = {2: 1}


@bug("wrong-command-lines")
class LeavesItToTheUsage(Server):
    @staticmethod
    def explain(message):
        return "error"


@bug("help-and-version")
class ExitsTwoAfterHelp(Server):
    exit_status = {0: 2}


@bug("quiet")
class IsNeverQuiet(Server):
    def say_of(self, conn, what):
        self.say(f"peer {conn.peer[:2]} {what}")


@bug("stats-file")
class CountsWrong(Server):
    def write(self, conn):
        super().write(conn)
        self.counters["bytes_out"] += 1


@bug("stats-file")
class KeepsAnOldReport(Server):
    def open_stats(self):
        if self.options.stats:
            self.stats_file = open(self.options.stats, "a", encoding="utf-8")


@bug("stats-file", "interrupted")
class ReportsWrongFigures(Server):
    def write_stats(self):
        self.counters["clients_served"] = 0
        super().write_stats()


@bug("stats-into-a-full-disk")
class LosesItsReport(Server):
    def write_stats(self):
        super().write_stats()
        self.report_lost = False


@bug("listens-on-loopback")
class ListensEverywhere(Server):
    def listen(self):
        self.options.bind = "0.0.0.0"
        super().listen()


@bug("closed-descriptors")
class LogsIntoAClient(Server):
    def listen(self):
        super().listen()
        self.no_output = os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev

    def admit(self, sock, peer):
        if self.no_output:
            os.dup2(sock.fileno(), 1)
        super().admit(sock, peer)


@bug("closed-output", "full-disk", "file-size-limit")
class DiesWithItsLog(Server):
    def say(self, line):
        os.write(1, (line + "\n").encode())


@bug("unread-output")
class WaitsForItsLog(Server):
    def say(self, line):
        try:
            os.write(1, (line + "\n").encode())
        except OSError:
            pass


@bug("unread-terminal")
class TrustsATerminal(Server):
    def catch_signals(self):
        super().catch_signals()
        os.set_blocking(1, True)


@bug("unread-error-output")
class WaitsForItsErrorOutput(Server):
    def announce(self):
        os.write(2, b"room for few clients\n")
        super().announce()


@bug("blocked-signals")
class LeavesSignalsBlocked(Server):
    def unblock_signals(self):
        pass


@bug("connect-and-disconnect-lines")
class LogsADisconnectTwice(Server):
    def lost(self, conn, error):
        super().lost(conn, error)
        self.say_of(conn, "disconnected")


@bug("stray-alarm")
class DiesOfAnAlarm(Server):
    def catch_signals(self):
        super().catch_signals()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


@bug("stats-file")
class EmptiesItsReportFirst(Server):
    def write_stats(self):
        if self.options.stats:
            self.stats_file.truncate(0)
            time.sleep(0.001)
        super().write_stats()


# Stopping.

@bug("stop-with-clients", "stop-alone", "stop-under-load", "stop-out-of-descriptors")
class IgnoresSigterm(Server):
    def stop(self, signum, _):
        self.stopping = signum == signal.SIGINT


@bug("interrupt-with-clients")
class IgnoresSigint(Server):
    def stop(self, signum, _):
        self.stopping = signum == signal.SIGTERM


@bug("stop-amid-signals")
class CatchesSigtermOnce(Server):
    def finish(self):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        super().finish()


@bug("stop-with-clients")
class DiesOfSigterm(Server):
    def stop(self, signum, _):
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


@bug("stop-alone", "stop-with-clients")
class EndsAsJavaDoesOnSigterm(Server):
    def finish(self):
        super().finish()
        os._exit(128 + signal.SIGTERM)


@bug("greets-a-client", "stop-alone", "stop-with-clients")
class LeavesItsChildrenBehind(Server):
    def admit(self, sock, peer):
        super().admit(sock, peer)
        if os.fork() == 0:
            while True:
                signal.pause()


@bug("second-interrupt")
class WaitsForItsClientsToLeave(Server):
    def stop(self, signum, _):
        self.stopping = True

    def finish(self):
        while self.conns:
            for key, mask in self.selector.select():
                if isinstance(key.data, Conn):
                    self.pump(key.data, mask)


@bug("stop-at-the-listening-line")
class CatchesSignalsTooLate(Server):
    def catch_signals(self):
        pass

    def announce(self):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        super().announce()
        time.sleep(0.1)
        super().catch_signals()


@bug("stop-accepts-no-more")
class GoesOnAcceptingAtItsEnd(Server):
    def finish(self):
        self.kept = self.listener.dup()
        super().finish()


@bug("stop-with-a-client-that-never-reads", "stop-under-load")
class DelaysItsEnd(Server):
    def stop(self, signum, frame):
        super().stop(signum, frame)
        self.asked = time.monotonic()

    def finish(self):
        while time.monotonic() < self.asked + 1.0:
            time.sleep(0.01)
        super().finish()


@bug("stop-with-a-client-that-never-reads")
class SpinsAtItsEnd(Server):
    def finish(self):
        select_any = self.selector.select
        self.selector.select = lambda timeout: select_any(0)
        super().finish()


@bug("stop-sends-unsent-answers")
class DropsUnsentAnswersAtAPause(Server):
    def finish(self):
        time.sleep(0.01)
        for conn in list(self.conns):
            self.write(conn)
            self.drop(conn)


@bug("stop-answers-what-has-arrived")
class LooksForIdleClientsFirstAtItsEnd(Server):
    def pump(self, conn, mask):
        if self.stopping and time.monotonic() - self.conns.get(conn, math.inf) > 0.05:
            self.drop(conn)
        else:
            super().pump(conn, mask)


@bug("stop-sends-unsent-answers")
class StopsAtOnce(Server):
    def finish(self):
        pass


@bug("stop-as-process-1")
class IsDeafAsProcess1(Server):
    def stop(self, signum, _):
        signal.signal(signum, signal.SIG_DFL)   # which process 1 ignores
        os.kill(os.getpid(), signum)


@bug("no-dev-null")
class NeedsDevNull(Server):
    def listen(self):
        super().listen()
        os.close(self.spare)
        self.spare = os.open(os.devnull, os.O_RDONLY)


@bug("wall-clock-set-forward")
class WaitsByTheWallClock(Server):
    def finish(self):
        libc, semaphore = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        libc.sem_init(semaphore, 0, 0)
        until = time.time() + 0.2
        libc.sem_timedwait(semaphore, struct.pack("ll", int(until), 0))
        super().finish()


@bug("port-is-free-again")
class CannotBindAgain(Server):
    def listen(self):
        setsockopt = socket.socket.setsockopt
        socket.socket.setsockopt = lambda sock, level, option, value: (
            option == socket.SO_REUSEADDR or setsockopt(sock, level, option, value))
        super().listen()
