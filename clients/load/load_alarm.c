/* load_alarm.c - see load_alarm.h. The alarm only ends the loop's sleep: the hook that runs
 * before the next sleep does what is due. */
#include "load_alarm.h"

#ifdef __linux__

#include <sys/timerfd.h>
#include <unistd.h>

/* The descriptor stays readable until the timer is set again, which alarm_set then does. */
static void ring(aeEventLoop *loop, int fd, void *data, int mask)
{
    struct alarm *a = data;
    (void)loop, (void)fd, (void)mask;
    a->at = 0;
}

int alarm_open(struct alarm *a, aeEventLoop *loop)
{
    *a = (struct alarm){.loop = loop, .at = NEVER};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd == -1)
        return -1;
    a->handle = fd;
    return aeCreateFileEvent(loop, fd, AE_READABLE, ring, a) == AE_OK ? 0 : -1;
}

void alarm_set(struct alarm *a, uint64_t at)
{
    struct itimerspec when = {.it_interval = {0, 0}};
    if (at == a->at)
        return;
    a->at = at;
    if (at != NEVER) {
        when.it_value.tv_sec = (time_t)(at / 1000000000);
        when.it_value.tv_nsec = (long)(at % 1000000000);
    }
    timerfd_settime((int)a->handle, TFD_TIMER_ABSTIME, &when, NULL);
}

void alarm_close(struct alarm *a)
{
    close((int)a->handle);
}

#else

static int ring(aeEventLoop *loop, long long id, void *data)
{
    struct alarm *a = data;
    (void)loop, (void)id;
    a->at = 0;
    a->handle = AE_ERR;
    return AE_NOMORE;
}

int alarm_open(struct alarm *a, aeEventLoop *loop)
{
    *a = (struct alarm){.loop = loop, .at = NEVER, .handle = AE_ERR};
    return 0;
}

void alarm_set(struct alarm *a, uint64_t at)
{
    if (at == a->at)
        return;
    a->at = at;
    if (a->handle != AE_ERR)
        aeDeleteTimeEvent(a->loop, a->handle);
    a->handle = AE_ERR;
    if (at != NEVER) {
        uint64_t now = now_ns();
        long long ms = at > now ? (long long)((at - now + 999999) / 1000000) : 0;
        a->handle = aeCreateTimeEvent(a->loop, ms, ring, a, NULL);
    }
}

void alarm_close(struct alarm *a)
{
    (void)a;
}

#endif
