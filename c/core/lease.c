#include "core/lease.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"

enum {
  NS_PER_MS = 1000000,
  CHUNK = 512,   /* Entries; they never move. */
  BLOCK = 32,    /* Entries looked at together, prefetched. */
  BEAT_MS = 1000, /* While leases are held, ticks are no farther apart: so that a pause or jump is noticed, and costs no more. */
  EVE = 3,       /* Times late_ms before the deadline. */
  STALE_MAX = 1024, /* Numbers in the wheel to be ignored, beyond twice the entries. */
};
#define NONE UINT32_MAX
static const uint64_t TICK_NS = UINT64_C(1) << LEASE_WHEEL_TICK_BITS;

/* ---- entries ---- */

static struct lease *at(const struct leases *t, uint32_t number) { return &t->chunks[number / CHUNK][number % CHUNK]; }
static uint32_t made(const struct leases *t) { return t->chunks_count * CHUNK; }
static uint32_t used(const struct leases *t) { return t->held + t->due + t->past; }
static uint64_t span_ns(const struct leases *t, const struct lease *s) {
  return (uint64_t)s->ttl_ms * (NS_PER_MS + t->config.drift_ppm);
}
static uint64_t deadline_of(const struct leases *t, const struct lease *s) {
  uint64_t from = s->renewed_ns > t->caught_up_ns ? s->renewed_ns : t->caught_up_ns;
  return from + span_ns(t, s);
}

static int add_chunk(struct leases *t) {
  if (t->chunks_count == t->chunks_capacity) {
    uint32_t capacity = t->chunks_capacity ? t->chunks_capacity * 2 : 4;
    struct lease **chunks = realloc(t->chunks, capacity * sizeof *chunks);
    if (!chunks) return ERR_MEMORY;
    t->chunks = chunks;
    t->chunks_capacity = capacity;
  }
  struct lease *chunk = aligned_alloc(64, CHUNK * sizeof *chunk);
  if (!chunk) return ERR_MEMORY;
  memset(chunk, 0, CHUNK * sizeof *chunk);
  uint32_t first = made(t);
  t->chunks[t->chunks_count++] = chunk;
  for (uint32_t i = 0; i < CHUNK; i++) chunk[i].next = i + 1 < CHUNK ? first + i + 2 : t->free;
  t->free = first + 1;
  return 0;
}

static void free_memory(struct leases *t) {
  for (uint32_t i = 0; i < t->chunks_count; i++) free(t->chunks[i]);
  free(t->chunks);
  t->chunks = NULL;
  t->chunks_count = t->chunks_capacity = t->free = 0;
  lease_index_free(&t->keys);
  lease_index_free(&t->names);
  free(t->holders);
  t->holders = NULL;
  t->holders_count = t->holders_capacity = t->holders_free = 0;
  blobs_free(&t->blobs);
  lease_wheel_free(&t->wheel);
  t->sweep_next = 0;
}

static bool bytes_are(const struct leases *t, uint32_t blob, size_t length, const char *bytes, size_t other) {
  return length == other && memcmp(blobs_at(&t->blobs, blob), bytes, length) == 0;
}

static uint32_t find(const struct leases *t, uint32_t hash, const char *key, size_t length) {
  uint32_t cell = hash, number;
  while ((number = lease_index_next(&t->keys, hash, &cell)) != NONE)
    if (bytes_are(t, at(t, number)->key, at(t, number)->key_length, key, length)) return number;
  return NONE;
}

/* ---- names of holders ---- */

static uint32_t hash_of(const struct leases *t, const char *bytes, size_t length) {
  return lease_index_hash(t->config.seed, bytes, length);
}

static uint32_t find_holder(const struct leases *t, const char *name, size_t length) {
  uint32_t hash = hash_of(t, name, length), cell = hash, number;
  while ((number = lease_index_next(&t->names, hash, &cell)) != NONE)
    if (bytes_are(t, t->holders[number].blob, t->holders[number].length, name, length)) return number;
  return NONE;
}

