/* Step 5 - select: which of all these?
 *
 *              +--> sets = { listener, A, B, C }        built again in each iteration
 *              |    pselect: asleep until one of them is ready
 *     one loop |    sets = { B }                        only the ready ones are left
 *              |    pump B
 *              +--- accept
 *
 * The nap of step 4 becomes a sleep that ends the moment there is work. One system call asks
 * about all clients. The struct conn of step 4 has not changed.
 *
 *   Wait happens in   pselect, for all clients at once
 *   Breaks when       there are many: each iteration names all, and FD_SETSIZE is the limit
 */
#include "server.h"
#include "conn.h"
#include "drain.h"
#include "log.h"
#include "stop.h"

#include <errno.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>

static void accept_client(struct net_listener *listener, struct conn_list *clients)
{
    struct conn *c = conn_accept(clients, listener);

    if (c != NULL && c->fd >= FD_SETSIZE) /* FD_SET would write beyond the end of the set */
        conn_reject(clients, c, "descriptor beyond FD_SETSIZE");
    else if (c != NULL)
        conn_greet(c);
}

static void pump_client(struct conn_list *clients, struct conn *c)
{
    if (conn_pump(clients, c) == 0)
        conn_close(clients, c);
}

/* Returns what pselect does: how many descriptors are ready. The sets then say which. */
static int wait_for_any(int listener, const struct conn_list *clients, fd_set *readable,
                        fd_set *writable)
{
    int highest = listener > stop_wakeup_fd() ? listener : stop_wakeup_fd();
    int ms = conn_expiry_ms(clients);
    const struct timespec limit = {ms / 1000, ms % 1000 * 1000000L};

    FD_ZERO(readable);
    FD_ZERO(writable);
    FD_SET(listener, readable);
    FD_SET(stop_wakeup_fd(), readable);
    for (const struct conn *c = conn_first(clients); c != NULL; c = conn_next(c)) {
        FD_SET(c->fd, c->want == WANT_READ ? readable : writable);
        if (c->fd > highest)
            highest = c->fd;
    }
    int ready = pselect(highest + 1, readable, writable, NULL, ms == -1 ? NULL : &limit, NULL);
    server_waited(ready, highest + 1);
    return ready;
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients;
    fd_set readable, writable;

    conn_list_init(&clients);
    if (listener->fd >= FD_SETSIZE || stop_wakeup_fd() >= FD_SETSIZE)
        log_die("started with so many descriptors open that select cannot watch a new one");
    if (net_set_nonblocking(listener->fd) == -1)
        log_die("cannot make the listener non-blocking: %s", strerror(errno));
    server_ready(&listener->address);
    while (!stop_requested()) {
        if (wait_for_any(listener->fd, &clients, &readable, &writable) == -1)
            continue; /* a signal came: the sets mean nothing */
        struct conn *next, *c = conn_first(&clients);
        for (int left = clients.count; left > 0; left--, c = next) {
            next = conn_next(c); /* pump_client may free c, or move it to the end of the list */
            if (FD_ISSET(c->fd, &readable) || FD_ISSET(c->fd, &writable))
                pump_client(&clients, c);
        }
        conn_close_idle(&clients);
        if (FD_ISSET(listener->fd, &readable)) /* last: a new descriptor is not in these sets */
            accept_client(listener, &clients);
    }
    net_unlisten(listener);
    drain_clients(&clients);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
