/* ae_epoll.c - the Linux back-end: the kernel keeps the list and reports only the descriptors
 * that are ready.
 */
#include "ae_backend.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* At most this many at a time. The kernel looks at a socket when it reports it, and again when
 * it is read. If there were thousands between, the socket would have left the processor's
 * cache. The others are not forgotten: epoll reports in turn. */
enum { EVENTS_PER_WAIT = 256 };

struct apidata {
    int epoll;
    struct epoll_event events[EVENTS_PER_WAIT]; /* where epoll_wait writes */
};

int aeApiCreate(aeEventLoop *loop)
{
    struct apidata *api = malloc(sizeof *api);

    if (api == NULL)
        return -1;
    api->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (api->epoll == -1) {
        free(api);
        return -1;
    }
    loop->apidata = api;
    return 0;
}

int aeApiResize(aeEventLoop *loop, int setsize)
{
    (void)loop, (void)setsize; /* the kernel's list has no limit */
    return 0;
}

void aeApiFree(aeEventLoop *loop)
{
    struct apidata *api = loop->apidata;

    close(api->epoll);
    free(api);
}

int aeApiWatch(aeEventLoop *loop, int fd, int old, int mask)
{
    struct apidata *api = loop->apidata;
    int operation = old == AE_NONE    ? EPOLL_CTL_ADD
                    : mask == AE_NONE ? EPOLL_CTL_DEL
                                      : EPOLL_CTL_MOD;
    struct epoll_event event = {
        .events = (mask & AE_READABLE ? EPOLLIN : 0u) | (mask & AE_WRITABLE ? EPOLLOUT : 0u),
        .data.fd = fd,
    };

    int result = epoll_ctl(api->epoll, operation, fd, &event);

    /* Closing fd removed it from the kernel's list, and its number is in use again. */
    if (result == -1 && operation == EPOLL_CTL_MOD && errno == ENOENT)
        result = epoll_ctl(api->epoll, EPOLL_CTL_ADD, fd, &event);
    return result;
}

int aeApiPoll(aeEventLoop *loop, int timeout)
{
    struct apidata *api = loop->apidata;
    int most = loop->setsize < EVENTS_PER_WAIT ? loop->setsize : EVENTS_PER_WAIT;
    int n = epoll_wait(api->epoll, api->events, most, timeout);

    for (int i = 0; i < n; i++) {
        unsigned happened = api->events[i].events;
        int mask = AE_NONE;

        if (happened & (EPOLLIN | EPOLLERR | EPOLLHUP))
            mask |= AE_READABLE;
        if (happened & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            mask |= AE_WRITABLE;
        loop->fired[i] = (aeFiredEvent){.fd = api->events[i].data.fd, .mask = mask};
    }
    return n;
}

char *aeApiName(void)
{
    return "epoll";
}
