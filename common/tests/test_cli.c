/* cli.h: every option, every error, the log, the signals. Each test runs a small server in a
 * child process and looks at what it prints and how it ends. */
#include "cli.h"
#include "stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT_SIZE = 16 * 1024, MAX_ARGUMENTS = 8 };

static char out[TEXT_SIZE], err[TEXT_SIZE];
static size_t out_size; /* of the last run */

/* ---- The child ------------------------------------------------------------------------------
 */

static int once, laps = 3;
static const struct cli_option more[] = {
    {"once", NULL, "a flag", &once, 0, 0},
    {"laps", "N", "a number", &laps, 1, 9},
    {0},
};

/* Tells what it was told, and sleeps until it is stopped. */
static void server(int argc, char **argv)
{
    struct net_listener listener;

    errno = ERANGE; /* whatever came before */
    cli_start(argc, argv, more);
    cli_log("bind %s port %s max %d idle %d quiet %d once %d laps %d\n", cli.bind, cli.port,
            cli.max_clients, cli.idle_timeout_ms, cli.quiet, once, laps);
    cli_listen(&listener);
    struct pollfd fds = {.fd = cli_wakeup_fd(), .events = POLLIN};
    cli_listening(&listener.address);
    while (!cli_stopping())
        poll(&fds, 1, -1);
    net_unlisten(&listener);
    exit(cli_finish());
}

/* Starts it; *reading gets its standard output, *complaints its standard error. */
static pid_t start(const char *const *arguments, int *reading, int *complaints)
{
    int ends[2], errors[2];
    char *argv[MAX_ARGUMENTS + 2] = {(char *)"path/to/server"};
    int argc = 1;

    for (; arguments[argc - 1] != NULL; argc++)
        argv[argc] = (char *)arguments[argc - 1];
    assert_return_code(pipe(ends), errno);
    assert_return_code(pipe(errors), errno);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(errors[1], STDERR_FILENO);
        for (int i = 0; i < 2; i++) {
            close(ends[i]);
            close(errors[i]);
        }
        server(argc, argv);
    }
    close(ends[1]);
    close(errors[1]);
    *reading = ends[0];
    *complaints = errors[0];
    return child;
}

static size_t read_all(int fd, char *text)
{
    size_t n = 0;
    ssize_t got;

    while (n < TEXT_SIZE - 1 && (got = read(fd, text + n, TEXT_SIZE - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    close(fd);
    return n;
}

/* Reads standard output until the text is in it. */
static void wait_for(int fd, const char *text)
{
    size_t n = strlen(out);

    while (strstr(out, text) == NULL) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 10000), 1);
        ssize_t got = read(fd, out + n, TEXT_SIZE - 1 - n);
        if (got <= 0)
            fail_msg("'%s' is not in '%s'", text, out);
        n += (size_t)got;
        out[n] = '\0';
    }
}

static int status_of(pid_t child)
{
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Runs a part of a server in a process of its own, with nothing open but standard input, output
 * and error: it ends with 7 if it comes to its last line. */
static pid_t fork_part(void (*part)(void), int *reading)
{
    int ends[2];

    assert_return_code(pipe(ends), errno);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        for (int fd = 3; fd < 64; fd++)
            close(fd);
        part();
        _exit(7);
    }
    close(ends[1]);
    *reading = ends[0];
    return child;
}

/* The same; tells in `out` what it wrote, and how it ended. */
static int in_child(void (*part)(void))
{
    int reading;
    pid_t child = fork_part(part, &reading);

    read_all(reading, out);
    return status_of(child);
}

static void check_at(int line, bool good)
{
    if (good)
        return;
    fprintf(stderr, "not so: line %d\n", line);
    _exit(8);
}
#define CHECK(good) check_at(__LINE__, good)

static void begin_with(const char *argument)
{
    char *argv[] = {(char *)"server", (char *)argument, NULL};

    optind = 1;
    cli_start(2, argv, NULL);
}

static void start_with(const char *argument)
{
    begin_with(argument);
    cli_listening(&(struct peer){0});
}

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Runs it with arguments that make it end at once. */
static int run(const char *const *arguments)
{
    int reading, complaints;
    pid_t child = start(arguments, &reading, &complaints);

    out_size = read_all(reading, out);
    read_all(complaints, err);
    return status_of(child);
}

