/* The report against figures computed by hand, letter by letter: of a good run, of a bad run,
 * and of a stream. */
#include "../load_report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The text of a report. */
static char *text;
static size_t size;

static FILE *paper(void)
{
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    return out;
}

static void check_paper(FILE *out, const char *expected)
{
    fclose(out);
    assert_string_equal(text, expected);
    free(text);
}

/* 1 * step, 2 * step, ... n * step nanoseconds: half of them and a half on average. */
static struct hist *stairs(uint64_t n, uint64_t step)
{
    struct hist *h = hist_create();

    assert_non_null(h);
    for (uint64_t i = 1; i <= n; i++)
        hist_record(h, i * step);
    return h;
}

static void check_text(const struct load_result *r, const char *expected)
{
    FILE *out = paper();
    report_text(out, r);
    check_paper(out, expected);
}

/* The expected text has ' where JSON has ". */
static void check_json(const struct load_result *r, const char *expected)
{
    FILE *out = paper();
    report_json(out, r);
    fclose(out);
    for (char *quote = text; (quote = strchr(quote, '"'));)
        *quote = '\'';
    assert_string_equal(text, expected);
    free(text);
}

/* 1000 messages a second of 1.0005 ms each: 1.0005 are in flight. Two threads. */
static void a_good_run(void **state)
{
    const struct load_options options = {.connections = 1500,
                                         .idle = 250,
                                         .threads = 2,
                                         .pipeline = 4,
                                         .size = 32,
                                         .duration = 4,
                                         .warmup = 1,
                                         .think = 0.025,
                                         .ramp = 50,
                                         .server_pid = 42};
    struct hist *latency = stairs(2000, 1000);
    const struct load_result r = {
        .options = &options,
        .address = "127.0.0.1:8080",
        .tally = {.opened = 1750,
                  .ready = 1500,
                  .idle = 250,
                  .messages = 2000,
                  .bytes = 60000,
                  .answered = 2500,
                  .in_flight_ns = 2.04e9},
        .latency = latency,
        .service = latency,
        .least = 1,
        .most = 1234567,
        .opening = 0.5,
        .window = 2,
        .client_cpu = 0.4,
        .client_delay = 0.2,
        .server_cpu = 1.5,
        .alone = {.resident = 2 << 20, .voluntary = 1, .involuntary = 1},
        .ready = {.resident = 3 << 20, .voluntary = 1000, .involuntary = 100},
        .loaded = {.resident = 4 << 20,
                   .threads = 3,
                   .processes = 2,
                   .voluntary = 6000,
                   .involuntary = 600},
        .first_error = "",
    };
    (void)state;
    check_text(
        &r,
        "127.0.0.1:8080, mode echo, closed loop\n"
        "connections  1,500 of 1,500, and 250 of 250 idle, in 500 ms; 2 threads, pipeline 4\n"
        "messages     2,000 in 2.00 s: 1,000 a second, 0.03 MB/s of answers verified\n"
        "                   min      mean       p50       p90       p99     p99.9       max\n"
        "latency        1.00 us   1.00 ms   1.00 ms   1.80 ms   1.98 ms   2.00 ms   2.00 ms\n"
        "fairness     1 to 1,234,567 messages per connection\n"
        "Little's law 1.02 in flight; messages a second times mean latency is 1.00: "
        "consistent\n"
        "client       200 us CPU per message, 10 % of the time; and for 5 % of it waiting for "
        "a CPU that others used\n"
        "server       750 us CPU per message, 75 % of one CPU; 3 threads in 2 processes\n"
        "             resident 2.00 MiB before the connections, 4.00 MiB after the load:\n"
        "             1198 bytes each; context switches per message: 2.000 voluntary, 0.200 "
        "not\n"
        "errors       none\n");
    check_json(
        &r, "{\n"
            "  'address': '127.0.0.1:8080',\n"
            "  'options': {'mode': 'echo', 'connections': 1500, 'idle': 250, 'threads': 2, "
            "'pipeline': 4,\n"
            "    'size': 32, 'bulk': false, 'rate': 0, 'think_ms': 25, 'ramp': 50, 'duration': "
            "4, 'warmup': 1},\n"
            "  'connections': {'made': 1500, 'idle': 250, 'waiting': 0, 'lost': 0, 'seconds': "
            "0.500000},\n"
            "  'seconds': 2.000000,\n"
            "  'interrupted': false,\n"
            "  'messages': 2000,\n"
            "  'messages_per_second': 1000.0,\n"
            "  'bytes': 60000,\n"
            "  'mb_per_second': 0.030,\n"
            "  'latency_us': {'count': 2000, 'min': 1.000, 'mean': 1000.500, 'p50': 1000.192, "
            "'p90': 1799.680, 'p99': 1979.904, 'p99_9': 1998.336, 'max': 2000.000},\n"
            "  'unanswered': 0,\n"
            "  'fairness': {'min': 1, 'max': 1234567},\n"
            "  'littles_law': {'in_flight': 1.0200, 'rate_times_latency': 1.0005, "
            "'consistent': true},\n"
            "  'client': {'cpu_seconds': 0.400000, 'cpu_us_per_message': 200.0000, "
            "'cpu_share': 0.1000, 'delay_share': 0.0500, 'bottleneck': false},\n"
            "  'server': {'cpu_seconds': 1.500000, 'cpu_us_per_message': 750.0000, "
            "'cpu_share': 0.7500,\n"
            "    'threads': 3, 'processes': 2,\n"
            "    'resident_before': 2097152, 'resident_connected': 3145728, 'resident_after': "
            "4194304, 'bytes_per_connection': 1198.4,\n"
            "    'voluntary_switches_per_message': 2.0000, 'involuntary_switches_per_message': "
            "0.2000},\n"
            "  'errors': {'total': 0, 'connect': 0, 'greeting': 0, 'wrong_byte': 0, 'surplus': "
            "0, 'closed': 0, 'reset': 0, 'other': 0, 'first': ''},\n"
            "  'missing': 0,\n"
            "  'problem': null,\n"
            "  'status': 0\n"
            "}\n");
    free(latency);
}

