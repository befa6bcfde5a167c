"""The server under test: started, watched, always ended."""

import errno
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

from lib import figures
from lib import processes
from lib import reports
from lib.servers import free_port, listening_at, look_in

from .client import Client
from .errors import Failure, NeverListens, Skip
from .protocol import KNOWN_EXCHANGE

SANITIZER = re.compile(r"ERROR: \w*Sanitizer|WARNING: ThreadSanitizer|runtime error:")
PORT_TAKEN = re.compile("address already in use|EADDRINUSE", re.IGNORECASE)
LOST = re.compile("Connection re(set|fused)|Broken pipe|end of the connection|server closed")
STOP_SECONDS = 2.0
IDLE_WINDOW, CALM_WINDOW = 0.02, 0.15  # seconds to watch its processor time
POLL = 0.003
ENDING_SECONDS = 0.5        # for a server that has closed its listener to end: that says more
ELSEWHERE_SECONDS = 1.0     # for a server that listens elsewhere to open the right port, too
MIB = 1 << 20
LINE_SHOWN = 300            # characters of a line, in a report
LOG_SHOWN = 8 * MIB         # of the log, at most, is looked at

Stopped = namedtuple("Stopped", "status seconds")


class Server:
    """A running server: `with t.server("--max-clients", "2") as s:`.

    Attributes: pid, port, address, and the process's standard output and error in log_text().
    Options: port (else a free one), host to connect to, env (added to the environment),
    rlimits ({resource.RLIMIT_NOFILE: 64}, set before it starts), user (a uid to run as),
    stdin, stdout, stderr (anything subprocess takes; the log, which is a file, if None),
    closed (descriptors it starts without), health=False (no check-up on leaving), calm=False
    (the check-up does not ask whether it is idle).
    """

    prints_listening = True     # until a server is seen not to
    has_listened = False        # whether any server of this run did

    def __init__(self, command, args=(), ephemeral=False, patience=5.0, slow=1.0,
                 strict=True, serial=False, port=None, host="127.0.0.1", env=None,
                 rlimits=None, user=None, stdin=subprocess.DEVNULL, stdout=None, stderr=None,
                 closed=(), health=True, calm=True):
        quiet = stdout is not None or closed
        self.ephemeral = ephemeral and port is None and not quiet
        self.port_is_free = port is None and not self.ephemeral     # unless another takes it
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
        self.calm = calm
        self.silent = quiet
        self.log = tempfile.TemporaryFile()
        self.streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        self.process = None
        self.clients = []
        self.stopped = None
        self.left_nothing = False   # it ended, and none of its processes run on
        self.last_seen = "not started"

    # Life.

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind, error, _):
        try:
            if kind is None and self.stopped is None:
                if self.check_health:
                    self.health()
                self.stop(forgive=not self.strict)
            elif kind is not None and self.stopped is None:
                # It may be dying just now: its sockets are closed before it can be waited for.
                seconds = 2.0 if LOST.search(str(error)) else 0.3
                self.eventually(lambda: not self.alive(), seconds)
        finally:
            self.kill()

    def start(self):
        """Start it, and once more if perhaps another program has just taken its port."""
        try:
            self._start()
        except NeverListens:
            if not (self.port_is_free and self.process and self.process.poll() is not None
                    and (Server.has_listened or PORT_TAKEN.search(self.log_text()))):
                raise
            self.process.end()
            self.port = free_port(self.host)
            self.command[-1] = str(self.port)
            self._start()

    def _start(self):
        try:
            self.process = processes.Process(
                self.command, output=self.log, env=self.env, prepare=self._prepare,
                **self.streams)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOMEM):
                raise Skip(f"this machine starts no further process: {error}") from error
            raise NeverListens(f"cannot start {self.command[0]}: {error.strerror}") from error
        except subprocess.SubprocessError as error:
            raise Failure(f"cannot prepare the start of {self.command[0]}: {error}") from error
        self._wait_until_it_listens()
        Server.has_listened = True
        self.descriptors_at_start = self.fd_count() if figures.AVAILABLE else None

    def _prepare(self):
        """Runs in the child, between fork and exec."""
        if self.user is not None:
            os.setreuid(self.user, self.user)
        for which, value in self.rlimits.items():
            resource.setrlimit(which, value if isinstance(value, tuple) else (value, value))
        for descriptor in self.closed:
            os.close(descriptor)

    def _wait_until_it_listens(self):
        """Wait for its `Listening on` line; failing that, until it accepts."""
        began = time.monotonic()
        deadline, probing = began + 2 * self.patience, began + 0.3 * self.slow
        last_resort = deadline - 0.2 * self.patience    # perhaps another process listens for it
        looking, elsewhere_since = began + 0.5 * self.slow, None
        while True:
            now = time.monotonic()
            ended = self.process.poll() is not None     # asked first: the line may come before
            found = listening_at(self.process)
            if found:
                self.port = found[1]
                return
            if ended:
                raise NeverListens(f"ended at its start: {self.describe()}")
            if not self.ephemeral and (self.silent or not Server.prints_listening
                                       or now > probing):
                if self.listens() or (now > last_resort and self.accepts(gently=True)):
                    if not self.silent:
                        Server.prints_listening = False
                    self._wait_until_it_sleeps()
                    return
            if now > looking:
                looking = now + 0.2
                elsewhere = self.elsewhere()
                elsewhere_since = (elsewhere_since or now) if elsewhere else None
                if elsewhere and now - elsewhere_since > ELSEWHERE_SECONDS * self.slow:
                    raise NeverListens(elsewhere)
            if now > deadline:
                raise NeverListens("neither printed `Listening on ADDRESS:PORT` nor accepted "
                                   f"within {2 * self.patience:g} s")
            time.sleep(POLL)

    def _wait_until_it_sleeps(self):
        """A server that does not say when it is ready may still open descriptors after it
        listens. Wait until all its threads sleep, but at most a second: a server may spin."""
        if figures.AVAILABLE:
            counts = [-1]

            def has_settled():
                counts.append(self.fd_count())
                return counts[-1] == counts[-2] and figures.states(self.pid) == {"S"}
            self.eventually(has_settled, self.slow)

    def elsewhere(self, no_ipv4=False):
        """Where it listens, in words, if that is not where it was told to; else "". A socket
        at :: that takes no IPv4 is elsewhere, too."""
        if not figures.AVAILABLE:
            return ""
        found = figures.listens_at(self.process.members())
        right = [self.host, "0.0.0.0"] + ([] if no_ipv4 else ["::"])
        if not found or any(port == self.port and address in right for address, port in found):
            return ""
        where = " and ".join(f"{address} port {port}" for address, port in found)
        if not self.port:
            return f"listens on {where}, but does not print `Listening on ADDRESS:PORT`"
        swapped = (self.port & 0xff) << 8 | self.port >> 8
        hint = ("; the two bytes of the port are swapped: is htons() missing?"
                if any(port == swapped for _, port in found) else
                "; that socket takes IPv6 only (IPV6_V6ONLY)" if ("::", self.port) in found else
                "")
        source = "was told" if self.command[-1] == str(self.port) else "prints"
        return f"listens on {where}, not on {self.host} port {self.port} as it {source}{hint}"

    def listens(self):
        """Whether it listens where it was told to. A connection would show it, too, but be a
        client that leaves at once, which is not what most cases are about."""
        if not (figures.AVAILABLE and os.access(f"/proc/{self.pid}/fd", os.R_OK)):
            return self.accepts(gently=True)
        return any(port == self.port and address in (self.host, "0.0.0.0", "::")
                   for address, port in figures.listens_at(self.process.members()))

    def accepts(self, gently=False):
        """Whether a connection succeeds now, even if it stays in the kernel's backlog. Gently:
        at a start, which must not fail for a connection that is reset."""
        try:
            if gently:
                look_in(self.address, self.patience)
            else:
                socket.create_connection(self.address, self.patience).close()
            return True
        except OSError:
            return False

    def stop(self, signum=signal.SIGTERM, within=None, forgive=False):
        """Ask it to stop; see it end in time with status 0; return (status, seconds). Where
        the stop is not what the case is about, dying of the signal is forgiven, which a shell
        and Java report as 128 + its number."""
        if self.stopped is None:
            self.signal(signum)
            self.wait(STOP_SECONDS * self.slow if within is None else within,
                      signal_name(signum))
            if self.stopped.status != 0 and not (
                    forgive and self.stopped.status in (-signum, 128 + signum)):
                raise Failure(f"asked to stop by {signal.Signals(signum).name}, it did not "
                              f"exit with status 0: {self.describe()}")
        return self.stopped

    def signal_and_see_it_taken(self, signum):
        """Signal, and wait until its handler runs: the same signal twice may merge into one."""
        self.signal(signum)
        if figures.AVAILABLE:
            self.eventually(lambda: not figures.is_pending(self.pid, signum))

    def wait(self, seconds=None, why="the wait began"):
        """See it end by itself; return (status, seconds)."""
        seconds = self.patience if seconds is None else seconds
        began = time.monotonic()
        status = self.process.wait(seconds)
        if status is None:
            raise Failure(f"still running {seconds:g} s after {why}")
        self.stopped = Stopped(status, time.monotonic() - began)
        found = SANITIZER.search(self.log_text())
        if found:
            raise Failure(f"a sanitizer complained: {found.group()}")
        if self.process.flooded:
            raise Failure(self.describe())
        if self.process.left_behind(STOP_SECONDS) or processes.adopted():
            raise Failure("it ended but left processes of its own behind: "
                          f"{self._left_running()}")
        self.left_nothing = True
        return self.stopped

    def _left_running(self):
        """The commands of processes that still run although it has ended, for a message."""
        pids = {*self.process.members(), *processes.adopted()}
        return ", ".join(f"{figures.command_line(pid)[:80]} (process {pid})"
                         for pid in sorted(pids))

    def kill(self):
        """End it by force, with whatever it started, and close all our ends."""
        if self.process is not None:
            self.last_seen = self.describe()
            self.process.end()
            processes.end_adopted()
            self.process = None
        for client in self.clients:
            client.close()

    def signal(self, signum):
        """Send a signal; that the server has already ended is a failure."""
        if self.process.poll() is not None:
            raise Failure(f"it ended on its own: {self.describe()}")
        self.process.send_signal(signum)

    # Talking to it.

    @property
    def address(self):
        return (self.host, self.port)

    def connect(self, **options):
        """A new client that has not read its greeting yet; options as Client takes them."""
        options.setdefault("patience", self.patience)
        try:
            client = Client(self.address, **options)
        except Failure as failure:
            no_ipv4 = isinstance(failure.__cause__, ConnectionRefusedError)
            if no_ipv4 and self.process:
                self.process.wait(ENDING_SECONDS)
            elsewhere = self.process and self.elsewhere(no_ipv4)
            if elsewhere:
                raise NeverListens(f"{failure}: it {elsewhere}") from failure
            raise
        self.clients.append(client)
        return client

    def crowd(self, count, **options):
        """This many clients at once, all greeted."""
        return [client.greeting() for group in self._arrive(count, **options)
                for client in group]

    def fill(self, count):
        """Connect this many clients; return those admitted, and how many were rejected."""
        admitted = [client for group in self._arrive(count)
                    for client in group if client.admitted()]
        return admitted, count - len(admitted)

    def _arrive(self, count, **options):
        """Connect in groups that fit the backlog: many servers ask for five."""
        size = 100 if self.strict else 4
        for start in range(0, count, size):
            yield [self.connect(**options) for _ in range(min(size, count - start))]

    def try_client(self):
        """Connect a client; return it if it is admitted, None if it is rejected."""
        client = self.connect()
        if client.admitted():
            return client
        client.close()
        self.clients.remove(client)
        return None

    def serves(self, client=None):
        """One correct client connects, is served exactly, and leaves."""
        client = client or self.connect().greeting()
        for sent, wanted in KNOWN_EXCHANGE:
            client.send(sent).expect(wanted)
        client.finish()
        self.clients.remove(client)
        return True

    def serves_soon(self):
        """As serves(), but it may reject clients until it has seen others leave."""
        client = self.eventually(self.try_client)
        if not client:
            raise Failure("after all clients have left it rejects a new one")
        return self.serves(client)

    def serves_others(self):
        """Where it is meant to serve many at once, another client is served now."""
        return self.serial or self.serves()

    @contextmanager
    def bystander(self):
        """Where it serves many at once: a client from before is still served afterwards."""
        client = None if self.serial else self.connect().greeting().send(b"^ab").expect(b"bc")
        yield
        if client:
            client.send(b"c$").expect(b"d").finish()

    def has_read(self, clients):
        """Wait until it has read all that these have sent, as far as that can be seen here."""
        if not figures.AVAILABLE:
            time.sleep(0.002 * self.slow)
        elif clients and not self.eventually(lambda: not figures.unread_bytes(
                *(client.sock for client in clients))
                and not any(client.unacknowledged() for client in clients)):
            raise Failure("it does not read what was sent", clients[0])

    # Watching it.

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def log_text(self):
        """What it has printed; if that is very much, the beginning and the end."""
        return processes.read_bounded(self.log, LOG_SHOWN)

    def wait_log(self, pattern, timeout=None):
        """Wait for a line of the log that matches; return the match."""
        match = self.eventually(lambda: re.search(pattern, self.log_text(), re.MULTILINE),
                                timeout)
        if not match:
            raise Failure(f"its log has no line {pattern!r}")
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
        return self._from_proc(figures.cpu_seconds)

    def delay_seconds(self):
        return self._from_proc(figures.delay_seconds)

    def threads(self):
        return self._from_proc(figures.threads)

    def fd_count(self):
        return self._from_proc(figures.descriptors)

    def rss(self):
        return self._from_proc(figures.resident_bytes)

    def memory(self):
        """Bytes it has written, its children's included: rss() without what is shared."""
        return self._from_proc(figures.own_bytes)

    def sanitized(self):
        return self._from_proc(figures.uses_sanitizer)

    def _from_proc(self, fact):
        try:
            return fact(self.pid)
        except OSError as error:
            raise Failure(f"it ended on its own: {self.describe()} ({error})") from error

    def cpu_share(self, seconds):
        """The share of the next `seconds` in which it runs. Time in which other processes keep
        it from running does not count. Otherwise a busy server would seem idle on a busy
        machine, and a server that is woken often would seem busy."""
        cpu, delay, began = self.cpu_seconds(), self.delay_seconds(), time.monotonic()
        elapsed = own = 0.0
        while own < seconds and elapsed < 10 * seconds:
            time.sleep(max(seconds - own, POLL))
            elapsed = time.monotonic() - began
            own = elapsed - max(0.0, self.delay_seconds() - delay)  # less if threads ended
        cpu = self.cpu_seconds() - cpu
        return cpu / max(own, cpu, seconds)     # own is too little if several threads wait

    def check_calm(self):
        """It uses next to no CPU time now (where there is /proc). While it forks processes, as
        some servers do at their start, it has something to do."""
        if not figures.AVAILABLE:
            return
        deadline = time.monotonic() + self.patience
        while True:
            children, share = figures.children(self.pid), self.cpu_share(CALM_WINDOW)
            if share < 0.25:
                return
            if children == figures.children(self.pid) or time.monotonic() > deadline:
                raise Failure(f"with nothing to do it runs for {100 * share:.0f} % of the "
                              "time", final=True)

    # Suspending and interrupting it.

    @contextmanager
    def frozen(self):
        """The server is suspended while it sleeps in a call, so not in the middle of a client's
        turn. When it continues it finds at once all that happened meanwhile."""
        self._all_are("S")
        self._signal_all(signal.SIGSTOP)
        self._all_are("T")
        try:
            yield
        finally:
            self._signal_all(signal.SIGCONT)

    def _all_are(self, state):
        if figures.AVAILABLE:
            self.eventually(lambda: figures.states(self.pid) == {state})

    def _signal_all(self, signum):
        """The server and whatever processes it started; the check-up notices if it ended."""
        self.process.signal_group(signum)

    @contextmanager
    def storm(self, *signals):
        """The signals come in turn every few milliseconds, and interrupt its calls."""
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
        """After all clients have left: alive, serving, idle, and no descriptor kept."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        if not self.alive():
            raise Failure(f"it ended on its own: {self.describe()}")
        self.serves_soon()
        if not figures.AVAILABLE:
            return
        # A few more than at the start are allowed: a library may open some when it needs them.
        if not self.eventually(lambda: self.fd_count() <= self.descriptors_at_start + 4):
            raise Failure(f"after all clients have left it keeps {self.fd_count()} "
                          f"descriptors; it started with {self.descriptors_at_start}")
        if self.calm and not self.eventually(lambda: self.cpu_share(IDLE_WINDOW) < 0.5):
            raise Failure("after all clients have left it keeps the processor busy", final=True)

    def describe(self):
        if self.process is None:
            return self.last_seen
        if self.process.flooded:
            return (f"ended by the suite, because it had printed more than "
                    f"{self.process.limit // MIB} MiB")
        status = self.process.poll()
        if status is None:
            return f"running as process {self.pid}"
        how = (f"killed by {signal_name(-status)}" if status < 0 else
               f"exited with status {status}")
        left = "" if self.left_nothing else self._left_running()
        return how + (f", but went on in the background: {left}" if left else "")

    def log_tail(self, lines=12):
        printed = [line for line in self.log_text().split("\n") if line]
        return [line if len(line) <= LINE_SHOWN else line[:LINE_SHOWN] + " ..."
                for line in reports.tail(printed, lines)]


def signal_name(number):
    """Real-time signals have no names of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
