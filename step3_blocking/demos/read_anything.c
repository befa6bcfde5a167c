/* read_anything - one read(2) loop for a file, a pipe and a socket.
 *
 *     file   ---+
 *     pipe   ---+--> read_all(): read ... read ... read ... 0, the end
 *     socket ---+
 *
 * Everything is a descriptor. Watch first what is the same: read_all() does not know what it
 * reads. Then watch what differs. On the pipe and the socket it sleeps until somebody writes.
 * It never waits for a file. So O_NONBLOCK has no effect on a file, poll(2) always reports it
 * as ready, and epoll_ctl(2) fails with EPERM. When the bytes must come from a slow disk, read
 * does sleep, and no call can tell this in advance. Step 7 shows what helps.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif

enum { PIECES = 3, GAP_MS = 100, USAGE = 2 };
static const char piece[] = "piece\n";

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "read_anything: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* Reads to the end. Prints what each read returned, and how long all of them took. */
static void read_all(const char *name, int fd)
{
    struct timespec began, ended;
    char bytes[64];
    ssize_t n;

    printf("  %-7s read returned", name);
    clock_gettime(CLOCK_MONOTONIC, &began);
    do {
        if ((n = read(fd, bytes, sizeof bytes)) == -1)
            fail(name);
        printf(" %2zd", n);
    } while (n > 0);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("    after %5.1f ms\n", (double)(ended.tv_sec - began.tv_sec) * 1e3 +
                                       (double)(ended.tv_nsec - began.tv_nsec) / 1e6);
}

static void write_slowly(int fd, int gap_ms)
{
    const struct timespec gap = {0, gap_ms * 1000000L};

    for (int i = 0; i < PIECES; i++) {
        nanosleep(&gap, NULL);
        if (write(fd, piece, strlen(piece)) == -1)
            fail("write");
    }
}

static int open_file(void)
{
    char name[] = "/tmp/read_anything.XXXXXX";
    int fd = mkstemp(name);

    if (fd == -1)
        fail(name);
    unlink(name); /* it is deleted when it is closed */
    write_slowly(fd, 0);
    return fd;
}

/* A pipe or a pair of connected sockets: [0] to read from, [1] to write to. */
static void open_both(int fds[2], int is_socket)
{
    if ((is_socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, fds) : pipe(fds)) == -1)
        fail(is_socket ? "socketpair" : "pipe");
}

static void read_from_writer(const char *name, int is_socket)
{
    int fds[2];

    open_both(fds, is_socket);
    fflush(stdout); /* or the child would have a copy to print */
    pid_t writer = fork();
    if (writer == -1)
        fail("fork");
    if (writer == 0) {
        close(fds[0]);
        write_slowly(fds[1], GAP_MS);
        _exit(EXIT_SUCCESS);
    }
    close(fds[1]); /* a reader sees the end only when no writer is left */
    read_all(name, fds[0]);
    close(fds[0]);
    waitpid(writer, NULL, 0);
}

static const char *epoll_verdict(int fd)
{
#ifdef __linux__
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(0), error;

    if (epoll == -1)
        fail("epoll_create1");
    error = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == -1 ? errno : 0;
    close(epoll);
    return error == 0 ? "accepted" : error == EPERM ? "EPERM" : strerror(error);
#else
    (void)fd;
    return "(no epoll)";
#endif
}

/* Prints what three ways not to sleep report about a descriptor with nothing to read. */
static void ask_without_sleeping(const char *name, int fd)
{
    struct pollfd fds = {.fd = fd, .events = POLLIN};
    char byte;

    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == -1)
        fail("fcntl");
    ssize_t n = read(fd, &byte, 1);
    const char *said = n == 0 ? "0: the end" : n == 1 ? "1" : strerror(errno);
    if (n == -1 && errno == EAGAIN)
        said = "-1: EAGAIN";
    const char *ready = poll(&fds, 1, 0) == 0 ? "not ready" : "ready";
    printf("  %-7s %-14s %-12s %s\n", name, said, ready, epoll_verdict(fd));
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        printf("usage: read_anything\n");
        return EXIT_SUCCESS;
    }
    if (argc > 1) {
        fprintf(stderr, "read_anything: takes no arguments, not %s\n", argv[1]);
        return USAGE;
    }

    int file = open_file(), both[2];
    printf(
        "The same loop, three times %zu bytes, from the pipe and the socket one every %d ms:\n",
        strlen(piece), GAP_MS);
    if (lseek(file, 0, SEEK_SET) == -1)
        fail("lseek");
    read_all("file", file);
    read_from_writer("pipe", 0);
    read_from_writer("socket", 1);

    printf("\nNothing to read, and O_NONBLOCK:\n  %-7s %-14s %-12s %s\n", "", "read", "poll",
           "epoll_ctl");
    ask_without_sleeping("file", file);
    for (int is_socket = 0; is_socket <= 1; is_socket++) {
        open_both(both, is_socket);
        ask_without_sleeping(is_socket ? "socket" : "pipe", both[0]);
        close(both[0]);
        close(both[1]);
    }
    close(file);
    return EXIT_SUCCESS;
}
