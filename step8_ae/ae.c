/* ae.c - the event loop itself: descriptors, timers and iterations. How to wait for descriptors
 * is left to a back-end (ae_backend.h). The contract with the user is in ae.h.
 */
#define _POSIX_C_SOURCE 200809L /* NOLINT(bugprone-reserved-identifier,cert-dcl*) */
#include "ae.h"
#include "ae_backend.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define READ_WRITE (AE_READABLE | AE_WRITABLE)

static const long long NS_PER_MS = 1000000;

/* Milliseconds as poll and epoll_wait take them: a longer sleep just ends early. */
static int toTimeout(long long milliseconds)
{
    return milliseconds < 0 ? -1 : milliseconds < INT_MAX ? (int)milliseconds : INT_MAX;
}

/* ------------------------------------------------------------------------ descriptors */

static bool isWatched(const aeEventLoop *loop, int fd)
{
    return fd >= 0 && fd <= loop->maxfd && loop->events[fd].mask != AE_NONE;
}

int aeCreateFileEvent(aeEventLoop *loop, int fd, int mask, aeFileProc *proc, void *clientData)
{
    if (fd < 0 || fd >= loop->setsize) {
        errno = ERANGE;
        return AE_ERR;
    }

    aeFileEvent *fe = &loop->events[fd];
    int before = isWatched(loop, fd) ? fe->mask : AE_NONE, after = before | mask;

    if (!(after & READ_WRITE)) {
        errno = EINVAL;
        return AE_ERR;
    }
    /* The back-end is told even if the mask is the same: fd may be another file by now. */
    if (aeApiWatch(loop, fd, before & READ_WRITE, after & READ_WRITE) == -1)
        return AE_ERR;
    while (loop->maxfd < fd)
        loop->events[++loop->maxfd].mask = AE_NONE;
    if (before == AE_NONE)
        fe->iteration = loop->iteration; /* its reports are about an older fd */
    if (mask & AE_READABLE)
        fe->rfileProc = proc;
    if (mask & AE_WRITABLE)
        fe->wfileProc = proc;
    fe->mask = after;
    fe->clientData = clientData;
    return AE_OK;
}

void aeDeleteFileEvent(aeEventLoop *loop, int fd, int mask)
{
    if (!isWatched(loop, fd))
        return;

    aeFileEvent *fe = &loop->events[fd];
    int before = fe->mask, after = before & ~mask;

    if (!(after & AE_WRITABLE))
        after &= ~AE_BARRIER;
    if ((before ^ after) & READ_WRITE) /* this fails only if fd is closed already */
        (void)aeApiWatch(loop, fd, before & READ_WRITE, after & READ_WRITE);
    fe->mask = after;
    while (loop->maxfd >= 0 && loop->events[loop->maxfd].mask == AE_NONE)
        loop->maxfd--;
}

int aeGetFileEvents(aeEventLoop *loop, int fd)
{
    return isWatched(loop, fd) ? loop->events[fd].mask : AE_NONE;
}

void *aeGetFileClientData(aeEventLoop *loop, int fd)
{
    return isWatched(loop, fd) ? loop->events[fd].clientData : NULL;
}

int aeWait(int fd, int mask, long long milliseconds)
{
    struct pollfd pfd = {
        .fd = fd,
        .events =
            (short)((mask & AE_READABLE ? POLLIN : 0) | (mask & AE_WRITABLE ? POLLOUT : 0)),
    };
    int n = poll(&pfd, 1, toTimeout(milliseconds));

    if (n <= 0)
        return n;
    if (pfd.revents & POLLNVAL) {
        errno = EBADF;
        return AE_ERR;
    }

    int ready = pfd.revents & POLLIN ? AE_READABLE : AE_NONE;

    if (pfd.revents & POLLOUT)
        ready |= AE_WRITABLE;
    if (pfd.revents & (POLLERR | POLLHUP))
        ready |= AE_WRITABLE | (mask & AE_READABLE);
    return ready;
}

/* ------------------------------------------------------------------------ timers */

