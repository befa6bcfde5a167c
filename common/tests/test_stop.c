/* stop.h: what each signal does, at each moment of a server's life. */
#include "log.h"
#include "program.h"
#include "stop.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#ifdef __linux__
#include <linux/sched.h>
#include <sys/syscall.h>
#endif

/* How many the wake-up takes: an eventfd one, a pipe two. */
#if defined __linux__ && !defined STOP_USES_PIPE
enum { DESCRIPTORS = 1 };
#else
enum { DESCRIPTORS = 2 };
#endif

static void start(void)
{
    stop_init();
    stop_gracefully();
}

/* ---- A request to stop ------------------------------------------------------------------- */

static void request_a_stop(int signal_number)
{
    start();
    int wakeup = stop_wakeup_fd();
    CHECK(!stop_requested() && !stop_deadline_passed() && !is_readable(wakeup));
    kill(getpid(), signal_number);
    CHECK(stop_requested() && !stop_deadline_passed());
    stop_drain_wakeup(); /* every loop that waits for the descriptor must see the stop */
    CHECK(is_readable(wakeup) && stop_wakeup_fd() == wakeup);
    kill(getpid(), SIGTERM); /* a second SIGTERM changes nothing */
    CHECK(stop_requested() && !stop_deadline_passed());
    stop_give_up();
    CHECK(stop_deadline_passed());
}

static void stop_by_sigint(void)
{
    request_a_stop(SIGINT);
}

static void stop_by_sigterm(void)
{
    request_a_stop(SIGTERM);
}

static void stop_with_all_signals_blocked(void)
{
    sigset_t all;

    sigfillset(&all); /* the program that started us may have blocked them */
    sigprocmask(SIG_BLOCK, &all, NULL);
    request_a_stop(SIGTERM);
}

static void a_signal_requests_a_stop(void **state)
{
    (void)state;
    assert_int_equal(run_program(stop_by_sigint), DONE);
    assert_int_equal(run_program(stop_by_sigterm), DONE);
    assert_int_equal(run_program(stop_with_all_signals_blocked), DONE);
}

static void *ask(void *answer)
{
    *(bool *)answer = stop_requested();
    return NULL;
}

static void ask_in_a_thread(void)
{
    bool answer = false;
    pthread_t thread;

    start();
    kill(getpid(), SIGTERM);
    CHECK(pthread_create(&thread, NULL, ask, &answer) == 0);
    pthread_join(thread, NULL);
    CHECK(answer);
}

static void any_thread_sees_the_request(void **state)
{
    (void)state;
    assert_int_equal(run_program(ask_in_a_thread), DONE);
}

/* ---- Signals that end the program -------------------------------------------------------- */

static void sigterm_before_the_server_is_ready(void)
{
    stop_init();
    kill(getpid(), SIGTERM); /* it may be waiting for a name to be resolved */
}

static void sigint_before_the_server_is_ready(void)
{
    stop_init();
    kill(getpid(), SIGINT);
}

static void second_sigint(void)
{
    start();
    kill(getpid(), SIGTERM);
    CHECK(stop_requested());
    kill(getpid(), SIGINT);
}

static void end_with_9(int signal_number)
{
    (void)signal_number;
    _exit(9);
}

static void second_sigint_with_a_handler(void)
{
    start();
    stop_on_second_interrupt(end_with_9);
    kill(getpid(), SIGINT);
    CHECK(stop_requested());
    kill(getpid(), SIGINT);
}

static void some_signals_end_the_program(void **state)
{
    (void)state;
    assert_int_equal(run_program(sigterm_before_the_server_is_ready), -SIGTERM);
    assert_int_equal(run_program(sigint_before_the_server_is_ready), -SIGINT);
    assert_int_equal(run_program(second_sigint), -SIGINT);
    assert_int_equal(run_program(second_sigint_with_a_handler), 9);
}

#ifdef __linux__
enum { NOT_PERMITTED = 77 };

