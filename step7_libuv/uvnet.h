/* What libuv leaves to its user and this step does not teach: the clients that are pending, the
 * stop, a lack of memory, the statistics. Unlike libuv's own functions, these may print; and at
 * the start they may exit.
 *
 * uv_listen is not used, for two reasons. Without a free descriptor it closes pending
 * connections, and its user cannot log or count them. While accept keeps failing it calls
 * accept again at once, and nobody is served. So libuv only watches the listener here
 * (uv_poll_t), and server_accept does what it does in every other step. */
#ifndef UVNET_H
#define UVNET_H

#include "net.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

/* Initialises the loop. uv_run then counts each iteration as a wait (server_waited). When a
 * stop is requested it closes the listener and calls stop_server, once. It returns when the
 * listener and all of the caller's handles are closed. Exits with status 1 on failure. */
void uvnet_init(uv_loop_t *loop, void (*stop_server)(void));

/* Makes uv_run call accept_client when a connection is pending on the listener. The listener
 * must stay where it is. Exits with status 1 on failure. */
void uvnet_listen(uv_loop_t *loop, struct net_listener *listener,
                  void (*accept_client)(struct net_listener *listener));

/* Accepts a client (server_accept). Returns `size` bytes of zeroed memory for it, which the
 * caller frees; *fd is the caller's, too. Returns NULL if there is no client, or if memory has
 * run out: then the client is rejected.
 *
 * libuv aborts the program when its table of descriptors cannot grow. So some memory is kept in
 * reserve for the table, and no client is accepted while the reserve cannot be replaced. */
void *uvnet_accept(struct net_listener *listener, size_t size, int *fd, struct address *peer);

/* Counts the result of a read callback, or of a write of n bytes: a number of bytes or an error
 * of libuv's. */
void uvnet_count_read(ssize_t result);
void uvnet_count_write(ssize_t result, size_t n);

/* Returns how many bytes of output the client has not taken yet: libuv still has them, or the
 * kernel does (net_sendq). */
size_t uvnet_sendq(const uv_tcp_t *tcp);

/* Is there unread input, or has the client closed? */
bool uvnet_readable(const uv_tcp_t *tcp);

/* Closes the handles of uvnet_init, then the loop, and frees the reserve. The caller's handles
 * must be closed. */
void uvnet_finish(uv_loop_t *loop);

#endif
