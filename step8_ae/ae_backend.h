/* ae_backend.h - what ae.c needs from an operating system: six functions, written once for each
 * way to wait (ae_epoll.c, ae_kqueue.c, ae_poll.c, ae_select.c). One of these files is linked.
 */
#ifndef AE_BACKEND_H
#define AE_BACKEND_H

#include "ae.h"

/* Allocates loop->apidata, without room for any descriptor. 0, or -1 with errno. */
int aeApiCreate(aeEventLoop *loop);

/* Makes room for setsize descriptors. Those up to loop->maxfd are in use. On -1 there is still
 * enough room for the smaller of both sizes. */
int aeApiResize(aeEventLoop *loop, int setsize);

void aeApiFree(aeEventLoop *loop);

/* Watches fd for mask (a set of AE_READABLE and AE_WRITABLE) instead of old. Either may be
 * AE_NONE. Returns 0, or -1 with errno. If mask has all bits of old, a failure changes nothing.
 * In this case fd may have been closed, and its number opened again: then the new open file is
 * watched. If mask lacks a bit of old, this fails only if fd is closed. */
int aeApiWatch(aeEventLoop *loop, int fd, int old, int mask);

/* Sleeps until a descriptor is ready, at most timeout milliseconds (-1: without limit). Fills
 * loop->fired, one entry for each ready descriptor, and returns how many; or -1 with errno,
 * such as EINTR when a signal arrives. */
int aeApiPoll(aeEventLoop *loop, int timeout);

char *aeApiName(void);

#endif
