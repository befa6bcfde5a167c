"""The command line, the port, the log and the statistics."""

import json
import os
import re
import select
import signal
import socket
import tempfile
import time

from ..client import Client
from ..errors import Failure
from ..registry import case
from ..server import free_port
from .limits import REJECTION_KEYS

STATS_KEYS = """accept_calls recv_calls recv_again send_calls send_short send_again wait_calls
    wait_events descriptors_scanned interest_changes threads_created threads_max clients_served
    clients_max bytes_in bytes_out cpu_user_seconds cpu_system_seconds
    voluntary_switches involuntary_switches peak_rss_bytes""".split()


# The command line.

@case("the first line on standard output is `Listening on ADDRESS:PORT`", needs="ours")
def listening_line(t):
    reader, writer = os.pipe()
    with os.fdopen(reader) as lines, os.fdopen(writer, "w") as output:
        with t.server(stdout=output) as s:
            wanted = f"Listening on 127.0.0.1:{s.port}\n"
            ready = select.select([lines], [], [], t.patience)[0]
            line = lines.readline() if ready else "nothing"
            t.check(line == wanted, f"expected {wanted!r}, got {line!r}")


@case("--help and --version answer on standard output and exit 0", needs="ours")
def help_and_version(t):
    for option in ("--help", "-h", "--version", "-V"):
        done = t.run(option)
        t.check(done.status == 0, f"{option}: exit status {done.status}")
        t.check(done.stdout.strip(), f"{option}: nothing on standard output")
        t.check(not done.stderr, f"{option}: {done.stderr!r} on standard error")


@case("a wrong command line is a usage error: exit 2, and what is wrong on standard error",
      needs="ours")
def wrong_command_lines(t):
    for arguments, what in (
            (["--no-such-option"], "no-such-option"), (["-z"], "-z"),
            (["-p"], "-p"), (["--bind"], "bind"),
            (["-p", "x"], "x"), (["-p", ""], "port"), (["-p", "-1"], "-1"),
            (["-p", "65536"], "65536"), (["-p", "8080x"], "8080x"), (["-p", " 80"], " 80"),
            (["99999999999999999999"], "99999999999999999999"), (["port"], "port"),
            (["0", "1"], "1"), (["-m", "0", "0"], "0"), (["-m", "-5", "0"], "-5"),
            (["-m", "many", "0"], "many"), (["-m", "1e3", "0"], "1e3"),
            (["-m", "9999999999", "0"], "9999999999"), (["--quiet=no", "0"], "quiet"),
            (["-b", "", "0"], "bind"), (["-s", "", "0"], "stats"),
            (["-i", "-1", "0"], "-1"), (["-i", "soon", "0"], "soon"),
            (["-i", "nan", "0"], "nan"), (["-i", "inf", "0"], "inf"),
            (["-i", "1e999", "0"], "1e999"), (["-i", "", "0"], "idle")):
        done = t.run(*arguments)
        shown = " ".join(arguments)
        t.check(done.status == 2, f"{shown}: exit status {done.status}, not 2")
        t.check(not done.stdout, f"{shown}: {done.stdout!r} on standard output")
        first_line = done.stderr.partition("\n")[0]     # not in the usage that follows
        t.check(what in first_line, f"{shown}: standard error does not say {what!r} "
                                    f"first:\n{done.stderr}")


@case("--help or --version to a full disk: one line that says so, exit 1",
      needs=("ours", "linux"))
def help_into_a_full_disk(t):
    for option in ("--help", "--version"):
        with open("/dev/full", "wb") as full:
            check_one_line(t, t.run(option, stdout=full), "output")


def check_one_line(t, done, *words):
    """It could not start: status 1, and one line that says what failed and why."""
    t.check(done.status == 1, f"exit status {done.status}, not 1")
    t.check(not done.stdout, f"{done.stdout!r} on standard output")
    t.check(len(done.stderr.splitlines()) == 1,
            f"expected one line on standard error, got {done.stderr!r}")
    for word in words:
        t.check(word in done.stderr, f"standard error does not say {word!r}: {done.stderr!r}")
    t.check("unknown error" not in done.stderr.lower(),     # not of an errno
            f"standard error gives no reason: {done.stderr!r}")


@case("a busy port: one line that names it, exit 1", needs="ours")
def busy_port(t):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        check_one_line(t, t.run(port), port, "in use")


@case("a port that another server has: one line that names it, exit 1", needs="ours")
def port_of_another_server(t):
    with t.server() as s:
        check_one_line(t, t.run(str(s.port)), str(s.port), "in use")
        s.serves()


@case("a port that is in use makes the start fail: exit status not 0")
def busy_port_is_a_failure(t):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        done = t.run(str(holder.getsockname()[1]))
        t.check(done.status != 0, "it could not listen, but exited with status 0")


