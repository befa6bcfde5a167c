/* server.h: a server starts, admits clients, logs them, reports, and ends. */
#include "server.h"
#include "fake_clock.h"
#include "log.h"
#include "program.h"
#include "stats.h"
#include "stop.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* ---- Where the linker has --wrap, these calls fail on demand ----------------------------- */

static bool without_dev_null;
static int accept_error; /* errno; 0: accept as usual */

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list more;

    if (without_dev_null && strcmp(path, "/dev/null") == 0) {
        errno = ENOENT;
        return -1;
    }
    va_start(more, flags);
    unsigned mode = flags & O_CREAT ? va_arg(more, unsigned) : 0;
    va_end(more);
    return __real_open(path, flags, mode);
}

int __real_accept(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_accept(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_accept(int fd, struct sockaddr *address, socklen_t *size)
{
    errno = accept_error;
    return accept_error != 0 ? -1 : __real_accept(fd, address, size);
}

#ifdef __APPLE__ /* this linker has no --wrap: nothing calls those above */
int __real_open(const char *path, int flags, ...)
{
    return open(path, flags, 0600);
}
int __real_accept(int fd, struct sockaddr *address, socklen_t *size)
{
    return accept(fd, address, size);
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

/* ---- A server that serves nobody --------------------------------------------------------- */

static const char *const *arguments; /* of the next server */

/* Sleeps until it is stopped. */
static void run_server(void)
{
    struct net_listener listener;

    start_server(arguments);
    server_listen(&listener);
    struct pollfd wakeup = {.fd = stop_wakeup_fd(), .events = POLLIN};
    server_ready(&listener.address);
    while (!stop_requested()) {
        poll(&wakeup, 1, -1);
        server_report_if_asked();
    }
    net_unlisten(&listener);
    exit(server_finish());
}

static struct program start_with(const char *const *its_arguments)
{
    arguments = its_arguments;
    return start_program(run_server);
}

/* Runs a server until it is ready, and stops it. Returns its exit status. */
static int start_and_stop(const char *const *its_arguments)
{
    struct program server = start_with(its_arguments);

    wait_for(&server, "Listening on");
    kill(server.pid, SIGTERM);
    return end_program(&server);
}

/* Expects that a server does not start, and what it prints then. */
static void expect_no_start(const char *const *its_arguments, const char *message)
{
    struct program server = start_with(its_arguments);

    assert_int_equal(end_program(&server), 1);
    assert_int_equal(strncmp(err, message, strlen(message)), 0);
    assert_string_equal(out, "");
}

static int count(const char *text, const char *in)
{
    int n = 0;

    for (; (in = strstr(in, text)) != NULL; in++)
        n++;
    return n;
}

/* ---- Start and stop ---------------------------------------------------------------------- */

static void it_listens_where_it_was_told(void **state)
{
    char in_brackets[] = "[127.0.0.1]"; /* a server may write to its arguments */

    (void)state;
    assert_int_equal(start_and_stop(ARGUMENTS("0")), 0);
    assert_ptr_equal(strstr(out, "Listening on 127.0.0.1:"), out);
    assert_int_not_equal(strtol(out + strlen("Listening on 127.0.0.1:"), NULL, 10), 0);
    assert_int_equal(start_and_stop(ARGUMENTS("-p", "0", "-b", "localhost", "-m", "7")), 0);
    assert_int_equal(start_and_stop(ARGUMENTS("--port=0", "--bind=0.0.0.0", "--quiet")), 0);
    assert_ptr_equal(strstr(out, "Listening on 0.0.0.0:"), out);
    assert_int_equal(start_and_stop(ARGUMENTS("--bind", in_brackets, "0")), 0);
    assert_ptr_equal(strstr(out, "Listening on 127.0.0.1:"), out);
    assert_string_equal(err, "");
}

static void trouble_at_start_is_fatal(void **state)
{
    char in_brackets[] = "[?]"; /* a server may write to its arguments */

    (void)state;
    expect_no_start(ARGUMENTS("-b", "192.0.2.1", "0"), /* TEST-NET: no host has it */
                    "server: cannot listen on 192.0.2.1:0: Cannot assign requested address\n");
    expect_no_start(
        ARGUMENTS("-b", "192.0.2.1"),
        "server: cannot listen on 192.0.2.1:8080: Cannot assign requested address\n");
    expect_no_start(ARGUMENTS("-b", in_brackets, "1"), "server: cannot listen on ?:1: ");
    expect_no_start(ARGUMENTS("-b", "no such host", "0"),
                    "server: cannot listen on no such host:0: ");
    expect_no_start(ARGUMENTS("-b", "::zz", "1"), "server: cannot listen on [::zz]:1: ");
    expect_no_start(ARGUMENTS("--stats=/no/such/file", "0"),
                    "server: cannot write '/no/such/file': No such file or directory\n");
}

static void signals_stop_it(void **state)
{
    static const int numbers[] = {SIGINT, SIGTERM};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct program server = start_with(ARGUMENTS("0"));
        wait_for(&server, "Listening on");
        kill(server.pid, SIGPIPE); /* ignored, as is SIGXFSZ */
        kill(server.pid, SIGXFSZ);
        kill(server.pid, numbers[i]);
        assert_int_equal(end_program(&server), 0);
        assert_non_null(strstr(out, "Clients: 0 served"));
    }
}

static void stop_before_it_is_ready(void)
{
    start_server(ARGUMENTS("0"));
    kill(getpid(), SIGTERM);
}

static void stop_when_it_is_ready(void)
{
    start_ready_server(ARGUMENTS("0"));
    kill(getpid(), SIGTERM);
    CHECK(stop_requested());
}

static void before_it_is_ready_a_signal_ends_it(void **state)
{
    (void)state;
    assert_int_equal(run_program(stop_before_it_is_ready), -SIGTERM);
    assert_int_equal(run_program(stop_when_it_is_ready), DONE);
}

static void few_descriptors_deserve_a_warning(void **state)
{
    struct rlimit before, low;

    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    low = (struct rlimit){.rlim_cur = 64, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    assert_int_equal(start_and_stop(ARGUMENTS("0")), 0);
    assert_non_null(strstr(err, "server: room for fewer than 64 clients"));
    if (before.rlim_max >= 1024) { /* the default of most systems */
        low.rlim_cur = 1024;
        setrlimit(RLIMIT_NOFILE, &low);
        assert_int_equal(start_and_stop(ARGUMENTS("0")), 0);
        assert_string_equal(err, "");
    }
    setrlimit(RLIMIT_NOFILE, &before);
}

/* Else the listener might become standard output, and clients would get the log. */
static void start_without_standard_descriptors(int closed)
{
    struct net_listener listener;
    int next = dup(STDIN_FILENO);

    close(next);
    for (int fd = 0; fd < 3; fd++)
        if (closed & 1 << fd)
            close(fd);
    start_server(ARGUMENTS("0"));
    for (int fd = 0; fd <= next; fd++)
        if ((fcntl(fd, F_GETFD) != -1) != (fd < next))
            _exit(1);
    server_listen(&listener);
    server_ready(&listener.address);
    log_line("a line that nobody reads");
    log_warn("another one");
    bool good = listener.fd >= next && listener.reserved >= next;
    net_unlisten(&listener);
    _exit(good && server_finish() == 0 ? DONE : 2);
}

static void standard_descriptors_are_opened(void **state)
{
    (void)state;
    for (int closed = 0; closed < 16; closed++) { /* a bit for each of the three, */
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            int null = open("/dev/null", O_WRONLY); /* what is open needs no reader */
            dup2(null, STDOUT_FILENO);
            dup2(null, STDERR_FILENO);
            close(null);
            without_dev_null = closed & 8; /* and one for a chroot without devices */
            start_without_standard_descriptors(closed & 7);
        }
        assert_int_equal(status_of(child), DONE);
    }
}

/* ---- Reports ----------------------------------------------------------------------------- */

static void sigusr1_asks_for_a_report(void **state)
{
    struct program server = start_with(ARGUMENTS("--stats=-", "0"));

    (void)state;
    wait_for(&server, "Listening on");
    kill(server.pid, SIGUSR1);
    wait_for(&server, "\"peak_rss_bytes\": ");
    wait_for(&server, "\n}\n");
    assert_null(strstr(out, "\"peak_rss_bytes\": 0\n"));
    out[0] = '\0';
    kill(server.pid, SIGTERM);
    assert_int_equal(end_program(&server), 0);
    assert_non_null(strstr(out, "\"clients_served\": 0,"));
    assert_string_equal(out + strlen(out) - 2, "}\n");
}

/* Whatever the file held before, and however long that was. */
static void the_last_report_replaces_the_first(void **state)
{
    char path[] = "/tmp/test_server.XXXXXX", argument[64], rubbish[5000], text[TEXT_SIZE] = "";
    int fd = mkstemp(path);

    (void)state;
    memset(rubbish, '{', sizeof rubbish);
    assert_int_equal(write(fd, rubbish, sizeof rubbish), sizeof rubbish);
    snprintf(argument, sizeof argument, "--stats=%s", path);
    struct program server = start_with(ARGUMENTS(argument, "0"));
    wait_for(&server, "Listening on");
    assert_int_equal(lseek(fd, 0, SEEK_END), 0);
    kill(server.pid, SIGUSR1);
    for (int i = 0; i < WAIT_MS && lseek(fd, 0, SEEK_END) == 0; i++)
        poll(NULL, 0, 1);
    assert_int_equal(pwrite(fd, rubbish, sizeof rubbish, 0), sizeof rubbish);
    kill(server.pid, SIGTERM);
    assert_int_equal(end_program(&server), 0);
    lseek(fd, 0, SEEK_SET);
    while (read_more(fd, text))
        ;
    assert_int_equal(text[0], '{');
    assert_int_equal(count("{", text), 1);
    assert_string_equal(text + strlen(text) - 2, "}\n");
    close(fd);
    unlink(path);
}

static void report_to_a_full_disk(void)
{
    start_server(ARGUMENTS("--stats=-"));
    dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
    CHECK(server_finish() == 1);
}

/* Its reader comes when the pipe has been full for a while. */
static void report_to_a_late_reader(void)
{
    int ends[2];
    char page[4096] = "";

    start_server(ARGUMENTS("--stats=-"));
    CHECK(pipe(ends) == 0 && net_set_nonblocking(ends[1]) == 0);
    while (write(ends[1], page, sizeof page) > 0)
        ;
    dup2(ends[1], STDOUT_FILENO);
    close(ends[1]);
    kill(getpid(), SIGUSR1);
    server_report_if_asked(); /* while it serves clients it waits for no reader */
    pid_t reader = fork();
    if (reader == 0) {
        bool whole = false;
        close(STDOUT_FILENO);
        poll(NULL, 0, 100);
        for (ssize_t n; (n = read(ends[0], page, sizeof page)) > 0;)
            whole = n > 1 && memcmp(page + n - 2, "}\n", 2) == 0;
        _exit(whole ? DONE : 1);
    }
    close(ends[0]);
    CHECK(server_finish() == 0);
    close(STDOUT_FILENO);
    int status;
    CHECK(waitpid(reader, &status, 0) == reader);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == DONE);
}

static void a_report_may_go_to_any_file(void **state)
{
    char folder[] = "/tmp/test_server.XXXXXX", argument[64];
    const mode_t mask = umask(022);
    struct stat found;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(argument, sizeof argument, "--stats=%s/file", folder);
    assert_int_equal(start_and_stop(ARGUMENTS(argument, "0")), 0);
    char *path = argument + strlen("--stats=");
    assert_return_code(stat(path, &found), errno);
    assert_int_equal(found.st_mode & 0777, 0644); /* others may read it */
    unlink(path);
    assert_return_code(mkfifo(path, 0600), errno);
    expect_no_start(ARGUMENTS(argument, "0"), "server: cannot write "); /* it has no reader */
    assert_non_null(strstr(err, strerror(ENXIO)));
    unlink(path);
    rmdir(folder);
    umask(mask);
    assert_int_equal(start_and_stop(ARGUMENTS("--stats=/dev/null", "0")), 0);
    assert_string_equal(err, "");
}

static void a_report_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(start_and_stop(ARGUMENTS("--stats=/dev/full", "0")), 1);
        assert_non_null(strstr(err, "server: cannot write '/dev/full': "));
        assert_int_equal(run_program(report_to_a_full_disk), DONE);
        assert_non_null(strstr(err, "server: cannot write 'standard output': "));
    }
    assert_int_equal(run_program(report_to_a_late_reader), DONE);
    assert_non_null(strstr(err, "server: cannot write 'standard output': ")); /* at SIGUSR1 */
}

