"""What a case is handed: `t`, the one trial of one case on one server."""

import contextlib
import functools
import json
import os
import random
import re
import shutil
import tempfile
import time

from lib.processes import capture, lacking

from .errors import Failure, Skip
from .registry import LEVELS
from .server import Server


class Trial:
    """Attributes: rng (seeded for this case), serial, level, patience (seconds to wait)."""

    def __init__(self, case, settings):
        self.case = case
        self.settings = settings
        self.serial = settings.serial
        self.level = settings.level
        self.slow = settings.slow_factor
        self.patience = settings.patience * self.slow
        self.rng = random.Random(f"{settings.seed} {case.name}")
        self.servers = []

    def server(self, *args, **options):
        """A server to be started by `with`, given these arguments before the port."""
        settings = self.settings
        for option, value in settings.server_options.items():
            options.setdefault(option, value)
        server = Server([settings.server, *settings.server_args], args, settings.ephemeral,
                        self.patience, self.slow, settings.strict, settings.serial, **options)
        self.servers.append(server)
        return server

    def unfinished(self):
        """The client that waits for most answers, or None."""
        clients = [client for server in self.servers for client in server.clients]
        most = max(clients, key=lambda client: len(client.expected), default=None)
        return most if most and most.expected else None

    def run(self, *args, timeout=None, stdout=None, user=None, prepare=None):
        """Run the server with exactly these arguments, meant to end by itself.

        prepare is called in the child before the server starts."""
        command = [self.settings.server, *self.settings.server_args, *args]
        if user is not None:
            prepare = functools.partial(os.setreuid, user, user)
        try:
            done = capture(command, timeout or self.patience, stdout=stdout, prepare=prepare)
        except OSError as error:
            if lacking(error):
                raise
            raise Failure(f"cannot start it: {error.strerror}") from error
        if done.trouble:
            raise Failure(f"with the arguments {list(args)} {done.trouble}")
        return done

    def cost_of(self, work):
        """What the server counted (--stats) during work(server)."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "stats.json")
            with self.server("--quiet", "--stats", path, health=False) as s:
                work(s)
                s.stop()
            with open(path, encoding="ascii") as file:
                return json.load(file)

    @contextlib.contextmanager
    def preloaded(self, source):
        """Environment in which the server has functions of a C source in front of libc's."""
        compiler = shutil.which("cc")
        if compiler is None:
            self.skip("needs a C compiler")
        with open(self.settings.server, "rb") as file:
            if re.search(rb"__[at]san_init", file.read()):
                self.skip("a sanitizer's library must come first")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "shim.c")
            with open(path, "w", encoding="ascii") as file:
                file.write(source)
            library = os.path.join(folder, "shim.so")
            done = capture([compiler, "-shared", "-fPIC", "-o", library, path], 30)
            if done.status != 0:
                self.skip(f"the C compiler fails: {done.stderr.strip()[:200]}")
            yield {"LD_PRELOAD": library}

    def ordinary_user(self):
        """The user to run the server as where root's privileges would spoil the case."""
        if os.geteuid() != 0:
            return os.geteuid()
        path = self.settings.server
        if os.stat(path).st_mode & 0o005 != 0o005:
            self.skip(f"run by root, and others may not run {path}")
        while path != os.path.dirname(path):
            path = os.path.dirname(path)
            if not os.stat(path).st_mode & 0o001:
                self.skip(f"run by root, and others may not enter {path}")
        return 20000 + os.getpid() % 40000  # an id without processes

    def not_emulated(self):
        """Skip the case where qemu-user runs the server: the process is the emulator, which
        needs descriptors, threads and memory of its own."""
        if os.environ.get("CHECK_EMULATED"):
            self.skip("an emulator runs the server")

    def check(self, condition, message, client=None):
        """Fail with the message unless the condition holds."""
        if not condition:
            raise Failure(message, client)

    def skip(self, reason):
        raise Skip(reason)

    def scale(self, quick, normal, full):
        """An amount of work that fits the chosen level."""
        return dict(zip(LEVELS, (quick, normal, full)))[self.level]

    def rounds(self, count, seconds=5.0):
        """0, 1, ... as often as asked; after the first three only while there is time."""
        deadline = time.monotonic() + seconds * self.slow
        for number in range(count):
            if number >= 3 and time.monotonic() > deadline:
                return
            yield number

    def batches(self, items, size=100):
        """The items in groups for as many clients as it takes at once: one if serial."""
        size = 1 if self.serial else min(size, self.settings.capacity or size)
        for start in range(0, len(items), size):
            yield items[start:start + size]

    def pause(self, seconds):
        """Let this time pass, and more for a slow server."""
        time.sleep(seconds * self.slow)
