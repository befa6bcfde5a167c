"""What passed the last time, per server, and how many hints it was shown.

It is a convenience: no file, a broken one, or one that cannot be written change no result."""

import contextlib
import json
import os

from lib.tree import ROOT

from .run import FAILED, PASSED


class Memory:
    def __init__(self, server, path=None):
        usual = str(ROOT / "clients" / "build" / "grade.json")
        self.path = os.environ.get("GRADE_MEMORY", usual) if path is None else path
        self.server = server
        mine = self.read().get(server)
        mine = mine if isinstance(mine, dict) else {}
        self.before = mine["passed"] if isinstance(mine.get("passed"), dict) else None
        self.shown = mine["hints"] if isinstance(mine.get("hints"), dict) else {}

    def hints(self, outcome, another, count_asked):
        """How many lines of the hint to show: as many as last time, one more, or this many,
        which is not remembered."""
        key = f"{outcome.graded.case.name}: {outcome.hint.bugs[0]}"
        count = self.shown.get(key, 0)
        count = count if isinstance(count, int) and count > 1 else 1
        if not count_asked:
            self.shown[key] = count = min(count + another, len(outcome.hint.lines))
        return min(count_asked or count, len(outcome.hint.lines))

    def news(self, found):
        """What passes for the first time, or no longer; remember what passes now."""
        now = {f"stage {judged.stage.number}": judged.status == PASSED
               for judged in found if judged.status in (PASSED, FAILED)}
        before, self.before = self.before, {**(self.before or {}), **now}
        self.save()
        if before is None:
            return ""
        gained = [name for name, passes in now.items() if passes and not before.get(name)]
        lost = [name for name, passes in now.items() if not passes and before.get(name)]
        return " ".join([f"New: {', '.join(gained)}."] * bool(gained)
                        + [f"Passed before, but not now: {', '.join(lost)}."] * bool(lost))

    def is_ours(self):
        """Whether it may be read and replaced: a file, or nothing yet. Root could replace even
        a device, such as /dev/null."""
        return bool(self.path) and (not os.path.lexists(self.path) or (
            os.path.isfile(self.path) and not os.path.islink(self.path)))

    def read(self):
        """All that is remembered, of each server."""
        found = {}
        if self.is_ours():
            with contextlib.suppress(OSError, ValueError, RecursionError):
                with open(self.path, encoding="utf-8") as file:
                    found = json.load(file)
        return found if isinstance(found, dict) else {}

    def save(self):
        """Read it once more: another run may have ended meanwhile."""
        if not self.is_ours():
            return
        everything = {**self.read(), self.server: {"passed": self.before, "hints": self.shown}}
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
            new = f"{self.path}.{os.getpid()}"
            with open(new, "w", encoding="utf-8") as file:
                json.dump(everything, file)
            os.replace(new, self.path)
