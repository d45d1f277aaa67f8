/* Which events of users we have seen, and which others lack: windows, and the message SEEN that compares them.
 *
 * An origin is one life of a member that told events. Its numbers, as one node sees them:
 *
 *   1 ........ base ........ low . . . . . newest ....... known
 *   over: nobody  all seen,   some seen,    seen,      exists, says
 *   need send it  or over     by a bit each the highest  somebody
 *
 * base rises only at the origin itself and spreads by SEEN. So an event ends everywhere soon after it ended at its sender, and a gap
 * at or below base is closed: those numbers are lost to us, and counted. */
#include <assert.h>
#include <stdlib.h>

#include "core/swim_private.h"

enum {
  ENTRY_MAX = 4 + 4 + 5 + 5 + 2 + SWIM_USER_WINDOW / 8,
  ENTRY_MIN = 11,
  SEEN_HOPS = 3,  /* Bits of the flags: how many answers of this type it may cause in turn. */
  SEEN_PART = 4,  /* There was no room for all origins. */
  WORDS = SWIM_USER_WINDOW / 64,
};

static uint32_t bucket(uint32_t key) { return key % ORIGIN_BUCKETS; }

/* ---- windows ---- */

static bool bit(const struct origin *o, uint32_t number) {
  return o->seen && (o->seen[number % SWIM_USER_WINDOW / 64] >> number % 64 & 1);
}

static void set_bit(struct origin *o, uint32_t number) {
  o->seen[number % SWIM_USER_WINDOW / 64] |= UINT64_C(1) << number % 64;
}

static void clear_bit(struct origin *o, uint32_t number) {
  o->seen[number % SWIM_USER_WINDOW / 64] &= ~(UINT64_C(1) << number % 64);
}

static bool has_seen(const struct origin *o, uint32_t number) {
  return number <= o->low || (number <= o->newest && bit(o, number));
}

/* low moves over what was seen in a row. */
static void settle_low(struct origin *o) {
  while (o->low < o->newest && bit(o, o->low + 1)) clear_bit(o, ++o->low);
  if (o->low < o->newest) return;
  free(o->seen);
  o->seen = NULL;
}

/* All numbers up to `to` are over. */
static void raise_low(struct swim *s, struct origin *o, uint32_t to) {
  uint32_t missed = 0;
  if (to <= o->low) return;
  for (uint32_t n = o->low + 1; n <= to && n <= o->newest; n++) {
    if (bit(o, n)) clear_bit(o, n);
    else missed++;
  }
  if (to > o->newest) missed += to - o->newest, o->newest = to;
  if (to > o->known) o->known = to;
  if (!o->fresh) s->counts.user_missed += missed;
  o->low = to;
  o->low_ns = s->now_ns;
  settle_low(o);
}

/* Numbers up to this one exist. */
static void know(struct swim *s, struct origin *o, uint32_t number) {
  if (number <= o->known) return;
  if (o->low == o->known) o->low_ns = s->now_ns; /* A gap begins now. */
  o->known = number;
}

bool swim_origin_seen(const struct swim *s, uint32_t at, uint32_t number) { return has_seen(&s->users->origins[at], number); }

bool swim_origin_reserve(struct swim *s, uint32_t at, uint32_t number) {
  struct origin *o = &s->users->origins[at];
  if (number == o->low + 1 && o->low == o->newest) return true; /* In order: no bits are needed. */
  if (!o->seen) o->seen = calloc(WORDS, sizeof *o->seen);
  return o->seen != NULL;
}