/* Runs part() as process 1 of a new namespace, as in a container. */
static void run_as_process_1(void (*part)(void))
{
    int status = 0;

    if (syscall(SYS_unshare, CLONE_NEWPID) == -1)
        _exit(NOT_PERMITTED);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(getpid() == 1);
        part();
        _exit(DONE);
    }
    CHECK(pid != -1 && waitpid(pid, &status, 0) == pid);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : FAILED);
}

static void process_1_before_it_is_ready(void)
{
    run_as_process_1(sigterm_before_the_server_is_ready);
}

static void process_1_and_a_second_sigint(void)
{
    run_as_process_1(second_sigint);
}

/* The kernel ignores the default action of a signal to process 1. The program must end all the
 * same, with the exit status that a shell reports for the signal. */
static void process_1_ends_too(void **state)
{
    const char *preload = getenv("LD_PRELOAD");

    (void)state;
    if (preload != NULL && strstr(preload, "vgpreload") != NULL) {
        print_message("skipped: valgrind itself must be ended by the signal\n");
        skip();
    }
    const char *emulator = getenv("CHECK_EMULATED");
    if (emulator != NULL && *emulator != '\0') {
        print_message("skipped: process 1 would be the emulator\n");
        skip();
    }
    int status = run_program(process_1_before_it_is_ready);
    if (status == NOT_PERMITTED) {
        print_message("skipped: making a PID namespace is not permitted\n");
        skip();
    }
    assert_int_equal(status, 128 + SIGTERM);
    assert_int_equal(run_program(process_1_and_a_second_sigint), 128 + SIGINT);
}
#endif

/* ---- Time limits ------------------------------------------------------------------------- */

/* SIGALRM comes again and again, because one may come when no call is asleep. */
static void wait_for_three_alarms(void)
{
    start();
    struct pollfd wakeup = {.fd = stop_wakeup_fd(), .events = POLLIN};
    kill(getpid(), SIGTERM);
    for (int wakes = 0; wakes < 3; wakes++) {
        uint64_t count;
        for (int signals = 0; poll(&wakeup, 1, WAIT_MS) == -1 && signals < 3; signals++)
            ;
        CHECK(read(wakeup.fd, &count, sizeof count) == sizeof count);
        CHECK(stop_deadline_passed() == (wakes > 0));
    }
}

static void the_deadline_wakes_again_and_again(void **state)
{
    (void)state;
    assert_int_equal(run_program(wait_for_three_alarms), DONE);
}

static void set_alarms(void)
{
    start();
    kill(getpid(), SIGALRM); /* from the program that started us: exec keeps alarms */
    CHECK(!stop_deadline_passed() && !stop_requested() && !is_readable(stop_wakeup_fd()));
    CHECK(alarm(0) == 0);
    kill(getpid(), SIGTERM);
    CHECK(alarm(100) > 0);
    kill(getpid(), SIGTERM); /* does not put the deadline off */
    CHECK(alarm(0) > 50);
    kill(getpid(), SIGALRM);
    CHECK(stop_deadline_passed() && stop_requested());
}

static void only_the_first_request_sets_the_deadline(void **state)
{
    (void)state;
    assert_int_equal(run_program(set_alarms), DONE);
}

