/* cpus.h: the quotas of control groups, both versions, and where a thread runs. */
#if defined __linux__ && !defined _GNU_SOURCE
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier): for sched_getaffinity */
#endif
#include "cpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#endif

enum { PATH_SIZE = 200 };

static char top[] = "/tmp/cpus.XXXXXX";

static const char *in_top(const char *name)
{
    static char path[2 * PATH_SIZE];

    snprintf(path, sizeof path, "%s/%s", top, name);
    return path;
}

/* Writes a file, and makes the folder that it is in. */
static void write_file(const char *folder, const char *name, const char *text)
{
    char path[PATH_SIZE];

    mkdir(in_top(folder), 0700);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(in_top(path), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* The quota if /proc/self/cgroup has this text. */
static int quota(const char *groups)
{
    char path[PATH_SIZE];

    write_file(".", "groups", groups);
    snprintf(path, sizeof path, "%s/groups", top);
    return cpus_of_quota(path, top);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(top) == NULL ? -1 : 0;
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"groups",
                                        "cpu.max",
                                        "a/b/cpu.max",
                                        "a/cpu.max",
                                        "a/b",
                                        "a",
                                        "cpu/cpu.cfs_quota_us",
                                        "cpu/cpu.cfs_period_us",
                                        "cpu",
                                        "cpu,cpuacct/x/cpu.cfs_quota_us",
                                        "cpu,cpuacct/x/cpu.cfs_period_us",
                                        "cpu,cpuacct/x",
                                        "cpu,cpuacct"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        remove(in_top(names[i]));
    return rmdir(top);
}

static void version_2_the_smallest_quota_counts(void **state)
{
    (void)state;
    assert_int_equal(quota("0::/a/b\n"), INT_MAX); /* no files yet */
    write_file("a", "cpu.max", "max 100000\n");
    write_file("a/b", "cpu.max", "max 100000\n");
    assert_int_equal(quota("0::/a/b\n"), INT_MAX);
    write_file("a/b", "cpu.max", "400000 100000\n");
    assert_int_equal(quota("0::/a/b\n"), 4);
    write_file("a", "cpu.max", "150000 100000\n");
    assert_int_equal(quota("0::/a/b\n"), 2); /* of the group around it, rounded up */
    write_file(".", "cpu.max", "1000 100000\n");
    assert_int_equal(quota("0::/a/b\n"), 1);
    assert_int_equal(quota("0::/\n"), 1);
    assert_int_equal(quota("0::/not/visible/in/a/container\n"), 1);
    assert_int_equal(quota("nonsense\n:\n"), INT_MAX);
    write_file(".", "cpu.max", "0 0\n");
    assert_int_equal(quota("0::/\n"), INT_MAX);
    write_file(".", "cpu.max", "\n");
    assert_int_equal(quota("0::/\n"), INT_MAX);
}

static void version_1_has_a_folder_for_each_controller(void **state)
{
    (void)state;
    write_file("cpu", "cpu.cfs_quota_us", "-1\n");
    write_file("cpu", "cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota("3:cpuset:/x\n1:cpu:/\n"), INT_MAX);
    write_file("cpu", "cpu.cfs_quota_us", "250000\n");
    assert_int_equal(quota("3:cpuset:/x\n1:cpu:/\n"), 3);
    assert_int_equal(quota("3:cpuset:/x\n1:cpuacct:/\n"), INT_MAX);
    mkdir(in_top("cpu,cpuacct"), 0700);
    write_file("cpu,cpuacct/x", "cpu.cfs_quota_us", "50000\n");
    write_file("cpu,cpuacct/x", "cpu.cfs_period_us", "50000\n");
    assert_int_equal(quota("4:cpu,cpuacct:/x\n"), 1);
}

static void without_groups_there_is_no_quota(void **state)
{
    (void)state;
    assert_int_equal(cpus_of_quota("/no/such/file", "/no/such/folder"), INT_MAX);
    assert_true(cpus_allowed() >= 1);
}

#ifdef __linux__
static void affinity_limits_the_cpus(void **state)
{
    cpu_set_t before, now;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_true(cpus_allowed() <= CPU_COUNT(&before));
    for (int number = 0; number < 3; number++) {
        assert_int_equal(cpus_pin(number), 0);
        assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
        assert_int_equal(CPU_COUNT(&now), 1);
        assert_int_equal(cpus_allowed(), 1);
        assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    }
    if (CPU_COUNT(&before) == 1)
        return;
    cpus_pin(1);
    sched_getaffinity(0, sizeof now, &now);
    sched_setaffinity(0, sizeof before, &before);
    cpus_pin(0);
    cpu_set_t other;
    sched_getaffinity(0, sizeof other, &other);
    sched_setaffinity(0, sizeof before, &before);
    assert_false(CPU_EQUAL(&now, &other));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_2_the_smallest_quota_counts),
        cmocka_unit_test(version_1_has_a_folder_for_each_controller),
        cmocka_unit_test(without_groups_there_is_no_quota),
#ifdef __linux__
        cmocka_unit_test(affinity_limits_the_cpus),
#endif
    };

    return cmocka_run_group_tests_name("cpus", tests, make_folder, remove_folder);
}
