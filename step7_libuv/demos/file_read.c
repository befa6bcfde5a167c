/* file_read - an echo server that reads a large file.
 *
 *     file_read [--mebibytes N]
 *
 *     first    read() until the end, in a callback      the loop waits for the disk
 *     then     uv_fs_read, piece by piece               a thread of the pool waits for it
 *
 * A loop cannot wait until a file is ready: poll says that it always is, epoll does not accept
 * it, and read sleeps when the bytes are not in memory (step 3's read_anything). So libuv reads
 * files in its pool of threads. Watch the longest stall: the longest time in which a timer of
 * one millisecond was not called. An echo client sends small messages and measures the answers.
 */
#include "echo.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum {
    PIECE_SIZE = 1024 * 1024,
    SCRATCH_SIZE = 4096,
    LEAD_MS = 50, /* the client also sends for this time before and after the reading */
    MEBIBYTES_MAX = 16 * 1024,
    USAGE = 2,
};

static uv_loop_t *loop;
static struct sockaddr_in address; /* the echo server's */
static char piece[PIECE_SIZE];     /* the file is read into this */
static int file;
static size_t file_size;

/* Used by the loop's thread only. */
static uv_timer_t heartbeat, schedule;
static uint64_t last_beat, longest_stall, began, took;
static size_t bytes_read;
static void (*start_reading)(void);

/* The client's thread writes the results; the loop reads them when the thread has ended. finish
 * tells the thread to end. */
static uv_thread_t client_thread;
static uv_async_t client_ended;
static uint64_t worst_answer;
static int answers;
static atomic_bool finish;

static _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "file_read: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

/* ---------------------------------------------------------------- reading, two ways */

static void end_client(uv_timer_t *timer)
{
    (void)timer;
    finish = true;
}

static void reading_done(void)
{
    took = uv_hrtime() - began;
    uv_update_time(loop); /* the loop last read the clock before the reading */
    uv_timer_start(&schedule, end_client, LEAD_MS, 0);
}

static void read_in_the_loop(void)
{
    ssize_t n;

    while ((n = read(file, piece, sizeof piece)) > 0)
        bytes_read += (size_t)n;
    if (n == -1)
        fail("read", strerror(errno));
    reading_done();
}

static void read_in_the_pool(void);

static void piece_read(uv_fs_t *request)
{
    ssize_t n = request->result;

    uv_fs_req_cleanup(request);
    if (n < 0)
        fail("uv_fs_read", uv_strerror((int)n));
    bytes_read += (size_t)n;
    if (n > 0)
        read_in_the_pool();
    else
        reading_done();
}

static void read_in_the_pool(void)
{
    static uv_fs_t request;
    uv_buf_t buffer = uv_buf_init(piece, sizeof piece);

    uv_fs_read(loop, &request, file, &buffer, 1, -1, piece_read);
}

/* ---------------------------------------------------------------- the echo server */

struct connection {
    uv_tcp_t tcp; /* first: a pointer to it is one to the connection */
    struct echo echo;
};

static void connection_closed(uv_handle_t *handle)
{
    free(handle);
}

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    static char scratch[SCRATCH_SIZE];

    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(scratch, sizeof scratch);
}

static void input_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct connection *c = (struct connection *)stream;

    if (n > 0) {
        size_t size = echo_feed(&c->echo, (unsigned char *)buffer->base, (size_t)n);
        uv_buf_t answer = uv_buf_init(buffer->base, (unsigned)size);
        if (size > 0 && uv_try_write(stream, &answer, 1) != (int)size)
            fail("uv_try_write", "not all was sent"); /* a few bytes always fit */
    } else if (n < 0) {
        uv_close((uv_handle_t *)stream, connection_closed);
    }
}

static void accept_client(uv_stream_t *listener, int status)
{
    struct connection *c = malloc(sizeof *c);
    uv_buf_t greeting = uv_buf_init(ECHO_GREETING, 1);

    if (c == NULL || status < 0 || uv_tcp_init(loop, &c->tcp) != 0 ||
        uv_accept(listener, (uv_stream_t *)&c->tcp) != 0)
        fail("accept", "failed");
    uv_tcp_nodelay(&c->tcp, 1);
    echo_init(&c->echo);
    uv_try_write((uv_stream_t *)&c->tcp, &greeting, 1);
    uv_read_start((uv_stream_t *)&c->tcp, give_buffer, input_read);
}

/* ---------------------------------------------------------------- its client */

static void receive(int fd, size_t n)
{
    char bytes[8];

    if (recv(fd, bytes, n, MSG_WAITALL) != (ssize_t)n)
        fail("recv", strerror(errno));
}

