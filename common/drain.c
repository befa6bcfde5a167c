#include "drain.h"
#include "clock.h"
#include "stop.h"

#include <poll.h>

enum { LOOK_MS = 5 }; /* between two looks at all clients, if none of them made progress */

static bool is_ready(const struct conn *c)
{
    struct pollfd fd = {.fd = c->fd, .events = c->want == WANT_WRITE ? POLLOUT : POLLIN};

    return net_poll(&fd, 1, 0) == 1;
}

static bool has_finished(struct conn_list *list, struct conn *c)
{
    if (is_ready(c)) { /* if poll fails, too: then only the call tells */
        const uint32_t now = (uint32_t)clock_ms();
        if (conn_pump(list, c) == 0)
            return true;
        if (c->progress) {
            c->idle.last_active = now; /* idle_touch does not: there is no limit */
            return false;
        }
    }
    return c->unsent == NULL && idle_ms(&c->idle) >= STOP_LINGER_MS;
}

/* Gives each client a turn. */
static void drain_once(struct conn_list *list)
{
    struct conn *next;

    for (struct conn *c = conn_first(list); c != NULL; c = next) {
        next = conn_next(c);
        if (has_finished(list, c))
            conn_close(list, c);
    }
}

void drain_clients(struct conn_list *list)
{
    const int64_t start = clock_ms();

    idle_restart(&list->idle, 0);
    while (list->count > 0 && !stop_deadline_passed() && clock_ms() - start < STOP_GRACE_MS) {
        list->progress = 0;
        drain_once(list);
        if (list->progress == 0)
            poll(NULL, 0, LOOK_MS);
    }
    while (list->count > 0)
        conn_close(list, conn_first(list));
}
