/* core/federation: its rules one by one at their exact instants, then a random run against a model that keeps everything. */
#include "core/federation.h"

#include <string.h>

#include "core/errors.h"
#include "must.h"

#define MS UINT64_C(1000000)
#define S UINT64_C(1000000000)
#define NEVER UINT64_MAX

enum { HEARD_MAX = 512 };

struct rig {
  struct federation f;
  uint64_t now;
  struct federation_action last[HEARD_MAX]; /* Actions of the last run. */
  int count;
};

static void open_with(struct rig *r, const struct federation_config *c) {
  *r = (struct rig){.now = 1000 * S};
  MUST(!federation_config_check(c));
  federation_init(&r->f, c, r->now);
}

static struct federation_config defaults(void) {
  struct federation_config c;
  federation_config_default(&c);
  c.seed = 7;
  return c;
}

static void start(struct rig *r) {
  struct federation_config c = defaults();
  open_with(r, &c);
}

static uint32_t know(struct rig *r) {
  uint32_t dc;
  MUST(federation_know(&r->f, r->now, 1, &dc) == 0);
  return dc;
}

static void drain(struct rig *r) {
  struct federation_action a;
  while (federation_next(&r->f, r->now, &a)) {
    MUST(r->count < HEARD_MAX);
    r->last[r->count++] = a;
  }
  federation_check(&r->f);
  MUST(federation_deadline(&r->f) > r->now);
}

/* Run to `until` exactly, at each deadline in between. */
static void run(struct rig *r, uint64_t until) {
  r->count = 0;
  drain(r);
  while (federation_deadline(&r->f) <= until) {
    r->now = federation_deadline(&r->f);
    drain(r);
  }
  r->now = until;
  drain(r);
}

static const struct federation_action *find(struct rig *r, enum federation_kind kind, uint32_t dc) {
  for (int i = 0; i < r->count; i++)
    if (r->last[i].kind == kind && r->last[i].dc == dc) return &r->last[i];
  return NULL;
}

/* Run to the next probe of dc; its instant is r->now. */
static struct federation_action probe(struct rig *r, uint32_t dc) {
  for (;;) {
    r->count = 0;
    MUST(federation_deadline(&r->f) != NEVER);
    if (federation_deadline(&r->f) > r->now) r->now = federation_deadline(&r->f);
    drain(r);
    const struct federation_action *a = find(r, FEDERATION_PROBE, dc);
    if (a) return *a;
  }
}

static int ack(struct rig *r, const struct federation_action *p) {
  return federation_ack(&r->f, r->now, p->dc, p->seq, p->incarnation, p->term);
}

static enum federation_state state(struct rig *r, uint32_t dc) {
  struct federation_view v;
  federation_view(&r->f, r->now, dc, &v);
  return v.state;
}

static void changes_at_its_bounds_and_not_1_ns_sooner(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r);
  run(&r, r.now + 100 * S);
  MUST(state(&r, dc) == FEDERATION_UNREACHABLE && !find(&r, FEDERATION_STATE, dc)); /* It never answered: no event. */
  struct federation_action p = probe(&r, dc);
  uint64_t sent = r.now;
  r.now += 10 * MS;
  MUST(ack(&r, &p) == 0);
  run(&r, r.now);
  const struct federation_action *a = find(&r, FEDERATION_STATE, dc);
  MUST(a && a->from == FEDERATION_UNREACHABLE && a->to == FEDERATION_REACHABLE);
  uint64_t suspect = sent + federation_suspect_ns(&r.f.config, 5 * S), unreachable = sent + federation_unreachable_ns(&r.f.config, 5 * S);
  MUST(suspect == sent + 15 * S && unreachable == sent + 45 * S);
  struct federation_view v;
  federation_view(&r.f, r.now, dc, &v);
  MUST(r.now + v.suspected_ns == suspect && r.now + v.unreachable_ns == unreachable);
  run(&r, suspect - 1);
  MUST(state(&r, dc) == FEDERATION_REACHABLE);
  run(&r, suspect);
  a = find(&r, FEDERATION_STATE, dc);
  MUST(a && a->to == FEDERATION_SUSPECTED && a->unanswered == 5 && a->silent_ns == 15 * S); /* Five in a row timed out, the fifth now. */
  run(&r, unreachable - 1);
  MUST(state(&r, dc) == FEDERATION_SUSPECTED);
  run(&r, unreachable);
  a = find(&r, FEDERATION_STATE, dc);
  MUST(a && a->from == FEDERATION_SUSPECTED && a->to == FEDERATION_UNREACHABLE);
  p = probe(&r, dc);
  MUST(ack(&r, &p) == 0 && state(&r, dc) == FEDERATION_REACHABLE);
  struct federation_counts n = federation_count(&r.f);
  MUST(n.reachable == 2 && n.suspected == 1 && n.unreachable == 1 && n.in_state[FEDERATION_REACHABLE] == 1);
  federation_free(&r.f);
}

