"""The lesson of step 5: one call asks about everybody, and names everybody each time."""

import os

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case

FD_SETSIZE = 1024


@case("a descriptor of FD_SETSIZE or more is refused with a word, and the others live on",
      level="normal", clients=900)
def beyond_fd_setsize(t):
    with t.server("--quiet") as s:
        room = FD_SETSIZE - s.fd_count()    # the lowest free descriptor is always taken first
        first = s.connect().greeting()
        seated = [first]
        while len(seated) <= FD_SETSIZE:
            client = s.try_client()
            if client is None:
                break
            seated.append(client)
        t.check(len(seated) == room, "it took %d clients, and had room for %d in its sets"
                % (len(seated), room))
        s.wait_log(r"refused: .*FD_SETSIZE")
        first.send(b"^abc").expect(b"bcd")
        seated[-1].send(b"^abc").expect(b"bcd")
        first.close()
        t.check(s.eventually(s.try_client), "there is room again, but nobody is let in")


@case("started with more descriptors open than the sets have places, it says so and ends")
def started_beyond_fd_setsize(t):
    def open_many():
        for fd in range(3, FD_SETSIZE + 1):
            os.dup2(0, fd)

    done = t.run("0", prepare=open_many)
    t.check(done.status == 1, "exit status %d" % done.status)
    t.check(not done.stdout and "select" in done.stderr, "it says %r and %r"
            % (done.stdout, done.stderr))


@case("each lap names all clients, the silent ones too", clients=200)
def each_lap_names_everybody(t):
    silent, messages = 200, 100

    def talk(s):
        s.crowd(silent)
        client = s.connect().greeting()
        for _ in range(messages):
            client.send(b"^a$").expect(b"b")

    cost = t.cost_of(talk)
    t.check(cost["descriptors_scanned"] >= silent * messages,
            "%d descriptors scanned for %d messages" % (cost["descriptors_scanned"], messages))
