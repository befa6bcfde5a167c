/* load_worker.h - one thread of the load client: an ae loop, its connections, its measurements.
 * (A single worker needs no thread of its own: it works in worker_sleep.)
 *
 * The worker holds its mutex from the moment its loop wakes until the loop sleeps again. So the
 * main thread can read counters and histograms whenever the loop sleeps. This costs one
 * uncontended lock per iteration, and the hot path needs no atomics.
 *
 * A run has phases. The worker opens its connections as soon as it starts. worker_go() then
 * gives three points in time: messages are sent from `start`, measured from `begin`, and no
 * longer sent from `end`. Answers that are still missing may arrive until worker_stop().
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
    ERROR_GREETING, /* the first byte was not the greeting */
    ERROR_WRONG,    /* an answer contained a wrong byte */
    ERROR_SURPLUS,  /* the server sent more bytes than the messages ask for */
    ERROR_CLOSED,   /* the server closed it */
    ERROR_RESET,    /* the server reset it */
    ERROR_OTHER,    /* recv or send failed with another error */
    ERROR_KINDS,
};
extern const char *const load_error_names[ERROR_KINDS];

struct source {
    struct sockaddr_storage address;
    socklen_t length;
};

/* What every worker is to do; read-only while they run. */
struct load_plan {
    const struct addrinfo *addresses; /* of the server, tried in this order */
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

struct connection;

/* The counters of a worker; main adds them up. */
struct tally {
    size_t opened;       /* connections tried */
    size_t ready;        /* active ones: made, and greeted where the server speaks first */
    size_t idle;         /* idle ones: made and greeted */
    size_t connecting;   /* tried and not yet connected */
    size_t pending;      /* those, and the ones that wait for the greeting */
    size_t lost;         /* were ready and then failed */
    uint64_t ready_at;   /* when the last one so far became ready */
    uint64_t messages;   /* answered in the measured window */
    uint64_t bytes;      /* of answers verified in it */
    uint64_t answered;   /* messages answered since the start, warm-up included */
    uint64_t received;   /* bytes of answers verified since the start */
    uint64_t in_flight;  /* messages sent, or on their way out, and not answered */
    uint64_t on_time;    /* scheduled messages that did not have to wait for their connection */
    double late_ns;      /* the sum of how late the client sent those */
    double in_flight_ns; /* in_flight, integrated over the window */
    uint64_t errors[ERROR_KINDS];
};

struct worker {
    const struct load_plan *plan;
    unsigned index;
    size_t active; /* connections that send messages: the first ones */
    size_t total;  /* active and idle connections */

    pthread_t thread;
    pthread_mutex_t mutex;
    aeEventLoop *loop;
    struct alarm alarm;
    int wake[2]; /* a pipe: a byte ends the loop's sleep */
    bool stopping;

    uint64_t start, begin, end; /* NEVER until worker_go() */
    bool started;
    const struct addrinfo *address; /* the one that is tried, or that accepted */
    uint64_t opening_since;
    bool unreachable; /* the first connection failed: no more are tried */

    double period, offset;       /* of the schedule, in nanoseconds */
    uint64_t next;               /* message of the schedule that is due next */
    struct connection *thinkers; /* connections in their think time, the first to wake first */
    struct connection **last_thinker;

    char *connections; /* of `stride` bytes each, because of their stamps */
    size_t stride;

    struct tally tally;
    struct hist *latency; /* from when each message was due, if that was in the window */
    struct hist *service; /* from when it was sent; the same histogram in a closed loop */
    struct hist *recent;  /* of answers in the current interval, if the plan wants it */
    uint64_t flight_changed;
    uint64_t unanswered;  /* of those due in the window, when the run ended */
    uint64_t least, most; /* answers per connection */

    int connect_errno;     /* of the first connection that failed */
    char first_error[200]; /* in words; empty while there is none */

    unsigned char scratch[WIRE_WINDOW];
};

/* Starts thread `index` of plan->threads with its share of the connections and of `idle` idle
 * ones. Returns NULL with errno. */
struct worker *worker_start(const struct load_plan *plan, unsigned index, size_t idle);
/* Lets time pass for the main thread. If w is the only worker, it works meanwhile. */
void worker_sleep(struct worker *w, unsigned ms);
void worker_go(struct worker *w, uint64_t start, uint64_t begin, uint64_t end);
/* Moves the end of the run forward to `end`, if that is earlier. */
void worker_end(struct worker *w, uint64_t end);
/* Ends the thread; the caller may then read its state without the lock. Counts the messages
 * that were never answered, with the age that they have now. */
void worker_stop(struct worker *w);
void worker_free(struct worker *w);

void worker_lock(struct worker *w);
void worker_unlock(struct worker *w);
static inline bool worker_in_window(const struct worker *w, uint64_t t)
{
    return t >= w->begin && t < w->end;
}

void tally_add(struct tally *sum, const struct tally *more);

#endif
