/* Clock, chance, deferred work, timers. */
#include <uv.h>

#include "core/rng.h"
#include "harness.h"
#include "world/uv.h"

/* ---- clock and chance ---- */

static void clock_stands_still(void) {
  uint64_t now = world_now_ns(W);
  CHECK(world_fresh_ns(W) >= now);
  SAME(world_now_ns(W), now);
  settle(3);
  CHECK(world_now_ns(W) >= now + 3 * MS);
  CHECK(world_wall_ns(W) > 0);
}

static void no_two_share_an_epoch(void) { /* A simulated world's is in sim_faults/machines.c. */
  uv_loop_t loop;
  struct shoal_world *other;
  int closed = 0;
  SAME(uv_loop_init(&loop), 0);
  SAME(world_uv_open(&(struct world_uv_options){.loop = &loop, .seed = world_seed(W) + 1}, &other), 0);
  uint64_t ours = world_fresh_ns(W), theirs = world_fresh_ns(other);
  CHECK((ours > theirs ? ours - theirs : theirs - ours) > 1000 * MS);
  world_uv_close(other, count_closed, &closed);
  uv_run(&loop, UV_RUN_DEFAULT);
  SAME(closed, 1);
  SAME(uv_loop_close(&loop), 0);
}

static void chance_is_the_seed(void) {
  struct rng same;
  rng_seed(&same, world_seed(W));
  for (int i = 0; i < 10; i++) CHECK(world_random(W) == rng_next(&same));
}

static void telemetry_counts(void) {
  int closed = 0;
  struct world_timer *t;
  struct world_telemetry told;
  SAME(world_timer_open(W, (void (*)(void *))count_closed, count_closed, &closed, &t), 0);
  world_telemetry(W, &told);
  SAME(told.open_handles, 1);
  CHECK(told.resident_bytes > 0);
  world_timer_close(t);
  UNTIL(closed);
  world_telemetry(W, &told);
  SAME(told.open_handles, 0);
}

/* ---- deferred work ---- */

static char order[64];
static size_t ordered;

static void note(char c) {
  EVENT();
  if (ordered < sizeof order - 1) order[ordered++] = c;
}
static void fresh_order(void) {
  memset(order, 0, sizeof order);
  ordered = 0;
}

static struct world_defer d1, d2, d3;
static struct world_timer *late;
static int late_rang;
static uint64_t ran_at_ns;

static void run_a(void *data) { (void)data, note('a'); ran_at_ns = world_now_ns(W); }
static void run_b(void *data) { (void)data, note('b'); }
static void run_b_then_a(void *data) {
  run_b(data);
  CALL(world_defer(W, &d1));
}
static void run_b_without_c(void *data) {
  run_b(data);
  CALL(world_undefer(W, &d3));
}
static void run_c(void *data) { (void)data, note('c'); }
static void on_late(void *data) { (void)data, note('T'), late_rang++; }

static void reset_deferred(void (*b)(void *)) {
  fresh_order();
  d1 = (struct world_defer){.run = run_a};
  d2 = (struct world_defer){.run = b};
  d3 = (struct world_defer){.run = run_c};
}

static void deferred_runs_once(void) {
  reset_deferred(run_b);
  CALL(world_defer(W, &d1));
  CALL(world_defer(W, &d2));
  CALL(world_defer(W, &d1));
  SAME(ordered, 0);
  UNTIL(ordered >= 2);
  settle(2);
  SAME(strcmp(order, "ab"), 0);
  CALL(world_defer(W, &d1)); /* It can be deferred again. */
  UNTIL(ordered == 3);
}

static void deferred_can_be_taken_back(void) {
  reset_deferred(run_b);
  CALL(world_undefer(W, &d1));
  CALL(world_defer(W, &d1));
  CALL(world_defer(W, &d2));
  CALL(world_undefer(W, &d1));
  CALL(world_undefer(W, &d1));
  settle(2);
  SAME(strcmp(order, "b"), 0);
}

static void deferred_from_deferred(void) {
  reset_deferred(run_b_then_a);
  CALL(world_defer(W, &d2));
  CALL(world_defer(W, &d3));
  settle(2);
  SAME(strcmp(order, "bca"), 0);
}

