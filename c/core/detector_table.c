#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/detector_private.h"
#include "core/errors.h"

/* ---- sets ---- */

void *detector_set_find(const struct detector_set *s, uint32_t hash, detector_same *same, const void *key) {
  if (s->capacity == 0) return NULL;
  for (uint32_t at = hash & (s->capacity - 1); s->slots[at].item; at = (at + 1) & (s->capacity - 1))
    if (s->slots[at].hash == hash && same(s->slots[at].item, key)) return s->slots[at].item;
  return NULL;
}

static void put(struct detector_set *s, uint32_t hash, void *item) {
  uint32_t at = hash & (s->capacity - 1);
  while (s->slots[at].item) at = (at + 1) & (s->capacity - 1);
  s->slots[at].hash = hash, s->slots[at].item = item;
}

int detector_set_add(struct detector_set *s, uint32_t hash, void *item) {
  if (4 * ((uint64_t)s->count + 1) > 3 * (uint64_t)s->capacity) {
    struct detector_set grown = {.count = s->count, .capacity = s->capacity ? 2 * s->capacity : 8};
    if (grown.capacity == 0 || !(grown.slots = calloc(grown.capacity, sizeof *grown.slots))) return ERR_MEMORY;
    for (uint32_t i = 0; i < s->capacity; i++)
      if (s->slots[i].item) put(&grown, s->slots[i].hash, s->slots[i].item);
    free(s->slots);
    *s = grown;
  }
  put(s, hash, item);
  s->count++;
  return 0;
}

void detector_set_free(struct detector_set *s) {
  free(s->slots);
  *s = (struct detector_set){0};
}

void detector_set_remove(struct detector_set *s, uint32_t hash, const void *item) {
  uint32_t mask = s->capacity - 1, hole = hash & mask;
  assert(s->count > 0);
  while (s->slots[hole].item != item) assert(s->slots[hole].item), hole = (hole + 1) & mask;
  for (uint32_t at = (hole + 1) & mask; s->slots[at].item; at = (at + 1) & mask) { /* Close the gap: no tombstones. */
    uint32_t home = s->slots[at].hash & mask;
    if (((at - home) & mask) < ((at - hole) & mask)) continue;
    s->slots[hole] = s->slots[at];
    hole = at;
  }
  s->slots[hole].item = NULL;
  if (--s->count == 0) detector_set_free(s);
}

/* ---- rings ---- */

static void ring_append(struct detector_ring *head, struct detector_ring *r) {
  r->next = head, r->previous = head->previous;
  head->previous->next = r, head->previous = r;
}
static void ring_remove(struct detector_ring *r) { r->next->previous = r->previous, r->previous->next = r->next; }

/* ---- nodes ---- */

uint32_t detector_number(const char *name, size_t length) { return crc32c(0, name, length); }

static bool same_node(const void *item, const void *key) {
  const struct detector_node *n = item;
  const struct detector_text *name = key;
  return n->length == name->length && memcmp(n->name, name->bytes, n->length) == 0;
}

struct detector_node *detector_node_find(const struct detector *d, struct detector_text name) {
  return detector_set_find(&d->nodes, detector_number(name.bytes, name.length), same_node, &name);
}

struct detector_node *detector_node_find_for(const struct detector *d, const struct detector_job *j, struct detector_text name) {
  uint32_t hash = detector_number(name.bytes, name.length);
  if (j->suspicions.capacity > 0) __builtin_prefetch(&j->suspicions.slots[hash & (j->suspicions.capacity - 1)]);
  return detector_set_find(&d->nodes, hash, same_node, &name);
}

