#include "core/heap.h"

#include <assert.h>
#include <stdlib.h>

#include "core/errors.h"

enum { FIRST_CAPACITY = 16 };

static bool before(const struct heap_entry *a, const struct heap_entry *b) {
  return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->key < b->key;
}

static void put(struct heap *h, uint32_t index, struct heap_entry entry) {
  h->entries[index] = entry;
  h->where[entry.handle] = index;
}

static void rise(struct heap *h, uint32_t index) {
  struct heap_entry entry = h->entries[index];
  for (; index > 0; index = (index - 1) / 2) {
    struct heap_entry *parent = &h->entries[(index - 1) / 2];
    if (!before(&entry, parent)) break;
    put(h, index, *parent);
  }
  put(h, index, entry);
}

static void sink(struct heap *h, uint32_t index) {
  struct heap_entry entry = h->entries[index];
  for (;;) {
    uint64_t child = 2 * (uint64_t)index + 1;
    if (child >= h->count) break;
    if (child + 1 < h->count && before(&h->entries[child + 1], &h->entries[child])) child++;
    if (!before(&h->entries[child], &entry)) break;
    put(h, index, h->entries[child]);
    index = (uint32_t)child;
  }
  put(h, index, entry);
}

static int resize(struct heap *h, uint32_t capacity) {
  struct heap_entry *entries = realloc(h->entries, capacity * sizeof *entries);
  if (!entries) return ERR_MEMORY;
  h->entries = entries;
  uint32_t *where = realloc(h->where, capacity * sizeof *where);
  if (!where) return ERR_MEMORY;
  h->where = where;
  for (uint32_t i = h->capacity; i < capacity; i++) where[i] = i + 1;
  /* The list of free handles ends at h->capacity, which is the first new one now. */
  h->capacity = capacity;
  return 0;
}

static int grow(struct heap *h) {
  uint32_t capacity = h->capacity ? h->capacity * 2 : FIRST_CAPACITY;
  return capacity > h->capacity ? resize(h, capacity) : ERR_MEMORY;
}

int heap_reserve(struct heap *h, uint32_t capacity) { return capacity > h->capacity ? resize(h, capacity) : 0; }

void heap_free(struct heap *h) {
  free(h->entries);
  free(h->where);
  *h = (struct heap){0};
}

int heap_add(struct heap *h, uint64_t at_ns, uint64_t key, uint32_t *handle) {
  if (h->free == h->capacity) {
    int rc = grow(h);
    if (rc < 0) return rc;
  }
  uint32_t taken = h->free;
  h->free = h->where[taken];
  put(h, h->count++, (struct heap_entry){at_ns, key, taken});
  rise(h, h->count - 1);
  *handle = taken;
  return 0;
}

static uint32_t find(const struct heap *h, uint32_t handle) {
  assert(handle < h->capacity);
  uint32_t index = h->where[handle];
  assert(index < h->count && h->entries[index].handle == handle);
  return index;
}

void heap_move(struct heap *h, uint32_t handle, uint64_t at_ns) {
  uint32_t index = find(h, handle);
  h->entries[index].at_ns = at_ns;
  rise(h, index);
  sink(h, h->where[handle]);
}

void heap_remove(struct heap *h, uint32_t handle) {
  uint32_t index = find(h, handle);
  h->count--;
  if (index < h->count) {
    uint32_t moved = h->entries[h->count].handle;
    put(h, index, h->entries[h->count]);
    rise(h, index);
    sink(h, h->where[moved]);
  }
  h->where[handle] = h->free;
  h->free = handle;
}

const struct heap_entry *heap_first(const struct heap *h) { return h->count ? h->entries : NULL; }

uint64_t heap_deadline(const struct heap *h) { return h->count ? h->entries[0].at_ns : UINT64_MAX; }

uint64_t heap_at(const struct heap *h, uint32_t handle) { return h->entries[find(h, handle)].at_ns; }

void heap_defer(struct heap *h, uint64_t at_ns) {
  for (uint32_t i = 0; i < h->count; i++)
    if (h->entries[i].at_ns < at_ns) h->entries[i].at_ns = at_ns;
  for (uint32_t i = h->count / 2; i-- > 0;) sink(h, i); /* Those made equal may be out of order by key. */
}
