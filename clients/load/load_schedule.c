/* load_schedule.c - see load_schedule.h. */
#include "load_schedule.h"

uint64_t schedule_due(const struct worker *w, uint64_t k)
{
    return w->start + (uint64_t)(w->offset + (double)k * w->period);
}

/* ---- open loop ---- */

/* Sends the messages of this connection that are due and for which it has room. */
static void send_due(struct connection *c, uint64_t now)
{
    struct worker *w = c->worker;
    for (;;) {
        uint64_t k = c->begun * w->active + c->index;
        if (k >= w->next || c->in_flight == w->plan->depth)
            break;
        connection_begin_message(c, schedule_due(w, k), now);
    }
    connection_push(c);
}

static void send_scheduled(struct worker *w, uint64_t now)
{
    for (uint64_t due; (due = schedule_due(w, w->next)) <= now && due < w->end;) {
        size_t turn = w->next++ % w->active;
        if (turn >= w->tally.opened)
            continue;
        struct connection *c = connection_at(w, turn);
        if (c->state == READY && c->in_flight < w->plan->depth) {
            w->tally.on_time++;
            w->tally.late_ns += (double)(now - due);
            send_due(c, now);
        }
    }
}

/* ---- closed loop ---- */

static void send_batch(struct connection *c, unsigned n, uint64_t now)
{
    while (n-- > 0)
        connection_begin_message(c, now, now);
    connection_push(c);
}

/* The think time is the same for all connections, so the queue is in the order of waking. */
static void think(struct connection *c, uint64_t until)
{
    struct worker *w = c->worker;
    c->wakes = until;
    c->next = NULL;
    *w->last_thinker = c;
    w->last_thinker = &c->next;
}

static void wake_thinkers(struct worker *w, uint64_t now)
{
    while (w->thinkers && w->thinkers->wakes <= now) {
        struct connection *c = w->thinkers;
        w->thinkers = c->next;
        if (!w->thinkers)
            w->last_thinker = &w->thinkers;
        if (c->state == READY && now < w->end)
            send_batch(c, w->plan->depth, now);
    }
}

/* ---- bulk ---- */

static void send_bulk(struct connection *c, uint64_t now)
{
    while (c->unsent < WIRE_WINDOW && now < c->worker->end)
        connection_begin_message(c, now, now);
    connection_push(c);
    if (c->state == READY)
        connection_watch_writable(c, c->unsent > 0 || now < c->worker->end);
}

/* ---- what a connection does next ---- */

void schedule_answered(struct connection *c, unsigned done, uint64_t now)
{
    const struct worker *w = c->worker;
    const struct load_plan *plan = w->plan;

    if (now >= w->end || plan->bulk)
        return;
    if (plan->rate > 0) {
        send_due(c, now);
    } else if (plan->think == 0) {
        send_batch(c, done, now);
    } else if (c->in_flight == 0) {
        think(c, now + plan->think);
    }
}

void schedule_ready(struct connection *c, uint64_t now)
{
    const struct load_plan *plan = c->worker->plan;

    if (!connection_is_active(c) || c->state != READY || now >= c->worker->end)
        return;
    if (plan->bulk) {
        send_bulk(c, now);
    } else if (plan->rate > 0) {
        send_due(c, now);
    } else {
        send_batch(c, plan->depth, now);
    }
}

void schedule_writable(struct connection *c, uint64_t now)
{
    if (c->worker->plan->bulk)
        send_bulk(c, now);
    else
        connection_push(c);
}

void schedule_start(struct worker *w)
{
    uint64_t now = now_ns();

    for (size_t i = 0; i < w->active && i < w->tally.opened; i++) {
        struct connection *c = connection_at(w, i);
        if (w->plan->think > 0 && c->state == READY) /* not all in the same instant */
            think(c, w->start + w->plan->think * i / w->active);
        else
            schedule_ready(c, now);
    }
}

void schedule_run(struct worker *w, uint64_t now)
{
    if (w->started && w->plan->rate > 0)
        send_scheduled(w, now);
    wake_thinkers(w, now);
}

uint64_t schedule_next(const struct worker *w)
{
    if (w->thinkers)
        return w->thinkers->wakes;
    if (w->started && w->plan->rate > 0 && schedule_due(w, w->next) < w->end)
        return schedule_due(w, w->next);
    return NEVER;
}
