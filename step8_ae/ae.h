/* ae.h - an event loop: "call me when this descriptor is ready", "call me in 200 ms".
 *
 *     create events -> aeMain: +--> before-sleep hook
 *                              |    sleep until a descriptor is ready or a timer is due
 *                              |    after-sleep hook
 *                              |    call back for every ready descriptor
 *                              +--- call back for every due timer
 *
 * Names, types and semantics are those of the loop inside Redis, so that programs written for
 * that one compile and run on this one. Link ae.c and one back-end: ae_epoll.c, ae_kqueue.c,
 * ae_poll.c or ae_select.c. A loop belongs to one thread; nothing here locks.
 *
 * One turn of the picture is called a lap. Readiness is level-triggered: what a callback leaves
 * unread is reported again in the next lap. Callbacks may create and delete any event, their
 * own included, and a descriptor closed and opened again within a lap never sees what was
 * reported of its predecessor.
 */
#ifndef AE_H
#define AE_H

/* What functions returning int answer; with AE_ERR, errno says why. */
#define AE_OK  0
#define AE_ERR (-1)

/* What to watch a descriptor for, and what happened to it: a set of these. A hang-up or an
 * error counts as both readable and writable: the read or write to come will not block, and
 * tells. */
#define AE_NONE     0
#define AE_READABLE 1
#define AE_WRITABLE 2
#define AE_BARRIER  4 /* with AE_WRITABLE: in one lap call back for writing before reading */

/* What aeProcessEvents shall do: a set of these. */
#define AE_FILE_EVENTS       1
#define AE_TIME_EVENTS       2
#define AE_ALL_EVENTS        (AE_FILE_EVENTS | AE_TIME_EVENTS)
#define AE_DONT_WAIT         4  /* only look, never sleep */
#define AE_CALL_BEFORE_SLEEP 8  /* call the hook set by aeSetBeforeSleepProc */
#define AE_CALL_AFTER_SLEEP  16 /* call the hook set by aeSetAfterSleepProc */

#define AE_NOMORE           (-1) /* returned by a timer's callback: do not call me again */
#define AE_DELETED_EVENT_ID (-1) /* the id of a timer that waits for its finalizer */

#define AE_NOTUSED(V) ((void)(V))

struct aeEventLoop;

/* Descriptor fd is ready: mask says for what. Where both callbacks of a descriptor are the same
 * function and both are due, it is called once, with both bits set. */
typedef void aeFileProc(struct aeEventLoop *loop, int fd, void *clientData, int mask);

/* Timer id is due. Returns after how many milliseconds to call again (counted from the return;
 * 0 = in the next lap), or AE_NOMORE. */
typedef int aeTimeProc(struct aeEventLoop *loop, long long id, void *clientData);

/* The timer with this clientData is gone: the place to free it. */
typedef void aeEventFinalizerProc(struct aeEventLoop *loop, void *clientData);

/* A hook on either side of the sleep. */
typedef void aeBeforeSleepProc(struct aeEventLoop *loop);

/* One descriptor; the descriptor's number is its place in the table. */
typedef struct aeFileEvent {
    int mask;              /* what it is watched for; AE_NONE: not at all */
    unsigned lap;          /* the lap it was registered in, whose reports are not for it */
    aeFileProc *rfileProc; /* called when readable */
    aeFileProc *wfileProc; /* called when writable */
    void *clientData;      /* handed to both */
} aeFileEvent;

/* One timer, in a list sorted by time, the next one first. */
typedef struct aeTimeEvent {
    long long id;                        /* AE_DELETED_EVENT_ID once deleted */
    long long when;                      /* due then: nanoseconds of the monotonic clock */
    aeTimeProc *timeProc;                /* called when due */
    aeEventFinalizerProc *finalizerProc; /* called when gone; may be NULL */
    void *clientData;                    /* handed to both */
    struct aeTimeEvent *prev, *next;
    int refcount; /* how many calls of timeProc are under way (loops can nest) */
} aeTimeEvent;

/* What the back-end reports of one descriptor. */
typedef struct aeFiredEvent {
    int fd;
    int mask;
} aeFiredEvent;

typedef struct aeEventLoop {
    int maxfd;                  /* highest descriptor registered, -1 if none */
    int setsize;                /* descriptors must be below this */
    long long timeEventNextId;  /* ids are given once, counting up */
    aeFileEvent *events;        /* [setsize], by descriptor; above maxfd not filled in */
    aeFiredEvent *fired;        /* [setsize], what this lap's wait reported */
    aeTimeEvent *timeEventHead; /* the timer due next */
    aeTimeEvent *timeEventTail; /* the timer due last */
    int stop;                   /* set: aeMain returns after this lap */
    unsigned lap;               /* counts the waits; wraps round harmlessly */
    void *apidata;              /* the back-end's own */
    aeBeforeSleepProc *beforesleep;
    aeBeforeSleepProc *aftersleep;
    int flags; /* AE_DONT_WAIT or 0, see aeSetDontWait */
} aeEventLoop;

