#include "core/rng.h"
#include "harness.h"

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
    case 20:
      sim_set_link(sim, n, other, &(struct sim_link){.latency_ns = 10 * MS, .loss = rng_below(&dice, 4) ? 0.05 : 0.9});
      break;
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

const struct test_case chaos_cases[] = {
    {"chaos: streams under all faults at once keep their bytes and leave nothing behind", chaos},
    {NULL, NULL},
};
