#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "core/errors.h"
#include "core/swim_private.h"

/* ---- the table: slots, hash, and the arrays of the living and the dead ---- */

static uint32_t mix(uint32_t x) { /* The finalizer of MurmurHash3. */
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return x ^ x >> 16;
}

/* What one living member adds to the digest. */
static uint32_t trace(const struct member *m) {
  return mix(m->key ^ mix(m->incarnation.generation ^ mix(m->incarnation.version ^ mix(m->payload_version))));
}

static bool counted(const struct member *m) { return m->state == SWIM_ALIVE || m->state == SWIM_SUSPECT; }

static int ids_reserve(struct ids *ids, uint32_t count) {
  if (count <= ids->capacity) return 0;
  uint32_t capacity = ids->capacity + ids->capacity / 4 + 16;
  if (capacity < count) capacity = count;
  uint32_t *at = realloc(ids->at, capacity * sizeof *at);
  if (!at) return ERR_MEMORY;
  ids->at = at;
  ids->capacity = capacity;
  return 0;
}

static void ids_set(struct swim *s, struct ids *ids, uint32_t place, uint32_t id) {
  ids->at[place] = id;
  s->members[id].place = place;
}

/* A new member falls on any place of the round alike: with luck it is among those still to be probed. */
static void order_add(struct swim *s, uint32_t id) {
  uint32_t place = s->order.count++;
  assert(place < s->order.capacity);
  if (s->cursor > 0 && rng_below(&s->rng, place + 1) < s->cursor) {
    if (s->cursor < place) ids_set(s, &s->order, place, s->order.at[s->cursor]);
    place = s->cursor++;
  }
  ids_set(s, &s->order, place, id);
}

static void order_remove(struct swim *s, uint32_t id) {
  uint32_t place = s->members[id].place, last = --s->order.count;
  assert(s->order.at[place] == id);
  if (place < s->cursor) { /* Close the gap without mixing the probed with the others. */
    s->cursor--;
    ids_set(s, &s->order, place, s->order.at[s->cursor]);
    place = s->cursor;
  }
  if (place != last) ids_set(s, &s->order, place, s->order.at[last]);
  s->members[id].place = NONE;
}

static void graves_add(struct swim *s, uint32_t id) {
  assert(s->graves.count < s->graves.capacity);
  ids_set(s, &s->graves, s->graves.count++, id);
}

static void graves_remove(struct swim *s, uint32_t id) {
  uint32_t place = s->members[id].place, last = --s->graves.count;
  assert(s->graves.at[place] == id);
  if (place != last) ids_set(s, &s->graves, place, s->graves.at[last]);
  s->members[id].place = NONE;
}

uint32_t swim_round_next(struct swim *s) {
  if (s->order.count == 0) return NONE;
  if (s->cursor >= s->order.count) s->cursor = 0; /* A new round, in a new order: shuffled as it is taken. */
  uint32_t pick = s->cursor + (uint32_t)rng_below(&s->rng, s->order.count - s->cursor);
  uint32_t id = s->order.at[pick];
  ids_set(s, &s->order, pick, s->order.at[s->cursor]);
  ids_set(s, &s->order, s->cursor++, id);
  return id;
}

/* `order` is in random order already, so a run of it from a random place is a random choice. Suspects are passed over as long as
 * 16 looks suffice, then taken. */
uint32_t swim_choose(struct swim *s, uint32_t *ids, uint32_t count, uint32_t except) {
  if (s->order.count == 0) return 0;
  uint32_t start = (uint32_t)rng_below(&s->rng, s->order.count), chosen = 0, passed = 0, looks = 0;
  uint32_t suspects[FANOUT_MAX];
  for (; looks < s->order.count && chosen < count && looks < count + 16; looks++) {
    uint32_t id = s->order.at[(start + looks) % s->order.count];
    if (id == except) continue;
    if (s->members[id].state == SWIM_ALIVE) ids[chosen++] = id;
    else if (passed < FANOUT_MAX) suspects[passed++] = id;
  }
  for (uint32_t i = 0; i < passed && chosen < count; i++) ids[chosen++] = suspects[i];
  return chosen;
}

