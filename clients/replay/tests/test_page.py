"""The page says what the recordings say, and anybody can use it.

Builds the page into a temporary folder and opens it in headless Chromium. SCREENSHOTS=FOLDER
keeps a picture of each step there. MOMENTS=N are compared (50), which SEED=N chooses again.
"""

import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

REQUIRED = os.environ.get("REQUIRE_ALL", "0") not in ("", "0")
HERE = pathlib.Path(__file__).resolve().parent
REPLAY, ROOT = HERE.parent, HERE.parents[2]
sys.path[:0] = [str(ROOT / "clients/tests"), str(REPLAY)]

import charts           # noqa: E402
import test_bench       # noqa: E402  (it has results as the benchmark writes them)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MOMENTS = int(os.environ.get("MOMENTS") or 50)
SEED = int(os.environ.get("SEED") or random.randrange(1 << 30))


def absent():
    for program, found in (("node", shutil.which("node")), ("npm", shutil.which("npm")),
                           ("chromium", CHROMIUM)):
        if not found:
            return f"{program} is not installed"
    return ""


class Reading:
    """What a recording says of a moment, read without the page's scripts."""

    def __init__(self, made, at):
        self.made, self.at, self.clients = made, at, made["clients"]
        self.begun = [call for call in made["calls"] if call[1] <= at]

    def returned(self, call):
        return call[2] is not None and call[2] <= self.at

    def count(self, call):
        found = re.match(r"-?\d+", call[5] or "")
        return int(found[0]) if found else -1

    def over(self, number, names):
        return [self.count(call) for call in self.made["calls"] if call[6] == number
                and call[3] in names and self.returned(call) and self.count(call) > 0]

    def ended(self):
        """The server: all of its threads and processes."""
        return all(end is not None and end <= self.at for *_, end in self.made["tasks"])

    def unread(self, number):
        """What comes after the server's last close is not kept."""
        closes = [call[2] for call in self.made["calls"] if call[6] == number
                  and call[3] == "close" and call[2] is not None]
        if self.ended() or closes and closes[-1] <= self.at:
            return 0
        sent = sum(send[1] for send in self.clients[number]["sends"] if send[0] <= self.at)
        return sent - sum(self.over(number, ("recvfrom", "read")))

    def to_client(self, number):
        """A short send counts from its begin, a send that sleeps when it returns."""
        client = self.clients[number]
        if self.ended() or client["close"] is not None and client["close"] <= self.at:
            return 0
        sent = sum(self.count(call) for call in self.begun if call[6] == number
                   and call[3] in ("sendto", "write") and self.count(call) > 0
                   and (self.returned(call) or not self.sleeps(call)))
        got = sum(each[1] for each in client["receives"] if each[0] <= self.at)
        if client["greeting"] is not None and client["greeting"] <= self.at:
            got += 6 if "slow_command" in self.made["server"] else 1
        return max(sent - got, 0)

    def client(self, number):
        client, at = self.clients[number], self.at

        def was(key):
            return client[key] is not None and client[key] <= at

        greets = any(each["greeting"] is not None for each in self.clients)
        if was("close"):
            return "failed" if client["failure"] else "closed"
        if not was("connect"):
            return "connecting" if was("connecting") else "not started"
        if greets and not was("greeting"):
            return "waiting for the greeting"
        expected = max([send[3] for send in client["sends"] if send[0] <= at], default=0)
        got = sum(each[1] for each in client["receives"] if each[0] <= at)
        if got < expected:
            followed = not any(call[3] == "io_uring_enter" for call in self.made["calls"])
            ready = followed and self.to_client(number) > 0
            return "answers wait for it" if ready else "waiting for an answer"
        return "waiting for the close" if was("disconnect") else "idle"

    def queue(self):
        waiting = []
        for number, client in enumerate(self.clients):
            ends = [call[2] for call in self.made["calls"] if call[3].startswith("accept")
                    and call[6] == number and self.count(call) >= 0 and call[2] is not None]
            if not ends:    # never accepted: until the last close of the listener, or its own
                ends = [call[2] for call in self.made["calls"]
                        if call[4] == f"close({self.made['listener']})" and call[2] is not None]
                own = [client["close"]] if client["close"] is not None else []
                ends = [min(ends[-1:] + own)] if ends or own else [float("inf")]
            if client["connect"] is not None:
                since = min(client["connect"], ends[0])
                if since <= self.at < ends[0]:
                    waiting.append((since, client["name"]))
        names = [name for _, name in sorted(waiting, key=lambda entry: entry[0])]
        return f"{len(names)}: {', '.join(names)}" if names else "empty"

    def task(self, number):
        _, _, start, end = self.made["tasks"][number]
        if start > self.at:
            return "not started"
        if end is not None and end <= self.at:
            return "ended"
        calls = [call for call in self.begun if call[0] == number]
        if not calls or self.returned(calls[-1]):
            return "runs, or waits for a CPU"
        call = calls[-1]
        return f"{'asleep in' if self.sleeps(call) else 'in'} {call[3]}"

    def sleeps(self, call):
        took = float("inf") if call[2] is None else call[2] - call[1]
        slept = not re.match(r"close|clone|fork|socket|bind|listen|shutdown|epoll_c|"
                             r"io_uring_[sr]", call[3]) and "FUTEX_WAKE" not in call[4]
        return slept and "EAGAIN" not in (call[5] or "") and \
            took >= (100000 if call[3] in ("sendto", "write") else 1000)

    def process(self, task):
        kind, parent, *_ = self.made["tasks"][task]
        return self.process(parent) if kind == "thread" else task

    def interest(self):
        """{(epoll instance, descriptor): events}"""
        held, owner = {}, {}
        if self.ended():
            return held
        for call in self.made["calls"]:
            if not self.returned(call) or call[5] != "0":
                continue
            found = re.match(r"epoll_ctl\((\d+), EPOLL_CTL_(\w+), (\d+)"
                             r"(?:, \{events=([^,]*))?", call[4])
            if found:
                key = int(found[1]), int(found[3])
                owner[key] = self.process(call[0])
                if found[2] == "DEL":
                    held.pop(key, None)
                else:
                    held[key] = found[4].replace("EPOLL", "")
            elif call[3] == "close":
                closed = int(re.search(r"\d+", call[4])[0])
                for key in [key for key in held if closed in key
                            and owner[key] == self.process(call[0])]:
                    del held[key]
        return held

    def name(self, fd):
        """What a descriptor of the first process is. The latest that made it counts."""
        names = [(made[1], made[3]) for made in self.made.get("descriptors", [])
                 if made[2] == fd and self.process(made[0]) == 0]
        for call in self.made["calls"]:
            if not self.returned(call) or self.count(call) < 0 or self.process(call[0]):
                continue
            first = int(re.search(r"\d*", call[4].partition("(")[2])[0] or -1)
            if call[3] == "listen" and first == fd:
                names.append((call[2], "listener"))
            elif call[3].startswith("accept") and call[6] >= 0 and self.count(call) == fd:
                names.append((call[2], self.clients[call[6]]["name"]))
            elif call[3] == "epoll_create1" and self.count(call) == fd:
                names.append((call[2], "epoll instance"))
            elif call[3] == "close" and first == fd:
                names.append((call[2], "server's own"))
        return max([each for each in names if each[0] <= self.at],
                   default=(0, "server's own"), key=lambda each: each[0])[1]

    def listed(self):
        held = self.interest()
        several = len({epoll for epoll, _ in held}) > 1
        return {f"{fd} {self.name(fd)} {events}" + (f" in epoll {epoll}" if several else "")
                for (epoll, fd), events in held.items()}

    def can_be_read(self, fd):
        """A descriptor that the server made for itself."""
        made = [made for made in self.made.get("descriptors", [])
                if made[2] == fd and made[1] <= self.at]
        if not made:
            return False
        other, there = made[-1][4], 0
        for call in self.made["calls"]:
            if call[6] >= 0 or not self.returned(call) or call[2] < made[-1][1] \
                    or self.count(call) <= 0:
                continue
            if call[3] in ("write", "sendto") and re.search(rf"\({other},", call[4]):
                there += self.count(call)
            elif call[3] in ("read", "recvfrom") and re.search(rf"\({fd},", call[4]):
                there = 0 if other == fd else there - self.count(call)
        return there > 0

    def ready(self):
        """Those of the interest list that have unread bytes, an end, or a client to accept."""
        owners = {client["name"]: number for number, client in enumerate(self.clients)}
        found = []
        for (_, fd), events in self.interest().items():
            if "IN" not in events.split("|"):
                continue
            name = self.name(fd)
            if name in owners:
                client = self.clients[owners[name]]
                left = client["disconnect"] is not None and client["disconnect"] <= self.at
                ready = left or self.unread(owners[name]) > 0
            else:
                ready = self.queue() != "empty" if name == "listener" else self.can_be_read(fd)
            if ready:
                found.append(f"{fd} {name}")
        return "; ".join(found) or "empty"

    def sets(self):
        """What select or poll was asked about, and what it returned; None before the first."""
        calls = [call for call in self.begun if call[3] in ("pselect6", "poll", "ppoll")]
        if not calls:
            return None
        _, _, _, name, text, result, *_ = calls[-1]
        if name.endswith("poll"):
            asked = re.findall(r"fd=(\d+), events=POLLIN", text)
            asked += [f"{fd} to write" for fd in re.findall(r"fd=(\d+), events=POLLOUT", text)]
            ready = re.findall(r"fd=(\d+), revents", result or "")
        else:
            sets = re.findall(r"\[([\d ]*)\]|NULL", text)
            asked = sets[0].split() + [f"{fd} to write" for fd in sets[1].split()]
            ready = " ".join(re.findall(r"\[([\d ]*)\]", result or "")).split()
        words = " ".join(ready) or "nothing"
        return (f"{name}: {' '.join(asked) or 'nothing'}",
                words if self.returned(calls[-1]) else "not yet")

    def call(self):
        if not self.begun:
            return "no call yet"
        call = self.begun[-1]
        if self.returned(call):
            return f"{call[4]} = {call[5]}"
        return None     # checked by a pattern


