/* The table: slots, the index by name, the arrays of the living and the dead, and O(1) choices among them.
 *
 * A slot is 64 bytes. Data that few members have (a suspicion, a rumour) is in separate pools; names, IPv6 addresses and payloads
 * are in `blobs`. The index is open addressing with linear probing, at most four fifths full. */
#include <assert.h>
#include <stdlib.h>

#include "core/errors.h"
#include "core/swim_private.h"

static uint32_t mix(uint32_t x) { /* The finalizer of MurmurHash3. */
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return x ^ x >> 16;
}

uint32_t swim_trace(const struct member *m) {
  return mix(m->key ^ mix(m->incarnation.generation ^ mix(m->incarnation.version ^ mix(m->payload_version))));
}

/* ---- the content of a slot ---- */

struct shoal_address swim_address(const struct swim *s, const struct member *m) {
  struct shoal_address a = {.family = m->ipv6 ? 6 : 4, .port = m->port};
  if (m->ipv6) memcpy(a.bytes, blobs_at(&s->blobs, m->blob) + m->name_length, IPV6_BYTES);
  else memcpy(a.bytes, m->host, sizeof m->host);
  return a;
}

static size_t blob_length(const struct member *m) {
  return (size_t)m->name_length + (m->ipv6 ? IPV6_BYTES : 0u) + m->payload_length;
}

/* Resize this member's blob for another address family or payload; 0, or ERR_MEMORY with nothing changed. */
static int reshape(struct swim *s, struct member *m, bool ipv6, size_t payload_length) {
  size_t was = blob_length(m), kept = swim_payload_at(m);
  size_t at = (size_t)m->name_length + (ipv6 ? IPV6_BYTES : 0u), length = at + payload_length;
  uint8_t payload[SWIM_PAYLOAD_MAX];
  bool moves = at != kept && m->payload_length > 0 && payload_length > 0;
  if (moves) memcpy(payload, blobs_at(&s->blobs, m->blob) + kept, m->payload_length);
  uint32_t blob = blobs_resize(&s->blobs, m->blob, was, length);
  if (blob == UINT32_MAX) return ERR_MEMORY;
  m->blob = blob;
  if (moves) memcpy(blobs_at(&s->blobs, blob) + at, payload, m->payload_length < payload_length ? m->payload_length : payload_length);
  m->ipv6 = ipv6;
  m->payload_length = (uint16_t)payload_length;
  return 0;
}

int swim_set_address(struct swim *s, uint32_t id, const struct shoal_address *address) {
  struct member *m = &s->members[id];
  bool ipv6 = address->family == 6;
  if (ipv6 != m->ipv6 && reshape(s, m, ipv6, m->payload_length) < 0) return ERR_MEMORY;
  if (ipv6) memcpy(blobs_at(&s->blobs, m->blob) + m->name_length, address->bytes, IPV6_BYTES);
  else memcpy(m->host, address->bytes, sizeof m->host);
  m->port = address->port;
  return 0;
}

int swim_store_payload(struct swim *s, uint32_t id, const uint8_t *bytes, size_t length, uint32_t version) {
  struct member *m = &s->members[id];
  if (reshape(s, m, m->ipv6, length) < 0) return ERR_MEMORY;
  if (length) memcpy(blobs_at(&s->blobs, m->blob) + swim_payload_at(m), bytes, length);
  if (swim_lives(m)) s->digest ^= swim_trace(m);
  m->payload_version = version;
  if (swim_lives(m)) s->digest ^= swim_trace(m);
  return 0;
}

struct record swim_members_record(const struct swim *s, uint32_t id, bool whole) {
  const struct member *m = &s->members[id];
  struct record r = {.name = swim_name(s, m), .name_length = m->name_length, .address = swim_address(s, m),
                     .incarnation = m->incarnation, .state = m->state, .forgotten = m->forgotten};
  if (m->state == SWIM_SUSPECT) r.accuser = suspicion_last_accuser(&s->suspicions[m->suspicion].of);
  if (whole) r.place = swim_place(m);
  if (whole && m->payload_version > 0) {
    r.payload = swim_payload(s, m);
    r.payload_length = m->payload_length;
    r.payload_version = m->payload_version;
  }
  return r;
}

