/* Events of users: keeping, sending and delivering them. swim_seen.c finds out which members lack which of them.
 *
 * An event is pushed PUSHES times by each member that keeps it, the least-sent first: after that about one member in twenty lacks it.
 * It is then kept for the members that ask (SEEN). The sender of an event decides when it is over, by the base in its SEEN. */
#include <assert.h>
#include <stdlib.h>

#include "core/errors.h"
#include "core/swim_private.h"

enum { MISFITS_MAX = 8, EVENT_MIN = 12 }; /* Events skipped as too long before a datagram is closed; bytes of the shortest. */

uint64_t swim_user_age_ns(const struct swim *s, uint32_t periods) { return periods * ms(s->config.probe_interval_ms); }

bool swim_users_reserve(struct swim *s) {
  if (s->users) return true;
  struct users *u = s->users = calloc(1, sizeof *s->users);
  if (!u) return false;
  for (int n = 0; n < PUSHES; n++) u->lists[n] = (struct list){NONE, NONE};
  for (int n = 0; n < ORIGIN_BUCKETS; n++) u->buckets[n] = NONE;
  u->free = u->own_origin = u->delivered = u->origins_free = NONE;
  u->push_ns = u->seen_ns = UINT64_MAX;
  return true;
}

void swim_users_close(struct swim *s) {
  if (!s->users) return;
  swim_origins_close(s->users);
  blobs_free(&s->users->bytes);
  free(s->users->at);
  free(s->users->own);
  free(s->users);
  s->users = NULL;
}

bool swim_users_waiting(const struct swim *s) { return s->users && s->users->unspent > 0; }

/* ---- the budget ---- */

int64_t swim_user_depth(const struct swim *s) {
  uint32_t eighth = s->config.user_bytes_per_s / 8;
  return eighth > s->config.datagram_max ? eighth : s->config.datagram_max;
}

/* SEEN has a quarter that events cannot take, and takes no more: neither starves the other. */
static void refill(struct swim *s) {
  uint64_t us = (s->now_ns - s->user_budget_ns) / 1000, most_us = 1000000000, rate = s->config.user_bytes_per_s;
  int64_t depth = swim_user_depth(s);
  uint64_t quarter = earlier(us, most_us) * rate / 4000000;
  if (quarter == 0) return;
  /* By the time that these bytes take, so that no fraction is lost however often this is called. */
  s->user_budget_ns = us > most_us ? s->now_ns : s->user_budget_ns + (quarter * 4000000 + rate - 1) / rate * 1000;
  s->user_budget_bytes += (int64_t)quarter * 4;
  s->seen_budget_bytes += (int64_t)quarter;
  if (s->user_budget_bytes > depth) s->user_budget_bytes = depth;
  if (s->seen_budget_bytes > depth / 4) s->seen_budget_bytes = depth / 4;
}

bool swim_user_affords(struct swim *s) {
  refill(s);
  return s->user_budget_bytes > 0;
}

bool swim_seen_affords(struct swim *s) {
  refill(s);
  return s->seen_budget_bytes > 0;
}

/* ---- slots, and the lists of events sent equally often ---- */

static bool pushed(const struct user *e) { return e->kept && e->sent < PUSHES; }

static void unlink_event(struct users *u, uint32_t at) {
  struct user *e = &u->at[at];
  struct list *list = &u->lists[e->sent];
  if (e->previous != NONE) u->at[e->previous].next = e->next;
  else list->head = e->next;
  if (e->next != NONE) u->at[e->next].previous = e->previous;
  else list->tail = e->previous;
  u->unspent--;
}

static void link_event(struct users *u, uint32_t at) {
  struct user *e = &u->at[at];
  struct list *list = &u->lists[e->sent];
  e->previous = list->tail;
  e->next = NONE;
  if (list->tail != NONE) u->at[list->tail].next = at;
  else list->head = at;
  list->tail = at;
  u->unspent++;
}

static uint32_t take_slot(struct users *u) {
  if (u->free == NONE) {
    uint32_t capacity = u->capacity ? u->capacity * 2 : 64;
    if (capacity > SLOTS_MAX) capacity = SLOTS_MAX;
    struct user *grown = capacity > u->capacity ? realloc(u->at, capacity * sizeof *grown) : NULL;
    if (!grown) return NONE;
    u->at = grown;
    for (uint32_t at = u->capacity; at < capacity; at++) grown[at] = (struct user){.next = at + 1 < capacity ? at + 1 : NONE};
    u->free = u->capacity;
    u->capacity = capacity;
  }
  uint32_t at = u->free;
  u->free = u->at[at].next;
  u->used++;
  return at;
}

