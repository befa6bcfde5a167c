/* load_worker.c - see load_worker.h. */
#include "load_worker.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "load_connection.h"
#include "load_schedule.h"

/* The most connections that may wait for the server at the same time. It is less than any
 * listen queue holds: the kernel retries a connection that does not fit only after a second. */
enum { PENDING_MAX = 512 };

/* ae passes its hooks the loop only, so they find their worker here. */
static _Thread_local struct worker *self;

/* ---- opening connections ---- */

/* When the next connection may be opened; NEVER while too many wait for the server. */
static uint64_t opens_at(const struct worker *w)
{
    const struct tally *t = &w->tally;
    if (t->opened == w->total || t->pending >= PENDING_MAX || w->unreachable || w->stopping)
        return NEVER;
    if (t->opened == 1 && connection_at(w, 0)->state == CONNECTING)
        return NEVER; /* first see whether there is a server */
    if (w->plan->ramp == 0)
        return 0;
    double each = 1e9 * w->plan->threads / w->plan->ramp;
    return w->opening_since + (uint64_t)((double)t->opened * each);
}

static void open_next(struct worker *w)
{
    struct connection *c = connection_at(w, w->tally.opened);
    *c = (struct connection){.worker = w, .index = (uint32_t)w->tally.opened, .fd = -1};
    w->tally.opened++;
    w->tally.pending++;
    w->tally.connecting++;
    connection_open(c);
}

/* ---- the loop ---- */

static void before_sleep(aeEventLoop *loop)
{
    struct worker *w = self;
    const struct load_plan *plan = w->plan;
    uint64_t next = NEVER;
    (void)loop;

    if (w->tally.opened < w->total || plan->rate > 0 || plan->think > 0) {
        uint64_t now = now_ns();
        while (opens_at(w) <= now)
            open_next(w);
        schedule_run(w, now);
        next = opens_at(w) < schedule_next(w) ? opens_at(w) : schedule_next(w);
    }
    alarm_set(&w->alarm, next);
    worker_unlock(w);
}

static void after_sleep(aeEventLoop *loop)
{
    (void)loop;
    worker_lock(self);
}

static void on_wake(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct worker *w = data;
    char bytes[16];
    (void)mask;

    if (read(fd, bytes, sizeof bytes) < 0)
        return;
    if (w->stopping)
        aeStop(loop);
    if (w->started || w->start == NEVER)
        return;
    w->started = true;
    schedule_start(w);
}

static void work(struct worker *w)
{
    self = w;
    worker_lock(w);
    aeMain(w->loop);
    worker_unlock(w);
}

static void *run(void *data)
{
    work(data);
    return NULL;
}

static int stop_work(aeEventLoop *loop, long long id, void *data)
{
    (void)id, (void)data;
    aeStop(loop);
    return AE_NOMORE;
}

/* ---- for the main thread ---- */

/* Part number `index` of `all`, cut into `parts` that differ by at most one. */
static size_t part_of(size_t all, unsigned index, unsigned parts)
{
    return all / parts + (index < all % parts);
}

static int prepare(struct worker *w, const struct load_plan *plan, unsigned index, size_t idle)
{
    w->plan = plan;
    w->index = index;
    w->active = part_of(plan->connections, index, plan->threads);
    w->total = w->active + part_of(idle, index, plan->threads);
    w->start = w->begin = w->end = NEVER;
    w->address = plan->addresses;
    w->opening_since = now_ns();
    w->last_thinker = &w->thinkers;
    if (plan->rate > 0) {
        double gap = 1e9 / plan->rate;
        w->period = gap * (double)plan->connections / (double)w->active;
        w->offset = gap * index;
    }
    w->wake[0] = w->wake[1] = -1;
    pthread_mutex_init(&w->mutex, NULL);

    w->stride = sizeof(struct connection) + plan->depth * sizeof(struct stamp);
    w->connections = calloc(w->total, w->stride);
    w->latency = hist_create();
    w->service = plan->rate > 0 ? hist_create() : w->latency;
    w->recent = plan->interval ? hist_create() : NULL;
    if (!w->connections || !w->latency || !w->service || (plan->interval && !w->recent)) {
        errno = ENOMEM;
        return -1;
    }
    if (pipe(w->wake) == -1)
        return -1;
    w->loop = aeCreateEventLoop((int)plan->max_files);
    if (!w->loop || alarm_open(&w->alarm, w->loop) == -1 ||
        aeCreateFileEvent(w->loop, w->wake[0], AE_READABLE, on_wake, w) != AE_OK)
        return -1;
    aeSetBeforeSleepProc(w->loop, before_sleep);
    aeSetAfterSleepProc(w->loop, after_sleep);
    return 0;
}

