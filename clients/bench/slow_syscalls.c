/* slow_syscalls.c - runs a program and makes each of its system calls slower.
 *
 *     slow_syscalls N PROGRAM [ARGUMENT]...    each call costs N extra divisions
 *     slow_syscalls N                          prints what a call then costs, in nanoseconds
 *
 * The cost of a system call differs several times over between machines. It depends on the
 * processor, on the protection against speculation attacks, and on the seccomp(2) filters that
 * a container installs. This program installs such a filter, which computes for a while and
 * then allows the call. So it shows on any machine how a server depends on the cost of a call.
 * Requests of io_uring are not system calls, and the filter does not delay them. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4000, CALLS = 200000, FAILED = 1, USAGE = 2 };

/* The filter divides the address of the call. If it looked only at the call's number, the
 * kernel would know the answer in advance and would not run the filter. */
static void install_filter(long divisions)
{
    static struct sock_filter filter[MOST + 3];
    struct sock_fprog program = {.filter = filter};
    const struct sock_filter load =
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer));
    const struct sock_filter divide = BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 7);
    const struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);

    filter[program.len++] = load;
    while (program.len <= divisions)
        filter[program.len++] = divide;
    filter[program.len++] = allow;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                &program) != 0) {
        fprintf(stderr, "slow_syscalls: this system allows no filter: %s\n", strerror(errno));
        exit(FAILED);
    }
}

static double nanoseconds_per_call(void)
{
    struct timespec before, after;

    clock_gettime(CLOCK_MONOTONIC, &before);
    for (int i = 0; i < CALLS; i++)
        syscall(SYS_getppid);
    clock_gettime(CLOCK_MONOTONIC, &after);
    return ((double)(after.tv_sec - before.tv_sec) * 1e9 +
            (double)(after.tv_nsec - before.tv_nsec)) /
           CALLS;
}

int main(int argc, char **argv)
{
    char *end = NULL;
    long divisions = argc > 1 ? strtol(argv[1], &end, 10) : 0;

    if (argc < 2 || end == argv[1] || *end != '\0' || divisions < 0 || divisions > MOST) {
        fprintf(stderr, "usage: slow_syscalls N [PROGRAM [ARGUMENT]...], with N from 0 to %d\n",
                MOST);
        return USAGE;
    }
    install_filter(divisions);
    if (argc == 2) {
        printf("%.0f\n", nanoseconds_per_call());
        return 0;
    }
    execvp(argv[2], argv + 2);
    fprintf(stderr, "slow_syscalls: %s: %s\n", argv[2], strerror(errno));
    return FAILED;
}
