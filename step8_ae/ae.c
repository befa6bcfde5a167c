/* ae.c - the event loop itself: tables, timers and laps. How to wait for descriptors is left to
 * a back-end (ae_backend.h); the contract with the user stands in ae.h.
 */
#include "ae.h"
#include "ae_backend.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
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
    if ((before ^ after) & READ_WRITE &&
        aeApiWatch(loop, fd, before & READ_WRITE, after & READ_WRITE) == -1)
        return AE_ERR;
    while (loop->maxfd < fd)
        loop->events[++loop->maxfd].mask = AE_NONE;
    if (before == AE_NONE)
        fe->lap = loop->lap; /* what this lap has still to tell of fd was a predecessor's */
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
    if ((before ^ after) & READ_WRITE) /* fails only if fd is closed already */
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
    int ready = AE_NONE;
    if (pfd.revents & (POLLIN | POLLERR | POLLHUP))
        ready |= AE_READABLE;
    if (pfd.revents & (POLLOUT | POLLERR | POLLHUP))
        ready |= AE_WRITABLE;
    return ready & mask;
}

/* ------------------------------------------------------------------------ timers */

static long long monotonicNs(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return NS_PER_MS * 1000 * now.tv_sec + now.tv_nsec;
}

/* The time so many milliseconds from now; more than a century is as good as never. */
static long long nsFromNow(long long milliseconds)
{
    const long long most = LLONG_MAX / 2 / NS_PER_MS;

    if (milliseconds < 0)
        milliseconds = 0;
    return monotonicNs() + NS_PER_MS * (milliseconds < most ? milliseconds : most);
}

static void unlinkTimer(aeEventLoop *loop, aeTimeEvent *te)
{
    *(te == loop->timeEventHead ? &loop->timeEventHead : &te->prev->next) = te->next;
    *(te == loop->timeEventTail ? &loop->timeEventTail : &te->next->prev) = te->prev;
}

/* Searches from the end, where a timer belongs whose delay is like that of the others. */
static void linkTimer(aeEventLoop *loop, aeTimeEvent *te, long long when)
{
    aeTimeEvent *prev = loop->timeEventTail;

    while (prev != NULL && prev->when > when)
        prev = prev->prev;
    te->when = when;
    te->prev = prev;
    te->next = prev != NULL ? prev->next : loop->timeEventHead;
    *(prev != NULL ? &prev->next : &loop->timeEventHead) = te;
    *(te->next != NULL ? &te->next->prev : &loop->timeEventTail) = te;
}

static void freeTimer(aeEventLoop *loop, aeTimeEvent *te)
{
    unlinkTimer(loop, te);
    if (te->finalizerProc != NULL)
        te->finalizerProc(loop, te->clientData);
    free(te);
}

long long aeCreateTimeEvent(aeEventLoop *loop, long long milliseconds, aeTimeProc *proc,
                            void *clientData, aeEventFinalizerProc *finalizerProc)
{
    aeTimeEvent *te;

    if (loop->timeEventNextId == AE_DELETED_EVENT_ID) {
        errno = ECANCELED;
        return AE_ERR;
    }
    te = calloc(1, sizeof *te);
    if (te == NULL)
        return AE_ERR;
    te->id = loop->timeEventNextId++;
    te->timeProc = proc;
    te->finalizerProc = finalizerProc;
    te->clientData = clientData;
    linkTimer(loop, te, nsFromNow(milliseconds));
    return te->id;
}

int aeDeleteTimeEvent(aeEventLoop *loop, long long id)
{
    for (aeTimeEvent *te = loop->timeEventHead; te != NULL; te = te->next) {
        if (te->id != id || id == AE_DELETED_EVENT_ID)
            continue;
        te->id = AE_DELETED_EVENT_ID;
        unlinkTimer(loop, te);
        linkTimer(loop, te, 0); /* due before all others: the next pass frees it */
        return AE_OK;
    }
    errno = ENOENT;
    return AE_ERR;
}

/* The first of the list whose callback is not under way in an outer lap. */
static aeTimeEvent *nextTimer(const aeEventLoop *loop)
{
    aeTimeEvent *te = loop->timeEventHead;

    while (te != NULL && te->refcount > 0)
        te = te->next;
    return te;
}

/* Calls back for all timers due at the time of the call. What is created or due again meanwhile
 * waits for the next lap, so this ends, however short the delays. */
