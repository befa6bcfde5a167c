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
 * again, without a thread. Green threads, goroutines and virtual threads are this idea.
 *
 *   Wait happens in   aeMain, however many fibers believe they wait in recv
 *   Breaks when       a fiber computes for long, or calls what really blocks: nobody else runs
 */
#include "ae.h"
#include "cli.h"
#include "echo.h"
#include "net.h"
#include "stats.h"
#include "switch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 64 * 1024,
    STACK_SIZE = 128 * 1024, /* reserved; only the pages touched cost memory */
    ACCEPTS_PER_LAP = 64,    /* a flood of newcomers must not starve those already in */
    FIRST_SETSIZE = 128,     /* the loop grows when a higher descriptor comes */
};

struct fiber {
    struct fiber *prev, *next;
    struct stack stack;
    char *memory; /* a guard page, the stack above it */
    size_t size;
    int fd;
    int mask;  /* what ae watches fd for */
    int woken; /* why: 0 = fd is ready, EAGAIN = time is over, EINTR = to look around */
    bool done;
    struct peer peer;
};

static aeEventLoop *loop;
static struct stack loop_stack;
static struct fiber fibers = {.prev = &fibers, .next = &fibers};
static struct fiber *current; /* whose stack we are on; NULL: the loop's */

/* ---- Fibers ------------------------------------------------------------------------------ */

static void free_fiber(struct fiber *f)
{
    stack_forget(&f->stack);
    munmap(f->memory, f->size);
    free(f);
}

/* Runs a fiber until it parks again or ends. */
static void resume(struct fiber *f, int why)
{
    f->woken = why;
    current = f;
    stack_switch(&loop_stack, &f->stack, false);
    current = NULL;
    if (!f->done)
        return;
    f->prev->next = f->next;
    f->next->prev = f->prev;
    free_fiber(f);
    if (fibers.next == &fibers && cli_stopping())
        aeStop(loop);
}

static void fd_ready(aeEventLoop *l, int fd, void *data, int mask)
{
    (void)l;
    (void)fd;
    (void)mask; /* a parked fiber waits for one thing only */
    stats_add(&stats.wait_events, 1);
    resume(data, 0);
}

static int time_over(aeEventLoop *l, long long id, void *data)
{
    (void)l;
    (void)id;
    resume(data, EAGAIN);
    return AE_NOMORE;
}

/* Makes ae watch the fiber's descriptor for mask and nothing else. */
static int watch(struct fiber *f, int mask)
{
    if (f->mask == mask)
        return AE_OK;
    stats_add(&stats.interest_changes, 1);
    if (mask != AE_NONE && aeCreateFileEvent(loop, f->fd, mask, fd_ready, f) == AE_ERR)
        return AE_ERR;
    aeDeleteFileEvent(loop, f->fd, f->mask & ~mask);
    f->mask = mask;
    return AE_OK;
}

/* Lets the others run until the current fiber's descriptor is ready. Returns 0; or -1 with
 * errno as of a blocking call: EAGAIN after ms milliseconds (0 = never), EINTR when woken. */
static int park(int mask, int ms)
{
    struct fiber *f = current;
    long long timer = AE_ERR;

    if (watch(f, mask) == AE_ERR ||
        (ms > 0 && (timer = aeCreateTimeEvent(loop, ms, time_over, f, NULL)) == AE_ERR))
        return -1;
    stack_switch(&f->stack, &loop_stack, false);
    if (timer != AE_ERR && f->woken != EAGAIN)
        aeDeleteTimeEvent(loop, timer);
    errno = f->woken;
    return f->woken == 0 ? 0 : -1;
}

/* Parks before each recv, not only when it must: a client that never stops sending would
 * otherwise never let the others run. */
static ssize_t fiber_recv(void *bytes, size_t n)
{
    ssize_t got;

    do {
        if (park(AE_READABLE, cli.idle_timeout_ms) == -1)
            return -1;
        got = net_recv(current->fd, bytes, n);
    } while (got == -1 && net_is_again(errno));
    return got;
}

static int fiber_send_all(const void *bytes, size_t n)
{
    const unsigned char *next = bytes;

    while (n > 0) {
        ssize_t sent = net_send(current->fd, next, n);
        if (sent == -1 && !net_is_again(errno))
            return -1;
        if (sent == -1 && park(AE_WRITABLE, cli.idle_timeout_ms) == -1 &&
            (errno != EINTR || cli_time_is_up))
            return -1;
        if (sent > 0) {
            next += sent;
            n -= (size_t)sent;
        }
    }
    return 0;
}

/* As net_readable: false when the time is over. */
static bool fiber_readable(int ms)
{
    return park(AE_READABLE, ms) == 0 || errno != EAGAIN;
}

/* ---- The server -------------------------------------------------------------------------- */

