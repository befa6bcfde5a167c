/* hist.c - see hist.h for the idea. */
#include "hist.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct hist *hist_create(void)
{
    struct hist *h = malloc(sizeof *h);
    if (h)
        hist_reset(h);
    return h;
}

void hist_reset(struct hist *h)
{
    memset(h, 0, sizeof *h);
    h->min = UINT64_MAX;
}

void hist_add(struct hist *h, const struct hist *more)
{
    for (size_t i = 0; i < HIST_BUCKETS; i++)
        h->bucket[i] += more->bucket[i];
    h->count += more->count;
    h->sum += more->sum;
    if (more->min < h->min)
        h->min = more->min;
    if (more->max > h->max)
        h->max = more->max;
}

/* The middle of a bucket: every value in it is at most half its width away. */
static uint64_t middle(size_t index)
{
    size_t group = index / HIST_HALF;
    if (group < 2)
        return index;
    size_t shift = group - 1;
    uint64_t low = (uint64_t)(index - shift * HIST_HALF) << shift;
    return low + (UINT64_C(1) << shift) / 2;
}

uint64_t hist_quantile_upto(const struct hist *h, double q, uint64_t *upto)
{
    *upto = 0;
    if (h->count == 0)
        return 0;
    double rank = ceil(q * (double)h->count - 1e-6); /* 0.999 of 1000 is 999 exactly */
    size_t i = 0;
    for (;; i++) {
        *upto += h->bucket[i];
        if (*upto == h->count || (*upto > 0 && (double)*upto >= rank))
            break;
    }
    if (*upto == h->count && rank >= (double)h->count)
        return h->max;
    uint64_t value = middle(i);
    return value < h->min ? h->min : value > h->max ? h->max : value;
}

uint64_t hist_quantile(const struct hist *h, double q)
{
    uint64_t upto;
    return hist_quantile_upto(h, q, &upto);
}

double hist_mean(const struct hist *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}

double hist_deviation(const struct hist *h)
{
    double mean = hist_mean(h), squares = 0;
    for (size_t i = 0; i < HIST_BUCKETS; i++) {
        double off = (double)middle(i) - mean;
        squares += (double)h->bucket[i] * off * off;
    }
    return h->count ? sqrt(squares / (double)h->count) : 0;
}