/* Runs it until it listens, and stops it. */
static void run_until_it_listens(const char *const *arguments)
{
    int reading, complaints;
    pid_t child = start(arguments, &reading, &complaints);

    out[0] = '\0';
    wait_for(reading, "Listening on");
    kill(child, SIGTERM);
    read_all(reading, out + strlen(out));
    read_all(complaints, err);
    assert_int_equal(status_of(child), 0);
}

/* ---- The tests ------------------------------------------------------------------------------
 */

static void every_option(void **state)
{
    char in_brackets[] = "[127.0.0.1]"; /* a server may write to its arguments */

    (void)state;
    run_until_it_listens(ARGUMENTS("0"));
    assert_non_null(strstr(out, "bind 127.0.0.1 port 0 max 2147483647 idle 0 quiet 0 once 0"));
    assert_non_null(strstr(out, "Listening on 127.0.0.1:"));
    run_until_it_listens(ARGUMENTS("-p", "0", "-b", "localhost", "-m", "7", "-i", "1.5", "-q"));
    assert_non_null(strstr(out, "bind localhost port 0 max 7 idle 1500 quiet 1"));
    run_until_it_listens(ARGUMENTS("-p0", "-i", "86400"));
    assert_non_null(strstr(out, "idle 86400000 "));
    run_until_it_listens(ARGUMENTS("-p0", "-i0.001"));
    assert_non_null(strstr(out, "idle 1 "));
    run_until_it_listens(ARGUMENTS("--port=0", "--bind=0.0.0.0", "--max-clients=1",
                                   "--idle-timeout=0", "--quiet", "--once", "--laps=9"));
    assert_non_null(strstr(out, "bind 0.0.0.0 port 0 max 1 idle 0 quiet 1 once 1 laps 9"));
    run_until_it_listens(ARGUMENTS("--bind", in_brackets, "0")); /* as addresses are printed */
    assert_non_null(strstr(out, "bind 127.0.0.1 port 0"));
    assert_string_equal(err, "");
}

static void help_and_version(void **state)
{
    (void)state;
    assert_int_equal(run(ARGUMENTS("--help")), 0);
    assert_non_null(strstr(out, "Usage: server [OPTION]... [PORT]"));
    assert_non_null(strstr(out, "--max-clients N"));
    assert_non_null(strstr(out, "--laps N"));
    assert_string_equal(err, "");
    assert_int_equal(run(ARGUMENTS("-V")), 0);
    assert_non_null(strstr(out, "1.0"));
}

