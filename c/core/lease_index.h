/* lease_index: from a name's hash to the numbers of the entries that may have it. Open addressing with linear probing; a cell is the hash
 * and the number, so that a search touches one cache line and, on a match, the entry. It doubles at three quarters full (at a million:
 * 8 ms, once). The owner compares the names. Zeroed memory is an empty index. */
#ifndef SHOAL_LEASE_INDEX_H
#define SHOAL_LEASE_INDEX_H

#include <stddef.h>
#include <stdint.h>

enum { LEASE_INDEX_NONE = 0 };

struct lease_index {
  struct lease_index_cell {
    uint32_t hash;
    uint32_t number; /* + 1; 0: an empty cell. */
  } *cells;
  uint32_t capacity, count; /* `capacity` is a power of 2, or 0. */
};

void lease_index_free(struct lease_index *x);
/* Make room for one more. Returns 0 or ERR_MEMORY. */
int lease_index_reserve(struct lease_index *x);
void lease_index_add(struct lease_index *x, uint32_t hash, uint32_t number);
void lease_index_remove(struct lease_index *x, uint32_t hash, uint32_t number);

/* The next number with this hash, from the cell *at on (start with `hash`); UINT32_MAX when there is none. */
static inline uint32_t lease_index_next(const struct lease_index *x, uint32_t hash, uint32_t *at) {
  if (x->capacity == 0) return UINT32_MAX;
  for (;; ++*at) {
    const struct lease_index_cell *cell = &x->cells[*at & (x->capacity - 1)];
    if (cell->number == 0) return UINT32_MAX;
    if (cell->hash != hash) continue;
    ++*at;
    return cell->number - 1;
  }
}
static inline void lease_index_prefetch(const struct lease_index *x, uint32_t hash) {
  if (x->capacity) __builtin_prefetch(&x->cells[hash & (x->capacity - 1)]);
}

/* A hash of bytes that whoever chooses them cannot steer without the seed. */
uint32_t lease_index_hash(uint64_t seed, const void *bytes, size_t length);

#endif