static void any_answer_ends_a_suspicion(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r);
  struct federation_action p = probe(&r, dc);
  MUST(ack(&r, &p) == 0);
  run(&r, r.now + 16 * S);
  MUST(state(&r, dc) == FEDERATION_SUSPECTED);
  p = probe(&r, dc);
  uint64_t sent = r.now;
  MUST(ack(&r, &p) == 0 && state(&r, dc) == FEDERATION_REACHABLE);
  run(&r, sent + 15 * S - 1);
  MUST(state(&r, dc) == FEDERATION_REACHABLE);
  run(&r, sent + 15 * S);
  MUST(state(&r, dc) == FEDERATION_SUSPECTED);
  federation_free(&r.f);
}

static void an_unanswered_probe_keeps_the_interval(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r);
  probe(&r, dc);
  for (int i = 0; i < 40; i++) {
    uint64_t before = r.now;
    struct federation_action p = probe(&r, dc);
    MUST(r.now == before + 2 * S);
    uint64_t delay;
    uint32_t errors;
    if (i % 3 == 0) MUST(federation_fail(&r.f, r.now, dc, p.seq, false, &delay, &errors) == 0); /* Refused at once. */
  }
  federation_free(&r.f);
}

static void own_errors_back_off_2_4_8_16_30_30_and_delay_no_verdict(void) {
  static const uint64_t delays[] = {2, 4, 8, 16, 30, 30};
  struct rig r;
  start(&r);
  uint32_t bad = know(&r), good = know(&r);
  struct federation_action p = probe(&r, bad), q;
  uint64_t answered = r.now, good_at = 0;
  MUST(ack(&r, &p) == 0);
  uint32_t row = 0, seen = 0;
  uint64_t due = 0, low = NEVER, high = 0, suspected = 0, unreachable = 0;
  struct federation_action a;
  while (row < 6) {
    r.now = federation_deadline(&r.f);
    while (federation_next(&r.f, r.now, &a)) {
      if (a.kind == FEDERATION_STATE && a.dc == bad && a.to == FEDERATION_SUSPECTED) suspected = r.now;
      if (a.kind == FEDERATION_STATE && a.dc == bad && a.to == FEDERATION_UNREACHABLE) unreachable = r.now;
      if (a.kind != FEDERATION_PROBE) continue;
      if (a.dc == good) {
        MUST(good_at == 0 || r.now - good_at == 2 * S); /* Another one is never late. */
        good_at = r.now;
        MUST(ack(&r, &a) == 0);
        continue;
      }
      MUST(due == 0 || r.now == due);
      uint64_t delay;
      uint32_t errors;
      MUST(federation_fail(&r.f, r.now, bad, a.seq, true, &delay, &errors) == 0 && errors == row + 1);
      MUST(delay >= delays[row] * S * 8 / 10 && delay <= delays[row] * S * 12 / 10);
      uint64_t part = delay * 1000 / (delays[row] * S);
      low = part < low ? part : low, high = part > high ? part : high;
      due = r.now + delay, row++, seen++;
    }
  }
  MUST(low < 1000 && high > 1000); /* It does vary. */
  MUST(suspected == answered + 15 * S && unreachable == answered + 45 * S);
  federation_forget(&r.f, good);
  run(&r, due);
  q = *find(&r, FEDERATION_PROBE, bad);
  MUST(ack(&r, &q) == 0 && state(&r, bad) == FEDERATION_REACHABLE); /* One success: */
  p = probe(&r, bad);
  uint64_t delay;
  uint32_t errors;
  MUST(federation_fail(&r.f, r.now, bad, p.seq, true, &delay, &errors) == 0 && errors == 1 && delay <= 24 * S / 10);
  struct federation_counts n = federation_count(&r.f);
  MUST(n.own_errors == 7 && n.unanswered == 0);
  federation_free(&r.f);
}

