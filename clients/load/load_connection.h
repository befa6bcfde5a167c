/* load_connection.h - one connection of the load client: it connects, sends messages, and
 * receives and verifies the answers. load_schedule.h decides when a message is sent.
 */
#ifndef LOAD_CONNECTION_H
#define LOAD_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load_worker.h"

enum connection_state { CONNECTING, GREETING, READY, LOST };

/* When a message in flight was due by the schedule, and when it was sent. */
struct stamp {
    uint64_t due, sent;
};

struct connection {
    struct worker *worker;
    int fd; /* -1: not open */
    uint32_t index;
    enum connection_state state;
    bool writing;            /* the loop watches for room to write */
    unsigned in_flight;      /* messages begun and not fully answered */
    unsigned oldest;         /* the stamp of the first of them; bulk keeps none */
    uint64_t unsent;         /* bytes of messages begun that the kernel has not taken yet */
    uint64_t send_at;        /* their position in the endless repetition of messages */
    uint64_t receive_at;     /* the position in the answer to the oldest message */
    uint64_t begun;          /* messages since the start */
    uint64_t answered;       /* messages in the measured window */
    struct connection *next; /* in the queue of connections that think */
    uint64_t wakes;          /* when this one stops thinking */
    struct stamp stamps[];   /* a ring of plan->depth */
};

static inline struct connection *connection_at(const struct worker *w, size_t i)
{
    return (struct connection *)(void *)(w->connections + i * w->stride);
}

/* Idle connections come after the active ones. */
static inline bool connection_is_active(const struct connection *c)
{
    return c->index < c->worker->active;
}

/* Starts to connect. The connection becomes READY or LOST now or in the loop. */
void connection_open(struct connection *c);

/* Appends a message to what is to be sent. There must be room for it: c->in_flight < depth. */
void connection_begin_message(struct connection *c, uint64_t due, uint64_t now);
/* Sends what was begun, as far as the kernel takes it. May lose the connection. */
void connection_push(struct connection *c);
void connection_watch_writable(struct connection *c, bool on);

/* Changes the number of messages in flight and adds up their time in the measured window. */
void connection_count_flight(struct worker *w, uint64_t now, int64_t change);

#endif
