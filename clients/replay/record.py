#!/usr/bin/env python3
"""Records runs of the course's servers: which system call each made when, and from which line.

    clients/replay/record.py                    all that scenes.py plans, into recordings/
    clients/replay/record.py --only 6,2/pool    only these servers
    clients/replay/record.py --check FILE...    are these recordings faithful?
    clients/replay/record.py --compare          record again and compare the structure
    clients/replay/record.py --server PROGRAM [-- OPTION...]
                                                your own server: into build/recordings/

The server runs under strace. It needs no code for this. Exit status: 0 all is well, 1 it is
not, 2 wrong command line.
"""

import argparse
import datetime
import importlib.util
import json
import math
import os
import pathlib
import re
import resource
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections import Counter

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import recording as model           # noqa: E402
import scenes                       # noqa: E402
import strace                       # noqa: E402
from lib import processes, tree     # noqa: E402
from lib.processes import Trouble   # noqa: E402
from lib.servers import Server, free_port   # noqa: E402

TRIES = 4
CLOSE = 0.02        # without another try, a recorded run may take longer by this share
SAMPLE_EVERY = 0.02
SAMPLES = 24        # that are kept
CLIENT = HERE.parent / "simple-client.py"
NO_STATS = re.compile(r"/(slow_command|prime_server)")
SOCKETS = re.compile(r"<(?:TCP|UNIX|socket|pipe|anon_inode)")
KINDS = {"eventfd": "eventfd", "eventfd2": "eventfd", "pipe": "pipe", "pipe2": "pipe",
         "socketpair": "socket pair"}   # that a server makes for itself
LIBRARY = re.compile(r"(lib(?!c\b)[a-z_]+)[-.\d]*\.so")


def shown(path):
    """A path from the top of the tree, or a whole one."""
    return str(path.relative_to(tree.ROOT) if tree.ROOT in path.parents else path)


def is_own(label):
    return shlex.split(label)[0].startswith("/")


def source_of(label):
    """(program, its options, source) of 6, 6/edge or 6/demos/edge_wrong --option; or of the
    absolute path of somebody's own server."""
    word, *options = shlex.split(label)
    if is_own(label):
        program = pathlib.Path(word)
        beside = [program.with_name(program.name + ".c"), program.with_name("server.c")]
        return program, options, next((each for each in beside if each.is_file()), program)
    step, _, name = word.partition("/")
    folders = [folder for number, folder in tree.steps() if str(number) == step]
    if not folders:
        raise Trouble(f"no server {label}")
    folder = folders[0]
    if not name:
        return folder / "server", options, folder / "server.c"
    where = name if name.startswith("demos/") else f"variants/{name}"
    source = folder / f"{where}.c"
    return folder / "build" / where, options, source if source.exists() else folder / "server.c"


def file_name(label, scene):
    if is_own(label):
        label = "own " + pathlib.Path(shlex.split(label)[0]).name
    return re.sub(r"[^a-z0-9_]+", "-", f"{label} {scene}".replace("demos/", "")) + ".json"


# What /proc says meanwhile.

class Sampler(threading.Thread):
    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.over, self.samples = port, threading.Event(), []

    def run(self):
        while not self.over.wait(SAMPLE_EVERY):
            before, waiting, unread = time.time(), 0, {}
            with open("/proc/net/tcp", encoding="ascii") as lines:
                rows = [line.split() for line in lines][1:]
            for row in rows:
                if int(row[1].rpartition(":")[2], 16) != self.port:
                    continue
                count = int(row[4].rpartition(":")[2], 16)
                if row[3] == "0A":
                    waiting = count
                elif row[3] in ("01", "08"):    # ESTABLISHED, CLOSE_WAIT
                    end = row[3] == "08"        # the end of the stream counts as a byte
                    unread[int(row[2].rpartition(":")[2], 16)] = max(0, count - end)
            self.samples.append((before, time.time(), waiting, unread))


