#!/usr/bin/env python3
"""Check an echo server, in any language, against the promises of this course."""

import sys

from check_server.command import main

if __name__ == "__main__":
    sys.exit(main())
