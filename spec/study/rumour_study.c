/* A rumour (one member's new payload) in a large cluster: rounds of gossip until all have it, with and without loss. */
#include "study.h"

/* Suspicions caused by loss are rumours too, and would be measured with the next one. */
static bool quiet(const struct study_cluster *c) {
  for (uint32_t i = 0; i < c->count; i++)
    if (swim_counts(c->nodes[i].swim)->rumours > 0) return false;
  return true;
}

static double spread(struct study_cluster *c, double loss, bool more) {
  uint32_t count = c->count;
  study_link(c, loss);
  uint32_t from = (uint32_t)rng_below(&c->rng, count), missing = count - 1;
  struct fleet_node *n = &c->nodes[from];
  uint32_t version = n->swim->members[SELF].payload_version + 1;
  STUDY_NEED(swim_set_payload(n->swim, world_now_ns(n->world), "new", 3) == 0);
  fleet_settle(c->fleet, from);
  uint64_t began_ns = study_now(c), step_ns = c->fleet->config.gossip_interval_ms * MILLISECOND / 4;
  uint8_t *has = calloc(count, 1);
  STUDY_NEED(has);
  has[from] = 1;
  while (missing > 0 && study_now(c) - began_ns < 60 * SECOND) {
    study_run(c, step_ns);
    for (uint32_t i = 0; i < count; i++) {
      uint32_t slot = i == from ? SELF : from == 0 ? i : from; /* The value of swim_preset. */
      if (!has[i] && c->nodes[i].swim->members[slot].payload_version >= version) has[i] = 1, missing--;
    }
  }
  free(has);
  double rounds = (double)(study_now(c) - began_ns) / (c->fleet->config.gossip_interval_ms * 1e6);
  study_link(c, 0);
  for (int s = 0; more && s < 120 && !quiet(c); s++) study_run(c, SECOND);
  return missing ? INFINITY : rounds;
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"n", 10000, "members"}, {"seeds", 10, "clusters"},
                                   {"rumours", 1, "in each without loss, then as many with it"}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  uint32_t count = (uint32_t)options[0].value, rumours = (uint32_t)options[2].value;
  struct study_samples clear = {0}, lossy = {0};
  for (uint64_t seed = 1; seed <= (uint64_t)options[1].value; seed++) {
    struct study_cluster *c = study_preset(seed, count);
    for (uint32_t i = 0; i < rumours; i++) study_add(&clear, spread(c, 0, true));
    for (uint32_t i = 1; i <= rumours; i++) study_add(&lossy, spread(c, 0.25, i < rumours));
    study_close(c);
  }
  printf("members loss  rumours rounds_p50 rounds_max\n");
  printf("%-7u 0     %-7zu %-10.2f %.2f\n", count, clear.count, study_quantile(&clear, 0.5), study_quantile(&clear, 1));
  printf("%-7u 0.25  %-7zu %-10.2f %.2f\n", count, lossy.count, study_quantile(&lossy, 0.5), study_quantile(&lossy, 1));
  study_bar("rumour_rounds_max", study_quantile(&clear, 1), "<=", 12);
  study_bar("rumour_rounds_p50", study_quantile(&clear, 0.5), "<=", 7);
  study_bar("rumour_loss_ratio", study_quantile(&lossy, 0.5) / study_quantile(&clear, 0.5), "<=", 1.6);
  study_bar("rumour_loss_max_ratio", study_quantile(&lossy, 1) / study_quantile(&clear, 1), "<=", 1.6);
  study_clear(&clear), study_clear(&lossy);
  return study_short;
}