static void an_older_answer_ends_no_row_of_own_errors(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r), errors;
  uint64_t delay;
  struct federation_action old = probe(&r, dc), p = probe(&r, dc);
  MUST(federation_fail(&r.f, r.now, dc, p.seq, true, &delay, &errors) == 0 && errors == 1);
  MUST(ack(&r, &old) == 0);
  p = probe(&r, dc);
  MUST(federation_fail(&r.f, r.now, dc, p.seq, true, &delay, &errors) == 0 && errors == 2);
  p = probe(&r, dc);
  run(&r, r.now + 6500 * MS); /* Sent and unanswered: that is no error of ours, and the row is over. */
  p = probe(&r, dc);
  MUST(federation_fail(&r.f, r.now, dc, p.seq, true, &delay, &errors) == 0 && errors == 1);
  federation_free(&r.f);
}

static void a_new_leader_is_taken_while_a_probe_is_under_way(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r);
  struct federation_action old = probe(&r, dc);
  r.now += 100 * MS;
  federation_lead(&r.f, r.now, dc, 5);
  run(&r, r.now);
  const struct federation_action *fresh = find(&r, FEDERATION_PROBE, dc);
  MUST(fresh && fresh->seq == old.seq + 1 && fresh->incarnation > old.incarnation && fresh->term == 5);
  MUST(ack(&r, &old) == ERR_STALE && state(&r, dc) == FEDERATION_UNREACHABLE);
  uint64_t delay;
  uint32_t errors;
  MUST(federation_fail(&r.f, r.now, dc, old.seq, true, &delay, &errors) == ERR_NOT_FOUND); /* Nor does its failure count. */
  struct federation_action p = *fresh;
  MUST(ack(&r, &p) == 0 && state(&r, dc) == FEDERATION_REACHABLE);
  struct federation_counts n = federation_count(&r.f);
  MUST(n.stale_incarnation == 1 && n.leaders == 1 && n.own_errors == 0 && n.unanswered == 0);
  federation_lead(&r.f, r.now, dc, 6); /* The state of a datacenter outlives its leader. */
  MUST(state(&r, dc) == FEDERATION_REACHABLE);
  federation_free(&r.f);
}

