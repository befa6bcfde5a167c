/* Step 2, variant - a process per client: ask nothing, let the scheduler ask.
 *
 *     accept --> accept --> accept --> ...          the parent only accepts
 *        |          |          +--> recv --> answer --> recv --> ...    client C's process
 *        |          +--> recv --> answer --> recv --> ...               client B's process
 *        +--> recv --> answer --> recv --> ...                          client A's process
 *
 * Older than threads: fork copies the server, and the copy serves one client. Processes share
 * no memory unless they ask for it, so there is no lock, and a child that crashes harms no
 * other. A child that has ended remains as a zombie until its parent reaps it, which means to
 * ask for its exit status (waitpid).
 *
 *   Wait happens in   as many recv calls as there are clients, in as many processes
 *   Breaks when       there are thousands: a process costs several times what a thread does
 */
#include "server.h"
#include "children.h"
#include "echo.h"
#include "stream.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024 };

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

/* The whole life of a child. */
_Noreturn static void client_process(int fd, const struct address *peer)
{
    server_connected(peer);
    serve_client(fd);
    server_disconnected(peer);
    close(fd);
    _exit(0); /* not exit, which would flush the parent's buffered output */
}

static void start_client(struct net_listener *listener, int fd, const struct address *peer)
{
    pid_t pid = children_fork(); /* returns twice: 0 in the child */

    if (pid == 0) {
        net_unlisten(listener);
        client_process(fd, peer);
    }
    if (pid == -1)
        server_reject(fd, peer, strerror(errno));
    else
        close(fd); /* the child has its own */
}

static void run_server(struct net_listener *listener)
{
    struct address peer;
    int fd;

    children_init(0);
    server_ready(&listener->address);
    while ((fd = stream_accept(listener, &peer)) != -1)
        start_client(listener, fd, &peer);
    net_unlisten(listener);
    children_stop();
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
