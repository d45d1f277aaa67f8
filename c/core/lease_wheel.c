#include "core/lease_wheel.h"

#include <assert.h>
#include <stdlib.h>

#include "core/errors.h"

enum { DIGIT_BITS = 6, SLAB = 64 /* Chunks. */ };

static struct lease_wheel_chunk *chunk_at(const struct lease_wheel *w, uint32_t chunk) {
  return &w->slabs[(chunk - 1) / SLAB][(chunk - 1) % SLAB];
}

void lease_wheel_free(struct lease_wheel *w) {
  for (uint32_t i = 0; i < w->slabs_count; i++) free(w->slabs[i]);
  free(w->slabs);
  *w = (struct lease_wheel){.now = w->now};
}

static int add_slab(struct lease_wheel *w) {
  struct lease_wheel_chunk **slabs = realloc(w->slabs, (w->slabs_count + 1) * sizeof *slabs);
  if (!slabs) return ERR_MEMORY;
  w->slabs = slabs;
  struct lease_wheel_chunk *slab = malloc(SLAB * sizeof *slab);
  if (!slab) return ERR_MEMORY;
  slabs[w->slabs_count++] = slab;
  uint32_t first = (w->slabs_count - 1) * SLAB + 1;
  for (uint32_t i = 0; i < SLAB; i++) slab[i].next = i + 1 < SLAB ? first + i + 1 : w->free;
  w->free = first;
  w->chunks_free += SLAB;
  return 0;
}

/* Each slot, and the one being taken, has at most one chunk that is not full. */
int lease_wheel_reserve(struct lease_wheel *w, uint64_t count) {
  uint64_t slots = LEASE_WHEEL_LEVELS * LEASE_WHEEL_SLOTS + 2, chunks = count / LEASE_WHEEL_CHUNK + (count < slots ? count : slots) + 1;
  while ((uint64_t)w->slabs_count * SLAB < chunks) {
    int rc = add_slab(w);
    if (rc < 0) return rc;
  }
  return 0;
}

static uint64_t slot_start(const struct lease_wheel *w, int level, uint64_t slot) {
  int shift = level * DIGIT_BITS, above = shift + DIGIT_BITS;
  return w->now >> above << above | slot << shift;
}

static void add(struct lease_wheel *w, uint32_t *head, struct lease_wheel_placed placed) {
  if (*head == 0 || chunk_at(w, *head)->count == LEASE_WHEEL_CHUNK) {
    uint32_t taken = w->free;
    assert(taken != 0); /* The owner reserved. */
    struct lease_wheel_chunk *c = chunk_at(w, taken);
    w->free = c->next;
    w->chunks_free--;
    c->next = *head;
    c->count = 0;
    *head = taken;
  }
  struct lease_wheel_chunk *c = chunk_at(w, *head);
  c->placed[c->count++] = placed;
}

static void put(struct lease_wheel *w, uint32_t number, uint64_t tick) {
  int level = (63 - __builtin_clzll(tick ^ w->now)) / DIGIT_BITS;
  assert(tick > w->now && level < LEASE_WHEEL_LEVELS);
  uint64_t slot = tick >> (level * DIGIT_BITS) & (LEASE_WHEEL_SLOTS - 1);
  add(w, &w->slots[level][slot], (struct lease_wheel_placed){number, (uint32_t)tick});
  w->used[level] |= UINT64_C(1) << slot;
}

uint32_t lease_wheel_place(struct lease_wheel *w, uint32_t number, uint64_t at_ns) {
  uint64_t part = at_ns & ((UINT64_C(1) << LEASE_WHEEL_TICK_BITS) - 1);
  uint64_t tick = (at_ns >> LEASE_WHEEL_TICK_BITS) + (part != 0); /* Rounded up: never early. */
  if (tick <= w->now) tick = w->now + 1; /* The tick `now` may have been taken. */
  put(w, number, tick);
  w->count++;
  return (uint32_t)tick;
}

/* The first slot to come up. A lower level's slots all come before a higher one's. */
static bool first(const struct lease_wheel *w, int *level, uint64_t *slot, uint64_t *tick) {
  for (*level = 0; *level < LEASE_WHEEL_LEVELS; ++*level) {
    if (!w->used[*level]) continue;
    *slot = (uint64_t)__builtin_ctzll(w->used[*level]);
    *tick = slot_start(w, *level, *slot);
    return true;
  }
  return false;
}

/* The last one of a list of chunks. */
static struct lease_wheel_placed pop(struct lease_wheel *w, uint32_t *head) {
  struct lease_wheel_chunk *c = chunk_at(w, *head);
  struct lease_wheel_placed placed = c->placed[--c->count];
  if (c->count > 0) return placed;
  uint32_t empty = *head;
  *head = c->next;
  c->next = w->free;
  w->free = empty;
  w->chunks_free++;
  return placed;
}

/* A slot of a higher level has come up: what is due at its first tick is taken, the rest moves down. */
static void move_down(struct lease_wheel *w, uint32_t head) {
  while (head != 0) {
    struct lease_wheel_placed placed = pop(w, &head);
    uint64_t tick = w->now + (placed.tick - (uint32_t)w->now);
    if (tick > w->now) put(w, placed.number, tick);
    else add(w, &w->taking, placed);
  }
}

/* The next slot that is due by `target` becomes `taking`. */
static bool begin(struct lease_wheel *w, uint64_t target) {
  uint64_t at, slot;
  int level;
  while (w->taking == 0) {
    if (!first(w, &level, &slot, &at) || at > target) {
      if (target > w->now) w->now = target;
      return false;
    }
    assert(at > w->now);
    w->now = at;
    uint32_t head = w->slots[level][slot];
    w->slots[level][slot] = 0;
    w->used[level] &= ~(UINT64_C(1) << slot);
    if (level == 0) w->taking = head;
    else move_down(w, head);
  }
  return true;
}

uint32_t lease_wheel_take(struct lease_wheel *w, uint64_t now_ns, uint32_t *numbers, uint32_t max, uint32_t *tick) {
  if (!begin(w, now_ns >> LEASE_WHEEL_TICK_BITS)) return 0;
  uint32_t taken = 0;
  while (taken < max && w->taking != 0) numbers[taken++] = pop(w, &w->taking).number;
  w->count -= taken;
  *tick = (uint32_t)w->now;
  return taken;
}

uint64_t lease_wheel_next_ns(const struct lease_wheel *w) {
  int level;
  uint64_t slot, tick;
  if (w->taking) return w->now << LEASE_WHEEL_TICK_BITS;
  return first(w, &level, &slot, &tick) ? tick << LEASE_WHEEL_TICK_BITS : UINT64_MAX;
}

void lease_wheel_clear(struct lease_wheel *w) {
  uint32_t chunks = w->slabs_count * SLAB;
  for (uint32_t i = 0; i < chunks; i++) chunk_at(w, i + 1)->next = i + 1 < chunks ? i + 2 : 0;
  w->free = chunks ? 1 : 0;
  w->chunks_free = chunks;
  w->taking = 0;
  w->count = 0;
  for (int level = 0; level < LEASE_WHEEL_LEVELS; level++) {
    w->used[level] = 0;
    for (int slot = 0; slot < LEASE_WHEEL_SLOTS; slot++) w->slots[level][slot] = 0;
  }
}

size_t lease_wheel_bytes(const struct lease_wheel *w) {
  return w->slabs_count * (SLAB * sizeof(struct lease_wheel_chunk) + sizeof *w->slabs);
}