/* A single worker works in the main thread: system calls are about 5 % cheaper as long as the
 * process has only one thread. */
static bool has_thread(const struct worker *w)
{
    return w->plan->threads > 1;
}

struct worker *worker_start(const struct load_plan *plan, unsigned index, size_t idle)
{
    struct worker *w = calloc(1, sizeof *w);
    int error = ENOMEM;

    if (w && prepare(w, plan, index, idle) == 0)
        error = has_thread(w) ? pthread_create(&w->thread, NULL, run, w) : 0;
    else if (w)
        error = errno;
    if (error) {
        worker_free(w);
        errno = error;
        return NULL;
    }
    return w;
}

void worker_sleep(struct worker *w, unsigned ms)
{
    if (has_thread(w)) {
        struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
        nanosleep(&time, NULL);
    } else if (aeCreateTimeEvent(w->loop, ms, stop_work, NULL, NULL) != AE_ERR) {
        work(w);
    }
}

static void wake(struct worker *w)
{
    while (write(w->wake[1], "", 1) == -1 && errno == EINTR)
        ;
}

void worker_go(struct worker *w, uint64_t start, uint64_t begin, uint64_t end)
{
    worker_lock(w);
    w->start = start;
    w->begin = begin;
    w->end = end;
    w->flight_changed = start;
    worker_unlock(w);
    wake(w);
}

void worker_end(struct worker *w, uint64_t end)
{
    worker_lock(w);
    w->end = end < w->end ? end : w->end;
    worker_unlock(w);
}

static void count_unanswered(struct worker *w, uint64_t due, uint64_t sent, uint64_t now)
{
    if (!worker_in_window(w, due))
        return;
    w->unanswered++;
    hist_record(w->latency, now - due);
    if (w->service != w->latency && sent != NEVER)
        hist_record(w->service, now - sent);
}

/* Counts the messages without an answer, and in the open loop those that were never sent. */
static void account_for_the_rest(struct worker *w, uint64_t now)
{
    const struct load_plan *plan = w->plan;

    connection_count_flight(w, now, 0);
    w->least = UINT64_MAX;
    for (size_t i = 0; i < w->active && i < w->tally.opened; i++) {
        struct connection *c = connection_at(w, i);
        w->least = c->answered < w->least ? c->answered : w->least;
        w->most = c->answered > w->most ? c->answered : w->most;
        if (c->state == LOST || plan->bulk)
            continue;
        for (unsigned k = 0; k < c->in_flight; k++) {
            struct stamp stamp = c->stamps[(c->oldest + k) % plan->depth];
            count_unanswered(w, stamp.due, stamp.sent, now);
        }
        if (plan->rate > 0)
            for (uint64_t k; (k = c->begun * w->active + c->index) < w->next; c->begun++)
                count_unanswered(w, schedule_due(w, k), NEVER, now);
    }
}

void worker_stop(struct worker *w)
{
    worker_lock(w);
    w->stopping = true;
    worker_unlock(w);
    if (has_thread(w)) {
        wake(w);
        pthread_join(w->thread, NULL);
    }
    account_for_the_rest(w, now_ns());
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    for (size_t i = 0; w->connections && i < w->tally.opened; i++)
        if (connection_at(w, i)->fd != -1)
            close(connection_at(w, i)->fd);
    if (w->loop) {
        alarm_close(&w->alarm);
        aeDeleteEventLoop(w->loop);
    }
    if (w->wake[0] != -1) {
        close(w->wake[0]);
        close(w->wake[1]);
    }
    pthread_mutex_destroy(&w->mutex);
    if (w->service != w->latency)
        free(w->service);
    free(w->latency);
    free(w->recent);
    free(w->connections);
    free(w);
}

void worker_lock(struct worker *w)
{
    pthread_mutex_lock(&w->mutex);
}

void worker_unlock(struct worker *w)
{
    pthread_mutex_unlock(&w->mutex);
}

void tally_add(struct tally *sum, const struct tally *more)
{
    sum->opened += more->opened;
    sum->ready += more->ready;
    sum->idle += more->idle;
    sum->pending += more->pending;
    sum->connecting += more->connecting;
    sum->lost += more->lost;
    if (sum->ready_at < more->ready_at)
        sum->ready_at = more->ready_at;
    sum->messages += more->messages;
    sum->bytes += more->bytes;
    sum->answered += more->answered;
    sum->received += more->received;
    sum->in_flight += more->in_flight;
    sum->on_time += more->on_time;
    sum->late_ns += more->late_ns;
    sum->in_flight_ns += more->in_flight_ns;
    for (int i = 0; i < ERROR_KINDS; i++)
        sum->errors[i] += more->errors[i];
}
