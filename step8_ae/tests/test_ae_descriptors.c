/* test_ae_descriptors.c - what ae.h promises about descriptors, for whichever back-end is
 * linked in.
 */
#include "actors.h"

#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/select.h>

/* For most tests: three connected pairs, and an actor for each. */
static struct pair p, q, r;
static struct actor a, b, c;

static int set_up_pairs(void **state)
{
    set_up(state);
    p = open_pair();
    q = open_pair();
    r = open_pair();
    a = (struct actor){.name = "a", .fd = p.ours, .other = &b};
    b = (struct actor){.name = "b", .fd = q.ours, .other = &a};
    c = (struct actor){.name = "c"};
    return 0;
}

static int tear_down_pairs(void **state)
{
    close_pair(p);
    close_pair(q);
    close_pair(r);
    return tear_down(state);
}

#define PAIRS(name) cmocka_unit_test_setup_teardown(test_##name, set_up_pairs, tear_down_pairs)

/* One iteration that does not wait handles n events, which are these. */
static void expect(int n, const char *events)
{
    assert_int_equal(aeProcessEvents(loop, LOOK), n);
    assert_trace(events);
}

/* Watches fd for both, with a function for each. */
static void watch_apart(int fd, struct actor *actor)
{
    assert_int_equal(aeCreateFileEvent(loop, fd, AE_READABLE, on_readable, actor), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, fd, AE_WRITABLE, on_writable, actor), AE_OK);
}

/* Watches two descriptors, which are readable. */
static void watch_two(void)
{
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &b);
    poke(p.theirs);
    poke(q.theirs);
}

static void expect_failure(int fd, int mask, int error)
{
    errno = 0;
    assert_int_equal(aeCreateFileEvent(loop, fd, mask, on_file, &a), AE_ERR);
    assert_int_equal(errno, error);
}

static void test_reports_readable_until_it_is_read(void **state)
{
    (void)state;
    watch(p.ours, AE_READABLE, &a);
    expect(0, "");
    poke(p.theirs);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    expect(1, "rara");
    swallow(p.ours);
    expect(0, "");
}

static void test_reports_writable(void **state)
{
    (void)state;
    watch(p.ours, AE_WRITABLE, &a);
    poke(p.theirs); /* also readable, which is not watched */
    expect(1, "wa");
}

static void test_reads_before_it_writes(void **state)
{
    (void)state;
    watch_apart(p.ours, &a);
    poke(p.theirs);
    expect(1, "rawa"); /* one descriptor, one event */
}

static void test_writes_first_behind_a_barrier(void **state)
{
    (void)state;
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_READABLE, on_readable, &a), AE_OK);
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_WRITABLE | AE_BARRIER, on_writable, &a),
                     AE_OK);
    poke(p.theirs);
    expect(1, "wara");
    aeDeleteFileEvent(loop, p.ours, AE_WRITABLE);
    assert_int_equal(aeGetFileEvents(loop, p.ours), AE_READABLE);
    expect(1, "ra");
}

static void test_keeps_a_barrier_while_writable_is_watched(void **state)
{
    (void)state;
    watch_apart(p.ours, &a);
    assert_int_equal(aeCreateFileEvent(loop, p.ours, AE_BARRIER, NULL, &a), AE_OK);
    poke(p.theirs);
    expect(1, "wara");
    aeDeleteFileEvent(loop, p.ours, AE_READABLE);
    assert_int_equal(aeGetFileEvents(loop, p.ours), AE_WRITABLE | AE_BARRIER);
}

static void test_calls_the_same_function_once(void **state)
{
    (void)state;
    watch(p.ours, AE_READABLE | AE_WRITABLE, &a);
    poke(p.theirs);
    expect(1, "*a");
}

static void test_returns_what_is_watched(void **state)
{
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
    expect(0, "");
}

static void test_fails_out_of_range(void **state)
{
    (void)state;
    expect_failure(256, AE_READABLE, ERANGE);
    expect_failure(-1, AE_READABLE, ERANGE);
    assert_int_equal(aeCreateFileEvent(loop, 0, AE_NONE, on_file, &a), AE_ERR);
    expect_failure(255, AE_READABLE, EBADF);
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

/* The sleep is not ended by what is no longer watched, or by urgent data. */
static void test_does_not_wake_for_what_is_not_watched(void **state)
{
    struct pair tcp = open_tcp_pair();

    (void)state;
    watch(tcp.ours, AE_READABLE | AE_WRITABLE, &b);
    aeDeleteFileEvent(loop, tcp.ours, AE_WRITABLE);
    watch(q.ours, AE_READABLE | AE_WRITABLE, &b);
    aeDeleteFileEvent(loop, q.ours, AE_READABLE | AE_WRITABLE);
    poke(q.theirs);
    assert_int_equal(send(tcp.theirs, "!", 1, MSG_OOB), 1);
    a.again = AE_NOMORE;
    start_timer(20, &a);
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 1);
    assert_trace("tafa");
    close_pair(tcp);
}

