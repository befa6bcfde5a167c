"""A recording: one run of a server, as JSON. What can be derived from it, and its check.

Times are whole microseconds since the clients began. These are the fields:

    server, scene, title, source    what ran, and its source from the top of the tree
    text                            the source itself, of a server that is not in the tree
    recorded, machine               when and where
    elapsed, unrecorded             of the clients; the second one without strace
    stats                           the server's own counters (--stats); null if it has none
    listener                        its descriptor
    descriptors [task, at, number, name, other]     those that the server made for itself:
                wake-up, libuv's eventfd, pipe, socket pair. What is written to the other one
                can be read there (of an eventfd: the same; null: nothing can be read there)
    kinds                           how many calls of each kind
    tasks       [kind, parent, start, end]          threads and processes; end may be null
    clients     {name, connecting, connect, greeting, disconnect, close, failure,
                 sends [at, bytes, data, bytes of answers expected so far],
                 receives [at, bytes, data]}
    places      [file, line, function, text]        lines of source
    calls       [task, start, end, name, text, result, client, place, library place]
                end and result are null if it did not return; client is -1 for none; the places
                are indices: in the server's own source and in common/ (-1 for none)
    signals     [at, task, name]
    samples     [from, to, accept queue, {client: unread}]   what /proc/net/tcp said
"""

import json
import os
import platform
import re
from collections import Counter

FORMAT = 1
TASK, START, END, NAME, TEXT, RESULT, CLIENT, PLACE, LIBRARY = range(9)
RECEIVE = "recvfrom", "recvmsg", "read", "readv"
SEND = "sendto", "sendmsg", "write", "writev"
ACCEPT = "accept", "accept4"
SLACK = 15000       # microseconds by which a clock in another process may be late
FULL = 100000       # microseconds; a send that takes longer waits for room
WAIT = "select", "pselect6", "poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_pwait2"
SLEEP = 1000        # microseconds after which one of these has slept; others never sleep
SLEEPERS = (*ACCEPT, *RECEIVE, *WAIT, "nanosleep", "clock_nanosleep", "futex", "wait4",
            "waitid", "vfork", "io_uring_enter")
# Counters that mean something else there: libuv has waits and epoll_ctl calls that the server
# does not see; ae counts its own calls where the back-end needs none; step 4 counts iterations;
# in prefork and workers the first process or thread waits, too, and does not count that.
NOT_COUNTED = {"2/prefork": ["wait_calls"], "6/workers": ["interest_changes"],
               "4": ["wait_calls"], "7": ["wait_calls", "interest_changes"],
               "6/kqueue": ["interest_changes"], "8/ae_kqueue": ["interest_changes"],
               "8/ae_select": ["interest_changes"], "8/ae_poll": ["interest_changes"]}


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines
                 if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs, " \
           f"{platform.system()} {platform.release()}"


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def save(recording, path):
    """One line per call and per client, so that a difference can be read."""
    parts = []
    for key, value in recording.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":"))
                              for row in value)
            text = f"[\n{rows}\n]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        parts.append(f"{json.dumps(key)}: {text}")
    with open(path, "w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(parts) + "\n}\n")


def amount(call):
    """What the call returned, as a number; None if it did not return."""
    found = re.match(r"-?\d+", call[RESULT] or "")
    return int(found[0]) if found else None


def has_slept(call):
    """Not a short send: the kernel takes bytes at once while there is room for them, so the
    server has only waited for a CPU."""
    if "EAGAIN" in (call[RESULT] or "") or "FUTEX_WAKE" in call[TEXT]:
        return False
    if call[NAME] not in (*SLEEPERS, *SEND):
        return False
    least = FULL if call[NAME] in SEND else SLEEP
    return call[END] is None or call[END] - call[START] >= least


def follows_bytes(recording):
    """io_uring moves bytes without a system call per client."""
    return not any(call[NAME] == "io_uring_enter" for call in recording["calls"])


# Step functions: [(time, change)].