static int grow_holders(struct leases *t) {
  uint32_t capacity = t->holders_capacity ? t->holders_capacity * 2 : 8;
  struct lease_holder_name *holders = realloc(t->holders, capacity * sizeof *holders);
  if (!holders) return ERR_MEMORY;
  t->holders = holders;
  t->holders_capacity = capacity;
  return 0;
}

/* The number of a name, counted once for the caller: an entry takes that over by set_holder(), or drop_holder() ends it. */
static int take_holder(struct leases *t, const char *name, size_t length, uint32_t *out) {
  *out = find_holder(t, name, length);
  if (*out != NONE) return t->holders[*out].leases++, 0;
  if (t->names.count == LEASE_HOLDERS_MAX) return ERR_FULL;
  int rc = lease_index_reserve(&t->names);
  if (rc == 0 && !t->holders_free && t->holders_count == t->holders_capacity) rc = grow_holders(t);
  if (rc < 0) return rc;
  uint32_t blob = blobs_take(&t->blobs, length);
  if (blob == UINT32_MAX) return ERR_MEMORY;
  memcpy(blobs_at(&t->blobs, blob), name, length);
  uint32_t number = t->holders_free ? t->holders_free - 1 : t->holders_count++;
  if (t->holders_free) t->holders_free = t->holders[number].next;
  t->holders[number] = (struct lease_holder_name){.blob = blob, .hash = hash_of(t, name, length), .leases = 1, .length = (uint8_t)length};
  lease_index_add(&t->names, t->holders[number].hash, number);
  *out = number;
  return 0;
}

static void drop_holder(struct leases *t, uint32_t number) {
  struct lease_holder_name *h = &t->holders[number];
  if (--h->leases > 0) return;
  lease_index_remove(&t->names, h->hash, number);
  blobs_give(&t->blobs, h->blob, h->length);
  h->next = t->holders_free;
  t->holders_free = number + 1;
}

static void set_holder(struct leases *t, struct lease *s, uint32_t number) {
  uint32_t before = s->holder;
  s->holder = number;
  if (before != NONE) drop_holder(t, before);
}

/* ---- time ---- */

static uint64_t next_ns(const struct leases *t) {
  if (t->due > 0) return t->time_ns;
  uint64_t next = lease_wheel_next_ns(&t->wheel);
  if (t->past > 0) {
    uint64_t forget = at(t, t->past_first - 1)->renewed_ns + (uint64_t)t->config.past_ms * NS_PER_MS;
    if (forget < next) next = forget;
  }
  if (t->held == 0) return next;
  uint64_t beat = t->ticked_ns + BEAT_MS * NS_PER_MS;
  if (t->sweep_at_ns < next) next = t->sweep_at_ns;
  return beat < next ? beat : next;
}

/* The instant of the next tick, by the clock; lateness is measured against it. */
static void set_due(struct leases *t) {
  uint64_t next = next_ns(t);
  if (next != UINT64_MAX) {
    next = (next > t->time_ns ? next : t->time_ns) + t->behind_ns;
    uint64_t soonest = t->now_ns > t->still_until_ns ? t->now_ns : t->still_until_ns;
    if (next < soonest) next = soonest;
  }
  t->due_ns = next;
}

/* This call came late: the process was paused, or the clock jumped. The time since the last call does not count, and lease time stands
 * still for as long as this call was late, in which the sockets are read. When tick after tick is late, only the lateness does not count:
 * else lease time would never advance. */
static void stand_still(struct leases *t, uint64_t now_ns, uint64_t late_ns) {
  uint64_t still_ns = (uint64_t)t->config.catch_up_ms * NS_PER_MS;
  if (still_ns > late_ns) still_ns = late_ns;
  if (t->was_late && t->due_ns - t->behind_ns > t->time_ns) t->time_ns = t->due_ns - t->behind_ns;
  t->was_late = true;
  t->behind_ns = now_ns + still_ns - t->time_ns;
  t->still_until_ns = now_ns + still_ns;
  t->counts.late++;
  t->counts.late_ns += late_ns;
}