uint32_t swim_members_find(const struct swim *s, const char *name, size_t name_length) {
  uint32_t key = swim_wire_key(name, name_length);
  for (uint32_t id = s->buckets[mix(key) & (s->buckets_count - 1)]; id != NONE; id = s->members[id].next) {
    const struct member *m = &s->members[id];
    if (m->key == key && m->name_length == name_length && memcmp(m->text, name, name_length) == 0) return id;
  }
  return NONE;
}

uint32_t swim_members_by_key(const struct swim *s, uint32_t key, uint32_t generation) {
  uint32_t found = NONE, of_generation = NONE;
  unsigned same_key = 0, same_generation = 0;
  for (uint32_t id = s->buckets[mix(key) & (s->buckets_count - 1)]; id != NONE; id = s->members[id].next) {
    if (s->members[id].key != key) continue;
    found = id, same_key++;
    if (s->members[id].incarnation.generation == generation) of_generation = id, same_generation++;
  }
  if (same_key <= 1) return found;
  return same_generation == 1 ? of_generation : NONE; /* Two names with one key, born in one second: nobody can tell. */
}

static void link_hash(struct swim *s, uint32_t id) {
  uint32_t *head = &s->buckets[mix(s->members[id].key) & (s->buckets_count - 1)];
  s->members[id].next = *head;
  *head = id;
}

/* Slots for so many; the hash chains are as many or more, a power of two. */
static int reserve(struct swim *s, uint32_t capacity) {
  uint32_t buckets_count = 16;
  while (buckets_count < capacity) buckets_count *= 2;
  struct member *members = realloc(s->members, capacity * sizeof *members);
  if (!members) return ERR_MEMORY;
  s->members = members;
  s->members_capacity = capacity;
  if (buckets_count == s->buckets_count) return 0;
  uint32_t *buckets = realloc(s->buckets, buckets_count * sizeof *buckets);
  if (!buckets) return ERR_MEMORY;
  s->buckets = buckets;
  s->buckets_count = buckets_count;
  memset(buckets, 0xff, buckets_count * sizeof *buckets);
  for (uint32_t id = 0; id < s->members_count; id++)
    if (s->members[id].text) link_hash(s, id);
  return 0;
}

/* By a quarter: amortized still, and at most a fifth of the table lies idle. */
static int grow(struct swim *s) { return reserve(s, s->members_capacity + s->members_capacity / 4 + 16); }

/* A slot for this name, linked and otherwise blank; NONE when the table or the memory is full. */
static uint32_t add(struct swim *s, const struct record *r) {
  if (s->kept >= s->config.members_max) {
    s->counts.refused[SWIM_REFUSED_FULL]++;
    return NONE;
  }
  bool grows = s->free_head == NONE && s->members_count == s->members_capacity;
  /* All that can fail comes first; both arrays can hold every member, so that later moves between them cannot fail. */
  if ((grows && grow(s) < 0) || ids_reserve(&s->order, s->kept + 1) < 0 || ids_reserve(&s->graves, s->kept + 1) < 0)
    return NONE;
  char *text = malloc(r->name_length);
  if (!text) return NONE;
  memcpy(text, r->name, r->name_length);
  uint32_t id = s->free_head;
  if (id != NONE) s->free_head = s->members[id].next;
  else id = s->members_count++;
  s->kept++;
  s->members[id] = (struct member){
      .key = swim_wire_key(r->name, r->name_length), .text = text, .name_length = (uint8_t)r->name_length,
      .place = NONE, .suspicion = NONE, .rumour_next = NONE, .rumour_previous = NONE,
      .incarnation = r->incarnation, .address = r->address, .changed_ns = s->now_ns, .state = SWIM_LEFT,
  };
  link_hash(s, id);
  return id;
}

static void reap(struct swim *s, uint32_t id) {
  struct member *m = &s->members[id];
  assert(id != SELF && !counted(m) && m->suspicion == NONE);
  if (m->state == SWIM_DEAD) graves_remove(s, id);
  swim_rumour_end(s, id);
  uint32_t *link = &s->buckets[mix(m->key) & (s->buckets_count - 1)];
  while (*link != id) link = &s->members[*link].next;
  *link = m->next;
  free(m->text);
  *m = (struct member){.next = s->free_head, .place = NONE, .suspicion = NONE};
  s->free_head = id;
  s->kept--;
}

