/* False deaths without any crash: uniform loss, a short blackout, jitter. */
#include "study.h"

struct tally {
  uint64_t deaths, suspicions;
};

static void on_event(struct study_cluster *c, uint32_t at, enum swim_event event, uint32_t subject) {
  struct tally *t = c->data;
  (void)at, (void)subject;
  t->deaths += event == SWIM_EVENT_DEAD;
  t->suspicions += event == SWIM_EVENT_SUSPECT;
}

struct weather {
  const char *name;
  double loss;
  uint32_t latency_ms, jitter_ms, blackout_ms;
  double bound; /* False deaths in the worst run. */
};

static void study(const struct weather *w, uint32_t count, uint32_t seeds, uint32_t minutes) {
  uint64_t worst = 0, total = 0, suspicions = 0;
  double bytes = 0;
  for (uint32_t seed = 1; seed <= seeds; seed++) {
    struct tally t = {0};
    struct study_cluster *c = study_preset(seed, count);
    study_run(c, 2 * SECOND);
    c->data = &t, c->on_event = on_event;
    if (w->latency_ms) c->link.latency_ns = w->latency_ms * MILLISECOND, c->link.jitter_ns = w->jitter_ms * MILLISECOND;
    study_link(c, w->loss);
    if (w->blackout_ms) {
      study_link(c, 1);
      study_run(c, w->blackout_ms * MILLISECOND);
      study_link(c, 0);
    }
    study_run(c, minutes * 60 * SECOND);
    total += t.deaths, suspicions += t.suspicions;
    if (t.deaths > worst) worst = t.deaths;
    bytes += (double)c->fleet->bytes / (count * minutes * 60.0 * seeds);
    study_close(c);
  }
  printf("%-14s %-6u %-12llu %-12llu %-14.0f %.0f\n", w->name, seeds, (unsigned long long)worst, (unsigned long long)total,
         (double)suspicions / seeds, bytes);
  char name[64];
  (void)snprintf(name, sizeof name, "false_deaths_%s", w->name);
  study_bar(name, (double)worst, "<=", w->bound);
}

int main(int argc, char **argv) {
  static const struct weather weathers[] = {
      {.name = "loss_1", .loss = 0.01},   {.name = "loss_5", .loss = 0.05},
      {.name = "loss_10", .loss = 0.10},  {.name = "loss_20", .loss = 0.20, .bound = 10},
      {.name = "blackout_200", .blackout_ms = 200}, {.name = "jitter_50_200", .latency_ms = 50, .jitter_ms = 50},
  };
  struct study_option options[] = {{"n", 1000, "members"}, {"seeds", 10, ""}, {"minutes", 10, "of virtual time a run"},
                                   {"only", -1, "one weather, by its place in the table from 0"}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  printf("weather        runs   worst_deaths all_deaths   suspect_events bytes/s (a death counts at each observer)\n");
  for (size_t i = 0; i < sizeof weathers / sizeof *weathers; i++)
    if (options[3].value < 0 || (size_t)options[3].value == i)
      study(&weathers[i], (uint32_t)options[0].value, (uint32_t)options[1].value, (uint32_t)options[2].value);
  return study_short;
}