@case("a privileged port: one line that names it, exit 1", needs=("ours", "linux"))
def privileged_port(t):
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        first_free = int(file.read())
    if first_free < 2:
        t.skip("every user may bind every port here")
    check_one_line(t, t.run("1", user=t.ordinary_user()), ":1:", "ermission")


@case("an address of another machine, or none at all: one line that names it, exit 1",
      needs="ours")
def unknown_host(t):
    for host in ("192.0.2.1", "no such host", "256.0.0.1.", "1.2.3.4.5"):
        check_one_line(t, t.run("--bind", host, "0"), host)


@case("it listens on 127.0.0.1 and nowhere else by default")
def listens_on_loopback(t):
    with t.server() as s:
        for host in [host for host in ("127.0.0.2", "::1") if can_bind(host)]:
            try:
                Client((host, s.port)).close()
            except Failure:
                continue
            raise Failure(f"it also accepts on {host}")


def can_bind(host):
    try:
        free_port(host)
        return True
    except OSError:
        return False


@case("--bind takes names, and IPv6 addresses, which it prints in brackets", needs="ours")
def bind(t):
    with t.server("--bind", "localhost"):
        pass
    if not can_bind("::1"):
        t.skip("no IPv6 here")
    with t.server("--bind", "::1", host="::1") as s:
        s.wait_log(fr"^Listening on \[::1\]:{s.port}$")


@case("--quiet: no line per client", needs="--quiet")
def quiet(t):
    with t.server("--quiet") as s:
        before = s.log_text()
        s.serves()
        after = s.log_text()
        t.check(after == before, f"with --quiet it printed {after[len(before):]!r}")


@case("its log has a line for each connect and one for each disconnect", needs="ours")
def connect_and_disconnect_lines(t):
    with t.server() as s:
        for leave in (Client.finish, Client.reset, Client.close):
            client = s.connect().greeting()
            port = client.sock.getsockname()[1]
            leave(client)
            s.wait_log(fr"^peer \(.*\b{port}\) disconnected$")
            for what in ("connected", "disconnected"):
                count = len(re.findall(fr"\b{port}\) {what}$", s.log_text(), re.M))
                t.check(count == 1, f"{what}: {count} lines, not one")


@case("--stats FILE: on SIGUSR1 and at exit the cost counters as one flat JSON object",
      needs="--stats")
def stats_file(t):
    def stats():
        with open(path, encoding="utf-8") as file:
            text = file.read()
        return json.loads(text) if text.endswith("\n") else None

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats.json")
        with open(path, "w", encoding="ascii") as file:
            file.write("the report of an earlier server")
        with t.server("--stats", path) as s:
            t.check(os.path.getsize(path) == 0,
                    "the report of an earlier server is still there")
            s.serves()
            s.signal(signal.SIGUSR1)
            check_stats(t, s.eventually(stats), 1)
            for _ in range(50):
                s.signal(signal.SIGUSR1)
                end = time.monotonic() + 0.001
                while time.monotonic() < end:
                    t.check(os.path.getsize(path) > 0, "the file is empty in between")
            s.serves()
            s.stop()
        check_stats(t, stats(), 2)


def check_stats(t, stats, clients):
    t.check(stats, "nothing was written")
    t.check(any(key in stats for key in REJECTION_KEYS), "no count of rejected clients")
    missing = [key for key in STATS_KEYS if key not in stats]
    t.check(not missing, f"missing in the statistics: {', '.join(missing)}")
    t.check(all(isinstance(stats[key], (int, float)) for key in STATS_KEYS),
            f"not all statistics are numbers: {stats!r}")
    for key, wanted in (("clients_served", clients), ("clients_max", 1),
                        *((name, 0) for name in REJECTION_KEYS if name in stats),
                        ("bytes_in", 36 * clients),
                        ("bytes_out", 19 * clients)):
        t.check(stats[key] == wanted, f"{key} is {stats[key]!r}, not {wanted}")
    t.check(1e5 < stats["peak_rss_bytes"] < 1e12, "peak_rss_bytes is "
                                                  f"{stats['peak_rss_bytes']!r}")


@case("--stats to a file that cannot be written: one line that names it", needs="ours")
def unwritable_stats_file(t):
    with tempfile.TemporaryDirectory() as folder:
        fifo = os.path.join(folder, "fifo")
        os.mkfifo(fifo)     # without a reader
        for path in ("/no/such/folder/stats", "/", fifo):
            check_one_line(t, t.run("--stats", path, "0"), path)


@case("--stats to a full disk: it serves, names the file at the end, and exits 1",
      needs=("--stats", "ours", "linux"))
def stats_into_a_full_disk(t):
    with t.server("--stats", "/dev/full") as s:
        s.serves()
        s.signal(signal.SIGTERM)
        status, _ = s.wait(2 * t.slow, "it was told to stop")
        t.check(status == 1, f"its statistics are lost, but: {s.describe()}")
        s.wait_log("/dev/full")
