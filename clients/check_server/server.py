"""The server under test: started, watched, always ended."""

import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import namedtuple
from contextlib import contextmanager

from . import proc
from .client import Client
from .errors import Failure
from .protocol import KNOWN_EXCHANGE

LISTENING = re.compile(r"^Listening on (\S+):(\d+)\s*$", re.MULTILINE)
SANITIZER = re.compile(r"ERROR: \w*Sanitizer|WARNING: ThreadSanitizer|runtime error:")
STOP_SECONDS = 2.0
IDLE_WINDOW, CALM_WINDOW = 0.02, 0.15  # seconds to watch its processor time
POLL = 0.003

Stopped = namedtuple("Stopped", "status seconds")


def free_port(host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, 0))
        return probe.getsockname()[1]


class Server:
    """A running server: `with t.server("--max-clients", "2") as s:`.

    Attributes: pid, port, address, and the process's standard output and error in log_text().
    Options: port (else a free one), host to connect to, env (added to the environment),
    rlimits ({resource.RLIMIT_NOFILE: 64}, set before it starts), user (a uid to run as),
    stdin, stdout, stderr (anything subprocess takes; the log, which is a file, if None),
    closed (descriptors it starts without), health=False (no check-up on leaving).
    """

    prints_listening = True     # until a server is seen not to

    def __init__(self, command, args=(), ephemeral=False, patience=5.0, slow=1.0,
                 strict=True, serial=False, port=None, host="127.0.0.1", env=None,
                 rlimits=None, user=None, stdin=subprocess.DEVNULL, stdout=None, stderr=None,
                 closed=(), health=True):
        quiet = stdout is not None or closed
        self.ephemeral = ephemeral and port is None and not quiet
        self.port = 0 if self.ephemeral else port or free_port(host)
        self.host = host
        self.command = [*command, *args, str(self.port)]
        self.patience = patience
        self.slow = slow
        self.strict = strict
        self.serial = serial
        self.env = {**os.environ, **(env or {})}
        self.rlimits = rlimits or {}
        self.user = user
        self.closed = closed
        self.check_health = health
        self.silent = quiet
        self.log = tempfile.TemporaryFile()
        self.streams = {"stdin": stdin, "stdout": stdout or self.log,
                        "stderr": stderr or self.log}
        self.process = None
        self.clients = []
        self.stopped = None
        self.last_seen = "not started"

    # Life.

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.stopped is None:
                if self.check_health:
                    self.health()
                self.stop()
            elif kind is not None and self.stopped is None:
                self.eventually(lambda: not self.alive(), 0.3)  # it may be dying just now
        finally:
            self.kill()

    def start(self):
        try:
            self.process = subprocess.Popen(
                self.command, env=self.env, start_new_session=True, user=self.user,
                preexec_fn=self._prepare, **self.streams)
        except OSError as error:
            raise Failure("cannot start %s: %s" % (self.command[0], error)) from error
        except subprocess.SubprocessError as error:
            raise Failure("cannot prepare the start of %s: %s"
                          % (self.command[0], error)) from error
        self._wait_until_it_listens()
        self.descriptors_at_start = self.fd_count() if proc.AVAILABLE else None

    def _prepare(self):
        """Runs in the child, between fork and exec."""
        for which, value in self.rlimits.items():
            resource.setrlimit(which, value if isinstance(value, tuple) else (value, value))
        for descriptor in self.closed:
            os.close(descriptor)

    def _wait_until_it_listens(self):
        """Wait for its `Listening on` line; failing that, until it accepts."""
        deadline = time.monotonic() + 2 * self.patience
        probing = time.monotonic() + 0.3 * self.slow
        while True:
            match = LISTENING.search(self.log_text())
            if match:
                self.port = int(match.group(2))
                return
            if self.process.poll() is not None:
                raise Failure("ended at its start: %s" % self.describe())
            if not self.ephemeral and (self.silent or not Server.prints_listening
                                       or time.monotonic() > probing):
                if self.accepts():
                    if not self.silent:
                        Server.prints_listening = False
                    return
            if time.monotonic() > deadline:
                raise Failure("neither printed `Listening on ADDRESS:PORT` nor accepted "
                              "within %g s" % (2 * self.patience))
            time.sleep(POLL)

    def accepts(self):
        """Whether somebody who knocks now is connected, be it only by the kernel."""
        try:
            with socket.create_connection(self.address, timeout=self.patience):
                return True
        except OSError:
            return False

    def stop(self, signum=signal.SIGTERM, within=None):
        """Ask it to stop; see it go in time with status 0; return (status, seconds)."""
        if self.stopped is None:
            self.signal(signum)
            self.wait(STOP_SECONDS * self.slow if within is None else within,
                      "signal %d" % signum)
            by_our_signal = self.stopped.status == -signum and not self.strict
            if self.stopped.status != 0 and not by_our_signal:
                raise Failure("asked to stop by %s, it did not exit with status 0: %s"
                              % (signal.Signals(signum).name, self.describe()))
        return self.stopped

    def signal_and_see_it_taken(self, signum):
        """Signal, and wait until its handler runs: the same signal twice may merge into one."""
        self.signal(signum)
        if proc.AVAILABLE:
            self.eventually(lambda: not proc.is_pending(self.pid, signum))

    def wait(self, seconds=None, why="the wait began"):
        """See it end by itself; return (status, seconds)."""
        seconds = self.patience if seconds is None else seconds
        began = time.monotonic()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure("still running %g s after %s" % (seconds, why)) from None
        self.stopped = Stopped(self.process.returncode, time.monotonic() - began)
        found = SANITIZER.search(self.log_text())
        if found:
            raise Failure("a sanitizer complained: %s" % found.group())
        self._leaves_nobody_behind()
        return self.stopped

    def _leaves_nobody_behind(self):
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            try:
                os.killpg(self.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            if time.monotonic() > deadline:
                raise Failure("it ended but left processes of its own behind")
            time.sleep(POLL)

    def kill(self):
        """End it by force, with whatever it started, and close all our ends."""
        if self.process is not None:
            self.last_seen = self.describe()
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass    # nobody is left of the group it led
            self.process.wait()
            self.process = None
        for client in self.clients:
            client.close()

    def signal(self, signum):
        """Send a signal. A stopped clock never passes: an ended process is a failure."""
        if self.process.poll() is not None:
            raise Failure("it ended on its own: %s" % self.describe())
        self.process.send_signal(signum)

    # Talking to it.

    @property
    def address(self):
        return (self.host, self.port)

    def connect(self, **options):
        """A new client that has not read its greeting yet; options as Client takes them."""
        options.setdefault("patience", self.patience)
        client = Client(self.address, **options)
        self.clients.append(client)
        return client

    def crowd(self, count, **options):
        """So many clients at once, all greeted."""
        return [client.greeting() for group in self._arrive(count, **options)
                for client in group]

    def fill(self, count):
        """So many newcomers: those admitted, and how many were turned away."""
        admitted = [client for group in self._arrive(count)
                    for client in group if client.admitted()]
        return admitted, count - len(admitted)

    def _arrive(self, count, **options):
        """Newcomers in groups that fit the backlog: five is what many servers ask for."""
        size = 100 if self.strict else 4
        for start in range(0, count, size):
            yield [self.connect(**options) for _ in range(min(size, count - start))]

    def knock(self):
        """A newcomer: the client if it is admitted, None if it is turned away."""
        client = self.connect()
        if client.admitted():
            return client
        client.close()
        self.clients.remove(client)
        return None

    def serves(self, client=None):
        """One correct client comes, is served to the letter, and goes."""
        client = client or self.connect().greeting()
        for sent, wanted in KNOWN_EXCHANGE:
            client.send(sent).expect(wanted)
        client.finish()
        self.clients.remove(client)
        return True

    def serves_soon(self):
        """As serves(), but it may turn clients away until it has seen others leave."""
        client = self.eventually(self.knock)
        if not client:
            raise Failure("with all clients gone it turns a new one away")
        return self.serves(client)

    def serves_others(self):
        """Where it is meant to serve many at once, somebody else is served now."""
        return self.serial or self.serves()

    @contextmanager
    def bystander(self):
        """Where it serves many at once: one who was here before is served on after."""
        client = None if self.serial else self.connect().greeting().send(b"^ab").expect(b"bc")
        yield
        if client:
            client.send(b"c$").expect(b"d").finish()

    # Watching it.

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def log_text(self):
        self.log.flush()
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode("utf-8", "replace")

    def wait_log(self, pattern, timeout=None):
        """Wait for a line of the log that matches; return the match."""
        match = self.eventually(lambda: re.search(pattern, self.log_text(), re.MULTILINE),
                                timeout)
        if not match:
            raise Failure("its log never said %r" % pattern)
        return match

    def eventually(self, condition, timeout=None):
        """Wait for a true value of condition(); return it, or the false one in the end."""
        deadline = time.monotonic() + (self.patience if timeout is None else timeout)
        while True:
            value = condition()
            if value or time.monotonic() > deadline:
                return value
            time.sleep(POLL)

    def cpu_seconds(self):
        return self._from_proc(proc.cpu_seconds)

    def delay_seconds(self):
        return self._from_proc(proc.delay_seconds)

    def threads(self):
        return self._from_proc(proc.threads)

    def fd_count(self):
        return self._from_proc(proc.descriptors)

    def rss(self):
        return self._from_proc(proc.resident_bytes)

    def memory(self):
        """Bytes it has written, its children's included: rss() without what is shared."""
        return self._from_proc(proc.own_bytes)

    def sanitized(self):
        return self._from_proc(proc.uses_sanitizer)

    def _from_proc(self, fact):
        try:
            return fact(self.pid)
        except OSError as error:
            raise Failure("it ended on its own: %s (%s)"
                          % (self.describe(), error)) from error

    def cpu_share(self, seconds):
        """The part of its time that it runs, for so long from now on. Time in which others
        keep it from running does not count: where they do, a busy server is no calmer, and one
        that is woken often no busier."""
        cpu, delay, began = self.cpu_seconds(), self.delay_seconds(), time.monotonic()
        elapsed = own = 0.0
        while own < seconds and elapsed < 10 * seconds:
            time.sleep(max(seconds - own, POLL))
            elapsed = time.monotonic() - began
            own = elapsed - max(0.0, self.delay_seconds() - delay)  # less if threads ended
        cpu = self.cpu_seconds() - cpu
        return cpu / max(own, cpu, seconds)     # own is too little if several threads wait

    def check_calm(self):
        """It uses next to no processor time now (where /proc tells)."""
        if proc.AVAILABLE:
            share = self.cpu_share(CALM_WINDOW)
            if share >= 0.25:
                raise Failure("with nothing to do it runs for %.0f %% of the time"
                              % (100 * share), final=True)

    # Stopping its clock.

    @contextmanager
    def frozen(self):
        """It is stopped where it waits, not half through a client's turn; it does not run
        meanwhile, and finds all that happened at once."""
        self._all_are("S")
        self._signal_all(signal.SIGSTOP)
        self._all_are("T")
        try:
            yield
        finally:
            self._signal_all(signal.SIGCONT)

    def _all_are(self, state):
        if proc.AVAILABLE:
            self.eventually(lambda: proc.states(self.pid) == {state})

    def _signal_all(self, signum):
        """The server and whatever processes it started."""
        try:
            os.killpg(self.pid, signum)
        except ProcessLookupError:
            pass    # the check-up will tell

    @contextmanager
    def storm(self, *signals):
        """The signals come in turn every few milliseconds: its calls are interrupted."""
        over = threading.Event()

        def send():
            while not over.is_set():
                for signum in signals:
                    self._signal_all(signum)
                    over.wait(0.002)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    # The check-up.

    def health(self):
        """With all clients gone: alive, serving, idle, and no descriptor kept."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        if not self.alive():
            raise Failure("it ended on its own: %s" % self.describe())
        self.serves_soon()
        if not proc.AVAILABLE:
            return
        # A few more than at the start are allowed: a library opens what it needs when it does.
        if not self.eventually(lambda: self.fd_count() <= self.descriptors_at_start + 4):
            raise Failure("with all clients gone it keeps %d descriptors; it started with %d"
                          % (self.fd_count(), self.descriptors_at_start))
        if not self.eventually(lambda: self.cpu_share(IDLE_WINDOW) < 0.5):
            raise Failure("with all clients gone it keeps the processor busy", final=True)

    def describe(self):
        if self.process is None:
            return self.last_seen
        status = self.process.poll()
        if status is None:
            return "running as process %d" % self.pid
        if status < 0:
            return "killed by %s" % signal.Signals(-status).name
        return "exited with status %d" % status

    def log_tail(self, lines=12):
        return self.log_text().splitlines()[-lines:]