/* ------------------------------------------------------------------------ the loop */

/* A loop for descriptors 0 to setsize - 1, or NULL with errno. It costs about 40 bytes for each
 * descriptor in use (poll 50, kqueue 100); room for those not in use is only reserved. */
aeEventLoop *aeCreateEventLoop(int setsize);

/* Calls the finalizers of all timers left, then frees the loop. Closes no descriptor of yours.
 * Not to be called from a callback; the finalizers cannot create timers any more. */
void aeDeleteEventLoop(aeEventLoop *loop);

/* Runs lap after lap, with hooks, until aeStop. */
void aeMain(aeEventLoop *loop);

/* Makes aeMain return at the end of the lap under way. Asked for before aeMain, it is
 * forgotten. */
void aeStop(aeEventLoop *loop);

/* Runs one lap of what flags ask for and returns how many descriptors and timers were called
 * back for. Sleeps until there is at least one, or a signal came; with AE_FILE_EVENTS alone
 * returns at once if no descriptor is registered. With AE_TIME_EVENTS alone a ready descriptor
 * ends the sleep too, but is left for later. Of very many ready descriptors a lap may leave
 * some to the next. A callback may call this (loops nest); what the outer lap had yet to do
 * with descriptors is then left to its next lap. */
int aeProcessEvents(aeEventLoop *loop, int flags);

/* The most descriptors the loop can hold, and a change of it. AE_ERR with ERANGE if a
 * registered descriptor would not fit, ENOMEM if memory is short; then all is as before. */
int aeGetSetSize(aeEventLoop *loop);
int aeResizeSetSize(aeEventLoop *loop, int setsize);

/* Hooks called around the sleep of each lap of aeMain; NULL for none. */
void aeSetBeforeSleepProc(aeEventLoop *loop, aeBeforeSleepProc *beforesleep);
void aeSetAfterSleepProc(aeEventLoop *loop, aeBeforeSleepProc *aftersleep);

/* As if every lap had AE_DONT_WAIT (noWait 1), or not (0). */
void aeSetDontWait(aeEventLoop *loop, int noWait);

/* The back-end linked in: "epoll", "kqueue", "poll" or "select". */
char *aeGetApiName(void);

/* ------------------------------------------------------------------------ descriptors */

/* Watches fd for mask (AE_READABLE, AE_WRITABLE or both; AE_BARRIER may be added) on top of
 * what it is watched for already, and calls proc then; if fd is new to the loop, from the next
 * lap on. clientData replaces what was given before for fd. AE_ERR: ERANGE if fd is outside the
 * loop or the back-end, EBADF if it is not open, EINVAL without a mask, or what else the kernel
 * says. */
int aeCreateFileEvent(aeEventLoop *loop, int fd, int mask, aeFileProc *proc, void *clientData);

/* Watches fd for mask no longer; without AE_WRITABLE, AE_BARRIER goes too. Never fails. Delete
 * a descriptor's events before you close it: afterwards its number may be another's. */
void aeDeleteFileEvent(aeEventLoop *loop, int fd, int mask);

/* What fd is watched for, and the clientData given for it; AE_NONE and NULL if not at all. */
int aeGetFileEvents(aeEventLoop *loop, int fd);
void *aeGetFileClientData(aeEventLoop *loop, int fd);

/* Without any loop: sleeps until fd is ready for one of mask, at most so many milliseconds
 * (negative: for ever). Returns what it is ready for, 0 if time ran out, AE_ERR with errno
 * (EINTR: a signal came). */
int aeWait(int fd, int mask, long long milliseconds);

/* ------------------------------------------------------------------------ timers */

/* Calls proc in so many milliseconds, never earlier, on a clock that nobody sets. Returns the
 * timer's id (0 or more), or AE_ERR. Timers due together are called in the order of their
 * times, one created meanwhile not before the next lap. finalizerProc may be NULL. */
long long aeCreateTimeEvent(aeEventLoop *loop, long long milliseconds, aeTimeProc *proc,
                            void *clientData, aeEventFinalizerProc *finalizerProc);

/* Timer id will not be called again; AE_ERR if there is none. Its finalizer runs once: in this
 * or the next lap, but never inside this call, so that a timer may delete itself. */
int aeDeleteTimeEvent(aeEventLoop *loop, long long id);

#endif
