/* The two lists of epoll: what is watched, and what is ready. Linux only.
 *
 * Lesson 7. Ten bytes are written, and epoll_wait is called three times. After each call one
 * byte is read. How often is the socket reported: level-triggered, edge-triggered, one-shot?
 * Then: what close does to the interest list, with and without a copy of the descriptor.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int checked(int result, const char *call)
{
    if (result == -1) {
        perror(call);
        exit(1);
    }
    return result;
}

/* How many descriptors epoll watches: the kernel prints a line "tfd:" for each. */
static int watched(int epoll)
{
    char path[64], line[256];
    int count = 0;

    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", epoll);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return -1;
    while (fgets(line, sizeof line, file) != NULL)
        count += strncmp(line, "tfd:", 4) == 0;
    fclose(file);
    return count;
}

static int watch(int epoll, int fd, unsigned events)
{
    struct epoll_event event = {.events = events, .data = {.fd = fd}};

    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static int ready(int epoll)
{
    struct epoll_event event;

    return checked(epoll_wait(epoll, &event, 1, 0), "epoll_wait");
}

static void three_waits(const char *name, unsigned how)
{
    int pair[2], epoll = checked(epoll_create1(0), "epoll_create1");
    char byte;

    checked(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    checked(watch(epoll, pair[0], EPOLLIN | how), "epoll_ctl");
    checked((int)write(pair[1], "0123456789", 10), "write");
    printf("  %-18s", name);
    for (int i = 0; i < 3; i++) {
        printf("%9d", ready(epoll));
        checked((int)read(pair[0], &byte, 1), "read");
    }
    checked((int)write(pair[1], "+", 1), "write");
    printf("%12d", ready(epoll));
    struct epoll_event again = {.events = EPOLLIN | how, .data = {.fd = pair[0]}};
    checked(epoll_ctl(epoll, EPOLL_CTL_MOD, pair[0], &again), "epoll_ctl");
    printf("%12d\n", ready(epoll));
    close(pair[0]);
    close(pair[1]);
    close(epoll);
}

static void after_close(const char *name, int copied)
{
    int pair[2], copy = -1, epoll = checked(epoll_create1(0), "epoll_create1");

    checked(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    checked(watch(epoll, pair[0], EPOLLIN), "epoll_ctl");
    if (copied)
        copy = checked(dup(pair[0]), "dup");
    int before = watched(epoll);
    close(pair[0]);
    ssize_t sent = send(pair[1], "x", 1, MSG_NOSIGNAL); /* EPIPE if the socket is closed */
    if (copied)
        checked((int)sent, "send");
    printf("  %-18s%9d%9d%12d%20s\n", name, before, watched(epoll), ready(epoll),
           epoll_ctl(epoll, EPOLL_CTL_DEL, pair[0], NULL) == 0 ? "possible" : "EBADF");
    close(pair[1]);
    if (copied)
        close(copy);
    close(epoll);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("Ten bytes were sent. Reported by epoll_wait?\n"
           "                      1st wait 2nd wait 3rd wait  new bytes   after MOD\n");
    three_waits("level-triggered", 0);
    three_waits("edge-triggered", EPOLLET);
    three_waits("one-shot", EPOLLONESHOT);
    printf("\nA watched socket is closed. Is it still in the list?\n"
           "                       before    after    reported         EPOLL_CTL_DEL\n");
    after_close("close", 0);
    after_close("close after dup", 1);
    return 0;
}
