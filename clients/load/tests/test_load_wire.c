/* The wire against the protocol computed byte by byte, in windows at every kind of position:
 * many short messages in a window, and long ones across their seam. */
#include "../load_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Reads `n` bytes from position `at` on, the way the load client walks: window by window. */
static void walk(const struct wire *w, uint64_t at, unsigned char *out, size_t n)
{
    while (n > 0) {
        size_t step = n < WIRE_WINDOW ? n : WIRE_WINDOW;
        memcpy(out, wire_at(w, at), step);
        at = (at + step) % w->length;
        out += step;
        n -= step;
    }
}

/* The answers of a correct server, computed byte by byte. */
static size_t serve(const unsigned char *in, size_t n, unsigned char *out)
{
    bool in_message = false;
    size_t answers = 0;
    for (size_t i = 0; i < n; i++) {
        if (!in_message)
            in_message = in[i] == '^';
        else if (in[i] == '$')
            in_message = false;
        else
            out[answers++] = (unsigned char)(in[i] + 1);
    }
    return answers;
}

static void check_echo(uint64_t size, size_t n)
{
    struct wire requests, answers;
    unsigned char *said = malloc(n), *served = malloc(n), *expected = malloc(n);
    assert_int_equal(wire_requests(&requests, MODE_ECHO, size), 0);
    assert_int_equal(wire_answers(&answers, MODE_ECHO, size), 0);
    assert_int_equal(requests.length, size);
    walk(&requests, 0, said, n);
    size_t answers_size = serve(said, n, served);
    walk(&answers, 0, expected, answers_size);
    assert_memory_equal(served, expected, answers_size);
    for (uint64_t end = size; end <= n; end += size)
        assert_true(said[end - size] == '^' && said[end - 1] == '$');

    /* every window agrees with the walk from the start, wherever it begins */
    for (uint64_t at = 0; at + 100 < n && at < size; at += 1 + size / 1000)
        assert_memory_equal(wire_at(&requests, at), said + at, 100);
    free(said);
    free(served);
    free(expected);
    wire_free(&requests);
    wire_free(&answers);
}

static void echo_messages_of_any_size(void **state)
{
    (void)state;
    const uint64_t sizes[] = {3,      4,      32,     255,     256,    257,
                              65535,  65536,  65537,  131072,  262143, 262144,
                              262145, 262399, 262500, 1000000, 1048576};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_echo(sizes[i], 3 * (size_t)sizes[i] + 200000);
}

static void raw_answers_are_the_requests(void **state)
{
    (void)state;
    struct wire requests, answers;
    for (uint64_t size = 1; size < 1000000; size = size * 5 + 1) {
        unsigned char *said = malloc(2000000), *received = malloc(2000000);
        wire_requests(&requests, MODE_RAW, size);
        wire_answers(&answers, MODE_RAW, size);
        walk(&requests, 0, said, 2000000);
        walk(&answers, 0, received, 2000000);
        assert_memory_equal(said, received, 2000000);
        free(said);
        free(received);
        wire_free(&requests);
        wire_free(&answers);
    }
}

static void redis_pings(void **state)
{
    (void)state;
    struct wire w;
    wire_requests(&w, MODE_REDIS, 0);
    assert_memory_equal(wire_at(&w, 0), "*1\r\n$4\r\nPING\r\n*1\r\n", 18);
    wire_free(&w);
    wire_answers(&w, MODE_REDIS, 0);
    assert_memory_equal(wire_at(&w, 0), "+PONG\r\n+PONG\r\n", 14);
    wire_free(&w);
}

/* Lost or doubled chunks must show: bytes at a power-of-two distance must differ. */
static void displaced_chunks_differ(void **state)
{
    (void)state;
    struct wire w;
    wire_answers(&w, MODE_ECHO, UINT64_C(1) << 40);
    for (uint64_t distance = 1; distance <= UINT64_C(1) << 38; distance *= 2)
        assert_true(memcmp(wire_at(&w, 1000), wire_at(&w, 1000 + distance), 16) != 0);
    wire_free(&w);
}

static void every_byte_value_is_sent(void **state)
{
    (void)state;
    struct wire w;
    bool seen[256] = {false};
    wire_requests(&w, MODE_ECHO, 1000);
    for (int i = 1; i < 999; i++)
        seen[wire_at(&w, 0)[i]] = true;
    for (int i = 0; i < 256; i++)
        assert_int_equal(seen[i], i != '$');
    wire_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo_messages_of_any_size),
        cmocka_unit_test(raw_answers_are_the_requests),
        cmocka_unit_test(redis_pings),
        cmocka_unit_test(displaced_chunks_differ),
        cmocka_unit_test(every_byte_value_is_sent),
    };
    return cmocka_run_group_tests_name("load_wire", tests, NULL, NULL);
}
