"""The lesson of step 5: one call asks about all clients, and names all of them each time."""

import os

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case

FD_SETSIZE = 1024


@case("it rejects a descriptor of FD_SETSIZE or more with a log line, and still serves the "
      "others", level="normal", clients=900)
def beyond_fd_setsize(t):
    with t.server("--quiet") as s:
        room = FD_SETSIZE - s.fd_count()    # the lowest free descriptor is always taken first
        first = s.connect().greeting()
        clients = [first]
        while len(clients) <= FD_SETSIZE:
            client = s.try_client()
            if client is None:
                break
            clients.append(client)
        t.check(len(clients) == room,
                f"it took {len(clients)} clients, and had room for {room} in its sets")
        s.wait_log(r"rejected: .*FD_SETSIZE")
        first.send(b"^abc").expect(b"bcd")
        clients[-1].send(b"^abc").expect(b"bcd")
        first.close()
        t.check(s.eventually(s.try_client), "there is room again, but no client is accepted")


@case("started with more descriptors open than a set has places, it says so and ends")
def started_beyond_fd_setsize(t):
    def open_many():
        for fd in range(3, FD_SETSIZE + 1):
            os.dup2(0, fd)

    done = t.run("0", prepare=open_many)
    t.check(done.status == 1, f"exit status {done.status}")
    t.check(not done.stdout and "select" in done.stderr,
            f"it says {done.stdout!r} and {done.stderr!r}")


@case("each iteration names all clients, also idle ones", clients=200)
def each_iteration_names_all(t):
    idle, messages = 200, 100

    def talk(s):
        s.crowd(idle)
        client = s.connect().greeting()
        for _ in range(messages):
            client.send(b"^a$").expect(b"b")

    cost = t.cost_of(talk)
    t.check(cost["descriptors_scanned"] >= idle * messages,
            f"{cost['descriptors_scanned']} descriptors scanned for {messages} messages")
