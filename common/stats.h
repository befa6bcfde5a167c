/* What a server's life cost, counted where it is paid: in the wrappers of net.h and at each
 * step's wait. Every thread counts in a struct of its own, so counting takes neither a lock
 * nor a bus-locked instruction; a reader adds the structs up. */
#ifndef STATS_H
#define STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* The counters in the order of the report. All are totals since the start. */
#define STATS_COUNTERS(X)                                                       \
    X(accept_calls)                                                             \
    X(recv_calls)                                                               \
    X(recv_again) /* ... that said EAGAIN: nothing there */                     \
    X(send_calls)                                                               \
    X(send_short)          /* ... that took only a part */                      \
    X(send_again)          /* ... that took nothing: EAGAIN */                  \
    X(wait_calls)          /* select, poll, epoll_wait, laps of a loop, naps */ \
    X(wait_events)         /* ready descriptors those waits reported */         \
    X(descriptors_scanned) /* descriptors looked at to find the ready ones */   \
    X(interest_changes)    /* epoll_ctl or its like */                          \
    X(threads_created)                                                          \
    X(clients_served)  /* let in, now gone or not */                            \
    X(clients_refused) /* turned away for want of room */                       \
    X(bytes_in)                                                                 \
    X(bytes_out)

struct stats {
#define STATS_FIELD(name) atomic_uint_least64_t name;
    STATS_COUNTERS(STATS_FIELD)
#undef STATS_FIELD
    struct stats *prev, *next; /* other threads' */
};

/* The calling thread's counters. A thread other than the first registers them with
 * stats_thread_begin() or they are never added up. */
extern _Thread_local struct stats stats;

/* Adds n to a counter of the calling thread: one writer, so a plain load and store will do. */
static inline void stats_add(atomic_uint_least64_t *counter, uint64_t n)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + n, memory_order_relaxed);
}

/* One wait is over: it reported `events`, and `scanned` descriptors are looked at for them. */
static inline void stats_wait(int events, int scanned)
{
    stats_add(&stats.wait_calls, 1);
    stats_add(&stats.wait_events, events > 0 ? (uint64_t)events : 0);
    stats_add(&stats.descriptors_scanned, scanned > 0 ? (uint64_t)scanned : 0);
}

/* A thread's first and last call: enters its counters in the total, and leaves them there. */
void stats_thread_begin(void);
void stats_thread_end(void);

/* A client came (was greeted), or went. Any thread may call them. */
void stats_client_begin(void);
void stats_client_end(void);

/* How many clients there are now. */
int stats_clients(void);

/* Writes the report for people (kept to a few lines), or as one flat JSON object: the counters
 * above, threads_max, clients_max, cpu_user_seconds, cpu_system_seconds, voluntary_switches,
 * involuntary_switches, peak_rss_bytes (getrusage(2)). Returns the length as snprintf does. */
int stats_text(char *text, size_t size);
int stats_json(char *text, size_t size);

#endif
