/* sim_faults: what the simulated world does beyond world.h: faults, clocks of their own, children, one seed one run.
 *
 *   sim_faults [part of a title]
 *
 * Prints `ok TITLE` or `not ok TITLE`, with the failed checks before it; exits 1 if any failed. sim_spec.lua runs it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "world/sim.h"

#define MS UINT64_C(1000000)
#define S UINT64_C(1000000000)

static int failures;
static void failed(int line, const char *what, long long got) {
  printf("# sim_faults.c:%d: %s (got %lld)\n", line, what, got);
  failures++;
}
#define CHECK(condition) ((condition) ? (void)0 : failed(__LINE__, #condition, 0))
#define SAME(got, want)                                                               \
  do {                                                                                \
    long long got_ = (long long)(got);                                                \
    if (got_ != (long long)(want)) failed(__LINE__, #got " == " #want, got_);         \
  } while (0)

/* ---- three nodes a, b, c, 10 ms apart ---- */

static struct sim *sim;
static struct sim_node *a, *b, *c;
static const struct sim_link near_link = {.latency_ns = 10 * MS};

static struct sim_node *add(const char *name, const char *address) {
  struct shoal_address parsed;
  struct sim_node *n = NULL;
  SAME(address_parse(address, strlen(address), &parsed), 0);
  SAME(sim_node_add(sim, name, &parsed, &n), 0);
  return n;
}

static void start(uint64_t seed) {
  struct sim_config config = {.seed = seed, .link = near_link};
  SAME(sim_open(&config, &sim), 0);
  a = add("a", "10.0.0.1:0");
  b = add("b", "10.0.0.2:0");
  c = add("c", "10.0.0.3:0");
}

static void pass(uint64_t ns) { sim_run_until(sim, sim_now_ns(sim) + ns); }

static struct shoal_address at(const char *text) {
  struct shoal_address address = {0};
  SAME(address_parse(text, strlen(text), &address), 0);
  return address;
}

static void cut_both(struct sim_node *x, struct sim_node *y, bool cut) {
  sim_cut(sim, x, y, cut);
  sim_cut(sim, y, x, cut);
}

/* ---- a socket that remembers what it got: each datagram is a number ---- */

struct box {
  struct sim_node *node;
  struct world_udp *udp;
  uint64_t heard[4096], heard_at_ns[4096];
  int count;
};

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct box *box = data;
  (void)from;
  SAME(length, 8);
  if (box->count == 4096) return;
  memcpy(&box->heard[box->count], bytes, 8);
  box->heard_at_ns[box->count++] = sim_now_ns(sim);
}

static const struct world_udp_events box_events = {.on_datagram = on_datagram};

static void box_open(struct box *box, struct sim_node *n) {
  struct shoal_address any = at("0.0.0.0:7000");
  memset(box, 0, sizeof *box);
  box->node = n;
  SAME(world_udp_open(sim_node_world(n), &any, &box_events, box, &box->udp), 0);
}

static void send_number(struct box *box, const char *to, uint64_t number) {
  struct shoal_address address = at(to);
  SAME(world_udp_send(box->udp, &address, &number, 8), 0);
}

/* ---- the ends of streams ---- */

struct end {
  struct world_stream *stream;
  int opened, status, ended, end_status, drained;
  uint64_t opened_at_ns, ended_at_ns, read_at_ns;
  size_t received;
  uint64_t wrong;
};
static struct end near_end, far_end;
static struct world_listener *listener;

static void end_open(void *data, int status) {
  struct end *e = data;
  e->opened++;
  e->status = status;
  e->opened_at_ns = sim_now_ns(sim);
}
static void end_read(void *data, const uint8_t *bytes, size_t length) {
  struct end *e = data;
  CHECK(length > 0 && length <= WORLD_READ_MAX);
  for (size_t i = 0; i < length; i++) e->wrong += bytes[i] != (uint8_t)((e->received + i) * 7);
  e->received += length;
  e->read_at_ns = sim_now_ns(sim);
}
static void end_end(void *data, int status) {
  struct end *e = data;
  e->ended++;
  e->end_status = status;
  e->ended_at_ns = sim_now_ns(sim);
}
static void end_drain(void *data) { ((struct end *)data)->drained++; }
static const struct world_stream_events end_events = {end_open, end_read, end_end, end_drain, NULL};

