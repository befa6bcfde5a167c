/* Prints the bits of a real fd_set: as the program fills it, as pselect returns it, and why it
 * must be filled again.
 *
 * Lesson 6. Four sockets are watched; bytes arrive on one of them, and then on another.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS = 4, WIDTH = 16 };

static int checked(int result, const char *call)
{
    if (result == -1) {
        perror(call);
        exit(1);
    }
    return result;
}

static void show(const char *when, const fd_set *set)
{
    printf("%-26s", when);
    for (int fd = 0; fd < WIDTH; fd++)
        printf(" %2s", FD_ISSET(fd, set) ? "1" : ".");
    printf("\n");
}

static int ask(fd_set *set, int nfds)
{
    struct timespec none = {0, 0};

    return checked(pselect(nfds, set, NULL, NULL, &none, NULL), "pselect");
}

int main(void)
{
    int ours[PAIRS], theirs[PAIRS], highest = 0;
    fd_set set;

    for (int fd = 3; fd < 64; fd++)
        close(fd); /* whatever this program has inherited */
    for (int i = 0; i < PAIRS; i++) {
        int pair[2];
        checked(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
        ours[i] = pair[0];
        theirs[i] = pair[1];
        highest = ours[i];
    }
    printf("%zu bits, %zu bytes; FD_SETSIZE is %d. The first %d:\n\n%-26s", 8 * sizeof set,
           sizeof set, FD_SETSIZE, WIDTH, "descriptor");
    for (int fd = 0; fd < WIDTH; fd++)
        printf(" %2d", fd);
    printf("\n");

    FD_ZERO(&set);
    show("1 FD_ZERO", &set);
    for (int i = 0; i < PAIRS; i++)
        FD_SET(ours[i], &set);
    show("2 FD_SET, four times", &set);
    checked((int)write(theirs[1], "x", 1), "write");
    int ready = ask(&set, highest + 1);
    show("3 pselect overwrites it", &set);
    printf("%26s   pselect returned %d; FD_ISSET finds descriptor %d\n", "4", ready, ours[1]);

    char byte;
    checked((int)read(ours[1], &byte, 1), "read");
    checked((int)write(theirs[2], "x", 1), "write"); /* now another one is ready */
    ready = ask(&set, highest + 1);
    show("5 not filled again", &set);
    printf("%26s   pselect returned %d, though descriptor %d is readable\n", "", ready,
           ours[2]);
    FD_ZERO(&set);
    for (int i = 0; i < PAIRS; i++)
        FD_SET(ours[i], &set);
    ready = ask(&set, highest + 1);
    show("5 filled again", &set);
    printf("%26s   pselect returned %d\n", "", ready);
    return 0;
}
