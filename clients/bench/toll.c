/* toll.c - runs a program all of whose system calls cost more.
 *
 *     toll N PROGRAM [ARGUMENT]...    each call is examined first, by N divisions
 *     toll N                          prints what a call then costs, in nanoseconds
 *
 * What a system call costs differs several times over between machines: by the processor, by
 * what is done against attacks on its speculation, by the filters that a container puts before
 * each call. This is such a filter, seccomp(2), one that computes and then allows everything.
 * So one can see which server lives on few calls without finding the machine where it counts:
 * the requests of io_uring are no calls, and pass free of charge. */
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

/* What is divided is where the call was made: of a filter that looks at its number alone the
 * kernel knows the answer in advance, and does not run it. */
static void put_up(long divisions)
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
        fprintf(stderr, "toll: this system allows no filter: %s\n", strerror(errno));
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
        fprintf(stderr, "usage: toll N [PROGRAM [ARGUMENT]...], with N from 0 to %d\n", MOST);
        return USAGE;
    }
    put_up(divisions);
    if (argc == 2) {
        printf("%.0f\n", nanoseconds_per_call());
        return 0;
    }
    execvp(argv[2], argv + 2);
    fprintf(stderr, "toll: %s: %s\n", argv[2], strerror(errno));
    return FAILED;
}
