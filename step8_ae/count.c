#include "count.h"
#include "server.h"
#include "stats.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { OURS = 2 }; /* descriptors watched beside the clients': listener, wake-up */

/* Returns how many descriptors the back-end looks at to find the ready ones: 0 where the kernel
 * reports just those (epoll, kqueue). Then each is counted when its event comes. */
static int looked_at(const aeEventLoop *loop)
{
    const char *api = aeGetApiName();

    if (strcmp(api, "select") == 0)
        return loop->maxfd + 1;
    return strcmp(api, "poll") == 0 ? stats_clients() + OURS : 0;
}

static bool only_ready; /* the kernel reports ready descriptors only */

static void count_wait(aeEventLoop *loop)
{
    errno = loop->waitError;
    server_waited(errno == 0 ? 0 : -1, looked_at(loop));
}

void count_waits(aeEventLoop *loop)
{
    only_ready = looked_at(loop) == 0;
    server_watched(OURS);
    aeSetAfterSleepProc(loop, count_wait);
}

void count_event(void)
{
    stats_add(&stats.wait_events, 1);
    stats_add(&stats.descriptors_scanned, only_ready);
}
