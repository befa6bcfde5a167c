/* The end of a server whose clients are objects: what stop.h promises to clients. */
#ifndef DRAIN_H
#define DRAIN_H

#include "conn.h"

/* Serves each client until it has no unsent output and nothing has come from it for
 * STOP_LINGER_MS, then closes it. Closes the rest after STOP_GRACE_MS. Uses poll(2), whatever
 * the server used. */
void drain_clients(struct conn_list *list);

#endif
