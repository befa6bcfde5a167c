/* stream.h: calls that sleep go on after a signal, keep --idle-timeout, and end at a stop. Each
 * part runs in a child process, because options and a stop cannot be undone. */
#include "fake_clock.h"
#include "program.h"
#include "stats.h"
#include "stop.h"
#include "stream.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

/* Where the linker has --wrap, this many calls of recv and send are interrupted in the thread.
 * Each takes 10 ms of a fake clock. */
static _Thread_local int interruptions;
static _Thread_local int interrupted; /* how many were */
static _Thread_local void (*on_interruption)(void);
static _Thread_local int piecewise; /* interruptions of each send, which then takes 1 byte */

static bool is_interrupted(void)
{
    if (interruptions == 0)
        return false;
    interruptions--;
    interrupted++;
    CHECK(interrupted < 1000); /* the calls must not be made again for ever */
    if (fake_ms != 0)
        fake_ms += 10;
    if (on_interruption != NULL)
        on_interruption();
    errno = EINTR;
    return true;
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
ssize_t __real_recv(int fd, void *bytes, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t n, int flags)
{
    return is_interrupted() ? -1 : __real_recv(fd, bytes, n, flags);
}

ssize_t __real_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags)
{
    if (is_interrupted())
        return -1;
    if (piecewise > 0)
        n = 1;
    interruptions = piecewise;
    return __real_send(fd, bytes, n, flags);
}
#ifdef __APPLE__ /* this linker has no --wrap: nothing calls those above */
ssize_t __real_recv(int fd, void *bytes, size_t n, int flags)
{
    return recv(fd, bytes, n, flags);
}
ssize_t __real_send(int fd, const void *bytes, size_t n, int flags)
{
    return send(fd, bytes, n, flags);
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

static int connect_to(const struct net_listener *listener)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(listener->address.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

/* A server and a client of it, connected. */
struct pair {
    struct net_listener listener;
    int client, fd;
};

static struct pair start_pair(const char *const *arguments)
{
    struct address peer;
    struct pair pair;

    start_server(arguments);
    server_listen(&pair.listener);
    server_ready(&pair.listener.address);
    pair.client = connect_to(&pair.listener);
    pair.fd = stream_accept(&pair.listener, &peer);
    CHECK(pair.fd != -1 && peer.port != 0 && stats_clients() == 1);
    return pair;
}

static int64_t real_ms(void)
{
    struct timespec t;

    __real_clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- stream_accept ----------------------------------------------------------------------- */

static void accept_a_client(void)
{
    struct pair limited = start_pair(ARGUMENTS("0", "--idle-timeout=2"));

    CHECK(net_timeout(limited.fd) == 2000);
}

static void accept_without_a_limit(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));

    CHECK(net_timeout(pair.fd) == 0);
}

static void stop_in_accept(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));
    struct address peer;
    const pid_t server = getpid();

    pid_t child = fork();
    if (child == 0) { /* a report asked for in accept does not end it; a stop does */
        poll(NULL, 0, 20);
        kill(server, SIGUSR1);
        poll(NULL, 0, 20);
        kill(server, SIGTERM);
        _exit(0);
    }
    CHECK(stream_accept(&pair.listener, &peer) == -1 && stop_requested());
    CHECK(stream_accept(&pair.listener, &peer) == -1); /* and does not sleep again */
}

static void accepting_ends_at_a_stop(void **state)
{
    (void)state;
    assert_int_equal(run_program(accept_a_client), DONE);
    assert_int_equal(run_program(accept_without_a_limit), DONE);
    assert_int_equal(run_program(stop_in_accept), DONE);
    assert_non_null(strstr(out, "Clients: "));
}

/* ---- stream_recv ------------------------------------------------------------------------- */

static void receive_to_the_end(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));
    const struct linger reset = {.l_onoff = 1};
    struct address peer;
    char bytes[8];

    CHECK(send(pair.client, "abc", 3, 0) == 3);
    CHECK(stream_recv(pair.fd, bytes, sizeof bytes) == 3 && memcmp(bytes, "abc", 3) == 0);
    close(pair.client);
    CHECK(stream_recv(pair.fd, bytes, sizeof bytes) == 0);

    int client = connect_to(&pair.listener), fd = stream_accept(&pair.listener, &peer);
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(client);
    CHECK(stream_recv(fd, bytes, sizeof bytes) == -1 && errno == ECONNRESET);
}

