/* load_report.c - see load_report.h. */
#include "load_report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const struct {
    const char *name, *key;
    double q;
} QUANTILES[] = {
    {"p50", "p50", 0.5},
    {"p90", "p90", 0.9},
    {"p99", "p99", 0.99},
    {"p99.9", "p99_9", 0.999},
};
enum { QUANTILE_COUNT = sizeof QUANTILES / sizeof *QUANTILES };

/* A client this busy has little time left to wait for answers. */
static const double BUSY = 0.9;

/* ---- derived figures ---- */

static double per_second(const struct load_result *r, double amount)
{
    return r->window > 0 ? amount / r->window : 0;
}

static double client_share(const struct load_result *r, double seconds)
{
    return per_second(r, seconds) / (double)r->options->threads;
}

/* The share of the time that it worked or waited for a CPU. The rest it waited for answers. */
static double client_busy(const struct load_result *r)
{
    return client_share(r, r->client_cpu + r->client_delay);
}

/* If the server is busier than the client, the server is the bottleneck. */
static bool client_is_bottleneck(const struct load_result *r)
{
    bool server_is_busier = !r->no_server && per_second(r, r->server_cpu) >= client_busy(r);
    return client_busy(r) >= BUSY && !server_is_busier;
}

static double in_flight(const struct load_result *r)
{
    return per_second(r, r->tally.in_flight_ns / 1e9);
}

/* Little's law: the number in flight is the arrival rate times the mean latency. */
static double in_flight_by_law(const struct load_result *r)
{
    return per_second(r, (double)r->tally.messages) * hist_mean(r->service) / 1e9;
}

static double deviation_from_law(const struct load_result *r)
{
    double measured = in_flight(r);
    return measured > 0 ? fabs(in_flight_by_law(r) / measured - 1) : 0;
}

/* CPU time per message. In a stream, which may be one endless message, per megabyte. */
static double cost(const struct load_result *r, double cpu_seconds)
{
    double bought = r->options->bulk ? (double)r->tally.bytes / 1e6 : (double)r->tally.messages;
    return bought > 0 ? cpu_seconds / bought : 0;
}

static const char *cost_unit(const struct load_result *r)
{
    return r->options->bulk ? "MB" : "message";
}

/* The law holds exactly, but not for a message that is in flight at an edge of the window. Only
 * a part of it is in the window, while its latency counts in full or not at all. */
static bool law_holds(const struct load_result *r)
{
    double blur = per_second(r, (double)r->service->max / 1e9);
    return deviation_from_law(r) <= 0.05 + blur;
}

static double bytes_per_connection(const struct load_result *r)
{
    uint64_t n = r->tally.ready + r->tally.idle;
    return n ? ((double)r->loaded.resident - (double)r->alone.resident) / (double)n : 0;
}

/* The switches are counted from the first message on, warm-up included. */
static double switches_per_message(const struct load_result *r, uint64_t from, uint64_t to)
{
    double grown = to > from ? (double)(to - from) : 0; /* those of a child go with it */
    return r->tally.answered ? grown / (double)r->tally.answered : 0;
}

/* Mean nanoseconds that messages were sent late although their connection was free. */
static double lateness(const struct load_result *r)
{
    return r->tally.on_time ? r->tally.late_ns / (double)r->tally.on_time : 0;
}

static uint64_t errors(const struct load_result *r)
{
    uint64_t sum = 0;
    for (int i = 0; i < ERROR_KINDS; i++)
        sum += r->tally.errors[i];
    return sum;
}

uint64_t result_waiting(const struct load_result *r)
{
    const struct load_options *o = r->options;
    uint64_t failed = r->tally.opened - r->tally.pending - r->tally.ready - r->tally.idle;
    return o->connections + o->idle - r->tally.ready - r->tally.idle - failed;
}

/* ---- text ---- */

/* 1234567 as 1,234,567. Uses one of a few buffers in turn. */
static const char *grouped(double value)
{
    static char buffers[8][32];
    static unsigned turn;
    char digits[32], *out = buffers[turn++ % 8];
    int n = snprintf(digits, sizeof digits, "%.0f", value), k = 0;

    for (int i = 0; i < n && k < 30; i++) {
        out[k++] = digits[i];
        if ((n - i) % 3 == 1 && i + 1 < n)
            out[k++] = ',';
    }
    out[k] = '\0';
    return out;
}

