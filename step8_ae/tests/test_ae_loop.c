/* test_ae_loop.c - what ae.h promises about the loop itself, for whichever back-end is linked
 * in.
 */
#include "actors.h"

#include <signal.h>
#include <sys/time.h>

static void test_names_its_back_end(void **state)
{
    const char *name = aeGetApiName();

    (void)state;
    assert_true(!strcmp(name, "epoll") || !strcmp(name, "kqueue") || !strcmp(name, "poll") ||
                !strcmp(name, "select"));
}

/* A loop's own descriptors are not inherited by other programs. A loop that cannot be created
 * leaves none open. */
static void test_its_own_descriptors_close_on_exec(void **state)
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

static void test_uses_memory_only_for_descriptors_in_use(void **state)
{
    enum { DESCRIPTORS = 1000000 }; /* about 50 MB, if they were all written to */
    long before = resident_pages(), page = sysconf(_SC_PAGESIZE);

    (void)state;
    if (before == -1)
        skip();

    aeEventLoop *large = aeCreateEventLoop(DESCRIPTORS);

    assert_non_null(large);
    assert_true((resident_pages() - before) * page < 10 * DESCRIPTORS);
    aeDeleteEventLoop(large);
}

/* ------------------------------------------------------------------------ iterations */

static void before_sleep(aeEventLoop *l)
{
    assert_ptr_equal(l, loop);
    note("B", ".");
}

static void after_sleep(aeEventLoop *l)
{
    assert_ptr_equal(l, loop);
    note("A", ".");
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
    aeMain(loop); /* nothing will happen: it must not sleep */
    assert_trace("");
    close_pair(p);
}

/* An aeStop that ended an earlier aeMain does not keep later iterations from sleeping. */
static void test_sleeps_after_an_earlier_stop(void **state)
{
    const int flags = AE_ALL_EVENTS | AE_CALL_BEFORE_SLEEP;
    struct actor a = {.name = "a", .act = stop, .again = AE_NOMORE};

    (void)state;
    start_timer(0, &a);
    aeMain(loop);
    aeSetBeforeSleepProc(loop, before_sleep);
    a.act = NULL;
    start_timer(20, &a);
    assert_int_equal(aeProcessEvents(loop, flags), 1); /* in one iteration, so it slept */
    assert_trace("tafaB.tafa");
    aeSetBeforeSleepProc(loop, stop_before_sleep);
    start_timer(TOO_LONG_MS, &a);
    assert_int_equal(aeProcessEvents(loop, flags), 0); /* this hook stops its own iteration */
    drop_timers();
}

static void stop_and_nest(struct actor *self, int fd, int mask)
{
    (void)self, (void)fd, (void)mask;
    aeStop(loop);
    aeProcessEvents(loop, LOOK | AE_CALL_BEFORE_SLEEP);
}

static void test_stops_though_an_iteration_ran_after_the_stop(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a", .act = stop_and_nest, .again = AE_NOMORE};
    struct actor b = {.name = "b", .act = stop, .again = AE_NOMORE};

    (void)state;
    watch(p.ours, AE_READABLE, &b);
    aeSetBeforeSleepProc(loop, before_sleep);
    start_timer(0, &a);
    start_timer(1000, &b); /* or a loop that goes on would never end */
    aeMain(loop);
    assert_trace("B.taB.fa");
    close_pair(p);
    drop_timers();
}

static void stop_at_the_end(aeEventLoop *l, void *data)
{
    (void)data;
    aeStop(l);
}

static void test_does_not_sleep_after_a_finalizer_stopped_it(void **state)
{
    struct actor a = {.name = "a"};

    (void)state;
    long long id = aeCreateTimeEvent(loop, TOO_LONG_MS, on_time, &a, stop_at_the_end);
    aeDeleteTimeEvent(loop, id);
    aeMain(loop); /* nothing will happen: it must not sleep */
    assert_trace("");
}

static void test_calls_hooks_without_waiting_only_if_there_are_descriptors(void **state)
{
    const int hooks = AE_CALL_BEFORE_SLEEP | AE_CALL_AFTER_SLEEP;
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    aeSetBeforeSleepProc(loop, before_sleep);
    aeSetAfterSleepProc(loop, after_sleep);
    for (int kinds = 0; kinds <= AE_ALL_EVENTS; kinds++)
        assert_int_equal(aeProcessEvents(loop, kinds | hooks | AE_DONT_WAIT), 0);
    assert_trace("");
    watch(p.ours, AE_READABLE, &a);
    assert_int_equal(aeProcessEvents(loop, hooks), 0);
    assert_trace("");
    for (int kinds = 1; kinds <= AE_ALL_EVENTS; kinds++) {
        assert_int_equal(aeProcessEvents(loop, kinds | hooks | AE_DONT_WAIT), 0);
        assert_trace("B.A.");
    }
    close_pair(p);
}

static void test_does_not_wait_with_dont_wait(void **state)
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
    assert_int_equal(aeProcessEvents(loop, AE_FILE_EVENTS),
                     0); /* else it would sleep for ever */
    assert_true(now_ms() - start < TOO_LONG_MS);
    assert_trace("");
    close_pair(p);
    drop_timers();
}

static void test_does_only_what_flags_ask_for(void **state)
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

static void test_a_signal_ends_the_sleep(void **state)
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
    assert_true(now_ms() - start >= 9); /* but not before it arrived */
    assert_int_equal(loop->waitError, EINTR);
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS | AE_DONT_WAIT), 0);
    assert_int_equal(loop->waitError, 0);
    assert_int_equal(aeWait(p.ours, AE_READABLE, 1LL << 32), AE_ERR);
    assert_int_equal(errno, EINTR);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    assert_true(now_ms() - start < TOO_LONG_MS);
    assert_trace("");
    close_pair(p);
    drop_timers();
}

/* Here each wait fails, because the loop's own descriptor is closed. */
static void test_does_not_spin_while_waits_fail(void **state)
{
    const int lowest = dup(STDIN_FILENO);

    (void)state;
    close(lowest);
    if (strcmp(aeGetApiName(), "epoll") != 0 && strcmp(aeGetApiName(), "kqueue") != 0)
        skip();
    aeEventLoop *another = aeCreateEventLoop(10);
    close(lowest);
    const double start = now_ms();
    assert_int_equal(another->waitError, 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(aeProcessEvents(another, AE_ALL_EVENTS), 0);
        assert_int_equal(another->waitError, EBADF);
    }
    assert_true(now_ms() - start >= 100);
    aeDeleteEventLoop(another);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(names_its_back_end),
        TEST(its_own_descriptors_close_on_exec),
        TEST(resizes),
        TEST(grows_in_a_callback),
        TEST(shrinks_in_a_callback),
        TEST(uses_memory_only_for_descriptors_in_use),
        TEST(calls_hooks_around_the_sleep),
        TEST(stops_from_a_callback_or_a_hook),
        TEST(sleeps_after_an_earlier_stop),
        TEST(stops_though_an_iteration_ran_after_the_stop),
        TEST(does_not_sleep_after_a_finalizer_stopped_it),
        TEST(calls_hooks_without_waiting_only_if_there_are_descriptors),
        TEST(does_not_wait_with_dont_wait),
        TEST(does_only_what_flags_ask_for),
        TEST(a_signal_ends_the_sleep),
        TEST(does_not_spin_while_waits_fail),
    };

    return cmocka_run_group_tests_name(aeGetApiName(), tests, NULL, NULL);
}
