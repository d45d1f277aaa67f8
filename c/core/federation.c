#include "core/federation.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"

#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
#define NONE UINT32_MAX
#define NEVER UINT64_MAX
#define ERRED UINT64_C(1)

enum { FIRST_CAPACITY = 8, ERRORS_MAX = 255 };

/* Two lines of cache: what a step reads, and when the probes under way were sent. */
struct federation_dc {
  uint64_t probe_at_ns;
  uint64_t heard_ns;      /* When the last answered probe was sent. */
  uint64_t term, incarnation;
  uint32_t seq;           /* Of the last probe. */
  uint32_t counted;       /* Probes up to this one are answered, failed, or counted as unanswered. */
  uint32_t srtt_us, rttvar_us; /* 0: not measured. */
  uint32_t next, previous; /* In the line; `next` of a free one: the next free one. */
  uint32_t handle;        /* In the heap; NONE. */
  uint16_t unanswered;    /* In a row; saturates. */
  uint8_t own_errors;     /* In a row; saturates. */
  uint8_t known : 1, in_line : 1, heard : 1, state : 2, told : 2;
  uint64_t sent_ns[FEDERATION_IN_FLIGHT]; /* By seq, modulo; 0: not under way; ERRED: it failed by an error of ours. */
};
static_assert(sizeof(struct federation_dc) == 128, "two lines of cache");

const char *federation_state_name(enum federation_state state) {
  static const char *const names[] = {"unreachable", "reachable", "suspected"};
  return names[state];
}

/* ---- configuration ---- */

void federation_config_default(struct federation_config *config) {
  *config = (struct federation_config){
      .interval_ns = 2 * SECOND, .timeout_ns = 5 * SECOND, .timeout_max_ns = 15 * SECOND, .suspicion_ns = 30 * SECOND,
      .retry_ns = 2 * SECOND, .retry_max_ns = 30 * SECOND, .failures = 5, .dcs_max = 1000};
}

const char *federation_config_check(const struct federation_config *c) {
  if (c->interval_ns < MILLISECOND || c->interval_ns > 3600 * SECOND) return "interval: expected 1 ms to 1 h";
  if (c->timeout_ns < MILLISECOND || c->timeout_ns > c->timeout_max_ns) return "timeout: expected 1 ms to timeout_max";
  if (c->timeout_max_ns > FEDERATION_IN_FLIGHT * c->interval_ns) return "timeout_max: expected at most 8 intervals";
  if (c->suspicion_ns < MILLISECOND || c->suspicion_ns > 86400 * SECOND) return "suspicion: expected 1 ms to 24 h";
  if (c->retry_ns < MILLISECOND || c->retry_ns > c->retry_max_ns) return "retry: expected 1 ms to retry_max";
  if (c->retry_max_ns > 3600 * SECOND) return "retry_max: expected at most 1 h";
  if (c->failures < 1 || c->failures > 100) return "failures: expected 1 to 100";
  if (c->dcs_max < 1 || c->dcs_max > FEDERATION_DCS_MAX) return "dcs_max: expected 1 to 16777216";
  if (c->incarnation >> 62) return "incarnation: expected less than 2^62";
  return NULL;
}

uint64_t federation_suspect_ns(const struct federation_config *c, uint64_t timeout_ns) {
  return c->failures * c->interval_ns + timeout_ns;
}

uint64_t federation_unreachable_ns(const struct federation_config *c, uint64_t timeout_ns) {
  return federation_suspect_ns(c, timeout_ns) + c->suspicion_ns;
}

/* ---- the line, the heap ---- */

static struct federation_dc *at(const struct federation *f, uint32_t dc) {
  assert(dc < f->capacity && f->dcs[dc].known);
  return &f->dcs[dc];
}

static void leave_line(struct federation *f, struct federation_dc *d) {
  if (!d->in_line) return;
  if (d->previous == NONE) f->first = d->next;
  else f->dcs[d->previous].next = d->next;
  if (d->next == NONE) f->last = d->previous;
  else f->dcs[d->next].previous = d->previous;
  d->in_line = false;
}

