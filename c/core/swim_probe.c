#include <stdlib.h>

#include "core/swim_private.h"

enum {
  PROBES_FOR_HINTS = PROBES_MAX - 4, /* The round and leaving always find a free one. */
  CHECKERS = 3, /* With 2, nobody checks one suspicion in seven, and the latest deaths come a second and a half later. */
};

static struct claim claim_of(const struct member *m) {
  return (struct claim){.key = m->key, .incarnation = m->incarnation, .state = m->state, .place = m->place_version & 63};
}

static bool still(const struct swim *s, const struct probe *p) {
  return p->target < s->members_count && s->members[p->target].name_length && s->members[p->target].key == p->key;
}

void swim_send_ping(struct swim *s, uint32_t id, uint32_t sequence) {
  const struct member *m = &s->members[id];
  struct claim claim = claim_of(m);
  bool doubted = m->state != SWIM_ALIVE;
  if (!s->config.buddy && doubted) claim.state = SWIM_ALIVE, doubted = false; /* Without buddy, it learns of it from others. */
  swim_post(s, &(struct send){.type = PING, .to = swim_address(s, m), .about = doubted ? id : NONE, .sequence = sequence,
                         .claim = claim, .self_first = s->leaving});
}

/* ---- local health (Lifeguard, section 3.A) ---- */

void swim_ail(struct swim *s, int by) {
  int health = (int)s->health + by, most = (int)s->config.health_max;
  s->health = (uint32_t)(health < 0 ? 0 : health > most ? most : health);
  s->counts.health = s->health;
}

uint64_t swim_in_step(const struct swim *s, uint64_t at_ns) {
  uint64_t step_ns = ms(s->config.probe_interval_ms) / PHASES;
  return (at_ns + step_ns - 1) / step_ns * step_ns;
}

uint64_t swim_window_ns(const struct swim *s) { return ms(s->config.probe_interval_ms) * (s->health + 1); }

static void release(struct swim *s, struct probe *p) {
  p->stage = PROBE_FREE;
  s->probes_used--;
}

bool swim_probe_start(struct swim *s, uint32_t id, enum purpose purpose) {
  struct probe *free = NULL;
  unsigned used = 0;
  for (int i = 0; i < PROBES_MAX; i++) {
    if (s->probes[i].stage == PROBE_FREE) free = &s->probes[i];
    else if (s->probes[i].target == id && s->probes[i].purpose == purpose) return true; /* It is already running. */
    else used++;
  }
  if (!free || (purpose == FOR_HINT && used >= PROBES_FOR_HINTS)) return false;
  const struct member *m = &s->members[id];
  uint64_t direct_ns = ms(s->config.probe_timeout_ms) * (s->health + 1), window_ns = swim_window_ns(s);
  uint64_t far_ns = earlier(3 * swim_rtt_ns(m->rtt), window_ns * 4 / 5); /* A distant member gets the time that its answers take. */
  if (far_ns > direct_ns) direct_ns = far_ns;
  *free = (struct probe){
      .stage = PROBE_DIRECT, .purpose = purpose, .target = id, .key = m->key, .incarnation = m->incarnation,
      .sequence = swim_next_sequence(s), .sent_ns = s->now_ns, .indirect_ns = s->now_ns + direct_ns, .end_ns = s->now_ns + window_ns,
      .step_ns = window_ns / (s->config.ping_repeats + 1),
  };
  s->probes_used++;
  s->sequence += s->config.ping_repeats;
  uint64_t first_ns = 2 * swim_rtt_ns(m->rtt); /* No answer is late before that. */
  free->first_ns = s->now_ns + (first_ns < free->step_ns ? free->step_ns : earlier(first_ns, window_ns));
  free->again_ns = s->config.ping_repeats ? free->first_ns : free->end_ns;
  if (purpose == FOR_LEAVE) free->end_ns = free->indirect_ns, free->again_ns = free->end_ns; /* One that does not answer is replaced. */
  else s->counts.probes++;
  swim_send_ping(s, id, free->sequence);
  return true;
}

/* No answer yet: ask k others to ping it. The suspicion waits for them. */
static void ask_others(struct swim *s, struct probe *p) {
  if (s->sends_count + s->config.indirect_probes > SENDS_MAX) return; /* It stays due until these are taken. */
  uint32_t ids[FANOUT_MAX], count = swim_choose(s, ids, s->config.indirect_probes, p->target);
  const struct member *target = &s->members[p->target];
  p->stage = PROBE_INDIRECT;
  p->asked = (uint8_t)count;
  if (count > 0) s->counts.indirect++;
  for (uint32_t i = 0; i < count; i++)
    swim_post(s, &(struct send){.type = PING_REQ, .to = swim_address(s, &s->members[ids[i]]), .about = NONE, .sequence = p->sequence,
                           .claim = claim_of(target), .target = swim_address(s, target),
                           .window_ms = (uint32_t)((p->end_ns - s->now_ns) / NS_PER_MS)});
}

