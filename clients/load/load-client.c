/* load-client - puts load on an echo server, verifies every byte of its answers, and measures.
 *
 *     main thread                 worker threads, one ae loop each
 *     -----------                 --------------------------------
 *     options, limits
 *     start the workers --------> open connections, wait for greetings
 *     wait until all are ready
 *     go(start, begin, end) ----> warm-up | measured window | missing answers
 *     watch: progress, CSV          ^start  ^begin          ^end
 *     stop, add up, report
 *
 * Closed loop: a connection sends its next message after the answer to the last one, so a slow
 * server receives fewer messages. Open loop: messages are due by a schedule that does not wait
 * for the server, and latency counts from when a message was due.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "load_options.h"
#include "load_process.h"
#include "load_report.h"
#include "load_worker.h"

static const double STALL = 1;    /* seconds without progress until we stop waiting */
static const double PATIENCE = 3; /* seconds for a first connection, or a first greeting; for
                                   * the answers that are missing when the window ends */
enum { TICK = 10 };               /* milliseconds between two looks at the workers */

struct load {
    struct load_options options;
    struct load_plan plan;
    struct worker *workers[THREADS_MAX];
    unsigned started; /* of them */
    struct load_result result;
    FILE *json, *csv, *hgrm; /* NULL: not asked for */
    struct hist *spare,
        *interval;         /* for the CSV: one to swap with a worker's, one to add them up */
    double progress_shown; /* seconds; when the last progress line was written */
    uint64_t progress_messages;
};

static double seconds_now(void)
{
    return (double)now_ns() / 1e9;
}

static uint64_t to_ns(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

_Noreturn static void fail(int status, const char *what, const char *why)
{
    fprintf(stderr, "load-client: %s: %s\n", what, why);
    exit(status);
}

/* ---- signals ---- */

static volatile sig_atomic_t running;   /* there is something to report */
static volatile sig_atomic_t interrupt; /* the number of the first signal */

static sigset_t stop_signals(void)
{
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    return stop;
}

/* The first signal ends the run early, with a report. A second one, or one before the run, ends
 * the program at once. The kernel ignores a signal's default action for process 1 of a
 * container; then kill returns. */
static void on_stop_signal(int number)
{
    sigset_t stop = stop_signals();

    if (running && !interrupt) {
        interrupt = number;
        return;
    }
    signal(number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
    kill(getpid(), number);
    _exit(128 + number);
}

static void set_up_signals(void)
{
    struct sigaction action = {.sa_handler = on_stop_signal, .sa_flags = SA_RESTART};

    action.sa_mask = stop_signals();
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    pthread_sigmask(SIG_UNBLOCK, &action.sa_mask, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* ---- preparations ---- */

/* If descriptor 1 is closed at the start, the pipe of a worker would become standard output. */
static void open_standard_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDONLY); /* writing to it fails, so a lost report is noticed */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

/* The process that started us may have left more than the three standard ones open. */
static size_t open_descriptors(void)
{
    size_t count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

/* Raises the limit of open files as far as needed and allowed. Returns how high it got. */
static size_t raise_limit(const struct load_options *o)
{
    const uint64_t own = 32 + open_descriptors(), per_thread = 4; /* report files; loop, pipe */
    rlim_t need = o->connections + o->idle + own + per_thread * o->threads;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == -1 || limit.rlim_cur >= need)
        return need;
    struct rlimit wanted = {.rlim_cur = need, .rlim_max = limit.rlim_max};
    if (need > limit.rlim_max)
        wanted.rlim_max = need; /* root may */
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
        return need;
    wanted.rlim_cur = wanted.rlim_max = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &wanted);
    getrlimit(RLIMIT_NOFILE, &limit);
    fprintf(stderr,
            "load-client: %" PRIu64 " connections need %" PRIu64 " descriptors, the limit is "
            "%" PRIu64 " and cannot be raised: some connections will fail (see ulimit -n)\n",
            o->connections + o->idle, (uint64_t)need, (uint64_t)limit.rlim_cur);
    return (size_t)limit.rlim_cur;
}

/* With --source only addresses of the server's that those can reach. */
static void resolve_server(struct load *l)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    if (l->plan.source_count > 0)
        hints.ai_family = l->plan.sources[0].address.ss_family;
    int error = getaddrinfo(l->options.host, l->options.port, &hints, &list);
    if (error)
        fail(EXIT_NO_CONNECTION, l->options.host, gai_strerror(error));
    l->plan.addresses = list;
}

/* The local addresses. All are of the first one's family. */
static void resolve_sources(struct load *l)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    size_t count = 1;

    if (!l->options.sources)
        return;
    for (const char *comma = l->options.sources; (comma = strchr(comma, ',')); comma++)
        count++;
    l->plan.sources = calloc(count, sizeof *l->plan.sources);
    if (!l->plan.sources)
        fail(EXIT_NO_CONNECTION, "--source", strerror(ENOMEM));
    for (char *rest = l->options.sources, *end; rest; rest = end) {
        struct addrinfo *list;
        if ((end = strchr(rest, ',')))
            *end++ = '\0';
        if (!*rest || getaddrinfo(rest, "0", &hints, &list) != 0)
            usage_error("--source %s: expected addresses of this machine, all of one family",
                        rest);
        struct source *source = &l->plan.sources[l->plan.source_count++];
        memcpy(&source->address, list->ai_addr, list->ai_addrlen);
        source->length = list->ai_addrlen;
        hints.ai_family = list->ai_family;
        freeaddrinfo(list);
    }
}

