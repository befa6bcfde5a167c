/* Rounded up, a wait never ends before the timer is due. */
#include <poll.h>
#include <stdio.h>
#include <time.h>

static long now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int main(void)
{
    int waits = 0;

    for (int timer = 0; timer < 20; timer++)
        for (long due = now_us() + 1900, left; (left = due - now_us()) > 0; waits++)
            poll(NULL, 0, (int)((left + 999) / 1000));
    printf("20 timers, %d waits\n", waits);
    return 0;
}
