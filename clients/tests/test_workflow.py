"""The workflow for a student's repository, its steps run as GitHub runs them."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from grading_tools import CLIENTS, ROOT, most, up_to

WORKFLOW = pathlib.Path(CLIENTS, "courses/github-workflow.yml").read_text(encoding="utf-8")
SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]


def steps():
    """[(command, {variable: expression})], found with patterns: there is no YAML here."""
    found = re.findall(r"(?m)^      - run: (.*)\n        env:\n((?:          .*\n)+)", WORKFLOW)
    return [(command, dict(re.findall(r"(\w+): \$\{\{ ([\w.]+) \}\}", variables)))
            for command, variables in found]


class Workflow(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        shutil.copytree(os.path.join(CLIENTS, "courses/starters/python"),
                        self.folder / "submission")
        (self.folder / "course").symlink_to(ROOT)

    def run_step(self, number, **context):
        command, variables = steps()[number]
        values = {name: context[re.sub(r"\W", "_", expression)]
                  for name, expression in variables.items()}
        return subprocess.run([*SHELL, command], cwd=self.folder, encoding="utf-8",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={"PATH": os.environ["PATH"], "CI": "true", "GRADE_MEMORY": "",
                                   "GITHUB_STEP_SUMMARY": f"{self.folder}/summary", **values})

    def test_without_the_variable_it_says_what_is_missing(self):
        done = self.run_step(0, vars_COURSE="")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stdout, r"^::error::.*\bCOURSE\b")

    def test_with_the_variable_it_goes_on(self):
        done = self.run_step(0, vars_COURSE="university/echo-servers")
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_the_starter_gets_its_points(self):
        done = self.run_step(1, github_repository="university/ada")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("\n::error title=stage 2", done.stdout)
        summary = (self.folder / "summary").read_text(encoding="utf-8")
        self.assertIn(f"{up_to(1)} of {most('main')} points", summary)
        results = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))
        self.assertEqual((results["points"], results["seed"]), (up_to(1), "university/ada"))

    def test_has_no_step_that_is_not_run_here(self):
        self.assertEqual(WORKFLOW.count("run: "), len(steps()))
        self.assertEqual(len(steps()), 2)


if __name__ == "__main__":
    unittest.main()
