#include "world/sim_private.h"

/* A binary heap by (instant, sequence). An event knows its place, so a timer is moved instead of made anew. */

static bool before(const struct sim_entry *a, const struct sim_entry *b) {
  return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->sequence < b->sequence);
}

static void put(struct sim *s, uint32_t place, struct sim_entry entry) {
  s->heap[place] = entry;
  entry.event->place = place;
}

static void sift_up(struct sim *s, uint32_t place, struct sim_entry entry) {
  for (uint32_t up = place / 2; up > 0 && before(&entry, &s->heap[up]); place = up, up /= 2) put(s, place, s->heap[up]);
  put(s, place, entry);
}

static void sift_down(struct sim *s, uint32_t place, struct sim_entry entry) {
  for (uint32_t down = place * 2; down <= s->heap_count; place = down, down *= 2) {
    if (down < s->heap_count && before(&s->heap[down + 1], &s->heap[down])) down++;
    if (!before(&s->heap[down], &entry)) break;
    put(s, place, s->heap[down]);
  }
  put(s, place, entry);
}

static void sift(struct sim *s, uint32_t place, struct sim_entry entry) {
  if (place > 1 && before(&entry, &s->heap[place / 2]))
    sift_up(s, place, entry);
  else
    sift_down(s, place, entry);
}

static void leave_ring(struct sim_event *e) {
  e->next->previous = e->previous;
  e->previous->next = e->next;
  e->next = e->previous = NULL;
}

void sim_event_at(struct sim *s, struct sim_event *e, uint64_t at_ns) {
  assert(e->run);
  if (e->next) leave_ring(e);
  struct sim_entry entry = {at_ns > s->now_ns ? at_ns : s->now_ns, s->sequence++, e};
  if (e->place) {
    sift(s, e->place, entry);
    return;
  }
  if (s->heap_count + 1 >= s->heap_capacity)
    s->heap = sim_grow(s->heap, &s->heap_capacity, s->heap_count + 1, sizeof *s->heap);
  sift_up(s, ++s->heap_count, entry);
}

static void remove_at(struct sim *s, uint32_t place) {
  struct sim_entry last = s->heap[s->heap_count--];
  s->heap[place].event->place = 0;
  if (place <= s->heap_count) sift(s, place, last);
}

void sim_event_cancel(struct sim *s, struct sim_event *e) {
  if (e->next) leave_ring(e);
  if (e->place) remove_at(s, e->place);
}

struct sim_event *sim_event_take(struct sim *s) {
  assert(s->heap_count > 0);
  struct sim_entry first = s->heap[1];
  assert(first.at_ns >= s->now_ns);
  remove_at(s, 1);
  s->now_ns = first.at_ns;
  return first.event;
}

void sim_event_hold(struct sim_node *n, struct sim_event *e) {
  assert(n->paused && !sim_event_armed(e));
  e->next = &n->held;
  e->previous = n->held.previous;
  e->previous->next = e;
  n->held.previous = e;
}

void sim_event_release(struct sim_node *n) {
  while (n->held.next != &n->held) sim_event_at(n->sim, n->held.next, n->sim->now_ns);
}

/* ---- memory: freed pieces wait, by size, for the next of their kind. Under ASan each is its own, to be watched. ---- */

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
