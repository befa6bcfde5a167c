/* What if the kernel says no? Each system call and allocation that common/ makes fails in turn:
 * the first call, the second, ... until a whole run gets by without reaching the fault. Nobody
 * crashes, nothing leaks, no client gets a wrong byte, and no more clients are lost than the
 * fault explains. The linker puts us between common/ and the C library (--wrap). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#ifdef __APPLE__
int main(void)
{
    puts("1..1\nok 1 - faults # SKIP this linker has no --wrap");
    return 0;
}
#else

#include "cli.h"
#include "conn.h"
#include "echo.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CALLS(X)   \
    X(accept)      \
    X(bind)        \
    X(calloc)      \
    X(fcntl)       \
    X(getsockname) \
    X(listen) X(malloc) X(open) X(pipe) X(poll) X(recv) X(send) X(setsockopt) X(socket) X(write)
#define NUMBER(name) CALL_##name,
enum call { CALLS(NUMBER) };

enum { CUT_SHORT = -1 }; /* in place of an errno: succeed, but move only one byte */

/* ---- The fault, and the calls it may strike -------------------------------------------------
 */

struct fault {
    enum call call;
    int error;      /* errno, or CUT_SHORT */
    int times;      /* how many calls in a row */
    int open_fails; /* how many open calls in a row fail after it: a house that is full */
    int may_lose;   /* clients, per call that failed */
    enum { NEVER, SOMETIMES, ALWAYS } nap; /* nothing can be done about it but wait */
};

static const struct fault *fault;
static bool armed;           /* only while common/ runs */
static int nth, calls, hits; /* strike from the nth call on; how many there were, and hits */
static int opens_to_fail;
static int blocks; /* of the heap, in use by common/ */
static int naps;   /* taken by net_accept so as not to spin */

static bool strikes(enum call call)
{
    if (!armed)
        return false;
    if (call == CALL_open && opens_to_fail > 0) {
        opens_to_fail--;
        errno = EMFILE;
        return true;
    }
    if (call != fault->call)
        return false;
    calls++;
    if (calls < nth || calls >= nth + fault->times)
        return false;
    hits++;
    opens_to_fail = fault->open_fails;
    errno = fault->error;
    return true;
}

/* NOLINTBEGIN(bugprone-reserved-identifier,bugprone-macro-parentheses): the linker wants
 * these names, and the macro's arguments are types and lists */
#define WRAP(type, name, parameters, arguments, failed)                 \
    type __real_##name parameters;                                      \
    type __wrap_##name parameters;                                      \
    type __wrap_##name parameters                                       \
    {                                                                   \
        return strikes(CALL_##name) ? failed : __real_##name arguments; \
    }

WRAP(int, accept, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)
WRAP(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)
WRAP(int, getsockname, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)
WRAP(int, listen, (int fd, int backlog), (fd, backlog), -1)
WRAP(int, pipe, (int fds[2]), (fds), -1)
WRAP(int, setsockopt, (int fd, int level, int name, const void *v, socklen_t n),
     (fd, level, name, v, n), -1)
WRAP(int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1)
WRAP(ssize_t, write, (int fd, const void *bytes, size_t n), (fd, bytes, n), -1)

int __real_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
    naps += armed && n == 0;
    return strikes(CALL_poll) ? -1 : __real_poll(fds, n, ms);
}

ssize_t __real_recv(int fd, void *bytes, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t n, int flags)
{
    if (!strikes(CALL_recv))
        return __real_recv(fd, bytes, n, flags);
    return fault->error == CUT_SHORT ? __real_recv(fd, bytes, 1, flags) : -1;
}

ssize_t __real_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags)
{
    if (!strikes(CALL_send))
        return __real_send(fd, bytes, n, flags);
    return fault->error == CUT_SHORT ? __real_send(fd, bytes, 1, flags) : -1;
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list more;

    va_start(more, command);
    int argument = va_arg(more, int);
    va_end(more);
    return strikes(CALL_fcntl) ? -1 : __real_fcntl(fd, command, argument);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list more;

    va_start(more, flags);
    unsigned mode = flags & O_CREAT ? va_arg(more, unsigned) : 0;
    va_end(more);
    return strikes(CALL_open) ? -1 : __real_open(path, flags, mode);
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
    void *block = strikes(CALL_malloc) ? NULL : __real_malloc(n);

    blocks += armed && block != NULL;
    return block;
}

