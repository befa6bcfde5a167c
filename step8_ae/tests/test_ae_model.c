/* test_ae_model.c - timers against a model: random work on the loop and on a plain array, which
 * must agree on every call. Also what happens when memory is short.
 *
 * ae.c is compiled with a clock and an allocator from this file. AE_SEED=N in the environment
 * repeats a run that failed.
 */
#include "ae.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { LOOK = AE_ALL_EVENTS | AE_DONT_WAIT, NS_PER_MS = 1000000 };

static aeEventLoop *loop;

/* ------------------------------------------------------------------------ the controlled parts
 */

static long long now; /* nanoseconds */

int model_clock_gettime(clockid_t id, struct timespec *t);
int model_clock_gettime(clockid_t id, struct timespec *t)
{
    assert_int_equal(id, CLOCK_MONOTONIC);
    *t = (struct timespec){.tv_sec = (time_t)(now / 1000000000),
                           .tv_nsec = (long)(now % 1000000000)};
    return 0;
}

/* Each block begins with its size. */
union block {
    size_t size;
    max_align_t align;
};

static size_t allocated;                    /* bytes */
static unsigned until_failure = UINT32_MAX; /* how many more allocations succeed */

void *model_realloc(void *p, size_t size);
void *model_malloc(size_t size);
void *model_calloc(size_t n, size_t size);
void model_free(void *p);

void *model_realloc(void *p, size_t size)
{
    union block *before = p == NULL ? NULL : (union block *)p - 1;
    size_t old = before == NULL ? 0 : before->size;

    if (until_failure == 0) {
        errno = ENOMEM;
        return NULL;
    }
    until_failure--;

    union block *b = realloc(before, sizeof *b + size);

    assert_non_null(b);
    allocated += size - old;
    b->size = size;
    return b + 1;
}

void *model_malloc(size_t size)
{
    return model_realloc(NULL, size);
}

void *model_calloc(size_t n, size_t size)
{
    unsigned char *p = model_realloc(NULL, n * size);

    for (size_t i = 0; p != NULL && i < n * size; i++)
        p[i] = 0;
    return p;
}

void model_free(void *p)
{
    if (p != NULL) {
        allocated -= ((union block *)p - 1)->size;
        free((union block *)p - 1);
    }
}

static int set_up(void **state)
{
    (void)state;
    now = 1000 * (long long)NS_PER_MS;
    until_failure = UINT32_MAX;
    allocated = 0;
    loop = aeCreateEventLoop(64);
    return loop == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    aeDeleteEventLoop(loop);
    assert_int_equal(allocated, 0);
    return 0;
}

/* ------------------------------------------------------------------------ the model */

enum { MOST = 1000, STEPS = 1500, RUNS = 60 };

static struct timer {
    long long when;
    enum { NONE, WAITING, CALLED, DELETED, FINALIZED } life;
    unsigned deleted_in; /* this step */
} timers[MOST];          /* by id */
static int created, alive;

/* A pass over the timers that are due: when it began, and which timers it may call. */
static struct {
    long long began;
    int below; /* this id */
    int depth; /* of passes inside passes */
} pass;

static unsigned seed, step;
static uint64_t random_state;

static int random_below(int n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int)((random_state >> 33) % (unsigned)n);
}