static void send_messages(void *unused)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    (void)unused;
    if (fd == -1 || connect(fd, (struct sockaddr *)&address, sizeof address) == -1)
        fail("connect", strerror(errno));
    receive(fd, strlen(ECHO_GREETING));
    while (!finish) {
        uint64_t sent = uv_hrtime();
        if (send(fd, "^abc$", 5, 0) != 5)
            fail("send", strerror(errno));
        receive(fd, 3);
        uint64_t waited = uv_hrtime() - sent;
        worst_answer = waited > worst_answer ? waited : worst_answer;
        answers++;
        uv_sleep(1);
    }
    close(fd);
    uv_async_send(&client_ended);
}

/* ---------------------------------------------------------------- one run, then the other */

static void beat(uv_timer_t *timer)
{
    uint64_t now = uv_hrtime();

    (void)timer;
    longest_stall = now - last_beat > longest_stall ? now - last_beat : longest_stall;
    last_beat = now;
}

static void begin_reading(uv_timer_t *timer)
{
    (void)timer;
    began = uv_hrtime();
    start_reading();
}

static void start_run(void (*how)(void))
{
    start_reading = how;
    longest_stall = worst_answer = bytes_read = 0;
    answers = 0;
    finish = false;
    lseek(file, 0, SEEK_SET);
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED); /* read it from the disk, if possible */
#endif
    uv_update_time(loop);
    last_beat = uv_hrtime();
    uv_timer_start(&schedule, begin_reading, LEAD_MS, 0);
    if (uv_thread_create(&client_thread, send_messages, NULL) != 0)
        fail("uv_thread_create", "failed");
}

static void run_ended(uv_async_t *async)
{
    uv_thread_join(&client_thread);
    if (bytes_read != file_size)
        fail("the file", "its size has changed");
    printf("  %-20s %6.0f ms %10.1f ms %10d %10.1f ms\n",
           start_reading == read_in_the_loop ? "read() in the loop" : "uv_fs_read",
           (double)took / 1e6, (double)longest_stall / 1e6, answers,
           (double)worst_answer / 1e6);
    fflush(stdout);
    if (start_reading == read_in_the_loop)
        start_run(read_in_the_pool);
    else
        uv_stop(async->loop);
}

static void make_file(size_t size)
{
    char name[1024], directory[1000];
    size_t length = sizeof directory;

    if (uv_os_tmpdir(directory, &length) != 0)
        fail("temporary directory", "there is none");
    snprintf(name, sizeof name, "%s/file_read.XXXXXX", directory);
    if ((file = mkstemp(name)) == -1)
        fail(name, strerror(errno));
    unlink(name); /* it is deleted when the descriptor is closed, however we end */
    for (file_size = 0; file_size < size; file_size += sizeof piece)
        if (write(file, piece, sizeof piece) != (ssize_t)sizeof piece)
            fail("write", strerror(errno));
    fsync(file); /* only pages that are on the disk can be dropped from memory */
}

static void start_server(uv_tcp_t *listener)
{
    int size = sizeof address;

    uv_tcp_init(loop, listener);
    uv_ip4_addr("127.0.0.1", 0, &address);
    int error = uv_tcp_bind(listener, (struct sockaddr *)&address, 0);
    if (error == 0)
        error = uv_listen((uv_stream_t *)listener, SOMAXCONN, accept_client);
    if (error == 0)
        error = uv_tcp_getsockname(listener, (struct sockaddr *)&address, &size);
    if (error != 0)
        fail("listen", uv_strerror(error));
}

int main(int argc, char **argv)
{
    long mebibytes = 256;
    char *end = NULL;
    uv_tcp_t listener;

    if (argc == 3 && strcmp(argv[1], "--mebibytes") == 0)
        mebibytes = strtol(argv[2], &end, 10);
    if (argc != 1 &&
        (end == NULL || *end != '\0' || mebibytes < 1 || mebibytes > MEBIBYTES_MAX)) {
        bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
        if (end != NULL)
            fprintf(stderr,
                    "file_read: --mebibytes '%s': expected a whole number from 1 to %d\n",
                    argv[2], MEBIBYTES_MAX);
        fprintf(help ? stdout : stderr, "usage: file_read [--mebibytes N]\n");
        return help ? EXIT_SUCCESS : USAGE;
    }
    loop = uv_default_loop();
    make_file((size_t)mebibytes * 1024 * 1024);
    start_server(&listener);
    uv_async_init(loop, &client_ended, run_ended);
    uv_timer_init(loop, &schedule);
    uv_timer_init(loop, &heartbeat);
    uv_timer_start(&heartbeat, beat, 1, 1);
    printf("A file of %ld MiB, read while an echo client sends small messages:\n\n", mebibytes);
    printf("  %-20s %9s %13s %10s %13s\n", "", "took", "longest stall", "answers",
           "worst answer");
    start_run(read_in_the_loop);
    uv_run(loop, UV_RUN_DEFAULT);
    close(file);
    return EXIT_SUCCESS;
}
