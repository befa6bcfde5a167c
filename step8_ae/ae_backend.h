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
 * AE_NONE. If mask has all of old, fd may be another open file by now, to be watched as well;
 * and on -1 with errno nothing has changed. With less than old this fails only if fd is closed.
 */
int aeApiWatch(aeEventLoop *loop, int fd, int old, int mask);

/* Sleeps until a descriptor is ready, at most timeout milliseconds (-1: without limit). Fills
 * loop->fired, one entry a descriptor, and returns how many; -1 with errno if that failed, as
 * it does when a signal arrives (EINTR). */
int aeApiPoll(aeEventLoop *loop, int timeout);

char *aeApiName(void);

#endif
