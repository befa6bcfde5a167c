/* The options that a command line gives. (test_load_client.py tests the usage errors.) */
#include "../load_options.h"

#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Parses a line of words, which it cuts in place. */
static struct load_options parse(char *line)
{
    struct load_options o;
    char *argv[64];
    int argc = 0;

    for (char *word = strtok(line, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc] = NULL;
    optind = 1;
    load_options_parse(&o, argc, argv);
    return o;
}

static void check_sizes(const struct load_options *o, uint64_t connections, uint64_t idle,
                        uint64_t pipeline, uint64_t threads, uint64_t size)
{
    assert_int_equal(o->connections, connections);
    assert_int_equal(o->idle, idle);
    assert_int_equal(o->pipeline, pipeline);
    assert_int_equal(o->threads, threads);
    assert_int_equal(o->size, size);
}

static void check_times(const struct load_options *o, double duration, double warmup,
                        double interval, double rate, double ramp, double think)
{
    assert_true(o->duration == duration && o->warmup == warmup && o->interval == interval);
    assert_true(o->rate == rate && o->ramp == ramp && o->think == think);
}

static void nothing_given(void **state)
{
    char line[] = "load-client localhost 8080";
    struct load_options o = parse(line);

    (void)state;
    assert_string_equal(o.host, "localhost");
    assert_string_equal(o.port, "8080");
    check_sizes(&o, 10, 0, 1, 1, 32);
    check_times(&o, 10, 1, 1, 0, 0, 0);
    assert_true(o.mode == MODE_ECHO && !o.bulk && o.server_pid == 0);
    assert_true(!o.sources && !o.json && !o.csv && !o.hgrm);
}

static void everything_given(void **state)
{
    char line[] = "x --connections 21 --duration 2.5 --warmup 0.5 --size 64 --pipeline 3 "
                  "--think-ms 250 --idle 7 --ramp 40 --threads 2 --source a,b --mode raw "
                  "--server-pid 9 --json j --csv c --interval 0.25 --hgrm h host 1";
    char brief[] = "x -c 21 -d 2.5 -w 0.5 -P 3 -r 1e3 -i 7 -t 2 -m redis host 1";
    struct load_options o = parse(line);

    (void)state;
    check_sizes(&o, 21, 7, 3, 2, 64);
    check_times(&o, 2.5, 0.5, 0.25, 0, 40, 0.25);
    assert_true(o.mode == MODE_RAW && !o.bulk && o.server_pid == 9);
    assert_string_equal(o.sources, "a,b");
    assert_string_equal(o.json, "j");
    assert_string_equal(o.csv, "c");
    assert_string_equal(o.hgrm, "h");

    o = parse(brief);
    check_sizes(&o, 21, 7, 3, 2, 32);
    check_times(&o, 2.5, 0.5, 1, 1000, 0, 0);
    assert_true(o.mode == MODE_REDIS);
}

static void bytes_may_have_a_unit(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
    } sizes[] = {{"3", 3}, {"2K", 2048}, {"64M", 64 << 20}, {"1G", 1 << 30}};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char line[64];
        snprintf(line, sizeof line, "x --size %s host 1", sizes[i].text);
        assert_int_equal(parse(line).size, sizes[i].value);
        snprintf(line, sizeof line, "x --bulk %s host 1", sizes[i].text);
        struct load_options o = parse(line);
        check_sizes(&o, 1, 0, 1, 1, sizes[i].value);
        assert_true(o.bulk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given),
        cmocka_unit_test(everything_given),
        cmocka_unit_test(bytes_may_have_a_unit),
    };
    return cmocka_run_group_tests_name("load_options", tests, NULL, NULL);
}
