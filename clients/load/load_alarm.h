/* load_alarm.h - wakes an ae loop at a point in time.
 *
 * ae's own time events count in milliseconds, but a schedule of 100,000 messages a second has
 * one due every 10 microseconds. So on Linux the alarm is a timerfd in the loop. Elsewhere it
 * is a time event, and a message may leave up to a millisecond late. The report shows this,
 * because latency counts from when the message was due.
 */
#ifndef LOAD_ALARM_H
#define LOAD_ALARM_H

#include <stdint.h>
#include <time.h>

#include "ae.h"

#define NEVER UINT64_MAX /* a point in time that never comes */

struct alarm {
    aeEventLoop *loop;
    uint64_t at;      /* when it is due; 0: it went off; NEVER: it is not set */
    long long handle; /* the timerfd; elsewhere the time event, or AE_ERR */
};

/* Nanoseconds of the monotonic clock, the only clock of the load client. */
static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Needs one descriptor on Linux. Returns -1 with errno. */
int alarm_open(struct alarm *a, aeEventLoop *loop);
/* Wakes the loop at `at`. This replaces any earlier setting. */
void alarm_set(struct alarm *a, uint64_t at);
void alarm_close(struct alarm *a);

#endif
