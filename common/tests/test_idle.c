/* idle.h and clock.h: which client is idle, and for how many milliseconds. */
#include "clock.h"
#include "fake_clock.h"
#include "idle.h"
#include "net.h"
#include "stop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* 32 bits of milliseconds would last for 49 days only, 32 bits of microseconds for an hour. */
_Static_assert(_Generic(clock_us(), int64_t : 1, default : 0), "microseconds need 64 bits");
_Static_assert(_Generic(clock_ms(), int64_t : 1, default : 0), "milliseconds need 64 bits");

enum { LIMIT_MS = 40, NODES = 4 };

static struct idle_node nodes[NODES];

/* The list has these nodes in this order, whichever way it is walked. */
static void expect_order(const struct idle_list *list, const char *order)
{
    const struct idle_node *node = list->first, *prev = NULL;

    for (size_t i = 0; order[i] != '\0'; i++) {
        assert_ptr_equal(node, &nodes[order[i] - '0']);
        assert_ptr_equal(node->prev, prev);
        prev = node;
        node = node->next;
    }
    assert_null(node);
    assert_ptr_equal(list->last, prev);
}

static void the_order_is_that_of_activity(void **state)
{
    struct idle_list list;

    (void)state;
    for (int limit = 0; limit <= LIMIT_MS; limit += LIMIT_MS) {
        idle_init(&list, limit);
        expect_order(&list, "");
        for (int i = 0; i < NODES; i++)
            idle_add(&list, &nodes[i]);
        expect_order(&list, "0123");
        idle_touch(&list, &nodes[3]);
        expect_order(&list, "0123");
        idle_touch(&list, &nodes[0]);
        expect_order(&list, limit > 0 ? "1230" : "0123"); /* without a limit it is not needed */
        idle_touch(&list, &nodes[2]);
        expect_order(&list, limit > 0 ? "1302" : "0123");
        idle_remove(&list, &nodes[3]);                 /* from the middle or the end, */
        idle_remove(&list, &nodes[limit > 0 ? 1 : 0]); /* the beginning, */
        idle_remove(&list, &nodes[2]);
        expect_order(&list, limit > 0 ? "0" : "1");
        idle_remove(&list, list.first); /* and the last one */
        expect_order(&list, "");
    }
}

static void idleness_is_measured(void **state)
{
    /* The third wraps in 32 bits. The last is large, but a time_t of 32 bits can hold it. */
    static const int64_t times[] = {1000, 999999, (INT64_C(1) << 32) - 10,
                                    INT64_C(2147480000000)};

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        struct idle_list list;
        fake_ms = times[i];
        assert_true(clock_ms() == times[i]);
        assert_true(clock_us() == times[i] * 1000 + 999);
        idle_init(&list, LIMIT_MS);
        assert_int_equal(idle_expiry_ms(&list), -1);
        assert_null(idle_expired(&list));
        idle_add(&list, &nodes[0]);
        assert_int_equal(idle_expiry_ms(&list), LIMIT_MS);
        fake_ms += LIMIT_MS - 1;
        idle_add(&list, &nodes[1]);
        assert_int_equal(idle_ms(&nodes[0]), LIMIT_MS - 1);
        assert_int_equal(idle_expiry_ms(&list), 1);
        assert_null(idle_expired(&list));
        fake_ms += 1;
        assert_int_equal(idle_expiry_ms(&list), 0);
        assert_ptr_equal(idle_expired(&list), &nodes[0]);
        idle_touch(&list, &nodes[0]);
        assert_null(idle_expired(&list));
        assert_int_equal(idle_expiry_ms(&list), LIMIT_MS - 1);
        fake_ms += 1000;
        assert_int_equal(idle_expiry_ms(&list), 0);
        assert_ptr_equal(idle_expired(&list), &nodes[1]);
        idle_remove(&list, &nodes[1]);
        assert_ptr_equal(idle_expired(&list), &nodes[0]);
        idle_remove(&list, &nodes[0]);
        assert_null(idle_expired(&list));
        assert_int_equal(idle_expiry_ms(&list), -1);
    }
    fake_ms = 0;
}

/* Reading it is not free: a system call on some machines. */
static void without_a_limit_no_clock_is_read(void **state)
{
    struct idle_list list;
    int before = clock_readings;

    (void)state;
    idle_init(&list, 0);
    idle_add(&list, &nodes[0]);
    idle_add(&list, &nodes[1]);
    idle_touch(&list, &nodes[0]);
    assert_null(idle_expired(&list));
    assert_int_equal(idle_expiry_ms(&list), -1);
    idle_remove(&list, &nodes[0]);
    assert_int_equal(clock_readings, before);
}

static void unread_input_is_progress(void **state)
{
    int ends[2];

    (void)state;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    assert_false(idle_has_progress(ends[0], -1));
    assert_int_equal(send(ends[1], "x", 1, 0), 1);
    assert_true(idle_has_progress(ends[0], -1));
    assert_false(idle_has_progress(ends[0], 0)); /* with unsent output it counts not */
    close(ends[0]);
    close(ends[1]);
}

static void drained_output_is_progress(void **state)
{
    static char bytes[64 * 1024];
    int ends[2];

    (void)state;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    assert_return_code(net_set_nonblocking(ends[0]), errno);
    while (send(ends[0], bytes, sizeof bytes, 0) > 0)
        ;
    int before = net_sendq(ends[0]);
    if (before == 0)
        skip(); /* this system does not tell */
    assert_false(idle_has_progress(ends[0], before));
    assert_int_equal(recv(ends[1], bytes, sizeof bytes, MSG_WAITALL), sizeof bytes);
    assert_true(idle_has_progress(ends[0], before));
    close(ends[0]);
    close(ends[1]);
}

/* The last test: there is no way back from a stop. */
static void at_a_stop_a_client_may_take_its_output(void **state)
{
    int ends[2];

    (void)state;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    assert_false(idle_has_progress(ends[0], 0));
    stop_init();
    stop_gracefully();
    kill(getpid(), SIGTERM);
    alarm(0);
    assert_true(idle_has_progress(ends[0], 0));
    assert_false(idle_has_progress(ends[0], -1)); /* without unsent output it is idle */
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_is_that_of_activity),
        cmocka_unit_test(idleness_is_measured),
        cmocka_unit_test(without_a_limit_no_clock_is_read),
        cmocka_unit_test(unread_input_is_progress),
        cmocka_unit_test(drained_output_is_progress),
        cmocka_unit_test(at_a_stop_a_client_may_take_its_output),
    };

    return cmocka_run_group_tests_name("idle", tests, NULL, NULL);
}