int detector_node_need(struct detector *d, struct detector_text name, struct detector_node **out) {
  uint32_t hash = detector_number(name.bytes, name.length);
  if (name.length == 0 || name.length > DETECTOR_NAME_MAX) return ERR_TOO_LARGE;
  *out = detector_set_find(&d->nodes, hash, same_node, &name);
  if (*out) return 0;
  if (d->nodes.count >= d->config.nodes_max) return d->counts.full_nodes++, ERR_FULL;
  struct detector_node *n = calloc(1, sizeof *n + name.length);
  if (!n) return ERR_MEMORY;
  if (detector_set_add(&d->nodes, hash, n) < 0) return free(n), ERR_MEMORY;
  n->hash = hash, n->length = (uint32_t)name.length, n->changed_ns = d->now_ns;
  memcpy(n->name, name.bytes, name.length);
  ring_append(&d->node_ring, &n->ring);
  *out = n;
  return 0;
}

void detector_node_release(struct detector *d, struct detector_node *n) {
  if (n->references > 0 || n->claimed) return;
  detector_set_remove(&d->nodes, n->hash, n);
  ring_remove(&n->ring);
  free(n->of);
  free(n);
}

/* ---- jobs ---- */

static bool same_job(const void *item, const void *key) {
  const struct detector_job *j = item;
  const struct detector_text *name = key;
  return j->length == name->length && memcmp(j->name, name->bytes, j->length) == 0;
}

struct detector_job *detector_job_find(const struct detector *d, struct detector_text name) {
  if (name.length == 0) return d->machines;
  return detector_set_find(&d->jobs, detector_number(name.bytes, name.length), same_job, &name);
}

int detector_job_need(struct detector *d, struct detector_text name, struct detector_job **out) {
  if (name.length > DETECTOR_NAME_MAX) return ERR_TOO_LARGE;
  *out = detector_job_find(d, name);
  if (*out) return 0;
  struct detector_job *j = calloc(1, sizeof *j + name.length);
  if (!j) return ERR_MEMORY;
  j->hash = detector_number(name.bytes, name.length), j->length = (uint32_t)name.length;
  if (name.length > 0 && detector_set_add(&d->jobs, j->hash, j) < 0) return free(j), ERR_MEMORY;
  if (name.length > 0) {
    memcpy(j->name, name.bytes, name.length);
    ring_append(&d->job_ring, &j->ring);
  }
  *out = j;
  return 0;
}

void detector_job_release(struct detector *d, struct detector_job *j) {
  if (j->references > 0 || j == d->machines) return;
  assert(j->suspicions.count == 0 && j->extensions.count == 0);
  detector_set_remove(&d->jobs, j->hash, j);
  ring_remove(&j->ring);
  free(j);
}

/* ---- records ---- */

static bool of_node(const void *item, const void *key) {
  const struct detector_record *r = item;
  __builtin_prefetch((const char *)r + 64), __builtin_prefetch((const char *)r + 128); /* Its other lines, while the first comes. */
  return r->node == key;
}

struct detector_record *detector_record_find(const struct detector_job *j, const struct detector_node *n) {
  if (j->length == 0) return n->machine;
  return detector_set_find(&j->suspicions, n->hash, of_node, n);
}

static struct detector_record *take(struct detector *d) {
  if (!d->free) {
    struct detector_chunk *c = aligned_alloc(_Alignof(struct detector_chunk), sizeof *c);
    if (!c) return NULL;
    c->next = d->chunks, d->chunks = c;
    for (int i = DETECTOR_CHUNK; i-- > 0;) c->records[i].queued = d->free, d->free = &c->records[i];
  }
  struct detector_record *r = d->free;
  d->free = r->queued;
  return r;
}

static void give(struct detector *d, struct detector_record *r) { r->queued = d->free, d->free = r; }

struct detector_record *detector_node_at(const struct detector_node *n, uint32_t place) {
  struct detector_record *r = n->of[place]; /* Its memory may be another suspicion's by now. */
  return r->running && r->node == n && r->place == place && r->job->length > 0 ? r : NULL;
}

struct detector_record *detector_node_last(struct detector_node *n) {
  if (n->live == 0) return NULL;
  while (!detector_node_at(n, n->count - 1)) n->count--;
  return n->of[n->count - 1];
}