/* ---- the living in `order` from its front, the dead from its back ---- */

static uint32_t *grave(const struct swim *s, uint32_t place) { return &s->order[s->members_capacity - 1 - place]; }

static void order_set(struct swim *s, uint32_t place, uint32_t id) {
  s->order[place] = id;
  s->members[id].place = place;
}

void swim_order_add(struct swim *s, uint32_t id) {
  uint32_t place = s->living++;
  assert(s->living + s->dead <= s->members_capacity);
  if (s->cursor > 0 && rng_below(&s->rng, place + 1) < s->cursor) {
    if (s->cursor < place) order_set(s, place, s->order[s->cursor]);
    place = s->cursor++;
  }
  order_set(s, place, id);
}

void swim_order_remove(struct swim *s, uint32_t id) {
  uint32_t place = s->members[id].place, last = --s->living;
  assert(s->order[place] == id);
  if (place < s->cursor) { /* Close the gap, and keep the probed ones apart from the others. */
    s->cursor--;
    order_set(s, place, s->order[s->cursor]);
    place = s->cursor;
  }
  if (place != last) order_set(s, place, s->order[last]);
  s->members[id].place = NONE;
}

void swim_graves_add(struct swim *s, uint32_t id) {
  s->members[id].place = s->dead;
  *grave(s, s->dead++) = id;
  assert(s->living + s->dead <= s->members_capacity);
}

void swim_graves_remove(struct swim *s, uint32_t id) {
  uint32_t place = s->members[id].place, last = *grave(s, --s->dead);
  assert(*grave(s, place) == id);
  *grave(s, place) = last;
  s->members[last].place = place;
  s->members[id].place = NONE;
}

uint32_t swim_grave(const struct swim *s, uint32_t place) { return *grave(s, place); }

uint32_t swim_round_next(struct swim *s) {
  if (s->living == 0) return NONE;
  if (s->cursor >= s->living) s->cursor = 0; /* A new round in a new order, which is shuffled step by step. */
  uint32_t pick = s->cursor + (uint32_t)rng_below(&s->rng, s->living - s->cursor);
  uint32_t id = s->order[pick];
  order_set(s, pick, s->order[s->cursor]);
  order_set(s, s->cursor++, id);
  return id;
}

/* `order` is in random order, so a run from a random place is a random choice. Suspects are skipped for the first 16 looks, then
 * taken. */
uint32_t swim_choose(struct swim *s, uint32_t *ids, uint32_t count, uint32_t except) {
  if (s->living == 0) return 0;
  uint32_t start = (uint32_t)rng_below(&s->rng, s->living), chosen = 0, passed = 0, looks = 0;
  uint32_t suspects[FANOUT_MAX];
  for (; looks < s->living && chosen < count && looks < count + 16; looks++) {
    uint32_t at = start + looks, id = s->order[at < s->living ? at : at - s->living];
    if (id == except) continue;
    if (s->members[id].state == SWIM_ALIVE && !s->members[id].held) ids[chosen++] = id;
    else if (passed < FANOUT_MAX) suspects[passed++] = id;
  }
  for (uint32_t i = 0; i < passed && chosen < count; i++) ids[chosen++] = suspects[i];
  return chosen;
}

/* ---- the index ---- */

static uint32_t home(const struct swim *s, uint32_t key) { return (uint32_t)((uint64_t)mix(key) * s->index_count >> 32); }
static uint32_t beside(const struct swim *s, uint32_t at) { return at + 1 < s->index_count ? at + 1 : 0; }

static void index_add(struct swim *s, uint32_t id) {
  uint32_t at = home(s, s->members[id].key);
  while (s->index[at] != NONE) at = beside(s, at);
  s->index[at] = id;
}

