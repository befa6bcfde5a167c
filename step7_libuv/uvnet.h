/* What libuv leaves to its user and this step does not teach: clients that are pending or idle,
 * the stop, a lack of memory, the statistics. Unlike libuv's own functions, these may print;
 * and at the start they may exit.
 *
 * uv_listen is not used, for two reasons. Without a free descriptor it closes pending
 * connections, and its user cannot log or count them. While accept keeps failing it calls
 * accept again at once, and nobody is served. So libuv only watches the listener here
 * (uv_poll_t), and server_accept does what it does in every other step. */
#ifndef UVNET_H
#define UVNET_H

#include "idle.h"
#include "net.h"

#include <stddef.h>
#include <uv.h>

/* What uvnet keeps about a client. The first member of the caller's own struct, so that a
 * pointer to one is a pointer to the other. */
struct uvnet_client {
    struct idle_node idle; /* first: see idle.h */
    struct address peer;
    uv_tcp_t tcp; /* initialised and closed by the caller */
    int sendq;    /* while output is unsent: how many bytes the client had not acknowledged when
                     it was last active */
};

/* Initialises the loop. uv_run then counts each iteration as a wait (server_waited). Exits with
 * status 1 on failure. */
void uvnet_init(uv_loop_t *loop);

/* Makes uv_run call accept_client when a connection is pending on the listener, and
 * close_client for each client that has been idle for too long. *listener must stay valid until
 * uv_run returns. At a stop uv_run closes the listener, and later the clients, as stop.h says.
 * It returns when all clients and all other handles of the caller are closed. Exits with status
 * 1 on failure. */
void uvnet_listen(uv_loop_t *loop, struct net_listener *listener,
                  void (*accept_client)(struct net_listener *listener),
                  void (*close_client)(struct uvnet_client *c));

/* Accepts a client (server_accept) and logs that it is served. Returns `size` bytes of zeroed
 * memory for it, which begin with a uvnet_client, and which the caller frees; *fd is the
 * caller's, too. Returns NULL if there is no client, or if memory has run out: then the client
 * is rejected.
 *
 * libuv aborts the program when its table of descriptors cannot grow. So some memory is kept in
 * reserve for the table, and no client is accepted while the reserve cannot be replaced. */
void *uvnet_accept(struct net_listener *listener, size_t size, int *fd);

/* The client is active now. */
void uvnet_touch(struct uvnet_client *c);

/* The client is no longer served, and its tcp is about to be closed. */
void uvnet_disconnected(struct uvnet_client *c);

/* Counts the result of a read callback, or of a write of n bytes: a number of bytes or an error
 * of libuv's. */
void uvnet_count_read(ssize_t result);
void uvnet_count_write(ssize_t result, size_t n);

/* Closes uvnet's own handles, then the loop, and frees the reserve. The caller's handles must
 * be closed. */
void uvnet_finish(uv_loop_t *loop);

#endif
