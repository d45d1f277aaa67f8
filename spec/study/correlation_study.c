/* Failures of several datacenters, told from those of one: core/correlation over random schedules, and how flapping is damped.
 *
 * The core itself is driven here, at its own deadlines. A schedule has outages of single dcs, cuts that take several, flapping, signs of
 * failures that come to nothing, and pauses of this process, in which neither reports nor deadlines are served. */
#include "core/correlation.h"

#include <inttypes.h>

#include "study.h"

enum { DCS_MAX = 12, REPORTS_MAX = 4096 };
enum report_kind { SUSPECT, GO_DOWN, COME_UP };

struct report {
  uint64_t at_ns;
  uint32_t dc, order;
  enum report_kind kind;
};

struct schedule {
  struct report reports[REPORTS_MAX];
  uint32_t count, dcs;
  uint64_t pauses[8][2]; /* From, to. */
  uint32_t pauses_count;
};

struct tally {
  uint64_t seeds, events, broken, evicted_while_held, evicted_though_up, evicted_too_soon, held_too_long, not_evicted, not_at_rest;
  struct correlation_counts counts;
};

static struct correlation c;
static struct correlation_config config;

static void add(struct schedule *s, uint64_t at_ns, uint32_t dc, enum report_kind kind) {
  STUDY_NEED(s->count < REPORTS_MAX);
  s->reports[s->count] = (struct report){at_ns, dc, s->count, kind};
  s->count++;
}

static void outage(struct schedule *s, struct rng *rng, uint64_t at_ns, uint32_t dc, uint64_t lasts_ns) {
  if (rng_below(rng, 2)) add(s, at_ns > 20 * SECOND ? at_ns - 20 * SECOND : 0, dc, SUSPECT);
  add(s, at_ns, dc, GO_DOWN);
  add(s, at_ns + lasts_ns, dc, COME_UP);
}

static uint64_t between(struct rng *rng, uint64_t least_s, uint64_t most_s) {
  return least_s * SECOND + rng_below(rng, (most_s - least_s) * SECOND);
}

static int by_time(const void *a, const void *b) {
  const struct report *x = a, *y = b;
  if (x->at_ns != y->at_ns) return x->at_ns > y->at_ns ? 1 : -1;
  return (x->order > y->order) - (x->order < y->order);
}

static void plan(struct schedule *s, struct rng *rng) {
  memset(s, 0, sizeof *s);
  s->dcs = 1 + (uint32_t)rng_below(rng, DCS_MAX);
  uint32_t things = 3 + (uint32_t)rng_below(rng, 12);
  for (uint32_t i = 0; i < things; i++) {
    uint64_t at_ns = between(rng, 20, 1500);
    uint32_t dc = (uint32_t)rng_below(rng, s->dcs);
    switch (rng_below(rng, 5)) {
    case 0: outage(s, rng, at_ns, dc, between(rng, 1, 300)); break;
    case 1:
    case 2: { /* A cut of some of them, noticed within some seconds of each other. */
      uint64_t lasts_ns = between(rng, 1, 200);
      for (uint32_t of = 0; of < s->dcs; of++)
        if (rng_below(rng, 4)) outage(s, rng, at_ns + rng_below(rng, 20 * SECOND), of, lasts_ns + rng_below(rng, 20 * SECOND));
      break;
    }
    case 3: /* It flaps. */
      for (uint32_t n = 2 + (uint32_t)rng_below(rng, 10); n > 0; n--, at_ns += between(rng, 2, 60)) outage(s, rng, at_ns, dc, between(rng, 1, 30));
      break;
    default:
      add(s, at_ns, dc, SUSPECT);
      add(s, at_ns + between(rng, 1, 60), dc, COME_UP);
    }
  }
  for (uint32_t i = 0, n = (uint32_t)rng_below(rng, 4); i < n; i++) {
    uint64_t from_ns = between(rng, 1, 1500);
    s->pauses[s->pauses_count][0] = from_ns, s->pauses[s->pauses_count++][1] = from_ns + between(rng, 1, 60);
  }
  for (uint32_t dc = 0; dc < s->dcs; dc++) add(s, 2500 * SECOND, dc, COME_UP); /* Whatever overlapped: all are up in the end. */
  qsort(s->reports, s->count, sizeof *s->reports, by_time);
}

/* The instant at which something of at_ns is served: the end of a pause that it falls into. */
static uint64_t served(const struct schedule *s, uint64_t at_ns) {
  for (bool again = true; again;) {
    again = false;
    for (uint32_t i = 0; i < s->pauses_count; i++)
      if (at_ns >= s->pauses[i][0] && at_ns < s->pauses[i][1]) at_ns = s->pauses[i][1], again = true;
  }
  return at_ns;
}