/* Entries behind it that are not at their home move up, so that no search ends too soon. */
static void index_remove(struct swim *s, uint32_t id) {
  uint32_t gap = home(s, s->members[id].key);
  while (s->index[gap] != id) gap = beside(s, gap);
  for (uint32_t at = beside(s, gap); s->index[at] != NONE; at = beside(s, at)) {
    uint32_t wants = home(s, s->members[s->index[at]].key);
    bool between = gap <= at ? gap < wants && wants <= at : gap < wants || wants <= at;
    if (between) continue;
    s->index[gap] = s->index[at];
    gap = at;
  }
  s->index[gap] = NONE;
}

uint32_t swim_members_find(const struct swim *s, const char *name, size_t name_length) {
  uint32_t key = swim_wire_key(name, name_length), id;
  for (uint32_t at = home(s, key); (id = s->index[at]) != NONE; at = beside(s, at)) {
    const struct member *m = &s->members[id];
    if (m->key == key && m->name_length == name_length && memcmp(swim_name(s, m), name, name_length) == 0) return id;
  }
  return NONE;
}

uint32_t swim_members_by_key(const struct swim *s, uint32_t key, uint32_t generation) {
  uint32_t found = NONE, of_generation = NONE, id;
  unsigned same_key = 0, same_generation = 0;
  for (uint32_t at = home(s, key); (id = s->index[at]) != NONE; at = beside(s, at)) {
    if (s->members[id].key != key) continue;
    found = id, same_key++;
    if (s->members[id].incarnation.generation == generation) of_generation = id, same_generation++;
  }
  if (same_key <= 1) return found;
  return same_generation == 1 ? of_generation : NONE; /* Two names with one key and one generation cannot be distinguished. */
}

/* ---- slots ---- */

static int reserve(struct swim *s, uint32_t capacity) {
  assert(capacity >= s->members_capacity);
  struct member *members = realloc(s->members, capacity * sizeof *members);
  if (!members) return ERR_MEMORY;
  s->members = members;
  uint32_t *order = realloc(s->order, capacity * sizeof *order);
  if (!order) return ERR_MEMORY;
  s->order = order;
  uint32_t index_count = capacity + capacity / 4 + 4;
  uint32_t *index = realloc(s->index, index_count * sizeof *index);
  if (!index) return ERR_MEMORY;
  memmove(order + capacity - s->dead, order + s->members_capacity - s->dead, s->dead * sizeof *order);
  s->members_capacity = capacity;
  s->index = index;
  s->index_count = index_count;
  memset(index, 0xff, index_count * sizeof *index);
  for (uint32_t id = 0; id < s->members_count; id++)
    if (s->members[id].name_length) index_add(s, id);
  return 0;
}

uint32_t swim_members_add(struct swim *s, const struct record *r) {
  if (s->kept >= s->config.members_max) {
    s->counts.refused[SWIM_REFUSED_FULL]++;
    return NONE;
  }
  /* Everything that can fail comes first. It grows by a sixteenth: still amortized, and little of the table is unused. */
  bool grows = s->free_head == NONE && s->members_count == s->members_capacity;
  if (grows && reserve(s, s->members_capacity + s->members_capacity / 16 + 32) < 0) return NONE;
  bool ipv6 = r->address.family == 6;
  uint32_t blob = blobs_take(&s->blobs, r->name_length + (ipv6 ? IPV6_BYTES : 0u));
  if (blob == UINT32_MAX) return NONE;
  memcpy(blobs_at(&s->blobs, blob), r->name, r->name_length);
  uint32_t id = s->free_head;
  if (id != NONE) s->free_head = s->members[id].place;
  else id = s->members_count++;
  s->kept++;
  s->members[id] = (struct member){
      .key = swim_wire_key(r->name, r->name_length), .blob = blob, .name_length = (uint8_t)r->name_length, .ipv6 = ipv6,
      .place = NONE, .suspicion = NONE, .rumour = NONE, .incarnation = r->incarnation, .state = SWIM_LEFT,
  };
  swim_changed(s, id);
  (void)swim_set_address(s, id, &r->address); /* It was reserved above. */
  index_add(s, id);
  return id;
}