static void deferred_takes_back_another(void) {
  reset_deferred(run_b_without_c);
  CALL(world_defer(W, &d2));
  CALL(world_defer(W, &d3));
  settle(2);
  SAME(strcmp(order, "b"), 0);
}

static struct world_timer *timers[1000];
static int timers_closed;

static void open_timers(size_t count, void (*on_timer)(void *)) {
  timers_closed = 0;
  for (size_t i = 0; i < count; i++)
    SAME(ASK(world_timer_open(W, on_timer, count_closed, &timers_closed, &timers[i])), 0);
}
static void close_timers(size_t count) {
  for (size_t i = 0; i < count; i++) CALL(world_timer_close(timers[i]));
  UNTIL(timers_closed == (int)count);
  settle(2);
  SAME(timers_closed, (int)count);
}

static void on_timer_defers(void *data) {
  (void)data;
  note('t');
  CALL(world_defer(W, &d1));
}
static void deferred_before_waiting(void) {
  reset_deferred(run_b);
  SAME(world_timer_open(W, on_timer_defers, NULL, NULL, &late), 0);
  uint64_t start = world_now_ns(W);
  world_timer_start(late, start + 10 * MS);
  UNTIL(ordered == 2);
  SAME(strcmp(order, "ta"), 0);
  CHECK(ran_at_ns < start + 200 * MS);
  world_timer_close(late); /* Without on_closed. */
  settle(2);
}

static void run_for_ever(void *data) { (void)data, world_defer(W, &d1); }
static void deferring_for_ever_starves_nobody(void) {
  d1 = (struct world_defer){.run = run_for_ever};
  fresh_order();
  late_rang = 0;
  SAME(world_timer_open(W, on_late, NULL, NULL, &late), 0);
  world_timer_start(late, world_now_ns(W) + 5 * MS);
  world_defer(W, &d1);
  UNTIL(late_rang == 1);
  world_undefer(W, &d1);
  world_timer_close(late);
  settle(2);
}

/* ---- timers ---- */

static uint64_t due_ns[1000], rang_ns[1000];
static int rang[1000], sequence[1000], rung;

static void on_index(void *data) {
  struct world_timer **at = data;
  size_t i = (size_t)(at - timers);
  EVENT();
  rang_ns[i] = world_now_ns(W);
  rang[i]++;
  sequence[i] = rung++;
}
static void reset_rings(void) {
  memset(rang, 0, sizeof rang);
  rung = 0;
  timers_closed = 0;
}
static void open_indexed(size_t count) {
  reset_rings();
  for (size_t i = 0; i < count; i++) SAME(ASK(world_timer_open(W, on_index, NULL, &timers[i], &timers[i])), 0);
}
static void close_indexed(size_t count) {
  int before = rung;
  for (size_t i = 0; i < count; i++) {
    CALL(world_timer_close(timers[i]));
    CALL(world_timer_close(timers[i]));
  }
  settle(2);
  SAME(rung, before);
}

static void timers_ring_in_order(void) {
  open_indexed(1000);
  uint64_t now = world_now_ns(W);
  for (size_t i = 0; i < 1000; i++) {
    due_ns[i] = now + 1 + world_random(W) % (40 * MS);
    CALL(world_timer_start(timers[i], due_ns[i]));
  }
  UNTIL(rung == 1000);
  for (size_t i = 0; i < 1000; i++) {
    CHECK(rang_ns[i] >= due_ns[i]); /* Never early. */
    SAME(rang[i], 1);
    for (size_t j = 0; j < i; j += 37)
      CHECK((due_ns[i] < due_ns[j]) == (sequence[i] < sequence[j]) || due_ns[i] == due_ns[j]);
  }
  close_indexed(1000);
}

static void equal_timers_ring_as_set(void) {
  open_indexed(20);
  uint64_t at = world_now_ns(W) + 3 * MS;
  for (size_t i = 20; i-- > 0;) CALL(world_timer_start(timers[i], at));
  UNTIL(rung == 20);
  for (size_t i = 0; i < 20; i++) SAME(sequence[i], 19 - (int)i);
  close_indexed(20);
}