static void warn_often(void)
{
    int ends[2];

    start_ready_server(ARGUMENTS("--stats", "/dev/full"));
    CHECK(pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) != -1);
    signal(SIGALRM, SIG_DFL);
    alarm(60); /* ends us if a warning blocks */
    for (int i = 0; i < 2000; i++) {
        kill(getpid(), SIGUSR1);
        server_report_if_asked();
    }
}

static void warnings_that_nobody_reads_do_not_block(void **state)
{
    struct program server = start_program(warn_often);

    (void)state;
    if (access("/dev/full", W_OK) == -1)
        skip();
    assert_int_equal(end_program(&server), DONE);
}

static void report_with_large_counters(void)
{
    start_server(ARGUMENTS("--stats=-"));
#define MAKE_LARGE(name) stats_add(&stats.name, UINT64_C(1000000000000000));
    STATS_COUNTERS(MAKE_LARGE)
#undef MAKE_LARGE
    CHECK(server_finish() == 0);
}

/* It takes more than one write. */
static void a_long_report_is_whole(void **state)
{
    (void)state;
    assert_int_equal(run_program(report_with_large_counters), DONE);
    assert_int_equal(count("{", out), 1);
    const char *end = out + strlen(out);
    assert_true(end - strchr(out, '{') > 600);
    assert_string_equal(end - 3, "\n}\n");
}

