/* What if the kernel says no? A whole server is linked with this file, and the linker puts us
 * between the two and the C library (--wrap). Each test is a call and an error: in a first run
 * the first such call fails, then the second, the third, ... until a run gets by without it.
 * Nobody crashes, nothing leaks, no client gets a wrong byte, no more clients are lost than the
 * fault explains, others are served afterwards, and the server stops with status 0; or, if it
 * could not even start, it says in one line why.
 *
 * The server runs in a child process, its clients in this one. `faults_NAME SERVER_ARGS...`:
 * the arguments are the server's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#ifndef __has_feature
#define __has_feature(x) 0
#endif

/* NOLINTBEGIN(bugprone-reserved-identifier,bugprone-macro-parentheses): the linker wants
 * these names, and the macros' arguments are types and lists */

/* Every call that can fail: its type, name, parameters, arguments, and what it returns then. */
#define CALLS(X)                                                                              \
    X(int, accept, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)                \
    X(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)             \
    X(int, epoll_create1, (int flags), (flags), -1)                                           \
    X(int, epoll_wait, (int epoll, void *events, int n, int ms), (epoll, events, n, ms), -1)  \
    X(pid_t, fork, (void), (), -1)                                                            \
    X(int, ftruncate, (int fd, off_t size), (fd, size), -1)                                   \
    X(int, getpeername, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)           \
    X(int, io_uring_submit_and_wait_timeout,                                                  \
      (void *ring, void *done, unsigned n, void *limit, void *mask),                          \
      (ring, done, n, limit, mask), -error())                                                 \
    X(int, kevent, (int kq, const void *in, int n, void *out, int m, const void *limit),      \
      (kq, in, n, out, m, limit), -1)                                                         \
    X(int, kqueue, (void), (), -1)                                                            \
    X(void *, mmap, (void *at, size_t n, int may, int how, int fd, off_t from),               \
      (at, n, may, how, fd, from), MAP_FAILED)                                                \
    X(int, mprotect, (void *at, size_t n, int may), (at, n, may), -1)                         \
    X(int, nanosleep, (const struct timespec *t, struct timespec *left), (t, left), -1)       \
    X(int, pipe, (int fds[2]), (fds), -1)                                                     \
    X(int, pselect,                                                                           \
      (int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *t, const sigset_t *s),  \
      (n, r, w, e, t, s), -1)                                                                 \
    X(int, pthread_attr_init, (pthread_attr_t * a), (a), error())                             \
    X(int, pthread_create,                                                                    \
      (pthread_t * thread, const pthread_attr_t *a, void *(*start)(void *), void *argument),  \
      (thread, a, start, argument), error())                                                  \
    X(ssize_t, read, (int fd, void *bytes, size_t n), (fd, bytes, n), -1)                     \
    X(int, select, (int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *t),               \
      (n, r, w, e, t), -1)                                                                    \
    X(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t n),         \
      (fd, level, name, value, n), -1)                                                        \
    X(int, shutdown, (int fd, int how), (fd, how), -1)                                        \
    X(int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1)        \
    X(int, uv_read_start, (void *stream, void *lend, void *take), (stream, lend, take),       \
      -error())                                                                               \
    X(int, uv_tcp_getpeername, (const void *tcp, struct sockaddr *a, int *n), (tcp, a, n),    \
      -error())                                                                               \
    X(int, uv_write, (void *request, void *stream, const void *bufs, unsigned n, void *done), \
      (request, stream, bufs, n, done), -error())                                             \
    X(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options), -1)

/* Those that need a wrapper of their own, below. */
#define SPECIAL_CALLS(X) \
    X(calloc)            \
    X(epoll_ctl)         \
    X(fcntl)             \
    X(getaddrinfo)       \
    X(getsockname)       \
    X(listen)            \
    X(malloc) X(open) X(poll) X(realloc) X(recv) X(send) X(uv_try_write) X(write)

#define NUMBER(name)               CALL_##name,
#define NUMBER_OF(type, name, ...) CALL_##name,
enum call { CALLS(NUMBER_OF) SPECIAL_CALLS(NUMBER) CALL_COUNT };

#define NAME(name)               #name,
#define NAME_OF(type, name, ...) #name,
static const char *const names[] = {CALLS(NAME_OF) SPECIAL_CALLS(NAME)};

/* ---- The faults -------------------------------------------------------------------------- */

