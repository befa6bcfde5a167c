"""The lesson of poll: no descriptor is too high, but each lap still names everybody."""

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case

FD_SETSIZE = 1024


@case("it serves more clients than FD_SETSIZE has room for", level="normal",
      clients=FD_SETSIZE + 200)
def beyond_fd_setsize(t):
    with t.server("--quiet") as s:
        clients = s.crowd(FD_SETSIZE + 100)
        for client in clients[0], clients[-1]:
            client.send(b"^abc").expect(b"bcd")


@case("each lap names all clients, the silent ones too, but nobody else", clients=200)
def each_lap_names_everybody(t):
    silent, messages = 200, 100

    def talk(s):
        s.crowd(silent)
        client = s.connect().greeting()
        for _ in range(messages):
            client.send(b"^a$").expect(b"b")

    cost = t.cost_of(talk)
    scanned, laps = cost["descriptors_scanned"], cost["wait_calls"]
    t.check(scanned >= silent * messages,
            "%d descriptors scanned for %d messages" % (scanned, messages))
    t.check(scanned <= laps * (silent + 3),
            "%d descriptors scanned in %d laps with %d clients" % (scanned, laps, silent + 1))