void swim_sweep(struct swim *s) {
  for (int n = 0; n < SWEEP && s->members_count > 1; n++) {
    if (++s->sweep_at >= s->members_count) s->sweep_at = SELF + 1;
    struct member *m = &s->members[s->sweep_at];
    if (m->text && !counted(m) && s->now_ns - m->changed_ns >= ms(s->config.tombstone_ms)) reap(s, s->sweep_at);
  }
}

int swim_members_open(struct swim *s, const struct swim_identity *identity) {
  s->free_head = NONE;
  struct record self = {.name = identity->name, .name_length = identity->name_length, .address = identity->address,
                        .incarnation = {identity->generation < UINT32_MAX ? identity->generation : UINT32_MAX - 1, 0}};
  if (add(s, &self) != SELF) return ERR_MEMORY;
  s->members[SELF].state = SWIM_ALIVE;
  s->digest ^= trace(&s->members[SELF]);
  return swim_store_payload(s, SELF, identity->payload, identity->payload_length, 1);
}

void swim_members_close(struct swim *s) {
  for (uint32_t id = 0; id < s->members_count; id++) free(s->members[id].text);
  free(s->members);
  free(s->buckets);
  free(s->order.at);
  free(s->graves.at);
  free(s->suspicions);
  heap_free(&s->suspects);
}

struct record swim_members_record(const struct swim *s, uint32_t id, bool with_payload) {
  const struct member *m = &s->members[id];
  struct record r = {.name = m->text,
                     .name_length = m->name_length,
                     .address = m->address,
                     .incarnation = m->incarnation,
                     .state = m->state};
  if (m->state == SWIM_SUSPECT) r.accuser = suspicion_last_accuser(&s->suspicions[m->suspicion]);
  if (with_payload && m->payload_version > 0) {
    r.payload = (const uint8_t *)m->text + m->name_length;
    r.payload_length = m->payload_length;
    r.payload_version = m->payload_version;
  }
  return r;
}

int swim_store_payload(struct swim *s, uint32_t id, const uint8_t *bytes, size_t length, uint32_t version) {
  struct member *m = &s->members[id];
  char *text = realloc(m->text, m->name_length + length);
  if (!text) return ERR_MEMORY;
  m->text = text;
  if (length) memcpy(text + m->name_length, bytes, length);
  if (counted(m)) s->digest ^= trace(m);
  m->payload_length = (uint16_t)length;
  m->payload_version = version;
  if (counted(m)) s->digest ^= trace(m);
  return 0;
}

/* ---- moves: every change of state or incarnation goes through move() ---- */

static void suspicion_end(struct swim *s, struct member *m) {
  m->suspected_ms = m->confirmed = 0;
  if (m->suspicion == NONE) return;
  const struct suspicion *was = &s->suspicions[m->suspicion];
  m->suspected_ms = (uint32_t)((s->now_ns - was->started_ns) / NS_PER_MS);
  m->confirmed = was->confirmed;
  heap_remove(&s->suspects, m->suspicion);
  m->suspicion = NONE;
}

/* Time to refute, with N living. */
static void suspicion_begin(struct swim *s, uint32_t id, uint32_t accuser) {
  struct member *m = &s->members[id];
  double living = swim_live(s);
  double least_ms = s->config.probe_interval_ms * (double)s->config.suspicion_multiplier * fmax(1, log10(living));
  uint64_t least_ns = (uint64_t)(least_ms * (double)NS_PER_MS);
  uint32_t others = swim_live(s) > 2 ? swim_live(s) - 2 : 0; /* Who could confirm: all but the suspect and its accuser. */
  uint32_t wanted = s->config.confirmations < others ? s->config.confirmations : others;
  struct suspicion *now = &s->suspicions[m->suspicion];
  m->asked = false;
  suspicion_start(now, s->now_ns, least_ns, least_ns * s->config.suspicion_max, wanted, accuser);
  heap_move(&s->suspects, m->suspicion, suspicion_deadline(now));
}

