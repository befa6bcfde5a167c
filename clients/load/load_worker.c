/* load_worker.c - see load_worker.h. The hot path is on_readable: receive, compare, record,
 * send the next; everything else happens once a connection or once a lap. */
#include "load_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char *const load_error_names[ERROR_KINDS] = {
    "not connected",        "wrong greeting",      "wrong byte",   "unexpected bytes",
    "closed by the server", "reset by the server", "other errors",
};

/* So many connections may be on their way at once: fewer than any listen queue holds, for what
 * does not fit there is tried again by the kernel only after a second. */
enum { PENDING_MAX = 512 };

enum conn_state { CONNECTING, GREETING, READY, LOST };

/* When a message in flight was due by the schedule, and when it was sent. */
struct stamp {
    uint64_t due, sent;
};

struct conn {
    struct worker *worker;
    int fd;
    uint32_t index;
    enum conn_state state;
    bool writing;        /* the loop watches for room to write */
    unsigned in_flight;  /* messages begun and not fully answered */
    unsigned oldest;     /* the stamp of the first of them; bulk keeps none */
    uint64_t unsent;     /* bytes of messages begun */
    uint64_t send_at;    /* their position in the endless repetition */
    uint64_t receive_at; /* the position in the answer to the oldest message */
    uint64_t begun;      /* messages, ever */
    uint64_t answered;   /* messages, in the window */
    struct conn *next;   /* thinker, and when this one wakes */
    uint64_t wakes;
    struct stamp stamps[]; /* a ring of plan->depth */
};

/* ae's hooks are not told whose loop it is. */
static _Thread_local struct worker *self;

static void on_writable(aeEventLoop *loop, int fd, void *data, int mask);
static void on_readable(aeEventLoop *loop, int fd, void *data, int mask);

static struct conn *conn_at(const struct worker *w, size_t i)
{
    return (struct conn *)(void *)(w->conns + i * w->stride);
}

static bool has_traffic(const struct conn *c)
{
    return c->index < c->worker->active;
}

static bool in_window(const struct worker *w, uint64_t t)
{
    return t >= w->begin && t < w->end;
}

/* Changes the number in flight and keeps its integral over the window. */
static void change_flight(struct worker *w, uint64_t now, int64_t change)
{
    uint64_t from = w->flight_changed > w->begin ? w->flight_changed : w->begin;
    uint64_t to = now < w->end ? now : w->end;
    if (to > from)
        w->tally.in_flight_ns += (double)w->tally.in_flight * (double)(to - from);
    w->flight_changed = now;
    w->tally.in_flight += (uint64_t)change;
}

/* Gives a connection up, for one of the reasons that are counted. */
static void lose(struct conn *c, enum load_error error, const char *why)
{
    struct worker *w = c->worker;
    struct tally *t = &w->tally;

    if (t->errors[error]++ == 0 && !w->first_error[0])
        snprintf(w->first_error, sizeof w->first_error, "%s", why);
    if (c->fd != -1) {
        aeDeleteFileEvent(w->loop, c->fd, AE_READABLE | AE_WRITABLE);
        close(c->fd);
    }
    c->fd = -1;
    if (c->state != READY) {
        t->pending--;
        t->connecting -= c->state == CONNECTING;
    } else {
        t->lost++;
        change_flight(w, now_ns(), -(int64_t)c->in_flight);
    }
    c->in_flight = 0;
    c->state = LOST;
}

/* ---- sending ---- */

static void watch_writable(struct conn *c, bool on)
{
    if (c->writing == on)
        return;
    c->writing = on;
    if (on)
        aeCreateFileEvent(c->worker->loop, c->fd, AE_WRITABLE, on_writable, c);
    else
        aeDeleteFileEvent(c->worker->loop, c->fd, AE_WRITABLE);
}

/* Sends what was begun, as far as the kernel takes it. */
static void push(struct conn *c)
{
    const struct wire *requests = &c->worker->plan->requests;

    while (c->unsent > 0) {
        size_t n = c->unsent < WIRE_WINDOW ? (size_t)c->unsent : WIRE_WINDOW;
        ssize_t sent = send(c->fd, wire_at(requests, c->send_at), n, 0);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (sent < 0) {
            bool gone = errno == EPIPE || errno == ECONNRESET;
            lose(c, gone ? ERROR_RESET : ERROR_OTHER, strerror(errno));
            return;
        }
        c->unsent -= (uint64_t)sent;
        c->send_at += (uint64_t)sent;
        if (c->send_at >= requests->length)
            c->send_at %= requests->length;
    }
    if (!c->worker->plan->bulk)
        watch_writable(c, c->unsent > 0);
}

