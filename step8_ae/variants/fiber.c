/* Step 8, variant - fibers: step 1's code on the event loop.
 *
 *     aeMain +--> accept_client()    makes a fiber, with a stack of its own, for each client
 *            +--> resume(A) --> recv --> answer --> recv: park --+
 *            |                                                   |
 *            +--- back on the loop's stack <---------------------+
 *
 * serve_client is step 1's: it receives, answers and receives again. But fiber_recv does not
 * sleep. It parks the fiber: it tells ae what to wait for and switches to the loop's stack. The
 * event switches back, and the call returns. A client is a call again, without a thread.
 * Goroutines and virtual threads work like this. coroutine.h shows how stacks are switched.
 *
 *   Wait happens in   aeMain, for all fibers at once
 *   Breaks when       a fiber computes for long, or calls what really blocks: no other runs
 */
#include "server.h"
#include "ae.h"
#include "coroutine.h"
#include "count.h"
#include "echo.h"
#include "idle.h"
#include "log.h"
#include "stop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 64 * 1024,
    FIRST_SETSIZE = 128, /* the loop grows when a higher descriptor comes */
};

struct fiber {
    struct idle_node idle; /* first: see idle.h */
    struct coroutine coroutine;
    struct address peer;
    int fd;
    int sendq; /* net_sendq if it waits to send, -1 if it waits to receive */
    int error; /* why it is resumed although fd is not ready, else 0 */
};

static struct idle_list fibers;
static aeEventLoop *loop;
static struct fiber *current; /* the one that runs */

/* ---- Fibers on the loop ------------------------------------------------------------------ */

/* Runs a fiber until it parks again or ends. If it gets an error, it always ends. */
static void resume(struct fiber *f, int error)
{
    f->error = error;
    current = f;
    coroutine_resume(&f->coroutine);
    if (!f->coroutine.ended)
        return;
    idle_remove(&fibers, &f->idle);
    coroutine_free(&f->coroutine);
    free(f);
}

static void fd_ready(aeEventLoop *l, int fd, void *data, int mask)
{
    struct fiber *f = data;

    (void)l;
    (void)fd;
    (void)mask; /* a parked fiber waits for one thing only */
    count_event();
    idle_touch(&fibers, &f->idle);
    resume(f, 0);
}

/* Makes ae watch the fiber's descriptor for mask and nothing else. */
static int watch(struct fiber *f, int mask)
{
    int before = aeGetFileEvents(loop, f->fd);

    if (before == mask)
        return AE_OK;
    if (f->fd >= aeGetSetSize(loop) && aeResizeSetSize(loop, 2 * f->fd) == AE_ERR)
        return AE_ERR;
    server_watched(before != AE_NONE && mask != AE_NONE ? 2 : 1);
    if (mask != AE_NONE && aeCreateFileEvent(loop, f->fd, mask, fd_ready, f) == AE_ERR)
        return AE_ERR;
    aeDeleteFileEvent(loop, f->fd, before);
    return AE_OK;
}

/* Lets the other fibers run until the descriptor of the current one is ready. Returns -1 with
 * errno if it must not wait longer: EAGAIN when it was idle for too long, EINTR at a stop. */
static int park(int mask)
{
    if (watch(current, mask) == AE_ERR)
        return -1;
    current->sendq = mask == AE_WRITABLE ? net_sendq(current->fd) : -1;
    coroutine_yield();
    errno = current->error;
    return errno == 0 ? 0 : -1;
}

/* As stream_recv. It parks before each recv, not only when it must: a client that never stops
 * sending would otherwise never let the others run. */
static ssize_t fiber_recv(int fd, void *bytes, size_t n)
{
    ssize_t got = -1;

    while (park(AE_READABLE) == 0 && (got = net_recv(fd, bytes, n)) == -1 &&
           (net_is_again(errno) || errno == EINTR))
        ;
    return got;
}

/* As stream_send. */
static int fiber_send(int fd, const void *bytes, size_t n)
{
    for (const unsigned char *next = bytes; n > 0;) {
        ssize_t sent = net_send(fd, next, n);
        if (sent >= 0) {
            next += sent;
            n -= (size_t)sent;
        } else if (!(net_is_again(errno) || errno == EINTR) || park(AE_WRITABLE) == -1) {
            return -1;
        }
    }
    return 0;
}

/* ---- The server -------------------------------------------------------------------------- */

