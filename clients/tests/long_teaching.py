#!/usr/bin/env python3
"""The commands of clients/TEACHING.md that take a while, such as those of a class."""

import unittest

from test_teaching import SHORT, Commands, sections


class TheClasses(Commands):
    def test_show_what_their_commands_print(self):
        for heading, text in sections().items():
            if heading not in SHORT:
                with self.subTest(heading):
                    self.run_section(text)


if __name__ == "__main__":
    unittest.main()
