#include "net.h"
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#if defined __linux__ && defined __has_include
#if __has_include(<linux/filter.h>) /* musl's compiler does not see it */
#include <linux/filter.h>
#endif
#endif

#ifndef MSG_NOSIGNAL /* macOS: a socket option instead, set in net_accept */
#define MSG_NOSIGNAL 0
#endif

enum { REST_MS = 10 };

static int close_keeping_errno(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* A copy of descriptor 0: that exists (server_start opens 0 to 2), and no file is needed. */
static int open_reserved(void)
{
    return fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
}

/* Listens on an address; with SO_REUSEPORT beside other sockets that have it, too. */
static int listen_on(const struct sockaddr *address, socklen_t size, bool beside)
{
    int on = 1;
    int fd = socket(address->sa_family, SOCK_STREAM, 0);

    if (fd == -1)
        return -1;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == -1 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1 ||
        (beside && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == -1) ||
        bind(fd, address, size) == -1 || listen(fd, SOMAXCONN) == -1)
        return close_keeping_errno(fd);
    return fd;
}

/* Fills in the rest of a listener. If its socket is -1, fails: errno says why. */
static int complete(struct net_listener *listener, const char **why)
{
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;

    if (listener->fd == -1) {
        *why = strerror(errno);
        return -1;
    }
    listener->reserved = open_reserved();
    if (listener->reserved == -1 ||
        getsockname(listener->fd, (struct sockaddr *)&bound, &size) == -1) {
        *why = strerror(errno);
        net_unlisten(listener);
        return -1;
    }
    address_from_sockaddr(&listener->address, (struct sockaddr *)&bound);
    return 0;
}

int net_listen(struct net_listener *listener, const char *host, const char *port,
               const char **why)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
    };
    struct addrinfo *addresses;

    int error = getaddrinfo(host, port, &hints, &addresses);
    if (error != 0) {
        *why = error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error);
        return -1;
    }
    *listener = (struct net_listener){.fd = -1, .reserved = -1};
    for (struct addrinfo *a = addresses; a != NULL && listener->fd == -1; a = a->ai_next)
        listener->fd = listen_on(a->ai_addr, a->ai_addrlen, false);
    error = errno;
    freeaddrinfo(addresses);
    errno = error;
    return complete(listener, why);
}

/* Why fd is not a listening TCP socket; NULL if it is one. */
static const char *unlike_a_listener(int fd)
{
    int type = 0, listens = 0;
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;

    if (getsockname(fd, (struct sockaddr *)&bound, &size) == -1)
        return strerror(errno);
    if (bound.ss_family != AF_INET && bound.ss_family != AF_INET6)
        return "not an internet socket";
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof type}) == -1 ||
        type != SOCK_STREAM ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &(socklen_t){sizeof listens}) ==
            -1 ||
        !listens)
        return "not a listening TCP socket";
    return NULL;
}

int net_listen_passed(struct net_listener *listener, int fd, const char **why)
{
    *listener = (struct net_listener){.fd = -1, .reserved = -1, .passed = true};
    *why = unlike_a_listener(fd);
    if (*why != NULL)
        return -1;
    const int flags = fcntl(fd, F_GETFL);
    if (flags == -1 || fcntl(fd, F_SETFD, FD_CLOEXEC) == -1 ||
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == -1) {
        *why = strerror(errno);
        return -1;
    }
    listener->fd = fd;
    return complete(listener, why);
}

int net_listen_dup(struct net_listener *another, const struct net_listener *first)
{
    *another = *first;
    another->reserved = -1;
    another->fd = fcntl(first->fd, F_DUPFD_CLOEXEC, 0);
    if (another->fd == -1)
        return -1;
    another->reserved = open_reserved();
    return another->reserved == -1 ? close_keeping_errno(another->fd) : 0;
}

/* The first socket was bound without SO_REUSEPORT, so that a second server cannot share the
 * port by mistake. From now on other sockets of the same user can share it. */
