/* Which number does a new descriptor get, and which descriptors does a started program have?
 *
 * Lesson 4. Opens a file, a pipe and a socket, closes one of them, and opens another. Then
 * starts itself again with execv, as `descriptors list`, which prints the descriptors that it
 * finds.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int checked(int result, const char *call)
{
    if (result == -1) {
        perror(call);
        exit(1);
    }
    return result;
}

static const char *kind(int fd)
{
    struct stat status;

    if (fstat(fd, &status) == -1)
        return NULL;
    return S_ISREG(status.st_mode)    ? "file"
           : S_ISFIFO(status.st_mode) ? "pipe"
           : S_ISSOCK(status.st_mode) ? "socket"
           : S_ISCHR(status.st_mode)  ? "terminal or device"
                                      : "something else";
}

static int list(void)
{
    for (int fd = 3; fd < 64; fd++)
        if (kind(fd) != NULL)
            printf(" %d (%s)", fd, kind(fd));
    printf("\n");
    return 0;
}

static void start_again(const char *program, const char *text)
{
    printf("%s", text);
    fflush(stdout);
    pid_t child = checked(fork(), "fork");
    if (child == 0) {
        execl("/proc/self/exe", program, "list", (char *)NULL);
        perror("exec");
        _exit(1);
    }
    int status;
    checked(waitpid(child, &status, 0), "waitpid");
    if (status != 0)
        exit(1);
}

int main(int argc, char *argv[])
{
    if (argc == 2 && strcmp(argv[1], "list") == 0)
        return list();
    if (argc > 1) {
        fprintf(stderr, "usage: %s\n", argv[0]);
        return 2;
    }
    for (int fd = 3; fd < 64; fd++)
        close(fd); /* whatever this program has inherited */
    int file = checked(open("/proc/self/exe", O_RDONLY), "open");
    int ends[2];
    checked(pipe(ends), "pipe");
    int sock = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
    printf("a file:       %d\na pipe:       %d and %d\na socket:     %d\n", file, ends[0],
           ends[1], sock);
    close(ends[0]);
    printf("close(%d), then a new socket:  %d   the lowest free number\n", ends[0],
           checked(socket(AF_INET, SOCK_STREAM, 0), "socket"));
    printf("dup(%d):                        %d   two numbers, one socket\n", sock,
           checked(dup(sock), "dup"));
    start_again(argv[0], "a program started by exec has: ");
    checked(fcntl(sock, F_SETFD, FD_CLOEXEC), "fcntl");
    printf("FD_CLOEXEC on %d, ", sock);
    start_again(argv[0], "and the next one has: ");
    return 0;
}
