/* Step 6, variant - io_uring: do this, and tell me when it is done.
 *
 *              +--> ask: go on receiving from A; send this to B     written into shared memory
 *     one loop |    io_uring_enter: hands over all of them, asleep until something is done
 *              |    done: A sent 3 bytes, "^ab"; they are in buffer 17         read from it
 *              +--- answer A: the next request
 *
 * Not "you may read now" but "this has been read": completion instead of readiness. What is to
 * be done is written into a ring, and what was done is read from another, without a system
 * call; one call a lap hands over and waits, however many clients there are. Two kinds of
 * request are made once and go on by themselves (multishot): accept, and each client's recv,
 * for which the kernel takes one of the buffers lent to it when bytes come. The answers are
 * sent from these buffers, the sends of a client linked: each begins when the one before it has
 * sent all, and if that could not, the rest of the chain is cancelled.
 *
 * Memory belongs to the kernel until its request is done. So the answers a socket would not
 * take are copied, their buffers lent again and nothing more received until the client has
 * taken them; and a client is freed when nothing of its is under way any more.
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
    BUFFERS = 256, /* lent to the kernel, which fills one when bytes come: the idle need none */
    BUFFER_SIZE = 2 * 1024,
    FLOOD_SIZE = 64 * 1024, /* of a block for who sends more than that at once */
    GROUP = 0,              /* of buffers: there is only one */
    REQUESTS = 1024, /* room for a chain, and more; when it is full it is handed over early */
    RESULTS = 4 * REQUESTS,
    NONE = -1, /* no buffer */
};

/* Answers that the socket would not take at once, or that are too many for a buffer. */
struct block {
    struct block *next;
    size_t sent, size;
    unsigned char bytes[];
};

struct client {
    struct client *prev, *next;     /* neighbours in the list, longest silent first */
    struct client *next_active;     /* in the list of those of whom something was done */
    struct block *kept, *last_kept; /* to be sent, one after another */
    struct block *incoming;         /* what is received goes here, and not into a buffer */
    int filled, last_filled;        /* or the buffers with answers, in order */
    int sends;                      /* under way: one of a block, or a chain of buffers */
    bool receiving;                 /* is under way */
    bool flooding;                  /* it sends more than a buffer holds */
    bool blocked;                   /* its socket did not take all that is filled */
    bool ended, broken;             /* it says nothing more; nor does it listen */
    bool active;
    int fd;
    int untaken;    /* of what it was sent, when it was last heard */
    uint32_t heard; /* `lap_ms` when bytes last moved; it may wrap */
    struct peer peer;
    struct echo echo;
};

static struct io_uring ring;
static struct io_uring_buf_ring *lent;
static unsigned char (*buffers)[BUFFER_SIZE];
static struct {
    size_t sent, size; /* of the answers in it */
    int next;
} filled[BUFFERS];
static struct client clients = {.prev = &clients, .next = &clients};
static struct client *active, *last_active;
static char accepting, knocking, waking; /* their addresses stand for what is no client's */
static bool open_house;                  /* one of the first two is under way */
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

static void touch(struct client *c)
{
    if (c->heard == lap_ms)
        return;
    list_remove(c);
    list_append(c);
}

/* ---- Requests ---------------------------------------------------------------------------- */

static struct io_uring_sqe *new_request(void)
{
    struct io_uring_sqe *request;

    while ((request = io_uring_get_sqe(&ring)) == NULL)
        io_uring_submit(&ring);
    return request;
}

/* One request for any number of newcomers: each is a result. */
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

/* One request for all that the client will ever send: each buffer filled is a result. But it
 * would fill one after another for a client that sends without pause, until others had none;
 * so such a client gets a block, and a request for each; which does not wait, for the idle
 * need none. */
