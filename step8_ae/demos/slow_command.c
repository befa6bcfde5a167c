/* slow_command - one command that computes for long, and the other clients.
 *
 *     slow_command [--mode block|slices|worker] [PORT]
 *
 * A client is greeted with `hello`. The line `SLOW ms` keeps the processor busy for that many
 * milliseconds and is answered with `done`. Any other line is sent back at once, if the loop
 * is free to do so. The mode says where the work is done:
 *
 *     block     in the callback. The loop stands still for all clients.
 *     slices    in pieces of a few milliseconds, from a time event. Between two pieces the loop
 *               serves the others. The work must be written so that it can stop and go on.
 *     worker    in another process, which answers on a socketpair. The loop watches that like
 *               any client. The work may be anybody's code, but its data must be sent there.
 *
 * demos/slow_client.py measures what other clients notice in each mode. A new client is
 * connected at once in all of them, because the kernel does that; only its greeting is late.
 * While a client waits for its `done` nothing is read from it. So its answers keep their order,
 * and it is not freed while its work goes on.
 */
#include "ae.h"
#include "log.h"
#include "net.h"
#include "stop.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_SIZE = 128,
    SLICE_MS = 5,
    SLOW_MAX_MS = 60000,
    SETSIZE = 1024,
    USAGE = 2, /* the exit status */
};

struct client {
    int fd;
    char in[LINE_SIZE]; /* input that is not answered yet */
    size_t used;
    bool too_long; /* the line did not fit: its rest is skipped */
    int left_ms;   /* of its work, in mode slices */
};

/* Sent to the worker process, which sends it back when the work is done. */
struct task {
    struct client *client;
    int ms;
};

enum { BLOCK, SLICES, WORKER };
static int mode = BLOCK;
static int worker = -1; /* our end of the socketpair */

static int64_t cpu_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Uses ms milliseconds of CPU time, as a computation would. On a busy machine that takes
 * longer than ms milliseconds. */
static void compute(int ms)
{
    const int64_t end = cpu_us() + (int64_t)ms * 1000;

    while (cpu_us() < end)
        ;
}

static void close_client(aeEventLoop *loop, struct client *c)
{
    aeDeleteFileEvent(loop, c->fd, AE_READABLE);
    close(c->fd);
    free(c);
}

/* Returns false if the client had to be closed, because it does not read its answers. */
static bool answer(aeEventLoop *loop, struct client *c, const char *text, size_t n)
{
    if (net_send(c->fd, text, n) == (ssize_t)n)
        return true;
    close_client(loop, c);
    return false;
}

static bool answer_text(aeEventLoop *loop, struct client *c, const char *text)
{
    return answer(loop, c, text, strlen(text));
}

/* ---- The work, done in three ways ------------------------------------------------------- */

static void read_client(aeEventLoop *loop, struct client *c);

static void end_work(aeEventLoop *loop, struct client *c)
{
    if (answer_text(loop, c, "done\n"))
        read_client(loop, c);
}

static int compute_slice(aeEventLoop *loop, long long id, void *data)
{
    struct client *c = data;
    int ms = c->left_ms < SLICE_MS ? c->left_ms : SLICE_MS;

    (void)id;
    compute(ms);
    c->left_ms -= ms;
    if (c->left_ms > 0)
        return 0; /* again in the next iteration, after the clients that are ready */
    end_work(loop, c);
    return AE_NOMORE;
}

static void worker_ready(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct task task;

    (void)data;
    (void)mask;
    if (recv(fd, &task, sizeof task, MSG_WAITALL) != (ssize_t)sizeof task)
        log_die("the worker process has ended");
    end_work(loop, task.client);
}

/* The worker process: does one task after another, until the server ends. */
static void work(int fd, pid_t server)
{
    struct task task;

    while (recv(fd, &task, sizeof task, MSG_WAITALL) == (ssize_t)sizeof task) {
        for (int left = task.ms; left > 0 && getppid() == server; left -= SLICE_MS)
            compute(left < SLICE_MS ? left : SLICE_MS);
        if (net_send(fd, &task, sizeof task) == -1)
            return;
    }
}

/* For slices and worker: begins work that ends in end_work. Returns false if too much work is
 * pending already. */
static bool start_work(aeEventLoop *loop, struct client *c, int ms)
{
    struct task task;

    if (mode == SLICES) {
        c->left_ms = ms;
        return aeCreateTimeEvent(loop, 0, compute_slice, c, NULL) != AE_ERR;
    }
    memset(&task, 0, sizeof task); /* its padding is sent, too */
    task.client = c;
    task.ms = ms;
    ssize_t sent = net_send(worker, &task, sizeof task); /* so few bytes: all or nothing */
    if (sent == -1 && !net_is_again(errno))
        log_die("the worker process has ended");
    return sent != -1;
}

/* ---- The clients ------------------------------------------------------------------------- */

/* Returns whether the next line of this client can be answered: the client is still connected
 * and has no work pending. */
static bool answer_line(aeEventLoop *loop, struct client *c, const char *line, size_t length)
{
    char *end = NULL;
    long ms = -1;

    if (c->too_long) {
        c->too_long = false;
        return answer_text(loop, c, "error: line too long\n");
    }
    if (length < 6 || memcmp(line, "SLOW ", 5) != 0)
        return answer(loop, c, line, length); /* with its \n */
    if (line[5] >= '0' && line[5] <= '9')
        ms = strtol(line + 5, &end, 10); /* stops at the \n at the latest */
    if (ms < 0 || ms > SLOW_MAX_MS || *end != '\n')
        return answer_text(loop, c, "error: SLOW takes 0 to 60000\n");
    if (mode == BLOCK) {
        compute((int)ms);
        return answer_text(loop, c, "done\n");
    }
    if (!start_work(loop, c, (int)ms))
        return answer_text(loop, c, "error: too much work is pending\n");
    aeDeleteFileEvent(loop, c->fd, AE_READABLE);
    return false;
}