static void on_connection(void *data, struct world_stream *stream) {
  struct end *e = data;
  e->stream = stream;
  e->opened++;
  world_stream_attach(stream, &end_events, e);
}
static const struct world_listener_events listener_events = {.on_connection = on_connection};

static void listen_at(struct sim_node *n) {
  struct shoal_address any = at("0.0.0.0:80");
  far_end = (struct end){0};
  SAME(world_listen(sim_node_world(n), &any, &listener_events, &far_end, &listener), 0);
}

static void dial(struct sim_node *from, const char *to) {
  struct shoal_address address = at(to);
  near_end = (struct end){0};
  SAME(world_connect(sim_node_world(from), &address, &end_events, &near_end, &near_end.stream), 0);
}

/* b listens, a has a stream to it. */
static void pair(void) {
  listen_at(b);
  dial(a, "10.0.0.2:80");
  pass(100 * MS);
  SAME(near_end.opened, 1);
  SAME(near_end.status, 0);
  SAME(far_end.opened, 1);
}

static int put(struct end *e, size_t offset, size_t length) {
  uint8_t *bytes = malloc(length);
  for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)((offset + i) * 7);
  struct world_buffer buffer = {bytes, length};
  int rc = world_stream_write(e->stream, &buffer, 1);
  free(bytes);
  return rc;
}

/* ---- loss and links ---- */

static void datagrams_are_lost(void) {
  static struct box x, y;
  box_open(&x, a);
  box_open(&y, b);
  sim_set_default_link(sim, &(struct sim_link){.latency_ns = MS, .loss = 0.1});
  for (uint64_t i = 0; i < 4000; i++) send_number(&x, "10.0.0.2:7000", i);
  pass(S);
  CHECK(y.count > 3500 && y.count < 3700);
}

static void loss_delays_streams(void) {
  uint64_t took_ns[2];
  pair();
  for (int i = 0; i < 2; i++) {
    size_t before = far_end.received;
    uint64_t began_ns = sim_now_ns(sim);
    sim_set_default_link(sim, &(struct sim_link){.latency_ns = 10 * MS, .jitter_ns = 5 * MS, .loss = i ? 0.2 : 0});
    for (size_t n = 0; n < 100; n++) {
      SAME(put(&near_end, before + n * 1000, 1000), 0);
      pass(MS);
    }
    while (far_end.received < before + 100000 && sim_step(sim)) continue;
    took_ns[i] = far_end.read_at_ns - began_ns;
  }
  SAME(far_end.received, 200000);
  SAME(far_end.wrong, 0);
  SAME(near_end.ended + far_end.ended, 0);
  CHECK(took_ns[1] > took_ns[0] + 150 * MS);
}

static void hopeless_loss_resets(void) {
  pair();
  sim_set_link(sim, a, b, &(struct sim_link){.latency_ns = 10 * MS, .loss = 1});
  SAME(put(&near_end, 0, 10), 0);
  pass(60 * S);
  SAME(far_end.received, 0);
  SAME(near_end.end_status, -ECONNRESET);
  SAME(far_end.end_status, -ECONNRESET);
}

static void links_differ(void) {
  static struct box x, y, z;
  box_open(&x, a);
  box_open(&y, b);
  box_open(&z, c);
  sim_set_link(sim, a, b, &(struct sim_link){.latency_ns = 70 * MS});
  send_number(&x, "10.0.0.2:7000", 1);
  send_number(&x, "10.0.0.3:7000", 1);
  send_number(&x, "127.0.0.1:7000", 2);
  pass(S);
  SAME(y.heard_at_ns[0], 70 * MS);
  SAME(z.heard_at_ns[0], 10 * MS);
  SAME(x.heard_at_ns[0], 20000);
  sim_set_link(sim, a, b, NULL);
  send_number(&x, "10.0.0.2:7000", 1);
  pass(S);
  SAME(y.heard_at_ns[1], S + 10 * MS);
}

/* ---- cuts ---- */

static void cut_drops_datagrams(void) {
  static struct box x, y;
  box_open(&x, a);
  box_open(&y, b);
  send_number(&x, "10.0.0.2:7000", 1);
  pass(5 * MS);
  sim_cut(sim, a, b, true); /* 1 is under way. */
  send_number(&x, "10.0.0.2:7000", 2);
  send_number(&y, "10.0.0.1:7000", 3); /* The other way is open. */
  pass(S);
  SAME(y.count, 0);
  SAME(x.count, 1);
  sim_cut(sim, a, b, false);
  send_number(&x, "10.0.0.2:7000", 4);
  pass(S);
  SAME(y.count, 1);
  SAME(y.heard[0], 4);
}

