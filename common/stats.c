#include "stats.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { WORKERS_SHOWN = 32 }; /* in the report for people */

_Thread_local struct stats stats;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the next four */
static struct stats finished;                            /* the sum of the threads that ended */
static struct stats threads = {.prev = &threads,
                               .next = &threads}; /* running ones, in a ring */
static int threads_now = 1, threads_max = 1;

/* The clients that there are, and what children of this process have counted. A child counts
 * its clients in a place of its own: one variable, so that nothing is half done if the child is
 * killed at any moment. Then its parent sets that place to 0. */
struct shared {
    atomic_int clients; /* that no child has */
    atomic_int child_clients[STATS_CHILDREN_MAX];
    atomic_int clients_max;
    struct stats counted;
};
static struct shared own, *shared = &own; /* elsewhere after stats_share */
static bool is_child;
static int children;                      /* so many of child_clients[] are used */
static _Thread_local int this_child = -1; /* or worker; -1: neither */

/* What is known about a worker. Each has a cache line of its own. */
struct worker {
    _Alignas(64) atomic_uint_least64_t clients_served;
};
static struct worker *workers; /* [worker_count] */
static int worker_count;
static _Thread_local struct worker *this_worker; /* NULL: not a worker */

/* The totals at one moment: plain numbers, and what the kernel counted. */
struct totals {
#define TOTALS_FIELD(name) uint64_t name;
    STATS_COUNTERS(TOTALS_FIELD)
#undef TOTALS_FIELD
    int threads_max, clients_max;
    double cpu_user, cpu_system; /* seconds */
    long voluntary, involuntary; /* context switches */
    uint64_t peak_rss;           /* bytes */
};

static void add_up(struct stats *sum, struct stats *one)
{
#define ADD(name) stats_add(&sum->name, atomic_load_explicit(&one->name, memory_order_relaxed));
    STATS_COUNTERS(ADD)
#undef ADD
}

void stats_thread_begin(void)
{
    pthread_mutex_lock(&lock);
    stats_add(&stats.threads_created, 1);
    stats.prev = threads.prev;
    stats.next = &threads;
    stats.prev->next = stats.next->prev = &stats;
    if (++threads_now > threads_max)
        threads_max = threads_now;
    pthread_mutex_unlock(&lock);
}

void stats_thread_end(void)
{
    pthread_mutex_lock(&lock);
    stats.prev->next = stats.next;
    stats.next->prev = stats.prev;
    add_up(&finished, &stats);
    threads_now--;
    pthread_mutex_unlock(&lock);
}

/* Returns zeroed memory that child processes share, or NULL with errno. */
static void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

int stats_share(void)
{
    struct shared *memory = shared_memory(sizeof *memory);

    if (memory == NULL)
        return -1;
    memory->clients = own.clients;
    memory->clients_max = own.clients_max;
    shared = memory;
    return 0;
}

void stats_child_begin(void)
{
    memset(&stats, 0, sizeof stats);
    is_child = true;
}

void stats_child_report(void)
{
    if (!is_child)
        return;
#define GIVE(name) atomic_fetch_add(&shared->counted.name, stats.name);
    STATS_COUNTERS(GIVE)
#undef GIVE
    memset(&stats, 0, sizeof stats);
}

void stats_child_clients(int number, int change)
{
    if (number >= children)
        children = number + 1;
    atomic_fetch_sub(&shared->clients, change);
    atomic_fetch_add(&shared->child_clients[number], change);
}

void stats_child_number(int number)
{
    this_child = number;
}

void stats_child_ended(int number)
{
    shared->child_clients[number] = 0;
}

int stats_workers(int n)
{
    workers = shared_memory((size_t)n * sizeof *workers);
    worker_count = children = workers == NULL ? 0 : n;
    return workers == NULL ? -1 : 0;
}

void stats_worker_begin(int number)
{
    this_child = number;
    this_worker = &workers[number];
}

void stats_client_served(void)
{
    stats_add(&stats.clients_served, 1);
    if (this_worker != NULL)
        atomic_fetch_add(&this_worker->clients_served, 1);
}

static atomic_int *my_clients(void)
{
    return this_child == -1 ? &shared->clients : &shared->child_clients[this_child];
}

/* Several may ask at the same moment for the last place, and all of them find too many. Then
 * each takes itself out and looks again, so one of them gets it. */
bool stats_client_begin(int limit)
{
    int max = shared->clients_max;

    do {
        atomic_fetch_add(my_clients(), 1);
        const int now = stats_clients();
        if (now <= limit) {
            while (now > max && !atomic_compare_exchange_weak(&shared->clients_max, &max, now))
                ;
            return true;
        }
        atomic_fetch_sub(my_clients(), 1);
    } while (stats_clients() < limit);
    return false;
}

void stats_client_end(void)
{
    atomic_fetch_sub(my_clients(), 1);
}

