#!/usr/bin/env python3
"""The claim of fiber.c: its serve_client is step 1's. Only the names of two calls differ."""

import pathlib
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]


def serve_client(path):
    """The text of that function in a source file."""
    text = (TREE / path).read_text(encoding="utf-8")
    begin = text.index("static void serve_client(")
    return text[begin:text.index("\n}\n", begin)]


class FiberTest(unittest.TestCase):
    def test_serve_client_is_that_of_step_1(self):
        step1 = serve_client("step1_sequential/server.c")
        fiber = serve_client("step8_ae/variants/fiber.c")
        self.assertNotEqual(fiber, step1)
        self.assertEqual(fiber.replace("fiber_", "stream_"), step1)


if __name__ == "__main__":
    unittest.main()
