/* ae_kqueue.c - the BSD and macOS back-end. It is like epoll, but readable and writable are two
 * filters of a descriptor, which are added, deleted and reported one by one.
 */
#define _DARWIN_C_SOURCE 1 /* NOLINT(bugprone-reserved-identifier,cert-dcl*) */
#define _NETBSD_SOURCE   1 /* NOLINT(bugprone-reserved-identifier,cert-dcl*) */
#include "ae_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h> /* some systems need it before sys/event.h */

#include <sys/event.h>
#include <sys/time.h>
#include <unistd.h>

struct apidata {
    int kq;
    struct kevent *events;  /* [2 * setsize], where kevent writes: two filters a descriptor */
    unsigned char *pending; /* [setsize], by descriptor: what this wait reported so far */
};

int aeApiCreate(aeEventLoop *loop)
{
    struct apidata *api = calloc(1, sizeof *api);

    if (api == NULL)
        return -1;
    api->kq = kqueue();
    if (api->kq == -1) {
        free(api);
        return -1;
    }
    fcntl(api->kq, F_SETFD, FD_CLOEXEC);
    loop->apidata = api;
    return 0;
}

int aeApiResize(aeEventLoop *loop, int setsize)
{
    struct apidata *api = loop->apidata;
    struct kevent *events = realloc(api->events, 2 * (size_t)setsize * sizeof *events);

    if (events == NULL)
        return -1;
    api->events = events;

    unsigned char *pending = realloc(api->pending, (size_t)setsize);

    if (pending == NULL)
        return -1;
    api->pending = pending;
    memset(pending, AE_NONE, (size_t)setsize); /* it is only used inside aeApiPoll */
    return 0;
}

void aeApiFree(aeEventLoop *loop)
{
    struct apidata *api = loop->apidata;

    close(api->kq);
    free(api->events);
    free(api->pending);
    free(api);
}

/* Adds or deletes one filter. Adding one that exists changes nothing; but if fd was closed, its
 * filters are deleted, and its number may be in use again. */
static int change(int kq, int fd, int from, int to, int kind)
{
    struct kevent ke;

    if (((from | to) & kind) == 0)
        return 0;
    EV_SET(&ke, (uintptr_t)fd, kind == AE_READABLE ? EVFILT_READ : EVFILT_WRITE,
           (to & kind) ? EV_ADD : EV_DELETE, 0, 0, NULL);
    return kevent(kq, &ke, 1, NULL, 0, NULL);
}

int aeApiWatch(aeEventLoop *loop, int fd, int old, int mask)
{
    int kq = ((struct apidata *)loop->apidata)->kq;

    if (change(kq, fd, old, mask, AE_READABLE) == -1)
        return -1;
    if (change(kq, fd, old, mask, AE_WRITABLE) == -1) {
        int reason = errno;

        (void)change(kq, fd, mask, old, AE_READABLE);
        errno = reason;
        return -1;
    }
    return 0;
}

int aeApiPoll(aeEventLoop *loop, int timeout)
{
    struct apidata *api = loop->apidata;
    struct timespec ts = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L};
    int n = kevent(api->kq, NULL, 0, api->events, 2 * loop->setsize, timeout < 0 ? NULL : &ts);
    int fired = 0;

    /* If both filters of a descriptor are ready, it is in the list twice: make it one entry. */
    for (int i = 0; i < n; i++) {
        int fd = (int)api->events[i].ident;

        if (api->pending[fd] == AE_NONE)
            loop->fired[fired++].fd = fd;
        api->pending[fd] |= api->events[i].filter == EVFILT_READ ? AE_READABLE : AE_WRITABLE;
    }
    for (int i = 0; i < fired; i++) {
        int fd = loop->fired[i].fd;

        loop->fired[i].mask = api->pending[fd];
        api->pending[fd] = AE_NONE;
    }
    return n == -1 ? -1 : fired;
}

char *aeApiName(void)
{
    return "kqueue";
}
