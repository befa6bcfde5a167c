/* What happens when a system call fails? A whole server is linked with this file, and the
 * linker puts our functions between the server and the C library (--wrap). Each test is a call
 * and an error. In its first run the first such call fails, in its second run the second, and
 * so on, until a run makes fewer calls than that.
 *
 * Whatever fails, the server must not crash or leak, and no client may get a wrong byte. No
 * more clients may be lost than the fault explains, others must be served afterwards, and the
 * server must stop with status 0. If it cannot start, it must print one line that says why.
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
#include <sys/stat.h>
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

/* Each call that can fail: its type, name, parameters, arguments, and what it returns then. */
#define CALLS(X)                                                                              \
    X(int, accept, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)                \
    X(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)             \
    X(int, epoll_create1, (int flags), (flags), -1)                                           \
    X(int, epoll_wait, (int epoll, void *events, int n, int ms), (epoll, events, n, ms), -1)  \
    X(int, eventfd, (unsigned count, int flags), (count, flags), -1)                          \
    X(pid_t, fork, (void), (), -1)                                                            \
    X(int, ftruncate, (int fd, off_t size), (fd, size), -1)                                   \
    X(int, getpeername, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)           \
    X(int, io_uring_submit_and_wait_timeout,                                                  \
      (void *ring, void *done, unsigned n, void *limit, void *mask),                          \
      (ring, done, n, limit, mask), -error())                                                 \
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
    X(int, uv_read_start, (void *stream, void *alloc, void *read), (stream, alloc, read),     \
      -error())                                                                               \
    X(int, uv_tcp_getpeername, (const void *tcp, struct sockaddr *a, int *n), (tcp, a, n),    \
      -error())                                                                               \
    X(int, uv_write, (void *request, void *stream, const void *bufs, unsigned n, void *done), \
      (request, stream, bufs, n, done), -error())                                             \
    X(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options), -1)

/* These have a wrapper of their own below. */
#define SPECIAL_CALLS(X) \
    X(calloc)            \
    X(epoll_ctl)         \
    X(fcntl)             \
    X(getaddrinfo)       \
    X(getsockname)       \
    X(kevent)            \
    X(listen)            \
    X(malloc) X(open) X(poll) X(realloc) X(recv) X(send) X(uv_try_write) X(write)

#define NUMBER(name)               CALL_##name,
#define NUMBER_OF(type, name, ...) CALL_##name,
enum call { CALLS(NUMBER_OF) SPECIAL_CALLS(NUMBER) CALL_COUNT };

#define NAME(name)               #name,
#define NAME_OF(type, name, ...) #name,
static const char *const names[] = {CALLS(NAME_OF) SPECIAL_CALLS(NAME)};

/* ---- The faults -------------------------------------------------------------------------- */

enum { ONE_BYTE = -1 }; /* in place of an errno: succeed, but move only one byte */

struct fault {
    enum call call;
    int error;         /* errno, or ONE_BYTE */
    int times;         /* how many calls in a row fail */
    int reserve_fails; /* how many calls in a row fail then that open a descriptor */
    int may_lose;      /* clients, per call that failed */
    enum { NEVER, SOMETIMES, ALWAYS } sleep; /* must the server sleep, so as not to spin? */
    int watch_fails;  /* how many calls fail then that change what the kernel watches */
    const char *says; /* its log must have this text */
};

#define CANNOT_WAIT "cannot wait for clients: "

