/* What libuv leaves to its user and no step teaches: a listener on any address, and a way to
 * run out of memory and live. */
#ifndef SETUP_H
#define SETUP_H

#include "peer.h"

#include <stdbool.h>
#include <uv.h>

/* Initialises the loop and makes the listener listen as the command line says; `knock` is
 * called for each newcomer. *address gets what it listens on. Exits with status 1 on failure.
 */
void setup_listener(uv_loop_t *loop, uv_tcp_t *listener, uv_connection_cb knock,
                    struct peer *address);

/* For a `knock` called with an error: libuv would ask accept again at once, for as long as it
 * fails, and serve nobody meanwhile. The listener is closed and, some milliseconds later,
 * opened again; newcomers wait in the kernel. (Without a free descriptor it does not rest.) */
void setup_rest(uv_tcp_t *listener, uv_connection_cb knock);

/* Closes the listener, also while it rests. */
void setup_unlisten(uv_tcp_t *listener);

/* Room to serve one more? libuv ends the program when its table of descriptors cannot grow. So
 * some memory is kept back, and given up in need; false while it cannot be had again. */
bool setup_has_memory(void);

/* malloc, from what was kept back if there is no other. */
void *setup_malloc(size_t size);

/* How many bytes the other side has yet to take: net_untaken, and what libuv has yet to send.
 */
size_t setup_untaken(const uv_tcp_t *tcp);

/* Has it said something that was not read yet, or gone? */
bool setup_readable(const uv_tcp_t *tcp);

/* Closes the loop, all of whose handles must be closed, and frees what was kept back. */
void setup_close(uv_loop_t *loop);

#endif