/* Almost always at the end: next probes are due one interval after probes that came in this order. */
static void enter_line(struct federation *f, uint32_t dc) {
  struct federation_dc *d = &f->dcs[dc];
  assert(!d->in_line);
  uint32_t before = f->last;
  while (before != NONE && f->dcs[before].probe_at_ns > d->probe_at_ns) before = f->dcs[before].previous;
  d->previous = before;
  d->next = before == NONE ? f->first : f->dcs[before].next;
  if (d->previous == NONE) f->first = dc;
  else f->dcs[d->previous].next = dc;
  if (d->next == NONE) f->last = dc;
  else f->dcs[d->next].previous = dc;
  d->in_line = true;
}

static uint64_t timeout_of(const struct federation *f, const struct federation_dc *d) {
  uint64_t ns = ((uint64_t)d->srtt_us + 4 * (uint64_t)d->rttvar_us) * 1000;
  if (ns < f->config.timeout_ns) return f->config.timeout_ns;
  return ns < f->config.timeout_max_ns ? ns : f->config.timeout_max_ns;
}

static uint64_t sent_at(const struct federation_dc *d, uint32_t seq) { return d->sent_ns[seq % FEDERATION_IN_FLIGHT]; }

/* The oldest probe under way after `seq`, or 0. */
static uint32_t oldest(const struct federation_dc *d, uint32_t seq) {
  uint32_t first = d->seq >= FEDERATION_IN_FLIGHT ? d->seq - FEDERATION_IN_FLIGHT + 1 : 1;
  for (uint32_t s = seq >= first ? seq + 1 : first; s <= d->seq; s++)
    if (sent_at(d, s) > ERRED) return s;
  return 0;
}

/* When the state changes without an answer. */
static uint64_t verdict_at(const struct federation *f, const struct federation_dc *d) {
  if (d->state == FEDERATION_REACHABLE) return d->heard_ns + federation_suspect_ns(&f->config, timeout_of(f, d));
  if (d->state == FEDERATION_SUSPECTED) return d->heard_ns + federation_unreachable_ns(&f->config, timeout_of(f, d));
  return NEVER;
}

