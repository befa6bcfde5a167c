/* engine.c - how fast is the protocol engine by itself? Messages of many lengths go through
 * echo_feed and through the obvious loop, a byte at a time: once a message to a read, once as
 * many as fit into a read of 64 KiB, which is how the servers meet them. Prints a table, or
 * with --json an array; exits with 1 if the answers differ. What counts: never slower on
 * short messages, 10 GB/s and more on long ones. */
#include "../../common/echo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { READ_SIZE = 65536, ROUNDS = 300 };

static const size_t LENGTHS[] = {1, 2, 4, 8, 16, 30, 64, 128, 256, 1024, 4096, 16384, 65000};
enum { LENGTH_COUNT = sizeof LENGTHS / sizeof *LENGTHS };

typedef size_t feed(struct echo *e, unsigned char *bytes, size_t n);

/* The loop everybody writes first. */
static size_t feed_bytewise(struct echo *e, unsigned char *bytes, size_t n)
{
    size_t answers = 0;
    for (size_t i = 0; i < n; i++) {
        if (!e->in_message)
            e->in_message = bytes[i] == '^';
        else if (bytes[i] == '$')
            e->in_message = false;
        else
            bytes[answers++] = (unsigned char)(bytes[i] + 1);
    }
    return answers;
}

/* Nothing: what the measuring itself costs. */
static size_t feed_not_at_all(struct echo *e, unsigned char *bytes, size_t n)
{
    bytes[0] ^= e->in_message;
    return n;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* n bytes of messages with `length` bytes of payload each; the last may be cut off. */
static void fill(unsigned char *bytes, size_t n, size_t length)
{
    for (size_t i = 0; i < n; i++) {
        size_t at = i % (length + 2);
        bytes[i] = at == 0 ? '^' : at == length + 1 ? '$' : (unsigned char)('a' + at % 26);
    }
}

/* Seconds per call, the least of some rounds: what the code can do when the machine lets it.
 * The bytes have to be copied in again each time, as recv would. */
static double time_of(feed *volatile f, const unsigned char *input, size_t n)
{
    static unsigned char scratch[READ_SIZE];
    size_t calls = 1 + READ_SIZE / n;
    double least = 1;

    for (int round = 0; round < ROUNDS; round++) {
        double began = now();
        for (size_t i = 0; i < calls; i++) {
            struct echo e;
            echo_init(&e);
            memcpy(scratch, input, n);
            f(&e, scratch, n);
        }
        double each = (now() - began) / (double)calls;
        least = each < least ? each : least;
    }
    return least;
}

static bool answers_agree(const unsigned char *input, size_t n)
{
    static unsigned char a[READ_SIZE], b[READ_SIZE];
    struct echo e, f;
    echo_init(&e);
    echo_init(&f);
    memcpy(a, input, n);
    memcpy(b, input, n);
    size_t answers = echo_feed(&e, a, n);
    return answers == feed_bytewise(&f, b, n) && memcmp(a, b, answers) == 0;
}

struct figure {
    double engine, bytewise; /* seconds per read */
};

static struct figure measure(size_t n, size_t length)
{
    static unsigned char input[READ_SIZE];
    fill(input, n, length);
    if (!answers_agree(input, n)) {
        fprintf(stderr, "engine: the answers to messages of %zu bytes differ\n", length);
        exit(1);
    }
    double none = time_of(feed_not_at_all, input, n);
    return (struct figure){time_of(echo_feed, input, n) - none,
                           time_of(feed_bytewise, input, n) - none};
}

int main(int argc, char **argv)
{
    bool json = argc == 2 && strcmp(argv[1], "--json") == 0;

    if (argc > 1 && !json) {
        bool help = strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr, "usage: engine [--json]\n");
        return help ? EXIT_SUCCESS : 2;
    }
    if (!json)
        printf("%8s | %-24s | %-24s\n%8s | %9s %9s %4s | %9s %9s %4s\n", "payload",
               "a message to a read, ns", "reads of 64 KiB, GB/s", "bytes", "engine",
               "bytewise", "x", "engine", "bytewise", "x");
    for (int i = 0; i < LENGTH_COUNT; i++) {
        size_t length = LENGTHS[i];
        struct figure one = measure(length + 2, length), many = measure(READ_SIZE, length);
        double gb = READ_SIZE / 1e9;
        if (json)
            printf("%s{\"payload\": %zu, \"engine_ns\": %.2f, \"bytewise_ns\": %.2f, "
                   "\"engine_gb_per_s\": %.3f, \"bytewise_gb_per_s\": %.3f}",
                   i == 0 ? "[" : ",\n ", length, one.engine * 1e9, one.bytewise * 1e9,
                   gb / many.engine, gb / many.bytewise);
        else
            printf("%8zu | %9.1f %9.1f %4.1f | %9.2f %9.2f %4.1f\n", length, one.engine * 1e9,
                   one.bytewise * 1e9, one.bytewise / one.engine, gb / many.engine,
                   gb / many.bytewise, many.bytewise / many.engine);
    }
    if (json)
        puts("]");
    return 0;
}
