#include "conn.h"
#include "net.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SCRATCH_SIZE = 64 * 1024 };

/* What a socket would not take. The client is read no further until all of it has gone. */
struct owed {
    size_t start, end;
    int untaken; /* net_untaken when the client was last heard */
    unsigned char bytes[];
};

static uint32_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

static void list_append(struct conn_list *list, struct conn *c)
{
    c->prev = list->last;
    c->next = NULL;
    if (c->prev != NULL)
        c->prev->next = c;
    else
        list->first = c;
    list->last = c;
}

static void list_remove(struct conn_list *list, struct conn *c)
{
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        list->first = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    else
        list->last = c->prev;
}

/* The client was heard just now. Keeping the list in that order costs O(1) here and lets
 * conn_expired look at one client instead of all. */
static void touch(struct conn_list *list, struct conn *c)
{
    if (list->idle_limit == 0)
        return;
    c->heard = now_ms();
    if (c->owed != NULL)
        c->owed->untaken = net_untaken(c->fd);
    if (c->next != NULL) {
        list_remove(list, c);
        list_append(list, c);
    }
}

static int keep_owed(struct conn *c, const unsigned char *bytes, size_t n)
{
    c->owed = malloc(sizeof *c->owed + n);
    if (c->owed == NULL)
        return 0;
    c->owed->start = 0;
    c->owed->end = n;
    c->owed->untaken = 0;
    memcpy(c->owed->bytes, bytes, n);
    return WANT_WRITE;
}

static int send_owed(struct conn *c)
{
    struct owed *owed = c->owed;
    ssize_t sent = net_send(c->fd, owed->bytes + owed->start, owed->end - owed->start);

    if (sent == -1)
        return net_is_again(errno) ? WANT_WRITE : 0;
    c->moved = true;
    owed->start += (size_t)sent;
    if (owed->start < owed->end)
        return WANT_WRITE;
    free(owed);
    c->owed = NULL;
    return WANT_READ;
}

static int send_answers(struct conn *c, const unsigned char *bytes, size_t n)
{
    ssize_t sent = n > 0 ? net_send(c->fd, bytes, n) : 0;

    if (sent == -1 && !net_is_again(errno))
        return 0;
    if (sent == -1)
        sent = 0;
    if ((size_t)sent == n)
        return WANT_READ;
    return keep_owed(c, bytes + sent, n - (size_t)sent);
}

static int receive(struct conn *c)
{
    /* One for all clients of a thread: no byte stays in it from one call to the next. */
    static _Thread_local unsigned char scratch[SCRATCH_SIZE];
    ssize_t n = net_recv(c->fd, scratch, sizeof scratch);

    if (n == -1)
        return net_is_again(errno) ? WANT_READ : 0;
    if (n == 0)
        return 0; /* nothing is owed, or we would not be reading */
    c->moved = true;
    return send_answers(c, scratch, echo_feed(&c->echo, scratch, (size_t)n));
}

struct conn *conn_open(struct conn_list *list, int fd, const struct peer *peer)
{
    struct conn *c = calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->fd = fd;
    c->peer = *peer;
    echo_init(&c->echo);
    c->want = WANT_READ;
    list_append(list, c);
    list->count++;
    touch(list, c);
    return c;
}

int conn_greet(struct conn *c)
{
    int want = send_answers(c, (const unsigned char *)ECHO_GREETING, strlen(ECHO_GREETING));

    if (want == 0) { /* without a greeting nobody is served */
        shutdown(c->fd, SHUT_RDWR);
        want = WANT_READ; /* the first recv will tell */
    }
    c->want = (unsigned char)want;
    return want;
}

void conn_close(struct conn_list *list, struct conn *c)
{
    list_remove(list, c);
    list->count--;
    close(c->fd);
    free(c->owed);
    free(c);
}

int conn_pump(struct conn_list *list, struct conn *c)
{
    c->moved = false;
    c->want = (unsigned char)(c->owed ? send_owed(c) : receive(c));
    if (c->moved)
        touch(list, c);
    return c->want;
}

bool conn_expired(struct conn_list *list)
{
    while (conn_expiry_ms(list) == 0) {
        struct conn *c = list->first;
        if (c->owed ? net_untaken(c->fd) >= c->owed->untaken : !net_readable(c->fd, 0))
            return true;
        touch(list, c);
    }
    return false;
}

int conn_expiry_ms(const struct conn_list *list)
{
    if (list->idle_limit == 0 || list->first == NULL)
        return -1;
    uint32_t silent = now_ms() - list->first->heard; /* right even when the clock has wrapped */
    return silent >= (uint32_t)list->idle_limit ? 0 : list->idle_limit - (int)silent;
}

/* The analyzer does not see that conn_close takes the conn out of the list it walks here. */
/* NOLINTBEGIN(clang-analyzer-unix.Malloc) */
static void wait_for_any(const struct conn_list *list, struct pollfd *fds, int limit_ms)
{
    nfds_t n = 0;

    for (const struct conn *c = list->first; c != NULL; c = c->next)
        fds[n++] = (struct pollfd){
            .fd = c->fd,
            .events = (short)((c->want & WANT_READ ? POLLIN : 0) |
                              (c->want & WANT_WRITE ? POLLOUT : 0)),
        };
    if (net_poll(fds, n, limit_ms) == -1)
        for (nfds_t i = 0; i < n; i++)
            fds[i].revents = 0; /* EINTR: ask again */
}

static bool has_finished(struct conn_list *list, struct conn *c, bool ready, int quiet_ms)
{
    if (!ready)
        return c->owed == NULL && now_ms() - c->heard >= (uint32_t)quiet_ms;
    c->heard = now_ms();
    return conn_pump(list, c) == 0;
}

void conn_drain(struct conn_list *list, int quiet_ms, int limit_ms,
                void (*gone)(const struct peer *peer))
{
    struct pollfd *fds = calloc((size_t)list->count + 1, sizeof *fds);
    const uint32_t start = now_ms();
    struct conn *next;

    list->idle_limit = 0; /* from here on the order stays as it is, and `heard` is ours */
    for (struct conn *c = list->first; c != NULL; c = c->next)
        c->heard = start;
    while (fds != NULL && list->first != NULL && now_ms() - start < (uint32_t)limit_ms) {
        wait_for_any(list, fds, quiet_ms);
        const struct pollfd *fd = fds;
        for (struct conn *c = list->first; c != NULL; c = next, fd++) {
            next = c->next;
            if (has_finished(list, c, fd->revents != 0, quiet_ms)) {
                gone(&c->peer);
                conn_close(list, c);
            }
        }
    }
    free(fds);
    for (struct conn *c = list->first; c != NULL; c = next) {
        next = c->next;
        gone(&c->peer);
        conn_close(list, c);
    }
}
/* NOLINTEND(clang-analyzer-unix.Malloc) */