/* An open loop, interrupted, with connections that were refused, lost and not greeted, and with
 * a busy client. */
static void a_bad_run(void **state)
{
    const struct load_options options = {.connections = 10,
                                         .threads = 1,
                                         .pipeline = 1,
                                         .size = 32,
                                         .rate = 1000,
                                         .duration = 4,
                                         .server_pid = 42};
    struct hist *latency = stairs(100, 1000000), *service = stairs(90, 1000000);
    const struct load_result r = {
        .options = &options,
        .address = "[::1]:8080",
        .tally = {.opened = 9,
                  .ready = 6,
                  .pending = 1,
                  .lost = 3,
                  .messages = 90,
                  .bytes = 2700,
                  .answered = 90,
                  .on_time = 50,
                  .late_ns = 2.5e6,
                  .in_flight_ns = 16e9,
                  .errors = {[ERROR_CONNECT] = 2, [ERROR_CLOSED] = 1003}},
        .latency = latency,
        .service = service,
        .unanswered = 12,
        .least = 0,
        .most = 30,
        .opening = 1.25,
        .window = 0.5,
        .client_cpu = 0.35,
        .client_delay = 0.12,
        .no_server = "it has \"ended\"",
        .first_error = "said \"no\"\t\\",
        .interrupted = true,
        .missing = 5,
        .problem = "connections failed",
        .status = 1,
    };
    (void)state;
    assert_int_equal(result_waiting(&r), 2);
    check_text(
        &r,
        "[::1]:8080, mode echo, open loop of 1,000 messages a second\n"
        "connections  6 of 10, in 1.25 s; 1 thread, pipeline 1\n"
        "             2 connections were not greeted: the server was busy with others\n"
        "messages     90 in 0.50 s (interrupted): 180 a second, 0.01 MB/s of answers verified\n"
        "                   min      mean       p50       p90       p99     p99.9       max\n"
        "latency        1.00 ms   50.5 ms   50.0 ms   90.0 ms   99.0 ms    100 ms    100 ms\n"
        "uncorrected    1.00 ms   45.5 ms   45.0 ms   81.0 ms   90.0 ms   90.0 ms   90.0 ms\n"
        "             latency counts from when a message was due by the schedule, uncorrected\n"
        "             from when it was sent; the client itself was 50.0 us late on average\n"
        "unanswered   12 messages were due but not answered; they count as latency with\n"
        "             the age they had at the end\n"
        "fairness     0 to 30 messages per connection\n"
        "Little's law 32.00 in flight; messages a second times mean latency is 8.19: NOT "
        "CONSISTENT\n"
        "client       3.89 ms CPU per message, 70 % of the time; and for 24 % of it waiting "
        "for a CPU that others used\n"
        "server       figures skipped: it has \"ended\"\n"
        "errors       2 not connected, 1,003 closed by the server (the first: said "
        "\"no\"\t\\)\n"
        "missing      5 messages have no answer although the client waited\n"
        "problem      connections failed\n"
        "warning: the client was busy 94 % of the time: the figures may show its own\n"
        "limit and not the server's (try more --threads, or a CPU of its own)\n");
    check_json(
        &r,
        "{\n"
        "  'address': '[::1]:8080',\n"
        "  'options': {'mode': 'echo', 'connections': 10, 'idle': 0, 'threads': 1, 'pipeline': "
        "1,\n"
        "    'size': 32, 'bulk': false, 'rate': 1000, 'think_ms': 0, 'ramp': 0, 'duration': 4, "
        "'warmup': 0},\n"
        "  'connections': {'made': 6, 'idle': 0, 'waiting': 2, 'lost': 3, 'seconds': "
        "1.250000},\n"
        "  'seconds': 0.500000,\n"
        "  'interrupted': true,\n"
        "  'messages': 90,\n"
        "  'messages_per_second': 180.0,\n"
        "  'bytes': 2700,\n"
        "  'mb_per_second': 0.005,\n"
        "  'latency_us': {'count': 100, 'min': 1000.000, 'mean': 50500.000, 'p50': 49987.584, "
        "'p90': 90013.696, 'p99': 98992.128, 'p99_9': 100000.000, 'max': 100000.000},\n"
        "  'uncorrected_us': {'count': 90, 'min': 1000.000, 'mean': 45500.000, 'p50': "
        "45006.848, 'p90': 80969.728, 'p99': 90000.000, 'p99_9': 90000.000, 'max': "
        "90000.000},\n"
        "  'late_us': 50.000,\n"
        "  'unanswered': 12,\n"
        "  'fairness': {'min': 0, 'max': 30},\n"
        "  'littles_law': {'in_flight': 32.0000, 'rate_times_latency': 8.1900, 'consistent': "
        "false},\n"
        "  'client': {'cpu_seconds': 0.350000, 'cpu_us_per_message': 3888.8889, 'cpu_share': "
        "0.7000, 'delay_share': 0.2400, 'bottleneck': true},\n"
        "  'server': null,\n"
        "  'errors': {'total': 1005, 'connect': 2, 'greeting': 0, 'wrong_byte': 0, 'surplus': "
        "0, 'closed': 1003, 'reset': 0, 'other': 0, 'first': 'said \\'no\\'\\u0009\\\\'},\n"
        "  'missing': 5,\n"
        "  'problem': 'connections failed',\n"
        "  'status': 1\n"
        "}\n");
    free(latency);
    free(service);
}

