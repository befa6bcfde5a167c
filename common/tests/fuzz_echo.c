/* The engine against its definition. It gets the input split in two at every place (of a short
 * input), then in fragments of different sizes. The answers must always be those of the naive
 * model. Each fragment is a block of its own size, so that a sanitizer sees a byte that is read
 * or written beyond it. */
#include "echo.h"
#include "fuzz.h"

#include <string.h>

enum { ALL_SPLITS_UP_TO = 64 };

struct feeding {
    struct echo echo;
    const uint8_t *expected;
    size_t answers, left;
};

static void start(struct feeding *f, const uint8_t *expected, size_t answers)
{
    echo_init(&f->echo);
    f->expected = expected;
    f->answers = answers;
    f->left = answers;
}

static void feed(struct feeding *f, const uint8_t *bytes, size_t n)
{
    uint8_t *fragment = malloc(n + 1); /* at least one: malloc(0) may be NULL */

    MUST(fragment != NULL);
    memcpy(fragment + 1, bytes, n); /* unaligned, as after a short read */
    size_t answers = echo_feed(&f->echo, fragment + 1, n);
    MUST(answers <= n && answers <= f->left);
    MUST(memcmp(fragment + 1, f->expected + f->answers - f->left, answers) == 0);
    f->left -= answers;
    free(fragment);
}

/* A new fragment begins after each byte whose bits under `mask` are all 0. */
static void feed_in_fragments(struct feeding *f, const uint8_t *data, size_t size,
                              unsigned mask)
{
    size_t from = 0;

    for (size_t i = 0; i < size; i++)
        if ((data[i] & mask) == 0 || i + 1 == size) {
            feed(f, data + from, i + 1 - from);
            from = i + 1;
        }
    MUST(f->left == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *expected = malloc(size + 1);
    bool in_message = false;
    struct feeding f;

    MUST(expected != NULL);
    size_t answers = naive_answer(&in_message, data, size, expected);
    for (size_t cut = 0; cut <= size && (cut == 0 || size <= ALL_SPLITS_UP_TO); cut++) {
        start(&f, expected, answers);
        feed(&f, data, cut);
        feed(&f, data + cut, size - cut);
        MUST(f.left == 0 && f.echo.in_message == in_message);
    }
    for (unsigned mask = 0; mask <= 7; mask = mask * 2 + 1) { /* byte by byte, then longer */
        start(&f, expected, answers);
        feed_in_fragments(&f, data, size, mask);
        MUST(f.echo.in_message == in_message);
    }
    free(expected);
    return 0;
}
