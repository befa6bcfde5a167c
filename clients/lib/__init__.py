"""What the Python tools of this tree share.

A program finds it by one path, the folder clients/, which it puts in front of the others:

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))
    from lib import processes, servers

    processes   start programs with all that they start, bound their output, and end them all
    servers     a server of the course on a free port
    figures     what Linux's /proc says about processes and their sockets
    tree        the steps, the variants, and how the suite is to check them
    reports     text from elsewhere made harmless; TAP and JUnit

Every tool needs the standard library only, and the Python named here.
"""

import sys

OLDEST = (3, 8)

if sys.version_info < OLDEST:
    sys.exit("Python %d.%d or newer is needed, this is %d.%d" % (OLDEST + sys.version_info[:2]))
