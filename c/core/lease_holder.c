#include "core/lease_holder.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"
#include "core/lease.h"

enum { NS_PER_MS = 1000000, RENEW = 3, RETRY = 12, JEOPARDY = 3, GRAIN = 20 }; /* Parts of a ttl. */
#define NONE UINT32_MAX

static uint64_t span_ns(const struct lease_holder *h, const struct lease_held *l) {
  return (uint64_t)l->ttl_ms * (NS_PER_MS - h->config.drift_ppm);
}
static uint64_t deadline_of(const struct lease_holder *h, const struct lease_held *l) { return l->sent_ns + span_ns(h, l); }

static uint32_t find_any(const struct lease_holder *h, const char *key, size_t length) {
  uint32_t hash = lease_index_hash(h->config.seed, key, length), cell = hash, number;
  while ((number = lease_index_next(&h->keys, hash, &cell)) != NONE) {
    const struct lease_held *l = &h->leases[number];
    if (l->key_length == length && memcmp(blobs_at(&h->blobs, l->key), key, length) == 0) return number;
  }
  return NONE;
}

/* One that is not GONE. */
static uint32_t find(const struct lease_holder *h, const char *key, size_t length) {
  uint32_t number = find_any(h, key, length);
  return number != NONE && h->leases[number].state != LEASE_HOLDER_GONE ? number : NONE;
}

int lease_holder_init(struct lease_holder *h, const struct lease_holder_config *c, uint64_t now_ns) {
  memset(h, 0, sizeof *h);
  if (c->leases_max < 1 || c->leases_max > LEASE_HOLDER_LEASES_MAX || c->drift_ppm > LEASE_DRIFT_MAX_PPM) return ERR_CONFIG;
  h->config = *c;
  h->now_ns = now_ns;
  return 0;
}

void lease_holder_free(struct lease_holder *h) {
  free(h->leases);
  free(h->groups);
  heap_free(&h->timers);
  lease_index_free(&h->keys);
  blobs_free(&h->blobs);
}

/* ---- the ring of due ones ---- */

static void due_add(struct lease_holder *h, uint32_t number) {
  struct lease_held *l = &h->leases[number];
  struct lease_holder_group *g = &h->groups[l->group];
  assert(!l->due);
  l->due = true;
  l->next = 0;
  l->previous = g->last;
  if (g->last) h->leases[g->last - 1].next = number + 1;
  else g->first = number + 1;
  g->last = number + 1;
  g->count++;
  h->due++;
}

static void due_remove(struct lease_holder *h, struct lease_held *l) {
  if (!l->due) return;
  struct lease_holder_group *g = &h->groups[l->group];
  if (l->previous) h->leases[l->previous - 1].next = l->next;
  else g->first = l->next;
  if (l->next) h->leases[l->next - 1].previous = l->previous;
  else g->last = l->previous;
  l->due = false;
  g->count--;
  h->due--;
}

/* ---- states ---- */

static void tell(struct lease_holder *h, uint32_t number) {
  struct lease_held *l = &h->leases[number];
  if (l->event) return;
  l->event = true;
  l->event_next = 0;
  if (h->event_last) h->leases[h->event_last - 1].event_next = number + 1;
  else h->event_first = number + 1;
  h->event_last = number + 1;
}

static void release_entry(struct lease_holder *h, uint32_t number) {
  struct lease_held *l = &h->leases[number];
  blobs_give(&h->blobs, l->key, l->key_length);
  *l = (struct lease_held){.next = h->free};
  h->free = number + 1;
}

/* We do not hold it any more. Its key and fence stay for a ttl: until no answer to a request that we sent before can be in time. */
static void make_gone(struct lease_holder *h, uint32_t number) {
  struct lease_held *l = &h->leases[number];
  due_remove(h, l);
  h->held--;
  h->groups[l->group].leases--;
  h->gone++;
  l->state = LEASE_HOLDER_GONE;
  l->sent_ns = h->now_ns;
  heap_move(&h->timers, l->timer, deadline_of(h, l));
}

