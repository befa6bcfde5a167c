/* What the event loop cost, for the report. ae itself knows nothing of stats.h. */
#ifndef COUNT_H
#define COUNT_H

#include "ae.h"

/* Counts each wait of the loop from now on, and the descriptors looked at in it
 * (server_waited). The loop must watch every client of the server, its listener and
 * stop_wakeup_fd(). */
void count_waits(aeEventLoop *loop);

/* Counts an event. Call it in each callback of a descriptor. */
void count_event(void);

#endif
