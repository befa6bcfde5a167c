/* prime_server - a server whose answers take long to compute.
 *
 *     prime_server [--mode block|pool] [--threads N] [PORT]
 *
 * A client sends one decimal number below 2^64 per line. The answer is `prime` or `composite`,
 * found by trial division, or `error: ...`. demos/prime_client.py sends small numbers while
 * other clients send large ones. There are two modes:
 *
 *     block    The loop divides. No client is served or accepted until it has finished.
 *     pool     uv_queue_work: the loop goes on, and one of N threads (default 4) divides. When
 *              all N are busy, the next number waits in a queue, however small it is.
 *
 * At any time a client is in exactly one of three states: uv_read_start, while its next line
 * is incomplete; uv_queue_work, while its number is tested; uv_write, while its answer is
 * sent. So answers keep their order, a client that does not read gets no further answers, and
 * no memory is freed that another thread still uses.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { LINE_SIZE = 64, FAILED = 1, USAGE = 2 };

struct client {
    uv_tcp_t tcp; /* first: a pointer to it is one to the client */
    uv_work_t work;
    uv_write_t write;
    char in[LINE_SIZE]; /* input that is not answered yet */
    size_t used;
    bool too_long; /* the line did not fit: skip the rest of it */
    bool ended;    /* the client has closed its sending side */
    uint64_t number;
    bool prime; /* the result of the test */
};

static bool pool; /* --mode pool */

static bool is_prime(uint64_t n)
{
    if (n < 4 || n % 2 == 0)
        return n == 2 || n == 3;
    for (uint64_t d = 3; d <= n / d; d += 2)
        if (n % d == 0)
            return false;
    return true;
}

/* Returns NULL, or what is wrong with the line. */
static const char *parse(const char *line, size_t length, uint64_t *number)
{
    *number = 0;
    for (size_t i = 0; i < length; i++) {
        if (line[i] < '0' || line[i] > '9')
            return "error: not a decimal number\n";
        uint64_t digit = (uint64_t)(line[i] - '0');
        if (*number > (UINT64_MAX - digit) / 10)
            return "error: larger than 18446744073709551615\n";
        *number = *number * 10 + digit;
    }
    if (length == 0)
        return "error: empty line\n";
    return *number < 2 ? "error: 0 and 1 are neither prime nor composite\n" : NULL;
}

static void next_line(struct client *c);

static void client_closed(uv_handle_t *handle)
{
    free(handle); /* the client: its handle comes first */
}

static void close_client(struct client *c)
{
    uv_close((uv_handle_t *)&c->tcp, client_closed);
}

static void answer_sent(uv_write_t *request, int status)
{
    struct client *c = (struct client *)request->handle;

    if (status < 0)
        close_client(c);
    else
        next_line(c);
}

/* The text must be static: libuv uses it until answer_sent. */
static void send_answer(struct client *c, const char *text)
{
    uv_buf_t buffer = uv_buf_init((char *)text, (unsigned)strlen(text));

    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &buffer, 1, answer_sent) < 0)
        close_client(c);
}

/* The only function here that runs in another thread. */
static void test_number(uv_work_t *work)
{
    struct client *c = work->data;

    c->prime = is_prime(c->number);
}

static void number_tested(uv_work_t *work, int status)
{
    struct client *c = work->data;

    (void)status; /* an error only after uv_cancel, which is not used here */
    send_answer(c, c->prime ? "prime\n" : "composite\n");
}

static void answer_line(struct client *c, const char *line, size_t length)
{
    const char *error =
        c->too_long ? "error: line too long\n" : parse(line, length, &c->number);

    c->too_long = false;
    if (error != NULL) {
        send_answer(c, error);
        return;
    }
    c->work.data = c;
    if (!pool) {
        test_number(&c->work);
        number_tested(&c->work, 0);
    } else if (uv_queue_work(c->tcp.loop, &c->work, test_number, number_tested) < 0) {
        close_client(c);
    }
}

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct client *c = (struct client *)handle;

    (void)suggested;
    *buffer = uv_buf_init(c->in + c->used, (unsigned)(sizeof c->in - c->used));
}

