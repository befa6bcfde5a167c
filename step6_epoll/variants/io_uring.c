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
 * the rest is copied and the buffer is provided again: a slow client must not keep it.
 *
 * Memory belongs to the kernel until its request is done: a client is freed only then.
 *
 *   Wait happens in   io_uring_enter, for all clients at once; the kernel waits for each
 *   Breaks when       one answer takes long to compute; or the kernel does not allow io_uring
 */
#include "server.h"
#include "echo.h"
#include "idle.h"
#include "stop.h"
#include "uring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct client {
    struct idle_node idle;        /* first: see idle.h */
    struct client *next_waiting;  /* for a buffer */
    unsigned char *buffer;        /* a provided buffer with answers in it, or NULL */
    unsigned char *copy;          /* the output that the socket did not take; usually NULL */
    const unsigned char *answers; /* not sent yet; in the buffer or the copy */
    size_t unsent;                /* how many: if any, the request in flight is a send */
    int sendq;                    /* net_sendq when the client was active last */
    bool ended;                   /* close it when its request is done */
    int fd;
    struct address peer;
    struct echo echo;
};

static struct io_uring ring;
static struct idle_list clients;
static struct client *first_waiting, *last_waiting;
static char accepting, waking; /* their addresses mark requests that are not for a client */

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
 * to a poll, so it begins when a connection is pending. Otherwise, without a free descriptor,
 * it would fail at once, again and again. */
static void ask_accept(int listener)
{
    struct io_uring_sqe *pending = new_request(NULL);

    io_uring_prep_poll_add(pending, listener, POLLIN);
    pending->flags |= IOSQE_IO_LINK;
    io_uring_prep_multishot_accept(new_request(&accepting), listener, NULL, NULL, SOCK_CLOEXEC);
}

/* A signal that comes just before the program sleeps must wake it, too. */
static void ask_wakeup(void)
{
    if (!stop_requested()) /* else the descriptor stays readable */
        io_uring_prep_poll_add(new_request(&waking), stop_wakeup_fd(), POLLIN);
}

/* Most clients send nothing before they have their answers, so recv first waits for bytes. */
static void ask_recv(struct client *c)
{
    struct io_uring_sqe *request = new_request(c);

    io_uring_prep_recv(request, c->fd, NULL, URING_BUFFER_SIZE, 0);
    request->flags |= IOSQE_BUFFER_SELECT;
    request->ioprio |= IORING_RECVSEND_POLL_FIRST;
}

/* From a provided buffer it sends what the socket takes now. From a copy it waits for room. */
static void ask_send(struct client *c)
{
    io_uring_prep_send(new_request(c), c->fd, c->answers, c->unsent,
                       MSG_NOSIGNAL | (c->buffer != NULL ? MSG_DONTWAIT : 0));
}

/* ---- A client ---------------------------------------------------------------------------- */

static void touch(struct client *c)
{
    idle_touch(&clients, &c->idle);
    if (clients.limit_ms > 0 && c->copy != NULL)
        c->sendq = net_sendq(c->fd);
}

/* Call it when the answers are sent, or will never be sent. */
static void release_answers(struct client *c)
{
    uring_provide(c->buffer);
    c->buffer = NULL;
    free(c->copy);
    c->copy = NULL;
}