def arrivals(recording):
    """The accept queue: a client enters when it connects and leaves by accept, or when it or
    the listener is closed."""
    changes = []
    ends = [call[END] for call in recording["calls"] if call[NAME] == "close"
            and call[END] is not None and call[TEXT] == f"close({recording['listener']})"]
    accepted = {call[CLIENT]: call[END] for call in recording["calls"]
                if call[NAME] in ACCEPT and (amount(call) or -1) >= 0 and call[END] is not None}
    for number, client in enumerate(recording["clients"]):
        left = accepted.get(number, min((end for end in (client["close"], *ends[-1:])
                                         if end is not None), default=None))
        if client["connect"] is not None and left is not None:
            changes += [(min(client["connect"], left), 1), (left, -1)]
    return sorted(changes, key=lambda change: (change[0], -change[1]))


def unread(recording, number):
    """Bytes that a client has sent and the server has not yet received."""
    changes = [(send[0], send[1]) for send in recording["clients"][number]["sends"]]
    changes += [(call[END], -amount(call)) for call in recording["calls"]
                if call[CLIENT] == number and call[NAME] in RECEIVE and (amount(call) or 0) > 0]
    return sorted(changes, key=lambda change: (change[0], -change[1]))


def unreceived(recording, number):
    """Bytes that the server has sent and the client has not yet received."""
    client = recording["clients"][number]
    changes = [(call[START], amount(call)) for call in recording["calls"]
               if call[CLIENT] == number and call[NAME] in SEND and (amount(call) or 0) > 0]
    changes += [(receive[0], -receive[1]) for receive in client["receives"]]
    if client["greeting"] is not None:
        changes.append((client["greeting"], -greeting_size(recording)))
    return sorted(changes, key=lambda change: (change[0], -change[1]))


def greeting_size(recording):
    return 6 if "slow_command" in recording["server"] else 1


def level(changes, at):
    return sum(change for when, change in changes if when <= at)


def levels(changes, start, end):
    """All values that the step function takes from start to end."""
    value, seen = level(changes, start), set()
    seen.add(value)
    for when, change in changes:
        if start < when <= end:
            value += change
            seen.add(value)
    return seen


# The check.

def problems(recording):
    """What is wrong with it, a line each; [] if it is a faithful recording."""
    found = []
    calls, clients, stats = recording["calls"], recording["clients"], recording["stats"]
    if recording.get("format") != FORMAT:
        return [f"format {recording.get('format')}: expected {FORMAT}"]
    for number, call in enumerate(calls):
        if call[END] is not None and call[END] < call[START]:
            found.append(f"call {number} ends before it starts")
        if number and call[START] < calls[number - 1][START]:
            found.append(f"call {number} starts before the call in front of it")
        for place in call[PLACE], call[LIBRARY]:
            if not -1 <= place < len(recording["places"]):
                found.append(f"call {number} names a place that is not there")
    kinds = Counter(call[NAME] for call in calls)
    for kind in sorted({*kinds, *recording["kinds"]}):
        if kinds[kind] != recording["kinds"].get(kind, 0):
            found.append(f"{kinds[kind]} calls of {kind}: "
                         f"expected {recording['kinds'].get(kind)}")
    if follows_bytes(recording):
        found += _byte_problems(recording)
        found += _queue_problems(recording)
        found += _sample_problems(recording)
    if stats:
        found += _count_problems(recording)
    if recording["scene"] == "slow-reader" and not _was_full(recording):
        found.append("the slow reader did not fill the server's socket")
    last = max((client["close"] or 0 for client in clients), default=0)
    if abs(last - recording["elapsed"]) > 20000:
        found.append(f"the clients took {recording['elapsed']} us, "
                     f"the last one closed at {last}")
    if follows_bytes(recording):
        for number, client in enumerate(clients):
            closed = [call[START] for call in calls
                      if call[CLIENT] == number and call[NAME] in ("close", "shutdown")]
            if (client["failure"] is None and not closed
                    and not _is_wrong_on_purpose(recording)):
                found.append(f"{client['name']}: the server never closed it")
            elif closed and client["close"] and client["close"] < min(closed) - SLACK \
                    and recording["scene"] != "edge" and not _gave_up(recording, client):
                found.append(f"{client['name']} closed at {client['close']}, "
                             "before the server")
    return found


def _gave_up(recording, client):
    """A client that gets a wrong answer from somebody's own server leaves first."""
    return "text" in recording and client["failure"] is not None


def _was_full(recording):
    """Did a send come up short, or sleep until there was room in the socket?"""
    stats = recording["stats"] or {}
    return stats.get("send_short", 0) + stats.get("send_again", 0) > 0 or any(
        call[NAME] in SEND and call[END] is not None and call[END] - call[START] > FULL
        for call in recording["calls"])