/* Make room for one more suspicion. */
static bool suspicion_reserve(struct swim *s, uint32_t id) {
  uint32_t handle;
  if (heap_add(&s->suspects, UINT64_MAX, id, &handle) < 0) return false;
  if (s->suspects.capacity > s->suspicions_capacity) {
    struct suspicion *grown = realloc(s->suspicions, s->suspects.capacity * sizeof *grown);
    if (!grown) {
      heap_remove(&s->suspects, handle);
      return false;
    }
    s->suspicions = grown;
    s->suspicions_capacity = s->suspects.capacity;
  }
  s->members[id].suspicion = handle;
  return true;
}

static bool move(struct swim *s, uint32_t id, enum swim_state state, struct swim_incarnation incarnation, uint32_t accuser) {
  struct member *m = &s->members[id];
  assert(id != SELF);
  if (state == SWIM_SUSPECT && m->suspicion == NONE && !suspicion_reserve(s, id)) return false;
  if (counted(m)) s->digest ^= trace(m);
  if (state != SWIM_SUSPECT) suspicion_end(s, m);
  bool lived = counted(m), lives_now = state == SWIM_ALIVE || state == SWIM_SUSPECT;
  if (lived && !lives_now) order_remove(s, id);
  if (m->state == SWIM_DEAD && state != SWIM_DEAD) graves_remove(s, id);
  if (state == SWIM_DEAD && m->state != SWIM_DEAD) graves_add(s, id);
  if (!lived && lives_now) order_add(s, id);
  if (m->state != state) m->changed_ns = s->now_ns;
  m->state = (uint8_t)state;
  m->incarnation = incarnation;
  if (counted(m)) s->digest ^= trace(m);
  if (state == SWIM_SUSPECT) suspicion_begin(s, id, accuser);
  return true;
}

/* ---- merging ---- */

/* The order of claims: incarnation, then state. */
static int claim_compare(struct swim_incarnation a, uint8_t a_state, struct swim_incarnation b, uint8_t b_state) {
  int order = swim_incarnation_compare(a, b);
  return order ? order : (a_state > b_state) - (a_state < b_state);
}

static bool address_greater(const struct shoal_address *a, const struct shoal_address *b) {
  if (a->family != b->family) return a->family > b->family;
  int order = memcmp(a->bytes, b->bytes, sizeof a->bytes);
  return order ? order > 0 : a->port > b->port;
}

void swim_raise_self(struct swim *s) {
  /* Nobody else's record is as loud: it starts anew, with the payload, which some may not have heard. */
  swim_rumour(s, SELF, true);
}

static void set_self_incarnation(struct swim *s, struct swim_incarnation incarnation) {
  struct member *self = &s->members[SELF];
  assert(swim_incarnation_compare(incarnation, self->incarnation) > 0);
  if (counted(self)) s->digest ^= trace(self);
  self->incarnation = incarnation;
  if (counted(self)) s->digest ^= trace(self);
  swim_raise_self(s);
}

/* The incarnation that answers this one. */
static struct swim_incarnation above(struct swim_incarnation i) {
  if (i.version + 1 < UINT32_MAX) return (struct swim_incarnation){i.generation, i.version + 1};
  return (struct swim_incarnation){i.generation + 1, 0};
}

void swim_self_left(struct swim *s) {
  struct member *self = &s->members[SELF];
  assert(self->state == SWIM_ALIVE);
  s->digest ^= trace(self);
  self->state = SWIM_LEFT;
  self->changed_ns = s->now_ns;
  set_self_incarnation(s, above(self->incarnation));
}

bool swim_refute(struct swim *s, struct swim_incarnation incarnation, uint8_t state) {
  struct member *self = &s->members[SELF];
  struct swim_incarnation answer = above(incarnation);
  if (claim_compare(incarnation, state, self->incarnation, self->state) <= 0) return false;
  if (incarnation.generation > self->incarnation.generation) answer = (struct swim_incarnation){incarnation.generation + 1, 0};
  if (answer.generation == UINT32_MAX) return false; /* Only a liar leads here; nobody would take our answer. */
  if (state == SWIM_SUSPECT || state == SWIM_DEAD) s->counts.refuted++;
  set_self_incarnation(s, answer);
  return true;
}

