"""Reads a socket without blocking. Only one error means "nothing there yet"."""

import socket
import sys

sock = socket.socket(fileno=0)
sock.setblocking(False)
received = b""
while True:
    try:
        data = sock.recv(100)
    except BlockingIOError:
        continue
    except OSError as error:
        sys.exit(f"received {len(received)} bytes, then: {error.strerror}")
    if not data:
        break
    received += data
sys.exit(f"received {len(received)} bytes")
