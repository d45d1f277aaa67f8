#include "core/rng.h"
#include "harness.h"

/* ---- the queue: timers over nanoseconds and over days, moved and stopped at random, against a plain array ---- */

enum { ALARMS = 300 };
static struct alarm {
  struct world_timer *timer;
  uint64_t due_ns; /* True time; 0: not set. */
} alarms[ALARMS];
static uint64_t alarms_wrong, alarms_rung;
static struct rng dice;

static void on_alarm(void *data) {
  struct alarm *alarm = data;
  alarms_wrong += alarm->due_ns != sim_now_ns(sim);
  for (int i = 0; i < ALARMS; i++) alarms_wrong += alarms[i].due_ns && alarms[i].due_ns < sim_now_ns(sim); /* Left out. */
  alarm->due_ns = 0;
  alarms_rung++;
}

static uint64_t least_due_ns(void) {
  uint64_t least_ns = UINT64_MAX;
  for (int i = 0; i < ALARMS; i++)
    if (alarms[i].due_ns && alarms[i].due_ns < least_ns) least_ns = alarms[i].due_ns;
  return least_ns;
}

/* From nanoseconds to days, each order of magnitude alike. */
static uint64_t draw_ns(void) { return 1001 + rng_below(&dice, UINT64_C(1) << (1 + rng_below(&dice, 48))); }

static void any_order(void) {
  struct shoal_world *w = sim_node_world(a);
  rng_seed(&dice, 11);
  alarms_wrong = alarms_rung = 0;
  for (int i = 0; i < ALARMS; i++) {
    alarms[i] = (struct alarm){0};
    SAME(world_timer_open(w, on_alarm, NULL, &alarms[i], &alarms[i].timer), 0);
  }
  uint64_t epoch_ns = world_now_ns(w);
  for (int turn = 0; turn < 20000; turn++) {
    struct alarm *alarm = &alarms[rng_below(&dice, ALARMS)];
    switch (rng_below(&dice, 6)) {
      case 0:
        world_timer_stop(alarm->timer);
        alarm->due_ns = 0;
        break;
      case 1: pass(rng_below(&dice, 50) ? rng_below(&dice, 2 * MS) : draw_ns()); break;
      case 2: (void)sim_step(sim); break;
      default:
        alarm->due_ns = sim_now_ns(sim) + draw_ns();
        world_timer_start(alarm->timer, epoch_ns + alarm->due_ns);
    }
    if (sim_next_ns(sim) != least_due_ns()) alarms_wrong++;
  }
  while (sim_step(sim)) continue;
  SAME(alarms_wrong, 0);
  CHECK(alarms_rung > 3000);
  CHECK(least_due_ns() == UINT64_MAX);
}

static void *rung[4];
static int rung_count;
static void on_ring(void *data) { rung[rung_count++] = data; }

static void ties(void) {
  struct shoal_world *w = sim_node_world(a);
  struct world_timer *timers[3];
  uint64_t at_ns = world_now_ns(w) + 5 * S;
  rung_count = 0;
  for (int i = 0; i < 3; i++) {
    SAME(world_timer_open(w, on_ring, NULL, &timers[i], &timers[i]), 0);
    world_timer_start(timers[i], at_ns);
  }
  world_timer_start(timers[0], at_ns); /* It is there already. */
  world_timer_start(timers[1], at_ns + 1);
  world_timer_start(timers[1], at_ns);
  pass(6 * S);
  SAME(rung_count, 3);
  CHECK(rung[0] == &timers[0] && rung[1] == &timers[2] && rung[2] == &timers[1]);
}

const struct test_case queue_cases[] = {
    {"queue: timers set, moved and stopped at random, nanoseconds or days ahead, ring in order, each at its instant", any_order},
    {"queue: of one instant they come as they were set; set to what it is set to, a timer keeps its turn", ties},
    {NULL, NULL},
};
