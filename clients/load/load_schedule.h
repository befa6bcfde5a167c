/* load_schedule.h - decides when a connection sends its next message.
 *
 *     closed loop    when an answer has arrived, or after the think time
 *     open loop      at fixed points in time: message k of a worker belongs to connection
 *                    k mod active; one that finds its connection full waits there
 *     bulk           as soon as the kernel takes more bytes
 */
#ifndef LOAD_SCHEDULE_H
#define LOAD_SCHEDULE_H

#include "load_connection.h"

/* Starts the messages of all connections that are ready when the run starts. */
void schedule_start(struct worker *w);
/* Starts the messages of a connection that is ready, if it is to have any. */
void schedule_ready(struct connection *c, uint64_t now);
/* Continues after `done` more messages were answered in full. */
void schedule_answered(struct connection *c, unsigned done, uint64_t now);
/* Continues after the kernel made room for bytes to send. */
void schedule_writable(struct connection *c, uint64_t now);

/* Sends what is due by now. */
void schedule_run(struct worker *w, uint64_t now);
/* When schedule_run has something to do again; NEVER if only an event can bring work. */
uint64_t schedule_next(const struct worker *w);

/* When message k of this worker is due in the open loop. */
uint64_t schedule_due(const struct worker *w, uint64_t k);

#endif
