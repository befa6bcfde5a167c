"""The lesson of the pool: it bounds the threads, not how long a client keeps one."""

from check_server import case, proc

QUEUE_SIZE = 64


@case("with N workers it serves N clients at once, and client N + 1 when one has left")
def the_next_one_waits(t):
    with t.server("--workers", "3") as s:
        first, *others = s.crowd(3)
        waiting = s.connect()
        waiting.send(b"^abc$").expect_silence()
        others[0].send(b"^abc").expect(b"bcd")
        first.close()
        waiting.greeting().expect(b"bcd")


@case("it never has more threads than its workers and one, and keeps them for later clients",
      needs="linux", clients=40)
def threads_are_bounded(t):
    t.not_emulated()
    with t.server("--workers", "5") as s:
        if s.sanitized():
            t.skip("a sanitizer has threads of its own")
        t.check(s.threads() == 1, f"{s.threads()} threads without a client")
        for _ in range(3):
            served = s.crowd(5)
            waiting = [s.connect() for _ in range(40)]
            for client in served:
                client.close()
            for client in waiting:      # each is served when one before it has left
                client.greeting().close()
            t.check(s.threads() == 6, f"{s.threads()} threads with 5 workers")


@case("its stacks are small: a worker reserves less than a MiB of addresses", needs="linux",
      clients=51)
def small_stacks(t):
    t.not_emulated()
    with t.server("--workers", "60") as s:
        if s.sanitized():
            t.skip("a sanitizer has stacks of its own")
        s.crowd(1)
        before = proc.virtual_bytes(s.pid)
        s.crowd(50)
        each = (proc.virtual_bytes(s.pid) - before) / 50
        t.check(each < 1 << 20, f"{each / 1024:.0f} KiB reserved for a worker")


@case("when the queue is full it rejects new clients, and waiting clients keep their places",
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


@case("--idle-timeout frees an idle client's worker for a waiting client", level="normal")
def idle_workers_are_freed(t):
    with t.server("--workers", "2", "--idle-timeout", "0.3") as s:
        s.crowd(2)
        s.connect().send(b"^abc$").greeting().expect(b"bcd")


@case("at a stop it also closes the clients that wait in the queue")
def stop_with_a_queue(t):
    with t.server("--workers", "2") as s:
        s.crowd(2)
        for _ in range(10):
            s.connect()
        s.stop()
