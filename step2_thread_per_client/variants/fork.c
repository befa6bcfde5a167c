/* Step 2, variant - a process per client: ask nothing, let the scheduler ask.
 *
 *     accept --> accept --> accept --> ...          the parent only opens the door
 *        |          |          +--> recv --> answer --> recv --> ...    client C's process
 *        |          +--> recv --> answer --> recv --> ...               client B's process
 *        +--> recv --> answer --> recv --> ...                          client A's process
 *
 * Older than threads: fork copies the server, and the copy serves one client. Nothing is shared
 * unless asked for, so there is no lock, and a child that crashes takes nobody along. A child
 * that ended remains as a zombie until its parent has asked how (waitpid).
 *
 *   Wait happens in   as many recv calls as there are clients, in as many processes
 *   Breaks when       there are thousands: a process costs several times what a thread does
 */
#include "cli.h"
#include "echo.h"
#include "net.h"
#include "stats.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024, FIRST_ROOM = 64 };

/* SIGCHLD and SIGINT are blocked while we change these two. */
static pid_t *children; /* [room], 0 where there is none */
static int room;

/* What children counted, and whose clients have gone since the parent looked last. */
struct left_behind {
    struct stats counted;
    atomic_int gone;
};
static struct left_behind *shared; /* by all, in memory that fork does not copy */

static void serve_client(int fd)
{
    unsigned char bytes[BUFFER_SIZE];
    struct echo echo;
    long long cut = 0; /* when a signal cut a silence short */

    echo_init(&echo);
    if (net_send_all(fd, ECHO_GREETING, 1, &cli_time_is_up) == -1)
        return;
    while (!cli_time_is_up) {
        if (cli_stopping() && !net_readable(fd, CLI_QUIET_MS))
            return; /* all that had come is answered */
        ssize_t n = net_recv(fd, bytes, sizeof bytes);
        if (n == -1 && errno == EINTR && !net_overdue(fd, &cut))
            continue;
        if (n <= 0)
            return; /* the end, a reset, or --idle-timeout */
        cut = 0;
        size_t answers = echo_feed(&echo, bytes, (size_t)n);
        if (net_send_all(fd, bytes, answers, &cli_time_is_up) == -1)
            return;
    }
}

_Noreturn static void client_process(int fd, const struct peer *peer)
{
    cli_connected(peer);
    memset(&stats, 0, sizeof stats); /* so far all is a copy of what the parent counts itself */
    if (cli_stopping())              /* since before fork: the alarm has stayed behind */
        alarm(CLI_GRACE_MS / 1000);
    serve_client(fd);
    /* Before the client can see that it is over, ask for a report, and come again. */
#define GIVE(name) atomic_fetch_add(&shared->counted.name, stats.name);
    STATS_COUNTERS(GIVE)
#undef GIVE
    shared->gone++;
    cli_disconnected(peer);
    close(fd);
    _exit(0); /* not exit: what the parent has yet to write is not ours to write */
}

/* Reaps a child. Returns false if there is none (with WNOHANG: none that has ended). */
static bool forget_next(int options)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, options)) == -1 && errno == EINTR)
        ;
    if (pid <= 0)
        return false;
    for (int i = 0; i < room; i++)
        if (children[i] == pid)
            children[i] = 0; /* the number may soon be another's */
    if (status != 0)
        shared->gone++; /* it was killed before it could say so */
    return true;
}

static void signal_children(int signal_number)
{
    for (int i = 0; i < room; i++)
        if (children[i] != 0)
            kill(children[i], signal_number);
}

/* SIGCHLD. One signal may stand for several children, so ask until there is no more. */
static void reap_children(int signal_number)
{
    int error = errno;

    (void)signal_number;
    while (forget_next(WNOHANG))
        ;
    errno = error;
}

/* Takes over what children left behind: their counters, and their clients' places. */
static void take_counters(void)
{
    for (int gone = atomic_exchange(&shared->gone, 0); gone > 0; gone--)
        stats_client_end();
#define TAKE(name) stats_add(&stats.name, atomic_exchange(&shared->counted.name, 0));
    STATS_COUNTERS(TAKE)
#undef TAKE
}

/* A free place in the list, or NULL. */
static pid_t *find_place(void)
{
    for (int i = 0; i < room; i++)
        if (children[i] == 0)
            return &children[i];
    int before = room, wanted = room > 0 ? 2 * room : FIRST_ROOM;
    pid_t *larger = realloc(children, (size_t)wanted * sizeof *children);
    if (larger == NULL)
        return NULL;
    children = larger;
    for (; room < wanted; room++)
        children[room] = 0;
    return &children[before];
}

/* Returns 0, or what went wrong. */
static int start_process(struct net_listener *listener, int fd, const struct peer *peer)
{
    pid_t *place = find_place();
    pid_t pid = place == NULL ? -1 : fork();

    if (pid == 0) {
        sigset_t none;
        net_unlisten(listener);
        signal(SIGUSR1, SIG_IGN); /* the report is the parent's business, */
        cli_second_interrupt(SIG_DFL);
        if (cli_stopping())
            signal(SIGINT, SIG_DFL); /* and so are its other children */
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        client_process(fd, peer);
    }
    if (pid == -1)
        return errno;
    *place = pid;
    return 0;
}

static void accept_client(struct net_listener *listener)
{
    struct peer peer;
    sigset_t held, before;
    int fd = net_accept(listener, &peer);

    take_counters(); /* now: cli_admit asks how many clients there are. It leaves errno alone */
    fd = cli_admit(fd, &peer);
    if (fd < 0)
        return;
    if (cli.idle_timeout_ms > 0)
        net_set_timeout(fd, cli.idle_timeout_ms);
    sigemptyset(&held);
    sigaddset(&held, SIGCHLD);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGUSR1);
    sigprocmask(SIG_BLOCK, &held, &before);
    cli_stopping(); /* prints the report that is wanted by now, or the child would do it too */
    int error = start_process(listener, fd, &peer);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        stats_client_begin();
    else
        cli_refused(&peer, strerror(error));
    close(fd); /* the child has its own */
}

/* The second SIGINT: nobody is waited for any longer. */
static void kill_children(int signal_number)
{
    (void)signal_number;
    signal_children(SIGKILL);
}

/* Tells all children to stop, which they do as every server does, and waits for them. */
static void call_in_children(void)
{
    sigset_t held;

    sigemptyset(&held);
    sigaddset(&held, SIGCHLD);
    sigprocmask(SIG_BLOCK, &held, NULL); /* from here on nobody is reaped but below */
    signal_children(SIGTERM);
    signal_children(SIGCONT); /* in case one was stopped */
    while (forget_next(0))
        ;
    take_counters();
    signal(SIGINT, SIG_IGN); /* nobody is left to be killed */
    free(children);
}

static void run_server(struct net_listener *listener)
{
    shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        cli_die("cannot share memory with children: %s", strerror(errno));
    cli_catch(SIGCHLD, reap_children);
    cli_second_interrupt(kill_children);
    cli_listening(&listener->address);
    while (!cli_stopping())
        accept_client(listener);
    net_unlisten(listener); /* from here on nobody new */
    call_in_children();
}

int main(int argc, char **argv)
{
    struct net_listener listener;

    cli_start(argc, argv, NULL);
    cli_listen(&listener);
    run_server(&listener);
    return cli_finish();
}