void swim_origin_mark(struct swim *s, uint32_t at, uint32_t number) {
  struct origin *o = &s->users->origins[at];
  if (number - o->low > SWIM_USER_WINDOW) raise_low(s, o, number - SWIM_USER_WINDOW); /* The sender sends nothing older. */
  if (number == o->low + 1 && o->low == o->newest) {
    o->low = o->newest = number;
    o->fresh = false; /* Later events than one that we have are of our time. */
  } else {
    if (!swim_origin_reserve(s, at, number)) return; /* raise_low() has just freed the bits. The event may come once more. */
    if (number > o->newest) o->newest = number;
    set_bit(o, number);
    uint32_t low = o->low;
    settle_low(o);
    if (o->low > low) o->low_ns = s->now_ns, o->fresh = false;
  }
  know(s, o, o->newest);
  o->heard_ns = s->now_ns;
  swim_users_wake(s);
}

/* ---- origins ---- */

static uint32_t origin_find(const struct users *u, uint32_t key, uint32_t generation) {
  for (uint32_t at = u->buckets[bucket(key)]; at != NONE; at = u->origins[at].next)
    if (u->origins[at].key == key && u->origins[at].generation == generation) return at;
  return NONE;
}

uint32_t swim_origin_add(struct swim *s, uint32_t key, uint32_t generation) {
  struct users *u = s->users;
  if (u->origins_count == s->config.members_max) return NONE;
  if (u->origins_free == NONE) {
    uint32_t capacity = u->origins_capacity ? u->origins_capacity * 2 : 8;
    struct origin *grown = realloc(u->origins, capacity * sizeof *grown);
    if (!grown) return NONE;
    u->origins = grown;
    for (uint32_t at = u->origins_capacity; at < capacity; at++)
      grown[at] = (struct origin){.next = at + 1 < capacity ? at + 1 : NONE};
    u->origins_free = u->origins_capacity;
    u->origins_capacity = capacity;
  }
  uint32_t at = u->origins_free, *head = &u->buckets[bucket(key)];
  u->origins_free = u->origins[at].next;
  u->origins[at] = (struct origin){.key = key, .generation = generation, .next = *head, .heard_ns = s->now_ns, .low_ns = s->now_ns};
  u->origins[at].fresh = s->now_ns < s->young_ns + swim_user_age_ns(s, KEEP_MOST);
  *head = at;
  u->origins_count++;
  return at;
}

static void origin_remove(struct users *u, uint32_t at) {
  struct origin *o = &u->origins[at];
  uint32_t *link = &u->buckets[bucket(o->key)];
  assert(o->held == 0);
  while (*link != at) link = &u->origins[*link].next;
  *link = o->next;
  free(o->seen);
  *o = (struct origin){.next = u->origins_free};
  u->origins_free = at;
  u->origins_count--;
}

void swim_origins_close(struct users *u) {
  for (uint32_t at = 0; at < u->origins_capacity; at++) free(u->origins[at].seen);
  free(u->origins);
}

static bool lives_now(const struct swim *s, uint32_t id, uint32_t generation) {
  return s->members[id].incarnation.generation == generation && swim_lives(&s->members[id]);
}

/* A life that has ended is heard for as long as others may keep its events: then a window that we no longer have may have been lost
 * with the memory of what was delivered. */
uint32_t swim_origin_of(struct swim *s, uint32_t key, uint32_t generation, uint32_t *id) {
  *id = swim_members_by_key(s, key, generation);
  if (*id == NONE || *id == SELF) return NONE;
  uint32_t at = origin_find(s->users, key, generation);
  if (at != NONE) return at;
  const struct member *m = &s->members[*id];
  if (generation > m->incarnation.generation) return NONE; /* Its new life is not known yet. */
  if (!lives_now(s, *id, generation) && s->now_ns - swim_changed_ns(m) > swim_user_age_ns(s, KEEP_MOST)) return NONE;
  return swim_origin_add(s, key, generation);
}

/* Gaps that nobody can fill are closed by the base. They are closed here when there is none to be heard: the origin's life is over,
 * or it knows no SEEN. */
