"""What the Python tools of this tree share.

A program finds it by one path, the folder clients/, which it puts in front of the others:

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))
    from lib import processes, servers

    processes   start programs with all that they start, bound their output, and end them all
    servers     a server of the course on a free port
    address     HOST and PORT on a command line, and the connection to a server
    figures     what Linux's /proc says about processes and their sockets
    tree        the steps, the variants, and how the suite is to check them
    tries       a step built with one of the patches that its README asks to try
    reports     text from elsewhere made harmless; TAP and JUnit
    seals       a hash beside figures that a program wrote into a document

Every tool needs the standard library only, and the Python named here.
"""

import os
import sys

OLDEST = (3, 8)
# Settings of the user's Python that would open a prompt when a tool ends, or drop every assert
# in the cases of `check-server.py --also`.
UNWANTED = "PYTHONINSPECT", "PYTHONOPTIMIZE"

if sys.version_info < OLDEST:
    sys.exit("Python %d.%d or newer is needed, this is %d.%d" % (OLDEST + sys.version_info[:2]))


def start_again_without(names):
    """If one of these variables is set, run this program again without it: Python has read it
    before our first line."""
    words = getattr(sys, "orig_argv", ["", *sys.argv])      # new in Python 3.10
    is_script = hasattr(sys.modules["__main__"], "__file__") and os.path.isfile(sys.argv[0])
    if [name for name in names if os.environ.pop(name, "")] and sys.executable and is_script:
        os.execv(sys.executable, [sys.executable, *words[1:]])


start_again_without(UNWANTED)
