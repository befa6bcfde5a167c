#include "stop.h"
#include "log.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* Lock-free atomics may be used in handlers (C11, 7.14.1.1), and threads share these. */
_Static_assert(ATOMIC_BOOL_LOCK_FREE == 2 && ATOMIC_POINTER_LOCK_FREE == 2,
               "a handler must not wait for a lock");
_Static_assert(STOP_GRACE_MS >= 1000 && STOP_GRACE_MS % 1000 == 0, "alarm takes seconds");
static atomic_bool requested, deadline_passed, graceful;
static void (*_Atomic second_interrupt)(int) = stop_die;
static void (*_Atomic on_wake)(void);
static int wakeup[2] = {-1, -1}; /* the self-pipe: read end, write end */

void stop_die(int signal_number)
{
    sigset_t set;

    signal(signal_number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(signal_number);
    _exit(128 + signal_number); /* process 1: the kernel has ignored that */
}

void stop_wake(void)
{
    int error = errno; /* the code that the handler interrupts may need it */

    void (*wake)(void) = on_wake; /* once: it may change meanwhile */
    if (wake != NULL)
        wake();
    ssize_t ignored = wakeup[1] == -1 ? 0 : write(wakeup[1], "", 1);
    (void)ignored; /* a full pipe wakes the reader just as well */
    errno = error;
}

void stop_on_wake(void (*wake)(void))
{
    on_wake = wake;
}

static void on_stop(int signal_number)
{
    if (!graceful)
        stop_die(signal_number);
    stop_catch(SIGINT, second_interrupt);
    if (!atomic_exchange(&requested, true))
        alarm(STOP_GRACE_MS / 1000); /* a second SIGTERM must not put it off */
    stop_wake();
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
    if (!requested)
        return; /* not our alarm: exec hands down one that was set before */
    deadline_passed = true;
    alarm(STOP_GRACE_MS / 1000); /* once more, in case no call was asleep to be interrupted */
    stop_wake();
}

void stop_catch(int signal_number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigset_t set;

    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
    sigemptyset(&set); /* the program that started us may have blocked it */
    sigaddset(&set, signal_number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void stop_init(void)
{
    stop_catch(SIGINT, on_stop);
    stop_catch(SIGTERM, on_stop);
    stop_catch(SIGALRM, on_alarm);
}

void stop_gracefully(void)
{
    graceful = true;
}

bool stop_requested(void)
{
    return requested;
}

bool stop_deadline_passed(void)
{
    return deadline_passed;
}

void stop_give_up(void)
{
    deadline_passed = true;
}

int stop_wakeup_fd(void)
{
    int ends[2];

    if (wakeup[0] != -1)
        return wakeup[0];
    if (pipe(ends) == -1 || net_set_nonblocking(ends[0]) == -1 ||
        net_set_nonblocking(ends[1]) == -1)
        log_die("cannot make a pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++)
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    wakeup[0] = ends[0];
    wakeup[1] = ends[1];
    return wakeup[0];
}

void stop_drain_wakeup(void)
{
    char bytes[16];

    while (wakeup[0] != -1 && !requested && read(wakeup[0], bytes, sizeof bytes) > 0)
        ;
}

void stop_on_second_interrupt(void (*handler)(int))
{
    second_interrupt = handler;
}

void stop_after_fork(void)
{
    second_interrupt = stop_die;
    if (requested) {
        stop_catch(SIGINT, stop_die);
        alarm(STOP_GRACE_MS / 1000);
    }
}
