/* What the event loop cost, for the report: ae itself knows nothing of stats.h. */
#ifndef COUNT_H
#define COUNT_H

#include "ae.h"

/* Counts each wait of the loop from now on, and the descriptors looked at in it. The loop is to
 * watch every client of the server, its listener and cli_wakeup_fd(). */
void count_waits(aeEventLoop *loop);

/* To be called for each event. */
void count_event(void);

#endif
