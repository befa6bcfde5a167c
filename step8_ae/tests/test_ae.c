/* test_ae.c - what ae.h promises, asked of whichever back-end is linked in.
 *
 * Callbacks note what happened in `trace`: one letter for the kind of event (r and w for
 * descriptors, t for timers, f for finalizers, B and A for the hooks) and the name of the actor
 * it happened to. Most tests then compare traces.
 */
#include "ae.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { LOOK = AE_ALL_EVENTS | AE_DONT_WAIT, TOO_LONG_MS = 10000 };

/* Clients and timers of the tests: what to note, and what to do when called. */
struct actor {
    const char *name;
    void (*act)(struct actor *self, int fd, int mask);
    int again;           /* for timers: what to return */
    int fd;              /* what act needs: a descriptor, */
    long long id;        /* a timer, */
    struct actor *other; /* another actor */
};

static aeEventLoop *loop;
static char trace[256];

static void note(const char *kind, const char *name)
{
    size_t used = strlen(trace);

    assert_true(used + 3 < sizeof trace);
    snprintf(trace + used, sizeof trace - used, "%s%s", kind, name);
}

static void assert_trace(const char *expected)
{
    assert_string_equal(trace, expected);
    trace[0] = '\0';
}

static void on_file(aeEventLoop *l, int fd, void *data, int mask)
{
    struct actor *self = data;

    assert_ptr_equal(l, loop);
    note(mask == (AE_READABLE | AE_WRITABLE) ? "*"
         : mask == AE_READABLE               ? "r"
                                             : "w",
         self->name);
    if (self->act != NULL)
        self->act(self, fd, mask);
}

static void on_readable(aeEventLoop *l, int fd, void *data, int mask)
{
    struct actor *self = data;

    assert_ptr_equal(l, loop);
    assert_true(mask & AE_READABLE);
    note("r", self->name);
    if (self->act != NULL)
        self->act(self, fd, mask);
}

static void on_writable(aeEventLoop *l, int fd, void *data, int mask)
{
    assert_ptr_equal(l, loop);
    assert_true(mask & AE_WRITABLE);
    note("w", ((struct actor *)data)->name);
    (void)fd;
}

static int on_time(aeEventLoop *l, long long id, void *data)
{
    struct actor *self = data;

    assert_ptr_equal(l, loop);
    assert_true(id >= 0);
    note("t", self->name);
    if (self->act != NULL)
        self->act(self, -1, 0);
    return self->again;
}

static void on_finalize(aeEventLoop *l, void *data)
{
    assert_ptr_equal(l, loop);
    note("f", ((struct actor *)data)->name);
}

/* The clock as the loop sees it: counted, and stopped where a test wants two events at exactly
 * the same time. */
static int clock_calls;
static bool clock_stopped;

#ifdef SYS_clock_gettime /* where it is a system call we can stand before it */
enum { OUR_CLOCK = true };

int clock_gettime(clockid_t clock_id, struct timespec *tp)
{
    static struct timespec last;

    if (clock_id != CLOCK_MONOTONIC)
        return (int)syscall(SYS_clock_gettime, clock_id, tp);
    clock_calls++;
    if (!clock_stopped)
        syscall(SYS_clock_gettime, clock_id, &last);
    *tp = last;
    return 0;
}
#else
enum { OUR_CLOCK = false };
#endif

static double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* A connected pair: ours goes into the loop, theirs plays the client. */
struct pair {
    int ours, theirs;
};

static struct pair open_pair(void)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    return (struct pair){fds[0], fds[1]};
}

/* Two ends of a TCP connection over the loopback. */
static struct pair open_tcp_pair(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0), ours, theirs;

    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    theirs = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(theirs, (struct sockaddr *)&addr, len), 0);
    ours = accept(listener, NULL, NULL);
    assert_true(ours >= 0);
    close(listener);
    return (struct pair){ours, theirs};
}

static void close_pair(struct pair p)
{
    aeDeleteFileEvent(loop, p.ours, AE_READABLE | AE_WRITABLE);
    close(p.ours);
    close(p.theirs);
}

static void poke(int fd)
{
    assert_int_equal(write(fd, "x", 1), 1);
}

static void swallow(int fd)
{
    char c;

    assert_int_equal(read(fd, &c, 1), 1);
}

static void watch(int fd, int mask, struct actor *actor)
{
    assert_int_equal(aeCreateFileEvent(loop, fd, mask, on_file, actor), AE_OK);
}

static long long start_timer(long long ms, struct actor *actor)
{
    long long id = aeCreateTimeEvent(loop, ms, on_time, actor, on_finalize);

    assert_true(id >= 0);
    return id;
}

/* For timers whose actor will not outlive the test. */
static void drop_timers(void)
{
    for (long long id = 0; id < loop->timeEventNextId; id++)
        aeDeleteTimeEvent(loop, id);
    aeProcessEvents(loop, AE_TIME_EVENTS | AE_DONT_WAIT);
    assert_null(loop->timeEventHead);
}

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

