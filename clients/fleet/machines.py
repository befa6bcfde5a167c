"""Machines for a fleet, and the balancer in front of them.

A machine is a network namespace with one virtual cable to the balancer's. The balancer has a
namespace, too: the program that imports this runs itself again in it (enter_namespace), so
nothing of this machine's own network is touched, and all is gone when the processes end. Where
namespaces are not permitted, the machines are addresses: 127.0.0.2 and so on.
"""

import contextlib
import csv
import os
import pathlib
import re
import shutil
import socket
import sys
import tempfile
import time
from collections import namedtuple

from lib import tree
from lib.processes import POLL, Process, Trouble, capture
from lib.servers import Server, free_port

CONFIGURATION = pathlib.Path(__file__).resolve().parent / "haproxy.cfg"
INSIDE = "FLEET_INSIDE"
PORT = 8080
START_SECONDS = 10
STATE = re.compile(r"[A-Z]+")

State = namedtuple("State", "status now total")
State.__doc__ = "A server as HAProxy sees it: UP, DOWN or DRAIN; its clients now, and in all."


def haproxy():
    """The program. Debian has it in a folder that is not in every PATH."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


def enter_namespace():
    """Run this program again in a network namespace of its own. Returns False if that is not
    possible, and True inside."""
    if os.environ.get(INSIDE):
        return True
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    for unshare in (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"]):
        try_it = "ip link set lo up && ip link add name probe type veth && unshare --net true"
        if capture([*unshare, "sh", "-c", try_it], 10).status == 0:
            os.environ[INSIDE] = "1"
            os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv])
    return False


def _ip(*words, inside=()):
    done = capture([*inside, "ip", *words], 10)
    if done.status != 0:
        raise Trouble(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Machine:
    """Where one server runs: `with Machine(1, namespaces) as machine`."""

    def __init__(self, number, namespaces):
        self.number, self.name = number, f"s{number}"
        self.inside, self.holder, self.server = [], None, None
        if namespaces:
            self.address, self.port = f"10.83.{number}.2", PORT
            self._connect()
        else:
            self.address = f"127.0.0.{number + 1}"
            try:
                self.port = free_port(self.address)
            except OSError:     # macOS has 127.0.0.1 only
                self.address, self.port = "127.0.0.1", free_port()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.server:
            self.server.__exit__()
        if self.holder:
            self.holder.__exit__()

    def _connect(self):
        """Make the namespace, and its cable."""
        self.holder = Process(["unshare", "--net", "sleep", "600"])
        place = f"/proc/{self.holder.pid}/ns/net"
        deadline = time.monotonic() + START_SECONDS
        while os.readlink(place) == os.readlink("/proc/self/ns/net"):
            if self.holder.poll() is not None or time.monotonic() > deadline:
                raise Trouble("cannot make a network namespace")
            time.sleep(POLL)
        self.inside = ["nsenter", f"--net={place}"]
        _ip("link", "add", "name", self.name, "type", "veth",
            "peer", "name", "eth0", "netns", str(self.holder.pid))
        _ip("addr", "add", f"10.83.{self.number}.1/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"),
                      ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            _ip(*words, inside=self.inside)

    def start(self, program, *arguments):
        """Start a server here, in place of the last one."""
        self.stop()
        self.server = Server([*self.inside, program, "--quiet", "--bind", self.address,
                              *arguments], port=self.port)

    def stop(self):
        """Stop the server; its exit status."""
        return self._end(lambda server: server.stop())

    def kill(self):
        return self._end(lambda server: server.end())

    def _end(self, how):
        server, self.server = self.server, None
        if server is None:
            return None
        try:
            return how(server)
        finally:
            server.output_file.close()


class Balancer:
    """HAProxy with our configuration: `with Balancer({"s1": ("10.83.1.2", 8080)}) as b`.

    Servers that are not given do not exist: their lines are left out."""

    def __init__(self, servers, balance="leastconn", port=0, prepare=None,
                 configuration=CONFIGURATION):
        self.folder = tempfile.TemporaryDirectory(prefix="fleet-")
        self.port = port or free_port()
        self.control = os.path.join(self.folder.name, "control")
        environment = dict(os.environ, FLEET_BIND=f"127.0.0.1:{self.port}",
                           FLEET_SOCKET=self.control, FLEET_BALANCE=balance)
        for name, (host, server_port) in servers.items():
            environment[f"FLEET_{name.upper()}"] = f"{host}:{server_port}"
        text = configuration.read_text(encoding="utf-8")
        text = re.sub(r"(?m)^    server (\w+) .*\n",
                      lambda line: line[0] if line[1] in servers else "", text)
        path = os.path.join(self.folder.name, "haproxy.cfg")
        pathlib.Path(path).write_text(text, encoding="utf-8")
        self.process = Process([haproxy(), "-db", "-f", path], env=environment,
                               prepare=prepare)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.__exit__()
        self.folder.cleanup()

    @property
    def address(self):
        return "127.0.0.1", self.port

    def command(self, text):
        """What HAProxy answers to a command: management guide, 9.3."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(5)
            control.connect(self.control)
            control.sendall(text.encode() + b"\n")
            answer = b""
            while True:
                piece = control.recv(1 << 16)
                if not piece:
                    return answer.decode()
                answer += piece

    def states(self):
        """{server's name: State}"""
        table = csv.DictReader(self.command("show stat").lstrip("# ").splitlines())
        return {row["svname"]: State(STATE.match(row["status"] + " ?")[0], int(row["scur"]),
                                     int(row["stot"]))
                for row in table if row["svname"] not in ("FRONTEND", "BACKEND")}

    def set_state(self, name, state):
        """drain: no new clients; ready: all of them again."""
        answer = self.command(f"set server echo/{name} state {state}").strip()
        if answer:
            raise Trouble(f"HAProxy: {answer}")

    def clients(self):
        """{a client's port: the name of its server}"""
        return {int(port): name for port, name in re.findall(
            r"(?m)^0x.* src=127\.0\.0\.1:(\d+) .* srv=(\w+)", self.command("show sess"))}

    def wait(self, condition, seconds, what):
        """Until condition(states); return the seconds that it took."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(OSError):  # it has only just started
                if condition(self.states()):
                    return time.monotonic() - began
            if self.process.poll() is not None:
                said = self.process.output().strip().split("\n")
                raise Trouble(f"HAProxy ended: {said[-1]}")
            if time.monotonic() - began > seconds:
                raise Trouble(f"not within {seconds:g} s: {what}")
            time.sleep(0.01)

    def wait_until_up(self):
        return self.wait(lambda states: all(s.status == "UP" for s in states.values())
                         and self.checked(), START_SECONDS, "all servers are up")

    def checked(self):
        """A server counts as UP before its first check; has each been checked?"""
        checks = csv.DictReader(self.command("show stat").lstrip("# ").splitlines())
        return all(row["check_status"] == "L7OK" for row in checks
                   if row["svname"] not in ("FRONTEND", "BACKEND"))


def program(step):
    """The server of a step, which must have been built."""
    for number, folder in tree.steps():
        if number == step and tree.is_program(folder / "server"):
            return folder / "server"
    raise Trouble(f"step {step} is not built: run make")