static void free_slot(struct users *u, uint32_t at) {
  struct user *e = &u->at[at];
  assert(e->length > 0 && !e->kept && !e->waiting);
  blobs_give(&u->bytes, e->blob, e->length);
  *e = (struct user){.next = u->free};
  u->free = at;
  if (--u->used == 0) blobs_free(&u->bytes);
}

/* The caller of swim_next() has read what was delivered last. */
static void release_delivered(struct users *u) {
  uint32_t at = u->delivered;
  u->delivered = NONE;
  if (at != NONE && !u->at[at].kept) free_slot(u, at);
}

static void unkeep(struct users *u, uint32_t at) {
  struct user *e = &u->at[at];
  if (pushed(e)) unlink_event(u, at);
  e->kept = false;
  u->kept--;
  u->origins[e->origin].held--;
  if (!e->waiting && at != u->delivered) free_slot(u, at);
}

void swim_user_sent(struct swim *s, uint32_t at) {
  struct user *e = &s->users->at[at];
  e->needed_ns = s->now_ns;
  if (!pushed(e)) return;
  bool storm = s->users->unspent > STORM;
  unlink_event(s->users, at);
  e->sent = storm ? PUSHES : (uint8_t)(e->sent + 1);
  if (e->sent < PUSHES) link_event(s->users, at);
}

/* ---- how long they are kept ---- */

/* While we are alone, nobody can take our events: they age as if they had been pushed. */
static bool may_end(const struct swim *s, const struct user *e, uint32_t periods) {
  if (e->sent < PUSHES && s->living > 0) return false;
  return s->now_ns - e->needed_ns >= swim_user_age_ns(s, periods) || s->now_ns - e->at_ns >= swim_user_age_ns(s, KEEP_LIMIT);
}

/* Ours end in the order of their numbers: the base says so. */
static void retire_own(struct swim *s, uint32_t periods, uint32_t most) {
  struct users *u = s->users;
  if (u->own_origin == NONE) return;
  struct origin *o = &u->origins[u->own_origin];
  for (; o->base < o->newest && most > 0; most--) {
    uint32_t at = u->own[(o->base + 1) % SWIM_USER_WINDOW];
    if (!may_end(s, &u->at[at], periods)) return;
    unkeep(u, at);
    o->base++;
  }
}

static void retire_others(struct swim *s, uint32_t periods) {
  struct users *u = s->users;
  for (uint32_t at = 0; at < u->capacity; at++) {
    const struct user *e = &u->at[at];
    if (e->kept && e->origin != u->own_origin && may_end(s, e, periods)) unkeep(u, at);
  }
}

void swim_users_over(struct swim *s) {
  struct users *u = s->users;
  for (uint32_t at = 0; at < u->capacity; at++) {
    const struct user *e = &u->at[at];
    if (e->kept && e->origin != u->own_origin && e->number <= u->origins[e->origin].base) unkeep(u, at);
  }
}

/* Room for one more event, at most once a round by looking at all. */
static bool has_room(struct swim *s) {
  struct users *u = s->users;
  if (u->kept < SWIM_USERS_MAX) return true;
  if (s->now_ns < u->looked_ns) return false;
  u->looked_ns = s->now_ns + swim_user_round_ns(s);
  retire_others(s, KEEP_LEAST);
  return u->kept < SWIM_USERS_MAX;
}

void swim_users_period(struct swim *s) {
  if (!s->users) return;
  release_delivered(s->users);
  retire_own(s, KEEP_MOST, UINT32_MAX);
  retire_others(s, KEEP_MOST);
  swim_origins_period(s);
}

/* ---- telling ---- */

static uint32_t add(struct swim *s, uint32_t origin, const struct user_event *e, bool keep) {
  struct users *u = s->users;
  uint32_t at = take_slot(u);
  if (at == NONE) return NONE;
  uint32_t blob = blobs_take(&u->bytes, e->length);
  if (blob == UINT32_MAX) {
    u->at[at] = (struct user){.next = u->free};
    u->free = at;
    u->used--;
    return NONE;
  }
  memcpy(blobs_at(&u->bytes, blob), e->bytes, e->length);
  u->at[at] = (struct user){.at_ns = s->now_ns, .needed_ns = s->now_ns, .origin = origin, .number = e->number, .blob = blob,
                            .length = (uint16_t)e->length, .kept = keep, .sent = 0};
  if (!keep) return at;
  link_event(u, at);
  u->kept++;
  u->origins[origin].held++;
  swim_users_wake(s);
  return at;
}

