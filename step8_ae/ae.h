/* ae.h - an event loop: "call me when this descriptor is ready", "call me in 200 ms".
 *
 *     create events -> aeMain: +--> before-sleep hook
 *                              |    sleep until a descriptor is ready or a timer is due
 *                              |    after-sleep hook
 *                              |    call back for every ready descriptor
 *                              +--- call back for every due timer
 *
 * To use it elsewhere, take ae.h, ae_backend.h, ae.c and one back-end: ae_epoll.c, ae_kqueue.c,
 * ae_poll.c or ae_select.c. They need nothing but C11 and POSIX. A loop belongs to one thread;
 * nothing here locks.
 *
 * One turn of the picture is an iteration. Readiness is level-triggered: what a callback leaves
 * unread is reported again in the next iteration. Callbacks may create and delete any event,
 * their own included. If a descriptor is deleted and closed, and its number is opened again in
 * the same iteration, the new one does not get the reports of the old one.
 *
 * Names, types and semantics are those of the loop inside Redis 7, so that programs written for
 * that loop compile and run on this one. The differences:
 *   - A callback's mask holds only what its descriptor is watched for. Redis adds the other bit
 *     after a hang-up or an error.
 *   - aeCreateFileEvent without AE_READABLE and AE_WRITABLE fails, unless fd is watched for one
 *     of them already. Redis accepts a mask of 0 and never calls back.
 *   - aeWait sets AE_READABLE, too, after a hang-up, if it was asked for; Redis sets only
 *     AE_WRITABLE. For a closed descriptor it fails; Redis returns 0.
 *   - Timers that are due together are called in the order of their times, then of creation.
 *     Redis calls the newest first.
 *   - aeDeleteEventLoop calls the finalizers of the timers that are left. Redis does not.
 *   - If waiting fails, and no signal caused that, the loop pauses for 10 ms and goes on. The
 *     after-sleep hook finds the reason in waitError. Redis ends the program.
 *   - A hook that calls aeStop keeps its iteration from sleeping. In Redis it sleeps once more.
 *   - Not here: Redis's privdata and monotonic.h; valkey's aePoll, aeSetCustomPollProc and
 *     aeSetPollProtect, and the second argument of its after-sleep hook. The fields of
 *     aeTimeEvent are private.
 */
#ifndef AE_H
#define AE_H

/* What functions that return int return. After AE_ERR, errno says why. */
#define AE_OK  0
#define AE_ERR (-1)

/* What to watch a descriptor for, and what happened to it: a set of these. A hang-up or an
 * error counts as both readable and writable: the next read or write will not block, and its
 * result says what happened. */
#define AE_NONE     0
#define AE_READABLE 1
#define AE_WRITABLE 2
#define AE_BARRIER  4 /* with AE_WRITABLE: in each iteration call back for writing first */

/* What aeProcessEvents is to do: a set of these. */
#define AE_FILE_EVENTS       1
#define AE_TIME_EVENTS       2
#define AE_ALL_EVENTS        (AE_FILE_EVENTS | AE_TIME_EVENTS)
#define AE_DONT_WAIT         4  /* only look, never sleep */
#define AE_CALL_BEFORE_SLEEP 8  /* call the hook set by aeSetBeforeSleepProc */
#define AE_CALL_AFTER_SLEEP  16 /* call the hook set by aeSetAfterSleepProc */

#define AE_NOMORE           (-1) /* returned by a timer's callback: do not call me again */
#define AE_DELETED_EVENT_ID (-1) /* never the id of a timer */

#define AE_NOTUSED(V) ((void)(V))

struct aeEventLoop;

/* Descriptor fd is ready: mask says for what. If both callbacks of a descriptor are the same
 * function and both are due, it is called once, with both bits set. */
typedef void aeFileProc(struct aeEventLoop *loop, int fd, void *clientData, int mask);

/* Timer id is due. Returns after how many milliseconds to call again (counted from the return;
 * 0 = in the next iteration), or AE_NOMORE. */
typedef int aeTimeProc(struct aeEventLoop *loop, long long id, void *clientData);

/* The timer with this clientData no longer exists. This is the place to free clientData. */
typedef void aeEventFinalizerProc(struct aeEventLoop *loop, void *clientData);

/* A hook, called before or after the sleep. */
typedef void aeBeforeSleepProc(struct aeEventLoop *loop);

/* One descriptor; the descriptor's number is its place in the table. */
typedef struct aeFileEvent {
    int mask;              /* what it is watched for; AE_NONE: not at all */
    unsigned iteration;    /* registered in this one: its reports are about an older fd */
    aeFileProc *rfileProc; /* called when readable */
    aeFileProc *wfileProc; /* called when writable */
    void *clientData;      /* handed to both */
} aeFileEvent;

/* One timer: private to ae.c. */
typedef struct aeTimeEvent aeTimeEvent;

/* What the back-end reports for one descriptor. */
typedef struct aeFiredEvent {
    int fd;
    int mask;
} aeFiredEvent;