static void cut_of_any_node(void) {
  static struct box x, y, z;
  box_open(&x, a);
  box_open(&y, b);
  box_open(&z, c);
  sim_cut(sim, NULL, b, true);
  send_number(&x, "10.0.0.2:7000", 1);
  send_number(&z, "10.0.0.2:7000", 1);
  send_number(&y, "10.0.0.1:7000", 1);
  send_number(&y, "10.0.0.2:7000", 9); /* To itself. */
  pass(S);
  SAME(y.count, 1);
  SAME(y.heard[0], 9);
  SAME(x.count, 1);
  sim_cut(sim, NULL, NULL, false);
  send_number(&x, "10.0.0.2:7000", 2);
  pass(S);
  SAME(y.count, 2);
}

static void short_cut_delays(void) {
  pair();
  uint64_t began_ns = sim_now_ns(sim);
  cut_both(a, b, true);
  SAME(put(&near_end, 0, 1000), 0);
  pass(14900 * MS);
  SAME(far_end.received, 0);
  cut_both(a, b, false);
  pass(20 * S);
  SAME(far_end.received, 1000);
  SAME(far_end.wrong, 0);
  CHECK(far_end.read_at_ns > began_ns + 14900 * MS); /* At the next retransmission. */
  SAME(near_end.ended + far_end.ended, 0);
}

static void heal_keeps_order(void) {
  pair();
  sim_set_default_link(sim, &(struct sim_link){.latency_ns = 10 * MS, .jitter_ns = 20 * MS});
  cut_both(a, b, true);
  for (size_t i = 0; i < 60; i++) {
    SAME(put(&near_end, i * 500, 500), 0);
    pass(50 * MS);
    if (i % 20 == 10) cut_both(a, b, false);
    if (i % 20 == 15) cut_both(a, b, true);
  }
  cut_both(a, b, false);
  pass(20 * S);
  SAME(far_end.received, 30000);
  SAME(far_end.wrong, 0);
}

static void long_cut_resets(void) {
  pair();
  uint64_t began_ns = sim_now_ns(sim);
  sim_cut(sim, b, a, true); /* One way is enough, and nobody writes. */
  pass(15 * S - 1);
  SAME(near_end.ended + far_end.ended, 0);
  pass(1);
  SAME(near_end.end_status, -ECONNRESET);
  SAME(far_end.end_status, -ECONNRESET);
  SAME(near_end.ended_at_ns, began_ns + 15 * S);
  SAME(far_end.ended_at_ns, began_ns + 15 * S);
  SAME(put(&near_end, 0, 10), -EPIPE);
  pass(60 * S);
  SAME(near_end.ended + far_end.ended, 2);
}

static void one_way_cut(void) {
  pair();
  sim_cut(sim, a, b, true);
  SAME(put(&far_end, 0, 1000), 0); /* b to a is open. */
  SAME(put(&near_end, 0, 1000), 0);
  pass(S);
  SAME(near_end.received, 1000);
  SAME(far_end.received, 0);
}

/* ---- connecting ---- */

static void connect_times_out(void) {
  listen_at(b);
  for (int i = 0; i < 4; i++) {
    if (i == 0) sim_cut(sim, a, b, true);
    if (i == 1) sim_cut(sim, b, a, true); /* The answer does not come back; b must not take it as open. */
    if (i == 3) sim_node_crash(b);
    uint64_t began_ns = sim_now_ns(sim);
    dial(a, "10.0.0.2:80");
    pass(5 * S - 1);
    SAME(near_end.opened, i == 2);
    pass(20 * S);
    SAME(near_end.status, i == 2 ? 0 : -ETIMEDOUT);
    SAME(near_end.opened_at_ns, began_ns + (i == 2 ? 20 * MS : 5 * S));
    SAME(far_end.opened, i >= 2);
    SAME(near_end.ended, 0);
    world_stream_close(near_end.stream);
    cut_both(a, b, false);
  }
}

