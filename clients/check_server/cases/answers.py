"""Bytes: for any input in any fragmentation exactly the protocol's answer, in order."""

import statistics
import time

from ..client import exchange_all
from ..protocol import KNOWN_EXCHANGE, message, naive_answer, random_input
from ..registry import case

MIB = 1 << 20
WHOLE_EXCHANGE = b"".join(sent for sent, _ in KNOWN_EXCHANGE)


@case("a client that connects is greeted with one `*`, and stays connected")
def greets_a_client(t):
    with t.server(health=False) as s:
        s.connect().greeting().expect_silence()


@case("a client is greeted with one `*` before it sends anything")
def greeting(t):
    with t.server() as s:
        client = s.connect().greeting()
        client.expect_silence()
        client.finish()


@case("the known exchange is answered exactly")
def known_exchange(t):
    with t.server() as s:
        client = s.connect().greeting()
        for sent, wanted in KNOWN_EXCHANGE:
            client.send(sent).expect(wanted)
        client.finish()


def is_answered(data, at):
    """Whether there is an answer to the byte at this place."""
    return len(naive_answer(data[:at + 1])) > len(naive_answer(data[:at]))


@case("the answer is the same wherever the input is split in two")
def every_split_point(t):
    with t.server() as s:
        for batch in t.batches(range(1, len(WHOLE_EXCHANGE))):
            clients = s.crowd(len(batch))
            for client, at in zip(clients, batch):
                client.send(WHOLE_EXCHANGE[:at])
            for client in clients:
                client.settle()
            # Answers show that it has read the first part by itself.
            s.has_read([client for client, at in zip(clients, batch)
                        if not is_answered(WHOLE_EXCHANGE, at - 1)])
            for client, at in zip(clients, batch):
                client.send(WHOLE_EXCHANGE[at:])
            for client in clients:
                client.finish()


@case("the answer is the same when every byte comes in a packet of its own")
def byte_by_byte(t):
    with t.server() as s:
        client = s.connect().greeting()
        for at, byte in enumerate(KNOWN_EXCHANGE[0][0]):
            client.send(bytes([byte])).settle()
            if not is_answered(KNOWN_EXCHANGE[0][0], at):
                s.has_read([client])
        for byte in b"".join(sent for sent, _ in KNOWN_EXCHANGE[1:]):
            client.send(bytes([byte]))
        client.finish()


@case("each of the 256 byte values is answered with its successor, 0xFF with 0x00")
def all_byte_values(t):
    with t.server() as s:
        client = s.connect().greeting()
        values = bytes(byte for byte in range(256) if byte != ord("$"))
        client.send(b"^" + values + b"$")
        client.expect(bytes((byte + 1) % 256 for byte in values))
        client.send(b"^\xff$").expect(b"\x00")
        client.finish()


@case("only `^` starts a message and only `$` ends it; elsewhere they are ordinary")
def markers(t):
    with t.server() as s:
        client = s.connect().greeting()
        client.send(b"$$^^^a$^$^$$$^%$").expect(b"__b&")
        client.send(bytes(byte for byte in range(256) if byte != ord("^")))
        client.expect_silence(0.05)
        client.send(b"^b$c$^d").expect(b"ce")
        client.finish()


@case("a message of 1 MiB is answered completely", limit=60)
def one_mebibyte_message(t):
    with t.server() as s:
        s.connect().greeting().exchange(message(MIB, t.rng)).finish()


@case("any number of messages in one packet are answered in order")
def many_messages_in_one_packet(t):
    with t.server() as s:
        data = b"".join(b"^%d$-" % number for number in range(5000))
        client = s.connect().greeting()
        client.exchange(data).exchange(b"^$" * 30000 + b"^end$").finish()


@case("the answers to one packet come together, not 40 ms apart (Nagle, delayed ACK)",
      timed=True)
def answers_come_together(t):
    with t.server() as s:
        client = s.connect().greeting()
        gaps = []
        for _ in range(30):     # delayed acknowledgements begin only after a while
            client.send(b"^abc$").expect(b"b")
            began = time.monotonic()
            client.expect(b"cd")
            gaps.append(time.monotonic() - began)
        gap = statistics.median(gaps[-10:])
        t.check(gap < 0.02 * t.slow, "the last answer to `^abc$` came "
                                     f"{1e3 * gap:.0f} ms (median) after the first")
        client.finish()


@case("a message ends with its `$`, not with a packet, and each client has its own state")
def state_is_per_connection(t):
    with t.server() as s:
        if not t.serial:
            first, second = s.crowd(2)
            first.send(b"^a").expect(b"b")
            second.send(b"b").expect_silence(0.05)
            first.send(b"b").expect(b"c")
            second.send(b"^c$").expect(b"d")
            first.finish()
            second.finish()
        s.connect().greeting().send(b"^left open").settle().close()
        s.connect().greeting().send(b"abc").expect_silence(0.05).finish()


@case("after a half-close all unsent answers are sent, and then the end")
def half_close_with_unsent_answers(t):
    with t.server() as s:
        for data in (b"^abc", b"^abc$d", b"", b"^"):
            s.connect().greeting().send(data).half_close().settle().expect_end().close()
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 * MIB), until_stuck=0.1)
        client.half_close().settle().expect_end()


@case("a client that reads only when it can send no more loses nothing, and the server is idle "
      "afterwards")
def late_reader(t):
    with t.server() as s:
        clients = s.crowd(1 if t.serial else t.scale(2, 4, 4), rcvbuf=4096)
        for client in clients:
            client.push(message(16 * MIB), until_stuck=0.05)
        for client in clients:
            client.settle()
        s.check_calm()      # it no longer asks for room to send
        for client in clients:
            client.finish()


@case("random input in random pieces is answered as the protocol says")
def random_fragments(t):
    with t.server() as s:
        for _ in t.rounds(t.scale(2, 10, 50)):
            clients = s.crowd(1 if t.serial else 10)
            inputs = [random_input(t.rng, t.rng.randrange(2000)) for _ in clients]
            sent = [0] * len(clients)
            while any(at < len(data) for at, data in zip(sent, inputs)):
                for number, client in enumerate(clients):
                    size = t.rng.choice((1, 1, 2, 3, 10, 100, 1000))
                    piece = inputs[number][sent[number]:sent[number] + size]
                    if piece:
                        client.send(piece)
                        sent[number] += len(piece)
            for client, data in zip(clients, inputs):
                client.expect(naive_answer(data))
                client.finish()


@case("a message of 64 MiB is answered completely", level="normal", limit=60)
def sixty_four_mebibyte_message(t):
    with t.server() as s:
        data = message(8 * MIB)[1:-1]
        client = s.connect().greeting()
        client.exchange(b"^")
        for _ in range(8):
            client.exchange(data)
        client.exchange(b"$").finish()


@case("large messages of several clients at once do not mix", needs="concurrent")
def large_messages_at_once(t):
    with t.server() as s:
        size = t.scale(MIB, 2 * MIB, 8 * MIB)
        clients = s.crowd(8)
        exchange_all([(client, message(size, t.rng)) for client in clients])
        for client in clients:
            client.finish()
