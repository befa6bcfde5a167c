"""The lesson of step 6: idle clients cost nothing."""

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case


@case("it answers among thousands of idle clients, and never looks at them",
      level="normal", clients=3000)
def thousands_are_idle(t):
    idle, messages = 3000, 500

    def talk(s):
        s.crowd(idle)
        client = s.connect().greeting()
        for _ in range(messages):
            client.send(b"^a$").expect(b"b")

    cost = t.cost_of(talk)
    # One recv for each message, and hardly any more that found nothing.
    t.check(messages <= cost["recv_calls"] < messages + 100,
            f"{cost['recv_calls']} recv calls for {messages} messages")
    t.check(cost["interest_changes"] < idle + 100,
            f"{cost['interest_changes']} calls of epoll_ctl for {idle + 1} clients")


@case("a message costs the same CPU time among ten and among two thousand idle clients",
      level="normal", needs="linux", clients=2001)
def idle_clients_cost_nothing(t):
    with t.server("--quiet") as s:
        client = s.connect().greeting()
        s.crowd(10)
        few = cost_of_messages(s, client)
        s.crowd(2000)
        many = cost_of_messages(s, client)
    t.check(many < 2.5 * few + 0.02, f"{few:.3f} s of CPU with few, {many:.3f} s with many")


def cost_of_messages(s, client, count=4000):
    before = s.cpu_seconds()
    for _ in range(count):
        client.sock.sendall(b"^a$")
        assert client.sock.recv(16) == b"b"
    return s.cpu_seconds() - before
