#include "world/sim_private.h"

/* Events ordered by (instant, sequence): a wheel of unsorted lists for later events, and a small binary heap for the events of the
 * current bucket.
 *
 *   near   all whose bucket is the cursor's or before it
 *   wheel  cursor < bucket < cursor + BUCKETS: about two seconds
 *   far    the rest; searched again before the cursor reaches a bucket that one of them may have
 *
 * Arming, moving and cancelling are O(1), and the heap holds only the events of a quarter of a millisecond. An event knows
 * its slot; lists and heap hold slots, so that only arming touches the event itself. */

enum { BUCKET_BITS = 18, BUCKETS = SIM_BUCKETS, FAR = BUCKETS };

static uint64_t bucket_of(uint64_t at_ns) { return at_ns >> BUCKET_BITS; }
static uint32_t slot_of(const struct sim_entry *entry) { return (uint32_t)entry->order & (SIM_SLOTS_MAX - 1); }

/* Without a branch, which would be mispredicted half of the time. */
static bool before(const struct sim_entry *a, const struct sim_entry *b) {
  unsigned __int128 left = (unsigned __int128)a->at_ns << 64 | a->order, right = (unsigned __int128)b->at_ns << 64 | b->order;
  return left < right;
}

/* ---- the heap, from 1 ---- */

static void put(struct sim *s, uint32_t place, struct sim_entry entry) {
  s->near[place] = entry;
  s->slots[slot_of(&entry)].place = place;
}

static void sift_up(struct sim *s, uint32_t place, struct sim_entry entry) {
  for (uint32_t up = place / 2; up > 0 && before(&entry, &s->near[up]); place = up, up /= 2) put(s, place, s->near[up]);
  put(s, place, entry);
}

static void sift_down(struct sim *s, uint32_t place, struct sim_entry entry) {
  for (uint32_t down = place * 2; down <= s->near_count; place = down, down *= 2) {
    down += down < s->near_count && before(&s->near[down + 1], &s->near[down]);
    if (!before(&s->near[down], &entry)) break;
    put(s, place, s->near[down]);
  }
  put(s, place, entry);
}

static void push_near(struct sim *s, struct sim_entry entry) {
  if (s->near_count + 1 >= s->near_capacity)
    s->near = sim_grow(s->near, &s->near_capacity, s->near_count + 1, sizeof *s->near);
  sift_up(s, ++s->near_count, entry);
}

static void remove_near(struct sim *s, uint32_t place) {
  struct sim_entry last = s->near[s->near_count--];
  if (place > s->near_count) return;
  if (place > 1 && before(&last, &s->near[place / 2])) sift_up(s, place, last);
  else sift_down(s, place, last);
}

/* ---- the lists ---- */

static void push_list(struct sim *s, uint32_t list, uint32_t slot) {
  struct sim_slot *at = &s->slots[slot];
  at->place = 0;
  at->list = list;
  at->previous = 0;
  at->next = s->lists[list];
  if (at->next) s->slots[at->next].previous = slot;
  s->lists[list] = slot;
  if (list < FAR) s->filled[list / 64] |= UINT64_C(1) << list % 64;
}

static void leave_list(struct sim *s, const struct sim_slot *at) {
  if (at->next) s->slots[at->next].previous = at->previous;
  if (at->previous) s->slots[at->previous].next = at->next;
  else s->lists[at->list] = at->next;
  if (!s->lists[at->list] && at->list < FAR) s->filled[at->list / 64] &= ~(UINT64_C(1) << at->list % 64);
}

static void insert(struct sim *s, uint32_t slot) {
  struct sim_entry entry = s->slots[slot].entry;
  uint64_t bucket = bucket_of(entry.at_ns);
  if (bucket <= s->cursor) push_near(s, entry);
  else if (bucket - s->cursor < BUCKETS) push_list(s, (uint32_t)(bucket % BUCKETS), slot);
  else push_list(s, FAR, slot);
}

/* The next bucket of the wheel that is not empty; UINT64_MAX: none. */
static uint64_t next_filled(const struct sim *s) {
  uint32_t begin = (uint32_t)((s->cursor + 1) % BUCKETS);
  uint64_t word = s->filled[begin / 64] >> begin % 64 << begin % 64;
  for (uint32_t i = 0, at = begin / 64; i <= BUCKETS / 64; i++) {
    if (word) return s->cursor + 1 + (at * 64 + (uint32_t)__builtin_ctzll(word) - begin) % BUCKETS;
    at = (at + 1) % (BUCKETS / 64);
    word = s->filled[at];
  }
  return UINT64_MAX;
}

/* Move events of the far list to the wheel when they are due within one turn of it from the cursor. */
static void refill(struct sim *s) {
  uint32_t slot = s->lists[FAR];
  s->lists[FAR] = 0;
  s->far_from = s->cursor + BUCKETS;
  for (uint32_t next; slot; slot = next) {
    next = s->slots[slot].next;
    insert(s, slot);
  }
}

static uint64_t least_far(const struct sim *s) {
  uint64_t least = UINT64_MAX;
  for (uint32_t slot = s->lists[FAR]; slot; slot = s->slots[slot].next) {
    uint64_t bucket = bucket_of(s->slots[slot].entry.at_ns);
    if (bucket < least) least = bucket;
  }
  return least;
}

/* The heap is empty: go on to the next bucket with events. */
static void advance(struct sim *s) {
  uint64_t bucket = next_filled(s);
  if (s->lists[FAR] && bucket >= s->far_from) { /* An event of the far list may come first. */
    uint64_t far = least_far(s);
    s->cursor = (far < bucket ? far : bucket) - 1;
    refill(s);
    bucket = next_filled(s);
  }
  s->cursor = bucket;
  for (uint32_t slot; (slot = s->lists[bucket % BUCKETS]) != 0; ) {
    leave_list(s, &s->slots[slot]);
    push_near(s, s->slots[slot].entry);
  }
}

