#include "drain.h"
#include "clock.h"
#include "stop.h"

#include <poll.h>

enum { LOOK_MS = 5 }; /* between two looks at all clients, if none of them was ready */

static bool is_ready(const struct conn *c)
{
    struct pollfd fd = {.fd = c->fd, .events = c->want == WANT_WRITE ? POLLOUT : POLLIN};

    return net_poll(&fd, 1, 0) == 1;
}

static bool has_finished(struct conn_list *list, struct conn *c, bool ready)
{
    if (!ready)
        return c->unsent == NULL && idle_ms(&c->idle) >= STOP_LINGER_MS;
    c->idle.last_active = (uint32_t)clock_ms(); /* without a limit idle_touch does nothing */
    return conn_pump(list, c) == 0;
}

/* Gives each client a turn. Returns how many of them were ready. */
static int drain_once(struct conn_list *list)
{
    int ready = 0;
    struct conn *next;

    for (struct conn *c = conn_first(list); c != NULL; c = next) {
        next = conn_next(c);
        bool now = is_ready(c);
        ready += now;
        if (has_finished(list, c, now))
            conn_close(list, c);
    }
    return ready;
}

void drain_clients(struct conn_list *list)
{
    const int64_t start = clock_ms();

    idle_restart(&list->idle, 0);
    while (list->count > 0 && !stop_deadline_passed() && clock_ms() - start < STOP_GRACE_MS)
        if (drain_once(list) == 0)
            poll(NULL, 0, LOOK_MS);
    while (list->count > 0)
        conn_close(list, conn_first(list));
}
