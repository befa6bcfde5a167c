/* One client's conn over a socket that answers by script: each system call may be cut short,
 * be refused for now, be interrupted or fail for good, in any order. Whatever the order, the
 * client gets what the naive model says, nothing lost and nothing doubled; nothing is read
 * while anything is owed; and a pump makes one system call per direction at most.
 *
 * The input is a line of script, one character per system call, then what the client says
 * before it hangs up:
 *     0 to 9   move at most 1, 4, 16, ... 4^9 bytes     a EAGAIN      i EINTR
 *     r        ECONNRESET                               p EPIPE
 * Any other character, and the end of the script, moves all there is. */
#include "conn.h"
#include "fuzz.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum { FAKE_FD = 1000000 }; /* no real call may reach it */

static struct {
    const uint8_t *script, *script_end;
    const uint8_t *said, *said_end; /* what the client has yet to say */
    bool in_message, dead;
    uint8_t *due; /* the answers to all that was read, greeting first */
    size_t n_due, n_sent;
    int recvs, sends, closes;
} fake;

/* Plays one character. Returns how many bytes may move, or -1 with errno. */
static ssize_t play(size_t n)
{
    int action = fake.script < fake.script_end ? *fake.script++ : '\n';
    int error = action == 'a' ? EAGAIN : action == 'i' ? EINTR : action == 'p' ? EPIPE : 0;

    if (fake.dead || action == 'r')
        error = ECONNRESET;
    if (error != 0) {
        fake.dead = fake.dead || error == ECONNRESET || error == EPIPE;
        errno = error;
        return -1;
    }
    size_t most = action >= '0' && action <= '9' ? (size_t)1 << 2 * (action - '0') : n;
    return (ssize_t)(n < most ? n : most);
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's --wrap wants these names
 */
ssize_t __wrap_recv(int fd, void *bytes, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags);
int __wrap_close(int fd);

ssize_t __wrap_recv(int fd, void *bytes, size_t size, int flags)
{
    size_t left = (size_t)(fake.said_end - fake.said);
    ssize_t n = play(size < left ? size : left);

    MUST(fd == FAKE_FD && size > 0 && flags == 0);
    MUST(fake.n_sent == fake.n_due || fake.dead);
    fake.recvs++;
    if (n > 0) {
        memcpy(bytes, fake.said, (size_t)n);
        fake.n_due +=
            naive_answer(&fake.in_message, fake.said, (size_t)n, fake.due + fake.n_due);
        fake.said += n;
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

/* NOLINTEND(bugprone-reserved-identifier) */

/* Returns whether the client is still there. */
static bool pump(struct conn_list *list, struct conn *c)
{
    fake.recvs = fake.sends = 0;
    int want = conn_pump(list, c);
    MUST(fake.recvs <= 1 && fake.sends <= 1 && fake.recvs + fake.sends > 0);
    MUST(want == c->want && (want == 0 || want == WANT_READ || want == WANT_WRITE));
    MUST(want == 0 || (want == WANT_WRITE) == (fake.n_sent < fake.n_due));
    MUST(want != WANT_READ || c->owed == NULL);
    MUST(want != 0 || fake.dead || (fake.said == fake.said_end && fake.n_sent == fake.n_due));
    return want != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line_end = size > 0 ? memchr(data, '\n', size) : NULL;
    struct conn_list list = {0};
    const struct peer peer = {.port = 1};

    memset(&fake, 0, sizeof fake);
    fake.script = data;
    fake.script_end = line_end ? line_end : data;
    fake.said = line_end ? line_end + 1 : data;
    fake.said_end = data + size;
    fake.due = malloc(size + 1);
    MUST(fake.due != NULL);
    fake.due[fake.n_due++] = (uint8_t)*ECHO_GREETING;

    struct conn *c = conn_open(&list, FAKE_FD, &peer);
    MUST(c != NULL && list.count == 1);
    conn_greet(c);
    MUST(fake.recvs == 0 && fake.sends == 1);
    size_t patience = 2 * size + 4; /* every call uses up script or moves a byte */
    while (pump(&list, c))
        MUST(patience-- > 0);
    MUST(fake.closes == 0);
    conn_close(&list, c);
    MUST(fake.closes == 1 && list.count == 0 && list.first == NULL && list.last == NULL);
    free(fake.due);
    return 0;
}
