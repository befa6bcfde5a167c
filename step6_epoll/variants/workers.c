/* Step 6, variant - workers: a loop for each CPU, on one port.
 *
 *     --share accept       listener --> acceptor --+--> pipe --> loop 1: epoll_wait, pump
 *                                    (in turn)     +--> pipe --> loop 2: epoll_wait, pump
 *     --share listener     listener --+--> loop 1: epoll_wait, accept, pump
 *     --share exclusive               +--> loop 2: epoll_wait, accept, pump
 *     --share reuseport    listener 1 ---> loop 1: epoll_wait, accept, pump
 *                          listener 2 ---> loop 2: epoll_wait, accept, pump
 *
 * Each loop is step 6, with clients of its own, so nothing is locked. --share says which loop
 * takes a new client. accept: one thread takes all and hands them out in turn. listener: every
 * loop watches the one listener, and a client wakes all loops that are asleep. exclusive: the
 * kernel wakes at least one, not all. reuseport: the kernel spreads the clients over several
 * queues.
 *
 *   Wait happens in   one epoll_wait for each worker
 *   Breaks when       the load is not where the clients are: a client stays with its worker
 */
#include "server.h"
#include "conn.h"
#include "cpus.h"
#include "drain.h"
#include "log.h"
#include "stats.h"
#include "stop.h"
#include "stream.h"
#include "threads.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS_MAX = 256 }; /* per epoll_wait; further ones are reported by the next */

enum share { ACCEPT, LISTENER, EXCLUSIVE, REUSEPORT };
static int workers, share, pin; /* the options; workers is 0 if it was not given */

struct worker {
    int number, epoll;
    struct net_listener listener; /* its new clients come from here: a socket, or a pipe */
    int pipe_in;                  /* accept: where the acceptor writes */
    struct conn_list clients;
};

struct handed { /* what the acceptor writes to a pipe */
    int fd;
    struct address peer;
};

static pthread_mutex_t start = PTHREAD_MUTEX_INITIALIZER; /* locked until all is ready */

/* Adds fd to epoll's list, or changes its entry (operation). Its events will carry data. */
static int watch(int epoll, int operation, int fd, int want, void *data)
{
    struct epoll_event event = {
        .events = (want & WANT_READ ? EPOLLIN : 0u) | (want & WANT_WRITE ? EPOLLOUT : 0u),
        .data.ptr = data,
    };

    server_watched(1);
    return epoll_ctl(epoll, operation, fd, &event);
}

/* Gives a client to worker i. The pipe of a worker that hangs is full: then the next one gets
 * the client. Tries each pipe twice, because a signal may interrupt write. */
static bool hand_over(const struct worker *all, int i, const struct handed *client)
{
    for (int n = 0; n < 2 * workers; n++)
        if (write(all[(i + n) % workers].pipe_in, client, sizeof *client) != -1)
            return true;
    return false;
}

/* The first thread's part if it is the acceptor: gives each worker a client in turn. */
static void hand_out_clients(struct net_listener *listener, const struct worker *all)
{
    static struct handed client; /* static: zeroed, also the padding, which write sends, too */

    for (int i = 0; (client.fd = stream_accept(listener, &client.peer)) != -1;
         i = (i + 1) % workers)
        if (!hand_over(all, i, &client))
            server_reject(client.fd, &client.peer, "too many wait for a worker");
}

static struct conn *take_client(struct worker *w)
{
    struct handed client;
    ssize_t n = read(w->listener.fd, &client, sizeof client);

    if (n == 0)
        net_unlisten(&w->listener); /* the acceptor has closed the pipe */
    if (n != sizeof client)
        return NULL;
    return conn_open(&w->clients, client.fd, &client.peer);
}

static void accept_client(struct worker *w)
{
    struct conn *c = share == ACCEPT ? take_client(w) : conn_accept(&w->clients, &w->listener);

    if (c != NULL && watch(w->epoll, EPOLL_CTL_ADD, c->fd, WANT_READ, c) == -1)
        conn_reject(&w->clients, c, strerror(errno));
    else if (c != NULL && conn_greet(c) != WANT_READ &&
             watch(w->epoll, EPOLL_CTL_MOD, c->fd, c->want, c) == -1)
        conn_close(&w->clients, c);
}

static void pump_client(struct conn_list *clients, struct conn *c, int epoll)
{
    int before = c->want, want = conn_pump(clients, c);

    if (want == 0 || (want != before && watch(epoll, EPOLL_CTL_MOD, c->fd, want, c) == -1))
        conn_close(clients, c); /* closing also takes it off epoll's list */
}

/* systemd keeps only the first of several listeners. So the others get no new clients from now
 * on, and this worker takes those that wait in its queue. */
