"""The lesson of step 7: one loop for everything, timers and sockets alike."""

import resource

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


@case("too few descriptors for libuv: one line that says so, where libuv would abort",
      needs="linux")
def too_few_descriptors(t):
    with t.server() as s:
        if s.sanitized():
            t.skip("a sanitizer opens files of its own at the end")
    for count in range(4, 13):
        def few_to_open():
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

        done = t.run("0", preexec_fn=few_to_open)
        t.check(done.status == 1 and done.stderr.count("\n") == 1 and
                "oo many open files" in done.stderr,
                "with %d: %d, %r" % (count, done.status, done.stderr))