@unittest.skipIf(absent() and not REQUIRED, absent())
class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if absent():
            raise AssertionError(absent())
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.page = pathlib.Path(cls.folder, "page")
        results = pathlib.Path(cls.folder, "results.json")
        results.write_text(json.dumps(test_bench.a_result()), encoding="utf-8")
        subprocess.run([str(REPLAY / "page.sh"), str(cls.page)], check=True,
                       stdout=subprocess.DEVNULL, env={**os.environ, "RESULTS": str(results)})
        cls.made = {file.stem: json.loads(file.read_text(encoding="utf-8"))
                    for file in sorted((REPLAY / "recordings").glob("*.json"))}
        choose = random.Random(SEED)
        cls.moments = []
        for name in "1-slow-reader", "2-slow-reader", "3-slow-reader":     # while a send sleeps
            sends = [call for call in cls.made[name]["calls"]
                     if call[3] == "sendto" and call[2]]
            longest = max(sends, key=lambda call: call[2] - call[1])
            cls.moments.append((name, (longest[1] + longest[2]) // 2))
        for number in range(MOMENTS):
            name = choose.choice(list(cls.made))
            calls, tasks = cls.made[name]["calls"], cls.made[name]["tasks"]
            last = max(calls[-1][1], *(end or 0 for *_, end in tasks))
            moment = choose.randint(calls[0][1], last) if number % 8 else last
            cls.moments.append((name, moment))
        shots = os.environ.get("SCREENSHOTS")
        if shots:
            pathlib.Path(shots).mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["node", str(HERE / "browser.js"), CHROMIUM, str(cls.page),
             cls.folder + "/profile"],
            input=json.dumps({"moments": cls.moments, "screenshots": shots}),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, timeout=300)
        if done.returncode:
            raise AssertionError(done.stderr[-2000:])
        cls.answer = json.loads(done.stdout)

    def test_at_random_moments_the_page_says_what_the_recording_says(self):
        for (name, at), shown in zip(self.moments, self.answer["moments"]):
            with self.subTest(recording=name, at=at, seed=SEED):
                self.compare(Reading(self.made[name], at), shown)

    def compare(self, reading, shown):
        made, clients = reading.made, range(len(reading.clients))
        followed = not any(call[3] == "io_uring_enter" for call in made["calls"])
        for number in clients:
            cells = [reading.client(number)]
            if followed:
                cells += [f"{count:,} B" if count else "-"
                          for count in (reading.unread(number), reading.to_client(number))]
            self.assertEqual(shown["clients"][reading.clients[number]["name"]], cells)
        if followed:
            self.assertEqual(shown["kernel"]["accept queue"], reading.queue())
        if "interest list" in shown["kernel"]:
            listed = shown["kernel"]["interest list"]
            self.assertEqual(set() if listed == "empty" else set(listed.split("; ")),
                             reading.listed())
            edge = any("EPOLLET" in call[4] for call in made["calls"])
            self.assertEqual(shown["kernel"]["ready to read" if edge else "ready list"],
                             reading.ready())
        if "asked about" in shown["kernel"]:
            self.assertEqual((shown["kernel"]["asked about"], shown["kernel"]["returned"]),
                             reading.sets() or ("nothing yet", "nothing yet"))
        self.assertEqual(list(shown["tasks"].values()),
                         [reading.task(number) for number in range(len(made["tasks"]))])
        if reading.call() is not None:
            self.assertEqual(shown["call"], reading.call())
        else:
            self.assertTrue(shown["call"].endswith("<unfinished ...>"), shown["call"])
            self.assertTrue(shown["call"].startswith(reading.begun[-1][3] + "("))
        latest = reading.begun[-1] if reading.begun else None
        if latest and reading.task(latest[0]) == "ended":
            self.assertRegex(shown["meaning"], r"^The server has ended\.$" if reading.ended()
                             else r" has ended\.$")
            self.assertIsNone(shown["line"])
            return
        if latest:
            quiet = reading.returned(latest) and reading.at - latest[2] > 1000
            self.assertEqual("; since then it computes" in shown["meaning"], quiet)
            self.assertEqual("past" in shown["classes"], quiet and latest[7] >= 0)
        if latest and latest[6] >= 0 and not latest[3].startswith("accept"):
            self.assertIn(reading.clients[latest[6]]["name"], shown["meaning"])
        if latest and latest[7] >= 0:
            _, _, _, text = made["places"][latest[7]]
            self.assertEqual(shown["line"][1], text)

    def test_the_keyboard_is_enough(self):
        keys, steps = self.answer["keys"], self.answer["keys"]["steps"]
        self.assertEqual(self.answer["skip"], "skip")
        self.assertGreaterEqual(keys["five"], steps[4])
        self.assertLess(keys["four"], keys["five"])
        self.assertTrue(keys["axis"])
        self.assertEqual(keys["speed"], 2)
        self.assertGreater(keys["played"], keys["four"])
        self.assertTrue(keys["paused"])
        self.assertEqual(keys["end"], keys["last"])

    def test_the_lanes_can_be_dragged(self):
        self.assertLess(self.answer["dragged"], self.answer["keys"]["end"])

    def test_the_search_finds_sections(self):
        self.assertGreater(self.answer["found"], 1)

    def test_two_servers_stand_side_by_side(self):
        self.assertEqual(self.answer["two"], "5-five 6-five")
        self.assertEqual(len(set(self.answer["tops"])), 1)
        self.assertEqual(len(self.answer["axes"]), 2)
        self.assertEqual(*self.answer["axes"])

    def test_the_bits_of_select_come_back(self):
        self.assertEqual(self.answer["bits"], [2, 0, 2])

    def test_it_explains_a_clock_below_zero_and_a_wakeup_at_descriptor_0(self):
        for name, text in self.answer["notes"].items():
            self.assertEqual(text.count("The clock shows 0 when the clients begin"), 1, name)
            self.assertEqual("closes its standard input, so its wake-up gets" in text,
                             name == "7-five", name)

    def test_the_charts_are_those_of_the_benchmark(self):
        drawn = (self.page / "charts/throughput-1.svg").read_text(encoding="utf-8")
        self.assertIn("CPU of the server per message", drawn)
        self.assertIn(">5 select<", drawn)
        self.assertIn("Measured on 2025-01-31, a machine.", drawn)
        self.assertIn("charts/throughput-1.svg",
                      (self.page / "charts.html").read_text(encoding="utf-8"))

    def test_axe_finds_nothing(self):
        for name, violations in self.answer["axe"].items():
            self.assertEqual(violations, [], name)

    def test_no_request_leaves_the_file_and_no_script_fails(self):
        self.assertEqual(self.answer["requests"], [])
        self.assertEqual(self.answer["errors"], [])

    def test_nothing_moves_for_those_who_want_no_motion(self):
        self.assertTrue(self.answer["still"])
        self.assertTrue(self.answer["jumps"])

    def test_it_fits_a_telephone_and_a_projector(self):
        for name, width in self.answer["widths"].items():
            self.assertLessEqual(width, int(name.split()[0]), name)

    def test_no_markdown_is_left_as_text(self):
        """A line that begins with a comment is not Markdown: its links would be shown raw."""
        for file in self.page.rglob("*.html"):
            text = re.sub(r"<(pre|code)\b.*?</\1>", "", file.read_text(encoding="utf-8"),
                          flags=re.S)
            self.assertNotIn("](", text, file.relative_to(self.page))

    def test_every_link_within_the_page_leads_somewhere(self):
        for file in self.page.rglob("*.html"):
            text = file.read_text(encoding="utf-8")
            for link in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', text):
                self.assertTrue((file.parent / link).exists(),
                                f"{file.relative_to(self.page)}: {link}")


@unittest.skipIf(not shutil.which("node") and not REQUIRED,
                 "node is not installed")
class Scripts(unittest.TestCase):
    def test_the_scripts(self):
        done = subprocess.run(["node", "--test", str(HERE / "replay.test.js")],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout[-3000:])


class Missing(unittest.TestCase):
    def test_a_missing_program_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in "sh", "dirname":
                os.symlink(shutil.which(name), f"{folder}/{name}")
            for name in "node", "npm", "python3":
                for required in "0", "1":
                    done = subprocess.run([str(REPLAY / "page.sh")], text=True, check=False,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                          env={"PATH": folder, "REQUIRE_ALL": required})
                    self.assertEqual(done.returncode, int(required), done.stdout)
                    self.assertIn(f"page: {name} is not installed", done.stdout)
                os.symlink("/bin/true", f"{folder}/{name}")


class Charts(unittest.TestCase):
    def test_names_of_lines_neither_overlap_nor_leave_the_chart(self):
        self.assertEqual(charts.spread_out([0, 1, 50], 100), [0, 15, 50])
        self.assertEqual(charts.spread_out([97, 98, 99], 100), [70, 85, 100])


class LockFile(unittest.TestCase):
    def test_it_names_no_registry(self):
        self.assertNotIn("resolved", (REPLAY / "package-lock.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(unittest.main())
