/* options.h: every option and every usage error. */
#include "log.h"
#include "options.h"
#include "program.h"

#include <fcntl.h>

static int once, rounds = 3, way = 1, wide;
static const struct step_option more[] = {
    {"once", NULL, "a flag", &once, 0, 0},
    {"rounds", "N", "a number", &rounds, 1, 9},
    {"way", "one|two|three", "a word", &way, 0, 0},
    {"wide", "a-long-word|another-long-word", "below", &wide, 0, 0},
    {0},
};

static const char *const *arguments; /* of the next program */

/* Prints what it was told. */
static void print_options(void)
{
    struct command_line line = command_line(arguments);

    errno = ERANGE; /* an error from before must not matter */
    log_init(line.argv[0]);
    options_parse(line.argc, line.argv, more);
    printf("bind %s port %s max %d idle %d quiet %d stats %s once %d rounds %d\n",
           options->bind, options->port, options->max_clients, options->idle_timeout_ms,
           options->quiet, options->stats_path != NULL ? options->stats_path : "none", once,
           rounds);
    exit(0);
}

static int run_with(const char *const *its_arguments)
{
    arguments = its_arguments;
    return run_program(print_options);
}

static void expect_options(const char *const *its_arguments, const char *text)
{
    assert_int_equal(run_with(its_arguments), 0);
    assert_string_equal(out, text);
    assert_string_equal(err, "");
}

static void every_option_is_parsed(void **state)
{
    char in_brackets[] = "[::1]"; /* a server may write to its arguments */

    (void)state;
    expect_options(ARGUMENTS(NULL), "bind 127.0.0.1 port 8080 max 2147483647 idle 0 quiet 0 "
                                    "stats none once 0 rounds 3\n");
    expect_options(ARGUMENTS("0"), "bind 127.0.0.1 port 0 max 2147483647 idle 0 quiet 0 "
                                   "stats none once 0 rounds 3\n");
    expect_options(
        ARGUMENTS("-p", "65535", "-b", "localhost", "-m", "7", "-i", "1.5", "-q", "-s-"),
        "bind localhost port 65535 max 7 idle 1500 quiet 1 stats - once 0 rounds 3\n");
    expect_options(ARGUMENTS("-p0", "-i", "86400"),
                   "bind 127.0.0.1 port 0 max 2147483647 idle 86400000 quiet 0 stats none "
                   "once 0 rounds 3\n");
    expect_options(ARGUMENTS("-p0", "-i0.001"), "bind 127.0.0.1 port 0 max 2147483647 idle 1 "
                                                "quiet 0 stats none once 0 rounds 3\n");
    expect_options(ARGUMENTS("--port=0", "--bind=0.0.0.0", "--max-clients=1",
                             "--idle-timeout=0", "--quiet", "--stats=file", "--once",
                             "--rounds=9"),
                   "bind 0.0.0.0 port 0 max 1 idle 0 quiet 1 stats file once 1 rounds 9\n");
    expect_options(
        ARGUMENTS("--bind", in_brackets, "0"), /* as addresses are printed */
        "bind ::1 port 0 max 2147483647 idle 0 quiet 0 stats none once 0 rounds 3\n");
}

static void print_way(void)
{
    struct command_line line = command_line(arguments);

    options_parse(line.argc, line.argv, more);
    printf("%d\n", way);
    exit(0);
}

static void a_word_is_chosen(void **state)
{
    static const char *const words[] = {"one", "two", "three"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        arguments = ARGUMENTS("--way", words[i]);
        assert_int_equal(run_program(print_way), 0);
        assert_int_equal(out[0], '0' + i);
    }
    arguments = ARGUMENTS(NULL);
    assert_int_equal(run_program(print_way), 0);
    assert_string_equal(out, "1\n");
}

static void help_and_version_are_printed(void **state)
{
    (void)state;
    assert_int_equal(run_with(ARGUMENTS("--help")), 0);
    assert_ptr_equal(strstr(out, "Usage: server [OPTION]... [PORT]\n"), out);
    assert_non_null(strstr(out, "\n  -m, --max-clients N  "));
    assert_non_null(strstr(out, "\n      --once                  a flag\n"));
    assert_non_null(strstr(out, "\n      --rounds N              a number\n"));
    assert_non_null(strstr(out, "\n      --way one|two|three     a word\n"));
    assert_non_null(strstr(out, "\n      --wide a-long-word|another-long-word\n"
                                "                              below\n"));
    assert_string_equal(err, "");
    assert_int_equal(run_with(ARGUMENTS("-h")), 0);
    assert_int_equal(run_with(ARGUMENTS("-V")), 0);
    assert_string_equal(out, "echo server 1.0\n");
    assert_int_equal(run_with(ARGUMENTS("--version")), 0);
}

static void print_help_to_a_full_disk(void)
{
    struct command_line line = command_line(ARGUMENTS("--help"));

    CHECK(dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO) != -1);
    log_init(line.argv[0]);
    options_parse(line.argc, line.argv, NULL);
}

static void help_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK) == -1)
        skip();
    assert_int_equal(run_program(print_help_to_a_full_disk), 1);
    assert_non_null(strstr(err, "server: cannot write to standard output: "));
}

static void usage_errors_name_option_and_value(void **state)
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
        {{"-i", "1.2.3"}, "server: --idle-timeout: '1.2.3' is not"},
        {{"-i", "nan"}, "server: --idle-timeout: 'nan' is not"},
        {{"--rounds", "10"}, "server: --rounds: '10' is not a whole number from 1 to 9\n"},
        {{"--way", "four"}, "server: --way: 'four' is not one of one|two|three\n"},
        {{"--way="}, "server: --way: '' is not one of"},
        {{"--way", "tw"}, "server: --way: 'tw' is not"},
        {{"--way", "one|two"}, "server: --way: 'one|two' is not"},
        {{"--way"}, "server: option '--way' needs a value\n"},
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
        assert_int_equal(run_with(cases[i].arguments), 2);
        assert_int_equal(strncmp(err, cases[i].message, strlen(cases[i].message)), 0);
        assert_non_null(strstr(err, "\nUsage: server [OPTION]"));
        assert_non_null(strstr(err, "--rounds N"));
        assert_string_equal(out, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_option_is_parsed),
        cmocka_unit_test(a_word_is_chosen),
        cmocka_unit_test(help_and_version_are_printed),
        cmocka_unit_test(help_that_cannot_be_written_is_an_error),
        cmocka_unit_test(usage_errors_name_option_and_value),
    };

    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