void *__real_calloc(size_t count, size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__wrap_calloc(size_t count, size_t n)
{
    void *block = strikes(CALL_calloc) ? NULL : __real_calloc(count, n);

    blocks += armed && block != NULL;
    return block;
}

void __real_free(void *block);
void __wrap_free(void *block);
void __wrap_free(void *block)
{
    blocks -= armed && block != NULL;
    __real_free(block);
}
/* NOLINTEND(bugprone-reserved-identifier,bugprone-macro-parentheses) */

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += __real_fcntl(fd, F_GETFD, 0) != -1;
    return count;
}

/* ---- The clients ----------------------------------------------------------------------------
 */

enum {
    CLIENTS = 3,
    ACCEPTS = 16,
    SMALL = 32 * 1024,  /* what a server's socket takes at once, so that sends come up short */
    LARGE = 256 * 1024, /* a message */
    PATIENCE_MS = 5000,
};

struct client {
    int fd;
    unsigned char *message, *answers;
    size_t size, said, heard;
    bool gone; /* it has heard the end, or an error */
};

static struct client clients[CLIENTS];

/* What client i says at a place: elsewhere, and elsewhere in its message, something else. */
static unsigned char letter(int i, size_t at)
{
    return (unsigned char)('A' + (at + 7 * (size_t)i) % 23);
}

static void connect_clients(const struct net_listener *listener, bool large)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(listener->address.port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };

    for (int i = 0; i < CLIENTS; i++) {
        struct client *c = &clients[i];
        *c = (struct client){.size = large && i == 0 ? LARGE : 8};
        c->message = malloc(c->size);
        c->answers = malloc(c->size);
        assert_non_null(c->message);
        assert_non_null(c->answers);
        c->message[0] = '^';
        for (size_t at = 1; at < c->size; at++)
            c->message[at] = letter(i, at);
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_return_code(connect(c->fd, (struct sockaddr *)&address, sizeof address), errno);
        net_set_nonblocking(c->fd);
    }
}

/* Says what it can; if there is nothing more to say, or no room for it, hears what there is.
 * Every byte it hears must be the right one. */
static void talk(struct client *c, int i)
{
    ssize_t n = 0;

    while (c->said < c->size && n != -1) {
        n = send(c->fd, c->message + c->said, c->size - c->said, MSG_NOSIGNAL);
        if (n > 0 && (c->said += (size_t)n) == c->size)
            shutdown(c->fd, SHUT_WR);
    }
    while (!c->gone && (n = recv(c->fd, c->answers, c->size, 0)) > 0)
        for (ssize_t at = 0; at < n; at++, c->heard++)
            assert_int_equal(c->answers[at], c->heard == 0 ? '*' : letter(i, c->heard) + 1);
    if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        c->gone = true;
    assert_in_range(c->heard, 0, c->size);
}

static bool all_gone(void)
{
    bool gone = true;

    for (int i = 0; i < CLIENTS; i++)
        gone = gone && clients[i].gone;
    return gone;
}

/* Returns how many did not get everything, and clears up. */
static int count_lost(void)
{
    int lost = 0;

    for (int i = 0; i < CLIENTS; i++) {
        lost += clients[i].heard < clients[i].size;
        close(clients[i].fd);
        free(clients[i].message);
        free(clients[i].answers);
    }
    return lost;
}

/* ---- Three small servers --------------------------------------------------------------------
 */

static void give_up_after(const struct timespec *start)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    assert_true((now.tv_sec - start->tv_sec) * 1000 < PATIENCE_MS);
}