enum { CUT_SHORT = -1 }; /* in place of an errno: succeed, but move only one byte */

struct fault {
    enum call call;
    int error;      /* errno, or CUT_SHORT */
    int times;      /* how many calls in a row */
    int open_fails; /* how many open calls in a row fail after it: a house that is full */
    int may_lose;   /* clients, per call that failed */
    enum { NEVER, SOMETIMES, ALWAYS } nap; /* nothing can be done about it but wait */
};

static const struct fault faults[] = {
    /* Not now, or not all at once: nobody is lost. */
    {CALL_accept, EAGAIN, .times = 3},
    {CALL_accept, EINTR, .times = 1},
    {CALL_epoll_wait, EINTR, .times = 2},
    {CALL_io_uring_submit_and_wait_timeout, EINTR, .times = 2},
    {CALL_kevent, EINTR, .times = 1, .may_lose = 1}, /* it may have been a change */
    {CALL_nanosleep, EINTR, .times = 2},
    {CALL_poll, EINTR, .times = 2},
    {CALL_poll, EINVAL, .times = 1, .nap = SOMETIMES}, /* more than RLIMIT_NOFILE now */
    {CALL_poll, ENOMEM, .times = 1},
    {CALL_pselect, EINTR, .times = 2},
    {CALL_pselect, ENOMEM, .times = 1},
    {CALL_read, EINTR, .times = 1},
    {CALL_recv, EAGAIN, .times = 2},
    {CALL_recv, EINTR, .times = 2},
    {CALL_recv, CUT_SHORT, .times = 1000},
    {CALL_select, EINTR, .times = 2},
    {CALL_send, EAGAIN, .times = 2},
    {CALL_send, EINTR, .times = 3},
    {CALL_send, CUT_SHORT, .times = 3},
    {CALL_uv_try_write, EAGAIN, .times = 2},
    {CALL_uv_try_write, CUT_SHORT, .times = 3},
    {CALL_waitpid, EINTR, .times = 1},
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
    {CALL_accept, EMFILE, .times = 1, .open_fails = 2, .may_lose = 1, .nap = SOMETIMES},
    {CALL_accept, EMFILE, .times = 5, .open_fails = 7, .may_lose = 1, .nap = ALWAYS},
    /* One client's trouble. */
    {CALL_calloc, ENOMEM, .times = 1, .may_lose = 1},
    {CALL_epoll_ctl, ENOSPC, .times = 1, .may_lose = 1},
    {CALL_fcntl, EBADF, .times = 1, .may_lose = 1},
    {CALL_fork, EAGAIN, .times = 1, .may_lose = 1},
    {CALL_getpeername, ENOTCONN, .times = 1, .may_lose = 1},
    {CALL_kevent, ENOMEM, .times = 1, .may_lose = 1},
    {CALL_malloc, ENOMEM, .times = 1, .may_lose = 1},
    {CALL_malloc, ENOMEM, .times = 3, .may_lose = 1},
    {CALL_mmap, ENOMEM, .times = 1, .may_lose = 1},
    {CALL_mprotect, ENOMEM, .times = 1, .may_lose = 1},
    {CALL_pthread_attr_init, ENOMEM, .times = 1, .may_lose = 1},
    {CALL_pthread_create, EAGAIN, .times = 1, .may_lose = 1},
    {CALL_realloc, ENOMEM, .times = 1, .may_lose = 1},
    {CALL_recv, ECONNRESET, .times = 1, .may_lose = 1},
    {CALL_recv, ETIMEDOUT, .times = 1, .may_lose = 1},
    {CALL_send, ECONNRESET, .times = 1, .may_lose = 1},
    {CALL_send, EPIPE, .times = 1, .may_lose = 1},
    {CALL_setsockopt, ENOPROTOOPT, .times = 1},
    {CALL_shutdown, ENOTCONN, .times = 1},
    {CALL_uv_read_start, ENOTCONN, .times = 1, .may_lose = 1},
    {CALL_uv_tcp_getpeername, ENOTCONN, .times = 1, .may_lose = 1},
    {CALL_uv_try_write, EPIPE, .times = 1, .may_lose = 1},
    {CALL_uv_write, ENOMEM, .times = 1, .may_lose = 1},
    /* No start; or no more log. */
    {CALL_bind, EADDRINUSE, .times = 1},
    {CALL_epoll_create1, EMFILE, .times = 1},
    {CALL_ftruncate, EIO, .times = 1},
    {CALL_getaddrinfo, 0, .times = 1},
    {CALL_getaddrinfo, EMFILE, .times = 1},
    {CALL_getsockname, ENOBUFS, .times = 1},
    {CALL_kqueue, EMFILE, .times = 1},
    {CALL_listen, EADDRINUSE, .times = 1},
    {CALL_open, EMFILE, .times = 1},
    {CALL_pipe, EMFILE, .times = 1},
    {CALL_socket, EMFILE, .times = 1},
    {CALL_write, EINTR, .times = 1},
    {CALL_write, ENOSPC, .times = 1},
    {CALL_write, CUT_SHORT, .times = 1},
};
enum { FAULTS = sizeof faults / sizeof *faults };

