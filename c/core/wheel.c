#include "core/wheel.h"

#include <assert.h>
#include <stddef.h>

static bool ring_empty(const struct wheel_entry *head) { return head->next == head; }
static void ring_init(struct wheel_entry *head) { head->next = head->previous = head; }

static void ring_add(struct wheel_entry *head, struct wheel_entry *e) {
  e->next = head;
  e->previous = head->previous;
  head->previous->next = e;
  head->previous = e;
}

static void unlink_entry(struct wheel_entry *e) {
  e->next->previous = e->previous;
  e->previous->next = e->next;
  e->next = e->previous = NULL;
}

void wheel_init(struct wheel *w, uint64_t now_ns) {
  w->now = now_ns >> WHEEL_TICK_BITS;
  for (int level = 0; level < WHEEL_LEVELS; level++) {
    w->used[level] = 0;
    for (int slot = 0; slot < WHEEL_SLOTS; slot++) ring_init(&w->slots[level][slot]);
  }
  ring_init(&w->due);
}

static uint64_t slot_start(const struct wheel *w, int level, uint64_t slot) {
  int shift = level * WHEEL_DIGIT_BITS;
  uint64_t above = shift + WHEEL_DIGIT_BITS >= 64 ? 0 : w->now >> (shift + WHEEL_DIGIT_BITS) << (shift + WHEEL_DIGIT_BITS);
  return above | slot << shift;
}

/* Returns the tick at which the entry's slot comes up. */
static uint64_t place(struct wheel *w, struct wheel_entry *e) {
  if (e->tick <= w->now) {
    e->level = WHEEL_LEVELS;
    ring_add(&w->due, e);
    return w->now;
  }
  int level = (63 - __builtin_clzll(e->tick ^ w->now)) / WHEEL_DIGIT_BITS;
  assert(level < WHEEL_LEVELS);
  e->level = (uint8_t)level;
  e->slot = (uint8_t)(e->tick >> (level * WHEEL_DIGIT_BITS) & (WHEEL_SLOTS - 1));
  ring_add(&w->slots[level][e->slot], e);
  w->used[level] |= UINT64_C(1) << e->slot;
  return slot_start(w, level, e->slot);
}

void wheel_remove(struct wheel *w, struct wheel_entry *e) {
  if (!e->next) return;
  unlink_entry(e);
  if (e->level < WHEEL_LEVELS && ring_empty(&w->slots[e->level][e->slot]))
    w->used[e->level] &= ~(UINT64_C(1) << e->slot);
}

uint64_t wheel_set(struct wheel *w, struct wheel_entry *e, uint64_t deadline_ns) {
  wheel_remove(w, e);
  uint64_t part = deadline_ns & ((UINT64_C(1) << WHEEL_TICK_BITS) - 1);
  e->tick = (deadline_ns >> WHEEL_TICK_BITS) + (part != 0); /* Rounded up: never early. */
  return place(w, e) << WHEEL_TICK_BITS;
}

/* The first slot to come up. A lower level's slots all come before a higher one's. */
static bool first(const struct wheel *w, int *level, int *slot, uint64_t *tick) {
  for (*level = 0; *level < WHEEL_LEVELS; ++*level) {
    if (!w->used[*level]) continue;
    *slot = __builtin_ctzll(w->used[*level]);
    *tick = slot_start(w, *level, (uint64_t)*slot);
    return true;
  }
  return false;
}

struct wheel_entry *wheel_pop(struct wheel *w, uint64_t now_ns) {
  uint64_t target = now_ns >> WHEEL_TICK_BITS, tick;
  int level, slot;
  while (ring_empty(&w->due)) {
    if (!first(w, &level, &slot, &tick) || tick > target) {
      if (target > w->now) w->now = target;
      return NULL;
    }
    assert(tick > w->now);
    w->now = tick;
    struct wheel_entry *head = &w->slots[level][slot];
    w->used[level] &= ~(UINT64_C(1) << slot);
    while (!ring_empty(head)) {
      struct wheel_entry *e = head->next;
      unlink_entry(e);
      place(w, e);
    }
  }
  struct wheel_entry *e = w->due.next;
  unlink_entry(e);
  return e;
}

uint64_t wheel_next_ns(const struct wheel *w) {
  uint64_t tick;
  int level, slot;
  if (!ring_empty(&w->due)) return w->now << WHEEL_TICK_BITS;
  return first(w, &level, &slot, &tick) ? tick << WHEEL_TICK_BITS : UINT64_MAX;
}
