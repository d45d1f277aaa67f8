/* The detector: start, confirm, refute and expire a suspicion; progress that refutes nothing. 1,000 nodes, and jobs with 1,000 suspicions
 * each, which is the default cap: 1, 100 and 1,000 jobs. Names are looked up in each call.
 *
 * Two orders: "by job", as a leader works: one job after the other, its nodes in random order; and "random": any (job, node) after any
 * other, which no cache foresees. */
#include "core/detector.h"

#include <string.h>

#include "core/detector_private.h"
#include "core_bench.h"

enum { NODES = 1000, JOBS_MAX = 1000, NAME = 24 };
#define MS UINT64_C(1000000)
#define S (1000 * MS)
enum { START, CONFIRM, REFUTE, PROGRESS, EXPIRE, DEATH, BYTES, ROWS };

struct load {
  struct detector *core;
  uint32_t count;
  uint64_t now;
  char nodes[NODES][NAME], jobs[JOBS_MAX][NAME];
  uint32_t *order; /* Of the entries: job * NODES + node. */
};

static struct detector_text text(const char *name) { return (struct detector_text){name, strlen(name)}; }
static struct detector_text job_of(const struct load *l, uint32_t entry) { return text(l->jobs[entry / NODES]); }
static struct detector_text node_of(const struct load *l, uint32_t entry) { return text(l->nodes[entry % NODES]); }

static void keep_least(double *at, uint64_t began, uint32_t count) {
  double each = (double)(bench_cpu_ns() - began) / count;
  if (*at == 0 || each < *at) *at = each;
}

static uint32_t drain(struct load *l) {
  struct detector_action a;
  uint32_t taken = 0;
  while (detector_next(l->core, &a)) taken++, bench_keep(a.age_ns);
  return taken;
}

static void start_all(struct load *l) {
  for (uint32_t i = 0; i < l->count; i++) {
    uint32_t e = l->order[i];
    l->now += 100; /* So that their deadlines differ. */
    BENCH_MUST(detector_suspect(l->core, l->now, job_of(l, e), node_of(l, e), 1, UINT32_MAX, (struct detector_scale){5, 0}) == 1);
    BENCH_MUST(drain(l) == 1);
  }
}

static void expire_all(struct load *l) {
  uint32_t taken = 0;
  while (taken < l->count) {
    uint64_t due = detector_deadline(l->core);
    l->now = due > l->now ? due : l->now;
    detector_tick(l->core, l->now);
    taken += drain(l);
  }
}

static size_t set_bytes(const struct detector_set *s) { return s->capacity * sizeof *s->slots; }

/* All that it has allocated. */
static size_t bytes_of(const struct detector *d) {
  size_t bytes = sizeof *d + sizeof *d->machines + set_bytes(&d->nodes) + set_bytes(&d->jobs);
  for (const struct detector_chunk *c = d->chunks; c; c = c->next) bytes += sizeof *c;
  for (const struct detector_ring *r = d->node_ring.next; r != &d->node_ring; r = r->next)
    bytes += sizeof(struct detector_node) + ((const struct detector_node *)r)->length +
             ((const struct detector_node *)r)->capacity * sizeof(void *);
  for (const struct detector_ring *r = d->job_ring.next; r != &d->job_ring; r = r->next) {
    const struct detector_job *j = (const struct detector_job *)r;
    bytes += sizeof *j + j->length + set_bytes(&j->suspicions) + set_bytes(&j->extensions);
  }
  return bytes;
}