static void advance(struct leases *t, uint64_t now_ns) {
  assert(now_ns >= t->now_ns);
  bool late = now_ns > t->due_ns && now_ns - t->due_ns > (uint64_t)t->config.late_ms * NS_PER_MS;
  if (late) stand_still(t, now_ns, now_ns - t->due_ns);
  else if (now_ns > t->behind_ns && now_ns - t->behind_ns > t->time_ns) t->time_ns = now_ns - t->behind_ns;
  t->now_ns = now_ns;
  if (late) set_due(t);
}

uint64_t lease_deadline(struct leases *t) {
  set_due(t);
  return t->due_ns;
}

/* ---- states ---- */

static void place(struct leases *t, uint32_t number, struct lease *s, uint64_t deadline) {
  uint64_t eve = (uint64_t)t->config.late_ms * NS_PER_MS * EVE;
  s->placed = lease_wheel_place(&t->wheel, number, deadline > t->time_ns + eve ? deadline - eve : deadline);
  s->in_wheel = 1;
}

/* As place(), unless the wheel brings it up early enough already: so an entry that is reused before its old deadline costs nothing. */
static void place_by(struct leases *t, uint32_t number, struct lease *s, uint64_t deadline) {
  uint32_t left = s->placed - (uint32_t)t->wheel.now;
  if (s->in_wheel && left < (uint32_t)INT32_MAX && left <= (deadline >> LEASE_WHEEL_TICK_BITS) - t->wheel.now) return;
  place(t, number, s, deadline);
}

static void past_remove(struct leases *t, struct lease *s) {
  if (s->previous) at(t, s->previous - 1)->next = s->next;
  else t->past_first = s->next;
  if (s->next) at(t, s->next - 1)->previous = s->previous;
  else t->past_last = s->previous;
  s->next = s->previous = 0;
  t->past--;
}

static void past_add(struct leases *t, uint32_t number, struct lease *s) {
  s->state = LEASE_PAST;
  s->renewed_ns = t->time_ns;
  s->next = 0;
  s->previous = t->past_last;
  if (t->past_last) at(t, t->past_last - 1)->next = number + 1;
  else t->past_first = number + 1;
  t->past_last = number + 1;
  t->past++;
}

static void expire(struct leases *t, uint32_t number, struct lease *s, uint64_t deadline) {
  assert(s->state == LEASE_HELD && deadline <= t->time_ns);
  s->state = LEASE_DUE;
  s->renewed_ns = deadline;
  s->next = 0;
  if (t->due_last) at(t, t->due_last - 1)->next = number + 1;
  else t->due_first = number + 1;
  t->due_last = number + 1;
  t->held--;
  t->due++;
  t->counts.expired++;
}

static void forget(struct leases *t, uint32_t number) {
  struct lease *s = at(t, number);
  assert(s->state == LEASE_PAST);
  past_remove(t, s);
  if (s->fence > t->floor) t->floor = s->fence;
  lease_index_remove(&t->keys, s->hash, number);
  blobs_give(&t->blobs, s->key, s->key_length);
  drop_holder(t, s->holder);
  s->state = LEASE_FREE;
  s->next = t->free;
  t->free = number + 1;
  t->counts.forgotten++;
}

/* ---- calls ---- */

int leases_init(struct leases *t, const struct lease_config *c, uint64_t now_ns) {
  memset(t, 0, sizeof *t);
  if (c->leases_max < 1 || c->leases_max > LEASE_TABLE_MAX || c->drift_ppm > LEASE_DRIFT_MAX_PPM || c->late_ms < 1 || c->late_ms > 60000 ||
      c->catch_up_ms > 60000 || c->past_ms > LEASE_TTL_MAX_MS || c->sweep_ms < 10 || c->sweep_ms > 600000)
    return ERR_CONFIG;
  t->config = *c;
  t->now_ns = t->time_ns = now_ns;
  t->due_ns = UINT64_MAX;
  t->wheel.now = now_ns >> LEASE_WHEEL_TICK_BITS;
  return 0;
}

void leases_free(struct leases *t) { free_memory(t); }