int net_listen_reuseport(struct net_listener *another, const struct net_listener *first)
{
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    int on = 1;

    *another = *first;
    another->reserved = -1;
    if (getsockname(first->fd, (struct sockaddr *)&bound, &size) == -1 ||
        setsockopt(first->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == -1)
        return -1;
#ifdef SO_DETACH_REUSEPORT_BPF /* in case the server before this one called net_only_first */
    setsockopt(first->fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &on, sizeof on);
#endif
    another->fd = listen_on((struct sockaddr *)&bound, size, true);
    if (another->fd == -1)
        return -1;
    another->reserved = open_reserved();
    return another->reserved == -1 ? close_keeping_errno(another->fd) : 0;
}

/* A filter program chooses among the listeners, which are numbered in the order in which they
 * were made (socket(7), SO_ATTACH_REUSEPORT_CBPF). This one is one instruction: return 0. */
int net_only_first(const struct net_listener *any)
{
#if defined SO_DETACH_REUSEPORT_BPF && defined BPF_STMT
    struct sock_filter return_0 = BPF_STMT(BPF_RET | BPF_K, 0);
    const struct sock_fprog program = {.len = 1, .filter = &return_0};

    return setsockopt(any->fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
#else
    (void)any;
    errno = ENOPROTOOPT;
    return -1;
#endif
}

void net_shut(const struct net_listener *listener)
{
    if (!listener->passed)
        shutdown(listener->fd, SHUT_RDWR);
}

void net_unlisten(struct net_listener *listener)
{
    close(listener->fd);
    if (listener->reserved != -1)
        close(listener->reserved);
    listener->fd = listener->reserved = -1;
}

static int accept_once(int fd, struct address *peer)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    int client = accept(fd, (struct sockaddr *)&address, &size);

    stats_add(&stats.accept_calls, 1);
    if (client != -1)
        address_from_sockaddr(peer, (struct sockaddr *)&address);
    return client;
}

/* Only the reserved descriptor is left: accepts the connection with that. Keeps the connection
 * if the reserve can be replaced, because then a client has left meanwhile. Else closes it. */
static int accept_with_reserved(struct net_listener *listener, struct address *peer)
{
    int error = errno;

    close(listener->reserved);
    int client = accept_once(listener->fd, peer);
    if (client == -1)
        error = errno;
    listener->reserved = open_reserved();
    if (client != -1 && listener->reserved == -1) {
        close(client);
        client = NET_REJECTED;
        listener->reserved = open_reserved();
    }
    errno = error;
    return client;
}

/* While a thread has closed its reserved descriptor, no other thread must accept a client with
 * the freed number. So a thread holds this lock for reading while it accepts, and for writing
 * while its reserved descriptor is closed. */
static pthread_rwlock_t accepting = PTHREAD_RWLOCK_INITIALIZER;

static int accept_any(struct net_listener *listener, struct address *peer)
{
    pthread_rwlock_rdlock(&accepting);
    if (listener->reserved == -1)
        listener->reserved = open_reserved();
    int client = accept_once(listener->fd, peer);
    pthread_rwlock_unlock(&accepting);
    if (client == -1 && net_is_out_of_descriptors(errno) && listener->reserved != -1) {
        pthread_rwlock_wrlock(&accepting);
        client = accept_with_reserved(listener, peer);
        pthread_rwlock_unlock(&accepting);
    }
    return client;
}

/* After accept has failed: may it succeed at once? It may if a signal came, if no connection
 * waits, or if one that waited has died. Any other error may last, such as EPERM from a
 * security module that forbids accept. */
static bool may_accept_again(int error)
{
    return error == EINTR || error == ECONNABORTED || error == EPROTO || net_is_again(error);
}

int net_accept(struct net_listener *listener, struct address *peer)
{
    int on = 1;

    *peer = (struct address){0};
    int client = accept_any(listener, peer);
    if (client == -1 && !may_accept_again(errno)) {
        int error = errno;
        poll(NULL, 0, REST_MS);
        errno = error;
    }
    if (client < 0)
        return client;
    /* These fail only on a connection that is dead already. The first recv reports that. */
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

int64_t net_timeout(int fd)
{
    struct timeval limit = {0};

    getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &(socklen_t){sizeof limit});
    return (int64_t)limit.tv_sec * 1000 + limit.tv_usec / 1000;
}

bool net_is_again(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK;
}

bool net_is_out_of_descriptors(int error)
{
    return error == EMFILE || error == ENFILE;
}

bool net_readable(int fd, int ms)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    char byte;
    int n = poll(&wanted, 1, ms);

    if (n != -1 || errno != EINVAL)
        return n != 0;
    poll(NULL, 0, ms); /* RLIMIT_NOFILE was lowered to 0 */
    if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != -1)
        return true;
    return !net_is_again(errno) && errno != ENOTCONN; /* a listener: it can accept none now */
}

int net_poll(struct pollfd *fds, nfds_t n, int ms)
{
    int ready = poll(fds, n, ms);

    if (ready != -1 || errno != EINVAL)
        return ready;
    if (ms != 0)
        poll(NULL, 0, REST_MS);
    ready = 0;
    for (nfds_t i = 0; i < n; i++) {
        fds[i].revents = fds[i].events; /* in case poll fails even for one */
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
    else if (got == -1 && net_is_again(errno))
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
    else if (sent == -1 && net_is_again(errno))
        stats_add(&stats.send_again, 1);
    return sent;
}

int net_sendq(int fd)
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
