/* The cores of `scripts/bench core`, without Lua and without a world: ns per operation and bytes per entry at 1 k, 100 k and 1 M entries.
 *
 *   core_bench PART [quick]     PART is one of `parts` below
 *
 * Each part is a file of core_bench/. A part that is added gets a line in `parts` and one in core_bench.h. */
#include "core_bench/core_bench.h"

#include <string.h>
#include <time.h>

#include "core/rng.h"

static const struct {
  const char *name;
  void (*run)(bool quick);
} parts[] = {
    {"lease", bench_lease},
    {"detector", bench_detector},
    {"federation", bench_federation},
};

const uint32_t bench_sizes[3] = {1000, 100000, 1000000};
static int some_short;
static volatile uint64_t kept;

void bench_bar(const char *name, double figure, const char *relation, double bound) {
  bool ok = strcmp(relation, "<=") == 0 ? figure <= bound : figure >= bound;
  if (!ok) some_short = 1;
  printf("bar %s %.4g want %s %.4g %s\n", name, figure, relation, bound, ok ? "ok" : "short");
  fflush(stdout);
}

uint64_t bench_cpu_ns(void) {
  struct timespec t;
  BENCH_MUST(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void bench_keep(uint64_t value) { kept += value; }

uint32_t *bench_order(uint32_t count, uint64_t seed) {
  struct rng rng;
  rng_seed(&rng, seed);
  uint32_t *order = malloc(count * sizeof *order);
  BENCH_MUST(order);
  for (uint32_t i = 0; i < count; i++) order[i] = i;
  for (uint32_t i = count; i > 1; i--) {
    uint32_t j = (uint32_t)rng_below(&rng, i), k = order[i - 1];
    order[i - 1] = order[j];
    order[j] = k;
  }
  return order;
}

void bench_print_head(const char *what) { printf("%-34s %10s %10s %10s\n", what, "1 k", "100 k", "1 M"); }

void bench_print_row(const struct bench_row *row) {
  printf("%-34s %10.1f %10.1f %10.1f\n", row->name, row->ns[0], row->ns[1], row->ns[2]);
  fflush(stdout);
}

double bench_spread(const struct bench_row *row) {
  double least = row->ns[0], greatest = row->ns[0];
  for (int i = 1; i < 3; i++) {
    if (row->ns[i] < least) least = row->ns[i];
    if (row->ns[i] > greatest) greatest = row->ns[i];
  }
  return greatest / least;
}

int main(int argc, char **argv) {
  bool quick = argc > 2 && strcmp(argv[2], "quick") == 0;
  for (size_t i = 0; argc > 1 && i < sizeof parts / sizeof *parts; i++)
    if (strcmp(argv[1], parts[i].name) == 0) {
      parts[i].run(quick);
      return some_short;
    }
  fprintf(stderr, "usage: core_bench PART [quick]; the parts are listed in spec/bench/core_bench.c\n");
  return 2;
}
