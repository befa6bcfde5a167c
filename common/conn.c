#include "conn.h"
#include "server.h"
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SCRATCH_SIZE = 64 * 1024 };

/* Output that a socket did not take. Nothing is read from the client until it is all sent. */
struct unsent {
    size_t start, end;
    int sendq; /* net_sendq when the client was active last */
    unsigned char bytes[];
};

/* The client is active now. */
static void touch(struct conn_list *list, struct conn *c)
{
    idle_touch(&list->idle, &c->idle);
    if (list->idle.limit_ms > 0 && c->unsent != NULL)
        c->unsent->sendq = net_sendq(c->fd);
}

/* May the call be made again after this error: now (EINTR), or when the socket is ready? */
static bool is_passing(struct conn *c, int error)
{
    if (error == EINTR)
        c->progress = true; /* the call has not looked yet: do not wait for an event */
    return error == EINTR || net_is_again(error);
}

static int keep_unsent(struct conn *c, const unsigned char *bytes, size_t n)
{
    c->unsent = malloc(sizeof *c->unsent + n);
    if (c->unsent == NULL)
        return 0;
    c->unsent->start = 0;
    c->unsent->end = n;
    c->unsent->sendq = 0;
    memcpy(c->unsent->bytes, bytes, n);
    return WANT_WRITE;
}

static int send_unsent(struct conn_list *list, struct conn *c)
{
    struct unsent *unsent = c->unsent;
    ssize_t sent = net_send(c->fd, unsent->bytes + unsent->start, unsent->end - unsent->start);

    if (sent == -1)
        return is_passing(c, errno) ? WANT_WRITE : 0;
    c->progress = true;
    unsent->start += (size_t)sent;
    if (unsent->start == unsent->end) {
        free(unsent);
        c->unsent = NULL;
    }
    touch(list, c);
    return c->unsent != NULL ? WANT_WRITE : WANT_READ;
}

static int send_answers(struct conn *c, const unsigned char *bytes, size_t n)
{
    ssize_t sent = n > 0 ? net_send(c->fd, bytes, n) : 0;

    if (sent == -1 && !is_passing(c, errno))
        return 0;
    if (sent == -1)
        sent = 0;
    if ((size_t)sent == n)
        return WANT_READ;
    return keep_unsent(c, bytes + sent, n - (size_t)sent);
}

static int receive(struct conn_list *list, struct conn *c)
{
    /* One for all clients of a thread: no byte stays in it from one call to the next. */
    static _Thread_local unsigned char scratch[SCRATCH_SIZE];
    ssize_t n = net_recv(c->fd, scratch, sizeof scratch);

    if (n == -1)
        return is_passing(c, errno) ? WANT_READ : 0;
    if (n == 0)
        return 0; /* nothing is unsent, or we would not be reading */
    c->progress = true;
    int want = send_answers(c, scratch, echo_feed(&c->echo, scratch, (size_t)n));
    touch(list, c);
    return want;
}

void conn_list_init(struct conn_list *list)
{
    list->count = list->progress = 0;
    idle_init(&list->idle, options->idle_timeout_ms);
}

struct conn *conn_open(struct conn_list *list, int fd, const struct address *peer)
{
    struct conn *c = calloc(1, sizeof *c);

    if (c == NULL || net_set_nonblocking(fd) == -1) {
        server_reject(fd, peer, strerror(errno));
        free(c);
        errno = ECONNABORTED;
        return NULL;
    }
    c->fd = fd;
    c->peer = *peer;
    echo_init(&c->echo);
    c->want = WANT_READ;
    idle_add(&list->idle, &c->idle);
    list->count++;
    return c;
}

struct conn *conn_accept(struct conn_list *list, struct net_listener *listener)
{
    struct address peer;
    int fd = server_accept(listener, &peer);

    return fd == -1 ? NULL : conn_open(list, fd, &peer);
}

int conn_greet(struct conn *c)
{
    server_connected(&c->peer);
    int want = send_answers(c, (const unsigned char *)ECHO_GREETING, strlen(ECHO_GREETING));
    if (want == 0) { /* a client that cannot be greeted is not served */
        shutdown(c->fd, SHUT_RDWR);
        want = WANT_READ; /* the first recv will report the end */
    }
    c->want = (unsigned char)want;
    c->progress = false; /* only conn_pump reports progress */
    return want;
}

int conn_pump(struct conn_list *list, struct conn *c)
{
    c->progress = false;
    c->want = (unsigned char)(c->unsent != NULL ? send_unsent(list, c) : receive(list, c));
    list->progress += c->progress;
    return c->want;
}

static void free_conn(struct conn_list *list, struct conn *c)
{
    idle_remove(&list->idle, &c->idle);
    list->count--;
    close(c->fd);
    free(c->unsent);
    free(c);
}

void conn_close(struct conn_list *list, struct conn *c)
{
    server_disconnected(&c->peer); /* first: a client may reconnect when it sees its end */
    free_conn(list, c);
}

void conn_reject(struct conn_list *list, struct conn *c, const char *why)
{
    server_rejected(&c->peer, why);
    free_conn(list, c);
}

struct conn *conn_expired(struct conn_list *list)
{
    struct conn *c;

    while ((c = (struct conn *)idle_expired(&list->idle)) != NULL &&
           idle_has_progress(c->fd, c->unsent != NULL ? c->unsent->sendq : -1))
        touch(list, c);
    return c;
}

void conn_close_idle(struct conn_list *list)
{
    struct conn *c;

    while ((c = conn_expired(list)) != NULL)
        conn_close(list, c);
}

int conn_expiry_ms(const struct conn_list *list)
{
    return idle_expiry_ms(&list->idle);
}
