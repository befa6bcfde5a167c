/* stop.h: a signal comes while the wake-up is made unreadable. This program has its own copy of
 * the module, in which a signal comes just before read(2). */
#include "program.h"

#include <signal.h>
#include <unistd.h>

static int signal_before_read; /* before the next one; 0: none */

static ssize_t read_after_signal(int fd, void *buffer, size_t size)
{
    int signal_number = signal_before_read;

    signal_before_read = 0;
    if (signal_number != 0)
        kill(getpid(), signal_number);
    return read(fd, buffer, size);
}

#define read read_after_signal
#include "../stop.c" /* NOLINT(bugprone-suspicious-include) */

/* A loop that learns of a stop by the descriptor alone, such as libuv's, must not miss it. */
static void request_a_stop_while_draining(void)
{
    stop_init();
    stop_gracefully();
    int wakeup = stop_wakeup_fd();
    stop_wake();
    signal_before_read = SIGTERM;
    stop_drain_wakeup();
    CHECK(signal_before_read == 0 && stop_requested() && is_readable(wakeup));
}

static void draining_keeps_a_stop_readable(void **state)
{
    (void)state;
    assert_int_equal(run_program(request_a_stop_while_draining), DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draining_keeps_a_stop_readable),
    };

    return cmocka_run_group_tests_name("stop_drain", tests, NULL, NULL);
}
