/* Step 6, variant - io_uring: do this, and tell me when it is done.
 *
 *              +--> ask: send to A, recv from B, recv from C      written into shared memory
 *     one loop |    io_uring_enter: hands over all of them, asleep until one is done
 *              |    done: { C sent 3 bytes "^ab" }                read from shared memory
 *              +--- answer C: its next request
 *
 * Not "you may read now" but "this has been read": completion instead of readiness. What is to
 * be done is written into a ring, and what was done is read from another, without a system
 * call; one call a lap hands over and waits, however many clients there are. Each client has
 * exactly one request under way: a recv, or a send of the answers. So nothing is read from a
 * client that is owed something, and when its request is done a client can be freed.
 *
 *   Wait happens in   io_uring_enter, for all clients at once; the kernel waits for each
 *   Breaks when       one answer takes long to compute; or the kernel does not allow io_uring
 */
#include "cli.h"
#include "echo.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif

enum {
    REQUESTS = 256, /* room in the ring; when it is full it is handed over early */
    BUFFERS = 256, /* lent to the kernel, which fills one when bytes come: the idle need none */
    BUFFER_SIZE = 16 * 1024,
    GROUP = 0, /* of buffers: there is only one */
    DONE_PER_LAP = 256,
};

struct client {
    struct client *prev, *next; /* neighbours in the list, longest silent first */
    const unsigned char *out;   /* what is to be sent */
    size_t left;
    unsigned char *owed; /* where it was kept because the socket would not take it at once */
    int buffer;          /* or which of the lent buffers it is in; -1 = none */
    int fd;
    int untaken;    /* of what it was sent, when it was last heard */
    uint32_t heard; /* `lap_ms` when bytes last moved; it may wrap */
    struct peer peer;
    struct echo echo;
};

static struct io_uring ring;
static struct io_uring_buf_ring *lent;
static unsigned char (*buffers)[BUFFER_SIZE];
static struct client clients = {.prev = &clients, .next = &clients};
static char accepting, knocking,
    waking;             /* their addresses stand for requests without a client */
static bool open_house; /* one of the first two is under way */
static bool closing;
static uint32_t lap_ms; /* monotonic milliseconds, read once a lap */

static void read_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    lap_ms = (uint32_t)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

static void list_append(struct client *c)
{
    c->heard = lap_ms;
    c->prev = clients.prev;
    c->next = &clients;
    c->prev->next = c->next->prev = c;
}

static void list_remove(struct client *c)
{
    c->prev->next = c->next;
    c->next->prev = c->prev;
}

/* ---- Requests ---------------------------------------------------------------------------- */

static struct io_uring_sqe *new_request(void)
{
    struct io_uring_sqe *request;

    while ((request = io_uring_get_sqe(&ring)) == NULL)
        io_uring_submit(&ring);
    return request;
}