/* A GONE one is forgotten. While an event of it waits, the entry is kept for that alone, as OVER. */
static void forget(struct lease_holder *h, uint32_t number) {
  struct lease_held *l = &h->leases[number];
  assert(l->state == LEASE_HOLDER_GONE);
  h->gone--;
  heap_remove(&h->timers, l->timer);
  lease_index_remove(&h->keys, l->hash, number);
  l->state = LEASE_HOLDER_OVER;
  if (!l->event) release_entry(h, number);
}

static void end(struct lease_holder *h, uint32_t number, bool refused) {
  h->leases[number].left_ns = (int64_t)(deadline_of(h, &h->leases[number]) - h->now_ns);
  make_gone(h, number);
  h->leases[number].ended = true;
  h->leases[number].refused = refused;
  tell(h, number);
  if (refused) h->counts.refused++;
  else h->counts.expired++;
}

static uint64_t jeopardy_of(const struct lease_holder *h, const struct lease_held *l) {
  return deadline_of(h, l) - span_ns(h, l) / JEOPARDY;
}

/* When to look at it next. */
static uint64_t next_of(const struct lease_holder *h, const struct lease_held *l) {
  uint64_t at = l->state == LEASE_HOLDER_HELD ? jeopardy_of(h, l) : deadline_of(h, l);
  return l->due_ns < at ? l->due_ns : at;
}

static uint64_t renewal_of(const struct lease_holder *h, const struct lease_held *l) {
  uint64_t span = span_ns(h, l), at = l->sent_ns + span / RENEW, grain = span / GRAIN;
  return at - at % grain;
}

static void look(struct lease_holder *h, uint32_t number) {
  struct lease_held *l = &h->leases[number];
  if (l->state == LEASE_HOLDER_GONE) return forget(h, number);
  if (h->now_ns >= deadline_of(h, l)) return end(h, number, false);
  if (l->state == LEASE_HOLDER_HELD && h->now_ns >= jeopardy_of(h, l)) {
    l->state = LEASE_HOLDER_JEOPARDY;
    h->counts.jeopardies++;
    tell(h, number);
  }
  if (h->now_ns >= l->due_ns) {
    if (!l->due) due_add(h, number);
    l->due_ns = h->now_ns + span_ns(h, l) / RETRY; /* It will be taken soon; then this is about when it is due again. */
  }
  heap_move(&h->timers, l->timer, next_of(h, l));
}

/* A request sent at sent_ns was granted. */
static bool count(struct lease_holder *h, struct lease_held *l, uint64_t sent_ns) {
  if (l->state != LEASE_HOLDER_PENDING && sent_ns <= l->sent_ns) return false;
  uint64_t before = l->sent_ns;
  l->sent_ns = sent_ns;
  if (deadline_of(h, l) <= h->now_ns) {
    l->sent_ns = before;
    return false;
  }
  l->state = h->now_ns >= jeopardy_of(h, l) ? LEASE_HOLDER_JEOPARDY : LEASE_HOLDER_HELD;
  due_remove(h, l);
  l->due_ns = renewal_of(h, l);
  if (next_of(h, l) < heap_at(&h->timers, l->timer)) heap_move(&h->timers, l->timer, next_of(h, l));
  return true;
}

static void advance(struct lease_holder *h, uint64_t now_ns) {
  assert(now_ns >= h->now_ns);
  h->now_ns = now_ns;
}

/* ---- calls ---- */

static int room(struct lease_holder *h, uint32_t group) {
  if (h->held == h->config.leases_max || h->held + h->gone == 2 * h->config.leases_max) return ERR_FULL;
  if (group >= h->groups_count) {
    struct lease_holder_group *groups = realloc(h->groups, (group + 1) * sizeof *groups);
    if (!groups) return ERR_MEMORY;
    memset(groups + h->groups_count, 0, (group + 1 - h->groups_count) * sizeof *groups);
    h->groups = groups;
    h->groups_count = group + 1;
  }
  if (!h->free && h->leases_count == h->leases_capacity) {
    uint32_t capacity = h->leases_capacity ? h->leases_capacity * 2 : 16;
    struct lease_held *leases = realloc(h->leases, capacity * sizeof *leases);
    if (!leases) return ERR_MEMORY;
    h->leases = leases;
    h->leases_capacity = capacity;
  }
  return lease_index_reserve(&h->keys);
}