/* ---- Where they strike ------------------------------------------------------------------- */

/* What the server's process and ours share. */
static struct shared {
    atomic_bool armed;
    atomic_int calls[CALL_COUNT], hits;
    atomic_int may_lose; /* clients, for the calls that failed so far */
    atomic_int opens_to_fail;
    atomic_int naps;   /* taken so as not to spin */
    atomic_int misses; /* signals sent to nobody: the number may soon be another's */
    atomic_bool edge_triggered;
    int blocks, descriptors; /* left at the end */
} * shared;

static const struct fault *fault;
static int nth;           /* strike from this call on; 0 = never */
static bool in_server;    /* this is the child */
static atomic_int blocks; /* of the heap, in use */

static int error(void)
{
    return fault->error;
}

int __real_fcntl(int fd, int command, ...);

/* Shall this call fail? (fd: of a socket, or -1.) */
static bool strikes(enum call call, int fd)
{
    if (!in_server)
        return false;
    int number = ++shared->calls[call];
    if (!shared->armed)
        return false;
    if (call == CALL_open && shared->opens_to_fail > 0) {
        shared->opens_to_fail--;
        errno = EMFILE;
        return true;
    }
    if (call != fault->call || nth == 0 || number < nth || number >= nth + fault->times)
        return false;
    bool time_limit =
        fd != -1 && fault->error == EAGAIN && !(__real_fcntl(fd, F_GETFL) & O_NONBLOCK);
    shared->hits++;
    shared->may_lose += time_limit ? 1 : fault->may_lose;
    shared->opens_to_fail = fault->open_fails;
    errno = fault->error;
    return true;
}

/* Weak: no server makes all of these calls. */
#define WRAP(type, name, parameters, arguments, failed)                     \
    type __real_##name parameters __attribute__((weak));                    \
    type __wrap_##name parameters;                                          \
    type __wrap_##name parameters                                           \
    {                                                                       \
        return strikes(CALL_##name, -1) ? failed : __real_##name arguments; \
    }
CALLS(WRAP)

/* Makes the sockets that a listener accepts take little at once, so that sends come up short.
 */
static void take_little(int fd)
{
    const int size = 64 * 1024;

    __real_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

int __real_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog)
{
    if (strikes(CALL_listen, -1))
        return -1;
    take_little(fd);
    return __real_listen(fd, backlog);
}

int uv_fileno(const void *handle, int *fd) __attribute__((weak));
int __real_uv_listen(void *stream, int backlog, void *knock) __attribute__((weak));
int __wrap_uv_listen(void *stream, int backlog, void *knock);
int __wrap_uv_listen(void *stream, int backlog, void *knock)
{
    int fd;

    if (uv_fileno(stream, &fd) == 0)
        take_little(fd);
    return __real_uv_listen(stream, backlog, knock);
}

int __real_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
    if (in_server && n == 0 && ms > 0)
        shared->naps++;
    return strikes(CALL_poll, -1) ? -1 : __real_poll(fds, n, ms);
}

int __real_kill(pid_t pid, int number);
int __wrap_kill(pid_t pid, int number);
int __wrap_kill(pid_t pid, int number)
{
    int result = __real_kill(pid, number);

    if (in_server && result == -1 && errno == ESRCH)
        shared->misses++;
    return result;
}