/* Memory as it may come: not empty. */
static void litter(void)
{
    enum { BLOCKS = 32, STEP = 16 };
    void *blocks[BLOCKS];

    for (int i = 0; i < BLOCKS; i++)
        if ((blocks[i] = malloc((size_t)(i + 1) * STEP)) != NULL)
            memset(blocks[i], 0xff, (size_t)(i + 1) * STEP);
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

static int descriptors; /* open before the test */

static int set_up(void **state)
{
    (void)state;
    trace[0] = '\0';
    clock_stopped = false;
    descriptors = open_descriptors();
    litter();
    loop = aeCreateEventLoop(256);
    return loop == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    aeDeleteEventLoop(loop);
    assert_int_equal(open_descriptors(), descriptors);
    return 0;
}

/* ------------------------------------------------------------------------ descriptors */

static void test_names_its_back_end(void **state)
{
    const char *name = aeGetApiName();

    (void)state;
    assert_true(!strcmp(name, "epoll") || !strcmp(name, "kqueue") || !strcmp(name, "poll") ||
                !strcmp(name, "select"));
}

static void test_reports_readable_until_it_is_read(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    assert_int_equal(aeProcessEvents(loop, LOOK), 0);
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("rara");
    swallow(p.ours);
    assert_int_equal(aeProcessEvents(loop, LOOK), 0);
    assert_trace("");
    close_pair(p);
}

static void test_reports_writable(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    watch(p.ours, AE_WRITABLE, &a);
    poke(p.theirs); /* also readable, which nobody asked about */
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("wa");
    close_pair(p);
}

static void test_reads_before_it_writes(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_WRITABLE, on_writable, &a), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_READABLE, on_readable, &a), AE_OK);
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1); /* one descriptor, one event */
    assert_trace("rawa");
    close_pair(p);
}

static void test_writes_first_behind_a_barrier(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_READABLE, on_readable, &a), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_WRITABLE | AE_BARRIER, on_writable, &a),
                     AE_OK);
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("wara");
    aeDeleteFileEvent(loop, p.ours, AE_WRITABLE);
    assert_int_equal(aeGetFileEvents(loop, p.ours), AE_READABLE);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("ra");
    close_pair(p);
}

static void test_keeps_a_barrier_as_long_as_it_writes(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_READABLE, on_readable, &a), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_WRITABLE, on_writable, &a), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_BARRIER, NULL, &a), AE_OK);
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("wara");
    aeDeleteFileEvent(loop, p.ours, AE_READABLE);
    assert_int_equal(aeGetFileEvents(loop, p.ours), AE_WRITABLE | AE_BARRIER);
    close_pair(p);
}

static void test_calls_one_function_once(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    watch(p.ours, AE_READABLE | AE_WRITABLE, &a);
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("*a");
    close_pair(p);
}

static void test_tells_what_is_watched(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"}, b = {.name = "b"};

    (void)state;
    assert_int_equal(aeGetFileEvents(loop, p.ours), AE_NONE);
    assert_null(aeGetFileClientData(loop, p.ours));
    watch(p.ours, AE_READABLE, &a);
    assert_int_equal(aeGetFileEvents(loop, p.ours), AE_READABLE);
    assert_ptr_equal(aeGetFileClientData(loop, p.ours), &a);
    watch(p.ours, AE_WRITABLE, &b);
    assert_int_equal(aeGetFileEvents(loop, p.ours), AE_READABLE | AE_WRITABLE);
    assert_ptr_equal(aeGetFileClientData(loop, p.ours), &b);
    assert_int_equal(loop->maxfd, p.ours);
    aeDeleteFileEvent(loop, p.ours, AE_READABLE);
    assert_int_equal(aeGetFileEvents(loop, p.ours), AE_WRITABLE);
    aeDeleteFileEvent(loop, p.ours, AE_WRITABLE);
    assert_int_equal(aeGetFileEvents(loop, p.ours), AE_NONE);
    assert_int_equal(loop->maxfd, -1);
    aeDeleteFileEvent(loop, p.ours, AE_WRITABLE); /* nothing there: nothing happens */
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 0);
    close_pair(p);
}

static void test_refuses_what_is_out_of_range(void **state)
{
    struct actor a = {.name = "a"};

    (void)state;
    errno = 0;
    assert_int_equal(aeCreateFileEvent(loop, 256, AE_READABLE, on_file, &a), AE_ERR);
    assert_int_equal(errno, ERANGE);
    errno = 0;
    assert_int_equal(aeCreateFileEvent(loop, -1, AE_READABLE, on_file, &a), AE_ERR);
    assert_int_equal(errno, ERANGE);
    assert_int_equal(aeCreateFileEvent(loop, 0, AE_NONE, on_file, &a), AE_ERR);
    assert_int_equal(aeCreateFileEvent(loop, 255, AE_READABLE, on_file, &a), AE_ERR);
    assert_int_equal(errno, EBADF);
    static const int strangers[] = {-1, 256, INT_MIN, INT_MAX};
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        assert_int_equal(aeGetFileEvents(loop, strangers[i]), AE_NONE);
        assert_null(aeGetFileClientData(loop, strangers[i]));
        aeDeleteFileEvent(loop, strangers[i], AE_READABLE);
    }
    assert_int_equal(loop->maxfd, -1);
    assert_null(aeCreateEventLoop(0));
    assert_null(aeCreateEventLoop(-1));
}

/* Nothing of a loop is handed down to programs, and none that fails to start leaves anything.
 */
static void test_keeps_its_descriptors_to_itself(void **state)
{
    const int before = open_descriptors();
    bool was_open[256];

    (void)state;
    for (int fd = 0; fd < 256; fd++)
        was_open[fd] = fcntl(fd, F_GETFD) != -1;
    aeEventLoop *another = aeCreateEventLoop(10);
    assert_non_null(another);
    for (int fd = 0; fd < 256; fd++)
        if (!was_open[fd] && fcntl(fd, F_GETFD) != -1)
            assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    aeDeleteEventLoop(another);
    assert_null(aeCreateEventLoop(0));
    assert_int_equal(open_descriptors(), before);
}

/* Neither what is no longer watched, nor urgent data, ends a sleep. */
static void test_sleeps_through_what_is_not_watched(void **state)
{
    struct pair p = open_tcp_pair(), q = open_pair();
    struct actor a = {.name = "a", .again = AE_NOMORE}, b = {.name = "b"};

    (void)state;
    watch(p.ours, AE_READABLE | AE_WRITABLE, &b);
    aeDeleteFileEvent(loop, p.ours, AE_WRITABLE);
    watch(q.ours, AE_READABLE | AE_WRITABLE, &b);
    aeDeleteFileEvent(loop, q.ours, AE_READABLE | AE_WRITABLE);
    poke(q.theirs);
    assert_int_equal(send(p.theirs, "!", 1, MSG_OOB), 1);
    start_timer(20, &a);
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 1);
    assert_trace("tafa");
    close_pair(p);
    close_pair(q);
}