static void close_old_gap(struct swim *s, struct origin *o) {
  if (o->low == o->known) return;
  uint32_t id = swim_members_by_key(s, o->key, o->generation);
  bool lives = id != NONE && id != SELF && lives_now(s, id, o->generation);
  if (s->now_ns - o->low_ns < swim_user_age_ns(s, lives ? KEEP_LIMIT + KEEP_MOST : 2 * KEEP_MOST)) return;
  uint32_t to = o->low + 1;
  while (to < o->known && !has_seen(o, to + 1)) to++;
  raise_low(s, o, to);
}

void swim_origins_period(struct swim *s) {
  struct users *u = s->users;
  for (uint32_t at = 0; at < u->origins_capacity; at++) {
    struct origin *o = &u->origins[at];
    if (o->key == 0 || at == u->own_origin) continue;
    close_old_gap(s, o);
    if (o->held > 0 || s->now_ns - o->heard_ns < swim_user_age_ns(s, 3 * KEEP_MOST)) continue;
    uint32_t id = swim_members_by_key(s, o->key, o->generation);
    if (id == NONE || id == SELF || s->members[id].incarnation.generation != o->generation) origin_remove(u, at);
  }
}

/* ---- SEEN ---- */

/* Also for a while after our last event of it is gone, so that others do not offer theirs again. */
static bool listed(const struct swim *s, const struct origin *o) {
  return o->key && (o->held > 0 || o->known > o->low || s->now_ns - o->heard_ns < swim_user_age_ns(s, KEEP_MOST + KEEP_MOST / 2));
}

static bool write_entry(struct writer *w, const struct origin *o) {
  uint32_t span = o->newest - o->low, base = o->base < o->low ? o->base : o->low;
  size_t size = 8 + varint_size(base) + varint_size(o->low - base) + varint_size(span) + (span + 7) / 8;
  if (size > writer_room(w)) return false;
  write_u32(w, o->key);
  write_u32(w, o->generation);
  write_varint(w, base);
  write_varint(w, o->low - base);
  write_varint(w, span);
  for (uint32_t i = 0; i < span; i += 8) {
    unsigned byte = 0;
    for (uint32_t j = 0; j < 8 && i + j < span; j++) byte |= (unsigned)bit(o, o->low + 1 + i + j) << j;
    write_u8(w, (uint8_t)byte);
  }
  return true;
}

static bool read_entry(struct reader *r, struct seen *out) {
  if (reader_left(r) == 0) return false;
  *out = (struct seen){.key = read_u32(r)};
  out->generation = read_u32(r);
  out->base = read_varint32(r);
  uint64_t low = out->base + read_varint(r);
  uint64_t span = read_varint(r);
  if (out->key == 0 || low < out->base || low > USER_NUMBER_MAX || span > SWIM_USER_WINDOW || low + span > USER_NUMBER_MAX) r->failed = true;
  if (r->failed) return false;
  out->low = (uint32_t)low;
  out->top = out->low + (uint32_t)span;
  out->bits = read_bytes(r, (size_t)(span + 7) / 8);
  return !r->failed;
}

static bool entry_has(const struct seen *e, uint32_t number) {
  uint32_t i = number - e->low - 1;
  return number <= e->low || (number <= e->top && (e->bits[i / 8] >> i % 8 & 1));
}

bool swim_seen_valid(struct reader *r) {
  struct seen entry;
  uint8_t flags = read_u8(r);
  if (flags > (SEEN_HOPS | SEEN_PART)) r->failed = true;
  while (read_entry(r, &entry)) continue;
  return !r->failed;
}

void swim_seen_write(struct swim *s, struct writer *w, uint8_t hops) {
  struct users *u = s->users;
  const uint8_t *start = w->at;
  uint8_t *flags = w->at;
  uint32_t first = u->cursor < u->origins_capacity ? u->cursor : 0;
  write_u8(w, hops);
  u->cursor = 0;
  for (uint32_t i = 0; i < u->origins_capacity; i++) {
    uint32_t at = (first + i) % u->origins_capacity;
    if (!listed(s, &u->origins[at]) || write_entry(w, &u->origins[at])) continue;
    *flags |= SEEN_PART;
    u->cursor = at; /* Begin with this one next time. */
    break;
  }
  s->user_budget_bytes -= w->at - start;
  s->seen_budget_bytes -= w->at - start;
}

