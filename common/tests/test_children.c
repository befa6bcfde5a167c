/* children.h: child processes are counted, reaped, and all end at a stop. */
#include "children.h"
#include "clock.h"
#include "log.h"
#include "program.h"
#include "stats.h"
#include "stop.h"
#include "stream.h"

#include <signal.h>
#include <sys/socket.h>
#include <time.h>

/* Where the linker has --wrap, this is the error of the next fork. */
static int fork_error;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
pid_t __real_fork(void);
pid_t __wrap_fork(void);
pid_t __wrap_fork(void)
{
    errno = fork_error;
    return fork_error != 0 ? -1 : __real_fork();
}
#ifdef __APPLE__ /* this linker has no --wrap: nothing calls the one above */
pid_t __real_fork(void)
{
    return fork();
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

enum { CHILDREN = 20 };

static const struct address peer = {.port = 7};

static void start_parent(void)
{
    start_server(ARGUMENTS("-q"));
    children_init(0);
    server_ready(&(struct address){0});
}

/* Counts a client in and forks a child for it. Returns what children_fork does. */
static pid_t fork_for_client(void)
{
    CHECK(server_admit(&peer));
    pid_t pid = children_fork();
    CHECK(pid != -1);
    return pid;
}

/* Waits until there are this many clients. SIGCHLD interrupts the poll. */
static void wait_for_clients(int count)
{
    for (int ms = 0; stats_clients() != count; ms += 10) {
        CHECK(ms < WAIT_MS);
        poll(NULL, 0, 10);
    }
}

/* The child has been reaped when its number is no process's any more. */
static void wait_until_reaped(pid_t pid)
{
    for (int ms = 0; kill(pid, 0) == 0; ms += 10) {
        CHECK(ms < WAIT_MS);
        poll(NULL, 0, 10);
    }
    CHECK(errno == ESRCH);
}

/* Ends a child as the server variant does. */
_Noreturn static void end_child(void)
{
    stats_child_report();
    server_disconnected(&peer);
    _exit(0);
}

/* Serves a client that sends nothing, until a stop. */
_Noreturn static void serve_until_stopped(void)
{
    int ends[2];
    char byte;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    CHECK(stream_recv(ends[0], &byte, 1) == -1 && errno == EINTR);
    end_child();
}

/* ---- Counting and reaping ---------------------------------------------------------------- */

static uint64_t total(const char *key)
{
    char text[TEXT_SIZE], name[64];

    CHECK(stats_json(text, sizeof text) < TEXT_SIZE);
    snprintf(name, sizeof name, "\"%s\": ", key);
    const char *found = strstr(text, name);
    CHECK(found != NULL);
    return strtoull(found + strlen(name), NULL, 10);
}

static void count_in_children(void)
{
    pid_t pids[CHILDREN];

    start_parent();
    stats_add(&stats.bytes_in, 1000); /* a child must not count them again */
    for (int i = 0; i < CHILDREN; i++) {
        pids[i] = fork_for_client();
        if (pids[i] == 0) {
            server_connected(&peer);
            stats_add(&stats.bytes_in, 1);
            end_child();
        }
    }
    for (int i = 0; i < CHILDREN; i++)
        wait_until_reaped(pids[i]);
    wait_for_clients(0);
    CHECK(total("bytes_in") == 1000 + CHILDREN);
    CHECK(total("clients_served") == CHILDREN);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

/* The report includes the CPU time of a child that has been reaped. */
static void burn_in_a_child(void)
{
    start_parent();
    pid_t pid = fork_for_client();
    if (pid == 0) {
        const clock_t limit = clock() + CLOCKS_PER_SEC / 5;
        while (clock() < limit)
            ;
        end_child();
    }
    wait_until_reaped(pid);
    char text[TEXT_SIZE];
    stats_json(text, sizeof text);
    CHECK(strtod(strstr(text, "cpu_user_seconds\": ") + 19, NULL) +
              strtod(strstr(text, "cpu_system_seconds\": ") + 21, NULL) >
          0.15);
}

static void children_count_for_their_parent(void **state)
{
    (void)state;
    assert_int_equal(run_program(burn_in_a_child), DONE);
    assert_int_equal(run_program(count_in_children), DONE);
    assert_string_equal(err, "");
}

/* One SIGCHLD stands for all children that end while it is blocked. */
static void reap_many(void)
{
    pid_t pids[CHILDREN];
    sigset_t blocked;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, NULL); /* as the program that started us may have done */
    start_parent();
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    for (int i = 0; i < CHILDREN; i++)
        if ((pids[i] = fork_for_client()) == 0)
            end_child();
    wait_for_clients(0); /* each has counted its end; now most are zombies */
    sigprocmask(SIG_UNBLOCK, &blocked, NULL);
    for (int i = 0; i < CHILDREN; i++)
        wait_until_reaped(pids[i]);
}

static void reap_one(void)
{
    sigset_t blocked;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, NULL); /* children_init must unblock it */
    start_parent();
    pid_t pid = fork_for_client();
    if (pid == 0)
        end_child();
    wait_until_reaped(pid);
    wait_for_clients(0);
    errno = ERANGE;
    kill(getpid(), SIGCHLD); /* the handler finds no child, but keeps errno */
    CHECK(errno == ERANGE && stats_clients() == 0);
}