static void connect_after_heal(void) {
  listen_at(b);
  cut_both(a, b, true);
  dial(a, "10.0.0.2:80");
  pass(2 * S);
  cut_both(a, b, false);
  pass(3 * S - 1);
  SAME(near_end.opened, 1);
  SAME(near_end.status, 0);
  SAME(far_end.opened, 1);
}

static void connect_refused(void) {
  dial(a, "10.0.0.2:80");
  pass(20 * MS - 1);
  SAME(near_end.opened, 0);
  pass(1);
  SAME(near_end.status, -ECONNREFUSED);
}

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
  SAME(near_end.ended, 0); /* It writes nothing and hears nothing. */
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
  SAME(y.heard[0], 99); /* What was held for the one before is gone with it. */
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

/* ---- children ---- */

struct kid {
  struct sim_process *process;
  struct shoal_world *world;
  struct end in, out; /* Its own streams. */
  int killed;
};
static struct kid kids[4];
static int kids_count;
static struct {
  int exited, signal;
  int64_t status;
} parent[4];
static struct world_process *process;
static struct end to_kid, from_kid;

static void on_exit_status(void *data, int64_t status, int signal) {
  int i = (int)(intptr_t)data;
  parent[i].exited++;
  parent[i].status = status;
  parent[i].signal = signal;
}
static const struct world_process_events process_events = {.on_exit = on_exit_status};

static void on_kill(void *data, int signal) { ((struct kid *)data)->killed = signal; }

static void kid_echo(void *data, const uint8_t *bytes, size_t length) {
  struct kid *kid = data;
  struct world_buffer buffer = {bytes, length};
  SAME(world_stream_write(kid->out.stream, &buffer, 1), 0);
}
static void kid_end(void *data, int status) { end_end(&((struct kid *)data)->in, status); }
static const struct world_stream_events kid_in = {NULL, kid_echo, kid_end, NULL, NULL};

static int spawned(void *data, struct sim_node *node, const struct world_spawn *options, struct sim_process *p) {
  (void)data;
  CHECK(node == a);
  struct kid *kid = &kids[kids_count];
  if (strcmp(options->argv[0], "missing") == 0) return -ENOENT;
  *kid = (struct kid){.process = p};
  sim_process_on_kill(p, on_kill, kid);
  if (strcmp(options->argv[0], "print") == 0) {
    static const uint8_t big[100000];
    sim_process_write(p, 1, big, sizeof big);
    sim_process_write(p, 2, "oops", 4);
    sim_process_exit(p, S, 3, 0);
  } else if (strcmp(options->argv[0], "node") == 0) {
    kid->world = sim_process_world(p);
    if (options->pipe[0]) {
      SAME(world_stdio(kid->world, 0, &kid->in.stream), 0);
      SAME(world_stdio(kid->world, 1, &kid->out.stream), 0);
      SAME(world_stdio(kid->world, 0, &kid->in.stream), -EBADF);
      world_stream_attach(kid->in.stream, &kid_in, kid);
      world_stream_attach(kid->out.stream, &end_events, &kid->out);
    }
  }
  kids_count++;
  return 0;
}

static int spawn(struct shoal_world *w, const char *program, bool pipes, bool group) {
  const char *argv[] = {program, NULL};
  struct world_spawn options = {.argv = argv, .pipe = {pipes, pipes, pipes}, .group = group};
  intptr_t i = kids_count;
  if (i == 0) memset(parent, 0, sizeof parent);
  sim_on_spawn(sim, spawned, NULL);
  int rc = world_spawn(w, &options, &process_events, (void *)i, &process);
  if (rc < 0 || !pipes) return rc;
  to_kid = from_kid = (struct end){0};
  to_kid.stream = world_process_stream(process, 0);
  from_kid.stream = world_process_stream(process, 1);
  CHECK(world_process_stream(process, 1) == NULL);
  world_stream_attach(to_kid.stream, &end_events, &to_kid);
  world_stream_attach(from_kid.stream, &end_events, &from_kid);
  return 0;
}