#define WRAP_TRANSFER(name, parameters, whole, part) \
    ssize_t __real_##name parameters;                \
    ssize_t __wrap_##name parameters;                \
    ssize_t __wrap_##name parameters                 \
    {                                                \
        if (!strikes(CALL_##name, fd))               \
            return __real_##name whole;              \
        if (fault->error == CUT_SHORT && n > 0)      \
            return __real_##name part;               \
        return -1;                                   \
    }
WRAP_TRANSFER(recv, (int fd, void *bytes, size_t n, int flags), (fd, bytes, n, flags),
              (fd, bytes, 1, flags))
WRAP_TRANSFER(send, (int fd, const void *bytes, size_t n, int flags), (fd, bytes, n, flags),
              (fd, bytes, 1, flags))
WRAP_TRANSFER(write, (int fd, const void *bytes, size_t n), (fd, bytes, n), (fd, bytes, 1))

struct uv_buf { /* as uv_buf_t is on every Unix */
    char *base;
    size_t len;
};
int __real_uv_try_write(void *stream, const struct uv_buf *buf, unsigned n)
    __attribute__((weak));
int __wrap_uv_try_write(void *stream, const struct uv_buf *buf, unsigned n);
int __wrap_uv_try_write(void *stream, const struct uv_buf *buf, unsigned n)
{
    struct uv_buf part = {.base = buf->base, .len = 1};

    if (!strikes(CALL_uv_try_write, -1))
        return __real_uv_try_write(stream, buf, n);
    return fault->error == CUT_SHORT ? __real_uv_try_write(stream, &part, 1) : -error();
}

int __real_epoll_ctl(int epoll, int what, int fd, const uint32_t *events) __attribute__((weak));
int __wrap_epoll_ctl(int epoll, int what, int fd, const uint32_t *events);
int __wrap_epoll_ctl(int epoll, int what, int fd, const uint32_t *events)
{
    const uint32_t EDGE_TRIGGERED = 1u << 31; /* EPOLLET; the mask is the first in the struct */

    if (events != NULL && *events & EDGE_TRIGGERED)
        shared->edge_triggered = true;
    return strikes(CALL_epoll_ctl, -1) ? -1 : __real_epoll_ctl(epoll, what, fd, events);
}

int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list more;

    va_start(more, command);
    int argument = va_arg(more, int);
    va_end(more);
    return strikes(CALL_fcntl, -1) ? -1 : __real_fcntl(fd, command, argument);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list more;

    va_start(more, flags);
    unsigned mode = flags & O_CREAT ? va_arg(more, unsigned) : 0;
    va_end(more);
    return strikes(CALL_open, -1) ? -1 : __real_open(path, flags, mode);
}

#define WRAP_ALLOCATION(name, parameters, arguments, old)                        \
    void *__real_##name parameters;                                              \
    void *__wrap_##name parameters;                                              \
    void *__wrap_##name parameters                                               \
    {                                                                            \
        bool more = (old) == NULL;                                               \
        void *block = strikes(CALL_##name, -1) ? NULL : __real_##name arguments; \
        blocks += more && block != NULL;                                         \
        return block;                                                            \
    }
WRAP_ALLOCATION(malloc, (size_t n), (n), NULL)
WRAP_ALLOCATION(calloc, (size_t count, size_t n), (count, n), NULL)
WRAP_ALLOCATION(realloc, (void *block_before, size_t n), (block_before, n), block_before)

void __real_free(void *block);
void __wrap_free(void *block);
void __wrap_free(void *block)
{
    blocks -= block != NULL;
    __real_free(block);
}

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **found);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **found);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **found)
{
    if (strikes(CALL_getaddrinfo, -1))
        return fault->error == 0 ? EAI_MEMORY : EAI_SYSTEM;
    int failed = __real_getaddrinfo(host, port, hints, found);
    blocks += failed == 0;
    return failed;
}

void __real_freeaddrinfo(struct addrinfo *found);
void __wrap_freeaddrinfo(struct addrinfo *found);
void __wrap_freeaddrinfo(struct addrinfo *found)
{
    blocks--;
    __real_freeaddrinfo(found);
}

/* Tells us the port, even if the log cannot. From here on clients may come. */
static int told[2];

static void tell_port(const struct sockaddr *a)
{
    const struct sockaddr_in *in = (const void *)a;

    if (__real_write(told[1], &in->sin_port, sizeof in->sin_port) == -1)
        abort();
}

int __real_getsockname(int fd, struct sockaddr *a, socklen_t *n);
int __wrap_getsockname(int fd, struct sockaddr *a, socklen_t *n);
int __wrap_getsockname(int fd, struct sockaddr *a, socklen_t *n)
{
    if (strikes(CALL_getsockname, -1) || __real_getsockname(fd, a, n) == -1)
        return -1;
    tell_port(a);
    return 0;
}

