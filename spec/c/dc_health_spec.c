/* core/dc_health: each rule at both sides of its boundary. Prints a line for each behaviour; with a word as argument, only those whose name
 * contains it. */
#include "core/dc_health.h"

#include <stdio.h>
#include <string.h>

#include "core/errors.h"
#include "core/rng.h"
#include "must.h"

#define SECOND UINT64_C(1000000000)

static struct dc_health_config config;
static struct dc_health h;
static const struct dc_health_facts well = {.reachable = true, .managers = 3, .managers_alive = 3, .workers = 4, .cores = 100, .free = 100};

static void begin(void) { dc_health_init(&h, &config, 0); }

static enum dc_health_status judge(double s, struct dc_health_facts facts) {
  return dc_health_judge(&h, (uint64_t)(s * 1e9 + 0.5), &facts);
}
static enum dc_health_status state(double s) { return dc_health_state(&h, (uint64_t)(s * 1e9 + 0.5)); }

static struct dc_health_facts with_managers(uint32_t alive, uint32_t known) {
  struct dc_health_facts f = well;
  f.managers_alive = alive, f.managers = known;
  return f;
}
static struct dc_health_facts with_free(uint32_t free, uint32_t cores) {
  struct dc_health_facts f = well;
  f.free = free, f.cores = cores;
  return f;
}

static enum dc_health_status first(struct dc_health_facts facts) {
  begin();
  return judge(0, facts);
}

static void nothing_is_known_of_it_before_the_first_facts_and_those_decide_at_once(void) {
  begin();
  MUST(state(0) == DC_UNHEALTHY && state(1000) == DC_UNHEALTHY && dc_health_deadline(&h) == UINT64_MAX);
  MUST(judge(1000, well) == DC_HEALTHY);
}

static void states_follow_the_managers(void) {
  MUST(first(with_managers(3, 3)) == DC_HEALTHY && first(with_managers(2, 3)) == DC_HEALTHY);
  MUST(first(with_managers(1, 3)) == DC_DEGRADED && first(with_managers(0, 3)) == DC_UNHEALTHY);
  MUST(first(with_managers(1, 1)) == DC_HEALTHY && first(with_managers(1, 2)) == DC_DEGRADED && first(with_managers(2, 2)) == DC_HEALTHY);
  MUST(first(with_managers(2, 5)) == DC_DEGRADED && first(with_managers(3, 5)) == DC_HEALTHY);
  MUST(first(with_managers(0, 0)) == DC_UNHEALTHY);
}

static void a_dc_without_workers_or_under_suspicion_is_degraded_and_one_out_of_reach_unhealthy(void) {
  struct dc_health_facts f = well;
  f.workers = f.cores = f.free = 0;
  MUST(first(f) == DC_DEGRADED);
  f = well, f.suspect = true;
  MUST(first(f) == DC_DEGRADED);
  f = well, f.reachable = false;
  MUST(first(f) == DC_UNHEALTHY);
}

static void a_full_one_is_busy_and_never_worse(void) {
  MUST(first(with_free(6, 100)) == DC_HEALTHY && first(with_free(5, 100)) == DC_BUSY && first(with_free(0, 100)) == DC_BUSY);
  MUST(first(with_free(0, 1)) == DC_BUSY && first(with_free(1, 1)) == DC_HEALTHY);
  begin();
  for (int s = 0; s < 1000; s++) {
    MUST(judge(s, with_free(0, 1)) == DC_BUSY);
    MUST(dc_health_press(&h, (uint64_t)s * SECOND, "m", 1, DC_LEVEL_REJECT) == 0 && state(s) == DC_BUSY);
  }
}

static void worse_takes_its_time_and_better_takes_longer(void) {
  first(well);
  MUST(judge(10, with_managers(1, 3)) == DC_HEALTHY && dc_health_deadline(&h) == 13 * SECOND);
  MUST(dc_health_state(&h, 13 * SECOND - 1) == DC_HEALTHY && state(13) == DC_DEGRADED && dc_health_deadline(&h) == UINT64_MAX);
  MUST(judge(20, well) == DC_DEGRADED && dc_health_state(&h, 30 * SECOND - 1) == DC_DEGRADED && state(30) == DC_HEALTHY);
}

static void a_moment_decides_nothing(void) {
  first(well);
  for (int s = 2; s < 100; s += 4) { /* Every other probe is bad. */
    MUST(judge(s, with_managers(1, 3)) == DC_HEALTHY);
    MUST(judge(s + 2, well) == DC_HEALTHY);
  }
  MUST(h.changes == 1); /* The first facts. */
  first(with_managers(1, 3));
  for (int s = 2; s < 100; s += 10) { /* It is well for 8 s of 10. */
    MUST(judge(s, well) == DC_DEGRADED);
    MUST(judge(s + 8, with_managers(1, 3)) == DC_DEGRADED);
  }
}

static void the_least_bad_of_the_time_is_taken_and_the_worst_on_the_way_back(void) {
  first(well);
  judge(10, with_free(0, 100)), judge(12, with_managers(1, 3)); /* Busy, then degraded. */
  MUST(state(13) == DC_BUSY && state(16) == DC_DEGRADED);
  judge(20, well), judge(22, with_free(0, 100)), judge(24, well); /* Healthy, but for a busy moment. */
  MUST(state(30) == DC_BUSY && state(40) == DC_HEALTHY);
}

