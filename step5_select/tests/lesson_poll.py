"""The lesson of poll: no descriptor is too high, but each iteration still names all clients."""

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


@case("each iteration names all clients, also idle ones, and nothing else", clients=200)
def each_iteration_names_all(t):
    idle, messages = 200, 100

    def talk(s):
        s.crowd(idle)
        client = s.connect().greeting()
        for _ in range(messages):
            client.send(b"^a$").expect(b"b")

    cost = t.cost_of(talk)
    scanned, iterations = cost["descriptors_scanned"], cost["wait_calls"]
    t.check(scanned >= idle * messages,
            f"{scanned} descriptors scanned for {messages} messages")
    t.check(scanned <= iterations * (idle + 3),
            f"{scanned} descriptors scanned in {iterations} iterations with {idle + 1} clients")