static const struct fault faults[] = {
    /* Not now, or only a part: no client is lost. */
    {CALL_accept, EAGAIN, .times = 3},
    {CALL_accept, EINTR, .times = 1},
    {CALL_epoll_wait, EINTR, .times = 2},
    {CALL_epoll_wait, ENOSYS, .times = 1, .says = CANNOT_WAIT}, /* forbidden by now */
    {CALL_io_uring_submit_and_wait_timeout, EINTR, .times = 2},
    {CALL_kevent, EINTR, .times = 1, .may_lose = 1}, /* the call may have been a change */
    {CALL_nanosleep, EINTR, .times = 2},
    {CALL_poll, EINTR, .times = 2},
    {CALL_poll, EINVAL, .times = 1, .sleep = SOMETIMES}, /* more than RLIMIT_NOFILE now */
    {CALL_poll, ENOMEM, .times = 1},
    {CALL_pselect, EINTR, .times = 2},
    {CALL_pselect, ENOMEM, .times = 1, .says = CANNOT_WAIT},
    {CALL_read, EINTR, .times = 1},
    {CALL_recv, EAGAIN, .times = 2},
    {CALL_recv, EINTR, .times = 2},
    {CALL_recv, ONE_BYTE, .times = 1000},
    {CALL_select, EINTR, .times = 2},
    {CALL_select, ENOMEM, .times = 1, .says = CANNOT_WAIT},
    {CALL_send, EAGAIN, .times = 2},
    {CALL_send, EINTR, .times = 3},
    {CALL_send, ONE_BYTE, .times = 3},
    {CALL_uv_try_write, EAGAIN, .times = 2},
    {CALL_uv_try_write, ONE_BYTE, .times = 3},
    {CALL_waitpid, EINTR, .times = 1},
    /* accept(2): the error of a connection that died in the backlog. */
    {CALL_accept, ECONNABORTED, .times = 1},
    {CALL_accept, EPROTO, .times = 1},
    /* accept(2): errors that may last. */
    {CALL_accept, EPERM, .times = 1, .sleep = ALWAYS},
    {CALL_accept, ENETDOWN, .times = 1, .sleep = ALWAYS},
    {CALL_accept, EHOSTUNREACH, .times = 1, .sleep = ALWAYS},
    {CALL_accept, ENOBUFS, .times = 1, .sleep = ALWAYS},
    {CALL_accept, ENOMEM, .times = 1, .sleep = ALWAYS},
    /* Out of descriptors: accept works with the reserved descriptor, or fails with it, too.
     * Then the reserved one cannot be replaced: once, twice, for longer. */
    {CALL_accept, EMFILE, .times = 1},
    {CALL_accept, EMFILE, .times = 2, .sleep = ALWAYS},
    {CALL_accept, ENFILE, .times = 2, .sleep = ALWAYS},
    {CALL_accept, ENFILE, .times = 1, .reserve_fails = 1, .may_lose = 1, .sleep = SOMETIMES},
    {CALL_accept, EMFILE, .times = 1, .reserve_fails = 2, .may_lose = 1, .sleep = SOMETIMES},
    {CALL_accept, EMFILE, .times = 5, .reserve_fails = 7, .may_lose = 1, .sleep = ALWAYS},
    /* Errors of one client. */
    {CALL_calloc, ENOMEM, .times = 1, .may_lose = 1},
    {CALL_epoll_ctl, ENOSPC, .times = 1, .may_lose = 1},
    {CALL_send, EAGAIN, .times = 1, .watch_fails = 1, .may_lose = 1},
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
    /* Errors at start, or of the log. */
    {CALL_bind, EADDRINUSE, .times = 1},
    {CALL_epoll_create1, EMFILE, .times = 1},
    {CALL_eventfd, EMFILE, .times = 1},
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
    {CALL_write, ONE_BYTE, .times = 1},
};
enum { FAULTS = sizeof faults / sizeof *faults };

/* ---- Which calls fail -------------------------------------------------------------------- */

/* Memory that the server's process and ours share. */
static struct shared {
    atomic_bool armed;
    atomic_int calls[CALL_COUNT], hits;
    atomic_int may_lose; /* clients, for the calls that failed so far */
    atomic_int reserve_fails, watch_fails;
    atomic_bool stopping; /* we have told the server to stop */
    atomic_int sleeps;    /* so as not to spin; not counted at the stop */
    atomic_int misses; /* signals to processes that have ended: their numbers may be reused */
    atomic_bool edge_triggered;
    int blocks, descriptors; /* left at the end */
} * shared;

