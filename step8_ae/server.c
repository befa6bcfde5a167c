/* Step 8 - ae: call me when it is ready.
 *
 *     aeMain: the loop of steps 5 and 6, now a library of our own
 *        +--> accept_client()      the listener is readable
 *        +--> pump_client()        this client's descriptor is ready
 *        +--> close_idle()         a timer is due
 *        +--> stop_server()        the wake-up descriptor is readable
 *
 * libuv says "here are the bytes"; ae says "now you may read", which is all that steps 5 and 6
 * ask of the kernel. What differs between those two is ae's back-end, the part that calls the
 * kernel. The linker chooses it: `make BACKEND=select` builds this same server on select.
 *
 *   Wait happens in   aeMain, in the back-end's one call
 *   Breaks when       a callback computes for long: it runs in the loop's only thread
 */
#include "server.h"
#include "ae.h"
#include "conn.h"
#include "count.h"
#include "drain.h"
#include "log.h"
#include "stop.h"

#include <errno.h>
#include <string.h>

enum { FIRST_SETSIZE = 128 }; /* the loop grows when a higher descriptor comes */

_Static_assert(WANT_READ == AE_READABLE && WANT_WRITE == AE_WRITABLE, "the same bits");

static struct conn_list clients;

static aeFileProc pump_client;

/* Makes ae watch a client for what it wants now, and no longer for what it wanted before. */
static int watch(aeEventLoop *loop, struct conn *c, int before)
{
    if (c->fd >= aeGetSetSize(loop) && aeResizeSetSize(loop, 2 * c->fd) == AE_ERR)
        return AE_ERR;
    server_watched(before & ~c->want ? 2 : 1);
    if (aeCreateFileEvent(loop, c->fd, c->want, pump_client, c) == AE_ERR)
        return AE_ERR;
    aeDeleteFileEvent(loop, c->fd, before & ~c->want);
    return AE_OK;
}

static void close_client(aeEventLoop *loop, struct conn *c)
{
    server_watched(1);
    aeDeleteFileEvent(loop, c->fd, AE_READABLE | AE_WRITABLE);
    conn_close(&clients, c);
}

static void accept_client(aeEventLoop *loop, int fd, void *listener, int mask)
{
    struct conn *c = conn_accept(&clients, listener);

    (void)fd;
    (void)mask;
    count_event();
    if (c != NULL && watch(loop, c, 0) == AE_ERR)
        conn_reject(&clients, c,
                    errno == ERANGE ? "descriptor beyond FD_SETSIZE" : strerror(errno));
    else if (c != NULL && conn_greet(c) != WANT_READ && watch(loop, c, WANT_READ) == AE_ERR)
        close_client(loop, c);
}

static void pump_client(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct conn *c = data;
    int before = c->want, want = conn_pump(&clients, c);

    (void)fd;
    (void)mask; /* the conn knows what it waits for */
    count_event();
    if (want == 0 || (want != before && watch(loop, c, before) == AE_ERR))
        close_client(loop, c);
}

/* Returns in how many milliseconds to be called again. */
static int close_idle(aeEventLoop *loop, long long id, void *data)
{
    struct conn *c;

    (void)id;
    (void)data;
    while ((c = conn_expired(&clients)) != NULL)
        close_client(loop, c);
    return clients.count > 0 ? conn_expiry_ms(&clients) : options->idle_timeout_ms;
}

static void stop_server(aeEventLoop *loop, int fd, void *data, int mask)
{
    (void)fd;
    (void)data;
    (void)mask;
    count_event();
    if (stop_requested())
        aeStop(loop);
}

static void run_server(struct net_listener *listener)
{
    aeEventLoop *loop = aeCreateEventLoop(listener->fd + stop_wakeup_fd() + FIRST_SETSIZE);

    conn_list_init(&clients);
    if (loop == NULL || net_set_nonblocking(listener->fd) == -1 ||
        aeCreateFileEvent(loop, listener->fd, AE_READABLE, accept_client, listener) == AE_ERR ||
        aeCreateFileEvent(loop, stop_wakeup_fd(), AE_READABLE, stop_server, NULL) == AE_ERR ||
        (options->idle_timeout_ms > 0 &&
         aeCreateTimeEvent(loop, options->idle_timeout_ms, close_idle, NULL, NULL) == AE_ERR))
        log_die("cannot set up the event loop: %s", strerror(errno));
    count_waits(loop);
    server_ready(&listener->address);
    aeMain(loop);
    aeDeleteEventLoop(loop);
    net_unlisten(listener);
    drain_clients(&clients);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
