#!/usr/bin/env python3
"""Check an echo server, in any language, against the promises of this course."""

from check_server.command import main
from lib.processes import program

if __name__ == "__main__":
    program(main)
