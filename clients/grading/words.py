"""A failure as a person would explain it."""

import re

from lib.reports import clean, lines, quote, tail

BEFORE, AFTER = 5, 7    # bytes shown around the first that differs
ALIKE = 8       # bytes that must agree for the others to be missing, or too many
NEAR = 3        # and for a few others
REASON = 150            # characters of a reason, in one line
DIED = re.compile(r"killed by (?!SIGTERM|SIGKILL)|exited with status (?!0\b)")
RIGHT = re.compile(r"(\d+) bytes were right, then")
OUTPUT = 6              # lines of the server's own output


def in_one_line(result):
    """What went wrong, for the line of the stage."""
    wanted, got = getattr(result.error, "wanted", None), getattr(result.error, "got", None)
    if wanted is not None and got is not None:
        at = first_difference(wanted, got)
        if at < len(wanted) and at < len(got):
            return _first_wrong(wanted[at:], got[at:])
    text = " ".join(lines(result.reason))
    state = result.server.state if result.server else ""
    if DIED.match(state) and state not in text:
        text = f"the server died ({clean(state)}): {text}"
    elif state.startswith("exited") and "Connection refused" in text:
        text = f"the server has ended ({clean(state)}): {text}"
    return text if len(text) <= REASON else text[:REASON] + " ..."


def _first_wrong(wanted, got):
    """Both begin with the first byte that differs."""
    asked = hexadecimal(wanted[0] - 1)
    missing = _shift(wanted, got)
    if missing > 0:
        return (f"the answer to byte {asked} is missing" if missing == 1 else
                f"{missing} answers are missing, beginning with that to byte {asked}")
    extra = _shift(got, wanted)
    if extra == -1:     # perhaps it agrees to its end, which comes soon
        extra = next((at for at in range(1, min(2 * NEAR, len(got) - 1))
                      if wanted.startswith(got[at:])), -1)
    if extra > 0:
        return (f"{extra} byte{'s' if extra > 1 else ''} too many before the answer to byte "
                f"{asked}, beginning with {hexadecimal(got[0])}")
    return (f"byte {asked} was answered with {hexadecimal(got[0])}, expected "
            f"{hexadecimal(wanted[0])}")


def _shift(longer, shorter):
    """How many bytes of the one stand before what both go on with, or -1. It is -1 also if the
    same bytes come again later: then nobody knows how many it is."""
    if len(shorter) < 2:
        return -1
    few = longer.find(shorter[:NEAR], 0, 2 * NEAR)
    if few > 0:
        return few
    many = longer.find(shorter[:ALIKE])
    return many if longer.find(shorter[:ALIKE], many + 1) == -1 else -1


def hexadecimal(byte):
    return f"0x{byte % 256:02X}"


def first_difference(wanted, got):
    return next((at for at, (a, b) in enumerate(zip(wanted, got)) if a != b),
                min(len(wanted), len(got)))


def side_by_side(wanted, got, before=0):
    """Both, byte below byte, with a mark under the first that differs; `before` them so many
    were right."""
    at = first_difference(wanted, got)
    start = max(0, at - BEFORE)
    rows = [[_byte(byte) for byte in data[start:at + AFTER]] for data in (wanted, got)]
    ends = ["...", "..."] if start else ["", ""]
    columns = max(map(len, rows))
    widths = [max(len(row[column]) if column < len(row) else 0 for row in rows)
              for column in range(columns)]
    shown = [" ".join([*([end] if end else []),
                       *(cell.ljust(width) for cell, width in zip(row, widths))]).rstrip()
             for end, row in zip(ends, rows)]
    mark = sum(width + 1 for width in widths[:at - start]) + (4 if start else 0)
    size = widths[at - start] if at - start < columns else 1
    more = [" ..." if len(data) > at + AFTER else "" for data in (wanted, got)]
    return [f"expected  {shown[0]}{more[0]}", f"received  {shown[1]}{more[1]}".rstrip(),
            " " * (10 + mark) + "^" * size
            + (f" byte {before + at + 1} of the answers" if before + at else " the first byte")]


def _byte(byte):
    return chr(byte) if 32 < byte < 127 else f"\\x{byte:02x}"


def evidence(result):
    """What was sent, expected and received."""
    error = result.error
    client = getattr(error, "client", None)
    wanted, got = getattr(error, "wanted", None), getattr(error, "got", None)
    if client is not None and client.sent.total:
        yield f"sent      {client.sent}"
    differ = wanted is not None and got is not None
    if differ and client is not None and client.was_right:
        yield f"          the last {client.sent_last}; before these all was right"
    if differ:
        right = RIGHT.match(result.reason)      # the greeting is one of these
        yield from side_by_side(wanted, got, int(right[1]) - 1 if right else 0)
    elif client is not None:
        yield f"received  {client.came}"
    if not differ or first_difference(wanted, got) == min(len(wanted), len(got)):
        yield from (f"reason    {line}" for line in lines(result.reason)[:3])


def own_output(result):
    """What the server printed last, and whether it ran."""
    if not result.server:
        return
    later = result.server.state.startswith("exited") and "still running" in result.reason
    yield f"server    {clean(result.server.state)}{', later' if later else ''}"
    if result.server.log:
        yield "its output ends:"
        for line in tail(result.server.log, OUTPUT):
            yield "  | " + clean(line.replace("\t", "    "))


def again(outcome, settings):
    """The command that repeats this failure."""
    return quote(with_arguments(
        [settings.program, "--case", outcome.graded.case.name, "--seed", settings.seed,
         *settings.repeat, settings.typed], settings))


def with_arguments(command, settings):
    """The command, and the arguments for the server."""
    return command + (["--", *settings.server_args] if settings.server_args else [])