typedef struct aeEventLoop {
    int maxfd;                 /* highest descriptor registered, -1 if none */
    int setsize;               /* descriptors must be below this */
    long long timeEventNextId; /* the next timer's id: 0, 1, 2, ... */
    aeFileEvent *events;       /* [setsize], by descriptor; above maxfd not filled in */
    aeFiredEvent *fired;       /* [setsize], what this iteration's wait reported */
    struct aeTimers *timers;   /* all timers, private to ae.c */
    int stop;                  /* set: aeMain returns after this iteration */
    unsigned iteration;        /* counts the waits; it may wrap around */
    int waitError;             /* the errno of the last wait, 0 if that has not failed */
    void *apidata;             /* private to the back-end */
    aeBeforeSleepProc *beforesleep;
    aeBeforeSleepProc *aftersleep;
    int flags; /* AE_DONT_WAIT or 0, see aeSetDontWait */
} aeEventLoop;

/* ------------------------------------------------------------------------ the loop */

/* A loop for descriptors 0 to setsize - 1, or NULL with errno. It costs about 40 bytes for each
 * descriptor in use (poll 50, kqueue 100). Room for the others is only reserved. */
aeEventLoop *aeCreateEventLoop(int setsize);

/* Calls the finalizers of all timers left, which can create no more timers. Then frees the
 * loop. Closes no descriptor of yours. Do not call it from a callback. */
void aeDeleteEventLoop(aeEventLoop *loop);

/* Runs iterations, with hooks, until aeStop. */
void aeMain(aeEventLoop *loop);

/* Makes aeMain return at the end of the current iteration. aeMain forgets an earlier call. */
void aeStop(aeEventLoop *loop);

/* Runs one iteration with the events that flags name. Returns for how many descriptors and
 * timers it called back. Sleeps until there is at least one, or a signal arrives. With
 * AE_FILE_EVENTS alone it returns at once if no descriptor is registered. With AE_TIME_EVENTS
 * alone a ready descriptor ends the sleep, too, but is left for later. Hooks are called even
 * with AE_DONT_WAIT if a descriptor is registered. If very many descriptors are ready, some may
 * be left to the next iteration. A callback may call this function. The outer iteration then
 * leaves its remaining descriptors to the next one. */
int aeProcessEvents(aeEventLoop *loop, int flags);

/* How many descriptors the loop can hold, and a change of it. AE_ERR with ERANGE if a
 * registered descriptor would not fit, ENOMEM if memory is short. Then nothing has changed. */
int aeGetSetSize(aeEventLoop *loop);
int aeResizeSetSize(aeEventLoop *loop, int setsize);

/* Hooks called around the sleep of each iteration of aeMain; NULL for none. */
void aeSetBeforeSleepProc(aeEventLoop *loop, aeBeforeSleepProc *beforesleep);
void aeSetAfterSleepProc(aeEventLoop *loop, aeBeforeSleepProc *aftersleep);

/* With noWait 1, every iteration has AE_DONT_WAIT. With 0, only those that ask for it. */
void aeSetDontWait(aeEventLoop *loop, int noWait);

/* The back-end linked in: "epoll", "kqueue", "poll" or "select". */
char *aeGetApiName(void);

/* ------------------------------------------------------------------------ descriptors */

/* Watches fd for mask (AE_READABLE, AE_WRITABLE or both; AE_BARRIER may be added), in addition
 * to what it is watched for already. Calls proc when fd is ready; if fd is new to the loop,
 * from the next iteration on. clientData replaces what was given before for fd. AE_ERR: ERANGE
 * if fd is outside the loop or the back-end, EBADF if it is not open, EINVAL without a mask, or
 * what else the kernel reports. */
int aeCreateFileEvent(aeEventLoop *loop, int fd, int mask, aeFileProc *proc, void *clientData);

/* Stops watching fd for mask. Without AE_WRITABLE, AE_BARRIER is removed, too. Never fails.
 * Delete a descriptor's events before you close it. Otherwise the loop still holds them when
 * the number is used again, and the next aeCreateFileEvent adds to them. */
void aeDeleteFileEvent(aeEventLoop *loop, int fd, int mask);

/* What fd is watched for, and the clientData given for it; AE_NONE and NULL if not at all. */
int aeGetFileEvents(aeEventLoop *loop, int fd);
void *aeGetFileClientData(aeEventLoop *loop, int fd);

/* Needs no loop. Sleeps until fd is ready for something in mask, at most that many milliseconds
 * (negative: without limit). Returns what it is ready for, 0 after that time, or AE_ERR with
 * errno (EINTR: a signal arrived). A hang-up or an error always sets AE_WRITABLE, and
 * AE_READABLE if mask has it. */
int aeWait(int fd, int mask, long long milliseconds);

/* ------------------------------------------------------------------------ timers */

/* Calls proc after that many milliseconds, never earlier, by a clock that nobody sets. Returns
 * the timer's id (0 or more), or AE_ERR. Timers due together are called in the order of their
 * times, and those due at the same time in the order of creation. A timer created by a timer's
 * callback is not called before the next iteration. finalizerProc may be NULL. Among n timers,
 * creating, deleting and calling one takes O(log n). */
long long aeCreateTimeEvent(aeEventLoop *loop, long long milliseconds, aeTimeProc *proc,
                            void *clientData, aeEventFinalizerProc *finalizerProc);

/* Deletes timer id, which is not called again. AE_ERR with ENOENT if there is no such timer.
 * Its finalizer runs once, in this or the next iteration with AE_TIME_EVENTS. It never runs
 * inside this call, so that a timer may delete itself. */
int aeDeleteTimeEvent(aeEventLoop *loop, long long id);

#endif
