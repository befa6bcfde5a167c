/* A client as an object. A client without a thread of its own has no stack. So its protocol
 * state and its unsent output are kept in this struct. Steps 4, 5, 6 and 8 use it unchanged.
 * (The other way to hold a client is a call: stream.h.) */
#ifndef CONN_H
#define CONN_H

#include "address.h"
#include "echo.h"
#include "idle.h"
#include "net.h"

#include <stdbool.h>

enum { WANT_READ = 1, WANT_WRITE = 2 }; /* a set; 0 means "finished" */

struct conn {
    struct idle_node idle; /* first: see idle.h */
    struct unsent *unsent; /* output that the socket has not taken yet; usually NULL */
    int fd;
    struct address peer; /* kept, because a socket that was reset does not know it any more */
    struct echo echo;
    unsigned char want; /* what the last conn_pump returned */
    bool progress;      /* did it move a byte, or was it interrupted? Then there may be more */
};

/* Every client, in the order of their last activity (without --idle-timeout: of arrival). */
struct conn_list {
    struct idle_list idle;
    int count;
    int progress; /* how many conn_pump calls made progress; the caller resets it */
};

/* Empties the list; its limit of idleness is --idle-timeout. */
void conn_list_init(struct conn_list *list);

/* Walk the list. Ask for the next client before you pump or close one: conn_pump may move a
 * client to the end of the list. */
static inline struct conn *conn_first(const struct conn_list *list)
{
    return (struct conn *)list->idle.first;
}

static inline struct conn *conn_next(const struct conn *c)
{
    return (struct conn *)c->idle.next;
}

/* Accepts a client (server_accept) and makes it a conn (conn_open). Returns NULL if there is no
 * client to serve. errno ECONNABORTED means that more clients may be pending. */
struct conn *conn_accept(struct conn_list *list, struct net_listener *listener);

/* Makes a conn for a client that server_admit has counted. Sets O_NONBLOCK on fd, which belongs
 * to the conn from now on. Adds the conn to the list, with WANT_READ. If that fails, rejects
 * the client and returns NULL, with errno ECONNABORTED. */
struct conn *conn_open(struct conn_list *list, int fd, const struct address *peer);

/* Serves the client from now on: logs it and sends the greeting. Returns what to wait for. */
int conn_greet(struct conn *c);

/* Pumps: moves the bytes that can move now. Returns what to wait for: WANT_READ or WANT_WRITE.
 * Returns 0 when the client has closed and has all its answers, or when the connection is
 * broken: then close it (conn_close). The work is bounded: one recv, one send. The memory is
 * bounded, too: with unsent output nothing is read, and without it a client has no buffer. */
int conn_pump(struct conn_list *list, struct conn *c);

/* Logs the end, closes the socket and frees everything. */
void conn_close(struct conn_list *list, struct conn *c);

/* The same for a client that conn_greet has not greeted, because it cannot be served. */
void conn_reject(struct conn_list *list, struct conn *c, const char *why);

/* Closes every client that has been idle for too long. A client is not idle while it drains its
 * output, however slowly, or has unread input. */
void conn_close_idle(struct conn_list *list);

/* For a caller that must do something before each close: returns one such client, or NULL. */
struct conn *conn_expired(struct conn_list *list);

/* Milliseconds until a client may have been idle for too long: rounded up, -1 = never. */
int conn_expiry_ms(const struct conn_list *list);

#endif
