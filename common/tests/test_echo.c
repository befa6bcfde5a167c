/* The protocol engine: the known exchange, every byte, every split, and random input, compared
 * with the naive model of the rules. */
#include "echo.h"
#include "fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { LONGEST = 70000 };

static unsigned char work[LONGEST], expected[LONGEST];

/* Feeds `in` in pieces of the given sizes (the last one repeats) and compares with the model.
 */
static void check_split(const unsigned char *in, size_t n, const size_t *pieces, size_t count)
{
    struct echo e;
    bool in_message = false;
    size_t wanted = naive_answer(&in_message, in, n, expected), got = 0;

    echo_init(&e);
    for (size_t at = 0, i = 0; at < n; i++) {
        size_t piece = pieces[i < count ? i : count - 1];
        if (piece > n - at)
            piece = n - at;
        unsigned char *copy =
            malloc(piece ? piece : 1); /* exact, so that ASan sees a byte too far */
        memcpy(copy, in + at, piece);
        size_t answers = echo_feed(&e, copy, piece);
        assert_true(answers <= piece);
        assert_true(got + answers <= sizeof work);
        memcpy(work + got, copy, answers);
        got += answers;
        at += piece;
        free(copy);
    }
    assert_int_equal(got, wanted);
    assert_memory_equal(work, expected, wanted);
    assert_int_equal(e.in_message, in_message);
}

static void check_text(struct echo *e, const char *in, const char *out)
{
    size_t n = strlen(in);

    memcpy(work, in, n);
    assert_int_equal(echo_feed(e, work, n), strlen(out));
    assert_memory_equal(work, out, strlen(out));
}

static void known_exchange(void **state)
{
    struct echo e;

    (void)state;
    echo_init(&e);
    check_text(&e, "^abc$de^abte$f", "bcdbcuf");
    check_text(&e, "xyz^123", "234");
    check_text(&e, "25$^ab0000$abab", "36bc1111");
}

static void nothing_outside_messages(void **state)
{
    struct echo e;

    (void)state;
    echo_init(&e);
    check_text(&e, "", "");
    check_text(&e, "abc$$$", "");
    check_text(&e, "^$^$", "");
    assert_false(e.in_message);
    check_text(&e, "^", "");
    assert_true(e.in_message);
    check_text(&e, "^", "_"); /* inside a message it is an ordinary byte */
}

static void all_byte_values(void **state)
{
    struct echo e;

    (void)state;
    for (int value = 0; value < 256; value++) {
        unsigned char in[3] = {'^', (unsigned char)value, 'x'};
        echo_init(&e);
        size_t answers = echo_feed(&e, in, 2);
        assert_int_equal(answers, value == '$' ? 0 : 1);
        if (answers == 1)
            assert_int_equal(in[0], (value + 1) % 256);
        assert_int_equal(in[2], 'x');
    }
}

static void every_split_point(void **state)
{
    static const char *const inputs[] = {
        "^abc$de^abte$fxyz^12325$^ab0000$abab",
        "$^^$$^a^$x^^^$",
        "^a message longer than sixteen bytes, and than a block of sixty-four$b^c",
    };

    (void)state;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        size_t n = strlen(inputs[i]);
        for (size_t a = 0; a <= n; a++)
            for (size_t b = 0; a + b <= n; b++)
                check_split((const unsigned char *)inputs[i], n, (size_t[]){a, b, n}, 3);
        check_split((const unsigned char *)inputs[i], n, (size_t[]){1}, 1);
    }
}

/* Every length up to several blocks, at every alignment of the output against the input. */
static void every_length(void **state)
{
    static unsigned char in[1024];

    (void)state;
    for (size_t skipped = 0; skipped < 20; skipped++)
        for (size_t length = 0; length < 300; length++) {
            size_t n = 0;
            while (n < skipped)
                in[n++] = 'x';
            in[n++] = '^';
            for (size_t i = 0; i < length; i++)
                in[n++] = (unsigned char)("\xff\xfe"
                                          "abc^"[i % 6]);
            in[n++] = '$';
            in[n++] = 'z';
            check_split(in, n, &n, 1);
        }
}

static void random_input(void **state)
{
    static unsigned char in[LONGEST];
    const char *given = getenv("TEST_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)getpid();

    (void)state;
    print_message("random_input: TEST_SEED=%u\n", seed);
    srand(seed);
    for (int round = 0; round < 400; round++) {
        size_t n = (size_t)rand() % (round < 390 ? 600 : sizeof in);
        int marks = rand() % 40 + 1; /* how rare '^' and '$' are */
        for (size_t i = 0; i < n; i++)
            in[i] = (unsigned char)(rand() % marks ? rand() % 256 : "^$"[rand() % 2]);
        size_t pieces[64];
        int largest = rand() % 2 ? 4 : 5000;
        for (size_t i = 0; i < 64; i++)
            pieces[i] = (size_t)rand() % (size_t)largest + 1;
        check_split(in, n, pieces, 64);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_exchange),  cmocka_unit_test(nothing_outside_messages),
        cmocka_unit_test(all_byte_values), cmocka_unit_test(every_split_point),
        cmocka_unit_test(every_length),    cmocka_unit_test(random_input),
    };

    return cmocka_run_group_tests_name("echo", tests, NULL, NULL);
}
