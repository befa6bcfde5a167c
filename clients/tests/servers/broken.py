#!/usr/bin/env python3
"""An echo server with one bug: `broken.py --bug drops-the-last-byte [OPTIONS] [PORT]`."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))     # also with PYTHONSAFEPATH

import reference            # noqa: E402
from bugs import BUGS       # noqa: E402


def main():
    if len(sys.argv) < 3 or sys.argv[1] != "--bug" or sys.argv[2] not in BUGS:
        sys.stderr.write("usage: broken.py --bug NAME [OPTIONS] [PORT]\nNAME is one of: "
                         f"{' '.join(BUGS)}\n")
        return 2
    server_class = BUGS[sys.argv[2]]
    try:
        return reference.main(server_class, sys.argv[3:])
    except SystemExit as end:
        return getattr(server_class, "exit_status", {}).get(end.code, end.code)


if __name__ == "__main__":
    sys.exit(main())