static void receive_from_an_idle_client(void)
{
    struct pair pair = start_pair(ARGUMENTS("0", "--idle-timeout=0.1"));
    const int64_t start = real_ms();
    char byte;

    CHECK(stream_recv(pair.fd, &byte, 1) == -1 && errno == EAGAIN);
    CHECK(real_ms() - start >= 96); /* the kernel rounds to its tick */
}

static void receiving_ends_with_the_client(void **state)
{
    (void)state;
    assert_int_equal(run_program(receive_to_the_end), DONE);
    assert_int_equal(run_program(receive_from_an_idle_client), DONE);
}

static void receive_interrupted(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));
    char byte;

    CHECK(send(pair.client, "a", 1, 0) == 1);
    interruptions = 100;
    CHECK(stream_recv(pair.fd, &byte, 1) == 1 && interrupted == 100);
}

/* A call that is made again has its whole time-out again: it must not become longer so. */
static void receive_interrupted_for_long(void)
{
    struct pair pair = start_pair(ARGUMENTS("0", "--idle-timeout=0.1"));
    char byte;

    fake_ms = 1000;
    interruptions = 1000;
    CHECK(stream_recv(pair.fd, &byte, 1) == -1 && errno == EAGAIN);
    CHECK(interrupted == 11); /* the first one starts the measurement */
    interruptions = interrupted = 0;
    CHECK(send(pair.client, "ab", 2, 0) == 2);
    interruptions = 20; /* the client is not idle: it has unread input */
    CHECK(stream_recv(pair.fd, &byte, 1) == 1 && interrupted == 20);
    interruptions = 5; /* the next call measures again */
    CHECK(stream_recv(pair.fd, &byte, 1) == 1 && interrupted == 25);
}

/* The same with a real timer and the real clock. */
static void receive_with_a_timer(void)
{
    const struct itimerval soon = {.it_value.tv_usec = 10000, .it_interval.tv_usec = 10000};
    struct pair pair = start_pair(ARGUMENTS("0", "--idle-timeout=0.1"));
    char byte;

    setitimer(ITIMER_REAL, &soon, NULL); /* SIGALRM means nothing before a stop */
    CHECK(stream_recv(pair.fd, &byte, 1) == -1 && errno == EAGAIN);
}

static void receive_and_report(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));
    const pid_t server = getpid();
    char byte;

    pid_t child = fork();
    if (child == 0) {
        struct pollfd report = {.fd = STDIN_FILENO, .events = POLLIN}; /* the test has it */
        do
            kill(server, SIGUSR1); /* the first may come just before recv sleeps */
        while (poll(&report, 1, 100) == 0);
        _exit(send(pair.client, "a", 1, 0) == 1 ? 0 : 1);
    }
    CHECK(stream_recv(pair.fd, &byte, 1) == 1);
}

static void receiving_goes_on_after_a_signal(void **state)
{
    (void)state;
    assert_int_equal(run_program(receive_with_a_timer), DONE);
#ifdef __APPLE__
    skip();
#endif
    assert_int_equal(run_program(receive_interrupted), DONE);
    assert_int_equal(run_program(receive_interrupted_for_long), DONE);
}

/* The report is written while stream_recv sleeps: the client sends only when it has been. */
static void a_sleeping_call_writes_the_report(void **state)
{
    int ends[2], before = dup(STDIN_FILENO);

    (void)state;
    assert_return_code(pipe(ends), errno);
    dup2(ends[0], STDIN_FILENO);
    struct program server = start_program(receive_and_report);
    wait_for(&server, "Clients: ");
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(end_program(&server), DONE);
    dup2(before, STDIN_FILENO);
    close(before);
    close(ends[0]);
    close(ends[1]);
}

static void request_a_stop(void)
{
    kill(getpid(), SIGTERM);
}

static void receive_at_a_stop(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));
    char byte;

    CHECK(send(pair.client, "ab", 2, 0) == 2);
    request_a_stop();
    CHECK(stream_recv(pair.fd, &byte, 1) == 1); /* what has come is still served */
    CHECK(stream_recv(pair.fd, &byte, 1) == 1);
    const int64_t start = real_ms();
    CHECK(stream_recv(pair.fd, &byte, 1) == -1 && errno == EINTR);
    CHECK(real_ms() - start >= STOP_LINGER_MS);
    CHECK(!stop_deadline_passed());
    CHECK(send(pair.client, "c", 1, 0) == 1);
    stop_give_up();
    CHECK(stream_recv(pair.fd, &byte, 1) == -1 && errno == EINTR); /* its time is over */
}

