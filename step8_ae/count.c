#include "count.h"
#include "stats.h"

#include <stdbool.h>
#include <string.h>

enum { OURS = 2 }; /* descriptors watched beside the clients': listener, wake-up */

/* How many descriptors the back-end looks at to find the ready ones: 0 where the kernel tells
 * which they are (epoll, kqueue), and then they are counted as they come. */
static int looked_at(const aeEventLoop *loop)
{
    const char *api = aeGetApiName();

    if (strcmp(api, "select") == 0)
        return loop->maxfd + 1;
    return strcmp(api, "poll") == 0 ? stats_clients() + OURS : 0;
}

static bool told; /* the kernel tells */

static void count_wait(aeEventLoop *loop)
{
    stats_wait(0, looked_at(loop));
}

void count_waits(aeEventLoop *loop)
{
    told = looked_at(loop) == 0;
    stats_add(&stats.interest_changes, OURS);
    aeSetAfterSleepProc(loop, count_wait);
}

void count_event(void)
{
    stats_add(&stats.wait_events, 1);
    stats_add(&stats.descriptors_scanned, told);
}
