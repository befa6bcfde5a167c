"""The lesson of step 3: a blocking call sleeps, costs nothing, and blocks all other clients."""

import re

from check_server import case

NAP = 0.3
RECV = r"^recv returned 7 bytes \(slept ([\d.]+) ms, ([\d.]+) ms CPU\)$"


@case("the second client waits until the first leaves")
def second_client_waits(t):
    with t.server() as s:
        first = s.connect().greeting()
        second = s.connect().send(b"^abc$")
        second.expect_silence(0.3)
        first.close()
        second.greeting().expect(b"bcd")


@case("it reports for each recv how long it slept and how little CPU it used")
def recv_is_narrated(t):
    with t.server() as s:
        client = s.connect().greeting()
        s.wait_log(r"^Calling recv\.\.\.$")
        t.pause(NAP)
        client.send(b"^abcde$").expect(b"bcdef")
        slept, cpu = map(float, s.wait_log(RECV).groups())
        t.check(slept >= 1000 * NAP * 0.9, f"it says it slept for {slept:g} ms")
        t.check(cpu < slept / 4, f"it used {cpu:g} ms of CPU in {slept:g} ms")
        client.finish()
        s.wait_log(r"^recv returned 0: peer disconnected$")
        s.wait_log(r"^asleep in recv for [\d.]+ ms, using [\d.]+ ms CPU$")
        narrated = len(re.findall(r"^Calling recv", s.log_text(), re.MULTILINE))
        t.check(narrated == 2, f"two recv calls, but it reported {narrated}")


@case("--once: it ends after the first client, with status 0")
def once(t):
    with t.server("--once") as s:
        s.serves()
        status, _ = s.wait()
        t.check(status == 0, f"it ended with status {status}")


@case("--quiet: it does not report each recv")
def quiet_about_recv(t):
    with t.server("--quiet") as s:
        s.serves()
        t.check("recv returned" not in s.log_text(), "it reported a recv")
