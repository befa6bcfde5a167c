"""The wire protocol, twice: as a model fast enough for 64 MiB, and as the naive rule."""

import functools

GREETING = b"*"
KNOWN_EXCHANGE = (
    (b"^abc$de^abte$f", b"bcdbcuf"),
    (b"xyz^123", b"234"),
    (b"25$^ab0000$abab", b"36bc1111"),
)
PLUS_ONE = bytes((byte + 1) % 256 for byte in range(256))


class Model:
    """What one connection must be answered; its state lives as long as the connection."""

    def __init__(self):
        self.inside = False

    def feed(self, data):
        answer = bytearray()
        at = 0
        while at < len(data):
            mark = data.find(b"$" if self.inside else b"^", at)
            end = mark if mark >= 0 else len(data)
            if self.inside:
                answer += data[at:end].translate(PLUS_ONE)
            if mark >= 0:
                self.inside = not self.inside
            at = end + 1
        return bytes(answer)


def naive_answer(data):
    """The rule, a byte at a time: slow, and too simple to be wrong."""
    answer = bytearray()
    inside = False
    for byte in data:
        if not inside:
            inside = byte == ord("^")
        elif byte == ord("$"):
            inside = False
        else:
            answer.append((byte + 1) % 256)
    return bytes(answer)


SPECIAL = b"^$^$^$\x00\xfe\xff#%*]_ab"
EQUALLY_OFTEN = bytes(range(256)) + SPECIAL * (256 // len(SPECIAL))


def random_input(rng, size):
    """Bytes. Half of them are markers or values around the wrap."""
    return bytes(rng.choices(EQUALLY_OFTEN, k=size))


def message(size, rng=None):
    """One message with `size` bytes to answer, `$` not among them."""
    if rng is None:
        return _ascending(size)
    return b"^" + rng.getrandbits(8 * size).to_bytes(size, "little").replace(b"$", b"^") + b"$"


@functools.lru_cache(maxsize=1)     # cases send the same large message again and again
def _ascending(size):
    pattern = bytes(byte for byte in range(256) if byte != ord("$"))
    return b"^" + (pattern * (size // len(pattern) + 1))[:size] + b"$"