static void both_thresholds_count(void) {
  first(with_free(5, 100));
  judge(1, with_free(14, 100)); /* Between them: it is busy still. */
  MUST(state(100) == DC_BUSY);
  judge(100, with_free(15, 100));
  MUST(state(110) == DC_HEALTHY);
  judge(120, with_free(6, 100)); /* And from this side it is not busy yet. */
  MUST(state(200) == DC_HEALTHY);
  first(with_managers(3, 7));
  judge(1, with_managers(4, 7)); /* 57 %. */
  MUST(state(100) == DC_DEGRADED);
  judge(100, with_managers(5, 7));
  MUST(state(110) == DC_HEALTHY);
  judge(120, with_managers(4, 7));
  MUST(state(200) == DC_HEALTHY);
}

static void a_reaped_manager_leaves_the_count(void) {
  first(with_managers(1, 2));
  judge(1, with_managers(1, 1));
  MUST(state(11) == DC_HEALTHY);
}

static void reachability_acts_at_once_and_its_return_is_degraded_first(void) {
  struct dc_health_facts gone = {.reachable = false};
  first(well);
  MUST(judge(10, gone) == DC_UNHEALTHY);
  MUST(judge(20, well) == DC_DEGRADED && dc_health_state(&h, 30 * SECOND - 1) == DC_DEGRADED && state(30) == DC_HEALTHY);
  MUST(judge(40, with_managers(0, 3)) == DC_UNHEALTHY);
}

static void levels_worst_manager_counts_and_each_level_clears(void) {
  begin();
  MUST(dc_health_worst(&h, 0) == DC_LEVEL_NONE);
  MUST(dc_health_press(&h, 0, "a", 1, DC_LEVEL_THROTTLE) == 0 && dc_health_worst(&h, 0) == DC_LEVEL_THROTTLE);
  MUST(dc_health_press(&h, 0, "b", 1, DC_LEVEL_REJECT) == 0 && dc_health_worst(&h, 0) == DC_LEVEL_REJECT);
  MUST(dc_health_press(&h, 0, "b", 1, DC_LEVEL_BATCH) == 0 && dc_health_worst(&h, 0) == DC_LEVEL_BATCH);
  MUST(dc_health_press(&h, 0, "a", 1, DC_LEVEL_REJECT) == 0 && dc_health_worst(&h, 0) == DC_LEVEL_REJECT);
  MUST(dc_health_press(&h, 0, "a", 1, DC_LEVEL_THROTTLE) == 0 && dc_health_worst(&h, 0) == DC_LEVEL_BATCH);
  MUST(dc_health_press(&h, 0, "b", 1, DC_LEVEL_NONE) == 0 && dc_health_worst(&h, 0) == DC_LEVEL_THROTTLE);
  MUST(dc_health_press(&h, 0, "a", 1, DC_LEVEL_NONE) == 0 && dc_health_worst(&h, 0) == DC_LEVEL_NONE && h.pressing_count == 0);
}

static void levels_expire_when_they_are_not_refreshed(void) {
  begin();
  MUST(dc_health_press(&h, 0, "a", 1, DC_LEVEL_REJECT) == 0 && dc_health_press(&h, SECOND, "b", 1, DC_LEVEL_BATCH) == 0);
  MUST(dc_health_deadline(&h) == 10 * SECOND && dc_health_worst(&h, 10 * SECOND - 1) == DC_LEVEL_REJECT);
  MUST(dc_health_worst(&h, 10 * SECOND) == DC_LEVEL_BATCH && dc_health_deadline(&h) == 11 * SECOND);
  MUST(dc_health_press(&h, 10 * SECOND, "b", 1, DC_LEVEL_BATCH) == 0 && dc_health_worst(&h, 20 * SECOND - 1) == DC_LEVEL_BATCH);
  MUST(dc_health_worst(&h, 20 * SECOND) == DC_LEVEL_NONE && h.pressing_count == 0);
}

static void levels_a_pressed_dc_is_busy_and_a_dropped_manager_presses_no_more(void) {
  first(well);
  MUST(dc_health_press(&h, 10 * SECOND, "a", 1, DC_LEVEL_THROTTLE) == 0 && state(13) == DC_BUSY);
  dc_health_drop(&h, "a", 1), dc_health_drop(&h, "b", 1);
  MUST(dc_health_worst(&h, 13 * SECOND) == DC_LEVEL_NONE && state(13) == DC_BUSY && state(23) == DC_HEALTHY);
}