/* Too many numbers in the wheel are to be ignored: place all held ones anew. */
static void rebuild(struct leases *t) {
  lease_wheel_clear(&t->wheel);
  for (uint32_t i = 0; i < made(t); i++) {
    struct lease *s = at(t, i);
    s->in_wheel = 0;
    if (s->state == LEASE_HELD) place(t, i, s, deadline_of(t, s));
  }
}

/* A new entry for a key: room for it everywhere, before anything changes. */
static int new_entry(struct leases *t, const char *key, size_t length, uint32_t hash, uint32_t *out) {
  if (used(t) == t->config.leases_max) {
    if (t->past == 0) return ERR_FULL;
    forget(t, t->past_first - 1);
  }
  int rc = lease_index_reserve(&t->keys);
  if (rc == 0 && !t->free) rc = add_chunk(t);
  if (rc < 0) return rc;
  uint32_t blob = blobs_take(&t->blobs, length);
  if (blob == UINT32_MAX) return ERR_MEMORY;
  memcpy(blobs_at(&t->blobs, blob), key, length);
  uint32_t number = t->free - 1;
  struct lease *s = at(t, number);
  t->free = s->next;
  s->hash = hash;
  s->key = blob;
  s->key_length = (uint8_t)length;
  s->next = s->previous = 0;
  s->holder = NONE;
  if (++t->generation == 0) t->generation = 1;
  s->generation = t->generation;
  lease_index_add(&t->keys, hash, number);
  *out = number;
  return 0;
}

static int grant_known(struct leases *t, struct lease *s, uint32_t holder, uint64_t fence) {
  if (fence <= s->fence) return t->counts.stale++, ERR_STALE;
  if (s->state == LEASE_DUE || (s->state == LEASE_HELD && s->holder != holder)) return t->counts.held_refused++, ERR_HELD;
  if (s->state == LEASE_PAST) {
    past_remove(t, s);
    t->held++;
  }
  return 0;
}

static int grant(struct leases *t, uint32_t hash, const char *key, size_t length, uint32_t holder, uint64_t fence, uint32_t ttl_ms,
                 uint64_t *handle) {
  uint32_t number = find(t, hash, key, length);
  if (t->wheel.count > 2 * (uint64_t)used(t) + STALE_MAX) rebuild(t);
  int rc = lease_wheel_reserve(&t->wheel, t->wheel.count + 1);
  if (rc < 0) return rc;
  if (number != NONE) {
    rc = grant_known(t, at(t, number), holder, fence);
    if (rc < 0) return rc;
  } else {
    if (fence <= t->floor) return t->counts.stale++, ERR_STALE;
    rc = new_entry(t, key, length, hash, &number);
    if (rc < 0) return t->counts.full += rc == ERR_FULL, rc;
    t->held++;
  }
  struct lease *s = at(t, number);
  set_holder(t, s, holder);
  s->fence = fence;
  s->ttl_ms = ttl_ms;
  s->renewed_ns = t->time_ns;
  s->state = LEASE_HELD;
  place_by(t, number, s, deadline_of(t, s));
  if (t->held == 1) {
    if (t->sweep_at_ns <= t->time_ns) t->sweep_at_ns = t->time_ns + (uint64_t)t->config.sweep_ms * NS_PER_MS;
    t->ticked_ns = t->time_ns;
  }
  t->counts.grants++;
  *handle = (uint64_t)s->generation << 32 | number;
  return 0;
}

/* The entry that may have this key, then its name: the misses of a block overlap. */
static void prefetch_known(const struct leases *t, uint32_t hash, int code, int pass) {
  uint32_t cell = hash, number = code < 0 ? NONE : lease_index_next(&t->keys, hash, &cell);
  if (number == NONE) return;
  if (pass == 0) __builtin_prefetch(at(t, number), 1);
  else __builtin_prefetch(blobs_at(&t->blobs, at(t, number)->key));
}

static int grant_item(struct leases *t, struct lease_grant_item *g) {
  uint32_t number;
  int rc = take_holder(t, g->holder, g->holder_length, &number);
  if (rc < 0) return t->counts.full += rc == ERR_FULL, rc;
  rc = grant(t, g->hash, g->key, g->key_length, number, g->fence, g->ttl_ms, &g->handle);
  if (rc < 0) drop_holder(t, number);
  return rc;
}

