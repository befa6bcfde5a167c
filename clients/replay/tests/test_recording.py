"""Recordings are faithful, a damaged one is detected, and a run can be recorded again."""

import copy
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

REQUIRED = os.environ.get("REQUIRE_ALL", "0") not in ("", "0")
HERE = pathlib.Path(__file__).resolve().parent
REPLAY, ROOT = HERE.parent, HERE.parents[2]
sys.path[:0] = [str(REPLAY), str(REPLAY.parent)]

import pictures                         # noqa: E402
import record                           # noqa: E402
import recording as model               # noqa: E402
import scenes                           # noqa: E402
import strace                           # noqa: E402
from lib.processes import program       # noqa: E402,F401  (asks for the oldest Python)

FILES = sorted((REPLAY / "recordings").glob("*.json"))
RECORDER = [sys.executable, str(REPLAY / "record.py")]


OWN_SERVER = """
#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    int l = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1])),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 50))
        return 1;
    for (;;) {
        char b[1000];
        int c = accept(l, NULL, NULL), in = 0;
        if (write(c, "*", 1) == 1)
            for (ssize_t n; (n = read(c, b, sizeof b)) > 0;)
                for (ssize_t i = 0; i < n; i++) {
                    char next = b[i] + 1;
                    if (!in || b[i] == '$')
                        in = b[i] == '^';
                    else if (write(c, &next, 1) != 1)
                        return 1;
                }
        close(c);
    }
}
"""


WRONG_SCRIPT = """#!/usr/bin/env python3
import socket, sys
if sys.argv[1:-1] != ["--loss", "1 2"]:
    sys.exit("wrong options")
with socket.create_server(("127.0.0.1", int(sys.argv[-1]))) as listener:
    while True:
        with listener.accept()[0] as sock:
            sock.sendall(b"*")
            while sock.recv(1000):
                sock.sendall(b"wrong")
"""