static void reap(struct swim *s, uint32_t id) {
  struct member *m = &s->members[id];
  assert(id != SELF && !swim_lives(m) && m->suspicion == NONE);
  if (m->state == SWIM_DEAD) swim_graves_remove(s, id);
  swim_rumour_end(s, id);
  swim_flap_forget(s, id);
  index_remove(s, id);
  blobs_give(&s->blobs, m->blob, blob_length(m));
  *m = (struct member){.place = s->free_head, .suspicion = NONE, .rumour = NONE};
  s->free_head = id;
  s->kept--;
}

void swim_sweep(struct swim *s) {
  for (int n = 0; n < SWEEP && s->members_count > 1; n++) {
    if (++s->sweep_at >= s->members_count) s->sweep_at = SELF + 1;
    struct member *m = &s->members[s->sweep_at];
    /* In a small table a rumour is sent a few times only, and no digest shows who missed this one. */
    bool again = m->name_length && m->forgotten && s->now_ns - swim_changed_ns(m) < YOUNG * ms(s->config.probe_interval_ms);
    if (again) swim_rumour(s, s->sweep_at, false);
    if (m->name_length && !swim_lives(m) && s->now_ns - swim_changed_ns(m) >= ms(s->config.tombstone_ms)) reap(s, s->sweep_at);
  }
}

int swim_members_open(struct swim *s, const struct swim_identity *identity) {
  s->free_head = NONE;
  struct record self = {.name = identity->name, .name_length = identity->name_length, .address = identity->address,
                        .incarnation = {identity->generation < UINT32_MAX ? identity->generation : UINT32_MAX - 1, 0}};
  if (swim_members_add(s, &self) != SELF) return ERR_MEMORY;
  s->members[SELF].state = SWIM_ALIVE;
  s->digest ^= swim_trace(&s->members[SELF]);
  return swim_store_payload(s, SELF, identity->payload, identity->payload_length, 1);
}

void swim_members_close(struct swim *s) {
  blobs_free(&s->blobs);
  free(s->members);
  free(s->index);
  free(s->order);
  free(s->suspicions);
  free(s->rumours);
  free(s->flaps);
  heap_free(&s->suspects);
}

/* ---- for specs and studies ---- */

/* As if all had joined the first one: fill its table, and copy it to the others. */
static int preset_first(struct swim *const *all, uint32_t count) {
  struct swim *s = all[0];
  if (reserve(s, count > s->members_capacity ? count : s->members_capacity) < 0) return ERR_MEMORY;
  for (uint32_t id = 1; id < count; id++) {
    struct record r = swim_members_record(all[id], SELF, true);
    if (swim_members_add(s, &r) != id) return ERR_MEMORY;
    s->members[id].state = SWIM_ALIVE;
    s->digest ^= swim_trace(&s->members[id]);
    if (swim_store_payload(s, id, r.payload, r.payload_length, r.payload_version) < 0) return ERR_MEMORY;
  }
  return 0;
}

static void *copy_of(const void *bytes, size_t length) {
  void *copy = malloc(length);
  if (copy) memcpy(copy, bytes, length);
  return copy;
}

static int preset_copy(struct swim *s, const struct swim *first, uint32_t at) {
  swim_members_close(s);
  s->rumours = NULL, s->rumours_capacity = 0, s->rumours_free = NONE;
  s->suspicions = NULL, s->suspicions_capacity = 0;
  s->flaps = NULL, s->flaps_capacity = 0;
  s->members_count = s->kept = first->kept, s->members_capacity = first->members_capacity, s->index_count = first->index_count;
  s->members = copy_of(first->members, first->members_capacity * sizeof *first->members);
  s->index = copy_of(first->index, first->index_count * sizeof *first->index);
  s->order = malloc(first->members_capacity * sizeof *s->order);
  s->blobs = first->blobs;
  s->blobs.pages = calloc(first->blobs.pages_capacity, sizeof *s->blobs.pages);
  if (!s->blobs.pages) s->blobs.pages_count = s->blobs.pages_capacity = 0;
  for (uint32_t i = 0; i < s->blobs.pages_count; i++)
    if (!(s->blobs.pages[i] = copy_of(first->blobs.pages[i], BLOBS_PAGE))) s->blobs.pages_count = i;
  if (!s->members || !s->index || !s->order || s->blobs.pages_count < first->blobs.pages_count) return ERR_MEMORY;
  uint32_t mine = home(s, s->members[at].key), other = home(s, s->members[SELF].key); /* Ours is the first slot. */
  while (s->index[mine] != at) mine = beside(s, mine);
  while (s->index[other] != SELF) other = beside(s, other);
  s->index[mine] = SELF, s->index[other] = at;
  struct member self = s->members[at];
  s->members[at] = s->members[SELF];
  s->members[SELF] = self;
  s->digest = first->digest;
  return 0;
}

