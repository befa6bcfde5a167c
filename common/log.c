#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_SIZE = 512 }; /* longest log line; PIPE_BUF is no less (POSIX), see log_write */

static const char *program = "server";
static bool is_socket[STDERR_FILENO + 1];

/* Opens a terminal or a pipe again, non-blocking, and puts it in the place of fd. Does nothing
 * where that is impossible: poll in log_write still prevents nearly every wait. */
static void open_nonblocking(int fd)
{
    char name[64] = "";
    struct stat status;
    int own = -1;

    if (fstat(fd, &status) == -1)
        return;
    is_socket[fd] = S_ISSOCK(status.st_mode);
    if (S_ISFIFO(status.st_mode))
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd); /* Linux: proc(5) */
    else if (S_ISCHR(status.st_mode) && ttyname_r(fd, name, sizeof name) != 0)
        name[0] = '\0';
    if (name[0] != '\0')
        own = open(name, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own != -1) {
        dup2(own, fd);
        close(own);
    }
}

void log_init(const char *argv0)
{
    const char *slash = argv0 != NULL ? strrchr(argv0, '/') : NULL;

    if (argv0 != NULL)
        program = slash != NULL ? slash + 1 : argv0;
    open_nonblocking(STDOUT_FILENO);
    open_nonblocking(STDERR_FILENO);
}

const char *log_program(void)
{
    return program;
}

/* How much to write at once: as many whole lines as fit, because another process may write its
 * own lines in between. */
static size_t whole_lines(const char *text, size_t n)
{
    if (n <= LINE_SIZE)
        return n;
    for (size_t end = LINE_SIZE; end > 0; end--)
        if (text[end - 1] == '\n')
            return end;
    return LINE_SIZE;
}

/* poll reports a pipe as writable when PIPE_BUF bytes fit, so a write of at most PIPE_BUF bytes
 * cannot block. The lock keeps two threads from filling the same room. */
bool log_write(int fd, const char *text, size_t n, int ms)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct pollfd out = {.fd = fd, .events = POLLOUT};
    ssize_t written = 1;

    pthread_mutex_lock(&lock);
    while (n > 0 && written > 0) {
        const size_t part = whole_lines(text, n);
        errno = EAGAIN;
        const int ready = poll(&out, 1, ms);
        if (ready == -1 && errno == EINTR)
            continue;
        if (ready != 1)
            break;
        written = is_socket[fd] ? send(fd, text, part, MSG_DONTWAIT) : write(fd, text, part);
        if (written > 0) {
            text += written;
            n -= (size_t)written;
        }
    }
    pthread_mutex_unlock(&lock);
    return n == 0;
}

/* Drops the part that does not fit into a line. The newline always fits. */
__attribute__((format(printf, 3, 0))) static void
write_line(int fd, const char *prefix, const char *format, va_list arguments)
{
    char line[LINE_SIZE];
    size_t size = (size_t)snprintf(line, sizeof line - 1, "%s", prefix);
    int more = vsnprintf(line + size, sizeof line - 1 - size, format, arguments);

    size += more > 0 ? (size_t)more : 0;
    if (size > sizeof line - 2)
        size = sizeof line - 2;
    line[size++] = '\n';
    log_write(fd, line, size, 0);
}

void log_line(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_line(STDOUT_FILENO, "", format, arguments);
    va_end(arguments);
}

void log_warn(const char *format, ...)
{
    char prefix[LINE_SIZE / 4];
    va_list arguments;

    snprintf(prefix, sizeof prefix, "%.*s: ", (int)sizeof prefix - 3, program);
    va_start(arguments, format);
    write_line(STDERR_FILENO, prefix, format, arguments);
    va_end(arguments);
}

void log_die(const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%s: ", program);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}