static void round_of(struct load *l, struct bench_row *rows, int size) {
  uint64_t began = bench_cpu_ns();
  start_all(l);
  keep_least(&rows[START].ns[size], began, l->count);
  rows[BYTES].ns[size] = (double)bytes_of(l->core) / l->count;
  for (uint32_t k = 2; k <= 3; k++) { /* The first and the second confirmation of each, before the least time has passed. */
    began = bench_cpu_ns();
    for (uint32_t i = 0; i < l->count; i++) {
      uint32_t e = l->order[i];
      BENCH_MUST(detector_confirm(l->core, l->now, job_of(l, e), node_of(l, e), k) == 1);
    }
    keep_least(&rows[CONFIRM].ns[size], began, l->count);
  }
  began = bench_cpu_ns();
  for (uint32_t i = 0; i < l->count; i++) {
    uint32_t e = l->order[i];
    BENCH_MUST(detector_progress(l->core, l->now, job_of(l, e), node_of(l, e)) == 1 && drain(l) == 1);
  }
  keep_least(&rows[REFUTE].ns[size], began, l->count);
  began = bench_cpu_ns();
  for (uint32_t i = 0; i < l->count; i++) {
    uint32_t e = l->order[i];
    BENCH_MUST(detector_progress(l->core, l->now, job_of(l, e), node_of(l, e)) == 0);
  }
  keep_least(&rows[PROGRESS].ns[size], began, l->count);
  start_all(l);
  began = bench_cpu_ns();
  expire_all(l);
  keep_least(&rows[EXPIRE].ns[size], began, l->count);
  start_all(l);
  began = bench_cpu_ns();
  for (uint32_t n = 0; n < NODES; n++) {
    struct detector_counts c;
    detector_counts(l->core, &c);
    BENCH_MUST(detector_node(l->core, l->now, text(l->nodes[n]), DETECTOR_DEAD, (struct detector_incarnation){1, 0}) == 1);
    BENCH_MUST(drain(l) == l->count / NODES);
  }
  keep_least(&rows[DEATH].ns[size], began, l->count);
}

static void measure(bool quick, bool by_job, struct bench_row *rows) {
  for (int size = 0; size < 3; size++) {
    struct load *l = calloc(1, sizeof *l);
    BENCH_MUST(l);
    l->count = bench_sizes[size];
    for (uint32_t i = 0; i < NODES; i++) (void)snprintf(l->nodes[i], NAME, "worker-%u.dc-%u", i, i % 3);
    for (uint32_t i = 0; i < JOBS_MAX; i++) (void)snprintf(l->jobs[i], NAME, "job-%08x", i * 2654435761u);
    struct detector_config config;
    BENCH_MUST(detector_config_profile("lan", DETECTOR_WORKERS, &config) == 0);
    config.suspicions_max = 1000001;
    for (uint32_t round = 0; round < (quick ? 1 : size == 0 ? 200 : size == 1 ? 10 : 3); round++) {
      if (by_job) {
        l->order = malloc(l->count * sizeof *l->order);
        BENCH_MUST(l->order);
        for (uint32_t job = 0; job < l->count / NODES; job++) {
          uint32_t *of = bench_order(NODES, round * 1000 + job + 1);
          for (uint32_t n = 0; n < NODES; n++) l->order[job * NODES + n] = job * NODES + of[n];
          free(of);
        }
      } else {
        l->order = bench_order(l->count, round + 1);
      }
      l->now = S;
      BENCH_MUST((l->core = detector_new(&config, l->now)));
      for (uint32_t n = 0; n < NODES; n++)
        BENCH_MUST(detector_node(l->core, l->now, text(l->nodes[n]), DETECTOR_ALIVE, (struct detector_incarnation){1, 0}) == 1);
      round_of(l, rows, size);
      detector_free(l->core);
      free(l->order);
    }
    free(l);
  }
}

void bench_detector(bool quick) {
  static const char *const names[2][ROWS] = {
      {"detector: start", "detector: confirm", "detector: refute", "detector: progress, none suspected", "detector: expire, with all its ticks",
       "detector: clear with a node's death", "detector: bytes a suspicion"},
      {"  in random order: start", "  confirm", "  refute", "  progress, none suspected", "  expire, with all its ticks", "  clear with a node's death",
       "  bytes a suspicion"}};
  bench_print_head("ns per operation");
  for (int random = 0; random < 2; random++) {
    struct bench_row rows[ROWS] = {{0}};
    for (int i = 0; i < ROWS; i++) rows[i].name = names[random][i];
    measure(quick, !random, rows);
    for (int i = 0; i < ROWS; i++) bench_print_row(&rows[i]);
    if (random) continue;
    bench_bar("detector_start_spread", bench_spread(&rows[START]), "<=", 2);
    bench_bar("detector_confirm_spread", bench_spread(&rows[CONFIRM]), "<=", 2);
    bench_bar("detector_refute_spread", bench_spread(&rows[REFUTE]), "<=", 2);
  }
}
