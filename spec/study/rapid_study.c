/* Rapid's cases (Suresh and others, USENIX ATC 2018, section 7): few members are faulty in ways that leave them half reachable. Are
 * exactly these removed, and for good?
 *
 * Of N members some at once: crash; flip-flop, reachable for 20 s and cut for 20 s, in what they hear or in what they say; or lose 80 %
 * of what they hear or say. What counts is what healthy observers see of faulty and of healthy members. `out`: the share of (healthy
 * observer, faulty member) where the member is dead at the end. `removals` and `returns`: DEAD and JOIN events at them, by member, that
 * is over the number of observers; a decision that holds is 1 removal and 0 returns. `harmed`: DEAD events about healthy members.
 *
 * The core decides by suspicion alone and readmits whoever answers, so the half-reachable swing. --window_s and --limit give an estimate
 * of a rule that is not in the core: the same events, seen by an observer that also removes a member suspected `limit` times within a
 * window, and readmits one that it has removed only after it has been alive, unsuspected, for `proof_s`, doubled at each removal. */
#include "study.h"

struct fault {
  const char *name;
  enum { CRASH, FLIP, LOSSY } kind;
  bool in, out; /* What it hears, or says. */
};
static const struct fault faults[] = {
    {"crash", CRASH, true, true},   {"flip_in", FLIP, true, false},   {"flip_out", FLIP, false, true}, {"flip_both", FLIP, true, true},
    {"loss_in", LOSSY, true, false}, {"loss_out", LOSSY, false, true}, {"none", LOSSY, false, false},
};
enum { FAULTS = sizeof faults / sizeof *faults, HISTORY = 16 };

struct rule { /* The estimate's. */
  double window_s, limit, proof_s;
};

struct view { /* What one healthy observer saw of one member. */
  uint32_t removals, returns, suspicions;
  bool dead;
  /* Under the rule: */
  uint32_t rule_removals, rule_returns;
  bool rule_out, up;
  uint64_t good_ns;            /* Since when it has been alive, unsuspected. */
  uint64_t suspected_ns[HISTORY]; /* The last ones, in a ring. */
};
struct watch {
  bool *faulty;
  uint32_t *rank; /* Of a faulty one among them. */
  uint32_t faulty_count;
  struct view *views; /* By observer, rank. */
  struct view *healthy_views; /* By observer, subject; NULL when the rule is not estimated for them. */
  uint64_t harmed, harmed_suspicions, rule_harmed;
  struct study_samples removed_s; /* First removals, by observer and faulty member. */
  uint64_t began_ns;
  struct rule rule;
};

/* ---- the estimate ---- */

static uint64_t proof_ns(const struct watch *w, const struct view *v) {
  uint32_t doublings = v->rule_removals > 0 ? v->rule_removals - 1 : 0;
  return (uint64_t)(w->rule.proof_s * 1e9) << (doublings < 6 ? doublings : 6);
}

/* It has proved itself by now, if it has been good for long enough. */
static void rule_advance(const struct watch *w, struct view *v, uint64_t now_ns) {
  if (!v->rule_out || !v->up || now_ns - v->good_ns < proof_ns(w, v)) return;
  v->rule_out = false;
  v->rule_returns++;
}

static void rule_event(struct watch *w, struct view *v, enum swim_event event, uint64_t now_ns) {
  rule_advance(w, v, now_ns);
  bool remove = event == SWIM_EVENT_DEAD;
  if (event == SWIM_EVENT_SUSPECT) {
    uint32_t limit = (uint32_t)w->rule.limit, at = v->suspicions % HISTORY;
    v->suspected_ns[at] = now_ns;
    uint64_t then_ns = v->suspected_ns[(v->suspicions + HISTORY + 1 - limit) % HISTORY];
    remove = v->suspicions + 1 >= limit && now_ns - then_ns <= w->rule.window_s * 1e9;
  }
  if (event == SWIM_EVENT_SUSPECT || event == SWIM_EVENT_DEAD) v->up = false;
  if (event == SWIM_EVENT_ALIVE || event == SWIM_EVENT_JOIN) v->up = true, v->good_ns = now_ns;
  if (!remove || v->rule_out) return;
  v->rule_out = true;
  v->rule_removals++;
}

/* ---- what is seen ---- */

