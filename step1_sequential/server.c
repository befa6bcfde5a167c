/* Step 1 - sequential: are you done yet?
 *
 *     accept --> recv --> answer --> recv --> answer --> ... --> closed --> accept
 *                 client A, from its first byte to its last          then client B
 *
 * One client at a time, from greeting to goodbye. The others are connected (the kernel does
 * that, up to the backlog) but nobody looks at them. All a client's state is the local
 * variables of serve_client.
 *
 *   Wait happens in   accept, then recv: always exactly one call
 *                     (and in send, for a client that does not read)
 *   Breaks when       a second client comes: it waits for the first, however idle that is
 */
#include "cli.h"
#include "echo.h"
#include "net.h"

#include <errno.h>
#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024 };

static int accept_client(struct net_listener *listener, struct peer *peer)
{
    int fd = cli_admit(net_accept(listener, peer), peer);

    if (fd >= 0 && cli.idle_timeout_ms > 0)
        net_set_timeout(fd, cli.idle_timeout_ms);
    return fd;
}

static void serve_client(int fd)
{
    unsigned char bytes[BUFFER_SIZE];
    struct echo echo;
    long long cut = 0; /* when a signal cut a silence short */

    echo_init(&echo);
    if (net_send_all(fd, ECHO_GREETING, 1, &cli_time_is_up) == -1)
        return;
    while (!cli_time_is_up) {
        if (cli_stopping() && !net_readable(fd, CLI_QUIET_MS))
            return; /* all that had come is answered */
        ssize_t n = net_recv(fd, bytes, sizeof bytes);
        if (n == -1 && errno == EINTR && !net_overdue(fd, &cut))
            continue;
        if (n <= 0)
            return; /* the end, a reset, or --idle-timeout */
        cut = 0;
        size_t answers = echo_feed(&echo, bytes, (size_t)n);
        if (net_send_all(fd, bytes, answers, &cli_time_is_up) == -1)
            return;
    }
}

static void run_server(struct net_listener *listener)
{
    struct peer peer;

    cli_listening(&listener->address);
    while (!cli_stopping()) {
        int fd = accept_client(listener, &peer);
        if (fd < 0)
            continue;
        cli_connected(&peer);
        serve_client(fd);
        cli_disconnected(&peer);
        close(fd);
    }
    net_unlisten(listener);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
