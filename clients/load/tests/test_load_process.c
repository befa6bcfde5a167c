/* The figures of processes that have done something countable. */
#include "../load_process.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef __linux__

#include <sys/prctl.h>

static const size_t MIB = 1 << 20;

/* Makes n bytes resident. (The thread sanitizer would double what we wrote to.) */
static void take(size_t n)
{
    if (mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1,
             0) == MAP_FAILED)
        abort();
}

static void *sleep_for_ever(void *argument)
{
    pause();
    return argument;
}

/* Starts a process that does what the function says, and then sleeps. */
static pid_t start(void (*act)(void))
{
    int done[2];
    char byte;

    assert_int_equal(pipe(done), 0);
    pid_t pid = fork();
    assert_int_not_equal(pid, -1);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        act();
        if (write(done[1], "", 1) == 1)
            pause();
        _exit(0);
    }
    assert_int_equal(read(done[0], &byte, 1), 1);
    close(done[0]);
    close(done[1]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void nothing(void)
{
}

static void sleep_often(void)
{
    const struct timespec pause = {.tv_nsec = 100000};

    for (int i = 0; i < 200; i++)
        nanosleep(&pause, NULL);
}

static void start_thread(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, sleep_for_ever, NULL) != 0)
        abort();
}

static void start_two_threads(void)
{
    start_thread();
    start_thread();
}

static void take_32(void)
{
    take(32 * MIB);
}

static void take_8(void)
{
    take(8 * MIB);
}

static void take_32_and_fork(void)
{
    take(32 * MIB);
    start(take_8);
}

/* Skips the test where qemu-user runs it: the emulator has threads and memory of its own. */
static void not_emulated(void)
{
    const char *emulator = getenv("CHECK_EMULATED");

    if (emulator != NULL && *emulator != '\0')
        skip();
}

static struct process_sight look_at(void (*act)(void))
{
    struct process_sight sight;
    pid_t pid = start(act);

    process_look(pid, &sight);
    end(pid);
    return sight;
}

static void memory_threads_and_children_are_counted(void **state)
{
    not_emulated();
    struct process_sight idle = look_at(nothing);
    struct process_sight threaded = look_at(start_thread), more = look_at(start_two_threads);
    struct process_sight large = look_at(take_32), two = look_at(take_32_and_fork);

    (void)state;
    assert_int_equal(idle.processes, 1);
    assert_true(threaded.threads > idle.threads); /* the thread sanitizer adds one of its own */
    assert_int_equal(more.threads, threaded.threads + 1);
    assert_in_range(large.resident - idle.resident, 32 * MIB - MIB / 4, 33 * MIB);
    assert_int_equal(two.processes, 2);
    assert_int_equal(two.threads, 2 * idle.threads);
    assert_in_range(two.resident - large.resident, 8 * MIB, 16 * MIB); /* not what they share */
}

static void switches_are_counted_by_kind(void **state)
{
    struct process_sight sleeper = look_at(sleep_often);

    (void)state;
    assert_true(sleeper.voluntary >= 200);
    assert_true(sleeper.involuntary < sleeper.voluntary / 2);
}

static double own_cpu(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void burn(double seconds)
{
    for (double until = own_cpu() + seconds; own_cpu() < until;)
        ;
}

static void burn_a_little(void)
{
    burn(0.05);
}

static void cpu_time_is_that_of_all_processes_but_this(void **state)
{
    double before = own_cpu(), seen = process_cpu(getpid());
    pid_t child = start(burn_a_little);

    (void)state;
    assert_true(before <= seen && seen <= own_cpu());
    assert_true(process_cpu(getpid()) >= before + 0.05);
    end(child);

    before = own_cpu();
    child = fork();
    if (child == 0) { /* whose parent is the server */
        burn(0.05);
        double parents = process_cpu(getppid());
        _exit(parents > before + 0.04);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* The kernel's figures: how long it ran, how long it waited, both in nanoseconds. */
static double own_delay(void)
{
    FILE *f = fopen("/proc/self/schedstat", "r");
    double ran, waited = 0;

    if (f != NULL && fscanf(f, "%lf %lf", &ran, &waited) != 2)
        waited = 0;
    if (f != NULL)
        fclose(f);
    return waited / 1e9;
}

static void delay_is_the_time_it_waited(void **state)
{
    not_emulated();
    double before = own_delay(), seen = process_delay(getpid());

    (void)state;
    assert_true(before <= seen && seen <= own_delay());
}

static void an_ended_process_has_no_figures(void **state)
{
    struct process_sight sight;
    pid_t pid = start(nothing);

    (void)state;
    assert_null(process_obstacle(pid));
    end(pid);
    process_look(pid, &sight);
    assert_true(sight.resident == 0 && sight.threads == 0 && sight.voluntary == 0);
    assert_true(process_cpu(pid) == 0 && process_delay(pid) == 0);
    assert_non_null(process_obstacle(pid));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_threads_and_children_are_counted),
        cmocka_unit_test(switches_are_counted_by_kind),
        cmocka_unit_test(cpu_time_is_that_of_all_processes_but_this),
        cmocka_unit_test(delay_is_the_time_it_waited),
        cmocka_unit_test(an_ended_process_has_no_figures),
    };
    return cmocka_run_group_tests_name("load_process", tests, NULL, NULL);
}

#else

static void there_is_no_proc(void **state)
{
    (void)state;
    assert_non_null(process_obstacle(getpid()));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_is_no_proc)};

    return cmocka_run_group_tests_name("load_process", tests, NULL, NULL);
}

#endif