static FILE *open_output(const char *option, const char *path)
{
    if (!path)
        return NULL;
    if (strcmp(path, "-") == 0)
        return stdout;
    FILE *file = fopen(path, "w");
    if (!file)
        usage_error("--%s %s: %s", option, path, strerror(errno));
    return file;
}

static void prepare(struct load *l)
{
    const struct load_options *o = &l->options;
    struct load_plan *plan = &l->plan;

    resolve_sources(l);
    resolve_server(l);
    plan->greeting = o->mode == MODE_ECHO;
    plan->bulk = o->bulk;
    plan->interval = o->csv != NULL;
    plan->depth = (unsigned)o->pipeline;
    plan->think = to_ns(o->think);
    plan->rate = o->rate;
    plan->ramp = o->ramp;
    plan->connections = o->connections;
    plan->threads = (unsigned)o->threads;
    plan->max_files = raise_limit(o);
    l->result.options = o;
    l->result.latency = hist_create();
    l->result.service = o->rate > 0 ? hist_create() : l->result.latency;
    l->spare = hist_create();
    l->interval = hist_create();
    if (wire_requests(&plan->requests, o->mode, o->size) == -1 ||
        wire_answers(&plan->answers, o->mode, o->size) == -1 || !l->result.latency ||
        !l->result.service || !l->spare || !l->interval)
        fail(EXIT_NO_CONNECTION, "cannot prepare", strerror(ENOMEM));
    l->json = open_output("json", o->json);
    l->csv = open_output("csv", o->csv);
    l->hgrm = open_output("hgrm", o->hgrm);
    if (l->csv)
        report_csv_header(l->csv);
}

static void find_server(struct load *l)
{
    pid_t pid = l->options.server_pid;
    struct load_result *r = &l->result;

    if (pid && kill(pid, 0) == -1 && errno == ESRCH)
        usage_error("--server-pid %ld: expected the server's process, there is no such process",
                    (long)pid);
    r->no_server = pid ? process_obstacle(pid) : "no --server-pid";
    if (!r->no_server)
        process_look(pid, &r->alone);
}

/* ---- looking at the workers ---- */

static struct tally look(const struct load *l)
{
    struct tally sum = {0};
    for (unsigned i = 0; i < l->started; i++) {
        worker_lock(l->workers[i]);
        tally_add(&sum, &l->workers[i]->tally);
        worker_unlock(l->workers[i]);
    }
    return sum;
}

static bool all_unreachable(const struct load *l)
{
    bool all = true;
    for (unsigned i = 0; i < l->started; i++) {
        worker_lock(l->workers[i]);
        all = all && l->workers[i]->unreachable;
        worker_unlock(l->workers[i]);
    }
    return all;
}

/* One line that overwrites itself several times a second, on a terminal only. */
static void show_progress(struct load *l, const struct tally *t, double left)
{
    static const double EVERY = 0.25;
    double now = seconds_now(), passed = now - l->progress_shown;

    if (!isatty(STDERR_FILENO) || passed < EVERY)
        return;
    if (left < 0)
        fprintf(stderr, "\r%zu of %" PRIu64 " connections made\033[K", t->ready + t->idle,
                l->options.connections + l->options.idle);
    else
        fprintf(stderr, "\r%.0f messages a second, %" PRIu64 " in flight, %.0f s left\033[K",
                (double)(t->answered - l->progress_messages) / passed, t->in_flight, left);
    l->progress_shown = now;
    l->progress_messages = t->answered;
}