/* Its client is busy, but the server is busier. */
static void a_stream(void **state)
{
    const struct load_options options = {.connections = 1,
                                         .threads = 1,
                                         .pipeline = 1,
                                         .size = 1048576,
                                         .bulk = true,
                                         .duration = 1,
                                         .server_pid = 42};
    struct hist *none = hist_create();
    const struct load_result r = {
        .options = &options,
        .address = "127.0.0.1:8080",
        .tally = {.opened = 1, .ready = 1, .messages = 190, .bytes = 200000000},
        .latency = none,
        .service = none,
        .opening = 0.00012345,
        .window = 1,
        .client_cpu = 0.95,
        .server_cpu = 0.97,
        .alone = {.resident = 3 << 20},
        .ready = {.resident = 3 << 20},
        .loaded = {.resident = 2 << 20, .threads = 1, .processes = 1},
        .first_error = "",
    };
    (void)state;
    check_text(
        &r, "127.0.0.1:8080, mode echo, a stream of 1,048,576-byte messages\n"
            "connections  1 of 1, in 123 us; 1 thread, pipeline 1\n"
            "answers      191 MiB verified in 1.00 s: 200 MB/s\n"
            "client       4.75 ms CPU per MB, 95 % of the time\n"
            "server       4.85 ms CPU per MB, 97 % of one CPU; 1 thread\n"
            "             resident 3.00 MiB before the connections, 2.00 MiB after the load:\n"
            "             -1048576 bytes each; context switches per message: 0.000 voluntary, "
            "0.000 not\n"
            "errors       none\n");
    free(none);
}

