/* Probes of datacenters: a step is one probe of one datacenter, from its deadline to its answer: federation_next gives it, and its answer
 * comes a tenth of an interval later, so at 1 M datacenters the two touch memory that has left the caches meanwhile. Datacenters were known in the order of their indexes. */
#include "core/federation.h"

#include <string.h>

#include "core_bench.h"

#define MS UINT64_C(1000000)
#define INTERVAL (2000 * MS)
enum { STEP, DUE, ACK, FAIL, KNOW, BYTES, ROWS };

struct sent {
  uint32_t dc, seq;
  uint64_t incarnation, at;
};

static void keep_least(double *at, uint64_t ns, double count) {
  double each = (double)ns / count;
  if (*at == 0 || each < *at) *at = each;
}

static struct sent *queue; /* Probes under way, oldest first. */
static uint32_t head, tail, mask;

/* One interval: every datacenter is probed once and answers. In slices, of a tenth for 1 k, so that reading the clock costs little. */
static void one_interval(struct federation *f, uint64_t *now, uint64_t spent[2], uint64_t done[2], bool errors) {
  uint32_t slices = f->counts.dcs > 10000 ? 100 : 10;
  for (uint32_t slice = 0; slice < slices; slice++) {
    *now += INTERVAL / slices;
    struct federation_action a;
    uint64_t began = bench_cpu_ns();
    while (federation_next(f, *now, &a)) {
      if (a.kind != FEDERATION_PROBE) continue;
      queue[head++ & mask] = (struct sent){a.dc, a.seq, a.incarnation, *now};
      done[0]++;
    }
    uint64_t between = bench_cpu_ns();
    for (; tail != head && *now - queue[tail & mask].at >= INTERVAL / 10; tail++) {
      const struct sent *s = &queue[tail & mask];
      uint64_t delay;
      uint32_t row;
      int rc = errors ? federation_fail(f, *now, s->dc, s->seq, true, &delay, &row) : federation_ack(f, *now, s->dc, s->seq, s->incarnation, 1);
      BENCH_MUST(rc == 0);
      done[1]++;
    }
    spent[0] += between - began;
    spent[1] += bench_cpu_ns() - between;
  }
}

static void round_of(struct bench_row *rows, int size, uint64_t seed, uint32_t intervals) {
  uint32_t count = bench_sizes[size];
  struct federation_config config;
  federation_config_default(&config);
  config.dcs_max = count, config.seed = seed;
  struct federation f;
  uint64_t now = INTERVAL;
  federation_init(&f, &config, now);
  uint64_t began = bench_cpu_ns();
  for (uint32_t i = 0; i < count; i++) {
    uint32_t dc;
    BENCH_MUST(federation_know(&f, now, 1, &dc) == 0);
  }
  keep_least(&rows[KNOW].ns[size], bench_cpu_ns() - began, count);
  rows[BYTES].ns[size] = (double)federation_bytes(&f) / count;
  for (mask = 1; mask < count;) mask *= 2;
  queue = malloc(mask * sizeof *queue);
  BENCH_MUST(queue);
  mask--, head = tail = 0;
  uint64_t spent[2] = {0}, done[2] = {0};
  for (int i = 0; i < 2; i++) one_interval(&f, &now, spent, done, false); /* Their first probes, in any order. */
  for (uint32_t i = 0; i < intervals; i++) {
    memset(spent, 0, sizeof spent), memset(done, 0, sizeof done);
    one_interval(&f, &now, spent, done, false);
    BENCH_MUST(done[0] == count && done[1] == count);
    keep_least(&rows[DUE].ns[size], spent[0], (double)done[0]);
    keep_least(&rows[ACK].ns[size], spent[1], (double)done[1]);
    keep_least(&rows[STEP].ns[size], spent[0] + spent[1], (double)done[0]);
  }
  BENCH_MUST(federation_count(&f).in_state[FEDERATION_REACHABLE] == count);
  memset(spent, 0, sizeof spent), memset(done, 0, sizeof done);
  one_interval(&f, &now, spent, done, true); /* All fail by errors of our own. */
  keep_least(&rows[FAIL].ns[size], spent[1], (double)done[1]);
  federation_free(&f);
  free(queue);
}

void bench_federation(bool quick) {
  struct bench_row rows[ROWS] = {[STEP] = {.name = "federation: probe step (both below)"}, [DUE] = {.name = "federation: a probe is due"},
                                 [ACK] = {.name = "federation: its answer"}, [FAIL] = {.name = "federation: an error of ours"},
                                 [KNOW] = {.name = "federation: know a datacenter"}, [BYTES] = {.name = "federation: bytes a datacenter"}};
  for (int size = 0; size < 3; size++) {
    uint32_t rounds = quick ? 1 : size == 0 ? 20 : size == 1 ? 4 : 2;
    for (uint32_t i = 0; i < rounds; i++) round_of(rows, size, i + 1, quick ? 1 : 5);
  }
  bench_print_head("ns per operation");
  for (int i = 0; i < ROWS; i++) bench_print_row(&rows[i]);
  bench_bar("federation_step_spread", bench_spread(&rows[STEP]), "<=", 2);
  bench_bar("federation_bytes_spread", bench_spread(&rows[BYTES]), "<=", 2);
}
