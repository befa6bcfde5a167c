"""A case for servers that accept one newcomer after another: their lessons import it. It is not
for those that accept nobody themselves: io_uring lets in all who wait at once, as does libuv
before its version 1.45."""

import re

from check_server import case

NEWCOMERS = 400


@case("of hundreds of newcomers not all are let in before a client gets its turns",
      needs="linux", clients=NEWCOMERS + 1)
def new_connections_take_turns(t):
    with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
        if int(file.read()) < NEWCOMERS:
            t.skip("too few newcomers can wait here (net.core.somaxconn)")
    with t.server() as s:
        client = s.connect().greeting()
        with s.frozen():
            client.send(b"^a$").half_close()    # the word is one turn, the goodbye another
            newcomers = [s.connect() for _ in range(NEWCOMERS)]
        client.settle().expect_end()
        gone = s.wait_log(fr"\b{client.sock.getsockname()[1]}\) disconnected$")
        let_in = len(re.findall(r"\) connected$", gone.string[:gone.start()], re.M)) - 1
        t.check(let_in <= NEWCOMERS / 2, f"{let_in} newcomers were let in meanwhile")
        for newcomer in newcomers:
            newcomer.greeting()
