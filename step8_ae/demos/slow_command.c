/* slow_command - one command that computes, and everybody else.
 *
 *     slow_command [--mode block|slices|worker] [PORT]
 *
 * A client is greeted with `hello`. The line `SLOW ms` keeps the processor busy for so many
 * milliseconds and is answered `done`; any other line comes back at once. Or so it should:
 *
 *     block     in the callback: the loop stands still, for all
 *     slices    a few milliseconds of it at a time, from a time event: between two slices the
 *               loop serves the others. The work must be cut up, and takes a little longer.
 *     worker    another process does it, and answers on a socketpair the loop watches like any
 *               client. The work may be anybody's code; its data must be sent there and back.
 *
 * Watch demos/slow_client.py measure a bystander in all three. A newcomer is connected at once
 * in each of them, for that the kernel does, and the backlog keeps him; only the greeting is
 * late. While a client waits for its `done` nothing is read from it, so its answers keep their
 * order, and nobody frees it while its work goes on.
 */
#include "ae.h"
#include "net.h"

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
    LONGEST_MS = 60000,
    MOST_DESCRIPTORS = 1024,
    USAGE = 2,
};

struct client {
    int fd;
    char in[LINE_SIZE]; /* what came and is not yet answered */
    size_t used;
    bool too_long; /* the rest of a line that did not fit is skipped */
    int left_ms;   /* of its work: of interest to slices */
};

/* What goes to the worker; the client comes back when it is done. */
struct task {
    struct client *client;
    int ms;
};

enum { BLOCK, SLICES, WORKER };
static int mode = BLOCK;
static int worker = -1; /* our end of the socketpair */

static _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "slow_command: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

/* Uses so much CPU time, as a computation would: on a busy machine it takes longer. */
static void compute(int ms)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    long long end = now.tv_sec * 1000000000LL + now.tv_nsec + ms * 1000000LL;
    do
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    while (now.tv_sec * 1000000000LL + now.tv_nsec < end);
}

static void drop_client(aeEventLoop *loop, struct client *c)
{
    aeDeleteFileEvent(loop, c->fd, AE_READABLE);
    close(c->fd);
    free(c);
}

/* Returns false if the client had to be dropped: it does not read what it asked for. */
static bool answer(aeEventLoop *loop, struct client *c, const char *text, size_t n)
{
    if (net_send(c->fd, text, n) == (ssize_t)n)
        return true;
    drop_client(loop, c);
    return false;
}

static bool say(aeEventLoop *loop, struct client *c, const char *text)
{
    return answer(loop, c, text, strlen(text));
}

/* ------------------------------------------------------------------ the work, three ways */

static void listen_to(aeEventLoop *loop, struct client *c);

static void work_done(aeEventLoop *loop, struct client *c)
{
    if (say(loop, c, "done\n"))
        listen_to(loop, c);
}

static int compute_slice(aeEventLoop *loop, long long id, void *data)
{
    struct client *c = data;
    int ms = c->left_ms < SLICE_MS ? c->left_ms : SLICE_MS;

    (void)id;
    compute(ms);
    c->left_ms -= ms;
    if (c->left_ms > 0)
        return 0; /* again in the next lap, after whoever is ready */
    work_done(loop, c);
    return AE_NOMORE;
}

static void worker_answered(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct task task;

    (void)data;
    (void)mask;
    if (recv(fd, &task, sizeof task, MSG_WAITALL) != (ssize_t)sizeof task)
        fail("the worker", "is gone");
    work_done(loop, task.client);
}

/* The worker process: one task after another, until the server is gone. */
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

/* For slices and worker: begins what work_done will end, unless there is too much already. */
static bool start_work(aeEventLoop *loop, struct client *c, int ms)
{
    struct task task;

    if (mode == SLICES) {
        c->left_ms = ms;
        return aeCreateTimeEvent(loop, 0, compute_slice, c, NULL) != AE_ERR;
    }
    memset(&task, 0, sizeof task); /* the padding too */
    task.client = c;
    task.ms = ms;
    ssize_t sent = net_send(worker, &task, sizeof task); /* all of so little, or nothing */
    if (sent == -1 && !net_is_again(errno))
        fail("the worker", "is gone");
    return sent != -1;
}

/* ------------------------------------------------------------------ the clients */

