/* Child processes that serve clients: how they start, how they are reaped, how a stop ends
 * them.
 *
 * A process that has ended remains as a zombie until its parent reaps it, which means to ask
 * for its exit status (waitpid(2)). SIGCHLD tells the parent when to do so. */
#ifndef CHILDREN_H
#define CHILDREN_H

#include <sys/types.h>

/* Prepares the parent: shares the counters (stats_share), reaps children from now on, and makes
 * a second SIGINT kill them. Exits with status 1 if memory is short. */
void children_init(void);

/* fork(2) for a client. The parent counts the client as served, and remembers the child, so
 * that a stop can reach it. The child ignores SIGUSR1, because the parent writes the report.
 * Returns as fork does: 0 in the child; in the parent the child's number, or -1 with errno. */
pid_t children_fork(void);

/* Tells all children to stop, as every server stops (SIGTERM), and waits for them. */
void children_stop(void);

#endif
