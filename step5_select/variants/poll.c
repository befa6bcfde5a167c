/* Step 5, variant - poll: which of all these? Any number of them.
 *
 *              +--> asked = { listener, A, B, C }       built again in each iteration
 *              |    poll: asleep until one of them is ready
 *     one loop |    asked[B].revents = POLLIN           the answer stands beside the question
 *              |    pump B
 *              +--- accept
 *
 * select has one bit for each possible descriptor, poll one entry for each descriptor asked
 * about. So no descriptor is too high, and descriptors not asked about cost nothing. Nothing
 * else changes: the kernel still keeps no list, so each iteration names all clients.
 *
 *   Wait happens in   poll, for all clients at once
 *   Breaks when       there are many: no client is rejected, but each iteration names them all
 */
#include "server.h"
#include "conn.h"
#include "drain.h"
#include "log.h"
#include "stop.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { ACCEPTS_MAX = 64 }; /* per iteration, not 1: each iteration names every client */

/* Places in asked[]. The clients follow in the order of their list. */
enum { LISTENER, WAKEUP, FIRST_CLIENT };

static struct pollfd *asked;
static int room; /* entries in asked[] */

/* Makes room for this many clients. Returns -1 with errno ENOMEM if it cannot. */
static int make_room(int clients)
{
    int needed = FIRST_CLIENT + clients;

    if (needed <= room)
        return 0;
    struct pollfd *larger = realloc(asked, 2 * (size_t)needed * sizeof *asked);
    if (larger == NULL)
        return -1;
    asked = larger;
    room = 2 * needed;
    return 0;
}

/* Returns whether a client was pending. Then there may be more. */
static bool accept_client(struct net_listener *listener, struct conn_list *clients)
{
    struct conn *c = conn_accept(clients, listener);

    if (c == NULL)
        return errno == ECONNABORTED;
    if (make_room(clients->count) == -1)
        conn_reject(clients, c, strerror(errno));
    else
        conn_greet(c);
    return true;
}

static void pump_client(struct conn_list *clients, struct conn *c)
{
    if (conn_pump(clients, c) == 0)
        conn_close(clients, c);
}

/* Returns what poll does: how many descriptors are ready. asked[] then says which. */
static int wait_for_any(int listener, const struct conn_list *clients)
{
    int n = FIRST_CLIENT;

    asked[LISTENER] = (struct pollfd){.fd = listener, .events = POLLIN};
    asked[WAKEUP] = (struct pollfd){.fd = stop_wakeup_fd(), .events = POLLIN};
    for (const struct conn *c = conn_first(clients); c != NULL; c = conn_next(c))
        asked[n++] =
            (struct pollfd){.fd = c->fd, .events = c->want == WANT_READ ? POLLIN : POLLOUT};
    int ready = net_poll(asked, (nfds_t)n, conn_expiry_ms(clients));
    server_waited(ready, n);
    return ready;
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients;

    conn_list_init(&clients);
    stop_wakeup_fd(); /* made now, while an error may still be fatal */
    if (make_room(0) == -1)
        log_die("out of memory");
    if (net_set_nonblocking(listener->fd) == -1)
        log_die("cannot make the listener non-blocking: %s", strerror(errno));
    server_ready(&listener->address);
    while (!stop_requested()) {
        if (wait_for_any(listener->fd, &clients) == -1)
            continue; /* a signal came: the answers mean nothing */
        struct conn *next, *c = conn_first(&clients);
        for (int i = FIRST_CLIENT, end = i + clients.count; i < end; i++, c = next) {
            next = conn_next(c); /* pump_client may free c, or move it to the end of the list */
            if (asked[i].revents != 0) /* poll reports hang-ups, too, without being asked */
                pump_client(&clients, c);
        }
        conn_close_idle(&clients);
        if (asked[LISTENER].revents != 0) /* last: accept_client may move asked[] */
            for (int i = 0; i < ACCEPTS_MAX && accept_client(listener, &clients); i++)
                ;
    }
    net_unlisten(listener);
    drain_clients(&clients);
    free(asked);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
