/* edge_wrong - edge-triggered epoll, used wrongly: one recv per event.
 *
 *     10,000 bytes arrive         one edge: one event
 *     recv takes 2,048            7,952 are left, and nothing new has happened
 *     epoll_wait                  asleep, over bytes that are there
 *
 * EPOLLET reports that something has changed, once, not that there is something to read. Who
 * takes such an event must go on until EAGAIN. This server does not, and every small test of
 * it passes. Watch demos/edge_client.py stall against it with a message larger than the buffer,
 * and one byte more bring 2,048 of the missing ones; then the same client against
 * build/variants/edge, which does it right.
 *
 * All that is not the mistake is left out: --idle-timeout, the full house, answers that a
 * socket does not take.
 */
#include "cli.h"
#include "echo.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BUFFER_SIZE = 2048, EVENTS_PER_LAP = 64 };

struct client {
    int fd;
    struct peer peer;
    struct echo echo;
};

static int watch(int epoll, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};

    stats_add(&stats.interest_changes, 1);
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void accept_client(struct net_listener *listener, int epoll)
{
    struct peer peer;
    int fd = cli_admit(net_accept(listener, &peer), &peer);

    if (fd < 0)
        return;
    struct client *c = malloc(sizeof *c);
    if (c == NULL || net_set_nonblocking(fd) == -1 ||
        watch(epoll, fd, EPOLLIN | EPOLLET, c) == -1) {
        cli_refused(&peer, "cannot watch it");
        free(c);
        close(fd);
        return;
    }
    *c = (struct client){.fd = fd, .peer = peer};
    echo_init(&c->echo);
    net_send(fd, ECHO_GREETING, 1);
    cli_connected(&peer);
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
    cli_disconnected(&c->peer);
    close(c->fd);
    free(c);
}

static void run_server(struct net_listener *listener)
{
    struct epoll_event events[EVENTS_PER_LAP];
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll == -1 || watch(epoll, cli_wakeup_fd(), EPOLLIN, NULL) == -1 ||
        watch(epoll, listener->fd, EPOLLIN, listener) == -1)
        cli_die("cannot set up epoll: %s", strerror(errno));
    net_set_nonblocking(listener->fd);
    cli_listening(&listener->address);
    while (!cli_stopping()) {
        int ready = epoll_wait(epoll, events, EVENTS_PER_LAP, -1);
        stats_wait(ready, ready);
        for (int i = 0; i < ready; i++)
            if (events[i].data.ptr == listener)
                accept_client(listener, epoll);
            else if (events[i].data.ptr != NULL)
                pump_client(events[i].data.ptr);
    }
    close(epoll);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server(&listener);
    net_unlisten(&listener);
    return cli_finish();
}