static void stale_answers_and_second_ones_are_dropped_and_counted(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r);
  struct federation_action p = probe(&r, dc);
  MUST(federation_ack(&r.f, r.now, dc, p.seq, p.incarnation - 1, 9) == ERR_STALE);
  MUST(federation_ack(&r.f, r.now, dc, p.seq, p.incarnation + 1, 9) == ERR_STALE);
  MUST(federation_ack(&r.f, r.now, dc, p.seq, p.incarnation, 9) == 0);
  MUST(federation_ack(&r.f, r.now, dc, p.seq, p.incarnation, 9) == ERR_NOT_FOUND);
  MUST(federation_ack(&r.f, r.now, dc, p.seq + 1, p.incarnation, 9) == ERR_NOT_FOUND); /* Not sent yet. */
  MUST(federation_ack(&r.f, r.now, dc, 0, p.incarnation, 9) == ERR_NOT_FOUND);
  MUST(federation_ack(&r.f, r.now, dc + 1, p.seq, p.incarnation, 9) == ERR_NOT_FOUND);
  p = probe(&r, dc);
  MUST(p.term == 9);
  MUST(federation_ack(&r.f, r.now, dc, p.seq, p.incarnation, 8) == ERR_STALE);
  MUST(federation_ack(&r.f, r.now, dc, p.seq, p.incarnation, 9) == 0);
  struct federation_counts n = federation_count(&r.f);
  MUST(n.stale_incarnation == 2 && n.stale_term == 1 && n.over == 4 && n.acks == 2);
  federation_forget(&r.f, dc);
  MUST(federation_deadline(&r.f) == NEVER && !federation_knows(&r.f, dc));
  MUST(know(&r) == dc); /* The index is used again: */
  MUST(ack(&r, &p) == ERR_STALE);
  federation_free(&r.f);
}

static void the_timeout_follows_the_round_trip_within_its_bounds(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r);
  struct federation_action sent[256];
  uint64_t at[256], rtt = 4500 * MS, longest = 0;
  uint32_t head = 0, tail = 0;
  for (int i = 0; i < 250 && head < 256; i++) {
    uint64_t due = tail < head ? at[tail] + rtt : NEVER, next = federation_deadline(&r.f);
    r.now = due < next ? due : next;
    if (due <= next) {
      MUST(ack(&r, &sent[tail]) == 0);
      tail++;
      continue;
    }
    struct federation_action a;
    while (federation_next(&r.f, r.now, &a)) {
      if (a.kind != FEDERATION_PROBE) continue;
      longest = a.timeout_ns > longest ? a.timeout_ns : longest;
      sent[head] = a, at[head++] = r.now;
    }
    if (head > 60) rtt = 9 * S; /* It becomes twice as slow as the timeout was. */
  }
  struct federation_view v;
  federation_view(&r.f, r.now, dc, &v);
  MUST(v.srtt_ns > 8900 * MS && v.srtt_ns < 9100 * MS && v.timeout_ns >= 9 * S && longest <= 15 * S && longest > 9 * S);
  struct federation_counts n = federation_count(&r.f);
  MUST(n.late > 0 && n.suspected == 0 && state(&r, dc) == FEDERATION_REACHABLE); /* Late answers counted until the timeout had grown. */
  MUST(v.suspected_ns + v.silent_ns == federation_suspect_ns(&r.f.config, v.timeout_ns));
  federation_free(&r.f);
}

static void an_answer_counts_until_its_probe_is_over(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r);
  struct federation_action p = probe(&r, dc);
  uint64_t sent = r.now;
  run(&r, sent + 15 * S - 1);
  MUST(!find(&r, FEDERATION_OVER, dc));
  MUST(federation_ack(&r.f, r.now, dc, p.seq, p.incarnation, 1) == 0 && federation_count(&r.f).late == 1);
  p = probe(&r, dc);
  sent = r.now;
  run(&r, sent + 15 * S);
  const struct federation_action *over = NULL;
  for (int i = 0; i < r.count; i++)
    if (r.last[i].kind == FEDERATION_OVER && r.last[i].seq == p.seq) over = &r.last[i];
  MUST(over && ack(&r, &p) == ERR_NOT_FOUND);
  struct federation_view v;
  federation_view(&r.f, r.now, dc, &v);
  MUST(v.in_flight <= FEDERATION_IN_FLIGHT);
  federation_free(&r.f);
}