static void on_event(struct study_cluster *c, uint32_t at, enum swim_event event, uint32_t subject) {
  struct watch *w = c->data;
  uint64_t now_ns = study_now(c);
  if (w->faulty[at]) return;
  if (!w->faulty[subject]) {
    w->harmed += event == SWIM_EVENT_DEAD, w->harmed_suspicions += event == SWIM_EVENT_SUSPECT;
    if (!w->healthy_views) return;
    struct view *v = &w->healthy_views[(size_t)at * c->count + subject];
    uint32_t before = v->rule_removals;
    rule_event(w, v, event, now_ns);
    w->rule_harmed += v->rule_removals > before;
    v->suspicions += event == SWIM_EVENT_SUSPECT;
    return;
  }
  struct view *v = &w->views[(size_t)at * w->faulty_count + w->rank[subject]];
  rule_event(w, v, event, now_ns);
  if (event == SWIM_EVENT_SUSPECT) v->suspicions++;
  if (event == SWIM_EVENT_JOIN) v->returns++, v->dead = false;
  if (event != SWIM_EVENT_DEAD) return;
  if (v->removals++ == 0) study_add(&w->removed_s, (double)(now_ns - w->began_ns) / 1e9);
  v->dead = true;
}

/* ---- what befalls them: each new kind of fault of a link goes here ---- */

static void afflict(struct study_cluster *c, const struct fault *f, const struct watch *w, bool on) {
  struct sim_link lossy = c->link;
  lossy.loss = 0.8;
  for (uint32_t i = 0; i < c->count; i++) {
    if (!w->faulty[i]) continue;
    if (f->kind == CRASH && on) study_crash(c, i);
    for (uint32_t j = 0; j < c->count && f->kind != CRASH; j++) {
      struct sim_node *it = c->nodes[i].machine, *other = c->nodes[j].machine;
      if (i == j) continue;
      if (f->kind == FLIP && f->in) sim_cut(c->sim, other, it, on);
      if (f->kind == FLIP && f->out) sim_cut(c->sim, it, other, on);
      if (f->kind == LOSSY && f->in) sim_set_link(c->sim, other, it, on ? &lossy : NULL);
      if (f->kind == LOSSY && f->out) sim_set_link(c->sim, it, other, on ? &lossy : NULL);
    }
  }
}

static void let_pass(struct study_cluster *c, const struct fault *f, const struct watch *w, uint64_t duration_ns) {
  uint64_t end_ns = study_now(c) + duration_ns;
  afflict(c, f, w, true);
  for (bool on = true; f->kind == FLIP && study_now(c) + 20 * SECOND <= end_ns; afflict(c, f, w, on)) {
    study_run(c, 20 * SECOND);
    on = !on;
  }
  study_run(c, end_ns - study_now(c));
}

/* ---- */

struct result {
  uint64_t pairs, out, removals, returns, suspicions, rule_out, rule_removals, rule_returns;
  uint64_t harmed, harmed_suspicions, rule_harmed, bytes;
  double first_s, last_s;
};
struct work {
  uint32_t members, faulty, seconds, seeds;
  bool healthy_too;
  double loss;
  struct rule rule;
  struct result *results; /* By seed, fault. */
};

static void choose_faulty(struct study_cluster *c, struct watch *w) {
  w->faulty = calloc(c->count, sizeof *w->faulty);
  w->rank = calloc(c->count, sizeof *w->rank);
  w->views = calloc((size_t)c->count * w->faulty_count, sizeof *w->views);
  STUDY_NEED(w->faulty && w->rank && w->views);
  for (uint32_t chosen = 0; chosen < w->faulty_count;) {
    uint32_t i = (uint32_t)rng_below(&c->rng, c->count);
    if (w->faulty[i]) continue;
    w->faulty[i] = true;
    w->rank[i] = chosen++;
  }
  for (size_t i = 0; i < (size_t)c->count * w->faulty_count; i++) w->views[i].up = true, w->views[i].good_ns = study_now(c);
}

static void tally(struct study_cluster *c, struct watch *w, struct result *r) {
  r->pairs = (uint64_t)(c->count - w->faulty_count) * w->faulty_count;
  for (uint32_t at = 0; at < c->count; at++) {
    if (w->faulty[at]) continue;
    for (uint32_t k = 0; k < w->faulty_count; k++) {
      struct view *v = &w->views[(size_t)at * w->faulty_count + k];
      rule_advance(w, v, study_now(c));
      r->out += v->dead, r->removals += v->removals, r->returns += v->returns, r->suspicions += v->suspicions;
      r->rule_out += v->rule_out, r->rule_removals += v->rule_removals, r->rule_returns += v->rule_returns;
    }
  }
  r->first_s = study_quantile(&w->removed_s, 0.01), r->last_s = study_quantile(&w->removed_s, 0.99);
  r->harmed = w->harmed, r->harmed_suspicions = w->harmed_suspicions, r->rule_harmed = w->rule_harmed;
  r->bytes = c->bytes;
}

