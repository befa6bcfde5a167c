#include "setup.h"
#include "cli.h"
#include "net.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RESERVE_SIZE = 64 * 1024, REST_MS = 10 };

static void *reserve;

/* The rest of a listener that sees only errors: until when, and what it listened on. */
static struct {
    uv_timer_t timer;
    uv_tcp_t *listener;
    uv_connection_cb knock;
    int fd; /* -1 while it does not rest */
} rest = {.fd = -1};

static void *reallocate(void *memory, size_t size)
{
    void *more = realloc(memory, size > 0 ? size : 1);

    if (more == NULL) {
        free(reserve);
        reserve = NULL;
        more = realloc(memory, size > 0 ? size : 1);
    }
    return more;
}

static void *allocate_zeroed(size_t count, size_t size)
{
    void *memory = count > 0 && size > SIZE_MAX / count ? NULL : setup_malloc(count * size);

    if (memory != NULL)
        memset(memory, 0, count * size);
    return memory;
}

void *setup_malloc(size_t size)
{
    return reallocate(NULL, size);
}

bool setup_has_memory(void)
{
    if (reserve == NULL)
        reserve = malloc(RESERVE_SIZE);
    return reserve != NULL;
}

/* libuv ends the program when it cannot have the pipe it wants beside its epoll. */
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

/* Returns 0 or an error of libuv's. */
static int listen_on(uv_loop_t *loop, uv_tcp_t *listener, const struct addrinfo *address,
                     uv_connection_cb knock)
{
    int error = uv_tcp_init(loop, listener);

    if (error == 0)
        error = uv_tcp_bind(listener, address->ai_addr, 0);
    if (error == 0)
        error = uv_listen((uv_stream_t *)listener, SOMAXCONN, knock);
    if (error != 0) {
        uv_close((uv_handle_t *)listener, NULL);
        uv_run(loop, UV_RUN_NOWAIT); /* until the handle is ours again, for the next address */
    }
    return error;
}

void setup_listener(uv_loop_t *loop, uv_tcp_t *listener, uv_connection_cb knock,
                    struct peer *address)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct sockaddr_storage bound = {0};
    int size = sizeof bound;
    uv_getaddrinfo_t request;

    uv_replace_allocator(setup_malloc, reallocate, allocate_zeroed, free);
    int error = has_descriptors() ? uv_loop_init(loop) : UV_EMFILE;
    if (error != 0)
        cli_die("cannot set up libuv's loop: %s", uv_strerror(error));
    error = uv_getaddrinfo(loop, &request, NULL, cli.bind, cli.port, &hints);
    if (error != 0)
        cli_cannot_listen(uv_strerror(error));
    for (const struct addrinfo *a = request.addrinfo; a != NULL; a = a->ai_next)
        if ((error = listen_on(loop, listener, a, knock)) == 0)
            break;
    uv_freeaddrinfo(request.addrinfo);
    if (error != 0)
        cli_cannot_listen(strerror(-error)); /* libuv's codes are negated errno values */
    uv_timer_init(loop, &rest.timer);
    uv_tcp_getsockname(listener, (struct sockaddr *)&bound, &size);
    peer_from_sockaddr(address, (struct sockaddr *)&bound);
}

static void await_time(uv_handle_t *listener);

static void open_again(uv_timer_t *timer)
{
    uv_tcp_init(timer->loop, rest.listener);
    if (uv_tcp_open(rest.listener, rest.fd) != 0) {
        uv_close((uv_handle_t *)rest.listener, await_time); /* once more */
        return;
    }
    rest.fd = -1;
    uv_listen((uv_stream_t *)rest.listener, SOMAXCONN, rest.knock);
}

static void await_time(uv_handle_t *listener)
{
    (void)listener;
    if (rest.fd != -1) /* or it was closed for good meanwhile */
        uv_timer_start(&rest.timer, open_again, REST_MS, 0);
}

void setup_rest(uv_tcp_t *listener, uv_connection_cb knock)
{
    uv_os_fd_t fd;

    uv_fileno((uv_handle_t *)listener, &fd);
    rest.listener = listener;
    rest.knock = knock;
    rest.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (rest.fd != -1)
        uv_close((uv_handle_t *)listener, await_time);
}

void setup_unlisten(uv_tcp_t *listener)
{
    if (!uv_is_closing((uv_handle_t *)listener))
        uv_close((uv_handle_t *)listener, NULL);
    if (rest.fd != -1)
        close(rest.fd);
    rest.fd = -1;
    uv_close((uv_handle_t *)&rest.timer, NULL);
}

size_t setup_untaken(const uv_tcp_t *tcp)
{
    uv_os_fd_t fd;
    int sent = uv_fileno((const uv_handle_t *)tcp, &fd) == 0 ? net_untaken(fd) : 0;

    return uv_stream_get_write_queue_size((const uv_stream_t *)tcp) + (size_t)sent;
}

bool setup_readable(const uv_tcp_t *tcp)
{
    uv_os_fd_t fd;

    return uv_fileno((const uv_handle_t *)tcp, &fd) == 0 && net_readable(fd, 0);
}

void setup_close(uv_loop_t *loop)
{
    if (uv_loop_close(loop) != 0)
        cli_die("a handle was left open");
    free(reserve);
    reserve = NULL;
}