static void a_stall_of_ours_accuses_nobody(void) {
  static const uint64_t stalls[] = {3 * S, 20 * S, 3600 * S};
  for (size_t i = 0; i < sizeof stalls / sizeof *stalls; i++) {
    struct rig r;
    start(&r);
    uint32_t dc = know(&r);
    struct federation_action p = probe(&r, dc);
    uint64_t sent = r.now;
    MUST(ack(&r, &p) == 0);
    run(&r, sent + 13 * S + 1); /* Silent for long already. */
    MUST(state(&r, dc) == FEDERATION_REACHABLE);
    uint64_t due = federation_deadline(&r.f);
    r.now = due + stalls[i];
    r.count = 0;
    drain(&r);
    MUST(state(&r, dc) == FEDERATION_REACHABLE);
    run(&r, sent + 15 * S + stalls[i] - 1);
    MUST(state(&r, dc) == FEDERATION_REACHABLE);
    run(&r, sent + 15 * S + stalls[i]); /* All the rest of its time, and no more. */
    MUST(state(&r, dc) == FEDERATION_SUSPECTED);
    struct federation_counts n = federation_count(&r.f);
    MUST(n.stalls == 1 && n.stalled_ns == stalls[i]);
    federation_free(&r.f);
  }
  struct rig r;
  start(&r);
  uint32_t dc = know(&r);
  struct federation_action p = probe(&r, dc);
  r.now = federation_deadline(&r.f) + S + 5; /* An answer is the first thing that we hear after a stall. */
  MUST(ack(&r, &p) == 0 && federation_count(&r.f).stalls == 1);
  r.now = federation_deadline(&r.f) + S; /* Half an interval is no stall. */
  drain(&r);
  MUST(federation_count(&r.f).stalls == 1);
  federation_free(&r.f);
}

static void first_probes_are_spread_and_few_start_soon(void) {
  struct federation_config c = defaults();
  c.dcs_max = 1000;
  struct rig r;
  open_with(&r, &c);
  for (int i = 0; i < 1000; i++) know(&r);
  uint32_t bucket[20] = {0};
  uint64_t began = r.now, second[1000] = {0}, firsts[1000] = {0};
  struct federation_action a;
  while (federation_deadline(&r.f) < began + 4 * S) {
    r.now = federation_deadline(&r.f);
    while (federation_next(&r.f, r.now, &a)) {
      if (a.kind != FEDERATION_PROBE) continue;
      if (a.seq == 1) firsts[a.dc] = r.now, bucket[(r.now - began) * 10 / S]++;
      else if (a.seq == 2) second[a.dc] = r.now;
    }
  }
  for (int i = 0; i < 1000; i++) MUST(firsts[i] && second[i] == firsts[i] + 2 * S);
  for (int i = 1; i < 20; i++) MUST(bucket[i] > 10 && bucket[i] < 120);
  federation_free(&r.f);
  start(&r);
  uint32_t dc = know(&r);
  began = r.now;
  probe(&r, dc);
  MUST(r.now - began <= 20 * MS);
  federation_free(&r.f);
}

static void many_share_phases_and_are_spread_all_the_same(void) {
  enum { MANY = 80000 };
  struct federation_config c = defaults();
  c.dcs_max = MANY;
  struct rig r;
  open_with(&r, &c);
  for (int i = 0; i < MANY; i++) know(&r);
  static uint32_t bucket[20];
  uint64_t began = r.now;
  struct federation_action a;
  while (federation_deadline(&r.f) < began + 2 * S) {
    r.now = federation_deadline(&r.f);
    uint32_t at_once = 0;
    while (federation_next(&r.f, r.now, &a))
      if (a.kind == FEDERATION_PROBE && a.seq == 1) bucket[(r.now - began) * 10 / S]++, at_once++;
    MUST(at_once <= 2 * FEDERATION_TOGETHER);
  }
  for (int i = 0; i < 20; i++) MUST(bucket[i] > MANY / 20 * 3 / 4 && bucket[i] < MANY / 20 * 5 / 4);
  federation_free(&r.f);
}

