#include "server.h"
#include "activation.h"
#include "clock.h"
#include "log.h"
#include "stats.h"
#include "stop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    FEW_DESCRIPTORS = 1024, /* a lower limit deserves a warning */
    REST_MS = 10,           /* after a wait that failed: the next may fail, too */
};

static int stats_fd = -1; /* where --stats goes if it is a file */
static pthread_t first_thread;
static atomic_bool report_asked;

/* ---- Start ------------------------------------------------------------------------------- */

/* If the server is started with descriptor 1 closed, the listener would get number 1, and log
 * lines would be sent to it. A socket stands in where there is no /dev/null. */
static void open_standard_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
        if (fd == -1)
            fd = socket(AF_UNIX, SOCK_STREAM, 0);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

static void ask_for_report(int signal_number)
{
    (void)signal_number;
    report_asked = true;
    stop_wake();
}

void server_start(int argc, char **argv, const struct step_option *more)
{
    first_thread = pthread_self();
    stop_init(); /* first: process 1 of a container cannot be ended without it */
    open_standard_descriptors();
    log_init(argc > 0 ? argv[0] : NULL);
    options_parse(argc, argv, more);
    const char *path = options->stats_path;
    if (path != NULL && strcmp(path, "-") != 0) {
        stats_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
        if (stats_fd == -1)
            log_die("cannot write '%s': %s", path, strerror(errno));
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log file that may not grow must not end the server */
    stop_catch(SIGUSR1, ask_for_report);
}

_Noreturn static void cannot_listen(const char *why)
{
    bool ipv6 = strchr(options->bind, ':') != NULL;

    log_die("cannot listen on %s%s%s:%s: %s", ipv6 ? "[" : "", options->bind, ipv6 ? "]" : "",
            options->port, why);
}

void server_listen(struct net_listener *listener)
{
    const char *why;
    int passed = activation_socket(&why);

    if (passed == -1 && why != NULL)
        log_die("cannot take a socket from the service manager: %s", why);
    if (passed != -1) {
        if (net_listen_passed(listener, passed, &why) == -1)
            log_die("cannot listen on descriptor %d (LISTEN_FDS): %s", passed, why);
    } else if (net_listen(listener, options->bind, options->port, &why) == -1)
        cannot_listen(why);
}

void server_ready(const struct address *address)
{
    char host[ADDRESS_HOST_SIZE];
    bool ipv6 = strchr(address_host(address, host), ':') != NULL;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < FEW_DESCRIPTORS)
        log_warn(
            "room for fewer than %d clients: that many descriptors are allowed (ulimit -n)",
            (int)limit.rlim_cur);
    stop_gracefully();
    log_line("Listening on %s%s%s:%u", ipv6 ? "[" : "", host, ipv6 ? "]" : "",
             (unsigned)address->port);
    if (activation_notify("READY=1") == -1)
        log_warn("cannot notify '%s' (NOTIFY_SOCKET): %s", getenv("NOTIFY_SOCKET"),
                 strerror(errno));
    server_report_if_asked();
}

/* ---- Clients ----------------------------------------------------------------------------- */

static void log_client(const struct address *peer, const char *what)
{
    char host[ADDRESS_HOST_SIZE];

    log_line("peer (%s, %u) %s", address_host(peer, host), (unsigned)peer->port, what);
}

/* A flood of rejections, or of errors, must not become a flood of lines. Returns whether a
 * second has passed since *last. If so, sets *last to the present time. */
static bool is_time_to_log(_Atomic int64_t *last)
{
    const int64_t now = clock_ms();
    int64_t before = *last;

    return (before == 0 || now - before >= 1000) &&
           atomic_compare_exchange_strong(last, &before, now); /* other threads try, too */
}

/* Rejections: when one was logged last, and how many were not logged since. */
struct rejections {
    _Atomic int64_t last;
    atomic_uint not_logged;
};
static struct rejections own, *rejections = &own; /* shared memory after server_share */