/* What a peer that is gone looks like through every mask. */
static void expect_hang_up(int fd, int mask)
{
    struct actor a = {.name = "a"};

    watch(fd, mask, &a);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace(mask == AE_READABLE ? "ra" : mask == AE_WRITABLE ? "wa" : "*a");
    aeDeleteFileEvent(loop, fd, mask);
}

static void test_reports_a_closed_peer(void **state)
{
    (void)state;
    for (int mask = AE_READABLE; mask <= (AE_READABLE | AE_WRITABLE); mask++) {
        struct pair p = open_pair();

        close(p.theirs);
        expect_hang_up(p.ours, mask);
        close(p.ours);
    }
}

static void test_reports_a_closed_pipe(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    close(fds[1]);
    expect_hang_up(fds[0], AE_READABLE);
    close(fds[0]);

    char block[4096] = {0};

    assert_int_equal(pipe(fds), 0);
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    while (write(fds[1], block, sizeof block) > 0)
        ; /* a full pipe is not writable, but a broken one is */
    struct actor a = {.name = "a"};
    watch(fds[1], AE_WRITABLE, &a);
    assert_int_equal(aeProcessEvents(loop, LOOK), 0);
    aeDeleteFileEvent(loop, fds[1], AE_WRITABLE);
    close(fds[0]);
    expect_hang_up(fds[1], AE_WRITABLE);
    if (strcmp(aeGetApiName(), "kqueue") != 0) /* which knows pipes' directions */
        expect_hang_up(fds[1], AE_READABLE);
    close(fds[1]);
}

static void test_reports_a_reset(void **state)
{
    (void)state;
    for (int mask = AE_READABLE; mask <= (AE_READABLE | AE_WRITABLE); mask++) {
        struct pair p = open_tcp_pair();
        struct linger reset = {.l_onoff = 1};

        setsockopt(p.theirs, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(p.theirs);
        assert_int_equal(aeWait(p.ours, AE_READABLE, TOO_LONG_MS), AE_READABLE);
        expect_hang_up(p.ours, mask);
        close(p.ours);
    }
}

static void test_reports_half_a_close(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    shutdown(p.theirs, SHUT_WR);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("ra");
    close_pair(p);
}

static void test_finds_the_rest_when_some_go(void **state)
{
    struct pair p = open_pair(), q = open_pair(), s = open_pair();
    struct actor a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c"};

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &b);
    watch(s.ours, AE_READABLE, &c);
    poke(p.theirs);
    poke(q.theirs);
    poke(s.theirs);
    aeDeleteFileEvent(loop, p.ours, AE_READABLE);
    assert_int_equal(aeProcessEvents(loop, LOOK), 2);
    trace[0] = '\0';
    aeDeleteFileEvent(loop, s.ours, AE_READABLE);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("rb");
    watch(s.ours, AE_READABLE, &c);
    aeDeleteFileEvent(loop, q.ours, AE_READABLE);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("rc");
    close_pair(p);
    close_pair(q);
    close_pair(s);
}

static void close_without_delete(int mask, bool highest)
{
    struct pair first = open_pair(), second = open_pair();
    struct pair p = highest ? second : first, q = highest ? first : second;
    struct actor a = {.name = "a"}, b = {.name = "b"};

    watch(p.ours, mask, &a);
    watch(q.ours, AE_READABLE, &b);
    poke(q.theirs);
    close(p.ours); /* wrong: the event is still there; whether it is told of is left open */
    for (int lap = 0; lap < 2; lap++) /* the first may be spent on finding out */
        aeProcessEvents(loop, LOOK);
    assert_non_null(strstr(trace, "rb"));
    aeDeleteFileEvent(loop, p.ours, mask);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    close(p.theirs);
    close_pair(q);
}

static void test_survives_a_close_without_delete(void **state)
{
    (void)state;
    for (int highest = 0; highest < 2; highest++) {
        trace[0] = '\0';
        close_without_delete(AE_READABLE, highest);
        trace[0] = '\0';
        close_without_delete(AE_WRITABLE, highest);
    }
}

static void test_serves_beyond_a_lowered_limit(void **state)
{
    struct pair p = open_pair(), q = open_pair(), r = open_pair();
    struct actor a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c"};
    struct rlimit before, limit;

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &b);
    watch(r.ours, AE_READABLE, &c);
    poke(q.theirs);
    getrlimit(RLIMIT_NOFILE, &before);
    limit = (struct rlimit){.rlim_cur = 2, .rlim_max = before.rlim_max};
    for (int wait = 0; wait < 2; wait++) {
        trace[0] = '\0';
        poke(q.theirs);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        int called = aeProcessEvents(loop, wait ? AE_FILE_EVENTS : LOOK);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(called, 1);
        assert_string_equal(trace, "rb");
    }
    close_pair(p);
    close_pair(q);
    close_pair(r);
}

static int count_called;

static void on_counted(aeEventLoop *l, int fd, void *data, int mask)
{
    (void)l, (void)data, (void)mask;
    swallow(fd);
    count_called++;
}