int swim_preset(struct swim *const *all, uint32_t count) {
  for (uint32_t at = 0; at < count; at++) swim_rumour_end(all[at], SELF);
  if (preset_first(all, count) < 0) return ERR_MEMORY;
  for (uint32_t at = 0; at < count; at++) {
    struct swim *s = all[at];
    if (at > 0 && preset_copy(s, all[0], at) < 0) return ERR_MEMORY;
    for (uint32_t id = 1; id < count; id++) { /* Shuffle while filling. */
      uint32_t place = s->living++, other = (uint32_t)rng_below(&s->rng, place + 1);
      if (other != place) order_set(s, place, s->order[other]);
      order_set(s, other, id);
    }
    for (uint32_t id = 0; id < count; id++) swim_changed(s, id);
    s->joined = true;
    s->young_ns = s->now_ns; /* They are not young either. */
  }
  return 0;
}

static void check_rumours(const struct swim *s) {
  uint32_t rumours = 0;
  for (uint32_t sent = 0; sent < SENT_MAX; sent++) {
    uint32_t previous = NONE;
    for (uint32_t at = s->lists[sent].head; at != NONE; previous = at, at = s->rumours[at].next, rumours++)
      assert(s->members[s->rumours[at].id].rumour == at && s->rumours[at].sent == sent && s->rumours[at].previous == previous);
    assert(s->lists[sent].tail == previous);
  }
  assert(rumours == s->rumours_count);
}

static void check_flaps(const struct swim *s) {
  uint32_t held = 0, flapped = 0;
  for (uint32_t id = 0; id < s->members_count; id++) {
    held += s->members[id].held, flapped += s->members[id].flapped;
    assert(!s->members[id].held || (s->members[id].flapped && s->members[id].state != SWIM_LEFT));
  }
  for (uint32_t i = 0; i < s->flaps_count; i++) assert(s->members[s->flaps[i].id].flapped);
  assert(held == s->held && flapped == s->flaps_count);
}

void swim_check(const struct swim *s) {
  uint32_t digest = 0, kept = 0, living = 0, dead = 0, suspects = 0;
  for (uint32_t id = 0; id < s->members_count; id++) {
    const struct member *m = &s->members[id];
    if (!m->name_length) continue;
    kept++;
    assert(swim_members_find(s, swim_name(s, m), m->name_length) == id);
    if (swim_lives(m)) digest ^= swim_trace(m);
    assert((m->state == SWIM_SUSPECT) == (m->suspicion != NONE));
    suspects += m->suspicion != NONE;
    if (m->suspicion != NONE) assert(s->suspects.entries[s->suspects.where[m->suspicion]].key == id);
    if (id == SELF) continue;
    if (swim_lives(m)) living++, assert(s->order[m->place] == id);
    else if (m->state == SWIM_DEAD) dead++, assert(swim_grave(s, m->place) == id);
    else assert(m->place == NONE);
  }
  assert(kept == s->kept && living == s->living && dead == s->dead && suspects == s->suspects.count);
  assert(digest == s->digest && s->cursor <= s->living);
  check_rumours(s);
  check_flaps(s);
  swim_users_check(s);
  uint32_t probes = 0;
  for (int i = 0; i < PROBES_MAX; i++) probes += s->probes[i].stage != PROBE_FREE;
  assert(probes == s->probes_used);
}
