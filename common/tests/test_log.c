/* log.h: lines are whole, and no line ever makes its writer wait. */
#define _XOPEN_SOURCE 700 /* for posix_openpt */ /* NOLINT(bugprone-reserved-identifier) */
#include "log.h"
#include "program.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <termios.h>

/* Another process may fill a pipe between log_write's poll and its write. Where the linker has
 * --wrap we do that: after each poll this descriptor is filled. */
static int fill_after_poll = -1;

/* Writes without waiting, to a socket or to a descriptor that is non-blocking. */
static ssize_t put(int fd, const char *bytes, size_t n)
{
    ssize_t sent = send(fd, bytes, n, MSG_DONTWAIT);

    return sent == -1 && errno == ENOTSOCK ? write(fd, bytes, n) : sent;
}

static void fill(int fd)
{
    char bytes[1024];

    memset(bytes, '-', sizeof bytes);
    for (size_t n = sizeof bytes; n > 0; n /= 2)
        while (put(fd, bytes, n) > 0)
            ;
    CHECK(errno == EAGAIN);
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
int __real_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
    int ready = __real_poll(fds, n, ms);

    if (fill_after_poll != -1 && ready == 1)
        fill(fill_after_poll);
    return ready;
}
#ifdef __APPLE__ /* this linker has no --wrap: nothing calls the one above */
int __real_poll(struct pollfd *fds, nfds_t n, int ms)
{
    return poll(fds, n, ms);
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

/* ---- Places to write to that nobody reads. Each returns the end to write to. ------------- */

static int open_pipe(void)
{
    int ends[2];

    CHECK(pipe(ends) == 0);
    return ends[1];
}

static int open_terminal(void)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    struct termios raw;

    CHECK(terminal != -1 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    int fd = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    CHECK(fd != -1 && tcgetattr(fd, &raw) == 0);
    raw.c_oflag &= ~(tcflag_t)OPOST;
    CHECK(tcsetattr(fd, TCSANOW, &raw) == 0);
    return fd;
}

static int open_socket(void)
{
    int ends[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    return ends[1];
}

/* Makes it standard output, and prepares the log. */
static int log_to(int fd)
{
    alarm(60); /* ends us if a line blocks */
    CHECK(dup2(fd, STDOUT_FILENO) != -1);
    log_init("server");
    return fd;
}

static void log_much(void)
{
    for (int i = 0; i < 20000; i++)
        log_line("line %d", i);
    CHECK(!log_write(STDOUT_FILENO, "more", 4, 0) && errno == EAGAIN);
}

/* ---- The tests --------------------------------------------------------------------------- */

static void fill_a_pipe(void)
{
    log_to(open_pipe());
    log_much();
}

static void fill_a_terminal(void)
{
    log_to(open_terminal());
    log_much();
}

static void fill_a_socket(void)
{
    log_to(open_socket());
    log_much();
}

static void a_full_output_blocks_nobody(void **state)
{
    (void)state;
    assert_int_equal(run_program(fill_a_pipe), DONE);
    assert_int_equal(run_program(fill_a_terminal), DONE);
    assert_int_equal(run_program(fill_a_socket), DONE);
}

/* Each send to this socket is one message. */
static void write_long_texts(void)
{
    enum { LINE = 200, SIZE = 3 * LINE };
    char text[SIZE], part[SIZE];
    int ends[2];

    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    log_to(ends[1]);
    memset(text, 'x', SIZE);
    CHECK(log_write(STDOUT_FILENO, text, SIZE, 0));
    CHECK(recv(ends[0], part, SIZE, 0) == 512);
    CHECK(recv(ends[0], part, SIZE, 0) == SIZE - 512);
    for (int end = LINE; end <= SIZE; end += LINE)
        text[end - 1] = '\n';
    CHECK(log_write(STDOUT_FILENO, text, SIZE, 0));
    CHECK(recv(ends[0], part, SIZE, 0) == 2 * LINE);
    CHECK(recv(ends[0], part, SIZE, 0) == LINE);
}

static void a_long_text_is_cut_between_lines(void **state)
{
    (void)state;
    assert_int_equal(run_program(write_long_texts), DONE);
}

/* log_init has not been called, as before main: poll must do alone. */
static void fill_a_pipe_before_the_start(void)
{
    alarm(60);
    CHECK(dup2(open_pipe(), STDOUT_FILENO) != -1);
    log_much();
}

static void a_log_that_was_not_prepared_blocks_nobody(void **state)
{
    (void)state;
    assert_int_equal(run_program(fill_a_pipe_before_the_start), DONE);
}

#ifdef __linux__
static void lose_the_room_in_a_pipe(void)
{
    char name[64];
    int fd = log_to(open_pipe());

    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    fill_after_poll = open(name, O_WRONLY | O_NONBLOCK); /* a writer of its own */
    CHECK(fill_after_poll != -1);
    log_line("this line finds no room");
    fill_after_poll = -1;
}

static void lose_the_room_in_a_terminal(void)
{
    int fd = log_to(open_terminal());

    fill_after_poll = open(ttyname(fd), O_WRONLY | O_NONBLOCK | O_NOCTTY);
    CHECK(fill_after_poll != -1);
    log_line("this line finds no room");
    fill_after_poll = -1;
}

/* A socket cannot be opened again. It stays blocking, so send(2) must be told not to wait. */
static void lose_the_room_in_a_socket(void)
{
    int fd = log_to(open_socket());

    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
    fill_after_poll = fd;
    log_line("this line finds no room");
    fill_after_poll = -1;
}

static void room_that_another_process_takes_blocks_nobody(void **state)
{
    (void)state;
    assert_int_equal(run_program(lose_the_room_in_a_pipe), DONE);
    assert_int_equal(run_program(lose_the_room_in_a_terminal), DONE);
    assert_int_equal(run_program(lose_the_room_in_a_socket), DONE);
}

static bool blocks(int fd)
{
    return (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
}

/* The shell has given us its own descriptors. If they became non-blocking, other programs in
 * the same pipeline would fail. */
static void share_descriptors(void)
{
    int pipe_end = open_pipe(), terminal = open_terminal();

    CHECK(dup2(terminal, STDERR_FILENO) != -1);
    log_to(pipe_end);
    CHECK(blocks(pipe_end) && blocks(terminal));
    CHECK(!blocks(STDOUT_FILENO) && !blocks(STDERR_FILENO));
    CHECK((fcntl(STDOUT_FILENO, F_GETFD) & FD_CLOEXEC) == 0);
    for (int fd = 3; fd < 64; fd++) /* and no further descriptor was left open */
        CHECK(fcntl(fd, F_GETFD) == -1 || fd <= terminal);
}

static void inherited_descriptors_stay_blocking(void **state)
{
    (void)state;
    assert_int_equal(run_program(share_descriptors), DONE);
}

static int reading_end;

static void read_from_the_pipe(int signal_number)
{
    char bytes[8192];

    (void)signal_number;
    CHECK(read(reading_end, bytes, sizeof bytes) > 0);
}

/* The signal's handler reads from the full pipe; poll says EINTR, and must be called again. */
static void write_amid_a_signal(void)
{
    const struct itimerval soon = {.it_value.tv_usec = 50000};
    struct sigaction action = {.sa_handler = read_from_the_pipe};
    int ends[2];

    CHECK(pipe(ends) == 0);
    reading_end = ends[0];
    log_to(ends[1]);
    fill(STDOUT_FILENO);
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(log_write(STDOUT_FILENO, "report\n", strlen("report\n"), 10000));
}

static void a_signal_does_not_end_the_wait_for_room(void **state)
{
    (void)state;
    assert_int_equal(run_program(write_amid_a_signal), DONE);
}
#endif

static void log_long_lines(void)
{
    char text[2000] = "";

    log_init("path/to/server");
    memset(text, 'x', sizeof text - 1);
    log_line("a %s", text);
    log_line("%.508s", text);
    log_line("%.509s", text);
    log_line("%.510s", text);
    log_line("%.511s", text);
    log_warn("%s", text);
    log_line("the end");
}

/* A line has 510 bytes at most and always ends with its newline. */
static void long_lines_are_cut(void **state)
{
    static const size_t sizes[] = {510, 508, 509, 510, 510};
    const char *line = out;

    (void)state;
    assert_int_equal(run_program(log_long_lines), DONE);
    assert_int_equal(strncmp(line, "a xx", 4), 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(strcspn(line, "\n"), sizes[i]);
        line += sizes[i] + 1;
    }
    assert_string_equal(line, "the end\n");
    assert_int_equal(strncmp(err, "server: xx", 10), 0);
    assert_int_equal(strcspn(err, "\n"), 510);
    assert_int_equal(strlen(err), 511);
}

static void warn_and_die(void)
{
    log_warn("warning %d", 1);
    log_init("/usr/bin/name");
    log_warn("warning %d", 2);
    log_init(NULL); /* a program may have no argv[0] */
    log_die("no %s", "luck");
}

static void warnings_begin_with_the_name(void **state)
{
    (void)state;
    assert_int_equal(run_program(warn_and_die), 1);
    assert_string_equal(err, "server: warning 1\nname: warning 2\nname: no luck\n");
    assert_string_equal(out, "");
}

enum { THREADS = 4, LINES = 50 };

static void *log_from_a_thread(void *name)
{
    for (int i = 0; i < LINES; i++)
        log_line("%s%s%s", (const char *)name, (const char *)name, (const char *)name);
    return NULL;
}

static void log_from_threads(void)
{
    static const char *const names[THREADS] = {"aaaa", "bbbb", "cccc", "dddd"};
    pthread_t threads[THREADS];

    log_init("server");
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, log_from_a_thread, (void *)names[i]) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void lines_of_threads_do_not_mix(void **state)
{
    int lines = 0;

    (void)state;
    assert_int_equal(run_program(log_from_threads), DONE);
    for (const char *line = out; *line != '\0'; line += 13, lines++) {
        const char first[] = {*line, '\0'};
        assert_int_equal(strspn(line, first), 12);
        assert_int_equal(line[12], '\n');
    }
    assert_int_equal(lines, THREADS * LINES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_output_blocks_nobody),
        cmocka_unit_test(a_log_that_was_not_prepared_blocks_nobody),
#ifdef __linux__
        cmocka_unit_test(room_that_another_process_takes_blocks_nobody),
        cmocka_unit_test(inherited_descriptors_stay_blocking),
        cmocka_unit_test(a_signal_does_not_end_the_wait_for_room),
#endif
        cmocka_unit_test(a_long_text_is_cut_between_lines),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(warnings_begin_with_the_name),
        cmocka_unit_test(lines_of_threads_do_not_mix),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