static int processTimeEvents(aeEventLoop *loop)
{
    int processed = 0;
    aeTimeEvent *te = nextTimer(loop);

    if (te == NULL)
        return 0; /* without asking for the time */

    const long long now = monotonicNs(), nextId = loop->timeEventNextId;

    for (; te != NULL && te->when <= now && te->id < nextId; te = nextTimer(loop)) {
        if (te->id == AE_DELETED_EVENT_ID) {
            freeTimer(loop, te);
            continue;
        }
        te->refcount++;
        int again = te->timeProc(loop, te->id, te->clientData);
        te->refcount--;
        processed++;
        if (te->id == AE_DELETED_EVENT_ID)
            continue; /* deleted meanwhile, it stands at the head of the list */
        if (again == AE_NOMORE) {
            freeTimer(loop, te);
            continue;
        }
        long long when = nsFromNow(again);
        unlinkTimer(loop, te);
        linkTimer(loop, te, when > now ? when : now + 1);
    }
    return processed;
}

/* ------------------------------------------------------------------------ laps */

/* How long this lap may sleep, in milliseconds, rounded up: waking a little early would mean
 * spinning until the timer is due. */
static int timeToSleep(const aeEventLoop *loop, int flags)
{
    if ((flags | loop->flags) & AE_DONT_WAIT)
        return 0;

    const aeTimeEvent *te = flags & AE_TIME_EVENTS ? nextTimer(loop) : NULL;

    if (te == NULL)
        return -1;

    long long left = te->when - monotonicNs();

    return left <= 0 ? 0 : toTimeout((left + NS_PER_MS - 1) / NS_PER_MS);
}

/* Calls back for one descriptor the wait of this lap reported. Any callback may have deleted
 * its events, closed it and given its number to another, or run a lap of its own. */
static int dispatch(aeEventLoop *loop, aeFiredEvent fired)
{
    const unsigned lap = loop->lap;
    aeFileEvent *fe = &loop->events[fired.fd];
    const int mask = fe->mask & fired.mask;
    const int first = fe->mask & AE_BARRIER ? AE_WRITABLE : AE_READABLE;
    aeFileProc *called = NULL;

    for (int turn = 0; turn < 2 && loop->lap == lap; turn++) {
        int kind = turn == 0 ? first : READ_WRITE & ~first;

        fe = &loop->events[fired.fd]; /* the table may have moved */
        if ((fe->mask & mask & kind) == 0 || fe->lap == lap)
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
    if (loop->beforesleep != NULL && flags & AE_CALL_BEFORE_SLEEP) {
        loop->beforesleep(loop);
        if (loop->stop)
            flags |= AE_DONT_WAIT; /* stopped by the hook: this is the last lap */
    }

    const unsigned lap = ++loop->lap;
    int processed = 0, n = aeApiPoll(loop, timeToSleep(loop, flags));

    if (loop->aftersleep != NULL && flags & AE_CALL_AFTER_SLEEP)
        loop->aftersleep(loop);
    if (!(flags & AE_FILE_EVENTS))
        return 0;
    /* A lap inside a callback writes over fired, a smaller table cuts it: then what is left is
     * for the next lap, which is told of it again. */
    for (int i = 0; i < n && loop->lap == lap; i++)
        processed += dispatch(loop, loop->fired[i]);
    return processed;
}

int aeProcessEvents(aeEventLoop *loop, int flags)
{
    int processed = 0;
    bool mayWait = !(flags & AE_DONT_WAIT);

    if ((flags & AE_FILE_EVENTS && loop->maxfd != -1) || (flags & AE_TIME_EVENTS && mayWait))
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

aeEventLoop *aeCreateEventLoop(int setsize)
{
    aeEventLoop *loop = calloc(1, sizeof *loop);

    if (loop == NULL)
        return NULL;
    loop->maxfd = -1;
    if (aeApiCreate(loop) == -1) {
        free(loop);
        return NULL;
    }
    if (aeResizeSetSize(loop, setsize) == AE_ERR) { /* from no table at all */
        aeDeleteEventLoop(loop);
        return NULL;
    }
    return loop;
}

void aeDeleteEventLoop(aeEventLoop *loop)
{
    loop->timeEventNextId = AE_DELETED_EVENT_ID; /* or a finalizer could keep us here */
    while (loop->timeEventHead != NULL)
        freeTimer(loop, loop->timeEventHead);
    aeApiFree(loop);
    free(loop->fired);
    free(loop->events);
    free(loop);
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
        return AE_ERR; /* a table that stayed too large would do no harm */
    if (setsize < loop->setsize)
        loop->lap++; /* what was reported may be beyond the tables; it will be again */
    loop->setsize = setsize;
    return AE_OK;
}
