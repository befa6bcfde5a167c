/* Step 2 - thread per client: ask nothing, let the scheduler ask.
 *
 *     accept --> accept --> accept --> ...          the first thread only accepts
 *        |          |          +--> recv --> answer --> recv --> ...    client C's thread
 *        |          +--> recv --> answer --> recv --> ...               client B's thread
 *        +--> recv --> answer --> recv --> ...                          client A's thread
 *
 * The code of step 1, run once per client at the same time. The kernel wakes the thread whose
 * client has sent bytes. A client's state is still local variables: on a stack of its own.
 *
 *   Wait happens in   as many recv calls as there are clients
 *   Breaks when       there are thousands: each costs a stack, a kernel thread, and switches
 */
#include "server.h"
#include "echo.h"
#include "stream.h"
#include "threads.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024 };

struct client {
    int fd;
    struct address peer;
};

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

/* The whole life of a thread; the thread frees what start_client has allocated for it. */
static void client_thread(void *argument)
{
    struct client *client = argument;

    server_connected(&client->peer);
    serve_client(client->fd);
    server_disconnected(&client->peer);
    close(client->fd);
    free(client);
}

static void start_client(int fd, const struct address *peer)
{
    struct client *client = malloc(sizeof *client);
    int error = ENOMEM;

    if (client != NULL) {
        *client = (struct client){fd, *peer};
        error = threads_start(client_thread, client);
    }
    if (error != 0) {
        server_reject(fd, peer, strerror(error));
        free(client);
    }
}

static void run_server(struct net_listener *listener)
{
    struct address peer;
    int fd;

    server_ready(&listener->address);
    while ((fd = stream_accept(listener, &peer)) != -1)
        start_client(fd, &peer);
    net_unlisten(listener);
    threads_stop();
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