static void drain(struct tally *t, uint64_t now_ns) {
  struct correlation_action a;
  while (correlation_next(&c, now_ns, &a)) {
    bool holds = correlation_holds(&c);
    static bool held;
    if (a.kind == CORRELATION_DETECTED && a.event == 1) held = false;
    if (a.kind == CORRELATION_DETECTED) t->broken += held || !holds, held = true, t->events++;
    if (a.kind == CORRELATION_RAISED) t->broken += !held || !holds;
    if (a.kind == CORRELATION_HEALED) {
      t->broken += !held || holds, held = false;
      /* Rises, then pauses, each of which is excused once and has at most 60 s. */
      t->held_too_long += now_ns - a.since_ns > 3 * config.hold_ns + 4 * (60 * SECOND + CORRELATION_LATE_NS);
    }
    if (a.kind == CORRELATION_EVICT) {
      const struct correlation_dc *d = &c.dcs[a.dc];
      t->evicted_while_held += holds;
      t->evicted_though_up += d->status != CORRELATION_DOWN;
      t->evicted_too_soon += a.cause == CORRELATION_ALONE && now_ns - a.since_ns < 2 * config.down_ns;
    }
    correlation_check(&c);
  }
}

/* A dc that is down for longer than every wait together, and in no event, must have been evicted. */
static void judge_waits(struct tally *t, const struct schedule *s, uint64_t now_ns) {
  uint64_t most_ns = config.window_ns + config.down_ns + 4 * (60 * SECOND + CORRELATION_LATE_NS);
  for (uint32_t dc = 0; dc < s->dcs; dc++) {
    const struct correlation_dc *d = &c.dcs[dc];
    bool waits = d->status == CORRELATION_DOWN && !d->evicted && !correlation_holds(&c) && now_ns >= c.quiet_until_ns;
    if (waits && now_ns - d->since_ns > most_ns) t->not_evicted++;
  }
}

static void run(struct tally *t, const struct schedule *s) {
  correlation_init(&c, &config, 0);
  char name[2] = "a";
  for (uint32_t i = 0; i < s->dcs; i++, name[0]++) STUDY_NEED(correlation_know(&c, 0, name, 1) == (int)i);
  uint64_t now_ns = 0;
  for (uint32_t next = 0;;) {
    uint64_t due_ns = correlation_deadline(&c);
    bool report_first = next < s->count && served(s, s->reports[next].at_ns) < served(s, due_ns == UINT64_MAX ? UINT64_MAX / 2 : due_ns);
    if (!report_first && due_ns == UINT64_MAX) break;
    if (report_first) { /* After a pause the timers run before the sockets are read: a deadline of that instant came first. */
      const struct report *r = &s->reports[next++];
      now_ns = served(s, r->at_ns);
      if (r->kind == SUSPECT) correlation_suspect(&c, now_ns, r->dc);
      else if (r->kind == GO_DOWN) correlation_down(&c, now_ns, r->dc);
      else correlation_up(&c, now_ns, r->dc);
    } else {
      uint64_t at_ns = served(s, due_ns);
      now_ns = at_ns > now_ns ? at_ns : now_ns;
    }
    drain(t, now_ns);
    judge_waits(t, s, now_ns);
  }
  drain(t, now_ns + config.cool_ns);
  bool rest = !correlation_holds(&c) && correlation_deadline(&c) == UINT64_MAX;
  for (uint32_t dc = 0; dc < s->dcs; dc++) {
    const struct correlation_dc *d = &c.dcs[dc];
    rest = rest && d->status == CORRELATION_UP && !d->evicted && !d->judged && !d->spent && !d->suspect && !correlation_damped(&c, dc);
  }
  t->not_at_rest += !rest;
}

static void sum(struct tally *t) {
  const uint64_t *from = (const uint64_t *)&c.counts;
  uint64_t *to = (uint64_t *)&t->counts;
  for (size_t i = 0; i < sizeof c.counts / sizeof *from; i++) to[i] += from[i];
}

static void schedules(uint32_t seeds) {
  static struct schedule s;
  struct tally t = {0};
  struct rng rng;
  for (uint64_t seed = 1; seed <= seeds; seed++) {
    rng_seed(&rng, seed);
    plan(&s, &rng);
    run(&t, &s);
    sum(&t);
    t.seeds++;
  }
  printf("seeds  downs  detected raised returned expired evicted_alone left vain  damped pauses\n");
  printf("%-6" PRIu64 " %-6" PRIu64 " %-8" PRIu64 " %-6" PRIu64 " %-8" PRIu64 " %-7" PRIu64 " %-13" PRIu64 " %-4" PRIu64 " %-5" PRIu64 " %-6" PRIu64
         " %" PRIu64 "\n", t.seeds, t.counts.downs, t.counts.detected, t.counts.raised, t.counts.returned, t.counts.expired, t.counts.alone,
         t.counts.left, t.counts.vain, t.counts.damped, t.counts.late);
  study_bar("correlation_seeds_events", (double)t.events, ">=", seeds / 2);
  study_bar("correlation_alternation_broken", (double)t.broken, "<=", 0);
  study_bar("correlation_unmatched", (double)(t.counts.detected - t.counts.returned - t.counts.expired), "<=", 0);
  study_bar("correlation_evicted_while_held", (double)t.evicted_while_held, "<=", 0);
  study_bar("correlation_evicted_though_up", (double)t.evicted_though_up, "<=", 0);
  study_bar("correlation_evicted_too_soon", (double)t.evicted_too_soon, "<=", 0);
  study_bar("correlation_held_too_long", (double)t.held_too_long, "<=", 0);
  study_bar("correlation_never_evicted", (double)t.not_evicted, "<=", 0);
  study_bar("correlation_flags_after_quiet", (double)t.not_at_rest, "<=", 0);
}