static int new_entry(struct lease_holder *h, const char *key, size_t length, uint32_t group, uint32_t *out) {
  int rc = room(h, group);
  if (rc < 0) return rc;
  uint32_t timer, blob = blobs_take(&h->blobs, length), number = h->free ? h->free - 1 : h->leases_count;
  if (blob == UINT32_MAX) return ERR_MEMORY;
  rc = heap_add(&h->timers, UINT64_MAX, number, &timer);
  if (rc < 0) return blobs_give(&h->blobs, blob, length), rc;
  if (h->free) h->free = h->leases[number].next;
  else h->leases_count++;
  memcpy(blobs_at(&h->blobs, blob), key, length);
  h->leases[number] = (struct lease_held){.group = group, .timer = timer, .key = blob, .key_length = (uint8_t)length,
                                          .hash = lease_index_hash(h->config.seed, key, length)};
  lease_index_add(&h->keys, h->leases[number].hash, number);
  h->held++;
  h->groups[group].leases++;
  *out = number;
  return 0;
}

int lease_holder_add(struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence, uint32_t ttl_ms,
                     uint64_t sent_ns, uint32_t group) {
  if (key_length > LEASE_KEY_MAX) return ERR_TOO_LARGE;
  if (!key_length || !fence || ttl_ms < LEASE_TTL_MIN_MS || ttl_ms > LEASE_TTL_MAX_MS || group >= LEASE_HOLDER_GROUPS_MAX) return ERR_CONFIG;
  if (sent_ns != LEASE_NOT_SENT && sent_ns > now_ns) return ERR_CONFIG;
  advance(h, now_ns);
  uint32_t number = find_any(h, key, key_length);
  bool gone = number != NONE && h->leases[number].state == LEASE_HOLDER_GONE;
  if (number != NONE && fence < h->leases[number].fence + gone) return ERR_STALE;
  if (number != NONE && fence == h->leases[number].fence) {
    if (sent_ns != LEASE_NOT_SENT) (void)count(h, &h->leases[number], sent_ns); /* A doubled answer: it may add nothing. */
    return 0;
  }
  if (sent_ns != LEASE_NOT_SENT && sent_ns + (uint64_t)ttl_ms * (NS_PER_MS - h->config.drift_ppm) <= now_ns) return ERR_EXPIRED;
  if (number != NONE && !gone) make_gone(h, number);
  if (number != NONE) forget(h, number);
  int rc = new_entry(h, key, key_length, group, &number);
  if (rc < 0) return rc;
  struct lease_held *l = &h->leases[number];
  l->fence = fence;
  l->ttl_ms = ttl_ms;
  l->state = LEASE_HOLDER_PENDING;
  l->sent_ns = l->due_ns = now_ns;
  heap_move(&h->timers, l->timer, now_ns);
  if (sent_ns != LEASE_NOT_SENT) (void)count(h, l, sent_ns); /* It is PENDING and in time, so it counts. */
  h->counts.added++;
  return 0;
}

static struct lease_held *of_fence(struct lease_holder *h, const char *key, size_t length, uint64_t fence, uint32_t *number) {
  *number = find(h, key, length);
  return *number != NONE && h->leases[*number].fence == fence ? &h->leases[*number] : NULL;
}

bool lease_holder_renewed(struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence, uint64_t sent_ns) {
  advance(h, now_ns);
  uint32_t number;
  struct lease_held *l = of_fence(h, key, key_length, fence, &number);
  bool more = l && sent_ns <= now_ns && count(h, l, sent_ns);
  h->counts.renewed += more;
  h->counts.late_answers += l && !more;
  return more;
}

bool lease_holder_refused(struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence) {
  advance(h, now_ns);
  uint32_t number;
  if (!of_fence(h, key, key_length, fence, &number)) return false;
  end(h, number, true);
  return true;
}