/* A timer is in two structures: in a table by its id, to be deleted, and in a heap by its time,
 * to be called. While its callback runs it is in the table only. */
struct aeTimeEvent {
    long long id;                        /* AE_DELETED_EVENT_ID once deleted */
    size_t place;                        /* in the heap, or CALLED */
    aeTimeProc *timeProc;                /* called when due */
    aeEventFinalizerProc *finalizerProc; /* called at the end; may be NULL */
    void *clientData;                    /* handed to both */
    struct aeTimeEvent *next;            /* in its list of the table, or among the deleted */
};

static const size_t CALLED = SIZE_MAX;

/* The time is kept here as well, so that comparing two places rarely leaves the heap. */
struct place {
    long long when; /* due then: nanoseconds of the monotonic clock */
    aeTimeEvent *timer;
};

struct aeTimers {
    size_t room;          /* for this many timers: a power of two */
    size_t n;             /* timers in the table */
    size_t waiting;       /* timers in the heap */
    aeTimeEvent **table;  /* [room] lists of timers; the hash of an id says which list */
    struct place *heap;   /* [room]; each is due no earlier than its parent */
    aeTimeEvent *deleted; /* those that wait for their finalizers */
};

enum { LEAST_ROOM = 16 };
enum { CHILDREN = 4 }; /* of a place; with more than 2 the heap has fewer levels */

static bool isBefore(struct place a, struct place b)
{
    return a.when < b.when || (a.when == b.when && a.timer->id < b.timer->id);
}

static void put(struct aeTimers *timers, size_t at, struct place p)
{
    timers->heap[at] = p;
    p.timer->place = at;
}

/* Puts p into the empty place `at`, or nearer to the first: parents due later move down. */
static void siftUp(struct aeTimers *timers, size_t at, struct place p)
{
    while (at > 0 && isBefore(p, timers->heap[(at - 1) / CHILDREN])) {
        put(timers, at, timers->heap[(at - 1) / CHILDREN]);
        at = (at - 1) / CHILDREN;
    }
    put(timers, at, p);
}

/* Puts p into the empty place `at`, or further from the first: children due earlier move up. */
static void siftDown(struct aeTimers *timers, size_t at, struct place p)
{
    const struct place *heap = timers->heap;

    for (;;) {
        size_t child = CHILDREN * at + 1, end = child + CHILDREN, least = child;

        if (end > timers->waiting)
            end = timers->waiting;
        while (++child < end)
            if (isBefore(heap[child], heap[least]))
                least = child;
        if (least >= end || !isBefore(heap[least], p))
            break;
        put(timers, at, heap[least]);
        at = least;
    }
    put(timers, at, p);
}

static void addToHeap(struct aeTimers *timers, aeTimeEvent *te, long long when)
{
    siftUp(timers, timers->waiting++, (struct place){.when = when, .timer = te});
}

/* The last one fills the gap. From there it may have to move down or up. */
static void takeFromHeap(struct aeTimers *timers, aeTimeEvent *te)
{
    struct place last = timers->heap[--timers->waiting];

    if (last.timer != te) {
        siftDown(timers, te->place, last);
        siftUp(timers, last.timer->place, last);
    }
    te->place = CALLED;
}

/* Where the list for this id begins. Multiplying spreads ids that have a common distance. */
static aeTimeEvent **findList(aeTimeEvent **table, size_t room, long long id)
{
    return &table[(uint64_t)id * 0x9e3779b97f4a7c15u >> 32 & (room - 1)];
}

static void addToList(aeTimeEvent **list, aeTimeEvent *te)
{
    te->next = *list;
    *list = te;
}

static aeTimeEvent *takeFromList(aeTimeEvent **list)
{
    aeTimeEvent *te = *list;

    *list = te->next;
    return te;
}

