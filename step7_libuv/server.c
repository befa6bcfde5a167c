/* Step 7 - libuv: call me with the bytes.
 *
 *     uv_run: the loop of step 6, written by others, for every operating system
 *        +--> accept_client()      somebody knocked
 *        +--> pump_client(bytes)   the bytes are here: libuv has called recv
 *        +--> owed_sent()          what a socket would not take at once has gone
 *        +--> client_closed()      now, and not before, the memory is ours again
 *
 * We no longer ask whether we may do I/O; we are told that it is done. libuv owns the sockets,
 * and memory changes hands: a struct client is libuv's from uv_tcp_init until client_closed;
 * the bytes of pump_client are ours until it returns, for the one scratch buffer is then lent
 * again; owed bytes are libuv's from uv_write until owed_sent.
 *
 *   Wait happens in   uv_run
 *   Breaks when       a callback computes for long: the loop is not ours, but it is one thread
 */
#include "cli.h"
#include "echo.h"
#include "setup.h"
#include "stats.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

enum { SCRATCH_SIZE = 64 * 1024 };

struct client {
    uv_tcp_t tcp; /* first: a pointer to it is one to the client */
    uv_write_t write;
    struct client *prev, *next; /* neighbours in the list, longest silent first */
    char *owed;                 /* what libuv still has to send; NULL most of the time */
    size_t owed_size;
    size_t untaken; /* of what it is owed, when it was last heard */
    uint64_t heard; /* when bytes last moved, in milliseconds of uv_now */
    struct echo echo;
    struct peer peer;
};

static uv_loop_t loop;
static uv_tcp_t listener;
static uv_timer_t timer; /* for --idle-timeout, then for the end */
static uv_signal_t signals[3];
static uv_check_t after_wait;
static bool report_wanted;
static bool stopping;
static uint64_t stopped;        /* when that was asked for, by uv_now */
static struct client refused;   /* to accept into when there is no memory, and close */
static bool refusing, knocking; /* it is in use; somebody waits until it is not */
static struct client clients = {.prev = &clients, .next = &clients};

/* Counts the wait; and reports if asked to, once a lap: signals may be many. */
static void end_wait(uv_check_t *handle)
{
    (void)handle;
    stats_add(&stats.wait_calls, 1);
    if (report_wanted)
        cli_report();
    report_wanted = false;
}

static void list_remove(struct client *c)
{
    c->prev->next = c->next;
    c->next->prev = c->prev;
}

static void list_append(struct client *c)
{
    c->heard = uv_now(&loop);
    c->untaken = c->owed != NULL ? setup_untaken(&c->tcp) : 0;
    c->prev = clients.prev;
    c->next = &clients;
    c->prev->next = c->next->prev = c;
}

static void accept_client(uv_stream_t *stream, int status);

static void client_closed(uv_handle_t *handle)
{
    struct client *c = (struct client *)handle;

    if (c != &refused) {
        free(c->owed);
        free(c);
        return;
    }
    refusing = false;
    if (knocking && !stopping)
        accept_client((uv_stream_t *)&listener, 0);
}

static void drop_client(struct client *c)
{
    if (uv_is_closing((uv_handle_t *)&c->tcp))
        return;
    cli_disconnected(&c->peer);
    list_remove(c);
    uv_close((uv_handle_t *)&c->tcp, client_closed);
}

static void lend_scratch(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    static char scratch[SCRATCH_SIZE]; /* one will do: it is back before it is lent again */

    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(scratch, sizeof scratch);
}

static void pump_client(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer);

static void owed_sent(uv_write_t *request, int status)
{
    struct client *c = (struct client *)request->handle;

    free(c->owed);
    c->owed = NULL;
    stats_add(&stats.bytes_out, status < 0 ? 0 : c->owed_size);
    if (status < 0 || uv_read_start(request->handle, lend_scratch, pump_client) < 0) {
        drop_client(c);
        return;
    }
    list_remove(c);
    list_append(c);
}

/* Tries at once, which nearly always does it; only what is left is kept and given to libuv.
 * Until that has gone nothing more is read. Returns 0 or an error of libuv's. */
static int send_answers(struct client *c, char *bytes, size_t n)
{
    uv_stream_t *stream = (uv_stream_t *)&c->tcp;
    uv_buf_t rest = uv_buf_init(bytes, (unsigned)n);
    int sent = n > 0 ? uv_try_write(stream, &rest, 1) : 0;

    stats_add(&stats.send_calls, n > 0);
    if (sent < 0 && sent != UV_EAGAIN)
        return sent;
    if (sent == UV_EAGAIN)
        sent = 0;
    stats_add(&stats.bytes_out, (uint64_t)sent);
    if ((size_t)sent == n)
        return 0;
    stats_add(&stats.send_short, 1);
    rest.len = c->owed_size = n - (size_t)sent;
    rest.base = c->owed = setup_malloc(rest.len);
    if (c->owed == NULL)
        return UV_ENOMEM;
    memcpy(c->owed, bytes + sent, rest.len);
    uv_read_stop(stream);
    int error = uv_write(&c->write, stream, &rest, 1, owed_sent);
    c->untaken = setup_untaken(&c->tcp);
    return error;
}

static void pump_client(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct client *c = (struct client *)stream;

    stats_add(&stats.wait_events, 1);
    stats_add(&stats.recv_calls, 1);
    if (n == 0) { /* libuv's way to say EAGAIN */
        stats_add(&stats.recv_again, 1);
        return;
    }
    if (n < 0) { /* UV_EOF or an error; nothing is owed, or we would not be reading */
        drop_client(c);
        return;
    }
    stats_add(&stats.bytes_in, (uint64_t)n);
    list_remove(c);
    list_append(c);
    size_t answers = echo_feed(&c->echo, (unsigned char *)buffer->base, (size_t)n);
    if (send_answers(c, buffer->base, answers) < 0)
        drop_client(c);
}