static void ended_children_are_reaped(void **state)
{
    (void)state;
    assert_int_equal(run_program(reap_one), DONE);
    assert_int_equal(run_program(reap_many), DONE);
}

/* A child that is killed cannot count its client's end, so the parent does. */
static void kill_a_child(void)
{
    start_parent();
    pid_t killed = fork_for_client();
    if (killed == 0)
        serve_until_stopped();
    CHECK(stats_clients() == 1);
    pid_t other = fork_for_client();
    if (other == 0)
        serve_until_stopped();
    CHECK(stats_clients() == 2);
    kill(killed, SIGKILL);
    wait_until_reaped(killed);
    wait_for_clients(1);
    kill(getpid(), SIGCHLD); /* none has ended */
    CHECK(stats_clients() == 1);
    children_stop();
    CHECK(stats_clients() == 0);
}

/* It is killed after it has counted its client out, and before it has ended. */
static void kill_a_child_at_its_end(void)
{
    start_parent();
    pid_t pid = fork_for_client();
    if (pid == 0) {
        server_disconnected(&peer);
        kill(getpid(), SIGKILL);
    }
    wait_until_reaped(pid);
    CHECK(stats_clients() == 0);
    pid = fork_for_client(); /* in the same place: nothing is left there from the first */
    if (pid == 0)
        kill(getpid(), SIGKILL);
    wait_until_reaped(pid);
    CHECK(stats_clients() == 0);
    children_stop();
}

static void the_client_of_a_killed_child_counts_no_more(void **state)
{
    (void)state;
    assert_int_equal(run_program(kill_a_child), DONE);
    assert_int_equal(run_program(kill_a_child_at_its_end), DONE);
}

static void fail_to_fork(void)
{
    sigset_t mask;

    start_parent();
    fork_error = EAGAIN;
    CHECK(children_fork() == -1 && errno == EAGAIN);
    CHECK(total("clients_served") == 0);
    CHECK(sigprocmask(SIG_SETMASK, NULL, &mask) == 0);
    CHECK(!sigismember(&mask, SIGCHLD) && !sigismember(&mask, SIGINT));
    fork_error = 0;
    pid_t pid = fork_for_client();
    if (pid == 0)
        end_child();
    wait_until_reaped(pid);
    children_stop(); /* none is left: returns at once */
}

static void a_failed_fork_changes_nothing(void **state)
{
    (void)state;
#ifdef __APPLE__
    skip();
#endif
    assert_int_equal(run_program(fail_to_fork), DONE);
}

/* ---- Signals ----------------------------------------------------------------------------- */

static void report_in_a_child(void)
{
    sigset_t blocked;
    int status;

    start_parent();
    kill(getpid(), SIGUSR1); /* this report is the parent's, although the child is faster */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, NULL); /* so that we can ask how the child has ended */
    pid_t pid = children_fork();
    if (pid == 0) {
        sigset_t mask;
        server_report_if_asked();
        kill(getpid(), SIGUSR1);
        server_report_if_asked();
        CHECK(sigprocmask(SIG_SETMASK, NULL, &mask) == 0 && !sigismember(&mask, SIGINT));
        _exit(3);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 3);
    log_line("the child has ended");
    server_report_if_asked();
}

static void only_the_parent_reports(void **state)
{
    (void)state;
    assert_int_equal(run_program(report_in_a_child), DONE);
    const char *report = strstr(out, "Clients: "), *end = strstr(out, "the child has ended\n");
    assert_true(report != NULL && end != NULL && end < report);
    assert_null(strstr(report + 1, "Clients: "));
}

