/* coroutine.h - a function on a stack of its own, which can stop in the middle and go on later.
 *
 * Made of ucontext(3). POSIX dropped it in 2008, but glibc, macOS and FreeBSD have it, so there
 * is nothing to install, and no assembly of ours. Its price is a system call for each switch,
 * to keep the signal mask. Sanitizers keep books about stacks, and are told of each switch. */
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
#define TELL_ASAN(call) call
#else
#define TELL_ASAN(call) ((void)0)
#endif
#if defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
#include <sanitizer/tsan_interface.h>
#define TELL_TSAN(call) call
#else
#define TELL_TSAN(call) ((void)0)
#endif

enum {
    STACK_SIZE = 128 * 1024, /* of addresses: only the pages touched cost memory */
    GUARD_SIZE = 64 * 1024,  /* whole pages, however large the system's are */
};

struct coroutine {
    ucontext_t context; /* where it goes on */
    void (*run)(void);
    char *guard;        /* the stack is above it */
    const void *bottom; /* of the stack */
    size_t size;
    void *books; /* a sanitizer's own */
    bool ended;  /* run has returned */
};

static struct coroutine program; /* the program's own stack, which resumes the others */
static struct coroutine *resumed;

static void switch_stacks(struct coroutine *here, struct coroutine *to)
{
    TELL_TSAN(__tsan_switch_to_fiber(to->books, 0));
    TELL_ASAN(__sanitizer_start_switch_fiber(here->ended ? NULL : &here->books, to->bottom,
                                             to->size));
#if defined __SANITIZE_ADDRESS__ || __has_feature(address_sanitizer)
    volatile bool back = false; /* its swapcontext would warn of what it has just been told */
    getcontext(&here->context);
    if (!back) {
        back = true;
        setcontext(&to->context);
    }
#else
    swapcontext(&here->context, &to->context);
#endif
    TELL_ASAN(__sanitizer_finish_switch_fiber(here->books, NULL, NULL));
}

/* Goes on with a coroutine until it yields or has ended. Not to be called by a coroutine. */
static void coroutine_resume(struct coroutine *c)
{
    TELL_TSAN(program.books = __tsan_get_current_fiber());
    resumed = c;
    switch_stacks(&program, c);
}

/* Called by a coroutine: stops it. Returns when it is resumed. */
static void coroutine_yield(void)
{
    switch_stacks(resumed, &program);
}

static void coroutine_begin(void)
{
    TELL_ASAN(__sanitizer_finish_switch_fiber(NULL, &program.bottom, &program.size));
    resumed->run();
    resumed->ended = true;
    coroutine_yield();
}

/* Makes a coroutine that will run(), once it is resumed. Returns -1 with errno if there is no
 * memory for its stack. That grows downwards, to the guard, which nobody may touch: who needs
 * more than there is shall crash, not write elsewhere. */
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
    TELL_ASAN(__asan_unpoison_memory_region(c->bottom, c->size)); /* after another's stack */
    TELL_TSAN(c->books = __tsan_create_fiber(0));
    return 0;
}

static void coroutine_free(struct coroutine *c)
{
    TELL_TSAN(__tsan_destroy_fiber(c->books));
    munmap(c->guard, GUARD_SIZE + STACK_SIZE);
}

#endif
