/* test_ae_timers.c - what ae.h promises about timers, for whichever back-end is linked in. */
#include "actors.h"

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
    start_timer(-1, &a); /* a negative delay counts as none */
    aeMain(loop);
    assert_true(now_ms() - start >= 15);
    assert_trace("tafatafatdfdtbfbtcfc");

    clock_stopped = true; /* so that both are due at the same time */
    start_timer(0, &a);
    start_timer(-1000, &b);
    aeProcessEvents(loop, LOOK);
    if (our_clock)
        assert_trace("tafatbfb");
}

/* Also if they were not all created for the same delay, and some were called before. */
static void test_calls_timers_of_the_same_time_as_created(void **state)
{
    enum { TIMERS = 20 };
    static const char *const names[TIMERS] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j",
                                              "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"};
    struct actor actors[TIMERS];

    (void)state;
    if (!our_clock)
        skip();
    clock_stopped = true;
    for (int i = 0; i < TIMERS; i++) {
        actors[i] = (struct actor){.name = names[i], .again = -2 * i};
        start_timer(-i % 3, &actors[i]);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(aeProcessEvents(loop, LOOK), i == 0 ? TIMERS : 0);
        assert_trace(i == 0 ? "tatbtctdtetftgthtitjtktltmtntotptqtrtstt" : "");
    }
    clock_stopped = false;
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), TIMERS);
    assert_trace("tatbtctdtetftgthtitjtktltmtntotptqtrtstt");
    drop_timers();
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

static int iterations;

static void count_iteration(aeEventLoop *l)
{
    (void)l;
    iterations++;
}

static void test_sleeps_until_the_timer_is_due(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a", .act = stop, .again = AE_NOMORE};

    (void)state;
    watch(p.ours, AE_READABLE, &a);
    aeSetBeforeSleepProc(loop, count_iteration);
    iterations = 0;
    start_timer(30, &a);
    aeMain(loop);
    assert_true(iterations <= 3); /* rounding down would spin through the last millisecond */
    close_pair(p);

    double best = TOO_LONG_MS; /* of several, as the machine may be busy */
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

static void test_repeats_as_the_callback_returns(void **state)
{
    struct actor a = {.name = "a", .act = stop_at_third, .again = 10};
    double start = now_ms();

    (void)state;
    start_timer(5, &a);
    aeMain(loop);
    assert_true(now_ms() - start >= 25);
    assert_trace("tatatafa");
}

static double called_at;

static void sleep_20_ms(struct actor *self, int fd, int mask)
{
    const struct timespec time = {.tv_nsec = 20 * 1000000};

    (void)self, (void)fd, (void)mask;
    called_at = now_ms();
    nanosleep(&time, NULL);
}

static void test_counts_the_delay_from_the_return(void **state)
{
    struct actor a = {.name = "a", .act = sleep_20_ms, .again = 10};
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

static void test_leaves_new_timers_to_the_next_iteration(void **state)
{
    struct actor a = {.name = "a", .act = create_timer, .again = AE_NOMORE};
    struct actor b = {.name = "b", .again = 0};

    (void)state;
    start_timer(0, &a);
    start_timer(0, &b);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 2);
        assert_true(strcmp(trace, "tafatb") == 0 || strcmp(trace, "tbtafa") == 0);
        trace[0] = '\0';
    }
    drop_timers();
}

static void test_ends_an_iteration_while_time_stands_still(void **state)
{
    struct actor a = {.name = "a", .act = create_timer, .again = AE_NOMORE};
    struct actor b = {.name = "b", .again = 0}, c = {.name = "c", .again = -5};

    (void)state;
    if (!our_clock)
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
    assert_trace("tafatbtc"); /* all at the same time: in the order of creation */
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 3);
    assert_trace("tafatbtc");
    drop_timers();
}

static void test_reads_the_clock_only_if_it_must(void **state)
{
    struct pair p = open_pair();
    struct actor a = {.name = "a"};

    (void)state;
    if (!our_clock)
        skip();
    watch(p.ours, AE_READABLE, &a);
    poke(p.theirs);
    clock_calls = 0;
    assert_int_equal(aeProcessEvents(loop, AE_ALL_EVENTS), 1);
    assert_int_equal(clock_calls, 0);
    start_timer(TOO_LONG_MS, &a);
    assert_true(clock_calls > 0); /* it is the monotonic clock */
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
    assert_int_equal(aeProcessEvents(loop, LOOK), 0);
    assert_trace("fa");
}

static void test_sleeps_after_a_timer_was_deleted(void **state)
{
    struct actor a = {.name = "a"}, b = {.name = "b", .again = AE_NOMORE};

    (void)state;
    a.id = start_timer(0, &a);
    start_timer(20, &b);
    assert_int_equal(aeDeleteTimeEvent(loop, a.id), AE_OK);
    assert_int_equal(aeProcessEvents(loop, AE_TIME_EVENTS), 1);
    assert_trace("fatbfb");
}

