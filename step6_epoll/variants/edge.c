/* Step 6, variant - edge-triggered epoll: anything new? I shall not ask twice.
 *
 *     epoll_ctl: add A, add B, add C            once per client, and never changed again
 *              +--> epoll_wait: asleep, unless somebody is on the ready list
 *     one loop |    ready = { C, B }            C may have more since the last lap, B is new
 *              |    pump C, pump B              once each: who moved a byte stays on the list
 *              +--- accept
 *
 * The kernel tells of a change once: what is not read then is our own affair. Reading until
 * EAGAIN at once would let a client that never stops sending keep all others waiting; so each
 * lap gives everybody on the list one turn, and only EAGAIN takes a client off it.
 *
 *   Wait happens in   epoll_wait, for all clients at once
 *   Breaks when       one EAGAIN is not waited for: those bytes are never reported again
 */
#include "cli.h"
#include "conn.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    ACCEPTS_PER_LAP = 64, /* a flood of newcomers must not starve those already in */
    EVENTS_PER_LAP = 256,
    FIRST_ROOM = 64,
};

/* The ready list: clients that may have more for us, or take more. c->moved says who is on it.
 */
static struct conn **ready;
static int ready_count, room; /* for so many */

/* Makes room for one client more than there are: all may be ready. Returns -1 if it cannot. */
static int make_room(int clients)
{
    if (clients < room)
        return 0;
    int wanted = room > 0 ? 2 * room : FIRST_ROOM;
    struct conn **larger = realloc(ready, (size_t)wanted * sizeof(struct conn *));
    if (larger == NULL)
        return -1;
    ready = larger;
    room = wanted;
    return 0;
}

/* Adds a descriptor to epoll's list; data is what it hands back to us in the event. */
static int watch(int epoll, int fd, uint32_t for_what, void *data)
{
    struct epoll_event event = {.events = for_what, .data.ptr = data};

    stats_add(&stats.interest_changes, 1);
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Returns whether somebody came, and so whether there may be more. */
static bool accept_client(struct net_listener *listener, struct conn_list *clients, int epoll)
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
    if (watch(epoll, fd, EPOLLIN | EPOLLOUT | EPOLLET, c) == -1) {
        cli_refused(&peer, strerror(errno));
        conn_close(clients, c);
        return true;
    }
    conn_greet(c); /* whatever it wants now, adding it has made it an event already */
    cli_connected(&peer);
    return true;
}

static void drop_client(struct conn_list *clients, struct conn *c)
{
    cli_disconnected(&c->peer);
    conn_close(clients, c); /* closing also leaves epoll's list */
}

/* Puts a client on the ready list, unless it is there already. */
static void mark_ready(struct conn *c)
{
    if (!c->moved)
        ready[ready_count++] = c;
    c->moved = true;
}

/* Gives a client its turn. Returns whether it may have more. */
static bool pump_client(struct conn_list *clients, struct conn *c)
{
    if (conn_pump(clients, c) != 0)
        return c->moved;
    drop_client(clients, c);
    return false;
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients = {.idle_limit = cli.idle_timeout_ms};
    struct epoll_event events[EVENTS_PER_LAP];
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (make_room(0) == -1 || epoll == -1 ||
        watch(epoll, cli_wakeup_fd(), EPOLLIN, NULL) == -1 ||
        watch(epoll, listener->fd, EPOLLIN, listener) == -1)
        cli_die("cannot set up epoll: %s", strerror(errno));
    net_set_nonblocking(listener->fd);
    cli_listening(&listener->address);
    while (!cli_stopping()) {
        int n = epoll_wait(epoll, events, EVENTS_PER_LAP,
                           ready_count > 0 ? 0 : conn_expiry_ms(&clients));
        struct conn *silent;
        int still_ready = 0;
        bool knocked = false;

        stats_wait(n, n);
        for (int i = 0; i < n; i++)
            if (events[i].data.ptr == listener)
                knocked = true;
            else if (events[i].data.ptr != NULL)
                mark_ready(events[i].data.ptr);
        for (int i = 0; i < ready_count; i++)
            if (pump_client(&clients, ready[i]))
                ready[still_ready++] = ready[i];
        ready_count = still_ready;
        while ((silent = conn_expired(&clients)) != NULL && !silent->moved)
            drop_client(&clients, silent);
        for (int i = 0; knocked && i < ACCEPTS_PER_LAP; i++)
            knocked = accept_client(listener, &clients, epoll);
    }
    close(epoll);
    net_unlisten(listener); /* from here on nobody new */
    conn_drain(&clients, CLI_QUIET_MS, CLI_GRACE_MS, cli_disconnected);
    free(ready);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