int __real_uv_tcp_getsockname(const void *tcp, struct sockaddr *a, int *n)
    __attribute__((weak));
int __wrap_uv_tcp_getsockname(const void *tcp, struct sockaddr *a, int *n);
int __wrap_uv_tcp_getsockname(const void *tcp, struct sockaddr *a, int *n)
{
    int error_code = __real_uv_tcp_getsockname(tcp, a, n);

    tell_port(a);
    return error_code;
}
/* NOLINTEND(bugprone-reserved-identifier,bugprone-macro-parentheses) */

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += __real_fcntl(fd, F_GETFD, 0) != -1;
    return count;
}

/* ---- The server, and what is said when it fails us --------------------------------------- */

int __real_main(int argc, char **argv); /* NOLINT(bugprone-reserved-identifier) */

static char *arguments[32] = {"server", "--port=0", "--idle-timeout=60", "--stats=/dev/null"};
static int argument_count = 4;
static pid_t server;          /* 0: there is none */
static int complaints, words; /* files: its standard error and output */

/* The leak sanitizer is to look where a server returns, not where it cannot start. */
/* NOLINTBEGIN(bugprone-reserved-identifier) */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "leak_check_at_exit=0";
}
void __lsan_do_leak_check(void) __attribute__((weak));
/* NOLINTEND(bugprone-reserved-identifier) */

static void start_server(void)
{
    assert_return_code(pipe(told), errno);
    assert_return_code(ftruncate(complaints, 0) | ftruncate(words, 0), errno);
    lseek(complaints, 0, SEEK_SET);
    lseek(words, 0, SEEK_SET);
    memset(shared, 0, sizeof *shared);
    shared->armed = true;
    blocks = 0;
    server = fork();
    assert_return_code(server, errno);
    if (server == 0) {
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* should somebody end us before it has ended */
#endif
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(words, STDOUT_FILENO);
        dup2(complaints, STDERR_FILENO);
        close(null);
        close(told[0]);
        int before = open_descriptors();
        in_server = true;
        int status = __real_main(argument_count, arguments);
        in_server = false;
        shared->blocks = blocks;
        shared->descriptors = open_descriptors() - before;
        if (__lsan_do_leak_check != NULL)
            __lsan_do_leak_check();
        exit(status);
    }
    close(told[1]);
}

