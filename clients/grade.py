#!/usr/bin/env python3
"""Grade an echo server, in any language, stage by stage: what it earns, and what to do next."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))     # also with PYTHONSAFEPATH

from grading.command import main    # noqa: E402
from lib.processes import program   # noqa: E402

if __name__ == "__main__":
    program(main)
