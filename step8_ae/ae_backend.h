/* ae_backend.h - what ae.c needs from an operating system: six functions, written once for each
 * way to wait (ae_epoll.c, ae_kqueue.c, ae_poll.c, ae_select.c). The linker picks one file.
 */
#ifndef AE_BACKEND_H
#define AE_BACKEND_H

#include "ae.h"

/* Allocates loop->apidata, without room for any descriptor. 0, or -1 with errno. */
int aeApiCreate(aeEventLoop *loop);

/* Makes room for setsize descriptors, of which those up to loop->maxfd are in use. On -1 there
 * is still enough room for the smaller of both sizes. */
int aeApiResize(aeEventLoop *loop, int setsize);

void aeApiFree(aeEventLoop *loop);

/* From now on watches fd for mask (of AE_READABLE and AE_WRITABLE), and no longer for old,
 * which differs. One of them may be AE_NONE. On -1 with errno nothing has changed, unless mask
 * is less than old: then fd is likely closed, and there is nothing to undo. */
int aeApiWatch(aeEventLoop *loop, int fd, int old, int mask);

/* Sleeps until a descriptor is ready, at most timeout milliseconds (-1: for ever). Fills
 * loop->fired, one entry a descriptor, and returns how many; 0 or -1 if a signal came. */
int aeApiPoll(aeEventLoop *loop, int timeout);

char *aeApiName(void);

#endif
