/* load_process.c - see load_process.h. All figures come from /proc except the CPU time: a
 * process's CPU clock counts nanoseconds, /proc/PID/stat only hundredths of a second. */
#include "load_process.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static FILE *open_proc(pid_t pid, const char *file)
{
    char path[128];
    snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, file);
    return fopen(path, "re");
}

/* Adds up the fields called `name` in a file of lines "name: number ...". */
static uint64_t field(pid_t pid, const char *file, const char *name)
{
    FILE *f = open_proc(pid, file);
    char line[256];
    uint64_t sum = 0, value;
    size_t length = strlen(name);

    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, length) == 0 &&
            sscanf(line + length, ": %" SCNu64, &value) == 1)
            sum += value;
    if (f)
        fclose(f);
    return sum;
}

const char *process_obstacle(pid_t pid)
{
    FILE *f = open_proc(pid, "status");
    if (!f)
        return "this system has no /proc, or hides the processes of other users";
    fclose(f);
    return NULL;
}

/* Calls visit for the process itself (child false) and for each process it has forked, except
 * for this client if the server has started it. */
static void each_process(pid_t pid, void (*visit)(pid_t, bool child, void *), void *data)
{
    char file[64];
    long child;

    visit(pid, false, data);
    snprintf(file, sizeof file, "task/%ld/children", (long)pid);
    FILE *f = open_proc(pid, file);
    while (f && fscanf(f, "%ld", &child) == 1)
        if (child != getpid())
            visit((pid_t)child, true, data);
    if (f)
        fclose(f);
}

/* Calls visit for the path of each thread's directory below /proc/PID. */
static void each_thread(pid_t pid, void (*visit)(pid_t, const char *task, void *), void *data)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
    DIR *tasks = opendir(path);

    for (const struct dirent *entry; tasks && (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "task/%.20s", entry->d_name);
        visit(pid, path, data);
    }
    if (tasks)
        closedir(tasks);
}

static void add_cpu(pid_t pid, bool child, void *sum)
{
    (void)child;
#ifdef __linux__ /* other systems have this clock only for the own process */
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &t) == 0)
        *(double *)sum += (double)t.tv_sec + (double)t.tv_nsec / 1e9;
#else
    (void)pid, (void)sum;
#endif
}

double process_cpu(pid_t pid)
{
    double sum = 0;
    each_process(pid, add_cpu, &sum);
    return sum;
}

static void add_delay(pid_t pid, const char *task, void *sum)
{
    char path[80];
    double ns;
    snprintf(path, sizeof path, "%s/schedstat", task);
    FILE *f = open_proc(pid, path);
    if (f && fscanf(f, "%*s %lf", &ns) == 1)
        *(double *)sum += ns / 1e9;
    if (f)
        fclose(f);
}

double process_delay(pid_t pid)
{
    double sum = 0;
    each_thread(pid, add_delay, &sum);
    return sum;
}

/* The status file of a process counts the switches of its main thread only. */
static void add_switches(pid_t pid, const char *task, void *data)
{
    struct process_sight *sight = data;
    char path[80];
    snprintf(path, sizeof path, "%s/status", task);
    sight->threads++;
    sight->voluntary += field(pid, path, "voluntary_ctxt_switches");
    sight->involuntary += field(pid, path, "nonvoluntary_ctxt_switches");
}

static void add_process(pid_t pid, bool child, void *data)
{
    struct process_sight *sight = data;
    uint64_t kib;

    /* smaps_rollup is exact; the figures in status may be some dozens of pages behind */
    if (child)
        kib = field(pid, "smaps_rollup", "Private_Clean") +
              field(pid, "smaps_rollup", "Private_Dirty");
    else if ((kib = field(pid, "smaps_rollup", "Rss")) == 0)
        kib = field(pid, "status", "VmRSS");
    sight->resident += kib * 1024;
    sight->processes++;
    each_thread(pid, add_switches, sight);
}

void process_look(pid_t pid, struct process_sight *sight)
{
    *sight = (struct process_sight){0};
    each_process(pid, add_process, sight);
}