static void post_seen(struct swim *s, const struct shoal_address *to, uint8_t hops) {
  if (s->sends_count < SENDS_MAX && swim_seen_affords(s))
    swim_post(s, &(struct send){.type = SEEN, .to = *to, .about = NONE, .flags = hops});
}

/* A random one of the origins with gaps whose member lives, or NONE; *gaps: there are gaps. */
static uint32_t choose_gap(struct swim *s, bool *gaps) {
  const struct users *u = s->users;
  uint32_t found = NONE, count = 0;
  *gaps = false;
  for (uint32_t at = 0; at < u->origins_capacity; at++) {
    const struct origin *o = &u->origins[at];
    if (o->known == o->low) continue;
    *gaps = true;
    uint32_t id = swim_members_by_key(s, o->key, o->generation);
    if (id != NONE && id != SELF && lives_now(s, id, o->generation) && rng_below(&s->rng, ++count) == 0) found = id;
  }
  return found;
}

/* Ask one member: at once after news, then ever more rarely. While there are gaps, every other time the sender of the events itself,
 * for it has all that are not over. */
void swim_seen_round(struct swim *s) {
  struct users *u = s->users;
  bool gaps;
  uint32_t id = choose_gap(s, &gaps), round = u->seen_rounds++;
  uint64_t most_ns = gaps ? ms(s->config.gossip_interval_ms) : ms(s->config.probe_interval_ms);
  u->seen_wait_ns = earlier(2 * u->seen_wait_ns, most_ns);
  bool on = gaps || (u->kept > 0 && u->seen_wait_ns < most_ns); /* Else those of each period are enough. */
  u->seen_ns = on ? s->now_ns + u->seen_wait_ns : UINT64_MAX;
  if (!gaps && u->kept == 0) return;
  if (id == NONE || round % 2 == 0) {
    if (swim_choose(s, &id, 1, NONE) == 0) return;
  }
  struct shoal_address to = swim_address(s, &s->members[id]);
  post_seen(s, &to, 2);
}

void swim_seen_probed(struct swim *s, uint32_t id) {
  struct users *u = s->users;
  if (!u || u->kept == 0) return;
  struct shoal_address to = swim_address(s, &s->members[id]);
  post_seen(s, &to, 2);
}

/* ---- answering ---- */

/* Note which of our events it lacks: they are needed, and the next datagrams carry those that the budget allows. It asks again. */
static void answer(struct swim *s, const struct shoal_address *to, const struct seen *entries) {
  struct users *u = s->users;
  struct answer *a = NULL;
  if (u->kept == 0) return;
  for (int i = 0; i < ANSWERS_MAX && !a; i++)
    if (u->answers[i].count == 0) a = &u->answers[i];
  bool may = a && swim_user_affords(s);
  if (may) a->to = *to, a->sent = 0;
  uint32_t first = (uint32_t)rng_below(&s->rng, u->capacity); /* Members that it asks at once begin at different ones. */
  for (uint32_t i = 0; i < u->capacity; i++) {
    uint32_t at = first + i < u->capacity ? first + i : first + i - u->capacity;
    struct user *e = &u->at[at];
    if (!e->kept) continue;
    const struct origin *o = &u->origins[e->origin];
    if (o->stamp != u->stamp || entry_has(&entries[o->entry], e->number)) continue;
    e->needed_ns = s->now_ns;
    if (!may || a->count == ANSWER_EVENTS || s->user_budget_bytes <= 0) continue;
    struct user_event event = swim_user_event(s, at);
    s->user_budget_bytes -= (int64_t)swim_wire_user_size(&event);
    a->at[a->count] = at, a->origins[a->count] = e->origin, a->numbers[a->count++] = e->number;
    swim_user_sent(s, at);
  }
}