static void one_past_the_limit_of_datacenters_is_refused(void) {
  struct federation_config c = defaults();
  c.dcs_max = 20;
  struct rig r;
  open_with(&r, &c);
  for (int i = 0; i < 20; i++) know(&r);
  uint32_t dc = 99;
  MUST(federation_know(&r.f, r.now, 1, &dc) == ERR_FULL && dc == 99 && federation_count(&r.f).full == 1);
  MUST(federation_count(&r.f).dcs == 20);
  federation_check(&r.f);
  federation_forget(&r.f, 7);
  MUST(know(&r) == 7);
  federation_free(&r.f);
  c.dcs_max = FEDERATION_DCS_MAX;
  MUST(!federation_config_check(&c));
  c.dcs_max++;
  MUST(federation_config_check(&c));
}

static void the_configuration_is_checked_on_both_sides_of_each_bound(void) {
#define SIDES(field, good, bad) \
  do { \
    struct federation_config c = defaults(); \
    c.field = (good); \
    MUST(!federation_config_check(&c)); \
    c.field = (bad); \
    MUST(federation_config_check(&c)); \
  } while (0)
  SIDES(interval_ns, 3600 * S, 3600 * S + 1);
  SIDES(timeout_ns, MS, MS - 1);
  SIDES(timeout_ns, 15 * S, 15 * S + 1);
  SIDES(timeout_max_ns, 16 * S, 16 * S + 1);
  SIDES(suspicion_ns, MS, MS - 1);
  SIDES(suspicion_ns, 86400 * S, 86400 * S + 1);
  SIDES(retry_ns, MS, MS - 1);
  SIDES(retry_ns, 30 * S, 30 * S + 1);
  SIDES(retry_max_ns, 3600 * S, 3600 * S + 1);
  SIDES(failures, 1, 0);
  SIDES(failures, 100, 101);
  SIDES(dcs_max, 1, 0);
  SIDES(incarnation, (UINT64_C(1) << 62) - 1, UINT64_C(1) << 62);
  struct federation_config c = defaults();
  c.interval_ns = c.timeout_ns = c.suspicion_ns = MS, c.timeout_max_ns = 8 * MS;
  MUST(!federation_config_check(&c));
  c.interval_ns--;
  MUST(federation_config_check(&c));
}

/* ---- against a model ---- */

enum { DCS = 5, PROBES = 4096 };

struct model_probe { uint64_t sent; bool gone; };
struct model_dc {
  bool known, heard;
  uint32_t index, seq, errors, erred;
  uint64_t incarnation, term, heard_ns, due, srtt, rttvar;
  enum federation_state state, told;
  struct model_probe probes[PROBES];
};

static double model_timeout_ns(const struct model_dc *m) {
  double ns = (double)(m->srtt + 4 * m->rttvar) * 1000;
  return ns < 5e9 ? 5e9 : ns > 15e9 ? 15e9 : ns;
}

static void model_measure(struct model_dc *m, uint64_t rtt_ns) {
  uint64_t us = rtt_ns / 1000 + 1;
  if (!m->srtt) {
    m->srtt = us, m->rttvar = us / 2;
    return;
  }
  uint64_t off = us > m->srtt ? us - m->srtt : m->srtt - us;
  m->rttvar = (3 * m->rttvar + off) / 4, m->srtt = (7 * m->srtt + us) / 8;
}

/* The state that the header promises, from nothing but the last answered probe. */
static void model_look(struct model_dc *m, uint64_t now) {
  uint64_t suspect = m->heard_ns + 10 * S + (uint64_t)model_timeout_ns(m);
  if (m->state == FEDERATION_REACHABLE && now >= suspect) m->state = FEDERATION_SUSPECTED;
  if (m->state == FEDERATION_SUSPECTED && now >= suspect + 30 * S) m->state = FEDERATION_UNREACHABLE;
}

