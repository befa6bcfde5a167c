/* What makes a step a program: its command line, its log, its stop, its cost report.
 *
 * Unlike the rest of common/ this is the program's half: it prints, and at start it may exit:
 * 1 when the server cannot start, 2 on a usage error (message and usage on stderr). */
#ifndef CLI_H
#define CLI_H

#include "net.h"

#include <stdatomic.h>
#include <stdbool.h>

/* The options every server has. Read-only after cli_start. */
struct cli {
    const char *bind, *port;
    int max_clients;     /* INT_MAX: no limit of ours */
    int idle_timeout_ms; /* 0: never */
    bool quiet;          /* no line per client */
};
extern struct cli cli;

/* An option of one step: a flag (argument NULL, *value becomes 1) or a whole number. */
struct cli_option {
    const char *name;     /* "interval-ms" */
    const char *argument; /* "N" */
    const char *help;
    int *value;
    int min, max;
};

/* Parses the command line; `more` are the step's own options, at most four, ended by a
 * NULL name, or NULL.
 * Also: opens descriptors 0 to 2 if they came closed, and terminals anew; catches SIGINT,
 * SIGTERM, SIGALRM and SIGUSR1, ignores SIGPIPE and SIGXFSZ. Until cli_listening, though,
 * SIGINT and SIGTERM kill, as they do any program: a name may take long to be resolved. */
void cli_start(int argc, char **argv, const struct cli_option *more);

/* Listens as the options say, or says why that cannot be and exits with status 1. */
void cli_listen(struct net_listener *listener);
_Noreturn void cli_cannot_listen(const char *why); /* for a step that does not use net.h */

/* Prints `Listening on ADDRESS:PORT`: all is ready, and from here on nothing is fatal. */
void cli_listening(const struct peer *address);

/* Prints `NAME: MESSAGE` on stderr and exits with status 1. Trouble at start only. */
__attribute__((format(printf, 1, 2))) _Noreturn void cli_die(const char *format, ...);

/* Takes what net_accept returned. Returns the descriptor; or CLI_NOBODY when nobody came; or
 * CLI_REFUSED when somebody did who had to be refused, which is logged, counted and done. */
enum { CLI_NOBODY = -1, CLI_REFUSED = -2 };
int cli_admit(int fd, const struct peer *peer);

/* The house is full by --max-clients. (cli_admit asks; step 7 asks itself.) */
bool cli_full(void);

/* One line per client; counts them. Refusals are logged at most once a second. */
void cli_connected(const struct peer *peer);
void cli_disconnected(const struct peer *peer);
void cli_refused(const struct peer *peer, const char *why);

/* Prints a line (with its '\n') on stdout, unless that would block: a log line is never worth a
 * client. Any thread may call it. */
__attribute__((format(printf, 1, 2))) void cli_log(const char *format, ...);

/* Has SIGINT or SIGTERM come? A call that sleeps is interrupted by them (EINTR), so ask before
 * each. A signal that slips in between the two is not lost: a second one, SIGALRM, follows
 * CLI_GRACE_MS later. Asked by the first thread it also prints the report SIGUSR1 wants. */
bool cli_stopping(void);

/* How a server stops: it accepts nobody, serves each client until that has been silent for
 * CLI_QUIET_MS, and after CLI_GRACE_MS gives up on those who still have not finished. (To close
 * at once would reset a client that is still sending, and so destroy answers on their way.) */
enum { CLI_QUIET_MS = 50, CLI_GRACE_MS = 1000 };
extern atomic_bool cli_time_is_up; /* CLI_GRACE_MS have passed since the stop */

/* Catches a signal, without SA_RESTART, so that sleeping calls return, and unblocks it. */
void cli_catch(int signal_number, void (*handler)(int));

/* The same, to do nothing but interrupt a sleeping call: for waking a thread with it. */
void cli_interrupt_on(int signal_number);

/* What a SIGINT does after the first SIGINT or SIGTERM. If not said: SIG_DFL, it kills. */
void cli_second_interrupt(void (*handler)(int));

/* For a wait over many descriptors: one that becomes readable when cli_stopping() should be
 * asked (the self-pipe trick). Unlike pselect's signal mask it is heard by a busy server too:
 * Linux lets a masked signal in only when no descriptor is ready. */
int cli_wakeup_fd(void);

/* Prints the cost so far, and writes it to the file --stats named. Any number of times. Returns
 * whether it could be written; if not, that was said on stderr. */
bool cli_report(void);

/* The last words: the report. Returns the exit status: 0, or 1 if it could not be written. */
int cli_finish(void);

#endif