/* How a closed peer is reported to a watcher with this mask. */
static void expect_hang_up(int fd, int mask)
{
    watch(fd, mask, &a);
    expect(1, mask == AE_READABLE ? "ra" : mask == AE_WRITABLE ? "wa" : "*a");
    aeDeleteFileEvent(loop, fd, mask);
}

static void test_reports_a_closed_peer(void **state)
{
    (void)state;
    for (int mask = AE_READABLE; mask <= (AE_READABLE | AE_WRITABLE); mask++) {
        struct pair closed = open_pair();

        close(closed.theirs);
        expect_hang_up(closed.ours, mask);
        close(closed.ours);
    }
}

static void fill(int fd)
{
    char bytes[4096] = {0};

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (write(fd, bytes, sizeof bytes) > 0)
        ;
}

static void test_reports_a_closed_pipe(void **state)
{
    int empty[2], full[2];

    (void)state;
    assert_int_equal(pipe(empty) | pipe(full), 0);
    close(empty[1]);
    expect_hang_up(empty[0], AE_READABLE);
    close(empty[0]);
    fill(full[1]); /* a full pipe is not writable, but a broken one is */
    watch(full[1], AE_WRITABLE, &a);
    expect(0, "");
    aeDeleteFileEvent(loop, full[1], AE_WRITABLE);
    close(full[0]);
    expect_hang_up(full[1], AE_WRITABLE);
    if (strcmp(aeGetApiName(), "kqueue") != 0) /* it knows the direction of a pipe */
        expect_hang_up(full[1], AE_READABLE);
    close(full[1]);
}