static const struct fault *fault;
static int nth;           /* calls fail from this one on; 0 = never */
static bool in_server;    /* this is the child */
static atomic_int blocks; /* of the heap, in use */

static int error(void)
{
    return fault->error;
}

int __real_fcntl(int fd, int command, ...);

static _Thread_local bool must_sleep; /* this thread, because a call of its has failed */

/* Must this call fail? If so, sets errno. (fd: of a socket, or -1.) */
static bool fails(enum call call, int fd)
{
    static _Thread_local int more; /* calls in a row that fail are one thread's */

    if (!in_server)
        return false;
    int number = ++shared->calls[call];
    if (!shared->armed)
        return false;
    if (call != fault->call || nth == 0 || (number != nth && more == 0))
        return false;
    more = number == nth ? fault->times - 1 : more - 1;
    bool time_limit =
        fd != -1 && fault->error == EAGAIN && !(__real_fcntl(fd, F_GETFL) & O_NONBLOCK);
    shared->hits++;
    shared->may_lose += time_limit ? 1 : fault->may_lose;
    shared->reserve_fails = fault->reserve_fails;
    shared->watch_fails = fault->watch_fails;
    must_sleep = fault->sleep == ALWAYS;
    errno = fault->error;
    return true;
}

/* Is this one of the calls after the fault that find no free descriptor, either? */
static bool reserve_fails(void)
{
    if (!in_server || !shared->armed || shared->reserve_fails == 0)
        return false;
    shared->reserve_fails--;
    errno = EMFILE;
    return true;
}

/* The same for the calls after the fault that change what the kernel watches. */
static bool watch_fails(void)
{
    if (!in_server || !shared->armed || shared->watch_fails == 0)
        return false;
    shared->watch_fails--;
    errno = ENOMEM;
    return true;
}

/* Weak, because no server makes all of these calls. */
#define WRAP(type, name, parameters, arguments, failed)                   \
    type __real_##name parameters __attribute__((weak));                  \
    type __wrap_##name parameters;                                        \
    type __wrap_##name parameters                                         \
    {                                                                     \
        return fails(CALL_##name, -1) ? failed : __real_##name arguments; \
    }
CALLS(WRAP)

/* The sockets that a listener accepts inherit its small send buffer. So sends are short. */
static void shrink_send_buffer(int fd)
{
    const int size = 64 * 1024;

    __real_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

int __real_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog)
{
    if (fails(CALL_listen, -1))
        return -1;
    shrink_send_buffer(fd);
    return __real_listen(fd, backlog);
}

int uv_fileno(const void *handle, int *fd) __attribute__((weak));
int __real_uv_listen(void *stream, int backlog, void *callback) __attribute__((weak));
int __wrap_uv_listen(void *stream, int backlog, void *callback);
int __wrap_uv_listen(void *stream, int backlog, void *callback)
{
    int fd;

    if (uv_fileno(stream, &fd) == 0)
        shrink_send_buffer(fd);
    return __real_uv_listen(stream, backlog, callback);
}

int __real_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
    if (in_server && n == 0 && ms > 0 && (!shared->stopping || must_sleep))
        shared->sleeps++;
    return fails(CALL_poll, -1) ? -1 : __real_poll(fds, n, ms);
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
        if (!fails(CALL_##name, fd))                 \
            return __real_##name whole;              \
        if (fault->error == ONE_BYTE && n > 0)       \
            return __real_##name part;               \
        return -1;                                   \
    }
WRAP_TRANSFER(recv, (int fd, void *bytes, size_t n, int flags), (fd, bytes, n, flags),
              (fd, bytes, 1, flags))
WRAP_TRANSFER(send, (int fd, const void *bytes, size_t n, int flags), (fd, bytes, n, flags),
              (fd, bytes, 1, flags))

/* Not to a pipe, which takes so few bytes as a whole or not at all (pipe(7)). */
ssize_t __real_write(int fd, const void *bytes, size_t n);
ssize_t __wrap_write(int fd, const void *bytes, size_t n);
ssize_t __wrap_write(int fd, const void *bytes, size_t n)
{
    struct stat status;
    bool pipe = in_server && fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);

    if (pipe || !fails(CALL_write, fd))
        return __real_write(fd, bytes, n);
    return fault->error == ONE_BYTE && n > 0 ? __real_write(fd, bytes, 1) : -1;
}

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

    if (!fails(CALL_uv_try_write, -1))
        return __real_uv_try_write(stream, buf, n);
    return fault->error == ONE_BYTE ? __real_uv_try_write(stream, &part, 1) : -error();
}

