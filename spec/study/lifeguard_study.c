/* Lifeguard's experiment (Dadgar, Phillips, Currey, arXiv 1707.00788, section V): some members are slow, and accuse those who are not.
 *
 * C of N members are blocked together, then open for a while, and so on for a run. Blocked, a member reads nothing and sends nothing, but
 * its timers run, as in the paper, where a process was held at its next send or receive: so it hears no answer and accuses.
 * (A process that is stopped altogether accuses nobody: its probes have been answered before, and it sends none. The last row, full
 * with the machines paused, shows it.)
 *
 * A false positive is a DEAD event about a member that was never blocked (no member crashes here); `healthy` are those at observers that
 * were not blocked either. A member blocked for longer than the suspicion lasts is rightly declared dead: those events are listed
 * (`blocked`) and are no false positives, as in the paper, whose figures at healthy observers could not be so small otherwise.
 *
 * The published grid of timings is lost; ours is below. The rows are the paper's: plain SWIM, each of the three parts alone, all of it.
 * Plain is SWIM as far as the configuration allows: no repeated pings, no budget of gossip, and a gossiped death is believed at once. The
 * single parts are configured likewise. Each row's latency is that of true crashes of healthy members, from the crash to the first DEAD
 * event. */
#include "study.h"

struct row {
  const char *name;
  uint32_t alpha, beta, health_max, buddy, ping_repeats, confirmations;
  bool ours, stopped; /* Ours: with our additions to the papers. Stopped: the whole machine stops, timers too. */
  double paper, paper_healthy, paper_latency; /* Of plain's; as shares. 0: none given. */
};
enum { PLAIN, PROBE, SUSPICION, BUDDY, FULL, FULL_4, FULL_2, FULL_STOPPED, ROWS };
static const struct row rows[ROWS] = {
    [PLAIN] = {"plain", 5, 1, 0, 0, 0, 3, false, false, 1, 1, 1},
    [PROBE] = {"probe_health", 5, 1, 8, 0, 0, 3, false, false, 229574 / 339002.0, 436 / 1326.0, 0},
    [SUSPICION] = {"suspicion", 5, 6, 0, 0, 0, 3, false, false, 10174 / 339002.0, 89 / 1326.0, 0},
    [BUDDY] = {"buddy", 5, 1, 0, 1, 0, 3, false, false, 318935 / 339002.0, 591 / 1326.0, 0},
    [FULL] = {"full", 5, 6, 8, 1, 3, 2, true, false, 5193 / 339002.0, 25 / 1326.0, 0},
    [FULL_4] = {"full_alpha_4", 4, 6, 8, 1, 3, 2, true, false, 0.05, 0, 0.84},
    [FULL_2] = {"full_alpha_2", 2, 6, 8, 1, 3, 2, true, false, 0.14, 0, 0.57},
    [FULL_STOPPED] = {"full_stopped", 5, 6, 8, 1, 3, 2, true, true, 0, 0, 0},
};

static const uint32_t blocked_counts[] = {1, 4, 8, 16, 24, 32}, closed_ms[] = {500, 2000, 8000, 16000, 32000},
                      open_ms[] = {1, 16, 256, 4096};
enum { COUNTS = 6, CLOSED = 5, OPEN = 4, CELLS = COUNTS * CLOSED * OPEN };

struct result {
  uint64_t false_positives, at_healthy, about_blocked, suspicions, datagrams, bytes;
};
struct work {
  uint32_t members, seeds, seconds, crashes;
  struct result *results; /* By row, cell, seed. */
  double *latencies_s;    /* By row, crash. */
};
struct watch {
  bool *blocked;
  struct result *result;
};

static void on_event(struct study_cluster *c, uint32_t at, enum swim_event event, uint32_t subject) {
  struct watch *w = c->data;
  w->result->suspicions += event == SWIM_EVENT_SUSPECT;
  if (event != SWIM_EVENT_DEAD) return;
  if (w->blocked[subject]) w->result->about_blocked++;
  else w->result->false_positives++, w->result->at_healthy += !w->blocked[at];
}

static void configure(void *data, struct swim_config *config) {
  const struct row *row = data;
  study_set(config, "suspicion_multiplier", row->alpha);
  study_set(config, "suspicion_max", row->beta);
  study_set(config, "health_max", row->health_max);
  study_set(config, "buddy", row->buddy);
  study_set(config, "ping_repeats", row->ping_repeats);
  study_set(config, "confirmations", row->confirmations);
  if (row->ours) return;
  study_set(config, "verify_deaths", 0);
  study_set(config, "gossip_bytes_per_s", 10000000);
}

