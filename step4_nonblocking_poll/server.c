/* Step 4 - non-blocking polling: ask every client, all the time.
 *
 *              +--> pump A    (EAGAIN: nothing from A)
 *     one loop |    pump B    (got 3 bytes, sent 3 bytes)
 *              |    accept    (EAGAIN: no client is pending)
 *              +--- nap, unless some call had something to do
 *
 * Calls never sleep: they return EAGAIN, "not now". Idle clients delay no other client, but we
 * pay one system call per client per iteration to learn that they are idle. No stack can hold a
 * client any more, so a client becomes an object: struct conn. To pump a client is to move the
 * bytes that can move now.
 *
 *   Wait happens in   the nap, which no client can end early
 *   Breaks when       you choose the interval: a short one burns CPU, a long one delays answers
 */
#include "server.h"
#include "conn.h"
#include "drain.h"
#include "log.h"
#include "stop.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { ACCEPTS_MAX = 64 }; /* per iteration, not 1: an iteration costs a recv for each client */

static int interval_ms = 200; /* --interval-ms */

/* Returns whether a client was pending. Then there may be more. */
static bool accept_client(struct net_listener *listener, struct conn_list *clients)
{
    struct conn *c = conn_accept(clients, listener);

    if (c != NULL)
        conn_greet(c);
    return c != NULL || errno == ECONNABORTED;
}

static void pump_client(struct conn_list *clients, struct conn *c)
{
    if (conn_pump(clients, c) == 0)
        conn_close(clients, c);
}

static void nap(void)
{
    const struct timespec time = {interval_ms / 1000, interval_ms % 1000 * 1000000L};

    if (interval_ms > 0)
        nanosleep(&time, NULL);
}

static void run_server(struct net_listener *listener)
{
    struct conn_list clients;

    conn_list_init(&clients);
    if (net_set_nonblocking(listener->fd) == -1)
        log_die("cannot make the listener non-blocking: %s", strerror(errno));
    server_ready(&listener->address);
    while (!stop_requested()) {
        clients.progress = 0;
        struct conn *next, *c = conn_first(&clients);
        for (int left = clients.count; left > 0; left--, c = next) {
            next = conn_next(c); /* pump_client may free c, or move it to the end of the list */
            pump_client(&clients, c);
        }
        conn_close_idle(&clients);
        server_waited(clients.progress, clients.count);
        for (int i = 0; i < ACCEPTS_MAX && accept_client(listener, &clients); i++)
            clients.progress++;
        if (clients.progress == 0)
            nap();
    }
    net_unlisten(listener);
    drain_clients(&clients);
}

int main(int argc, char **argv)
{
    static const struct step_option more[] = {
        {"interval-ms", "N", "nap N ms after an iteration without work (default 200; 0 = spin)",
         &interval_ms, 0, 3600000},
        {0},
    };
    struct net_listener listener;

    server_start(argc, argv, more);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
