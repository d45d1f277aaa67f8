/* Rapid's cases (Suresh and others, USENIX ATC 2018, section 7): few members are faulty in ways that leave them half reachable. Are
 * exactly these removed, and for good?
 *
 * Of N members some at once: crash; flip-flop, reachable for 20 s and cut for 20 s, incoming or outgoing; or lose 80 % of their incoming
 * or outgoing datagrams. The study counts the views that healthy observers have of faulty and of healthy members. `out`: the share of
 * (healthy observer, faulty member) where the member is dead at the end. `removals` and `returns`: DEAD and JOIN events at them, by such
 * pair. The decision about a flapping member is to hold it (c/core/swim_flap.c). Before that it may return once, for one cut is not
 * flapping: `after` are the returns after the decision, none if it works. A crash needs no decision. `harmed`: DEAD events about healthy
 * members. With --calm the fault ends after `seconds`, and all must be members again after that much more. */
#include "study.h"

struct fault {
  const char *name;
  enum { CRASH, FLIP, LOSSY } kind;
  bool in, out; /* Its incoming, or outgoing datagrams. */
};
static const struct fault faults[] = {
    {"crash", CRASH, true, true},   {"flip_in", FLIP, true, false},   {"flip_out", FLIP, false, true}, {"flip_both", FLIP, true, true},
    {"loss_in", LOSSY, true, false}, {"loss_out", LOSSY, false, true}, {"none", LOSSY, false, false},
};
enum { FAULTS = sizeof faults / sizeof *faults };

struct view { /* One healthy observer's view of one member. */
  uint32_t removals, returns, after, suspicions;
  bool dead, decided;
};
struct watch {
  bool *faulty;
  uint32_t *rank; /* Of a faulty one among them. */
  uint32_t faulty_count;
  struct view *views; /* By observer, rank. */
  uint64_t harmed, harmed_suspicions;
  struct study_samples decided_s; /* By observer and faulty member. */
  uint64_t began_ns;
};

/* ---- views ---- */

static void on_event(struct study_cluster *c, uint32_t at, enum swim_event event, uint32_t subject) {
  struct watch *w = c->data;
  if (w->faulty[at]) return;
  if (!w->faulty[subject]) {
    w->harmed += event == SWIM_EVENT_DEAD, w->harmed_suspicions += event == SWIM_EVENT_SUSPECT;
    return;
  }
  struct view *v = &w->views[(size_t)at * w->faulty_count + w->rank[subject]];
  if (event == SWIM_EVENT_SUSPECT) v->suspicions++;
  if (event == SWIM_EVENT_JOIN) v->returns++, v->after += v->decided, v->dead = false;
  if (event != SWIM_EVENT_DEAD) return;
  v->removals++;
  v->dead = true;
  bool decided = c->held || !c->nodes[subject].swim;
  if (decided && !v->decided) study_add(&w->decided_s, (double)(study_now(c) - w->began_ns) / 1e9);
  v->decided |= decided;
}

/* ---- faults: each new kind of fault of a link goes here ---- */

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
  uint64_t pairs, out, removals, returns, after, suspicions, healed;
  uint64_t harmed, harmed_suspicions, bytes;
  double first_s, last_s;
};
struct work {
  uint32_t members, faulty, seconds, seeds, calm;
  double loss;
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
}

static void tally(struct study_cluster *c, struct watch *w, struct result *r) {
  r->pairs = (uint64_t)(c->count - w->faulty_count) * w->faulty_count;
  for (uint32_t at = 0; at < c->count; at++) {
    if (w->faulty[at]) continue;
    for (uint32_t k = 0; k < w->faulty_count; k++) {
      struct view *v = &w->views[(size_t)at * w->faulty_count + k];
      r->out += v->dead, r->removals += v->removals, r->returns += v->returns, r->after += v->after, r->suspicions += v->suspicions;
    }
  }
  r->first_s = study_quantile(&w->decided_s, 0.01), r->last_s = study_quantile(&w->decided_s, 0.99);
  r->harmed = w->harmed, r->harmed_suspicions = w->harmed_suspicions;
  r->bytes = c->fleet->bytes;
}

