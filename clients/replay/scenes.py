"""What is recorded: which clients talk to which server, and when.

A scene is a list of clients; each is a list of actions, carried out one after another:

    ("wait", seconds)           from the start of the scene, or until then if that is later
    ("pause", seconds)
    ("connect", receive_buffer) the second word may be missing
    ("greeting", bytes)         read this many
    ("send", data, expected)    expected: bytes of answers that this message will get
    ("answers",)                read until all that was expected has come
    ("flood", data, expected, seconds)  send without reading until nothing is taken for
                                this long; then do both
    ("some", seconds)           read all that comes in this time
    ("end",)                    close the sending side, read until the server closes
    ("vanish",)                 close

SIMPLE stands for clients/simple-client.py instead, with this many clients.
"""

import contextlib
import select
import socket
import threading
import time
from collections import namedtuple

SCALE = 0.2         # of simple-client's pauses
PATIENCE = 30
PRIME = 99999999999999997   # prime_server needs about 0.3 s for it
SIMPLE = "simple"

Scene = namedtuple("Scene", "name title clients stop_after descriptors")
Scene.__doc__ = """stop_after: seconds after which the server is told to stop (None: when all
clients have left). descriptors: how many the server may open beyond those it has when it
listens (None: no limit)."""
Scene.__new__.__defaults__ = (None, None)

TALK = ("send", b"^abc$de^abte$f", 7), ("answers",)
SECOND = ("send", b"xyz^123", 3), ("answers",)
THIRD = ("send", b"25$^ab0000$abab", 8), ("answers",)
HELLO = ("connect",), ("greeting", 1)


def active_client(begin):
    return [("wait", begin), *HELLO, *TALK, ("pause", 0.2), *SECOND, ("pause", 0.2), *THIRD,
            ("end",)]


def early(begin):
    return [("wait", begin), ("connect",), ("send", b"^abc$", 3), ("greeting", 1), ("answers",),
            ("pause", 0.1), ("send", b"^hello$", 5), ("answers",), ("end",)]


def ask(begin, line, answer, times=1, pause=0.02, greeting=0):
    one = [("send", line, answer), ("answers",), ("pause", pause)]
    hello = [("greeting", greeting)] if greeting else []
    return [("wait", begin), ("connect",), *hello, *one * times, ("end",)]


IDLE = [("wait", 0.0), *HELLO, ("pause", 0.9), ("end",)]
FLOOD = b"^" + b"a" * 5999999
EDGE = b"^" + b"a" * 9999
SCENES = {scene.name: scene for scene in (
    Scene("five", "five clients", SIMPLE),
    Scene("idle", "one idle client among five",
          [IDLE] + [active_client(0.02 * i) for i in range(1, 5)]),
    Scene("early", "clients that send before they are greeted",
          [early(0.02 * i) for i in range(3)]),
    Scene("slow-reader", "a client that sends without reading, beside two others",
          [[("wait", 0.0), ("connect", 4096), ("greeting", 1),
            ("flood", FLOOD, len(FLOOD) - 1, 0.8), ("end",)],
           active_client(0.05), active_client(0.1)]),
    Scene("slow-command", "one command that computes for 0.3 s",
          [ask(0.1, b"SLOW 300\n", 5, greeting=6),
           ask(0.0, b"hi\n", 3, 20, greeting=6),
           ask(0.2, b"new\n", 4, greeting=6)]),
    Scene("primes", "five large primes and one small",
          [ask(0.05, b"%d\n" % PRIME, 6) for _ in range(5)] + [ask(0.0, b"7\n", 6, 8)]),
    Scene("edge", "one message of 10,000 bytes, and 0.3 s later one byte more",
          [[("wait", 0.0), *HELLO, ("send", EDGE, len(EDGE) - 1), ("some", 0.3),
            ("send", b"a", 1), ("some", 0.3), ("vanish",)]]),
    Scene("descriptors", "five clients, and descriptors for three",
          [active_client(0.05 * i) for i in range(5)], descriptors=3),
    Scene("stop", "told to stop while five clients talk",
          [active_client(0.02 * i) for i in range(5)], stop_after=0.3),
)}

# Which servers play which scene. A server is named as by make: 6, or 6/edge for a variant, or
# the program below its step's build/demos/ with its options.
STEPS = "1", "2", "3", "4", "5", "6", "7", "8"
VARIANTS = ("2/fork", "2/pool", "2/prefork", "5/poll", "6/edge", "6/io_uring", "6/kqueue",
            "6/workers", "8/ae_kqueue", "8/ae_poll", "8/ae_select", "8/fiber")