static void usage_errors(void **state)
{
    static const struct {
        const char *arguments[4], *message;
    } cases[] = {
        {{"65536"}, "server: PORT: '65536' is not a whole number from 0 to 65535\n"},
        {{"http"}, "server: PORT: 'http' is not a whole number from 0 to 65535\n"},
        {{""}, "server: PORT: '' is not"},
        {{"--", "-1"}, "server: PORT: '-1' is not"},
        {{"-p", " 80"}, "server: --port: ' 80' is not"},
        {{"-p", "80x"}, "server: --port: '80x' is not"},
        {{"--max-clients=0"},
         "server: --max-clients: '0' is not a whole number of 1 or more\n"},
        {{"-m", "99999999999"}, "server: --max-clients: '99999999999' is not"},
        {{"-i", "soon"}, "server: --idle-timeout: 'soon' is not a number of seconds"},
        {{"-i", "1e9"}, "server: --idle-timeout: '1e9' is not"},
        {{"-i", "86401"}, "server: --idle-timeout: '86401' is not"},
        {{"-i", "0.0009"}, "server: --idle-timeout: '0.0009' is not"},
        {{"-i", "0x10"}, "server: --idle-timeout: '0x10' is not"},
        {{"-i", "nan"}, "server: --idle-timeout: 'nan' is not"},
        {{"--laps", "10"}, "server: --laps: '10' is not a whole number from 1 to 9\n"},
        {{"--bind="}, "server: --bind: the address is empty\n"},
        {{"--stats="}, "server: --stats: the name of the file is empty\n"},
        {{"-p"}, "server: option '-p' needs a value\n"},
        {{"--port"}, "server: option '--port' needs a value\n"},
        {{"--quiet=yes"}, "server: option '--quiet' takes no value\n"},
        {{"--once=1"}, "server: option '--once' takes no value\n"},
        {{"-x"}, "server: unknown option '-x'\n"},
        {{"-qx"}, "server: unknown option '-x'\n"},
        {{"--quiet", "-xq"}, "server: unknown option '-x'\n"},
        {{"--loud"}, "server: unknown or ambiguous option '--loud'\n"},
        {{"8080", "8081"}, "server: unexpected argument '8081': at most one PORT"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        print_message("%s\n", cases[i].message);
        assert_int_equal(run(cases[i].arguments), 2);
        assert_int_equal(strncmp(err, cases[i].message, strlen(cases[i].message)), 0);
        assert_non_null(strstr(err, "Usage: server"));
        assert_non_null(strstr(err, "--laps N"));
        assert_string_equal(out, "");
    }
}

static void trouble_at_start(void **state)
{
    (void)state;
    assert_int_equal(run(ARGUMENTS("-b", "192.0.2.1", "0")), 1);
    assert_string_equal(err, "server: cannot listen on 192.0.2.1:0: "
                             "Cannot assign requested address\n");
    assert_int_equal(run(ARGUMENTS("-b", "192.0.2.1")), 1);
    assert_string_equal(err, "server: cannot listen on 192.0.2.1:8080: "
                             "Cannot assign requested address\n");
    char in_brackets[] = "[?]"; /* a server may write to its arguments */
    assert_int_equal(run(ARGUMENTS("-b", in_brackets, "1")), 1);
    assert_non_null(strstr(err, "server: cannot listen on ?:1: "));
    assert_int_equal(run(ARGUMENTS("-b", "no such host", "0")), 1);
    assert_non_null(strstr(err, "server: cannot listen on no such host:0: "));
    assert_int_equal(run(ARGUMENTS("-b", "::zz", "1")), 1);
    assert_non_null(strstr(err, "server: cannot listen on [::zz]:1: "));
    assert_int_equal(run(ARGUMENTS("--stats=/no/such/file", "0")), 1);
    assert_string_equal(err,
                        "server: cannot write '/no/such/file': No such file or directory\n");
}

static void stops_on_signals(void **state)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    int reading, complaints;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        pid_t child = start(ARGUMENTS("0"), &reading, &complaints);
        out[0] = '\0';
        wait_for(reading, "Listening on");
        kill(child, SIGPIPE); /* means nothing */
        kill(child, numbers[i]);
        read_all(reading, out);
        read_all(complaints, err);
        assert_int_equal(status_of(child), 0);
        assert_non_null(strstr(out, "Clients: 0 served"));
    }
}

static void reports_on_demand(void **state)
{
    int reading, complaints;
    pid_t child = start(ARGUMENTS("--stats=-", "0"), &reading, &complaints);

    (void)state;
    out[0] = '\0';
    wait_for(reading, "Listening on");
    kill(child, SIGUSR1);
    wait_for(reading, "\"peak_rss_bytes\": ");
    assert_null(strstr(out, "\"peak_rss_bytes\": 0\n"));
    kill(child, SIGTERM);
    size_t n = read_all(reading, out);
    read_all(complaints, err);
    assert_non_null(strstr(out, "\"clients_served\": 0,"));
    assert_string_equal(out + n - 2, "}\n");
    assert_int_equal(status_of(child), 0);
}

