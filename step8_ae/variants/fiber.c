/* Step 8, variant - fibers: step 1's code, on the event loop.
 *
 *     aeMain +--> accept_clients()     a fiber, and so a stack, for each client
 *            +--> resume(A) --> recv --> answer --> recv: it would block, so park --+
 *            |                                                                      |
 *            +--- back on the loop's stack <----------------------------------------+
 *
 * serve_client reads as in step 1: it receives, answers, and receives again. But a call that
 * would block parks the fiber instead: it tells ae what to wait for and switches to the loop's
 * stack; the event switches back, and the call returns. A client's state is local variables
 * again, without a thread. Green threads, goroutines and virtual threads are this idea. How a
 * stack is left and gone back to: coroutine.h, on ucontext(3).
 *
 *   Wait happens in   aeMain, however many fibers believe they wait in recv
 *   Breaks when       a fiber computes for long, or calls what really blocks: nobody else runs
 */
#include "ae.h"
#include "cli.h"
#include "coroutine.h"
#include "count.h"
#include "echo.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 64 * 1024,
    ACCEPTS_PER_LAP = 64, /* a flood of newcomers must not starve those already in */
    FIRST_SETSIZE = 128,  /* the loop grows when a higher descriptor comes */
    LOOK_AGAIN_MS = 10,   /* while we stop */
};

struct fiber {
    struct coroutine coroutine;
    struct fiber *prev, *next; /* neighbours in the list, longest silent first */
    struct peer peer;
    int fd;
    int untaken;     /* of what it was sent, when it parked to send more */
    bool expired;    /* resumed though fd is not ready */
    long long heard; /* when it was, last */
};

static struct fiber fibers = {.prev = &fibers, .next = &fibers};
static aeEventLoop *loop;
static struct net_listener listener;
static struct fiber *current; /* the one that runs */

static long long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void list_append(struct fiber *f)
{
    f->heard = now_ms();
    f->prev = fibers.prev;
    f->next = &fibers;
    f->prev->next = f->next->prev = f;
}

static void list_remove(struct fiber *f)
{
    f->prev->next = f->next;
    f->next->prev = f->prev;
}

static void touch(struct fiber *f)
{
    list_remove(f);
    list_append(f);
}

/* Runs a fiber until it parks again, or has ended. */
static void resume(struct fiber *f, bool expired)
{
    f->expired = expired;
    current = f;
    coroutine_resume(&f->coroutine);
    if (!f->coroutine.ended)
        return;
    list_remove(f);
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
    touch(f);
    resume(f, false);
}

/* Makes ae watch the fiber's descriptor for mask and nothing else. */
static int watch(struct fiber *f, int mask)
{
    int before = aeGetFileEvents(loop, f->fd);

    if (before == mask)
        return AE_OK;
    stats_add(&stats.interest_changes, before & ~mask ? 2 : 1);
    if (aeCreateFileEvent(loop, f->fd, mask, fd_ready, f) == AE_ERR)
        return AE_ERR;
    aeDeleteFileEvent(loop, f->fd, before);
    return AE_OK;
}

/* Lets the others run until the current fiber's descriptor is ready. Returns -1 if it did not
 * become so in time: EAGAIN, as from a blocking socket with a time limit. */
static int park(int mask)
{
    if (watch(current, mask) == AE_ERR)
        return -1;
    if (mask == AE_WRITABLE && cli.idle_timeout_ms > 0)
        current->untaken = net_untaken(current->fd);
    coroutine_yield();
    errno = EAGAIN;
    return current->expired ? -1 : 0;
}

/* Parks before each recv, not only when it must: a client that never stops sending would
 * otherwise never let the others run. */
static ssize_t fiber_recv(int fd, void *bytes, size_t n)
{
    ssize_t got = -1;

    while (park(AE_READABLE) == 0 && (got = net_recv(fd, bytes, n)) == -1 &&
           net_is_again(errno))
        ;
    return got;
}

static int fiber_send_all(int fd, const void *bytes, size_t n)
{
    for (const unsigned char *next = bytes; n > 0;) {
        ssize_t sent = net_send(fd, next, n);
        if (sent == -1 && (!net_is_again(errno) || park(AE_WRITABLE) == -1))
            return -1;
        if (sent > 0) {
            next += sent;
            n -= (size_t)sent;
        }
    }
    return 0;
}

static void serve_client(int fd)
{
    unsigned char bytes[BUFFER_SIZE];
    struct echo echo;
    ssize_t n;

    echo_init(&echo);
    if (fiber_send_all(fd, ECHO_GREETING, 1) == -1)
        return;
    while ((n = fiber_recv(fd, bytes, sizeof bytes)) > 0) {
        size_t answers = echo_feed(&echo, bytes, (size_t)n);
        if (fiber_send_all(fd, bytes, answers) == -1)
            return;
    }
}

