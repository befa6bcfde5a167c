/* An alarm wakes its loop once, when it is due and not earlier. */
#include "../load_alarm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include <cmocka.h>

static const uint64_t MS = 1000000;

static bool late;

static int give_up(aeEventLoop *loop, long long id, void *data)
{
    (void)loop, (void)id, (void)data;
    late = true;
    return AE_NOMORE;
}

/* Runs the loop until the alarm goes off, `patience` milliseconds at most. Returns whether it
 * did. */
static bool goes_off(struct alarm *a, long long patience)
{
    long long limit = aeCreateTimeEvent(a->loop, patience, give_up, NULL, NULL);

    late = false;
    while (a->at != 0 && !late)
        aeProcessEvents(a->loop, AE_ALL_EVENTS);
    aeDeleteTimeEvent(a->loop, limit);
    return !late;
}

static void goes_off_in_time(void **state)
{
    struct alarm *a = *state;

    for (int i = 0; i < 3; i++) {
        uint64_t at = now_ns() + 5 * MS;
        alarm_set(a, at);
        alarm_set(a, at);
        assert_true(goes_off(a, 5000));
        assert_true(now_ns() >= at);
    }
}

static void the_last_setting_counts(void **state)
{
    struct alarm *a = *state;

    alarm_set(a, now_ns() + 60000 * MS);
    alarm_set(a, now_ns() + 5 * MS);
    assert_true(goes_off(a, 5000));
    alarm_set(a, now_ns() + 20 * MS);
    alarm_set(a, NEVER);
    assert_false(goes_off(a, 40));
}

static void a_time_in_the_past_is_due_at_once(void **state)
{
    struct alarm *a = *state;

    alarm_set(a, now_ns() - 5 * MS);
    assert_true(goes_off(a, 5000));
}

static int set_up(void **state)
{
    static struct alarm a;
    aeEventLoop *loop = aeCreateEventLoop(64);

    *state = &a;
    return loop == NULL ? -1 : alarm_open(&a, loop);
}

static int clear_up(void **state)
{
    struct alarm *a = *state;

    alarm_close(a);
    aeDeleteEventLoop(a->loop);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(goes_off_in_time, set_up, clear_up),
        cmocka_unit_test_setup_teardown(the_last_setting_counts, set_up, clear_up),
        cmocka_unit_test_setup_teardown(a_time_in_the_past_is_due_at_once, set_up, clear_up),
    };
    return cmocka_run_group_tests_name("load_alarm", tests, NULL, NULL);
}
