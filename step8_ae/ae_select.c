/* ae_select.c - the oldest back-end: two bit sets, and no descriptor beyond FD_SETSIZE. */
#define _POSIX_C_SOURCE 200809L /* NOLINT(bugprone-reserved-identifier,cert-dcl*) */
#include "ae_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/select.h>

struct apidata {
    fd_set readable, writable; /* what we wait for; select writes into copies of them */
};

int aeApiCreate(aeEventLoop *loop)
{
    struct apidata *api = malloc(sizeof *api);

    if (api == NULL)
        return -1;
    FD_ZERO(&api->readable);
    FD_ZERO(&api->writable);
    loop->apidata = api;
    return 0;
}

int aeApiResize(aeEventLoop *loop, int setsize)
{
    (void)loop, (void)setsize; /* the sets never grow */
    return 0;
}

void aeApiFree(aeEventLoop *loop)
{
    free(loop->apidata);
}

int aeApiWatch(aeEventLoop *loop, int fd, int old, int mask)
{
    struct apidata *api = loop->apidata;

    if (fd >= FD_SETSIZE) { /* FD_SET would write past the set */
        errno = ERANGE;
        return -1;
    }
    if ((old & ~mask) == 0 && fcntl(fd, F_GETFD) == -1)
        return -1;
    FD_CLR(fd, &api->readable);
    FD_CLR(fd, &api->writable);
    if (mask & AE_READABLE)
        FD_SET(fd, &api->readable);
    if (mask & AE_WRITABLE)
        FD_SET(fd, &api->writable);
    return 0;
}

/* If one descriptor is closed, select fails for all and does not say which it was. This finds
 * it, reports it as ready and takes it out of the sets. */
static int reportClosed(aeEventLoop *loop)
{
    struct apidata *api = loop->apidata;
    int fired = 0;

    for (int fd = 0; fd <= loop->maxfd; fd++) {
        if (fcntl(fd, F_GETFD) != -1)
            continue;
        FD_CLR(fd, &api->readable);
        FD_CLR(fd, &api->writable);
        loop->fired[fired++] = (aeFiredEvent){.fd = fd, .mask = AE_READABLE | AE_WRITABLE};
    }
    return fired;
}

int aeApiPoll(aeEventLoop *loop, int timeout)
{
    struct apidata *api = loop->apidata;
    struct timeval tv = {.tv_sec = timeout / 1000, .tv_usec = timeout % 1000 * 1000};
    fd_set readable = api->readable, writable = api->writable;
    int n = select(loop->maxfd + 1, &readable, &writable, NULL, timeout < 0 ? NULL : &tv);
    int fired = 0;

    if (n == -1 && errno == EBADF)
        return reportClosed(loop);
    /* A hang-up or an error sets both bits, where they are wanted. */
    for (int fd = 0; n > 0 && fd <= loop->maxfd; fd++) {
        int mask = (FD_ISSET(fd, &readable) ? AE_READABLE : AE_NONE) |
                   (FD_ISSET(fd, &writable) ? AE_WRITABLE : AE_NONE);

        if (mask != AE_NONE)
            loop->fired[fired++] = (aeFiredEvent){.fd = fd, .mask = mask};
    }
    return n == -1 ? -1 : fired;
}

char *aeApiName(void)
{
    return "select";
}