static int check_grant(const struct lease_grant_item *g) {
  if (g->key_length > LEASE_KEY_MAX || g->holder_length > LEASE_HOLDER_MAX) return ERR_TOO_LARGE;
  if (!g->key_length || !g->holder_length || !g->fence || g->ttl_ms < LEASE_TTL_MIN_MS || g->ttl_ms > LEASE_TTL_MAX_MS) return ERR_CONFIG;
  return 0;
}

int lease_grant(struct leases *t, uint64_t now_ns, const char *key, size_t key_length, const char *holder, size_t holder_length,
                uint64_t fence, uint32_t ttl_ms, uint64_t *handle) {
  if (key_length > LEASE_KEY_MAX || holder_length > LEASE_HOLDER_MAX) return ERR_TOO_LARGE;
  struct lease_grant_item g = {.key = key, .holder = holder, .key_length = (uint32_t)key_length, .holder_length = (uint32_t)holder_length,
                               .ttl_ms = ttl_ms, .fence = fence};
  (void)lease_grant_all(t, now_ns, &g, 1); /* g.code says it. */
  if (g.code == 0) *handle = g.handle;
  return g.code;
}

uint32_t lease_grant_all(struct leases *t, uint64_t now_ns, struct lease_grant_item *items, uint32_t count) {
  advance(t, now_ns);
  uint32_t granted = 0;
  for (uint32_t from = 0; from < count; from += BLOCK) {
    uint32_t end = count - from < BLOCK ? count : from + BLOCK;
    for (uint32_t i = from; i < end; i++) {
      items[i].code = check_grant(&items[i]);
      if (items[i].code < 0) continue;
      items[i].hash = hash_of(t, items[i].key, items[i].key_length);
      lease_index_prefetch(&t->keys, items[i].hash);
    }
    for (int pass = 0; pass < 2 && end - from > 1; pass++)
      for (uint32_t i = from; i < end; i++) prefetch_known(t, items[i].hash, items[i].code, pass);
    for (uint32_t i = from; i < end; i++) {
      if (items[i].code == 0) items[i].code = grant_item(t, &items[i]);
      granted += items[i].code == 0;
    }
  }
  set_due(t);
  return granted;
}

/* Judge a fence against this entry's: 0 if it is current. */
static int judge(const struct lease *s, uint64_t fence) {
  if (fence != s->fence) return fence < s->fence ? ERR_STALE : ERR_NOT_FOUND;
  return s->state == LEASE_HELD ? 0 : ERR_EXPIRED;
}

static int renew(struct leases *t, struct lease *s, uint32_t holder, uint64_t fence) {
  int rc = judge(s, fence);
  if (rc < 0) return rc;
  if (s->holder != holder) return ERR_HELD;
  s->renewed_ns = t->time_ns;
  return 0;
}

static struct lease *by_handle(const struct leases *t, uint64_t handle) {
  uint32_t number = (uint32_t)handle;
  if (number >= made(t)) return NULL;
  struct lease *s = at(t, number);
  return s->generation == handle >> 32 && s->state != LEASE_FREE ? s : NULL;
}

/* The misses of a block overlap: first all cells of the index, then all entries, then all keys. */
static void prefetch(const struct leases *t, struct lease_renewal *r, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    if (r[i].handle) {
      if ((uint32_t)r[i].handle < made(t)) __builtin_prefetch(at(t, (uint32_t)r[i].handle), 1);
    } else {
      r[i].hash = hash_of(t, r[i].key, r[i].key_length);
      lease_index_prefetch(&t->keys, r[i].hash);
    }
  }
  for (int pass = 0; pass < 2; pass++)
    for (uint32_t i = 0; i < count; i++)
      if (!r[i].handle) prefetch_known(t, r[i].hash, 0, pass);
}

