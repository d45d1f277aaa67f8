/* heap: deadlines in order, each with a stable handle, so that one can be moved or removed in O(log n).
 *
 * A handle is a small integer, reused after its entry is removed; it can index an array of the owner's that grows with
 * `capacity`. The owner chooses `key`; from it a handler knows which deadline came. Entries of one instant come out by
 * rising key, in whatever order they were added. Zeroed memory is an empty heap. */
#ifndef SHOAL_HEAP_H
#define SHOAL_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct heap_entry {
  uint64_t at_ns;
  uint64_t key;
  uint32_t handle;
};
struct heap {
  struct heap_entry *entries; /* A binary heap of `count`. */
  uint32_t *where;            /* By handle: its entry's index; for a free handle the next free one. */
  uint32_t count, capacity;
  uint32_t free; /* The first free handle; `capacity` when there is none. */
};

void heap_free(struct heap *h);
/* Make room for this many entries in all, so that heap_add cannot fail below it. Returns 0, or ERR_MEMORY with nothing changed. */
int heap_reserve(struct heap *h, uint32_t capacity);
/* Returns 0 and the entry's handle, or ERR_MEMORY with nothing changed. */
int heap_add(struct heap *h, uint64_t at_ns, uint64_t key, uint32_t *handle);
void heap_move(struct heap *h, uint32_t handle, uint64_t at_ns);
void heap_remove(struct heap *h, uint32_t handle);
/* The first entry, left in place; NULL when there is none. Valid until the next call. */
const struct heap_entry *heap_first(const struct heap *h);
/* When the first is due; UINT64_MAX when there is none. */
uint64_t heap_deadline(const struct heap *h);
uint64_t heap_at(const struct heap *h, uint32_t handle);
/* Postpone every earlier deadline to at_ns. O(n). These then come out by key. */
void heap_defer(struct heap *h, uint64_t at_ns);

#endif
