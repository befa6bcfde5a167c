"""Where a server is: HOST and PORT in all forms that people type and servers print."""

import re
import socket

HELP = "name or address; HOST:PORT and [ADDRESS]:PORT are one argument"


def add_arguments(parser, without=""):
    """Add HOST and PORT to an ArgumentParser. Both may be missing if `without` says what the
    program does then."""
    parser.add_argument("host", metavar="HOST", nargs="?" if without else None,
                        help=HELP + (f"; without it {without}" if without else ""))
    parser.add_argument("port", metavar="PORT", nargs="?", help="from 1 to 65535")


def parse(host, port=None):
    """Return (host, port) as getaddrinfo takes them; raise ValueError with the reason."""
    given = host if port is None else f"{host} {port}"
    if port is None:
        match = re.fullmatch(r"\[([^][]*)\]:(.*)|([^:]*):([^:]*)", host)
        if not match:
            raise ValueError(f"{given}: expected HOST PORT, HOST:PORT or [ADDRESS]:PORT")
        host, port = match[1] or match[3], match[2] or match[4]
    elif re.fullmatch(r"\[[^][]*\]", host):
        host = host[1:-1]
    elif re.fullmatch(r"[^:]*:[^:]*|\[.*", host):
        raise ValueError(f"{given}: expected one port, got two")
    if not host:
        raise ValueError(f"{given}: expected a host before the port")
    if not re.fullmatch(r"[0-9]{1,5}", port or "") or not 1 <= int(port) <= 65535:
        raise ValueError(f"{given}: expected a port from 1 to 65535")
    return host, int(port)


def resolve(parser, options):
    """Set options.host and options.port to the parsed address, or end with a usage error."""
    try:
        options.host, options.port = parse(options.host, options.port)
    except ValueError as error:
        parser.error(str(error))


def connect(host, port, seconds):
    """Return a connected socket with this time limit; the OSError names the server and says
    why it cannot be reached."""
    try:
        return socket.create_connection((host, port), seconds)
    except (OSError, UnicodeError) as error:    # the latter for a host that is no name
        raise OSError(f"cannot connect to {host} port {port}: "
                      f"{getattr(error, 'strerror', None) or error}") from error
