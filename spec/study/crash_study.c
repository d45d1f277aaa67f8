/* From one crash to its death at all live members; and from the first probe that it cannot answer to the first suspicion. */
#include "study.h"

struct crash {
  uint32_t victim, dead;
  uint64_t pinged_ns, suspected_ns, dead_ns;
  uint64_t false_deaths;
};

static void on_send(struct study_cluster *c, uint32_t from, uint32_t to, uint8_t type, size_t length) {
  struct crash *k = c->data;
  (void)from, (void)length;
  if (type == PING && to == k->victim && !k->pinged_ns) k->pinged_ns = study_now(c);
}

static void on_event(struct study_cluster *c, uint32_t at, enum swim_event event, uint32_t subject) {
  struct crash *k = c->data;
  (void)at;
  if (event == SWIM_EVENT_DEAD && subject != k->victim) k->false_deaths++;
  if (subject != k->victim) return;
  if (event == SWIM_EVENT_SUSPECT && !k->suspected_ns) k->suspected_ns = study_now(c);
  if (event == SWIM_EVENT_DEAD && ++k->dead == c->count - 1) k->dead_ns = study_now(c);
}

static void study(uint32_t count, size_t crashes, uint32_t seeds) {
  struct study_samples all = {0}, windows = {0}, firsts = {0};
  uint64_t false_deaths = 0, undecided = 0;
  for (uint32_t seed = 1; seed <= seeds; seed++) {
    struct study_cluster *c = study_preset(seed, count);
    study_run(c, 5 * SECOND);
    for (size_t i = 0; i < (crashes + seeds - 1) / seeds; i++) {
      struct crash k = {.victim = (uint32_t)rng_below(&c->rng, count)};
      study_run(c, rng_below(&c->rng, SECOND));
      uint64_t began_ns = study_now(c);
      study_crash(c, k.victim);
      c->data = &k, c->on_send = on_send, c->on_event = on_event;
      while (!k.dead_ns && study_now(c) - began_ns < 120 * SECOND) study_run(c, 100 * MILLISECOND);
      if (k.dead_ns) study_add(&all, (double)(k.dead_ns - began_ns) / 1e9);
      else undecided++;
      study_add(&windows, (double)(k.suspected_ns - k.pinged_ns) / 1e6 / c->fleet->config.probe_interval_ms);
      study_add(&firsts, (double)(k.suspected_ns - began_ns) / 1e9);
      false_deaths += k.false_deaths;
      c->on_send = NULL, c->on_event = NULL;
      study_start(c, k.victim); /* A new life of the same name. */
      study_join(c, k.victim, k.victim ? 0 : 1);
      (void)study_until_agree(c, 500 * MILLISECOND, 60 * SECOND);
    }
    study_close(c);
  }
  double p50 = study_quantile(&all, 0.5), p99 = study_quantile(&all, 0.99);
  printf("%-7u %-8zu %-8.3f %-8.3f %-8.3f %-8.3f %-8.3f %-8.3f %llu\n", count, all.count, study_quantile(&firsts, 0.5), p50,
         study_quantile(&all, 0.9), p99, study_quantile(&all, 1), study_quantile(&windows, 0.5), (unsigned long long)false_deaths);
  char name[64];
  (void)snprintf(name, sizeof name, "crash_p50_s_%u", count);
  study_bar(name, p50, "<=", count >= 10000 ? 8 : 5);
  (void)snprintf(name, sizeof name, "crash_p99_s_%u", count);
  study_bar(name, p99, "<=", count >= 10000 ? 12 : 9);
  (void)snprintf(name, sizeof name, "crash_undecided_or_false_%u", count);
  study_bar(name, (double)(undecided + false_deaths), "<=", 0);
  (void)snprintf(name, sizeof name, "crash_suspicion_window_off_%u", count);
  study_bar(name, fabs(study_quantile(&windows, 0.5) - 1), "<=", 0.02);
  study_clear(&all), study_clear(&windows), study_clear(&firsts);
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"n", 100, "members"}, {"crashes", 2000, "in all"}, {"seeds", 10, ""}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  printf("members crashes  suspect_p50 dead at all: p50, p90, p99, max (s)  window (periods)  false deaths\n");
  study((uint32_t)options[0].value, (size_t)options[1].value, (uint32_t)options[2].value);
  return study_short;
}
