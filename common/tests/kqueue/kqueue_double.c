/* kqueue_double.c - kqueue(2) on top of poll(2), to run code for BSD and macOS on other
 * systems.
 *
 * Like the real one:
 *   - Filters are level-triggered. Each is one entry of a report. READ and WRITE of a
 *     descriptor are far apart in it.
 *   - If a change has a result, the call reports that and does not wait.
 *   - Closing a descriptor deletes its filters; closing the queue frees it. (close() is ours.)
 *
 * Unlike the real one:
 *   - It knows only sockets, pipes and files, EVFILT_READ and EVFILT_WRITE. It has no EV_CLEAR,
 *     and nothing in fflags.
 *   - It notices other ways to close (fclose, dup2) late or never.
 *   - It is for one thread.
 */
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier,cert-dcl*): for POLLRDHUP, ppoll */
#include <sys/event.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { READ, WRITE, FILTERS };
enum { DESCRIPTORS = 65536 }; /* pages of the tables that nobody uses cost nothing */

struct filter {
    unsigned short flags; /* EV_ADD if it exists, with EV_DISABLE, EV_ONESHOT, EV_DISPATCH */
    void *udata;
};

struct watch { /* one descriptor */
    int fd;
    struct filter filters[FILTERS];
};

struct queue {
    struct queue *next;
    int fd;                            /* what kqueue() returned */
    int n;                             /* how many descriptors are watched */
    int turn;                          /* where reporting goes on: nobody is always last */
    struct watch watches[DESCRIPTORS]; /* [n], in no order */
    struct pollfd polls[DESCRIPTORS];  /* [n], the same for poll; fd -1: nothing is enabled */
    int slot[DESCRIPTORS];             /* by descriptor: 1 + its place in these two, or 0 */
};

static struct queue *queues;

static struct queue *find_queue(int fd)
{
    struct queue *q = queues;

    while (q != NULL && q->fd != fd)
        q = q->next;
    return q;
}