static void input_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct client *c = (struct client *)stream;

    (void)buffer; /* it is c->in */
    if (n < 0 && n != UV_EOF) {
        close_client(c);
        return;
    }
    c->used += n > 0 ? (size_t)n : 0;
    c->ended = n == UV_EOF;
    uv_read_stop(stream);
    next_line(c);
}

/* Answers the next line. Reads on if the line is incomplete. Closes the client if it has
 * finished. */
static void next_line(struct client *c)
{
    const char *end = memchr(c->in, '\n', c->used);
    char line[LINE_SIZE];

    if (end == NULL && c->used == sizeof c->in) {
        c->too_long = true;
        c->used = 0;
    }
    if (end == NULL && !c->ended) {
        if (uv_read_start((uv_stream_t *)&c->tcp, give_buffer, input_read) < 0)
            close_client(c);
        return;
    }
    if (end == NULL && c->used == 0 && !c->too_long) {
        close_client(c);
        return;
    }
    size_t length =
        end != NULL ? (size_t)(end - c->in) : c->used; /* the last line may have no \n */
    size_t taken = end != NULL ? length + 1 : length;
    memcpy(line, c->in, length);
    memmove(c->in, c->in + taken, c->used - taken);
    c->used -= taken;
    if (length > 0 && line[length - 1] == '\r')
        length--;
    answer_line(c, line, length);
}

static void accept_client(uv_stream_t *listener, int status)
{
    if (status < 0)
        return;
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL) { /* without a call of uv_accept libuv would accept no other client */
        fprintf(stderr, "prime_server: out of memory\n");
        exit(EXIT_FAILURE);
    }
    uv_tcp_init(listener->loop, &c->tcp);
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) < 0) {
        close_client(c);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    next_line(c);
}

static const char usage_line[] =
    "usage: prime_server [--mode block|pool] [--threads N] [PORT]\n";

__attribute__((format(printf, 1, 2))) static _Noreturn void usage(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("prime_server: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n%s", usage_line);
    va_end(arguments);
    exit(USAGE);
}

static int whole_number(const char *name, const char *text, int min, int max)
{
    char *end;
    long n = strtol(text, &end, 10);

    if (end == text || *end != '\0' || n < min || n > max)
        usage("%s '%s': expected a whole number from %d to %d", name, text, min, max);
    return (int)n;
}

/* Returns the port. */
static int parse_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"mode", required_argument, NULL, 'm'},
        {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'm':
            pool = strcmp(optarg, "pool") == 0;
            if (!pool && strcmp(optarg, "block") != 0)
                usage("--mode '%s': expected block or pool", optarg);
            break;
        case 't': /* libuv reads the variable when it queues the first work */
            whole_number("--threads", optarg, 1, 1024);
            setenv("UV_THREADPOOL_SIZE", optarg, 1);
            break;
        case 'h':
            fputs(usage_line, stdout);
            exit(EXIT_SUCCESS);
        default:
            usage("unknown option, or no value: '%s'", argv[optind - 1]);
        }
    if (argc - optind > 1)
        usage("unexpected argument '%s' after the port", argv[optind + 1]);
    return optind < argc ? whole_number("port", argv[optind], 0, 65535) : 8080;
}

int main(int argc, char **argv)
{
    int port = parse_options(argc, argv), size;
    uv_loop_t *loop = uv_default_loop();
    struct sockaddr_in address;
    uv_tcp_t listener;

    signal(SIGPIPE, SIG_IGN);
    uv_tcp_init(loop, &listener);
    uv_ip4_addr("127.0.0.1", port, &address);
    int error = uv_tcp_bind(&listener, (struct sockaddr *)&address, 0);
    if (error == 0)
        error = uv_listen((uv_stream_t *)&listener, SOMAXCONN, accept_client);
    if (error != 0) {
        fprintf(stderr, "prime_server: cannot listen: %s\n", uv_strerror(error));
        return FAILED;
    }
    size = sizeof address;
    uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &size);
    printf("Listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
