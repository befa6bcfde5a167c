"""The lesson of step 2: the scheduler serves everybody, at the price of a thread for each."""

from check_server import case


@case("it has a thread for each client and one more, and none is left when they have gone",
      needs="linux", clients=50)
def a_thread_for_each_client(t):
    with t.server() as s:
        if s.sanitized():
            t.skip("a sanitizer has threads of its own")
        t.check(s.threads() == 1, "%d threads without a client" % s.threads())
        for count in 1, 10, 50:
            clients = s.crowd(count)
            t.check(s.threads() == count + 1,
                    "%d threads for %d clients" % (s.threads(), count))
            for client in clients:
                client.close()
            t.check(s.eventually(lambda: s.threads() == 1), "threads are left behind")


@case("its stacks are small: a silent client reserves well under a MiB of addresses",
      needs="linux", clients=100)
def small_stacks(t):
    with t.server() as s:
        if s.sanitized():
            t.skip("a sanitizer has stacks of its own")
        clients, before = s.crowd(1), reserved(s.pid)
        clients += s.crowd(100)
        each = (reserved(s.pid) - before) / 100
        t.check(each < 1 << 20, "%d KiB reserved for a client" % (each / 1024))


def reserved(pid):
    """The size of the address space, in bytes."""
    with open("/proc/%d/status" % pid, encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status
                    if line.startswith("VmSize:"))