/* Copies the answers that the socket did not take, and provides their buffer again. */
static void copy_unsent(struct client *c)
{
    c->copy = malloc(c->unsent);
    if (c->copy == NULL)
        c->ended = true;
    else
        c->answers = memcpy(c->copy, c->answers, c->unsent);
    uring_provide(c->buffer);
    c->buffer = NULL;
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

/* All buffers are in use. To ask again at once would only fail again. */
static void wait_for_buffer(struct client *c)
{
    c->next_waiting = NULL;
    *(first_waiting == NULL ? &first_waiting : &last_waiting->next_waiting) = c;
    last_waiting = c;
}

/* Asks again for as many waiting clients as there are free buffers. */
static void pump_waiting(void)
{
    for (int n = uring_free_buffers(); n > 0 && first_waiting != NULL; n--) {
        struct client *c = first_waiting;
        first_waiting = c->next_waiting;
        pump_client(c);
    }
}

/* ---- Results: bytes, or an error below 0 ------------------------------------------------- */

/* The multishot accept has a result: a client, or the error that has ended the request. */
static void accept_client(struct net_listener *listener, const struct io_uring_cqe *result)
{
    struct address peer;
    int fd;
    struct client *c = uring_accept(listener, result->res, sizeof *c, &fd, &peer);

    if (!(result->flags & IORING_CQE_F_MORE) && !stop_requested())
        ask_accept(listener->fd);
    if (c == NULL)
        return;
    c->fd = fd;
    c->peer = peer;
    c->answers = (const unsigned char *)ECHO_GREETING;
    c->unsent = strlen(ECHO_GREETING);
    echo_init(&c->echo);
    idle_add(&clients, &c->idle);
    server_connected(&peer);
    pump_client(c);
}

static void take_received(struct client *c, const struct io_uring_cqe *result)
{
    const int n = result->res;

    uring_count_recv(n);
    c->buffer = uring_buffer(result);
    c->ended |= n <= 0 && !uring_is_passing(n);
    if (n > 0) {
        c->answers = c->buffer;
        c->unsent = echo_feed(&c->echo, c->buffer, (size_t)n);
        touch(c);
    }
    if (n == -ENOBUFS)
        wait_for_buffer(c);
    else
        pump_client(c);
}

static void take_sent(struct client *c, int n)
{
    size_t sent = n > 0 ? (size_t)n : 0;

    uring_count_send(n, c->unsent);
    c->ended |= n < 0 && !uring_is_passing(n);
    c->answers += sent;
    c->unsent -= sent;
    if (c->unsent > 0 && c->buffer != NULL)
        copy_unsent(c);
    touch(c);
    pump_client(c);
}

static void take_result(struct net_listener *listener, const struct io_uring_cqe *result)
{
    void *mark = io_uring_cqe_get_data(result);
    struct client *c = mark;

    if (mark == &accepting)
        accept_client(listener, result);
    else if (mark == &waking)
        ask_wakeup();
    else if (c != NULL && c->unsent > 0)
        take_sent(c, result->res);
    else if (c != NULL)
        take_received(c, result);
}

/* ---- The server -------------------------------------------------------------------------- */

/* Closes clients that were idle for too long. */
static void end_idle(void)
{
    struct client *c;

    while ((c = (struct client *)idle_expired(&clients)) != NULL) {
        if (!idle_has_progress(c->fd, c->unsent > 0 ? c->sendq : -1))
            end_client(c);
        touch(c); /* to the end of the list */
    }
}

/* Submits the requests, sleeps until a result is there or a client was idle for too long, and
 * takes the results that are there now. */
static void run_iteration(struct net_listener *listener)
{
    struct io_uring_cqe *results[URING_REQUESTS];
    int n = uring_wait(&ring, results, idle_expiry_ms(&clients));

    server_waited(n, n);
    for (int i = 0; i < n; i++) {
        take_result(listener, results[i]);
        io_uring_cqe_seen(&ring, results[i]);
    }
    pump_waiting();
    end_idle();
}

/* A stop is an idle time-out of STOP_LINGER_MS. At the deadline all clients are closed. */
static void drain_clients(struct net_listener *listener)
{
    io_uring_prep_cancel_fd(new_request(NULL), listener->fd, IORING_ASYNC_CANCEL_ALL);
    io_uring_submit(&ring);
    net_unlisten(listener);
    idle_restart(&clients, STOP_LINGER_MS);
    do {
        run_iteration(listener);
        if (stop_deadline_passed())
            for (struct idle_node *node = clients.first; node != NULL; node = node->next)
                end_client((struct client *)node);
    } while (clients.first != NULL);
}

static void run_server(struct net_listener *listener)
{
    uring_init(&ring, listener);
    idle_init(&clients, options->idle_timeout_ms);
    ask_wakeup();
    ask_accept(listener->fd);
    server_ready(&listener->address);
    while (!stop_requested())
        run_iteration(listener);
    drain_clients(listener);
    io_uring_queue_exit(&ring);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