int __real_epoll_ctl(int epoll, int what, int fd, const uint32_t *events) __attribute__((weak));
int __wrap_epoll_ctl(int epoll, int what, int fd, const uint32_t *events);
int __wrap_epoll_ctl(int epoll, int what, int fd, const uint32_t *events)
{
    const uint32_t EDGE_TRIGGERED = 1u << 31; /* EPOLLET; the mask is the first in the struct */

    if (events != NULL && *events & EDGE_TRIGGERED)
        shared->edge_triggered = true;
    if (fails(CALL_epoll_ctl, -1) || watch_fails())
        return -1;
    return __real_epoll_ctl(epoll, what, fd, events);
}

int __real_kevent(int kq, const void *in, int n, void *out, int m, const void *limit)
    __attribute__((weak));
int __wrap_kevent(int kq, const void *in, int n, void *out, int m, const void *limit);
int __wrap_kevent(int kq, const void *in, int n, void *out, int m, const void *limit)
{
    if (fails(CALL_kevent, -1) || (n > 0 && watch_fails()))
        return -1;
    return __real_kevent(kq, in, n, out, m, limit);
}

int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list more;

    va_start(more, command);
    int argument = va_arg(more, int);
    va_end(more);
    if (command == F_DUPFD_CLOEXEC && reserve_fails())
        return -1;
    return fails(CALL_fcntl, -1) ? -1 : __real_fcntl(fd, command, argument);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list more;

    va_start(more, flags);
    unsigned mode = flags & O_CREAT ? va_arg(more, unsigned) : 0;
    va_end(more);
    return reserve_fails() || fails(CALL_open, -1) ? -1 : __real_open(path, flags, mode);
}

