/* Step 5, variant - poll: which of all these? Any number of them.
 *
 *              +--> asked = { listener, A, B, C }       built again each lap
 *              |    poll: asleep until one of them is ready
 *     one loop |    asked[B].revents = POLLIN           the answer stands beside the question
 *              |    pump B
 *              +--- accept
 *
 * select has a bit for each descriptor there could be, poll an entry for each one asked about:
 * no descriptor is too high, and those nobody asked about cost nothing. That is all that
 * changes: the kernel still keeps no list, so each lap names everybody.
 *
 *   Wait happens in   poll, for all clients at once
 *   Breaks when       there are many: nobody is turned away, but each lap names them all
 */
#include "cli.h"
#include "conn.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    ACCEPTS_PER_LAP = 64, /* a flood of newcomers must not starve those already in */
    LISTENER = 0, /* places in asked[]: these two, then the clients as they are listed */
    WAKEUP,
    FIRST_CLIENT,
};

static struct pollfd *asked;
static int room; /* for so many */

/* Makes room to ask about one client more than there are. Returns -1 if there is none. */
static int make_room(int clients)
{
    int needed = FIRST_CLIENT + clients + 1;

    if (needed <= room)
        return 0;
    struct pollfd *larger = realloc(asked, 2 * (size_t)needed * sizeof *asked);
    if (larger == NULL)
        return -1;
    asked = larger;
    room = 2 * needed;
    return 0;
}

/* Returns whether somebody came, and so whether there may be more. */
static bool accept_client(struct net_listener *listener, struct conn_list *clients)
{
    struct peer peer;
    int fd = cli_admit(net_accept(listener, &peer), &peer);
    struct conn *c;

    if (fd < 0)
        return fd == CLI_REFUSED;
    if (net_set_nonblocking(fd) == -1 || make_room(clients->count) == -1 ||
        (c = conn_open(clients, fd, &peer)) == NULL) {
        cli_refused(&peer, "out of memory");
        close(fd);
        return true;
    }
    conn_greet(c);
    cli_connected(&peer);
    return true;
}

static void drop_client(struct conn_list *clients, struct conn *c)
{
    cli_disconnected(&c->peer);
    conn_close(clients, c);
}

static void pump_client(struct conn_list *clients, struct conn *c)
{
    if (conn_pump(clients, c) == 0)
        drop_client(clients, c);
}

/* Returns what poll does: how many descriptors are ready, and asked[] says which. */
static int wait_for_any(int listener, const struct conn_list *clients)
{
    int n = FIRST_CLIENT;

    asked[LISTENER] = (struct pollfd){.fd = listener, .events = POLLIN};
    asked[WAKEUP] = (struct pollfd){.fd = cli_wakeup_fd(), .events = POLLIN};
    for (const struct conn *c = clients->first; c != NULL; c = c->next)
        asked[n++] =
            (struct pollfd){.fd = c->fd, .events = c->want == WANT_READ ? POLLIN : POLLOUT};
    int ready = net_poll(asked, (nfds_t)n, conn_expiry_ms(clients));
    stats_wait(ready, n);
    return ready;
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients = {.idle_limit = cli.idle_timeout_ms};

    if (make_room(0) == -1)
        cli_die("out of memory");
    cli_wakeup_fd(); /* now: from Listening on nothing is fatal */
    if (net_set_nonblocking(listener->fd) == -1)
        cli_die("cannot make the listener non-blocking: %s", strerror(errno));
    cli_listening(&listener->address);
    while (!cli_stopping()) {
        if (wait_for_any(listener->fd, &clients) == -1)
            continue; /* a signal: the answers mean nothing */
        struct conn *next, *c = clients.first;
        for (int i = FIRST_CLIENT, end = i + clients.count; i < end; i++, c = next) {
            next = c->next; /* pump_client may free c, or move it to the end of the list */
            if (asked[i].revents != 0) /* hang-ups too, which poll reports unasked */
                pump_client(&clients, c);
        }
        while (conn_expired(&clients))
            drop_client(&clients, clients.first);
        if (asked[LISTENER].revents != 0) /* last: asked[] may move, and knows no newcomer */
            for (int i = 0; i < ACCEPTS_PER_LAP && accept_client(listener, &clients); i++)
                ;
    }
    net_unlisten(listener); /* from here on nobody new */
    conn_drain(&clients, CLI_QUIET_MS, CLI_GRACE_MS, cli_disconnected);
    free(asked);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