bool lease_holder_drop(struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length) {
  advance(h, now_ns);
  uint32_t number = find(h, key, key_length);
  if (number == NONE) return false;
  make_gone(h, number);
  h->counts.dropped++;
  return true;
}

void lease_holder_tick(struct lease_holder *h, uint64_t now_ns) {
  advance(h, now_ns);
  while (heap_deadline(&h->timers) <= now_ns) look(h, (uint32_t)heap_first(&h->timers)->key);
}

static void view(const struct lease_holder *h, const struct lease_held *l, struct lease_held_view *out) {
  *out = (struct lease_held_view){.key = (const char *)blobs_at(&h->blobs, l->key), .key_length = l->key_length, .group = l->group,
                                  .ttl_ms = l->ttl_ms, .fence = l->fence, .state = l->state,
                                  .left_ns = (int64_t)(deadline_of(h, l) - h->now_ns)};
}

/* Jeopardy that a renewal ended, or of a lease that was dropped, is not reported. */
static bool stands(const struct lease_held *l) { return l->ended || l->state == LEASE_HOLDER_JEOPARDY; }

bool lease_holder_peek(const struct lease_holder *h, uint32_t *cursor, struct lease_holder_event *out) {
  uint32_t number = *cursor ? h->leases[*cursor - 1].event_next : h->event_first;
  while (number != 0 && !stands(&h->leases[number - 1])) number = h->leases[number - 1].event_next;
  if (number == 0) return false;
  *cursor = number;
  view(h, &h->leases[number - 1], &out->lease);
  if (h->leases[number - 1].ended) out->lease.left_ns = h->leases[number - 1].left_ns;
  out->ended = h->leases[number - 1].ended;
  out->refused = h->leases[number - 1].refused;
  return true;
}

void lease_holder_take(struct lease_holder *h, uint32_t cursor) {
  uint32_t number = 0;
  while (number != cursor) {
    number = h->event_first;
    assert(number != 0); /* The cursor came from lease_holder_peek(). */
    struct lease_held *l = &h->leases[number - 1];
    h->event_first = l->event_next;
    if (!h->event_first) h->event_last = 0;
    l->event = l->ended = false;
    if (l->state == LEASE_HOLDER_OVER) release_entry(h, number - 1);
  }
}

bool lease_holder_due(struct lease_holder *h, uint64_t now_ns, uint32_t group, struct lease_held_view *out) {
  lease_holder_tick(h, now_ns);
  if (group >= h->groups_count || h->groups[group].count == 0) return false;
  struct lease_held *l = &h->leases[h->groups[group].first - 1];
  due_remove(h, l);
  l->due_ns = now_ns + span_ns(h, l) / RETRY;
  if (next_of(h, l) < heap_at(&h->timers, l->timer)) heap_move(&h->timers, l->timer, next_of(h, l));
  view(h, l, out);
  return true;
}

uint64_t lease_holder_deadline(const struct lease_holder *h) {
  struct lease_holder_event e;
  uint32_t cursor = 0;
  return lease_holder_peek(h, &cursor, &e) ? h->now_ns : heap_deadline(&h->timers);
}

bool lease_holder_holds(const struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length) {
  uint32_t number = find(h, key, key_length);
  if (number == NONE || h->leases[number].state == LEASE_HOLDER_PENDING) return false;
  return now_ns < deadline_of(h, &h->leases[number]);
}

bool lease_holder_find(const struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length, struct lease_held_view *out) {
  uint32_t number = find(h, key, key_length);
  if (number == NONE) return false;
  view(h, &h->leases[number], out);
  out->left_ns = (int64_t)(deadline_of(h, &h->leases[number]) - now_ns);
  return true;
}

size_t lease_holder_bytes(const struct lease_holder *h) {
  return sizeof *h + h->leases_capacity * sizeof *h->leases + h->groups_count * sizeof *h->groups +
         h->timers.capacity * (sizeof *h->timers.entries + sizeof *h->timers.where) + h->keys.capacity * sizeof *h->keys.cells +
         h->blobs.pages_count * (size_t)BLOBS_PAGE;
}