int server_share(void)
{
    void *memory = mmap(NULL, sizeof *rejections, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return -1;
    rejections = memory;
    return stats_share();
}

void server_not_admitted(const struct address *peer, const char *why)
{
    char what[200];

    stats_add(&stats.clients_rejected, 1);
    stats_child_report();
    if (!is_time_to_log(&rejections->last)) {
        rejections->not_logged++;
        return;
    }
    int n = snprintf(what, sizeof what, "rejected: %s", why);
    unsigned more = atomic_exchange(&rejections->not_logged, 0);
    if (more > 0 && n > 0 && (size_t)n < sizeof what)
        snprintf(what + n, sizeof what - (size_t)n, " (and %u more before)", more);
    log_client(peer, what);
}

/* For the last rejections of a flood: no later line says how many were not logged. */
static void log_more_rejections(void)
{
    unsigned more = atomic_exchange(&rejections->not_logged, 0);

    if (more > 0)
        log_line("%u more rejected since the last one that was logged", more);
}

void server_rejected(const struct address *peer, const char *why)
{
    stats_client_end();
    server_not_admitted(peer, why);
}

void server_reject(int fd, const struct address *peer, const char *why)
{
    server_rejected(peer, why);
    close(fd);
}

bool server_admit(const struct address *peer)
{
    if (stats_client_begin(options->max_clients))
        return true;
    server_not_admitted(peer, "--max-clients reached");
    return false;
}

int server_accept(struct net_listener *listener, struct address *peer)
{
    static _Atomic int64_t last;
    int fd = net_accept(listener, peer);

    if (fd == NET_REJECTED) {
        server_not_admitted(peer, strerror(errno));
    } else if (fd == -1) {
        int error = errno;
        if (!net_is_again(error) && error != EINTR && error != ECONNABORTED &&
            !stop_requested() && is_time_to_log(&last))
            log_warn("accept failed: %s", strerror(error));
        errno = error;
        return -1;
    } else if (server_admit(peer)) {
        return fd;
    } else {
        close(fd);
    }
    errno = ECONNABORTED;
    return -1;
}

void server_connected(const struct address *peer)
{
    stats_client_served();
    stats_child_report();
    if (!options->quiet)
        log_client(peer, "connected");
}

void server_disconnected(const struct address *peer)
{
    stats_client_end();
    stats_child_report();
    if (!options->quiet)
        log_client(peer, "disconnected");
}

/* ---- The report -------------------------------------------------------------------------- */

static bool write_all(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t written = write(fd, text, n);
        if (written == -1 && errno != EINTR)
            return false;
        text += written > 0 ? written : 0;
        n -= written > 0 ? (size_t)written : 0;
    }
    return true;
}

static bool write_json(const char *json, size_t n, int ms)
{
    if (options->stats_path == NULL)
        return true;
    if (stats_fd == -1)
        return log_write(STDOUT_FILENO, json, n, ms);
    /* A second report replaces the first, where that is possible. It is written over the first
     * before the rest is cut off, so that the file is never empty. */
    lseek(stats_fd, 0, SEEK_SET);
    return write_all(stats_fd, json, n) &&
           (ftruncate(stats_fd, (off_t)n) == 0 || errno == EINVAL);
}

/* Writes the text as a part of the log. JSON on standard output may wait ms milliseconds for
 * its reader. */
static bool report(int ms)
{
    char text[STATS_REPORT_SIZE];

    log_more_rejections();
    log_write(STDOUT_FILENO, text, (size_t)stats_text(text, sizeof text), 0);
    if (write_json(text, (size_t)stats_json(text, sizeof text), ms))
        return true;
    log_warn("cannot write '%s': %s", stats_fd == -1 ? "standard output" : options->stats_path,
             strerror(errno));
    return false;
}

void server_report_if_asked(void)
{
    while (report_asked && pthread_equal(pthread_self(), first_thread)) {
        report_asked = false; /* first: SIGUSR1 may come again meanwhile */
        report(0);
        stop_drain_wakeup();
    }
}

void server_never_report(void)
{
    signal(SIGUSR1, SIG_IGN);
    report_asked = false;
}

void server_waited(int events, int scanned)
{
    static _Atomic int64_t last;
    const int error = errno;

    if (events == -1 && error != EINTR) {
        if (is_time_to_log(&last))
            log_warn("cannot wait for clients: %s", strerror(error));
        nanosleep(&(struct timespec){.tv_nsec = REST_MS * 1000000L}, NULL);
    }
    stats_wait(events, scanned);
    server_report_if_asked();
}

void server_watched(int changes)
{
    stats_add(&stats.interest_changes, (uint64_t)changes);
}

int server_finish(void)
{
    alarm(0); /* it would interrupt the last write */
    return report(STOP_GRACE_MS) ? 0 : 1;
}
