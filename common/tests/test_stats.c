/* stats.h: both reports have what was counted, in whichever thread or child process. */
#include "stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT_SIZE = 4096, MIB = 1024 * 1024 };

/* Returns the value of a key in the JSON report, where it must stand once. */
static double reported(const char *key)
{
    char text[TEXT_SIZE], name[64];
    int n = stats_json(text, sizeof text);

    assert_in_range(n, 1, sizeof text - 1);
    assert_int_equal(n, strlen(text));
    snprintf(name, sizeof name, "  \"%s\": ", key);
    const char *found = strstr(text, name);
    assert_non_null(found);
    assert_null(strstr(found + 1, name));
    return strtod(found + strlen(name), NULL);
}

static void each_counter_is_reported(void **state)
{
    double before;
    unsigned n = 0;

    (void)state;
#define COUNT(name)                     \
    before = reported(#name);           \
    stats_add(&stats.name, 1000 * ++n); \
    stats_add(&stats.name, 1);          \
    assert_true(reported(#name) - before == 1000 * n + 1);
    STATS_COUNTERS(COUNT)
#undef COUNT
    before = reported("wait_events");
    double scanned = reported("descriptors_scanned"), calls = reported("wait_calls");
    stats_wait(3, 7);
    stats_wait(-1, -1);
    assert_true(reported("wait_calls") - calls == 2);
    assert_true(reported("wait_events") - before == 3);
    assert_true(reported("descriptors_scanned") - scanned == 7);
}

static void clients_are_counted(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        stats_client_begin(INT_MAX);
    for (int i = 0; i < 3; i++)
        stats_client_end();
    stats_client_begin(INT_MAX);
    assert_int_equal(stats_clients(), 3);
    assert_true(reported("clients_max") == 5);
}

/* A thread that counts, and ends when end() tells it. */
struct worker {
    pthread_t thread;
    int counted[2], end[2]; /* pipes */
    unsigned n;
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    char byte;

    stats_thread_begin();
    stats_add(&stats.bytes_in, worker->n);
    (void)!write(worker->counted[1], "", 1);
    (void)!read(worker->end[0], &byte, 1);
    stats_thread_end();
    return NULL;
}

static void begin(struct worker *worker, unsigned n)
{
    char byte;

    worker->n = n;
    assert_int_equal(pipe(worker->counted) | pipe(worker->end), 0);
    assert_int_equal(pthread_create(&worker->thread, NULL, work, worker), 0);
    assert_int_equal(read(worker->counted[0], &byte, 1), 1);
}

static void end(struct worker *worker)
{
    assert_int_equal(write(worker->end[1], "", 1), 1);
    pthread_join(worker->thread, NULL);
    for (int i = 0; i < 2; i++) {
        close(worker->counted[i]);
        close(worker->end[i]);
    }
}

static void threads_are_added_up(void **state)
{
    const double in = reported("bytes_in"), created = reported("threads_created");
    struct worker a, b, c;

    (void)state;
    assert_true(reported("threads_max") == 1);
    begin(&a, 1);
    begin(&b, 10);
    begin(&c, 100);
    assert_true(reported("bytes_in") - in == 111); /* of running threads */
    end(&b);                                       /* one from the middle of the list, */
    assert_true(reported("bytes_in") - in == 111);
    end(&c); /* one from its end */
    assert_true(reported("bytes_in") - in == 111);
    begin(&b, 1000);
    begin(&c, 10000);
    assert_true(reported("bytes_in") - in == 11111);
    end(&a); /* one from its beginning */
    begin(&a, 100000);
    assert_true(reported("bytes_in") - in == 111111);
    end(&a);
    end(&b);
    end(&c);
    assert_true(reported("bytes_in") - in == 111111); /* of ended threads */
    assert_true(reported("threads_created") - created == 6);
    assert_true(reported("threads_max") == 4);
}

/* An older name of the counter, for programs that read it. */
static void rejected_clients_have_two_keys(void **state)
{
    (void)state;
    stats_add(&stats.clients_rejected, 3);
    assert_true(reported("clients_rejected") >= 3);
    assert_true(reported("clients_refused") == reported("clients_rejected"));
}

static void count_in_a_child(void)
{
    stats_child_begin();
    stats_add(&stats.bytes_in, 5);
    stats_add(&stats.clients_served, 1);
    stats_child_report();
    stats_add(&stats.bytes_in, 1000000); /* too late: its client may have seen the end */
    stats_client_end();
    _exit(0);
}

/* stats_client_end only changes lock-free atomics. */
static void on_signal(int signal_number)
{
    (void)signal_number;
    stats_client_end(); /* NOLINT(bugprone-signal-handler,cert-sig30-c) */
}

static void children_are_added_up(void)
{
    enum { CHILDREN = 4 };
    const double in = reported("bytes_in"), out = reported("bytes_out"),
                 served = reported("clients_served");
    const int clients = stats_clients();

    if (stats_share() == -1)
        abort();
    stats_add(&stats.bytes_in, 100);
    stats_add(&stats.bytes_out, 1); /* before and after: a child must not count it again */
    for (int i = 0; i < CHILDREN; i++)
        stats_client_begin(INT_MAX);
    const double most = reported("clients_max");
    for (int i = 0; i < CHILDREN; i++)
        if (fork() == 0)
            count_in_a_child();
    while (wait(NULL) > 0)
        ;
    if (stats_clients() != clients || reported("clients_max") != most ||
        most != clients + CHILDREN)
        _exit(1);
    if (reported("bytes_in") - in != 100 + 5 * CHILDREN || reported("bytes_out") - out != 1 ||
        reported("clients_served") - served != CHILDREN)
        _exit(2);
    stats_client_begin(INT_MAX);
    signal(SIGUSR1, on_signal);
    kill(getpid(), SIGUSR1); /* a handler may count a client out */
    stats_client_begin(INT_MAX);
    if (stats_clients() != clients + 1 || reported("clients_max") != most)
        _exit(3);
    _exit(0);
}

/* In a process of its own, because sharing cannot be undone. */
static void children_count_for_their_parent(void **state)
{
    int status;

    (void)state;
    pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0)
        children_are_added_up();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* Spends more time in our code than in the kernel, and sleeps more often than the kernel
 * switches to another thread against our will. */
static void work_and_sleep(struct rusage *usage)
{
    for (;;) {
        getrusage(RUSAGE_SELF, usage);
        bool worked = seconds(usage->ru_utime) > seconds(usage->ru_stime) + 0.02;
        if (worked && usage->ru_nvcsw > usage->ru_nivcsw + 20)
            return;
        if (worked)
            poll(NULL, 0, 1);
        for (volatile unsigned j = 0; j < 1000000 && !worked; j++)
            ;
    }
}

static void the_limit_of_clients_is_kept(void **state)
{
    const int before = stats_clients();

    (void)state;
    assert_true(stats_client_begin(before + 1));
    assert_false(stats_client_begin(before + 1));
    assert_int_equal(stats_clients(), before + 1);
    stats_client_end();
    assert_true(stats_client_begin(before + 1));
    stats_client_end();
}

/* In a process of its own, because workers cannot be taken back. */
static void count_in_workers(void)
{
    enum { WORKERS = 3 };
    static char text[STATS_REPORT_SIZE];

    const int before = stats_clients();
    const double served = reported("clients_served");

    if (stats_share() == -1 || stats_workers(WORKERS) == -1)
        _exit(2);
    for (int i = 0; i < WORKERS; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            stats_child_begin();
            stats_worker_begin(i);
            for (int n = 0; n < 10 * i; n++) {
                stats_client_begin(INT_MAX);
                stats_client_served();
                if (n > 0) /* one client stays */
                    stats_client_end();
            }
            stats_child_report();
            _exit(0);
        }
        waitpid(pid, NULL, 0);
    }
    if (stats_clients() != before + 2)
        _exit(3);
    stats_child_ended(0);
    stats_child_ended(2);
    if (stats_clients() != before + 1)
        _exit(4);
    stats_json(text, sizeof text);
    if (strstr(text, ",\n  \"workers\": [0, 10, 20]\n}\n") == NULL ||
        reported("clients_served") != served + 30)
        _exit(5);
    int n = stats_text(text, sizeof text);
    if (strstr(text, "Clients served by each of 3 workers: 0, 10, 20.\n") == NULL)
        _exit(6);
    int whole = stats_text(text, 10); /* cut, but the length is told; times have changed */
    if (abs(whole - n) > 4 || strlen(text) != 9)
        _exit(7);
    _exit(0);
}

static void list_many_workers(void)
{
    static char text[STATS_REPORT_SIZE];

    if (stats_share() == -1 || stats_workers(STATS_WORKERS_MAX) == -1)
        _exit(2);
    for (int i = 0; i < STATS_WORKERS_MAX; i++) {
        stats_worker_begin(i);
        stats_client_served();
    }
    int json = stats_json(text, sizeof text);
    if (json >= STATS_REPORT_SIZE || strstr(text, ", 1, 1]\n}\n") == NULL)
        _exit(3);
    stats_text(text, sizeof text);
    _exit(strstr(text, " 4096 workers: 1, 1, ") != NULL && strstr(text, "1, ...\n") != NULL
              ? 0
              : 4);
}

static int status_in_a_child(void (*part)(void))
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        part();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void workers_are_listed(void **state)
{
    char text[TEXT_SIZE];

    (void)state;
    stats_json(text, sizeof text);
    assert_null(strstr(text, "workers"));
    stats_text(text, sizeof text);
    assert_null(strstr(text, "workers"));
    assert_int_equal(status_in_a_child(count_in_workers), 0);
    assert_int_equal(status_in_a_child(list_many_workers), 0);
}

static void the_cost_is_what_the_kernel_counts(void **state)
{
    struct rusage before, after;

    (void)state;
    work_and_sleep(&before);
    double user = reported("cpu_user_seconds"), system = reported("cpu_system_seconds");
    double voluntary = reported("voluntary_switches"),
           forced = reported("involuntary_switches");
    getrusage(RUSAGE_SELF, &after);
    assert_true(user >= seconds(before.ru_utime) - 1e-6);
    assert_true(user <= seconds(after.ru_utime) + 1e-6);
    assert_true(system >= seconds(before.ru_stime) - 1e-6);
    assert_true(system <= seconds(after.ru_stime) + 1e-6);
    assert_true(voluntary >= (double)before.ru_nvcsw && voluntary <= (double)after.ru_nvcsw);
    assert_true(forced >= (double)before.ru_nivcsw && forced <= (double)after.ru_nivcsw);
}

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 64; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

/* Only memory that was used counts: a reservation costs nothing. */
static void the_peak_is_in_bytes(void **state)
{
    enum { USED = 32 * MIB, RESERVED = 1024 * MIB };
    struct rlimit limit, none;

    (void)state;
    void *reserved = mmap(NULL, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(reserved != MAP_FAILED);
    void *used = mmap(NULL, USED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(used != MAP_FAILED);
    memset(used, 1, USED);
    const int before = open_descriptors();
    getrlimit(RLIMIT_NOFILE, &limit);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    for (int i = 0; i < 2; i++) { /* with /proc, and without */
        double peak = reported("peak_rss_bytes");
        assert_true(peak >= USED && peak < RESERVED);
        setrlimit(RLIMIT_NOFILE, &none);
    }
    setrlimit(RLIMIT_NOFILE, &limit);
    assert_int_equal(open_descriptors(), before);
    munmap(used, USED);
    munmap(reserved, RESERVED);
}

/* The report for people and the JSON report have the same numbers. */
static void both_reports_agree(void **state)
{
    static const char *const keys[] = {
        "clients_served", "clients_max", "clients_rejected",    "bytes_in",        "bytes_out",
        "accept_calls",   "recv_calls",  "recv_again",          "send_calls",      "send_short",
        "wait_calls",     "wait_events", "descriptors_scanned", "interest_changes"};
    enum { KEYS = sizeof keys / sizeof *keys };
    unsigned long long values[KEYS];
    double cpu, user, system, peak;
    long voluntary, involuntary;
    int threads;
    char text[TEXT_SIZE];
    struct rusage usage;

    (void)state;
    work_and_sleep(&usage); /* so that no two numbers are equal */
    int n = stats_text(text, sizeof text);
    assert_int_equal(n, strlen(text));
    assert_int_equal(
        sscanf(text,
               "Clients: %llu served, %llu at most at once; %llu rejected.\n"
               "Bytes: %llu in, %llu out.\n"
               "Calls: %llu accept; %llu recv, %llu of them EAGAIN; %llu send, %llu of them "
               "short or EAGAIN.\n"
               "Waits: %llu, reporting %llu events; %llu descriptors scanned, %llu interest "
               "changes.\n"
               "Cost: %lf ms CPU (%lf user + %lf system), %lf MiB resident at most;\n"
               " context switches: %ld voluntary, %ld involuntary; threads: %d at most.\n",
               &values[0], &values[1], &values[2], &values[3], &values[4], &values[5],
               &values[6], &values[7], &values[8], &values[9], &values[10], &values[11],
               &values[12], &values[13], &cpu, &user, &system, &peak, &voluntary, &involuntary,
               &threads),
        KEYS + 7);
    for (int i = 0; i < KEYS; i++) {
        double more = strcmp(keys[i], "send_short") == 0 ? reported("send_again") : 0;
        assert_true((double)values[i] == reported(keys[i]) + more);
        for (int j = 0; j < i; j++)
            assert_true(values[i] != values[j]);
    }
    assert_true(cpu > user + system - 0.2 && cpu < user + system + 0.2);
    assert_true(user >= seconds(usage.ru_utime) * 1e3 - 0.1);
    assert_true(user <= reported("cpu_user_seconds") * 1e3 + 0.1);
    assert_true(system <= reported("cpu_system_seconds") * 1e3 + 0.1);
    assert_true(threads == reported("threads_max"));
    assert_true(voluntary >= usage.ru_nvcsw && involuntary >= usage.ru_nivcsw);
    assert_true((double)involuntary <= reported("involuntary_switches"));
    assert_true(peak > 1 && peak <= reported("peak_rss_bytes") / MIB + 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_counter_is_reported),
        cmocka_unit_test(clients_are_counted),
        cmocka_unit_test(threads_are_added_up),
        cmocka_unit_test(rejected_clients_have_two_keys),
        cmocka_unit_test(children_count_for_their_parent),
        cmocka_unit_test(the_limit_of_clients_is_kept),
        cmocka_unit_test(workers_are_listed),
        cmocka_unit_test(the_cost_is_what_the_kernel_counts),
        cmocka_unit_test(the_peak_is_in_bytes),
        cmocka_unit_test(both_reports_agree),
    };

    return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