static void plain_child(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "print", true, false), 0);
  int pid = world_process_pid(process);
  pass(S - 1);
  SAME(from_kid.received, 100000);
  SAME(from_kid.ended, 0);
  SAME(parent[0].exited, 0);
  pass(MS);
  SAME(from_kid.ended, 1);
  SAME(from_kid.end_status, 0);
  SAME(parent[0].exited, 1);
  SAME(parent[0].status, 3);
  SAME(world_process_kill(process, SIGKILL), -ESRCH);
  SAME(kids[0].killed, 0);
  SAME(spawn(sim_node_world(a), "missing", true, false), -ENOENT);
  SAME(spawn(sim_node_world(a), "print", false, false), 0);
  CHECK(world_process_pid(process) > pid);
  pass(2 * S);
  SAME(parent[1].exited, 1);
}

static void no_hook_no_child(void) {
  const char *argv[] = {"anything", NULL};
  struct world_spawn options = {.argv = argv, .pipe = {true, true, true}};
  SAME(world_spawn(sim_node_world(a), &options, &process_events, NULL, &process), -ENOENT);
}

static void output_outlives_the_child(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "print", true, false), 0);
  world_stream_read(from_kid.stream, false);
  static const uint8_t more[600000];
  sim_process_write(kids[0].process, 1, more, sizeof more); /* More than a window. */
  pass(2 * S);
  SAME(parent[0].exited, 1);
  SAME(from_kid.received, 0);
  world_stream_read(from_kid.stream, true);
  pass(S);
  SAME(from_kid.received, 700000);
  SAME(from_kid.ended, 1);
  SAME(from_kid.end_status, 0);
}

static void child_with_a_world(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", true, false), 0);
  struct kid *kid = &kids[0];
  CHECK(world_now_ns(kid->world) == world_now_ns(sim_node_world(a)));
  CHECK(world_seed(kid->world) != world_seed(sim_node_world(a)));
  SAME(put(&to_kid, 0, 50000), 0);
  SAME(put(&from_kid, 0, 1), -EPIPE); /* A pipe goes one way. */
  pass(S);
  SAME(from_kid.received, 50000);
  SAME(from_kid.wrong, 0);
  static struct box x; /* It has the machine's disk and address. */
  struct shoal_address own = at("10.0.0.1:7100");
  SAME(world_udp_open(kid->world, &own, &box_events, &x, &x.udp), 0);
  SAME(world_udp_open(sim_node_world(a), &own, &box_events, &x, &x.udp), -EADDRINUSE);
  SAME(world_put_durable(kid->world, "here", "1", 1), 0);
  SAME(world_unlink(sim_node_world(a), "here"), 0);
  world_stream_close(to_kid.stream); /* The end of its input. */
  pass(S);
  SAME(kid->in.ended, 1);
  SAME(kid->in.end_status, 0);
  sim_process_exit(kid->process, 0, 5, 0);
  pass(S);
  SAME(parent[0].exited, 1);
  SAME(parent[0].status, 5);
  SAME(from_kid.ended, 1);
  SAME(from_kid.end_status, 0);
  SAME(world_udp_open(sim_node_world(a), &own, &box_events, &x, &x.udp), 0); /* Its port is free. */
}

static void killed_child(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", true, false), 0);
  SAME(world_process_kill(process, 0), 0); /* Is it there? */
  SAME(world_process_kill(process, SIGKILL), 0);
  SAME(kids[0].killed, 0); /* Not within the call. */
  pass(S);
  SAME(kids[0].killed, SIGKILL);
  SAME(parent[0].exited, 1);
  SAME(parent[0].signal, SIGKILL);
  SAME(from_kid.ended, 1);
  SAME(put(&to_kid, 0, 10), 0); /* Nobody reads it now. */
  pass(S);
  SAME(to_kid.end_status, -ECONNRESET);
  SAME(world_process_kill(process, SIGKILL), -ESRCH);
  SAME(parent[0].exited, 1);
}

static void killed_group(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", false, true), 0);
  struct world_process *leader = process;
  SAME(spawn(kids[0].world, "node", false, false), 0);
  SAME(spawn(kids[0].world, "node", false, true), 0); /* A group of its own. */
  SAME(world_process_kill(leader, SIGTERM), 0);
  pass(S);
  SAME(kids[0].killed, SIGTERM);
  SAME(kids[1].killed, SIGTERM);
  SAME(kids[2].killed, 0); /* An orphan now. */
  SAME(parent[0].signal, SIGTERM);
  SAME(parent[1].exited + parent[2].exited, 0); /* Who would have heard is gone. */
  SAME(world_process_kill(leader, SIGTERM), -ESRCH);
}

