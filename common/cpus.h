/* How many CPUs this process may use, and on which a thread runs. */
#ifndef CPUS_H
#define CPUS_H

/* Returns how many CPUs this process may use, at least 1: no more than its affinity allows
 * (sched_setaffinity(2)) and than its control groups allow (a quota of 150 % is rounded up to
 * 2). Containers set either. */
int cpus_allowed(void);

/* Returns what the quotas of control groups allow, rounded up; INT_MAX where there is none.
 * `groups` is a file such as /proc/self/cgroup, `root` a folder such as /sys/fs/cgroup. Reads
 * cpu.max of version 2, and cpu.cfs_quota_us of version 1 (cgroups(7)). */
int cpus_of_quota(const char *groups, const char *root);

/* Lets the calling thread run on one CPU only: the one of this number, modulo how many there
 * are, among those that are allowed. Returns 0 or an error number. */
int cpus_pin(int number);

#endif
