/* coroutine.h - a function with a stack of its own. It can stop in the middle and go on later.
 *
 * It uses ucontext(3). POSIX removed it in 2008, but glibc, macOS and FreeBSD have it, so there
 * is nothing to install and no assembly here. The price is one system call for each switch,
 * which saves the signal mask. The sanitizers must know which stack is in use, so each switch
 * is reported to them. */
#ifndef COROUTINE_H
#define COROUTINE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined __SANITIZE_ADDRESS__ || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define WITH_ASAN  1
#define ASAN(call) call
#else
#define WITH_ASAN  0
#define ASAN(call) ((void)0)
#endif
#if defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
#include <sanitizer/tsan_interface.h>
#define TSAN(call) call
#else
#define TSAN(call) ((void)0)
#endif

enum {
    STACK_SIZE = 128 * 1024, /* of addresses: only pages that are touched cost memory */
    GUARD_SIZE = 64 * 1024,  /* a multiple of the page size on every system */
};

struct coroutine {
    ucontext_t context; /* where it goes on */
    void (*run)(void);
    char *guard;          /* the mapping: the guard, and above it the stack */
    const void *bottom;   /* of the stack */
    size_t size;          /* of the stack */
    void *sanitizer_data; /* belongs to the sanitizer */
    bool ended;           /* run has returned */
};

static struct coroutine program; /* the program's own stack: it resumes the others */
static struct coroutine *resumed;

static void switch_stacks(struct coroutine *here, struct coroutine *to)
{
    TSAN(__tsan_switch_to_fiber(to->sanitizer_data, 0));
    ASAN(__sanitizer_start_switch_fiber(here->ended ? NULL : &here->sanitizer_data, to->bottom,
                                        to->size));
#if WITH_ASAN
    /* AddressSanitizer's own swapcontext warns of switches, although they were reported. */
    volatile bool is_back = false;
    getcontext(&here->context);
    if (!is_back) {
        is_back = true;
        setcontext(&to->context);
    }
#else
    swapcontext(&here->context, &to->context);
#endif
    ASAN(__sanitizer_finish_switch_fiber(here->sanitizer_data, NULL, NULL));
}

/* Runs a coroutine until it yields or ends. A coroutine must not call this. */
static void coroutine_resume(struct coroutine *c)
{
    TSAN(program.sanitizer_data = __tsan_get_current_fiber());
    resumed = c;
    switch_stacks(&program, c);
}

/* Stops the coroutine that calls it. Returns when the coroutine is resumed. */
static void coroutine_yield(void)
{
    switch_stacks(resumed, &program);
}

static void coroutine_begin(void)
{
    ASAN(__sanitizer_finish_switch_fiber(NULL, &program.bottom, &program.size));
    resumed->run();
    resumed->ended = true;
    coroutine_yield();
}

/* Makes a coroutine that calls run once it is resumed. Returns -1 with errno if there is no
 * memory for its stack. The stack grows downwards, towards the guard, which cannot be accessed:
 * a coroutine that needs more stack crashes at once and overwrites nothing. */
static int coroutine_create(struct coroutine *c, void (*run)(void))
{
    char *guard = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (guard == MAP_FAILED)
        return -1;
    if (mprotect(guard, GUARD_SIZE, PROT_NONE) == -1) {
        munmap(guard, GUARD_SIZE + STACK_SIZE);
        return -1;
    }
    getcontext(&c->context);
    c->guard = guard;
    c->context.uc_stack.ss_sp = guard + GUARD_SIZE;
    c->context.uc_stack.ss_size = STACK_SIZE;
    c->bottom = guard + GUARD_SIZE;
    c->size = STACK_SIZE;
    c->run = run;
    c->ended = false;
    makecontext(&c->context, coroutine_begin, 0);
    /* An older stack at this address may have left its marks. */
    ASAN(__asan_unpoison_memory_region(c->bottom, c->size));
    TSAN(c->sanitizer_data = __tsan_create_fiber(0));
    return 0;
}

static void coroutine_free(struct coroutine *c)
{
    TSAN(__tsan_destroy_fiber(c->sanitizer_data));
    munmap(c->guard, GUARD_SIZE + STACK_SIZE);
}

#endif