/* Of `all` dcs some go down, spread over some seconds, for a time; each was suspected so long before. */
static struct correlation_counts at_once(uint32_t all, uint32_t down, uint64_t spread_ns, uint64_t lasts_ns, uint64_t suspected_ns) {
  static struct schedule s;
  struct tally t = {0};
  memset(&s, 0, sizeof s);
  s.dcs = all;
  for (uint32_t i = 0; i < down; i++) {
    uint64_t at_ns = 100 * SECOND + i * spread_ns / (down > 1 ? down - 1 : 1);
    if (suspected_ns) add(&s, at_ns - suspected_ns, i, SUSPECT);
    add(&s, at_ns, i, GO_DOWN);
    add(&s, 100 * SECOND + spread_ns + lasts_ns, i, COME_UP);
  }
  qsort(s.reports, s.count, sizeof *s.reports, by_time);
  run(&t, &s);
  return c.counts;
}

static uint64_t evictions(struct correlation_counts counts) { return counts.alone + counts.left + counts.vain; }

static void several(void) {
  uint64_t not_alone = 0, held = 0, evicted = 0, unseen = 0;
  for (uint32_t all = 1; all <= DCS_MAX; all++) {
    struct correlation_counts n = at_once(all, 1, 0, 40 * SECOND, 0);
    not_alone += n.detected != 0 || evictions(n) != 1;
  }
  printf("three of four down for 40 s\nspread_s detected evicted evicted_unsuspected\n");
  for (uint64_t spread = 0; spread <= 20; spread++) {
    struct correlation_counts n = at_once(4, 3, spread * SECOND, 40 * SECOND, 30 * SECOND), blind = at_once(4, 3, spread * SECOND, 40 * SECOND, 0);
    if (spread % 5 == 0) printf("%-8" PRIu64 " %-8" PRIu64 " %-7" PRIu64 " %" PRIu64 "\n", spread, n.detected, evictions(n), evictions(blind));
    held += n.detected == 1 && blind.detected == 1;
    evicted += evictions(n);
    if (spread <= 10) unseen += evictions(blind);
  }
  study_bar("correlation_one_down_not_alone", (double)not_alone, "<=", 0);
  study_bar("correlation_three_of_four_held", (double)held, ">=", 21);
  study_bar("correlation_three_of_four_evicted", (double)evicted, "<=", 0);
  study_bar("correlation_evicted_unsuspected_10s", (double)unseen, "<=", 0); /* A second one falls up to 5 s after the first. */
}

/* Two of four go down and up in step, for half an hour. */
static uint64_t flapping(uint64_t period_s, uint32_t moves) {
  static struct schedule s;
  struct tally t = {0};
  struct correlation_config kept = config;
  config.flap_moves = moves;
  memset(&s, 0, sizeof s);
  s.dcs = 4;
  for (uint64_t at = 100; at < 1900; at += period_s)
    for (uint32_t dc = 0; dc < 2; dc++) {
      add(&s, at * SECOND, dc, GO_DOWN);
      add(&s, (at + period_s / 2) * SECOND, dc, COME_UP);
    }
  qsort(s.reports, s.count, sizeof *s.reports, by_time);
  run(&t, &s);
  config = kept;
  return c.counts.detected;
}

static void flaps(void) {
  uint64_t most = 0, undamped = 0;
  printf("period_s detected undamped (two of four flap in step for 30 minutes)\n");
  for (uint64_t period_s = 20; period_s <= 100; period_s += 20) {
    uint64_t with = flapping(period_s, config.flap_moves), without = flapping(period_s, 0);
    printf("%-8" PRIu64 " %-8" PRIu64 " %" PRIu64 "\n", period_s, with, without);
    if (with > most) most = with;
    if (without > undamped) undamped = without;
  }
  study_bar("correlation_flapping_detected", (double)most, "<=", 1);
  study_bar("correlation_flapping_undamped", (double)undamped, ">=", 10); /* Else the schedule would show nothing. */
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"seeds", 1000, "random schedules"}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  correlation_defaults(&config);
  several();
  flaps();
  schedules((uint32_t)options[0].value);
  return study_short;
}