static void ask_recv(struct client *c)
{
    struct io_uring_sqe *request = new_request();

    c->incoming = c->flooding ? malloc(sizeof *c->incoming + FLOOD_SIZE) : NULL;
    if (c->incoming != NULL) {
        io_uring_prep_recv(request, c->fd, c->incoming->bytes, FLOOD_SIZE, MSG_DONTWAIT);
    } else {
        io_uring_prep_recv_multishot(request, c->fd, NULL, 0, 0);
        request->flags |= IOSQE_BUFFER_SELECT;
        request->buf_group = GROUP;
    }
    io_uring_sqe_set_data(request, c);
    c->receiving = true;
}

/* The results of sends are told from those of recvs by the lowest bit of the address. */
static struct io_uring_sqe *ask_send(struct client *c, const void *bytes, size_t n, int flags)
{
    struct io_uring_sqe *request = new_request();

    io_uring_prep_send(request, c->fd, bytes, n, flags | MSG_NOSIGNAL);
    io_uring_sqe_set_data(request, (char *)c + 1);
    c->sends++;
    return request;
}

/* For MSG_WAITALL less than all is a failure, which ends the chain. */
static void ask_chain(struct client *c)
{
    struct io_uring_sqe *request = NULL;
    unsigned links = 0;

    for (int i = c->filled; i != NONE; i = filled[i].next)
        links++;
    while (io_uring_sq_space_left(&ring) < links)
        io_uring_submit(&ring); /* a chain must be handed over whole */
    for (int i = c->filled; i != NONE; i = filled[i].next) {
        request = ask_send(c, buffers[i], filled[i].size, MSG_DONTWAIT | MSG_WAITALL);
        request->flags |= IOSQE_IO_LINK;
    }
    request->flags &= (unsigned char)~IOSQE_IO_LINK; /* behind the last there is nothing */
}

/* ---- Where answers wait ------------------------------------------------------------------ */

