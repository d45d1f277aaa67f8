#include "harness.h"

/* ---- crash and restart ---- */

static void crash_keeps_the_disk(void) {
  struct shoal_world *w = sim_node_world(b);
  struct world_log *log;
  struct world_log_events none = {0};
  uint8_t *bytes = NULL;
  size_t length = 0;
  uint64_t seed = world_seed(w), epoch_ns = world_now_ns(w) - sim_now_ns(sim);
  SAME(world_put_durable(w, "term", "7", 1), 0);
  SAME(world_log_open(w, "log", &none, NULL, &log), 0);
  SAME(world_log_append(log, "abc", 3), 0);
  SAME(world_log_sync(log), 0);
  sim_node_crash(b);
  CHECK(sim_node_world(b) == NULL);
  pass(S);
  w = sim_node_restart(b);
  CHECK(w == sim_node_world(b));
  CHECK(world_seed(w) != seed);
  CHECK(world_now_ns(w) - sim_now_ns(sim) != epoch_ns);
  SAME(world_read_file(w, "term", &bytes, &length), 0);
  CHECK(length == 1 && bytes[0] == '7' && bytes[1] == 0);
  free(bytes);
  SAME(world_read_file(w, "/home/node/log", &bytes, &length), 0);
  CHECK(length == 3 && memcmp(bytes, "abc", 3) == 0);
  free(bytes);
}

static void stale_streams(void) {
  pair();
  sim_node_crash(b);
  pass(60 * S);
  SAME(near_end.ended, 0); /* It writes nothing and gets no event. */
  sim_node_restart(b);
  pass(60 * S);
  SAME(near_end.ended, 0);
  uint64_t began_ns = sim_now_ns(sim);
  SAME(put(&near_end, 0, 10), 0);
  pass(S);
  SAME(near_end.ended, 1);
  SAME(near_end.end_status, -ECONNRESET);
  SAME(near_end.ended_at_ns, began_ns + 20 * MS); /* With the answer. */
}

static void unanswered_until_restart(void) {
  pair();
  sim_node_crash(b);
  SAME(put(&near_end, 0, 10), 0);
  pass(5 * S);
  SAME(near_end.ended, 0);
  sim_node_restart(b);
  pass(5 * S);
  SAME(near_end.end_status, -ECONNRESET);
  SAME(near_end.ended, 1);
}

static void unanswered_for_ever(void) {
  pair();
  sim_node_crash(b);
  uint64_t began_ns = sim_now_ns(sim);
  SAME(put(&near_end, 0, 10), 0);
  pass(60 * S);
  SAME(near_end.end_status, -ECONNRESET);
  SAME(near_end.ended_at_ns, began_ns + 10 * MS + 15 * S);
}

static void crash_while_busy(void) {
  static struct box x, y;
  box_open(&x, a);
  box_open(&y, b);
  pair();
  world_stream_read(near_end.stream, false);
  SAME(put(&far_end, 0, 3000000), 0);
  SAME(put(&near_end, 0, 3000000), 0);
  for (int i = 0; i < 4; i++) dial(i % 2 ? a : c, "10.0.0.2:80"), pass(3 * MS);
  for (uint64_t i = 0; i < 50; i++) send_number(&x, "10.0.0.2:7000", i), send_number(&y, "10.0.0.1:7000", i);
  sim_node_pause(b, true);
  pass(20 * MS);
  for (uint64_t i = 0; i < 50; i++) send_number(&x, "10.0.0.2:7000", i);
  sim_node_crash(b);
  SAME(y.count, 0);
  pass(S);
  sim_node_restart(b);
  box_open(&y, b);
  send_number(&x, "10.0.0.2:7000", 99);
  pass(S);
  SAME(y.count, 1);
  SAME(y.heard[0], 99); /* Events held for the previous process are gone with it. */
}

/* ---- pause ---- */

struct bell {
  struct world_timer *timer;
  uint64_t rang_at_ns;
  int rang, order;
};
static int bells;
static void on_bell(void *data) {
  struct bell *bell = data;
  bell->rang++;
  bell->order = ++bells;
  bell->rang_at_ns = sim_now_ns(sim);
}

static void crash_under_a_pause(void) {
  static struct box x, y;
  box_open(&x, a);
  box_open(&y, b);
  sim_node_slow(b, 1, 2);
  sim_node_pause(b, true);
  for (uint64_t i = 0; i < 5; i++) send_number(&x, "10.0.0.2:7000", i);
  pass(S);
  sim_node_crash(b);
  sim_node_restart(b); /* In the same instant. */
  box_open(&y, b);
  pass(10 * S);
  SAME(y.count, 0);
}

