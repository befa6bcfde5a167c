/* Step 5 - select: which of all these?
 *
 *              +--> sets = { listener, A, B, C }        built again each lap
 *              |    pselect: asleep until one of them is ready
 *     one loop |    sets = { B }                        what is left is what is ready
 *              |    pump B
 *              +--- accept
 *
 * The nap of step 4 becomes a sleep that ends the moment there is work. One system call asks
 * about everybody. The struct conn of step 4 has not changed; neither has drop_client.
 *
 *   Wait happens in   pselect, for all clients at once
 *   Breaks when       there are many: each lap names them all, and FD_SETSIZE ends the sets
 */
#include "cli.h"
#include "conn.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

enum { ACCEPTS_PER_LAP = 64 }; /* a flood of newcomers must not starve those already in */

/* Returns whether somebody came, and so whether there may be more. */
static bool accept_client(struct net_listener *listener, struct conn_list *clients)
{
    struct peer peer;
    int fd = cli_admit(net_accept(listener, &peer), &peer);
    struct conn *c;

    if (fd < 0)
        return fd == CLI_REFUSED;
    if (fd >= FD_SETSIZE) { /* FD_SET would write beyond the end of the set */
        cli_refused(&peer, "descriptor beyond FD_SETSIZE");
        close(fd);
        return true;
    }
    if (net_set_nonblocking(fd) == -1 || (c = conn_open(clients, fd, &peer)) == NULL) {
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

/* Returns what pselect does: how many descriptors are ready, and the sets say which. */
static int wait_for_any(int listener, const struct conn_list *clients, fd_set *readable,
                        fd_set *writable)
{
    int highest = listener > cli_wakeup_fd() ? listener : cli_wakeup_fd();
    int ms = conn_expiry_ms(clients);
    const struct timespec limit = {ms / 1000, ms % 1000 * 1000000L};

    FD_ZERO(readable);
    FD_ZERO(writable);
    FD_SET(listener, readable);
    FD_SET(cli_wakeup_fd(), readable);
    for (const struct conn *c = clients->first; c != NULL; c = c->next) {
        FD_SET(c->fd, c->want == WANT_READ ? readable : writable);
        if (c->fd > highest)
            highest = c->fd;
    }
    int ready = pselect(highest + 1, readable, writable, NULL, ms == -1 ? NULL : &limit, NULL);
    stats_wait(ready, highest + 1);
    return ready;
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients = {.idle_limit = cli.idle_timeout_ms};
    fd_set readable, writable;

    if (listener->fd >= FD_SETSIZE || cli_wakeup_fd() >= FD_SETSIZE)
        cli_die("started with so many descriptors open that select cannot watch a new one");
    if (net_set_nonblocking(listener->fd) == -1)
        cli_die("cannot make the listener non-blocking: %s", strerror(errno));
    cli_listening(&listener->address);
    while (!cli_stopping()) {
        if (wait_for_any(listener->fd, &clients, &readable, &writable) == -1)
            continue; /* a signal: the sets mean nothing */
        struct conn *next, *c = clients.first;
        for (int left = clients.count; left > 0; left--, c = next) {
            next = c->next; /* pump_client may free c, or move it to the end of the list */
            if (FD_ISSET(c->fd, &readable) || FD_ISSET(c->fd, &writable))
                pump_client(&clients, c);
        }
        while (conn_expired(&clients))
            drop_client(&clients, clients.first);
        if (FD_ISSET(listener->fd, &readable)) /* last: new descriptors are not in these sets */
            for (int i = 0; i < ACCEPTS_PER_LAP && accept_client(listener, &clients); i++)
                ;
    }
    net_unlisten(listener); /* from here on nobody new */
    conn_drain(&clients, CLI_QUIET_MS, CLI_GRACE_MS, cli_disconnected);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