static void begin_message(struct conn *c, uint64_t due, uint64_t now)
{
    const struct load_plan *plan = c->worker->plan;

    if (!plan->bulk) {
        unsigned slot = c->oldest + c->in_flight;
        c->stamps[slot < plan->depth ? slot : slot - plan->depth] = (struct stamp){due, now};
    }
    c->in_flight++;
    c->begun++;
    c->unsent += plan->requests.length;
    change_flight(c->worker, now, 1);
}

/* Message k of the worker's schedule; it belongs to connection k mod active. */
static uint64_t due_at(const struct worker *w, uint64_t k)
{
    return w->start + (uint64_t)(w->offset + (double)k * w->period);
}

/* Begins the messages of this connection that are due and for which it has room. */
static void begin_due(struct conn *c, uint64_t now)
{
    struct worker *w = c->worker;
    for (;;) {
        uint64_t k = c->begun * w->active + c->index;
        if (k >= w->next || c->in_flight == w->plan->depth)
            return;
        begin_message(c, due_at(w, k), now);
    }
}

static void begin_batch(struct conn *c, unsigned n, uint64_t now)
{
    while (n-- > 0)
        begin_message(c, now, now);
    push(c);
}

static void begin_bulk(struct conn *c, uint64_t now)
{
    while (c->unsent < WIRE_WINDOW && now < c->worker->end)
        begin_message(c, now, now);
    push(c);
    if (c->state == READY)
        watch_writable(c, c->unsent > 0 || now < c->worker->end);
}

/* ---- thinking: everybody thinks equally long, so a queue is in order of waking ---- */

static void think(struct conn *c, uint64_t until)
{
    struct worker *w = c->worker;
    c->wakes = until;
    c->next = NULL;
    *w->last_thinker = c;
    w->last_thinker = &c->next;
}

static void wake_thinkers(struct worker *w, uint64_t now)
{
    while (w->thinkers && w->thinkers->wakes <= now) {
        struct conn *c = w->thinkers;
        w->thinkers = c->next;
        if (!w->thinkers)
            w->last_thinker = &w->thinkers;
        if (c->state == READY && now < w->end)
            begin_batch(c, w->plan->depth, now);
    }
}

/* ---- answers ---- */

static void record_answer(struct conn *c, uint64_t now)
{
    struct worker *w = c->worker;
    const struct load_plan *plan = w->plan;

    if (in_window(w, now)) {
        w->tally.messages++;
        c->answered++;
    }
    w->tally.answered++;
    c->in_flight--;
    if (plan->bulk)
        return;
    struct stamp stamp = c->stamps[c->oldest];
    if (++c->oldest == plan->depth)
        c->oldest = 0;
    if (in_window(w, stamp.due)) {
        hist_record(w->latency, now - stamp.due);
        if (w->service != w->latency)
            hist_record(w->service, now - stamp.sent);
    }
    if (w->recent)
        hist_record(w->recent, now - stamp.due);
}

/* So many messages were just answered in full: what does this connection do next? */
static void go_on(struct conn *c, unsigned done, uint64_t now)
{
    const struct worker *w = c->worker;
    const struct load_plan *plan = w->plan;

    if (now >= w->end || plan->bulk)
        return;
    if (plan->rate > 0) {
        begin_due(c, now);
        push(c);
    } else if (plan->think == 0) {
        begin_batch(c, done, now);
    } else if (c->in_flight == 0) {
        think(c, now + plan->think);
    }
}

static void report_wrong_byte(struct conn *c, const unsigned char *bytes, size_t n)
{
    const unsigned char *expected = wire_at(&c->worker->plan->answers, c->receive_at);
    char why[160];
    size_t i = 0;

    while (i + 1 < n && bytes[i] == expected[i])
        i++;
    snprintf(why, sizeof why, "byte %llu of an answer was 0x%02x, expected 0x%02x",
             (unsigned long long)((c->receive_at + i) % c->worker->plan->answers.length),
             bytes[i], expected[i]);
    lose(c, ERROR_WRONG, why);
}

/* Verifies the next n bytes of answers. */
static void take_answers(struct conn *c, const unsigned char *bytes, size_t n, uint64_t now)
{
    struct worker *w = c->worker;
    const struct wire *answers = &w->plan->answers;

    if (n > c->in_flight * answers->length - c->receive_at) {
        lose(c, ERROR_SURPLUS, "more bytes came than were owed");
        return;
    }
    if (memcmp(bytes, wire_at(answers, c->receive_at), n) != 0) {
        report_wrong_byte(c, bytes, n);
        return;
    }
    if (in_window(w, now))
        w->tally.bytes += n;

    unsigned done = 0;
    for (c->receive_at += n; c->receive_at >= answers->length; done++) {
        c->receive_at -= answers->length;
        record_answer(c, now);
    }
    if (done > 0) {
        change_flight(w, now, -(int64_t)done);
        go_on(c, done, now);
    }
}