/* One request for any number of newcomers: each is a completion. */
static void ask_accept(int listener)
{
    struct io_uring_sqe *request = new_request();

    io_uring_prep_multishot_accept(request, listener, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data(request, &accepting);
    open_house = true;
}

static void ask_readable(int fd, void *whose)
{
    struct io_uring_sqe *request = new_request();

    io_uring_prep_poll_add(request, fd, POLLIN);
    io_uring_sqe_set_data(request, whose);
}

static void ask_cancel(void *whose)
{
    struct io_uring_sqe *request = new_request();

    io_uring_prep_cancel(request, whose, 0);
    io_uring_sqe_set_data(request, NULL);
}

/* The kernel takes one of the lent buffers when there are bytes to put into it. */
static void ask_recv(struct client *c)
{
    struct io_uring_sqe *request = new_request();

    io_uring_prep_recv(request, c->fd, NULL, BUFFER_SIZE, 0);
    request->flags |= IOSQE_BUFFER_SELECT;
    request->buf_group = GROUP;
    io_uring_sqe_set_data(request, c);
}

/* Out of a lent buffer the socket takes what it can at once: others need the buffer. */
static void ask_send(struct client *c)
{
    struct io_uring_sqe *request = new_request();
    int wait = c->buffer != -1 ? MSG_DONTWAIT : 0;

    io_uring_prep_send(request, c->fd, c->out, c->left, MSG_NOSIGNAL | wait);
    io_uring_sqe_set_data(request, c);
}

static void lend_buffer(int i)
{
    io_uring_buf_ring_add(lent, buffers[i], BUFFER_SIZE, (unsigned short)i,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(lent, 1);
}

/* What the client was sent is no longer needed. */
static void release(struct client *c)
{
    if (c->buffer != -1)
        lend_buffer(c->buffer);
    free(c->owed);
    c->buffer = -1;
    c->owed = NULL;
}

static int keep_owed(struct client *c)
{
    unsigned char *owed = malloc(c->left);

    if (owed == NULL)
        return -1;
    memcpy(owed, c->out, c->left);
    release(c);
    c->out = c->owed = owed;
    return 0;
}

/* ---- The server -------------------------------------------------------------------------- */

static void accept_client(int fd, const struct peer *peer)
{
    struct client *c = calloc(1, sizeof *c);
    int on = 1;

    if (c == NULL) {
        cli_refused(peer, "out of memory");
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
    c->peer = *peer;
    c->buffer = -1;
    c->out = (const unsigned char *)ECHO_GREETING;
    c->left = strlen(ECHO_GREETING);
    echo_init(&c->echo);
    list_append(c);
    cli_connected(peer);
    ask_send(c);
}

/* The multishot accept has a result: a descriptor, or why it is over. */
static void take_accepted(const struct net_listener *listener, int result, bool more)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    struct peer peer;

    stats_add(&stats.accept_calls, 1);
    open_house = more;
    if (result >= 0 && closing) {
        close(result);
    } else if (result >= 0) {
        getpeername(result, (struct sockaddr *)&address, &size);
        peer_from_sockaddr(&peer, (struct sockaddr *)&address);
        if (cli_admit(result, &peer) >= 0)
            accept_client(result, &peer);
    }
    if (more || closing)
        return;
    open_house = true;
    if (result >= 0)
        ask_accept(listener->fd);
    else /* the house may be full: wait until somebody knocks, for it would fail at once again
          */
        ask_readable(listener->fd, &knocking);
}

/* Somebody waits whom accept could not take. net_accept knows how to refuse in a full house. */
static void take_knock(struct net_listener *listener)
{
    struct peer peer;

    open_house = !closing;
    if (closing)
        return;
    int fd = cli_admit(net_accept(listener, &peer), &peer);
    if (fd < 0) {
        ask_readable(listener->fd, &knocking);
        return;
    }
    accept_client(fd, &peer);
    ask_accept(listener->fd);
}

static void drop_client(struct client *c)
{
    cli_disconnected(&c->peer);
    release(c);
    list_remove(c);
    close(c->fd);
    free(c);
}

static void touch(struct client *c)
{
    list_remove(c);
    list_append(c);
}

/* Ends a client whose request is under way: that will tell, and then it is dropped. */
static void end_client(struct client *c)
{
    shutdown(c->fd, SHUT_RDWR);
    touch(c);
}

/* Takes what a send did. Returns false when the client has gone. */
static bool take_sent(struct client *c, int n)
{
    stats_add(&stats.send_calls, 1);
    stats_add(&stats.send_again, n == -EAGAIN);
    if (n < 0 && !net_is_again(-n))
        return false;
    if (n > 0) {
        stats_add(&stats.bytes_out, (uint64_t)n);
        c->out += n;
        c->left -= (size_t)n;
        touch(c);
    }
    if (c->left == 0) {
        release(c);
        ask_recv(c);
        return true;
    }
    stats_add(&stats.send_short, n > 0);
    c->untaken = net_untaken(c->fd);
    if (c->buffer != -1 && keep_owed(c) == -1)
        return false;
    ask_send(c);
    return true;
}

/* Takes what a recv did, which is in the lent buffer. Returns false when the client has gone.
 */
static bool take_received(struct client *c, int n, int buffer)
{
    stats_add(&stats.recv_calls, 1);
    c->buffer = buffer;
    if (n == -ENOBUFS || (n < 0 && net_is_again(-n))) {
        ask_recv(c); /* all buffers are in use: the sends of this lap give them back */
        return true;
    }
    if (n <= 0)
        return false; /* nothing is owed, or we would not be reading */
    stats_add(&stats.bytes_in, (uint64_t)n);
    touch(c);
    c->out = buffers[buffer];
    c->left = echo_feed(&c->echo, buffers[buffer], (size_t)n);
    if (c->left > 0) {
        ask_send(c);
    } else {
        release(c);
        ask_recv(c);
    }
    return true;
}

static void pump_client(struct client *c, int result, unsigned flags)
{
    bool filled = flags & IORING_CQE_F_BUFFER;
    int buffer = filled ? (int)(flags >> IORING_CQE_BUFFER_SHIFT) : -1;

    if (!(c->left > 0 ? take_sent(c, result) : take_received(c, result, buffer)))
        drop_client(c);
}

/* Hands over the requests, sleeps until one is done, ms milliseconds at most (-1 = for ever),
 * and goes through what is done. */
static void run_lap(struct net_listener *listener, int ms)
{
#if defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
    if (ms ==
        -1) /* it holds signals back until it sees a call, and cannot see io_uring_enter */
        ms = CLI_QUIET_MS;
#endif
    struct __kernel_timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    struct io_uring_cqe *next;
    int n = 0;

    io_uring_submit_and_wait_timeout(&ring, &next, 1, ms == -1 ? NULL : &limit, NULL);
    read_clock();
    for (; n < DONE_PER_LAP && io_uring_peek_cqe(&ring, &next) == 0; n++) {
        const struct io_uring_cqe done = *next;
        void *whose = io_uring_cqe_get_data(&done);
        io_uring_cqe_seen(&ring, next);
        if (whose == &accepting)
            take_accepted(listener, done.res, done.flags & IORING_CQE_F_MORE);
        else if (whose == &knocking)
            take_knock(listener);
        else if (whose == &waking && !closing)
            ask_readable(cli_wakeup_fd(), &waking);
        else if (whose != &waking && whose != NULL)
            pump_client(whose, done.res, done.flags);
    }
    stats_wait(n, n);
}

static int expiry_ms(void)
{
    if (cli.idle_timeout_ms == 0 || clients.next == &clients)
        return -1;
    uint32_t silent = lap_ms - clients.next->heard; /* right even when the clock has wrapped */
    return silent >= (uint32_t)cli.idle_timeout_ms ? 0 : cli.idle_timeout_ms - (int)silent;
}

/* Ends who is silent. Who takes what it is owed, too little for more to be sent, is not. */
static void end_silent(void)
{
    while (expiry_ms() == 0) {
        struct client *c = clients.next;
        int before = c->untaken;
        c->untaken = net_untaken(c->fd);
        if (c->left > 0 && c->untaken < before)
            touch(c);
        else
            end_client(c);
    }
}

/* As conn_drain: who is owed nothing and says nothing may go, and all when the time is up. */
static void drain_clients(struct net_listener *listener)
{
    const uint32_t start = lap_ms;
    struct client *c, *next;

    closing = true;
    ask_cancel(&accepting);
    ask_cancel(&knocking);
    for (c = clients.next; c != &clients; c = c->next)
        c->heard = start;
    while (clients.next != &clients || open_house) {
        run_lap(listener, CLI_QUIET_MS);
        bool late = lap_ms - start >= CLI_GRACE_MS;
        int left = 0;
        for (c = clients.next; c != &clients; c = c->next)
            left++;
        for (c = clients.next; left > 0; left--, c = next) {
            next = c->next; /* end_client moves it to the end of the list */
            if (late || (c->left == 0 && lap_ms - c->heard >= CLI_QUIET_MS))
                end_client(c);
        }
    }
}

/* What this needs is in Linux since 5.19, but may be switched off. */
static void set_up_ring(void)
{
    const size_t descriptions = BUFFERS * sizeof(struct io_uring_buf);
    int error = io_uring_queue_init(REQUESTS, &ring, IORING_SETUP_COOP_TASKRUN);

    if (error < 0)
        cli_die("this kernel does not allow io_uring: %s", strerror(-error));
    buffers = mmap(NULL, sizeof *buffers * BUFFERS, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    lent = mmap(NULL, descriptions, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffers == MAP_FAILED || lent == MAP_FAILED)
        cli_die("out of memory");
    struct io_uring_buf_reg group = {
        .ring_addr = (uintptr_t)lent, .ring_entries = BUFFERS, .bgid = GROUP};
    error = io_uring_register_buf_ring(&ring, &group, 0);
    if (error < 0)
        cli_die("this kernel's io_uring has no buffer rings: %s", strerror(-error));
    io_uring_buf_ring_init(lent);
    for (int i = 0; i < BUFFERS; i++)
        lend_buffer(i);
}

static void run_server(struct net_listener *listener)
{
    ask_readable(cli_wakeup_fd(), &waking);
    ask_accept(listener->fd);
    cli_listening(&listener->address);
    while (!cli_stopping()) {
        run_lap(listener, expiry_ms());
        end_silent();
    }
    net_unlisten(listener); /* from here on nobody new, once accept is cancelled */
    drain_clients(listener);
    io_uring_queue_exit(&ring);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    set_up_ring();
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
