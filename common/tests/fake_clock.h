/* A clock that stands still until a test moves it: link with --wrap=clock_gettime. */
#ifndef FAKE_CLOCK_H
#define FAKE_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static atomic_int_least64_t fake_ms; /* what the clock shows; 0 = the real time */
static atomic_int clock_readings;    /* how often it was read */

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    const int64_t ms = fake_ms;

    clock_readings++;
    if (id != CLOCK_MONOTONIC) { /* any other clock can be set back */
        fprintf(stderr, "clock_gettime is called for clock %d\n", (int)id);
        abort();
    }
    if (ms == 0)
        return __real_clock_gettime(id, t);
    *t = (struct timespec){.tv_sec = (time_t)(ms / 1000),
                           .tv_nsec = (long)(ms % 1000) * 1000000 + 999999};
    return 0;
}
#ifdef __APPLE__ /* this linker has no --wrap: nothing calls the one above */
int __real_clock_gettime(clockid_t id, struct timespec *t)
{
    return clock_gettime(id, t);
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

#endif
