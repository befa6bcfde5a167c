/* hist.h - a histogram of any 64-bit values with three significant digits.
 *
 * Log-linear: values below 2048 have a bucket each; above, every power of two is cut into
 * 1024 equal buckets. So a bucket is never wider than 1/1024 of the values in it. The result of
 * a query is the middle of a bucket, so it is off by at most 1/2048. There is a bucket for
 * every value up to 2^64 - 1. Count, minimum, maximum and mean are exact.
 */
#ifndef HIST_H
#define HIST_H

#include <stddef.h>
#include <stdint.h>

enum { HIST_DIGITS = 10, HIST_HALF = 1 << HIST_DIGITS };
enum { HIST_BUCKETS = (64 - HIST_DIGITS + 1) * HIST_HALF };

struct hist {
    uint64_t count;
    uint64_t min; /* UINT64_MAX while empty */
    uint64_t max;
    double sum;
    uint64_t bucket[HIST_BUCKETS];
};

struct hist *hist_create(void); /* NULL without memory; release with free() */
void hist_reset(struct hist *h);
void hist_add(struct hist *h, const struct hist *more);

/* The value that a share of q (0 to 1) of all values does not exceed; 0 while empty. */
uint64_t hist_quantile(const struct hist *h, double q);
/* The same; stores in *upto how many values lie in its bucket or below. */
uint64_t hist_quantile_upto(const struct hist *h, double q, uint64_t *upto);
double hist_mean(const struct hist *h);
double hist_deviation(const struct hist *h);

/* From 2048 on, the leading 11 bits of a value choose the bucket, their position the group. */
static inline size_t hist_index(uint64_t value)
{
    int shift = value < 2 * HIST_HALF ? 0 : 63 - HIST_DIGITS - __builtin_clzll(value);
    return (size_t)shift * HIST_HALF + (size_t)(value >> shift);
}

static inline void hist_record(struct hist *h, uint64_t value)
{
    h->bucket[hist_index(value)]++;
    h->count++;
    h->sum += (double)value;
    if (value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
}

#endif