static void start_traffic(struct conn *c, uint64_t now)
{
    const struct load_plan *plan = c->worker->plan;

    if (!has_traffic(c) || c->state != READY || now >= c->worker->end)
        return;
    if (plan->bulk) {
        begin_bulk(c, now);
    } else if (plan->rate > 0) {
        begin_due(c, now);
        push(c);
    } else {
        begin_batch(c, plan->depth, now);
    }
}

static void get_ready(struct conn *c, uint64_t now)
{
    struct worker *w = c->worker;
    c->state = READY;
    w->tally.ready_at = now;
    w->tally.pending--;
    w->tally.ready += has_traffic(c);
    w->tally.idle += !has_traffic(c);
    if (w->started)
        start_traffic(c, now);
}

static void on_readable(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct conn *c = data;
    unsigned char *bytes = c->worker->scratch;
    (void)loop, (void)mask;

    ssize_t got = recv(fd, bytes, WIRE_WINDOW, 0);
    uint64_t now = now_ns();
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (got <= 0) {
        enum load_error error = got == 0              ? ERROR_CLOSED
                                : errno == ECONNRESET ? ERROR_RESET
                                                      : ERROR_OTHER;
        lose(c, error, got == 0 ? "the server closed a connection" : strerror(errno));
        return;
    }
    size_t n = (size_t)got;
    if (c->state == GREETING) {
        if (*bytes != '*') {
            lose(c, ERROR_GREETING, "the first byte was not the greeting '*'");
            return;
        }
        get_ready(c, now);
        bytes++;
        n--;
    }
    if (n > 0 && c->state == READY) /* it may just have been lost in sending */
        take_answers(c, bytes, n, now);
}

/* ---- connecting ---- */

static void fail_to_connect(struct conn *c, int error)
{
    struct worker *w = c->worker;
    bool first = w->tally.opened == 1;

    if (c->fd != -1) {
        aeDeleteFileEvent(w->loop, c->fd, AE_READABLE | AE_WRITABLE);
        close(c->fd);
        c->fd = -1;
    }
    if (first && w->address->ai_next) { /* a name may have addresses where nobody listens */
        w->address = w->address->ai_next;
        w->tally.opened--; /* to be opened once more */
        w->tally.pending--;
        w->tally.connecting--;
        return;
    }
    if (first)
        w->hopeless = true;
    if (!w->connect_errno)
        w->connect_errno = error;
    lose(c, ERROR_CONNECT, strerror(error));
}

static void connected(struct conn *c)
{
    const struct load_plan *plan = c->worker->plan;

    if (aeCreateFileEvent(c->worker->loop, c->fd, AE_READABLE, on_readable, c) != AE_OK) {
        fail_to_connect(c, errno);
        return;
    }
    c->state = GREETING;
    c->worker->tally.connecting--;
    if (!plan->greeting)
        get_ready(c, now_ns());
}

static void on_writable(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct conn *c = data;
    (void)loop, (void)mask;

    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
        watch_writable(c, false);
        if (error)
            fail_to_connect(c, error);
        else
            connected(c);
    } else if (c->worker->plan->bulk) {
        begin_bulk(c, now_ns());
    } else {
        push(c);
    }
}