static void start_replaces(void) {
  open_indexed(3);
  uint64_t now = world_now_ns(W);
  world_timer_start(timers[0], now + 5 * MS);
  world_timer_start(timers[0], now + 25 * MS); /* Later, */
  world_timer_start(timers[1], now + 10000 * MS);
  world_timer_start(timers[1], now + 5 * MS); /* and earlier. */
  world_timer_start(timers[2], now + 5 * MS);
  world_timer_stop(timers[2]);
  world_timer_stop(timers[2]);
  UNTIL(rang[1] == 1);
  SAME(rang[0], 0);
  UNTIL(rang[0] == 1);
  CHECK(rang_ns[0] >= now + 25 * MS);
  settle(10);
  SAME(rung, 2);
  SAME(rang[2], 0);
  close_indexed(3);
}

static void past_rings_next_turn(void) {
  open_indexed(2);
  world_timer_start(timers[0], 0);
  CALL(world_timer_start(timers[1], world_now_ns(W)));
  SAME(rung, 0);
  UNTIL(rung == 2);
  close_indexed(2);
}

static int again;
static void on_again(void *data) {
  (void)data;
  EVENT();
  if (++again < 10000) CALL(world_timer_start(timers[0], 0));
}
static void past_in_own_callback_starves_nobody(void) {
  again = 0;
  late_rang = 0;
  fresh_order();
  open_timers(1, on_again);
  SAME(world_timer_open(W, on_late, count_closed, &timers_closed, &timers[1]), 0);
  world_timer_start(timers[1], world_now_ns(W) + 1);
  world_timer_start(timers[0], 0);
  UNTIL(late_rang == 1);
  CHECK(again < 10000);
  close_timers(2);
}

static void on_close_all(void *data) {
  (void)data;
  EVENT();
  rung++;
  for (int i = 0; i < 3; i++) {
    CALL(world_timer_close(timers[i]));
    CALL(world_timer_close(timers[i]));
  }
  CALL(world_timer_start(timers[0], 0)); /* Closed: nothing. */
  CALL(world_timer_stop(timers[0]));
}
static void closed_in_a_callback(void) {
  reset_rings();
  open_timers(3, on_close_all);
  uint64_t at = world_now_ns(W) + MS;
  for (int i = 0; i < 3; i++) world_timer_start(timers[i], at);
  UNTIL(timers_closed == 3);
  settle(5);
  SAME(timers_closed, 3);
  SAME(rung, 1);
}

static void on_stop_others(void *data) {
  (void)data;
  rung++;
  for (int i = 0; i < 3; i++) CALL(world_timer_stop(timers[i]));
}
static void stopped_by_one_of_the_same_instant(void) {
  reset_rings();
  open_timers(3, on_stop_others);
  for (int i = 0; i < 3; i++) world_timer_start(timers[i], world_now_ns(W) + MS);
  settle(10);
  SAME(rung, 1);
  close_timers(3);
}

const struct test_case clock_cases[] = {
    {"clock: stands still between turns and passes with them", clock_stands_still, 0},
    {"clock: no two nodes share an epoch", no_two_share_an_epoch, NEEDS_REAL_TIME},
    {"chance: the stream is its seed's", chance_is_the_seed, 0},
    {"telemetry: counts what is open", telemetry_counts, 0},
    {"defer: runs once, in order, not before the call returns", deferred_runs_once, 0},
    {"defer: taken back does not run", deferred_can_be_taken_back, 0},
    {"defer: what a deferred one defers runs after those before it", deferred_from_deferred, 0},
    {"defer: one may take back another", deferred_takes_back_another, 0},
    {"defer: runs after the event and before the world waits", deferred_before_waiting, 0},
    {"defer: one that defers itself for ever starves nobody", deferring_for_ever_starves_nobody, NEEDS_REAL_TIME},
    {"timer: a thousand ring once each, in order, never early", timers_ring_in_order, 0},
    {"timer: those of one instant ring as they were set", equal_timers_ring_as_set, 0},
    {"timer: a start replaces the one before; a stopped one is silent", start_replaces, 0},
    {"timer: one in the past rings in the next turn", past_rings_next_turn, 0},
    {"timer: one that sets itself in the past starves nobody", past_in_own_callback_starves_nobody, 0},
    {"timer: closed in a callback, twice, with others due: one on_closed each, nothing else", closed_in_a_callback, 0},
    {"timer: stopped by another of the same instant", stopped_by_one_of_the_same_instant, 0},
    {NULL, NULL, 0},
};
