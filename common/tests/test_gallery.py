#!/usr/bin/env python3
"""The gallery of wrong programs: each is caught, its twin is not, and the page shows both."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import unittest

LESSONS = pathlib.Path(__file__).resolve().parents[1] / "lessons"
spec = importlib.util.spec_from_file_location("gallery_runner", LESSONS / "gallery.py")
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)
LINES = 40


class Gallery(unittest.TestCase):
    def test_every_program_has_a_twin_and_is_short(self):
        for catch in gallery.Catch.all.values():
            for twin in gallery.TWINS:
                text = catch.source(twin).read_text(encoding="utf-8")
                self.assertLessEqual(len(text.splitlines()), LINES, catch.name)
        for twin in gallery.TWINS:
            self.assertEqual({path.stem for path in (gallery.GALLERY / twin).iterdir()
                              if path.suffix in (".c", ".py")}, set(gallery.Catch.all))

    def test_the_page_shows_the_differences(self):
        page = gallery.README.read_text(encoding="utf-8")
        for catch in gallery.Catch.all.values():
            shown = "\n".join(f"    {line}".rstrip() for line in catch.difference().split("\n"))
            self.assertIn(f"    Caught by {catch.tool}:\n", page)
            self.assertIn(f"{shown}\n", page)

    def test_the_wrong_programs_compile_without_a_warning(self):
        for catch in gallery.Catch.all.values():
            if catch.source("wrong").suffix == ".c":
                done = subprocess.run(
                    ["cc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-fsyntax-only",
                     str(catch.source("wrong"))], stderr=subprocess.PIPE, encoding="utf-8")
                self.assertEqual(done.stderr, "")

    def test_a_program_that_is_not_caught_fails(self):
        catch = gallery.Catch("nothing")
        catch.name, catch.function = "sigpipe", lambda source: ""
        self.assertEqual(gallery.verdict(catch)[0], "the wrong program was not caught")
        catch.function = lambda source: "a complaint"
        self.assertIn("the right program was caught", gallery.verdict(catch)[0])

    def test_usage(self):
        done = subprocess.run([sys.executable, str(LESSONS / "gallery.py"), "nothing"],
                              stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, re.escape("there is no nothing: there are array_by_"))


def add_programs():
    def add(catch):
        def test(self):
            try:
                wrong, _ = gallery.verdict(catch)
            except gallery.Undecided as reason:
                self.skipTest(str(reason))
            self.assertEqual(wrong, "")
        setattr(Gallery, f"test_{catch.name}", test)
    for catch in gallery.Catch.all.values():
        add(catch)


add_programs()

if __name__ == "__main__":
    unittest.main()
