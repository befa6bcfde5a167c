/* Step 6, variant - edge-triggered epoll: anything new? Tell me only once.
 *
 *     epoll_ctl: add A, add B, add C            once per client, and never changed again
 *              +--> pump C                      on the ready list: it moved bytes last time
 *     one loop |    epoll_wait: asleep, unless the ready list has clients
 *              |    pump B                      B is new, and goes on the ready list
 *              +--- accept
 *
 * The kernel reports a change once. If bytes are left unread, we must remember that ourselves.
 * Reading until EAGAIN at once would let a client that sends without pause delay all others. So
 * each iteration gives every client on the ready list one turn, and only EAGAIN takes a client
 * off the list.
 *
 *   Wait happens in   epoll_wait, for all clients at once
 *   Breaks when       a client leaves the list before EAGAIN: nobody reports its bytes again
 */
#include "server.h"
#include "conn.h"
#include "drain.h"
#include "log.h"
#include "stop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS_MAX = 256 }; /* per epoll_wait; further ones are reported by the next */

static struct conn **ready_list; /* clients that may have more to move: c->progress */
static int listed, room;         /* how many are on it, how many can be */

/* Makes room for this many clients: all may be ready. Returns -1 if memory is short. */
static int make_room(int clients)
{
    if (clients <= room)
        return 0;
    struct conn **larger = realloc(ready_list, 2 * (size_t)clients * sizeof(struct conn *));
    if (larger == NULL)
        return -1;
    ready_list = larger;
    room = 2 * clients;
    return 0;
}

/* Adds fd to what epoll watches, with the pointer that its events carry. */
static int watch(int epoll, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};

    server_watched(1);
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void accept_client(struct net_listener *listener, struct conn_list *clients, int epoll)
{
    struct conn *c = conn_accept(clients, listener);

    if (c != NULL && (make_room(clients->count) == -1 ||
                      watch(epoll, c->fd, EPOLLIN | EPOLLOUT | EPOLLET, c) == -1))
        conn_reject(clients, c, strerror(errno));
    else if (c != NULL)
        conn_greet(c); /* whatever it wants now, epoll watches it for both */
}

/* One turn: one recv or one send. A client that moved a byte gets another turn. */
static void pump_client(struct conn_list *clients, struct conn *c)
{
    if (conn_pump(clients, c) == 0)
        conn_close(clients, c);
    else if (c->progress)
        ready_list[listed++] = c;
}

static void pump_ready(struct conn_list *clients)
{
    int turns = ready_list == NULL ? 0 : listed; /* NULL before the first client */

    listed = 0;
    for (int i = 0; i < turns; i++)
        pump_client(clients, ready_list[i]); /* puts it back at [i] or below */
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients;
    struct epoll_event events[EVENTS_MAX];
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    conn_list_init(&clients);
    if (epoll == -1 || watch(epoll, stop_wakeup_fd(), EPOLLIN, NULL) == -1 ||
        watch(epoll, listener->fd, EPOLLIN, listener) == -1 ||
        net_set_nonblocking(listener->fd) == -1)
        log_die("cannot set up epoll: %s", strerror(errno));
    server_ready(&listener->address);
    while (!stop_requested()) {
        pump_ready(&clients);
        int ready =
            epoll_wait(epoll, events, EVENTS_MAX, listed > 0 ? 0 : conn_expiry_ms(&clients));
        server_waited(ready, ready);
        for (int i = 0; i < ready; i++) {
            struct conn *c = events[i].data.ptr;
            if (events[i].data.ptr == listener)
                accept_client(listener, &clients, epoll);
            else if (c != NULL && !c->progress) /* else it is on the ready list already */
                pump_client(&clients, c);
        }
        struct conn *c; /* not conn_close_idle: the ready list may point to the client */
        while ((c = conn_expired(&clients)) != NULL && !c->progress) /* not on the ready list */
            conn_close(&clients, c);
    }
    close(epoll);
    net_unlisten(listener);
    drain_clients(&clients);
    free(ready_list);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
