/* stats.h: what was counted is told, whichever thread counted it, in both reports. */
#include "stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { TEXT_SIZE = 4096, MIB = 1024 * 1024 };

/* What the JSON says of a key, which stands there once. */
static double told(const char *key)
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

static void each_counter_is_told(void **state)
{
    double before;
    unsigned n = 0;

    (void)state;
#define COUNT(name)                     \
    before = told(#name);               \
    stats_add(&stats.name, 1000 * ++n); \
    stats_add(&stats.name, 1);          \
    assert_true(told(#name) - before == 1000 * n + 1);
    STATS_COUNTERS(COUNT)
#undef COUNT
    before = told("wait_events");
    double scanned = told("descriptors_scanned"), calls = told("wait_calls");
    stats_wait(3, 7);
    stats_wait(-1, -1);
    assert_true(told("wait_calls") - calls == 2);
    assert_true(told("wait_events") - before == 3);
    assert_true(told("descriptors_scanned") - scanned == 7);
}

static void clients_come_and_go(void **state)
{
    double served = told("clients_served");

    (void)state;
    for (int i = 0; i < 5; i++)
        stats_client_begin();
    for (int i = 0; i < 3; i++)
        stats_client_end();
    stats_client_begin();
    assert_int_equal(stats_clients(), 3);
    assert_true(told("clients_served") - served == 6);
    assert_true(told("clients_max") == 5);
}

/* A thread that counts, and ends when told to. */
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
    const double in = told("bytes_in"), created = told("threads_created");
    struct worker a, b, c;

    (void)state;
    assert_true(told("threads_max") == 1);
    begin(&a, 1);
    begin(&b, 10);
    begin(&c, 100);
    assert_true(told("bytes_in") - in == 111); /* of the living */
    end(&b);                                   /* from the middle of the list, */
    assert_true(told("bytes_in") - in == 111);
    end(&c); /* and from its end */
    assert_true(told("bytes_in") - in == 111);
    begin(&b, 1000);
    begin(&c, 10000);
    assert_true(told("bytes_in") - in == 11111);
    end(&a); /* and from its beginning */
    begin(&a, 100000);
    assert_true(told("bytes_in") - in == 111111);
    end(&a);
    end(&b);
    end(&c);
    assert_true(told("bytes_in") - in == 111111); /* of the dead */
    assert_true(told("threads_created") - created == 6);
    assert_true(told("threads_max") == 4);
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* More time in our code than in the kernel, and more naps than we were interrupted. */
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

static void the_cost_is_the_kernels(void **state)
{
    struct rusage before, after;

    (void)state;
    work_and_sleep(&before);
    double user = told("cpu_user_seconds"), system = told("cpu_system_seconds");
    double voluntary = told("voluntary_switches"), forced = told("involuntary_switches");
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

/* Bytes, and of memory that was used: a reservation costs nothing. */
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
    for (int i = 0; i < 2; i++) { /* by what /proc says, and without */
        double peak = told("peak_rss_bytes");
        assert_true(peak >= USED && peak < RESERVED);
        setrlimit(RLIMIT_NOFILE, &none);
    }
    setrlimit(RLIMIT_NOFILE, &limit);
    assert_int_equal(open_descriptors(), before);
    munmap(used, USED);
    munmap(reserved, RESERVED);
}

/* Whatever a person reads is what a program reads. */
static void both_reports_say_the_same(void **state)
{
    static const char *const keys[] = {
        "clients_served", "clients_max", "clients_refused",     "bytes_in",        "bytes_out",
        "accept_calls",   "recv_calls",  "recv_again",          "send_calls",      "send_short",
        "wait_calls",     "wait_events", "descriptors_scanned", "interest_changes"};
    enum { KEYS = sizeof keys / sizeof *keys };
    unsigned long long said[KEYS];
    double cpu, user, system, peak;
    long voluntary, involuntary;
    int threads;
    char text[TEXT_SIZE];
    struct rusage usage;

    (void)state;
    work_and_sleep(&usage); /* so that no two figures are alike */
    int n = stats_text(text, sizeof text);
    assert_int_equal(n, strlen(text));
    assert_int_equal(
        sscanf(text,
               "Clients: %llu served, %llu at most at once; %llu refused.\n"
               "Bytes: %llu in, %llu out.\n"
               "Calls: %llu accept; %llu recv, %llu of them EAGAIN; %llu send, %llu of them "
               "short or EAGAIN.\n"
               "Waits: %llu, reporting %llu events; %llu descriptors scanned, %llu interest "
               "changes.\n"
               "Cost: %lf ms CPU (%lf user + %lf system), %lf MiB resident at most;\n"
               " context switches: %ld voluntary, %ld involuntary; threads: %d at most.\n",
               &said[0], &said[1], &said[2], &said[3], &said[4], &said[5], &said[6], &said[7],
               &said[8], &said[9], &said[10], &said[11], &said[12], &said[13], &cpu, &user,
               &system, &peak, &voluntary, &involuntary, &threads),
        KEYS + 7);
    for (int i = 0; i < KEYS; i++) {
        double more = strcmp(keys[i], "send_short") == 0 ? told("send_again") : 0;
        assert_true((double)said[i] == told(keys[i]) + more);
        for (int j = 0; j < i; j++)
            assert_true(said[i] != said[j]);
    }
    assert_true(cpu > user + system - 0.2 && cpu < user + system + 0.2);
    assert_true(user >= seconds(usage.ru_utime) * 1e3 - 0.1);
    assert_true(user <= told("cpu_user_seconds") * 1e3 + 0.1);
    assert_true(system <= told("cpu_system_seconds") * 1e3 + 0.1);
    assert_true(threads == told("threads_max"));
    assert_true(voluntary >= usage.ru_nvcsw && involuntary >= usage.ru_nivcsw);
    assert_true((double)involuntary <= told("involuntary_switches"));
    assert_true(peak > 1 && peak <= told("peak_rss_bytes") / MIB + 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_counter_is_told), cmocka_unit_test(clients_come_and_go),
        cmocka_unit_test(threads_are_added_up), cmocka_unit_test(the_cost_is_the_kernels),
        cmocka_unit_test(the_peak_is_in_bytes), cmocka_unit_test(both_reports_say_the_same),
    };

    return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
