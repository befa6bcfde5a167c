/* timer_work - the same work, in another thread: the timer goes on.
 *
 *     timer_work [--time-scale X]
 *
 * The cure for timer_sleep: every third tick gives heavy_work to libuv's pool of threads
 * (uv_queue_work) and returns. The ticks come every second while the work goes on. heavy_work
 * runs in a thread of the pool, so it must not use the loop or its handles. work_done is called
 * by the loop, like any other callback, so it may use them.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { TICK_MS = 1000, WORK_MS = 3000, TICKS = 9, EVERY = 3, USAGE = 2 };

static double time_scale = 1;
static uint64_t last_tick;
static double longest_gap;
static int ticks;

static void heavy_work(uv_work_t *work)
{
    (void)work;
    uv_sleep((unsigned)(WORK_MS * time_scale));
}

static void work_done(uv_work_t *work, int status)
{
    (void)work;
    (void)status; /* an error only after uv_cancel, which is not used here */
    printf("    heavy work is done\n");
    fflush(stdout);
}

static void tick(uv_timer_t *timer)
{
    static uv_work_t works[TICKS / EVERY]; /* one each: two may run at the same time */
    uint64_t now = uv_hrtime();
    double gap = (double)(now - last_tick) / 1e9;

    last_tick = now;
    longest_gap = gap > longest_gap ? gap : longest_gap;
    ticks++;
    printf("tick %d, %.3f s after the last%s\n", ticks, gap,
           gap > 1.5 * TICK_MS / 1000 * time_scale ? "   <- late" : "");
    fflush(stdout);
    if (ticks == TICKS) {
        uv_close((uv_handle_t *)timer, NULL);
    } else if (ticks % EVERY == 0) {
        printf("    heavy work begins\n");
        fflush(stdout);
        uv_queue_work(timer->loop, &works[ticks / EVERY - 1], heavy_work, work_done);
    }
}

int main(int argc, char **argv)
{
    uv_loop_t *loop = uv_default_loop();
    char *end = NULL;
    uv_timer_t timer;

    if (argc == 3 && strcmp(argv[1], "--time-scale") == 0)
        time_scale = strtod(argv[2], &end);
    if (argc != 1 &&
        (end == NULL || *end != '\0' || !(time_scale >= 0.01 && time_scale <= 100))) {
        bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
        if (end != NULL)
            fprintf(stderr,
                    "timer_work: --time-scale '%s': expected a number from 0.01 to 100\n",
                    argv[2]);
        fprintf(help ? stdout : stderr, "usage: timer_work [--time-scale X]\n");
        return help ? EXIT_SUCCESS : USAGE;
    }
    uint64_t period = (uint64_t)(TICK_MS * time_scale);
    uv_timer_init(loop, &timer);
    uv_timer_start(&timer, tick, period, period);
    last_tick = uv_hrtime();
    uv_run(loop, UV_RUN_DEFAULT);
    printf("longest gap between two ticks: %.3f s\n", longest_gap);
    return uv_loop_close(loop) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
