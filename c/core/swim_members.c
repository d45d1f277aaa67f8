/* Beliefs about members: every change of state or incarnation, and the merging of claims. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "core/errors.h"
#include "core/swim_private.h"

/* ---- moves: every change of state or incarnation goes through move() ---- */

static void suspicion_end(struct swim *s, struct member *m) {
  s->ended_ms = s->ended_confirmations = 0;
  if (m->suspicion == NONE) return;
  const struct suspicion *was = &s->suspicions[m->suspicion].of;
  s->ended_ms = (uint32_t)((s->now_ns - was->started_ns) / NS_PER_MS);
  s->ended_confirmations = was->confirmed;
  heap_remove(&s->suspects, m->suspicion);
  m->suspicion = NONE;
}

/* The time to refute, with N living members. */
static void suspicion_begin(struct swim *s, uint32_t id, uint32_t accuser) {
  struct member *m = &s->members[id];
  double living = swim_living(s);
  double least_ms = s->config.probe_interval_ms * (double)s->config.suspicion_multiplier * fmax(1, log10(living));
  uint64_t least_ns = (uint64_t)(least_ms * (double)NS_PER_MS);
  uint32_t others = swim_living(s) > 2 ? swim_living(s) - 2 : 0; /* Members that could confirm: all but the suspect and its accuser. */
  uint32_t wanted = s->config.confirmations < others ? s->config.confirmations : others;
  struct suspicion *now = &s->suspicions[m->suspicion].of;
  s->suspicions[m->suspicion].asked = false;
  suspicion_start(now, s->now_ns, least_ns, least_ns * s->config.suspicion_max, wanted, accuser);
  heap_move(&s->suspects, m->suspicion, suspicion_deadline(now));
}