/* Whatever the file held, and however long that was. */
static void the_last_report_replaces_the_first(void **state)
{
    char path[] = "/tmp/test_cli.XXXXXX", argument[64], rubbish[5000];
    int fd = mkstemp(path), reading, complaints;

    (void)state;
    memset(rubbish, '{', sizeof rubbish);
    assert_int_equal(write(fd, rubbish, sizeof rubbish), sizeof rubbish);
    snprintf(argument, sizeof argument, "--stats=%s", path);
    pid_t child = start(ARGUMENTS(argument, "0"), &reading, &complaints);
    out[0] = '\0';
    wait_for(reading, "Listening on");
    assert_int_equal(lseek(fd, 0, SEEK_END), 0);
    kill(child, SIGUSR1);
    for (int i = 0; i < 1000 && lseek(fd, 0, SEEK_END) == 0; i++)
        poll(NULL, 0, 10); /* it is written at once */
    assert_int_equal(pwrite(fd, rubbish, sizeof rubbish, 0), sizeof rubbish);
    kill(child, SIGTERM);
    read_all(reading, out);
    read_all(complaints, err);
    assert_int_equal(status_of(child), 0);
    lseek(fd, 0, SEEK_SET);
    size_t n = read_all(fd, out);
    assert_int_equal(out[0], '{');
    assert_ptr_equal(strchr(out, '{'), strrchr(out, '{'));
    assert_string_equal(out + n - 2, "}\n");
    unlink(path);
}

static void report_to_a_full_disk(void)
{
    begin_with("--stats=-");
    dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
    CHECK(!cli_report() && cli_finish() == 1);
}

