/* Step 6, variant - kqueue: anything new? On BSD and macOS this is step 6.
 *
 *     kevent: add A, add B, add C               once per client: the kernel keeps the list
 *              +--> kevent: asleep until one of them is ready
 *     one loop |    events = { B }              only the ready ones, however many are idle
 *              |    pump B
 *              +--- accept
 *
 * The same idea as epoll, and older (FreeBSD, 2000). Reading and writing are two filters, each
 * added, deleted and reported by itself, and one call takes any number of changes. A client has
 * one filter at a time, so no iteration reports it twice. (After the first report the client
 * might be closed, and the second would lead to freed memory.)
 *
 *   Wait happens in   kevent, for all clients at once
 *   Breaks when       one answer takes long to compute: all other clients wait for it
 */
#include "server.h"
#include "conn.h"
#include "drain.h"
#include "log.h"
#include "stop.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h> /* sys/event.h of some systems needs it first */

#include <sys/event.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256 }; /* per kevent; further ones are reported by the next */

/* Makes kqueue watch fd for `want` (0 = nothing), and no longer for `before`. Its events will
 * carry data. */
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
    server_watched(1);
    return kevent(kq, changes, n, NULL, 0, NULL);
}

static void accept_client(struct net_listener *listener, struct conn_list *clients, int kq)
{
    struct conn *c = conn_accept(clients, listener);

    if (c != NULL && watch(kq, c->fd, 0, WANT_READ, c) == -1)
        conn_reject(clients, c, strerror(errno));
    else if (c != NULL && conn_greet(c) != WANT_READ &&
             watch(kq, c->fd, WANT_READ, c->want, c) == -1)
        conn_close(clients, c);
}

/* Deletes the filter before closing. The kernel does that by itself, but a kqueue outside the
 * kernel (libkqueue) cannot see a descriptor being closed. */
static void close_client(struct conn_list *clients, struct conn *c, int kq, int watched_for)
{
    watch(kq, c->fd, watched_for, 0, NULL);
    conn_close(clients, c);
}

static void pump_client(struct conn_list *clients, struct conn *c, int kq)
{
    int before = c->want, want = conn_pump(clients, c);

    if (want == 0 || (want != before && watch(kq, c->fd, before, want, c) == -1))
        close_client(clients, c, kq, before);
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients;
    struct kevent events[EVENTS_MAX];
    struct conn *c;
    int kq = kqueue();

    conn_list_init(&clients);
    if (kq == -1 || watch(kq, stop_wakeup_fd(), 0, WANT_READ, NULL) == -1 ||
        watch(kq, listener->fd, 0, WANT_READ, listener) == -1 ||
        net_set_nonblocking(listener->fd) == -1)
        log_die("cannot set up kqueue: %s", strerror(errno));
    server_ready(&listener->address);
    while (!stop_requested()) {
        int ms = conn_expiry_ms(&clients);
        const struct timespec limit = {ms / 1000, ms % 1000 * 1000000L};
        int ready = kevent(kq, NULL, 0, events, EVENTS_MAX, ms == -1 ? NULL : &limit);
        server_waited(ready, ready);
        for (int i = 0; i < ready; i++)
            if (events[i].udata == listener)
                accept_client(listener, &clients, kq);
            else if (events[i].udata != NULL)
                pump_client(&clients, events[i].udata, kq);
        while ((c = conn_expired(&clients)) != NULL)
            close_client(&clients, c, kq, c->want);
    }
    close(kq);
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