static void client_fiber(void)
{
    struct fiber *f = current;

    serve_client(f->fd);
    stats_add(&stats.interest_changes, 1);
    aeDeleteFileEvent(loop, f->fd, AE_READABLE | AE_WRITABLE);
    cli_disconnected(&f->peer);
    close(f->fd);
}

/* Returns a fiber for a client, which ae watches; or NULL with errno. */
static struct fiber *create_fiber(int fd, const struct peer *peer)
{
    struct fiber *f = calloc(1, sizeof *f);

    if (f == NULL || coroutine_create(&f->coroutine, client_fiber) == -1) {
        free(f);
        return NULL;
    }
    f->fd = fd;
    f->peer = *peer;
    if ((fd < aeGetSetSize(loop) || aeResizeSetSize(loop, 2 * fd) == AE_OK) &&
        watch(f, AE_READABLE) == AE_OK) {
        list_append(f);
        return f;
    }
    coroutine_free(&f->coroutine);
    free(f);
    return NULL;
}

/* Returns whether somebody came, and so whether there may be more. */
static bool accept_client(void)
{
    struct peer peer;
    int fd = cli_admit(net_accept(&listener, &peer), &peer);
    struct fiber *f;

    if (fd < 0)
        return fd == CLI_REFUSED;
    if (net_set_nonblocking(fd) == -1 || (f = create_fiber(fd, &peer)) == NULL) {
        cli_refused(&peer, strerror(errno));
        close(fd);
        return true;
    }
    cli_connected(&peer);
    resume(f, false);
    return true;
}

static void accept_clients(aeEventLoop *l, int fd, void *data, int mask)
{
    (void)l;
    (void)fd;
    (void)data;
    (void)mask;
    count_event();
    for (int i = 0; i < ACCEPTS_PER_LAP && accept_client(); i++)
        ;
}

/* Ends who has been silent for too long; but not who takes what it is owed, if too slowly for
 * its socket to be writable, nor who spoke while we could not run. While we stop silence is
 * soon too long, but not for who is owed something. Returns in how many milliseconds to be
 * called again. */
static int drop_silent(aeEventLoop *l, long long id, void *data)
{
    const bool stopping = cli_stopping();
    const int limit = stopping ? CLI_QUIET_MS : cli.idle_timeout_ms;
    const long long now = now_ms();
    struct fiber *f, *next;

    (void)id;
    (void)data;
    for (f = fibers.next; f != &fibers && (now - f->heard >= limit || cli_time_is_up);
         f = next) {
        bool owed = aeGetFileEvents(l, f->fd) == AE_WRITABLE;
        next = f->next;
        if (stopping && owed && !cli_time_is_up)
            continue;
        int before = f->untaken;
        bool heard = owed ? (f->untaken = net_untaken(f->fd)) < before : net_readable(f->fd, 0);
        if (heard && !cli_time_is_up)
            touch(f);
        else
            resume(f, true);
    }
    if (stopping && fibers.next == &fibers)
        aeStop(l);
    if (stopping)
        return LOOK_AGAIN_MS;
    return f == &fibers ? limit : (int)(f->heard + limit - now) + 1;
}

static void stop_server(aeEventLoop *l, int fd, void *data, int mask)
{
    (void)data;
    (void)mask;
    count_event();
    if (!cli_stopping())
        return;
    stats_add(&stats.interest_changes, 2);
    aeDeleteFileEvent(l, fd, AE_READABLE);
    aeDeleteFileEvent(l, listener.fd, AE_READABLE);
    net_unlisten(&listener); /* from here on nobody new */
    if (aeCreateTimeEvent(l, fibers.next == &fibers ? 0 : CLI_QUIET_MS, drop_silent, NULL,
                          NULL) == AE_ERR) {
        cli_time_is_up = true; /* nobody could tell us later */
        drop_silent(l, 0, NULL);
    }
}

static void run_server(void)
{
    loop = aeCreateEventLoop(listener.fd + cli_wakeup_fd() + FIRST_SETSIZE);
    if (loop == NULL || net_set_nonblocking(listener.fd) == -1 ||
        aeCreateFileEvent(loop, listener.fd, AE_READABLE, accept_clients, NULL) == AE_ERR ||
        aeCreateFileEvent(loop, cli_wakeup_fd(), AE_READABLE, stop_server, NULL) == AE_ERR ||
        (cli.idle_timeout_ms > 0 &&
         aeCreateTimeEvent(loop, 0, drop_silent, NULL, NULL) == AE_ERR))
        cli_die("cannot set up the event loop: %s", strerror(errno));
    count_waits(loop);
    cli_listening(&listener.address);
    aeMain(loop);
    aeDeleteEventLoop(loop);
}

int main(int argc, char **argv)
{
    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server();
    return cli_finish();
}
