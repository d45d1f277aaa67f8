/* ring: entries that their owners embed, in the order in which they were added; each is taken out in constant time. */
#ifndef SHOAL_NET_RING_H
#define SHOAL_NET_RING_H

#include <stdbool.h>
#include <stddef.h>

struct ring { /* The head, or an entry; an entry's `next` is NULL while it stands in none. */
  struct ring *next, *previous;
};

#define OWNER(entry, type, member) ((type *)(void *)((char *)(entry) - offsetof(type, member)))

static inline void ring_init(struct ring *head) { head->next = head->previous = head; }
static inline struct ring *ring_first(struct ring *head) { return head->next == head ? NULL : head->next; }
static inline struct ring *ring_after(struct ring *head, struct ring *e) { return e->next == head ? NULL : e->next; }
static inline void ring_add(struct ring *head, struct ring *e) {
  e->next = head;
  e->previous = head->previous;
  head->previous->next = e;
  head->previous = e;
}
static inline void ring_remove(struct ring *e) {
  if (!e->next) return;
  e->next->previous = e->previous;
  e->previous->next = e->next;
  e->next = e->previous = NULL;
}

#endif