/* Makes room for this many timers. On -1 with errno nothing has changed. */
static int resizeTimers(struct aeTimers *timers, size_t room)
{
    aeTimeEvent **table = calloc(room, sizeof(aeTimeEvent *));
    struct place *heap = table ? realloc(timers->heap, room * sizeof *heap) : NULL;

    if (heap == NULL) {
        free(table);
        return -1;
    }
    for (size_t i = 0; i < timers->room; i++)
        while (timers->table[i] != NULL) {
            aeTimeEvent *te = takeFromList(&timers->table[i]);

            addToList(findList(table, room, te->id), te);
        }
    free(timers->table);
    timers->table = table;
    timers->heap = heap;
    timers->room = room;
    return 0;
}

static long long monotonicNs(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return NS_PER_MS * 1000 * now.tv_sec + now.tv_nsec;
}

/* The time this many milliseconds from now. More than a century counts as a century. */
static long long nsFromNow(long long milliseconds)
{
    const long long most = LLONG_MAX / 2 / NS_PER_MS;

    if (milliseconds < 0)
        milliseconds = 0;
    return monotonicNs() + NS_PER_MS * (milliseconds < most ? milliseconds : most);
}

long long aeCreateTimeEvent(aeEventLoop *loop, long long milliseconds, aeTimeProc *proc,
                            void *clientData, aeEventFinalizerProc *finalizerProc)
{
    struct aeTimers *timers = loop->timers;
    aeTimeEvent *te;

    if (loop->timeEventNextId == AE_DELETED_EVENT_ID) {
        errno = ECANCELED;
        return AE_ERR;
    }
    if ((timers->n == timers->room && resizeTimers(timers, 2 * timers->room) == -1) ||
        (te = malloc(sizeof *te)) == NULL)
        return AE_ERR;
    *te = (aeTimeEvent){
        .id = loop->timeEventNextId++,
        .timeProc = proc,
        .finalizerProc = finalizerProc,
        .clientData = clientData,
    };
    timers->n++;
    addToList(findList(timers->table, timers->room, te->id), te);
    addToHeap(timers, te, nsFromNow(milliseconds));
    return te->id;
}

int aeDeleteTimeEvent(aeEventLoop *loop, long long id)
{
    struct aeTimers *timers = loop->timers;
    aeTimeEvent **list = findList(timers->table, timers->room, id);

    while (*list != NULL && (*list)->id != id)
        list = &(*list)->next;
    if (*list == NULL) {
        errno = ENOENT;
        return AE_ERR;
    }

    aeTimeEvent *te = takeFromList(list);

    te->id = AE_DELETED_EVENT_ID;
    if (te->place != CALLED) { /* else callTimer finalizes it, when its callback has returned */
        takeFromHeap(timers, te);
        addToList(&timers->deleted, te);
    }
    timers->n--;
    if (timers->n < timers->room / 4 && timers->room > LEAST_ROOM)
        (void)resizeTimers(timers, timers->room / 2); /* too much room does no harm */
    return AE_OK;
}

static void finalizeTimer(aeEventLoop *loop, aeTimeEvent *te)
{
    if (te->finalizerProc != NULL)
        te->finalizerProc(loop, te->clientData);
    free(te);
}

/* Timers that a finalizer deletes are left to the next call, so this ends. */
static void finalizeDeleted(aeEventLoop *loop)
{
    aeTimeEvent *deleted = loop->timers->deleted;

    loop->timers->deleted = NULL;
    while (deleted != NULL)
        finalizeTimer(loop, takeFromList(&deleted));
}

/* Calls a timer back at the time `now`, and then puts it back into the heap or ends it. */
static void callTimer(aeEventLoop *loop, aeTimeEvent *te, long long now)
{
    takeFromHeap(loop->timers, te);

    int again = te->timeProc(loop, te->id, te->clientData);

    if (again == AE_NOMORE)
        aeDeleteTimeEvent(loop, te->id); /* if the callback has not done so itself */
    if (te->id == AE_DELETED_EVENT_ID) {
        finalizeTimer(loop, te);
        return;
    }

    long long when = nsFromNow(again);

    addToHeap(loop->timers, te, when > now ? when : now + 1);
}

/* Calls back for all timers that are due now. What is created or due again meanwhile waits for
 * the next iteration, so this ends, however short the delays. */