static void stop_in_recv(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));
    char byte;

    on_interruption = request_a_stop;
    interruptions = 1;
    CHECK(stream_recv(pair.fd, &byte, 1) == -1 && errno == EINTR && interrupted == 1);
}

static void receiving_ends_at_a_stop(void **state)
{
    (void)state;
    assert_int_equal(run_program(receive_at_a_stop), DONE);
#ifdef __APPLE__
    skip();
#endif
    assert_int_equal(run_program(stop_in_recv), DONE);
}

/* ---- stream_send ------------------------------------------------------------------------- */

enum { MUCH = 32 * 1024 * 1024, SLOWLY = 1000 };

static char pattern(size_t at)
{
    return (char)(at / 997 % 128);
}

struct reader {
    int fd;
    size_t got;
    bool wrong; /* has it read anything but pattern()? */
};

static void *read_slowly(void *argument)
{
    struct reader *reader = argument;
    char bytes[SLOWLY];
    ssize_t n;

    while ((n = recv(reader->fd, bytes, sizeof bytes, 0)) > 0 || (n == -1 && errno == EINTR))
        for (ssize_t i = 0; i < n; i++)
            reader->wrong |= bytes[i] != pattern(reader->got++);
    return NULL;
}

/* Sends to a client that reads a little at a time, so that sends are short and sleep. */
static void send_much(struct pair *pair, size_t n)
{
    struct reader reader = {.fd = pair->client};
    char *bytes = malloc(n);
    pthread_t thread;

    CHECK(bytes != NULL);
    for (size_t i = 0; i < n; i++)
        bytes[i] = pattern(i);
    const uint64_t before = atomic_load(&stats.bytes_out);
    CHECK(pthread_create(&thread, NULL, read_slowly, &reader) == 0);
    CHECK(stream_send(pair->fd, bytes, n) == 0);
    close(pair->fd);
    pthread_join(thread, NULL);
    CHECK(reader.got == n && !reader.wrong);
    CHECK(atomic_load(&stats.bytes_out) - before == n);
    free(bytes);
}

static void send_all(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));

    CHECK(stream_send(pair.fd, "", 0) == 0);
    CHECK(atomic_load(&stats.send_calls) == 0); /* not even called */
    send_much(&pair, 4 * 1024 * 1024);
}

static void send_all_with_a_timer(void)
{
    const struct itimerval soon = {.it_value.tv_usec = 1000, .it_interval.tv_usec = 1000};
    struct pair pair = start_pair(ARGUMENTS("0"));

    setitimer(ITIMER_REAL, &soon, NULL);
    send_much(&pair, 4 * 1024 * 1024);
}

static void send_interrupted(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));
    char bytes[4];

    interruptions = 100;
    CHECK(stream_send(pair.fd, "abc", 3) == 0 && interrupted == 100);
    CHECK(recv(pair.client, bytes, sizeof bytes, 0) == 3 && memcmp(bytes, "abc", 3) == 0);
}

static void all_bytes_are_sent(void **state)
{
    (void)state;
    assert_int_equal(run_program(send_all), DONE);
    assert_int_equal(run_program(send_all_with_a_timer), DONE);
#ifdef __APPLE__
    skip();
#endif
    assert_int_equal(run_program(send_interrupted), DONE);
}

static void send_to_a_client_that_reads_nothing(void)
{
    struct pair pair = start_pair(ARGUMENTS("0", "--idle-timeout=0.02"));
    char *bytes = calloc(1, MUCH);

    CHECK(bytes != NULL);
    for (int i = 0; i < 2; i++) {
        const uint64_t before = atomic_load(&stats.send_again);
        CHECK(stream_send(pair.fd, bytes, MUCH) == -1 && errno == EAGAIN);
        /* The second call cannot know at once that the client takes nothing. */
        CHECK(atomic_load(&stats.send_again) - before >= 1 + (uint64_t)i);
    }
    free(bytes);
}