#define AGREE(condition)                                                                     \
    do {                                                                                     \
        if (!(condition))                                                                    \
            fail_msg("AE_SEED=%u, step %u, time %lld: not %s", seed, step, now, #condition); \
    } while (0)

/* The timer that this pass calls next, or -1. */
static int next_due(void)
{
    int next = -1;

    for (int id = 0; id < pass.below; id++)
        if (timers[id].life == WAITING && timers[id].when <= pass.began &&
            (next == -1 || timers[id].when < timers[next].when))
            next = id;
    return next;
}

static void mark_deleted(struct timer *t)
{
    t->life = DELETED;
    t->deleted_in = step;
    alive--;
}

static void act(int growth);

static int on_time(aeEventLoop *l, long long id, void *data)
{
    struct timer *t = data;

    (void)l;
    AGREE(id == next_due());
    AGREE(t == &timers[id]);
    t->life = CALLED;
    for (int i = random_below(3); i > 0; i--)
        act(2);

    int again = random_below(3) == 0 ? AE_NOMORE : random_below(20);

    if (t->life == CALLED && again == AE_NOMORE)
        mark_deleted(t);
    if (t->life == CALLED) {
        t->life = WAITING;
        t->when = now + (long long)again * NS_PER_MS;
        if (t->when <= pass.began)
            t->when = pass.began + 1;
    }
    return again;
}

static void on_finalize(aeEventLoop *l, void *data)
{
    struct timer *t = data;

    (void)l;
    AGREE(t->life == DELETED);
    t->life = FINALIZED;
}

/* Sometimes with too little memory. */
static void create(void)
{
    int delay = random_below(30) - 3;

    if (created == MOST)
        return;
    if (random_below(10) == 0)
        until_failure = (unsigned)random_below(3);

    bool short_of_memory = until_failure < 3;
    long long id = aeCreateTimeEvent(loop, delay, on_time, &timers[created], on_finalize);

    until_failure = UINT32_MAX;
    if (id == AE_ERR) {
        AGREE(short_of_memory && errno == ENOMEM);
        return;
    }
    AGREE(id == created);
    timers[created++] = (struct timer){
        .life = WAITING,
        .when = now + (long long)(delay < 0 ? 0 : delay) * NS_PER_MS,
    };
    alive++;
}

/* The timer may not exist, be deleted already, or have its callback running. */
static void delete_one(void)
{
    int id = random_below(created + 2) - 1;
    bool exists =
        id >= 0 && id < created && (timers[id].life == WAITING || timers[id].life == CALLED);

    if (random_below(10) == 0)
        until_failure = 0;
    AGREE(aeDeleteTimeEvent(loop, id) == (exists ? AE_OK : AE_ERR));
    until_failure = UINT32_MAX;
    if (exists)
        mark_deleted(&timers[id]);
}

static void process(void)
{
    long long began = pass.began;
    int below = pass.below;

    pass.began = now;
    pass.below = created;
    pass.depth++;
    aeProcessEvents(loop, LOOK);
    AGREE(next_due() == -1);
    pass.depth--;
    pass.began = began;
    pass.below = below;
}

/* The larger growth is, the more timers there will be. */
static void act(int growth)
{
    int kind = random_below(8);

    if (kind < growth)
        create();
    else if (kind < 4)
        delete_one();
    else if (kind == 4) /* in the other cases time stands still */
        now += random_below(2 * NS_PER_MS);
    else if (kind == 5)
        now += NS_PER_MS;
    else if (kind == 6 && pass.depth < 3)
        process();
}

static void run(void)
{
    const size_t empty = allocated;

    random_state = seed;
    created = alive = 0;
    pass.below = pass.depth = 0;
    for (step = 0; step < STEPS; step++) {
        act(1 + random_below(2) + (int)(step / 100 % 2));
        if (random_below(4) != 0)
            continue;
        process();
        for (int id = 0; id < created; id++) /* deleted earlier: finalized by now */
            AGREE(timers[id].life != DELETED || timers[id].deleted_in == step);
    }
    for (int id = 0; id < created; id++)
        aeDeleteTimeEvent(loop, id);
    for (int id = 0; id < created; id++)
        if (timers[id].life == WAITING)
            mark_deleted(&timers[id]);
    process();
    for (int id = 0; id < created; id++)
        AGREE(timers[id].life == FINALIZED);
    AGREE(alive == 0);
    AGREE(allocated == empty);
}

static void test_agrees_with_the_model(void **state)
{
    const char *given = getenv("AE_SEED");
    unsigned first = given != NULL ? (unsigned)atoll(given) : (unsigned)time(NULL);

    for (seed = first; seed < first + (given != NULL ? 1 : RUNS); seed++) {
        run();
        tear_down(state);
        assert_int_equal(set_up(state), 0);
    }
}

/* ------------------------------------------------------------------------ memory */

static int count_called;

static int on_counted(aeEventLoop *l, long long id, void *data)
{
    (void)l, (void)id, (void)data;
    count_called++;
    return AE_NOMORE;
}

static void test_loses_no_timer_when_memory_is_short(void **state)
{
    const int most = 1000;
    int n = 0;

    (void)state;
    count_called = 0;
    for (unsigned allocations = 0; n < most;) { /* one more, until the call succeeds */
        until_failure = allocations;
        errno = 0;
        if (aeCreateTimeEvent(loop, n % 7, on_counted, NULL, NULL) != AE_ERR) {
            n++;
            allocations = 0;
            continue;
        }
        assert_int_equal(errno, ENOMEM);
        allocations++;
    }
    until_failure = UINT32_MAX;
    now += 7 * NS_PER_MS;
    assert_int_equal(aeProcessEvents(loop, LOOK), most);
    assert_int_equal(count_called, most);
}

static void test_gives_memory_back(void **state)
{
    const size_t empty = allocated;
    long long ids[4096];

    (void)state;
    for (size_t i = 0; i < 4096; i++)
        ids[i] = aeCreateTimeEvent(loop, 1, on_counted, NULL, NULL);

    size_t full = allocated;

    assert_true(full - empty < 4096 * (size_t)200);
    for (int round = 0; round < 50;
         round++) /* many timers, one after the other, need no more */
        for (size_t i = 0; i < 4096; i += 2) {
            assert_int_equal(aeDeleteTimeEvent(loop, ids[i]), AE_OK);
            aeProcessEvents(loop, LOOK);
            ids[i] = aeCreateTimeEvent(loop, 1, on_counted, NULL, NULL);
            assert_true(allocated <= full);
        }
    for (size_t i = 100; i < 4096; i++)
        assert_int_equal(aeDeleteTimeEvent(loop, ids[i]), AE_OK);
    aeProcessEvents(loop, LOOK);
    assert_true(allocated - empty < (full - empty) / 8);
}

static void test_a_loop_that_cannot_be_created_leaves_nothing(void **state)
{
    unsigned allocations = 0;
    aeEventLoop *another;

    (void)state;
    const size_t before = allocated;
    for (;; allocations++) {
        until_failure = allocations;
        another = aeCreateEventLoop(10);
        if (another != NULL)
            break;
        assert_int_equal(allocated, before);
    }
    assert_true(allocations >= 4); /* timers, their structures, two tables of descriptors */
    until_failure = UINT32_MAX;
    aeDeleteEventLoop(another);
    assert_int_equal(allocated, before);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(agrees_with_the_model),
        TEST(loses_no_timer_when_memory_is_short),
        TEST(gives_memory_back),
        TEST(a_loop_that_cannot_be_created_leaves_nothing),
    };

    return cmocka_run_group_tests_name("timers", tests, NULL, NULL);
}
