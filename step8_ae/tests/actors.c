#include "actors.h"

#include <netinet/in.h>
#include <sys/syscall.h>

aeEventLoop *loop;
char trace[256];
int live_timers;

void note(const char *kind, const char *name)
{
    size_t used = strlen(trace);

    assert_true(used + 3 < sizeof trace);
    snprintf(trace + used, sizeof trace - used, "%s%s", kind, name);
}

void assert_trace(const char *expected)
{
    assert_string_equal(trace, expected);
    trace[0] = '\0';
}

void on_file(aeEventLoop *l, int fd, void *data, int mask)
{
    struct actor *self = data;

    assert_ptr_equal(l, loop);
    note(mask == (AE_READABLE | AE_WRITABLE) ? "*"
         : mask == AE_READABLE               ? "r"
                                             : "w",
         self->name);
    if (self->act != NULL)
        self->act(self, fd, mask);
}

void on_readable(aeEventLoop *l, int fd, void *data, int mask)
{
    struct actor *self = data;

    assert_ptr_equal(l, loop);
    assert_true(mask & AE_READABLE);
    note("r", self->name);
    if (self->act != NULL)
        self->act(self, fd, mask);
}

void on_writable(aeEventLoop *l, int fd, void *data, int mask)
{
    assert_ptr_equal(l, loop);
    assert_true(mask & AE_WRITABLE);
    note("w", ((struct actor *)data)->name);
    (void)fd;
}

int on_time(aeEventLoop *l, long long id, void *data)
{
    struct actor *self = data;

    assert_ptr_equal(l, loop);
    assert_true(id >= 0);
    note("t", self->name);
    if (self->act != NULL)
        self->act(self, -1, 0);
    return self->again;
}

void on_finalize(aeEventLoop *l, void *data)
{
    assert_ptr_equal(l, loop);
    note("f", ((struct actor *)data)->name);
    live_timers--;
}

int clock_calls;
bool clock_stopped;

#ifdef SYS_clock_gettime /* where it is a system call, ours can replace it */
const bool our_clock = true;

int clock_gettime(clockid_t clock_id, struct timespec *tp)
{
    static struct timespec last;

    if (clock_id != CLOCK_MONOTONIC)
        return (int)syscall(SYS_clock_gettime, clock_id, tp);
    clock_calls++;
    if (!clock_stopped)
        syscall(SYS_clock_gettime, clock_id, &last);
    *tp = last;
    return 0;
}
#else
const bool our_clock = false;
#endif

double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

struct pair open_pair(void)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    return (struct pair){fds[0], fds[1]};
}

struct pair open_tcp_pair(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0), ours, theirs;

    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    theirs = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(theirs, (struct sockaddr *)&addr, len), 0);
    ours = accept(listener, NULL, NULL);
    assert_true(ours >= 0);
    close(listener);
    return (struct pair){ours, theirs};
}

void close_pair(struct pair p)
{
    aeDeleteFileEvent(loop, p.ours, AE_READABLE | AE_WRITABLE);
    close(p.ours);
    close(p.theirs);
}

void poke(int fd)
{
    assert_int_equal(write(fd, "x", 1), 1);
}

void swallow(int fd)
{
    char c;

    assert_int_equal(read(fd, &c, 1), 1);
}

void watch(int fd, int mask, struct actor *actor)
{
    assert_int_equal(aeCreateFileEvent(loop, fd, mask, on_file, actor), AE_OK);
}

long long start_timer(long long ms, struct actor *actor)
{
    long long id = aeCreateTimeEvent(loop, ms, on_time, actor, on_finalize);

    assert_true(id >= 0);
    live_timers++;
    return id;
}

void drop_timers(void)
{
    for (long long id = 0; id < loop->timeEventNextId; id++)
        aeDeleteTimeEvent(loop, id);
    aeProcessEvents(loop, AE_TIME_EVENTS | AE_DONT_WAIT);
    assert_int_equal(live_timers, 0);
}

void stop(struct actor *self, int fd, int mask)
{
    (void)self, (void)fd, (void)mask;
    aeStop(loop);
}

int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

/* Leaves freed memory that is not zero, for the allocations of the test. */
static void litter(void)
{
    enum { BLOCKS = 32, STEP = 16 };
    void *blocks[BLOCKS];

    for (int i = 0; i < BLOCKS; i++)
        if ((blocks[i] = malloc((size_t)(i + 1) * STEP)) != NULL)
            memset(blocks[i], 0xff, (size_t)(i + 1) * STEP);
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

static int descriptors; /* open before the test */

int set_up(void **state)
{
    (void)state;
    trace[0] = '\0';
    clock_stopped = false;
    live_timers = 0;
    descriptors = open_descriptors();
    litter();
    loop = aeCreateEventLoop(256);
    return loop == NULL;
}

int tear_down(void **state)
{
    (void)state;
    aeDeleteEventLoop(loop);
    assert_int_equal(open_descriptors(), descriptors);
    return 0;
}
