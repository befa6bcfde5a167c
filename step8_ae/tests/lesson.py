"""The lesson of step 8: one loop of our own waits for timers and sockets."""

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case


@case("it answers while a timer runs, and the timer closes only the idle client")
def answers_while_a_timer_runs(t):
    with t.server("--idle-timeout", str(0.5 * t.slow)) as s:
        idle = s.connect().greeting()
        active = s.connect().greeting()
        for _ in range(10):
            active.send(b"^abc$").expect(b"bcd")
            t.pause(0.1)
        idle.expect_end()
        active.send(b"^abc$").expect(b"bcd")
