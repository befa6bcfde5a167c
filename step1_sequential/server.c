/* Step 1 - sequential: are you done yet?
 *
 *     accept --> recv --> answer --> recv --> answer --> ... --> closed --> accept
 *                 client A, from its first byte to its last          then client B
 *
 * The server serves one client from its greeting to its end, then the next. The kernel connects
 * the other clients, up to a limit, the backlog (listen(2)), but the server does not look at
 * them. A client's state is the local variables of serve_client: a client is one running call.
 *
 *   Wait happens in   accept, then recv: always exactly one call
 *                     (and in send, for a client that does not read)
 *   Breaks when       a second client comes: it waits for the first, even if that is idle
 */
#include "server.h"
#include "echo.h"
#include "stream.h"

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

static void run_server(struct net_listener *listener)
{
    struct address peer;
    int fd;

    server_ready(&listener->address);
    while ((fd = stream_accept(listener, &peer)) != -1) {
        server_connected(&peer);
        serve_client(fd);
        server_disconnected(&peer);
        close(fd);
    }
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
