/* interactive - type a line, see what the server makes of it.
 *
 *     keyboard --+
 *                +--> poll: asleep until one of them has something
 *     server ----+
 *
 *     interactive [HOST [PORT]]
 *
 * Each line travels as one message, ^line$. `bye` or the end of the input ends.
 *
 * Watch that it notices a server that closes while you think: it waits for both, the keyboard
 * and the server. A client asleep in a read of the keyboard cannot hear anybody else. Watch
 * also a second client of step 1: it is connected at once, but not greeted.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FAILED = 1,
    USAGE = 2,
    /* So much the kernel takes in on the way even if nobody reads yet. Who sends more before
     * reading the answers can wait for the server while the server waits for him. */
    PIECE = 4096,
};

/* What was typed but not yet used. */
struct input {
    char *bytes;
    size_t size, used;
    bool ended;
};

static _Noreturn void fail(const char *what, const char *why)
{
    fflush(stdout);
    fprintf(stderr, "interactive: %s: %s\n", what, why);
    exit(FAILED);
}

static _Noreturn void fail_to_connect(const char *host, const char *port, const char *why)
{
    fprintf(stderr, "interactive: cannot connect to %s port %s: %s\n", host, port, why);
    exit(FAILED);
}

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    int error = getaddrinfo(host, port, &hints, &list), fd = -1;

    if (error != 0)
        fail_to_connect(host, port, gai_strerror(error));
    for (struct addrinfo *a = list; a != NULL && fd == -1; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd != -1 && connect(fd, a->ai_addr, a->ai_addrlen) == -1) {
            error = errno;
            close(fd);
            errno = error;
            fd = -1;
        }
    }
    if (fd == -1)
        fail_to_connect(host, port, strerror(errno));
    freeaddrinfo(list);
    return fd;
}

/* Receives at least one byte. */
static size_t receive(int server, char *bytes, size_t size)
{
    ssize_t n = recv(server, bytes, size, 0);

    if (n == 0)
        fail("server", "closed the connection");
    if (n == -1)
        fail("server", strerror(errno));
    return (size_t)n;
}

static void wait_for_greeting(int server)
{
    struct pollfd fds = {.fd = server, .events = POLLIN};
    char greeting;

    if (poll(&fds, 1, 300) == 0) {
        printf("connected, but the server has not greeted us: it may be busy with others...\n");
        fflush(stdout);
    }
    receive(server, &greeting, 1);
    if (greeting != '*')
        fail("server", "greets with something else than *");
}

/* Sends the line as a message and prints the answer piece by piece as it comes. */
static void exchange(int server, const char *line, size_t length)
{
    char *message = malloc(length + 2), piece[PIECE];
    size_t sent = 0, answered = 0;

    if (message == NULL)
        fail("this line is too long", strerror(errno));
    message[0] = '^';
    memcpy(message + 1, line, length);
    message[length + 1] = '$';

    printf("Server reply : ");
    while (sent < length + 2) {
        size_t n = length + 2 - sent < PIECE ? length + 2 - sent : PIECE, owed;
        ssize_t taken = send(server, message + sent, n, 0);

        if (taken == -1)
            fail("server", strerror(errno));
        sent += (size_t)taken;
        owed = sent - 1 < length ? sent - 1 : length; /* ^ and $ are not answered */
        while (answered < owed) {
            n = receive(server, piece, owed - answered < PIECE ? owed - answered : PIECE);
            fwrite(piece, 1, n, stdout);
            answered += n;
        }
    }
    putchar('\n');
    free(message);
}

/* Sleeps until something was typed, and adds it to the input. */
static void wait_for_input(struct input *in, int server)
{
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                           {.fd = server, .events = POLLIN}};
    ssize_t n;

    while (poll(fds, 2, -1) == -1)
        if (errno != EINTR) /* as after Ctrl-Z and fg */
            fail("poll", strerror(errno));
    if (fds[1].revents != 0) {
        char byte;

        putchar('\n');
        receive(server, &byte, 1);
        fail("server", "sends what nobody asked for");
    }
    if (in->used == in->size) {
        in->size = in->size == 0 ? PIECE : 2 * in->size;
        if ((in->bytes = realloc(in->bytes, in->size)) == NULL)
            fail("this line is too long", strerror(errno));
    }
    n = read(STDIN_FILENO, in->bytes + in->used, in->size - in->used);
    if (n == -1)
        fail("standard input", strerror(errno));
    in->used += (size_t)n;
    in->ended = n == 0;
}

/* Prompts, and waits for a line: it is in->bytes[0] to [*length - 1]. Returns false when there
 * is none any more. */
static bool read_line(struct input *in, int server, size_t *length)
{
    size_t searched = 0;

    printf("write message : ");
    if (fflush(stdout) == EOF)
        fail("standard output", strerror(errno));
    for (;;) {
        char *end = in->used == searched
                        ? NULL
                        : memchr(in->bytes + searched, '\n', in->used - searched);

        if (end != NULL || in->ended) {
            *length = end != NULL ? (size_t)(end - in->bytes) : in->used;
            return end != NULL || in->used > 0;
        }
        searched = in->used;
        wait_for_input(in, server);
    }
}

/* Takes the line of that length, and its newline if it has one, out of the input. */
static void drop_line(struct input *in, size_t length)
{
    size_t n = length < in->used ? length + 1 : length;

    in->used -= n;
    memmove(in->bytes, in->bytes + n, in->used);
}

/* Where one of them is closed the connection must not get its number. */
static void open_standard_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= STDIN_FILENO && fd <= STDERR_FILENO);
    close(fd);
}

static bool is_port(const char *text)
{
    char *end;
    long number = strtol(text, &end, 10);

    return *end == '\0' && number > 0 && number <= 65535;
}

int main(int argc, char **argv)
{
    struct input in = {0};
    size_t length;
    int server;

    if (argc > 3 || (argc > 1 && argv[1][0] == '-') || (argc > 2 && !is_port(argv[2]))) {
        bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr, "usage: interactive [HOST [PORT]]\n");
        return help ? EXIT_SUCCESS : USAGE;
    }
    open_standard_descriptors();
    signal(SIGPIPE, SIG_IGN); /* send and printf shall fail, and say so */
    server = connect_to(argc > 1 ? argv[1] : "127.0.0.1", argc > 2 ? argv[2] : "8080");
    wait_for_greeting(server);
    while (read_line(&in, server, &length)) {
        if (length == strlen("bye") && memcmp(in.bytes, "bye", length) == 0)
            break;
        if (memchr(in.bytes, '$', length) != NULL)
            printf("a message cannot hold a $: that would be its end\n");
        else
            exchange(server, in.bytes, length);
        drop_line(&in, length);
    }
    if (in.ended && in.used == 0)
        putchar('\n');
    printf("exiting...\n");
    free(in.bytes);
    close(server);
    return fflush(stdout) == EOF ? FAILED : EXIT_SUCCESS;
}
