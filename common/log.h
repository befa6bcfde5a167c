/* Messages to the user. Log lines never block the server: a line that stdout or stderr cannot
 * take at once is dropped, because a log line must not delay a client. */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <stddef.h>

/* Takes the program's name out of argv[0], for messages on stderr. Makes stdout and stderr
 * non-blocking if they are a terminal or a pipe. It opens them again for that: O_NONBLOCK on
 * the descriptors we inherit would change them for the shell, too. */
void log_init(const char *argv0);

/* The program's name: "server" until log_init has been called. */
const char *log_program(void);

/* Prints a line on stdout and adds the newline. Drops what is beyond 510 bytes. Any thread may
 * call it. */
__attribute__((format(printf, 1, 2))) void log_line(const char *format, ...);

/* Prints "NAME: MESSAGE" on stderr in the same way. */
__attribute__((format(printf, 1, 2))) void log_warn(const char *format, ...);

/* Prints "NAME: MESSAGE" on stderr and exits with status 1. For use at start only: once a
 * server listens, nothing is fatal. */
__attribute__((format(printf, 1, 2))) _Noreturn void log_die(const char *format, ...);

/* Writes n bytes to stdout (fd 1) or stderr (fd 2). Waits for room at most ms milliseconds at a
 * time. Returns whether all bytes were written; if not, errno is EAGAIN for a lack of room. */
bool log_write(int fd, const char *text, size_t n, int ms);

#endif
