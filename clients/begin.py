#!/usr/bin/env python3
"""Make a folder to begin with: a starter in some language, or one of our steps with blanks."""

from grading.begin import main
from lib.processes import program

if __name__ == "__main__":
    program(main, "begin.py")
