"""The proof with hiredis holds on every back-end, and it can fail."""

import os
import pathlib
import socket
import subprocess
import sys
import unittest

STEP = pathlib.Path(__file__).resolve().parent.parent
PROOFS = sorted((STEP / "build" / "demos").glob("hiredis_proof_*"))


def run(*command, **environment):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=90,
                          encoding="utf-8", env={**os.environ, **environment})


def prove(**environment):
    return run(sys.executable, str(STEP / "demos" / "hiredis_proof.py"), **environment)


class HiredisProof(unittest.TestCase):
    def test_thousand_keys_on_every_back_end(self):
        proof = prove()
        if proof.stdout.startswith("skip"):
            self.skipTest(proof.stdout.split(maxsplit=1)[1].strip())
        self.assertEqual((proof.returncode, proof.stderr), (0, ""), proof.stdout)
        shown = [line.split()[0] for line in proof.stdout.splitlines()
                 if "1000 keys set, 1000 read back" in line]
        self.assertEqual(shown, [path.name.rpartition("_")[2] for path in PROOFS])
        self.assertIn("select", shown)

    def test_a_missing_program_is_reported_or_fails(self):
        reported = prove(PATH="", REQUIRE_ALL="0")
        self.assertEqual((reported.returncode, reported.stdout[:5]), (0, "skip "))
        required = prove(PATH="", REQUIRE_ALL="1")
        self.assertEqual((required.returncode, required.stdout[:5]), (1, "FAIL "))

    @unittest.skipUnless(PROOFS, "hiredis is not installed")
    def test_fails_without_a_server(self):
        with socket.socket() as sock:       # bound, but not listening
            sock.bind(("127.0.0.1", 0))
            for proof in PROOFS:
                with self.subTest(proof.name):
                    alone = run(str(proof), "127.0.0.1", str(sock.getsockname()[1]))
                    self.assertEqual(alone.returncode, 1)
                    self.assertIn("cannot connect", alone.stderr)


if __name__ == "__main__":
    unittest.main()