def _byte_problems(recording):
    for number, client in enumerate(recording["clients"]):
        sent = sum(send[1] for send in client["sends"])
        taken = sum(max(0, amount(call) or 0) for call in recording["calls"]
                    if call[CLIENT] == number and call[NAME] in RECEIVE)
        answered = sum(max(0, amount(call) or 0) for call in recording["calls"]
                       if call[CLIENT] == number and call[NAME] in SEND)
        got = sum(receive[1] for receive in client["receives"])
        got += greeting_size(recording) if client["greeting"] is not None else 0
        if client["failure"] is not None or _is_wrong_on_purpose(recording):
            continue
        if sent != taken:
            yield f"{client['name']} sent {sent} bytes, the server received {taken}"
        if got != answered:
            yield f"{client['name']} received {got} bytes, the server sent {answered}"


def _is_wrong_on_purpose(recording):
    return "edge_wrong" in recording["server"]


def _queue_problems(recording):
    queues = [("the accept queue", arrivals(recording), True)]
    for number, client in enumerate(recording["clients"]):
        whole = client["failure"] is None and not _is_wrong_on_purpose(recording)
        queues.append((f"unread bytes of {client['name']}", unread(recording, number), whole))
        queues.append((f"unreceived bytes of {client['name']}", unreceived(recording, number),
                       whole))
    for name, changes, whole in queues:
        value = 0
        for when, change in changes:
            value += change
            if value < 0:
                yield f"{name}: {value} at {when} us"
                break
        if value and whole:
            yield f"{name}: {value} at the end"


def _sample_problems(recording):
    queue = arrivals(recording)
    for start, end, waiting, bytes_unread in recording["samples"]:
        derived = levels(queue, start - SLACK, end + SLACK)
        if waiting not in derived:
            yield f"/proc: {waiting} in the accept queue at {start} us, derived {derived}"
        for number, count in bytes_unread.items():
            derived = levels(unread(recording, int(number)), start - SLACK, end + SLACK)
            # Of many bytes a part still lies in the client's own socket.
            low = min(derived) if max(derived) < 65536 else 0
            if not low <= count <= max(derived):
                yield f"/proc: {count} unread bytes of client {number} at {start} us, " \
                      f"derived {derived}"


def counts(recording):
    """The calls by kind, as --stats names them; only those that strace can tell."""
    calls = recording["calls"]
    kinds = Counter(call[NAME] for call in calls)
    received = [call for call in calls if call[CLIENT] >= 0 and call[NAME] in RECEIVE]
    sent = [call for call in calls if call[CLIENT] >= 0 and call[NAME] in SEND]
    return {"recv_calls": len(received), "send_calls": len(sent),
            "bytes_in": sum(max(0, amount(call) or 0) for call in received),
            "bytes_out": sum(max(0, amount(call) or 0) for call in sent),
            "recv_again": sum(_is_again(call) for call in received),
            "send_again": sum(_is_again(call) for call in sent),
            "accept_calls": sum(kinds[name] for name in ACCEPT),
            "wait_calls": sum(call[NAME] in WAIT for call in calls),
            "interest_changes": kinds["epoll_ctl"],
            "threads_created": sum(task[0] == "thread" for task in recording["tasks"])}


def _is_again(call):
    return (call[RESULT] or "").startswith("-1 EAGAIN")


def _count_problems(recording):
    stats = recording["stats"]
    if not follows_bytes(recording):
        return
    for name, count in counts(recording).items():
        if name in NOT_COUNTED.get(recording["server"], ()):
            continue
        if recording["server"] == "7" and recording["scene"] == "slow-reader" \
                and name.startswith("send_"):
            continue    # when there is room again, libuv sends the rest by itself
        told = min((at for at, _, kind in recording["signals"] if kind == "SIGTERM"),
                   default=float("inf"))
        # common/drain.c does not count its waits, after the order to stop.
        uncounted = sum(call[NAME] in WAIT and call[START] > told
                        for call in recording["calls"]) if name == "wait_calls" else 0
        if not count - uncounted <= stats[name] <= count:
            yield f"--stats says {name} {stats[name]}, the recording has {count}"
