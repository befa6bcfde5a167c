"""Stopping: on SIGTERM or SIGINT exit 0 within two seconds, whatever the clients do."""

import os
import resource
import select
import signal
import time

from lib import figures
from lib.processes import Process

from ..client import Flood
from ..errors import Failure
from ..protocol import message
from ..registry import case

MIB = 1 << 20


def connected(t, s, count=10):
    """This many clients, all greeted. If the server serves one at a time: at most five, and
    only the first is greeted."""
    if not t.serial:
        return s.crowd(count)
    clients = [s.connect() for _ in range(min(count, 5))]
    clients[0].greeting()
    return clients


@case("SIGTERM with clients connected: exit 0 within two seconds")
def stop_with_clients(t):
    with t.server() as s:
        clients = connected(t, s)
        clients[0].send(b"^abc").expect(b"bcd")
        status = s.stop(signal.SIGTERM).status
        t.check(status == 0, f"it did not exit with status 0: {s.describe()}")


@case("SIGINT with clients connected: exit 0 within two seconds", needs="ours")
def interrupt_with_clients(t):
    with t.server() as s:
        clients = connected(t, s)
        clients[0].send(b"^abc").expect(b"bcd")
        s.stop(signal.SIGINT)


@case("SIGTERM without clients: exit 0 within two seconds")
def stop_alone(t):
    with t.server() as s:
        s.serves()      # it has begun: before, it may not catch the signal yet
        s.stop()


@case("a signal right after its `Listening on` line: exit 0 in time",
      needs="ours")
def stop_at_the_listening_line(t):
    command = [t.settings.server, *t.settings.server_args, "0"]
    for number in t.rounds(t.scale(6, 20, 100), 3):
        signum = (signal.SIGTERM, signal.SIGINT)[number % 2]
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as output:
            with Process(command, stdout=writer) as process:
                os.close(writer)
                ready = select.select([output], [], [], t.patience)[0]
                line = output.read(1000) if ready else b"nothing"
                process.send_signal(signum)
                status = process.wait(2 * t.slow)
        t.check(line.startswith(b"Listening on "), f"its first line is {line!r}")
        how = "still running after 2 s" if status is None else f"exit status {status}"
        t.check(status == 0, f"{signum.name} at that moment: {how}")


@case("told to stop, it accepts no client, although it has answers to send",
      needs=("ours", "concurrent"))
def stop_accepts_no_more(t):
    with t.server() as s:
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 * MIB), until_stuck=0.1)
        s.signal(signal.SIGTERM)
        t.check(s.eventually(lambda: not s.accepts(), 0.5 * t.slow),
                "half a second after SIGTERM it still accepts clients")
        t.check(s.alive(), f"it did not wait for a client with unsent answers: {s.describe()}")
        client.expect(bytes(client.expected[:1000])).expect_closed()
        s.wait(2 * t.slow, "it was told to stop")


@case("SIGTERM again and again, with a client that never reads: exit 0 within two seconds",
      level="normal", timed=True)
def stop_with_a_client_that_never_reads(t):
    with t.server() as s:
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 * MIB), until_stuck=0.1)
        s.signal(signal.SIGTERM)
        if t.settings.strict:
            s.check_calm()      # it waits a while for the client, but not in a busy loop
        end = time.monotonic() + 1.7 * t.slow
        while s.alive() and time.monotonic() < end:
            s.process.send_signal(signal.SIGTERM)   # which gives it no more time
            time.sleep(0.2)
        status, _ = s.wait(0.3 * t.slow,
                           f"SIGTERM was sent again and again for {1.7 * t.slow:g} s")
        t.check(status == 0, f"it did not exit with status 0: {s.describe()}")


@case("SIGTERM among clients that send without pause: exit 0 within two seconds",
      level="normal", clients=60)
def stop_under_load(t):
    with t.server() as s:
        with Flood(s.address, 1 if t.serial else 4) as flood:
            if not t.serial:
                connected(t, s, 50)
            flood.wait(0.3 * t.slow)
            s.stop()


@case("SIGTERM while out of descriptors: exit 0 within two seconds", needs=("ours", "linux"),
      clients=40)
def stop_out_of_descriptors(t):
    with t.server(rlimits={resource.RLIMIT_NOFILE: 32}) as s:
        if t.serial:
            connected(t, s, 40)
        else:
            s.fill(40)
        s.stop()


@case("before it ends, a client that reads gets all unsent answers",
      needs=("ours", "linux"), level="normal")
def stop_sends_unsent_answers(t):
    with t.server() as s:
        client = s.connect(rcvbuf=4096).greeting()
        sent = client.push(message(4 * MIB), until_stuck=0.2)
        taken = (sent - client.unacknowledged()
                 - figures.unread_bytes(client.sock))
        unsent = taken - 1    # all but the `^`
        s.signal(signal.SIGTERM)
        t.pause(0.2)        # a client that pauses has not finished
        while client.came.total - 1 < unsent:
            data = client.receive(4096)
            if t.rng.random() < 0.05:
                time.sleep(0.003)   # a slow reader
            t.check(data, f"{unsent} answers were unsent when it was told to stop, "
                          f"{client.came.total - 1} came", client)
            t.check(client.expected.startswith(data), "a wrong answer came at the end", client)
            del client.expected[:len(data)]
        status = s.wait(2 * t.slow, "it was told to stop").status
        t.check(status == 0, f"it did not exit with status 0: {s.describe()}")


@case("after its end its port can be bound again at once")
def port_is_free_again(t):
    with t.server() as s:
        clients = connected(t, s)
        s.stop()
        for client in clients:
            client.expect_closed()
            client.close()      # the server closed first: its port is in TIME_WAIT
    with t.server(port=s.port) as s:
        s.serves()


@case("told to stop and then suspended, it answers what arrived meanwhile",
      needs="ours", level="normal")
def stop_answers_what_has_arrived(t):
    with t.server(health=False) as s:
        client = s.connect().greeting()
        s.signal(signal.SIGTERM)
        client.send(b"^abc").expect(b"bcd")
        with s.frozen():
            client.send(b"def$")
            time.sleep(0.2)
        client.expect(b"efg").expect_end()
        t.check(s.wait().status == 0, s.describe())


@case("signals that come again and again while it stops change nothing, up to its last line",
      needs="ours")
def stop_amid_signals(t):
    for number in t.rounds(t.scale(4, 10, 100), 2):
        with t.server("--quiet") as s:
            if not t.serial:    # a server that serves this client only cannot stop
                s.connect().greeting()
            s.signal(signal.SIGTERM)
            end = time.monotonic() + 2 * t.slow
            while s.alive() and time.monotonic() < end:
                s.process.send_signal((signal.SIGTERM, signal.SIGUSR1)[number % 2])
                time.sleep(0.0002 * t.rng.random())
            t.check(s.wait(t.slow).status == 0,
                    f"it did not end with status 0: {s.describe()}")


@case("a second SIGINT ends it at once", needs="ours")
def second_interrupt(t):
    with t.server() as s:
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 * MIB), until_stuck=0.1)
        s.signal_and_see_it_taken(signal.SIGINT)
        time.sleep(0.05)
        if s.alive():       # it still has answers to send
            s.signal(signal.SIGINT)
        status, seconds = s.wait(2 * t.slow)
        t.check(status in (0, -signal.SIGINT), f"a second SIGINT: {s.describe()}")
        if seconds > 0.7 * t.slow:
            raise Failure(f"it took {seconds:.1f} s to end after a second SIGINT")