static void one(void *data, uint64_t task) {
  const struct work *work = data;
  const struct fault *f = &faults[task % FAULTS];
  struct study_cluster *c = study_preset(task / FAULTS + 1, work->members);
  if (work->loss > 0) study_link(c, work->loss);
  study_run(c, 3 * SECOND);
  struct watch w = {.faulty_count = work->faulty};
  choose_faulty(c, &w);
  w.began_ns = study_now(c);
  c->data = &w, c->on_event = on_event, c->fleet->datagrams = c->fleet->bytes = 0;
  let_pass(c, f, &w, work->seconds * SECOND);
  tally(c, &w, &work->results[task]);
  if (work->calm > 0 && f->kind != CRASH) {
    afflict(c, f, &w, false);
    study_run(c, work->calm * SECOND);
    for (uint32_t at = 0; at < c->count; at++) work->results[task].healed += swim_live(c->nodes[at].swim) == c->count;
  }
  c->on_event = NULL;
  study_close(c);
  free(w.faulty), free(w.rank), free(w.views);
  study_clear(&w.decided_s);
}

static void print(const struct work *work, uint32_t fault) {
  struct result sum = {0};
  for (uint32_t seed = 0; seed < work->seeds; seed++) {
    const struct result *r = &work->results[seed * FAULTS + fault];
    sum.pairs += r->pairs, sum.out += r->out, sum.removals += r->removals, sum.returns += r->returns, sum.after += r->after;
    sum.suspicions += r->suspicions, sum.first_s += r->first_s / work->seeds, sum.last_s += r->last_s / work->seeds;
    sum.harmed += r->harmed, sum.harmed_suspicions += r->harmed_suspicions, sum.bytes += r->bytes, sum.healed += r->healed;
  }
  const char *name = faults[fault].name;
  double pairs = (double)sum.pairs, out = (double)sum.out / pairs;
  printf("%-9s %-6.3f %-8.2f %-8.2f %-6.2f %-9.2f %-7.1f %-7.1f %-8llu %-10llu %-7.0f %-7.3f\n", name, out,
         (double)sum.removals / pairs, (double)sum.returns / pairs, (double)sum.after / pairs, (double)sum.suspicions / pairs,
         sum.first_s, sum.last_s, (unsigned long long)sum.harmed, (unsigned long long)sum.harmed_suspicions,
         (double)sum.bytes / work->seeds / work->seconds / work->members, (double)sum.healed / work->seeds / work->members);
  char bar[64];
  bool any = faults[fault].in || faults[fault].out;
  (void)snprintf(bar, sizeof bar, "rapid_%s_out", name);
  if (any) study_bar(bar, out, ">=", 1);
  (void)snprintf(bar, sizeof bar, "rapid_%s_returns_after", name);
  if (any) study_bar(bar, (double)sum.after / pairs, "<=", 0);
  (void)snprintf(bar, sizeof bar, "rapid_%s_harmed", name);
  study_bar(bar, (double)sum.harmed, "<=", 0);
  (void)snprintf(bar, sizeof bar, "rapid_%s_healed", name);
  if (work->calm > 0 && faults[fault].kind != CRASH) study_bar(bar, (double)sum.healed / work->seeds / work->members, ">=", 1);
}

int main(int argc, char **argv) {
  struct study_option options[] = {
      {"n", 1000, "members"},   {"faulty", 10, "of them"},  {"seconds", 300, "a run"}, {"seeds", 1, ""},
      {"only", -1, "one fault, by its place in the table from 0"}, {"jobs", 1, "processes"},
      {"loss", 0, "uniform, besides"}, {"calm", 240, "seconds without fault after that, and then all are to be members"},
  };
  study_options(argc, argv, options, sizeof options / sizeof *options);
  struct work work = {.members = (uint32_t)options[0].value, .faulty = (uint32_t)options[1].value, .seconds = (uint32_t)options[2].value,
                      .seeds = (uint32_t)options[3].value, .loss = options[6].value, .calm = (uint32_t)options[7].value};
  STUDY_NEED(work.faulty > 0 && work.faulty < work.members);
  work.results = study_share(FAULTS * work.seeds * sizeof *work.results);
  int only = (int)options[4].value;
  for (int fault = 0; only >= 0 && fault < FAULTS; fault++)
    for (uint32_t seed = 0; fault == only && seed < work.seeds; seed++) one(&work, seed * FAULTS + (uint32_t)fault);
  if (only < 0) study_each((unsigned)options[5].value, FAULTS * work.seeds, one, &work);
  printf("                                 returns           decided after   DEAD of  SUSPECT of bytes/s  all\n");
  printf("fault     out    removals returns  after  suspected 1 %%     99 %% s  healthy  healthy    a node   healed\n");
  for (uint32_t fault = 0; fault < FAULTS; fault++)
    if (only < 0 || (int)fault == only) print(&work, fault);
  return study_short;
}
