/* A burst of joins through one seed: how long until each member sees all. */
#include "study.h"

static double burst(uint64_t seed, uint32_t count, double limit_s) {
  struct study_cluster *c = study_blank(seed, count);
  for (uint32_t i = 1; i < count; i++) study_join(c, i, 0);
  uint64_t took_ns = study_until_agree(c, 20 * MILLISECOND, (uint64_t)(limit_s * 1e9));
  bool agreed = study_agree(c);
  study_close(c);
  return agreed ? (double)took_ns / 1e9 : INFINITY;
}

static void study(uint32_t count, uint32_t seeds, double bound_s) {
  struct study_samples times = {0};
  for (uint32_t seed = 1; seed <= seeds; seed++) study_add(&times, burst(seed, count, 120));
  printf("%-7u %-6u %-8.2f %-8.2f %.2f\n", count, seeds, study_quantile(&times, 0.5), study_quantile(&times, 0.99),
         study_quantile(&times, 1));
  char name[64];
  (void)snprintf(name, sizeof name, "join_worst_s_%u", count);
  study_bar(name, study_quantile(&times, 1), "<=", bound_s);
  study_clear(&times);
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"seeds", 1000, "for the burst of 100"}, {"large", 2000, "members of the large burst; 0: none"},
                                   {"large_seeds", 10, ""}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  printf("members seeds  p50      p99      max (s)\n");
  study(100, (uint32_t)options[0].value, 3);
  if (options[1].value > 0) study((uint32_t)options[1].value, (uint32_t)options[2].value, 15);
  return study_short;
}
