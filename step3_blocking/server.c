/* Step 3 - blocking: what does a blocking call cost?
 *
 *     Calling recv...
 *         |   asleep: not on the scheduler's list, so no CPU is used
 *     recv returned 7 bytes (slept 1003.2 ms, 0.1 ms CPU)
 *
 * Step 1 again. It now reports for each recv how long it slept and how much CPU it used
 * meanwhile. Blocking is not slow: a sleeping call costs nothing. But it leaves no choice:
 * while this thread waits for one client it cannot wait for another.
 *
 *   Wait happens in   accept, then recv: now you can watch it
 *   Breaks when       a second client comes, as in step 1: the thread waits for the first only
 */
#include "server.h"
#include "echo.h"
#include "log.h"
#include "stream.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024 };

static int once;                           /* --once: exit after the first client */
static double asleep_in_recv, cpu_in_recv; /* of the client being served, in ms */

static double read_ms(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* stream_recv, with a report of its cost. */
static ssize_t narrated_recv(int fd, void *bytes, size_t size)
{
    if (options->quiet)
        return stream_recv(fd, bytes, size);
    log_line("Calling recv...");
    double wall = read_ms(CLOCK_MONOTONIC), cpu = read_ms(CLOCK_PROCESS_CPUTIME_ID);
    ssize_t n = stream_recv(fd, bytes, size);
    const char *why = strerror(errno);
    wall = read_ms(CLOCK_MONOTONIC) - wall;
    cpu = read_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    double asleep = wall > cpu ? wall - cpu : 0;
    asleep_in_recv += asleep;
    cpu_in_recv += cpu;
    if (n > 0)
        log_line("recv returned %zd bytes (slept %.1f ms, %.1f ms CPU)", n, asleep, cpu);
    else if (n == 0)
        log_line("recv returned 0: peer disconnected");
    else
        log_line("recv failed: %s", why);
    return n;
}

static void serve_client(int fd)
{
    unsigned char bytes[BUFFER_SIZE];
    struct echo echo;
    ssize_t n;

    echo_init(&echo);
    if (stream_send(fd, ECHO_GREETING, 1) == -1)
        return;
    while ((n = narrated_recv(fd, bytes, sizeof bytes)) > 0) {
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
        asleep_in_recv = cpu_in_recv = 0;
        serve_client(fd);
        if (!options->quiet)
            log_line("asleep in recv for %.1f ms, using %.1f ms CPU", asleep_in_recv,
                     cpu_in_recv);
        server_disconnected(&peer);
        close(fd);
        if (once)
            break;
    }
    net_unlisten(listener);
}

int main(int argc, char **argv)
{
    static const struct step_option more[] = {
        {"once", NULL, "exit after the first client", &once, 0, 0},
        {0},
    };
    struct net_listener listener;

    server_start(argc, argv, more);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
