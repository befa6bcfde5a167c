/* fd_isset - does FD_ISSET call the kernel? And how large is an fd_set?
 *
 *     fd_isset fd_isset      1,000 times FD_ISSET in a process that may make no system call
 *     fd_isset poll          the same with poll, which is one: SIGKILL ends it
 *     fd_isset sizes         bytes that select needs for 1 and for 1,000 sockets
 *     fd_isset poll-sizes    the same for poll
 *
 * In the strict mode of seccomp(2) read, write and _exit are all that a thread may call.
 */
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TIMES = 1000, USAGE = 2, MANY = 1000 };

static long look(int use_poll)
{
    fd_set set;
    struct pollfd one = {.fd = 0, .events = POLLIN};
    long found = 0;

    FD_ZERO(&set);
    FD_SET(0, &set);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == -1) {
        perror("fd_isset: no strict mode of seccomp");
        return USAGE;
    }
    for (int i = 0; i < TIMES; i++)
        found += use_poll ? poll(&one, 1, 0) : FD_ISSET(i % 2, &set) != 0;
    syscall(SYS_exit, use_poll || found == TIMES / 2 ? 0 : 1); /* not exit_group */
    return found;
}

int main(int argc, char **argv)
{
    const char *what = argc == 2 ? argv[1] : "";

    if (strcmp(what, "sizes") == 0)
        printf("%zu %zu\n", sizeof(fd_set), sizeof(fd_set));
    else if (strcmp(what, "poll-sizes") == 0)
        printf("%zu %zu\n", sizeof(struct pollfd), MANY * sizeof(struct pollfd));
    else if (strcmp(what, "fd_isset") == 0 || strcmp(what, "poll") == 0)
        return (int)look(strcmp(what, "poll") == 0);
    else
        return USAGE;
    return 0;
}
