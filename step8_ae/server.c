/* Step 8 - ae: call me when it is ready.
 *
 *     aeMain: the loop of steps 5 and 6, now a library of our own
 *        +--> accept_clients()     the listener is readable
 *        +--> pump_client()        this client's descriptor is ready
 *        +--> drop_silent()        a timer is due
 *        +--> stop_server()        the wake-up descriptor is readable
 *
 * libuv said "here are the bytes"; ae says "now you may read", which is all that steps 5 and 6
 * ever asked of the kernel. What they do differently is its back-end, chosen by the linker:
 * `make BACKEND=select` builds this same server on select. You have read both already.
 *
 *   Wait happens in   aeMain, in the back-end's one call
 *   Breaks when       a callback computes for long: still one thread, and now you own the loop
 */
#include "ae.h"
#include "cli.h"
#include "conn.h"
#include "count.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    ACCEPTS_PER_LAP = 64, /* a flood of newcomers must not starve those already in */
    FIRST_SETSIZE = 128,  /* the loop grows when a higher descriptor comes */
};

_Static_assert(WANT_READ == AE_READABLE && WANT_WRITE == AE_WRITABLE, "the same bits");

static struct conn_list clients;

static aeFileProc pump_client;

/* Makes ae watch a client for what it wants now, and no longer for what it wanted before. */
static int watch(aeEventLoop *loop, struct conn *c, int before)
{
    stats_add(&stats.interest_changes, before & ~c->want ? 2 : 1);
    if (aeCreateFileEvent(loop, c->fd, c->want, pump_client, c) == AE_ERR)
        return AE_ERR;
    aeDeleteFileEvent(loop, c->fd, before & ~c->want);
    return AE_OK;
}

static void drop_client(aeEventLoop *loop, struct conn *c)
{
    stats_add(&stats.interest_changes, 1);
    aeDeleteFileEvent(loop, c->fd, AE_READABLE | AE_WRITABLE);
    cli_disconnected(&c->peer);
    conn_close(&clients, c);
}

static void pump_client(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct conn *c = data;
    int before = c->want, want = conn_pump(&clients, c);

    (void)fd;
    (void)mask; /* the conn knows what it waits for */
    count_event();
    if (want == 0 || (want != before && watch(loop, c, before) == AE_ERR))
        drop_client(loop, c);
}

/* Returns whether somebody came, and so whether there may be more. */
static bool accept_client(aeEventLoop *loop, struct net_listener *listener)
{
    struct peer peer;
    int fd = cli_admit(net_accept(listener, &peer), &peer);
    struct conn *c;

    if (fd < 0)
        return fd == CLI_REFUSED;
    if (net_set_nonblocking(fd) == -1 || (c = conn_open(&clients, fd, &peer)) == NULL) {
        cli_refused(&peer, "out of memory");
        close(fd);
        return true;
    }
    if ((fd >= aeGetSetSize(loop) && aeResizeSetSize(loop, 2 * fd) == AE_ERR) ||
        watch(loop, c, 0) == AE_ERR) {
        cli_refused(&peer, errno == ERANGE ? "descriptor beyond FD_SETSIZE" : strerror(errno));
        conn_close(&clients, c);
        return true;
    }
    if (conn_greet(c) != WANT_READ)
        watch(loop, c, WANT_READ);
    cli_connected(&peer);
    return true;
}

static void accept_clients(aeEventLoop *loop, int fd, void *listener, int mask)
{
    (void)fd;
    (void)mask;
    count_event();
    for (int i = 0; i < ACCEPTS_PER_LAP && accept_client(loop, listener); i++)
        ;
}

/* Returns in how many milliseconds to be called again. */
static int drop_silent(aeEventLoop *loop, long long id, void *data)
{
    (void)id;
    (void)data;
    while (conn_expired(&clients))
        drop_client(loop, clients.first);
    return clients.first != NULL ? conn_expiry_ms(&clients) : clients.idle_limit;
}

static void stop_server(aeEventLoop *loop, int fd, void *data, int mask)
{
    (void)fd;
    (void)data;
    (void)mask;
    count_event();
    if (cli_stopping())
        aeStop(loop);
}

static void run_server(struct net_listener *listener)
{
    aeEventLoop *loop = aeCreateEventLoop(listener->fd + cli_wakeup_fd() + FIRST_SETSIZE);

    if (loop == NULL || net_set_nonblocking(listener->fd) == -1 ||
        aeCreateFileEvent(loop, listener->fd, AE_READABLE, accept_clients, listener) ==
            AE_ERR ||
        aeCreateFileEvent(loop, cli_wakeup_fd(), AE_READABLE, stop_server, NULL) == AE_ERR)
        cli_die("cannot set up the event loop: %s", strerror(errno));
    count_waits(loop);
    clients.idle_limit = cli.idle_timeout_ms;
    if (clients.idle_limit > 0 &&
        aeCreateTimeEvent(loop, clients.idle_limit, drop_silent, NULL, NULL) == AE_ERR)
        cli_die("cannot set up the timer: %s", strerror(errno));
    cli_listening(&listener->address);
    aeMain(loop);
    aeDeleteEventLoop(loop);
    net_unlisten(listener); /* from here on nobody new */
    conn_drain(&clients, CLI_QUIET_MS, CLI_GRACE_MS, cli_disconnected);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
