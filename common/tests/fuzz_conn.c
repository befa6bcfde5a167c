/* One client's conn over a socket that follows a script: each system call may move a part, find
 * nothing to do (EAGAIN), be interrupted (EINTR) or fail for good, in any order. Whatever the
 * order, the client gets what the naive model says. Nothing is lost and nothing is doubled.
 * Nothing is read while output is unsent. A pump makes one system call per direction at most.
 *
 * The input is a line of script, one character per system call, then what the client sends
 * before it closes:
 *     0 to 9   move at most 1, 4, 16, ... 4^9 bytes     a EAGAIN      i EINTR
 *     r        ECONNRESET                               p EPIPE
 * Any other character moves all there is, and so does the end of the script. */
#include "conn.h"
#include "fuzz.h"
#include "options.h"
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum { FAKE_FD = 1000000 }; /* no real call may reach it */

static struct {
    const uint8_t *script, *script_end;
    const uint8_t *input, *input_end; /* what the client is still to send */
    bool in_message, dead, interrupted;
    uint8_t *due; /* the greeting, then the answers to all that was read */
    size_t n_due, n_sent;
    int recvs, sends, closes;
} fake;

/* Follows one character of the script. Returns how many bytes may move, or -1 with errno. */
static ssize_t play(size_t n)
{
    int action = fake.script < fake.script_end ? *fake.script++ : '\n';
    int error = action == 'a' ? EAGAIN : action == 'i' ? EINTR : action == 'p' ? EPIPE : 0;

    if (fake.dead || action == 'r')
        error = ECONNRESET;
    fake.interrupted = fake.interrupted || error == EINTR;
    if (error != 0) {
        fake.dead = fake.dead || error == ECONNRESET || error == EPIPE;
        errno = error;
        return -1;
    }
    size_t most = action >= '0' && action <= '9' ? (size_t)1 << 2 * (action - '0') : n;
    return (ssize_t)(n < most ? n : most);
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's --wrap wants these names */
ssize_t __wrap_recv(int fd, void *bytes, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags);
int __wrap_close(int fd);
int __wrap_fcntl(int fd, int command, ...);

ssize_t __wrap_recv(int fd, void *bytes, size_t size, int flags)
{
    size_t left = (size_t)(fake.input_end - fake.input);
    ssize_t n = play(size < left ? size : left);

    MUST(fd == FAKE_FD && size > 0 && flags == 0);
    MUST(fake.n_sent == fake.n_due || fake.dead);
    fake.recvs++;
    if (n > 0) {
        memcpy(bytes, fake.input, (size_t)n);
        fake.n_due +=
            naive_answer(&fake.in_message, fake.input, (size_t)n, fake.due + fake.n_due);
        fake.input += n;
    }
    return n;
}

ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags)
{
    ssize_t n = play(size);

    MUST(fd == FAKE_FD && flags == MSG_NOSIGNAL);
    MUST(size > 0 && size == fake.n_due - fake.n_sent);
    MUST(memcmp(bytes, fake.due + fake.n_sent, size) == 0);
    fake.sends++;
    if (n > 0)
        fake.n_sent += (size_t)n;
    return n;
}

int __wrap_close(int fd)
{
    MUST(fd == FAKE_FD);
    fake.closes++;
    return 0;
}

int __wrap_fcntl(int fd, int command, ...)
{
    MUST(fd == FAKE_FD && (command == F_GETFL || command == F_SETFL));
    return 0;
}

/* NOLINTEND(bugprone-reserved-identifier) */

/* Returns whether the client is still connected. */
static bool pump(struct conn_list *list, struct conn *c)
{
    const size_t sent_before = fake.n_sent;
    const uint8_t *input_before = fake.input;

    fake.recvs = fake.sends = 0;
    fake.interrupted = false;
    int want = conn_pump(list, c);
    MUST(fake.recvs <= 1 && fake.sends <= 1 && fake.recvs + fake.sends > 0);
    MUST(want == c->want && (want == 0 || want == WANT_READ || want == WANT_WRITE));
    MUST(want == 0 || (want == WANT_WRITE) == (fake.n_sent < fake.n_due));
    bool progress = fake.interrupted || fake.n_sent > sent_before || fake.input > input_before;
    MUST(want == 0 || c->progress == progress);
    MUST(list->idle.first == &c->idle);
    MUST(want != WANT_READ || c->unsent == NULL);
    MUST(want != 0 || fake.dead || (fake.input == fake.input_end && fake.n_sent == fake.n_due));
    return want != 0;
}

static void set_options(void)
{
    static char *arguments[] = {(char *)"fuzz_conn", (char *)"--quiet", NULL};

    if (!options->quiet)
        options_parse(2, arguments, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line_end = size > 0 ? memchr(data, '\n', size) : NULL;
    struct conn_list list;
    const struct address peer = {.port = 1};

    set_options();
    conn_list_init(&list);
    memset(&fake, 0, sizeof fake);
    fake.script = data;
    fake.script_end = line_end ? line_end : data;
    fake.input = line_end ? line_end + 1 : data;
    fake.input_end = data + size;
    fake.due = malloc(size + 1);
    MUST(fake.due != NULL);
    fake.due[fake.n_due++] = (uint8_t)*ECHO_GREETING;

    struct conn *c = conn_open(&list, FAKE_FD, &peer);
    MUST(c != NULL && list.count == 1);
    stats_client_begin(INT_MAX);
    conn_greet(c);
    MUST(fake.recvs == 0 && fake.sends == 1);
    size_t pumps = 2 * size + 4; /* at most: every call uses up script or moves a byte */
    while (pump(&list, c))
        MUST(pumps-- > 0);
    MUST(fake.closes == 0);
    conn_close(&list, c);
    MUST(fake.closes == 1 && list.count == 0 && list.idle.first == NULL &&
         list.idle.last == NULL);
    free(fake.due);
    return 0;
}
