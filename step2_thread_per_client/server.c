/* Step 2 - thread per client: ask nothing, let the scheduler ask.
 *
 *     accept --> accept --> accept --> ...          the first thread only opens the door
 *        |          |          +--> recv --> answer --> recv --> ...    client C's thread
 *        |          +--> recv --> answer --> recv --> ...               client B's thread
 *        +--> recv --> answer --> recv --> ...                          client A's thread
 *
 * The code of step 1, run once per client at the same time. The kernel wakes whichever thread
 * has bytes. A client's state is still local variables: on a stack of its own.
 *
 *   Wait happens in   as many recv calls as there are clients
 *   Breaks when       there are thousands: each costs a stack, a kernel thread, and switches
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
    STACK_SIZE = 256 * 1024, /* the default reserves 8 MiB for each client */
    WAKE_SIGNAL = SIGUSR2,
    CALL_MS = 2 * CLI_QUIET_MS, /* longer than the silence that lets a thread leave */
};

struct client {
    struct client *prev, *next;
    pthread_t thread;
    int fd;
    struct peer peer;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list below */
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;   /* a client left it */
static struct client clients = {.prev = &clients, .next = &clients};

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

static void *client_thread(void *argument)
{
    struct client *client = argument;

    stats_thread_begin();
    serve_client(client->fd);
    pthread_mutex_lock(&lock);
    client->prev->next = client->next;
    client->next->prev = client->prev;
    cli_disconnected(&client->peer); /* first: who sees the end may be back at once */
    close(client->fd);
    free(client);
    stats_thread_end();
    pthread_cond_signal(&left);
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Signals are for the first thread, so the new one is born with all but one of them blocked. */
static int start_thread(struct client *client)
{
    pthread_attr_t attributes;
    sigset_t most, before;

    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&most);
    sigdelset(&most, WAKE_SIGNAL);
    pthread_sigmask(SIG_SETMASK, &most, &before);
    error = pthread_create(&client->thread, &attributes, client_thread, client);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

static void accept_client(struct net_listener *listener)
{
    struct peer peer;
    int fd = cli_admit(net_accept(listener, &peer), &peer);

    if (fd < 0)
        return;
    if (cli.idle_timeout_ms > 0)
        net_set_timeout(fd, cli.idle_timeout_ms);
    struct client *client = malloc(sizeof *client);
    int error = ENOMEM;
    pthread_mutex_lock(&lock); /* the thread may end at once: not before it is in the list */
    if (client != NULL) {
        *client =
            (struct client){.prev = clients.prev, .next = &clients, .fd = fd, .peer = peer};
        error = start_thread(client);
    }
    if (error == 0) {
        clients.prev->next = client;
        clients.prev = client;
        cli_connected(&peer);
    }
    pthread_mutex_unlock(&lock);
    if (error != 0) {
        cli_refused(&peer, strerror(error));
        close(fd);
        free(client);
    }
}

/* Wakes the threads that sleep in recv or send, and waits for all to leave. A thread may have
 * been just about to fall asleep, so once is not enough. */
static void call_in_threads(void)
{
    struct timespec limit;

    clock_gettime(CLOCK_REALTIME, &limit);
    pthread_mutex_lock(&lock);
    while (clients.next != &clients) {
        for (struct client *c = clients.next; c != &clients; c = c->next)
            pthread_kill(c->thread, WAKE_SIGNAL);
        limit.tv_sec += (limit.tv_nsec + CALL_MS * 1000000L) / 1000000000L;
        limit.tv_nsec = (limit.tv_nsec + CALL_MS * 1000000L) % 1000000000L;
        while (clients.next != &clients && pthread_cond_timedwait(&left, &lock, &limit) == 0)
            ;
    }
    pthread_mutex_unlock(&lock);
}

static void run_server(struct net_listener *listener)
{
    cli_interrupt_on(WAKE_SIGNAL);
    cli_listening(&listener->address);
    while (!cli_stopping())
        accept_client(listener);
    net_unlisten(listener); /* from here on nobody new */
    call_in_threads();
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