/* Three significant digits: 12.3 us, 123 us. */
static const char *three_digits(double value, const char *unit)
{
    static char buffers[8][32];
    static unsigned turn;
    char *out = buffers[turn++ % 8];
    int decimals = value >= 99.95 || value == 0 ? 0 : value >= 9.995 ? 1 : 2;
    snprintf(out, sizeof buffers[0], "%.*f %s", decimals, value, unit);
    return out;
}

static const char *duration(double ns)
{
    return ns < 999.5     ? three_digits(ns, "ns")
           : ns < 999500  ? three_digits(ns / 1e3, "us")
           : ns < 999.5e6 ? three_digits(ns / 1e6, "ms")
                          : three_digits(ns / 1e9, "s");
}

static const char *memory(double bytes)
{
    return fabs(bytes) < 1024 * 1024 ? three_digits(bytes / 1024, "KiB")
                                     : three_digits(bytes / 1024 / 1024, "MiB");
}

static void text_latency(FILE *out, const char *name, const struct hist *h)
{
    fprintf(out, "%-13s", name);
    if (h->count == 0) {
        fprintf(out, "nothing was measured\n");
        return;
    }
    fprintf(out, "%9s %9s", duration((double)h->min), duration(hist_mean(h)));
    for (int i = 0; i < QUANTILE_COUNT; i++)
        fprintf(out, " %9s", duration((double)hist_quantile(h, QUANTILES[i].q)));
    fprintf(out, " %9s\n", duration((double)h->max));
}

static void text_latencies(FILE *out, const struct load_result *r)
{
    fprintf(out, "%-13s%9s %9s", "", "min", "mean");
    for (int i = 0; i < QUANTILE_COUNT; i++)
        fprintf(out, " %9s", QUANTILES[i].name);
    fprintf(out, " %9s\n", "max");
    text_latency(out, "latency", r->latency);
    if (r->service != r->latency) {
        text_latency(out, "uncorrected", r->service);
        fprintf(
            out,
            "             latency counts from when a message was due by the schedule, "
            "uncorrected\n"
            "             from when it was sent; the client itself was %s late on average\n",
            duration(lateness(r)));
    }
    if (r->unanswered)
        fprintf(
            out,
            "unanswered   %s messages were due but not answered; they count as latency with\n"
            "             the age they had at the end\n",
            grouped((double)r->unanswered));
}

static void text_server(FILE *out, const struct load_result *r)
{
    if (r->no_server) {
        if (r->options->server_pid)
            fprintf(out, "server       figures skipped: %s\n", r->no_server);
        return;
    }
    fprintf(out, "server       %s CPU per %s, %.0f %% of one CPU; %s thread%s",
            duration(cost(r, r->server_cpu) * 1e9), cost_unit(r),
            100 * per_second(r, r->server_cpu), grouped((double)r->loaded.threads),
            r->loaded.threads == 1 ? "" : "s");
    if (r->loaded.processes > 1)
        fprintf(out, " in %s processes", grouped((double)r->loaded.processes));
    fprintf(out,
            "\n             resident %s before the connections, %s after the load:"
            "\n             %.0f bytes each; context switches per message: %.3f voluntary, "
            "%.3f not\n",
            memory((double)r->alone.resident), memory((double)r->loaded.resident),
            bytes_per_connection(r),
            switches_per_message(r, r->ready.voluntary, r->loaded.voluntary),
            switches_per_message(r, r->ready.involuntary, r->loaded.involuntary));
}

static void text_errors(FILE *out, const struct load_result *r)
{
    const char *separator = "";
    fprintf(out, "errors       ");
    if (errors(r) == 0)
        fprintf(out, "none");
    for (int i = 0; i < ERROR_KINDS; i++)
        if (r->tally.errors[i]) {
            fprintf(out, "%s%s %s", separator, grouped((double)r->tally.errors[i]),
                    load_error_names[i]);
            separator = ", ";
        }
    fprintf(out, *r->first_error ? " (the first: %s)\n" : "\n", r->first_error);
}

