/* load_worker.h - one thread of the load client: an ae loop, its connections, what it measured.
 * (A single worker needs no thread of its own: it works while the main thread naps.)
 *
 * A worker owns its state while it works and lends it out while it sleeps: the mutex is held
 * from the moment the loop wakes until it sleeps again. So the main thread reads counters and
 * histograms at any time, and the hot path pays one uncontended lock a lap, no atomics.
 *
 * A run has phases. The worker opens its connections as soon as it starts. worker_go() then
 * gives three points in time: traffic from `start`, measured from `begin`, none sent from
 * `end`. What is owed then may still arrive until worker_stop().
 */
#ifndef LOAD_WORKER_H
#define LOAD_WORKER_H

#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "hist.h"
#include "load_alarm.h"
#include "load_wire.h"

/* How a connection can fail; load_error_names[] says it in words. */
enum load_error {
    ERROR_CONNECT,  /* it could not be made */
    ERROR_GREETING, /* it was, but the first byte was not the greeting */
    ERROR_WRONG,    /* an answer held a wrong byte */
    ERROR_SURPLUS,  /* bytes came that nobody asked for */
    ERROR_CLOSED,   /* the server closed it */
    ERROR_RESET,    /* the server reset it */
    ERROR_OTHER,    /* recv or send failed otherwise */
    ERROR_KINDS,
};
extern const char *const load_error_names[ERROR_KINDS];

struct source {
    struct sockaddr_storage address;
    socklen_t length;
};

/* What every worker is to do; read-only while they run. */
struct load_plan {
    const struct addrinfo *addresses; /* of the server, to be tried in this order */
    struct source *sources;           /* local addresses to connect from, in turn */
    size_t source_count;
    struct wire requests, answers;
    bool greeting;  /* the server speaks first, one '*' */
    bool bulk;      /* write without waiting for answers */
    bool interval;  /* keep the histogram of the current interval */
    unsigned depth; /* messages in flight per connection */
    uint64_t think; /* nanoseconds between an answer and the next message */
    double rate;    /* messages a second by schedule, all workers together; 0: closed loop */
    double ramp;    /* connections opened a second, all workers together; 0: at once */
    size_t connections; /* all workers together, the idle ones not counted */
    size_t max_files;   /* no descriptor will be larger */
    unsigned threads;
};

struct worker;
struct conn;

/* What is counted; main adds up the workers'. */
struct tally {
    size_t opened;       /* connections tried */
    size_t ready;        /* made, and greeted where the server speaks first */
    size_t idle;         /* of the silent ones: made and greeted */
    size_t connecting;   /* tried, and not through to the server yet */
    size_t pending;      /* those, and the ones that wait for the greeting */
    size_t lost;         /* were ready, are no more */
    uint64_t ready_at;   /* when the last one so far became ready */
    uint64_t messages;   /* answered in the measured window */
    uint64_t bytes;      /* of answers verified in it */
    uint64_t answered;   /* messages answered since the start, warm-up included */
    uint64_t in_flight;  /* messages sent, or on their way out, and not answered */
    uint64_t on_time;    /* scheduled messages that did not have to wait for their connection */
    double late_ns;      /* how late those were sent, in sum: the client's own doing */
    double in_flight_ns; /* in_flight, integrated over the window */
    uint64_t errors[ERROR_KINDS];
};

struct worker {
    const struct load_plan *plan;
    unsigned index;
    size_t active; /* connections with traffic: the first ones */
    size_t total;  /* and with the idle ones */

    pthread_t thread;
    pthread_mutex_t mutex;
    aeEventLoop *loop;
    struct alarm alarm;
    int wake[2]; /* a pipe: a byte ends the loop's sleep */
    bool stopping;

    uint64_t start, begin, end; /* NEVER until worker_go() */
    bool started;
    const struct addrinfo *address; /* the one that is tried, or that answered */
    uint64_t opening_since;
    bool hopeless; /* the first connection failed: no more are tried */

    double period, offset; /* of the schedule, in nanoseconds */
    uint64_t next;         /* message of the schedule that is due next */
    struct conn *thinkers; /* connections in thought, in the order they will wake */
    struct conn **last_thinker;

    char *conns; /* of `stride` bytes each, because of their stamps */
    size_t stride;

    struct tally tally;
    struct hist *latency; /* from when each message was due, of those due in the window */
    struct hist *service; /* from when it was sent: not corrected; the same in a closed loop */
    struct hist *recent;  /* of answers in the current interval, if the plan wants it */
    uint64_t flight_changed;
    uint64_t unanswered;  /* of those due in the window, when the run ended */
    uint64_t least, most; /* answers per connection */

    int connect_errno;     /* of the first connection that failed */
    char first_error[200]; /* in words; empty while there is none */

    unsigned char scratch[WIRE_WINDOW];
};

/* Starts thread `index` of plan->threads with its share of the connections and of `idle` silent
 * ones. Returns NULL with errno. */
struct worker *worker_start(const struct load_plan *plan, unsigned index, size_t idle);
/* Lets time pass for the main thread: asleep, or, where w is the only worker, at its work. */
void worker_nap(struct worker *w, unsigned ms);
void worker_go(struct worker *w, uint64_t start, uint64_t begin, uint64_t end);
/* Lets no message begin from `end` on, if that is earlier than was said. */
void worker_end(struct worker *w, uint64_t end);
/* Ends the thread; its state is the caller's from then on. Accounts for what was never
 * answered: a message that still waits counts with the age it has. */
void worker_stop(struct worker *w);
void worker_free(struct worker *w);

void worker_lock(struct worker *w);
void worker_unlock(struct worker *w);
void tally_add(struct tally *sum, const struct tally *more);

#endif
