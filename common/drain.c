#include "drain.h"
#include "clock.h"
#include "stop.h"

#include <poll.h>
#include <stdlib.h>

/* The analyzer does not see that conn_close takes the client out of the list that is walked. */
/* NOLINTBEGIN(clang-analyzer-unix.Malloc) */
static void wait_for_any(const struct conn_list *list, struct pollfd *fds)
{
    nfds_t n = 0;

    for (const struct conn *c = conn_first(list); c != NULL; c = conn_next(c))
        fds[n++] = (struct pollfd){
            .fd = c->fd,
            .events = (short)((c->want & WANT_READ ? POLLIN : 0) |
                              (c->want & WANT_WRITE ? POLLOUT : 0)),
        };
    if (net_poll(fds, n, STOP_LINGER_MS) == -1)
        for (nfds_t i = 0; i < n; i++)
            fds[i].revents = 0; /* EINTR: ask again */
}

static bool has_finished(struct conn_list *list, struct conn *c, bool ready)
{
    if (!ready)
        return c->unsent == NULL && idle_ms(&c->idle) >= STOP_LINGER_MS;
    c->idle.last_active = (uint32_t)clock_ms();
    return conn_pump(list, c) == 0;
}

void drain_clients(struct conn_list *list)
{
    struct pollfd *fds = calloc((size_t)list->count + 1, sizeof *fds);
    const int64_t start = clock_ms();
    struct conn *next;

    list->idle.limit_ms =
        0; /* the order must not change any more: we set last_active ourselves */
    for (struct conn *c = conn_first(list); c != NULL; c = conn_next(c))
        c->idle.last_active = (uint32_t)start;
    while (fds != NULL && list->count > 0 && clock_ms() - start < STOP_GRACE_MS) {
        wait_for_any(list, fds);
        const struct pollfd *fd = fds;
        for (struct conn *c = conn_first(list); c != NULL; c = next, fd++) {
            next = conn_next(c);
            if (has_finished(list, c, fd->revents != 0))
                conn_close(list, c);
        }
    }
    free(fds);
    for (struct conn *c = conn_first(list); c != NULL; c = next) {
        next = conn_next(c);
        conn_close(list, c);
    }
}
/* NOLINTEND(clang-analyzer-unix.Malloc) */
