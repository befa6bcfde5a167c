#!/usr/bin/env python3
"""How large are a loop, a library and a runtime? Counts what is installed: lesson 12.

    common/lessons/demos/sizes.py

For our files: lines of code, without comments and empty lines. For others: functions that the
header declares, and bytes of machine code, as far as they are installed.
"""

import argparse
import ctypes.util
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "clients"))

from lib.processes import program   # noqa: E402


def without_comments(text):
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    return [line for line in text.split("\n") if line.strip()]


def lines(*names):
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in names]
    return sum(len(without_comments(text)) for text in texts)


def functions(name):
    """Functions that a header of ours declares."""
    return len(re.findall(r"^(?!typedef)\w[\w *]*\b\w+\([^;{]*\);", "\n".join(without_comments(
        (ROOT / name).read_text(encoding="utf-8"))), re.M))


def declared_by_libuv():
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    done = subprocess.run([compiler, "-E", "-xc", "-"], input="#include <uv.h>\n",
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
    return len(set(re.findall(r"\b(uv_\w+)\(", done.stdout))) if done.returncode == 0 else None


def machine_code(path):
    """Bytes of the section that is called text in size(1)."""
    if not path or shutil.which("size") is None:
        return None
    done = subprocess.run(["size", str(path)], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, encoding="utf-8")
    found = re.search(r"\n\s*(\d+)", done.stdout)
    return int(found[1]) if found else None


def library(name):
    """The file of a shared library."""
    soname = ctypes.util.find_library(name)
    for folder in ("/lib", "/usr/lib", "/usr/local/lib"):
        for path in pathlib.Path(folder).glob(f"**/{soname}") if soname else ():
            return path.resolve()
    return None


def row(what, count, code, size):
    def shown(number, unit=""):
        return "-" if number is None else f"{number:,}{unit}"
    print(f"  {what:34}{shown(count):>12}{shown(code):>14}"
          f"{shown(size and size // 1024, ' KiB'):>16}")


def main():
    argparse.ArgumentParser(description="Counts how large a loop, a library and a runtime "
                            "are.").parse_args()
    ae = ["step8_ae/ae.h", "step8_ae/ae_backend.h", "step8_ae/ae.c", "step8_ae/ae_epoll.c"]
    print(f"  {'':34}{'functions':>12}{'lines of code':>14}{'machine code':>16}")
    row("epoll: create, ctl, wait", 3, None, None)
    row("step 6's server.c, its loop in it", None, lines("step6_epoll/server.c"), None)
    row("ae with one back-end", functions("step8_ae/ae.h"), lines(*ae),
        sum(filter(None, (machine_code(ROOT / "step8_ae/build" / name)
                          for name in ("ae.o", "ae_epoll.o")))) or None)
    row("libuv", declared_by_libuv(), None, machine_code(library("uv")))
    node = shutil.which("node")
    row("Node.js", None, None, machine_code(node and pathlib.Path(node).resolve()))


if __name__ == "__main__":
    program(main, "sizes.py")