static void a_random_run_agrees_with_a_model(uint64_t seed) {
  static struct model_dc dcs[DCS];
  memset(dcs, 0, sizeof dcs);
  struct rng rng;
  rng_seed(&rng, seed);
  struct federation_config c = defaults();
  c.seed = seed, c.dcs_max = DCS;
  struct rig r;
  open_with(&r, &c);
  double quiet[DCS] = {0}; /* Until then it does not answer. */
  for (int step = 0; step < 6000; step++) {
    uint64_t next = federation_deadline(&r.f);
    uint64_t pause = rng_below(&rng, 3) ? rng_below(&rng, 300 * MS) : 0;
    r.now = next != NEVER && next <= r.now + pause ? (next > r.now ? next : r.now) : r.now + pause;
    for (int i = 0; i < DCS; i++) /* The core chooses the order; the model has none of its own. */
      if (dcs[i].known) model_look(&dcs[i], r.now);
    struct federation_action a;
    while (federation_next(&r.f, r.now, &a)) {
      struct model_dc *m = NULL;
      for (int i = 0; i < DCS; i++)
        if (dcs[i].known && dcs[i].index == a.dc) m = &dcs[i];
      MUST(m);
      if (a.kind == FEDERATION_STATE) {
        MUST(a.from == m->told && a.to == m->state);
        m->told = a.to;
      } else if (a.kind == FEDERATION_OVER) {
        MUST(!m->probes[a.seq].gone && (r.now - m->probes[a.seq].sent >= 15 * S || a.seq + 8 <= m->seq + 1));
        m->probes[a.seq].gone = true;
      } else {
        MUST(a.seq == m->seq + 1 && a.incarnation == m->incarnation && a.term == m->term && a.seq < PROBES);
        MUST(m->due == 0 || r.now == m->due); /* To the nanosecond: after errors of ours too. */
        m->probes[++m->seq] = (struct model_probe){.sent = r.now};
        m->due = r.now + 2 * S;
      }
    }
    for (int i = 0; i < DCS; i++) MUST(!dcs[i].known || dcs[i].told == dcs[i].state);
    federation_check(&r.f);
    struct model_dc *m = &dcs[rng_below(&rng, DCS)];
    uint64_t what = rng_below(&rng, 100);
    if (!m->known) {
      uint64_t term = rng_below(&rng, 5);
      *m = (struct model_dc){.known = true, .term = term};
      MUST(federation_know(&r.f, r.now, term, &m->index) == 0);
      struct federation_view v;
      federation_view(&r.f, r.now, m->index, &v);
      m->incarnation = v.incarnation, m->due = r.now + v.next_ns;
      continue;
    }
    if (what == 0) {
      federation_forget(&r.f, m->index);
      m->known = false;
    } else if (what == 1) {
      uint64_t before = m->incarnation;
      m->term = rng_below(&rng, 5), m->due = r.now, m->errors = 0;
      federation_lead(&r.f, r.now, m->index, m->term);
      struct federation_view v;
      federation_view(&r.f, r.now, m->index, &v);
      MUST((m->incarnation = v.incarnation) > before);
      for (uint32_t s = 1; s <= m->seq; s++) m->probes[s].gone = true;
    } else if (what == 2) {
      quiet[m - dcs] = (double)r.now + 1e9 * (double)rng_below(&rng, 90);
    } else if (m->seq > 0 && what < 70) {
      uint32_t seq = m->seq - (uint32_t)rng_below(&rng, m->seq < 10 ? m->seq : 10);
      struct model_probe *p = &m->probes[seq];
      uint64_t term = m->term + (rng_below(&rng, 20) == 0) - (m->term && rng_below(&rng, 20) == 0);
      if (what >= 60) {
        bool ours = what >= 65;
        uint64_t delay = 0;
        uint32_t errors = 0;
        int rc = federation_fail(&r.f, r.now, m->index, seq, ours, &delay, &errors);
        MUST(rc == (p->gone ? ERR_NOT_FOUND : 0));
        if (rc == 0 && ours) {
          m->errors++, m->erred = seq > m->erred ? seq : m->erred;
          static const double base[] = {2, 4, 8, 16, 30};
          MUST(errors == 1 || errors <= m->errors);
          double s = (double)delay / 1e9, want = base[errors > 5 ? 4 : errors - 1];
          MUST(s >= 0.8 * want && s <= 1.2 * want);
          m->due = r.now + delay;
        }
        p->gone = true;
        continue;
      }
      if (quiet[m - dcs] > (double)r.now) continue;
      int rc = federation_ack(&r.f, r.now, m->index, seq, m->incarnation, term);
      MUST(rc == (term < m->term ? ERR_STALE : p->gone ? ERR_NOT_FOUND : 0));
      if (rc < 0) continue;
      p->gone = true;
      m->term = term;
      model_measure(m, r.now - p->sent);
      if (!m->heard || p->sent > m->heard_ns) m->heard_ns = p->sent;
      m->heard = true;
      if (r.now < m->heard_ns + 10 * S + (uint64_t)model_timeout_ns(m)) m->state = FEDERATION_REACHABLE;
    }
  }
  MUST(federation_count(&r.f).stalls == 0);
  federation_free(&r.f);
}

