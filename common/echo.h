/* The protocol: bytes in, bytes out, no I/O.
 *
 * A server greets each client with '*'. Bytes are then ignored until '^', which begins a
 * message. Every further byte b is answered with (b + 1) mod 256, until '$' ends the message.
 * Then bytes are ignored again. Inside a message '^' is an ordinary byte.
 *
 * The engine never sees a socket: it is told which bytes arrived and says which bytes are to
 * be sent. That is why all eight servers can share it, whoever calls recv for them. */
#ifndef ECHO_H
#define ECHO_H

#include <stdbool.h>
#include <stddef.h>

#define ECHO_GREETING "*" /* what a server sends first, once per connection */

/* The state of one connection. It survives any split of the input into packets. */
struct echo {
    bool in_message; /* a '^' came, its '$' did not yet */
};

/* Starts a connection: outside any message. */
void echo_init(struct echo *e);

/* Takes the next n bytes of input and overwrites them with the answers, from bytes[0] on.
 * Returns how many answers there are, at most n: the output of a byte never comes before the
 * byte itself, so one buffer is enough. The rest of bytes[] is left undefined. Cannot fail. */
size_t echo_feed(struct echo *e, unsigned char *bytes, size_t n);

#endif
