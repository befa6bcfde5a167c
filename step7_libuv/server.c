/* Step 7 - libuv: call me with the bytes.
 *
 *     uv_run: the loop of step 6, written by others, for every operating system
 *        +--> accept_client()    a connection is pending
 *        +--> pump_client()      bytes have come: libuv has read them into our buffer
 *        +--> output_sent()      libuv has sent what the socket did not take at once
 *        +--> client_closed()    libuv no longer uses the client's memory
 *
 * So far we were told that I/O was possible, and then did it. Now libuv does it and tells us
 * the result. "Call me when it is ready" is a reactor; "call me with the bytes" is a proactor.
 *
 * Memory changes its owner:
 *   struct client     is libuv's from uv_tcp_init until client_closed
 *   the read buffer   is libuv's from give_buffer until pump_client
 *   unsent output     is libuv's from uv_write until output_sent
 *
 *   Wait happens in   uv_run
 *   Breaks when       a callback computes for long: it runs in the loop's only thread
 */
#include "server.h"
#include "echo.h"
#include "uvnet.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024 };

struct client {
    struct uvnet_client net; /* first: see uvnet.h. Its tcp is libuv's handle of the socket */
    uv_write_t write;
    char *unsent; /* output that the socket has not taken yet; usually NULL */
    size_t unsent_size;
    struct echo echo;
};

static uv_loop_t loop;

static void client_closed(uv_handle_t *handle)
{
    struct client *c = handle->data;

    free(c->unsent);
    free(c);
}

static void close_client(struct uvnet_client *c)
{
    if (uv_is_closing((uv_handle_t *)&c->tcp))
        return; /* called again by output_sent: libuv cancels its write */
    uvnet_disconnected(c);
    uv_close((uv_handle_t *)&c->tcp, client_closed);
}

static void pump_client(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer);

/* The alloc callback: libuv asks for a buffer just before it reads. */
static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    static char bytes[BUFFER_SIZE]; /* one for all: pump_client leaves nothing in it */

    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(bytes, sizeof bytes);
}

static void output_sent(uv_write_t *request, int status)
{
    struct client *c = request->handle->data;

    uvnet_count_write(status < 0 ? status : (ssize_t)c->unsent_size, c->unsent_size);
    free(c->unsent);
    c->unsent = NULL;
    if (status < 0 || uv_read_start(request->handle, give_buffer, pump_client) < 0)
        close_client(&c->net);
    else
        uvnet_touch(&c->net);
}

/* Tries to send at once. libuv gets a copy of the rest, and nothing is read until it is sent.
 * Returns 0 or an error of libuv's. */
static int send_answers(struct client *c, char *bytes, size_t n)
{
    uv_stream_t *stream = (uv_stream_t *)&c->net.tcp;
    uv_buf_t output = uv_buf_init(bytes, (unsigned)n);

    if (n == 0)
        return 0;
    int sent = uv_try_write(stream, &output, 1);
    uvnet_count_write(sent, n);
    if (sent < 0 && sent != UV_EAGAIN)
        return sent;
    size_t done = sent < 0 ? 0 : (size_t)sent;
    if (done == n)
        return 0;
    c->unsent_size = n - done;
    c->unsent = malloc(c->unsent_size);
    if (c->unsent == NULL)
        return UV_ENOMEM;
    memcpy(c->unsent, bytes + done, c->unsent_size);
    output = uv_buf_init(c->unsent, (unsigned)c->unsent_size);
    uv_read_stop(stream);
    return uv_write(&c->write, stream, &output, 1, output_sent);
}

static void pump_client(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct client *c = stream->data;
    unsigned char *bytes = (unsigned char *)buffer->base;

    uvnet_count_read(n);
    if (n == 0)
        return; /* nothing to read after all (EAGAIN) */
    /* At the end (UV_EOF) nothing is unsent, or we would not be reading. */
    if (n < 0 || send_answers(c, buffer->base, echo_feed(&c->echo, bytes, (size_t)n)) < 0)
        close_client(&c->net);
    else
        uvnet_touch(&c->net);
}

static void accept_client(struct net_listener *listener)
{
    char greeting[] = ECHO_GREETING;
    int fd;
    struct client *c = uvnet_accept(listener, sizeof *c, &fd);

    if (c == NULL)
        return;
    echo_init(&c->echo);
    uv_tcp_init(&loop, &c->net.tcp);
    c->net.tcp.data = c;
    if (uv_tcp_open(&c->net.tcp, fd) < 0)
        close(fd); /* libuv has not taken it, so the greeting will fail */
    uv_stream_t *stream = (uv_stream_t *)&c->net.tcp;
    if (send_answers(c, greeting, strlen(greeting)) < 0 ||
        (c->unsent == NULL && uv_read_start(stream, give_buffer, pump_client) < 0))
        close_client(&c->net);
    else
        uvnet_touch(&c->net);
}

static void run_server(struct net_listener *listener)
{
    uvnet_listen(&loop, listener, accept_client, close_client);
    server_ready(&listener->address);
    uv_run(&loop, UV_RUN_DEFAULT); /* until a stop, and all clients are closed */
    uvnet_finish(&loop);
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    server_start(argc, argv, NULL);
    uvnet_init(&loop);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
