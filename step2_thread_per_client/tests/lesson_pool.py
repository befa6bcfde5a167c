"""The lesson of the pool: it bounds the threads, not how long a client keeps one."""

from check_server import case, proc

QUEUE_SIZE = 64


@case("with N workers N clients are served at once, and client N + 1 when one has left")
def the_next_one_waits(t):
    with t.server("--workers", "3") as s:
        first, *others = s.crowd(3)
        waiting = s.connect()
        waiting.send(b"^abc$").expect_silence()
        others[0].send(b"^abc").expect(b"bcd")
        first.close()
        waiting.greeting().expect(b"bcd")


@case("it never has more threads than workers and one, and keeps them for those to come",
      needs="linux", clients=40)
def threads_are_bounded(t):
    with t.server("--workers", "5") as s:
        if s.sanitized():
            t.skip("a sanitizer has threads of its own")
        t.check(s.threads() == 1, "%d threads without a client" % s.threads())
        for _ in range(3):
            served = s.crowd(5)
            waiting = [s.connect() for _ in range(40)]
            for client in served:
                client.close()
            for client in waiting:      # each gets its turn when one before it has left
                client.greeting().close()
            t.check(s.threads() == 6, "%d threads with 5 workers" % s.threads())


@case("its stacks are small: a worker reserves well under a MiB of addresses", needs="linux",
      clients=51)
def small_stacks(t):
    with t.server("--workers", "60") as s:
        if s.sanitized():
            t.skip("a sanitizer has stacks of its own")
        s.crowd(1)
        before = proc.virtual_bytes(s.pid)
        s.crowd(50)
        each = (proc.virtual_bytes(s.pid) - before) / 50
        t.check(each < 1 << 20, "%d KiB reserved for a worker" % (each / 1024))


@case("when the queue is full too, newcomers are refused, and those who wait keep their places",
      clients=QUEUE_SIZE + 10)
def the_queue_is_bounded(t):
    with t.server("--workers", "1") as s:
        served = s.connect().greeting()
        waiting = [s.connect() for _ in range(QUEUE_SIZE)]
        for _ in range(5):
            t.check(s.try_client() is None, "one more was admitted")
        served.send(b"^abc").expect(b"bcd").close()
        for client in waiting:
            client.greeting().send(b"^abc$").expect(b"bcd").close()


@case("--idle-timeout gives a silent client's worker to those who wait", level="normal")
def silence_ends(t):
    with t.server("--workers", "2", "--idle-timeout", "0.3") as s:
        s.crowd(2)
        s.connect().send(b"^abc$").greeting().expect(b"bcd")


@case("told to stop it also lets go those who still wait in the queue")
def stop_with_a_queue(t):
    with t.server("--workers", "2") as s:
        s.crowd(2)
        for _ in range(10):
            s.connect()
        s.stop()