void report_text(FILE *out, const struct load_result *r)
{
    const struct load_options *o = r->options;

    fprintf(out, "%s, mode %s, ", r->address, load_mode_names[o->mode]);
    if (o->bulk)
        fprintf(out, "a stream of %s-byte messages\n", grouped((double)o->size));
    else if (o->rate > 0)
        fprintf(out, "open loop of %s messages a second\n", grouped(o->rate));
    else
        fprintf(out, "closed loop\n");
    fprintf(out, "connections  %s of %s", grouped((double)r->tally.ready),
            grouped((double)o->connections));
    if (o->idle)
        fprintf(out, ", and %s of %s idle", grouped((double)r->tally.idle),
                grouped((double)o->idle));
    fprintf(out, ", in %s; %" PRIu64 " thread%s, pipeline %" PRIu64 "\n",
            duration(r->opening * 1e9), o->threads, o->threads == 1 ? "" : "s", o->pipeline);
    if (result_waiting(r))
        fprintf(out, "             %s connections %s\n", grouped((double)result_waiting(r)),
                o->mode == MODE_ECHO ? "were not greeted: the server was busy with others"
                                     : "could not be made in time");
    const char *answers = three_digits(per_second(r, (double)r->tally.bytes / 1e6), "MB/s");
    const char *interrupted = r->interrupted ? " (interrupted)" : "";
    if (o->bulk)
        fprintf(out, "answers      %s verified in %.2f s%s: %s\n",
                memory((double)r->tally.bytes), r->window, interrupted, answers);
    else
        fprintf(out, "messages     %s in %.2f s%s: %s a second, %s of answers verified\n",
                grouped((double)r->tally.messages), r->window, interrupted,
                grouped(per_second(r, (double)r->tally.messages)), answers);
    if (!o->bulk) {
        text_latencies(out, r);
        fprintf(out, "fairness     %s to %s messages per connection\n",
                grouped((double)r->least), grouped((double)r->most));
        fprintf(
            out,
            "Little's law %.2f in flight; messages a second times mean latency is %.2f: %s\n",
            in_flight(r), in_flight_by_law(r), law_holds(r) ? "consistent" : "NOT CONSISTENT");
    }
    fprintf(out, "client       %s CPU per %s, %.0f %% of the time",
            duration(cost(r, r->client_cpu) * 1e9), cost_unit(r),
            100 * client_share(r, r->client_cpu));
    if (client_share(r, r->client_delay) >= 0.01)
        fprintf(out, "; and for %.0f %% of it waiting for a CPU that others used",
                100 * client_share(r, r->client_delay));
    fputc('\n', out);
    text_server(out, r);
    text_errors(out, r);
    if (r->missing)
        fprintf(out, "missing      %s messages have no answer although the client waited\n",
                grouped((double)r->missing));
    if (r->problem)
        fprintf(out, "problem      %s\n", r->problem);
    if (client_is_bottleneck(r))
        fprintf(
            out,
            "warning: the client was busy %.0f %% of the time: the figures may show its own\n"
            "limit and not the server's (try more --threads, or a CPU of its own)\n",
            100 * client_busy(r));
}

/* ---- JSON ---- */

static void json_string(FILE *out, const char *text)
{
    putc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putc('\\', out);
        if ((unsigned char)*text < ' ')
            fprintf(out, "\\u%04x", *text);
        else
            putc(*text, out);
    }
    putc('"', out);
}

static void json_latency(FILE *out, const char *key, const struct hist *h)
{
    fprintf(out, "  \"%s\": ", key);
    if (h->count == 0) {
        fprintf(out, "null,\n");
        return;
    }
    fprintf(out, "{\"count\": %" PRIu64 ", \"min\": %.3f, \"mean\": %.3f", h->count,
            (double)h->min / 1e3, hist_mean(h) / 1e3);
    for (int i = 0; i < QUANTILE_COUNT; i++)
        fprintf(out, ", \"%s\": %.3f", QUANTILES[i].key,
                (double)hist_quantile(h, QUANTILES[i].q) / 1e3);
    fprintf(out, ", \"max\": %.3f},\n", (double)h->max / 1e3);
}