static void test_holds_thousands(void **state)
{
    enum { WANTED = 4000 };
    static struct pair pairs[WANTED];
    struct rlimit files;
    int n = 0;

    (void)state;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    assert_int_equal(aeResizeSetSize(loop, 2 * WANTED + 256), AE_OK);
    for (int fds[2]; n < WANTED && socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0; n++) {
        pairs[n] = (struct pair){fds[0], fds[1]};
        errno = 0;
        if (aeCreateFileEvent(loop, fds[0], AE_READABLE, on_counted, NULL) == AE_OK)
            continue;
        assert_string_equal(aeGetApiName(), "select");
        assert_int_equal(errno, ERANGE);
        assert_true(fds[0] >= FD_SETSIZE);
        errno = 0; /* nor the very first beyond, open or not */
        assert_int_equal(aeCreateFileEvent(loop, FD_SETSIZE, AE_READABLE, on_file, NULL),
                         AE_ERR);
        assert_int_equal(errno, ERANGE);
        close_pair(pairs[n]);
        break;
    }
    assert_true(n > 400);
    for (int i = 0; i < n; i++)
        poke(pairs[i].theirs);
    count_called = 0;
    while (count_called < n) { /* epoll's takes some at a time */
        int before = count_called, more = aeProcessEvents(loop, LOOK);

        assert_true(more > 0);
        assert_int_equal(count_called, before + more);
    }
    assert_int_equal(aeProcessEvents(loop, LOOK), 0);
    for (int i = 0; i < n; i += 7) {
        poke(pairs[i].theirs);
        assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    }
    for (int i = 0; i < n; i++)
        close_pair(pairs[(i + n / 2) % n]);
    assert_int_equal(loop->maxfd, -1);
}

/* ------------------------------------------------------------------------ inside callbacks */

static void delete_other(struct actor *self, int fd, int mask)
{
    (void)fd, (void)mask;
    aeDeleteFileEvent(loop, self->other->fd, AE_READABLE | AE_WRITABLE);
}

static void test_spares_whom_another_deleted(void **state)
{
    struct pair p = open_pair(), q = open_pair();
    struct actor a = {.name = "a", .act = delete_other, .fd = p.ours};
    struct actor b = {.name = "b", .act = delete_other, .fd = q.ours, .other = &a};

    (void)state;
    a.other = &b;
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &b);
    poke(p.theirs);
    poke(q.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_int_equal(strlen(trace), 2); /* whoever was first */
    close_pair(p);
    close_pair(q);
}

static void watch_other_again(struct actor *self, int fd, int mask)
{
    (void)fd, (void)mask;
    watch(self->other->fd, AE_READABLE, self->other);
}

static void test_calls_whom_another_watches_again(void **state)
{
    struct pair p = open_pair(), q = open_pair();
    struct actor a = {.name = "a", .act = watch_other_again, .fd = p.ours},
                 b = {.name = "b", .act = watch_other_again, .fd = q.ours, .other = &a};

    (void)state;
    a.other = &b;
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &b);
    poke(p.theirs);
    poke(q.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 2); /* in this lap: it is not new */
    close_pair(p);
    close_pair(q);
}

static void delete_itself(struct actor *self, int fd, int mask)
{
    (void)self, (void)mask;
    aeDeleteFileEvent(loop, fd, AE_READABLE | AE_WRITABLE);
}

static void test_does_not_write_once_deleted(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a", .act = delete_itself};

    (void)state;
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_READABLE, on_readable, &a), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_WRITABLE, on_writable, &a), AE_OK);
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("ra");
    close_pair(p);
}

/* Closes the other's descriptor and gives its number to a new, silent one, watched by 'n'. */
static struct actor newcomer = {.name = "n"};
static int newcomers_peer;

static void replace(int fd)
{
    struct pair fresh = open_pair();

    aeDeleteFileEvent(loop, fd, AE_READABLE | AE_WRITABLE);
    close(fd);
    assert_int_equal(dup2(fresh.ours, fd), fd);
    close(fresh.ours);
    newcomers_peer = fresh.theirs;
    assert_int_equal(aeCreateFileEvent(loop, fd, AE_READABLE, on_readable, &newcomer), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, fd, AE_WRITABLE, on_writable, &newcomer), AE_OK);
}

static void replace_other(struct actor *self, int fd, int mask)
{
    (void)fd, (void)mask;
    replace(self->other->fd);
    self->act = self->other->act = NULL;
}

static void replace_itself(struct actor *self, int fd, int mask)
{
    (void)self, (void)mask;
    replace(fd);
}

static void test_keeps_old_news_from_a_newcomer(void **state)
{
    struct pair p = open_pair(), q = open_pair();
    struct actor a = {.name = "a", .act = replace_other, .fd = p.ours};
    struct actor b = {.name = "a", .act = replace_other, .fd = q.ours, .other = &a};

    (void)state;
    a.other = &b;
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &b);
    poke(p.theirs);
    poke(q.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("ra"); /* neither reading from the newcomer, nor writing to it yet */
    assert_int_equal(aeProcessEvents(loop, LOOK), 2);
    assert_true(strstr(trace, "wn") != NULL && strstr(trace, "rn") == NULL);
    trace[0] = '\0';
    aeDeleteFileEvent(loop, p.ours, AE_WRITABLE);
    aeDeleteFileEvent(loop, q.ours, AE_WRITABLE);
    poke(newcomers_peer);
    assert_true(aeProcessEvents(loop, LOOK) >= 1);
    assert_true(strstr(trace, "rn") != NULL);
    close(newcomers_peer);
    close_pair(p);
    close_pair(q);
}

static void test_keeps_old_news_from_its_own_successor(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a", .act = replace_itself};

    (void)state;
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_READABLE, on_readable, &a), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_WRITABLE, on_writable, &a), AE_OK);
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("ra");
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("wn");
    close(newcomers_peer);
    close_pair(p);
}

static void swallow_and_nest(struct actor *self, int fd, int mask)
{
    (void)self, (void)mask;
    swallow(fd);
    aeProcessEvents(loop, AE_FILE_EVENTS | AE_DONT_WAIT);
}