static void stop_children(void)
{
    start_parent();
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = fork_for_client();
        if (pid == 0) {
            stats_add(&stats.bytes_out, 1);
            serve_until_stopped();
        }
        if (i % 4 == 0)
            kill(pid, SIGSTOP); /* a suspended child must end, too */
    }
    kill(getpid(), SIGTERM);
    CHECK(stop_requested());
    children_stop();
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    CHECK(stats_clients() == 0);
    CHECK(total("bytes_out") == CHILDREN);
    kill(getpid(), SIGINT); /* too late for it to matter */
}

/* These end only when they are killed. */
static void stop_stubborn_children(void)
{
    start_parent();
    for (int i = 0; i < CHILDREN; i++)
        if (fork_for_client() == 0) {
            signal(SIGINT, SIG_IGN);
            signal(SIGTERM, SIG_IGN);
            log_line("child %d sleeps", i);
            for (;;)
                pause();
        }
    kill(getpid(), SIGINT);
    CHECK(stop_requested());
    log_line("stopping");
    children_stop();
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    CHECK(stats_clients() == 0);
}

static void all_children_end_at_a_stop(void **state)
{
    char text[32];

    (void)state;
    assert_int_equal(run_program(stop_children), DONE);
    struct program server = start_program(stop_stubborn_children);
    wait_for(&server, "stopping\n");
    for (int i = 0; i < CHILDREN; i++) {
        snprintf(text, sizeof text, "child %d sleeps\n", i);
        wait_for(&server, text);
    }
    kill(server.pid, SIGINT); /* the second one */
    assert_int_equal(end_program(&server), DONE);
}

/* ---- Workers ----------------------------------------------------------------------------- */

enum { WORKERS = 3 };

_Noreturn static void sleep_until_stopped(void *argument)
{
    CHECK(strcmp(argument, "argument") == 0);
    log_line("worker %d", (int)getpid());
    while (!stop_requested())
        poll(NULL, 0, WAIT_MS);
    stats_add(&stats.bytes_in, 1);
    stats_child_report();
    _exit(0);
}

static void keep_workers(void)
{
    char argument[] = "argument";

    start_server(ARGUMENTS("-q"));
    children_init(WORKERS);
    server_ready(&(struct address){0});
    children_keep(sleep_until_stopped, argument);
    children_stop();
    CHECK(total("bytes_in") == WORKERS);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

/* Waits for n lines of workers. Returns the process number in the last one. */
static pid_t wait_for_workers(const struct program *server, int n)
{
    const char *line;

    for (;;) {
        int found = 0;
        for (line = out; (line = strstr(line, "worker ")) != NULL && ++found < n; line++)
            ;
        if (line != NULL && strchr(line, '\n') != NULL)
            return atoi(line + strlen("worker "));
        assert_true(read_more(server->out, out));
    }
}

static void a_dead_worker_is_replaced(void **state)
{
    (void)state;
    struct program server = start_program(keep_workers);
    pid_t last = wait_for_workers(&server, WORKERS);
    const int64_t start = clock_ms();
    kill(last, SIGKILL);
    last = wait_for_workers(&server, WORKERS + 1);
    kill(last, SIGKILL);
    wait_for_workers(&server, WORKERS + 2);
    assert_true(clock_ms() - start >= CHILDREN_RESTART_MS); /* the second was too young */
    kill(server.pid, SIGTERM);
    assert_int_equal(end_program(&server), DONE);
    assert_non_null(strstr(err, "was ended by signal 9\n"));
    assert_null(strstr(err, "status"));
}

static void fail_to_start_workers(void)
{
    fork_error = EAGAIN;
    keep_workers();
}

static void workers_that_cannot_be_started_are_tried_again(void **state)
{
    (void)state;
#ifdef __APPLE__
    skip();
#endif
    struct program server = start_program(fail_to_start_workers);
    wait_for(&server, "Listening");
    while (strstr(err, "cannot start a worker: ") == NULL)
        assert_true(read_more(server.err, err));
    kill(server.pid, SIGTERM);
    assert_int_equal(end_program(&server), FAILED); /* no worker has counted a byte */
    assert_non_null(strstr(err, "false: total(\"bytes_in\") == WORKERS"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(children_count_for_their_parent),
        cmocka_unit_test(ended_children_are_reaped),
        cmocka_unit_test(the_client_of_a_killed_child_counts_no_more),
        cmocka_unit_test(a_failed_fork_changes_nothing),
        cmocka_unit_test(only_the_parent_reports),
        cmocka_unit_test(all_children_end_at_a_stop),
        cmocka_unit_test(a_dead_worker_is_replaced),
        cmocka_unit_test(workers_that_cannot_be_started_are_tried_again),
    };

    return cmocka_run_group_tests_name("children", tests, NULL, NULL);
}
