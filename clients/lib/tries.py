"""The patches in stepN/tries, which show what the READMEs ask their readers to try."""

import os
import pathlib
import shutil
import subprocess
import tempfile

from .tree import ROOT

BUILD_SECONDS = 120


class Patched:
    """`with Patched("step1_sequential", "never-close", "SAN=address") as program:` the server
    of a step, built in a copy of it that was patched. The rest are arguments for make."""

    def __init__(self, step, name, *settings):
        self.step, self.name, self.settings = step, name, settings

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        try:
            for part in "common", self.step:    # with what is built, which saves time
                shutil.copytree(ROOT / part, self.folder / part, symlinks=True)
            apply(ROOT / self.step / "tries" / f"{self.name}.patch", self.folder)
            step = self.folder / self.step
            _run(["make", "-s", "-C", step, "server", *self.settings], self.folder,
                 NO_INSTALL="1", MAKEFLAGS="")
            return step / "server"
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        shutil.rmtree(self.folder)


def apply(patch, folder, *options):
    """Apply a patch to the tree in a folder; ValueError: it does not fit."""
    _run(["git", "apply", *options, patch], folder,
         GIT_CEILING_DIRECTORIES=str(pathlib.Path(folder).parent))


def _run(command, folder, **environment):
    done = subprocess.run([*map(str, command)], cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding="utf-8", timeout=BUILD_SECONDS,
                          env={**os.environ, **environment})
    if done.returncode != 0:
        raise ValueError(f"{command[0]}: {done.stdout}")
    return done.stdout
