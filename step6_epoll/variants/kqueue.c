/* Step 6, variant - kqueue: anything new? On BSD and macOS this is step 6.
 *
 *     kevent: add A, add B, add C               once per client: the kernel keeps the list
 *              +--> kevent: asleep until one of them is ready
 *     one loop |    events = { B }              only those that are ready, however many wait
 *              |    pump B
 *              +--- accept
 *
 * The same idea as epoll, and older (FreeBSD, 2000). To read and to write are two filters, each
 * added, deleted and reported by itself, and one call takes any number of changes. A client has
 * one filter at a time, so no lap reports it twice: the second report of a client dropped after
 * the first would lead to freed memory.
 *
 *   Wait happens in   kevent, for all clients at once
 *   Breaks when       one answer takes long to compute: all others wait for it
 */
#include "cli.h"
#include "conn.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h> /* sys/event.h of some systems wants it first */

#include <sys/event.h>
#include <time.h>
#include <unistd.h>

enum {
    ACCEPTS_PER_LAP = 64, /* a flood of newcomers must not starve those already in */
    EVENTS_PER_LAP = 256,
};

/* Makes kqueue watch a descriptor for what is wanted now (0: nothing), and no longer for what
 * was before; data is what it hands back to us in the event. */
static int watch(int kq, int fd, int before, int want, void *data)
{
    struct kevent changes[2];
    int n = 0;

    if (before != 0) {
        EV_SET(&changes[n], (uintptr_t)fd, before == WANT_READ ? EVFILT_READ : EVFILT_WRITE,
               EV_DELETE, 0, 0, NULL);
        n++;
    }
    if (want != 0) {
        EV_SET(&changes[n], (uintptr_t)fd, want == WANT_READ ? EVFILT_READ : EVFILT_WRITE,
               EV_ADD, 0, 0, data);
        n++;
    }
    stats_add(&stats.interest_changes, 1);
    return kevent(kq, changes, n, NULL, 0, NULL);
}

/* Returns whether somebody came, and so whether there may be more. */
static bool accept_client(struct net_listener *listener, struct conn_list *clients, int kq)
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
    if (watch(kq, fd, 0, WANT_READ, c) == -1) {
        cli_refused(&peer, strerror(errno));
        conn_close(clients, c);
        return true;
    }
    if (conn_greet(c) != WANT_READ)
        watch(kq, fd, WANT_READ, c->want, c);
    cli_connected(&peer);
    return true;
}

/* Closing deletes the filter too, but a kqueue that is not the kernel's (libkqueue) cannot know
 * of that: so it is deleted before. */
static void drop_client(struct conn_list *clients, struct conn *c, int kq, int watched_for)
{
    watch(kq, c->fd, watched_for, 0, NULL);
    cli_disconnected(&c->peer);
    conn_close(clients, c);
}

static void pump_client(struct conn_list *clients, struct conn *c, int kq)
{
    int before = c->want, want = conn_pump(clients, c);

    if (want == 0 || (want != before && watch(kq, c->fd, before, want, c) == -1))
        drop_client(clients, c, kq, before);
}

/* Returns what kevent does: how many events there are. */
static int wait_for_any(int kq, struct kevent *events, int ms)
{
    const struct timespec limit = {ms / 1000, ms % 1000 * 1000000L};
    int ready = kevent(kq, NULL, 0, events, EVENTS_PER_LAP, ms == -1 ? NULL : &limit);

    stats_wait(ready, ready);
    return ready;
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients = {.idle_limit = cli.idle_timeout_ms};
    struct kevent events[EVENTS_PER_LAP];
    int kq = kqueue();

    if (kq == -1 || watch(kq, cli_wakeup_fd(), 0, WANT_READ, NULL) == -1 ||
        watch(kq, listener->fd, 0, WANT_READ, listener) == -1 ||
        net_set_nonblocking(listener->fd) == -1)
        cli_die("cannot set up kqueue: %s", strerror(errno));
    cli_listening(&listener->address);
    while (!cli_stopping()) {
        int ready = wait_for_any(kq, events, conn_expiry_ms(&clients));
        bool knocked = false;

        for (int i = 0; i < ready; i++)
            if (events[i].udata == listener)
                knocked = true;
            else if (events[i].udata != NULL)
                pump_client(&clients, events[i].udata, kq);
        while (conn_expired(&clients))
            drop_client(&clients, clients.first, kq, clients.first->want);
        for (int i = 0; knocked && i < ACCEPTS_PER_LAP; i++)
            knocked = accept_client(listener, &clients, kq);
    }
    close(kq);
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
