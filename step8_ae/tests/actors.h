/* actors.h - what the tests of ae have in common: a loop, connected pairs of descriptors, and
 * actors, which own a descriptor or a timer and note its events.
 *
 * Callbacks note what happened in a trace: one letter for the kind of event (r and w for
 * descriptors, * for both at once, t for timers, f for finalizers, B and A for the hooks) and
 * the name of the actor. Most tests then compare traces.
 */
#ifndef ACTORS_H
#define ACTORS_H

#include "ae.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { LOOK = AE_ALL_EVENTS | AE_DONT_WAIT, TOO_LONG_MS = 10000 };

/* The owner of a descriptor or a timer: what to note, and what to do when called. */
struct actor {
    const char *name;
    void (*act)(struct actor *self, int fd, int mask);
    int again;           /* for timers: what to return */
    int fd;              /* what act needs: a descriptor, */
    long long id;        /* a timer, */
    struct actor *other; /* another actor */
};

/* The loop under test: a new one for each test. */
extern aeEventLoop *loop;

extern char trace[256];
void note(const char *kind, const char *name);
void assert_trace(const char *expected); /* and begins a new one */

/* Callbacks of actors. */
aeFileProc on_file, on_readable, on_writable;
aeTimeProc on_time;
aeEventFinalizerProc on_finalize;

/* Begin to watch a descriptor, or start a timer, for an actor. */
void watch(int fd, int mask, struct actor *actor);
long long start_timer(long long ms, struct actor *actor);

/* Timers started and not yet finalized. */
extern int live_timers;

/* For timers whose actor will not outlive the test. */
void drop_timers(void);

/* What actors may do. */
void stop(struct actor *self, int fd, int mask);

/* The clock of the loop under test: its calls are counted, and a test can stop it to have two
 * events at exactly the same time. Not possible on every system. */
extern const bool our_clock;
extern int clock_calls;
extern bool clock_stopped;
double now_ms(void);

/* A connected pair: ours goes into the loop, theirs plays the client. */
struct pair {
    int ours, theirs;
};

struct pair open_pair(void);
struct pair open_tcp_pair(void);
void close_pair(struct pair p);
void poke(int fd);    /* writes a byte */
void swallow(int fd); /* reads a byte */

int open_descriptors(void);

int set_up(void **state);
int tear_down(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

#endif
