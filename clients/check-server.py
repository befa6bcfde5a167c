#!/usr/bin/env python3
"""Check an echo server, in any language, against the promises of this course."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))     # also with PYTHONSAFEPATH

from check_server.command import main    # noqa: E402
from lib.processes import program   # noqa: E402

if __name__ == "__main__":
    program(main)
