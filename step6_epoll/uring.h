/* What variants/io_uring.c needs and does not teach: how the ring is made, the memory of the
 * provided buffers, the call that waits, the address of an accepted client, the statistics.
 * Unlike liburing's own functions, uring_init may print and exit. */
#ifndef URING_H
#define URING_H

#include "net.h"

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    URING_REQUESTS = 1024,         /* room in the ring */
    URING_BUFFERS = 128,           /* provided to the kernel; a power of two */
    URING_BUFFER_SIZE = 64 * 1024, /* how much one recv can take */
};

/* Makes a ring, provides all buffers to it, and prepares the listener for uring_accept. Exits
 * with status 1 on failure. This needs Linux 6.1. */
void uring_init(struct io_uring *ring, const struct net_listener *listener);

/* Submits the requests, then sleeps until there is a result, or for ms milliseconds (-1 = no
 * limit). Returns how many results there are, or -1 with errno. io_uring_cqe_seen gives the
 * place of a result back to the kernel. */
int uring_wait(struct io_uring *ring, struct io_uring_cqe *results[URING_REQUESTS], int ms);

/* Returns the buffer that a recv has filled, or NULL if it used none. The buffer belongs to the
 * program until uring_provide gives it to the kernel again. uring_provide ignores NULL. */
unsigned char *uring_buffer(const struct io_uring_cqe *result);
void uring_provide(unsigned char *buffer);

/* How many buffers has the program not taken with uring_buffer? Most of them are the kernel's;
 * some may be in results that the program has not looked at yet. */
int uring_free_buffers(void);

/* Admits the client of an accept request, whose result is a descriptor or an error. After an
 * error, server_accept takes the pending connection, or rejects it for lack of descriptors.
 * Returns `size` bytes of zeroed memory for the client, which the caller frees; *fd is the
 * caller's, too. Returns NULL if there is no client, or if memory has run out: then the client
 * is rejected. */
void *uring_accept(struct net_listener *listener, int result, size_t size, int *fd,
                   struct address *peer);

/* May the same recv or send succeed later? ENOBUFS: all provided buffers are in use. */
bool uring_is_passing(int result);

/* Counts the result of a recv, or of a send of n bytes. */
void uring_count_recv(int result);
void uring_count_send(int result, size_t n);

#endif
