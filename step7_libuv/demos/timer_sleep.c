/* timer_sleep - a callback that sleeps stops all timers.
 *
 *     timer_sleep [--time-scale X]
 *
 * A timer ticks once a second. Every third tick calls heavy_work in its callback, which takes
 * three seconds. It sleeps, but a computation would stop the loop as well. Watch the gap after
 * it. The ticks that were due in that time are lost. The next tick is even later, because the
 * loop computes its own sleep from the time before the callback (uv_update_time corrects that).
 * Bytes from a client would wait as long. The cure: diff demos/timer_sleep.c demos/timer_work.c
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

static void heavy_work(void)
{
    uv_sleep((unsigned)(WORK_MS * time_scale));
}

static void tick(uv_timer_t *timer)
{
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
        heavy_work();
        printf("    heavy work is done\n");
        fflush(stdout);
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
                    "timer_sleep: --time-scale '%s': expected a number from 0.01 to 100\n",
                    argv[2]);
        fprintf(help ? stdout : stderr, "usage: timer_sleep [--time-scale X]\n");
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