static void one(void *data, uint64_t task) {
  const struct work *work = data;
  const struct fault *f = &faults[task % FAULTS];
  struct study_cluster *c = study_preset(task / FAULTS + 1, work->members);
  if (work->loss > 0) study_link(c, work->loss);
  study_run(c, 3 * SECOND);
  struct watch w = {.faulty_count = work->faulty, .rule = work->rule};
  choose_faulty(c, &w);
  if (work->healthy_too) STUDY_NEED((w.healthy_views = calloc((size_t)c->count * c->count, sizeof *w.healthy_views)));
  w.began_ns = study_now(c);
  c->data = &w, c->on_event = on_event, c->datagrams = c->bytes = 0;
  let_pass(c, f, &w, work->seconds * SECOND);
  tally(c, &w, &work->results[task]);
  c->on_event = NULL;
  study_close(c);
  free(w.faulty), free(w.rank), free(w.views), free(w.healthy_views);
  study_clear(&w.removed_s);
}

static void print(const struct work *work, uint32_t fault) {
  struct result sum = {0};
  for (uint32_t seed = 0; seed < work->seeds; seed++) {
    const struct result *r = &work->results[seed * FAULTS + fault];
    sum.pairs += r->pairs, sum.out += r->out, sum.removals += r->removals, sum.returns += r->returns;
    sum.suspicions += r->suspicions, sum.first_s += r->first_s / work->seeds, sum.last_s += r->last_s / work->seeds;
    sum.rule_out += r->rule_out, sum.rule_removals += r->rule_removals, sum.rule_returns += r->rule_returns;
    sum.harmed += r->harmed, sum.harmed_suspicions += r->harmed_suspicions, sum.rule_harmed += r->rule_harmed, sum.bytes += r->bytes;
  }
  const char *name = faults[fault].name;
  double pairs = (double)sum.pairs, out = (double)sum.out / pairs, returns = (double)sum.returns / pairs;
  printf("%-9s %-6.3f %-8.2f %-8.2f %-9.2f %-7.1f %-7.1f %-8llu %-10llu %-7.0f | %-6.3f %-8.2f %-8.2f %llu\n", name, out,
         (double)sum.removals / pairs, returns, (double)sum.suspicions / pairs, sum.first_s, sum.last_s,
         (unsigned long long)sum.harmed, (unsigned long long)sum.harmed_suspicions,
         (double)sum.bytes / work->seeds / work->seconds / work->members, (double)sum.rule_out / pairs,
         (double)sum.rule_removals / pairs, (double)sum.rule_returns / pairs, (unsigned long long)sum.rule_harmed);
  char bar[64];
  bool any = faults[fault].in || faults[fault].out;
  (void)snprintf(bar, sizeof bar, "rapid_%s_out", name);
  if (any) study_bar(bar, out, ">=", 1);
  (void)snprintf(bar, sizeof bar, "rapid_%s_returns", name);
  study_bar(bar, returns, "<=", 0);
  (void)snprintf(bar, sizeof bar, "rapid_%s_harmed", name);
  study_bar(bar, (double)sum.harmed, "<=", 0);
}

int main(int argc, char **argv) {
  struct study_option options[] = {
      {"n", 1000, "members"},   {"faulty", 10, "of them"},  {"seconds", 300, "a run"}, {"seeds", 1, ""},
      {"only", -1, "one fault, by its place in the table from 0"}, {"jobs", 1, "processes"},
      {"limit", 6, "suspicions, within (of the rule that is estimated; at most 15)"}, {"window_s", 120, "this long"},
      {"proof_s", 60, "and the time alive and unsuspected that readmits"},
      {"healthy", 0, "1: estimate the rule for healthy members too"}, {"loss", 0, "uniform, besides"},
  };
  study_options(argc, argv, options, sizeof options / sizeof *options);
  struct work work = {.members = (uint32_t)options[0].value, .faulty = (uint32_t)options[1].value, .seconds = (uint32_t)options[2].value,
                      .seeds = (uint32_t)options[3].value, .healthy_too = options[9].value > 0, .loss = options[10].value,
                      .rule = {options[7].value, options[6].value, options[8].value}};
  STUDY_NEED(work.faulty > 0 && work.faulty < work.members && work.rule.limit >= 1 && work.rule.limit < HISTORY);
  work.results = study_share(FAULTS * work.seeds * sizeof *work.results);
  int only = (int)options[4].value;
  for (int fault = 0; only >= 0 && fault < FAULTS; fault++)
    for (uint32_t seed = 0; fault == only && seed < work.seeds; seed++) one(&work, seed * FAULTS + (uint32_t)fault);
  if (only < 0) study_each((unsigned)options[5].value, FAULTS * work.seeds, one, &work);
  printf("                                               removed after   DEAD of  SUSPECT of bytes/s | under the rule\n");
  printf("fault     out    removals returns  suspected 1 %%     99 %% s  healthy  healthy    a node  | out    removals returns  harmed\n");
  for (uint32_t fault = 0; fault < FAULTS; fault++)
    if (only < 0 || (int)fault == only) print(&work, fault);
  return study_short;
}
