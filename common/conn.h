/* One client as an object. Without a thread, and so a stack, per client, what a client has said
 * and is owed must live somewhere: here. Used unchanged by steps 4, 5, 6 and 8. */
#ifndef CONN_H
#define CONN_H

#include "echo.h"
#include "peer.h"

#include <stdbool.h>
#include <stdint.h>

enum { WANT_READ = 1, WANT_WRITE = 2 }; /* a set; 0 means "finished" */

struct conn {
    struct conn *prev, *next; /* neighbours in the list, longest silent first */
    struct owed *owed;        /* answers the socket has not taken yet; NULL most of the time */
    int fd;
    uint32_t heard;   /* when bytes last moved: monotonic milliseconds, which may wrap */
    struct peer peer; /* kept, because a dead socket no longer tells */
    struct echo echo;
    unsigned char want; /* what the last conn_pump answered */
    bool moved;         /* did it move any byte? If so there may be more at once */
};

/* Every client of a server, the one silent for longest first. Zero it to begin. */
struct conn_list {
    struct conn *first, *last;
    int count;
    int idle_limit; /* milliseconds of silence allowed; 0 = for ever, and no clock is read */
};

/* Makes a client of fd, a non-blocking socket that is the conn's from now on, and puts it at
 * the end of the list, wanting to read. Returns it; or NULL with errno ENOMEM, and then fd is
 * still the caller's. */
struct conn *conn_open(struct conn_list *list, int fd, const struct peer *peer);

/* Sends the greeting: once, when the client is sure to stay. Returns what to wait for. */
int conn_greet(struct conn *c);

/* Closes the socket and frees everything. */
void conn_close(struct conn_list *list, struct conn *c);

/* Moves what can move now and returns what to wait for: WANT_READ, WANT_WRITE, or 0 when the
 * client has gone, was reset, or its last answer is delivered: then conn_close it. Work is
 * bounded (one recv, one send), and so is memory: no answer owed, nothing read; and while
 * nothing is owed a client has no buffer. */
int conn_pump(struct conn_list *list, struct conn *c);

/* Has the first client of the list been silent for too long? Drop it, and ask again. Who is
 * owed something and takes some of it, however little, is not silent; nor is who has spoken
 * and was not heard yet, because the server could not run for so long. */
bool conn_expired(struct conn_list *list);

/* Milliseconds until conn_expired will have something to say: rounded up, -1 = never. */
int conn_expiry_ms(const struct conn_list *list);

/* The end: serves each client until it is owed nothing and has been silent for quiet_ms, then
 * closes it; closes the rest after limit_ms. Calls gone(peer) for each. */
void conn_drain(struct conn_list *list, int quiet_ms, int limit_ms,
                void (*gone)(const struct peer *peer));

#endif