static void merge_self(struct swim *s, const struct record *r) {
  struct member *self = &s->members[SELF];
  if (swim_incarnation_compare(r->incarnation, self->incarnation) == 0 && !address_equal(&r->address, &self->address))
    s->counts.conflicts++;
  if (!s->joined && r->incarnation.generation == self->incarnation.generation) {
    /* Nobody has heard of us in this life: it is an earlier one that they remember, of this very second. */
    swim_refute(s, (struct swim_incarnation){r->incarnation.generation + 1, 0}, SWIM_ALIVE);
    return;
  }
  swim_refute(s, r->incarnation, r->state);
}

/* Payload and address, for a record of this member's generation. True when something was news. */
static bool merge_details(struct swim *s, uint32_t id, const struct record *r) {
  struct member *m = &s->members[id];
  bool news = false;
  int order = swim_incarnation_compare(r->incarnation, m->incarnation);
  if (!address_equal(&m->address, &r->address) && (order > 0 || (order == 0 && address_greater(&r->address, &m->address)))) {
    if (order == 0) s->counts.conflicts++;
    m->address = r->address;
    news = true;
  }
  if (r->payload_version == 0 || r->payload_version < m->payload_version) return news;
  if (r->payload_version ==
      m->payload_version) { /* Equal versions with different bytes: two nodes with one name. The greater wins. */
    if (r->payload_length < m->payload_length) return news;
    if (r->payload_length == m->payload_length && (r->payload_length == 0 ||
        memcmp(r->payload, m->text + m->name_length, r->payload_length) <= 0)) return news;
    s->counts.conflicts++;
  }
  return swim_store_payload(s, id, r->payload, r->payload_length, r->payload_version) == 0 || news;
}

/* A member whose name we did not know, or whose old life is over: begin this one. */
static void begin(struct swim *s, uint32_t id, const struct record *r, bool quiet) {
  struct member *m = &s->members[id];
  bool living = r->state == SWIM_ALIVE || r->state == SWIM_SUSPECT;
  m->payload_version =
      0; /* Another life's payload is none of this one's. The member is not alive here, so no digest knows it. */
  m->payload_length = 0;
  m->address = r->address;
  move(s, id, living ? SWIM_ALIVE : r->state, r->incarnation, 0);
  merge_details(s, id, r);
  if (living) swim_emit(s, SWIM_EVENT_JOIN, id, r->incarnation, SWIM_ALIVE);
  if (living && !quiet) swim_rumour(s, id, true);
  if (r->state == SWIM_SUSPECT) swim_suspect(s, id, r->incarnation, r->accuser);
}

/* Its generation rose: whatever it was is over. */
static void end_life(struct swim *s, uint32_t id) {
  struct member *m = &s->members[id];
  if (!swim_lives(m)) return;
  move(s, id, SWIM_DEAD, m->incarnation, 0);
  swim_emit(s, SWIM_EVENT_DEAD, id, m->incarnation, SWIM_DEAD);
}

void swim_suspect(struct swim *s, uint32_t id, struct swim_incarnation incarnation, uint32_t accuser) {
  struct member *m = &s->members[id];
  int order = swim_incarnation_compare(incarnation, m->incarnation);
  assert(incarnation.generation == m->incarnation.generation);
  if (order == 0 && m->state == SWIM_SUSPECT) { /* One more accuser. */
    struct suspicion *known = &s->suspicions[m->suspicion];
    if (!suspicion_confirm(known, accuser)) return;
    heap_move(&s->suspects, m->suspicion, earlier(heap_at(&s->suspects, m->suspicion), suspicion_deadline(known)));
    swim_rumour(s, id, false);
    return;
  }
  if (claim_compare(incarnation, SWIM_SUSPECT, m->incarnation, m->state) <= 0) return;
  bool lived = swim_lives(m), suspected = m->state == SWIM_SUSPECT;
  if (!move(s, id, SWIM_SUSPECT, incarnation, accuser)) return; /* No memory: somebody else will see it through. */
  if (!lived) swim_emit(s, SWIM_EVENT_JOIN, id, incarnation, SWIM_ALIVE);
  if (!suspected) swim_emit(s, SWIM_EVENT_SUSPECT, id, incarnation, SWIM_SUSPECT);
  if (!suspected) s->counts.suspicions++;
  swim_rumour(s, id, false);
  if (accuser != s->members[SELF].key) swim_probe_suspect(s, id);
}

