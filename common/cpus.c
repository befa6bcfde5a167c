#if defined __linux__ && !defined _GNU_SOURCE
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier): for sched_getaffinity */
#endif
#include "cpus.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#endif

enum { PATH_SIZE = 4096 };

/* Reads a line of a file. Returns false if there is none. */
static bool read_line(const char *folder, const char *name, char *line, size_t size)
{
    char path[PATH_SIZE];

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return false;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool found = fgets(line, (int)size, file) != NULL;
    fclose(file);
    return found;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* The quota of one group, in CPUs. "max" (version 2) and -1 (version 1) mean none. */
static int quota_of_group(const char *folder)
{
    char line[100];
    long long quota = -1, period = 0;

    if (read_line(folder, "cpu.max", line, sizeof line)) {
        if (sscanf(line, "%lld %lld", &quota, &period) != 2)
            return INT_MAX;
    } else if (read_line(folder, "cpu.cfs_quota_us", line, sizeof line) &&
               sscanf(line, "%lld", &quota) == 1 &&
               read_line(folder, "cpu.cfs_period_us", line, sizeof line)) {
        sscanf(line, "%lld", &period);
    }
    if (quota <= 0 || period <= 0 || quota / period >= INT_MAX)
        return INT_MAX;
    return (int)((quota + period - 1) / period);
}

/* The smallest quota of a group and of those that contain it. In a container the path of the
 * group may not exist under root; then root itself is the container's group. */
static int quota_of_path(const char *root, const char *path)
{
    char folder[PATH_SIZE];
    int least = INT_MAX;

    if (snprintf(folder, sizeof folder, "%s%s", root, path) >= (int)sizeof folder)
        return INT_MAX;
    for (char *end = folder + strlen(folder); end != NULL;
         end = strrchr(folder + strlen(root), '/')) {
        *end = '\0';
        least = smaller(least, quota_of_group(folder));
    }
    return least;
}

int cpus_of_quota(const char *groups, const char *root)
{
    char line[PATH_SIZE], controllers[200], top[PATH_SIZE];
    int least = INT_MAX;
    FILE *file = fopen(groups, "re");

    /* A line is NUMBER:CONTROLLERS:PATH; version 2 has number 0 and no controllers. */
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (path == NULL)
            continue;
        snprintf(controllers, sizeof controllers, ",%.*s,", (int)(path - names - 1), names + 1);
        if (path == names + 1)
            least = smaller(least, quota_of_path(root, path + 1));
        if (strstr(controllers, ",cpu,") != NULL &&
            snprintf(top, sizeof top, "%s/%.*s", root, (int)(path - names - 1), names + 1) <
                (int)sizeof top)
            least = smaller(least, quota_of_path(top, path + 1));
    }
    if (file != NULL)
        fclose(file);
    return least;
}

#ifdef __linux__

int cpus_allowed(void)
{
    cpu_set_t set; /* room for 1024; with more CPUs the call fails */
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                        : (int)sysconf(_SC_NPROCESSORS_ONLN);

    n = smaller(n, cpus_of_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
    return n > 0 ? n : 1;
}

int cpus_pin(int number)
{
    cpu_set_t allowed, one;

    if (sched_getaffinity(0, sizeof allowed, &allowed) == -1)
        return errno;
    number %= CPU_COUNT(&allowed);
    for (int cpu = 0;; cpu++)
        if (CPU_ISSET((unsigned)cpu, &allowed) && number-- == 0) {
            CPU_ZERO(&one);
            CPU_SET((unsigned)cpu, &one);
            return pthread_setaffinity_np(pthread_self(), sizeof one, &one);
        }
}

#else

int cpus_allowed(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n > 0 && n < INT_MAX ? (int)n : 1;
}

int cpus_pin(int number)
{
    (void)number;
    return ENOTSUP;
}

#endif