static struct study_cluster *cluster(const struct row *row, uint64_t seed, uint32_t members) {
  study_configure = configure, study_configure_data = (void *)(uintptr_t)row;
  struct study_cluster *c = study_preset(seed, members);
  study_run(c, 2 * SECOND + rng_below(&c->rng, SECOND));
  return c;
}

static void block(struct study_cluster *c, const struct row *row, const bool *blocked, bool on) {
  for (uint32_t i = 0; i < c->count; i++) {
    if (!blocked[i]) continue;
    if (row->stopped) sim_node_pause(c->nodes[i].machine, on);
    else study_hold(c, i, on);
  }
}

/* One cell of the grid, one seed. */
static void run_blocked(const struct work *work, const struct row *row, uint32_t cell, uint64_t seed, struct result *result) {
  struct study_cluster *c = cluster(row, seed, work->members);
  struct watch w = {.blocked = calloc(c->count, sizeof *w.blocked), .result = result};
  STUDY_NEED(w.blocked);
  for (uint32_t left = blocked_counts[cell % COUNTS]; left > 0;) {
    uint32_t i = (uint32_t)rng_below(&c->rng, c->count);
    if (!w.blocked[i]) w.blocked[i] = true, left--;
  }
  uint64_t end_ns = study_now(c) + work->seconds * SECOND;
  c->data = &w, c->on_event = on_event, c->fleet->datagrams = c->fleet->bytes = 0;
  while (study_now(c) < end_ns) {
    block(c, row, w.blocked, true);
    study_run(c, closed_ms[cell / COUNTS % CLOSED] * MILLISECOND);
    block(c, row, w.blocked, false);
    study_run(c, open_ms[cell / COUNTS / CLOSED] * MILLISECOND);
  }
  result->datagrams = c->fleet->datagrams, result->bytes = c->fleet->bytes;
  c->on_event = NULL;
  study_close(c);
  free(w.blocked);
}

static void on_death(struct study_cluster *c, uint32_t at, enum swim_event event, uint32_t subject) {
  uint64_t *first_ns = c->data;
  (void)at, (void)subject;
  if (event == SWIM_EVENT_DEAD && !*first_ns) *first_ns = study_now(c);
}

static double run_crash(const struct work *work, const struct row *row, uint64_t seed) {
  struct study_cluster *c = cluster(row, seed, work->members);
  uint64_t first_ns = 0, began_ns = study_now(c);
  c->data = &first_ns, c->on_event = on_death;
  study_crash(c, (uint32_t)rng_below(&c->rng, c->count));
  while (!first_ns && study_now(c) - began_ns < 200 * SECOND) study_run(c, 100 * MILLISECOND);
  study_close(c);
  return first_ns ? (double)(first_ns - began_ns) / 1e9 : INFINITY;
}

static void one(void *data, uint64_t task) {
  struct work *work = data;
  uint64_t row = task % ROWS, rest = task / ROWS, runs = (uint64_t)CELLS * work->seeds;
  if (rest < runs) run_blocked(work, &rows[row], (uint32_t)(rest % CELLS), rest / CELLS + 1, &work->results[row * runs + rest]);
  else work->latencies_s[row * work->crashes + rest - runs] = run_crash(work, &rows[row], rest - runs + 1);
}

static struct result sum(const struct work *work, int row, int counts, int closed, int open) { /* Minus one: all. */
  struct result total = {0};
  uint64_t runs = (uint64_t)CELLS * work->seeds;
  for (uint64_t i = 0; i < runs; i++) {
    int cell = (int)(i % CELLS);
    if (counts >= 0 && cell % COUNTS != counts) continue;
    if (closed >= 0 && cell / COUNTS % CLOSED != closed) continue;
    if (open >= 0 && cell / COUNTS / CLOSED != open) continue;
    const struct result *r = &work->results[(uint64_t)row * runs + i];
    total.false_positives += r->false_positives, total.at_healthy += r->at_healthy, total.about_blocked += r->about_blocked;
    total.suspicions += r->suspicions, total.datagrams += r->datagrams, total.bytes += r->bytes;
  }
  return total;
}

static double share(uint64_t part, uint64_t whole) { return whole ? 100.0 * (double)part / (double)whole : NAN; }

static void print_part(const struct work *work, const char *what, uint32_t value, int counts, int closed, int open) {
  printf("%-8s %-6u", what, value);
  for (int row = 0; row < ROWS; row++) {
    struct result r = sum(work, row, counts, closed, open);
    printf(" %8llu %-5llu", (unsigned long long)r.false_positives, (unsigned long long)r.at_healthy);
  }
  printf("\n");
}

