/* load_connection.c - see load_connection.h. The hot path is on_readable: receive, compare,
 * record, send the next message. */
#include "load_connection.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load_schedule.h"

const char *const load_error_names[ERROR_KINDS] = {
    "not connected",        "wrong greeting",      "wrong byte",   "unexpected bytes",
    "closed by the server", "reset by the server", "other errors",
};

static void on_writable(aeEventLoop *loop, int fd, void *data, int mask);

void connection_count_flight(struct worker *w, uint64_t now, int64_t change)
{
    uint64_t from = w->flight_changed > w->begin ? w->flight_changed : w->begin;
    uint64_t to = now < w->end ? now : w->end;
    if (to > from)
        w->tally.in_flight_ns += (double)w->tally.in_flight * (double)(to - from);
    w->flight_changed = now;
    w->tally.in_flight += (uint64_t)change;
}

/* Closes a connection that failed and counts the reason. */
static void lose(struct connection *c, enum load_error error, const char *why)
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
        connection_count_flight(w, now_ns(), -(int64_t)c->in_flight);
    }
    c->in_flight = 0;
    c->state = LOST;
}

/* ---- sending ---- */

void connection_watch_writable(struct connection *c, bool on)
{
    if (c->writing == on)
        return;
    c->writing = on;
    if (on)
        aeCreateFileEvent(c->worker->loop, c->fd, AE_WRITABLE, on_writable, c);
    else
        aeDeleteFileEvent(c->worker->loop, c->fd, AE_WRITABLE);
}

void connection_push(struct connection *c)
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
            bool reset = errno == EPIPE || errno == ECONNRESET;
            lose(c, reset ? ERROR_RESET : ERROR_OTHER, strerror(errno));
            return;
        }
        c->unsent -= (uint64_t)sent;
        c->send_at += (uint64_t)sent;
        if (c->send_at >= requests->length)
            c->send_at %= requests->length;
    }
    if (!c->worker->plan->bulk)
        connection_watch_writable(c, c->unsent > 0);
}

void connection_begin_message(struct connection *c, uint64_t due, uint64_t now)
{
    const struct load_plan *plan = c->worker->plan;

    if (!plan->bulk) {
        unsigned slot = c->oldest + c->in_flight;
        c->stamps[slot < plan->depth ? slot : slot - plan->depth] = (struct stamp){due, now};
    }
    c->in_flight++;
    c->begun++;
    c->unsent += plan->requests.length;
    connection_count_flight(c->worker, now, 1);
}

/* ---- answers ---- */

static void record_answer(struct connection *c, uint64_t now)
{
    struct worker *w = c->worker;
    const struct load_plan *plan = w->plan;

    if (worker_in_window(w, now)) {
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
    if (worker_in_window(w, stamp.due)) {
        hist_record(w->latency, now - stamp.due);
        if (w->service != w->latency)
            hist_record(w->service, now - stamp.sent);
    }
    if (w->recent)
        hist_record(w->recent, now - stamp.due);
}

static void report_wrong_byte(struct connection *c, const unsigned char *bytes, size_t n)
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
static void take_answers(struct connection *c, const unsigned char *bytes, size_t n,
                         uint64_t now)
{
    struct worker *w = c->worker;
    const struct wire *answers = &w->plan->answers;

    if (n > c->in_flight * answers->length - c->receive_at) {
        lose(c, ERROR_SURPLUS, "more bytes came than answers are due");
        return;
    }
    if (memcmp(bytes, wire_at(answers, c->receive_at), n) != 0) {
        report_wrong_byte(c, bytes, n);
        return;
    }
    w->tally.received += n;
    if (worker_in_window(w, now))
        w->tally.bytes += n;

    unsigned done = 0;
    for (c->receive_at += n; c->receive_at >= answers->length; done++) {
        c->receive_at -= answers->length;
        record_answer(c, now);
    }
    if (done > 0) {
        connection_count_flight(w, now, -(int64_t)done);
        schedule_answered(c, done, now);
    }
}

/* ---- connecting ---- */

static void get_ready(struct connection *c, uint64_t now)
{
    struct worker *w = c->worker;
    c->state = READY;
    w->tally.ready_at = now;
    w->tally.pending--;
    w->tally.ready += connection_is_active(c);
    w->tally.idle += !connection_is_active(c);
    if (w->started)
        schedule_ready(c, now);
}

static void on_readable(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct connection *c = data;
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
    if (n > 0 && c->state == READY) /* sending may just have lost it */
        take_answers(c, bytes, n, now);
}

/* ---- connecting ---- */

static void fail_to_connect(struct connection *c, int error)
{
    struct worker *w = c->worker;
    bool first = w->tally.opened == 1;

    if (c->fd != -1) {
        aeDeleteFileEvent(w->loop, c->fd, AE_READABLE | AE_WRITABLE);
        close(c->fd);
        c->fd = -1;
    }
    if (first && w->address->ai_next) { /* a name may have several addresses */
        w->address = w->address->ai_next;
        w->tally.opened--; /* it will be opened again */
        w->tally.pending--;
        w->tally.connecting--;
        return;
    }
    if (first)
        w->unreachable = true;
    if (!w->connect_errno)
        w->connect_errno = error;
    lose(c, ERROR_CONNECT, strerror(error));
}

static void finish_connecting(struct connection *c)
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
    struct connection *c = data;
    (void)loop, (void)mask;

    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
        connection_watch_writable(c, false);
        if (error)
            fail_to_connect(c, error);
        else
            finish_connecting(c);
    } else {
        schedule_writable(c, now_ns());
    }
}

/* A non-blocking socket with TCP_NODELAY, bound to the source address whose turn it is. */
static int open_socket(const struct connection *c, const struct addrinfo *to)
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
        /* let connect choose the port: it may share one that is in use with another peer */
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

void connection_open(struct connection *c)
{
    const struct addrinfo *to = c->worker->address;

    c->fd = open_socket(c, to);
    if (c->fd != -1 && connect(c->fd, to->ai_addr, to->ai_addrlen) == 0)
        finish_connecting(c);
    else if (c->fd != -1 && (errno == EINPROGRESS || errno == EINTR))
        connection_watch_writable(c, true);
    else
        fail_to_connect(c, errno);
}