static void test_nests_without_telling_twice(void **state)
{
    struct pair p = open_pair(), q = open_pair(), s = open_pair();
    struct actor a = {.name = "a", .act = swallow_and_nest};

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &a);
    watch(s.ours, AE_READABLE, &a);
    poke(p.theirs);
    poke(q.theirs);
    poke(s.theirs);
    while (aeProcessEvents(loop, LOOK) > 0)
        ;
    assert_trace("rarara"); /* swallow would have failed on old news */
    close_pair(p);
    close_pair(q);
    close_pair(s);
}

static void test_nests_between_reading_and_writing(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a", .act = swallow_and_nest};

    (void)state;
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_READABLE, on_readable, &a), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_WRITABLE, on_writable, &a), AE_OK);
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("rawa"); /* the inner lap has written, so the outer does not */
    close_pair(p);
}

/* ------------------------------------------------------------------------ sizes */

static void grow(struct actor *self, int fd, int mask)
{
    (void)fd, (void)mask;
    assert_int_equal(aeResizeSetSize(loop, self->again), AE_OK);
}

static void test_resizes(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    assert_int_equal(aeGetSetSize(loop), 256);
    watch(p.ours, AE_READABLE, &a);
    poke(p.theirs);
    errno = 0;
    assert_int_equal(aeResizeSetSize(loop, p.ours), AE_ERR);
    assert_int_equal(errno, ERANGE);
    assert_int_equal(aeResizeSetSize(loop, 0), AE_ERR);
    assert_int_equal(aeGetSetSize(loop), 256);
    assert_int_equal(aeResizeSetSize(loop, p.ours + 1), AE_OK);
    assert_int_equal(aeGetSetSize(loop), p.ours + 1);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_int_equal(aeResizeSetSize(loop, 100000), AE_OK);
    assert_int_equal(aeGetSetSize(loop), 100000);
    assert_int_equal(aeGetFileEvents(loop, 99999), AE_NONE);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_int_equal(aeResizeSetSize(loop, 1000), AE_OK);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("rarara");
    close_pair(p);
}

static void test_grows_in_a_callback(void **state)
{
    struct pair p = open_pair(), q = open_pair();
    struct actor a = {.name = "a", .act = grow, .again = 50000};

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &a);
    poke(p.theirs);
    poke(q.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 2);
    assert_trace("rara");
    close_pair(p);
    close_pair(q);
}

static void delete_other_and_shrink(struct actor *self, int fd, int mask)
{
    (void)mask;
    aeDeleteFileEvent(loop, self->other->fd, AE_READABLE);
    assert_int_equal(aeResizeSetSize(loop, fd + 1), AE_OK);
}

static void test_shrinks_in_a_callback(void **state)
{
    struct pair p = open_pair(), q = open_pair();
    struct actor a = {.name = "a", .act = delete_other_and_shrink, .fd = p.ours};
    struct actor b = {.name = "b", .act = delete_other_and_shrink, .fd = q.ours, .other = &a};

    (void)state;
    a.other = &b;
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &b);
    poke(p.theirs);
    poke(q.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    close_pair(p);
    close_pair(q);
}

static long resident_pages(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long pages = -1;

    if (f == NULL)
        return -1;
    if (fscanf(f, "%*s %ld", &pages) != 1)
        pages = -1;
    fclose(f);
    return pages;
}

static void test_takes_memory_only_for_what_is_used(void **state)
{
    enum { DESCRIPTORS = 1000000 }; /* about 50 MB, if they were written to */
    long before = resident_pages(), page = sysconf(_SC_PAGESIZE);

    (void)state;
    if (before == -1)
        skip();

    aeEventLoop *large = aeCreateEventLoop(DESCRIPTORS);

    assert_non_null(large);
    assert_true((resident_pages() - before) * page < 10 * DESCRIPTORS);
    aeDeleteEventLoop(large);
}

/* ------------------------------------------------------------------------ laps */

static int laps;

static void before_sleep(aeEventLoop *l)
{
    assert_ptr_equal(l, loop);
    laps++;
    note("B", ".");
}

static void after_sleep(aeEventLoop *l)
{
    assert_ptr_equal(l, loop);
    note("A", ".");
}

static void stop(struct actor *self, int fd, int mask)
{
    (void)self, (void)fd, (void)mask;
    aeStop(loop);
}

static void test_calls_hooks_around_the_sleep(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"}, t = {.name = "t", .act = stop, .again = AE_NOMORE};

    (void)state;
    aeSetBeforeSleepProc(loop, before_sleep);
    aeSetAfterSleepProc(loop, after_sleep);
    watch(p.ours, AE_READABLE, &a);
    poke(p.theirs);
    aeProcessEvents(loop, LOOK);
    assert_trace("ra");
    aeProcessEvents(loop, LOOK | AE_CALL_AFTER_SLEEP);
    assert_trace("A.ra");
    aeProcessEvents(loop, LOOK | AE_CALL_BEFORE_SLEEP);
    assert_trace("B.ra");
    start_timer(0, &t);
    aeMain(loop);
    assert_trace("B.A.rattft");
    aeSetBeforeSleepProc(loop, NULL);
    aeSetAfterSleepProc(loop, NULL);
    start_timer(0, &t);
    aeMain(loop);
    assert_trace("rattft");
    close_pair(p);
}

static void stop_before_sleep(aeEventLoop *l)
{
    aeStop(l);
}

static void test_stops_from_a_callback_or_a_hook(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a", .act = stop};

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    poke(p.theirs);
    aeMain(loop);
    assert_trace("ra");
    swallow(p.ours);
    aeSetBeforeSleepProc(loop, stop_before_sleep);
    aeMain(loop); /* nothing will happen: it must not go to sleep */
    assert_trace("");
    close_pair(p);
}

