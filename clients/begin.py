#!/usr/bin/env python3
"""Make a folder to begin with: a starter in some language, or one of our steps with blanks."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))     # also with PYTHONSAFEPATH

from grading.begin import main      # noqa: E402
from lib.processes import program   # noqa: E402

if __name__ == "__main__":
    program(main, "begin.py")
