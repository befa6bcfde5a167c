#include "activation.h"
#include "net.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    FIRST_PASSED = 3, /* by convention: SD_LISTEN_FDS_START */
    NOTIFY_MS = 1000, /* how long the service manager may take to accept a message */
};

/* Returns a number from the environment; -1 if the text is not one. */
static long number(const char *text)
{
    char *end;

    errno = 0;
    long n = strtol(text, &end, 10);
    return isdigit((unsigned char)*text) && *end == '\0' && errno == 0 ? n : -1;
}

int activation_socket(const char **why)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");

    *why = NULL;
    if (pid == NULL || fds == NULL)
        return -1;
    if (number(pid) < 1) {
        *why = "LISTEN_PID is not the number of a process";
    } else if (number(pid) == getpid()) { /* else they are for another process */
        if (number(fds) == 1)
            return FIRST_PASSED;
        if (number(fds) != 0)
            *why = "LISTEN_FDS is not 1: expected one listening socket";
    }
    return -1;
}

int activation_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};

    if (path == NULL)
        return 0;
    size_t length = strlen(path);
    errno = *path != '/' && *path != '@'   ? EAFNOSUPPORT
            : length >= sizeof to.sun_path ? ENAMETOOLONG
                                           : 0;
    int fd = errno == 0 ? socket(AF_UNIX, SOCK_DGRAM, 0) : -1;
    if (fd == -1)
        return -1;
    memcpy(to.sun_path, path, length);
    if (*path == '@') /* an abstract name, unix(7): it begins with a null byte */
        to.sun_path[0] = '\0';
    net_set_timeout(fd, NOTIFY_MS);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    ssize_t sent = sendto(fd, state, strlen(state), 0, (struct sockaddr *)&to, size);
    int error = errno;
    close(fd);
    errno = error;
    return sent == -1 ? -1 : 0;
}
