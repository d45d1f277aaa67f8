/* A partition of an hour, then repair: how long until both sides reunite, without help. */
#include "study.h"

static void cut(struct study_cluster *c, uint32_t side, bool on) {
  for (uint32_t a = 0; a < side; a++)
    for (uint32_t b = side; b < c->count; b++) {
      sim_cut(c->sim, c->nodes[a].machine, c->nodes[b].machine, on);
      sim_cut(c->sim, c->nodes[b].machine, c->nodes[a].machine, on);
    }
}

static void study(uint32_t count, uint32_t side, uint32_t seeds, uint32_t minutes) {
  struct study_samples times = {0};
  for (uint32_t seed = 1; seed <= seeds; seed++) {
    struct study_cluster *c = study_preset(seed, count);
    study_run(c, 2 * SECOND);
    cut(c, side, true);
    study_run(c, minutes * 60 * SECOND);
    cut(c, side, false);
    uint64_t took_ns = study_until_agree(c, 20 * MILLISECOND, 120 * SECOND);
    study_add(&times, study_agree(c) ? (double)took_ns / 1e9 : INFINITY);
    study_close(c);
  }
  printf("%-3u/%-4u %-6u %-8.2f %-8.2f %.2f\n", side, count - side, seeds, study_quantile(&times, 0.5), study_quantile(&times, 0.99),
         study_quantile(&times, 1));
  char name[64];
  (void)snprintf(name, sizeof name, "heal_worst_s_%u_%u", side, count - side);
  study_bar(name, study_quantile(&times, 1), "<=", 10);
  study_clear(&times);
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"n", 100, "members"}, {"seeds", 20, ""}, {"minutes", 60, "that the partition lasts"}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  uint32_t count = (uint32_t)options[0].value;
  printf("sides    seeds  p50      p99      max (s)\n");
  study(count, count / 2, (uint32_t)options[1].value, (uint32_t)options[2].value);
  study(count, 1, (uint32_t)options[1].value, (uint32_t)options[2].value);
  return study_short;
}
