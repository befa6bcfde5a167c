"""The lesson of step 1: one client at a time, even if that client is idle."""

from check_server import case


@case("the second client waits until the first leaves, even if the first is idle")
def second_client_waits(t):
    with t.server() as s:
        first = s.connect().greeting()
        second = s.connect().send(b"^abc$")     # the kernel connects both
        second.expect_silence(0.3)
        first.send(b"^a$").expect(b"b")
        first.close()
        second.greeting().expect(b"bcd")


@case("waiting clients are served in the order in which they connected")
def first_come_first_served(t):
    with t.server() as s:
        clients = [s.connect() for _ in range(4)]
        for client in clients:
            client.greeting().send(b"^abc$").expect(b"bcd")
            for other in clients[clients.index(client) + 1:]:
                other.expect_silence(0.02)
            client.close()