static void end_progress(void)
{
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

/* ---- the phases ---- */

static void start_workers(struct load *l)
{
    sigset_t stop = stop_signals();

    pthread_sigmask(SIG_BLOCK, &stop, NULL); /* the threads inherit this */
    for (; l->started < l->plan.threads; l->started++) {
        struct worker *w = worker_start(&l->plan, l->started, l->options.idle);
        if (!w)
            fail(EXIT_NO_CONNECTION, "cannot start a thread", strerror(errno));
        l->workers[l->started] = w;
    }
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
}

/* Waits until every connection is ready, or until there is no progress for some time: a server
 * that serves one client at a time does not greet the others. */
static struct tally await_connections(struct load *l, double begun)
{
    const struct load_options *o = &l->options;
    double stall = STALL + (o->ramp > 0 ? (double)o->threads / o->ramp : 0);
    double news = begun;
    struct tally t, last = {0};

    for (;; last = t) {
        t = look(l);
        double now = seconds_now();
        if (t.ready + t.idle != last.ready + last.idle || t.opened != last.opened)
            news = now;
        if (interrupt || (t.opened == o->connections + o->idle && t.pending == 0) ||
            all_unreachable(l) ||
            now - news > (t.ready > 0 && t.connecting == 0 ? stall : PATIENCE))
            break;
        show_progress(l, &t, -1);
        worker_sleep(l->workers[0], TICK);
    }
    l->result.opening = t.ready_at ? (double)t.ready_at / 1e9 - begun : 0;
    return t;
}

/* Takes the workers' histograms of the interval that ends now and gives them empty ones. */
static struct tally end_interval(struct load *l)
{
    hist_reset(l->interval);
    for (unsigned i = 0; i < l->started; i++) {
        struct worker *w = l->workers[i];
        hist_reset(l->spare);
        worker_lock(w);
        struct hist *taken = w->recent;
        w->recent = l->spare;
        worker_unlock(w);
        l->spare = taken;
        hist_add(l->interval, taken);
    }
    return look(l);
}

/* Watches until a point in time; false if a signal came or every connection is lost. */
static bool watch(struct load *l, double until, double end)
{
    for (double now; (now = seconds_now()) < until;) {
        struct tally t = look(l);
        if (interrupt || (t.pending == 0 && t.lost >= t.ready + t.idle))
            return false;
        show_progress(l, &t, end - now);
        worker_sleep(l->workers[0], (unsigned)fmin(TICK, ceil((until - now) * 1000)));
    }
    return true;
}

/* The window, cut into the intervals of the CSV if there is one. */
static bool watch_window(struct load *l, double begin, double end)
{
    if (!l->csv)
        return watch(l, end, end);

    bool going = true;
    struct tally before = end_interval(l); /* discard the warm-up */
    double interval = l->options.interval, from = begin;
    while (going && from < end) {
        double to = from + interval < end - interval / 100 ? from + interval : end;
        going = watch(l, to, end);
        double now = going ? to : seconds_now();
        struct tally sum = end_interval(l);
        if (now > from)
            report_csv_row(l->csv, now - begin, now - from, &sum, &before, l->interval);
        before = sum;
        from = to;
    }
    return going;
}

static double own_cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Adds sign times the CPU times so far: called with -1 at the window's begin, 1 at its end. */
static void look_at_times(struct load *l, int sign)
{
    struct load_result *r = &l->result;
    r->client_cpu += sign * own_cpu();
    r->client_delay += sign * process_delay(getpid());
    if (!r->no_server)
        r->server_cpu += sign * process_cpu(l->options.server_pid);
}

/* Waits for the answers that are missing after the window, as long as some arrive. */
static void await_answers(struct load *l)
{
    double began = seconds_now(), news = began;
    uint64_t received = 0;

    for (;; worker_sleep(l->workers[0], 1)) {
        struct tally t = look(l);
        double now = seconds_now();
        if (t.received != received)
            news = now;
        received = t.received;
        if (t.in_flight == 0 || now - began >= PATIENCE)
            return;
        if (now - news >= STALL) {
            l->result.missing = t.in_flight;
            return;
        }
    }
}

/* Warm-up, window, and the answers that are missing at its end. */
static void run_load(struct load *l)
{
    const struct load_options *o = &l->options;
    struct load_result *r = &l->result;
    double start = seconds_now() + 0.001, begin = start + o->warmup, end = begin + o->duration;

    for (unsigned i = 0; i < l->started; i++)
        worker_go(l->workers[i], to_ns(start), to_ns(begin), to_ns(end));
    bool going = watch(l, begin, end);
    double measured = seconds_now();
    look_at_times(l, -1);
    if (!going || !watch_window(l, begin, end))
        for (unsigned i = 0; i < l->started; i++)
            worker_end(l->workers[i], to_ns(seconds_now()));
    double now = seconds_now();
    look_at_times(l, 1);
    r->interrupted = now < end;
    r->window = now < end ? fmax(now - begin, 0) : o->duration;
    if (now > measured) { /* the times were not taken exactly at the window's begin and end */
        double scale = r->window / (now - measured);
        r->client_cpu *= scale;
        r->client_delay *= scale;
        r->server_cpu *= scale;
    }
    if (!r->no_server) {
        process_look(o->server_pid, &r->loaded);
        if (r->loaded.resident == 0)
            r->no_server = "it ended during the run";
    }
    await_answers(l);
}

static void stop_workers(struct load *l)
{
    struct load_result *r = &l->result;

    r->least = UINT64_MAX;
    r->first_error = "";
    for (unsigned i = 0; i < l->started; i++) {
        struct worker *w = l->workers[i];
        worker_stop(w);
        tally_add(&r->tally, &w->tally);
        hist_add(r->latency, w->latency);
        if (r->service != r->latency)
            hist_add(r->service, w->service);
        r->unanswered += w->unanswered;
        r->least = w->least < r->least ? w->least : r->least;
        r->most = w->most > r->most ? w->most : r->most;
        if (!*r->first_error)
            r->first_error = w->first_error;
    }
}

static void name_address(struct load *l)
{
    const struct addrinfo *a = l->workers[0]->address;
    char host[64] = "?", port[8] = "?";

    getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(l->result.address, sizeof l->result.address,
             a->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static int judge(struct load_result *r, int status, const char *problem)
{
    r->problem = problem;
    return status;
}

/* Returns the exit status. It is EXIT_OK only if every connection was made and answers were
 * measured: a server that does nothing makes no errors. */
static int exit_status(struct load_result *r)
{
    const struct tally *t = &r->tally;

    for (int i = 0; i < ERROR_KINDS; i++)
        if (i != ERROR_CONNECT && t->errors[i])
            return judge(r, EXIT_WRONG, "connections failed");
    if (t->errors[ERROR_CONNECT])
        return judge(r, EXIT_NO_CONNECTION, "connections could not be made");
    if (t->ready == 0 || result_waiting(r) > 0)
        return judge(r, EXIT_NO_CONNECTION, "connections were not made or not greeted in time");
    if (r->tally.bytes == 0 || (!r->options->bulk && r->tally.messages == 0))
        return judge(r, EXIT_WRONG, "no message was answered in the measured time");
    if (r->missing)
        return judge(r, EXIT_WRONG, "the server stopped answering");
    return judge(r, EXIT_OK, NULL);
}

/* Without any connection there is nothing to report except the reason. */
static void explain_no_connection(const struct load_result *r)
{
    const char *why = *r->first_error ? r->first_error
                      : interrupt     ? "interrupted before the first connection was made"
                      : r->options->mode == MODE_ECHO
                          ? "connected, but no greeting came (another protocol? see --mode)"
                          : "no answer to the first connection";
    fprintf(stderr, "load-client: %s: %s\n", r->address, why);
}

/* Returns -1 if a file could not be written completely. */
static int write_reports(const struct load *l)
{
    const struct load_result *r = &l->result;

    if (l->json)
        report_json(l->json, r);
    if (l->hgrm)
        report_hgrm(l->hgrm, r->latency);
    if (l->json != stdout && l->hgrm != stdout && l->csv != stdout)
        report_text(stdout, r);

    enum { FILES = 4 };
    FILE *files[FILES] = {stdout, l->json, l->csv, l->hgrm};
    int result = 0;
    for (int i = 0; i < FILES; i++)
        if (files[i] && (fflush(files[i]) == EOF || ferror(files[i])))
            result = -1;
    if (result == -1)
        fprintf(stderr, "load-client: the report could not be written\n");
    return result;
}

int main(int argc, char **argv)
{
    static struct load l;
    struct load_result *r = &l.result;

    set_up_signals();
    open_standard_descriptors();
    load_options_parse(&l.options, argc, argv);
    prepare(&l);
    find_server(&l);
    running = 1;
    double begun = seconds_now();
    start_workers(&l);
    struct tally t = await_connections(&l, begun);
    if (t.ready > 0 && !interrupt) {
        if (!r->no_server)
            process_look(l.options.server_pid, &r->ready);
        run_load(&l);
    }
    end_progress();
    stop_workers(&l);
    name_address(&l);
    r->status = exit_status(r);
    if (t.ready == 0)
        explain_no_connection(r);
    else if (write_reports(&l) == -1)
        r->status = EXIT_WRONG;
    for (unsigned i = 0; i < l.started; i++)
        worker_free(l.workers[i]);
    return r->status;
}
