/* Step 6 - epoll: anything new?
 *
 *     epoll_ctl: add A, add B, add C            once per client: the kernel keeps the list
 *              +--> epoll_wait: asleep until one of them is ready
 *     one loop |    events = { B }              only the ready ones, however many are idle
 *              |    pump B
 *              +--- accept
 *
 * The list of step 5 moves into the kernel, which sees each packet arrive anyway. An iteration
 * costs as much as there is to do, not as much as there are clients. Level-triggered: bytes
 * that are not read now are reported again.
 *
 *   Wait happens in   epoll_wait, for all clients at once
 *   Breaks when       one answer takes long to compute: all other clients wait for it
 */
#include "server.h"
#include "conn.h"
#include "drain.h"
#include "log.h"
#include "stop.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS_MAX = 256 }; /* per epoll_wait; further ones are reported by the next */

/* Adds fd to epoll's list, or changes its entry (operation). Its events will carry data. */
static int watch(int epoll, int operation, int fd, int want, void *data)
{
    struct epoll_event event = {
        .events = (want & WANT_READ ? EPOLLIN : 0u) | (want & WANT_WRITE ? EPOLLOUT : 0u),
        .data.ptr = data,
    };

    server_watched(1);
    return epoll_ctl(epoll, operation, fd, &event);
}

static void accept_client(struct net_listener *listener, struct conn_list *clients, int epoll)
{
    struct conn *c = conn_accept(clients, listener);

    if (c != NULL && watch(epoll, EPOLL_CTL_ADD, c->fd, WANT_READ, c) == -1)
        conn_reject(clients, c, strerror(errno));
    else if (c != NULL && conn_greet(c) != WANT_READ &&
             watch(epoll, EPOLL_CTL_MOD, c->fd, c->want, c) == -1)
        conn_close(clients, c);
}

static void pump_client(struct conn_list *clients, struct conn *c, int epoll)
{
    int before = c->want, want = conn_pump(clients, c);

    if (want == 0 || (want != before && watch(epoll, EPOLL_CTL_MOD, c->fd, want, c) == -1))
        conn_close(clients, c); /* closing also takes it off epoll's list */
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients;
    struct epoll_event events[EVENTS_MAX];
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    conn_list_init(&clients);
    if (epoll == -1 || watch(epoll, EPOLL_CTL_ADD, stop_wakeup_fd(), WANT_READ, NULL) == -1 ||
        watch(epoll, EPOLL_CTL_ADD, listener->fd, WANT_READ, listener) == -1 ||
        net_set_nonblocking(listener->fd) == -1)
        log_die("cannot set up epoll: %s", strerror(errno));
    server_ready(&listener->address);
    while (!stop_requested()) {
        int ready = epoll_wait(epoll, events, EVENTS_MAX, conn_expiry_ms(&clients));
        server_waited(ready, ready);
        for (int i = 0; i < ready; i++)
            if (events[i].data.ptr == listener)
                accept_client(listener, &clients, epoll);
            else if (events[i].data.ptr != NULL)
                pump_client(&clients, events[i].data.ptr, epoll);
        conn_close_idle(&clients);
    }
    close(epoll);
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
