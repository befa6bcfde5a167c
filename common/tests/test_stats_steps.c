/* stats.h: how child processes count clients together, one machine instruction after the other
 * (ptrace(2)). Whenever a child is killed, and in whatever order children run, the sum is
 * right. */
#include "stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* With ThreadSanitizer, an atomic access is thousands of instructions: minutes of steps. */
#if defined __linux__ && !defined __SANITIZE_THREAD__
#include <sys/ptrace.h>

enum { CHILDREN = 2, STEPS_MAX = 2000, SIDE_BY_SIDE_MAX = 200 }; /* valgrind needs far more */

static volatile long finished; /* in a child: its part has ended */

/* The parts. Each stops before the calls to be stepped through. */

static bool begin_in_a_worker(int number, int limit)
{
    stats_worker_begin(number);
    raise(SIGSTOP);
    return stats_client_begin(limit);
}

static bool end_in_a_worker(int number, int limit)
{
    stats_worker_begin(number);
    stats_client_begin(limit);
    raise(SIGSTOP);
    stats_client_end();
    return true;
}

static bool end_in_a_child(int number, int limit)
{
    (void)limit;
    stats_child_number(number);
    raise(SIGSTOP);
    stats_client_end();
    return true;
}

static int wait_for(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static pid_t start(bool (*part)(int number, int limit), int number, int limit)
{
    pid_t pid = fork();

    assert_return_code(pid, errno);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1)
            _exit(2);
        bool result = part(number, limit);
        finished = 1;
        _exit(result);
    }
    if (WIFEXITED(wait_for(pid)))
        skip(); /* this system forbids tracing */
    return pid;
}

static void step(pid_t pid)
{
    ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
    assert_true(WIFSTOPPED(wait_for(pid)));
}

static bool has_finished(pid_t pid)
{
    return ptrace(PTRACE_PEEKDATA, pid, (void *)&finished, NULL) != 0;
}

static int run_to_its_end(pid_t pid)
{
    ptrace(PTRACE_CONT, pid, NULL, NULL);
    int status = wait_for(pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void kill_after_each_step(bool (*part)(int number, int limit), bool has_client)
{
    bool done = false;

    for (int steps = 0; !done && steps < STEPS_MAX; steps++) {
        assert_true(stats_client_begin(2)); /* a client that no child has */
        if (has_client) {
            assert_true(stats_client_begin(2));
            stats_child_clients(1, 1);
        }
        pid_t pid = start(part, 1, 2);
        for (int i = 0; i < steps; i++)
            step(pid);
        done = has_finished(pid);
        kill(pid, SIGKILL);
        assert_true(WIFSIGNALED(wait_for(pid)));
        stats_child_ended(1);
        assert_int_equal(stats_clients(), 1);
        stats_client_end();
    }
}

static void a_killed_child_leaves_no_client(void **state)
{
    (void)state;
    kill_after_each_step(end_in_a_child, true);
}

static void a_killed_worker_leaves_no_client(void **state)
{
    (void)state;
    kill_after_each_step(begin_in_a_worker, false);
    kill_after_each_step(end_in_a_worker, false);
}

/* Two ask for it, side by side for some steps. Then one runs to its end before the other. */
static void one_of_two_gets_the_last_place(void **state)
{
    bool done = false;

    (void)state;
    for (int steps = 0; !done && steps < SIDE_BY_SIDE_MAX; steps++) {
        pid_t pids[CHILDREN];
        for (int i = 0; i < CHILDREN; i++)
            pids[i] = start(begin_in_a_worker, i, 1);
        for (int i = 0; i < steps && !done; i++)
            for (int j = 0; j < CHILDREN; j++) {
                step(pids[j]);
                done |= has_finished(pids[j]);
            }
        int admitted = 0;
        for (int i = 0; i < CHILDREN; i++)
            admitted += run_to_its_end(pids[i]);
        assert_int_equal(admitted, 1);
        assert_int_equal(stats_clients(), 1);
        for (int i = 0; i < CHILDREN; i++)
            stats_child_ended(i);
    }
}

static int prepare(void **state)
{
    (void)state;
    return stats_share() == -1 || stats_workers(CHILDREN) == -1 ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_child_leaves_no_client),
        cmocka_unit_test(a_killed_worker_leaves_no_client),
        cmocka_unit_test(one_of_two_gets_the_last_place),
    };

    return cmocka_run_group_tests_name("stats_steps", tests, prepare, NULL);
}
#else
static void tracing_differs_here(void **state)
{
    (void)state;
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tracing_differs_here)};

    return cmocka_run_group_tests_name("stats_steps", tests, NULL, NULL);
}
#endif