bool swim_answer_next(struct swim *s, struct writer *w, struct shoal_address *to) {
  struct users *u = s->users;
  for (int i = 0; u && i < ANSWERS_MAX; i++) {
    struct answer *a = &u->answers[i];
    uint32_t written = 0;
    for (; a->sent < a->count; a->sent++) {
      uint32_t at = a->at[a->sent];
      const struct user *e = &u->at[at];
      if (!e->kept || e->origin != a->origins[a->sent] || e->number != a->numbers[a->sent]) continue; /* It ended in between. */
      struct user_event event = swim_user_event(s, at);
      if (swim_wire_user_size(&event) > writer_room(w)) break;
      swim_wire_write_user(w, &event);
      written++;
    }
    *to = a->to;
    if (a->sent == a->count) a->count = a->sent = 0;
    if (written > 0) return true;
  }
  return false;
}

/* It has something that we lack. */
static bool ahead(const struct seen *e, const struct origin *o) {
  for (uint32_t n = o->low + 1; n <= e->top; n++)
    if (entry_has(e, n) && !has_seen(o, n)) return true;
  return false;
}

void swim_on_seen(struct swim *s, const struct shoal_address *from, uint32_t sender, struct reader *r) {
  struct seen entries[SWIM_DATAGRAM_MAX / ENTRY_MIN];
  uint32_t count = 0, id;
  uint8_t flags = read_u8(r);
  if (sender == NONE || !swim_users_reserve(s)) return;
  struct users *u = s->users;
  bool reply = false, ended = false;
  u->stamp++;
  for (struct seen e; read_entry(r, &e);) {
    uint32_t at = e.key == s->members[SELF].key ? origin_find(u, e.key, e.generation) : swim_origin_of(s, e.key, e.generation, &id);
    if (at == NONE) continue;
    struct origin *o = &u->origins[at];
    assert(count < sizeof entries / sizeof *entries);
    o->stamp = u->stamp;
    o->entry = count;
    entries[count++] = e;
    if (o->base > e.base) reply = true;
    if (at == u->own_origin || e.key == s->members[SELF].key) continue; /* Nobody knows better than we. */
    if (e.top > o->low && e.top - o->low > SWIM_USER_WINDOW) raise_low(s, o, e.top - SWIM_USER_WINDOW);
    if (e.base > o->base) {
      o->base = e.base;
      raise_low(s, o, e.base);
      o->fresh = false;
      ended = true;
    }
    if (ahead(&e, o)) reply = true;
    if (e.top > o->known) know(s, o, e.top), o->heard_ns = s->now_ns, swim_users_wake(s);
  }
  if (ended) swim_users_over(s);
  if (!(flags & SEEN_PART))
    for (uint32_t at = 0; at < u->origins_capacity && !reply; at++)
      reply = u->origins[at].held > 0 && u->origins[at].stamp != u->stamp;
  answer(s, from, entries);
  if (reply && (flags & SEEN_HOPS) > 0) post_seen(s, from, (uint8_t)((flags & SEEN_HOPS) - 1));
}

void swim_origins_check(const struct users *u) {
  uint32_t count = 0, held = 0;
  for (uint32_t at = 0; at < u->origins_capacity; at++) {
    const struct origin *o = &u->origins[at];
    if (o->key == 0) continue;
    count++, held += o->held;
    assert(o->base <= o->low || at == u->own_origin);
    assert(o->low <= o->newest && o->newest <= o->known && o->newest - o->low <= SWIM_USER_WINDOW);
    assert((o->seen != NULL) >= (o->newest > o->low));
    assert(origin_find(u, o->key, o->generation) == at);
    if (o->newest > o->low) assert(bit(o, o->newest) && !bit(o, o->low + 1));
  }
  assert(count == u->origins_count && held == u->kept);
}