static const struct sim_entry *first(struct sim *s) {
  if (s->armed_count == 0) return NULL;
  if (s->near_count == 0) advance(s);
  return &s->near[1];
}

/* ---- events ---- */

static void leave_ring(struct sim_event *e) {
  e->next->previous = e->previous;
  e->previous->next = e->next;
  e->next = e->previous = NULL;
}

static void grow_slots(struct sim *s) {
  uint32_t count = s->slots_count;
  s->slots = sim_grow(s->slots, &s->slots_capacity, count, sizeof *s->slots);
  if (s->slots_capacity > SIM_SLOTS_MAX) abort(); /* sim_private.h */
  for (uint32_t i = count; i < s->slots_capacity; i++) s->slots[i] = (struct sim_slot){.next = i + 1 < s->slots_capacity ? i + 1 : 0};
  s->slot_free = count ? count : 1; /* 0 is none. */
  s->slots_count = s->slots_capacity;
}

static uint32_t take_slot(struct sim *s, struct sim_event *e) {
  if (!s->slot_free) grow_slots(s);
  uint32_t slot = s->slot_free;
  s->slot_free = s->slots[slot].next;
  s->slots[slot].event = e;
  s->armed_count++;
  return e->slot = slot;
}

static void give_slot(struct sim *s, uint32_t slot) {
  s->slots[slot].event->slot = 0;
  s->slots[slot].next = s->slot_free;
  s->slot_free = slot;
  s->armed_count--;
}

static void take_out(struct sim *s, const struct sim_slot *at) {
  if (at->place) remove_near(s, at->place);
  else leave_list(s, at);
}

void sim_event_at(struct sim *s, struct sim_event *e, uint64_t at_ns) {
  assert(e->run && s->sequence < UINT64_MAX / SIM_SLOTS_MAX);
  if (e->next) leave_ring(e);
  uint32_t slot = e->slot;
  if (slot) take_out(s, &s->slots[slot]);
  else slot = take_slot(s, e);
  s->slots[slot].entry = (struct sim_entry){at_ns > s->now_ns ? at_ns : s->now_ns, s->sequence++ * SIM_SLOTS_MAX | slot};
  insert(s, slot);
}

bool sim_event_is_at(const struct sim *s, const struct sim_event *e, uint64_t at_ns) {
  return e->slot && s->slots[e->slot].entry.at_ns == at_ns;
}

void sim_event_cancel(struct sim *s, struct sim_event *e) {
  if (e->next) leave_ring(e);
  if (!e->slot) return;
  take_out(s, &s->slots[e->slot]);
  give_slot(s, e->slot);
}

uint64_t sim_event_next_ns(struct sim *s) {
  const struct sim_entry *next = first(s);
  return next ? next->at_ns : UINT64_MAX;
}

struct sim_event *sim_event_take(struct sim *s) {
  const struct sim_entry *next = first(s);
  if (!next) return NULL;
  uint32_t slot = slot_of(next);
  assert(next->at_ns >= s->now_ns);
  s->now_ns = next->at_ns;
  struct sim_event *e = s->slots[slot].event;
  remove_near(s, 1);
  give_slot(s, slot);
  return e;
}

void sim_ring_push(struct sim_event *ring, struct sim_event *e) {
  assert(!sim_event_armed(e));
  e->next = ring;
  e->previous = ring->previous;
  e->previous->next = e;
  ring->previous = e;
}

struct sim_event *sim_ring_take(struct sim_event *ring) {
  struct sim_event *e = ring->next;
  if (e == ring) return NULL;
  leave_ring(e);
  return e;
}

void sim_ring_release(struct sim *s, struct sim_event *ring) {
  for (struct sim_event *e; (e = sim_ring_take(ring)) != NULL; ) sim_event_at(s, e, s->now_ns);
}

void sim_queue_free(struct sim *s) {
  free(s->near);
  free(s->slots);
}

/* ---- memory: freed pieces are kept by size and used again. Under ASan each is malloced, so that it is checked. ---- */

#if defined(__SANITIZE_ADDRESS__)
enum { KEEP = 0 };
#else
enum { KEEP = 1 };
#endif

static unsigned class_of(size_t size) {
  unsigned class = size <= 64 ? 0 : (unsigned)(58 - __builtin_clzll(size - 1));
  assert(class < SIM_CLASSES);
  return class;
}

size_t sim_room(size_t size) { return (size_t)64 << class_of(size); }

void *sim_take(struct sim *s, size_t size) {
  void **kept = &s->free[class_of(size)], *memory = *kept;
  if (memory) {
    memcpy(kept, memory, sizeof *kept);
    return memory;
  }
  memory = malloc(KEEP ? sim_room(size) : size);
  if (!memory) abort();
  return memory;
}

void sim_give(struct sim *s, void *memory, size_t size) {
  void **kept = &s->free[class_of(size)];
  if (!KEEP) {
    free(memory);
    return;
  }
  memcpy(memory, kept, sizeof *kept);
  *kept = memory;
}

void sim_memory_free(struct sim *s) {
  for (int i = 0; i < SIM_CLASSES; i++)
    for (void *memory = s->free[i], *next; memory; memory = next) {
      memcpy(&next, memory, sizeof next);
      free(memory);
    }
}

void *sim_grow(void *array, uint32_t *capacity, uint32_t count, size_t size) {
  if (count < *capacity) return array;
  *capacity = *capacity ? *capacity * 2 : 16;
  array = realloc(array, *capacity * size);
  if (!array) abort();
  return array;
}