static void empty_queue(struct worker *w)
{
    net_only_first(&w->listener); /* if that fails, clients may come until the deadline */
    while (!stop_deadline_passed() && net_readable(w->listener.fd, STOP_LINGER_MS))
        accept_client(w);
}

/* A stop is not the end where there is an acceptor: some clients may still be in the pipe. */
static bool goes_on(const struct worker *w)
{
    return share == ACCEPT ? w->listener.fd != -1 : !stop_requested();
}

/* The whole life of a worker: step 6's loop. */
static void run_worker(void *worker)
{
    struct worker *w = worker;
    struct epoll_event events[EVENTS_MAX];

    pthread_mutex_lock(&start);
    pthread_mutex_unlock(&start);
    stats_worker_begin(w->number);
    if (pin && cpus_pin(w->number) != 0)
        log_warn("cannot pin worker %d to a CPU", w->number);
    while (goes_on(w)) {
        int ready = epoll_wait(w->epoll, events, EVENTS_MAX, conn_expiry_ms(&w->clients));
        server_waited(ready, ready);
        for (int i = 0; i < ready; i++)
            if (events[i].data.ptr == w)
                accept_client(w);
            else if (events[i].data.ptr != NULL)
                pump_client(&w->clients, events[i].data.ptr, w->epoll);
        conn_close_idle(&w->clients);
    }
    if (share == REUSEPORT && w->number > 0 && w->listener.passed)
        empty_queue(w);
    close(w->epoll);
    if (share != ACCEPT)
        net_unlisten(&w->listener);
    drain_clients(&w->clients);
}

/* Gives a worker its source of clients. */
static int share_listener(struct worker *w, struct net_listener *listener)
{
    int ends[2];

    if (share == ACCEPT) {
        if (pipe(ends) == -1)
            return -1;
        w->listener = (struct net_listener){.fd = ends[0], .reserved = -1};
        w->pipe_in = ends[1];
        return net_set_nonblocking(w->pipe_in); /* a worker that hangs blocks nobody else */
    }
    if (share == REUSEPORT && w->number > 0)
        return net_listen_reuseport(&w->listener, listener);
    if (w->number > 0)
        return net_listen_dup(&w->listener, listener);
    w->listener = *listener;
    return 0;
}

static void set_up_worker(struct worker *w, int number, struct net_listener *listener)
{
    struct epoll_event new_client = {
        .events = EPOLLIN | (share == EXCLUSIVE ? EPOLLEXCLUSIVE : 0u),
        .data.ptr = w,
    };

    w->number = number;
    conn_list_init(&w->clients);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll == -1 || share_listener(w, listener) == -1 ||
        (share != ACCEPT &&
         watch(w->epoll, EPOLL_CTL_ADD, stop_wakeup_fd(), WANT_READ, NULL) == -1) ||
        epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->listener.fd, &new_client) == -1 ||
        net_set_nonblocking(w->listener.fd) == -1)
        log_die("cannot set up epoll: %s", strerror(errno));
}

/* With an acceptor each worker has its own thread. Else the first thread is worker 0. */
static void run_server(struct net_listener *listener)
{
    struct worker *all = calloc((size_t)workers, sizeof *all);

    if (all == NULL || stats_workers(workers) == -1)
        log_die("out of memory");
    for (int i = 0; i < workers; i++)
        set_up_worker(&all[i], i, listener);
    pthread_mutex_lock(&start);
    for (int i = share == ACCEPT ? 0 : 1; i < workers; i++) {
        int error = threads_start(run_worker, &all[i]);
        if (error != 0)
            log_die("cannot start a worker: %s", strerror(error));
    }
    server_ready(&listener->address);
    pthread_mutex_unlock(&start);
    if (share == ACCEPT) {
        hand_out_clients(listener, all);
        net_unlisten(listener);
        for (int i = 0; i < workers; i++)
            close(all[i].pipe_in); /* tells worker i to stop */
    } else {
        run_worker(&all[0]);
    }
    threads_stop();
    free(all);
}

int main(int argc, char **argv)
{
    static const struct step_option more[] = {
        {"workers", "N", "start N loops (default: one for each CPU it may use)", &workers, 1,
         STATS_WORKERS_MAX},
        {"share", "accept|listener|exclusive|reuseport",
         "which loop takes a new client (default: accept)", &share, 0, 0},
        {"pin", NULL, "let each worker run on one CPU only", &pin, 0, 1},
        {0},
    };
    struct net_listener listener;

    server_start(argc, argv, more);
    if (workers == 0)
        workers = cpus_allowed();
    server_listen(&listener);
    run_server(&listener);
    return server_finish();
}