static void accept_client(struct net_listener *listener, struct conn_list *list)
{
    struct peer peer;
    int fd = net_accept(listener, &peer);
    struct conn *c;

    if (fd == -1)
        return;
    assert_int_equal(peer.address[15], 1); /* of 127.0.0.1 */
    list->idle_limit = 0; /* the socket is to keep its small buffer */
    if (net_set_nonblocking(fd) == -1 || (c = conn_open(list, fd, &peer)) == NULL)
        close(fd);
    else
        conn_greet(c);
    list->idle_limit = 1000 * 1000;
}

static void nobody(const struct peer *peer)
{
    (void)peer;
}

/* As steps 4 to 8 do it. */
static void serve_at_once(struct net_listener *listener)
{
    struct conn_list list = {.idle_limit = 1000 * 1000};
    struct timespec start;

    clock_gettime(CLOCK_MONOTONIC, &start);
    while (!all_gone()) {
        struct conn *next;
        armed = true;
        for (struct conn *c = list.first; c != NULL; c = next) {
            next = c->next;
            if (conn_pump(&list, c) == 0)
                conn_close(&list, c);
        }
        accept_client(listener, &list);
        armed = false;
        for (int i = 0; i < CLIENTS; i++)
            talk(&clients[i], i);
        give_up_after(&start);
    }
    assert_int_equal(list.count, 0);
}

/* The same, but told to stop as soon as everybody is in. */
static void serve_while_stopping(struct net_listener *listener)
{
    struct conn_list list = {0};
    struct timespec start;

    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < CLIENTS; i++)
        talk(&clients[i], i);
    armed = true;
    for (int laps = 0; laps < ACCEPTS; laps++)
        accept_client(listener, &list);
    conn_drain(&list, 50, 1000, nobody);
    armed = false;
    assert_int_equal(list.count, 0);
    while (!all_gone()) {
        for (int i = 0; i < CLIENTS; i++)
            talk(&clients[i], i);
        give_up_after(&start);
    }
}

static void serve_client(int fd)
{
    static atomic_bool never;
    unsigned char bytes[64];
    struct echo echo;
    ssize_t n;

    echo_init(&echo);
    if (net_send_all(fd, ECHO_GREETING, 1, &never) == -1)
        return;
    while ((n = net_recv(fd, bytes, sizeof bytes)) != 0) {
        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1 ||
            net_send_all(fd, bytes, echo_feed(&echo, bytes, (size_t)n), &never) == -1)
            return;
    }
}

/* As steps 1 to 3 do it. */
static void serve_in_turn(struct net_listener *listener)
{
    struct timespec start;
    struct peer peer;

    clock_gettime(CLOCK_MONOTONIC, &start);
    while (!all_gone()) {
        for (int i = 0; i < CLIENTS; i++)
            talk(&clients[i], i);
        armed = true;
        int fd = net_accept(listener, &peer);
        if (fd != -1) {
            net_set_timeout(fd, 1000);
            serve_client(fd);
            close(fd);
        }
        armed = false;
        for (int i = 0; i < CLIENTS; i++)
            talk(&clients[i], i);
        give_up_after(&start);
    }
}

static const struct scenario {
    const char *name;
    void (*serve)(struct net_listener *listener);
    bool large; /* is the first client's message? */
} scenarios[] = {
    {"served at once", serve_at_once, true},
    {"served while stopping", serve_while_stopping, false},
    {"served in turn", serve_in_turn, false},
};

/* ---- Each fault in each scenario
 * -------------------------------------------------------------- */

