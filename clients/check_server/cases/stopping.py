"""Stop: on SIGTERM or SIGINT exit 0 within two seconds, whatever is going on."""

import signal

from ..registry import case


@case("SIGTERM with clients connected: exit 0 within two seconds")
def stop_with_clients(t):
    with t.server() as s:
        clients = [s.connect() for _ in range(10)]
        for client in clients[:1 if t.serial else 10]:
            client.greeting()
        clients[0].send(b"^abc").expect(b"bcd")
        status, seconds = s.stop(signal.SIGTERM)
        t.check(status == 0, "it ended with status %d, not 0" % status)
        t.check(seconds <= 2.0 * t.slow, "it took %.1f s to stop" % seconds)