static void paused_comes_late(void) {
  static struct box x, y;
  struct bell first = {0}, second = {0};
  struct shoal_world *w = sim_node_world(b);
  bells = 0;
  box_open(&x, a);
  box_open(&y, b);
  pair();
  SAME(world_timer_open(w, on_bell, NULL, &first, &first.timer), 0);
  SAME(world_timer_open(w, on_bell, NULL, &second, &second.timer), 0);
  world_timer_start(first.timer, world_now_ns(w) + 200 * MS);
  world_timer_start(second.timer, world_now_ns(w) + 100 * MS);
  uint64_t clock_ns = world_now_ns(w), began_ns = sim_now_ns(sim);
  sim_node_pause(b, true);
  for (uint64_t i = 0; i < 20; i++) {
    send_number(&x, "10.0.0.2:7000", i);
    SAME(put(&near_end, i * 100, 100), 0);
    pass(50 * MS);
  }
  dial(a, "10.0.0.2:80"); /* Its kernel still answers. */
  pass(20 * S);
  SAME(near_end.status, 0);
  SAME(near_end.opened, 1);
  SAME(y.count + first.rang + second.rang, 0);
  SAME(far_end.received, 0);
  SAME(far_end.opened, 1);
  sim_node_pause(b, false);
  SAME(y.count, 0); /* Not before the next event. */
  pass(0);
  SAME(y.count, 20);
  for (int i = 0; i < 20; i++) SAME(y.heard[i], i);
  SAME(second.order, 1);
  SAME(first.order, 2);
  SAME(first.rang_at_ns, began_ns + 21 * S);
  SAME(world_now_ns(w) - clock_ns, 21 * S);
  SAME(far_end.received, 2000);
  SAME(far_end.wrong, 0);
  SAME(far_end.opened, 2);
}

static void paused_fills_the_window(void) {
  pair();
  sim_node_pause(b, true);
  SAME(put(&near_end, 0, 1000000), 0);
  pass(5 * S);
  SAME(world_stream_queued(near_end.stream), 1000000 - 256 * 1024);
  SAME(near_end.drained, 0);
  sim_node_pause(b, false);
  pass(5 * S);
  SAME(far_end.received, 1000000);
  SAME(far_end.wrong, 0);
  SAME(near_end.drained, 1);
}

/* ---- clocks, chance, seeds ---- */

static void clocks_are_apart(void) {
  uint64_t na = world_now_ns(sim_node_world(a)), nb = world_now_ns(sim_node_world(b)), nc = world_now_ns(sim_node_world(c));
  CHECK(na != nb && nb != nc && na != nc);
  CHECK(na > 3000 * S && nb > 3000 * S && nc > 3000 * S);
  CHECK(world_wall_ns(sim_node_world(a)) != world_wall_ns(sim_node_world(b)));
  pass(S);
  SAME(world_now_ns(sim_node_world(a)) - na, S);
  SAME(world_now_ns(sim_node_world(b)) - nb, S);
  uint64_t seconds = (world_now_ns(sim_node_world(b)) - sim_now_ns(sim)) / S;
  sim_node_crash(b); /* A machine that starts again counts from somewhere else. */
  sim_node_restart(b);
  CHECK((world_now_ns(sim_node_world(b)) - sim_now_ns(sim)) / S != seconds);
}

static void chance_is_apart(void) {
  uint64_t want[8];
  for (int i = 0; i < 8; i++) want[i] = world_random(sim_node_world(c));
  sim_close(sim);
  start(1);
  add("d", "10.0.0.4:0");
  static struct box x;
  box_open(&x, a);
  sim_set_default_link(sim, &(struct sim_link){.latency_ns = MS, .jitter_ns = MS, .loss = 0.5});
  for (uint64_t i = 0; i < 100; i++) {
    (void)world_random(sim_node_world(a)); /* Others draw; c does not notice. */
    send_number(&x, "10.0.0.3:7000", i);
  }
  pass(S);
  for (int i = 0; i < 8; i++) CHECK(world_random(sim_node_world(c)) == want[i]);
  CHECK(world_random(sim_node_world(a)) != world_random(sim_node_world(b)));
}

