/* Sockets, with the traps taken out: what every step needs and none of them teaches.
 *
 * Functions return -1 with errno set, and never print or exit: the program decides. */
#ifndef NET_H
#define NET_H

#include "peer.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct net_listener {
    int fd;
    int spare;           /* kept for a full house: see net_accept */
    struct peer address; /* what it is bound to; tells the port when 0 was asked for */
};

/* Listens on the first address getaddrinfo(3) yields for host ("127.0.0.1", "::", a name) and
 * port (decimal, "0" = any free one) that can be bound: SO_REUSEADDR, backlog SOMAXCONN.
 * Returns 0; or -1, and *why says what went wrong (a static string). */
int net_listen(struct net_listener *listener, const char *host, const char *port,
               const char **why);

/* Closes the listener and its spare descriptor. */
void net_unlisten(struct net_listener *listener);

/* Accepts one client, with TCP_NODELAY and FD_CLOEXEC set. Returns the descriptor, which is the
 * caller's to close; or -1, and the caller goes on:
 *   EAGAIN, EINTR   nobody is waiting (non-blocking listener), or a signal came
 *   EMFILE, ENFILE  no descriptor is left: the newcomer, whose address is in *peer, was let in
 *                   with the spare one and shown out, because a client left in the backlog
 *                   would keep the listener readable and us busy
 *   anything else   a connection died while it waited (accept(2), "Error handling"), or the
 *                   kernel is in trouble, say ENOBUFS: then the call also took a short nap */
int net_accept(struct net_listener *listener, struct peer *peer);

/* Makes calls on fd answer EAGAIN instead of sleeping. */
int net_set_nonblocking(int fd);

/* Makes recv and send on fd give up with EAGAIN after ms milliseconds; 0 = wait for ever. */
int net_set_timeout(int fd, int ms);

/* For a loop that calls recv or send again after EINTR, each time with all of the time of
 * net_set_timeout: have these calls, since the first that was cut short, slept longer than that
 * in all? *since holds when that was; set it to 0 whenever bytes have moved. */
bool net_overdue(int fd, long long *since);

/* Waits until recv would not sleep on fd, ms milliseconds at most. Returns false when the time
 * is over; true may also mean that a signal came. */
bool net_readable(int fd, int ms);

/* poll(2), which refuses more descriptors than RLIMIT_NOFILE allows, though all are open: when
 * somebody has lowered the limit since (prlimit(2)), asks for one after the other, and sleeps
 * little. Returns what poll does. */
int net_poll(struct pollfd *fds, nfds_t n, int ms);

/* recv(2), counted. */
ssize_t net_recv(int fd, void *bytes, size_t n);

/* send(2), counted, and never a SIGPIPE. May take fewer than n bytes. */
ssize_t net_send(int fd, const void *bytes, size_t n);

/* Sends all n bytes on a blocking socket. A signal means "again" unless *give_up is set by
 * then. Returns 0; or -1, and some of the bytes may have gone: EAGAIN when for the time of
 * net_set_timeout the other side has taken none; if it took some, for up to twice that. */
int net_send_all(int fd, const void *bytes, size_t n, const atomic_bool *give_up);

/* How many bytes sent on fd the other side has yet to take; 0 where the system does not tell.
 * It tells who reads slowly from who does not read: a socket calls itself writable, and wakes
 * those who wait in send, only when a good part of its buffer is free. */
int net_untaken(int fd);

/* Is the error one of a call that had nothing to do: EAGAIN, EWOULDBLOCK or EINTR? */
bool net_is_again(int error);

/* Is it one of a full house: EMFILE or ENFILE? */
bool net_is_full(int error);

#endif