/* Returns whether the client is still there and may be asked for its next line. */
static bool answer_line(aeEventLoop *loop, struct client *c, const char *line, size_t length)
{
    char *end = NULL;
    long ms = -1;

    if (c->too_long) {
        c->too_long = false;
        return say(loop, c, "error: line too long\n");
    }
    if (length < 6 || memcmp(line, "SLOW ", 5) != 0)
        return answer(loop, c, line, length); /* with its \n */
    if (line[5] >= '0' && line[5] <= '9')
        ms = strtol(line + 5, &end, 10); /* the \n ends it at the latest */
    if (ms < 0 || ms > LONGEST_MS || *end != '\n')
        return say(loop, c, "error: SLOW takes 0 to 60000\n");
    if (mode == BLOCK) {
        compute((int)ms);
        return say(loop, c, "done\n");
    }
    if (!start_work(loop, c, (int)ms))
        return say(loop, c, "error: too much work waits already\n");
    aeDeleteFileEvent(loop, c->fd, AE_READABLE);
    return false;
}

/* Answers what complete lines there are. */
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

static void bytes_came(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct client *c = data;
    ssize_t n = net_recv(fd, c->in + c->used, sizeof c->in - c->used);

    (void)mask;
    if (n == -1 && net_is_again(errno))
        return;
    if (n <= 0) {
        drop_client(loop, c);
        return;
    }
    c->used += (size_t)n;
    answer_lines(loop, c);
}

static void listen_to(aeEventLoop *loop, struct client *c)
{
    if (aeCreateFileEvent(loop, c->fd, AE_READABLE, bytes_came, c) == AE_ERR)
        drop_client(loop, c);
    else
        answer_lines(loop, c); /* some may have come together with the last */
}

static void accept_client(aeEventLoop *loop, int fd, void *listener, int mask)
{
    struct peer peer;
    int client = net_accept(listener, &peer);

    (void)fd;
    (void)mask;
    if (client == -1)
        return;
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL || net_set_nonblocking(client) == -1) {
        close(client);
        free(c);
        return;
    }
    c->fd = client;
    if (say(loop, c, "hello\n"))
        listen_to(loop, c);
}

/* ------------------------------------------------------------------ the program */

static const char usage_line[] = "usage: slow_command [--mode block|slices|worker] [PORT]\n";

static _Noreturn void usage(const char *what, const char *value)
{
    fprintf(stderr, "slow_command: %s%s\n%s", what, value, usage_line);
    exit(USAGE);
}

/* Sets mode, and returns the port. */
static const char *parse_options(int argc, char **argv)
{
    static const char *const modes[] = {"block", "slices", "worker"};
    static const struct option options[] = {
        {"mode", required_argument, NULL, 'm'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };

    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h') {
            fputs(usage_line, stdout);
            exit(EXIT_SUCCESS);
        }
        if (option != 'm')
            usage("bad option: ", argv[optind - 1]);
        for (mode = BLOCK; mode <= WORKER && strcmp(optarg, modes[mode]) != 0; mode++)
            ;
        if (mode > WORKER)
            usage("no such mode: ", optarg);
    }
    if (argc - optind > 1)
        usage("one port only, not also ", argv[optind + 1]);
    const char *port = optind < argc ? argv[optind] : "8080";
    if (*port == '\0' || strspn(port, "0123456789") < strlen(port) ||
        strtol(port, NULL, 10) > UINT16_MAX)
        usage("bad port: ", port);
    return port;
}

/* Before the server has any descriptor that the worker would keep open. */
static void start_worker(aeEventLoop *loop)
{
    int fds[2];
    pid_t server = getpid(), child = -1;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == -1 || (child = fork()) == -1)
        fail("the worker", strerror(errno));
    if (child == 0) {
        close(fds[0]);
        work(fds[1], server);
        _exit(EXIT_SUCCESS);
    }
    close(fds[1]);
    worker = fds[0];
    if (net_set_nonblocking(worker) == -1 ||
        aeCreateFileEvent(loop, worker, AE_READABLE, worker_answered, NULL) == AE_ERR)
        fail("the worker", strerror(errno));
}

int main(int argc, char **argv)
{
    const char *why = NULL, *port = parse_options(argc, argv);
    struct net_listener listener;

    signal(SIGPIPE, SIG_IGN);
    aeEventLoop *loop = aeCreateEventLoop(MOST_DESCRIPTORS);
    if (loop == NULL)
        fail("the loop", strerror(errno));
    if (mode == WORKER)
        start_worker(loop);
    if (net_listen(&listener, "127.0.0.1", port, &why) == -1)
        fail("cannot listen", why);
    if (net_set_nonblocking(listener.fd) == -1 ||
        aeCreateFileEvent(loop, listener.fd, AE_READABLE, accept_client, &listener) == AE_ERR)
        fail("cannot listen", strerror(errno));
    printf("Listening on 127.0.0.1:%d\n", listener.address.port);
    fflush(stdout);
    aeMain(loop);
    return EXIT_SUCCESS;
}