static void test_does_not_wait_if_told_so(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};
    double start = now_ms();

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    start_timer(TOO_LONG_MS, &a);
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS | AE_DONT_WAIT), 0);
    assert_int_equal(aeProcessEvents(loop, AE_FILE_EVENTS | AE_DONT_WAIT), 0);
    assert_int_equal(aeProcessEvents(loop, AE_TIME_EVENTS | AE_DONT_WAIT), 0);
    assert_int_equal(aeProcessEvents(loop, 0), 0);
    aeSetDontWait(loop, 1);
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 0);
    aeDeleteFileEvent(loop, p.ours, AE_READABLE);
    aeSetDontWait(loop, 0);
    assert_int_equal(aeProcessEvents(loop, AE_FILE_EVENTS), 0); /* would be for ever */
    assert_true(now_ms() - start < TOO_LONG_MS);
    assert_trace("");
    close_pair(p);
    drop_timers();
}

static void test_does_only_what_flags_say(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"}, t = {.name = "t", .again = 0};

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    poke(p.theirs);
    start_timer(0, &t);
    assert_int_equal(aeProcessEvents(loop, AE_FILE_EVENTS), 1);
    assert_trace("ra");
    assert_int_equal(aeProcessEvents(loop, AE_TIME_EVENTS), 1);
    assert_trace("tt");
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 2);
    assert_trace("ratt");
    close_pair(p);
    drop_timers();
}

static void ignore_signal(int number)
{
    (void)number;
}

static void test_takes_a_signal_for_nothing_fired(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};
    struct sigaction action = {.sa_handler = ignore_signal}, old;
    struct itimerval soon = {.it_value.tv_usec = 10000, .it_interval.tv_usec = 10000};
    struct itimerval never = {0};
    double start = now_ms();

    (void)state;
    sigaction(SIGALRM, &action, &old);
    setitimer(ITIMER_REAL, &soon, NULL);
    watch(p.ours, AE_READABLE | AE_WRITABLE, &a);
    aeDeleteFileEvent(loop, p.ours, AE_WRITABLE);
    start_timer(TOO_LONG_MS, &a);
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 0);
    assert_true(now_ms() - start >= 9); /* but not before it came */
    assert_int_equal(aeWait(p.ours, AE_READABLE, 1LL << 32), AE_ERR);
    assert_int_equal(errno, EINTR);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    assert_true(now_ms() - start < TOO_LONG_MS);
    assert_trace("");
    close_pair(p);
    drop_timers();
}

static void test_waits_for_one_descriptor(void **state)
{
    struct pair p = open_pair();
    double start = now_ms();

    (void)state;
    assert_int_equal(aeWait(p.ours, AE_READABLE, 0), AE_NONE);
    assert_int_equal(aeWait(p.ours, AE_READABLE, 20), AE_NONE);
    assert_true(now_ms() - start >= 20);
    assert_int_equal(aeWait(p.ours, AE_WRITABLE, TOO_LONG_MS), AE_WRITABLE);
    assert_int_equal(aeWait(p.ours, AE_READABLE | AE_WRITABLE, TOO_LONG_MS), AE_WRITABLE);
    poke(p.theirs);
    assert_int_equal(aeWait(p.ours, AE_READABLE, -1), AE_READABLE);
    assert_int_equal(aeWait(p.ours, AE_READABLE | AE_WRITABLE, 0), AE_READABLE | AE_WRITABLE);
    swallow(p.ours);
    close(p.theirs);
    assert_int_equal(aeWait(p.ours, AE_READABLE, LLONG_MAX), AE_READABLE);
    assert_int_equal(aeWait(p.ours, AE_WRITABLE, TOO_LONG_MS), AE_WRITABLE);
    close(p.ours);
    errno = 0;
    assert_int_equal(aeWait(p.ours, AE_READABLE, TOO_LONG_MS), AE_ERR);
    assert_int_equal(errno, EBADF);
}

static void fill(int fd)
{
    char bytes[4096] = {0};

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (write(fd, bytes, sizeof bytes) > 0)
        ;
}

static void test_waits_for_nothing_else(void **state)
{
    struct pair p = open_pair();

    (void)state;
    fill(p.ours);
    poke(p.theirs);
    double start = now_ms();
    assert_int_equal(aeWait(p.ours, AE_WRITABLE, 20), AE_NONE); /* readable as it is */
    assert_true(now_ms() - start >= 20);
    close_pair(p);
}

/* Either end of a pipe whose other end is gone, even when it holds nothing, or no more. */
static void test_waits_for_a_hang_up(void **state)
{
    const int both = AE_READABLE | AE_WRITABLE;
    int empty[2], full[2];

    (void)state;
    assert_int_equal(pipe(empty), 0);
    assert_int_equal(pipe(full), 0);
    fill(full[1]);
    close(empty[1]);
    close(full[0]);
    assert_int_equal(aeWait(empty[0], both, TOO_LONG_MS), both);
    assert_int_equal(aeWait(full[1], both, TOO_LONG_MS), both);
    close(empty[0]);
    close(full[1]);
}

/* ------------------------------------------------------------------------ timers */

static void test_calls_timers_in_order(void **state)
{
    struct actor a = {.name = "a", .again = AE_NOMORE}, b = {.name = "b", .again = AE_NOMORE},
                 c = {.name = "c", .act = stop, .again = AE_NOMORE},
                 d = {.name = "d", .again = AE_NOMORE};
    double start = now_ms();

    (void)state;
    long long first = start_timer(15, &c);
    assert_true(start_timer(5, &a) > first);
    start_timer(10, &b);
    start_timer(5, &d);
    start_timer(-1, &a); /* the past is now */
    aeMain(loop);
    assert_true(now_ms() - start >= 15);
    assert_trace("tafatafatdfdtbfbtcfc");

    clock_stopped = true; /* then no delay and a negative one are the same time */
    start_timer(0, &a);
    start_timer(-1000, &b);
    aeProcessEvents(loop, LOOK);
    if (OUR_CLOCK)
        assert_trace("tafatbfb");
}