static void fork_at_a_stop(void)
{
    int status;

    start();
    stop_on_second_interrupt(end_with_9);
    kill(getpid(), SIGTERM);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(alarm(0) == 0); /* alarms are not inherited */
        stop_after_fork();
        CHECK(alarm(0) > 0);
        kill(getpid(), SIGINT);
        _exit(1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    kill(getpid(), SIGINT); /* the parent's handler is still its own */
}

static void fork_before_a_stop(void)
{
    start();
    stop_on_second_interrupt(end_with_9);
    stop_after_fork(); /* as in the child */
    CHECK(alarm(0) == 0);
    kill(getpid(), SIGINT);
    CHECK(stop_requested() && alarm(0) > 0);
    kill(getpid(), SIGINT);
}

static void a_child_has_its_own_deadline(void **state)
{
    (void)state;
    assert_int_equal(run_program(fork_at_a_stop), 9);
    assert_int_equal(run_program(fork_before_a_stop), -SIGINT);
}

/* ---- Waking a loop ----------------------------------------------------------------------- */

static void wake_often(void)
{
    start();
    stop_wake(); /* there is no descriptor yet: does nothing */
    int wakeup = stop_wakeup_fd();
    CHECK(!is_readable(wakeup));
    for (int i = 0; i < 70000; i++) /* more than a pipe holds */
        stop_wake();
    errno = ERANGE;
    stop_wake();
    CHECK(errno == ERANGE && is_readable(wakeup)); /* it keeps errno: handlers call it */
    stop_drain_wakeup();
    CHECK(!is_readable(wakeup));
    stop_drain_wakeup(); /* empty: does not block */
    for (int fd = 3; fd < 64; fd++)
        CHECK(fcntl(fd, F_GETFD) == -1 || fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static int count_descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 64; fd++)
        n += fcntl(fd, F_GETFD) != -1;
    return n;
}

/* A server that runs out of descriptors early needs each one. */
static void open_the_wakeup_descriptor(void)
{
    start();
    int before = count_descriptors();
    CHECK(stop_wakeup_fd() == stop_wakeup_fd());
    CHECK(count_descriptors() - before == DESCRIPTORS);
}

static void the_wakeup_needs_few_descriptors(void **state)
{
    (void)state;
    assert_int_equal(run_program(open_the_wakeup_descriptor), DONE);
}

static void waking_never_blocks(void **state)
{
    (void)state;
    assert_int_equal(run_program(wake_often), DONE);
}

static void do_nothing(int signal_number)
{
    (void)signal_number;
}

static void interrupt_a_read(void)
{
    const struct itimerval soon = {.it_value.tv_usec = 10000, .it_interval.tv_usec = 10000};
    int ends[2];
    char byte;

    stop_catch(SIGALRM, do_nothing);
    CHECK(pipe(ends) == 0);
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK(read(ends[0], &byte, 1) == -1 && errno == EINTR); /* with SA_RESTART it never ends */
}

static void a_caught_signal_interrupts_calls(void **state)
{
    (void)state;
    assert_int_equal(run_program(interrupt_a_read), DONE);
}

/* A leak sanitizer opens files at exit, after this. */
static void close_a_few(void)
{
    for (int fd = STDERR_FILENO + 1; fd < 16; fd++)
        close(fd);
}

static void run_out_of_descriptors(void)
{
    start();
    CHECK(atexit(close_a_few) == 0);
    while (dup(STDIN_FILENO) != -1)
        ;
    for (int i = 1; i < DESCRIPTORS; i++)
        close(STDERR_FILENO + i); /* one too few */
    log_init("server");
    stop_wakeup_fd();
}

static void without_descriptors_the_server_does_not_start(void **state)
{
    (void)state;
    assert_int_equal(run_program(run_out_of_descriptors), 1);
    assert_string_equal(err, "server: cannot make a wake-up descriptor: Too many open files\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_requests_a_stop),
        cmocka_unit_test(any_thread_sees_the_request),
        cmocka_unit_test(some_signals_end_the_program),
#ifdef __linux__
        cmocka_unit_test(process_1_ends_too),
#endif
        cmocka_unit_test(the_deadline_wakes_again_and_again),
        cmocka_unit_test(only_the_first_request_sets_the_deadline),
        cmocka_unit_test(a_child_has_its_own_deadline),
        cmocka_unit_test(waking_never_blocks),
        cmocka_unit_test(the_wakeup_needs_few_descriptors),
        cmocka_unit_test(a_caught_signal_interrupts_calls),
        cmocka_unit_test(without_descriptors_the_server_does_not_start),
    };

    return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
