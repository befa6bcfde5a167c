#include "children.h"
#include "log.h"
#include "server.h"
#include "stats.h"
#include "stop.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* SIGCHLD and SIGINT, whose handlers use these two, are blocked while they change. */
static pid_t *children; /* [room], 0 where there is none */
static int room;

/* Reaps a child. Returns false if there is none (with WNOHANG: none that has ended). */
static bool reap_child(int flags)
{
    siginfo_t ended = {0};
    int status;

    while (waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT | flags) == -1)
        if (errno != EINTR)
            return false;
    if (ended.si_pid == 0)
        return false;
    for (int i = 0; i < room; i++)
        if (children[i] == ended.si_pid)
            children[i] = 0; /* first: once reaped, the number may be another process's */
    while (waitpid(ended.si_pid, &status, 0) == -1 && errno == EINTR)
        ;
    if (status != 0)
        stats_client_end(); /* the child was killed before it could count that */
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

void children_init(void)
{
    if (stats_share() == -1)
        log_die("cannot share memory with children: %s", strerror(errno));
    stop_catch(SIGCHLD, reap_children);
    stop_on_second_interrupt(kill_children);
}

/* Returns a free place in children[], or NULL. */
static pid_t *find_place(void)
{
    for (int i = 0; i < room; i++)
        if (children[i] == 0)
            return &children[i];
    const int larger = room * 2 + 1;
    pid_t *moved = realloc(children, (size_t)larger * sizeof *children);
    if (moved == NULL)
        return NULL;
    memset(moved + room, 0, (size_t)(larger - room) * sizeof *moved);
    children = moved;
    room = larger;
    return &children[larger / 2];
}

pid_t children_fork(void)
{
    sigset_t blocked, before;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    pid_t *place = find_place();
    pid_t pid = place == NULL ? -1 : fork();
    int error = errno;
    if (pid == 0) {
        stop_after_fork();
        server_never_report();
    } else if (pid != -1) {
        *place = pid;
        stats_add(&stats.clients_served, 1);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return pid;
}

void children_stop(void)
{
    sigset_t blocked;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, NULL); /* from here on only the loop below reaps */
    signal_children(SIGTERM);
    signal_children(SIGCONT); /* in case one was suspended */
    while (reap_child(0))
        ;
    signal(SIGINT, SIG_IGN); /* there is no child left to kill */
    free(children);
}
