#!/usr/bin/env python3
"""Grade an echo server, in any language, stage by stage: what it earns, and what to do next."""

from grading.command import main
from lib.processes import program

if __name__ == "__main__":
    program(main)