static void *report_if_asked(void *unused)
{
    server_report_if_asked();
    return unused;
}

static void ask_for_reports(void)
{
    pthread_t thread;
    sigset_t all;

    sigfillset(&all); /* the program that started us may have blocked them */
    sigprocmask(SIG_BLOCK, &all, NULL);
    start_server(ARGUMENTS("--stats=/dev/null"));
    kill(getpid(), SIGUSR1); /* the server is not ready yet: server_ready writes it */
    int wakeup = stop_wakeup_fd();
    server_ready(&(struct address){0}); /* report 1 */
    CHECK(!is_readable(wakeup));
    kill(getpid(), SIGUSR1);
    CHECK(is_readable(wakeup));
    CHECK(pthread_create(&thread, NULL, report_if_asked, NULL) == 0);
    pthread_join(thread, NULL); /* another thread leaves it to the first */
    CHECK(is_readable(wakeup));
    server_waited(0, 0); /* report 2 */
    CHECK(!is_readable(wakeup));
    for (int i = 0; i < 70000; i++) /* more than a pipe holds */
        kill(getpid(), SIGUSR1);
    errno = 0;
    kill(getpid(), SIGUSR1);
    CHECK(errno == 0 && is_readable(wakeup));
    server_report_if_asked(); /* report 3 */
    CHECK(!is_readable(wakeup));
    server_report_if_asked(); /* none */
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGTERM);
    server_report_if_asked();                       /* report 4 */
    CHECK(stop_requested() && is_readable(wakeup)); /* all loops must see the stop */
    server_never_report();
    kill(getpid(), SIGUSR1);
    server_report_if_asked(); /* none */
}

