"""A client can only hurt itself, and there can be many of them."""

from ..protocol import KNOWN_EXCHANGE
from ..registry import case


@case("a client that resets in mid-message is forgotten, and the next is served")
def reset_in_mid_message(t):
    with t.server() as s:
        for _ in range(t.scale(5, 20, 200)):
            s.connect().greeting().send(b"^abc").expect(b"bcd").reset()
        s.serves()


def correct_crowd(t, s, count):
    """So many clients at once (one after another if serial) hold the known exchange."""
    for batch in t.batches(range(count), count):
        clients = s.crowd(len(batch))
        for sent, wanted in KNOWN_EXCHANGE:
            for client in clients:
                client.send(sent)
            for client in clients:
                client.expect(wanted)
        for client in clients:
            client.half_close()
        for client in clients:
            client.expect_end().close()


@case("two hundred clients at once (one after another if serial) are each served")
def two_hundred_clients(t):
    with t.server() as s:
        correct_crowd(t, s, 200)