static void limits(void) {
  char name[DC_HEALTH_NAME_MAX + 2];
  begin();
  for (int i = 0; i < DC_HEALTH_MANAGERS_MAX; i++) {
    snprintf(name, sizeof name, "m%d", i);
    MUST(dc_health_press(&h, 0, name, strlen(name), DC_LEVEL_THROTTLE) == 0);
  }
  MUST(dc_health_press(&h, 0, "more", 4, DC_LEVEL_REJECT) == ERR_FULL && h.refused == 1);
  MUST(dc_health_press(&h, 0, "more", 4, DC_LEVEL_NONE) == 0);
  MUST(dc_health_press(&h, 0, "m3", 2, DC_LEVEL_NONE) == 0 && dc_health_press(&h, 0, "more", 4, DC_LEVEL_REJECT) == 0);
  memset(name, 'x', sizeof name);
  begin();
  MUST(dc_health_press(&h, 0, name, DC_HEALTH_NAME_MAX, DC_LEVEL_BATCH) == 0);
  MUST(dc_health_press(&h, 0, name, DC_HEALTH_NAME_MAX + 1, DC_LEVEL_BATCH) == ERR_TOO_LARGE);
  MUST(dc_health_press(&h, 0, "", 0, DC_LEVEL_BATCH) == ERR_TOO_LARGE);
}

/* Over random facts: a state changes no sooner than its time after it was last the one asked for, except to and from UNHEALTHY, and two
 * that get the same facts with another phase of probing agree one probe and the longest wait after the last change of the facts. */
static void two_that_get_the_same_facts_agree(void) {
  struct rng rng;
  for (uint64_t seed = 1; seed <= 300; seed++) {
    rng_seed(&rng, seed);
    struct dc_health a, b;
    dc_health_init(&a, &config, 0), dc_health_init(&b, &config, 0);
    struct dc_health_facts facts = well;
    uint64_t changes_ns = 0;
    for (uint64_t t = 0; t < 400; t++) { /* Steps of 500 ms: a is probed at each 4th, b at others. */
      uint64_t now = t * SECOND / 2;
      if (t < 300 && rng_below(&rng, 20) == 0) {
        uint32_t managers = 1 + (uint32_t)rng_below(&rng, 7), cores = (uint32_t)rng_below(&rng, 50);
        facts = (struct dc_health_facts){.reachable = rng_below(&rng, 8) > 0, .suspect = rng_below(&rng, 8) == 0, .managers = managers,
                                         .managers_alive = (uint32_t)rng_below(&rng, managers + 1), .workers = cores ? 1 : 0, .cores = cores,
                                         .free = (uint32_t)rng_below(&rng, cores + 1)};
        changes_ns = now;
      }
      enum dc_health_status before = a.status;
      if (t % 4 == 0) (void)dc_health_judge(&a, now, &facts);
      if (t % 4 == 3) (void)dc_health_judge(&b, now, &facts);
      MUST(before == a.status || t % 4 == 0);
    }
    MUST(changes_ns < 150 * SECOND);
    bool between = a.few != b.few || a.full != b.full; /* One of them saw it pass a threshold, and the other did not. */
    MUST(between || dc_health_state(&a, 200 * SECOND) == dc_health_state(&b, 200 * SECOND));
  }
}

static void a_wrong_configuration_is_named(void) {
  struct dc_health_config wrong;
#define WRONG(change, begins) \
  dc_health_defaults(&wrong), wrong.change; \
  MUST(dc_health_config_check(&wrong) && strncmp(dc_health_config_check(&wrong), begins, strlen(begins)) == 0)
  WRONG(degraded_percent = 60, "degraded_percent ");
  WRONG(recovered_percent = 101, "recovered_percent ");
  WRONG(busy_percent = 101, "busy_percent ");
  WRONG(idle_percent = 95, "idle_percent ");
  WRONG(level_ns = 0, "level ");
  WRONG(better_ns = UINT64_MAX, "times ");
#undef WRONG
  dc_health_defaults(&wrong);
  MUST(!dc_health_config_check(&wrong));
}

int main(int argc, char **argv) {
  dc_health_defaults(&config);
#define BEHAVIOUR(name) if (argc < 2 || strstr(#name, argv[1])) name(), puts("ok " #name)
  BEHAVIOUR(nothing_is_known_of_it_before_the_first_facts_and_those_decide_at_once);
  BEHAVIOUR(states_follow_the_managers);
  BEHAVIOUR(a_dc_without_workers_or_under_suspicion_is_degraded_and_one_out_of_reach_unhealthy);
  BEHAVIOUR(a_full_one_is_busy_and_never_worse);
  BEHAVIOUR(worse_takes_its_time_and_better_takes_longer);
  BEHAVIOUR(a_moment_decides_nothing);
  BEHAVIOUR(the_least_bad_of_the_time_is_taken_and_the_worst_on_the_way_back);
  BEHAVIOUR(both_thresholds_count);
  BEHAVIOUR(a_reaped_manager_leaves_the_count);
  BEHAVIOUR(reachability_acts_at_once_and_its_return_is_degraded_first);
  BEHAVIOUR(levels_worst_manager_counts_and_each_level_clears);
  BEHAVIOUR(levels_expire_when_they_are_not_refreshed);
  BEHAVIOUR(levels_a_pressed_dc_is_busy_and_a_dropped_manager_presses_no_more);
  BEHAVIOUR(limits);
  BEHAVIOUR(two_that_get_the_same_facts_agree);
  BEHAVIOUR(a_wrong_configuration_is_named);
  return 0;
}
