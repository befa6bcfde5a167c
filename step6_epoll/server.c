/* Step 6 - epoll: anything new?
 *
 *     epoll_ctl: add A, add B, add C            once per client: the kernel keeps the list
 *              +--> epoll_wait: asleep until one of them is ready
 *     one loop |    events = { B }              only those that are ready, however many wait
 *              |    pump B
 *              +--- accept
 *
 * The list of step 5 moves into the kernel, which sees each packet arrive anyway. A lap costs
 * as much as there is to do, not as much as there are clients. Level-triggered: what is not
 * read now is reported again.
 *
 *   Wait happens in   epoll_wait, for all clients at once
 *   Breaks when       one answer takes long to compute: all others wait for it
 */
#include "cli.h"
#include "conn.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    ACCEPTS_PER_LAP = 64, /* a flood of newcomers must not starve those already in */
    EVENTS_PER_LAP = 256,
};

/* Adds (EPOLL_CTL_ADD) or changes (EPOLL_CTL_MOD) what epoll watches a descriptor for, and what
 * it hands back to us in the event. */
static int watch(int epoll, int operation, int fd, int want, void *data)
{
    struct epoll_event event = {
        .events = (want & WANT_READ ? EPOLLIN : 0u) | (want & WANT_WRITE ? EPOLLOUT : 0u),
        .data.ptr = data,
    };

    stats_add(&stats.interest_changes, 1);
    return epoll_ctl(epoll, operation, fd, &event);
}

/* Returns whether somebody came, and so whether there may be more. */
static bool accept_client(struct net_listener *listener, struct conn_list *clients, int epoll)
{
    struct peer peer;
    int fd = cli_admit(net_accept(listener, &peer), &peer);
    struct conn *c;

    if (fd < 0)
        return fd == CLI_REFUSED;
    if (net_set_nonblocking(fd) == -1 || (c = conn_open(clients, fd, &peer)) == NULL) {
        cli_refused(&peer, "out of memory");
        close(fd);
        return true;
    }
    if (watch(epoll, EPOLL_CTL_ADD, fd, WANT_READ, c) == -1) {
        cli_refused(&peer, strerror(errno));
        conn_close(clients, c);
        return true;
    }
    if (conn_greet(c) != WANT_READ)
        watch(epoll, EPOLL_CTL_MOD, fd, c->want, c);
    cli_connected(&peer);
    return true;
}

static void drop_client(struct conn_list *clients, struct conn *c)
{
    cli_disconnected(&c->peer);
    conn_close(clients, c); /* closing also leaves epoll's list */
}

static void pump_client(struct conn_list *clients, struct conn *c, int epoll)
{
    int before = c->want, want = conn_pump(clients, c);

    if (want == 0 || (want != before && watch(epoll, EPOLL_CTL_MOD, c->fd, want, c) == -1))
        drop_client(clients, c);
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients = {.idle_limit = cli.idle_timeout_ms};
    struct epoll_event events[EVENTS_PER_LAP];
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll == -1 || watch(epoll, EPOLL_CTL_ADD, cli_wakeup_fd(), WANT_READ, NULL) == -1 ||
        watch(epoll, EPOLL_CTL_ADD, listener->fd, WANT_READ, listener) == -1 ||
        net_set_nonblocking(listener->fd) == -1)
        cli_die("cannot set up epoll: %s", strerror(errno));
    cli_listening(&listener->address);
    while (!cli_stopping()) {
        int ready = epoll_wait(epoll, events, EVENTS_PER_LAP, conn_expiry_ms(&clients));
        bool knocked = false;

        stats_wait(ready, ready);
        for (int i = 0; i < ready; i++)
            if (events[i].data.ptr == listener)
                knocked = true;
            else if (events[i].data.ptr != NULL)
                pump_client(&clients, events[i].data.ptr, epoll);
        while (conn_expired(&clients))
            drop_client(&clients, clients.first);
        for (int i = 0; knocked && i < ACCEPTS_PER_LAP; i++)
            knocked = accept_client(listener, &clients, epoll);
    }
    close(epoll);
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
