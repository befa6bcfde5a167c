/* interactive - type a line and see the answer of the server.
 *
 *     keyboard --+
 *                +--> poll: asleep until one of them has something
 *     server ----+
 *
 *     interactive [--raw] [HOST [PORT]]
 *
 * Each line is sent as one message, ^line$. `bye` ends the program. So does the end of the
 * input (Ctrl-D): it shuts down the sending side, then waits until the server closes.
 *
 * With --raw the bytes are sent as typed, newlines included, and everything that the server
 * sends is printed, also the greeting.
 *
 * The program waits for both the keyboard and the server. So it notices at once when the server
 * closes. A client that sleeps in a read of the keyboard would not notice. Try also a second
 * client of step 1: it is connected at once, but not greeted.
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
    /* Sent before the answers are read. The buffers of both kernels hold this much. A client
     * that sends more can wait for a server that waits for the client to read. */
    PIECE = 4096,
};

static const char USAGE_TEXT[] = "usage: interactive [--raw] [HOST [PORT]]\n"
                                 "       interactive [--raw] HOST:PORT | [ADDRESS]:PORT\n"
                                 "Sends each line as a message; bye ends the program.\n"
                                 "With --raw it sends the bytes as they are typed.\n";

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

static void say(const char *line)
{
    puts(line);
    fflush(stdout);
}

/* Tries all addresses of the host. */
static int connect_to(const char *host, const char *port, bool raw)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    int error = getaddrinfo(host, port, &hints, &list), fd = -1;

    if (error != 0)
        fail_to_connect(host, port, gai_strerror(error));
    for (struct addrinfo *a = list; a != NULL && fd == -1; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd != -1 && !raw && a == list)
            say("socket created");
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
    if (!raw)
        say("connected to the server");
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

    if (poll(&fds, 1, 300) == 0)
        say("the server has not greeted us: it may be busy with others...");
    receive(server, &greeting, 1);
    if (greeting != '*')
        fail("server", "the greeting is not *");
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
        size_t n = length + 2 - sent < PIECE ? length + 2 - sent : PIECE, expected;
        ssize_t taken = send(server, message + sent, n, 0);

        if (taken == -1)
            fail("server", strerror(errno));
        sent += (size_t)taken;
        expected = sent - 1 < length ? sent - 1 : length; /* ^ and $ are not answered */
        while (answered < expected) {
            n = receive(server, piece,
                        expected - answered < PIECE ? expected - answered : PIECE);
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
        fail("server", "sent bytes that are no answer");
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

/* Prompts, and waits for a line: it is in->bytes[0] to [*length - 1]. Returns false at the end
 * of the input. */
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

/* Sends lines as messages until `bye` or the end of the input. */
static void converse(int server)
{
    struct input in = {0};
    size_t length;

    wait_for_greeting(server);
    while (read_line(&in, server, &length)) {
        if (length == strlen("bye") && memcmp(in.bytes, "bye", length) == 0)
            break;
        if (memchr(in.bytes, '$', length) != NULL)
            printf("a message cannot contain a $, which would end it\n");
        else
            exchange(server, in.bytes, length);
        drop_line(&in, length);
    }
    if (in.ended && in.used == 0) {
        char byte;

        putchar('\n');
        shutdown(server, SHUT_WR);
        if (recv(server, &byte, 1, 0) == 1)
            fail("server", "sent bytes that are no answer");
    }
    printf("exiting...\n");
    free(in.bytes);
}

static void write_all(const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, n);

        if (written == -1)
            fail("standard output", strerror(errno));
        bytes += written;
        n -= (size_t)written;
    }
}

/* Copies the keyboard to the server and the server to standard output until the server closes.
 */
static void copy_bytes(int server)
{
    char unsent[PIECE], received[PIECE];
    size_t from = 0, to = 0; /* unsent[from] to [to - 1] */
    bool ended = false;

    for (;;) {
        struct pollfd fds[] = {{.fd = ended || from < to ? -1 : STDIN_FILENO, .events = POLLIN},
                               {.fd = server, .events = POLLIN}};
        ssize_t n;

        if (from < to)
            fds[1].events |= POLLOUT;
        if (poll(fds, 2, -1) == -1) {
            if (errno == EINTR) /* as after Ctrl-Z and fg */
                continue;
            fail("poll", strerror(errno));
        }
        if (fds[1].revents & ~POLLOUT) {
            n = recv(server, received, sizeof received, 0);
            if (n == 0 && ended)
                return;
            if (n <= 0)
                fail("server", n == 0 ? "closed the connection" : strerror(errno));
            write_all(received, (size_t)n);
        }
        if (fds[1].revents & POLLOUT) {
            n = send(server, unsent + from, to - from, MSG_DONTWAIT);
            if (n == -1 && errno != EAGAIN && errno != EWOULDBLOCK)
                fail("server", strerror(errno));
            from += n > 0 ? (size_t)n : 0;
        }
        if (fds[0].revents != 0) {
            n = read(STDIN_FILENO, unsent, sizeof unsent);
            if (n == -1)
                fail("standard input", strerror(errno));
            from = 0;
            to = (size_t)n;
            ended = n == 0;
            if (ended)
                shutdown(server, SHUT_WR);
        }
    }
}

/* If one of them is closed, the connection must not get its number. */
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

    return *text >= '0' && *text <= '9' && *end == '\0' && number > 0 && number <= 65535;
}

static _Noreturn void usage(const char *given, const char *expected)
{
    fprintf(stderr, "interactive: %s: expected %s\n%s", given, expected, USAGE_TEXT);
    exit(USAGE);
}

/* Cuts HOST:PORT and [ADDRESS]:PORT in two, and takes the brackets from [ADDRESS]. */
static void cut_address(char **host, char **port)
{
    char *given = *host, *end = given[0] == '[' ? strchr(given, ']') : NULL;
    char *colon = end != NULL ? end + 1 : strchr(given, ':');

    if (end != NULL) {
        *end = '\0';
        (*host)++;
        if (*colon == '\0')
            return;
    } else if (colon == NULL || colon != strrchr(given, ':')) {
        return; /* a name, or an IPv6 address without a port */
    }
    if (*colon != ':' || *port != NULL)
        usage(colon, "one port");
    *colon = '\0';
    *port = colon + 1;
}

int main(int argc, char **argv)
{
    bool raw = argc > 1 && strcmp(argv[1], "--raw") == 0;
    char default_host[] = "127.0.0.1", *host = default_host, *port = NULL;
    int server;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(USAGE_TEXT, stdout) == EOF ? FAILED : EXIT_SUCCESS;
    argc -= 1 + raw;
    argv += 1 + raw;
    if (argc > 0 && argv[0][0] == '-')
        usage(argv[0], "--raw or --help");
    if (argc > 2)
        usage(argv[2], "no third argument");
    if (argc > 0) {
        host = argv[0];
        port = argv[1]; /* NULL after the last */
        cut_address(&host, &port);
    }
    if (*host == '\0')
        usage("HOST", "a name or an address");
    if (port != NULL && !is_port(port))
        usage(port, "a port from 1 to 65535");
    open_standard_descriptors();
    signal(SIGPIPE, SIG_IGN); /* so that send and printf return an error instead */
    server = connect_to(host, port != NULL ? port : "8080", raw);
    if (raw)
        copy_bytes(server);
    else
        converse(server);
    close(server);
    return fflush(stdout) == EOF ? FAILED : EXIT_SUCCESS;
}
