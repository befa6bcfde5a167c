/* The monotonic clock: it never jumps, whatever happens to the time of day (clock_gettime(2)).
 * Every wait and every time limit here is measured by it. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <time.h>

/* Microseconds since some moment in the past. 64 bits also where long has 32. */
static inline int64_t clock_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Milliseconds since that moment. */
static inline int64_t clock_ms(void)
{
    return clock_us() / 1000;
}

#endif
