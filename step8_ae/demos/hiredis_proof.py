#!/usr/bin/env python3
"""Runs hiredis_proof on every back-end it was built for, against a redis-server of its own.

The server listens on a free port of the loopback, keeps nothing on disk and is stopped at the
end. Where redis-server or hiredis is not installed this says that it skips; with REQUIRE_ALL=1
in the environment that is a failure.
"""

import argparse
import contextlib
import pathlib
import shutil
import sys
import tempfile

STEP = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(STEP.parent / "clients"))

from lib.processes import Trouble, capture, program     # noqa: E402
from lib.reports import unavailable                     # noqa: E402
from lib.servers import Server, free_port               # noqa: E402

BUILD = STEP / "build" / "demos"
PATIENCE = 30


@contextlib.contextmanager
def redis_server(path):
    """A server that is ready; yields its port."""
    with tempfile.TemporaryDirectory() as directory:
        command = [path, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                   "--dir", directory, "--port"]
        for attempt in range(5):    # another program may be faster in taking the port
            try:
                server = Server(command, PATIENCE, port=free_port())
                break
            except Trouble:
                if attempt == 4:
                    raise
        with server:
            yield server.port


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args()
    proofs = sorted(BUILD.glob("hiredis_proof_*"))
    redis = shutil.which("redis-server")
    if not proofs:
        return unavailable("hiredis_proof", "hiredis (with its adapters/ae.h) is not installed")
    if redis is None:
        return unavailable("hiredis_proof", "redis-server is not installed")
    failed = False
    with redis_server(redis) as port:
        for proof in proofs:
            done = capture([str(proof), "127.0.0.1", str(port)], PATIENCE)
            print(done.stdout, end="", flush=True)
            print(done.stderr, end="", file=sys.stderr, flush=True)
            if done.trouble:
                print(f"{proof.name} was ended: {done.trouble}")
            failed = failed or done.status != 0
    return int(failed)


if __name__ == "__main__":
    program(main, "hiredis_proof")