static void our_errors_wait_no_longer_than_the_most_and_a_fifth(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r), errors;
  uint64_t delay, least = NEVER, most = 0;
  for (int i = 0; i < 400; i++) {
    struct federation_action p = probe(&r, dc);
    MUST(federation_fail(&r.f, r.now, dc, p.seq, true, &delay, &errors) == 0);
    if (i < 10) continue;
    least = delay < least ? delay : least;
    most = delay > most ? delay : most;
  }
  MUST(least >= 24 * S && least < 25 * S && most <= 36 * S && most > 35 * S);
  federation_free(&r.f);
}

static void a_refusal_after_its_timeout_is_one_unanswered_probe(void) {
  struct rig r;
  start(&r);
  uint32_t dc = know(&r), errors;
  uint64_t delay;
  struct federation_action p = probe(&r, dc);
  run(&r, r.now + 5 * S + 1); /* Its timeout; the two after it are still under way. */
  uint64_t before = federation_count(&r.f).unanswered;
  MUST(before == 1 && federation_fail(&r.f, r.now, dc, p.seq, false, &delay, &errors) == 0);
  MUST(federation_count(&r.f).unanswered == before);
  federation_free(&r.f);
}

int main(int argc, char **argv) {
#define RUN(name) (name(), printf("ok %s\n", #name))
  RUN(changes_at_its_bounds_and_not_1_ns_sooner);
  RUN(any_answer_ends_a_suspicion);
  RUN(an_unanswered_probe_keeps_the_interval);
  RUN(own_errors_back_off_2_4_8_16_30_30_and_delay_no_verdict);
  RUN(an_older_answer_ends_no_row_of_own_errors);
  RUN(a_new_leader_is_taken_while_a_probe_is_under_way);
  RUN(stale_answers_and_second_ones_are_dropped_and_counted);
  RUN(the_timeout_follows_the_round_trip_within_its_bounds);
  RUN(an_answer_counts_until_its_probe_is_over);
  RUN(our_errors_wait_no_longer_than_the_most_and_a_fifth);
  RUN(a_refusal_after_its_timeout_is_one_unanswered_probe);
  RUN(a_stall_of_ours_accuses_nobody);
  RUN(first_probes_are_spread_and_few_start_soon);
  RUN(many_share_phases_and_are_spread_all_the_same);
  RUN(one_past_the_limit_of_datacenters_is_refused);
  RUN(the_configuration_is_checked_on_both_sides_of_each_bound);
  uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 100;
  for (uint64_t seed = 1; seed <= seeds; seed++) a_random_run_agrees_with_a_model(seed);
  printf("ok a_random_run_agrees_with_a_model (%llu seeds)\n", (unsigned long long)seeds);
  return 0;
}
