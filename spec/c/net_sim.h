/* Nets in a simulated world, for the transport's C specs: nodes that record their callbacks and answer as set. */
#ifndef SPEC_NET_SIM_H
#define SPEC_NET_SIM_H

#include <errno.h>
#include <string.h>

#include "core/rng.h"
#include "must.h"
#include "net/net.h"
#include "world/sim.h"

enum { NODES_MAX = 4, OUTCOMES_MAX = 8192, TEXT_MAX = 300 };

struct node {
  struct sim_node *machine;
  struct shoal_world *world;
  struct net *net;
  struct shoal_address address;
  struct net_peer *inbound; /* The last one that greeted us. */
  int requests, told, ups, downs, gones, closed, circuits[3], down_code;
  char down_text[TEXT_MAX];
  char order[64]; /* First byte of each message that came, as far as there is room. */
  /* How requests are answered. */
  enum { ECHO, HOLD, REFUSE, CLOSE_NET, CLOSE_PEER, IGNORE } mode;
  struct net_request held[OUTCOMES_MAX];
  int held_count;
};

struct outcome { /* Of a call or a send: exactly one must come. */
  int count, code;
  size_t length;
  uint64_t at_ns;
  char name[FRAME_NAME_MAX + 1];
  struct node *close; /* Close this node's net when it comes. */
};

static struct sim *sim;
static struct node nodes[NODES_MAX];

static inline uint64_t ms(uint64_t n) { return n * UINT64_C(1000000); }

static inline void on_request(void *data, struct net_peer *peer, const struct net_request *r, const uint8_t *bytes,
                              size_t length) {
  struct node *n = data;
  size_t count = (size_t)(n->requests + n->told);
  if (length && count + 1 < sizeof n->order) n->order[count] = (char)bytes[0];
  ++*(r->id ? &n->requests : &n->told);
  if (n->mode == CLOSE_NET) net_close(n->net);
  if (n->mode == CLOSE_PEER) net_peer_close(peer);
  if (!r->id) return;
  if (n->mode == HOLD) {
    MUST(n->held_count < OUTCOMES_MAX);
    n->held[n->held_count++] = *r;
  } else if (n->mode == REFUSE) {
    MUST(net_refuse(n->net, r, "TASTE", "not today") == 0);
  } else if (n->mode == ECHO) {
    MUST(net_reply(n->net, r, bytes, length) == 0);
  }
}

static inline void on_peer(void *data, struct net_peer *peer, enum net_peer_event event, int code, const char *text) {
  struct node *n = data;
  struct net_peer_info info;
  net_peer_info(peer, &info);
  switch (event) {
  case NET_UP:
    n->ups++;
    if (!info.dialled) n->inbound = peer;
    break;
  case NET_DOWN:
    n->downs++;
    n->down_code = code;
    snprintf(n->down_text, sizeof n->down_text, "%s", text);
    break;
  case NET_GONE:
    n->gones++;
    if (n->inbound == peer) n->inbound = NULL;
  }
}

static inline void on_circuit(void *data, struct net_peer *peer, enum breaker_status status) {
  struct node *n = data;
  struct net_peer_info info;
  net_peer_info(peer, &info);
  MUST(info.circuit == status);
  n->circuits[status]++;
}

static inline void on_net_closed(void *data) { ((struct node *)data)->closed++; }

static inline void on_outcome(void *data, const struct net_result *result) {
  struct outcome *o = data;
  MUST(o->count == 0); /* Each callback exactly once. */
  MUST((result->code == 0) == (result->name[0] == 0));
  MUST(result->code == 0 || result->bytes);
  o->count++;
  o->code = result->code;
  o->length = result->length;
  o->at_ns = sim_now_ns(sim);
  snprintf(o->name, sizeof o->name, "%s", result->name);
  if (o->close && !o->close->closed) net_close(o->close->net);
}

static const struct net_events node_events = {
    .on_request = on_request, .on_peer = on_peer, .on_circuit = on_circuit, .on_closed = on_net_closed};

/* A world of machines with addresses 10.0.0.1, ...; latency 1 ms, nothing lost. */
static inline void begin_sim(uint64_t seed, int machines) {
  static const char *const names[NODES_MAX] = {"a", "b", "c", "d"};
  struct sim_config config = {.seed = seed, .link = {.latency_ns = 1000000}};
  MUST(sim_open(&config, &sim) == 0);
  memset(nodes, 0, sizeof nodes);
  for (int i = 0; i < machines; i++) {
    nodes[i].address = (struct shoal_address){.family = 4, .bytes = {10, 0, 0, (uint8_t)(i + 1)}};
    MUST(sim_node_add(sim, names[i], &nodes[i].address, &nodes[i].machine) == 0);
    nodes[i].world = sim_node_world(nodes[i].machine);
    nodes[i].address.port = 7000;
  }
}

static inline void run_ms(uint64_t n) { sim_run_until(sim, sim_now_ns(sim) + ms(n)); }

/* Open node i's net with these options (names filled in), listening. */
static inline struct node *open_node(int i, const struct net_options *options) {
  static const char *const names[NODES_MAX] = {"a", "b", "c", "d"};
  struct net_options o = options ? *options : (struct net_options){0};
  if (!o.node) o.node = names[i];
  if (!o.cluster) o.cluster = "spec";
  struct node *n = &nodes[i];
  MUST(net_open(n->world, &o, &node_events, n, &n->net) == 0);
  MUST(net_listen(n->net, &n->address, NULL) == 0);
  return n;
}

static inline struct net_peer *peer_of(struct node *from, struct node *to) {
  struct net_peer *p, *again;
  MUST(net_peer(from->net, &to->address, &p) == 0 && net_peer(from->net, &to->address, &again) == 0 && p == again);
  return p;
}

static inline int call(struct net_peer *p, enum net_lane lane, const char *text, uint64_t timeout_ms, struct outcome *o) {
  int before = o->count;
  int rc = net_call(p, 1, lane, text, strlen(text), ms(timeout_ms), on_outcome, o, NULL);
  MUST(o->count == before); /* Never before the call returns. */
  return rc;
}

/* Close all open things, and check that nothing is left. */
static inline void end_sim(void) {
  for (int i = 0; i < NODES_MAX; i++)
    if (nodes[i].net && !nodes[i].closed) net_close(nodes[i].net); /* It is gone once it was closed. */
  run_ms(20000);
  for (int i = 0; i < NODES_MAX; i++) {
    struct world_telemetry t = {0};
    if (!nodes[i].net) continue;
    MUST(nodes[i].closed == 1);
    world_telemetry(nodes[i].world, &t);
    MUST(t.open_handles == 0);
  }
  sim_close(sim);
}

struct property {
  const char *name;
  void (*run)(void);
};
#define PROPERTY(name) {#name, name}

/* All of them, or with an argument those whose name contains it. */
static inline int run_properties(int argc, char **argv, const struct property *properties, size_t count) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (size_t i = 0; i < count; i++)
    if (argc < 2 || strstr(properties[i].name, argv[1])) properties[i].run();
  return 0;
}

#endif
