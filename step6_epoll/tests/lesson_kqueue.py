"""The lesson of kqueue: the silent cost nothing, and a client has one filter at a time."""

import json
import os
import tempfile

from check_server import case
from check_server.protocol import message


def cost_of(t, talk):
    """What the server counted while talk(server) went on."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats.json")
        with t.server("--quiet", "--stats", path, health=False) as s:
            talk(s)
            s.stop()
        with open(path, encoding="ascii") as file:
            return json.load(file)


@case("it answers in the presence of silent clients, and never looks at them", clients=500)
def hundreds_are_silent(t):
    silent, messages = 500, 200

    def talk(s):
        s.crowd(silent)
        client = s.connect().greeting()
        for _ in range(messages):
            client.send(b"^a$").expect(b"b")

    cost = cost_of(t, talk)
    t.check(messages <= cost["recv_calls"] < messages + 20,
            "%d recv calls for %d messages" % (cost["recv_calls"], messages))
    t.check(cost["interest_changes"] == silent + 3,
            "%d changes for %d clients" % (cost["interest_changes"], silent + 1))


@case("whose answers do not fit is watched for writing, and then for reading again")
def one_filter_at_a_time(t):
    def talk(s):
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 << 20), until_stuck=0.1)
        client.settle()
        client.exchange(b"^a$")

    changes = cost_of(t, talk)["interest_changes"]
    t.check(changes >= 5 and changes % 2 == 1,
            "%d changes: reading, and back to reading after each writing" % changes)
