#!/usr/bin/env python3
"""Runs hiredis_proof on every back-end it was built for, against a redis-server of its own.

The server listens on a free port of the loopback, keeps nothing on disk and is stopped at the
end. Where redis-server or hiredis is not installed this says so, and that it skips; with
REQUIRE_ALL=1 in the environment that is a failure.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(__file__).resolve().parent.parent / "build" / "demos"
PATIENCE = 30


def absent(what):
    """Return the exit status for something that is not installed."""
    demanded = os.environ.get("REQUIRE_ALL", "0") != "0"
    print(f"{'FAIL' if demanded else 'skip'}  {what} is not installed")
    return int(demanded)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def redis_server(program):
    """A server that is ready; yields its port."""
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(5):      # somebody else may be faster in taking the port
            port = free_port()
            server = subprocess.Popen(
                [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                 "--appendonly", "no", "--dir", directory],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
            with server:
                try:
                    if any("Ready to accept" in line for line in server.stdout):
                        yield port
                        return
                finally:
                    server.terminate()
        raise RuntimeError("redis-server does not start")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args()
    proofs = sorted(BUILD.glob("hiredis_proof_*"))
    program = shutil.which("redis-server")
    if not proofs:
        return absent("hiredis (with its adapters/ae.h)")
    if program is None:
        return absent("redis-server")
    failed = 0
    with redis_server(program) as port:
        for proof in proofs:
            try:
                failed |= subprocess.run([proof, "127.0.0.1", str(port)],
                                         timeout=PATIENCE).returncode
            except subprocess.TimeoutExpired:
                print(f"{proof.name} does not end")
                failed = 1
    return int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError) as error:
        sys.exit(f"hiredis_proof: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
