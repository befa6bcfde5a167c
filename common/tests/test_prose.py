#!/usr/bin/env python3
"""prose.py finds each of its phrases in each kind of file, and nothing else."""

import pathlib
import runpy
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "tools/prose.py"
PROSE = runpy.run_path(str(SOURCE))


class PatternTest(unittest.TestCase):
    """Each pattern matches its example, and neither its counter-example nor the good half of
    another pattern's pair by itself."""

    def test_examples(self):
        for regex, entry in PROSE["COMPILED"]:
            with self.subTest(entry.say):
                name = "subject" if entry.where == "^subject$" else "common/x.c"
                self.assertIn(entry, [e for _, _, e in PROSE["phrases"](name, entry.yes)])
                self.assertEqual([e.say for _, _, e in PROSE["phrases"](name, entry.no)], [])

    def test_where_a_pattern_applies(self):
        naps = [len(list(PROSE["phrases"](name, "It naps.")))
                for name in ("step4_nonblocking_poll/server.c", "step6_epoll/server.c")]
        self.assertEqual(naps, [0, 1])

    def test_each_alternative_of_a_pattern(self):
        for bad in ("newcomers", "shown out", "shows every client out", "owes", "owing a byte",
                    "lending", "nor does it", "of whom", "told of it", "laps", "unheard",
                    "the third client was refused", "refuse a client", "refusals",
                    "clients that are silent", "a client that is gone", "one who waits",
                    "nor who waits", "a client beyond that is refused", "%d of 40 were refused",
                    "none is left when they have gone", "longest silent first",
                    "--idle-timeout: who spoke is not idle"):
            self.assertTrue(list(PROSE["phrases"]("x.md", bad)), bad)
        for good in ("show what is out of date", "owing to that", "neither here nor there",
                     "overlap", "connection refused", "the file is gone", "floor(x)",
                     "silent where nothing is missing", "the lowest floor of a house",
                     "the value is refused", "when they have gone through", "who is asked?"):
            self.assertEqual(list(PROSE["phrases"]("x.md", good)), [], good)


class TreeTest(unittest.TestCase):
    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="prose-"))
        self.addCleanup(shutil.rmtree, self.tree)
        (self.tree / "common/tools").mkdir(parents=True)
        shutil.copy(SOURCE, self.tree / "common/tools/prose.py")

    def put(self, path, text):
        path = self.tree / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def prose(self, *arguments):
        done = subprocess.run([sys.executable, "common/tools/prose.py", *arguments],
                              cwd=self.tree, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              encoding="utf-8", timeout=60)
        return done.returncode, done.stdout, done.stderr

    def expect(self, path, text, *lines):
        """The findings of one file are in these lines, and in no others."""
        self.put(path, text)
        status, out, err = self.prose()
        self.assertEqual(err, "")
        found = [int(line.split(":")[1]) for line in out.splitlines()
                 if line.startswith(path + ":") and "warning:" not in line]
        self.assertEqual(found, list(lines), out)
        self.assertEqual(status, 1 if lines else 0)

    def test_c(self):
        self.expect("a.c", '/* A knock.\n * Shows the\n * client out. */\nint owed; // a lap\n'
                    'char *s = "owed bytes", *key = "owed";\n// nor\n// is it\n',
                    1, 2, 4, 5, 6)

    def test_a_test_of_c(self):
        self.expect("a.c", "static void who_waits_is_owed_bytes(void **state)\n{\n}\n", 1, 1)

    def test_python(self):
        self.expect("a.py", '"""One\n\nknock."""\nowed = 1  # a lap\nx = "owed"\n'
                    'y = f"{x} is owed"\n\n\ndef test_a_lap():\n    pass\n', 3, 4, 6, 9)

    def test_shell(self):
        self.expect("a.sh", "#!/bin/sh\n# One\n# knock\necho \"a lap now\" $# 'owed'\n", 3, 4)

    def test_makefile(self):
        self.expect("Makefile", "## all   a lap\nall: ; @echo \"a lap now\"\n", 1, 2)

    def test_markdown(self):
        self.expect("a.md", "# A lap\n\nText shows the\nclient out. `lap`\n\n"
                    "    lap here      # a lap there\n    x    <- a lap\n\n"
                    "| a lap |\n\n```\nlap\n```\n[x](lap.md)\n<!-- lap -->\n- a lap\n",
                    1, 3, 6, 7, 9, 16)

    def test_a_phrase_ends_with_its_paragraph(self):
        self.expect("a.md", "It shows\n\n- out\n")

    def test_an_allowed_phrase(self):
        self.expect("a.md", "A lap <!-- prose: ok -->\n\nA lap\n", 3)

    def test_long_sentences_are_warnings(self):
        self.put("a.md", "Short.\n" + "word " * 35 + "end. Short again.\n")
        self.put("a.c", "/* " + "word " * 50 + "*/\n")
        self.assertEqual(self.prose(), (0, "a.md:2: warning: a sentence of 36 words\n", ""))

    def test_count(self):
        self.put("a.md", "A lap.\n\nA lap.\n")
        status, out, _ = self.prose("--count")
        self.assertEqual((status, [line.split() for line in out.splitlines()][0]),
                         (1, ["2", "0", "a.md"]))

    def test_build_products_are_not_read(self):
        self.expect("build/a.md", "A lap\n")

    @unittest.skipUnless(shutil.which("git"), "needs git")
    def test_commit_subjects(self):
        def git(*words):
            subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x.org", *words],
                           cwd=self.tree, check=True, stdout=subprocess.DEVNULL)
        git("init", "-q")
        for subject in "Refuse newcomers", "Let a client be idle", "Reject a client":
            git("commit", "-q", "--allow-empty", "-m", subject)
        status, out, _ = self.prose("--since", "HEAD~2")
        self.assertEqual((status, out.count("\n")), (1, 1))
        self.assertIn('"Let a client be"', out)
        self.assertEqual(self.prose("--since", "HEAD~1")[:2], (0, ""))
        status, _, err = self.prose("--since", "nonesuch")
        self.assertEqual(status, 2)
        self.assertIn("--since nonesuch: ", err)

    def test_usage(self):
        for words in ["--since"], ["nonesuch.md"], ["--everything"]:
            self.assertEqual(self.prose(*words)[0], 2, words)


if __name__ == "__main__":
    unittest.main()