/* A greater claim within one life, other than a suspicion. */
static void advance(struct swim *s, uint32_t id, const struct record *r, bool quiet) {
  static const enum swim_event events[] = {
      [SWIM_ALIVE] = SWIM_EVENT_ALIVE, [SWIM_DEAD] = SWIM_EVENT_DEAD, [SWIM_LEFT] = SWIM_EVENT_LEFT};
  struct member *m = &s->members[id];
  enum swim_state before = m->state;
  bool lived = swim_lives(m);
  move(s, id, r->state, r->incarnation, 0);
  if (lived ? before != r->state : r->state == SWIM_ALIVE) {
    enum swim_event kind = lived ? events[r->state] : SWIM_EVENT_JOIN;
    swim_emit(s, kind, id, r->incarnation, r->state);
  }
  if (!quiet && (lived || r->state == SWIM_ALIVE)) swim_rumour(s, id, !lived);
}

void swim_merge(struct swim *s, const struct record *given, bool table, bool quiet) {
  struct record r = *given;
  uint32_t id = swim_members_find(s, r.name, r.name_length);
  if (id == SELF) {
    merge_self(s, &r);
    return;
  }
  if (id == NONE) {
    id = add(s, &r);
    if (id != NONE) begin(s, id, &r, quiet);
    return;
  }
  struct member *m = &s->members[id];
  if (r.incarnation.generation < m->incarnation.generation) return;
  if (table && r.state == SWIM_DEAD && swim_lives(m) && r.incarnation.generation == m->incarnation.generation) {
    r.state = SWIM_SUSPECT; /* It may be the other side of a partition that speaks: let the member answer. */
    r.accuser = 0; /* Nobody that we could name. */
  }
  if (r.incarnation.generation > m->incarnation.generation) {
    end_life(s, id);
    begin(s, id, &r, quiet);
    return;
  }
  bool news = merge_details(s, id, &r), lived = swim_lives(&s->members[id]);
  m = &s->members[id];
  if (r.state == SWIM_SUSPECT) swim_suspect(s, id, r.incarnation, r.accuser);
  else if (claim_compare(r.incarnation, r.state, m->incarnation, m->state) > 0) advance(s, id, &r, quiet);
  if (!news || !swim_lives(m)) return;
  if (lived) swim_emit(s, SWIM_EVENT_UPDATE, id, m->incarnation, m->state);
  if (!quiet) swim_rumour(s, id, true);
}

uint32_t swim_merge_sender(struct swim *s, const struct header *header) {
  uint32_t id = swim_members_by_key(s, header->key, header->incarnation.generation);
  if (id == NONE || id == SELF) return id;
  struct member *m = &s->members[id];
  if (header->incarnation.generation != m->incarnation.generation) return id; /* Its own record will tell. */
  if (swim_incarnation_compare(header->incarnation, m->incarnation) > 0) {
    struct record r = swim_members_record(s, id, false);
    r.incarnation = header->incarnation;
    r.state = SWIM_ALIVE;
    advance(s, id, &r, false);
  }
  return id;
}

