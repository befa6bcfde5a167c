/* What a server has cost. Events are counted where they happen: in the wrappers of net.h and
 * after each step's wait. Every thread counts in a struct of its own, so counting needs no lock
 * and no atomic read-modify-write instruction. A reader adds the structs up. */
#ifndef STATS_H
#define STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The counters in the order of the report. All are totals since the start. */
#define STATS_COUNTERS(X)                                                                  \
    X(accept_calls)                                                                        \
    X(recv_calls)                                                                          \
    X(recv_again) /* ... that returned EAGAIN: nothing to read */                          \
    X(send_calls)                                                                          \
    X(send_short)          /* ... that took only a part */                                 \
    X(send_again)          /* ... that took nothing: EAGAIN */                             \
    X(wait_calls)          /* select, poll, epoll_wait, a loop's or step 4's iterations */ \
    X(wait_events)         /* ready descriptors that those waits reported */               \
    X(descriptors_scanned) /* descriptors looked at to find the ready ones */              \
    X(interest_changes)    /* epoll_ctl or its like */                                     \
    X(threads_created)                                                                     \
    X(clients_served)   /* so far, connected now or not */                                 \
    X(clients_rejected) /* closed unserved, for lack of room */                            \
    X(bytes_in)                                                                            \
    X(bytes_out)

struct stats {
#define STATS_FIELD(name) atomic_uint_least64_t name;
    STATS_COUNTERS(STATS_FIELD)
#undef STATS_FIELD
    struct stats *prev, *next; /* other threads' */
};

/* The calling thread's counters. A thread other than the first registers them with
 * stats_thread_begin; otherwise they are never added up. */
extern _Thread_local struct stats stats;

/* Adds n to a counter of the calling thread. No other thread writes to it, so a plain load and
 * store are enough. */
static inline void stats_add(atomic_uint_least64_t *counter, uint64_t n)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + n, memory_order_relaxed);
}

/* Counts a wait: `events` descriptors are ready, and `scanned` were looked at to find them. */
static inline void stats_wait(int events, int scanned)
{
    stats_add(&stats.wait_calls, 1);
    stats_add(&stats.wait_events, events > 0 ? (uint64_t)events : 0);
    stats_add(&stats.descriptors_scanned, scanned > 0 ? (uint64_t)scanned : 0);
}

/* A thread's first and last call. Its counters stay in the totals. */
void stats_thread_begin(void);
void stats_thread_end(void);

/* For a server with child processes. Before the first fork(2) the parent calls stats_share,
 * which makes memory that its children can write to (returns -1 with errno if it cannot). A
 * child calls stats_child_begin to drop what was counted before, which the parent counts, too.
 * stats_child_report then adds what the child has counted since to the parent's totals. Call
 * it before a client can see the end of its connection. In a process that has not called
 * stats_child_begin it does nothing. */
int stats_share(void);
void stats_child_begin(void);
void stats_child_report(void);

/* For a server with a child process for each client. The parent has counted the client. Before
 * fork(2) it passes the client to child `number`, 0 to STATS_CHILDREN_MAX - 1 (change 1); if
 * fork fails, it takes the client back (-1). The child first says which one it is. */
enum { STATS_CHILDREN_MAX = 65536 };
void stats_child_clients(int number, int change);
void stats_child_number(int number);

/* For a server whose report lists its workers (threads or processes). stats_workers makes
 * memory for n of them (returns -1 with errno if it cannot). A thread or child process then
 * says that it is worker 0 to n - 1. */
enum { STATS_WORKERS_MAX = 4096 };
int stats_workers(int n);
void stats_worker_begin(int number);

/* A child or worker process has ended, however and whenever that was: any clients that it had
 * have left. For the parent, also in a signal handler. */
void stats_child_ended(int number);

/* Counts a client that is served, for the calling worker as well. */
void stats_client_served(void);

/* Count the clients that are connected. stats_client_begin adds one and returns true. If there
 * are `limit` already, it adds none and returns false. stats_client_end takes one away. Any
 * thread may call them, and after stats_share any child, also in a signal handler. */
bool stats_client_begin(int limit);
void stats_client_end(void);

/* How many clients there are now. */
int stats_clients(void);

/* Writes the report for people (a few lines), or as one flat JSON object: the counters above,
 * threads_max, clients_max, cpu_user_seconds, cpu_system_seconds, voluntary_switches,
 * involuntary_switches, peak_rss_bytes (getrusage(2); after stats_share with the CPU time and
 * switches of children that have ended), and clients_refused, which is an older
 * name of clients_rejected. After stats_workers there is also a list, `workers`: how many
 * clients each worker has served. Returns the length as snprintf does; STATS_REPORT_SIZE is
 * always enough. For the first thread. */
enum { STATS_REPORT_SIZE = 4096 + STATS_WORKERS_MAX * 21 };
int stats_text(char *text, size_t size);
int stats_json(char *text, size_t size);

#endif