/* Room for one more. A list and not a ring through the records: an end then touches no other record, each of which would be a cache miss. */
static int make_room(struct detector_node *n) {
  if (n->count < n->capacity) return 0;
  if (n->live <= n->capacity / 2) { /* Drop those that have ended: half of them at least, so that each end pays for one look. */
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n->count; i++) {
      struct detector_record *r = detector_node_at(n, i);
      if (r) n->of[kept] = r, r->place = kept++;
    }
    n->count = kept;
    if (n->capacity > 0) return 0;
  }
  uint32_t capacity = n->capacity ? 2 * n->capacity : 4;
  struct detector_record **of = realloc(n->of, capacity * sizeof(struct detector_record *));
  if (!of) return ERR_MEMORY;
  n->of = of, n->capacity = capacity;
  return 0;
}

int detector_record_new(struct detector *d, struct detector_job *j, struct detector_node *n, struct detector_record **out) {
  bool machine = j->length == 0;
  if (!machine && make_room(n) < 0) return ERR_MEMORY;
  struct detector_record *r = take(d);
  if (!r) return ERR_MEMORY;
  *r = (struct detector_record){.node = n, .job = j, .incarnation = n->incarnation, .place = n->count};
  if (!machine && detector_set_add(&j->suspicions, n->hash, r) < 0) return give(d, r), ERR_MEMORY;
  if (machine) {
    assert(!n->machine);
    n->machine = r;
  } else {
    n->of[n->count++] = r, n->live++;
  }
  n->references++, j->references++, d->records++;
  *out = r;
  return 0;
}

void detector_record_detach(struct detector_record *r) {
  struct detector_node *n = r->node;
  if (r->job->length == 0) {
    assert(n->machine == r);
    n->machine = NULL;
    return;
  }
  assert(!r->running && n->live > 0);
  detector_set_remove(&r->job->suspicions, n->hash, r);
  if (--n->live > 0) return;
  n->count = 0;
  if (n->capacity > 8) free(n->of), n->of = NULL, n->capacity = 0;
}

void detector_record_free(struct detector *d, struct detector_record *r) {
  struct detector_node *n = r->node;
  struct detector_job *j = r->job;
  assert(!r->running && !r->waiting);
  give(d, r);
  d->records--;
  n->references--, j->references--;
  detector_node_release(d, n);
  detector_job_release(d, j);
  if (d->records > 0 || !d->chunks->next) return;
  d->free = NULL; /* None is used: give the memory back; a single chunk stays, for the next one. */
  for (struct detector_chunk *c = d->chunks, *next; c; c = next) next = c->next, free(c);
  d->chunks = NULL;
}

/* ---- extensions ---- */

static bool extends_node(const void *item, const void *key) { return ((const struct detector_extension *)item)->node == key; }

struct detector_extension *detector_extension_find(const struct detector_job *j, const struct detector_node *n) {
  struct detector_extension *x = detector_set_find(&j->extensions, n->hash, extends_node, n);
  return x && x->life == n->life ? x : NULL;
}

int detector_extension_need(struct detector *d, struct detector_job *j, struct detector_node *n, struct detector_extension **out) {
  struct detector_extension *x = detector_set_find(&j->extensions, n->hash, extends_node, n);
  if (!x) {
    if (j->extensions.count >= d->config.job_suspicions_max || d->counts.extensions >= d->config.suspicions_max)
      return d->counts.full_extensions++, ERR_FULL;
    x = calloc(1, sizeof *x);
    if (!x) return ERR_MEMORY;
    x->node = n;
    if (detector_set_add(&j->extensions, n->hash, x) < 0) return free(x), ERR_MEMORY;
    n->references++, j->references++, d->counts.extensions++;
  } else if (x->life == n->life) {
    *out = x;
    return 0;
  }
  *x = (struct detector_extension){.node = n, .life = n->life, .of = x->of};
  *out = x;
  return 0;
}

void detector_extension_drop(struct detector *d, struct detector_job *j, struct detector_extension *x) {
  struct detector_node *n = x->node;
  detector_set_remove(&j->extensions, n->hash, x);
  free(x->of);
  free(x);
  d->counts.extensions--;
  n->references--, j->references--;
  detector_node_release(d, n);
}