static int renew_one(struct leases *t, const struct lease_renewal *r, uint32_t holder) {
  struct lease *s;
  if (r->handle) {
    s = by_handle(t, r->handle);
  } else {
    uint32_t number = find(t, r->hash, r->key, r->key_length);
    s = number == NONE ? NULL : at(t, number);
  }
  if (!s) return r->fence && r->fence <= t->floor ? ERR_EXPIRED : ERR_NOT_FOUND;
  return renew(t, s, holder, r->fence);
}

uint32_t lease_renew(struct leases *t, uint64_t now_ns, const char *holder, size_t holder_length, struct lease_renewal *renewals,
                     uint32_t count) {
  advance(t, now_ns);
  uint32_t number = find_holder(t, holder, holder_length), renewed = 0;
  for (uint32_t from = 0; from < count; from += BLOCK) {
    uint32_t block = count - from < BLOCK ? count - from : BLOCK;
    prefetch(t, renewals + from, block);
    for (uint32_t i = from; i < from + block; i++) {
      renewals[i].code = renew_one(t, &renewals[i], number);
      renewed += renewals[i].code == 0;
      t->counts.stale_renewals += renewals[i].code == ERR_STALE;
    }
  }
  t->counts.renewals += renewed;
  t->counts.renewals_refused += count - renewed;
  return renewed;
}

int lease_transfer(struct leases *t, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence, const char *holder,
                   size_t holder_length, uint64_t new_fence) {
  if (key_length > LEASE_KEY_MAX || holder_length > LEASE_HOLDER_MAX) return ERR_TOO_LARGE;
  if (!holder_length) return ERR_CONFIG;
  advance(t, now_ns);
  uint32_t number = find(t, hash_of(t, key, key_length), key, key_length), to;
  int rc = number == NONE ? ERR_NOT_FOUND : judge(at(t, number), fence);
  if (rc == 0 && new_fence <= fence) rc = ERR_STALE;
  if (rc == 0) rc = take_holder(t, holder, holder_length, &to);
  if (rc < 0) return t->counts.stale += rc == ERR_STALE, rc;
  struct lease *s = at(t, number);
  set_holder(t, s, to);
  s->fence = new_fence;
  s->renewed_ns = t->time_ns;
  t->counts.transfers++;
  set_due(t);
  return 0;
}

int lease_release(struct leases *t, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence) {
  advance(t, now_ns);
  uint32_t number = find(t, hash_of(t, key, key_length), key, key_length);
  int rc = number == NONE ? ERR_NOT_FOUND : judge(at(t, number), fence);
  if (rc < 0) return t->counts.stale += rc == ERR_STALE, rc;
  t->held--;
  past_add(t, number, at(t, number));
  t->counts.releases++;
  set_due(t);
  return 0;
}

/* One step of the sweep, when nothing that the wheel brought up waits. */
static void sweep(struct leases *t, uint64_t limit) {
  if (t->held == 0 || limit < t->sweep_at_ns || lease_wheel_next_ns(&t->wheel) <= limit) return;
  uint32_t end = made(t) - t->sweep_next < LEASE_SWEEP_BATCH ? made(t) : t->sweep_next + LEASE_SWEEP_BATCH;
  for (; t->sweep_next < end; t->sweep_next++) {
    struct lease *s = at(t, t->sweep_next);
    if (s->state != LEASE_HELD) continue;
    uint64_t deadline = deadline_of(t, s);
    if (deadline + 2 * TICK_NS > limit) continue;
    s->in_wheel = 0; /* It is not, whatever it says. */
    expire(t, t->sweep_next, s, deadline);
    t->counts.lost++;
  }
  t->sweep_at_ns = t->time_ns + 10 * NS_PER_MS;
  if (end < made(t)) return;
  t->sweep_next = 0;
  t->sweep_at_ns = t->time_ns + (uint64_t)t->config.sweep_ms * NS_PER_MS;
  t->counts.sweeps++;
}