/* Each byte that the client takes begins the time-out again. */
static void send_in_pieces(void)
{
    struct pair pair = start_pair(ARGUMENTS("0", "--idle-timeout=0.1"));

    fake_ms = 1000;
    interruptions = piecewise = 8;
    CHECK(stream_send(pair.fd, "abc", 3) == 0 && interrupted == 24);
}

/* Signals must not lengthen the time-out of a client that takes nothing. */
static void send_interrupted_for_long(void)
{
    struct pair pair = start_pair(ARGUMENTS("0", "--idle-timeout=0.1"));

    fake_ms = 1000;
    interruptions = 1000;
    CHECK(stream_send(pair.fd, "a", 1) == -1 && errno == EAGAIN);
    CHECK(interrupted == 22); /* twice the limit, to see that nothing was taken */
}

static int slow_reader;

static void read_a_little(void)
{
    char bytes[4096];

    if (interrupted % 8 == 0)
        CHECK(__real_recv(slow_reader, bytes, sizeof bytes, 0) > 0);
    else if (interrupted == 50)
        interruptions = 0;
}

/* A client that takes a little is not idle, however often the server is interrupted. (A pair of
 * Unix sockets, because the Send-Q of TCP changes in large steps.) */
static void send_interrupted_to_a_slow_reader(void)
{
    char bytes[1024] = "";
    int ends[2];

    start_ready_server(ARGUMENTS("0"));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    CHECK(net_set_timeout(ends[1], 100) == 0);
    slow_reader = ends[0];
    while (send(ends[1], bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
    if (net_sendq(ends[1]) == 0)
        return; /* this system does not tell */
    fake_ms = 1000;
    interruptions = 1000;
    on_interruption = read_a_little;
    CHECK(stream_send(ends[1], "a", 1) == 0);
    CHECK(interrupted == 50);
}

static void sending_ends_with_an_idle_client(void **state)
{
    (void)state;
    assert_int_equal(run_program(send_to_a_client_that_reads_nothing), DONE);
#ifdef __APPLE__
    skip();
#endif
    assert_int_equal(run_program(send_interrupted_for_long), DONE);
    assert_int_equal(run_program(send_in_pieces), DONE);
    assert_int_equal(run_program(send_interrupted_to_a_slow_reader), DONE);
}

static void send_at_a_stop(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));
    char *bytes = calloc(1, MUCH), byte;

    CHECK(bytes != NULL);
    request_a_stop();
    CHECK(stream_send(pair.fd, "a", 1) == 0); /* what is answered in time is sent */
    CHECK(recv(pair.client, &byte, 1, 0) == 1);
    const int64_t start = real_ms();
    CHECK(stream_send(pair.fd, bytes, MUCH) == -1 && errno == EINTR);
    CHECK(real_ms() - start < WAIT_MS && stop_deadline_passed());
    free(bytes);
}

static void sending_ends_at_the_deadline_of_a_stop(void **state)
{
    (void)state;
    assert_int_equal(run_program(send_at_a_stop), DONE);
}

static void send_to_a_dead_connection(void)
{
    struct pair pair = start_pair(ARGUMENTS("0"));
    const struct linger reset = {.l_onoff = 1};

    setsockopt(pair.client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(pair.client);
    CHECK(net_readable(pair.fd, WAIT_MS)); /* the reset has arrived */
    CHECK(stream_send(pair.fd, "x", 1) == -1 && errno == ECONNRESET);
    CHECK(stream_send(pair.fd, "x", 1) == -1 && errno == EPIPE); /* and no SIGPIPE */
}

static void sending_ends_with_a_dead_connection(void **state)
{
    (void)state;
    assert_int_equal(run_program(send_to_a_dead_connection), DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepting_ends_at_a_stop),
        cmocka_unit_test(receiving_ends_with_the_client),
        cmocka_unit_test(receiving_goes_on_after_a_signal),
        cmocka_unit_test(a_sleeping_call_writes_the_report),
        cmocka_unit_test(receiving_ends_at_a_stop),
        cmocka_unit_test(all_bytes_are_sent),
        cmocka_unit_test(sending_ends_with_an_idle_client),
        cmocka_unit_test(sending_ends_at_the_deadline_of_a_stop),
        cmocka_unit_test(sending_ends_with_a_dead_connection),
    };

    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