int stats_clients(void)
{
    int sum = shared->clients;

    for (int i = 0; i < children; i++)
        sum += shared->child_clients[i];
    return sum;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* Returns bytes. On Linux ru_maxrss survives exec, so a server started by a large program would
 * report that program's size. VmHWM is the server's own (proc_pid_status(5)). */
static uint64_t peak_rss(const struct rusage *usage)
{
    char text[4096], *line;
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd == -1 ? 0 : read(fd, text, sizeof text - 1);

    if (fd != -1)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    if ((line = strstr(text, "VmHWM:")) != NULL)
        return strtoull(line + strlen("VmHWM:"), NULL, 10) * 1024;
#ifdef __APPLE__
    return (uint64_t)usage->ru_maxrss;
#else
    return (uint64_t)usage->ru_maxrss * 1024;
#endif
}

/* Called from the first thread, whose own counters are not in the list. */
static struct totals take_totals(void)
{
    struct stats sum = {0};
    struct totals t;
    struct rusage usage;

    pthread_mutex_lock(&lock);
    add_up(&sum, &finished);
    add_up(&sum, &stats);
    add_up(&sum, &shared->counted);
    for (struct stats *one = threads.next; one != &threads; one = one->next)
        add_up(&sum, one);
    t.threads_max = threads_max;
    t.clients_max = shared->clients_max;
    pthread_mutex_unlock(&lock);
#define TAKE(name) t.name = atomic_load_explicit(&sum.name, memory_order_relaxed);
    STATS_COUNTERS(TAKE)
#undef TAKE
    getrusage(RUSAGE_SELF, &usage);
    t.cpu_user = seconds(usage.ru_utime);
    t.cpu_system = seconds(usage.ru_stime);
    t.voluntary = usage.ru_nvcsw;
    t.involuntary = usage.ru_nivcsw;
    t.peak_rss = peak_rss(&usage);
    if (shared == &own)
        return t;
    getrusage(RUSAGE_CHILDREN, &usage); /* those that were reaped */
    t.cpu_user += seconds(usage.ru_utime);
    t.cpu_system += seconds(usage.ru_stime);
    t.voluntary += usage.ru_nvcsw;
    t.involuntary += usage.ru_nivcsw;
    return t;
}

/* Appends to a text of n bytes. Returns the length, as snprintf does. */
__attribute__((format(printf, 4, 5))) static int append(char *text, size_t size, int n,
                                                        const char *format, ...)
{
    const bool fits = (size_t)n < size;
    va_list arguments;

    va_start(arguments, format);
    n += vsnprintf(fits ? text + n : NULL, fits ? size - (size_t)n : 0, format, arguments);
    va_end(arguments);
    return n;
}

/* Appends how many clients the first workers have served, `most` at most. */
static int append_workers(char *text, size_t size, int n, int most)
{
    for (int i = 0; i < worker_count && i < most; i++)
        n = append(text, size, n, "%s%" PRIu64, i == 0 ? "" : ", ",
                   (uint64_t)workers[i].clients_served);
    return n;
}

int stats_text(char *text, size_t size)
{
    struct totals t = take_totals();
    char waits[200] = ""; /* servers that block in recv count none */

    if (t.wait_calls > 0)
        snprintf(waits, sizeof waits,
                 "Waits: %" PRIu64 ", reporting %" PRIu64 " events; %" PRIu64
                 " descriptors scanned, %" PRIu64 " interest changes.\n",
                 t.wait_calls, t.wait_events, t.descriptors_scanned, t.interest_changes);
    int n = snprintf(text, size,
                     "Clients: %" PRIu64 " served, %d at most at once; %" PRIu64 " rejected.\n"
                     "Bytes: %" PRIu64 " in, %" PRIu64 " out.\n"
                     "Calls: %" PRIu64 " accept; %" PRIu64 " recv, %" PRIu64
                     " of them EAGAIN; %" PRIu64 " send, %" PRIu64 " of them short or EAGAIN.\n"
                     "%s"
                     "Cost: %.1f ms CPU (%.1f user + %.1f system), %.1f MiB resident at most;\n"
                     "      context switches: %ld voluntary, %ld involuntary; threads: %d at "
                     "most.\n",
                     t.clients_served, t.clients_max, t.clients_rejected, t.bytes_in,
                     t.bytes_out, t.accept_calls, t.recv_calls, t.recv_again, t.send_calls,
                     t.send_short + t.send_again, waits, (t.cpu_user + t.cpu_system) * 1e3,
                     t.cpu_user * 1e3, t.cpu_system * 1e3, (double)t.peak_rss / (1 << 20),
                     t.voluntary, t.involuntary, t.threads_max);
    if (worker_count == 0)
        return n;
    n = append(text, size, n, "Clients served by each of %d workers: ", worker_count);
    n = append_workers(text, size, n, WORKERS_SHOWN);
    return append(text, size, n, worker_count > WORKERS_SHOWN ? ", ...\n" : ".\n");
}

int stats_json(char *text, size_t size)
{
    struct totals t = take_totals();

#define KEY(name)   "  \"" #name "\": %" PRIu64 ",\n"
#define VALUE(name) t.name,
    int n = snprintf(text, size,
                     "{\n" STATS_COUNTERS(KEY) "  \"clients_refused\": %" PRIu64 ",\n"
                                               "  \"threads_max\": %d,\n"
                                               "  \"clients_max\": %d,\n"
                                               "  \"cpu_user_seconds\": %.6f,\n"
                                               "  \"cpu_system_seconds\": %.6f,\n"
                                               "  \"voluntary_switches\": %ld,\n"
                                               "  \"involuntary_switches\": %ld,\n"
                                               "  \"peak_rss_bytes\": %" PRIu64,
                     STATS_COUNTERS(VALUE) t.clients_rejected, t.threads_max, t.clients_max,
                     t.cpu_user, t.cpu_system, t.voluntary, t.involuntary, t.peak_rss);
#undef KEY
#undef VALUE
    if (worker_count > 0) {
        n = append(text, size, n, ",\n  \"workers\": [");
        n = append_workers(text, size, n, worker_count);
        n = append(text, size, n, "]");
    }
    return append(text, size, n, "\n}\n");
}