static void each_request_gets_one_report(void **state)
{
    (void)state;
    assert_int_equal(run_program(ask_for_reports), DONE);
    assert_int_equal(count("Clients: ", out), 4);
}

/* How long 20 waits take after which errno was this, in milliseconds */
static int64_t take_waits(int events, int error)
{
    struct timespec from, to;

    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < 20; i++) {
        errno = error;
        server_waited(events, 1);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
}

static void fail_to_wait(void)
{
    start_server(ARGUMENTS("--stats=/dev/null"));
    CHECK(take_waits(-1, EINTR) < 100);
    CHECK(take_waits(1, ENOMEM) < 100);
    CHECK(take_waits(-1, ENOMEM) >= 200);
}

static void a_wait_that_fails_is_logged_once_and_takes_time(void **state)
{
    (void)state;
    assert_int_equal(run_program(fail_to_wait), DONE);
    assert_int_equal(count("cannot wait for clients: Cannot allocate memory\n", err), 1);
}

/* ---- Clients ----------------------------------------------------------------------------- */

static const struct address peer = {.port = 7};

static void admit_clients(void)
{
    fake_ms = 1000;
    start_server(ARGUMENTS("-m2"));
    for (int i = 0; i < 2; i++) {
        CHECK(server_admit(&peer));
        server_connected(&peer);
    }
    CHECK(!server_admit(&peer) && stats_clients() == 2);
    server_disconnected(&peer);
    CHECK(server_admit(&peer));
    fake_ms += 1000;
    int fd = dup(STDIN_FILENO);
    server_reject(fd, &peer, "no memory"); /* it was counted in: there is room again */
    CHECK(close(fd) == -1 && server_admit(&peer));
    server_connected(&peer);
    CHECK(!server_admit(&peer) && stats_clients() == 2);
    server_not_admitted(&peer, "no memory");
    CHECK(stats_clients() == 2);
    server_finish();
}

