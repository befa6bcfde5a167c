"""A case for servers that accept one client after another: the steps' own cases import it.

Not for servers whose library accepts: io_uring, and libuv before its version 1.45, accept all
pending connections at once.
"""

import re

from check_server import case

PENDING = 400


@case("of hundreds of pending connections not all are accepted before a client gets its turns",
      needs="linux", clients=PENDING + 1)
def new_connections_take_turns(t):
    with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
        if int(file.read()) < PENDING:
            t.skip("too few connections can be pending here (net.core.somaxconn)")
    with t.server() as s:
        client = s.connect().greeting()
        with s.frozen():
            client.send(b"^a$").half_close()    # the message is one turn, the end another
            pending = [s.connect() for _ in range(PENDING)]
        client.settle().expect_end()
        line = s.wait_log(fr"\b{client.sock.getsockname()[1]}\) disconnected$")
        accepted = len(re.findall(r"\) connected$", line.string[:line.start()], re.M)) - 1
        t.check(accepted <= PENDING / 2, f"{accepted} were accepted meanwhile")
        for each in pending:
            each.greeting()
