#include "idle.h"
#include "clock.h"
#include "net.h"
#include "stop.h"

#include <stddef.h>

static uint32_t now(void)
{
    return (uint32_t)clock_ms();
}

void idle_init(struct idle_list *list, int limit_ms)
{
    *list = (struct idle_list){.limit_ms = limit_ms};
}

static void append(struct idle_list *list, struct idle_node *node)
{
    node->prev = list->last;
    node->next = NULL;
    *(node->prev != NULL ? &node->prev->next : &list->first) = node;
    list->last = node;
}

void idle_add(struct idle_list *list, struct idle_node *node)
{
    node->last_active = list->limit_ms > 0 ? now() : 0;
    append(list, node);
}

void idle_remove(struct idle_list *list, struct idle_node *node)
{
    *(node->prev != NULL ? &node->prev->next : &list->first) = node->next;
    *(node->next != NULL ? &node->next->prev : &list->last) = node->prev;
}

void idle_touch(struct idle_list *list, struct idle_node *node)
{
    if (list->limit_ms == 0)
        return;
    node->last_active = now();
    if (node->next != NULL) {
        idle_remove(list, node);
        append(list, node);
    }
}

void idle_restart(struct idle_list *list, int limit_ms)
{
    list->limit_ms = limit_ms;
    for (struct idle_node *node = list->first; node != NULL; node = node->next)
        node->last_active = now();
}

uint32_t idle_ms(const struct idle_node *node)
{
    return now() - node->last_active; /* right even when the clock has wrapped */
}

struct idle_node *idle_expired(const struct idle_list *list)
{
    return idle_expiry_ms(list) == 0 ? list->first : NULL;
}

int idle_expiry_ms(const struct idle_list *list)
{
    if (list->limit_ms == 0 || list->first == NULL)
        return -1;
    uint32_t idle = idle_ms(list->first);
    return idle >= (uint32_t)list->limit_ms ? 0 : list->limit_ms - (int)idle;
}

bool idle_has_progress(int fd, int sendq_before)
{
    if (sendq_before < 0)
        return net_readable(fd, 0);
    return stop_requested() || net_sendq(fd) < sendq_before;
}
