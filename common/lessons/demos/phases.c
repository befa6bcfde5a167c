/* The two phases of a read: wait for bytes, then copy them. And what "readable" and "writable"
 * mean.
 *
 * Lesson 3. Prints how long some calls took and how much CPU time this thread used in them.
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

enum { PART = 128 * 1024, LARGE = 8 * 1024 * 1024, WAIT_MS = 100 };

static char block[LARGE];

static long checked(long result, const char *call)
{
    if (result == -1) {
        perror(call);
        exit(1);
    }
    return result;
}

static double milliseconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void timed_recv(const char *what, int fd, int flags)
{
    double began = milliseconds(CLOCK_MONOTONIC), cpu = milliseconds(CLOCK_THREAD_CPUTIME_ID);
    ssize_t n = recv(fd, block, PART, flags);
    int error = errno;
    double took = milliseconds(CLOCK_MONOTONIC) - began;

    cpu = milliseconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    char result[32];
    if (n == -1)
        snprintf(result, sizeof result, "%s", error == EAGAIN ? "EAGAIN" : strerror(error));
    else
        snprintf(result, sizeof result, "%zd bytes", n);
    printf("  %-40s%14s%12.3f%12.3f\n", what, result, took, cpu);
}

static int is_ready(int fd, short events)
{
    struct pollfd entry = {.fd = fd, .events = events, .revents = 0};

    return (int)checked(poll(&entry, 1, 0), "poll");
}

static pid_t send_later(int fd)
{
    pid_t child = (pid_t)checked(fork(), "fork");
    if (child == 0) {
        struct timespec pause = {0, WAIT_MS * 1000000L};
        nanosleep(&pause, NULL);
        _exit(send(fd, "x", 1, MSG_NOSIGNAL) != 1);
    }
    return child;
}

int main(void)
{
    int pair[2], size = 2 * PART;

    setvbuf(stdout, NULL, _IOLBF, 0);
    memset(block, 'x', sizeof block); /* so that its pages exist */
    checked(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    checked(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), "setsockopt");
    printf("One recv of at most %d bytes:%36s%12s\n", PART, "took ms", "CPU ms");
    pid_t child = send_later(pair[1]);
    timed_recv("nothing there: sleep, then copy 1 byte", pair[0], 0);
    waitpid(child, NULL, 0);
    checked(send(pair[1], block, PART, MSG_NOSIGNAL), "send");
    timed_recv("much is there: copy it", pair[0], 0);
    timed_recv("nothing there, non-blocking", pair[0], MSG_DONTWAIT);

    printf("\nReadable, and then:\n");
    checked(send(pair[1], "x", 1, MSG_NOSIGNAL), "send");
    printf("  poll says readable: %s\n", is_ready(pair[0], POLLIN) ? "yes" : "no");
    child = (pid_t)checked(fork(), "fork");
    if (child == 0)
        _exit(recv(pair[0], block, 1, 0) != 1); /* it has the same socket */
    waitpid(child, NULL, 0);
    timed_recv("another process has read it meanwhile", pair[0], MSG_DONTWAIT);

    printf("\nWritable, and then:\n");
    printf("  poll says writable: %s\n", is_ready(pair[1], POLLOUT) ? "yes" : "no");
    long sent = checked(send(pair[1], block, LARGE, MSG_DONTWAIT | MSG_NOSIGNAL), "send");
    printf("  a non-blocking send of %d bytes took: %ld\n", LARGE, sent);
    printf("  poll says writable: %s   (a blocking send would sleep here)\n",
           is_ready(pair[1], POLLOUT) ? "yes" : "no");
    return 0;
}