/* A probe fails only when all its pings are lost, and losses come singly or in pairs: at 20 % loss four tries instead of one make a
 * false suspicion twenty times as rare. Without loss, repetitions are never sent. */
static void ping_again(struct swim *s, struct probe *p) {
  if (s->sends_count == SENDS_MAX) return; /* It stays due. */
  p->repeats++;
  p->again_ns += p->step_ns;
  if (p->again_ns <= s->now_ns || p->repeats >= s->config.ping_repeats) p->again_ns = p->end_ns; /* After a pause, or the last one. */
  swim_send_ping(s, p->target, p->sequence + p->repeats);
}

static void fail(struct swim *s, struct probe *p) {
  const struct member *target = &s->members[p->target];
  release(s, p);
  if (p->purpose == FOR_LEAVE) return; /* swim_leave_tick() chooses another. */
  s->counts.probes_failed++;
  /* A relay answers in any case, if need be with a nack. Missing answers show that we receive badly ourselves. If all relays
   * answered, our health is not in doubt, and the target is silent. */
  swim_ail(s, p->asked - p->nacks);
  swim_fact(s, SWIM_FACT_UNANSWERED, p->target, 0, p->asked * 256u + p->nacks);
  if (p->asked == 0) swim_ail(s, 1);
  /* A greater incarnation since the start is a sign of life. */
  if (swim_lives(target) && swim_incarnation_compare(target->incarnation, p->incarnation) == 0)
    swim_suspect(s, p->target, target->incarnation, s->members[SELF].key);
}

/* ---- pings for others ---- */

void swim_on_ping_req(struct swim *s, const struct shoal_address *from, uint32_t sequence, const struct claim *claim,
                 const struct shoal_address *target, uint32_t window_ms) {
  if (!s->relays) s->relays = calloc(RELAYS_MAX, sizeof *s->relays);
  if (!s->relays || swim_silent(s)) return; /* The asker misses our nack, but asks others too. */
  struct relay *relay = &s->relays[s->relay_next++ % RELAYS_MAX];
  /* The nack leaves after four fifths of the time that the asker still waits, so that it arrives before the end. */
  *relay = (struct relay){.sequence = swim_next_sequence(s), .key = claim->key, .asked = sequence, .asker = *from,
                          .nack_ns = s->now_ns + ms(window_ms) * 4 / 5, .until_ns = s->now_ns + ms(window_ms)};
  s->relay_ns = earlier(s->relay_ns, relay->nack_ns);
  if (relay->until_ns > s->relays_until_ns) s->relays_until_ns = relay->until_ns;
  swim_post(s, &(struct send){.type = PING, .to = *target, .about = NONE, .sequence = relay->sequence, .claim = *claim});
}

static void nack_tick(struct swim *s) {
  if (s->now_ns < s->relay_ns) return;
  s->relay_ns = UINT64_MAX;
  for (int i = 0; i < RELAYS_MAX; i++) {
    struct relay *relay = &s->relays[i];
    if (relay->sequence == 0 || relay->nack_ns == UINT64_MAX) continue;
    if (s->now_ns >= relay->nack_ns && s->sends_count < SENDS_MAX) { /* Else it stays due. */
      relay->nack_ns = UINT64_MAX;
      swim_post(s, &(struct send){.type = NACK, .to = relay->asker, .about = NONE, .sequence = relay->asked});
    }
    s->relay_ns = earlier(s->relay_ns, relay->nack_ns);
  }
}

static bool relayed(struct swim *s, uint32_t sender_key, uint32_t sequence) {
  if (s->now_ns >= s->relays_until_ns) return false; /* The usual case. */
  for (int i = 0; i < RELAYS_MAX; i++) {
    struct relay *relay = &s->relays[i];
    if (relay->sequence != sequence || relay->key != sender_key) continue;
    relay->sequence = 0;
    if (s->now_ns < relay->until_ns)
      swim_post(s, &(struct send){.type = ACK, .to = relay->asker, .about = NONE, .sequence = relay->asked});
    return true;
  }
  return false;
}

void swim_on_nack(struct swim *s, uint32_t sequence) {
  for (int i = 0; i < PROBES_MAX; i++) {
    struct probe *p = &s->probes[i];
    if (p->stage != PROBE_INDIRECT || p->sequence != sequence) continue;
    if (p->nacks < p->asked) p->nacks++; /* A duplicate hides a lost one, which does no harm. */
    return;
  }
  s->counts.late_acks++;
}

/* ---- the period ---- */