/* Answers the complete lines. */
static void answer_lines(aeEventLoop *loop, struct client *c)
{
    char line[LINE_SIZE];
    const char *end;

    while ((end = memchr(c->in, '\n', c->used)) != NULL) {
        size_t length = (size_t)(end - c->in) + 1;
        memcpy(line, c->in, length);
        memmove(c->in, c->in + length, c->used - length);
        c->used -= length;
        if (!answer_line(loop, c, line, length))
            return;
    }
    if (c->used == sizeof c->in) {
        c->too_long = true;
        c->used = 0;
    }
}

static void client_ready(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct client *c = data;
    ssize_t n = net_recv(fd, c->in + c->used, sizeof c->in - c->used);

    (void)mask;
    if (n == -1 && (net_is_again(errno) || errno == EINTR))
        return;
    if (n <= 0) {
        close_client(loop, c);
        return;
    }
    c->used += (size_t)n;
    answer_lines(loop, c);
}

static void read_client(aeEventLoop *loop, struct client *c)
{
    if (aeCreateFileEvent(loop, c->fd, AE_READABLE, client_ready, c) == AE_ERR)
        close_client(loop, c);
    else
        answer_lines(loop, c); /* more lines may have come together with the last one */
}

static void accept_client(aeEventLoop *loop, int fd, void *listener, int mask)
{
    struct address peer;
    int client = net_accept(listener, &peer);

    (void)fd;
    (void)mask;
    if (client < 0)
        return;
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL || net_set_nonblocking(client) == -1) {
        close(client);
        free(c);
        return;
    }
    c->fd = client;
    if (answer_text(loop, c, "hello\n"))
        read_client(loop, c);
}

/* ---- The program ------------------------------------------------------------------------- */

static const char usage[] = "usage: slow_command [--mode block|slices|worker] [PORT]\n";

static _Noreturn void usage_error(const char *before, const char *value, const char *after)
{
    fprintf(stderr, "%s: %s'%s'%s\n%s", log_program(), before, value, after, usage);
    exit(USAGE);
}

static int parse_mode(const char *text)
{
    static const char *const names[] = {"block", "slices", "worker"};

    for (int m = BLOCK; m <= WORKER; m++)
        if (strcmp(text, names[m]) == 0)
            return m;
    usage_error("--mode: ", text, " is not block, slices or worker");
}

/* Sets mode. Returns the port. */
static const char *parse_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"mode", required_argument, NULL, 'm'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };

    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
        if (option == 'h') {
            fputs(usage, stdout);
            exit(EXIT_SUCCESS);
        }
        if (option == ':')
            usage_error("option ", argv[optind - 1], " needs a value: block, slices or worker");
        if (option != 'm')
            usage_error("unknown option ", argv[optind - 1], "");
        mode = parse_mode(optarg);
    }
    if (argc - optind > 1)
        usage_error("unexpected argument ", argv[optind + 1], ": at most one PORT is expected");
    const char *port = optind < argc ? argv[optind] : "8080";
    if (*port == '\0' || strspn(port, "0123456789") < strlen(port) ||
        strtol(port, NULL, 10) > UINT16_MAX)
        usage_error("PORT: ", port, " is not a whole number from 0 to 65535");
    return port;
}

/* Call it before the server opens descriptors that the worker would keep open. */
static void start_worker(aeEventLoop *loop)
{
    int fds[2];
    pid_t server = getpid(), child = -1;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == -1 || (child = fork()) == -1)
        log_die("cannot start the worker process: %s", strerror(errno));
    if (child == 0) {
        close(fds[0]);
        work(fds[1], server);
        _exit(EXIT_SUCCESS);
    }
    close(fds[1]);
    worker = fds[0];
    if (net_set_nonblocking(worker) == -1 ||
        aeCreateFileEvent(loop, worker, AE_READABLE, worker_ready, NULL) == AE_ERR)
        log_die("cannot watch the worker process: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    log_init(argv[0]);
    const char *why = NULL, *port = parse_options(argc, argv);
    struct net_listener listener;
    static aeEventLoop *loop; /* static: a leak sanitizer still finds it if the program dies */

    signal(SIGPIPE, SIG_IGN);
    stop_catch(SIGINT, stop_die); /* process 1 of a container has no default action */
    stop_catch(SIGTERM, stop_die);
    loop = aeCreateEventLoop(SETSIZE);
    if (loop == NULL)
        log_die("cannot make the event loop: %s", strerror(errno));
    if (mode == WORKER)
        start_worker(loop);
    if (net_listen(&listener, "127.0.0.1", port, &why) == -1)
        log_die("cannot listen on 127.0.0.1:%s: %s", port, why);
    if (net_set_nonblocking(listener.fd) == -1 ||
        aeCreateFileEvent(loop, listener.fd, AE_READABLE, accept_client, &listener) == AE_ERR)
        log_die("cannot watch the listener: %s", strerror(errno));
    log_line("Listening on 127.0.0.1:%u", (unsigned)listener.address.port);
    aeMain(loop);
    return EXIT_SUCCESS;
}
