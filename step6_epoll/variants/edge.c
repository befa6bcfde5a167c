/* Step 6, variant - edge-triggered epoll: anything new? I shall not ask twice.
 *
 *     epoll_ctl: add A, add B, add C            once per client, and never changed again
 *              +--> pump C                      the ready list: who moved bytes last time
 *     one loop |    epoll_wait: asleep, unless somebody is on that list still
 *              |    pump B                      B is new, and goes on the list
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
};

static struct conn **ready_list; /* who may have more for us, or take more: c->moved */
static int listed, room;         /* so many are, so many can be */

/* Makes room for one client more than there are: all may be ready. Returns -1 if it cannot. */
static int make_room(int clients)
{
    if (clients < room)
        return 0;
    int wanted = 2 * (clients + 1);
    struct conn **larger = realloc(ready_list, (size_t)wanted * sizeof(struct conn *));
    if (larger == NULL)
        return -1;
    ready_list = larger;
    room = wanted;
    return 0;
}

/* Adds a descriptor to what epoll watches, and says what for, and what it hands back to us in
 * the event. */
static int watch(int epoll, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};

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

/* One turn: one recv or one send. Who moved a byte gets another in the next lap. */
static void pump_client(struct conn_list *clients, struct conn *c)
{
    if (conn_pump(clients, c) == 0)
        drop_client(clients, c);
    else if (c->moved)
        ready_list[listed++] = c;
}

static void pump_ready(struct conn_list *clients)
{
    int turns = ready_list == NULL ? 0 : listed; /* no list before the first client */

    listed = 0;
    for (int i = 0; i < turns; i++)
        pump_client(clients, ready_list[i]); /* which writes to [i] at the most */
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients = {.idle_limit = cli.idle_timeout_ms};
    struct epoll_event events[EVENTS_PER_LAP];
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll == -1 || watch(epoll, cli_wakeup_fd(), EPOLLIN, NULL) == -1 ||
        watch(epoll, listener->fd, EPOLLIN, listener) == -1 ||
        net_set_nonblocking(listener->fd) == -1)
        cli_die("cannot set up epoll: %s", strerror(errno));
    cli_listening(&listener->address);
    while (!cli_stopping()) {
        pump_ready(&clients);
        int ready = epoll_wait(epoll, events, EVENTS_PER_LAP,
                               listed > 0 ? 0 : conn_expiry_ms(&clients));
        bool knocked = false;

        stats_wait(ready, ready);
        for (int i = 0; i < ready; i++) {
            struct conn *c = events[i].data.ptr;
            if (events[i].data.ptr == listener)
                knocked = true;
            else if (c != NULL && !c->moved) /* or it is on the list already */
                pump_client(&clients, c);
        }
        while (conn_expired(&clients) && !clients.first->moved)
            drop_client(&clients, clients.first);
        for (int i = 0; knocked && i < ACCEPTS_PER_LAP; i++)
            knocked = accept_client(listener, &clients, epoll);
    }
    close(epoll);
    net_unlisten(listener); /* from here on nobody new */
    conn_drain(&clients, CLI_QUIET_MS, CLI_GRACE_MS, cli_disconnected);
    free(ready_list);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
