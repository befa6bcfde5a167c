/* Step 6, variant - io_uring: do this, and tell me when it is done.
 *
 *              +--> write requests: receive from A; send "bcd" to B      into shared memory
 *     one loop |    io_uring_enter: submits all of them, asleep until one is done
 *              |    read results: "^abc$" came from A, it is in buffer 17   from shared memory
 *              +--- answer A: the next request
 *
 * Not "you may read now" but "this has been read": completion instead of readiness. Requests
 * and results pass through two rings that the program shares with the kernel. One system call
 * per iteration submits all requests and waits, however many clients there are.
 *
 * Each client has one request in flight: a recv, or a send of the answers. A recv names no
 * buffer. When bytes come, the kernel takes one of the provided buffers, so an idle client
 * needs none. The answers are sent from that buffer. If the socket does not take all of them,
 * the rest is copied and the buffer is provided again, because a slow client must not keep it.
 *
 * Memory belongs to the kernel until its request is done: a client is freed only then.
 *
 *   Wait happens in   io_uring_enter, for all clients at once; the kernel waits for each
 *   Breaks when       one answer takes long to compute; or the kernel does not allow io_uring
 */
#include "echo.h"
#include "idle.h"
#include "log.h"
#include "server.h"
#include "stats.h"
#include "stop.h"

#include <errno.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif

enum {
    REQUESTS = 1024,         /* room in the ring; when it is full, it is submitted early */
    BUFFERS = 128,           /* provided to the kernel; a power of two */
    BUFFER_SIZE = 64 * 1024, /* how much one recv can take */
    NONE = -1,
};

struct client {
    struct idle_node idle;        /* first: see idle.h */
    struct client *next_waiting;  /* for a buffer */
    const unsigned char *answers; /* not sent yet; in a provided buffer or the copy */
    size_t unsent;                /* how many: if any, the request in flight is a send */
    int buffer;                   /* the provided buffer, or NONE */
    unsigned char *copy;          /* the output that the socket did not take; usually NULL */
    int sendq;                    /* net_sendq when the client was active last */
    bool ended;                   /* close it when its request is done */
    int fd;
    struct address peer;
    struct echo echo;
};

static struct io_uring ring;
static struct io_uring_buf_ring *provided;
static unsigned char (*buffers)[BUFFER_SIZE];
static int buffers_in_use; /* with answers in them */
static struct client *first_waiting, *last_waiting;
static struct idle_list clients;
static char accepting; /* its address marks the results of accept; clients have their own */

/* ---- Requests: each is submitted with the next io_uring_enter ---------------------------- */

/* The mark comes back with the result; NULL = the result needs no action. */
static struct io_uring_sqe *new_request(void *mark)
{
    struct io_uring_sqe *request;

    while ((request = io_uring_get_sqe(&ring)) == NULL)
        io_uring_submit(&ring);
    io_uring_sqe_set_data(request, mark);
    return request;
}

/* Multishot: one request for any number of connections, each of which is a result. It is linked
 * to a poll, so it begins when a connection is pending. Without a free descriptor it would fail
 * before that, again and again. */
static void ask_accept(int listener)
{
    struct io_uring_sqe *pending = new_request(NULL);

    io_uring_prep_poll_add(pending, listener, POLLIN);
    pending->flags |= IOSQE_IO_LINK;
    io_uring_prep_multishot_accept(new_request(&accepting), listener, NULL, NULL, SOCK_CLOEXEC);
}

/* Most clients send nothing before they have their answers, so recv first waits for bytes. */
static void ask_recv(struct client *c)
{
    struct io_uring_sqe *request = new_request(c);

    io_uring_prep_recv(request, c->fd, NULL, BUFFER_SIZE, 0);
    request->flags |= IOSQE_BUFFER_SELECT;
    request->ioprio |= IORING_RECVSEND_POLL_FIRST;
}

/* From a provided buffer it sends what the socket takes now. From a copy it waits for room. */
static void ask_send(struct client *c)
{
    io_uring_prep_send(new_request(c), c->fd, c->answers, c->unsent,
                       MSG_NOSIGNAL | (c->buffer != NONE ? MSG_DONTWAIT : 0));
}

/* ---- Provided buffers -------------------------------------------------------------------- */

