#!/usr/bin/env python3
"""Does every document show what its commands print? Runs common/tools/docs.py on the whole
tree, without the blocks marked as long: `make check-full STAGE=docs` runs those. Writes TAP."""

import pathlib
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TREE / "common/tools"), str(TREE / "clients")]

import docs                     # noqa: E402
from lib import processes       # noqa: E402

if __name__ == "__main__":
    processes.program(lambda: docs.main([]))