#define WRAP_ALLOCATION(name, parameters, arguments, old)                      \
    void *__real_##name parameters;                                            \
    void *__wrap_##name parameters;                                            \
    void *__wrap_##name parameters                                             \
    {                                                                          \
        bool more = (old) == NULL;                                             \
        void *block = fails(CALL_##name, -1) ? NULL : __real_##name arguments; \
        blocks += more && block != NULL;                                       \
        return block;                                                          \
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
    if (fails(CALL_getaddrinfo, -1))
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

/* The server writes its port to this pipe when clients may connect: the log may fail. */
static int port_pipe[2];

static void write_port(const struct sockaddr *a)
{
    const struct sockaddr_in *in = (const void *)a;
    static bool is_written; /* a server may have several listeners on the port */

    if (is_written)
        return;
    is_written = true;
    if (__real_write(port_pipe[1], &in->sin_port, sizeof in->sin_port) == -1)
        abort();
}

int __real_getsockname(int fd, struct sockaddr *a, socklen_t *n);
int __wrap_getsockname(int fd, struct sockaddr *a, socklen_t *n);
int __wrap_getsockname(int fd, struct sockaddr *a, socklen_t *n)
{
    if (fails(CALL_getsockname, -1) || __real_getsockname(fd, a, n) == -1)
        return -1;
    write_port(a);
    return 0;
}

int __real_uv_tcp_getsockname(const void *tcp, struct sockaddr *a, int *n)
    __attribute__((weak));
int __wrap_uv_tcp_getsockname(const void *tcp, struct sockaddr *a, int *n);
int __wrap_uv_tcp_getsockname(const void *tcp, struct sockaddr *a, int *n)
{
    int error_code = __real_uv_tcp_getsockname(tcp, a, n);

    write_port(a);
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

/* ---- The server, and what is printed when it does wrong ---------------------------------- */

int __real_main(int argc, char **argv); /* NOLINT(bugprone-reserved-identifier) */

static char *arguments[32] = {"server", "--port=0", "--idle-timeout=60", "--stats=/dev/null"};
static int argument_count = 4;
static pid_t server;                /* 0: there is none */
static int error_file, output_file; /* its standard error and output */

/* The leak sanitizer must look when a server returns, but not when it cannot start. */
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
    assert_return_code(pipe(port_pipe), errno);
    assert_return_code(ftruncate(error_file, 0) | ftruncate(output_file, 0), errno);
    lseek(error_file, 0, SEEK_SET);
    lseek(output_file, 0, SEEK_SET);
    memset(shared, 0, sizeof *shared);
    shared->armed = true;
    blocks = 0;
    server = fork();
    assert_return_code(server, errno);
    if (server == 0) {
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* in case this program ends first */
#endif
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(output_file, STDOUT_FILENO);
        dup2(error_file, STDERR_FILENO);
        close(null);
        close(port_pipe[0]);
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
    close(port_pipe[1]);
}

/* Returns up to 4095 bytes, from there on, of the file that the server has written. */
static const char *text_from(int file, off_t start)
{
    static char text[4096];
    ssize_t n = pread(file, text, sizeof text - 1, start);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static const char *text_of(int file)
{
    return text_from(file, 0);
}

__attribute__((format(printf, 1, 2))) _Noreturn static void wrong(const char *format, ...)
{
    va_list more;

    va_start(more, format);
    vprint_message(format, more);
    va_end(more);
    fail_msg(" at call %d; the server's stderr: %s", nth, text_of(error_file));
    abort(); /* fail_msg does not return, but the compiler does not know that */
}

/* ---- Its clients ------------------------------------------------------------------------- */

enum {
    CLIENTS = 4,
    LAST = CLIENTS - 1, /* connects alone, and is served while the server stops */
    SMALL = 8,
    LARGE = 256 * 1024,
    WINDOW = 4096, /* how much a client reads at a time */
};

static int wait_ms = 10000;

struct client {
    int fd; /* -1: disconnected, after the end or an error */
    unsigned char message[LARGE];
    size_t size, sent, received;
};

static struct client clients[CLIENTS] = {{.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};

/* Byte number `at` of client i's message. It differs from byte to byte and between clients. */
static unsigned char letter(int i, size_t at)
{
    return (unsigned char)('A' + (at + 7 * (size_t)i) % 23);
}

static void disconnect(struct client *c)
{
    if (c->fd != -1)
        close(c->fd);
    c->fd = -1;
}

static void connect_client(int i, uint16_t port)
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
        disconnect(c);
    else
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

/* The first client sends at once. The others wait for their greeting; for the last one,
 * run_clients has waited. */
static bool may_send(int i)
{
    return i == 0 || i == LAST || clients[i].received > 0;
}

/* Sends as much as there is room for, then reads what there is. Each byte must be right. */
static void exchange(int i)
{
    struct client *c = &clients[i];
    unsigned char bytes[WINDOW];
    ssize_t n = 0;

    while (c->sent < c->size && n != -1 && may_send(i)) {
        n = send(c->fd, c->message + c->sent, c->size - c->sent, MSG_NOSIGNAL);
        if (n > 0 && (c->sent += (size_t)n) == c->size)
            shutdown(c->fd, SHUT_WR);
    }
    do {
        n = recv(c->fd, bytes, sizeof bytes, 0);
        for (ssize_t at = 0; at < n; at++, c->received++)
            if (c->received >= c->size ||
                bytes[at] != (c->received == 0 ? '*' : letter(i, c->received) + 1))
                wrong("client %d received '%c' at %zu", i, bytes[at], c->received);
    } while (n > 0 && i != 0); /* the first one reads slowly, so that answers pile up */
    if (n == 0 || (n == -1 && errno != EAGAIN && errno != EWOULDBLOCK))
        disconnect(c);
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* How many of these clients are still connected. */
static int count_connected(int first, int last)
{
    int n = 0;

    for (int i = first; i <= last; i++)
        n += clients[i].fd != -1;
    return n;
}

/* How many bytes they have sent and received. */
static size_t moved(int first, int last)
{
    size_t bytes = 0;

    for (int i = first; i <= last; i++)
        bytes += clients[i].sent + clients[i].received;
    return bytes;
}

/* The first of them that is connected still, which is waiting for the server. */
_Noreturn static void not_served(int first, int last)
{
    int i = first;

    while (i < last && clients[i].fd == -1)
        i++;
    wrong("%d clients are not served: client %d has sent %zu of %zu bytes and received %zu, "
          "and nothing moved for %d ms",
          count_connected(first, last), i, clients[i].sent, clients[i].size,
          clients[i].received, wait_ms);
}

/* If so, a client may wait for ever: when a listener is closed, the kernel drops connections
 * whose handshake is not complete on its side, and sends no notice. */
static bool server_has_ended(void)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)server, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == server;
}

/* Serves clients until all are disconnected. Returns how many did not receive everything. While
 * bytes move it goes on: with a window of 4 KiB a busy machine needs long for the large
 * message, since each zero window may last until the kernel's next probe. */
static int exchange_all(int first, int last)
{
    int64_t progress = now_ms();
    int lost = 0, left;

    do {
        struct pollfd fds[CLIENTS];
        nfds_t n = 0;
        const size_t before = moved(first, last);
        for (int i = first; i <= last; i++)
            if (clients[i].fd != -1)
                exchange(i);
        if (moved(first, last) != before)
            progress = now_ms();
        for (int i = first; i <= last; i++) /* poll ignores an fd of -1 */
            fds[n++] = (struct pollfd){
                .fd = clients[i].fd,
                .events = clients[i].sent < clients[i].size && may_send(i) ? POLLIN | POLLOUT
                                                                           : POLLIN};
        left = count_connected(first, last);
        if (left > 0 && (now_ms() - progress >= wait_ms || poll(fds, n, wait_ms) == 0)) {
            if (!server_has_ended())
                not_served(first, last);
            for (int i = first; i <= last; i++)
                disconnect(&clients[i]);
            left = 0;
        }
    } while (left > 0);
    for (int i = first; i <= last; i++)
        lost += clients[i].received < clients[i].size;
    return lost;
}

static bool cut_short; /* the last client connected when only some of the calls had failed */

/* Three clients at once, a report, and a last client. The server is told to stop before it has
 * answered that client's message. If the fault has happened by then, no call fails any more
 * when the last client connects. Returns how many clients were lost. */
static int run_clients(uint16_t port)
{
    for (int i = 0; i < LAST; i++)
        connect_client(i, port);
    int lost = exchange_all(0, LAST - 1);
    kill(server, SIGUSR1);
    if (shared->hits > 0) {
        shared->armed = false;
        cut_short = shared->hits < fault->times;
    }
    connect_client(LAST, port);
    struct client *last = &clients[LAST];
    struct pollfd greeted = {.fd = last->fd, .events = POLLIN};
    if (last->fd != -1 && poll(&greeted, 1, wait_ms) == 0) {
        if (!server_has_ended())
            wrong("the last client is not greeted");
        disconnect(last);
    }
    if (last->fd != -1)
        exchange(LAST);
    shared->stopping = true;
    kill(server, SIGTERM);
    return lost + exchange_all(LAST, LAST);
}

/* ---- One run, and the series of runs ----------------------------------------------------- */

/* Is the server's stderr one line that begins with its name and has the reason? (For a lack of
 * memory there are several texts.) */
static bool printed_the_reason(void)
{
    const char *text = text_of(error_file);
    const char *reason =
        fault->error > 0 && fault->error != ENOMEM ? strerror(fault->error) : "";

    return strncmp(text, "server: ", 8) == 0 && strchr(text, '\n') == strrchr(text, '\n') &&
           strstr(text, reason) != NULL;
}

static int descriptors; /* open at the end of a good run */

/* Returns how many lines about clients in the log end like that. */
static int count_lines(const char *end)
{
    FILE *log = fdopen(dup(output_file), "r");
    char line[200];
    int count = 0;

    assert_non_null(log);
    rewind(log);
    while (fgets(line, sizeof line, log) != NULL)
        count += strncmp(line, "peer (", 6) == 0 && strstr(line, end) != NULL;
    fclose(log);
    return count;
}

/* The last bytes of the file, which may be long: step 3 describes each call. */
static const char *end_of(int file)
{
    const off_t size = lseek(file, 0, SEEK_END);

    return text_from(file, size > 4000 ? size - 4000 : 0);
}

/* Does the last report in the log agree with what was seen? */
static void check_report(int connected, int lost)
{
    const char *report = end_of(output_file), *next = report;
    unsigned long rejected = 0, in = 0, out = 0, all = 0;

    while ((next = strstr(next + 1, "\nClients: ")) != NULL)
        report = next;
    if ((next = strstr(report, " at once; ")) != NULL)
        rejected = strtoul(next + strlen(" at once; "), NULL, 10);
    if ((next = strstr(report, "\nBytes: ")) == NULL ||
        sscanf(next, "\nBytes: %lu in, %lu out.", &in, &out) != 2)
        wrong("it ends without a report");
    if (connected + (int)rejected != CLIENTS)
        wrong("%d clients came, but it connected %d and rejected %lu", CLIENTS, connected,
              rejected);
    for (int i = 0; i < CLIENTS; i++) /* the greeting is as long as the '^', which is ignored */
        all += clients[i].size;
    if (lost == 0 && (in != all || out != all))
        wrong("it received and sent %lu bytes, but reports %lu and %lu", all, in, out);
}

/* Waits until the server has written its port, or has ended. Returns whether it has. */
static bool wait_for_server(void)
{
    struct pollfd ready = {.fd = port_pipe[0], .events = POLLIN};
#if defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
    /* That sanitizer keeps a signal for the fiber that runs when the signal comes. The fiber
     * may never run again, so send the signal once more. */
    if (poll(&ready, 1, wait_ms / 10) == 0)
        kill(server, SIGTERM);
#endif
    return poll(&ready, 1, wait_ms) == 1;
}

/* Returns whether the fault was reached. */
static bool run(void)
{
    uint16_t port;
    int status, lost = 0;
    char byte;

    cut_short = false;
    start_server();
    if (!wait_for_server())
        wrong("it neither starts nor ends");
    bool started = read(port_pipe[0], &port, sizeof port) == sizeof port;
    if (started)
        lost = run_clients(port);
    if (!wait_for_server() || read(port_pipe[0], &byte, 1) != 0)
        wrong("it does not end");
    assert_int_equal(waitpid(server, &status, 0), server);
    close(port_pipe[0]);
    server = 0;
    if (!WIFEXITED(status))
        wrong("signal %d ended it", WTERMSIG(status));
    bool good = WEXITSTATUS(status) == 0;
    bool wrote = fault->call == CALL_write || fault->call == CALL_ftruncate;
    bool listened = strstr(text_of(output_file), "Listening on 127.0.0.1:") != NULL;
    if (!good && (WEXITSTATUS(status) != 1 || shared->hits == 0 || (listened && !wrote)))
        wrong("its exit status is %d", WEXITSTATUS(status));
    if (!good && !printed_the_reason())
        wrong("it does not print in one line why it ended");
    if (fault->says != NULL && shared->hits > 0 &&
        strstr(text_of(error_file), fault->says) == NULL)
        wrong("its log does not say '%s'", fault->says);
    if ((good || listened) && lost > shared->may_lose)
        wrong("%d clients are lost, but no more than %d should be", lost, shared->may_lose);
    if (good && shared->blocks != 0)
        wrong("%d blocks of memory have leaked", shared->blocks);
    if (good && nth > 0 && shared->descriptors != descriptors)
        wrong("it leaves %d descriptors open, not %d", shared->descriptors, descriptors);
    if (nth == 0)
        descriptors = shared->descriptors;
    bool must_have_slept = fault->sleep == ALWAYS && shared->hits > 0 && !cut_short;
    bool may_have_slept = fault->sleep != NEVER && shared->hits > 0;
    if (good && (shared->sleeps > 0 ? !may_have_slept : must_have_slept))
        wrong("it slept %d times", shared->sleeps);
    int connected = count_lines(") connected\n"),
        disconnected = count_lines(") disconnected\n");
    if (good && fault->call != CALL_write && fault->call != CALL_poll) { /* the log is whole */
        if (connected != disconnected)
            wrong("its log has %d clients connected and %d disconnected", connected,
                  disconnected);
        check_report(connected, lost);
    }
    if (shared->misses > 0)
        wrong("it sends %d signals to processes that have ended", shared->misses);
    return shared->hits > 0;
}

enum { MAX_CALLS = 20 }; /* a busy loop may make any number of them */

static void fail_each_call(void **state)
{
    fault = *state;
    for (nth = 1; nth <= MAX_CALLS && run(); nth++)
        ;
}

/* Does the server make this call, and could the call return this? An edge-triggered server
 * learns only once that a socket is ready, so it must be able to rely on EAGAIN. */
static bool makes_sense(const struct fault *f)
{
    return shared->calls[f->call] > 0 && !(shared->edge_triggered && f->error == EAGAIN &&
                                           (f->call == CALL_recv || f->call == CALL_send));
}

/* After a test, which may have failed anywhere. */
static int clear_up(void **state)
{
    (void)state;
    if (server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
        close(port_pipe[0]);
    }
    server = 0;
    for (int i = 0; i < CLIENTS; i++)
        disconnect(&clients[i]);
    return 0;
}

static const char *name(const struct fault *f)
{
    static char texts[FAULTS][100];
    char *text = texts[f - faults];

    snprintf(text, sizeof *texts, "%s x %d: %s%s", names[f->call], f->times,
             f->error == ONE_BYTE ? "one byte"
             : f->error == 0      ? "fails"
                                  : strerror(f->error),
             f->reserve_fails > 0 ? ", and no reserve"
             : f->watch_fails > 0 ? ", and no other interest"
                                  : "");
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
        wait_ms = (int)(wait_ms * strtod(slow, NULL));
    static FILE *files[2]; /* static, as we need them to the end */
    shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    files[0] = tmpfile();
    files[1] = tmpfile();
    if (files[0] == NULL || files[1] == NULL || shared == MAP_FAILED)
        return 1;
    error_file = fileno(files[0]);
    output_file = fileno(files[1]);
    fault = &faults[0];
    run();
    for (int row = 0; row < FAULTS; row++)
        if (makes_sense(&faults[row]))
            tests[n++] = (struct CMUnitTest){name(&faults[row]), fail_each_call, NULL, clear_up,
                                             (void *)&faults[row]};
    return _cmocka_run_group_tests("faults", tests, (size_t)n, NULL, NULL);
}