void swim_expire(struct swim *s) {
  for (int n = 0; n < EXPIRE_MAX && heap_deadline(&s->suspects) <= s->now_ns; n++) {
    uint32_t id = (uint32_t)heap_first(&s->suspects)->key;
    struct member *m = &s->members[id];
    assert(m->state == SWIM_SUSPECT);
    if (!m->asked && !suspicion_accused_by(&s->suspicions[m->suspicion], s->members[SELF].key)) {
      /* We know it from hearsay only, and may have missed that it refuted: ask it ourselves before we call it dead. */
      if (s->sends_count + PROBES_MAX > SENDS_MAX) return; /* It stays due: after these are taken. */
      m->asked = true;
      swim_send_ping(s, id, 0);
      heap_move(&s->suspects, m->suspicion, s->now_ns + ms(s->config.probe_timeout_ms));
      continue;
    }
    move(s, id, SWIM_DEAD, m->incarnation, 0);
    s->counts.deaths++;
    swim_emit(s, SWIM_EVENT_DEAD, id, m->incarnation, SWIM_DEAD);
    swim_rumour(s, id, false);
  }
}

/* ---- for specs and studies ---- */

/* Member `at` of a table is told of the others: slot 0 is ours and ours is that of 0, all others have their own index. */
static int preset_one(struct swim *const *all, uint32_t count, uint32_t at) {
  struct swim *s = all[at];
  s->digest = 0;
  if (reserve(s, count) < 0 || ids_reserve(&s->order, count) < 0 || ids_reserve(&s->graves, count) < 0) return ERR_MEMORY;
  for (uint32_t id = 0; id < count; id++) {
    const struct member *other = &all[id == at ? 0 : id]->members[SELF];
    struct member *m = &s->members[id];
    if (id != SELF) {
      char *text = malloc((size_t)other->name_length + other->payload_length);
      if (!text) return ERR_MEMORY;
      memcpy(text, other->text, (size_t)other->name_length + other->payload_length);
      *m = *other;
      m->text = text;
      m->changed_ns = s->now_ns;
      m->rumoured = m->payload_rumoured = false;
      link_hash(s, id);
      uint32_t place = s->order.count++, other_place = (uint32_t)rng_below(&s->rng, place + 1); /* Shuffled as it is filled. */
      if (other_place != place) ids_set(s, &s->order, place, s->order.at[other_place]);
      ids_set(s, &s->order, other_place, id);
    }
    s->digest ^= trace(m);
  }
  s->members_count = s->kept = count;
  s->joined = true;
  s->young_ns = s->now_ns; /* Nor are they young. */
  return 0;
}

int swim_preset(struct swim *const *all, uint32_t count) {
  for (uint32_t at = 0; at < count; at++) swim_rumour_end(all[at], SELF);
  for (uint32_t at = 0; at < count; at++)
    if (preset_one(all, count, at) < 0) return ERR_MEMORY;
  return 0;
}

static void check_rumours(const struct swim *s) {
  uint32_t rumours = 0;
  for (uint32_t sent = 0; sent < SENT_MAX; sent++) {
    uint32_t previous = NONE;
    for (uint32_t id = s->rumours[sent].head; id != NONE; previous = id, id = s->members[id].rumour_next, rumours++)
      assert(s->members[id].rumoured && s->members[id].sent == sent && s->members[id].rumour_previous == previous);
    assert(s->rumours[sent].tail == previous);
  }
  assert(rumours == s->rumours_count);
}

void swim_check(const struct swim *s) {
  uint32_t digest = 0, kept = 0, living = 0, dead = 0, suspects = 0;
  for (uint32_t id = 0; id < s->members_count; id++) {
    const struct member *m = &s->members[id];
    if (!m->text) continue;
    kept++;
    assert(swim_members_find(s, m->text, m->name_length) == id);
    if (counted(m)) digest ^= trace(m);
    assert((m->state == SWIM_SUSPECT) == (m->suspicion != NONE));
    suspects += m->suspicion != NONE;
    if (m->suspicion != NONE) assert(s->suspects.entries[s->suspects.where[m->suspicion]].key == id);
    if (id == SELF) continue;
    if (swim_lives(m)) living++, assert(s->order.at[m->place] == id);
    else if (m->state == SWIM_DEAD) dead++, assert(s->graves.at[m->place] == id);
    else assert(m->place == NONE);
  }
  assert(kept == s->kept && living == s->order.count && dead == s->graves.count && suspects == s->suspects.count);
  assert(digest == s->digest && s->cursor <= s->order.count);
  check_rumours(s);
}