static void serve_client(void)
{
    unsigned char bytes[BUFFER_SIZE];
    struct echo echo;

    echo_init(&echo);
    if (fiber_send_all(ECHO_GREETING, 1) == -1)
        return;
    while (!cli_time_is_up) {
        if (cli_stopping() && !fiber_readable(CLI_QUIET_MS))
            return; /* all that had come is answered */
        ssize_t n = fiber_recv(bytes, sizeof bytes);
        if (n == -1 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* the end, a reset, or --idle-timeout */
        size_t answers = echo_feed(&echo, bytes, (size_t)n);
        if (fiber_send_all(bytes, answers) == -1)
            return;
    }
}

static void client_fiber(void)
{
    struct fiber *f = current;

    stack_arrived(&f->stack, &loop_stack);
    serve_client();
    watch(f, AE_NONE);
    close(f->fd);
    cli_disconnected(&f->peer);
    f->done = true;
    stack_switch(&f->stack, &loop_stack, true);
}

/* Makes a fiber for a client, and has ae watch it. Returns NULL with errno. */
static struct fiber *start_fiber(int fd, const struct peer *peer)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct fiber *f = calloc(1, sizeof *f);

    if (f == NULL)
        return NULL;
    f->fd = fd;
    f->peer = *peer;
    f->size = page + STACK_SIZE;
    f->memory = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f->memory == MAP_FAILED) {
        free(f);
        return NULL;
    }
    stack_prepare(&f->stack, f->memory + page, STACK_SIZE, client_fiber);
    /* Stacks grow downwards: who needs more than there is shall crash, not write elsewhere. */
    if (mprotect(f->memory, page, PROT_NONE) == -1 || watch(f, AE_READABLE) == AE_ERR) {
        int error = errno;
        free_fiber(f);
        errno = error;
        return NULL;
    }
    f->prev = fibers.prev;
    f->next = &fibers;
    f->prev->next = f->next->prev = f;
    return f;
}

/* Returns whether somebody came, and so whether there may be more. */
static bool accept_client(struct net_listener *listener)
{
    struct peer peer;
    int fd = cli_admit(net_accept(listener, &peer), &peer);
    struct fiber *f;

    if (fd < 0)
        return fd == CLI_REFUSED;
    if (net_set_nonblocking(fd) == -1 ||
        (fd >= aeGetSetSize(loop) && aeResizeSetSize(loop, 2 * fd) == AE_ERR) ||
        (f = start_fiber(fd, &peer)) == NULL) {
        cli_refused(&peer, strerror(errno));
        close(fd);
        return true;
    }
    cli_connected(&peer);
    resume(f, 0);
    return true;
}

static void accept_clients(aeEventLoop *l, int fd, void *listener, int mask)
{
    (void)l;
    (void)fd;
    (void)mask;
    stats_add(&stats.wait_events, 1);
    for (int i = 0; i < ACCEPTS_PER_LAP && !cli_stopping() && accept_client(listener); i++)
        ;
}

/* Each fiber looks around: at cli_stopping, and at cli_time_is_up. */
static int wake_fibers(aeEventLoop *l, long long id, void *data)
{
    struct fiber *next;

    (void)id;
    (void)data;
    for (struct fiber *f = fibers.next; f != &fibers; f = next) {
        next = f->next;
        resume(f, EINTR);
    }
    if (fibers.next == &fibers)
        aeStop(l);
    return CLI_QUIET_MS;
}

static void stop_server(aeEventLoop *l, int fd, void *listener, int mask)
{
    (void)mask;
    if (!cli_stopping())
        return;
    aeDeleteFileEvent(l, fd, AE_READABLE);
    aeDeleteFileEvent(l, ((struct net_listener *)listener)->fd, AE_READABLE);
    if (aeCreateTimeEvent(l, CLI_GRACE_MS, wake_fibers, NULL, NULL) == AE_ERR)
        aeStop(l);
    wake_fibers(l, 0, NULL);
}

static void count_wait(aeEventLoop *l)
{
    (void)l;
    stats_add(&stats.wait_calls, 1);
}

static void run_server(struct net_listener *listener)
{
    loop = aeCreateEventLoop(listener->fd + cli_wakeup_fd() + FIRST_SETSIZE);
    if (loop == NULL ||
        aeCreateFileEvent(loop, listener->fd, AE_READABLE, accept_clients, listener) ==
            AE_ERR ||
        aeCreateFileEvent(loop, cli_wakeup_fd(), AE_READABLE, stop_server, listener) == AE_ERR)
        cli_die("cannot set up the event loop: %s", strerror(errno));
    net_set_nonblocking(listener->fd);
    aeSetAfterSleepProc(loop, count_wait);
    cli_listening(&listener->address);
    aeMain(loop);
    aeDeleteEventLoop(loop);
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