/* Where the false positives come from: all, at healthy, for each row. */
static void print_parts(const struct work *work) {
  printf("\nby                 ");
  for (int row = 0; row < ROWS; row++) printf("%-15s", rows[row].name);
  printf("\n");
  for (int i = 0; i < COUNTS; i++) print_part(work, "C", blocked_counts[i], i, -1, -1);
  for (int i = 0; i < CLOSED; i++) print_part(work, "closed", closed_ms[i], -1, i, -1);
  for (int i = 0; i < OPEN; i++) print_part(work, "open", open_ms[i], -1, -1, i);
}

static double median_latency(const struct work *work, int row, double q) {
  struct study_samples s = {0};
  for (uint32_t i = 0; i < work->crashes; i++) study_add(&s, work->latencies_s[(uint32_t)row * work->crashes + i]);
  double value = study_quantile(&s, q);
  study_clear(&s);
  return value;
}

static void print_row(const struct work *work, int row) {
  struct result r = sum(work, row, -1, -1, -1), plain = sum(work, PLAIN, -1, -1, -1);
  const struct row *is = &rows[row];
  char paper[32];
  (void)snprintf(paper, sizeof paper, "%.2f/%.2f", 100 * is->paper, 100 * is->paper_healthy);
  printf("%-13s %-9llu %-8.3f %-8llu %-8.3f %-13s %-9llu %-10llu %+-8.1f %+-7.1f %-7.2f %-7.2f %-8.0f %.0f\n", is->name,
         (unsigned long long)r.false_positives, share(r.false_positives, plain.false_positives), (unsigned long long)r.at_healthy,
         share(r.at_healthy, plain.at_healthy), paper, (unsigned long long)r.about_blocked, (unsigned long long)r.suspicions,
         share(r.datagrams, plain.datagrams) - 100, share(r.bytes, plain.bytes) - 100, median_latency(work, row, 0.5),
         median_latency(work, row, 0.99), 100 * median_latency(work, row, 0.5) / median_latency(work, PLAIN, 0.5),
         100 * is->paper_latency);
}

int main(int argc, char **argv) {
  struct study_option options[] = {
      {"n", 100, "members"},          {"seeds", 4, "for each cell of the grid; 4 take a quarter of an hour of one core"},
      {"seconds", 120, "a run"},      {"crashes", 100, "for the latency of each row"},
      {"jobs", 1, "processes"},       {"detail", 0, "1: false positives by C, blocked and open times"},
  };
  study_options(argc, argv, options, sizeof options / sizeof *options);
  struct work work = {.members = (uint32_t)options[0].value, .seeds = (uint32_t)options[1].value,
                      .seconds = (uint32_t)options[2].value, .crashes = (uint32_t)options[3].value};
  STUDY_NEED(work.members > blocked_counts[COUNTS - 1] && work.seeds > 0 && work.crashes > 0);
  uint64_t runs = (uint64_t)CELLS * work.seeds;
  work.results = study_share(ROWS * runs * sizeof *work.results);
  work.latencies_s = study_share(ROWS * work.crashes * sizeof *work.latencies_s);
  study_each((unsigned)options[4].value, ROWS * (runs + work.crashes), one, &work);
  printf("%llu runs a row. %% are of plain's; paper: %% of all / at healthy\n", (unsigned long long)runs);
  printf("row           false     %%        healthy  %%        paper         blocked   suspicions msgs_%%   bytes_%% "
         "dead_p50 p99 s  %%_plain  paper\n");
  for (int row = 0; row < ROWS; row++) print_row(&work, row);
  if (options[5].value > 0) print_parts(&work);
  struct result plain = sum(&work, PLAIN, -1, -1, -1), full = sum(&work, FULL, -1, -1, -1), two = sum(&work, FULL_2, -1, -1, -1);
  study_bar("lifeguard_plain_false_positives", (double)plain.false_positives, ">=", (double)runs); /* Else shares of it mean nothing. */
  study_bar("lifeguard_full_percent", share(full.false_positives, plain.false_positives), "<=", 1);
  study_bar("lifeguard_full_at_healthy_percent", share(full.at_healthy, plain.at_healthy), "<=", 1);
  study_bar("lifeguard_alpha_2_percent", share(two.false_positives, plain.false_positives), "<=", 5);
  study_bar("lifeguard_alpha_2_latency_percent", 100 * median_latency(&work, FULL_2, 0.5) / median_latency(&work, PLAIN, 0.5), "<=", 60);
  return study_short;
}
