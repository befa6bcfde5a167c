#include "stop.h"
#include "log.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#if defined __linux__ && !defined STOP_USES_PIPE /* a test sets that */
#include <sys/eventfd.h>
#endif

/* Lock-free atomics may be used in handlers (C11, 7.14.1.1), and threads share these. */
_Static_assert(ATOMIC_BOOL_LOCK_FREE == 2 && ATOMIC_POINTER_LOCK_FREE == 2,
               "a handler must not wait for a lock");
_Static_assert(STOP_GRACE_MS >= 1000 && STOP_GRACE_MS % 1000 == 0, "alarm takes seconds");
static atomic_bool requested, deadline_passed, graceful;
static void (*_Atomic second_interrupt)(int) = stop_die;
static int wakeup_fds[2] = {-1, -1}; /* of the wake-up: to read, to write. An eventfd is both */

void stop_die(int signal_number)
{
    sigset_t set;

    signal(signal_number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    pthread_kill(pthread_self(), signal_number);
    _exit(128 + signal_number); /* process 1: the kernel has ignored that */
}

void stop_wake(void)
{
    const uint64_t one = 1; /* what an eventfd takes; for a pipe it is 8 bytes */
    int error = errno;      /* the code that the handler interrupts may need it */
    ssize_t ignored = wakeup_fds[1] == -1 ? 0 : write(wakeup_fds[1], &one, sizeof one);

    (void)ignored; /* a full pipe wakes the reader just as well */
    errno = error;
}

static void on_stop(int signal_number)
{
    if (!graceful)
        stop_die(signal_number);
    stop_catch(SIGINT, second_interrupt);
    if (!atomic_exchange(&requested, true))
        alarm(STOP_GRACE_MS / 1000); /* a second SIGTERM must not postpone it */
    stop_wake();
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
    if (!requested)
        return; /* not our alarm: exec keeps one that was set before */
    deadline_passed = true;
    alarm(STOP_GRACE_MS / 1000); /* again: this one may come just before a call sleeps */
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

#ifdef EFD_NONBLOCK
static int open_wakeup(int fds[2])
{
    fds[0] = fds[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fds[0] == -1 ? -1 : 0;
}
#else
static int open_wakeup(int fds[2])
{
    if (pipe(fds) == -1)
        return -1;
    for (int i = 0; i < 2; i++)
        if (net_set_nonblocking(fds[i]) == -1 || fcntl(fds[i], F_SETFD, FD_CLOEXEC) == -1)
            return -1;
    return 0;
}
#endif

int stop_wakeup_fd(void)
{
    int fds[2];

    if (wakeup_fds[0] != -1)
        return wakeup_fds[0];
    if (open_wakeup(fds) == -1)
        log_die("cannot make a wake-up descriptor: %s", strerror(errno));
    wakeup_fds[0] = fds[0];
    wakeup_fds[1] = fds[1]; /* last: a handler may write to it from now on */
    return wakeup_fds[0];
}

void stop_drain_wakeup(void)
{
    uint64_t count; /* how often stop_wake was called; from a pipe, each 8 bytes are one call */

    while (wakeup_fds[0] != -1 && !requested && read(wakeup_fds[0], &count, sizeof count) > 0)
        ;
    if (requested)
        stop_wake(); /* the signal may have come just before a read */
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