static void test_a_timer_can_delete_itself(void **state)
{
    struct actor a = {.name = "a", .act = delete_timer, .again = TOO_LONG_MS, .other = &a};

    (void)state;
    a.id = start_timer(0, &a);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_int_equal(aeProcessEvents(loop, LOOK), 0);
    assert_trace("tafa");
}

static void test_a_timer_can_delete_another(void **state)
{
    struct actor b = {.name = "b", .again = AE_NOMORE};
    struct actor a = {.name = "a", .act = delete_timer, .again = AE_NOMORE, .other = &b};

    (void)state;
    start_timer(0, &a);
    b.id = start_timer(0, &b);
    while (live_timers > 0)
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
    while (live_timers > 0)
        aeProcessEvents(loop, LOOK);
    assert_trace("tatbfbfa"); /* a timer is not called while its callback runs */
}

static void fail_to_create(aeEventLoop *l, void *data)
{
    note("f", ((struct actor *)data)->name);
    errno = 0;
    assert_int_equal(aeCreateTimeEvent(l, 0, on_time, data, fail_to_create), AE_ERR);
    assert_int_not_equal(errno, 0);
}

static void test_finalizes_the_timers_left(void **state)
{
    struct actor a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c"};
    long long id;

    aeDeleteEventLoop(loop);
    assert_int_equal(set_up(state), 0);
    start_timer(TOO_LONG_MS, &a);
    id = start_timer(LLONG_MAX, &b);
    assert_int_equal(aeProcessEvents(loop, LOOK), 0); /* no overflow: not due for long */
    assert_true(aeCreateTimeEvent(loop, TOO_LONG_MS + 1, on_time, &c, fail_to_create) > id);
    assert_true(aeCreateTimeEvent(loop, TOO_LONG_MS, on_time, NULL, NULL) > id);
    assert_int_equal(aeDeleteTimeEvent(loop, id), AE_OK);
    aeDeleteEventLoop(loop);
    assert_trace("fbfafc");
    assert_int_equal(set_up(state), 0);
}

static void delete_other_timer(aeEventLoop *l, void *data)
{
    struct actor *self = data;

    note("f", self->name);
    if (self->other != NULL)
        assert_int_equal(aeDeleteTimeEvent(l, self->other->id), AE_OK);
}

static void test_a_finalizer_can_delete_another_timer(void **state)
{
    struct actor b = {.name = "b"}, a = {.name = "a", .other = &b};

    aeDeleteEventLoop(loop);
    for (int by_loop = 0; by_loop < 2; by_loop++) {
        assert_int_equal(set_up(state), 0);
        a.id = aeCreateTimeEvent(loop, TOO_LONG_MS, on_time, &a, delete_other_timer);
        b.id = aeCreateTimeEvent(loop, TOO_LONG_MS, on_time, &b, delete_other_timer);
        if (!by_loop) {
            assert_int_equal(aeDeleteTimeEvent(loop, a.id), AE_OK);
            for (int i = 0; i < 2; i++)
                assert_int_equal(aeProcessEvents(loop, LOOK), 0);
            assert_trace("fafb");
        }
        aeDeleteEventLoop(loop);
        assert_trace(by_loop ? "fafb" : "");
    }
    assert_int_equal(set_up(state), 0);
}

/* The inner callback deletes the timer whose callback runs the inner iteration. */
static void test_a_nested_timer_can_delete_the_outer(void **state)
{
    struct actor a = {.name = "a", .act = nest_timers, .again = TOO_LONG_MS};
    struct actor b = {.name = "b", .act = delete_timer, .again = AE_NOMORE, .other = &a};

    (void)state;
    a.id = start_timer(0, &a);
    start_timer(0, &b);
    assert_int_equal(aeProcessEvents(loop, LOOK), 1);
    assert_trace("tatbfbfa");
    assert_int_equal(live_timers, 0);
}

static int count_called;

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
    while (count_called < TIMERS / 2)
        aeProcessEvents(loop, AE_ALL_EVENTS);
    assert_int_equal(aeProcessEvents(loop, LOOK), 0);
    assert_int_equal(count_called, TIMERS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calls_timers_in_order),
        TEST(calls_timers_of_the_same_time_as_created),
        TEST(never_calls_a_timer_early),
        TEST(sleeps_until_the_timer_is_due),
        TEST(repeats_as_the_callback_returns),
        TEST(counts_the_delay_from_the_return),
        TEST(leaves_new_timers_to_the_next_iteration),
        TEST(ends_an_iteration_while_time_stands_still),
        TEST(reads_the_clock_only_if_it_must),
        TEST(deletes_timers),
        TEST(sleeps_after_a_timer_was_deleted),
        TEST(a_timer_can_delete_itself),
        TEST(a_timer_can_delete_another),
        TEST(nests_timers),
        TEST(finalizes_the_timers_left),
        TEST(a_finalizer_can_delete_another_timer),
        TEST(a_nested_timer_can_delete_the_outer),
        TEST(runs_ten_thousand_timers),
    };

    return cmocka_run_group_tests_name(aeGetApiName(), tests, NULL, NULL);
}
