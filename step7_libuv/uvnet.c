#include "uvnet.h"
#include "server.h"
#include "log.h"
#include "stats.h"
#include "stop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* libuv's table has 8 bytes for each descriptor. This is enough for 65,000 of them. */
enum { RESERVE_SIZE = 1024 * 1024 };

static void *reserve;
static struct idle_list clients;
static uv_poll_t pending; /* watches the listener */
static uv_poll_t wakeup;  /* watches stop_wakeup_fd */
static uv_check_t after_wait;
static uv_timer_t timer; /* for idle clients */
static void (*on_pending)(struct net_listener *listener);
static void (*on_idle)(struct uvnet_client *c);

/* ---- Clients, and memory ----------------------------------------------------------------- */

static void *reallocate(void *memory, size_t size)
{
    void *more = realloc(memory, size);

    if (more == NULL && reserve != NULL) {
        free(reserve);
        reserve = NULL;
        more = realloc(memory, size);
    }
    return more;
}

static bool has_reserve(void)
{
    if (reserve == NULL)
        reserve = malloc(RESERVE_SIZE);
    return reserve != NULL;
}

void *uvnet_accept(struct net_listener *listener, size_t size, int *fd)
{
    struct address peer;
    struct uvnet_client *c;

    *fd = server_accept(listener, &peer);
    if (*fd == -1)
        return NULL;
    c = has_reserve() ? calloc(1, size) : NULL;
    if (c == NULL) {
        server_reject(*fd, &peer, strerror(ENOMEM));
        return NULL;
    }
    c->peer = peer;
    idle_add(&clients, &c->idle);
    server_connected(&peer);
    return c;
}

void uvnet_disconnected(struct uvnet_client *c)
{
    server_disconnected(&c->peer);
    idle_remove(&clients, &c->idle);
}

/* ---- Idle clients, and the stop ---------------------------------------------------------- */

static int queued(const struct uvnet_client *c)
{
    return (int)uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp);
}

void uvnet_touch(struct uvnet_client *c)
{
    uv_os_fd_t fd;

    idle_touch(&clients, &c->idle);
    if (queued(c) > 0 && uv_fileno((const uv_handle_t *)&c->tcp, &fd) == 0)
        c->sendq = queued(c) + net_sendq(fd);
}

/* Is the client not idle although its time-out is over? libuv runs its timers before it looks
 * at sockets, and it does not report that a part of the output was sent. */
static bool has_progress(const struct uvnet_client *c)
{
    uv_os_fd_t fd;

    return uv_fileno((const uv_handle_t *)&c->tcp, &fd) == 0 &&
           idle_has_progress(fd, queued(c) > 0 ? c->sendq - queued(c) : -1);
}

static void close_idle(uv_timer_t *handle)
{
    const bool all = stop_deadline_passed();
    struct idle_node *node;

    while ((node = all ? clients.first : idle_expired(&clients)) != NULL) {
        struct uvnet_client *c = (struct uvnet_client *)node;
        if (all || !has_progress(c))
            on_idle(c);
        else
            uvnet_touch(c);
    }
    int ms = clients.first != NULL ? idle_expiry_ms(&clients) : clients.limit_ms;
    uv_timer_start(handle, close_idle, (uint64_t)ms, 0);
}

/* A signal has come. For SIGUSR1 there is nothing to do: end_wait writes the report, which
 * makes the descriptor unreadable again. At a stop it stays readable, so libuv must not watch
 * it any longer. From then on the limit of idleness is STOP_LINGER_MS, so the timer is soon due
 * and sees the deadline. */
static void woken(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    stats_add(&stats.wait_events, 1);
    if (!stop_requested())
        return;
    uv_close((uv_handle_t *)handle, NULL);
    uv_close((uv_handle_t *)&pending, NULL);
    net_unlisten(pending.data);
    idle_restart(&clients, STOP_LINGER_MS);
    close_idle(&timer);
}

/* ---- Statistics -------------------------------------------------------------------------- */

static void end_wait(uv_check_t *check)
{
    (void)check;
    server_waited(0, 0); /* libuv does not say how many events: the callbacks count them */
}

void uvnet_count_read(ssize_t result)
{
    stats_add(&stats.wait_events, 1);
    stats_add(&stats.recv_calls, 1);
    stats_add(&stats.recv_again, result == 0); /* this is how libuv reports EAGAIN */
    stats_add(&stats.bytes_in, result > 0 ? (uint64_t)result : 0);
}

void uvnet_count_write(ssize_t result, size_t n)
{
    stats_add(&stats.send_calls, 1);
    stats_add(&stats.send_again, result == UV_EAGAIN);
    stats_add(&stats.send_short, result >= 0 && (size_t)result < n);
    stats_add(&stats.bytes_out, result > 0 ? (uint64_t)result : 0);
}

/* ---- The loop ---------------------------------------------------------------------------- */

static void listener_ready(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    stats_add(&stats.wait_events, 1);
    on_pending(handle->data);
}

static _Noreturn void die(int error)
{
    log_die("cannot set up libuv's loop: %s", uv_strerror(error));
}

/* Makes the loop call `ready` when fd is readable. Makes fd non-blocking, too. */
static void watch(uv_loop_t *loop, uv_poll_t *handle, int fd, uv_poll_cb ready)
{
    int error = uv_poll_init(loop, handle, fd);

    if (error == 0)
        error = uv_poll_start(handle, UV_READABLE, ready);
    if (error != 0)
        die(error);
}

/* libuv aborts the program when it cannot open the pipe that it needs beside its epoll. */
static bool has_descriptors(void)
{
    int some[3], n = 0;

    while (n < 3 && (some[n] = dup(STDIN_FILENO)) != -1)
        n++;
    bool enough = n == 3;
    while (n > 0)
        close(some[--n]);
    return enough;
}

void uvnet_init(uv_loop_t *loop)
{
    uv_replace_allocator(malloc, reallocate, calloc, free);
    int error = !has_reserve()       ? UV_ENOMEM
                : !has_descriptors() ? UV_EMFILE
                                     : uv_loop_init(loop);
    if (error != 0)
        die(error);
    close(STDIN_FILENO); /* a server reads nothing from it, and libuv needs many descriptors */
    watch(loop, &wakeup, stop_wakeup_fd(), woken); /* opens it as descriptor 0 */
    uv_check_init(loop, &after_wait);
    uv_check_start(&after_wait, end_wait);
    uv_timer_init(loop, &timer);
    uv_unref((uv_handle_t *)&after_wait); /* uv_run need not wait for these two */
    uv_unref((uv_handle_t *)&timer);
}

void uvnet_listen(uv_loop_t *loop, struct net_listener *listener,
                  void (*accept_client)(struct net_listener *listener),
                  void (*close_client)(struct uvnet_client *c))
{
    on_pending = accept_client;
    on_idle = close_client;
    watch(loop, &pending, listener->fd, listener_ready);
    pending.data = listener;
    idle_init(&clients, options->idle_timeout_ms);
    if (clients.limit_ms > 0)
        close_idle(&timer);
}

void uvnet_finish(uv_loop_t *loop)
{
    uv_close((uv_handle_t *)&after_wait, NULL);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    if (uv_loop_close(loop) != 0)
        log_die("a handle was left open");
    free(reserve);
    reserve = NULL;
}
