/* heap: deadlines in order, each with a stable handle, so that one can be moved or taken out in O(log n).
 *
 * A handle is a small integer, given out again after its entry is removed; it can index an array of the owner's that grows
 * with `capacity`. `key` is the owner's and is what a handler needs to know whose deadline it was. Entries of one instant
 * come out by rising key, whatever the order in which they went in. Zeroed memory is an empty heap. */
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
/* Returns 0 and the entry's handle, or ERR_MEMORY with nothing changed. */
int heap_add(struct heap *h, uint64_t at_ns, uint64_t key, uint32_t *handle);
void heap_move(struct heap *h, uint32_t handle, uint64_t at_ns);
void heap_remove(struct heap *h, uint32_t handle);
/* The first entry, left in place; NULL when there is none. Valid until the next call. */
const struct heap_entry *heap_first(const struct heap *h);
/* When the first is due; UINT64_MAX when there is none. */
uint64_t heap_deadline(const struct heap *h);
uint64_t heap_at(const struct heap *h, uint32_t handle);
/* Put every deadline that is sooner off until at_ns. O(n); their order stays, for equals come by key. */
void heap_defer(struct heap *h, uint64_t at_ns);

#endif