static void test_never_calls_a_timer_early(void **state)
{
    (void)state;
    for (int ms = 1; ms <= 20; ms++) {
        struct actor a = {.name = "a", .act = stop, .again = AE_NOMORE};
        double start = now_ms();

        start_timer(ms, &a);
        aeMain(loop);
        assert_true(now_ms() - start >= ms);
        assert_trace("tafa");
    }
}

static void test_sleeps_until_the_timer_is_due(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a", .act = stop, .again = AE_NOMORE};

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    aeSetBeforeSleepProc(loop, before_sleep);
    laps = 0;
    start_timer(30, &a);
    aeMain(loop);
    assert_true(laps <= 3); /* rounding down would spin through the last millisecond */
    close_pair(p);

    double best = TOO_LONG_MS; /* of many, as the machine may have other things to do */
    for (int i = 0; i < 20; i++) {
        double start = now_ms();
        start_timer(2, &a);
        while (aeProcessEvents(loop, AE_TIME_EVENTS) == 0)
            ;
        double took = now_ms() - start;
        best = took < best ? took : best;
        trace[0] = '\0';
    }
    assert_true(best < 6);
}

static void stop_at_third(struct actor *self, int fd, int mask)
{
    (void)fd, (void)mask;
    if (++self->fd == 3) {
        self->again = AE_NOMORE;
        aeStop(loop);
    }
}

static void test_repeats_as_the_callback_says(void **state)
{
    struct actor a = {.name = "a", .act = stop_at_third, .again = 10};
    double start = now_ms();

    (void)state;
    start_timer(5, &a);
    aeMain(loop);
    assert_true(now_ms() - start >= 25);
    assert_trace("tatatafa");
    assert_null(loop->timeEventHead);
}

static double called_at;

static void dawdle(struct actor *self, int fd, int mask)
{
    const struct timespec time = {.tv_nsec = 20 * 1000000};

    (void)self, (void)fd, (void)mask;
    called_at = now_ms();
    nanosleep(&time, NULL);
}

static void test_counts_the_pause_from_the_return(void **state)
{
    struct actor a = {.name = "a", .act = dawdle, .again = 10};
    double start = now_ms();

    (void)state;
    start_timer(0, &a);
    for (int calls = 0; calls < 2;)
        calls += aeProcessEvents(loop, AE_TIME_EVENTS);
    assert_true(called_at - start >= 30);
    drop_timers();
}

static void create_timer(struct actor *self, int fd, int mask)
{
    (void)fd, (void)mask;
    start_timer(0, self);
}

static void test_leaves_new_timers_to_the_next_lap(void **state)
{
    struct actor a = {.name = "a", .act = create_timer, .again = AE_NOMORE};
    struct actor b = {.name = "b", .again = 0};

    (void)state;
    start_timer(0, &a);
    start_timer(0, &b);
    for (int lap = 0; lap < 3; lap++) {
        assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 2);
        assert_true(strcmp(trace, "tafatb") == 0 || strcmp(trace, "tbtafa") == 0);
        trace[0] = '\0';
    }
    drop_timers();
}

static void test_ends_a_lap_though_time_stands_still(void **state)
{
    struct actor a = {.name = "a", .act = create_timer, .again = AE_NOMORE};
    struct actor b = {.name = "b", .again = 0}, c = {.name = "c", .again = -5};

    (void)state;
    if (!OUR_CLOCK)
        skip();
    clock_stopped = true;
    start_timer(0, &b);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("tb");
    clock_stopped = false;
    drop_timers();
    assert_trace("fb");
    clock_stopped = true;
    start_timer(0, &a);
    start_timer(0, &b);
    start_timer(0, &c);
    assert_int_equal(aeProcessEvents(loop, LOOK), 3);
    clock_stopped = false;
    assert_trace("tafatbtc"); /* of the same time: in the order of creation */
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 3);
    assert_trace("tafatbtc");
    drop_timers();
}

static void test_asks_for_the_time_only_if_it_must(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    if (!OUR_CLOCK)
        skip();
    watch(p.ours, AE_READABLE, &a);
    poke(p.theirs);
    clock_calls = 0;
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 1);
    assert_int_equal(clock_calls, 0);
    start_timer(TOO_LONG_MS, &a);
    assert_true(clock_calls > 0); /* of the clock that nobody sets */
    clock_calls = 0;
    assert_int_equal(aeProcessEvents(loop, AE_FILE_EVENTS), 1);
    assert_int_equal(clock_calls, 0);
    close_pair(p);
    drop_timers();
}

static void delete_timer(struct actor *self, int fd, int mask)
{
    (void)fd, (void)mask;
    assert_int_equal(aeDeleteTimeEvent(loop, self->other->id), AE_OK);
    assert_int_equal(aeDeleteTimeEvent(loop, self->other->id), AE_ERR);
}

static void test_deletes_timers(void **state)
{
    struct actor a = {.name = "a"};

    (void)state;
    a.id = start_timer(0, &a);
    errno = 0;
    assert_int_equal(aeDeleteTimeEvent(loop, a.id + 1), AE_ERR);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(aeDeleteTimeEvent(loop, AE_DELETED_EVENT_ID), AE_ERR);
    assert_int_equal(aeDeleteTimeEvent(loop, a.id), AE_OK);
    assert_int_equal(aeDeleteTimeEvent(loop, a.id), AE_ERR);
    assert_int_equal(aeDeleteTimeEvent(loop, AE_DELETED_EVENT_ID), AE_ERR);
    assert_trace(""); /* not inside aeDeleteTimeEvent */
    assert_int_equal(aeProcessEvents(loop, AE_TIME_EVENTS), 0);
    assert_trace("fa");
    assert_null(loop->timeEventHead);
}

