/* What makes a step a program: start, listen, admit clients, log and count them, report, end.
 *
 * Unlike most of common/, this module prints, and at start it may exit: with status 1 when the
 * server cannot start, 2 on a usage error. */
#ifndef SERVER_H
#define SERVER_H

#include "net.h"
#include "options.h"

/* Parses the command line (options.h), opens descriptors 0 to 2 if they came closed, and
 * prepares the log and the signals: SIGINT and SIGTERM stop (stop.h), SIGUSR1 asks for a
 * report, SIGPIPE and SIGXFSZ are ignored. */
void server_start(int argc, char **argv, const struct step_option *more);

/* Listens as the options say, or on the socket that a service manager has passed
 * (activation.h). If that fails, says why and exits with status 1. */
void server_listen(struct net_listener *listener);

/* Prints `Listening on ADDRESS:PORT`, and tells the service manager, if there is one. Call it
 * when all is ready: from then on no error is fatal. */
void server_ready(const struct address *address);

/* Accepts a client: net_accept, then server_admit. Returns the descriptor; or -1 when there is
 * no client to serve. errno ECONNABORTED means that a client was rejected (which is logged) or
 * had left already, and that more may be pending. */
int server_accept(struct net_listener *listener, struct address *peer);

/* Counts a new client. If --max-clients are connected already, it logs the rejection and
 * returns false, and the caller closes the connection. For a client that was counted, the
 * caller calls server_disconnected or server_rejected in the end. */
bool server_admit(const struct address *peer);

/* For a server with child processes, before the first fork(2). From then on --max-clients and
 * the limits of log lines hold for all processes together. Calls stats_share. Returns 0, or -1
 * with errno. */
int server_share(void);

/* The server begins to serve a client, or has finished. Each logs a line, unless --quiet. */
void server_connected(const struct address *peer);
void server_disconnected(const struct address *peer);

/* A client that was counted cannot be served. Logged at most once a second; the next such
 * line or report says how many were not logged. */
void server_rejected(const struct address *peer, const char *why);

/* The same, and closes the client's descriptor. */
void server_reject(int fd, const struct address *peer, const char *why);

/* As server_rejected, for a client that was never counted. */
void server_not_admitted(const struct address *peer, const char *why);

/* Writes the report if SIGUSR1 has asked for it. Any thread may call it, but only the first
 * thread writes. */
void server_report_if_asked(void);

/* Call it after each wait (select, epoll_wait; step 4: each iteration). Counts the wait, the
 * ready descriptors that it reported (events) and the descriptors looked at to find them
 * (scanned). events is -1 if the wait failed, with errno. If that is not EINTR, logs the error
 * and sleeps for 10 ms, so that the caller cannot spin. Calls server_report_if_asked. */
void server_waited(int events, int scanned);

/* Call it where a server changes what the kernel watches (epoll_ctl, kevent): counts this many
 * changes. */
void server_watched(int changes);

/* For a child process: SIGUSR1 has no effect from now on. */
void server_never_report(void);

/* Writes the last report. Returns the program's exit status: 0, or 1 if --stats could not be
 * written. */
int server_finish(void);

#endif
