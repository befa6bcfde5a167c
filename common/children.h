/* Child processes that serve clients: how they start, how they are reaped, how a stop ends
 * them.
 *
 * A process that has ended remains as a zombie until its parent reaps it, which means to ask
 * for its exit status (waitpid(2)). SIGCHLD tells the parent when to do so. */
#ifndef CHILDREN_H
#define CHILDREN_H

#include <sys/types.h>

/* Prepares the parent: shares the counters (server_share), reaps children from now on, and
 * makes a second SIGINT kill them. `workers` is how many children_keep will keep, or 0. Exits
 * with status 1 if memory is short. */
void children_init(int workers);

/* fork(2) for a client. The parent remembers the child, so that a stop can reach it. The child
 * counts for the parent (stats.h), and ignores SIGUSR1, because the parent writes the report.
 * Returns as fork does: 0 in the child; in the parent the child's number, or -1 with errno.
 * EAGAIN: there are as many processes as the system allows, or nearly STATS_CHILDREN_MAX
 * children. */
pid_t children_fork(void);

/* Keeps as many child processes running as children_init was told, until a stop is requested.
 * Each one runs work(argument) and ends there with _exit(2). A stop is passed on as SIGTERM.
 * They are the workers of stats.h. One that dies is replaced: at once if it has run for
 * CHILDREN_RESTART_MS, else when that time is over. So a worker that always dies does not keep
 * the CPU busy. The log has a line for each death. If the parent dies, the workers stop (Linux
 * only): they must not accept clients for ever. Call it after server_ready. */
enum { CHILDREN_RESTART_MS = 1000 };
typedef void children_work(void *argument);
void children_keep(children_work *work, void *argument);

/* Tells all children to stop, by SIGTERM, and waits for them. (children_keep has told the
 * workers.) A child stops as every server does. */
void children_stop(void);

#endif