static void test_lets_a_timer_delete_itself(void **state)
{
    struct actor a = {.name = "a", .act = delete_timer, .again = TOO_LONG_MS, .other = &a};

    (void)state;
    a.id = start_timer(0, &a);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_int_equal(aeProcessEvents(loop, LOOK), 0);
    assert_trace("tafa");
}

static void test_lets_a_timer_delete_another(void **state)
{
    struct actor b = {.name = "b", .again = AE_NOMORE};
    struct actor a = {.name = "a", .act = delete_timer, .again = AE_NOMORE, .other = &b};

    (void)state;
    start_timer(0, &a);
    b.id = start_timer(0, &b);
    while (loop->timeEventHead != NULL)
        aeProcessEvents(loop, LOOK);
    assert_true(strcmp(trace, "tafafb") == 0 || strcmp(trace, "tafbfa") == 0);
}

static void nest_timers(struct actor *self, int fd, int mask)
{
    (void)self, (void)fd, (void)mask;
    aeProcessEvents(loop, LOOK);
}

static void test_nests_timers(void **state)
{
    struct actor b = {.name = "b", .again = AE_NOMORE};
    struct actor a = {.name = "a", .act = nest_timers, .again = AE_NOMORE};

    (void)state;
    start_timer(0, &a);
    start_timer(0, &b);
    while (loop->timeEventHead != NULL)
        aeProcessEvents(loop, LOOK);
    assert_trace("tatbfbfa"); /* a timer under way is not called again */
}

static void create_refused(aeEventLoop *l, void *data)
{
    note("f", ((struct actor *)data)->name);
    errno = 0;
    assert_int_equal(aeCreateTimeEvent(l, 0, on_time, data, create_refused), AE_ERR);
    assert_int_not_equal(errno, 0);
}

static void test_finalizes_what_is_left(void **state)
{
    struct actor a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c"};
    long long id;

    aeDeleteEventLoop(loop);
    assert_int_equal(set_up(state), 0);
    start_timer(TOO_LONG_MS, &a);
    id = start_timer(LLONG_MAX, &b);
    assert_int_equal(aeProcessEvents(loop, LOOK), 0); /* no overflow: not due for long */
    assert_true(aeCreateTimeEvent(loop, TOO_LONG_MS + 1, on_time, &c, create_refused) > id);
    assert_true(aeCreateTimeEvent(loop, TOO_LONG_MS, on_time, NULL, NULL) > id);
    assert_int_equal(aeDeleteTimeEvent(loop, id), AE_OK);
    aeDeleteEventLoop(loop);
    assert_trace("fbfafc");
    assert_int_equal(set_up(state), 0);
}

static int on_counted_time(aeEventLoop *l, long long id, void *data)
{
    (void)l, (void)id, (void)data;
    count_called++;
    return AE_NOMORE;
}

static void test_runs_ten_thousand_timers(void **state)
{
    enum { TIMERS = 10000 };
    static long long ids[TIMERS];

    (void)state;
    count_called = 0;
    for (int i = 0; i < TIMERS; i++)
        ids[i] = aeCreateTimeEvent(loop, i % 30, on_counted_time, NULL, NULL);
    for (int i = 0; i < TIMERS; i += 2)
        if (aeDeleteTimeEvent(loop, ids[i]) == AE_ERR)
            fail();
    while (loop->timeEventHead != NULL)
        aeProcessEvents(loop, AE_ALL_EVENTS);
    assert_int_equal(count_called, TIMERS / 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(names_its_back_end),
        TEST(reports_readable_until_it_is_read),
        TEST(reports_writable),
        TEST(reads_before_it_writes),
        TEST(writes_first_behind_a_barrier),
        TEST(keeps_a_barrier_as_long_as_it_writes),
        TEST(calls_one_function_once),
        TEST(tells_what_is_watched),
        TEST(refuses_what_is_out_of_range),
        TEST(keeps_its_descriptors_to_itself),
        TEST(sleeps_through_what_is_not_watched),
        TEST(reports_a_closed_peer),
        TEST(reports_a_closed_pipe),
        TEST(reports_a_reset),
        TEST(reports_half_a_close),
        TEST(finds_the_rest_when_some_go),
        TEST(survives_a_close_without_delete),
        TEST(serves_beyond_a_lowered_limit),
        TEST(holds_thousands),
        TEST(spares_whom_another_deleted),
        TEST(calls_whom_another_watches_again),
        TEST(does_not_write_once_deleted),
        TEST(keeps_old_news_from_a_newcomer),
        TEST(keeps_old_news_from_its_own_successor),
        TEST(nests_without_telling_twice),
        TEST(nests_between_reading_and_writing),
        TEST(resizes),
        TEST(grows_in_a_callback),
        TEST(shrinks_in_a_callback),
        TEST(takes_memory_only_for_what_is_used),
        TEST(calls_hooks_around_the_sleep),
        TEST(stops_from_a_callback_or_a_hook),
        TEST(does_not_wait_if_told_so),
        TEST(does_only_what_flags_say),
        TEST(takes_a_signal_for_nothing_fired),
        TEST(waits_for_one_descriptor),
        TEST(waits_for_nothing_else),
        TEST(waits_for_a_hang_up),
        TEST(calls_timers_in_order),
        TEST(never_calls_a_timer_early),
        TEST(sleeps_until_the_timer_is_due),
        TEST(repeats_as_the_callback_says),
        TEST(counts_the_pause_from_the_return),
        TEST(leaves_new_timers_to_the_next_lap),
        TEST(ends_a_lap_though_time_stands_still),
        TEST(asks_for_the_time_only_if_it_must),
        TEST(deletes_timers),
        TEST(lets_a_timer_delete_itself),
        TEST(lets_a_timer_delete_another),
        TEST(nests_timers),
        TEST(finalizes_what_is_left),
        TEST(runs_ten_thousand_timers),
    };

    return cmocka_run_group_tests_name(aeGetApiName(), tests, NULL, NULL);
}