static void crash_kills_children(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", true, false), 0);
  SAME(spawn(kids[0].world, "node", true, false), 0);
  SAME(put(&to_kid, 0, 1000), 0);
  sim_node_crash(a);
  SAME(kids[0].killed, SIGKILL);
  SAME(kids[1].killed, SIGKILL);
  pass(S);
  SAME(parent[0].exited, 0);
  CHECK(sim_next_ns(sim) == UINT64_MAX); /* Nothing of theirs is left. */
  sim_node_restart(a);
}

static void closed_parent_half(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", true, false), 0);
  world_process_close(process);
  pass(S);
  SAME(kids[0].killed, 0); /* It runs on, its streams too. */
  SAME(put(&to_kid, 0, 100), 0);
  pass(S);
  SAME(from_kid.received, 100);
  sim_process_exit(kids[0].process, 0, 0, 0);
  pass(S);
  SAME(parent[0].exited, 0);
  SAME(from_kid.ended, 1);
}

/* ---- flow ---- */

static void slow_reader_stops_the_writer(void) {
  pair();
  world_stream_read(far_end.stream, false);
  SAME(put(&near_end, 0, 256 * 1024), 0);
  SAME(world_stream_queued(near_end.stream), 0); /* All of it fits the window, */
  SAME(put(&near_end, 256 * 1024, 1), 0);
  SAME(world_stream_queued(near_end.stream), 1); /* and not a byte more. */
  pass(20 * S);
  SAME(world_stream_queued(near_end.stream), 1);
  SAME(near_end.drained, 0);
  world_stream_read(far_end.stream, true);
  pass(S);
  SAME(near_end.drained, 1);
  SAME(world_stream_queued(near_end.stream), 0);
  SAME(far_end.received, 256 * 1024 + 1);
  SAME(far_end.wrong, 0);
}

static void a_window_bounds_the_wire(void) {
  pair();
  world_stream_window(near_end.stream, 16 * 1024);
  SAME(put(&near_end, 0, 160 * 1024), 0);
  SAME(world_stream_queued(near_end.stream), 144 * 1024);
  uint64_t began_ns = sim_now_ns(sim);
  while (far_end.received < 160 * 1024 && sim_step(sim)) continue;
  CHECK(far_end.read_at_ns - began_ns >= 9 * 20 * MS); /* A window a round trip. */
  SAME(far_end.wrong, 0);
}

static void many_streams_in_flight_at_the_end(void) {
  pair();
  SAME(put(&near_end, 0, 3000000), 0);
  SAME(put(&far_end, 0, 3000000), 0);
  cut_both(b, c, true);
  dial(c, "10.0.0.2:80");
  dial(a, "10.0.0.2:81");
  static struct box x;
  box_open(&x, a);
  send_number(&x, "10.0.0.2:7000", 1);
  sim_node_pause(b, true);
  pass(15 * MS); /* And then all is closed as it stands. */
}

/* ---- everything at once: streams opened, written, closed from their own callbacks, under faults of all kinds ---- */

enum { CHAOS_STREAMS = 24 };
struct wild {
  struct sim_node *node; /* NULL: free. */
  struct world_stream *stream;
  size_t received, sent;
  int closes_in; /* Events until it closes itself. */
};
static struct wild wilds[CHAOS_STREAMS];
static struct rng dice;
static uint64_t wild_wrong, wild_bytes, wild_late;

static void wild_event(struct wild *w) {
  wild_late += w->node == NULL; /* An event after close. */
  if (--w->closes_in > 0 || !w->node) return;
  world_stream_close(w->stream);
  w->node = NULL;
}
static void wild_write(struct wild *w) {
  uint8_t bytes[70000];
  size_t length = 1 + (size_t)rng_below(&dice, rng_below(&dice, 8) ? 2000 : sizeof bytes);
  for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)((w->sent + i) * 7);
  struct world_buffer buffer = {bytes, length};
  if (world_stream_queued(w->stream) < 500000 && world_stream_write(w->stream, &buffer, 1) == 0) w->sent += length;
}
static void wild_open(void *data, int status) {
  struct wild *w = data;
  if (status == 0) wild_write(w);
  else w->closes_in = 1;
  wild_event(w);
}
static void wild_read(void *data, const uint8_t *bytes, size_t length) {
  struct wild *w = data;
  for (size_t i = 0; i < length; i++) wild_wrong += bytes[i] != (uint8_t)((w->received + i) * 7);
  w->received += length;
  wild_bytes += length;
  if (rng_below(&dice, 3) == 0) wild_write(w);
  wild_event(w);
}
static void wild_end(void *data, int status) {
  struct wild *w = data;
  if (status == 0 && rng_below(&dice, 2)) wild_write(w);
  w->closes_in = 1;
  wild_event(w);
}
static void wild_drain(void *data) { wild_event(data); }
static const struct world_stream_events wild_events = {wild_open, wild_read, wild_end, wild_drain, NULL};