/* Why a client that has been accepted cannot stay, or NULL. */
static const char *why_refused(const struct client *c)
{
    struct rlimit limit;
    uv_os_fd_t fd;

    if (cli_full())
        return "--max-clients reached";
    if (c == &refused || !setup_has_memory())
        return strerror(ENOMEM);
    /* The lowest free descriptor is taken first, so the highest tells that there is no other.
     * It stays free to refuse with (libuv would show newcomers out without a word to us),
     * unless there is nobody else to serve. */
    if (clients.next != &clients && uv_fileno((const uv_handle_t *)&c->tcp, &fd) == 0 &&
        getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd + 1 >= limit.rlim_cur)
        return strerror(EMFILE);
    return NULL;
}

static void accept_client(uv_stream_t *stream, int status)
{
    struct client *c = status < 0 ? NULL : setup_malloc(sizeof *c);
    struct sockaddr_storage address = {0};
    int size = sizeof address;
    char greeting[] = ECHO_GREETING;

    if (status < 0) { /* (not for want of descriptors: libuv shows those out itself) */
        setup_rest(&listener, accept_client);
        return;
    }
    knocking = c == NULL && refusing;
    if (knocking)
        return; /* until this one is accepted libuv takes no other */
    if (c == NULL) {
        refusing = true;
        c = &refused;
    }
    c->owed = NULL;
    stats_add(&stats.wait_events, 1);
    stats_add(&stats.accept_calls, 1);
    uv_tcp_init(&loop, &c->tcp);
    int error = uv_accept(stream, (uv_stream_t *)&c->tcp);
    bool gone = uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&address, &size) < 0;
    peer_from_sockaddr(&c->peer, (struct sockaddr *)&address);
    const char *why = error < 0 ? strerror(-error) : gone ? NULL : why_refused(c);
    if (why != NULL)
        cli_refused(&c->peer, why);
    if (why != NULL || gone) {
        uv_close((uv_handle_t *)&c->tcp, client_closed);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    echo_init(&c->echo);
    list_append(c);
    cli_connected(&c->peer);
    error = send_answers(c, greeting, 1);
    if (error == 0 && c->owed == NULL)
        error = uv_read_start((uv_stream_t *)&c->tcp, lend_scratch, pump_client);
    if (error < 0)
        drop_client(c);
}

/* The list is in the order of silence, so the first client is the only one to ask. Who takes
 * what it is owed is not silent, though it may be too little for libuv to send more; nor is
 * who has spoken while we could not run: libuv looks at its timers first. */
static void drop_silent(uv_timer_t *handle)
{
    const uint64_t limit = (uint64_t)cli.idle_timeout_ms, now = uv_now(&loop);
    struct client *c;

    while ((c = clients.next) != &clients && c->heard + limit <= now) {
        if (c->owed ? setup_untaken(&c->tcp) >= c->untaken : !setup_readable(&c->tcp)) {
            drop_client(c);
        } else {
            list_remove(c);
            list_append(c);
        }
    }
    uint64_t due = clients.next != &clients ? clients.next->heard + limit - now : limit;
    uv_timer_start(handle, drop_silent, due, 0);
}

/* Stopping: drops who is owed nothing and says nothing, and everybody when the time is up. */
static void drop_finished(uv_timer_t *handle)
{
    const uint64_t now = uv_now(&loop);
    sigset_t held;

    for (struct client *next, *c = clients.next; c != &clients; c = next) {
        next = c->next;
        if (now - stopped >= CLI_GRACE_MS ||
            (c->owed == NULL && c->heard + CLI_QUIET_MS <= now && !setup_readable(&c->tcp)))
            drop_client(c);
    }
    if (clients.next != &clients)
        return;
    sigemptyset(&held); /* without a handle they would kill us before the last report */
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGUSR1);
    sigprocmask(SIG_BLOCK, &held, NULL);
    uv_close((uv_handle_t *)handle, NULL);
    uv_close((uv_handle_t *)&after_wait, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        uv_close((uv_handle_t *)&signals[i], NULL);
}

static void take_signal(uv_signal_t *handle, int number)
{
    (void)handle;
    if (number == SIGUSR1) {
        report_wanted = true;
    } else if (!stopping) {
        stopping = true;
        stopped = uv_now(&loop);
        setup_unlisten(&listener);
        uv_signal_stop(&signals[0]); /* a second SIGINT kills at once */
        uv_timer_start(&timer, drop_finished, clients.next != &clients ? CLI_QUIET_MS : 0,
                       CLI_QUIET_MS);
    }
}

static void run_server(const struct peer *address)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGUSR1};

    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        uv_signal_init(&loop, &signals[i]);
        uv_signal_start(&signals[i], take_signal, numbers[i]);
    }
    uv_timer_init(&loop, &timer);
    uv_check_init(&loop, &after_wait);
    uv_check_start(&after_wait, end_wait);
    if (cli.idle_timeout_ms > 0)
        drop_silent(&timer);
    cli_listening(address);
    uv_run(&loop, UV_RUN_DEFAULT);
}

int main(int argc, char **argv)
{
    struct peer address;

    cli_start(argc, argv, NULL);
    setup_listener(&loop, &listener, accept_client, &address);
    run_server(&address);
    setup_close(&loop);
    return cli_finish();
}
