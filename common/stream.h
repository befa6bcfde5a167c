/* A client as a call: one running call of serve_client serves this client and no other. The
 * client's state is the local variables of that call. (The other way to hold a client is an
 * object: conn.h.)
 *
 * The calls sleep, in accept(2), recv(2) and send(2). They also do what every server must do:
 * go on after a signal, keep --idle-timeout, and end at a stop (stop.h). */
#ifndef STREAM_H
#define STREAM_H

#include "address.h"
#include "net.h"

/* Waits for a client and accepts it (server_accept), with --idle-timeout set. Returns its
 * descriptor, which the caller closes; or -1 when a stop was requested. */
int stream_accept(struct net_listener *listener, struct address *peer);

/* Waits for bytes from the client. Returns how many came, at most n; 0 when the client has
 * closed; or -1 with errno. EAGAIN: it was idle for too long. EINTR: the server stops; the
 * client has sent nothing for STOP_LINGER_MS, or the deadline has passed. Any other error: the
 * connection is broken. */
ssize_t stream_recv(int fd, void *bytes, size_t n);

/* Sends all n bytes. Returns 0; or -1 with an errno as above, although some of the bytes may be
 * sent. EAGAIN: the client has taken nothing for --idle-timeout. If it took some bytes before
 * that, this may be noticed only after twice that time. */
int stream_send(int fd, const void *bytes, size_t n);

#endif