/* A stream has no latencies. */
static void json_law(FILE *out, const struct load_result *r)
{
    fprintf(out, "  \"littles_law\": ");
    if (r->options->bulk)
        fprintf(out, "null,\n");
    else
        fprintf(out,
                "{\"in_flight\": %.4f, \"rate_times_latency\": %.4f, \"consistent\": %s},\n",
                in_flight(r), in_flight_by_law(r), law_holds(r) ? "true" : "false");
}

static void json_server(FILE *out, const struct load_result *r)
{
    if (r->no_server) {
        fprintf(out, "  \"server\": null,\n");
        return;
    }
    fprintf(out,
            "  \"server\": {\"cpu_seconds\": %.6f, \"cpu_us_per_%s\": %.4f, "
            "\"cpu_share\": %.4f,\n"
            "    \"threads\": %" PRIu64 ", \"processes\": %" PRIu64 ",\n"
            "    \"resident_before\": %" PRIu64 ", \"resident_connected\": %" PRIu64 ", "
            "\"resident_after\": %" PRIu64 ", \"bytes_per_connection\": %.1f,\n"
            "    \"voluntary_switches_per_message\": %.4f, "
            "\"involuntary_switches_per_message\": %.4f},\n",
            r->server_cpu, cost_unit(r), cost(r, r->server_cpu) * 1e6,
            per_second(r, r->server_cpu), r->loaded.threads, r->loaded.processes,
            r->alone.resident, r->ready.resident, r->loaded.resident, bytes_per_connection(r),
            switches_per_message(r, r->ready.voluntary, r->loaded.voluntary),
            switches_per_message(r, r->ready.involuntary, r->loaded.involuntary));
}

static void json_errors(FILE *out, const struct load_result *r)
{
    static const char *const keys[ERROR_KINDS] = {
        "connect", "greeting", "wrong_byte", "surplus", "closed", "reset", "other",
    };
    fprintf(out, "  \"errors\": {\"total\": %" PRIu64, errors(r));
    for (int i = 0; i < ERROR_KINDS; i++)
        fprintf(out, ", \"%s\": %" PRIu64, keys[i], r->tally.errors[i]);
    fprintf(out, ", \"first\": ");
    json_string(out, r->first_error);
    fprintf(out, "},\n");
}

void report_json(FILE *out, const struct load_result *r)
{
    const struct load_options *o = r->options;

    fprintf(out, "{\n  \"address\": ");
    json_string(out, r->address);
    fprintf(
        out,
        ",\n  \"options\": {\"mode\": \"%s\", \"connections\": %" PRIu64 ", \"idle\": %" PRIu64
        ", \"threads\": %" PRIu64 ", \"pipeline\": %" PRIu64 ",\n    \"size\": %" PRIu64
        ", \"bulk\": %s, \"rate\": %g, \"think_ms\": %g, \"ramp\": %g, \"duration\": %g, "
        "\"warmup\": %g},\n",
        load_mode_names[o->mode], o->connections, o->idle, o->threads, o->pipeline, o->size,
        o->bulk ? "true" : "false", o->rate, o->think * 1000, o->ramp, o->duration, o->warmup);
    fprintf(out,
            "  \"connections\": {\"made\": %zu, \"idle\": %zu, \"waiting\": %" PRIu64
            ", \"lost\": %zu, \"seconds\": %.6f},\n",
            r->tally.ready, r->tally.idle, result_waiting(r), r->tally.lost, r->opening);
    fprintf(out,
            "  \"seconds\": %.6f,\n  \"interrupted\": %s,\n  \"messages\": %" PRIu64
            ",\n  \"messages_per_second\": %.1f,\n"
            "  \"bytes\": %" PRIu64 ",\n  \"mb_per_second\": %.3f,\n",
            r->window, r->interrupted ? "true" : "false", r->tally.messages,
            per_second(r, (double)r->tally.messages), r->tally.bytes,
            per_second(r, (double)r->tally.bytes / 1e6));
    json_latency(out, "latency_us", r->latency);
    if (r->service != r->latency) {
        json_latency(out, "uncorrected_us", r->service);
        fprintf(out, "  \"late_us\": %.3f,\n", lateness(r) / 1e3);
    }
    fprintf(out,
            "  \"unanswered\": %" PRIu64 ",\n"
            "  \"fairness\": {\"min\": %" PRIu64 ", \"max\": %" PRIu64 "},\n",
            r->unanswered, r->least, r->most);
    json_law(out, r);
    fprintf(out,
            "  \"client\": {\"cpu_seconds\": %.6f, \"cpu_us_per_%s\": %.4f, "
            "\"cpu_share\": %.4f, \"delay_share\": %.4f, \"bottleneck\": %s},\n",
            r->client_cpu, cost_unit(r), cost(r, r->client_cpu) * 1e6,
            client_share(r, r->client_cpu), client_share(r, r->client_delay),
            client_is_bottleneck(r) ? "true" : "false");
    json_server(out, r);
    json_errors(out, r);
    fprintf(out, "  \"missing\": %" PRIu64 ",\n  \"problem\": ", r->missing);
    if (r->problem)
        json_string(out, r->problem);
    else
        fprintf(out, "null");
    fprintf(out, ",\n  \"status\": %d\n}\n", r->status);
}

