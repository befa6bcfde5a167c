/* Socket calls with the error handling that every step needs and no step teaches.
 *
 * Functions return -1 with errno set, and never print or exit: the program decides. */
#ifndef NET_H
#define NET_H

#include "address.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct net_listener {
    int fd;
    int reserved;           /* a spare descriptor, for rejecting a client: see net_accept */
    bool passed;            /* from another process, which has it, too: net_listen_passed */
    struct address address; /* what fd is bound to; its port is real even if 0 was asked for */
};

/* Listens on the first address of host that can be bound. host is an address or a name
 * ("127.0.0.1", "::", "localhost"), port is decimal ("0" = any free one): getaddrinfo(3).
 * Sets SO_REUSEADDR and FD_CLOEXEC; the backlog is SOMAXCONN. Returns 0; or -1, and *why says
 * what went wrong (a static string). */
int net_listen(struct net_listener *listener, const char *host, const char *port,
               const char **why);

/* The same with a socket that another process has opened and passed to this one. It must be a
 * TCP socket that listens. Sets FD_CLOEXEC. Clears O_NONBLOCK, which the server before this one
 * may have set: the processes share that flag. */
int net_listen_passed(struct net_listener *listener, int fd, const char **why);

/* Gives another thread a listener of its own on the same address, with a reserved descriptor of
 * its own. net_listen_dup is the same socket, with the same queue of clients, by another
 * descriptor (dup(2)). net_listen_reuseport is another socket, with a queue of its own, and the
 * kernel chooses the queue for each client (SO_REUSEPORT, socket(7)). Both return 0, or -1 with
 * errno. */
int net_listen_dup(struct net_listener *another, const struct net_listener *first);
int net_listen_reuseport(struct net_listener *another, const struct net_listener *first);

/* Of the listeners that share a port by SO_REUSEPORT, only the first gets new clients from now
 * on, until net_listen_reuseport is called again. So the queues of the others can be emptied
 * before they are closed: the kernel resets the clients in the queue of a closed listener.
 * Returns 0, or -1 with errno. ENOPROTOOPT: this system cannot do it. */
int net_only_first(const struct net_listener *any);

/* Lets no more clients connect, even if another process has the listener open, too. From now on
 * accept fails. Does nothing to a socket that was passed: the next server gets the clients that
 * connect now. Linux only; elsewhere it may do nothing. */
void net_shut(const struct net_listener *listener);

/* Closes the listener and its reserved descriptor. */
void net_unlisten(struct net_listener *listener);

/* Accepts one connection, with TCP_NODELAY and FD_CLOEXEC set. Returns its descriptor, which
 * the caller closes; *peer is the client's address. Or returns NET_REJECTED or -1.
 *
 * NET_REJECTED: no descriptor was free (errno is EMFILE or ENFILE). The connection of *peer was
 * accepted with the reserved descriptor and closed. Left in the backlog it would keep the
 * listener readable and make the caller's loop spin.
 *
 * -1: no connection was accepted. The caller goes on. If net_is_again(errno), none is pending.
 * EINTR: a signal came. ECONNABORTED, EPROTO: the connection died in the backlog. Any other
 * error may last. Then the call has slept for 10 ms, so that the caller cannot spin. */
enum { NET_REJECTED = -2 };
int net_accept(struct net_listener *listener, struct address *peer);

/* Makes calls on fd return EAGAIN instead of sleeping. */
int net_set_nonblocking(int fd);

/* Makes recv and send on fd return EAGAIN after ms milliseconds; 0 = wait without limit. */
int net_set_timeout(int fd, int ms);

/* Returns what net_set_timeout has set, in milliseconds; 0 = no limit. */
int64_t net_timeout(int fd);

/* Waits at most ms milliseconds until recv on fd would not sleep. Returns false when the time
 * is over. true may also mean that a signal came. */
bool net_readable(int fd, int ms);

/* poll(2), also for more descriptors than RLIMIT_NOFILE allows. poll fails (EINVAL) when
 * the limit was lowered after they were opened (prlimit(2)). Then this asks for one descriptor
 * after the other and sleeps 10 ms at most. Returns what poll does. */
int net_poll(struct pollfd *fds, nfds_t n, int ms);

/* recv(2), counted in the statistics. */
ssize_t net_recv(int fd, void *bytes, size_t n);

/* send(2), counted, without SIGPIPE. May send fewer than n bytes. */
ssize_t net_send(int fd, const void *bytes, size_t n);

/* Returns how many bytes sent on fd the client has not acknowledged yet (netstat's Send-Q); 0
 * where the system does not tell. It shows whether a client reads slowly or not at all. poll
 * cannot show that: a socket is writable only when a third of its buffer is free. */
int net_sendq(int fd);

/* Does the error mean "nothing to do now, try later" on a non-blocking socket? (EAGAIN or
 * EWOULDBLOCK. EINTR is not one of them: the call has not looked yet.) */
bool net_is_again(int error);

/* Does the error mean that descriptors have run out, for the process or the system? */
bool net_is_out_of_descriptors(int error);

#endif
