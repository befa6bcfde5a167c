"""The lesson of step 8: our own loop, timers and sockets alike."""

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case


@case("it goes on answering while a timer runs, and the timer strikes the silent one only")
def answers_while_a_timer_runs(t):
    with t.server("--idle-timeout", str(0.5 * t.slow)) as s:
        silent = s.connect().greeting()
        talking = s.connect().greeting()
        for _ in range(10):
            talking.send(b"^abc$").expect(b"bcd")
            t.pause(0.1)
        silent.expect_end()
        talking.send(b"^abc$").expect(b"bcd")