/* Our window in this life, and the places of our events. */
static struct origin *own(struct swim *s) {
  struct users *u = s->users;
  const struct member *self = &s->members[SELF];
  if (!u->own) u->own = calloc(SWIM_USER_WINDOW, sizeof *u->own);
  if (!u->own) return NULL;
  if (u->own_origin != NONE && u->origins[u->own_origin].generation == self->incarnation.generation) return &u->origins[u->own_origin];
  uint32_t at = swim_origin_add(s, self->key, self->incarnation.generation);
  if (at == NONE) return NULL;
  u->own_origin = at; /* What we told in an earlier generation, others may still ask for. */
  s->user_number = 0;
  return &u->origins[at];
}

int swim_tell(struct swim *s, uint64_t now_ns, const void *bytes, size_t length) {
  swim_advance(s, now_ns);
  if (length == 0 || length > SWIM_USER_MAX) return ERR_TOO_LARGE;
  struct origin *o = swim_users_reserve(s) ? own(s) : NULL;
  if (!o) return ERR_MEMORY;
  release_delivered(s->users);
  if (s->user_number - o->base >= SWIM_USER_WINDOW) retire_own(s, KEEP_LEAST, 1);
  if (s->user_number - o->base >= SWIM_USER_WINDOW || !has_room(s) || s->user_number == USER_NUMBER_MAX) {
    s->counts.user_full++;
    return ERR_FULL;
  }
  struct user_event e = {o->key, o->generation, s->user_number + 1, bytes, length};
  uint32_t at = add(s, s->users->own_origin, &e, true);
  if (at == NONE) return ERR_MEMORY;
  s->users->own[e.number % SWIM_USER_WINDOW] = at;
  o->low = o->newest = o->known = s->user_number = e.number;
  o->heard_ns = now_ns;
  s->counts.user_sent++;
  return 0;
}

uint64_t swim_tell_after_ns(const struct swim *s) {
  const struct users *u = s->users;
  const struct origin *o = u && u->own_origin != NONE ? &u->origins[u->own_origin] : NULL;
  if (!o || (s->user_number - o->base < SWIM_USER_WINDOW && u->kept < SWIM_USERS_MAX)) return s->now_ns;
  uint64_t soon_ns = s->now_ns + ms(s->config.gossip_interval_ms);
  if (s->user_number - o->base < SWIM_USER_WINDOW) return soon_ns;
  uint64_t end_ns = u->at[u->own[(o->base + 1) % SWIM_USER_WINDOW]].needed_ns + swim_user_age_ns(s, KEEP_LEAST);
  return end_ns > soon_ns ? end_ns : soon_ns;
}

/* ---- hearing ---- */

void swim_merge_user(struct swim *s, const struct user_event *e) {
  uint32_t id;
  if (!swim_users_reserve(s)) return;
  release_delivered(s->users);
  uint32_t origin = swim_origin_of(s, e->key, e->generation, &id);
  if (origin == NONE) return; /* Of a sender that is not known yet, and the event will be asked for; or long over. */
  if (swim_origin_seen(s, origin, e->number)) {
    s->counts.user_repeated++;
    return;
  }
  /* Events of a member whose life has ended are delivered, but not passed on: so they do not circulate from one new member to the next. */
  const struct member *m = &s->members[id];
  bool keep = swim_lives(m) && m->incarnation.generation == e->generation && has_room(s);
  uint32_t at = swim_origin_reserve(s, origin, e->number) ? add(s, origin, e, keep) : NONE;
  struct event *event = at == NONE ? NULL : swim_emit(s, SWIM_EVENT_USER, id, m->incarnation, m->held ? SWIM_DEAD : m->state);
  if (!event) { /* No memory. It is not marked as seen, so that it will be asked for. */
    s->counts.user_dropped++;
    if (at != NONE && keep) unkeep(s->users, at);
    else if (at != NONE) free_slot(s->users, at);
    return;
  }
  swim_origin_mark(s, origin, e->number);
  event->user = at;
  s->users->at[at].waiting = true;
  s->counts.user_heard++;
}

