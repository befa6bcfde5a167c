/* ae_poll.c - the back-end for any system: we keep the list, and the kernel walks all of it. */
#define _POSIX_C_SOURCE 200809L /* NOLINT(bugprone-reserved-identifier,cert-dcl*) */
#include "ae_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>

enum { INTERVAL_MS = 10 };

/* poll wants a list without gaps, and we want to find a descriptor in it. */
struct apidata {
    int n;               /* descriptors watched */
    struct pollfd *list; /* [n], room for setsize */
    int *slot;           /* [setsize], by descriptor: its place in list */
};

int aeApiCreate(aeEventLoop *loop)
{
    loop->apidata = calloc(1, sizeof(struct apidata));
    return loop->apidata == NULL ? -1 : 0;
}

int aeApiResize(aeEventLoop *loop, int setsize)
{
    struct apidata *api = loop->apidata;
    struct pollfd *list = realloc(api->list, (size_t)setsize * sizeof *list);

    if (list == NULL)
        return -1;
    api->list = list;

    int *slot = realloc(api->slot, (size_t)setsize * sizeof *slot);

    if (slot == NULL)
        return -1;
    api->slot = slot;
    return 0;
}

void aeApiFree(aeEventLoop *loop)
{
    struct apidata *api = loop->apidata;

    free(api->list);
    free(api->slot);
    free(api);
}

int aeApiWatch(aeEventLoop *loop, int fd, int old, int mask)
{
    struct apidata *api = loop->apidata;

    if ((old & ~mask) == 0 && fcntl(fd, F_GETFD) == -1)
        return -1;
    if (old == AE_NONE)
        api->slot[fd] = api->n++;

    struct pollfd *place = &api->list[api->slot[fd]];

    if (mask == AE_NONE) { /* the last one fills the gap */
        *place = api->list[--api->n];
        api->slot[place->fd] = api->slot[fd];
        return 0;
    }
    place->fd = fd;
    place->events =
        (short)((mask & AE_READABLE ? POLLIN : 0) | (mask & AE_WRITABLE ? POLLOUT : 0));
    return 0;
}

/* poll fails for more descriptors than RLIMIT_NOFILE allows, even if all are open: the limit
 * may have been lowered since. So this asks for one at a time. */
static int pollOneByOne(struct apidata *api, int timeout)
{
    int ready = 0;

    if (timeout != 0)
        poll(NULL, 0, INTERVAL_MS);
    for (int i = 0; i < api->n; i++) {
        api->list[i].revents = api->list[i].events; /* in case even one is too many */
        poll(&api->list[i], 1, 0);
        ready += api->list[i].revents != 0;
    }
    return ready;
}

int aeApiPoll(aeEventLoop *loop, int timeout)
{
    struct apidata *api = loop->apidata;
    int n = poll(api->list, (nfds_t)api->n, timeout), fired = 0;

    if (n == -1 && errno == EINVAL)
        n = pollOneByOne(api, timeout);
    for (int i = 0; fired < n; i++) {
        int happened = api->list[i].revents, mask = AE_NONE;

        if (happened & ~POLLOUT) /* POLLIN, or POLLERR, POLLHUP, POLLNVAL */
            mask |= AE_READABLE;
        if (happened & ~POLLIN)
            mask |= AE_WRITABLE;
        if (happened)
            loop->fired[fired++] = (aeFiredEvent){.fd = api->list[i].fd, .mask = mask};
    }
    return n == -1 ? -1 : fired;
}

char *aeApiName(void)
{
    return "poll";
}
