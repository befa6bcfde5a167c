/* Step 3 - blocking: what does a blocking call cost?
 *
 *     Calling recv...
 *         |   asleep: not on any core's list, nothing done, nothing paid
 *     recv returned 7 bytes (slept 1003.2 ms, 0.1 ms CPU)
 *
 * Step 1 again, telling of each recv how long it slept and how much CPU it used meanwhile.
 * Blocking is not what is slow: a sleeping call costs nothing. What it takes away is the
 * choice: while this thread waits for one client it cannot wait for another.
 *
 *   Wait happens in   accept, then recv: now you can watch it
 *   Breaks when       a second client comes, as in step 1: the one sleep is spent on the first
 */
#include "cli.h"
#include "echo.h"
#include "net.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024 };

static int once; /* --once: exit after the first client */

/* What the recv calls of one client cost, in milliseconds. */
struct cost {
    double asleep, cpu;
};

static double clock_ms(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static ssize_t narrated_recv(int fd, void *bytes, size_t size, struct cost *cost)
{
    if (cli.quiet)
        return net_recv(fd, bytes, size);
    cli_log("Calling recv...\n");
    double wall = clock_ms(CLOCK_MONOTONIC), cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
    ssize_t n = net_recv(fd, bytes, size);
    int error = errno;
    wall = clock_ms(CLOCK_MONOTONIC) - wall;
    cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    double asleep = wall > cpu ? wall - cpu : 0;
    cost->asleep += asleep;
    cost->cpu += cpu;
    if (n > 0)
        cli_log("recv returned %zd bytes (slept %.1f ms, %.1f ms CPU)\n", n, asleep, cpu);
    else if (n == 0)
        cli_log("recv returned 0: peer disconnected\n");
    else
        cli_log("recv failed: %s\n", strerror(error));
    errno = error;
    return n;
}

static int accept_client(struct net_listener *listener, struct peer *peer)
{
    int fd = cli_admit(net_accept(listener, peer), peer);

    if (fd >= 0 && cli.idle_timeout_ms > 0)
        net_set_timeout(fd, cli.idle_timeout_ms);
    return fd;
}

static void serve_client(int fd, struct cost *cost)
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
        ssize_t n = narrated_recv(fd, bytes, sizeof bytes, cost);
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
        struct cost cost = {0};
        cli_connected(&peer);
        serve_client(fd, &cost);
        if (!cli.quiet)
            cli_log("asleep in recv for %.1f ms, using %.1f ms CPU\n", cost.asleep, cost.cpu);
        cli_disconnected(&peer);
        close(fd);
        if (once)
            break;
    }
    net_unlisten(listener);
}

int main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {"once", NULL, "exit after the first client", &once, 0, 0},
        {0},
    };
    struct net_listener listener;

    cli_start(argc, argv, options);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