/* Make room for one more suspicion. */
static bool suspicion_reserve(struct swim *s, uint32_t id) {
  uint32_t handle;
  if (heap_add(&s->suspects, UINT64_MAX, id, &handle) < 0) return false;
  if (s->suspects.capacity > s->suspicions_capacity) {
    struct suspect *grown = realloc(s->suspicions, s->suspects.capacity * sizeof *grown);
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
  bool lived = swim_lives(m), lives_now = state == SWIM_ALIVE || state == SWIM_SUSPECT;
  if (lived) s->digest ^= swim_trace(m);
  if (state != SWIM_SUSPECT) suspicion_end(s, m);
  if (lived && !lives_now) swim_order_remove(s, id);
  if (m->state == SWIM_DEAD && state != SWIM_DEAD) swim_graves_remove(s, id);
  if (state == SWIM_DEAD && m->state != SWIM_DEAD) swim_graves_add(s, id);
  if (!lived && lives_now) swim_order_add(s, id);
  if (m->state != state) swim_changed(s, id);
  m->state = state & 3;
  m->forgotten = false;
  m->incarnation = incarnation;
  if (lives_now) s->digest ^= swim_trace(m);
  if (state == SWIM_SUSPECT) suspicion_begin(s, id, accuser);
  return true;
}

/* ---- merging ---- */

/* The order of claims: incarnation, then state. */
static int claim_compare(struct swim_incarnation a, uint8_t a_state, struct swim_incarnation b, uint8_t b_state) {
  int order = swim_incarnation_compare(a, b);
  return order ? order : (a_state > b_state) - (a_state < b_state);
}

bool swim_address_greater(const struct shoal_address *a, const struct shoal_address *b) {
  if (a->family != b->family) return a->family > b->family;
  int order = memcmp(a->bytes, b->bytes, sizeof a->bytes);
  return order ? order > 0 : a->port > b->port;
}

void swim_raise_self(struct swim *s) {
  /* Our own record starts a new rumour with the payload, which some members may not have received. */
  swim_rumour(s, SELF, true);
}

static void set_self_incarnation(struct swim *s, struct swim_incarnation incarnation) {
  struct member *self = &s->members[SELF];
  assert(swim_incarnation_compare(incarnation, self->incarnation) > 0);
  if (swim_lives(self)) s->digest ^= swim_trace(self);
  self->incarnation = incarnation;
  if (swim_lives(self)) s->digest ^= swim_trace(self);
  swim_raise_self(s);
}

/* The incarnation that refutes this one. */
static struct swim_incarnation above(struct swim_incarnation i) {
  if (i.version + 1 < UINT32_MAX) return (struct swim_incarnation){i.generation, i.version + 1};
  return (struct swim_incarnation){i.generation + 1, 0};
}

void swim_self_left(struct swim *s) {
  struct member *self = &s->members[SELF];
  assert(self->state == SWIM_ALIVE);
  s->digest ^= swim_trace(self);
  self->state = SWIM_LEFT;
  swim_changed(s, SELF);
  set_self_incarnation(s, above(self->incarnation));
}

bool swim_refute(struct swim *s, struct swim_incarnation incarnation, uint8_t state) {
  struct member *self = &s->members[SELF];
  struct swim_incarnation answer = above(incarnation);
  if (claim_compare(incarnation, state, self->incarnation, self->state) <= 0) return false;
  if (incarnation.generation > self->incarnation.generation) answer = (struct swim_incarnation){incarnation.generation + 1, 0};
  if (answer.generation == UINT32_MAX) return false; /* Only a forged claim leads here, and nobody would accept our answer. */
  if (state == SWIM_SUSPECT || state == SWIM_DEAD) { /* A member missed our answers: we may be slow ourselves. */
    s->counts.refuted++;
    swim_ail(s, 1);
  }
  set_self_incarnation(s, answer);
  return true;
}

/* Others remember a payload of this generation that they would prefer to ours: from an earlier life in the same second, or from a
 * namesake. */
static bool outdoes_payload(const struct swim *s, const struct record *r) {
  const struct member *self = &s->members[SELF];
  if (r->incarnation.generation != self->incarnation.generation || r->payload_version < self->payload_version ||
      r->payload_version + 1 == UINT32_MAX) return false; /* Only a forged record leads beyond it. */
  if (r->payload_version > self->payload_version) return true;
  return r->payload_length != self->payload_length || memcmp(r->payload, swim_payload(s, self), r->payload_length) != 0;
}

static void merge_self(struct swim *s, const struct record *r) {
  struct member *self = &s->members[SELF];
  struct shoal_address ours = swim_address(s, self);
  if (swim_incarnation_compare(r->incarnation, self->incarnation) == 0 && !address_equal(&r->address, &ours))
    s->counts.conflicts++;
  if (swim_rival_heard(s, r)) return;
  if (!s->joined && r->incarnation.generation == self->incarnation.generation) {
    /* Nobody knows of this life yet: they remember an earlier one of the same second. */
    swim_refute(s, (struct swim_incarnation){r->incarnation.generation + 1, 0}, SWIM_ALIVE);
    return;
  }
  if (r->payload_version > 0 && outdoes_payload(s, r)) {
    s->counts.conflicts++;
    s->digest ^= swim_lives(self) ? swim_trace(self) : 0;
    self->payload_version = r->payload_version + 1;
    s->digest ^= swim_lives(self) ? swim_trace(self) : 0;
    swim_raise_self(s);
  }
  swim_refute(s, r->incarnation, r->state);
}

/* Merge payload and address of a record of this member's generation. True when something was new. */
static bool merge_details(struct swim *s, uint32_t id, const struct record *r) {
  struct member *m = &s->members[id];
  bool news = false;
  int order = swim_incarnation_compare(r->incarnation, m->incarnation);
  struct shoal_address known = swim_address(s, m);
  if (!address_equal(&known, &r->address) && (order > 0 || (order == 0 && swim_address_greater(&r->address, &known)))) {
    if (order == 0) s->counts.conflicts++;
    news = swim_set_address(s, id, &r->address) == 0;
  }
  if (r->place.version > 0) swim_merge_place(s, id, &r->place);
  if (r->payload_version == 0 || r->payload_version < m->payload_version) return news;
  if (r->payload_version ==
      m->payload_version) { /* Equal versions with different bytes: two nodes with one name. The greater wins. */
    if (r->payload_length < m->payload_length) return news;
    if (r->payload_length == m->payload_length && (r->payload_length == 0 ||
        memcmp(r->payload, swim_payload(s, m), r->payload_length) <= 0)) return news;
    s->counts.conflicts++;
  }
  return swim_store_payload(s, id, r->payload, r->payload_length, r->payload_version) == 0 || news;
}

/* Begin the life of a member that is new, or whose old life is over. */
static void begin(struct swim *s, uint32_t id, const struct record *r, bool quiet) {
  struct member *m = &s->members[id];
  bool living = r->state == SWIM_ALIVE || r->state == SWIM_SUSPECT;
  swim_flap_forget(s, id);
  assert(!swim_lives(m)); /* So no digest includes its payload. The payload of another life is not this life's. */
  m->place_version = 0, m->rtt = 0, m->heard = 0;
  (void)swim_store_payload(s, id, NULL, 0, 0); /* A shorter one always fits. */
  (void)swim_set_address(s, id, &r->address);  /* Without memory the old address stays until its own datagrams correct it. */
  move(s, id, living ? SWIM_ALIVE : r->state, r->incarnation, 0);
  m->forgotten = r->forgotten;
  merge_details(s, id, r);
  if (living) swim_emit(s, SWIM_EVENT_JOIN, id, r->incarnation, SWIM_ALIVE);
  if (living && !quiet) swim_fact(s, SWIM_FACT_JOINED, id, 0, 0);
  if (living && !quiet) swim_rumour(s, id, true);
  if (r->state == SWIM_SUSPECT) swim_suspect(s, id, r->incarnation, r->accuser);
}

/* Its generation rose: its old life is over. */
static void end_life(struct swim *s, uint32_t id) {
  struct member *m = &s->members[id];
  if (!swim_lives(m)) return;
  swim_fact(s, SWIM_FACT_RESTARTED, id, 0, 0);
  move(s, id, SWIM_DEAD, m->incarnation, 0);
  swim_emit(s, SWIM_EVENT_DEAD, id, m->incarnation, SWIM_DEAD);
}

/* Its deadline came nearer. A deadline in the past becomes now, else it would look as if our timers ran late. */
static void nearer(struct swim *s, uint32_t suspicion) {
  uint64_t at_ns = suspicion_deadline(&s->suspicions[suspicion].of);
  if (at_ns < s->now_ns) at_ns = s->now_ns;
  heap_move(&s->suspects, suspicion, earlier(heap_at(&s->suspects, suspicion), at_ns));
}

void swim_suspect(struct swim *s, uint32_t id, struct swim_incarnation incarnation, uint32_t accuser) {
  struct member *m = &s->members[id];
  int order = swim_incarnation_compare(incarnation, m->incarnation);
  assert(incarnation.generation == m->incarnation.generation);
  if (order == 0 && m->state == SWIM_SUSPECT) { /* One more accuser. */
    struct suspicion *known = &s->suspicions[m->suspicion].of;
    if (!suspicion_confirm(known, accuser)) return;
    swim_fact(s, SWIM_FACT_CONFIRMED, id, accuser, 0);
    nearer(s, m->suspicion);
    swim_rumour(s, id, false);
    return;
  }
  if (claim_compare(incarnation, SWIM_SUSPECT, m->incarnation, m->state) <= 0) return;
  bool lived = swim_lives(m), suspected = m->state == SWIM_SUSPECT;
  if (!move(s, id, SWIM_SUSPECT, incarnation, accuser)) return; /* No memory: other members carry this suspicion through. */
  if (!lived) swim_emit(s, SWIM_EVENT_JOIN, id, incarnation, SWIM_ALIVE);
  if (!suspected) swim_emit(s, SWIM_EVENT_SUSPECT, id, incarnation, SWIM_SUSPECT);
  if (!suspected) s->counts.suspicions++, swim_flap_suspected(s, id, accuser);
  swim_fact(s, SWIM_FACT_SUSPECTED, id, accuser, 0);
  if (accuser) swim_rumour(s, id, false); /* Without an accuser it is a death that we doubt; others hear of it as we did. */
  if (accuser != s->members[SELF].key) swim_probe_suspect(s, id);
}

/* A greater claim within one life, other than a suspicion. */
static void advance(struct swim *s, uint32_t id, const struct record *r, bool quiet) {
  static const enum swim_event events[] = {
      [SWIM_ALIVE] = SWIM_EVENT_ALIVE, [SWIM_DEAD] = SWIM_EVENT_DEAD, [SWIM_LEFT] = SWIM_EVENT_LEFT};
  static const enum swim_fact_kind facts[] = {
      [SWIM_ALIVE] = SWIM_FACT_REFUTED, [SWIM_DEAD] = SWIM_FACT_DEAD, [SWIM_LEFT] = SWIM_FACT_LEFT};
  struct member *m = &s->members[id];
  enum swim_state before = m->state;
  bool lived = swim_lives(m);
  move(s, id, r->state, r->incarnation, 0);
  m->forgotten = r->forgotten;
  if (m->forgotten) { /* No fact, and no event of its end: it had ended before. */
    swim_changed(s, id);
    swim_emit(s, SWIM_EVENT_FORGOTTEN, id, r->incarnation, SWIM_LEFT);
    if (!quiet) swim_rumour(s, id, false);
    return;
  }
  if (before != r->state) swim_fact(s, facts[r->state], id, 0, 0);
  if (lived ? before != r->state : r->state == SWIM_ALIVE) {
    enum swim_event kind = lived ? events[r->state] : SWIM_EVENT_JOIN;
    swim_emit(s, kind, id, r->incarnation, r->state);
  }
  if (r->state == SWIM_LEFT) swim_flap_forget(s, id);
  if (r->state == SWIM_DEAD && lived) swim_flap_died(s, id);
  if (!quiet && (lived || r->state == SWIM_ALIVE)) swim_rumour(s, id, !lived);
}

/* A claim of death counts as all confirmations: the member has the least time to refute, and then we ping it ourselves. */
static void hasten(struct swim *s, uint32_t id, struct swim_incarnation incarnation) {
  const struct member *m = &s->members[id];
  if (m->suspicion == NONE || swim_incarnation_compare(incarnation, m->incarnation) != 0) return;
  suspicion_hasten(&s->suspicions[m->suspicion].of);
  nearer(s, m->suspicion);
}

/* It is alive here, and has not had its time to refute: with verify_deaths a claim of death is not believed until half of the least
 * time has passed. The suspicion of a true death arrives at least that long before. In a table it is never believed. */
static bool unheard(const struct swim *s, const struct member *m, bool table) {
  if (!table && !s->config.verify_deaths) return false;
  if (m->state != SWIM_SUSPECT) return m->state == SWIM_ALIVE;
  const struct suspicion *known = &s->suspicions[m->suspicion].of;
  return table || s->now_ns - known->started_ns < known->min_ns / 2;
}

void swim_merge(struct swim *s, const struct record *given, bool table, bool quiet) {
  struct record r = *given;
  uint32_t id = swim_members_find(s, r.name, r.name_length);
  if (id == SELF) {
    merge_self(s, &r);
    return;
  }
  if (id == NONE) {
    id = swim_members_add(s, &r);
    if (id != NONE) begin(s, id, &r, quiet);
    return;
  }
  struct member *m = &s->members[id];
  if (r.incarnation.generation < m->incarnation.generation) return;
  if (r.forgotten && swim_lives(m) && r.incarnation.generation == m->incarnation.generation) r.state = SWIM_DEAD, r.forgotten = false;
  bool doubted = r.state == SWIM_DEAD && r.incarnation.generation == m->incarnation.generation && unheard(s, m, table);
  if (doubted) {
    r.state = SWIM_SUSPECT; /* The claim may come from the other side of a partition: let the member answer. */
    r.accuser = 0; /* No known accuser. */
  }
  if (r.incarnation.generation > m->incarnation.generation) {
    end_life(s, id);
    begin(s, id, &r, quiet);
    return;
  }
  bool news = merge_details(s, id, &r), lived = swim_lives(&s->members[id]);
  m = &s->members[id];
  if (r.state != SWIM_SUSPECT) {
    if (claim_compare(r.incarnation, r.state + r.forgotten, m->incarnation, m->state + m->forgotten) > 0) advance(s, id, &r, quiet);
  } else {
    swim_suspect(s, id, r.incarnation, r.accuser);
    if (doubted) hasten(s, id, r.incarnation);
  }
  if (!news || !swim_lives(m)) return;
  if (lived) swim_emit(s, SWIM_EVENT_UPDATE, id, m->incarnation, m->state);
  if (!quiet) swim_rumour(s, id, true);
}

uint32_t swim_merge_sender(struct swim *s, const struct header *header, const struct shoal_address *from) {
  uint32_t id = swim_members_by_key(s, header->key, header->incarnation.generation);
  if (id == NONE || id == SELF) return id;
  struct member *m = &s->members[id];
  if (header->incarnation.generation != m->incarnation.generation) return id; /* Its own record will correct it. */
  struct shoal_address known = swim_address(s, m);
  /* A new incarnation may bring a new address, which a header lacks: accept it only from the known address. Else wait for its record. */
  if (swim_incarnation_compare(header->incarnation, m->incarnation) > 0 && address_equal(&known, from)) {
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
    struct suspect *suspect = &s->suspicions[m->suspicion];
    if (s->config.verify_deaths && !suspect->asked && !suspicion_accused_by(&suspect->of, s->members[SELF].key)) {
      /* We know the suspicion only from hearsay, and may have missed the refutation: ping the member before we declare it dead. */
      if (s->sends_count + PROBES_MAX > SENDS_MAX) return; /* It stays due until these are taken. */
      suspect->asked = true;
      swim_fact(s, SWIM_FACT_CHECKED, id, 0, 0);
      swim_send_ping(s, id, 0);
      heap_move(&s->suspects, m->suspicion, s->now_ns + ms(s->config.probe_timeout_ms));
      continue;
    }
    swim_fact(s, SWIM_FACT_TIMED_OUT, id, 0, suspect->of.confirmed);
    move(s, id, SWIM_DEAD, m->incarnation, 0);
    s->counts.deaths++;
    swim_emit(s, SWIM_EVENT_DEAD, id, m->incarnation, SWIM_DEAD);
    swim_flap_died(s, id);
    swim_rumour(s, id, false);
  }
}

int swim_erase(struct swim *s, uint64_t now_ns, const char *name, size_t name_length) {
  swim_advance(s, now_ns);
  uint32_t id = swim_members_find(s, name, name_length);
  if (id == NONE || s->members[id].forgotten) return ERR_NOT_FOUND;
  if (id == SELF || swim_lives(&s->members[id])) return ERR_BUSY;
  struct record r = swim_members_record(s, id, false);
  r.state = SWIM_LEFT;
  r.forgotten = true;
  swim_flap_forget(s, id);
  advance(s, id, &r, false);
  return 0;
}
