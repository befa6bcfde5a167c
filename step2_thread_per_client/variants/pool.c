/* Step 2, variant - a pool of threads: so many workers and no more.
 *
 *     accept --> accept --> ...                     the first thread only opens the door
 *        +--> queue: [ F, E ]                       and gives out numbers, as far as they go
 *                +--> recv --> answer --> ... D     worker 1, when client A has gone
 *                +--> recv --> answer --> ... B     worker 2
 *                +--> recv --> answer --> ... C     worker 3
 *
 * serve_client is as ever, but a thread does not end with its client: it takes the next one out
 * of a queue. A worker is started when there is nobody to take a client, up to --workers; then
 * clients wait in the queue; when that is full they are refused. So threads, memory and waiting
 * clients are bounded. What is not bounded is how long a client keeps its worker.
 *
 *   Wait happens in   at most N recv calls, and in the queue for a client to serve
 *   Breaks when       N clients are silent: number N + 1 waits, however much it has to say
 */
#include "cli.h"
#include "echo.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 64 * 1024,
    STACK_SIZE = 256 * 1024, /* the default reserves 8 MiB for each worker */
    WAKE_SIGNAL = SIGUSR2,
    QUEUE_SIZE = 64,
    CALL_MS = 2 * CLI_QUIET_MS, /* longer than the silence that lets a thread leave */
};

struct client {
    int fd; /* -1: none */
    struct peer peer;
};

struct worker {
    struct worker *next_idle;
    pthread_t thread;
    pthread_cond_t given; /* a client, or there will be none */
    struct client client;
};

static int max_workers = 1000; /* --workers */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;   /* a worker ended */
static struct worker *workers;                           /* [max_workers] */
static int started, ended;                               /* of these */
static struct worker *idle;             /* the last to become so first: its stack is warm */
static struct client queue[QUEUE_SIZE]; /* a ring, the oldest at `first` */
static int first, queued;
static bool closing; /* no client will come any more */

static void serve_client(int fd)
{
    unsigned char bytes[BUFFER_SIZE];
    struct echo echo;
    long long cut = 0; /* when a signal cut a silence short */

    echo_init(&echo);
    if (net_send_all(fd, ECHO_GREETING, 1, &cli_time_is_up) == -1)
        return;
    while (!cli_time_is_up) {
        if (cli_stopping() && !net_readable(fd, CLI_QUIET_MS))
            return; /* all that had come is answered */
        ssize_t n = net_recv(fd, bytes, sizeof bytes);
        if (n == -1 && errno == EINTR && !net_overdue(fd, &cut))
            continue;
        if (n <= 0)
            return; /* the end, a reset, or --idle-timeout */
        cut = 0;
        size_t answers = echo_feed(&echo, bytes, (size_t)n);
        if (net_send_all(fd, bytes, answers, &cli_time_is_up) == -1)
            return;
    }
}

/* Says goodbye to a worker's client and gets it the next. Returns false if there is none. */
static bool next_client(struct worker *w)
{
    pthread_mutex_lock(&lock);
    cli_disconnected(&w->client.peer); /* first: who sees the end may be back at once */
    close(w->client.fd);
    w->client.fd = -1;
    if (queued > 0) {
        w->client = queue[first];
        first = (first + 1) % QUEUE_SIZE;
        queued--;
    } else {
        w->next_idle = idle;
        idle = w;
        while (w->client.fd == -1 && !closing)
            pthread_cond_wait(&w->given, &lock);
    }
    pthread_mutex_unlock(&lock);
    return w->client.fd != -1;
}

static void *worker_thread(void *argument)
{
    struct worker *w = argument;

    stats_thread_begin();
    do {
        serve_client(w->client.fd);
    } while (next_client(w));
    stats_thread_end();
    pthread_mutex_lock(&lock);
    ended++;
    pthread_cond_signal(&left);
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Signals are for the first thread, so the new one is born with all but one of them blocked. */
static int start_thread(struct worker *w)
{
    pthread_attr_t attributes;
    sigset_t most, before;

    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    sigfillset(&most);
    sigdelset(&most, WAKE_SIGNAL);
    pthread_sigmask(SIG_SETMASK, &most, &before);
    error = pthread_create(&w->thread, &attributes, worker_thread, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

/* Gives a client to an idle worker, to a new one, or to the queue. Returns NULL, or why not. */
static const char *hand_over(struct client client)
{
    struct worker *w = idle;

    if (w != NULL) {
        idle = w->next_idle;
        w->client = client;
        pthread_cond_signal(&w->given);
    } else if (started < max_workers) {
        w = &workers[started];
        w->client = client;
        pthread_cond_init(&w->given, NULL);
        int error = start_thread(w);
        if (error != 0)
            return strerror(error);
        started++;
    } else if (queued < QUEUE_SIZE) {
        queue[(first + queued++) % QUEUE_SIZE] = client;
    } else {
        return "the queue is full";
    }
    cli_connected(&client.peer);
    return NULL;
}

static void accept_client(struct net_listener *listener)
{
    struct client client;
    client.fd = cli_admit(net_accept(listener, &client.peer), &client.peer);

    if (client.fd < 0)
        return;
    if (cli.idle_timeout_ms > 0)
        net_set_timeout(client.fd, cli.idle_timeout_ms);
    pthread_mutex_lock(&lock);
    const char *why = hand_over(client);
    pthread_mutex_unlock(&lock);
    if (why != NULL) {
        cli_refused(&client.peer, why);
        close(client.fd);
    }
}

/* Wakes the workers, wherever they sleep, and waits for all to leave. One may have been just
 * about to fall asleep in recv, so once is not enough. */
static void call_in_threads(void)
{
    struct timespec limit;

    clock_gettime(CLOCK_REALTIME, &limit);
    pthread_mutex_lock(&lock);
    closing = true;
    for (struct worker *w = idle; w != NULL; w = w->next_idle)
        pthread_cond_signal(&w->given);
    while (ended < started) {
        for (int i = 0; i < started; i++) /* who has ended is joined later, so still known */
            pthread_kill(workers[i].thread, WAKE_SIGNAL);
        limit.tv_sec += (limit.tv_nsec + CALL_MS * 1000000L) / 1000000000L;
        limit.tv_nsec = (limit.tv_nsec + CALL_MS * 1000000L) % 1000000000L;
        while (ended < started && pthread_cond_timedwait(&left, &lock, &limit) == 0)
            ;
    }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    free(workers);
}

static void run_server(struct net_listener *listener)
{
    workers = calloc((size_t)max_workers, sizeof *workers);
    if (workers == NULL)
        cli_die("out of memory");
    cli_interrupt_on(WAKE_SIGNAL);
    cli_listening(&listener->address);
    while (!cli_stopping())
        accept_client(listener);
    net_unlisten(listener); /* from here on nobody new */
    call_in_threads();
}

int main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {"workers", "N", "at most so many threads that serve clients (default 1000)",
         &max_workers, 1, 100000},
        {0},
    };
    struct net_listener listener;

    cli_start(argc, argv, options);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
