#include "children.h"
#include "server.h"
#include "clock.h"
#include "log.h"
#include "net.h"
#include "stats.h"
#include "stop.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

/* SIGCHLD and SIGINT, whose handlers use these two, are blocked while they change. */
static pid_t *children; /* [room], 0 where there is none */
static int room;

/* children_keep's: the first places of children[] are for workers. */
static int worker_count;
static int64_t *started; /* [worker_count], milliseconds; 0: never */

static void worker_died(int number, pid_t pid, int status)
{
    if (stop_requested())
        return;
    if (WIFSIGNALED(status))
        log_warn("worker %d (process %d) was ended by signal %d", number, (int)pid,
                 WTERMSIG(status));
    else
        log_warn("worker %d (process %d) has ended with status %d", number, (int)pid,
                 WEXITSTATUS(status));
}

/* Reaps a child. Returns false if there is none (with WNOHANG: none that has ended). Not called
 * in a signal handler if there are workers. */
static bool reap_child(int flags)
{
    siginfo_t ended = {0};
    int status, place = -1;

    while (waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT | flags) == -1)
        if (errno != EINTR)
            return false;
    if (ended.si_pid == 0)
        return false;
    for (int i = 0; i < room; i++)
        if (children[i] == ended.si_pid) {
            children[i] = 0; /* first: once reaped, the number may be another process's */
            place = i;
        }
    while (waitpid(ended.si_pid, &status, 0) == -1 && errno == EINTR)
        ;
    if (place == -1)
        return true; /* not ours: exec(3) keeps the children of the program before */
    stats_child_ended(place);
    if (place < worker_count)
        worker_died(place, ended.si_pid, status);
    return true;
}

/* One SIGCHLD may stand for several children, so reap until there is no more. */
static void reap_children(int signal_number)
{
    int error = errno;

    (void)signal_number;
    while (reap_child(WNOHANG))
        ;
    errno = error;
}

static bool has_children(void)
{
    for (int i = 0; i < room; i++)
        if (children[i] != 0)
            return true;
    return false;
}

static void signal_children(int signal_number)
{
    for (int i = 0; i < room; i++)
        if (children[i] != 0)
            kill(children[i], signal_number);
}

static void kill_children(int signal_number)
{
    (void)signal_number;
    signal_children(SIGKILL);
}

static void wake_parent(int signal_number)
{
    (void)signal_number;
    stop_wake();
}

void children_init(int workers)
{
    if (server_share() == -1 || (workers > 0 && stats_workers(workers) == -1))
        log_die("cannot share memory with children: %s", strerror(errno));
    if (workers > 0) {
        worker_count = room = workers;
        children = calloc((size_t)workers, sizeof *children);
        started = calloc((size_t)workers, sizeof *started);
        if (children == NULL || started == NULL)
            log_die("out of memory");
        stop_wakeup_fd(); /* made here, where a failure may end the program */
    }
    stop_catch(SIGCHLD, workers > 0 ? wake_parent : reap_children);
    stop_on_second_interrupt(kill_children);
}

/* Returns a free place in children[], or NULL. */
static pid_t *find_place(void)
{
    for (int i = 0; i < room; i++)
        if (children[i] == 0)
            return &children[i];
    const int larger = room * 2 + 1;
    if (larger > STATS_CHILDREN_MAX) {
        errno = EAGAIN;
        return NULL;
    }
    pid_t *moved = realloc(children, (size_t)larger * sizeof *children);
    if (moved == NULL)
        return NULL;
    memset(moved + room, 0, (size_t)(larger - room) * sizeof *moved);
    children = moved;
    room = larger;
    return &children[larger / 2];
}

/* Forks and remembers the child in worker `number`'s place, or in any free one (-1). */
static pid_t fork_child(int number)
{
    sigset_t blocked, before;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    pid_t *place = number == -1 ? find_place() : &children[number];
    const bool for_client = number == -1 && place != NULL;
    if (for_client)
        stats_child_clients((int)(place - children), 1);
    pid_t pid = place == NULL ? -1 : fork();
    int error = errno;
    if (pid == 0) {
        stop_after_fork();
        server_never_report();
        stats_child_begin();
        if (for_client)
            stats_child_number((int)(place - children));
    } else if (pid != -1) {
        *place = pid;
    } else if (for_client) {
        stats_child_clients((int)(place - children), -1);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return pid;
}

pid_t children_fork(void)
{
    return fork_child(-1);
}

static void stop_with_parent(pid_t parent)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    if (getppid() != parent) /* it has died already */
        raise(SIGTERM);
}

static pid_t start_worker(int number, children_work *work, void *argument)
{
    const pid_t parent = getpid();
    pid_t pid = fork_child(number);

    if (pid == 0) {
        stop_with_parent(parent);
        stats_worker_begin(number);
        work(argument); /* it does not return */
    }
    started[number] = clock_ms();
    return pid;
}

/* Starts the workers that do not run, unless they were started just now. Returns after how many
 * milliseconds it should be called again; -1: when a child has died. */
static int start_workers(children_work *work, void *argument)
{
    int next = -1;

    for (int i = 0; i < worker_count && !stop_requested(); i++) {
        if (children[i] != 0)
            continue;
        int64_t age = clock_ms() - started[i];
        if (started[i] != 0 && age < CHILDREN_RESTART_MS) {
            int ms = (int)(CHILDREN_RESTART_MS - age);
            next = next == -1 || ms < next ? ms : next;
        } else if (start_worker(i, work, argument) == -1) {
            log_warn("cannot start a worker: %s", strerror(errno));
            return CHILDREN_RESTART_MS;
        }
    }
    return next;
}

void children_keep(children_work *work, void *argument)
{
    struct pollfd wakeup = {.fd = stop_wakeup_fd(), .events = POLLIN};

    while (!stop_requested()) {
        net_poll(&wakeup, 1, start_workers(work, argument));
        stop_drain_wakeup(); /* before we look: a signal that comes later wakes us again */
        while (reap_child(WNOHANG))
            ;
        server_report_if_asked();
    }
    signal_children(SIGTERM);
}

void children_stop(void)
{
    sigset_t blocked;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, NULL); /* from here on only the loop below reaps */
    if (worker_count == 0)                  /* children_keep has told the workers */
        signal_children(SIGTERM);
    signal_children(SIGCONT); /* in case one was suspended */
    while (has_children() && reap_child(0))
        ;
    signal(SIGINT, SIG_IGN); /* there is no child left to kill */
    free(children);
    free(started);
}
