/* children.h with room for three children only, where fork(2) cannot make as many as there is
 * room for. This program has its own copy of the module, so the linker does not take the
 * library's. */
#include "server.h"
#include "program.h"
#include "stats.h"
#include "stop.h"
#define STATS_CHILDREN_MAX 3
#include "../children.c" /* NOLINT(bugprone-suspicious-include) */

#include <poll.h>

static pid_t fork_for_client(void)
{
    pid_t pid = children_fork();

    if (pid != 0)
        return pid;
    alarm(20); /* in case the test fails */
    for (;;)
        pause(); /* SIGTERM ends it */
}

static void fork_too_many(void)
{
    start_server(ARGUMENTS("-q"));
    children_init(0);
    signal(SIGTERM, SIG_DFL);
    signal(SIGALRM, SIG_DFL);
    pid_t first = fork_for_client();
    for (int i = 1; i < STATS_CHILDREN_MAX; i++)
        CHECK(fork_for_client() != -1);
    errno = 0;
    CHECK(fork_for_client() == -1 && errno == EAGAIN);
    kill(first, SIGKILL);
    for (int ms = 0; kill(first, 0) == 0; ms += 10) {
        CHECK(ms < WAIT_MS);
        poll(NULL, 0, 10);
    }
    CHECK(fork_for_client() != -1);
    CHECK(fork_for_client() == -1);
    children_stop();
}

static void a_child_too_many_is_not_forked(void **state)
{
    (void)state;
    assert_int_equal(run_program(fork_too_many), DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_too_many_is_not_forked),
    };

    return cmocka_run_group_tests_name("children_limit", tests, NULL, NULL);
}
