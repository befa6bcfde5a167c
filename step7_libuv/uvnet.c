#include "uvnet.h"
#include "log.h"
#include "server.h"
#include "stats.h"
#include "stop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* libuv's table has 8 bytes for each descriptor. This is enough for 65,000 of them. */
enum { RESERVE_SIZE = 1024 * 1024 };

static void *reserve;
static uv_async_t
    wakeup; /* wakes the loop when a signal comes; uses no descriptor of its own */
static uv_poll_t pending; /* watches the listener */
static uv_check_t after_wait;
static void (*on_stop)(void);
static void (*on_pending)(struct net_listener *listener);

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

void *uvnet_accept(struct net_listener *listener, size_t size, int *fd, struct address *peer)
{
    *fd = server_accept(listener, peer);
    void *memory = *fd != -1 && has_reserve() ? calloc(1, size) : NULL;

    if (*fd != -1 && memory == NULL) {
        server_rejected(peer, strerror(ENOMEM));
        close(*fd);
    }
    return memory;
}

size_t uvnet_sendq(const uv_tcp_t *tcp)
{
    uv_os_fd_t fd;
    int kernel = uv_fileno((const uv_handle_t *)tcp, &fd) == 0 ? net_sendq(fd) : 0;

    return uv_stream_get_write_queue_size((const uv_stream_t *)tcp) + (size_t)kernel;
}

bool uvnet_readable(const uv_tcp_t *tcp)
{
    uv_os_fd_t fd;

    return uv_fileno((const uv_handle_t *)tcp, &fd) == 0 && net_readable(fd, 0);
}

/* ---- Statistics -------------------------------------------------------------------------- */

static void end_wait(uv_check_t *check)
{
    (void)check;
    server_waited(0, 0); /* the callbacks have counted the events: libuv does not tell */
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

/* uv_async_send may be called in signal handlers. */
static void wake(void)
{
    uv_async_send(&wakeup);
}

static void woken(uv_async_t *handle)
{
    (void)handle;
    stats_add(&stats.wait_events, 1);
    if (!stop_requested() || uv_is_closing((uv_handle_t *)&pending))
        return; /* SIGUSR1: end_wait writes the report. SIGALRM: the timer looks at the deadline
                 */
    uv_close((uv_handle_t *)&pending, NULL);
    net_unlisten(pending.data);
    on_stop();
}

static _Noreturn void die(int error)
{
    log_die("cannot set up libuv's loop: %s", uv_strerror(error));
}

/* libuv aborts the program when it cannot open the pipe that it wants beside its epoll. */
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

void uvnet_init(uv_loop_t *loop, void (*stop_server)(void))
{
    uv_replace_allocator(malloc, reallocate, calloc, free);
    int error = !has_reserve()       ? UV_ENOMEM
                : !has_descriptors() ? UV_EMFILE
                                     : uv_loop_init(loop);
    if (error != 0)
        die(error);
    on_stop = stop_server;
    error = uv_async_init(loop, &wakeup, woken);
    if (error != 0)
        die(error);
    stop_on_wake(wake);
    uv_check_init(loop, &after_wait);
    uv_check_start(&after_wait, end_wait);
    uv_unref((uv_handle_t *)&wakeup); /* uv_run need not wait for these two */
    uv_unref((uv_handle_t *)&after_wait);
}

void uvnet_listen(uv_loop_t *loop, struct net_listener *listener,
                  void (*accept_client)(struct net_listener *listener))
{
    int error = uv_poll_init(loop, &pending, listener->fd); /* makes it non-blocking, too */

    on_pending = accept_client;
    pending.data = listener;
    if (error == 0)
        error = uv_poll_start(&pending, UV_READABLE, listener_ready);
    if (error != 0)
        die(error);
}

void uvnet_finish(uv_loop_t *loop)
{
    stop_on_wake(NULL);
    uv_close((uv_handle_t *)&wakeup, NULL);
    uv_close((uv_handle_t *)&after_wait, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    if (uv_loop_close(loop) != 0)
        log_die("a handle was left open");
    free(reserve);
    reserve = NULL;
}