static struct wild *free_wild(struct sim_node *n) {
  for (int i = 0; i < CHAOS_STREAMS; i++)
    if (!wilds[i].node) {
      wilds[i] = (struct wild){.node = n, .closes_in = 1 + (int)rng_below(&dice, 40)};
      return &wilds[i];
    }
  return NULL;
}
static void wild_accept(void *data, struct world_stream *stream) {
  struct wild *w = free_wild(data);
  if (!w) {
    world_stream_close(stream);
    return;
  }
  w->stream = stream;
  if (rng_below(&dice, 8) == 0) {
    world_stream_close(stream);
    w->node = NULL;
    return;
  }
  world_stream_attach(stream, &wild_events, w);
}
static void wild_listen(struct sim_node *n) {
  struct shoal_address any = at("0.0.0.0:80");
  struct world_listener *l;
  static const struct world_listener_events events = {.on_connection = wild_accept};
  SAME(world_listen(sim_node_world(n), &any, &events, n, &l), 0);
}
static void wild_dial(struct sim_node *n) {
  static const char *const addresses[] = {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "127.0.0.1:80", "10.0.0.2:81"};
  struct wild *w = sim_node_world(n) ? free_wild(n) : NULL;
  struct shoal_address to = at(addresses[rng_below(&dice, 5)]);
  if (w) SAME(world_connect(sim_node_world(n), &to, &wild_events, w, &w->stream), 0);
}

static void wild_act(struct sim_node *n, struct sim_node *other, struct wild *w) {
  switch (rng_below(&dice, 40)) {
    case 0: cut_both(n, other, true); break;
    case 1: sim_cut(sim, n, other, true); break;
    case 2: case 3: case 4: sim_cut(sim, NULL, NULL, false); break;
    case 5: sim_node_pause(n, true); break;
    case 6: case 7: sim_node_pause(n, false); break;
    case 8:
      if (rng_below(&dice, 4)) break;
      if (!sim_node_world(n)) {
        sim_node_restart(n);
        wild_listen(n);
        break;
      }
      sim_node_crash(n);
      for (int i = 0; i < CHAOS_STREAMS; i++)
        if (wilds[i].node == n) wilds[i].node = NULL;
      break;
    case 9: case 10: case 11: case 12: wild_dial(n); break;
    case 13: if (w->node) world_stream_read(w->stream, false); break;
    case 14: case 15: if (w->node) world_stream_read(w->stream, true); break;
    case 16: if (w->node) world_stream_window(w->stream, (size_t)rng_below(&dice, 100000)); break;
    case 17: if (w->node) (void)world_stream_shutdown(w->stream); break;
    case 18: if (w->node) world_stream_close(w->stream), w->node = NULL; break;
    case 19: pass(rng_below(&dice, 8) * S); break;
    case 20: sim_set_link(sim, n, other, &(struct sim_link){.latency_ns = 10 * MS, .loss = rng_below(&dice, 4) ? 0.05 : 0.9}); break;
    default: if (w->node) wild_write(w);
  }
}