static uint64_t min_ns(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The deadline besides the next probe in the line, or NEVER. What comes after that probe is looked at then. */
static uint64_t other_deadline(const struct federation *f, const struct federation_dc *d) {
  uint64_t ns = verdict_at(f, d);
  if (d->told != d->state) return f->now_ns;
  if (!d->in_line) ns = min_ns(ns, d->probe_at_ns);
  uint32_t waiting = oldest(d, 0);
  if (waiting) ns = min_ns(ns, sent_at(d, waiting) + f->config.timeout_max_ns);
  uint32_t uncounted = oldest(d, d->counted);
  if (uncounted) ns = min_ns(ns, sent_at(d, uncounted) + timeout_of(f, d));
  return d->in_line && ns >= d->probe_at_ns ? NEVER : ns;
}

/* Set the heap's entry. grow() reserved the memory. */
static void arm(struct federation *f, uint32_t dc) {
  struct federation_dc *d = &f->dcs[dc];
  uint64_t ns = other_deadline(f, d);
  if (ns == NEVER) {
    if (d->handle != NONE) heap_remove(&f->heap, d->handle);
    d->handle = NONE;
  } else if (d->handle != NONE) {
    if (heap_at(&f->heap, d->handle) != ns) heap_move(&f->heap, d->handle, ns);
  } else {
    int rc = heap_add(&f->heap, ns, dc, &d->handle);
    assert(rc == 0);
    (void)rc; /* Asserted. */
  }
}

/* ---- time ---- */

static uint64_t first_deadline(const struct federation *f) {
  uint64_t line = f->first == NONE ? NEVER : f->dcs[f->first].probe_at_ns;
  return min_ns(line, heap_deadline(&f->heap));
}

static void advance(struct federation *f, uint64_t now_ns) {
  assert(now_ns >= f->now_ns + f->stalled_ns);
  uint64_t ns = now_ns - f->stalled_ns, due = first_deadline(f);
  if (due != NEVER && due < f->now_ns) due = f->now_ns;
  if (due != NEVER && ns > due && ns - due > f->config.interval_ns / 2) { /* We were stalled: the clock stops. */
    f->counts.stalls++;
    f->counts.stalled_ns += ns - due;
    f->stalled_ns += ns - due;
    ns = due;
  }
  f->now_ns = ns;
}

uint64_t federation_deadline(const struct federation *f) {
  uint64_t ns = first_deadline(f);
  return ns == NEVER ? NEVER : ns + f->stalled_ns;
}

/* ---- datacenters ---- */

void federation_init(struct federation *f, const struct federation_config *config, uint64_t now_ns) {
  assert(!federation_config_check(config));
  *f = (struct federation){.config = *config, .first = NONE, .last = NONE, .now_ns = now_ns, .incarnation = config->incarnation};
  rng_seed(&f->rng, config->seed);
}

void federation_free(struct federation *f) {
  free(f->dcs);
  heap_free(&f->heap);
  f->dcs = NULL;
}

static int grow(struct federation *f) {
  uint32_t capacity = f->capacity ? 2 * f->capacity : FIRST_CAPACITY;
  struct federation_dc *dcs = aligned_alloc(128, capacity * sizeof *dcs);
  if (!dcs) return ERR_MEMORY;
  if (f->capacity) memcpy(dcs, f->dcs, f->capacity * sizeof *dcs);
  memset(dcs + f->capacity, 0, (capacity - f->capacity) * sizeof *dcs);
  int rc = heap_reserve(&f->heap, capacity); /* Each may need an entry at any time, when there is nobody to refuse. */
  if (rc < 0) {
    free(dcs);
    return rc;
  }
  free(f->dcs);
  f->dcs = dcs;
  for (uint32_t i = f->capacity; i < capacity; i++) dcs[i].next = i + 1;
  assert(f->free == f->capacity);
  f->capacity = capacity;
  return 0;
}

/* Where in the interval the first probe lies. */
static uint64_t phase(struct federation *f) {
  if (f->together > 0) return f->together--, f->phase_ns;
  uint32_t count = f->counts.dcs < FEDERATION_SPREAD ? f->counts.dcs : FEDERATION_SPREAD, many = f->counts.dcs / FEDERATION_LUMPS;
  f->phase_ns = rng_below(&f->rng, f->config.interval_ns * count / FEDERATION_SPREAD + 1);
  if (many > 1) f->together = (many < FEDERATION_TOGETHER ? many : FEDERATION_TOGETHER) - 1;
  return f->phase_ns;
}

int federation_know(struct federation *f, uint64_t now_ns, uint64_t term, uint32_t *dc) {
  advance(f, now_ns);
  int rc = f->counts.dcs < f->config.dcs_max ? 0 : ERR_FULL;
  if (rc == 0 && f->free == f->capacity) rc = grow(f);
  if (rc < 0) {
    f->counts.full += rc == ERR_FULL;
    return rc;
  }
  *dc = f->free;
  struct federation_dc *d = &f->dcs[*dc];
  f->free = d->next;
  f->counts.dcs++;
  f->counts.in_state[FEDERATION_UNREACHABLE]++;
  *d = (struct federation_dc){.known = true, .term = term, .incarnation = ++f->incarnation, .handle = NONE};
  d->probe_at_ns = f->now_ns + phase(f);
  arm(f, *dc);
  return 0;
}

void federation_lead(struct federation *f, uint64_t now_ns, uint32_t dc, uint64_t term) {
  advance(f, now_ns);
  struct federation_dc *d = at(f, dc);
  f->counts.leaders++;
  memset(d->sent_ns, 0, sizeof d->sent_ns);
  d->counted = d->seq;
  d->own_errors = 0; /* They were of probes of another address. */
  d->term = term;
  d->incarnation = ++f->incarnation;
  leave_line(f, d);
  d->probe_at_ns = f->now_ns;
  arm(f, dc);
}

void federation_forget(struct federation *f, uint32_t dc) {
  struct federation_dc *d = at(f, dc);
  leave_line(f, d);
  if (d->handle != NONE) heap_remove(&f->heap, d->handle);
  f->counts.dcs--;
  f->counts.in_state[d->state]--;
  *d = (struct federation_dc){.next = f->free};
  f->free = dc;
}

bool federation_knows(const struct federation *f, uint32_t dc) { return dc < f->capacity && f->dcs[dc].known; }

static void move(struct federation *f, struct federation_dc *d, enum federation_state to) {
  enum federation_state from = (enum federation_state)d->state;
  assert(from != to && (to == FEDERATION_REACHABLE || (from == FEDERATION_REACHABLE && to == FEDERATION_SUSPECTED) ||
                        (from == FEDERATION_SUSPECTED && to == FEDERATION_UNREACHABLE)));
  f->counts.in_state[from]--;
  f->counts.in_state[to]++;
  uint64_t *counts[] = {&f->counts.unreachable, &f->counts.reachable, &f->counts.suspected};
  ++*counts[to];
  d->state = (unsigned)to & 3u;
}

/* ---- answers ---- */

/* RFC 6298, 2: alpha 1/8, beta 1/4. */
static void measure(struct federation_dc *d, uint64_t rtt_ns) {
  uint64_t us = rtt_ns / 1000 + 1;
  if (us > UINT32_MAX / 8) us = UINT32_MAX / 8;
  if (d->srtt_us == 0) {
    d->srtt_us = (uint32_t)us;
    d->rttvar_us = (uint32_t)us / 2;
    return;
  }
  uint64_t off = us > d->srtt_us ? us - d->srtt_us : d->srtt_us - us;
  d->rttvar_us = (uint32_t)((3 * (uint64_t)d->rttvar_us + off) / 4);
  d->srtt_us = (uint32_t)((7 * (uint64_t)d->srtt_us + us) / 8);
  if (d->srtt_us == 0) d->srtt_us = 1;
}

static bool under_way(const struct federation_dc *d, uint32_t seq) {
  return seq > 0 && seq <= d->seq && d->seq - seq < FEDERATION_IN_FLIGHT && sent_at(d, seq) > ERRED;
}

/* This probe was sent without an error of ours. One from before the last error ends no row of errors. */
static void note_sent(struct federation_dc *d, uint32_t seq) {
  if (!d->own_errors) return;
  for (uint32_t s = seq + 1; s <= d->seq; s++)
    if (sent_at(d, s) == ERRED) return;
  d->own_errors = 0;
}

int federation_ack(struct federation *f, uint64_t now_ns, uint32_t dc, uint32_t seq, uint64_t incarnation, uint64_t term) {
  advance(f, now_ns);
  if (!federation_knows(f, dc)) {
    f->counts.over++;
    return ERR_NOT_FOUND;
  }
  struct federation_dc *d = &f->dcs[dc];
  if (incarnation != d->incarnation) {
    f->counts.stale_incarnation++;
    return ERR_STALE;
  }
  if (term < d->term) {
    f->counts.stale_term++;
    return ERR_STALE;
  }
  if (!under_way(d, seq)) {
    f->counts.over++;
    return ERR_NOT_FOUND;
  }
  uint64_t sent_ns = sent_at(d, seq);
  f->counts.acks++;
  f->counts.late += f->now_ns - sent_ns >= timeout_of(f, d);
  d->sent_ns[seq % FEDERATION_IN_FLIGHT] = 0;
  d->term = term;
  measure(d, f->now_ns - sent_ns);
  if (!d->heard || sent_ns > d->heard_ns) d->heard_ns = sent_ns;
  d->heard = true;
  d->unanswered = 0;
  if (seq > d->counted) d->counted = seq; /* Earlier ones that are still under way are no longer in a row. */
  note_sent(d, seq);
  if (d->state != FEDERATION_REACHABLE && d->heard_ns + federation_suspect_ns(&f->config, timeout_of(f, d)) > f->now_ns)
    move(f, d, FEDERATION_REACHABLE); /* Not by an answer that is as old as a suspicion. */
  arm(f, dc);
  return 0;
}

static void count_unanswered(struct federation *f, struct federation_dc *d) {
  f->counts.unanswered++;
  if (d->unanswered < UINT16_MAX) d->unanswered++;
}

/* retry, twice that, ... up to retry_max; +-20 %. */
static uint64_t retry_delay(struct federation *f, uint32_t errors) {
  uint64_t ns = f->config.retry_ns;
  for (uint32_t i = 1; i < errors && ns < f->config.retry_max_ns; i++) ns *= 2;
  ns = min_ns(ns, f->config.retry_max_ns);
  return ns - ns / 5 + rng_below(&f->rng, 2 * (ns / 5) + 1);
}

int federation_fail(struct federation *f, uint64_t now_ns, uint32_t dc, uint32_t seq, bool ours, uint64_t *delay_ns, uint32_t *errors) {
  advance(f, now_ns);
  if (!federation_knows(f, dc) || !under_way(&f->dcs[dc], seq)) return ERR_NOT_FOUND;
  struct federation_dc *d = &f->dcs[dc];
  d->sent_ns[seq % FEDERATION_IN_FLIGHT] = ours ? ERRED : 0;
  if (ours) {
    f->counts.own_errors++;
    if (d->own_errors < ERRORS_MAX) d->own_errors++;
    *errors = d->own_errors;
    *delay_ns = retry_delay(f, d->own_errors);
    leave_line(f, d);
    d->probe_at_ns = f->now_ns + *delay_ns;
  } else {
    if (seq > d->counted) count_unanswered(f, d); /* Else its timeout was counted. */
    note_sent(d, seq);
  }
  arm(f, dc);
  return 0;
}

/* ---- what is due ---- */

static bool emit_over(struct federation *f, uint32_t dc, uint32_t seq, struct federation_action *out) {
  struct federation_dc *d = &f->dcs[dc];
  d->sent_ns[seq % FEDERATION_IN_FLIGHT] = 0;
  *out = (struct federation_action){.kind = FEDERATION_OVER, .dc = dc, .seq = seq};
  return true;
}

static void count_timeouts(struct federation *f, struct federation_dc *d) {
  uint32_t seq;
  while ((seq = oldest(d, d->counted)) && sent_at(d, seq) + timeout_of(f, d) <= f->now_ns) {
    d->counted = seq;
    count_unanswered(f, d);
    note_sent(d, seq);
  }
}

static bool emit_state(struct federation *f, uint32_t dc, struct federation_action *out) {
  struct federation_dc *d = &f->dcs[dc];
  *out = (struct federation_action){
      .kind = FEDERATION_STATE, .dc = dc, .from = (enum federation_state)d->told, .to = (enum federation_state)d->state,
      .unanswered = d->unanswered, .own_errors = d->own_errors, .timeout_ns = timeout_of(f, d),
      .silent_ns = d->heard ? f->now_ns - d->heard_ns : NEVER};
  d->told = d->state;
  return true;
}

static bool emit_probe(struct federation *f, uint32_t dc, struct federation_action *out) {
  struct federation_dc *d = &f->dcs[dc];
  leave_line(f, d);
  d->seq++;
  d->sent_ns[d->seq % FEDERATION_IN_FLIGHT] = f->now_ns > ERRED ? f->now_ns : ERRED + 1;
  uint64_t next_ns = d->probe_at_ns + f->config.interval_ns;
  d->probe_at_ns = next_ns > f->now_ns ? next_ns : f->now_ns + f->config.interval_ns;
  enter_line(f, dc);
  f->counts.probes++;
  *out = (struct federation_action){.kind = FEDERATION_PROBE, .dc = dc, .seq = d->seq, .incarnation = d->incarnation, .term = d->term,
                                    .timeout_ns = timeout_of(f, d)};
  return true;
}

/* One action of this datacenter, if one is due. */
static bool visit(struct federation *f, uint32_t dc, struct federation_action *out) {
  struct federation_dc *d = &f->dcs[dc];
  count_timeouts(f, d);
  uint32_t waiting = oldest(d, 0);
  if (waiting && sent_at(d, waiting) + f->config.timeout_max_ns <= f->now_ns) return emit_over(f, dc, waiting, out);
  if (verdict_at(f, d) <= f->now_ns) move(f, d, d->state == FEDERATION_REACHABLE ? FEDERATION_SUSPECTED : FEDERATION_UNREACHABLE);
  if (d->told != d->state) return emit_state(f, dc, out);
  if (d->probe_at_ns > f->now_ns) return false;
  uint32_t full = d->seq + 1 > FEDERATION_IN_FLIGHT ? d->seq + 1 - FEDERATION_IN_FLIGHT : 0;
  if (full && sent_at(d, full) > ERRED) { /* Its place is needed. */
    if (full > d->counted) count_unanswered(f, d), d->counted = full;
    return emit_over(f, dc, full, out);
  }
  return emit_probe(f, dc, out);
}

bool federation_next(struct federation *f, uint64_t now_ns, struct federation_action *out) {
  advance(f, now_ns);
  for (;;) {
    const struct heap_entry *other = heap_first(&f->heap);
    uint32_t dc = f->first;
    if (other && (dc == NONE || other->at_ns <= f->dcs[dc].probe_at_ns)) dc = (uint32_t)other->key;
    if (dc == NONE || first_deadline(f) > f->now_ns) return false;
    bool taken = visit(f, dc, out);
    arm(f, dc);
    if (taken) return true;
  }
}

/* ---- looking ---- */

void federation_view(const struct federation *f, uint64_t now_ns, uint32_t dc, struct federation_view *out) {
  const struct federation_dc *d = at(f, dc);
  uint64_t ns = now_ns - f->stalled_ns, timeout_ns = timeout_of(f, d);
  if (ns < f->now_ns) ns = f->now_ns;
  *out = (struct federation_view){.state = (enum federation_state)d->state, .seq = d->seq, .unanswered = d->unanswered,
                                  .own_errors = d->own_errors, .incarnation = d->incarnation, .term = d->term,
                                  .srtt_ns = (uint64_t)d->srtt_us * 1000, .rttvar_ns = (uint64_t)d->rttvar_us * 1000,
                                  .timeout_ns = timeout_ns, .silent_ns = d->heard ? ns - d->heard_ns : NEVER};
  for (int i = 0; i < FEDERATION_IN_FLIGHT; i++) out->in_flight += d->sent_ns[i] > ERRED;
  out->next_ns = d->probe_at_ns > ns ? d->probe_at_ns - ns : 0;
  if (!d->heard || d->state == FEDERATION_UNREACHABLE) return;
  uint64_t suspect = d->heard_ns + federation_suspect_ns(&f->config, timeout_ns);
  if (d->state == FEDERATION_REACHABLE && suspect > ns) out->suspected_ns = suspect - ns;
  if (suspect + f->config.suspicion_ns > ns) out->unreachable_ns = suspect + f->config.suspicion_ns - ns;
}

struct federation_counts federation_count(const struct federation *f) { return f->counts; }

void federation_check(const struct federation *f) {
  uint32_t known = 0, in_line = 0, in_heap = 0, in_state[3] = {0}, walked = 0;
  for (uint32_t i = 0; i < f->capacity; i++) {
    const struct federation_dc *d = &f->dcs[i];
    if (!d->known) continue;
    known++, in_line += d->in_line, in_heap += d->handle != NONE, in_state[d->state]++;
    assert(d->in_line || d->handle != NONE);
    assert(d->incarnation <= f->incarnation && d->counted <= d->seq);
    assert(d->state != FEDERATION_REACHABLE || d->heard);
    for (int s = 0; s < FEDERATION_IN_FLIGHT; s++) assert(d->sent_ns[s] <= f->now_ns || d->sent_ns[s] <= ERRED + 1);
  }
  for (uint32_t i = f->first, before = NONE; i != NONE; before = i, i = f->dcs[i].next, walked++) {
    assert(f->dcs[i].in_line && f->dcs[i].previous == before && walked < f->capacity);
    assert(before == NONE || f->dcs[before].probe_at_ns <= f->dcs[i].probe_at_ns);
  }
  assert(known == f->counts.dcs && walked == in_line && in_heap == f->heap.count);
  for (int s = 0; s < 3; s++) assert(in_state[s] == f->counts.in_state[s]);
}

uint64_t federation_bytes(const struct federation *f) {
  return (uint64_t)f->capacity * sizeof *f->dcs + (uint64_t)f->heap.capacity * (sizeof *f->heap.entries + sizeof *f->heap.where);
}