static int processTimeEvents(aeEventLoop *loop)
{
    const struct aeTimers *timers = loop->timers;
    int processed = 0;

    if (timers->waiting > 0) { /* else there is no need to ask for the time */
        const long long now = monotonicNs(), nextId = loop->timeEventNextId;

        /* The analyzer does not see that callTimer takes a timer out of the heap. */
        /* NOLINTBEGIN(clang-analyzer-unix.Malloc) */
        while (timers->waiting > 0 && timers->heap[0].when <= now &&
               timers->heap[0].timer->id < nextId) {
            callTimer(loop, timers->heap[0].timer, now);
            processed++;
        }
        /* NOLINTEND(clang-analyzer-unix.Malloc) */
    }
    finalizeDeleted(loop);
    return processed;
}

/* ------------------------------------------------------------------------ iterations */

/* Runs finalizers and the hook before the sleep. Returns whether one of them called aeStop.
 * Then this is the last iteration, and it must not sleep: perhaps nothing would end the sleep.
 * An aeStop before that does not count: it has ended an earlier aeMain. */
static bool stopsBeforeSleep(aeEventLoop *loop, int flags)
{
    const int earlier = loop->stop;

    loop->stop = 0;
    if (flags & AE_TIME_EVENTS)
        finalizeDeleted(loop);
    if (flags & AE_CALL_BEFORE_SLEEP && loop->beforesleep != NULL)
        loop->beforesleep(loop);

    const bool stopped = loop->stop != 0;

    loop->stop |= earlier;
    return stopped;
}

/* How long this iteration may sleep, in milliseconds. It is rounded up: after waking a little
 * early the loop would spin until the timer is due. */
static int timeToSleep(const aeEventLoop *loop, int flags)
{
    if ((flags | loop->flags) & AE_DONT_WAIT)
        return 0;
    if (!(flags & AE_TIME_EVENTS) || loop->timers->waiting == 0)
        return -1;

    long long left = loop->timers->heap[0].when - monotonicNs();

    return left <= 0 ? 0 : toTimeout((left + NS_PER_MS - 1) / NS_PER_MS);
}

/* Calls back for one descriptor that this iteration's wait reported. A callback may have
 * deleted its events, closed it and opened its number again, or run an iteration of its own. */
static int dispatch(aeEventLoop *loop, aeFiredEvent fired)
{
    const unsigned iteration = loop->iteration;
    aeFileEvent *fe = &loop->events[fired.fd];
    const int mask = fe->mask & fired.mask;
    const int first = fe->mask & AE_BARRIER ? AE_WRITABLE : AE_READABLE;
    aeFileProc *called = NULL;

    for (int turn = 0; turn < 2 && loop->iteration == iteration; turn++) {
        int kind = turn == 0 ? first : READ_WRITE & ~first;

        fe = &loop->events[fired.fd]; /* the table may have moved */
        if ((fe->mask & mask & kind) == 0 || fe->iteration == iteration)
            continue;

        aeFileProc *proc = kind == AE_READABLE ? fe->rfileProc : fe->wfileProc;

        if (proc != called)
            proc(loop, fired.fd, fe->clientData, mask);
        called = proc;
    }
    return called != NULL;
}

static int processFileEvents(aeEventLoop *loop, int flags)
{
    if (stopsBeforeSleep(loop, flags))
        flags |= AE_DONT_WAIT;

    const unsigned iteration = ++loop->iteration;
    const int timeout = timeToSleep(loop, flags);
    int processed = 0, n = aeApiPoll(loop, timeout);

    loop->waitError = n == -1 ? errno : 0;
    if (n == -1 && errno != EINTR && timeout != 0) /* no memory? the next may fail, too */
        nanosleep(&(struct timespec){.tv_nsec = 10 * NS_PER_MS}, NULL);
    if (flags & AE_CALL_AFTER_SLEEP && loop->aftersleep != NULL)
        loop->aftersleep(loop);
    if (!(flags & AE_FILE_EVENTS))
        return 0;
    /* An iteration inside a callback overwrites loop->fired, and a smaller table cuts it. Then
     * the next iteration gets the remaining reports again. */
    for (int i = 0; i < n && loop->iteration == iteration; i++)
        processed += dispatch(loop, loop->fired[i]);
    return processed;
}

