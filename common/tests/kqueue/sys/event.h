/* sys/event.h - the part of BSD's kqueue(2) that kqueue_double.c imitates.
 *
 * With this directory in the include path, code written for kqueue compiles here; linked with
 * kqueue_double.o it runs. For tests only: see kqueue_double.c for what is missing.
 */
#ifndef KQUEUE_DOUBLE_SYS_EVENT_H
#define KQUEUE_DOUBLE_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

#define EVFILT_READ  (-1)
#define EVFILT_WRITE (-2)

#define EV_ADD      0x0001 /* watch, or change the watch there is */
#define EV_DELETE   0x0002
#define EV_ENABLE   0x0004
#define EV_DISABLE  0x0008 /* keep, but do not report */
#define EV_ONESHOT  0x0010 /* delete once reported */
#define EV_CLEAR    0x0020 /* edge-triggered: refused here with EINVAL */
#define EV_RECEIPT  0x0040 /* report the result of this change, 0 if it went well */
#define EV_DISPATCH 0x0080 /* disable once reported */
#define EV_ERROR    0x4000 /* this entry reports a change, data holds its errno */
#define EV_EOF      0x8000 /* the other side has closed, or has shut down its sending side */

struct kevent {
    uintptr_t ident;      /* the descriptor */
    short filter;         /* EVFILT_READ or EVFILT_WRITE */
    unsigned short flags; /* EV_... */
    unsigned int fflags;  /* unused: 0 */
    intptr_t data;        /* READ: bytes to read; WRITE: at least 1 */
    void *udata;          /* comes back as it was given */
};

#define EV_SET(kevp, a, b, c, d, e, f) \
    (*(kevp) = (struct kevent){        \
         .ident = (a), .filter = (b), .flags = (c), .fflags = (d), .data = (e), .udata = (f)})

int kqueue(void);
int kevent(int kq, const struct kevent *changelist, int nchanges, struct kevent *eventlist,
           int nevents, const struct timespec *timeout);

#endif
