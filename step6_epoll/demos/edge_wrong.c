/* edge_wrong - edge-triggered epoll, used wrongly: one recv per event.
 *
 *     10,000 bytes arrive         one edge: one event
 *     recv takes 2,048            7,952 are left, and nothing new has happened
 *     epoll_wait                  asleep, though bytes are there
 *
 * EPOLLET reports once that something has changed, not that there is something to read. A
 * program that gets such an event must read until EAGAIN. This server does not, and every small
 * test of it passes. demos/edge_client.py sends a message larger than the buffer and shows how
 * it stalls. One byte more brings 2,048 of the missing ones. build/variants/edge does it right.
 *
 * Left out: --idle-timeout has no effect, and a client is disconnected when its answers do not
 * fit into the socket.
 */
#include "server.h"
#include "echo.h"
#include "log.h"
#include "stop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BUFFER_SIZE = 2048, EVENTS_MAX = 64 };

struct client {
    int fd;
    struct address peer;
    struct echo echo;
};

static int watch(int epoll, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};

    server_watched(1);
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void accept_client(struct net_listener *listener, int epoll)
{
    struct address peer;
    int fd = server_accept(listener, &peer);

    if (fd == -1)
        return;
    struct client *c = malloc(sizeof *c);
    if (c == NULL || net_set_nonblocking(fd) == -1 ||
        watch(epoll, fd, EPOLLIN | EPOLLET, c) == -1) {
        server_reject(fd, &peer, strerror(errno));
        free(c);
        return;
    }
    *c = (struct client){.fd = fd, .peer = peer};
    echo_init(&c->echo);
    server_connected(&peer);
    net_send(fd, ECHO_GREETING, 1);
}

static void pump_client(struct client *c)
{
    unsigned char bytes[BUFFER_SIZE];
    ssize_t n = net_recv(c->fd, bytes, sizeof bytes); /* the mistake: once */

    if (n == -1 && net_is_again(errno))
        return;
    size_t answers = n > 0 ? echo_feed(&c->echo, bytes, (size_t)n) : 0;
    if (n > 0 && net_send(c->fd, bytes, answers) == (ssize_t)answers)
        return;
    server_disconnected(&c->peer);
    close(c->fd);
    free(c);
}

static void run_server(struct net_listener *listener)
{
    struct epoll_event events[EVENTS_MAX];
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll == -1 || watch(epoll, stop_wakeup_fd(), EPOLLIN, NULL) == -1 ||
        watch(epoll, listener->fd, EPOLLIN, listener) == -1)
        log_die("cannot set up epoll: %s", strerror(errno));
    net_set_nonblocking(listener->fd);
    server_ready(&listener->address);
    while (!stop_requested()) {
        int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
        server_waited(ready, ready);
        for (int i = 0; i < ready; i++)
            if (events[i].data.ptr == listener)
                accept_client(listener, epoll);
            else if (events[i].data.ptr != NULL)
                pump_client(events[i].data.ptr);
    }
    close(epoll);
    net_unlisten(listener);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
