/* timers.c - what a timer costs among many others: in ae, and in libuv, in the same run. Prints
 * a JSON array with an object for each library and number of timers:
 *
 *   create_ns, delete_ns  of one timer, at random times and in random order
 *   rearm_ns              an iteration of the loop that calls one timer, which is due again in
 *                         the next iteration
 *   idle_ns               an iteration in which no timer is due
 *
 * Each loop watches one descriptor that is never ready, and never sleeps. Each figure is the
 * least of several rounds, in which the libraries take turns.
 */
#include "../../step8_ae/ae.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

enum { MOST = 100000, ITERATIONS = 20000, ROUNDS = 5 };

static const int COUNTS[] = {1000, MOST};
enum { COUNT_COUNT = sizeof COUNTS / sizeof *COUNTS };

static int never_ready;

static void check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "timers: %s failed\n", what);
        exit(1);
    }
}

/* ------------------------------------------------------------------------ ae */

static aeEventLoop *ae;
static long long ae_ids[MOST + 1];

static void ae_on_file(aeEventLoop *loop, int fd, void *data, int mask)
{
    (void)loop, (void)fd, (void)data, (void)mask;
}

static int ae_on_time(aeEventLoop *loop, long long id, void *data)
{
    (void)loop, (void)id, (void)data;
    return 0; /* again in the next iteration */
}

static void ae_open(void)
{
    ae = aeCreateEventLoop(64);
    check(ae == NULL ? -1 : 0, "aeCreateEventLoop");
    check(aeCreateFileEvent(ae, never_ready, AE_READABLE, ae_on_file, NULL),
          "aeCreateFileEvent");
}

static void ae_create(int i, int ms)
{
    ae_ids[i] = aeCreateTimeEvent(ae, ms, ae_on_time, NULL, NULL);
    check(ae_ids[i] == AE_ERR ? -1 : 0, "aeCreateTimeEvent");
}

static void ae_delete(int i)
{
    check(aeDeleteTimeEvent(ae, ae_ids[i]), "aeDeleteTimeEvent");
}

static void ae_iterate(void)
{
    aeProcessEvents(ae, AE_ALL_EVENTS | AE_DONT_WAIT);
}

/* Its callback has re-armed the timer. */
static void ae_rearm(int i)
{
    (void)i;
    ae_iterate();
}

static void ae_close(void)
{
    aeDeleteEventLoop(ae);
}

/* ------------------------------------------------------------------------ libuv */

static uv_loop_t uv;
static uv_timer_t uv_timers[MOST + 1];
static uv_poll_t uv_watch;

static void uv_on_file(uv_poll_t *handle, int status, int events)
{
    (void)handle, (void)status, (void)events;
}

static void uv_on_time(uv_timer_t *timer)
{
    (void)timer;
}

static void uv_open(void)
{
    check(uv_loop_init(&uv), "uv_loop_init");
    check(uv_poll_init(&uv, &uv_watch, never_ready), "uv_poll_init");
    check(uv_poll_start(&uv_watch, UV_READABLE, uv_on_file), "uv_poll_start");
}

static void uv_create(int i, int ms)
{
    uv_timer_init(&uv, &uv_timers[i]);
    uv_timer_start(&uv_timers[i], uv_on_time, (uint64_t)ms, 0);
}

static void uv_delete(int i)
{
    uv_close((uv_handle_t *)&uv_timers[i], NULL);
}

static void uv_iterate(void)
{
    uv_run(&uv, UV_RUN_NOWAIT);
}

/* Started inside its callback, a timer without delay would be called for ever. */
static void uv_rearm(int i)
{
    uv_timer_start(&uv_timers[i], uv_on_time, 0, 0);
    uv_iterate();
}

static void uv_close_all(void)
{
    uv_close((uv_handle_t *)&uv_watch, NULL);
    uv_run(&uv, UV_RUN_DEFAULT);
    check(uv_loop_close(&uv), "uv_loop_close");
}

/* ------------------------------------------------------------------------ measuring */

struct figures {
    double create, delete, rearm, idle; /* nanoseconds */
};

static const struct library {
    const char *name;
    void (*open)(void);
    void (*create)(int i, int ms);
    void (*end)(int i);
    void (*iterate)(void);
    void (*rearm)(int i); /* and iterate */
    void (*close)(void);
} LIBRARIES[] = {
    {"ae", ae_open, ae_create, ae_delete, ae_iterate, ae_rearm, ae_close},
    {"libuv", uv_open, uv_create, uv_delete, uv_iterate, uv_rearm, uv_close_all},
};
enum { LIBRARY_COUNT = sizeof LIBRARIES / sizeof *LIBRARIES };

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int random_below(int n)
{
    static uint64_t state = 1;

    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int)((state >> 33) % (unsigned)n);
}

/* Fills in the numbers below n, in random order. */
static void shuffle(int *numbers, int n)
{
    for (int i = 0; i < n; i++) {
        int j = random_below(i + 1);

        numbers[i] = numbers[j];
        numbers[j] = i;
    }
}

static struct figures measure(const struct library *l, int n)
{
    enum { HOUR_MS = 3600 * 1000 };
    static int delays[MOST], order[MOST];
    struct figures f;

    for (int i = 0; i < n; i++)
        delays[i] = HOUR_MS + random_below(HOUR_MS);
    shuffle(order, n);
    l->open();

    double began = now_ns();

    for (int i = 0; i < n; i++)
        l->create(i, delays[i]);
    f.create = (now_ns() - began) / n;
    began = now_ns();
    for (int i = 0; i < ITERATIONS; i++)
        l->iterate();
    f.idle = (now_ns() - began) / ITERATIONS;
    l->create(n, 0);
    began = now_ns();
    for (int i = 0; i < ITERATIONS; i++)
        l->rearm(n);
    f.rearm = (now_ns() - began) / ITERATIONS;
    l->end(n);
    began = now_ns();
    for (int i = 0; i < n; i++)
        l->end(order[i]);
    l->iterate(); /* which frees them, or calls back */
    f.delete = (now_ns() - began) / n;
    l->close();
    return f;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

int main(int argc, char **argv)
{
    struct figures best[LIBRARY_COUNT][COUNT_COUNT];
    int ends[2];

    if (argc > 1) {
        bool help = strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr, "usage: timers\n");
        return help ? EXIT_SUCCESS : 2;
    }
    check(pipe(ends), "pipe");
    never_ready = ends[0];
    for (int round = 0; round < ROUNDS; round++)
        for (int c = 0; c < COUNT_COUNT; c++)
            for (int i = 0; i < LIBRARY_COUNT; i++) {
                struct figures f = measure(&LIBRARIES[i], COUNTS[c]), *b = &best[i][c];

                if (round == 0)
                    *b = f;
                b->create = least(b->create, f.create);
                b->delete = least(b->delete, f.delete);
                b->rearm = least(b->rearm, f.rearm);
                b->idle = least(b->idle, f.idle);
            }
    for (int i = 0; i < LIBRARY_COUNT; i++)
        for (int c = 0; c < COUNT_COUNT; c++)
            printf("%s{\"library\": \"%s\", \"timers\": %d, \"create_ns\": %.1f, "
                   "\"delete_ns\": %.1f, \"rearm_ns\": %.1f, \"idle_ns\": %.1f}",
                   i + c == 0 ? "[" : ",\n ", LIBRARIES[i].name, COUNTS[c], best[i][c].create,
                   best[i][c].delete, best[i][c].rearm, best[i][c].idle);
    puts("]");
    return 0;
}