static void test_reports_a_reset(void **state)
{
    (void)state;
    for (int mask = AE_READABLE; mask <= (AE_READABLE | AE_WRITABLE); mask++) {
        struct pair tcp = open_tcp_pair();
        struct linger reset = {.l_onoff = 1};

        setsockopt(tcp.theirs, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(tcp.theirs);
        assert_true(aeWait(tcp.ours, AE_READABLE, TOO_LONG_MS) & AE_READABLE);
        expect_hang_up(tcp.ours, mask);
        close(tcp.ours);
    }
}

static void test_reports_a_half_close(void **state)
{
    (void)state;
    watch(p.ours, AE_READABLE, &a);
    shutdown(p.theirs, SHUT_WR);
    expect(1, "ra");
}

static void test_reports_the_others_after_some_are_deleted(void **state)
{
    (void)state;
    watch_two();
    watch(r.ours, AE_READABLE, &c);
    poke(r.theirs);
    aeDeleteFileEvent(loop, p.ours, AE_READABLE);
    assert_int_equal(aeProcessEvents(loop, LOOK), 2);
    trace[0] = '\0';
    aeDeleteFileEvent(loop, r.ours, AE_READABLE);
    expect(1, "rb");
    watch(r.ours, AE_READABLE, &c);
    aeDeleteFileEvent(loop, q.ours, AE_READABLE);
    expect(1, "rc");
}

static void close_without_delete(int mask, bool highest)
{
    struct pair first = open_pair(), second = open_pair();
    struct pair closed = highest ? second : first, open = highest ? first : second;

    trace[0] = '\0';
    watch(closed.ours, mask, &a);
    watch(open.ours, AE_READABLE, &b);
    poke(open.theirs);
    close(
        closed.ours); /* wrong: the event is still there; whether it is reported is left open */
    for (int i = 0; i < 2; i++) /* the first iteration may only find out */
        aeProcessEvents(loop, LOOK);
    assert_non_null(strstr(trace, "rb"));
    aeDeleteFileEvent(loop, closed.ours, mask);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    close(closed.theirs);
    close_pair(open);
}

static void test_survives_a_close_without_delete(void **state)
{
    (void)state;
    for (int highest = 0; highest < 2; highest++) {
        close_without_delete(AE_READABLE, highest);
        close_without_delete(AE_WRITABLE, highest);
    }
}

/* Closes closed.ours, which is watched for old, and watches its number again, now another pair.
 */
static void reuse_without_delete(struct pair closed, int old, int mask)
{
    watch(closed.ours, old, &a);
    aeProcessEvents(loop, LOOK);
    trace[0] = '\0';
    close(closed.ours); /* wrong: the event is still there */

    struct pair fresh = open_pair();

    if (fresh.ours != closed.ours) { /* the lowest free number may be another */
        assert_int_equal(fresh.theirs, closed.ours);
        fresh = (struct pair){.ours = fresh.theirs, .theirs = fresh.ours};
    }
    watch(fresh.ours, mask, &b);
    assert_int_equal(aeGetFileEvents(loop, fresh.ours), old | mask);
    poke(fresh.theirs);
    expect(1, (old | mask) == AE_READABLE ? "rb" : (old | mask) == AE_WRITABLE ? "wb" : "*b");
    swallow(fresh.ours);
    aeDeleteFileEvent(loop, fresh.ours, AE_WRITABLE);
    expect(0, "");
    aeDeleteFileEvent(loop, fresh.ours, AE_READABLE);
    poke(fresh.theirs);
    expect(0, "");
    close(closed.theirs);
    close_pair(fresh);
}

static void test_watches_a_number_that_was_closed_without_delete(void **state)
{
    (void)state;
    for (int old = AE_READABLE; old <= (AE_READABLE | AE_WRITABLE); old++)
        for (int mask = AE_READABLE; mask <= (AE_READABLE | AE_WRITABLE); mask++) {
            struct pair first = open_pair(), second = open_pair();

            reuse_without_delete(second, old, mask); /* the highest descriptor */
            reuse_without_delete(first, old, mask);
        }
}

static void test_fails_to_watch_a_closed_descriptor_again(void **state)
{
    (void)state;
    watch(p.ours, AE_READABLE, &a);
    close(p.ours);
    for (int mask = AE_READABLE; mask <= (AE_READABLE | AE_WRITABLE); mask++) {
        expect_failure(p.ours, mask, EBADF);
        assert_int_equal(aeGetFileEvents(loop, p.ours), AE_READABLE);
    }
}

static void test_serves_beyond_a_lowered_limit(void **state)
{
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
        expect_failure(FD_SETSIZE, AE_READABLE,
                       ERANGE); /* the first one beyond the limit fails, open or not */
        close_pair(pairs[n]);
        break;
    }
    assert_true(n > 400);
    for (int i = 0; i < n; i++)
        poke(pairs[i].theirs);
    count_called = 0;
    while (count_called < n) { /* epoll reports some at a time */
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

static void test_skips_a_descriptor_that_a_callback_deleted(void **state)
{
    (void)state;
    a.act = b.act = delete_other;
    watch_two();
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_int_equal(strlen(trace), 2); /* only the one that was first */
}

static void watch_other_again(struct actor *self, int fd, int mask)
{
    (void)fd, (void)mask;
    watch(self->other->fd, AE_READABLE, self->other);
}

static void test_calls_a_descriptor_that_a_callback_watches_again(void **state)
{
    (void)state;
    a.act = b.act = watch_other_again;
    watch_two();
    assert_int_equal(aeProcessEvents(loop, LOOK), 2); /* in this iteration: it is not new */
}

static void delete_itself(struct actor *self, int fd, int mask)
{
    (void)self, (void)mask;
    aeDeleteFileEvent(loop, fd, AE_READABLE | AE_WRITABLE);
}

static void test_does_not_call_for_writing_after_deletion(void **state)
{
    (void)state;
    a.act = delete_itself;
    watch_apart(p.ours, &a);
    poke(p.theirs);
    expect(1, "ra");
}

/* Closes fd and gives its number to a new pair with nothing to read, watched by 'n'. */
static struct actor successor = {.name = "n"};
static int successors_peer;

static void replace(int fd)
{
    struct pair fresh = open_pair();

    aeDeleteFileEvent(loop, fd, AE_READABLE | AE_WRITABLE);
    close(fd);
    assert_int_equal(dup2(fresh.ours, fd), fd);
    close(fresh.ours);
    successors_peer = fresh.theirs;
    watch_apart(fd, &successor);
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

static void test_a_new_descriptor_gets_no_old_reports(void **state)
{
    (void)state;
    a.act = b.act = replace_other;
    b.name = "a"; /* whichever is first */
    watch_two();
    expect(1, "ra"); /* the new one is not called, for reading or for writing */
    assert_int_equal(aeProcessEvents(loop, LOOK), 2);
    assert_true(strstr(trace, "wn") != NULL && strstr(trace, "rn") == NULL);
    trace[0] = '\0';
    aeDeleteFileEvent(loop, p.ours, AE_WRITABLE);
    aeDeleteFileEvent(loop, q.ours, AE_WRITABLE);
    poke(successors_peer);
    assert_true(aeProcessEvents(loop, LOOK) >= 1);
    assert_true(strstr(trace, "rn") != NULL);
    close(successors_peer);
}

static void test_a_successor_gets_no_old_reports(void **state)
{
    (void)state;
    a.act = replace_itself;
    watch_apart(p.ours, &a);
    poke(p.theirs);
    expect(1, "ra");
    expect(1, "wn");
    close(successors_peer);
}

static void swallow_and_nest(struct actor *self, int fd, int mask)
{
    (void)self, (void)mask;
    swallow(fd);
    aeProcessEvents(loop, AE_FILE_EVENTS | AE_DONT_WAIT);
}

static void test_nests_without_reporting_twice(void **state)
{
    (void)state;
    a.act = swallow_and_nest;
    watch(p.ours, AE_READABLE, &a);
    watch(q.ours, AE_READABLE, &a);
    watch(r.ours, AE_READABLE, &a);
    poke(p.theirs);
    poke(q.theirs);
    poke(r.theirs);
    while (aeProcessEvents(loop, LOOK) > 0)
        ;
    assert_trace("rarara"); /* swallow would have failed after an old report */
}

static void test_nests_between_reading_and_writing(void **state)
{
    (void)state;
    a.act = swallow_and_nest;
    watch_apart(p.ours, &a);
    poke(p.theirs);
    expect(1, "rawa"); /* the inner iteration has called for writing: the outer does not */
}

/* ------------------------------------------------------------------------ aeWait */

static void test_waits_for_one_descriptor(void **state)
{
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
    assert_int_equal(aeWait(p.ours, AE_READABLE, LLONG_MAX), AE_READABLE | AE_WRITABLE);
    assert_int_equal(aeWait(p.ours, AE_WRITABLE, TOO_LONG_MS), AE_WRITABLE);
    close(p.ours);
    errno = 0;
    assert_int_equal(aeWait(p.ours, AE_READABLE, TOO_LONG_MS), AE_ERR);
    assert_int_equal(errno, EBADF);
}

static void test_waits_for_nothing_else(void **state)
{
    (void)state;
    fill(p.ours);
    poke(p.theirs);
    double start = now_ms();
    assert_int_equal(aeWait(p.ours, AE_WRITABLE, 20), AE_NONE); /* it is only readable */
    assert_true(now_ms() - start >= 20);
}

/* Either end of a pipe whose other end is closed, even if it is empty or full. */
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
    assert_int_equal(aeWait(empty[0], AE_READABLE, TOO_LONG_MS), both);
    assert_int_equal(aeWait(full[1], AE_WRITABLE, TOO_LONG_MS), AE_WRITABLE);
    assert_int_equal(aeWait(full[1], AE_NONE, TOO_LONG_MS), AE_WRITABLE);
    close(empty[0]);
    close(full[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAIRS(reports_readable_until_it_is_read),
        PAIRS(reports_writable),
        PAIRS(reads_before_it_writes),
        PAIRS(writes_first_behind_a_barrier),
        PAIRS(keeps_a_barrier_while_writable_is_watched),
        PAIRS(calls_the_same_function_once),
        PAIRS(returns_what_is_watched),
        PAIRS(fails_out_of_range),
        PAIRS(does_not_wake_for_what_is_not_watched),
        PAIRS(reports_a_closed_peer),
        PAIRS(reports_a_closed_pipe),
        PAIRS(reports_a_reset),
        PAIRS(reports_a_half_close),
        PAIRS(reports_the_others_after_some_are_deleted),
        PAIRS(survives_a_close_without_delete),
        PAIRS(watches_a_number_that_was_closed_without_delete),
        PAIRS(fails_to_watch_a_closed_descriptor_again),
        PAIRS(serves_beyond_a_lowered_limit),
        PAIRS(holds_thousands),
        PAIRS(skips_a_descriptor_that_a_callback_deleted),
        PAIRS(calls_a_descriptor_that_a_callback_watches_again),
        PAIRS(does_not_call_for_writing_after_deletion),
        PAIRS(a_new_descriptor_gets_no_old_reports),
        PAIRS(a_successor_gets_no_old_reports),
        PAIRS(nests_without_reporting_twice),
        PAIRS(nests_between_reading_and_writing),
        PAIRS(waits_for_one_descriptor),
        PAIRS(waits_for_nothing_else),
        PAIRS(waits_for_a_hang_up),
    };

    return cmocka_run_group_tests_name(aeGetApiName(), tests, NULL, NULL);
}