static void provide_buffer(int i)
{
    io_uring_buf_ring_add(provided, buffers[i], BUFFER_SIZE, (unsigned short)i,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(provided, 1);
}

/* The answers are sent, copied, or will never be sent. */
static void release_answers(struct client *c)
{
    if (c->buffer != NONE) {
        provide_buffer(c->buffer);
        buffers_in_use--;
    }
    c->buffer = NONE;
    free(c->copy);
    c->copy = NULL;
}

/* All buffers are in use. To ask again at once would only fail again. */
static void wait_for_buffer(struct client *c)
{
    c->next_waiting = NULL;
    *(first_waiting == NULL ? &first_waiting : &last_waiting->next_waiting) = c;
    last_waiting = c;
}

/* ---- A client ---------------------------------------------------------------------------- */

static void touch(struct client *c)
{
    idle_touch(&clients, &c->idle);
    if (clients.limit_ms > 0 && c->copy != NULL)
        c->sendq = net_sendq(c->fd);
}

/* Copies the answers that the socket did not take, and provides their buffer again. */
static void copy_unsent(struct client *c)
{
    unsigned char *copy = malloc(c->unsent);

    if (copy == NULL)
        c->ended = true;
    else
        c->answers = memcpy(copy, c->answers, c->unsent);
    release_answers(c);
    c->copy = copy;
    touch(c);
}

static void close_client(struct client *c)
{
    server_disconnected(&c->peer);
    release_answers(c);
    idle_remove(&clients, &c->idle);
    close(c->fd);
    free(c);
}

/* Asks for what comes next. No request of the client is in flight, so it may be freed. */
static void pump_client(struct client *c)
{
    if (c->unsent == 0)
        release_answers(c);
    if (c->ended)
        close_client(c);
    else if (c->unsent > 0)
        ask_send(c);
    else
        ask_recv(c);
}

/* Cancels the client's request. Its result is then an error, and the client is closed. */
static void end_client(struct client *c)
{
    c->ended = true;
    io_uring_prep_cancel(new_request(NULL), c, 0);
}

static void accept_client(int fd, const struct address *peer)
{
    struct client *c = calloc(1, sizeof *c);

    if (c == NULL) {
        server_rejected(peer, strerror(errno));
        close(fd);
        return;
    }
    c->fd = fd;
    c->peer = *peer;
    c->buffer = NONE;
    c->answers = (const unsigned char *)ECHO_GREETING;
    c->unsent = strlen(ECHO_GREETING);
    echo_init(&c->echo);
    idle_add(&clients, &c->idle);
    server_connected(peer);
    pump_client(c);
}

/* ---- Results: bytes, or an error below 0 ------------------------------------------------- */

/* May the same request succeed later? ENOBUFS means that all provided buffers are in use. */
static bool is_passing(int result)
{
    return result == -EINTR || result == -ENOBUFS || net_is_again(-result);
}

static void take_received(struct client *c, int n, unsigned flags)
{
    if (flags & IORING_CQE_F_BUFFER) {
        c->buffer = (int)(flags >> IORING_CQE_BUFFER_SHIFT);
        buffers_in_use++;
    }
    stats_add(&stats.recv_calls, 1);
    stats_add(&stats.recv_again, is_passing(n));
    if (n > 0) {
        stats_add(&stats.bytes_in, (uint64_t)n);
        c->answers = buffers[c->buffer];
        c->unsent = echo_feed(&c->echo, buffers[c->buffer], (size_t)n);
        touch(c);
    }
    c->ended |= n <= 0 && !is_passing(n);
    if (n == -ENOBUFS)
        wait_for_buffer(c);
    else
        pump_client(c);
}

static void take_sent(struct client *c, int n)
{
    size_t sent = n > 0 ? (size_t)n : 0;

    stats_add(&stats.send_calls, 1);
    stats_add(&stats.send_again, is_passing(n));
    stats_add(&stats.send_short, n > 0 && sent < c->unsent);
    stats_add(&stats.bytes_out, sent);
    c->answers += sent;
    c->unsent -= sent;
    c->ended |= n < 0 && !is_passing(n);
    if (c->unsent > 0 && c->buffer != NONE && !c->ended)
        copy_unsent(c);
    if (sent > 0)
        touch(c);
    pump_client(c);
}

/* Admits the client that the multishot accept has accepted. Returns its descriptor, or -1. */
static int admit(int fd, struct address *peer)
{
    struct sockaddr_storage name = {0};

    stats_add(&stats.accept_calls, 1);
    getpeername(fd, (struct sockaddr *)&name, &(socklen_t){sizeof name});
    address_from_sockaddr(peer, (struct sockaddr *)&name);
    if (server_admit(peer))
        return fd;
    close(fd);
    return -1;
}

/* The multishot accept has a result: a descriptor, or the error that ended it. After an error
 * server_accept takes the pending connection, or rejects it for lack of descriptors. */
static void take_accepted(struct net_listener *listener, int result, bool more)
{
    struct address peer;
    int fd = -1;

    if (result >= 0)
        fd = admit(result, &peer);
    else if (!stop_requested())
        fd = server_accept(listener, &peer);
    if (fd != -1)
        accept_client(fd, &peer);
    if (!more && !stop_requested())
        ask_accept(listener->fd);
}

static void take_result(struct net_listener *listener, const struct io_uring_cqe *result)
{
    void *mark = io_uring_cqe_get_data(result);
    struct client *c = mark;

    if (mark == &accepting)
        take_accepted(listener, result->res, result->flags & IORING_CQE_F_MORE);
    else if (c != NULL && c->unsent > 0)
        take_sent(c, result->res);
    else if (c != NULL)
        take_received(c, result->res, result->flags);
}

/* ---- The server -------------------------------------------------------------------------- */

/* Asks again for as many waiting clients as there are free buffers. */
static void pump_waiting(void)
{
    for (int i = buffers_in_use; i < BUFFERS && first_waiting != NULL; i++) {
        struct client *c = first_waiting;
        first_waiting = c->next_waiting;
        pump_client(c);
    }
}

/* Submits the requests, sleeps until a result is there or a client was idle for too long, and
 * takes the results that are there now. */
static void run_iteration(struct net_listener *listener)
{
    int ms = idle_expiry_ms(&clients);
#if defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
    if (ms == -1)
        ms = STOP_LINGER_MS; /* it delays signals until a call that it knows */
#endif
    struct __kernel_timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    struct io_uring_cqe *next;

    int waited =
        io_uring_submit_and_wait_timeout(&ring, &next, 1, ms == -1 ? NULL : &limit, NULL);
    const unsigned n = io_uring_cq_ready(&ring);
    errno = waited < 0 ? -waited : 0;
    server_waited(n == 0 && waited < 0 && errno != ETIME ? -1 : (int)n, (int)n);
    for (unsigned i = 0; i < n && io_uring_peek_cqe(&ring, &next) == 0; i++) {
        const struct io_uring_cqe result = *next;
        io_uring_cqe_seen(&ring, next);
        take_result(listener, &result);
    }
    pump_waiting();
}

/* Closes clients that were idle for too long. At a stop, clients with answers are not idle. */
static void end_idle(void)
{
    struct client *c;

    while ((c = (struct client *)idle_expired(&clients)) != NULL) {
        if (stop_requested() ? c->unsent == 0 && !net_readable(c->fd, 0)
                             : !idle_has_progress(c->fd, c->copy != NULL ? c->sendq : -1))
            end_client(c);
        touch(c); /* to the end of the list */
    }
}

/* A stop is an idle time-out of STOP_LINGER_MS. At the deadline all clients are closed. */
static void drain_clients(struct net_listener *listener)
{
    struct idle_node *node;

    io_uring_prep_cancel_fd(new_request(NULL), listener->fd, IORING_ASYNC_CANCEL_ALL);
    io_uring_submit(&ring);
    net_unlisten(listener);
    idle_restart(&clients, STOP_LINGER_MS);
    do {
        run_iteration(listener);
        end_idle();
        if (stop_deadline_passed())
            for (node = clients.first; node != NULL; node = node->next)
                end_client((struct client *)node);
    } while (clients.first != NULL);
}

static void check_setup(int error)
{
    if (error < 0)
        log_die("%s: %s",
                error == -ENOMEM ? "io_uring may lock too little memory (ulimit -l)"
                                 : "this kernel does not allow io_uring",
                strerror(-error));
}

/* This needs Linux 6.1. With DEFER_TASKRUN the kernel does its part of the work when it is
 * asked for results, and does not interrupt the program for it. */
static void set_up_ring(void)
{
    const size_t size = (sizeof *buffers + sizeof(struct io_uring_buf)) * BUFFERS;
    struct io_uring_buf_reg group = {.ring_entries = BUFFERS};

    check_setup(io_uring_queue_init(REQUESTS, &ring,
                                    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN));
    buffers = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (buffers == MAP_FAILED)
        log_die("out of memory");
    provided = (void *)(buffers + BUFFERS);
    group.ring_addr = (uintptr_t)provided;
    check_setup(io_uring_register_buf_ring(&ring, &group, 0));
    for (int i = 0; i < BUFFERS; i++)
        provide_buffer(i);
}

/* Accepted sockets inherit TCP_NODELAY from their listener. */
static void run_server(struct net_listener *listener)
{
    net_set_nonblocking(listener->fd);
    setsockopt(listener->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    idle_init(&clients, options->idle_timeout_ms);
    io_uring_prep_poll_multishot(new_request(NULL), stop_wakeup_fd(), POLLIN);
    ask_accept(listener->fd);
    server_ready(&listener->address);
    while (!stop_requested()) {
        run_iteration(listener);
        end_idle();
    }
    drain_clients(listener);
    io_uring_queue_exit(&ring);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    set_up_ring();
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
