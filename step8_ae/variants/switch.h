/* switch.h - going from one stack to another, with ucontext(3): makecontext and swapcontext.
 *
 * POSIX dropped them in 2008, but every libc this builds on has them, so there is nothing to
 * install and no assembly of ours. Their price is a system call for each switch, to save the
 * signal mask. Sanitizers keep books about stacks and must be told of each switch.
 */
#ifndef SWITCH_H
#define SWITCH_H

#include <stdbool.h>
#include <stddef.h>
#include <ucontext.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined __SANITIZE_ADDRESS__ || __has_feature(address_sanitizer)
#define SWITCH_TELL_ASAN
#include <sanitizer/asan_interface.h>
#elif defined __SANITIZE_THREAD__ || __has_feature(thread_sanitizer)
#define SWITCH_TELL_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* A stack, and where its program goes on when it is next switched to. Zero it to begin. */
struct stack {
    ucontext_t context;
    const void *bottom; /* of its memory, `size` bytes; the first stack's need not be known */
    size_t size;
    void *books; /* a sanitizer's own */
};

/* Makes run(), which never returns, what a switch to the new stack starts. */
static inline void stack_prepare(struct stack *s, void *bottom, size_t size, void (*run)(void))
{
    getcontext(&s->context);
    s->context.uc_stack.ss_sp = bottom;
    s->context.uc_stack.ss_size = size;
    s->context.uc_link = NULL;
    s->bottom = bottom;
    s->size = size;
#ifdef SWITCH_TELL_ASAN
    __asan_unpoison_memory_region(bottom, size); /* another stack may have been here */
#elif defined SWITCH_TELL_TSAN
    s->books = __tsan_create_fiber(0);
#endif
    makecontext(&s->context, run, 0);
}

/* The first thing run() does; stack_switch does it for those who return. */
static inline void stack_arrived(struct stack *here, struct stack *from)
{
#ifdef SWITCH_TELL_ASAN
    __sanitizer_finish_switch_fiber(here->books, &from->bottom, &from->size);
#endif
    (void)here;
    (void)from;
}

/* Leaves one stack for another, and returns when that one, or `for_good` never, comes back. */
static inline void stack_switch(struct stack *here, struct stack *to, bool for_good)
{
#ifdef SWITCH_TELL_ASAN
    __sanitizer_start_switch_fiber(for_good ? NULL : &here->books, to->bottom, to->size);
#elif defined SWITCH_TELL_TSAN
    here->books = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->books, 0);
#endif
    (void)for_good;
#ifdef SWITCH_TELL_ASAN /* its swapcontext warns of what we tell it here */
    volatile bool back = false;
    getcontext(&here->context);
    if (!back) {
        back = true;
        setcontext(&to->context);
    }
#else
    swapcontext(&here->context, &to->context);
#endif
    stack_arrived(here, to);
}

/* Before its memory is freed: nobody will switch to it again. */
static inline void stack_forget(struct stack *s)
{
#ifdef SWITCH_TELL_TSAN
    __tsan_destroy_fiber(s->books);
#endif
    (void)s;
}

#endif