/* The beginning of what the server said into a file. */
static const char *said(int file)
{
    static char text[4096];
    ssize_t n = pread(file, text, sizeof text - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

__attribute__((format(printf, 1, 2))) _Noreturn static void wrong(const char *format, ...)
{
    va_list more;

    va_start(more, format);
    vprint_message(format, more);
    va_end(more);
    fail_msg(" at call %d; the server said: %s", nth, said(complaints));
    abort(); /* fail_msg does not return, but does not say so */
}

/* ---- Its clients ------------------------------------------------------------------------- */

enum {
    CLIENTS = 4,
    LAST = CLIENTS - 1, /* comes alone, and sees the server stop */
    SMALL = 8,
    LARGE = 256 * 1024,
    WINDOW = 4096, /* what a client takes at once */
};

static int patience_ms = 10000;

struct client {
    int fd; /* -1: gone, because it has heard the end or an error */
    unsigned char message[LARGE];
    size_t size, said, heard;
};

static struct client clients[CLIENTS] = {{.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};

/* What client i says at a place: elsewhere, and elsewhere in its message, something else. */
static unsigned char letter(int i, size_t at)
{
    return (unsigned char)('A' + (at + 7 * (size_t)i) % 23);
}

static void leave(struct client *c)
{
    if (c->fd != -1)
        close(c->fd);
    c->fd = -1;
}

static void come(int i, uint16_t port)
{
    struct client *c = &clients[i];
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    *c = (struct client){.size = i == 0 ? LARGE : SMALL, .message = "^"};
    for (size_t at = 1; at < c->size; at++)
        c->message[at] = letter(i, at);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_return_code(c->fd, errno);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &(int){WINDOW}, sizeof(int));
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) == -1)
        leave(c);
    else
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

/* Says what there is room for, then hears what there is.
 * Every byte it hears must be the right one. */
static void talk(int i)
{
    struct client *c = &clients[i];
    unsigned char bytes[WINDOW];
    ssize_t n = 0;

    while (c->said < c->size && n != -1) {
        n = send(c->fd, c->message + c->said, c->size - c->said, MSG_NOSIGNAL);
        if (n > 0 && (c->said += (size_t)n) == c->size)
            shutdown(c->fd, SHUT_WR);
    }
    do {
        n = recv(c->fd, bytes, sizeof bytes, 0);
        for (ssize_t at = 0; at < n; at++, c->heard++)
            if (c->heard >= c->size ||
                bytes[at] != (c->heard == 0 ? '*' : letter(i, c->heard) + 1))
                wrong("client %d heard '%c' at %zu", i, bytes[at], c->heard);
    } while (n > 0 && i != 0); /* the first one hears slowly, so that answers pile up */
    if (n == 0 || (n == -1 && errno != EAGAIN && errno != EWOULDBLOCK))
        leave(c);
}

static long now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Until they have gone. Returns how many of them did not hear everything. */
static int all_talk(int first, int last)
{
    const long limit = now_ms() + patience_ms;
    int lost = 0, left;

    do {
        struct pollfd fds[CLIENTS];
        nfds_t n = 0;
        for (int i = first; i <= last; i++)
            if (clients[i].fd != -1)
                talk(i);
        for (int i = first; i <= last; i++) /* poll overlooks an fd of -1 */
            fds[n++] = (struct pollfd){
                .fd = clients[i].fd,
                .events = clients[i].said < clients[i].size ? POLLIN | POLLOUT : POLLIN};
        left = 0;
        for (int i = first; i <= last; i++)
            left += clients[i].fd != -1;
        if (left > 0 && (now_ms() >= limit || poll(fds, n, patience_ms) == 0))
            wrong("%d clients wait in vain", left);
    } while (left > 0);
    for (int i = first; i <= last; i++)
        lost += clients[i].heard < clients[i].size;
    return lost;
}

/* Three clients at once; a look at the counters; and a last client, whose message the server
 * has still to answer when it is told to stop. If the fault has struck already, it is over when
 * the last one comes. Returns how many were lost. */
static int all_come(uint16_t port)
{
    for (int i = 0; i < LAST; i++)
        come(i, port);
    int lost = all_talk(0, LAST - 1);
    kill(server, SIGUSR1);
    if (shared->hits > 0)
        shared->armed = false;
    come(LAST, port);
    struct client *last = &clients[LAST];
    struct pollfd greeted = {.fd = last->fd, .events = POLLIN};
    if (last->fd != -1 && poll(&greeted, 1, patience_ms) == 0)
        wrong("the last client is not greeted");
    if (last->fd != -1)
        talk(LAST);
    kill(server, SIGTERM);
    return lost + all_talk(LAST, LAST);
}

/* ---- One run, and the rows of them ------------------------------------------------------- */

/* Is what the server said one line, beginning with its name and telling the reason?
 * (For want of memory there are many words.) */
static bool complained_well(void)
{
    const char *text = said(complaints);
    const char *reason =
        fault->error > 0 && fault->error != ENOMEM ? strerror(fault->error) : "";

    return strncmp(text, "server: ", 8) == 0 && strchr(text, '\n') == strrchr(text, '\n') &&
           strstr(text, reason) != NULL;
}

static int descriptors; /* open at the end of a good run */

/* How many lines of its log end like that. */
static int count_lines(const char *end)
{
    FILE *log = fdopen(dup(words), "r");
    char line[200];
    int count = 0;

    assert_non_null(log);
    rewind(log);
    while (fgets(line, sizeof line, log) != NULL)
        count += strncmp(line, "peer (", 6) == 0 && strstr(line, end) != NULL;
    fclose(log);
    return count;
}

/* Waits until the server has told us something, or has ended. Returns whether it did. */
static bool has_news(void)
{
    struct pollfd news = {.fd = told[0], .events = POLLIN};
#if defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
    /* It keeps a signal that comes while a fiber runs for that fiber, which may never run
     * again: so ask once more. */
    if (poll(&news, 1, patience_ms / 10) == 0)
        kill(server, SIGTERM);
#endif
    return poll(&news, 1, patience_ms) == 1;
}

/* Returns whether the fault was reached. */
static bool run(void)
{
    uint16_t port;
    int status, lost = 0;
    char byte;

    start_server();
    if (!has_news())
        wrong("it neither starts nor ends");
    bool started = read(told[0], &port, sizeof port) == sizeof port;
    if (started)
        lost = all_come(port);
    if (!has_news() || read(told[0], &byte, 1) != 0)
        wrong("it does not end");
    assert_int_equal(waitpid(server, &status, 0), server);
    close(told[0]);
    server = 0;
    if (!WIFEXITED(status))
        wrong("signal %d ended it", WTERMSIG(status));
    bool good = WEXITSTATUS(status) == 0;
    bool wrote = fault->call == CALL_write || fault->call == CALL_ftruncate;
    bool listened = strstr(said(words), "Listening on 127.0.0.1:") != NULL;
    if (!good && (WEXITSTATUS(status) != 1 || shared->hits == 0 || (listened && !wrote)))
        wrong("its exit status is %d", WEXITSTATUS(status));
    if (!good && !complained_well())
        wrong("it does not say in one line why it ended");
    if ((good || listened) && lost > shared->may_lose)
        wrong("%d clients are lost, but no more than %d should be", lost, shared->may_lose);
    if (good && shared->blocks != 0)
        wrong("%d blocks of memory have leaked", shared->blocks);
    if (good && nth > 0 && shared->descriptors != descriptors)
        wrong("it leaves %d descriptors open, not %d", shared->descriptors, descriptors);
    if (nth == 0)
        descriptors = shared->descriptors;
    if (good && fault->nap != SOMETIMES &&
        (shared->naps > 0) != (fault->nap == ALWAYS && shared->hits > 0))
        wrong("it took %d naps", shared->naps);
    int came = count_lines(") connected\n"), went = count_lines(") disconnected\n");
    if (good && came != went && fault->call != CALL_write && fault->call != CALL_poll)
        wrong("by its log %d clients came and %d went", came, went);
    if (shared->misses > 0)
        wrong("it sends %d signals to nobody", shared->misses);
    return shared->hits > 0;
}

enum { MOST_CALLS = 20 }; /* a busy loop may make any number of them */

static void strike_each_call(void **state)
{
    fault = *state;
    for (nth = 1; nth <= MOST_CALLS && run(); nth++)
        ;
}

/* Does the server make this call, and could this be its answer? Who is told by an event only
 * once that a socket is ready must be able to believe EAGAIN. */
static bool makes_sense(const struct fault *f)
{
    bool again = f->error == EAGAIN || f->error == EINTR;

    return shared->calls[f->call] > 0 &&
           !(shared->edge_triggered && again && (f->call == CALL_recv || f->call == CALL_send));
}

/* After a test, which may have failed at any point. */
static int clear_up(void **state)
{
    (void)state;
    if (server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
        close(told[0]);
    }
    server = 0;
    for (int i = 0; i < CLIENTS; i++)
        leave(&clients[i]);
    return 0;
}

static const char *name(const struct fault *f)
{
    static char texts[FAULTS][100];
    char *text = texts[f - faults];

    snprintf(text, sizeof *texts, "%s x %d: %s%s", names[f->call], f->times,
             f->error == CUT_SHORT ? "cut short"
             : f->error == 0       ? "fails"
                                   : strerror(f->error),
             f->open_fails > 0 ? ", and then open" : "");
    return text;
}

int __wrap_main(int argc, char **argv); /* NOLINT(bugprone-reserved-identifier) */
int __wrap_main(int argc, char **argv)  /* NOLINT(bugprone-reserved-identifier) */
{
    struct CMUnitTest tests[FAULTS] = {{0}};
    int n = 0, i = 1;
    const char *slow = getenv("CHECK_SLOW");

    while (i < argc && argument_count < 31)
        arguments[argument_count++] = argv[i++];
    if (slow != NULL && *slow != '\0')
        patience_ms = (int)(patience_ms * strtod(slow, NULL));
    static FILE *files[2]; /* static, as we need them to the end */
    shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    files[0] = tmpfile();
    files[1] = tmpfile();
    if (files[0] == NULL || files[1] == NULL || shared == MAP_FAILED)
        return 1;
    complaints = fileno(files[0]);
    words = fileno(files[1]);
    fault = &faults[0];
    run();
    for (int row = 0; row < FAULTS; row++)
        if (makes_sense(&faults[row]))
            tests[n++] = (struct CMUnitTest){name(&faults[row]), strike_each_call, NULL,
                                             clear_up, (void *)&faults[row]};
    return _cmocka_run_group_tests("faults", tests, (size_t)n, NULL, NULL);
}