def can_record():
    if not shutil.which("strace") or not shutil.which("addr2line"):
        return "strace or addr2line is not installed"
    if not os.access(ROOT / "step6_epoll/server", os.X_OK):
        return "step6_epoll/server is not built"
    with tempfile.NamedTemporaryFile() as file:
        done = subprocess.run([*strace.command(file.name), "true"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, check=False)
    return done.stderr.strip().split("\n")[0] if done.returncode else ""


class Committed(unittest.TestCase):
    def test_every_recording_is_faithful(self):
        self.assertTrue(FILES)
        for file in FILES:
            self.assertEqual(model.problems(model.load(file)), [], file.name)

    def test_what_is_planned_is_recorded_and_nothing_else(self):
        planned = {record.file_name(label, scene) for label, scene in scenes.PLAN}
        self.assertEqual({file.name for file in FILES}, planned)

    def test_every_step_every_variant_and_every_scene_is_planned(self):
        labels = {label.split()[0] for label, _ in scenes.PLAN}
        for step in range(1, 9):
            folder = next(ROOT.glob(f"step{step}_*"))
            self.assertIn(str(step), labels)
            for variant in folder.glob("variants/*.c"):
                self.assertIn(f"{step}/{variant.stem}", labels)
        for backend in (ROOT / "step8_ae").glob("ae_*.c"):
            self.assertIn("8" if backend.stem == "ae_epoll" else f"8/{backend.stem}", labels)
        self.assertEqual({scene for _, scene in scenes.PLAN}, set(scenes.SCENES))

    def test_each_line_of_source_is_in_the_source(self):
        """The page finds a line again by its text, so a recording need not be made again for
        every change."""
        for file in FILES:
            made = model.load(file)
            lines = {line.strip() for line in (ROOT / made["source"]).read_text(
                encoding="utf-8").splitlines()}
            lost = [place for place in made["places"]
                    if place[0] == made["source"] and place[3] not in lines]
            self.assertEqual(lost, [], f"{file.name}: `make record` records it again")

    def test_the_pictures_show_these_recordings(self):
        for path, text in pictures.outputs():
            self.assertEqual(path.read_text(encoding="utf-8"), text,
                             f"clients/replay/pictures.py draws {path.relative_to(ROOT)} again")


class Damaged(unittest.TestCase):
    def setUp(self):
        self.whole = model.load(REPLAY / "recordings/6-five.json")

    def damaged(self):
        return copy.deepcopy(self.whole)

    def test_without_any_one_call(self):
        for number in range(len(self.whole["calls"])):
            made = self.damaged()
            removed = made["calls"].pop(number)
            self.assertTrue(model.problems(made), removed)

    def test_without_a_call_even_if_the_numbers_of_calls_are_corrected(self):
        """Bytes, queues and the server's own counters disagree as well."""
        for number, call in enumerate(self.whole["calls"]):
            if call[model.NAME] in ("socket", "bind", "listen", "epoll_create1", "write"):
                continue
            if call[model.NAME] == "close" and call[model.CLIENT] < 0:
                continue
            made = self.damaged()
            made["calls"].pop(number)
            made["kinds"][call[model.NAME]] -= 1
            self.assertTrue(model.problems(made), call)

    def test_with_another_number_of_bytes(self):
        made = self.damaged()
        call = next(call for call in made["calls"] if call[model.NAME] == "recvfrom")
        call[model.RESULT] = "13"
        self.assertIn("received", model.problems(made)[0])

    def test_with_bytes_received_before_they_were_sent(self):
        made = self.damaged()
        call = next(call for call in made["calls"] if call[model.NAME] == "recvfrom")
        made["clients"][call[model.CLIENT]]["sends"][0][0] = call[model.END] + 1
        self.assertTrue(any("unread bytes" in line and " at " in line
                            for line in model.problems(made)))

    def test_a_slow_reader_that_never_filled_the_socket(self):
        made = model.load(REPLAY / "recordings/1-slow-reader.json")
        for call in made["calls"]:
            if call[model.NAME] == "sendto":
                call[model.START] = call[model.END] = call[model.END] or call[model.START]
        self.assertIn("the slow reader did not fill the server's socket", model.problems(made))

    def test_with_a_sample_that_disagrees(self):
        made = self.damaged()
        made["samples"][0][2] += 7
        self.assertTrue(any(line.startswith("/proc: ") for line in model.problems(made)))

    def test_the_command(self):
        with tempfile.TemporaryDirectory() as folder:
            lines = (REPLAY / "recordings/6-five.json").read_text().splitlines()
            number = next(i for i, line in enumerate(lines) if '"recvfrom"' in line)
            broken = pathlib.Path(folder, "broken.json")
            broken.write_text("\n".join(lines[:number] + lines[number + 1:]))
            empty = pathlib.Path(folder, "empty.json")
            empty.write_text("{}")
            for file, status in ((FILES[0], 0), (broken, 1), (empty, 1)):
                done = subprocess.run([*RECORDER, "--check", str(file)], stdout=subprocess.PIPE,
                                      text=True, check=False)
                self.assertEqual(done.returncode, status, done.stdout)


class Strace(unittest.TestCase):
    def test_a_call_in_two_parts(self):
        trace = strace.Trace([
            "7 10.000000 clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 8 <0.000100>",
            "7 10.100000 accept(3<TCP:[127.0.0.1:1]>,  <unfinished ...>",
            '8 10.200000 recvfrom(4<TCP:[127.0.0.1:1->127.0.0.1:9]>, "a->b", 9, 0, NULL, NULL)'
            " = 4 <0.000200>",
            " > /bin/server(main+0x10) [0x1f]",
            "7 10.300000 <... accept resumed>NULL, NULL) = 5 <0.200000>",
            "8 10.400000 +++ exited with 0 +++"])
        self.assertEqual([call.name for call in trace.calls], ["clone3", "accept", "recvfrom"])
        self.assertEqual(strace.plain(trace.calls[1].text), "accept(3, NULL, NULL)")
        self.assertAlmostEqual(trace.calls[1].end, 10.3)
        self.assertEqual(trace.calls[2].frames, [("/bin/server", 0x1f)])
        self.assertEqual(strace.peer(trace.calls[2].text), (4, 9))
        self.assertEqual((trace.tasks[8].parent, trace.tasks[8].kind, trace.tasks[8].end),
                         (7, "thread", 10.4))

    def test_a_call_that_never_returns(self):
        trace = strace.Trace(["7 1.000000 read(3<pipe:[5]>,  <unfinished ...>"])
        self.assertIsNone(trace.calls[0].end)


class Recorder(unittest.TestCase):
    def test_a_run_recorded_again_has_the_same_structure(self):
        missing = can_record()
        if missing:
            if REQUIRED:
                self.fail(missing)
            self.skipTest(missing)
        # workers has threads: its exit status goes to strace first, and reaches us later
        done = subprocess.run([*RECORDER, "--compare", "--only", "6,6/workers",
                               "--scene", "five"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_messages_of_one_sleep_interval_are_no_other_structure(self):
        for step, same in (("4", True), ("6", False)):
            made = model.load(REPLAY / f"recordings/{step}-five.json")
            fewer = copy.deepcopy(made)
            for name in "recvfrom", "sendto":
                fewer["calls"].remove([call for call in fewer["calls"]
                                       if call[model.CLIENT] == 0
                                       and call[model.NAME] == name
                                       and model.amount(call) > 0][1])
            self.assertEqual(record.structure(made) == record.structure(fewer), same)

    def test_somebodys_own_server(self):
        """It knows no --stats, prints nothing and is not in the tree."""
        if can_record() or not shutil.which("cc"):
            self.skipTest(can_record() or "cc is not installed")
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "mine.c")
            source.write_text(OWN_SERVER)
            subprocess.run(["cc", "-g", "-o", folder + "/mine", str(source)], check=True)
            done = subprocess.run(
                [*RECORDER, "--server", folder + "/mine", "--scene", "early", "--output",
                 folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                check=False, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout)
            made = model.load(folder + "/own-mine-early.json")
            self.assertEqual(made["text"], OWN_SERVER)
            call = next(call for call in made["calls"] if call[model.NAME] == "read"
                        and call[model.CLIENT] >= 0)
            self.assertIn("read(c,", made["places"][call[model.PLACE]][3])

    def test_somebodys_own_server_that_is_a_wrong_script_in_a_folder_with_a_blank(self):
        """It is recorded all the same, and its clients' failures are told."""
        if can_record():
            self.skipTest(can_record())
        with tempfile.TemporaryDirectory(prefix="my own ") as folder:
            script = pathlib.Path(folder, "mine.py")
            script.write_text(WRONG_SCRIPT)
            script.chmod(0o755)
            done = subprocess.run(
                [*RECORDER, "--server", str(script), "--output", folder, "--", "--loss", "1 2"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertIn("conn4 failed: wrong answer", done.stdout)
            made = model.load(folder + "/own-mine-py-five.json")
            self.assertEqual((made["text"], made["places"]), (WRONG_SCRIPT, []))
            self.assertTrue(all(client["failure"] for client in made["clients"]))

    def test_the_recording_says_who_made_a_descriptor(self):
        """In step 7 the wake-up has the number 0, and libuv has an eventfd of its own."""
        if can_record() or not os.access(ROOT / "step7_libuv/server", os.X_OK):
            self.skipTest(can_record() or "step7_libuv/server is not built")
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([*RECORDER, "--only", "7", "--scene", "early", "--output",
                                   folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout)
            names = [(number, name) for _, _, number, name, _ in
                     model.load(folder + "/7-early.json")["descriptors"]]
        self.assertIn((0, "wake-up"), names)
        self.assertIn("libuv's eventfd", [name for _, name in names])

    def test_wrong_command_lines(self):
        for arguments in (["--only", "9"], ["--scene", "none"], ["--check"],
                          ["--server", "/no/such/program"], ["--", "--option"],
                          ["--server", "/bin/true", "--compare"]):
            done = subprocess.run([*RECORDER, *arguments], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True, check=False)
            self.assertEqual(done.returncode, 2, done.stderr)


class Demo(unittest.TestCase):
    def test_the_picture_of_a_demo_has_a_row_for_each_client(self):
        connection = {"name": "conn0", "connect": 0.1, "greeting": 0.2, "close": 1.0,
                      "sends": [{"at": 0.3, "bytes": 14, "data": ""}],
                      "receives": [{"at": 0.4, "bytes": 7, "data": ""}]}
        svg = pictures.of_demo(json.loads(json.dumps({"steps": [
            {"step": "1", "model": "sequential", "connections": [connection]},
            {"step": "2", "model": "a < b", "connections": [connection, connection]}]})))
        self.assertEqual(svg.count(">conn0<"), 3)
        self.assertIn("a &lt; b", svg)
        self.assertIn(f"Recorded on {datetime.date.today().isoformat()}, ", svg)


if __name__ == "__main__":
    unittest.main()