SERIAL = "1", "3"       # they never have more than one client's descriptor
CONCURRENT = tuple(step for step in STEPS if step not in SERIAL)
PLAN = (
    *((server, "five") for server in STEPS + VARIANTS),
    *((server, scene) for scene in ("idle", "early", "slow-reader", "stop")
      for server in STEPS),
    *((server, "descriptors") for server in CONCURRENT),
    *((server, "slow-reader") for server in ("6/edge", "8/fiber")),
    *((f"8/demos/slow_command --mode {mode}", "slow-command")
      for mode in ("block", "slices", "worker")),
    *((f"7/demos/prime_server --mode {mode}", "primes") for mode in ("block", "pool")),
    ("6/demos/edge_wrong", "edge"),
    ("6/edge", "edge"),
)


class Actor(threading.Thread):
    """One client of a scene. It notes what simple-client notes, in the same words."""

    def __init__(self, number, actions, address, epoch):
        super().__init__(daemon=True)
        self.name, self.actions = f"conn{number}", actions
        self.address, self.epoch = address, epoch
        self.sock, self.expected, self.received = None, 0, 0
        self.report = dict.fromkeys(("failure", "local_port", "connect", "greeting",
                                     "disconnect", "close"))
        self.report.update(name=self.name, sends=[], receives=[])

    def now(self):
        return time.monotonic() - self.epoch

    def run(self):
        try:
            for action, *arguments in self.actions:
                getattr(self, "do_" + action)(*arguments)
        except (OSError, EOFError) as error:
            self.report["failure"] = str(error)
        finally:
            if self.sock is not None:
                self.report["close"] = self.now()
                self.sock.close()

    def do_wait(self, until):
        time.sleep(max(0, until - self.now()))

    def do_pause(self, seconds):
        time.sleep(seconds)

    def do_connect(self, receive_buffer=None):
        self.report["connecting"] = self.now()
        self.sock = socket.socket()
        self.sock.settimeout(PATIENCE)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect(self.address)
        self.report["local_port"] = self.sock.getsockname()[1]
        self.report["connect"] = self.now()

    def do_greeting(self, size):
        while size:
            data = self.sock.recv(size)
            if not data:
                raise EOFError("the server closed before its greeting")
            size -= len(data)
        self.report["greeting"] = self.now()

    def do_send(self, data, expected):
        self.expected += expected
        self._note_send(len(data), data)
        self.sock.sendall(data)

    def do_answers(self):
        while self.received < self.expected:
            if not self._receive():
                raise EOFError("the server closed before its answer")

    def do_some(self, seconds):
        end = self.now() + seconds
        while select.select([self.sock], [], [], max(0, end - self.now()))[0]:
            if not self._receive():
                return

    def do_flood(self, data, expected, seconds):
        self.expected += expected
        self.sock.setblocking(False)
        stalled = False
        while data or self.received < self.expected:
            ready = select.select([self.sock] if stalled else [], [self.sock] if data else [],
                                  [], PATIENCE if stalled else seconds)
            if not ready[0] and not ready[1]:
                if stalled:
                    raise EOFError("the server neither reads nor sends")
                stalled = True
            if ready[1]:
                with contextlib.suppress(BlockingIOError):
                    at = self.now()
                    sent = self.sock.send(data[:1 << 20])
                    self.report["sends"].append((at, sent, "", self.expected))
                    data = data[sent:]
            if ready[0] and not self._receive(1 << 20):
                raise EOFError("the server closed before its answer")
        self.sock.settimeout(PATIENCE)

    def do_end(self):
        self.report["disconnect"] = self.now()
        self.sock.shutdown(socket.SHUT_WR)
        while self._receive():
            pass

    def do_vanish(self):
        self.report["disconnect"] = self.now()

    def _note_send(self, size, data):
        self.report["sends"].append((self.now(), size, data[:24].decode("latin-1"),
                                     self.expected))

    def _receive(self, most=65536):
        data = self.sock.recv(most)
        if data:
            self.received += len(data)
            self.report["receives"].append((self.now(), len(data), data[:24].decode("latin-1")))
        return len(data)


def play(scene, address):
    """Run the clients; return (start by the wall clock, [report])."""
    started, epoch = time.time(), time.monotonic()
    actors = [Actor(i, actions, address, epoch) for i, actions in enumerate(scene.clients)]
    for actor in actors:
        actor.start()
    return started, epoch, actors