/* A socket bound to the source address whose turn it is, not blocking, not delaying. */
static int open_socket(const struct conn *c, const struct addrinfo *to)
{
    const struct load_plan *plan = c->worker->plan;
    int on = 1, fd = socket(to->ai_family, SOCK_STREAM, 0);

    if (fd == -1)
        return -1;
    if (fd >= aeGetSetSize(c->worker->loop)) {
        errno = EMFILE;
        goto fail;
    }
    if (fcntl(fd, F_SETFL, O_NONBLOCK) == -1 || fcntl(fd, F_SETFD, FD_CLOEXEC) == -1 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == -1)
        goto fail;
    if (plan->source_count > 0) {
        size_t turn = (c->index * plan->threads + c->worker->index) % plan->source_count;
        const struct source *from = &plan->sources[turn];
#ifdef IP_BIND_ADDRESS_NO_PORT
        /* choose the port in connect, where one that is taken for another peer will do */
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
#endif
        if (bind(fd, (const struct sockaddr *)&from->address, from->length) == -1)
            goto fail;
    }
    return fd;
fail:;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static void try_connect(struct conn *c)
{
    const struct addrinfo *to = c->worker->address;

    c->fd = open_socket(c, to);
    if (c->fd != -1 && connect(c->fd, to->ai_addr, to->ai_addrlen) == 0)
        connected(c);
    else if (c->fd != -1 && (errno == EINPROGRESS || errno == EINTR))
        watch_writable(c, true);
    else
        fail_to_connect(c, errno);
}

/* When the next connection may be opened; NEVER while too many are on their way. */
static uint64_t opens_at(const struct worker *w)
{
    const struct tally *t = &w->tally;
    if (t->opened == w->total || t->pending >= PENDING_MAX || w->hopeless || w->stopping)
        return NEVER;
    if (t->opened == 1 && conn_at(w, 0)->state == CONNECTING)
        return NEVER; /* first see whether anybody is there */
    if (w->plan->ramp == 0)
        return 0;
    double each = 1e9 * w->plan->threads / w->plan->ramp;
    return w->opening_since + (uint64_t)((double)t->opened * each);
}

static void open_next(struct worker *w)
{
    struct conn *c = conn_at(w, w->tally.opened);
    *c = (struct conn){.worker = w, .index = (uint32_t)w->tally.opened, .fd = -1};
    w->tally.opened++;
    w->tally.pending++;
    w->tally.connecting++;
    try_connect(c);
}

/* ---- the loop ---- */

static void send_scheduled(struct worker *w, uint64_t now)
{
    for (uint64_t due; (due = due_at(w, w->next)) <= now && due < w->end;) {
        size_t turn = w->next++ % w->active;
        if (turn >= w->tally.opened)
            continue;
        struct conn *c = conn_at(w, turn);
        if (c->state == READY && c->in_flight < w->plan->depth) {
            w->tally.on_time++;
            w->tally.late_ns += (double)(now - due);
            begin_due(c, now);
            push(c);
        }
    }
}

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
        if (w->started && plan->rate > 0)
            send_scheduled(w, now);
        wake_thinkers(w, now);

        next = opens_at(w);
        if (w->thinkers && w->thinkers->wakes < next)
            next = w->thinkers->wakes;
        if (w->started && plan->rate > 0) {
            uint64_t due = due_at(w, w->next);
            if (due < w->end && due < next)
                next = due;
        }
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
    uint64_t now = now_ns();
    for (size_t i = 0; i < w->active && i < w->tally.opened; i++) {
        struct conn *c = conn_at(w, i);
        if (w->plan->think > 0 && c->state == READY) /* not all in the same instant */
            think(c, w->start + w->plan->think * i / w->active);
        else
            start_traffic(c, now);
    }
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

    w->stride = sizeof(struct conn) + plan->depth * sizeof(struct stamp);
    w->conns = calloc(w->total, w->stride);
    w->latency = hist_create();
    w->service = plan->rate > 0 ? hist_create() : w->latency;
    w->recent = plan->interval ? hist_create() : NULL;
    if (!w->conns || !w->latency || !w->service || (plan->interval && !w->recent)) {
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

/* A single worker works in the main thread: as long as a process has but one thread, system
 * calls are cheaper, by some 5 %. */
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

void worker_nap(struct worker *w, unsigned ms)
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
    if (!in_window(w, due))
        return;
    w->unanswered++;
    hist_record(w->latency, now - due);
    if (w->service != w->latency && sent != NEVER)
        hist_record(w->service, now - sent);
}

/* What still waits for its answer, or, in the open loop, for its turn to be sent. */
static void account_for_the_rest(struct worker *w, uint64_t now)
{
    const struct load_plan *plan = w->plan;

    change_flight(w, now, 0);
    w->least = UINT64_MAX;
    for (size_t i = 0; i < w->active && i < w->tally.opened; i++) {
        struct conn *c = conn_at(w, i);
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
                count_unanswered(w, due_at(w, k), NEVER, now);
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
    for (size_t i = 0; w->conns && i < w->tally.opened; i++)
        if (conn_at(w, i)->fd != -1)
            close(conn_at(w, i)->fd);
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
    free(w->conns);
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
    sum->in_flight += more->in_flight;
    sum->on_time += more->on_time;
    sum->late_ns += more->late_ns;
    sum->in_flight_ns += more->in_flight_ns;
    for (int i = 0; i < ERROR_KINDS; i++)
        sum->errors[i] += more->errors[i];
}