static const struct fault faults[] = {
    /* Not now, or not all at once: nobody is lost. */
    {CALL_recv, EINTR, .times = 1},
    {CALL_recv, CUT_SHORT, .times = 1000},
    {CALL_send, EINTR, .times = 3},
    {CALL_send, CUT_SHORT, .times = 3},
    {CALL_accept, EAGAIN, .times = 3},
    {CALL_accept, EINTR, .times = 1},
    {CALL_poll, EINTR, .times = 1},
    /* accept(2): pending errors of a connection that died while it waited. */
    {CALL_accept, ECONNABORTED, .times = 1},
    {CALL_accept, EPROTO, .times = 1},
    {CALL_accept, EPERM, .times = 1},
    {CALL_accept, ENETDOWN, .times = 1},
    {CALL_accept, EHOSTUNREACH, .times = 1},
    {CALL_accept, ENOBUFS, .times = 1, .nap = ALWAYS},
    {CALL_accept, ENOMEM, .times = 1, .nap = ALWAYS},
    /* A full house: with the spare descriptor back in no time, for a while, for long. */
    {CALL_accept, EMFILE, .times = 1},
    {CALL_accept, EMFILE, .times = 2},
    {CALL_accept, ENFILE, .times = 1, .open_fails = 1, .may_lose = 1, .nap = SOMETIMES},
    {CALL_accept, EMFILE, .times = 1, .open_fails = 2, .may_lose = 1, .nap = ALWAYS},
    {CALL_accept, EMFILE, .times = 5, .open_fails = 7, .may_lose = 1, .nap = ALWAYS},
    /* One client's trouble. */
    {CALL_recv, ECONNRESET, .times = 1, .may_lose = 1},
    {CALL_recv, ETIMEDOUT, .times = 1, .may_lose = 1},
    {CALL_send, EPIPE, .times = 1, .may_lose = 1},
    {CALL_send, ECONNRESET, .times = 1, .may_lose = 1},
    {CALL_fcntl, EBADF, .times = 1, .may_lose = 1},
    {CALL_setsockopt, ENOPROTOOPT, .times = 1},
    {CALL_malloc, ENOMEM, .times = 1, .may_lose = 1},
    {CALL_calloc, ENOMEM, .times = 1,
     .may_lose = CLIENTS}, /* conn_drain's: it waits for none */
    /* No start. */
    {CALL_socket, EAFNOSUPPORT, .times = 1},
    {CALL_socket, EMFILE, .times = 1},
    {CALL_bind, EADDRINUSE, .times = 1},
    {CALL_listen, EADDRINUSE, .times = 1},
    {CALL_getsockname, ENOBUFS, .times = 1},
    {CALL_open, EMFILE, .times = 1},
};

/* One run with the fault at the nth call. Returns whether it was reached. */
static bool run(const struct scenario *scenario)
{
    int descriptors = open_descriptors(), lost = 0;
    struct net_listener listener;
    const char *why = NULL;

    calls = hits = blocks = naps = opens_to_fail = 0;
    armed = true;
    int started = net_listen(&listener, "127.0.0.1", "0", &why);
    armed = false;
    assert_int_equal(started, hits > 0 ? -1 : 0);
    if (started == 0) {
        assert_return_code(net_set_nonblocking(listener.fd), errno);
        setsockopt(listener.fd, SOL_SOCKET, SO_SNDBUF, &(int){SMALL}, sizeof(int));
        connect_clients(&listener, scenario->large);
        scenario->serve(&listener);
        lost = count_lost();
        net_unlisten(&listener);
    } else {
        assert_non_null(why);
    }
    assert_int_equal(blocks, 0);
    assert_int_equal(open_descriptors(), descriptors);
    assert_in_range(lost, 0, hits * fault->may_lose);
    if (fault->nap != SOMETIMES)
        assert_int_equal(naps > 0, fault->nap == ALWAYS && hits > 0);
    return hits > 0;
}

enum { NTH_LIMIT = 50 }; /* a busy loop may make any number of calls */

static void test_serving(void **state)
{
    bool reached = false;

    fault = *state;
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
        for (nth = 1; nth <= NTH_LIMIT && run(&scenarios[i]); nth++)
            reached = true;
    assert_true(reached);
}

/* ---- A server's start and end: it either works, or says why not in one line
 * ------------------- */

static const struct fault start_faults[] = {
    {CALL_bind, EACCES, .times = 1},         {CALL_fcntl, EBADF, .times = 1},
    {CALL_getsockname, ENOBUFS, .times = 1}, {CALL_listen, EADDRINUSE, .times = 1},
    {CALL_open, EMFILE, .times = 1},         {CALL_pipe, EMFILE, .times = 1},
    {CALL_poll, EINTR, .times = 1},          {CALL_setsockopt, ENOMEM, .times = 1},
    {CALL_socket, ENFILE, .times = 1},       {CALL_write, ENOSPC, .times = 1},
};

