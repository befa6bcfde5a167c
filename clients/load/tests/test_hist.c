/* The histogram against exact quantiles of the same values, sorted. */
#include "../hist.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VALUES = 20000 };

static const double QUANTILES[] = {0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1};

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* A small generator, so that a failure is the same on every machine. */
static uint64_t random_bits(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void assert_near(uint64_t got, uint64_t exact)
{
    uint64_t off = got > exact ? got - exact : exact - got;
    if (off > exact / 2048 + 1)
        fail_msg("%llu is not within 0.05 %% of %llu", (unsigned long long)got,
                 (unsigned long long)exact);
}

/* Records the values, then asks for every quantile and for the exact figures. */
static void check_values(uint64_t *values, size_t n)
{
    struct hist *h = hist_create();
    double sum = 0, squares = 0;

    assert_non_null(h);
    for (size_t i = 0; i < n; i++) {
        hist_record(h, values[i]);
        sum += (double)values[i];
    }
    qsort(values, n, sizeof *values, compare);
    for (size_t i = 0; i < sizeof QUANTILES / sizeof *QUANTILES; i++) {
        double rank = ceil(QUANTILES[i] * (double)n - 1e-6);
        size_t index = rank < 1 ? 0 : (size_t)rank - 1;
        assert_near(hist_quantile(h, QUANTILES[i]), values[index]);
    }
    assert_int_equal(h->count, n);
    assert_int_equal(h->min, values[0]);
    assert_int_equal(h->max, values[n - 1]);
    assert_int_equal(hist_quantile(h, 1), values[n - 1]);
    double mean = sum / (double)n;
    assert_true(fabs(hist_mean(h) - mean) <= mean * 1e-9);
    for (size_t i = 0; i < n; i++)
        squares += ((double)values[i] - mean) * ((double)values[i] - mean);
    double deviation = sqrt(squares / (double)n);
    assert_true(fabs(hist_deviation(h) - deviation) <= mean / 500 + deviation / 500);
    free(h);
}

static void small_values_are_exact(void **state)
{
    (void)state;
    struct hist *h = hist_create();
    for (uint64_t v = 0; v < 2048; v++) {
        hist_record(h, v);
        uint64_t upto, got = hist_quantile_upto(h, 1, &upto);
        assert_int_equal(got, v);
        assert_int_equal(upto, v + 1);
    }
    for (uint64_t v = 0; v < 2048; v++)
        assert_int_equal(hist_quantile(h, (double)(v + 1) / 2048), v);
    free(h);
}

static void uniform_values(void **state)
{
    (void)state;
    static uint64_t values[VALUES];
    uint64_t seed = 1;
    for (size_t i = 0; i < VALUES; i++)
        values[i] = random_bits(&seed) % 1000000;
    check_values(values, VALUES);
}

/* Latencies look like this: many small ones and a long tail. */
static void long_tailed_values(void **state)
{
    (void)state;
    static uint64_t values[VALUES];
    uint64_t seed = 2;
    for (size_t i = 0; i < VALUES; i++)
        values[i] = (uint64_t)exp((double)(random_bits(&seed) % 1000) / 30.0);
    check_values(values, VALUES);
}

static void values_of_every_magnitude(void **state)
{
    (void)state;
    static uint64_t values[VALUES];
    uint64_t seed = 3;
    for (size_t i = 0; i < VALUES; i++)
        values[i] = random_bits(&seed) >> (random_bits(&seed) % 64);
    check_values(values, VALUES);
}

static void a_single_value(void **state)
{
    (void)state;
    const uint64_t interesting[] = {0,    1,    2047,       2048,          2049,
                                    4095, 4096, 1000000007, UINT64_MAX - 1};
    for (size_t i = 0; i < sizeof interesting / sizeof *interesting; i++) {
        uint64_t value = interesting[i];
        check_values(&value, 1);
    }
}

/* No caps: the largest value has a bucket like any other, the last one. */
/* No quantile lies outside what was recorded, though the middle of a bucket may. */
static void the_edge_of_a_bucket(void **state)
{
    const uint64_t edge = UINT64_C(1) << 40;
    struct hist *h = hist_create();
    uint64_t upto;
    (void)state;

    assert_non_null(h);
    hist_record(h, edge);
    hist_record(h, edge);
    assert_int_equal(hist_quantile(h, 0.5), edge);
    assert_int_equal(hist_quantile_upto(h, 0, &upto), edge);
    assert_int_equal(upto, 2);
    free(h);
}

static void the_largest_value(void **state)
{
    (void)state;
    struct hist *h = hist_create();
    assert_int_equal(hist_index(UINT64_MAX), HIST_BUCKETS - 1);
    hist_record(h, 5);
    hist_record(h, UINT64_MAX);
    assert_int_equal(hist_quantile(h, 0.5), 5);
    assert_true(hist_quantile(h, 1) == UINT64_MAX);
    free(h);
}

static void buckets_are_contiguous_and_narrow(void **state)
{
    (void)state;
    for (int bit = 11; bit < 64; bit++) {
        uint64_t power = UINT64_C(1) << bit;
        assert_int_equal(hist_index(power), hist_index(power - 1) + 1);
        assert_int_equal(hist_index(power + (power >> 10)), hist_index(power) + 1);
    }
}

static void an_empty_histogram_answers_zero(void **state)
{
    (void)state;
    struct hist *h = hist_create();
    assert_int_equal(hist_quantile(h, 0.5), 0);
    assert_true(hist_mean(h) == 0 && hist_deviation(h) == 0);
    free(h);
}

static void adding_is_recording_both(void **state)
{
    (void)state;
    struct hist *odd = hist_create(), *even = hist_create(), *all = hist_create();
    uint64_t seed = 4;
    for (int i = 0; i < VALUES; i++) {
        uint64_t value = random_bits(&seed) >> 30;
        hist_record(value % 2 ? odd : even, value);
        hist_record(all, value);
    }
    hist_add(odd, even);
    assert_memory_equal(odd->bucket, all->bucket, sizeof all->bucket);
    assert_int_equal(odd->count, all->count);
    assert_int_equal(odd->min, all->min);
    assert_int_equal(odd->max, all->max);
    hist_reset(odd);
    hist_add(odd, all);
    assert_int_equal(odd->min, all->min);
    free(odd);
    free(even);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(uniform_values),
        cmocka_unit_test(long_tailed_values),
        cmocka_unit_test(values_of_every_magnitude),
        cmocka_unit_test(a_single_value),
        cmocka_unit_test(the_edge_of_a_bucket),
        cmocka_unit_test(the_largest_value),
        cmocka_unit_test(buckets_are_contiguous_and_narrow),
        cmocka_unit_test(an_empty_histogram_answers_zero),
        cmocka_unit_test(adding_is_recording_both),
    };
    return cmocka_run_group_tests_name("hist", tests, NULL, NULL);
}
