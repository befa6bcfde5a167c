/* threads.h: threads run, take no signals but one, and all end at a stop. */
#include "program.h"
#include "stats.h"
#include "stop.h"
#include "stream.h"
#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* Where the linker has --wrap, this is the error of the next pthread_create. */
static int create_error;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
int __real_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument)
{
    size_t stack = 0;
    int detached = 0;

    CHECK(pthread_attr_getstacksize(attributes, &stack) == 0 && stack == 256 * 1024);
    CHECK(pthread_attr_getdetachstate(attributes, &detached) == 0 &&
          detached == PTHREAD_CREATE_DETACHED);
    return create_error != 0 ? create_error
                             : __real_pthread_create(id, attributes, run, argument);
}
#ifdef __APPLE__ /* this linker has no --wrap: nothing calls the one above */
int __real_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument)
{
    return pthread_create(id, attributes, run, argument);
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

enum { THREADS = 20 };

static atomic_int started, ended;

/* ---- The life of a thread ---------------------------------------------------------------- */

static sigset_t mask_of_thread;

static void note_mask(void *argument)
{
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask_of_thread) == 0);
    *(int *)argument = 9;
}

static void start_one_thread(void)
{
    sigset_t before, after;
    int seen = 0;

    threads_stop(); /* there are none: returns at once */
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &before) == 0);
    CHECK(threads_start(note_mask, &seen) == 0);
    threads_stop();
    CHECK(seen == 9);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
    static const int numbers[] = {SIGINT, SIGTERM, SIGALRM, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        CHECK(sigismember(&before, numbers[i]) == sigismember(&after, numbers[i]));
        /* Signals are for the first thread, but SIGUSR2 interrupts the others. */
        CHECK(sigismember(&mask_of_thread, numbers[i]) == (numbers[i] != SIGUSR2));
    }
    CHECK(atomic_load(&stats.threads_created) == 0); /* it has counted itself, */
    char text[TEXT_SIZE];
    CHECK(stats_json(text, sizeof text) > 0);
    CHECK(strstr(text, "\"threads_created\": 1,") != NULL); /* and that is added up */
    CHECK(strstr(text, "\"threads_max\": 2,") != NULL);
}

static void a_thread_runs_and_is_counted(void **state)
{
    (void)state;
    assert_int_equal(run_program(start_one_thread), DONE);
}

static void fail_to_start(void)
{
    sigset_t before, after;
    int seen = 0;

    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &before) == 0);
    create_error = EAGAIN;
    CHECK(threads_start(note_mask, &seen) == EAGAIN);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
    CHECK(sigismember(&before, SIGTERM) == sigismember(&after, SIGTERM));
    create_error = 0;
    CHECK(threads_start(note_mask, &seen) == 0);
    threads_stop();
    CHECK(seen == 9);
}

static void a_thread_that_cannot_start_leaves_nothing(void **state)
{
    (void)state;
#ifdef __APPLE__
    skip();
#endif
    assert_int_equal(run_program(fail_to_start), DONE);
}

/* ---- The stop ---------------------------------------------------------------------------- */

/* Sleeps in read until it has been interrupted `times` times. */
static void sleep_in_read(void *times)
{
    int ends[2];
    char byte;

    CHECK(pipe(ends) == 0);
    started++;
    for (int i = 0; i < *(int *)times; i++)
        CHECK(read(ends[0], &byte, 1) == -1 && errno == EINTR);
    close(ends[0]);
    close(ends[1]);
    ended++;
}

/* One signal for each thread is not enough: it may come just before the thread falls asleep. */
static void stop_sleeping_threads(void)
{
    static int once = 1, often = 3;

    for (int i = 0; i < THREADS; i++)
        CHECK(threads_start(sleep_in_read, i % 2 == 0 ? &once : &often) == 0);
    threads_stop();
    CHECK(started == THREADS && ended == THREADS);
    CHECK(threads_start(sleep_in_read, &once) == 0); /* it can be done again */
    threads_stop();
    CHECK(ended == THREADS + 1);
}

static void receive(void *argument)
{
    char bytes[8];

    while (stream_recv(*(int *)argument, bytes, sizeof bytes) > 0)
        ;
    CHECK(errno == EINTR);
    ended++;
}

/* A thread lingers in poll at a stop. The signals of threads_stop must not interrupt each of
 * its polls, or it would never end. */
static void stop_threads_in_stream_recv(void)
{
    int ends[THREADS][2];

    start_ready_server(ARGUMENTS("0"));
    for (int i = 0; i < THREADS; i++) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[i]) == 0);
        CHECK(threads_start(receive, &ends[i][0]) == 0);
    }
    kill(getpid(), SIGTERM);
    CHECK(stop_requested());
    threads_stop();
    CHECK(ended == THREADS && !stop_deadline_passed());
}

static void all_threads_end_at_a_stop(void **state)
{
    (void)state;
    assert_int_equal(run_program(stop_sleeping_threads), DONE);
    assert_int_equal(run_program(stop_threads_in_stream_recv), DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_runs_and_is_counted),
        cmocka_unit_test(a_thread_that_cannot_start_leaves_nothing),
        cmocka_unit_test(all_threads_end_at_a_stop),
    };

    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
