#include "net.h"
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL /* macOS: a socket option instead, set in net_accept */
#define MSG_NOSIGNAL 0
#endif

enum { TROUBLE_NAP_MS = 10 };

static int close_keeping_errno(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int listen_on(const struct addrinfo *address)
{
    int on = 1;
    int fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol);

    if (fd == -1)
        return -1;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == -1 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1 ||
        bind(fd, address->ai_addr, address->ai_addrlen) == -1 || listen(fd, SOMAXCONN) == -1)
        return close_keeping_errno(fd);
    return fd;
}

int net_listen(struct net_listener *listener, const char *host, const char *port,
               const char **why)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
    };
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    struct addrinfo *addresses;

    int error = getaddrinfo(host, port, &hints, &addresses);
    if (error != 0) {
        *why = error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error);
        return -1;
    }
    listener->fd = -1;
    for (struct addrinfo *a = addresses; a != NULL && listener->fd == -1; a = a->ai_next)
        listener->fd = listen_on(a);
    error = errno;
    freeaddrinfo(addresses);
    errno = error;
    if (listener->fd == -1) {
        *why = strerror(errno);
        return -1;
    }
    listener->spare = open_spare();
    if (listener->spare == -1 ||
        getsockname(listener->fd, (struct sockaddr *)&bound, &size) == -1) {
        *why = strerror(errno);
        net_unlisten(listener);
        return -1;
    }
    peer_from_sockaddr(&listener->address, (struct sockaddr *)&bound);
    return 0;
}

void net_unlisten(struct net_listener *listener)
{
    close(listener->fd);
    if (listener->spare != -1)
        close(listener->spare);
    listener->fd = listener->spare = -1;
}

static int accept_once(int fd, struct peer *peer)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    int client = accept(fd, (struct sockaddr *)&address, &size);

    stats_add(&stats.accept_calls, 1);
    if (client != -1)
        peer_from_sockaddr(peer, (struct sockaddr *)&address);
    return client;
}

/* No descriptor is left but the spare one: let the newcomer in with it. If a new spare can be
 * had by then, a client has left in the meantime and there is room after all. */
static int accept_with_spare(struct net_listener *listener, struct peer *peer)
{
    int error = errno;

    close(listener->spare);
    int client = accept_once(listener->fd, peer);
    if (client == -1)
        error = errno;
    listener->spare = open_spare();
    if (client != -1 && listener->spare == -1) {
        close(client);
        client = -1;
        listener->spare = open_spare();
    }
    errno = error;
    return client;
}

/* After accept failed: is it worth asking again at once? For the errors of a connection that
 * died while it waited it is: see accept(2), "Error handling". */
static bool may_ask_again(int error)
{
    switch (error) {
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENETUNREACH:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
#ifdef ENONET
    case ENONET:
#endif
        return true;
    }
    return net_is_again(error) || net_is_full(error);
}

int net_accept(struct net_listener *listener, struct peer *peer)
{
    int on = 1;

    *peer = (struct peer){0};
    if (listener->spare == -1)
        listener->spare = open_spare();
    int client = accept_once(listener->fd, peer);
    if (client == -1 && net_is_full(errno) && listener->spare != -1)
        client = accept_with_spare(listener, peer);
    if (client == -1) {
        int error = errno;
        if (listener->spare == -1)
            error = ENOBUFS; /* a full house, and no way to tell anybody */
        if (!may_ask_again(error))
            poll(NULL, 0, TROUBLE_NAP_MS); /* we cannot help it: at least do not spin */
        errno = error;
        return -1;
    }
    /* These can fail only on a connection that is dead already: the first recv will tell. */
    fcntl(client, F_SETFD, FD_CLOEXEC);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef SO_NOSIGPIPE
    setsockopt(client, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
    return client;
}

int net_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags == -1 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int net_set_timeout(int fd, int ms)
{
    const struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == -1)
        return -1;
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static long long clock_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

bool net_overdue(int fd, long long *since)
{
    struct timeval limit = {0};
    const long long now = clock_us();

    if (*since == 0)
        *since = now;
    getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &(socklen_t){sizeof limit});
    const long long us = limit.tv_sec * 1000000LL + limit.tv_usec;
    if (us == 0 || now - *since < us)
        return false;
    *since = 0;
    return true;
}

bool net_is_again(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

bool net_is_full(int error)
{
    return error == EMFILE || error == ENFILE;
}

bool net_readable(int fd, int ms)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    char byte;
    int n = poll(&wanted, 1, ms);

    if (n == -1 && errno == EINVAL) /* even one is more than RLIMIT_NOFILE allows by now */
        return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != -1 || !net_is_again(errno);
    return n != 0;
}

int net_poll(struct pollfd *fds, nfds_t n, int ms)
{
    int ready = poll(fds, n, ms);

    if (ready != -1 || errno != EINVAL)
        return ready;
    if (ms != 0)
        poll(NULL, 0, TROUBLE_NAP_MS);
    ready = 0;
    for (nfds_t i = 0; i < n; i++) {
        fds[i].revents = fds[i].events; /* if even one is too many */
        poll(&fds[i], 1, 0);
        ready += fds[i].revents != 0;
    }
    return ready;
}

ssize_t net_recv(int fd, void *bytes, size_t n)
{
    ssize_t got = recv(fd, bytes, n, 0);

    stats_add(&stats.recv_calls, 1);
    if (got > 0)
        stats_add(&stats.bytes_in, (uint64_t)got);
    else if (got == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
        stats_add(&stats.recv_again, 1);
    return got;
}

ssize_t net_send(int fd, const void *bytes, size_t n)
{
    ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

    stats_add(&stats.send_calls, 1);
    if (sent > 0)
        stats_add(&stats.bytes_out, (uint64_t)sent);
    if (sent >= 0 && (size_t)sent < n)
        stats_add(&stats.send_short, 1);
    else if (sent == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
        stats_add(&stats.send_again, 1);
    return sent;
}

int net_untaken(int fd)
{
    int n = 0;
#ifdef SO_NWRITE /* macOS */
    getsockopt(fd, SOL_SOCKET, SO_NWRITE, &n, &(socklen_t){sizeof n});
#elif defined TIOCOUTQ /* Linux: tcp(7), where it is called SIOCOUTQ */
    ioctl(fd, TIOCOUTQ, &n);
#else
    (void)fd;
#endif
    return n;
}

/* Has the other side taken anything since we last asked? */
static bool is_taking(int fd, int *untaken)
{
    int before = *untaken;

    *untaken = net_untaken(fd);
    return *untaken < before;
}

int net_send_all(int fd, const void *bytes, size_t n, const atomic_bool *give_up)
{
    const unsigned char *next = bytes;
    long long cut = 0;
    int untaken = INT_MAX;

    while (n > 0) {
        ssize_t sent = net_send(fd, next, n);
        if (sent == -1 && (errno != EINTR || net_overdue(fd, &cut)) &&
            !(net_is_again(errno) && is_taking(fd, &untaken))) /* the time of net_set_timeout */
            return -1;
        if (sent > 0) {
            cut = 0;
            next += sent;
            n -= (size_t)sent;
        }
        if (sent > 0 && n > 0)
            is_taking(fd, &untaken); /* short, so it waited as long as it may: from here on */
        if (n > 0 && *give_up) {     /* a signal cut the call short, or stopped it altogether */
            errno = EINTR;
            return -1;
        }
    }
    return 0;
}
