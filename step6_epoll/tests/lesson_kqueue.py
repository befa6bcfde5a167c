"""The lesson of kqueue: idle clients cost nothing, and a client has one filter at a time."""

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case
from check_server.protocol import message


@case("it answers among idle clients, and never looks at them", clients=500)
def hundreds_are_idle(t):
    idle, messages = 500, 200

    def talk(s):
        s.crowd(idle)
        client = s.connect().greeting()
        for _ in range(messages):
            client.send(b"^a$").expect(b"b")

    cost = t.cost_of(talk)
    t.check(messages <= cost["recv_calls"] < messages + 20,
            f"{cost['recv_calls']} recv calls for {messages} messages")
    t.check(cost["interest_changes"] == idle + 3,
            f"{cost['interest_changes']} changes for {idle + 1} clients")


@case("a client whose answers do not fit is watched for writing, then for reading again")
def one_filter_at_a_time(t):
    def talk(s):
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 << 20), until_stuck=0.1)
        client.settle()
        client.exchange(b"^a$")

    changes = t.cost_of(talk)["interest_changes"]
    t.check(changes >= 5 and changes % 2 == 1,
            f"{changes} changes: reading, and back to reading after each writing")