static char *trace_text;
static size_t trace_length;
static FILE *trace;
static void on_trace(void *data, uint64_t now_ns, const char *text) {
  (void)data;
  CHECK(!strchr(text, '\n'));
  fprintf(trace, "%llu %s\n", (unsigned long long)now_ns, text);
}

/* A run with some of everything, as text. */
static char *record(uint64_t seed) {
  static struct box x, y;
  sim_close(sim);
  start(seed);
  trace = open_memstream(&trace_text, &trace_length);
  sim_trace(sim, on_trace, NULL);
  sim_set_default_link(sim, &(struct sim_link){.latency_ns = 5 * MS, .jitter_ns = 3 * MS, .loss = 0.1});
  box_open(&x, a);
  box_open(&y, b);
  listen_at(b);
  dial(a, "10.0.0.2:80");
  pass(4 * S);
  for (uint64_t i = 0; i < 200; i++) {
    send_number(&x, "10.0.0.2:7000", i);
    (void)put(&near_end, i * 700, 700);
    if (i == 50) cut_both(a, b, true);
    if (i == 80) cut_both(a, b, false);
    if (i == 120) sim_node_pause(b, true);
    if (i == 140) sim_node_pause(b, false);
    if (i == 180) sim_node_crash(b);
    if (i == 190) sim_node_restart(b);
    pass(20 * MS);
  }
  pass(30 * S);
  sim_trace(sim, NULL, NULL);
  fclose(trace);
  return trace_text;
}

static void one_seed_one_run(void) {
  char *first = record(7), *again, *other;
  again = record(7);
  other = record(8);
  CHECK(strlen(first) > 5000);
  CHECK(strcmp(first, again) == 0);
  CHECK(strcmp(first, other) != 0);
  free(first);
  free(again);
  free(other);
}

static int deferred;
static void on_deferred(void *data) {
  (void)data;
  deferred++;
}
static void deferred_from_outside(void) {
  struct world_defer defer = {.run = on_deferred};
  deferred = 0;
  world_defer(sim_node_world(a), &defer);
  SAME(deferred, 0);
  CHECK(sim_next_ns(sim) == sim_now_ns(sim));
  pass(0);
  SAME(deferred, 1);
  CHECK(sim_next_ns(sim) == UINT64_MAX);
}

struct synced {
  uint64_t at_ns;
  int count;
};
static void on_synced(void *data, int status, uint64_t size) {
  struct synced *s = data;
  SAME(status, 0);
  SAME(size, 3);
  s->at_ns = sim_now_ns(sim);
  s->count++;
}
static void syncs_take_time(void) {
  struct world_log *log;
  struct synced synced = {0};
  uint64_t least_ns = UINT64_MAX, most_ns = 0;
  SAME(world_log_open(sim_node_world(a), "log", &(struct world_log_events){.on_synced = on_synced}, &synced, &log), 0);
  SAME(world_log_append(log, "abc", 3), 0);
  for (int i = 0; i < 200; i++) {
    uint64_t began_ns = sim_now_ns(sim);
    SAME(world_log_sync(log), 0);
    pass(10 * MS);
    SAME(synced.count, i + 1);
    uint64_t took_ns = synced.at_ns - began_ns;
    if (took_ns < least_ns) least_ns = took_ns;
    if (took_ns > most_ns) most_ns = took_ns;
  }
  CHECK(least_ns >= 200000 && least_ns < 400000);
  CHECK(most_ns < 2000000 && most_ns > 1800000);
}

const struct test_case machines_cases[] = {
    {"crash: the disk stays, the world is new", crash_keeps_the_disk},
    {"crash: a stale stream hears of it with the answer to its next write", stale_streams},
    {"crash: what waited for an answer gets it after the restart", unanswered_until_restart},
    {"crash: no answer for 15 s resets the writer", unanswered_for_ever},
    {"crash: in the middle of everything, paused", crash_while_busy},
    {"crash: what was held for a paused machine is not the next process's", crash_under_a_pause},
    {"pause: timers and input come late, all of them, in order", paused_comes_late},
    {"pause: the window of a stream to it fills", paused_fills_the_window},
    {"clocks: each node has its own", clocks_are_apart},
    {"chance: a node's stream does not depend on the others", chance_is_apart},
    {"seed: the same makes the same run to the byte, another another", one_seed_one_run},
    {"defer: from outside an event runs in one of its own", deferred_from_outside},
    {"log: a sync takes 0.2 to 2 ms", syncs_take_time},
    {NULL, NULL},
};
