"""A server of the course, started on a free port, and always ended."""

import contextlib
import re
import signal
import socket
import time

from .processes import POLL, Process, Trouble

START_SECONDS = 10
STOP_SECONDS = 10
LEAVE_SECONDS = 1   # that a server has to close the connection after its client's half-close
HEAD = 1 << 16      # bytes of output in which the line must stand
LISTENING = re.compile(r"^Listening on \[?(\S+?)\]?:([0-9]{1,5})[ \t\r]*$", re.MULTILINE)


def listening(output):
    """(address, port) by the first line `Listening on ADDRESS:PORT`, or None."""
    return next(((found[1], int(found[2])) for found in LISTENING.finditer(output)
                 if 1 <= int(found[2]) <= 65535), None)


def listening_at(process):
    """(address, port) from the line in which it says where it listens; None before that."""
    return listening(process.output(HEAD))


def free_port(host="127.0.0.1"):
    """For a server that cannot find one itself."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, 0))
        return probe.getsockname()[1]


def look_in(address, patience):
    """Connect, and leave so that it cannot hurt: to close with a greeting unread would reset
    the connection, and a simple server may end of that."""
    with socket.create_connection(address, patience) as probe:
        with contextlib.suppress(OSError):
            probe.shutdown(socket.SHUT_WR)
            probe.settimeout(LEAVE_SECONDS)
            probe.recv(HEAD, socket.MSG_WAITALL)


class Server(Process):
    """`with Server([PROGRAM, OPTION...]) as server`: it listens at server.address. Leaving
    stops it; what it left running is ended.

    Its last argument is port 0, and it must print `Listening on ADDRESS:PORT`. A program that
    does not print this is given a port instead, and awaited by connecting.
    """

    def __init__(self, command, patience=START_SECONDS, port=0, **options):
        try:
            super().__init__([*map(str, command), str(port)], **options)
        except OSError as error:
            raise Trouble(f"cannot start {command[0]}: {error.strerror}") from error
        try:
            self.address = self._await_address(patience, port)
        except BaseException:
            self.end()
            self.output_file.close()
            raise

    def __exit__(self, *details):
        self.stop()
        super().__exit__(*details)

    def stop(self, signum=signal.SIGTERM, patience=STOP_SECONDS):
        """Ask it to stop; return its exit status, None if it had to be killed."""
        if self.poll() is None:
            self.send_signal(signum)
        status = self.wait(patience)
        self.end()
        return status

    @property
    def port(self):
        return self.address[1]

    def connect(self, patience=60):
        return socket.create_connection(self.address, patience)

    def _await_address(self, patience, port):
        deadline = time.monotonic() + patience
        while True:
            ended = self.poll() is not None     # asked first: the line may come just before
            found = listening_at(self)
            if found:
                return found
            if port:
                with contextlib.suppress(OSError):
                    look_in(("127.0.0.1", port), patience)
                    return "127.0.0.1", port
            if ended or self.flooded or time.monotonic() > deadline:
                first = self.output(HEAD).partition("\n")[0][:200]
                raise Trouble(f"{self.command[0]} does not start: {first or 'it says nothing'}")
            time.sleep(POLL)