int aeProcessEvents(aeEventLoop *loop, int flags)
{
    int processed = 0;

    if (!(flags & AE_ALL_EVENTS))
        return 0;
    if (loop->maxfd != -1 || (flags & AE_TIME_EVENTS && !(flags & AE_DONT_WAIT)))
        processed += processFileEvents(loop, flags);
    if (flags & AE_TIME_EVENTS)
        processed += processTimeEvents(loop);
    return processed;
}

void aeMain(aeEventLoop *loop)
{
    loop->stop = 0;
    while (!loop->stop)
        aeProcessEvents(loop, AE_ALL_EVENTS | AE_CALL_BEFORE_SLEEP | AE_CALL_AFTER_SLEEP);
}

void aeStop(aeEventLoop *loop)
{
    loop->stop = 1;
}

void aeSetBeforeSleepProc(aeEventLoop *loop, aeBeforeSleepProc *beforesleep)
{
    loop->beforesleep = beforesleep;
}

void aeSetAfterSleepProc(aeEventLoop *loop, aeBeforeSleepProc *aftersleep)
{
    loop->aftersleep = aftersleep;
}

void aeSetDontWait(aeEventLoop *loop, int noWait)
{
    loop->flags = noWait ? loop->flags | AE_DONT_WAIT : loop->flags & ~AE_DONT_WAIT;
}

char *aeGetApiName(void)
{
    return aeApiName();
}

/* ------------------------------------------------------------------------ the loop's life */

static void freeLoop(aeEventLoop *loop)
{
    free(loop->timers->table);
    free(loop->timers->heap);
    free(loop->fired);
    free(loop->events);
    free(loop); /* and its timers */
}

aeEventLoop *aeCreateEventLoop(int setsize)
{
    struct both {
        aeEventLoop loop;
        struct aeTimers timers;
    } *both = calloc(1, sizeof *both);

    if (both == NULL)
        return NULL;

    aeEventLoop *loop = &both->loop;

    loop->timers = &both->timers;
    loop->maxfd = -1;
    if (resizeTimers(loop->timers, LEAST_ROOM) == -1 || aeApiCreate(loop) == -1) {
        freeLoop(loop);
        return NULL;
    }
    if (aeResizeSetSize(loop, setsize) == AE_ERR) { /* until now there are no tables */
        aeDeleteEventLoop(loop);
        return NULL;
    }
    return loop;
}

void aeDeleteEventLoop(aeEventLoop *loop)
{
    loop->timeEventNextId = AE_DELETED_EVENT_ID; /* or finalizers could create more for ever */
    do {
        finalizeDeleted(loop);
        if (loop->timers->waiting > 0)
            aeDeleteTimeEvent(loop, loop->timers->heap[0].timer->id);
    } while (loop->timers->deleted != NULL);
    aeApiFree(loop);
    freeLoop(loop);
}

int aeGetSetSize(aeEventLoop *loop)
{
    return loop->setsize;
}

int aeResizeSetSize(aeEventLoop *loop, int setsize)
{
    if (setsize < 1 || setsize <= loop->maxfd) {
        errno = ERANGE;
        return AE_ERR;
    }

    aeFileEvent *events = realloc(loop->events, (size_t)setsize * sizeof *events);
    aeFiredEvent *fired = realloc(loop->fired, (size_t)setsize * sizeof *fired);
    bool resized = aeApiResize(loop, setsize) == 0 && events != NULL && fired != NULL;

    if (events != NULL)
        loop->events = events;
    if (fired != NULL)
        loop->fired = fired;
    if (!resized && setsize > loop->setsize)
        return AE_ERR; /* a table that stayed too large does no harm */
    if (setsize < loop->setsize)
        loop->iteration++; /* a report may be beyond the tables; it will come again */
    loop->setsize = setsize;
    return AE_OK;
}