# One run.

def expectations(sends):
    """How many bytes of answers a client may expect after each of its messages."""
    spec = importlib.util.spec_from_file_location("simple_client", CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    total = 0
    for (at, size, data), (_, answer, _) in zip(sends, module.SCRIPT):
        total += len(answer)
        yield at, size, data, total


def run_simple(address, may_fail):
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        done = processes.capture(
            [str(CLIENT), "-n", "5", "--time-scale", str(scenes.SCALE), "--json", file.name,
             address[0], str(address[1])], scenes.PATIENCE)
        if done.status not in ((0, 1) if may_fail else (0,)):
            raise Trouble(f"simple-client failed: {done.stderr.strip() or done.trouble}")
        report = json.load(file)
    for each in report["connections"]:
        each["connecting"] = 0
        for key in "sends", "receives":
            each[key] = [(one["at"], one["bytes"], one["data"]) for one in each[key]]
        each["sends"] = list(expectations(each["sends"]))
    return report["started"], report["elapsed"], report["connections"]


def run_actors(scene, server):
    started, epoch, actors = scenes.play(scene, server.address)
    if scene.stop_after:
        time.sleep(max(0, epoch + scene.stop_after - time.monotonic()))
        server.send_signal(signal.SIGTERM)
    for actor in actors:
        actor.join(scenes.PATIENCE)
    reports = [actor.report for actor in actors]
    return started, max(report["close"] or 0 for report in reports), reports


def limit_descriptors(server, beyond):
    used = [int(number) for number in os.listdir(f"/proc/{server.pid}/fd")]
    free = [number for number in range(max(used) + 10) if number not in used]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (free[beyond], 4096))


def is_machine_code(program):
    with open(program, "rb") as file:
        return file.read(4) == b"\x7fELF"


def run(label, scene, traced=True):
    """Run the clients; returns (started, elapsed, reports, stats, trace, samples)."""
    program, options, _ = source_of(label)
    if not tree.is_program(program):
        raise Trouble(f"{shown(program)} is not a program, or is not built")
    with tempfile.TemporaryDirectory() as folder:
        trace, stats = pathlib.Path(folder, "trace"), pathlib.Path(folder, "stats")
        own = is_own(label)
        ours = [] if own or NO_STATS.search(label) else ["--quiet", "--stats", str(stats)]
        # An interpreter's stack names no line of the script, and takes long to read.
        command = strace.command(trace, stacks=is_machine_code(program)) if traced else []
        with Server([*command, program, *options, *ours],
                    port=free_port() if own else 0) as server:
            if scene.descriptors:
                limit_descriptors(server, scene.descriptors)
            sampler = Sampler(server.port)
            sampler.start()
            if scene.clients == scenes.SIMPLE:
                started, elapsed, reports = run_simple(server.address, may_fail=own)
            else:
                started, elapsed, reports = run_actors(scene, server)
            sampler.over.set()
            sampler.join()
            status = server.stop()
            if not own and status != (0 if ours else -signal.SIGTERM):
                raise Trouble(f"{label} ended with status {status}")
        text = trace.read_text(encoding="utf-8", errors="replace") if traced else ""
        return (started, elapsed, reports,
                json.loads(stats.read_text()) if ours else None, text, sampler.samples)


# From a run to a recording.

