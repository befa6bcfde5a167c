#!/usr/bin/env python3
"""What make builds again after a change: of the back-end, the flags or a header. An object that
is out of date looks like a bug in a program that has none."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]


class MakeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """Build once. Each test begins with a copy at the same path, and the same times."""
        folder = tempfile.mkdtemp(prefix="make test ")      # with a space, as in some paths
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.tree, cls.built = pathlib.Path(folder, "tree"), pathlib.Path(folder, "built")
        for part in "common", "step8_ae":
            shutil.copytree(str(TREE / part), str(cls.tree / part),
                            ignore=shutil.ignore_patterns("build", "server", "__pycache__"))
        cls.first = cls("make").make()
        cls.tree.rename(cls.built)

    def setUp(self):
        self.assertEqual(self.first, {"server", "server.o", "ae.o", "ae_poll.o", "options.o"})
        shutil.copytree(str(self.built), str(self.tree))
        self.addCleanup(shutil.rmtree, str(self.tree))

    def make(self, *arguments, backend="poll", cflags="-O0"):
        """Makes the server. Returns which of the watched files were built."""
        watched = [self.tree / "step8_ae/server", *(self.tree / "step8_ae/build" / name for name
                   in ("server.o", "ae.o", "ae_poll.o", "ae_select.o", "common/options.o"))]

        def times():
            return {path: path.stat().st_mtime_ns for path in watched if path.exists()}

        before = times()
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("CFLAGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "SAN")}
        done = subprocess.run(
            ["make", "-s", "-C", str(self.tree / "step8_ae"), "server", "BACKEND=" + backend,
             "CFLAGS=" + cflags, *arguments], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
        self.assertEqual(done.returncode, 0, done.stderr)
        return {path.name for path, time in times().items() if before.get(path) != time}

    def test_nothing(self):
        self.assertEqual(self.make(), set())

    def test_a_broken_list_of_prerequisites(self):
        """As a full disk leaves it. Its object is built again, and there is a list again."""
        path = self.tree / "step8_ae/build/ae.d"
        for content in b"garbage without sense\n", b"\0\1\2", b"\ttab: first\n":
            path.write_bytes(content)
            self.assertEqual(self.make(), {"server", "ae.o"})
            self.assertIn(b"ae.h", path.read_bytes())
        path.write_bytes(b"garbage without sense\n")
        self.make("clean")
        self.assertFalse(path.exists())

    def test_commands_are_shown_only_if_asked_for(self):
        for value, shown in ("", False), ("0", False), ("1", True):
            done = subprocess.run(
                ["make", "-B", "-C", str(self.tree / "step8_ae"), "server", "BACKEND=poll",
                 "V=" + value], stdout=subprocess.PIPE, encoding="utf-8", check=True)
            self.assertEqual(" -std=c11 " in done.stdout, shown, f"V={value}")

    def test_another_back_end(self):
        self.assertLessEqual({"server", "ae_select.o"}, self.make(backend="select"))
        self.assertIn("server", self.make())        # and back, with all objects there
        self.assertEqual(self.make(), set())

    def test_other_flags(self):
        everything = {"server", "server.o", "ae.o", "ae_poll.o", "options.o"}
        self.assertEqual(self.make(cflags="-O1"), everything)
        self.assertEqual(self.make("CPPFLAGS=-DX", cflags="-O1"), everything)
        self.assertEqual(self.make("LDFLAGS=-L.", "CPPFLAGS=-DX", cflags="-O1"), everything)

    def test_a_sanitizer(self):
        probe = subprocess.run(["make", "-s", "-C", str(self.tree / "step8_ae"), "server",
                                "SAN=undefined", "BACKEND=poll", "CFLAGS=-O0"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if probe.returncode:
            self.skipTest("this compiler has no -fsanitize=undefined")
        self.assertEqual(self.make(), {"server", "server.o", "ae.o", "ae_poll.o", "options.o"})

    def test_a_header(self):
        os.utime(str(self.tree / "step8_ae/ae_backend.h"))
        self.assertEqual(self.make(), {"server", "ae.o", "ae_poll.o"})
        os.utime(str(self.tree / "common/options.h"))
        self.assertEqual(self.make(), {"server", "server.o", "options.o"})


if __name__ == "__main__":
    unittest.main()
