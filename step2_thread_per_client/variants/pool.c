/* Step 2, variant - a pool of threads: a fixed number of workers.
 *
 *     accept --> accept --> ...                     the first thread only accepts
 *        +--> queue: [ F, E ]                       clients that wait for a worker
 *                +--> recv --> answer --> ... D     worker 1, when client A has left
 *                +--> recv --> answer --> ... B     worker 2
 *                +--> recv --> answer --> ... C     worker 3
 *
 * serve_client is the same, but a thread does not end with its client: it takes the next one
 * from a queue. A worker is started when no worker is idle, up to --workers. Then clients wait
 * in the queue; when that is full they are rejected. So threads, memory and waiting clients are
 * bounded. How long a client keeps its worker is not.
 *
 *   Wait happens in   at most N recv calls, and in the queue for a client to serve
 *   Breaks when       N clients are idle: number N + 1 waits, even if it sends
 */
#include "server.h"
#include "echo.h"
#include "log.h"
#include "stream.h"
#include "threads.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024, QUEUE_SIZE = 64 };

struct client {
    int fd;
    struct address peer;
};

static int max_workers = 1000; /* --workers */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct client *queue; /* a ring of max_workers + QUEUE_SIZE, the oldest at `first` */
static int first, queued;
static int workers, idle; /* how many there are; how many of them have no client yet */
static bool closing;      /* no more clients will come */

static void serve_client(int fd)
{
    unsigned char bytes[BUFFER_SIZE];
    struct echo echo;
    ssize_t n;

    echo_init(&echo);
    if (stream_send(fd, ECHO_GREETING, 1) == -1)
        return;
    while ((n = stream_recv(fd, bytes, sizeof bytes)) > 0) {
        size_t answers = echo_feed(&echo, bytes, (size_t)n);
        if (stream_send(fd, bytes, answers) == -1)
            return;
    }
}

/* Takes a client from the queue, or waits for one. Returns false at a stop, if none is left. */
static bool next_client(struct client *client)
{
    pthread_mutex_lock(&lock);
    idle += client->fd != -1; /* a new worker (no client) was counted already */
    while (queued == 0 && !closing)
        pthread_cond_wait(&changed, &lock);
    idle--;
    bool found = queued > 0;
    if (found) {
        *client = queue[first];
        first = (first + 1) % (max_workers + QUEUE_SIZE);
        queued--;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static void worker_thread(void *unused)
{
    struct client client = {.fd = -1};

    (void)unused;
    while (next_client(&client)) {
        server_connected(&client.peer);
        serve_client(client.fd);
        server_disconnected(&client.peer);
        close(client.fd);
    }
}

/* Queues a client. Idle workers take the first clients of the queue. If none of them is left
 * for this one, starts a worker. Returns NULL or an error text. */
static const char *queue_client(int fd, const struct address *peer)
{
    if (queued == idle && workers < max_workers) {
        int error = threads_start(worker_thread, NULL);
        if (error != 0)
            return strerror(error);
        workers++;
        idle++;
    }
    if (queued - idle == QUEUE_SIZE)
        return "the queue is full";
    queue[(first + queued++) % (max_workers + QUEUE_SIZE)] = (struct client){fd, *peer};
    pthread_cond_signal(&changed);
    return NULL;
}

static void start_client(int fd, const struct address *peer)
{
    pthread_mutex_lock(&lock);
    const char *why = queue_client(fd, peer);
    pthread_mutex_unlock(&lock);
    if (why != NULL)
        server_reject(fd, peer, why);
}

static void stop_workers(void)
{
    pthread_mutex_lock(&lock);
    closing = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    threads_stop();
    free(queue);
}

static void run_server(struct net_listener *listener)
{
    struct address peer;
    int fd;

    queue = calloc((size_t)max_workers + QUEUE_SIZE, sizeof *queue);
    if (queue == NULL)
        log_die("out of memory");
    server_ready(&listener->address);
    while ((fd = stream_accept(listener, &peer)) != -1)
        start_client(fd, &peer);
    net_unlisten(listener);
    stop_workers();
}

int main(int argc, char **argv)
{
    static const struct step_option more[] = {
        {"workers", "N", "start at most N threads that serve clients (default 1000)",
         &max_workers, 1, 100000},
        {0},
    };
    struct net_listener listener;

    server_start(argc, argv, more);
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
