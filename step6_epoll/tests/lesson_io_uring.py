"""The lesson of io_uring: one system call for many requests, and memory that is the kernel's
while a request is in flight."""

import json
import os
import shutil
import subprocess
import tempfile

from check_server import case
from check_server.protocol import message

BUFFERS = 128       # as in uring.h


@case("for many clients it needs fewer waits than it receives messages", clients=50)
def fewer_calls_than_messages(t):
    def work(s):
        clients = s.crowd(50)
        for _ in range(40):
            with s.frozen():    # so that all are ready at once
                for client in clients:
                    client.send(b"^a$")
            for client in clients:
                client.expect(b"b")

    cost = t.cost_of(work)
    t.check(cost["recv_calls"] >= 2000, f"{cost['recv_calls']} messages received")
    t.check(cost["wait_calls"] < cost["recv_calls"] / 2,
            f"{cost['wait_calls']} waits for {cost['recv_calls']} messages")


@case("when more clients send than there are buffers it asks again only when a buffer is free",
      clients=2 * BUFFERS)
def buffers_run_out(t):
    def work(s):
        clients = s.crowd(2 * BUFFERS)
        for _ in range(10):
            with s.frozen():
                for client in clients:
                    client.send(message(8000))
            for client in clients:
                client.settle()

    cost = t.cost_of(work)
    messages = 20 * BUFFERS
    t.check(cost["recv_calls"] <= 2 * messages + 2 * BUFFERS,
            f"{cost['recv_calls']} receive requests for {messages} messages")


# Lets results pile up, 200 of them or for 5 ms: then more clients need a buffer than there are.
PILE_UP = """
#define _GNU_SOURCE
#include <dlfcn.h>

typedef int wait(void *ring, void *result, unsigned n, void *limit, void *mask);

int io_uring_submit_and_wait_timeout(void *ring, void *result, unsigned n, void *limit,
                                     void *mask)
{
    wait *real = (wait *)dlsym(RTLD_NEXT, "io_uring_submit_and_wait_timeout");

    return real(ring, result, 200, (long long[]){0, 5000000}, mask);
}
"""


@case("a client that finds no free buffer is served as soon as one is free", needs="linux",
      clients=2 * BUFFERS)
def waits_for_a_buffer(t):
    with t.preloaded(PILE_UP) as env, tempfile.NamedTemporaryFile() as stats, \
            t.server("--quiet", "--stats", stats.name, env=env) as s:
        clients = s.crowd(2 * BUFFERS)
        with s.frozen():
            for client in clients:
                client.send(message(8000))
        for client in clients:
            client.settle()
        s.stop()
        cost = json.load(stats)
    t.check(0 < cost["recv_again"] <= 2 * BUFFERS,
            f"{cost['recv_again']} receive requests found no buffer")


# Cancels the poll for the wake-up descriptor, which is a pipe or an eventfd. Then SIGUSR1 comes
# just before the next sleep, so that it interrupts no call.
SIGNAL_BEFORE_SLEEP = """
#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern void *dlsym(void *, const char *);

static void end_polls(struct io_uring *ring)
{
    for (int fd = 3; fd < 64; fd++) {
        char path[32], what[256] = "";

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, what, sizeof what - 1) <= 0 ||
            (strstr(what, "pipe:") == NULL && strstr(what, "[eventfd]") == NULL))
            continue;
        struct io_uring_sqe *request = io_uring_get_sqe(ring);
        io_uring_prep_cancel_fd(request, fd, IORING_ASYNC_CANCEL_ALL);
        io_uring_sqe_set_data(request, NULL);
    }
}

int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **result,
                                     unsigned n, struct __kernel_timespec *limit,
                                     sigset_t *mask)
{
    static int calls;
    int (*real)(struct io_uring *, struct io_uring_cqe **, unsigned,
                struct __kernel_timespec *, sigset_t *) =
        dlsym((void *)-1L, "io_uring_submit_and_wait_timeout");

    if (calls == 0)
        end_polls(ring);
    if (calls == 1)
        raise(SIGUSR1);
    calls++;
    return real(ring, result, n, limit, mask);
}
"""


@case("a signal that comes just before the sleep wakes it, also after its poll has ended",
      needs="linux")
def signal_before_sleep(t):
    with t.preloaded(SIGNAL_BEFORE_SLEEP) as env, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats.json")
        with t.server("--quiet", "--stats", path, env=env) as s:
            t.check(s.eventually(lambda: os.path.getsize(path) > 0), "it writes no report")


# A small send buffer, which accepted sockets inherit: a client that never reads costs less.
SMALL_SEND_BUFFER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

int listen(int fd, int backlog)
{
    int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "listen");

    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int));
    return real(fd, backlog);
}
"""


@case("clients that never read keep no provided buffer, though there are more of them than "
      "buffers", needs="linux", clients=BUFFERS + 20)
def never_reading_clients_keep_no_buffer(t):
    with t.preloaded(SMALL_SEND_BUFFER) as env, t.server("--quiet", env=env) as s:
        for client in s.crowd(BUFFERS + 20, rcvbuf=4096):
            client.send(message(64000))
        s.serves_others()
        for client in s.clients:
            client.settle()


@case("it counts what the kernel accepts, receives and sends for it")
def counts_what_was_done(t):
    def work(s):
        client = s.connect().greeting()
        for _ in range(10):
            client.send(b"^ab$").expect(b"bc")
        client.finish()

    cost = t.cost_of(work)
    for key, wanted in (("recv_calls", 11), ("recv_again", 0),     # with the end
                        ("send_calls", 11), ("send_again", 0), ("send_short", 0)):
        t.check(cost[key] == wanted, f"{key} is {cost[key]}, not {wanted}")
    t.check(1 <= cost["accept_calls"] <= 3, f"accept_calls is {cost['accept_calls']}")


@case("where the kernel does not allow io_uring it says so and exits with status 1",
      needs="linux")
def kernel_does_not_allow_it(t):
    if not shutil.which("strace"):
        t.skip("strace, which makes io_uring_setup fail, is not installed")
    for error, text in (("EPERM", "this kernel does not allow io_uring"),
                        ("ENOMEM", "io_uring may lock too little memory (ulimit -l)")):
        ended = subprocess.run(
            ["strace", "-o", "/dev/null", "-e", "trace=io_uring_setup",
             "-e", f"inject=io_uring_setup:error={error}", t.settings.server, "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=t.patience, encoding="utf-8", check=False)
        t.check(ended.returncode == 1, f"after {error} the exit status is {ended.returncode}")
        t.check(text in ended.stderr, f"after {error} it said {ended.stderr!r}")
        t.check("Listening" not in ended.stdout, "it said that it listens")


@case("a client that has sent much and is idle now keeps no large buffer", needs="linux",
      clients=100)
def idle_after_much(t):
    with t.server("--quiet") as s:
        clients = s.crowd(100)
        before = s.memory()
        for client in clients:
            client.exchange(b"^" + b"a" * 40000 + b"$")
            client.exchange(b"^" + b"a" * 40000 + b"$")
        each = (s.memory() - before) / len(clients)
        t.check(each < 4096 or s.sanitized(), f"{each} bytes for an idle client")
