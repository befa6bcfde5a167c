/* Step 4 - non-blocking polling: ask everybody, all the time.
 *
 *              +--> pump A    (EAGAIN: nothing from A)
 *     one loop |    pump B    (got 3 bytes, sent 3 bytes)
 *              |    accept?   (EAGAIN: nobody knocked)
 *              +--- nap, unless somebody had something
 *
 * Calls never sleep: they answer "not now". Silent clients delay nobody, but we pay a system
 * call per client per lap to find that out. Nobody's stack can hold a client any more, so a
 * client is now an object: struct conn.
 *
 *   Wait happens in   the nap, which no client can end early
 *   Breaks when       you look at top: CPU burns while nothing happens, or answers come late
 */
#include "cli.h"
#include "conn.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ACCEPTS_PER_LAP = 64 }; /* a flood of newcomers must not starve those already in */

static int interval_ms = 200; /* --interval-ms */

/* Returns whether somebody came, and so whether there may be more. */
static bool accept_client(struct net_listener *listener, struct conn_list *clients)
{
    struct peer peer;
    int fd = cli_admit(net_accept(listener, &peer), &peer);
    struct conn *c;

    if (fd < 0)
        return fd == CLI_REFUSED;
    if (net_set_nonblocking(fd) == -1 || (c = conn_open(clients, fd, &peer)) == NULL) {
        cli_refused(&peer, "out of memory");
        close(fd);
        return true;
    }
    conn_greet(c);
    cli_connected(&peer);
    return true;
}

static void drop_client(struct conn_list *clients, struct conn *c)
{
    cli_disconnected(&c->peer);
    conn_close(clients, c);
}

/* Returns whether the client had something for us, or could take something from us. */
static bool pump_client(struct conn_list *clients, struct conn *c)
{
    int want = conn_pump(clients, c);
    bool moved = c->moved;

    if (want == 0)
        drop_client(clients, c);
    return moved;
}

static void nap(void)
{
    const struct timespec time = {interval_ms / 1000, interval_ms % 1000 * 1000000L};

    if (interval_ms > 0)
        nanosleep(&time, NULL);
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients = {.idle_limit = cli.idle_timeout_ms};

    if (net_set_nonblocking(listener->fd) == -1)
        cli_die("cannot make the listener non-blocking: %s", strerror(errno));
    cli_listening(&listener->address);
    while (!cli_stopping()) {
        int busy = 0;
        struct conn *next, *c = clients.first;
        for (int left = clients.count; left > 0; left--, c = next) {
            next = c->next; /* pump_client may free c, or move it to the end of the list */
            busy += pump_client(&clients, c);
        }
        while (conn_expired(&clients))
            drop_client(&clients, clients.first);
        stats_wait(busy, clients.count);
        for (int i = 0; i < ACCEPTS_PER_LAP && accept_client(listener, &clients); i++)
            busy++;
        if (busy == 0)
            nap();
    }
    net_unlisten(listener); /* from here on nobody new */
    conn_drain(&clients, CLI_QUIET_MS, CLI_GRACE_MS, cli_disconnected);
}

int main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {"interval-ms", "N", "nap after a lap without work (default 200; 0 = spin)",
         &interval_ms, 0, 3600000},
        {0},
    };
    struct net_listener listener;

    cli_start(argc, argv, options);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