static void rows_show_what_was_added(void **state)
{
    const struct tally before = {
        .ready = 5, .messages = 100, .bytes = 1000000, .errors = {1, 2}};
    const struct tally after = {.ready = 5,
                                .idle = 4,
                                .lost = 2,
                                .messages = 350,
                                .bytes = 2000000,
                                .in_flight = 3,
                                .errors = {4, 2, 5}};
    struct hist *recent = stairs(2000, 1000);
    FILE *out = paper();

    (void)state;
    report_csv_header(out);
    report_csv_row(out, 1.5, 0.5, &after, &before, recent);
    check_paper(out,
                "elapsed_s,connections,messages,messages_per_s,mb_per_s,in_flight,errors,p50_"
                "us,p90_us,p99_us,p99_9_us,max_us\n"
                "1.500,7,250,500.0,2.000,3,8,1000.192,1799.680,1979.904,1998.336,2000.000\n");
    free(recent);
}

static void percentiles_halve_the_rest(void **state)
{
    struct hist *h = stairs(4, 1000000), *none = hist_create();
    FILE *out = paper();

    (void)state;
    report_hgrm(out, h);
    check_paper(out, "       Value     Percentile TotalCount 1/(1-Percentile)\n"
                     "\n"
                     "    1.000192 0.000000000000          1           1.00\n"
                     "    1.000192 0.100000000000          1           1.11\n"
                     "    1.000192 0.200000000000          1           1.25\n"
                     "    2.000384 0.300000000000          2           1.43\n"
                     "    2.000384 0.400000000000          2           1.67\n"
                     "    2.000384 0.500000000000          2           2.00\n"
                     "    2.999296 0.550000000000          3           2.22\n"
                     "    2.999296 0.600000000000          3           2.50\n"
                     "    2.999296 0.650000000000          3           2.86\n"
                     "    2.999296 0.700000000000          3           3.33\n"
                     "    2.999296 0.750000000000          3           4.00\n"
                     "    4.000000 1.000000000000          4\n"
                     "#[Mean    =     2.500000, StdDeviation   =     1.118106]\n"
                     "#[Max     =     4.000000, Total count    =            4]\n"
                     "#[Buckets =           55, SubBuckets     =         2048]\n");
    out = paper();
    report_hgrm(out, none);
    check_paper(out, "       Value     Percentile TotalCount 1/(1-Percentile)\n"
                     "\n"
                     "#[Mean    =     0.000000, StdDeviation   =     0.000000]\n"
                     "#[Max     =     0.000000, Total count    =            0]\n"
                     "#[Buckets =           55, SubBuckets     =         2048]\n");
    free(h);
    free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_run),
        cmocka_unit_test(a_bad_run),
        cmocka_unit_test(a_stream),
        cmocka_unit_test(rows_show_what_was_added),
        cmocka_unit_test(percentiles_halve_the_rest),
    };
    return cmocka_run_group_tests_name("load_report", tests, NULL, NULL);
}