static void serve_client(int fd)
{
    unsigned char bytes[BUFFER_SIZE];
    struct echo echo;
    ssize_t n;

    echo_init(&echo);
    if (fiber_send(fd, ECHO_GREETING, 1) == -1)
        return;
    while ((n = fiber_recv(fd, bytes, sizeof bytes)) > 0) {
        size_t answers = echo_feed(&echo, bytes, (size_t)n);
        if (fiber_send(fd, bytes, answers) == -1)
            return;
    }
}

/* What a fiber runs: the body of step 1's loop, for one client. */
static void run_client(void)
{
    struct fiber *f = current;

    if (watch(f, AE_READABLE) == AE_ERR) {
        server_rejected(&f->peer, strerror(errno));
    } else {
        server_connected(&f->peer);
        serve_client(f->fd);
        watch(f, AE_NONE);
        server_disconnected(&f->peer);
    }
    close(f->fd);
}

/* Makes a fiber for a client. Rejects the client and returns NULL if memory is short. */
static struct fiber *create_fiber(int fd, const struct address *peer)
{
    struct fiber *f = calloc(1, sizeof *f);

    if (f == NULL || net_set_nonblocking(fd) == -1 ||
        coroutine_create(&f->coroutine, run_client) == -1) {
        server_reject(fd, peer, strerror(errno));
        free(f);
        return NULL;
    }
    f->fd = fd;
    f->peer = *peer;
    idle_add(&fibers, &f->idle);
    return f;
}

static void accept_client(aeEventLoop *l, int fd, void *listener, int mask)
{
    struct address peer;
    int client = server_accept(listener, &peer);
    struct fiber *f = client == -1 ? NULL : create_fiber(client, &peer);

    (void)l;
    (void)fd;
    (void)mask;
    count_event();
    if (f != NULL)
        resume(f, 0);
}

/* Ends the fibers of idle clients. Returns in how many milliseconds to be called again. */
static int close_idle(aeEventLoop *l, long long id, void *data)
{
    struct fiber *f;

    (void)l;
    (void)id;
    (void)data;
    while ((f = (struct fiber *)idle_expired(&fibers)) != NULL) {
        if (idle_has_progress(f->fd, f->sendq)) {
            idle_touch(&fibers, &f->idle);
            f->sendq = f->sendq >= 0 ? net_sendq(f->fd) : -1;
        } else {
            resume(f, stop_requested() ? EINTR : EAGAIN);
        }
    }
    return fibers.first != NULL ? idle_expiry_ms(&fibers) : fibers.limit_ms;
}

static void stop_server(aeEventLoop *l, int fd, void *data, int mask)
{
    (void)fd;
    (void)data;
    (void)mask;
    count_event();
    if (stop_requested())
        aeStop(l);
}

/* What stop.h promises to clients: from now on the limit of idleness is STOP_LINGER_MS. */
static void drain_fibers(void)
{
    idle_restart(&fibers, STOP_LINGER_MS);
    if (aeCreateTimeEvent(loop, STOP_LINGER_MS, close_idle, NULL, NULL) == AE_ERR)
        stop_give_up(); /* nothing would end the wait */
    while (fibers.first != NULL && !stop_deadline_passed())
        aeProcessEvents(loop, AE_ALL_EVENTS | AE_CALL_AFTER_SLEEP);
    while (fibers.first != NULL)
        resume((struct fiber *)fibers.first, EINTR);
}

static void run_server(struct net_listener *listener)
{
    loop = aeCreateEventLoop(listener->fd + stop_wakeup_fd() + FIRST_SETSIZE);
    idle_init(&fibers, options->idle_timeout_ms);
    if (loop == NULL || net_set_nonblocking(listener->fd) == -1 ||
        aeCreateFileEvent(loop, listener->fd, AE_READABLE, accept_client, listener) == AE_ERR ||
        aeCreateFileEvent(loop, stop_wakeup_fd(), AE_READABLE, stop_server, NULL) == AE_ERR ||
        (fibers.limit_ms > 0 &&
         aeCreateTimeEvent(loop, fibers.limit_ms, close_idle, NULL, NULL) == AE_ERR))
        log_die("cannot set up the event loop: %s", strerror(errno));
    count_waits(loop);
    server_ready(&listener->address);
    aeMain(loop);
    server_watched(2);
    aeDeleteFileEvent(loop, stop_wakeup_fd(), AE_READABLE);
    aeDeleteFileEvent(loop, listener->fd, AE_READABLE);
    net_unlisten(listener);
    drain_fibers();
    aeDeleteEventLoop(loop);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
