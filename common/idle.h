/* Which client has been idle for longest? A list of clients in the order of their last activity
 * (if there is no limit: of their arrival). A client that was active moves to the end, so the
 * first one is the only one to look at. All functions but idle_restart take O(1). A node is
 * embedded in the client's own struct, as its first member, so that a pointer to one is a
 * pointer to the other. */
#ifndef IDLE_H
#define IDLE_H

#include <stdbool.h>
#include <stdint.h>

struct idle_node {
    struct idle_node *prev, *next; /* NULL at the ends */
    uint32_t last_active;          /* milliseconds of the monotonic clock; it wraps */
};

struct idle_list {
    struct idle_node *first, *last; /* the first has been idle for longest */
    int limit_ms;                   /* of idleness; 0 = no limit, and then no clock is read */
};

/* Empties the list. limit_ms is 0 or more; usually options->idle_timeout_ms. */
void idle_init(struct idle_list *list, int limit_ms);

/* Adds a client, which is active now; removes a client. */
void idle_add(struct idle_list *list, struct idle_node *node);
void idle_remove(struct idle_list *list, struct idle_node *node);

/* Moves a client to the end: it is active now. */
void idle_touch(struct idle_list *list, struct idle_node *node);

/* Returns the first client if it has been idle for limit_ms or longer, else NULL. The caller
 * then closes it; or touches it, if it is not idle after all. */
struct idle_node *idle_expired(const struct idle_list *list);

/* Milliseconds until idle_expired returns a client, rounded up; -1 = never. */
int idle_expiry_ms(const struct idle_list *list);

/* Every client counts as active now, and limit_ms is the new limit. For a stop. */
void idle_restart(struct idle_list *list, int limit_ms);

/* How long the client has been idle, in milliseconds. It wraps after 49 days. */
uint32_t idle_ms(const struct idle_node *node);

/* Is the client not idle after all? Progress that the caller has not seen counts: output that
 * has drained since the last activity, or unread input. The second matters after the server was
 * suspended. sendq_before is net_sendq(fd) at the last activity if output is waiting, else -1.
 * At a stop a client may take its output until the deadline, so then it is never idle. */
bool idle_has_progress(int fd, int sendq_before);

#endif