static void look(struct leases *t, const uint32_t *numbers, uint32_t count, uint32_t tick, uint64_t limit) {
  for (uint32_t i = 0; i < count; i++) __builtin_prefetch(at(t, numbers[i]), 1);
  for (uint32_t i = 0; i < count; i++) {
    struct lease *s = at(t, numbers[i]);
    if (!s->in_wheel || s->placed != tick) continue; /* It was placed anew. */
    s->in_wheel = 0;
    if (s->state != LEASE_HELD) continue;
    uint64_t deadline = deadline_of(t, s);
    if (deadline <= limit) expire(t, numbers[i], s, deadline);
    else place(t, numbers[i], s, deadline);
  }
}

void lease_tick(struct leases *t, uint64_t now_ns, uint32_t max) {
  uint64_t limit = t->time_ns, late = t->counts.late;
  advance(t, now_ns);
  if (t->counts.late == late) { /* Else this tick is late: only what was due at the last call, since which the sockets were read. */
    if (now_ns < t->still_until_ns) return set_due(t);
    limit = t->time_ns;
    t->was_late = false;
  }
  uint32_t numbers[BLOCK], tick, count, looked = 0;
  while (looked < max && (count = lease_wheel_take(&t->wheel, limit, numbers, BLOCK, &tick)) > 0) {
    look(t, numbers, count, tick, limit);
    looked += count;
  }
  uint64_t past_ns = (uint64_t)t->config.past_ms * NS_PER_MS;
  for (; t->past > 0 && looked < max && at(t, t->past_first - 1)->renewed_ns + past_ns <= limit; looked++) forget(t, t->past_first - 1);
  sweep(t, limit);
  if (used(t) == 0 && t->chunks_count > 1) free_memory(t);
  t->ticked_ns = t->time_ns;
  set_due(t);
}

static void view(const struct leases *t, uint32_t number, struct lease_view *out) {
  const struct lease *s = at(t, number);
  const struct lease_holder_name *h = &t->holders[s->holder];
  *out = (struct lease_view){
      .handle = (uint64_t)s->generation << 32 | number, .fence = s->fence, .key = (const char *)blobs_at(&t->blobs, s->key),
      .holder = (const char *)blobs_at(&t->blobs, h->blob), .key_length = s->key_length, .holder_length = h->length,
      .ttl_ms = s->ttl_ms, .state = s->state,
      .left_ns = s->state == LEASE_HELD ? (int64_t)(deadline_of(t, s) - t->time_ns) : 0};
}

bool lease_peek(const struct leases *t, uint32_t *cursor, struct lease_expiry *out) {
  uint32_t number = *cursor ? at(t, *cursor - 1)->next : t->due_first;
  if (number == 0) return false;
  *cursor = number;
  view(t, number - 1, &out->lease);
  out->expired_for_ns = t->time_ns - at(t, number - 1)->renewed_ns;
  return true;
}

void lease_take(struct leases *t, uint32_t cursor) {
  uint32_t number = 0;
  while (number != cursor) {
    number = t->due_first;
    assert(number != 0); /* The cursor came from lease_peek(). */
    struct lease *s = at(t, number - 1);
    assert(s->state == LEASE_DUE);
    t->due_first = s->next;
    if (!t->due_first) t->due_last = 0;
    t->due--;
    past_add(t, number - 1, s);
  }
  set_due(t);
}

void lease_catch_up(struct leases *t, uint64_t now_ns) {
  advance(t, now_ns);
  t->caught_up_ns = t->time_ns;
  t->counts.catch_ups++;
  set_due(t);
}

bool lease_find(struct leases *t, uint64_t now_ns, const char *key, size_t key_length, struct lease_view *out) {
  advance(t, now_ns);
  uint32_t number = find(t, hash_of(t, key, key_length), key, key_length);
  if (number == NONE) return false;
  view(t, number, out);
  return true;
}

size_t lease_bytes(const struct leases *t) {
  return sizeof *t + t->chunks_count * CHUNK * sizeof(struct lease) + t->chunks_capacity * sizeof *t->chunks +
         ((size_t)t->keys.capacity + t->names.capacity) * sizeof *t->keys.cells + t->holders_capacity * sizeof *t->holders +
         t->blobs.pages_count * (size_t)BLOBS_PAGE + t->blobs.pages_capacity * sizeof *t->blobs.pages + lease_wheel_bytes(&t->wheel);
}