int kqueue(void)
{
    struct queue *q =
        mmap(NULL, sizeof *q, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (q == MAP_FAILED)
        return -1;
    q->fd = dup(STDIN_FILENO); /* just a number that can be closed */
    if (q->fd == -1) {
        munmap(q, sizeof *q);
        return -1;
    }
    q->next = queues;
    queues = q;
    return q->fd;
}

static struct watch *find_watch(struct queue *q, int fd)
{
    return fd >= 0 && fd < DESCRIPTORS && q->slot[fd] ? &q->watches[q->slot[fd] - 1] : NULL;
}

static struct watch *add_watch(struct queue *q, int fd)
{
    if (fd >= DESCRIPTORS)
        return NULL;
    q->polls[q->n] = (struct pollfd){.fd = -1};
    q->watches[q->n] = (struct watch){.fd = fd};
    q->slot[fd] = ++q->n;
    return find_watch(q, fd);
}

static void drop_watch(struct queue *q, struct watch *w)
{
    int place = q->slot[w->fd] - 1, last = --q->n;

    q->slot[w->fd] = 0;
    if (place == last)
        return;
    q->watches[place] = q->watches[last];
    q->polls[place] = q->polls[last];
    q->slot[q->watches[place].fd] = place + 1;
}

static bool is_enabled(const struct filter *f)
{
    return (f->flags & (EV_ADD | EV_DISABLE)) == EV_ADD;
}

/* Updates the events for which poll watches w, or forgets w if no filter is left. */
static void settle_watch(struct queue *q, struct watch *w)
{
    struct pollfd *p = &q->polls[w - q->watches];

    if (!(w->filters[READ].flags & EV_ADD) && !(w->filters[WRITE].flags & EV_ADD)) {
        drop_watch(q, w);
        return;
    }
    p->events = (short)((is_enabled(&w->filters[READ]) ? POLLIN | POLLRDHUP : 0) |
                        (is_enabled(&w->filters[WRITE]) ? POLLOUT : 0));
    p->fd = p->events ? w->fd : -1; /* -1: poll reports hang-ups without being asked */
}

/* Carries out one change. Returns 0 or an errno. */
static int change(struct queue *q, const struct kevent *ke)
{
    int fd = ke->ident <= INT32_MAX ? (int)ke->ident : -1;
    struct watch *w = find_watch(q, fd);
    int which = ke->filter == EVFILT_READ ? READ : WRITE;

    if ((ke->filter != EVFILT_READ && ke->filter != EVFILT_WRITE) || ke->flags & EV_CLEAR)
        return EINVAL;
    if (fcntl(fd, F_GETFD) == -1)
        return EBADF;
    if (w == NULL && ke->flags & EV_ADD && (w = add_watch(q, fd)) == NULL)
        return ENOMEM;
    if (w == NULL || !((w->filters[which].flags | ke->flags) & EV_ADD))
        return ENOENT;

    struct filter *f = &w->filters[which];

    if (ke->flags & EV_ADD) {
        f->flags = ke->flags & (EV_ADD | EV_ONESHOT | EV_DISPATCH);
        f->udata = ke->udata;
    }
    if (ke->flags & EV_ENABLE)
        f->flags &= (unsigned short)~EV_DISABLE;
    if (ke->flags & EV_DISABLE)
        f->flags |= EV_DISABLE;
    if (ke->flags & EV_DELETE)
        f->flags = 0;
    settle_watch(q, w);
    return 0;
}

/* Makes all changes. Those that failed, or want a receipt, are reported as long as there is
 * room; after that a failure ends it with -1. */
static int change_all(struct queue *q, const struct kevent *list, int n, struct kevent *out,
                      int room)
{
    int reported = 0;

    for (int i = 0; i < n; i++) {
        int error = change(q, &list[i]);

        if (error == 0 && !(list[i].flags & EV_RECEIPT))
            continue;
        if (reported < room) {
            out[reported] = list[i];
            out[reported].flags = EV_ERROR;
            out[reported++].data = error;
        } else if (error != 0) {
            errno = error;
            return -1;
        }
    }
    return reported;
}

/* Fills *out if this filter of w is ready. */
static bool report(struct queue *q, struct watch *w, int which, struct kevent *out)
{
    struct filter *f = &w->filters[which];
    int happened = q->polls[w - q->watches].revents;
    int hangup = which == READ ? POLLHUP | POLLERR | POLLRDHUP : POLLHUP | POLLERR;
    int ready = hangup | (which == READ ? POLLIN : POLLOUT), bytes = 1;

    if (!is_enabled(f) || !(happened & ready))
        return false;
    if (which == READ && ioctl(w->fd, FIONREAD, &bytes) == -1)
        bytes = 1; /* a listening socket: the real one counts the backlog */
    *out = (struct kevent){
        .ident = (uintptr_t)w->fd,
        .filter = which == READ ? EVFILT_READ : EVFILT_WRITE,
        .flags = (happened & hangup) ? EV_EOF : 0,
        .data = bytes,
        .udata = f->udata,
    };
    if (f->flags & EV_ONESHOT)
        f->flags = 0;
    if (f->flags & EV_DISPATCH)
        f->flags |= EV_DISABLE;
    return true;
}

/* Reports what the last poll found: all the READ filters, then all the WRITE filters, beginning
 * where the last call ran out of room. */
static int report_all(struct queue *q, struct kevent *out, int room)
{
    int reported = 0, all = FILTERS * q->n;

    for (int i = 0, turn = q->turn; i < all && reported < room; i++) {
        int at = (turn + i) % all;

        if (report(q, &q->watches[at % q->n], at / q->n, &out[reported]))
            reported++;
        q->turn = i + 1 == all ? 0 : at + 1;
    }
    for (int i = q->n - 1; i >= 0; i--) /* backwards: dropping moves the last one here */
        if (q->polls[i].revents != 0)
            settle_watch(q, &q->watches[i]);
    return reported;
}

/* Forgets what was closed behind our back. Returns how many there were. */
static int drop_closed(struct queue *q)
{
    int dropped = 0;

    for (int i = q->n - 1; i >= 0; i--)
        if (q->polls[i].revents & POLLNVAL) {
            drop_watch(q, &q->watches[i]);
            dropped++;
        }
    return dropped;
}

/* poll fails for more descriptors than RLIMIT_NOFILE allows, although all are open. kqueue goes
 * on when the limit was lowered. */
static int poll_one_by_one(struct queue *q)
{
    int ready = 0;

    poll(NULL, 0, 1);
    for (int i = 0; i < q->n; i++) {
        q->polls[i].revents = q->polls[i].events; /* if even one is too many */
        poll(&q->polls[i], 1, 0);
        ready += q->polls[i].revents != 0;
    }
    return ready;
}

int kevent(int kq, const struct kevent *changelist, int nchanges, struct kevent *eventlist,
           int nevents, const struct timespec *timeout)
{
    struct queue *q = find_queue(kq);

    if (q == NULL) {
        errno = EBADF;
        return -1;
    }

    int n = change_all(q, changelist, nchanges, eventlist, nevents);

    if (n != 0 || nevents == 0)
        return n;
    do {
        n = ppoll(q->polls, (nfds_t)q->n, timeout, NULL);
        if (n == -1 && errno == EINVAL)
            n = poll_one_by_one(q);
        if (n <= 0)
            return n;
    } while (drop_closed(q) == n);
    return report_all(q, eventlist, nevents);
}

int close(int fd)
{
    for (struct queue **link = &queues; *link != NULL;) {
        struct queue *q = *link;
        struct watch *w = find_watch(q, fd);

        if (w != NULL)
            drop_watch(q, w);
        if (q->fd != fd) {
            link = &q->next;
            continue;
        }
        *link = q->next;
        munmap(q, sizeof *q);
    }
    return (int)syscall(SYS_close, fd);
}
