/* For tests of a program as a whole. A part of a server runs in a child process. The test looks
 * at the child's output and at its exit status. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

enum {
    TEXT_SIZE = 16 * 1024,
    ARGUMENTS_MAX = 12,
    WAIT_MS = 60000, /* before a test gives up */
    DONE = 7,        /* exit status of a child that reached its last line */
    FAILED = 8,      /* ... that failed a CHECK */
};

/* What the child of the last run has printed on stdout and stderr. */
static char out[TEXT_SIZE], err[TEXT_SIZE];

struct program {
    pid_t pid;
    int out, err; /* our ends of its pipes */
};

/* In a child: asserts. (cmocka's assertions would return into the parent's tests.) */
#define CHECK(condition) check_line((condition), #condition, __FILE__, __LINE__)
static inline void check_line(bool good, const char *condition, const char *file, int line)
{
    if (good)
        return;
    fprintf(stderr, "%s:%d: false: %s\n", file, line, condition);
    _exit(FAILED);
}

/* Runs part() in a child process, with nothing open but descriptors 0 to 2. */
static inline struct program start_program(void (*part)(void))
{
    int outs[2], errs[2];

    assert_return_code(pipe(outs), errno);
    assert_return_code(pipe(errs), errno);
    pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* in case the test fails and leaves us */
#endif
        dup2(outs[1], STDOUT_FILENO);
        dup2(errs[1], STDERR_FILENO);
        for (int fd = 3; fd < 64; fd++)
            close(fd);
        part();
        _exit(DONE);
    }
    close(outs[1]);
    close(errs[1]);
    out[0] = err[0] = '\0';
    return (struct program){pid, outs[0], errs[0]};
}

/* Appends what comes from fd to text. Returns false at the end of the file. */
static inline bool read_more(int fd, char text[TEXT_SIZE])
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    size_t size = strlen(text);

    assert_int_equal(poll(&ready, 1, WAIT_MS), 1);
    ssize_t n = read(fd, text + size, TEXT_SIZE - 1 - size);
    text[size + (n > 0 ? (size_t)n : 0)] = '\0';
    return n > 0;
}

/* Reads the program's stdout until the text is in it. */
static inline void wait_for(const struct program *program, const char *text)
{
    while (strstr(out, text) == NULL)
        if (!read_more(program->out, out))
            fail_msg("'%s' is not in '%s'", text, out);
}

/* Returns the program's exit status when it has ended, or -N if signal N has ended it. */
static inline int status_of(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Reads the rest of the program's output and returns its status_of. */
static inline int end_program(const struct program *program)
{
    while (read_more(program->out, out))
        ;
    while (read_more(program->err, err))
        ;
    close(program->out);
    close(program->err);
    int status = status_of(program->pid);
    if (status == FAILED)
        print_message("%s", err);
    return status;
}

static inline int run_program(void (*part)(void))
{
    struct program program = start_program(part);

    return end_program(&program);
}

/* The command line of the next program: ARGUMENTS("--quiet", "0"). */
#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

struct command_line {
    int argc;
    char *argv[ARGUMENTS_MAX + 2];
};

static inline struct command_line command_line(const char *const *arguments)
{
    struct command_line line = {1, {(char *)"path/to/server"}};

    for (; line.argc <= ARGUMENTS_MAX && arguments[line.argc - 1] != NULL; line.argc++)
        line.argv[line.argc] = (char *)arguments[line.argc - 1];
    return line;
}

/* In a child: server_start with these arguments. */
static inline void start_server(const char *const *arguments)
{
    struct command_line line = command_line(arguments);

    optind = 1;
    server_start(line.argc, line.argv, NULL);
}

/* In a child: the server is ready after that, without a listener. */
static inline void start_ready_server(const char *const *arguments)
{
    start_server(arguments);
    server_ready(&(struct address){0});
}

static inline bool is_readable(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    return poll(&ready, 1, 0) == 1;
}

#endif