static void clients_are_admitted_and_counted(void **state)
{
    (void)state;
#ifdef __APPLE__
    skip();
#endif
    assert_int_equal(run_program(admit_clients), DONE);
    static const char lines[] = "peer (::, 7) connected\n"
                                "peer (::, 7) connected\n"
                                "peer (::, 7) rejected: --max-clients reached\n"
                                "peer (::, 7) disconnected\n"
                                "peer (::, 7) rejected: no memory\n"
                                "peer (::, 7) connected\n"
                                "2 more rejected since the last one that was logged\n"
                                "Clients: 3 served, 2 at most at once; 4 rejected.\n";
    out[sizeof lines - 1] = '\0';
    assert_string_equal(out, lines);
}

static void serve_quietly(void)
{
    start_server(ARGUMENTS("-q"));
    CHECK(server_admit(&peer));
    server_connected(&peer);
    server_disconnected(&peer);
    server_not_admitted(&peer, "no room"); /* this is logged all the same */
}

static void quiet_logs_rejections_only(void **state)
{
    (void)state;
    assert_int_equal(run_program(serve_quietly), DONE);
    assert_string_equal(out, "peer (::, 7) rejected: no room\n");
}

static void reject_many(void)
{
    fake_ms = 1000;
    start_server(ARGUMENTS("-q"));
    for (int i = 0; i < 5; i++)
        server_not_admitted(&peer, "first second");
    fake_ms += 999;
    server_not_admitted(&peer, "still the first second");
    fake_ms += 1;
    server_not_admitted(&peer, "second second");
    fake_ms += 1000;
    server_not_admitted(&peer, "third second");
    server_not_admitted(&peer, "still the third second");
    server_finish();
}

/* One line a second at most, and it tells how many are not logged. */
static void a_flood_of_rejections_is_no_flood_of_lines(void **state)
{
    (void)state;
#ifdef __APPLE__
    skip();
#endif
    assert_int_equal(run_program(reject_many), DONE);
    *strstr(out, "Clients:") = '\0'; /* the report */
    assert_string_equal(out, "peer (::, 7) rejected: first second\n"
                             "peer (::, 7) rejected: second second (and 5 more before)\n"
                             "peer (::, 7) rejected: third second\n"
                             "1 more rejected since the last one that was logged\n");
}

