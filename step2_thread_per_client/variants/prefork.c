/* Step 2, variant - processes forked ahead: each accepts for itself.
 *
 *                +--> accept --> recv --> answer --> ... --> accept     worker 1
 *     listener --+--> accept --> recv --> answer --> ... --> accept     worker 2
 *                +--> accept (asleep: no client yet)                    worker 3
 *     parent: asleep; replaces a worker that dies
 *
 * Step 1 in N copies. fork copies the listener's descriptor, not the listener, so all workers
 * sleep in accept on one queue of clients. For each client the kernel wakes the worker that has
 * slept longest. A worker that is busy or hangs is not asleep in accept, so it gets no client.
 * There is no hand-over, no lock, and no fork while a client waits.
 *
 *   Wait happens in   N accept and recv calls, in N processes
 *   Breaks when       N clients are idle: number N + 1 waits, even if it sends
 */
#include "server.h"
#include "children.h"
#include "echo.h"
#include "stats.h"
#include "stream.h"

#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024 };

static int workers = 16; /* --workers */

static void serve_client(int fd)
{
    unsigned char bytes[BUFFER_SIZE];
    struct echo echo;
    ssize_t n;

    echo_init(&echo);
    if (stream_send(fd, ECHO_GREETING, 1) == -1)
        return;
    while ((n = stream_recv(fd, bytes, sizeof bytes)) > 0) {
        size_t answers = echo_feed(&echo, bytes, (size_t)n);
        if (stream_send(fd, bytes, answers) == -1)
            return;
    }
}

/* The whole life of a worker: step 1's loop. */
_Noreturn static void worker_process(void *listener)
{
    struct address peer;
    int fd;

    while ((fd = stream_accept(listener, &peer)) != -1) {
        server_connected(&peer);
        serve_client(fd);
        server_disconnected(&peer);
        close(fd);
    }
    net_unlisten(listener);
    stats_child_report();
    _exit(0);
}

static void run_server(struct net_listener *listener)
{
    children_init(workers);
    server_ready(&listener->address);
    children_keep(worker_process, listener);
    net_shut(listener); /* workers that serve a client still have it open */
    net_unlisten(listener);
    children_stop();
}

int main(int argc, char **argv)
{
    static const struct step_option more[] = {
        {"workers", "N", "start N processes that serve clients (default 16)", &workers, 1,
         STATS_WORKERS_MAX},
        {0},
    };
    struct net_listener listener;

    server_start(argc, argv, more);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
