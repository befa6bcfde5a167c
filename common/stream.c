#include "stream.h"
#include "server.h"
#include "clock.h"
#include "options.h"
#include "stop.h"

#include <errno.h>
#include <limits.h>

int stream_accept(struct net_listener *listener, struct address *peer)
{
    int fd = -1;

    while (fd == -1 && !stop_requested()) {
        server_report_if_asked(); /* SIGUSR1 may have come since the last call */
        fd = server_accept(listener, peer);
    }
    if (fd != -1 && options->idle_timeout_ms > 0)
        net_set_timeout(fd, options->idle_timeout_ms);
    return fd;
}

/* A call that is made again after EINTR starts its time-out again. Has one time-out passed
 * since the first of these calls was interrupted? *interrupted_since is that moment; 0 before
 * it, and after bytes have moved. */
static bool is_overdue(int fd, int64_t *interrupted_since)
{
    const int64_t now = clock_ms(), limit = net_timeout(fd);

    if (*interrupted_since == 0)
        *interrupted_since = now;
    return limit > 0 && now - *interrupted_since >= limit;
}

ssize_t stream_recv(int fd, void *bytes, size_t n)
{
    int64_t interrupted_since = 0;

    for (;;) {
        server_report_if_asked();
        if (stop_deadline_passed() || (stop_requested() && !net_readable(fd, STOP_LINGER_MS))) {
            errno = EINTR;
            return -1;
        }
        ssize_t got = net_recv(fd, bytes, n);
        if (got != -1 || errno != EINTR)
            return got;
        if (is_overdue(fd, &interrupted_since) && !net_readable(fd, 0)) {
            errno = EAGAIN;
            return -1;
        }
    }
}

/* Has the client taken anything since we last asked? */
static bool is_draining(int fd, int *sendq)
{
    int before = *sendq;

    *sendq = net_sendq(fd);
    return *sendq < before;
}

int stream_send(int fd, const void *bytes, size_t n)
{
    const unsigned char *next = bytes;
    int64_t interrupted_since = 0;
    int sendq = INT_MAX;

    while (n > 0) {
        server_report_if_asked();
        ssize_t sent = net_send(fd, next, n);
        if (sent > 0) {
            interrupted_since = 0;
            next += sent;
            n -= (size_t)sent;
            if (n > 0) /* the time-out has ended this send, and may end the next, too */
                sendq = net_sendq(fd);
        } else if (errno != EINTR || is_overdue(fd, &interrupted_since)) {
            if (errno == EINTR)
                errno = EAGAIN;
            if (!net_is_again(errno) || !is_draining(fd, &sendq))
                return -1;
            interrupted_since = 0;
        }
        if (n > 0 && stop_deadline_passed()) {
            errno = EINTR;
            return -1;
        }
    }
    return 0;
}