static int result_pipe[2];

static void tell_hits(void)
{
    armed = false;
    ssize_t n = write(result_pipe[1], &hits, sizeof hits);
    (void)n; /* then the parent misses it */
}

static void start_and_end(int out, int err)
{
    char *arguments[] = {"dir/server", "--port=0", "--stats=/dev/null", NULL};
    struct net_listener listener;

    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    atexit(tell_hits);
    armed = true;
    cli_start(3, arguments, NULL);
    cli_listen(&listener);
    int wakeup = cli_wakeup_fd();
    armed = false;
    if (fcntl(wakeup, F_GETFD) == -1)
        _exit(99);
    armed = true;
    cli_listening(&listener.address);
    cli_connected(&listener.address);
    cli_disconnected(&listener.address);
    net_unlisten(&listener);
    exit(cli_finish());
}

static void read_all(int fd, char *text, size_t size)
{
    size_t used = 0;
    ssize_t n;

    while ((n = read(fd, text + used, size - 1 - used)) > 0)
        used += (size_t)n;
    text[used] = '\0';
    close(fd);
}

static bool run_start(void)
{
    char said[4096], complained[4096];
    int out[2], err[2], status, reached;

    calls = hits = opens_to_fail = 0;
    assert_return_code(pipe(out), errno);
    assert_return_code(pipe(err), errno);
    assert_return_code(pipe(result_pipe), errno);
    fflush(NULL);
    pid_t child = fork();
    assert_return_code(child, errno);
    if (child == 0)
        start_and_end(out[1], err[1]);
    close(out[1]);
    close(err[1]);
    close(result_pipe[1]);
    read_all(out[0], said, sizeof said);
    read_all(err[0], complained, sizeof complained);
    assert_int_equal(read(result_pipe[0], &reached, sizeof reached), sizeof reached);
    close(result_pipe[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 0) {
        bool log_suffers = fault->call == CALL_write || fault->call == CALL_poll;
        assert_true(log_suffers || strncmp(said, "Listening on 127.0.0.1:", 23) == 0);
    } else {
        assert_int_equal(WEXITSTATUS(status), 1);
        assert_int_equal(strncmp(complained, "server: ", 8), 0);
        assert_ptr_equal(strchr(complained, '\n'), complained + strlen(complained) - 1);
        assert_true(reached > 0);
    }
    return reached > 0;
}

static void test_start(void **state)
{
    fault = *state;
    for (nth = 1; run_start(); nth++)
        assert_true(nth < NTH_LIMIT);
    assert_true(nth > 1);
}

/* ---- One test for each row
 * -------------------------------------------------------------------- */

static const char *name(const char *prefix, const struct fault *f)
{
#define NAME(name) #name,
    static const char *const names[] = {CALLS(NAME)};
    static char texts[100][100];
    static size_t used;
    char *text = texts[used++];

    assert_true(used <= sizeof texts / sizeof *texts);
    snprintf(text, sizeof *texts, "%s: %s x %d: %s", prefix, names[f->call], f->times,
             f->error == CUT_SHORT ? "cut short" : strerror(f->error));
    return text;
}

int main(void)
{
    enum {
        SERVING = sizeof faults / sizeof *faults,
        STARTING = sizeof start_faults / sizeof *faults
    };
    struct CMUnitTest tests[SERVING + STARTING] = {0};

    for (int i = 0; i < SERVING; i++)
        tests[i] = (struct CMUnitTest){name("serving", &faults[i]), test_serving, NULL, NULL,
                                       (void *)&faults[i]};
    for (int i = 0; i < STARTING; i++)
        tests[SERVING + i] = (struct CMUnitTest){name("starting", &start_faults[i]), test_start,
                                                 NULL, NULL, (void *)&start_faults[i]};
    return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
#endif