void swim_user_deliver(struct swim *s, uint32_t at, struct swim_action *out) {
  struct users *u = s->users;
  struct user *e = &u->at[at];
  release_delivered(u);
  assert(e->waiting);
  e->waiting = false;
  u->delivered = at;
  out->told = blobs_at(&u->bytes, e->blob), out->told_length = e->length, out->told_number = e->number;
}

/* ---- sending ---- */

struct user_event swim_user_event(const struct swim *s, uint32_t at) {
  const struct user *e = &s->users->at[at];
  const struct origin *o = &s->users->origins[e->origin];
  return (struct user_event){o->key, o->generation, e->number, blobs_at(&s->users->bytes, e->blob), e->length};
}

uint32_t swim_tell_users(struct swim *s, struct writer *w) {
  struct users *u = s->users;
  uint32_t told[SWIM_DATAGRAM_MAX / EVENT_MIN], count = 0, misfits = 0;
  if (!swim_users_waiting(s) || !swim_user_affords(s)) return 0;
  for (int n = 0; n < PUSHES; n++)
    for (uint32_t at = u->lists[n].head; at != NONE && misfits < MISFITS_MAX && s->user_budget_bytes > 0; at = u->at[at].next) {
      struct user_event e = swim_user_event(s, at);
      size_t size = swim_wire_user_size(&e);
      if (writer_room(w) < EVENT_MIN) misfits = MISFITS_MAX;
      else if (size > writer_room(w)) misfits++;
      else swim_wire_write_user(w, &e), s->user_budget_bytes -= (int64_t)size, told[count++] = at;
    }
  for (uint32_t i = 0; i < count; i++) swim_user_sent(s, told[i]); /* Only now, for it moves them between the lists walked above. */
  return count;
}

uint64_t swim_user_round_ns(const struct swim *s) { return ms(s->config.gossip_interval_ms) / ROUNDS; }

void swim_users_wake(struct swim *s) {
  struct users *u = s->users;
  uint64_t round_ns = swim_user_round_ns(s);
  if (u->push_ns == UINT64_MAX && u->unspent > 0) u->push_ns = s->now_ns + rng_below(&s->rng, round_ns);
  u->seen_wait_ns = round_ns;
  if (u->seen_ns > s->now_ns + 2 * round_ns) u->seen_ns = s->now_ns + round_ns + rng_below(&s->rng, round_ns);
}

void swim_users_tick(struct swim *s) {
  struct users *u = s->users;
  if (!u) return;
  if (s->now_ns >= u->push_ns) {
    u->push_ns = u->unspent == 0 ? UINT64_MAX : s->now_ns + (s->living ? swim_user_round_ns(s) : ms(s->config.probe_interval_ms));
    uint32_t ids[FANOUT_MAX], fanout = s->config.gossip_fanout;
    bool may = u->unspent > 0 && s->sends_count + fanout <= SENDS_MAX && swim_user_affords(s);
    uint32_t count = may ? swim_choose(s, ids, fanout, NONE) : 0;
    for (uint32_t i = 0; i < count; i++)
      swim_post(s, &(struct send){.type = GOSSIP, .to = swim_address(s, &s->members[ids[i]]), .about = NONE});
  }
  if (s->now_ns >= u->seen_ns) swim_seen_round(s);
}

uint64_t swim_users_deadline(const struct swim *s) {
  return s->users ? earlier(s->users->push_ns, s->users->seen_ns) : UINT64_MAX;
}

/* ---- for specs ---- */

void swim_users_check(const struct swim *s) {
  const struct users *u = s->users;
  if (!u) return;
  uint32_t kept = 0, unspent = 0, used = 0;
  for (uint32_t at = 0; at < u->capacity; at++) {
    const struct user *e = &u->at[at];
    used += e->length > 0;
    kept += e->kept;
    unspent += pushed(e);
    assert(e->length > 0 || (!e->kept && !e->waiting));
    assert(!e->kept || e->origin == u->own_origin || e->number <= u->origins[e->origin].newest);
  }
  assert(kept == u->kept && unspent == u->unspent && used == u->used && kept <= SWIM_USERS_MAX && used <= SLOTS_MAX);
  swim_origins_check(u);
}