/* Connects to the listener. Returns the descriptor. */
static int connect_to(const struct net_listener *listener)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(listener->address.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

static void accept_clients(void)
{
    struct net_listener listener;
    struct address from;
    char byte;

    fake_ms = 1000;
    start_server(ARGUMENTS("-m1", "0"));
    server_listen(&listener);
    CHECK(net_set_nonblocking(listener.fd) == 0);
    int client = connect_to(&listener), another = connect_to(&listener);
    CHECK(server_accept(&listener, &from) > 2 && stats_clients() == 1 && from.port != 0);
    CHECK(server_accept(&listener, &from) == -1 && errno == ECONNABORTED);
    CHECK(recv(another, &byte, 1, 0) == 0); /* the server has closed it */
    CHECK(server_accept(&listener, &from) == -1 && net_is_again(errno));
    (void)client;
}

static void run_out_of_descriptors(void)
{
    struct net_listener listener;
    struct address from;
    char byte;

    start_server(ARGUMENTS("0"));
    server_listen(&listener);
    int client = connect_to(&listener);
    while (dup(STDIN_FILENO) != -1)
        ;
    CHECK(server_accept(&listener, &from) == -1 && errno == ECONNABORTED);
    CHECK(recv(client, &byte, 1, 0) == 0 && stats_clients() == 0);
}

static void accepting_rejects_for_lack_of_room(void **state)
{
    (void)state;
    assert_int_equal(run_program(accept_clients), DONE);
    assert_non_null(strstr(out, "rejected: --max-clients reached\n"));
    assert_int_equal(run_program(run_out_of_descriptors), DONE);
    assert_non_null(strstr(out, "rejected: Too many open files\n"));
}

static void fail_to_accept(void)
{
    static const int passing[] = {EAGAIN, EINTR, ECONNABORTED};
    struct net_listener listener;
    struct address from;

    fake_ms = 1000;
    start_server(ARGUMENTS("0"));
    server_listen(&listener);
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) {
        accept_error = passing[i];
        CHECK(server_accept(&listener, &from) == -1 && errno == passing[i]);
    }
    accept_error = ENOBUFS;
    for (int i = 0; i < 3; i++)
        CHECK(server_accept(&listener, &from) == -1 && errno == ENOBUFS);
    fake_ms += 1000;
    accept_error = EMFILE; /* also with the reserved descriptor: nobody was rejected */
    for (int i = 0; i < 3; i++)
        CHECK(server_accept(&listener, &from) == -1 && errno == EMFILE);
    CHECK(atomic_load(&stats.clients_rejected) == 0);
}

/* Lasting errors are logged, once a second. */
static void a_failing_accept_is_logged(void **state)
{
    (void)state;
#ifdef __APPLE__
    skip();
#endif
    assert_int_equal(run_program(fail_to_accept), DONE);
    assert_string_equal(err, "server: accept failed: No buffer space available\n"
                             "server: accept failed: Too many open files\n");
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_listens_where_it_was_told),
        cmocka_unit_test(trouble_at_start_is_fatal),
        cmocka_unit_test(signals_stop_it),
        cmocka_unit_test(before_it_is_ready_a_signal_ends_it),
        cmocka_unit_test(few_descriptors_deserve_a_warning),
        cmocka_unit_test(standard_descriptors_are_opened),
        cmocka_unit_test(sigusr1_asks_for_a_report),
        cmocka_unit_test(the_last_report_replaces_the_first),
        cmocka_unit_test(a_report_may_go_to_any_file),
        cmocka_unit_test(a_report_that_cannot_be_written_is_an_error),
        cmocka_unit_test(warnings_that_nobody_reads_do_not_block),
        cmocka_unit_test(a_long_report_is_whole),
        cmocka_unit_test(each_request_gets_one_report),
        cmocka_unit_test(a_wait_that_fails_is_logged_once_and_takes_time),
        cmocka_unit_test(clients_are_admitted_and_counted),
        cmocka_unit_test(quiet_logs_rejections_only),
        cmocka_unit_test(a_flood_of_rejections_is_no_flood_of_lines),
        cmocka_unit_test(accepting_rejects_for_lack_of_room),
        cmocka_unit_test(a_failing_accept_is_logged),
    };

    return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
