#include "threads.h"
#include "stats.h"
#include "stop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum {
    STACK_SIZE = 256 * 1024,
    WAKE_SIGNAL = SIGUSR2,
    LOOK_MS = 10,                /* how often threads_stop looks whether all have ended */
    WAKE_MS = 2 * STOP_LINGER_MS /* longer: each signal starts a thread's linger again */
};

struct thread {
    struct thread *prev, *next;
    pthread_t id;
    void (*run)(void *);
    void *argument;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the ring */
static struct thread threads = {.prev = &threads, .next = &threads};

static void interrupt(int signal_number)
{
    (void)signal_number; /* that the sleeping call returns is all we want */
}

static void *begin(void *argument)
{
    struct thread *t = argument;

    stats_thread_begin();
    t->run(t->argument);
    stats_thread_end();
    pthread_mutex_lock(&lock); /* threads_start may still hold it: then t->id is not set yet */
    t->prev->next = t->next;
    t->next->prev = t->prev;
    free(t); /* not earlier: free in a new thread makes glibc reserve an arena for the thread */
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* A thread inherits the signal mask of the thread that creates it. */
static int create(struct thread *t)
{
    pthread_attr_t attributes;
    sigset_t all_but_one, before;

    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all_but_one);
    sigdelset(&all_but_one, WAKE_SIGNAL);
    pthread_sigmask(SIG_SETMASK, &all_but_one, &before);
    error = pthread_create(&t->id, &attributes, begin, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

int threads_start(void (*run)(void *), void *argument)
{
    struct thread *t = malloc(sizeof *t);

    if (t == NULL)
        return ENOMEM;
    pthread_mutex_lock(&lock);
    if (threads.next == &threads)
        stop_catch(WAKE_SIGNAL, interrupt);
    *t = (struct thread){threads.prev, &threads, 0, run, argument};
    int error = create(t);
    if (error == 0)
        t->prev->next = t->next->prev = t;
    pthread_mutex_unlock(&lock);
    if (error != 0)
        free(t);
    return error;
}

/* A thread may have been about to fall asleep, so interrupting it once is not enough. */
void threads_stop(void)
{
    pthread_mutex_lock(&lock);
    for (int ms = 0; threads.next != &threads; ms += LOOK_MS) {
        for (struct thread *t = threads.next; t != &threads && ms % WAKE_MS == 0; t = t->next)
            pthread_kill(t->id, WAKE_SIGNAL);
        pthread_mutex_unlock(&lock);
        poll(NULL, 0, LOOK_MS);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
}
