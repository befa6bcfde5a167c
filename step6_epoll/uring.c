#include "uring.h"
#include "server.h"
#include "log.h"
#include "stats.h"
#include "stop.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif

static struct io_uring_buf_ring *provided;
static unsigned char (*buffers)[URING_BUFFER_SIZE];
static int free_buffers;

static void check(int error)
{
    if (error < 0)
        log_die("%s: %s",
                error == -ENOMEM ? "io_uring may lock too little memory (ulimit -l)"
                                 : "this kernel does not allow io_uring",
                strerror(-error));
}

/* With DEFER_TASKRUN the kernel does its part of the work when it is asked for results, and
 * does not interrupt the program for it. */
void uring_init(struct io_uring *ring, const struct net_listener *listener)
{
    const size_t size = (sizeof *buffers + sizeof(struct io_uring_buf)) * URING_BUFFERS;
    struct io_uring_buf_reg group = {.ring_entries = URING_BUFFERS};

    check(io_uring_queue_init(URING_REQUESTS, ring,
                              IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN));
    buffers = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (buffers == MAP_FAILED)
        log_die("out of memory");
    provided = (void *)(buffers + URING_BUFFERS);
    group.ring_addr = (uintptr_t)provided;
    check(io_uring_register_buf_ring(ring, &group, 0));
    for (int i = 0; i < URING_BUFFERS; i++)
        uring_provide(buffers[i]);
    net_set_nonblocking(listener->fd);
    /* Accepted sockets inherit this. */
    setsockopt(listener->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

int uring_wait(struct io_uring *ring, struct io_uring_cqe *results[URING_REQUESTS], int ms)
{
#if defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
    if (ms == -1)
        ms = STOP_LINGER_MS; /* ThreadSanitizer delays signals until a call that it knows */
#endif
    struct __kernel_timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    int error =
        io_uring_submit_and_wait_timeout(ring, results, 1, ms == -1 ? NULL : &limit, NULL);
    int n = (int)io_uring_peek_batch_cqe(ring, results, URING_REQUESTS);

    if (n > 0 || error >= 0 || error == -ETIME)
        return n;
    errno = -error;
    return -1;
}

unsigned char *uring_buffer(const struct io_uring_cqe *result)
{
    if (!(result->flags & IORING_CQE_F_BUFFER))
        return NULL;
    free_buffers--;
    return buffers[result->flags >> IORING_CQE_BUFFER_SHIFT];
}

void uring_provide(unsigned char *buffer)
{
    if (buffer == NULL)
        return;
    unsigned i = (unsigned)((size_t)(buffer - buffers[0]) / URING_BUFFER_SIZE);
    io_uring_buf_ring_add(provided, buffer, URING_BUFFER_SIZE, (unsigned short)i,
                          io_uring_buf_ring_mask(URING_BUFFERS), 0);
    io_uring_buf_ring_advance(provided, 1);
    free_buffers++;
}

int uring_free_buffers(void)
{
    return free_buffers;
}

/* The same as server_accept, for a connection that the kernel has accepted. */
static int admit(int fd, struct address *peer)
{
    struct sockaddr_storage name = {0};

    stats_add(&stats.accept_calls, 1);
    getpeername(fd, (struct sockaddr *)&name, &(socklen_t){sizeof name});
    address_from_sockaddr(peer, (struct sockaddr *)&name);
    if (server_admit(peer))
        return fd;
    close(fd);
    return -1;
}

void *uring_accept(struct net_listener *listener, int result, size_t size, int *fd,
                   struct address *peer)
{
    *fd = -1;
    if (result >= 0)
        *fd = admit(result, peer);
    else if (!stop_requested())
        *fd = server_accept(listener, peer);

    void *memory = *fd != -1 ? calloc(1, size) : NULL;
    if (*fd != -1 && memory == NULL)
        server_reject(*fd, peer, strerror(ENOMEM));
    return memory;
}

bool uring_is_passing(int result)
{
    return result == -EINTR || result == -ENOBUFS || net_is_again(-result);
}

void uring_count_recv(int result)
{
    stats_add(&stats.recv_calls, 1);
    stats_add(&stats.recv_again, uring_is_passing(result));
    stats_add(&stats.bytes_in, result > 0 ? (uint64_t)result : 0);
}

void uring_count_send(int result, size_t n)
{
    const size_t sent = result > 0 ? (size_t)result : 0;

    stats_add(&stats.send_calls, 1);
    stats_add(&stats.send_again, uring_is_passing(result));
    stats_add(&stats.send_short, sent > 0 && sent < n);
    stats_add(&stats.bytes_out, sent);
}