/* Its reader comes only when the pipe has been full for a while. */
static void report_to_a_late_reader(void)
{
    int ends[2];
    char page[4096] = "";
    bool whole = false;

    begin_with("--stats=-");
    CHECK(pipe(ends) == 0 && fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
    while (write(ends[1], page, sizeof page) > 0)
        ;
    dup2(ends[1], STDOUT_FILENO);
    CHECK(!cli_report()); /* while it serves it waits for nobody */
    close(ends[1]);
    if (fork() == 0) {
        close(STDOUT_FILENO);
        poll(NULL, 0, 100);
        for (ssize_t n; (n = read(ends[0], page, sizeof page)) > 0;)
            whole = n > 1 && memcmp(page + n - 2, "}\n", 2) == 0;
        _exit(whole ? 7 : 1);
    }
    close(ends[0]);
    CHECK(cli_finish() == 0);
    close(STDOUT_FILENO);
    int status;
    CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

static void where_a_report_may_go(void **state)
{
    char folder[] = "/tmp/test_cli.XXXXXX", argument[64];
    const mode_t mask = umask(022);
    int reading, complaints;
    struct stat found;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(argument, sizeof argument, "--stats=%s/file", folder);
    run_until_it_listens(ARGUMENTS(argument, "0"));
    char *path = argument + strlen("--stats=");
    assert_return_code(stat(path, &found), errno);
    assert_int_equal(found.st_mode & 0777, 0644); /* others may read it */
    unlink(path);
    assert_return_code(mkfifo(path, 0600), errno);
    assert_int_equal(run(ARGUMENTS(argument, "0")), 1); /* it waits for no reader */
    assert_non_null(strstr(err, strerror(ENXIO)));
    unlink(path);
    rmdir(folder);
    umask(mask);
    run_until_it_listens(ARGUMENTS("--stats=/dev/null", "0"));
    assert_string_equal(err, "");
    if (access("/dev/full", W_OK) == 0) {
        pid_t child = start(ARGUMENTS("--stats=/dev/full", "0"), &reading, &complaints);
        out[0] = '\0';
        wait_for(reading, "Listening on");
        kill(child, SIGTERM);
        read_all(reading, out);
        read_all(complaints, err);
        assert_int_equal(status_of(child), 1);
        assert_non_null(strstr(err, "server: cannot write '/dev/full': "));
        assert_int_equal(in_child(report_to_a_full_disk), 7);
    }
    assert_int_equal(in_child(report_to_a_late_reader), 7);
}

/* ---- Signals, up close ---- */

static bool is_ready(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    return poll(&ready, 1, 0) == 1;
}

static void *ask(void *stopping)
{
    *(bool *)stopping = cli_stopping();
    return NULL;
}

static void be_signalled(void)
{
    bool stopping = true;
    pthread_t other;
    sigset_t all;

    sigfillset(&all); /* as whoever starts us may have them */
    sigprocmask(SIG_BLOCK, &all, NULL);
    start_with("--stats=/dev/null");
    kill(getpid(), SIGUSR1); /* before there is a pipe to write to */
    int wakeup = cli_wakeup_fd();
    CHECK(is_ready(wakeup));
    pthread_create(&other, NULL, ask, &stopping); /* no business of other threads */
    pthread_join(other, NULL);
    CHECK(!stopping && is_ready(wakeup));
    CHECK(!cli_stopping() && !is_ready(wakeup));
    for (int i = 0; i < 70000; i++) /* more than a pipe can hold */
        kill(getpid(), SIGUSR1);
    errno = 0;
    kill(getpid(), SIGUSR1);
    CHECK(errno == 0 && is_ready(wakeup));
    CHECK(!cli_stopping() && !is_ready(wakeup));
    for (int fd = 3; fd < 64; fd++)
        CHECK(fcntl(fd, F_GETFD) == -1 || fcntl(fd, F_GETFD) & FD_CLOEXEC);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGTERM);
    CHECK(cli_stopping() && is_ready(wakeup)); /* so that all who wait for it wake up */
    CHECK(cli_stopping());
    kill(getpid(), SIGTERM); /* a second one is no news */
}

static void each_signal_is_heard_once(void **state)
{
    int reports = 0;

    (void)state;
    assert_int_equal(in_child(be_signalled), 7);
    for (const char *at = out; (at = strstr(at, "Clients: ")) != NULL; at++)
        reports++;
    assert_int_equal(reports, 3);
}

static void be_stopped(void)
{
    start_with("0");
    CHECK(!is_ready(cli_wakeup_fd()));
    kill(getpid(), SIGTERM);
    CHECK(is_ready(cli_wakeup_fd()) && cli_stopping());
}

static void be_stopped_at_once(void)
{
    start_with("0");
    kill(getpid(), SIGTERM);
    CHECK(is_ready(cli_wakeup_fd()) && cli_stopping()); /* it came before the pipe */
    kill(getpid(), SIGINT);                             /* asked twice, it ends at once */
}

/* Not yet listening, it may be waiting for a name to be resolved. */
static void be_stopped_too_early(void)
{
    begin_with("0");
    kill(getpid(), SIGTERM);
}

static void end_by_second_interrupt(int signal_number)
{
    (void)signal_number;
    _exit(9);
}

static void be_asked_twice(void)
{
    start_with("0");
    cli_second_interrupt(end_by_second_interrupt);
    kill(getpid(), SIGINT);
    CHECK(cli_stopping());
    kill(getpid(), SIGINT);
}

/* Whoever misses the alarm is knocked up again. */
static void be_out_of_time(void)
{
    start_with("0");
    struct pollfd wakeup = {.fd = cli_wakeup_fd(), .events = POLLIN};
    kill(getpid(), SIGTERM);
    for (int knocks = 0; knocks < 3; knocks++) {
        char byte;
        for (int signals = 0; poll(&wakeup, 1, 10000) == -1 && signals < 3; signals++)
            ;
        CHECK(read(wakeup.fd, &byte, 1) == 1);
        CHECK(knocks == 0 || cli_time_is_up);
    }
}

static void be_interrupted(void)
{
    const struct itimerval soon = {.it_value.tv_usec = 10000, .it_interval.tv_usec = 10000};
    int ends[2];
    char byte;

    start_with("0");
    cli_interrupt_on(SIGALRM);
    CHECK(pipe(ends) == 0);
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK(read(ends[0], &byte, 1) == -1 && errno == EINTR); /* with SA_RESTART it never ends */
}

static void signals_end_calls_and_the_second_the_server(void **state)
{
    (void)state;
    assert_int_equal(in_child(be_stopped), 7);
    assert_int_equal(in_child(be_stopped_at_once), -SIGINT);
    assert_int_equal(in_child(be_stopped_too_early), -SIGTERM);
    assert_int_equal(in_child(be_asked_twice), 9);
    assert_int_equal(in_child(be_interrupted), 7);
}

/* ---- Who is let in ---- */

static void admit(void)
{
    const struct peer peer = {.port = 7};
    int ends[2];

    begin_with("-m2");
    CHECK(pipe(ends) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(cli_admit(ends[i], &peer) == ends[i]);
        cli_connected(&peer);
    }
    int more_fd = dup(0);
    CHECK(cli_full() && cli_admit(more_fd, &peer) == CLI_REFUSED);
    CHECK(fcntl(more_fd, F_GETFD) == -1);
    cli_disconnected(&peer);
    CHECK(!cli_full() && cli_admit(ends[0], &peer) == ends[0]);
    static const int nobody[] = {EAGAIN, EINTR, ECONNABORTED, ENOBUFS};
    for (size_t i = 0; i < sizeof nobody / sizeof *nobody; i++) {
        errno = nobody[i];
        CHECK(cli_admit(-1, &peer) == CLI_NOBODY);
    }
    errno = EMFILE;
    CHECK(cli_admit(-1, &peer) == CLI_REFUSED); /* not said: the second this second */
    cli.quiet = true;
    cli_connected(&peer);
    cli_disconnected(&peer);
    cli_log("the end\n");
    cli_finish();
}

static void report_at_length(void)
{
    begin_with("--stats=-");
#define MANY(name) stats_add(&stats.name, UINT64_C(1000000000000000));
    STATS_COUNTERS(MANY)
#undef MANY
    CHECK(cli_report());
}

/* It takes more than one write. */
static void a_long_report_is_whole(void **state)
{
    (void)state;
    assert_int_equal(in_child(report_at_length), 7);
    char *json = strchr(out, '{');
    assert_true(json != NULL && strlen(json) > 600);
    assert_ptr_equal(json, strrchr(out, '{'));
    assert_string_equal(out + strlen(out) - 3, "\n}\n");
}

static void refuse_for_want_of_descriptors(void)
{
    const struct peer peer = {.port = 7};

    begin_with("-q");
    errno = ENFILE;
    CHECK(cli_admit(-1, &peer) == CLI_REFUSED);
}

static void admits_as_many_as_it_may(void **state)
{
    static const char lines[] = "peer (::, 7) connected\n"
                                "peer (::, 7) connected\n"
                                "peer (::, 7) refused: --max-clients reached\n"
                                "peer (::, 7) disconnected\n"
                                "the end\n"
                                "Clients: 3 served, 2 at most at once; 2 refused.\n";
    char expected[200];

    (void)state;
    assert_int_equal(in_child(admit), 7);
    out[sizeof lines - 1] = '\0';
    assert_string_equal(out, lines);
    assert_int_equal(in_child(refuse_for_want_of_descriptors), 7);
    snprintf(expected, sizeof expected, "peer (::, 7) refused: %s\n", strerror(ENFILE));
    assert_string_equal(out, expected);
}

static void says_when_descriptors_are_few(void **state)
{
    struct rlimit before, low;

    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    low = (struct rlimit){.rlim_cur = 64, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    run_until_it_listens(ARGUMENTS("0"));
    assert_non_null(strstr(err, "server: room for fewer than 64 clients"));
    if (before.rlim_max >= 1024) { /* as many as there are on most systems */
        low.rlim_cur = 1024;
        setrlimit(RLIMIT_NOFILE, &low);
        run_until_it_listens(ARGUMENTS("0"));
        assert_string_equal(err, "");
    }
    setrlimit(RLIMIT_NOFILE, &before);
}

static void a_long_line_is_cut(void **state)
{
    char address[2000] = "";

    (void)state;
    memset(address, 'x', sizeof address - 1);
    assert_int_equal(run(ARGUMENTS("--bind", address, "0")), 1);
    assert_int_equal(out_size, 511);
    assert_int_equal(strspn(out + strcspn(out, "x"), "x"), strlen(out) - strlen("bind "));
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) != -1;
}

/* Or the listener might become "standard output", and clients would get the log. */
static void opens_standard_descriptors(void **state)
{
    char *argv[] = {(char *)"server", NULL};
    int next = dup(STDIN_FILENO), status;

    (void)state;
    close(next);
    for (int closed = 0; closed < 8; closed++) { /* a bit for each of the three */
        pid_t child = fork();
        if (child == 0) {
            for (int fd = 0; fd < 3; fd++)
                if (closed & 1 << fd)
                    close(fd);
            cli_start(1, argv, NULL);
            _exit(is_open(0) && is_open(1) && is_open(2) && !is_open(next) ? 7 : 8);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    }
}

static void refuse(void)
{
    const struct peer peer = {.port = 7};

    for (int i = 0; i < 250; i++) { /* more than two seconds */
        cli_refused(&peer, "too many");
        poll(NULL, 0, 10);
    }
}

/* A line a second at the most, but each refusal is in one of them. Beside it, as that takes as
 * long, an alarm goes off twice. */
static void what_goes_on_for_seconds(void **state)
{
    int lines = 0, reading;

    (void)state;
    pid_t other = fork_part(be_out_of_time, &reading);
    close(reading);
    assert_int_equal(in_child(refuse), 7);
    long said = 0;
    for (const char *line = out; (line = strstr(line, "refused: too many")) != NULL; lines++) {
        line += strlen("refused: too many");
        said += 1 + (strncmp(line, " (and ", 6) == 0 ? strtol(line + 6, NULL, 10) : 0);
    }
    assert_in_range(lines, 3, 5);
    assert_in_range(said, 100, 250); /* the last second's are yet to be said */
    assert_int_equal(status_of(other), 7);
}

/* A pipe nobody reads: the log fills it and then is silent, and nothing blocks. */
static void a_full_pipe_blocks_nobody(void **state)
{
    int ends[2], status;

    (void)state;
    assert_return_code(pipe(ends), errno);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        alarm(20);
        for (int i = 0; i < 100000; i++)
            cli_log("line %d\n", i);
        _exit(7);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    close(ends[0]);
    close(ends[1]);
}

/* Nor does standard error, where it is said that the counters cannot be written. */
static void unread_complaints_block_nobody(void **state)
{
    char *argv[] = {(char *)"server", (char *)"--stats", (char *)"/dev/full", NULL};
    int ends[2], status;

    (void)state;
    assert_return_code(pipe(ends), errno);
    pid_t child = fork();
    if (child == 0) {
        dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        cli_start(3, argv, NULL);
        signal(SIGALRM, SIG_DFL);
        alarm(20);
        for (int i = 0; i < 2000; i++)
            cli_report();
        _exit(7);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    close(ends[0]);
    close(ends[1]);
}

/* An alarm set by whoever started us is none of ours, and SIGTERM does not put off ours. */
static void the_time_is_up_once(void **state)
{
    char *argv[] = {(char *)"server", NULL};
    int status;

    (void)state;
    pid_t child = fork();
    if (child == 0) {
        cli_start(1, argv, NULL);
        cli_listening(&(struct peer){0});
        struct pollfd wakeup = {.fd = cli_wakeup_fd(), .events = POLLIN};
        kill(getpid(), SIGALRM);
        if (cli_time_is_up || cli_stopping() || poll(&wakeup, 1, 0) != 0)
            _exit(1);
        kill(getpid(), SIGTERM);
        bool set = alarm(100) > 0;
        kill(getpid(), SIGTERM);
        if (!set || alarm(0) < 50)
            _exit(2);
        kill(getpid(), SIGALRM);
        _exit(cli_time_is_up && cli_stopping() ? 7 : 3);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_option),
        cmocka_unit_test(help_and_version),
        cmocka_unit_test(usage_errors),
        cmocka_unit_test(trouble_at_start),
        cmocka_unit_test(stops_on_signals),
        cmocka_unit_test(reports_on_demand),
        cmocka_unit_test(the_last_report_replaces_the_first),
        cmocka_unit_test(where_a_report_may_go),
        cmocka_unit_test(each_signal_is_heard_once),
        cmocka_unit_test(signals_end_calls_and_the_second_the_server),
        cmocka_unit_test(a_long_report_is_whole),
        cmocka_unit_test(admits_as_many_as_it_may),
        cmocka_unit_test(says_when_descriptors_are_few),
        cmocka_unit_test(what_goes_on_for_seconds),
        cmocka_unit_test(a_long_line_is_cut),
        cmocka_unit_test(opens_standard_descriptors),
        cmocka_unit_test(a_full_pipe_blocks_nobody),
        cmocka_unit_test(unread_complaints_block_nobody),
        cmocka_unit_test(the_time_is_up_once),
    };

    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
