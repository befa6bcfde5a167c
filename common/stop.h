/* How a server stops. SIGINT or SIGTERM asks for it. The server then accepts no client, serves
 * each client that it has until nothing has come from it for STOP_LINGER_MS, and closes the
 * rest after STOP_GRACE_MS. (Closing at once would reset a client that is still sending, and a
 * reset destroys answers on their way.) A SIGINT during a stop ends the server at once.
 *
 * A call that sleeps returns with EINTR when a signal comes, so a loop calls stop_requested
 * before each sleep. A signal may come after that call and before the sleep. Then a SIGALRM,
 * sent every STOP_GRACE_MS, interrupts the sleep. A loop that sleeps in one call for many
 * descriptors watches stop_wakeup_fd as well, and misses nothing. */
#ifndef STOP_H
#define STOP_H

#include <stdbool.h>

enum { STOP_LINGER_MS = 50, STOP_GRACE_MS = 1000 };

/* Catches SIGINT, SIGTERM and SIGALRM. Until stop_gracefully is called, SIGINT and SIGTERM end
 * the program at once. */
void stop_init(void);
void stop_gracefully(void);

/* Has a stop been requested? Any thread may ask. */
bool stop_requested(void);

/* Is the time over in which clients may finish? stop_give_up ends it early. */
bool stop_deadline_passed(void);
void stop_give_up(void);

/* The wake-up descriptor: readable when a signal has come, for select, epoll and the like. The
 * signal handlers write to it. It is an eventfd(2) on Linux, elsewhere a pipe, which takes two
 * descriptors (the "self-pipe trick"). It is made at the first call, which exits with status 1
 * if that fails: so call it first at start. */
int stop_wakeup_fd(void);

/* Makes that descriptor readable. For signal handlers. */
void stop_wake(void);

/* Makes it unreadable again, unless a stop was requested: then it stays readable. */
void stop_drain_wakeup(void);

/* Catches a signal, without SA_RESTART so that sleeping calls return, and unblocks it. */
void stop_catch(int signal_number, void (*handler)(int));

/* Ends the program as a signal does by default, also as process 1 of a container, where the
 * kernel ignores default actions (pid_namespaces(7)). A signal handler. */
void stop_die(int signal_number);

/* What a second SIGINT does instead of stop_die, for a server with child processes. */
void stop_on_second_interrupt(void (*handler)(int));

/* In a child process after fork(2): a second SIGINT ends the child; the time limit of a stop
 * that was requested runs here, too (alarms are not inherited). */
void stop_after_fork(void);

#endif