class Maker:
    """Turns a trace and the clients' reports into a recording."""

    def __init__(self, started, source):
        self.started, self.source = started, source
        self.lines, self.places, self.numbers = strace.Lines(), [], {}
        self.texts = {}

    def micro(self, wall):
        return None if wall is None else round((wall - self.started) * 1e6)

    def place(self, entry):
        """Its number in places; it is added if it is new."""
        function, path, number = entry
        key = shown(path), number, function
        if key not in self.numbers:
            if path not in self.texts:
                self.texts[path] = path.read_text(encoding="utf-8").splitlines()
            self.numbers[key] = len(self.places)
            self.places.append([key[0], number, function, self.texts[path][number - 1].strip()])
        return self.numbers[key]

    def find_places(self, call):
        own = library = -1
        for frame in call.frames:
            for entry in self.lines.of(frame):
                _, path, _ = entry
                if path == self.source and own == -1:
                    own = self.place(entry)
                elif path.parent == tree.ROOT / "common" and library == -1 and own == -1:
                    library = self.place(entry)
                elif path.parent == self.source.parent and own == -1 and library == -1:
                    library = self.place(entry)
        return own, library

    def look_up(self, calls):
        near = str(tree.ROOT), str(self.source.parent)
        self.lines.look_up([frame for call in calls for frame in call.frames
                            if frame[0].startswith(near)])

    def descriptors(self, trace):
        """Those that the server made for itself, with the name that its maker gives it."""
        tasks = list(trace.tasks)
        makers = [call for call in trace.calls if call.name in KINDS
                  and re.match(r"\d", call.result or "")]
        self.look_up(makers)
        for call in makers:
            paths = [path for frame in call.frames for _, path, _ in self.lines.of(frame)]
            libraries = [LIBRARY.match(pathlib.Path(program).name)
                         for program, _ in call.frames if "/libc." not in program]
            name = KINDS[call.name]
            if tree.ROOT / "common/stop.c" in paths:
                name = "wake-up"
            elif libraries and libraries[0]:
                name = f"{libraries[0][1]}'s {name}"
            start = tasks.index(call.task), self.micro(call.end)
            if call.name.startswith("eventfd"):
                number = int(strace.plain(call.result))
                yield [*start, number, name, number]
            else:
                one, other = map(int, re.search(r"\[(\d+), (\d+)\]", strace.plain(call.text))
                                 .groups())
                yield [*start, one, name, other]
                yield [*start, other, name, one if call.name == "socketpair" else None]

    def calls(self, trace, ports):
        wanted = [call for call in trace.calls if is_of_interest(call)]
        self.look_up(wanted)
        tasks = {task: number for number, task in enumerate(trace.tasks)}
        for call in wanted:
            accepted = call.name.startswith("accept")
            peer = strace.peer((call.result or "") if accepted else call.text.split('"')[0])
            client = ports.get(peer[1], -1) if peer and call.name not in model.WAIT else -1
            result = None if call.result is None or call.end is None else \
                strace.plain(call.result)
            yield [tasks[call.task], self.micro(call.start),
                   None if result is None else self.micro(call.end), call.name,
                   strace.plain(call.text), result, client, *self.find_places(call)]


def is_of_interest(call):
    """Not the calls on files, as in the server's start and in its reports, and not those that
    only make a descriptor for the server itself."""
    if call.name in ("read", "write", "readv", "writev", "close", "poll", "ppoll"):
        return bool(SOCKETS.search(call.text.split('"')[0]))
    return not call.name.startswith(("eventfd", "pipe"))