/* ---- CSV ---- */

void report_csv_header(FILE *out)
{
    fprintf(out, "elapsed_s,connections,messages,messages_per_s,mb_per_s,in_flight,errors,"
                 "p50_us,p90_us,p99_us,p99_9_us,max_us\n");
}

void report_csv_row(FILE *out, double elapsed, double seconds, const struct tally *sum,
                    const struct tally *before, const struct hist *recent)
{
    uint64_t messages = sum->messages - before->messages, failures = 0;

    for (int i = 0; i < ERROR_KINDS; i++)
        failures += sum->errors[i] - before->errors[i];
    fprintf(out, "%.3f,%zu,%" PRIu64 ",%.1f,%.3f,%" PRIu64 ",%" PRIu64, elapsed,
            sum->ready + sum->idle - sum->lost, messages, (double)messages / seconds,
            (double)(sum->bytes - before->bytes) / 1e6 / seconds, sum->in_flight, failures);
    for (int i = 0; i < QUANTILE_COUNT; i++)
        fprintf(out, ",%.3f", (double)hist_quantile(recent, QUANTILES[i].q) / 1e3);
    fprintf(out, ",%.3f\n", (double)recent->max / 1e3);
    fflush(out);
}

/* ---- HdrHistogram's percentile text, in milliseconds ---- */

enum { TICKS_PER_HALF = 5 }; /* percentiles shown each time the distance to 100 % halves */

void report_hgrm(FILE *out, const struct hist *h)
{
    double q = 0;

    fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount",
            "1/(1-Percentile)");
    while (h->count > 0) {
        uint64_t upto, value = hist_quantile_upto(h, q, &upto);
        if (upto == h->count)
            break;
        fprintf(out, "%12.6f %14.12f %10" PRIu64 " %14.2f\n", (double)value / 1e6, q, upto,
                1 / (1 - q));
        double halvings = floor(log2(1 / (1 - q))) + 1;
        q += 1 / (TICKS_PER_HALF * exp2(halvings));
    }
    if (h->count > 0)
        fprintf(out, "%12.6f %14.12f %10" PRIu64 "\n", (double)h->max / 1e6, 1.0, h->count);
    fprintf(out, "#[Mean    = %12.6f, StdDeviation   = %12.6f]\n", hist_mean(h) / 1e6,
            hist_deviation(h) / 1e6);
    fprintf(out, "#[Max     = %12.6f, Total count    = %12" PRIu64 "]\n", (double)h->max / 1e6,
            h->count);
    fprintf(out, "#[Buckets = %12d, SubBuckets     = %12d]\n", HIST_BUCKETS / HIST_HALF,
            2 * HIST_HALF);
}