void swim_probe_tick(struct swim *s) {
  nack_tick(s);
  if (swim_silent(s)) {
    swim_probe_forgive(s);
    if (s->now_ns >= s->probe_ns) s->probe_ns = swim_in_step(s, s->now_ns + swim_window_ns(s));
    return;
  }
  for (int i = 0; i < PROBES_MAX && s->probes_used > 0; i++) {
    struct probe *p = &s->probes[i];
    if (p->stage == PROBE_FREE) continue;
    if (!still(s, p)) release(s, p);
    else if (s->now_ns >= p->end_ns) fail(s, p);
    else {
      if (p->stage == PROBE_DIRECT && s->now_ns >= p->indirect_ns) ask_others(s, p);
      if (s->now_ns >= p->again_ns) ping_again(s, p);
    }
  }
  if (s->now_ns < s->probe_ns) return;
  uint64_t interval = swim_window_ns(s);
  s->probe_ns += interval;
  if (s->probe_ns <= s->now_ns) s->probe_ns = swim_in_step(s, s->now_ns + interval); /* One, after any pause. */
  uint32_t id = swim_round_next(s);
  swim_users_period(s);
  if (id != NONE) swim_probe_start(s, id, FOR_ROUND), swim_seen_probed(s, id);
  swim_retry_dead_or_seed(s);
  swim_flap_tick(s);
  swim_sweep(s);
}

uint64_t swim_probe_deadline(const struct swim *s) {
  uint64_t at = earlier(s->probe_ns, s->relay_ns);
  for (int i = 0; i < PROBES_MAX && s->probes_used > 0; i++) {
    const struct probe *p = &s->probes[i];
    if (p->stage == PROBE_FREE) continue;
    at = earlier(at, earlier(p->again_ns, p->end_ns));
    if (p->stage == PROBE_DIRECT) at = earlier(at, p->indirect_ns);
  }
  return at;
}

void swim_probe_forgive(struct swim *s) {
  for (int i = 0; i < PROBES_MAX; i++)
    if (s->probes[i].stage != PROBE_FREE && s->probes[i].purpose != FOR_LEAVE) release(s, &s->probes[i]);
}

/* About CHECKERS members, chosen by a hash and so without messages between them, check a suspicion that they learn of: so the
 * confirmations of a true suspicion come within one period, and do not grow with N. */
void swim_probe_suspect(struct swim *s, uint32_t id) {
  const struct member *m = &s->members[id];
  uint32_t hash =
      (m->key ^ m->incarnation.generation ^ m->incarnation.version * 0x9e3779b9u ^ s->members[SELF].key) * 0x85ebca6bu;
  hash = (hash ^ hash >> 15) * 0xc2b2ae35u;
  if (hash % swim_living(s) < CHECKERS && !s->leaving) swim_probe_start(s, id, FOR_HINT);
}

void swim_on_ping(struct swim *s, const struct shoal_address *from, uint32_t sender, uint32_t sequence, const struct claim *claim) {
  if (swim_silent(s)) return;
  swim_refute(s, claim->incarnation, claim->state);
  bool unsure = claim->state != SWIM_ALIVE || swim_incarnation_compare(claim->incarnation, s->members[SELF].incarnation) != 0 ||
                s->members[SELF].state == SWIM_LEFT;
  /* A member that pings us as a suspect gets our refutation; a member that we believe suspect or dead gets that belief first. */
  bool doubted = s->config.buddy && sender != NONE && sender != SELF && s->members[sender].state != SWIM_ALIVE;
  bool moved = s->members[SELF].place_version > 0 && claim->place != (s->members[SELF].place_version & 63);
  swim_post(s, &(struct send){.type = moved ? ACK_AT : ACK, .to = *from, .about = doubted ? sender : NONE, .sequence = sequence,
                              .self_first = unsure});
}

void swim_on_ack(struct swim *s, uint32_t sender_key, uint32_t sender, uint32_t sequence, uint32_t digest) {
  swim_sync_if_differing(s, sender, digest);
  if (sequence == 0 || relayed(s, sender_key, sequence)) return; /* 0: from a dead member that swim_retry_dead_or_seed() pinged. */
  for (int i = 0; i < PROBES_MAX; i++) {
    struct probe *p = &s->probes[i];
    uint32_t repeat = sequence - p->sequence;
    if (p->stage == PROBE_FREE || repeat > p->repeats) continue;
    if (p->stage == PROBE_DIRECT && sender != p->target) break; /* No relay was asked yet: a forged answer, or a reused address. */
    if (sender == p->target) swim_heard(s, sender, s->now_ns - (repeat ? p->first_ns + (repeat - 1) * p->step_ns : p->sent_ns));
    release(s, p);
    if (p->purpose == FOR_LEAVE) swim_leave_heard(s, p->target);
    else swim_ail(s, -1);
    return;
  }
  s->counts.late_acks++;
}