def fewer(events, merge):
    """A client that sends or reads many thousand times: its events in steps of 5 ms."""
    if len(events) <= 60:
        return events
    steps = {}
    for event in events:
        steps.setdefault(event[0] // 5000, []).append(event)
    return [merge(step) for step in steps.values()]


def sends_as_one(step):
    """At the time of the first: no byte is received before it was sent."""
    return [step[0][0], sum(event[1] for event in step), "", step[-1][3]]


def receives_as_one(step):
    return [step[-1][0], sum(event[1] for event in step), ""]


def thin(samples, ports, maker):
    kept = []
    for before, after, waiting, unread in samples:
        known = {str(ports[port]): count for port, count in unread.items()
                 if port in ports and count}
        kept.append([maker.micro(before), maker.micro(after), waiting, known])
    telling = [sample for sample in kept if sample[2] or sample[3]] or kept
    step = max(1, len(telling) // SAMPLES)
    return telling[::step][:SAMPLES]


def make(label, scene):
    program, options, source = source_of(label)
    unrecorded = None
    if scene.clients == scenes.SIMPLE:
        unrecorded = round(run(label, scene, traced=False)[1] * 1e6)
    started, elapsed, reports, stats, text, samples = run(label, scene)
    trace, maker = strace.Trace(text.splitlines()), Maker(started, source)
    ports = {report["local_port"]: number for number, report in enumerate(reports)}
    clients = []
    for report in reports:
        client = {key: None if report[key] is None else round(report[key] * 1e6)
                  for key in ("connecting", "connect", "greeting", "disconnect", "close")}
        client.update(name=report["name"], failure=report["failure"], **{
            key: fewer([[round(at * 1e6), *rest] for at, *rest in report[key]], merge)
            for key, merge in (("sends", sends_as_one), ("receives", receives_as_one))})
        clients.append(client)
    tasks = list(trace.tasks)
    calls = list(maker.calls(trace, ports))
    listener = next((int(re.match(r"\w+\((\d+)", call[model.TEXT])[1]) for call in calls
                     if call[model.NAME] == "listen"), None)
    return {
        "format": model.FORMAT, "server": label, "scene": scene.name, "title": scene.title,
        "source": shown(source), **({"text": text_of(source)} if is_own(label) else {}),
        "recorded": datetime.date.today().isoformat(), "machine": model.machine(),
        "elapsed": round(elapsed * 1e6), "unrecorded": unrecorded, "listener": listener,
        "descriptors": list(maker.descriptors(trace)), "stats": stats,
        "kinds": dict(Counter(call[model.NAME] for call in calls)),
        "tasks": [[trace.tasks[task].kind,
                   tasks.index(trace.tasks[task].parent) if trace.tasks[task].parent else None,
                   maker.micro(trace.tasks[task].start), maker.micro(trace.tasks[task].end)]
                  for task in tasks],
        "clients": clients, "places": maker.places, "calls": calls,
        "signals": [[maker.micro(at), tasks.index(task), name]
                    for at, task, name in trace.signals],
        "samples": thin(samples, ports, maker)}, text


def text_of(source):
    """The source of somebody's own server: the page cannot find it later."""
    try:
        return source.read_text(encoding="utf-8")
    except ValueError:
        return f"The source of {source.name} was not found beside the program.\n"


def structure(recording):
    """What does not depend on the clock: per client the kinds of calls in their order. Where
    the number of calls is a matter of buffers, only the kinds. Of a stop only the kinds of all
    clients: the moment decides which clients are connected. In step 4 a second message may come
    during the same sleep interval, so a repeated answer counts once."""
    shape = {}
    for number, client in enumerate(recording["clients"]):
        kinds = [call[model.NAME] for call in recording["calls"]
                 if call[model.CLIENT] == number and call[model.NAME] != "epoll_ctl"
                 and not (call[model.RESULT] or "").startswith("-1 EAGAIN")]
        if recording["scene"] == "slow-reader":
            kinds = sorted(set(kinds))
        words = " ".join(kinds)
        if recording["server"] == "4":
            words = re.sub(r"( recvfrom sendto)+", r"\1", words)
        shape[client["name"]] = words
    if recording["scene"] == "stop":
        return sorted({kind for words in shape.values() for kind in words.split()})
    return shape


def attempt(label, scene, close=CLOSE):
    """A faithful recording, and its trace. The machine may be busy: of several tries the one
    that took nearly as long as the run without strace."""
    best, wrong = None, []
    for _ in range(TRIES):
        made, text = make(label, scene)
        wrong = model.problems(made)
        if wrong:
            print(f"again: {wrong[0]}\n         ", end="", flush=True)
            continue
        usual = made["unrecorded"] or made["elapsed"]
        distance = abs(made["elapsed"] - usual) / usual
        if best is None or distance < best[0]:
            best = distance, made, text
        if best[0] <= close:
            break
    if best is None:
        raise Trouble(f"{label}, {scene.title}: {wrong[0]}")
    return best[1:]


def is_like(committed, label, scene):
    """Has a new recording the same structure? On a busy machine two messages may arrive as
    one, so there are several tries."""
    return any(structure(attempt(label, scene, close=math.inf)[0]) == structure(committed)
               for _ in range(TRIES))


def check(files):
    status = 0
    for file in files:
        try:
            wrong = model.problems(model.load(file))
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            wrong = [f"not a recording: {error!r}"]
        print(f"{'not ok' if wrong else 'ok'}  {pathlib.Path(file).name}")
        for line in wrong[:5]:
            print(f"    {line}")
        status = status or bool(wrong)
    return status


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="6,2/pool", default="", help="only these servers")
    parser.add_argument("--scene", choices=sorted(scenes.SCENES), help="only this scene")
    parser.add_argument("--server", metavar="PROGRAM", help="record your own server: a program "
                        "that takes a port as its last argument")
    parser.add_argument("options", metavar="OPTION", nargs="*",
                        help="after --: for your own server, in front of the port")
    parser.add_argument("--output", metavar="FOLDER", type=pathlib.Path,
                        help="default: recordings/ beside this, and build/recordings/ at the "
                        "top for your own server")
    parser.add_argument("--compare", action="store_true",
                        help="write nothing; compare the structure with the files")
    parser.add_argument("--trace", metavar="FOLDER", type=pathlib.Path,
                        help="also keep what strace wrote")
    parser.add_argument("--check", nargs="+", metavar="FILE", help="only check these files")
    options = parser.parse_args()
    if options.check:
        return check(options.check)
    only = [label for label in options.only.split(",") if label]
    plan = [(label, scene) for label, scene in scenes.PLAN
            if (not only or label in only or label.split()[0] in only)
            and options.scene in (None, scene)]
    if options.options and not options.server:
        parser.error(f"{options.options[0]}: expected --server PROGRAM, whose option this is")
    if options.server:
        path = pathlib.Path(options.server).resolve()
        if not tree.is_program(path):
            parser.error(f"--server {options.server}: expected a program that can be run")
        if only or options.compare:
            parser.error(f"--server {options.server}: expected neither --only nor --compare")
        plan = [(shlex.join([str(path), *options.options]), options.scene or "five")]
    options.output = options.output or (tree.ROOT / "build/recordings" if options.server
                                        else HERE / "recordings")
    if not plan:
        parser.error(f"--only {options.only}: no such server is planned in scenes.py")
    status, began = 0, time.monotonic()
    for number, (label, name) in enumerate(plan, 1):
        print(f"{number:3}/{len(plan)}  ", end="", flush=True)
        target = options.output / file_name(label, name)
        scene = scenes.SCENES[name]
        try:
            if options.compare:
                same = is_like(model.load(target), label, scene)
                print(f"{'ok' if same else 'not ok'}  {target.name}", flush=True)
                status = status or not same
                continue
            made, text = attempt(label, scene)
        except (Trouble, OSError) as trouble:
            print(f"FAILED  {target.name}: {trouble}", flush=True)
            status = 1
            continue
        options.output.mkdir(parents=True, exist_ok=True)
        model.save(made, target)
        if options.trace:
            options.trace.mkdir(parents=True, exist_ok=True)
            (options.trace / f"{target.stem}.strace").write_text(text, encoding="utf-8")
        size = target.stat().st_size
        print(f"{target.name:<44} {len(made['calls']):4} calls {size:6} bytes", flush=True)
        if is_own(label):
            for client in made["clients"]:
                if client["failure"]:
                    print(f"         {client['name']} failed: {client['failure']}", flush=True)
    print(f"{len(plan)} runs in {time.monotonic() - began:.0f} s", flush=True)
    return status


if __name__ == "__main__":
    processes.program(main, "record")