static void lend_buffer(int i)
{
    io_uring_buf_ring_add(lent, buffers[i], BUFFER_SIZE, (unsigned short)i,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(lent, 1);
}

static void append_filled(struct client *c, int i, size_t size)
{
    filled[i].sent = 0;
    filled[i].size = size;
    filled[i].next = NONE;
    *(c->filled == NONE ? &c->filled : &filled[c->last_filled].next) = i;
    c->last_filled = i;
}

/* Lends the client's first buffer again. */
static void remove_filled(struct client *c)
{
    int i = c->filled;

    c->filled = filled[i].next;
    lend_buffer(i);
}

static void append_kept(struct client *c, struct block *b, size_t size)
{
    *b = (struct block){.size = size};
    *(c->kept == NULL ? &c->kept : &c->last_kept->next) = b;
    c->last_kept = b;
}

/* Copies answers to be sent when the socket has room. Until then nothing more is received: what
 * had been before the kernel knows of that comes here, too. */
static void keep(struct client *c, const void *bytes, size_t n)
{
    struct block *b = malloc(sizeof *b + n);

    if (b == NULL) {
        c->broken = true;
        return;
    }
    append_kept(c, b, n);
    memcpy(b->bytes, bytes, n);
}

static void remove_kept(struct client *c)
{
    struct block *b = c->kept;

    c->kept = b->next;
    free(b);
}

/* ---- A client ---------------------------------------------------------------------------- */

static void drop_client(struct client *c)
{
    cli_disconnected(&c->peer);
    while (c->filled != NONE)
        remove_filled(c);
    while (c->kept != NULL)
        remove_kept(c);
    list_remove(c);
    close(c->fd);
    free(c);
}

/* Asks for what comes next. The one place where a client is dropped: all requests are done. */
static void pump_client(struct client *c)
{
    for (; c->blocked && c->sends == 0 && c->filled != NONE; remove_filled(c))
        keep(c, buffers[c->filled] + filled[c->filled].sent,
             filled[c->filled].size - filled[c->filled].sent);
    if (c->broken)
        shutdown(c->fd, SHUT_RDWR); /* ends what is under way */
    if ((c->kept != NULL || c->flooding) && c->receiving && c->incoming == NULL && !c->broken)
        ask_cancel(c);
    if (c->sends > 0)
        return;
    if (c->broken) {
        if (!c->receiving)
            drop_client(c);
    } else if (c->kept != NULL) {
        ask_send(c, c->kept->bytes + c->kept->sent, c->kept->size - c->kept->sent, 0);
    } else if (c->filled != NONE) {
        ask_chain(c);
    } else if (c->ended) {
        drop_client(c);
    } else if (!c->receiving) {
        ask_recv(c);
    }
}

/* At the end of the lap, when all that was done for the client is known. */
static void pump_later(struct client *c)
{
    if (c->active)
        return;
    c->active = true;
    c->next_active = NULL;
    *(active == NULL ? &active : &last_active->next_active) = c;
    last_active = c;
}

/* Takes what a send did: of a block, or else of the first buffer of a chain. */
static void take_sent(struct client *c, int n)
{
    const bool block = c->kept != NULL;
    size_t size = block ? c->kept->size : filled[c->filled].size;
    size_t *sent = block ? &c->kept->sent : &filled[c->filled].sent;

    *sent += n > 0 ? (size_t)n : 0;
    bool all = *sent == size;
    c->sends--;
    pump_later(c);
    if (n != -ECANCELED) { /* it was never tried: the one before it failed */
        stats_add(&stats.send_calls, 1);
        stats_add(&stats.send_again, n == -EAGAIN);
        stats_add(&stats.send_short, n > 0 && !all);
        stats_add(&stats.bytes_out, n > 0 ? (uint64_t)n : 0);
        c->broken |= n < 0 && !net_is_again(-n);
    }
    if (all && block)
        remove_kept(c);
    else if (all)
        remove_filled(c);
    c->blocked = !all && !block;
    if (n > 0)
        touch(c);
    if (c->kept != NULL || c->blocked)
        c->untaken = net_untaken(c->fd);
}

/* Takes what a recv did, and whether it goes on. */
static void take_received(struct client *c, int n, int buffer, bool more)
{
    struct block *b = c->incoming;
    unsigned char *bytes = b ? b->bytes : buffer != NONE ? buffers[buffer] : NULL;
    size_t answers = 0;

    c->receiving = more;
    c->incoming = NULL;
    pump_later(c);
    if (n != -ECANCELED) {
        stats_add(&stats.recv_calls, 1);
        stats_add(&stats.recv_again, n < 0 && net_is_again(-n));
        c->flooding = n >= BUFFER_SIZE;
    }
    if (n > 0) {
        stats_add(&stats.bytes_in, (uint64_t)n);
        touch(c);
        answers = c->broken ? 0 : echo_feed(&c->echo, bytes, (size_t)n);
    } else if (n == 0) {
        c->ended = true;
    } else if (n != -ECANCELED && n != -ENOBUFS && !net_is_again(-n)) {
        c->broken = true; /* (ENOBUFS: all were in use, but soon will not be) */
    }
    if (b != NULL && answers > 0) {
        append_kept(c, b, answers);
    } else if (b != NULL) {
        free(b);
    } else if (answers > 0 && c->kept == NULL) {
        append_filled(c, buffer, answers);
    } else if (buffer != NONE) {
        if (answers > 0)
            keep(c, bytes, answers);
        lend_buffer(buffer);
    }
}

/* ---- The server -------------------------------------------------------------------------- */

static void accept_client(int fd, const struct peer *peer)
{
    struct client *c = calloc(1, sizeof *c);
    int on = 1;

    if (c != NULL)
        keep(c, ECHO_GREETING, strlen(ECHO_GREETING));
    if (c == NULL || c->broken) {
        cli_refused(peer, "out of memory");
        close(fd);
        free(c);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
    c->peer = *peer;
    c->filled = NONE;
    echo_init(&c->echo);
    list_append(c);
    cli_connected(peer);
    pump_client(c);
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
        const bool gone = getpeername(result, (struct sockaddr *)&address, &size) == -1;
        peer_from_sockaddr(&peer, (struct sockaddr *)&address);
        if (gone)
            close(result);
        else if (cli_admit(result, &peer) >= 0)
            accept_client(result, &peer);
    }
    if (more || closing)
        return;
    open_house = true;
    if (result >= 0)
        ask_accept(listener->fd);
    else
        ask_readable(listener->fd, &knocking); /* in a full house accept would fail at once */
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

/* What is under way ends by it, and then the client is dropped. */
static void end_client(struct client *c)
{
    c->broken = true;
    touch(c);
    pump_client(c);
}

static void take_result(struct net_listener *listener, void *whose, int result, unsigned flags)
{
    bool more = flags & IORING_CQE_F_MORE;
    int buffer =
        (flags & IORING_CQE_F_BUFFER) != 0 ? (int)(flags >> IORING_CQE_BUFFER_SHIFT) : NONE;

    if (whose == &accepting)
        take_accepted(listener, result, more);
    else if (whose == &knocking)
        take_knock(listener);
    else if (whose == &waking && !closing)
        ask_readable(cli_wakeup_fd(), &waking);
    else if (whose == &waking || whose == NULL)
        return;
    else if ((uintptr_t)whose & 1)
        take_sent((struct client *)((char *)whose - 1), result);
    else
        take_received(whose, result, buffer, more);
}

/* Hands over the requests, sleeps until something is done, ms milliseconds at most (-1 = for
 * ever), and goes through all that is done. */
static void run_lap(struct net_listener *listener, int ms)
{
#if defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
    if (ms == -1)
        ms = CLI_QUIET_MS; /* it holds signals back until it sees a call that it knows */
#endif
    struct __kernel_timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    struct io_uring_cqe *next;
    int n = 0;

    io_uring_submit_and_wait_timeout(&ring, &next, 1, ms == -1 ? NULL : &limit, NULL);
    read_clock();
    for (; n < RESULTS && io_uring_peek_cqe(&ring, &next) == 0; n++) {
        const struct io_uring_cqe done = *next;
        io_uring_cqe_seen(&ring, next);
        take_result(listener, io_uring_cqe_get_data(&done), done.res, done.flags);
    }
    stats_wait(n, n);
    while (active != NULL) {
        struct client *c = active;
        active = c->next_active;
        c->active = false;
        pump_client(c);
    }
}

static int expiry_ms(void)
{
    if (cli.idle_timeout_ms == 0 || clients.next == &clients)
        return -1;
    uint32_t silent = lap_ms - clients.next->heard; /* right even when the clock has wrapped */
    return silent >= (uint32_t)cli.idle_timeout_ms ? 0 : cli.idle_timeout_ms - (int)silent;
}

/* Ends who is silent. Who takes what it is owed, too little for more to be sent, is not; nor is
 * who has spoken while we could not run. */
static void end_silent(void)
{
    while (expiry_ms() == 0) {
        struct client *c = clients.next;
        int before = c->untaken;
        c->untaken = net_untaken(c->fd);
        if (c->kept != NULL ? c->untaken < before : net_readable(c->fd, 0))
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
            if (late ||
                (c->sends == 0 && lap_ms - c->heard >= CLI_QUIET_MS && !net_readable(c->fd, 0)))
                end_client(c);
        }
    }
}

/* What this needs is in Linux since 6.1, but may be switched off. With DEFER_TASKRUN the kernel
 * does its part of the work when it is asked for results, and does not interrupt for it. */
static void set_up_ring(void)
{
    const size_t descriptions = BUFFERS * sizeof(struct io_uring_buf);
    struct io_uring_params parameters = {
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        .cq_entries = RESULTS,
    };
    int error = io_uring_queue_init_params(REQUESTS, &ring, &parameters);

    if (error < 0)
        cli_die("%s: %s",
                error == -ENOMEM ? "io_uring may lock too little memory (ulimit -l)"
                                 : "this kernel does not allow io_uring",
                strerror(-error));
    buffers = mmap(NULL, sizeof *buffers * BUFFERS, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    lent = mmap(NULL, descriptions, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
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