static void chaos(void) {
  uint64_t bytes = 0;
  for (uint64_t seed = 1; seed <= 12; seed++) {
    sim_close(sim);
    start(seed);
    struct sim_node *nodes[] = {a, b, c};
    memset(wilds, 0, sizeof wilds);
    rng_seed(&dice, seed);
    sim_set_default_link(sim, &(struct sim_link){.latency_ns = 2 * MS, .jitter_ns = 5 * MS, .loss = 0.02});
    for (int i = 0; i < 3; i++) wild_listen(nodes[i]);
    for (int i = 0; i < 4000; i++) {
      uint64_t n = rng_below(&dice, 3);
      wild_act(nodes[n], nodes[(n + 1 + rng_below(&dice, 2)) % 3], &wilds[rng_below(&dice, CHAOS_STREAMS)]);
      pass(rng_below(&dice, 20) * MS);
    }
    bytes += wild_bytes;
    sim_cut(sim, NULL, NULL, false); /* When all faults end, every stream that is left comes to its end. */
    for (int i = 0; i < 3; i++) {
      sim_node_pause(nodes[i], false);
      for (int j = 0; j < 3; j++) sim_set_link(sim, nodes[i], nodes[j], NULL);
    }
    for (int i = 0; i < CHAOS_STREAMS; i++)
      if (wilds[i].node) world_stream_close(wilds[i].stream), wilds[i].node = NULL;
    pass(100 * S);
    CHECK(sim_next_ns(sim) == UINT64_MAX);
    for (int i = 0; i < 3; i++) {
      struct world_telemetry told;
      if (!sim_node_world(nodes[i])) continue;
      world_telemetry(sim_node_world(nodes[i]), &told);
      SAME(told.open_handles, 1); /* The listener. */
    }
  }
  SAME(wild_wrong, 0);
  SAME(wild_late, 0);
  CHECK(bytes > 1000000);
}

static const struct {
  const char *title;
  void (*run)(void);
} cases[] = {
    {"loss: a datagram in ten is gone", datagrams_are_lost},
    {"loss: streams lose nothing, and take longer", loss_delays_streams},
    {"loss: of everything resets a stream", hopeless_loss_resets},
    {"links: overridden one way, and restored", links_differ},
    {"cut: datagrams are gone, those under way too, one way only", cut_drops_datagrams},
    {"cut: any node, and all mended", cut_of_any_node},
    {"cut: short of 15 s it only delays a stream", short_cut_delays},
    {"cut: on and off, bytes keep their order", heal_keeps_order},
    {"cut: 15 s one way reset both ends, and not 1 ns sooner", long_cut_resets},
    {"cut: one way, bytes still go the other", one_way_cut},
    {"connect: to a cut or dead node times out after 5 s", connect_times_out},
    {"connect: goes on when the cut ends in time", connect_after_heal},
    {"connect: without a listener is refused after a round trip", connect_refused},
    {"crash: the disk stays, the world is new", crash_keeps_the_disk},
    {"crash: a stale stream hears of it with the answer to its next write", stale_streams},
    {"crash: what waited for an answer gets it after the restart", unanswered_until_restart},
    {"crash: no answer for 15 s resets the writer", unanswered_for_ever},
    {"crash: in the middle of everything, paused", crash_while_busy},
    {"pause: timers and input come late, all of them, in order", paused_comes_late},
    {"pause: the window of a stream to it fills", paused_fills_the_window},
    {"clocks: each node has its own", clocks_are_apart},
    {"chance: a node's stream does not depend on the others", chance_is_apart},
    {"seed: the same makes the same run to the byte, another another", one_seed_one_run},
    {"defer: from outside an event runs in one of its own", deferred_from_outside},
    {"log: a sync takes 0.2 to 2 ms", syncs_take_time},
    {"children: a plain one prints and exits", plain_child},
    {"children: without a hook there is no program", no_hook_no_child},
    {"children: what one printed outlives it", output_outlives_the_child},
    {"children: one with a world, its streams, port and disk", child_with_a_world},
    {"children: a kill reaches driver and parent, later", killed_child},
    {"children: a group is killed, another group is not", killed_group},
    {"children: a crash of the machine takes them along", crash_kills_children},
    {"children: one whose process was closed runs on", closed_parent_half},
    {"flow: a reader who pauses stops the writer", slow_reader_stops_the_writer},
    {"flow: a window bounds what is on the wire", a_window_bounds_the_wire},
    {"chaos: streams under all faults at once keep their bytes and leave nothing behind", chaos},
    {"end: everything may still be under way", many_streams_in_flight_at_the_end},
};

int main(int argc, char **argv) {
  int bad = 0, run = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (argc > 1 && !strstr(cases[i].title, argv[1])) continue;
    failures = 0;
    start(1);
    cases[i].run();
    sim_close(sim);
    printf("%s %s\n", failures ? "not ok" : "ok", cases[i].title);
    fflush(stdout);
    bad += failures > 0;
    run++;
  }
  return run == 0 ? 2 : bad > 0;
}
