/* Clusters of core/swim for programs that study it: N cores, each on a node of the simulated world, joined to it as
 * c/lua/swim.c joins one to a real world. After every event of every node the invariants below are checked. A run is its seed. */
#ifndef SWIM_NET_H
#define SWIM_NET_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"
#include "core/rng.h"
#include "core/swim_private.h"
#include "world/sim.h"

#define MUST(condition) must((condition), #condition, __FILE__, __LINE__)
static const char *must_context = "";
static inline void must(bool held, const char *text, const char *file, int line) {
  if (held) return;
  printf("FAILED %s:%d: %s (%s)\n", file, line, text, must_context);
  exit(1);
}

enum { NODES = 128 };
#define SECOND UINT64_C(1000000000)
#define MILLISECOND UINT64_C(1000000)

struct belief { /* An observer's last view of a subject; the subject's own life is `lives`. */
  bool known, member, seen; /* seen: in this walk over the table. */
  struct swim_incarnation incarnation;
  uint8_t state;
  uint64_t since_ns;        /* When its state last changed there. */
};
struct net;
struct node {
  struct net *net;
  struct swim *swim; /* NULL while it is down. */
  struct sim_node *machine;
  struct shoal_world *world;
  struct world_udp *udp;
  struct world_timer *timer;
  char name[16];
  const char *cluster; /* NULL: "spec". */
  uint32_t id; /* The owner of its name: its own index in `nodes`, or a twin's. */
  struct shoal_address address;
  uint64_t pinged_ns; /* When it last had to; from then on it pings a member each period. */
  bool left_done, paused;
  uint32_t heard;
  struct belief beliefs[NODES];
  uint64_t events[8]; /* By kind, about any member. */
  uint32_t notices[3];        /* By kind, and the last one. */
  struct swim_notice notice;
  struct swim_incarnation highest; /* The greatest that its name ever had, over all its lives. */
};
struct net {
  struct sim *sim;
  struct rng rng; /* The spec's own draws. */
  struct node nodes[NODES];
  uint32_t count;
  struct swim_config config;
  struct sim_link link; /* The default one; set_link() after a change. */
  uint64_t deaths, sent[SWIM_TYPES], bytes;
  /* Hooks for specs: each datagram as it is sent, each event as it is delivered. */
  void (*on_send)(struct net *net, uint32_t from, uint32_t to, uint8_t type, const uint8_t *bytes, size_t length);
  void (*on_event)(struct net *net, uint32_t node, const struct swim_action *action);
  void *data;
};

static inline uint64_t now_ns(const struct net *net) { return sim_now_ns(net->sim); } /* True time; no node knows it. */
static inline uint64_t local_ns(const struct net *net, const struct node *n) { return (void)net, world_now_ns(n->world); }

static uint8_t family = 4; /* Of this run's addresses: every fourth seed's are IPv6. */

static inline struct shoal_address address_of(uint32_t index) {
  struct shoal_address a = {.family = family, .port = 7000};
  a.bytes[0] = family == 4 ? 10 : 0xfd;
  a.bytes[family == 4 ? 3 : 15] = (uint8_t)index;
  return a;
}

static inline uint32_t node_at(const struct net *net, const struct shoal_address *address) {
  for (uint32_t i = 0; i < net->count; i++)
    if (address_equal(&net->nodes[i].address, address)) return i;
  return NODES;
}

static inline uint32_t node_named(const char *name, size_t length) {
  char text[16] = {0};
  if (length < 2 || length >= sizeof text || name[0] != 'n') return NODES;
  memcpy(text, name + 1, length - 1);
  return (uint32_t)atoi(text);
}

static inline void set_link(struct net *net) { sim_set_default_link(net->sim, &net->link); }

static inline void set_loss(struct net *net, double loss) {
  net->link.loss = loss;
  set_link(net);
}

static inline struct net *net_open(uint64_t seed, const char *profile) {
  struct net *net = calloc(1, sizeof *net);
  MUST(net);
  family = seed % 4 == 3 ? 6 : 4;
  rng_seed(&net->rng, seed);
  net->link = (struct sim_link){.latency_ns = 500000, .jitter_ns = 500000};
  MUST(sim_open(&(struct sim_config){.seed = seed, .link = net->link}, &net->sim) == 0);
  MUST(swim_config_profile(profile, &net->config) == 0 && !swim_config_check(&net->config));
  return net;
}

static inline void net_close(struct net *net) {
  for (uint32_t i = 0; i < net->count; i++)
    if (net->nodes[i].swim) swim_close(net->nodes[i].swim);
  sim_close(net->sim);
  free(net);
}

static inline void fly(struct net *net, uint32_t from, const struct swim_action *a) {
  uint32_t to = node_at(net, &a->to);
  uint8_t type = a->bytes[2] & 15;
  MUST(a->length <= net->config.datagram_max && a->length <= SWIM_DATAGRAM_MAX);
  MUST(to != from);
  net->sent[type]++;
  net->bytes += a->length;
  if (type == PING) net->nodes[from].pinged_ns = now_ns(net);
  if (net->on_send) net->on_send(net, from, to, type, a->bytes, a->length);
  MUST(world_udp_send(net->nodes[from].udp, &a->to, a->bytes, a->length) == 0);
}

/* The event stream replayed must give the table: join and leave the living in turn. */
static inline void replay(struct net *net, uint32_t at, const struct swim_action *a) {
  uint32_t subject = node_named(a->member.name, a->member.name_length);
  MUST(subject < net->count && subject != net->nodes[at].id); /* No member appears that never existed. */
  struct belief *b = &net->nodes[at].beliefs[subject];
  net->nodes[at].events[a->event]++;
  switch (a->event) {
    case SWIM_EVENT_JOIN: MUST(!b->member); b->member = true; break;
    case SWIM_EVENT_DEAD: MUST(b->member); b->member = false; net->deaths++; break;
    case SWIM_EVENT_LEFT: MUST(b->member); b->member = false; break;
    case SWIM_EVENT_USER: break; /* Also from a member whose life has ended. */
    case SWIM_EVENT_FORGOTTEN: MUST(!b->member); b->known = false; break;
    default: MUST(b->member); break;
  }
  if (net->on_event) net->on_event(net, at, a);
}

/* A member that is no longer in the table was dead or had left, and for long enough. */
static inline void check_forgotten(struct net *net, struct node *n) {
  for (uint32_t i = 0; i < net->count; i++) {
    struct belief *b = &n->beliefs[i];
    if (!b->known || b->seen) continue;
    MUST(b->state == SWIM_DEAD || b->state == SWIM_LEFT);
    /* A pause is excused: it found it dead when it woke, though that was so before. */
    MUST(now_ns(net) - b->since_ns + MILLISECOND >= net->config.tombstone_ms * MILLISECOND);
    b->known = false; /* It may begin anew. */
  }
}

/* A node that has a member to probe does so each period, whose length depends on its health. But it skips a period at a member whose
 * address is now its own, and there may be another such member after it. */
static inline void check_pings(struct net *net, struct node *n, uint32_t others) {
  if (n->paused || swim_is_leaving(n->swim) || swim_silent(n->swim) || others == 0) n->pinged_ns = now_ns(net);
  uint64_t longest_ns = net->config.probe_interval_ms * (net->config.health_max + 1) * MILLISECOND;
  MUST(now_ns(net) - n->pinged_ns <= 3 * longest_ns + MILLISECOND);
}

static inline void check_node(struct net *net, uint32_t at) {
  struct node *n = &net->nodes[at];
  struct swim_member m;
  uint32_t cursor = 0, others = 0; /* The members that it can ping: not those that lived at its address before. */
  swim_check(n->swim);
  MUST(n->swim->sends_count == 0 && n->swim->events_count == 0 && n->swim->counts.dropped == 0);
  for (uint32_t i = 0; i < net->count; i++) n->beliefs[i].seen = false;
  while (swim_each(n->swim, &cursor, &m)) {
    uint32_t subject = node_named(m.name, m.name_length);
    MUST(subject < net->count);
    struct belief *b = &n->beliefs[subject];
    MUST(!b->seen); /* A name stands in the table once. */
    uint8_t said = n->swim->members[swim_members_find(n->swim, m.name, m.name_length)].state; /* Below what a held one is shown as. */
    MUST(m.held ? m.state == SWIM_DEAD && said != SWIM_LEFT : m.state == said);
    int order = swim_incarnation_compare(m.incarnation, b->incarnation);
    MUST(!b->known || order > 0 || (order == 0 && said >= b->state)); /* Never down. */
    struct swim_incarnation *highest = &net->nodes[subject].highest;
    if (subject == n->id && swim_incarnation_compare(m.incarnation, *highest) > 0) *highest = m.incarnation;
    /* Only the subject raises its incarnation: no member ever holds a higher one than the subject has claimed. */
    MUST(swim_incarnation_compare(m.incarnation, *highest) <= 0);
    if (subject != n->id) MUST(b->member == (m.state == SWIM_ALIVE || m.state == SWIM_SUSPECT));
    others += subject != n->id && said <= SWIM_SUSPECT && !address_equal(&m.address, &n->address);
    if (!b->known || b->state != said) b->since_ns = now_ns(net);
    b->known = b->seen = true, b->incarnation = m.incarnation, b->state = said;
  }
  check_forgotten(net, n);
  check_pings(net, n, others);
}

/* Take all actions of a node, and look at it. */
static inline void settle(struct net *net, uint32_t at) {
  struct node *n = &net->nodes[at];
  struct swim_action a;
  struct swim_member self;
  swim_self(n->swim, &self);
  struct swim_incarnation *highest = &net->nodes[n->id].highest;
  if (swim_incarnation_compare(self.incarnation, *highest) > 0) *highest = self.incarnation;
  while (swim_next(n->swim, &a)) {
    if (a.kind == SWIM_SEND) fly(net, at, &a);
    else if (a.kind == SWIM_EVENT) replay(net, at, &a);
    else if (a.kind == SWIM_NOTICE) n->notices[a.notice->kind]++, n->notice = *a.notice;
    else n->left_done = true, n->heard = a.heard;
  }
  check_node(net, at);
  uint64_t due = swim_deadline(n->swim);
  if (due == UINT64_MAX) world_timer_stop(n->timer);
  else world_timer_start(n->timer, due);
}

static inline void on_timer(void *data) {
  struct node *n = data;
  swim_tick(n->swim, world_now_ns(n->world));
  settle(n->net, (uint32_t)(n - n->net->nodes));
}

static inline void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct node *n = data;
  (void)swim_receive(n->swim, world_now_ns(n->world), from, bytes, length); /* Counted there. */
  settle(n->net, (uint32_t)(n - n->net->nodes));
}

static inline void start(struct net *net, uint32_t at, uint32_t generation) {
  static const struct world_udp_events events = {.on_datagram = on_datagram};
  struct node *n = &net->nodes[at];
  MUST(!n->swim);
  if (!n->world) n->world = sim_node_restart(n->machine);
  MUST(n->world && world_udp_open(n->world, &n->address, &events, n, &n->udp) == 0);
  MUST(world_timer_open(n->world, on_timer, NULL, n, &n->timer) == 0);
  memset(n->beliefs, 0, sizeof n->beliefs);
  n->left_done = n->paused = false;
  n->pinged_ns = now_ns(net);
  const char *cluster = n->cluster ? n->cluster : "spec";
  struct swim_identity identity = {.name = n->name, .name_length = strlen(n->name), .cluster = cluster, .cluster_length = strlen(cluster),
                                   .address = n->address, .generation = generation, .payload = (const uint8_t *)n->name,
                                   .payload_length = strlen(n->name)};
  MUST(swim_open(&net->config, &identity, world_random(n->world), world_now_ns(n->world), &n->swim) == 0);
  settle(net, at);
}

static inline struct node *blank_node(struct net *net) {
  struct node *n = &net->nodes[net->count];
  MUST(net->count < NODES);
  n->id = net->count;
  (void)snprintf(n->name, sizeof n->name, "n%u", net->count++);
  n->net = net;
  return n;
}

static inline uint32_t net_add(struct net *net) {
  uint32_t at = net->count;
  struct node *n = blank_node(net);
  n->address = address_of(at);
  struct shoal_address machine = n->address;
  machine.port = 0;
  MUST(sim_node_add(net->sim, n->name, &machine, &n->machine) == 0);
  n->world = sim_node_world(n->machine);
  start(net, at, 1000);
  return at;
}

static inline void join(struct net *net, uint32_t at, uint32_t seed) {
  MUST(swim_join(net->nodes[at].swim, local_ns(net, &net->nodes[at]), &net->nodes[seed].address) == 0);
  settle(net, at);
}

static inline void crash(struct net *net, uint32_t at) {
  struct node *n = &net->nodes[at];
  sim_node_crash(n->machine); /* Its socket and timer go with it. */
  swim_close(n->swim);
  n->swim = NULL;
  n->world = NULL;
}

static inline void leave(struct net *net, uint32_t at) {
  swim_leave(net->nodes[at].swim, local_ns(net, &net->nodes[at]));
  settle(net, at);
}

static inline void run(struct net *net, uint64_t duration_ns) { sim_run_until(net->sim, now_ns(net) + duration_ns); }

static inline void pause_node(struct net *net, uint32_t at, bool paused) {
  struct node *n = &net->nodes[at];
  n->paused = paused;
  n->pinged_ns = now_ns(net); /* From when it wakes. */
  sim_node_pause(n->machine, paused);
}

static inline void cut_one(struct net *net, uint32_t from, uint32_t to, bool cut) {
  sim_cut(net->sim, net->nodes[from].machine, net->nodes[to].machine, cut);
}

static inline void cut_both(struct net *net, uint32_t a, uint32_t b, bool cut) {
  cut_one(net, a, b, cut);
  cut_one(net, b, a, cut);
}

static inline enum swim_state believes(const struct net *net, uint32_t at, uint32_t subject) {
  struct swim_member m;
  const char *name = net->nodes[subject].name;
  return swim_find(net->nodes[at].swim, name, strlen(name), &m) ? m.state : (enum swim_state)99;
}

/* Of all nodes that are up, from now on; 0 releases held members (c/core/swim_flap.c), for specs with another subject. */
static inline void set_flap_limit(struct net *net, uint32_t flap_limit) {
  struct swim_config config = net->config;
  config.flap_limit = flap_limit;
  for (uint32_t i = 0; i < net->count; i++)
    if (net->nodes[i].swim) MUST(swim_reconfigure(net->nodes[i].swim, local_ns(net, &net->nodes[i]), &config) == 0);
}

/* Each node that is up sees all nodes that are up alive with the same incarnation and payload, and no other. */
static inline bool converged(const struct net *net) {
  uint32_t up = 0, digest = 0;
  for (uint32_t i = 0; i < net->count; i++) up += net->nodes[i].swim != NULL && !net->nodes[i].swim->leaving;
  for (uint32_t i = 0, first = 1; i < net->count; i++) {
    const struct swim *s = net->nodes[i].swim;
    if (!s || s->leaving) continue;
    if (first) digest = swim_digest(s), first = 0;
    if (swim_live(s) != up || swim_digest(s) != digest || s->suspects.count > 0) return false;
  }
  return true;
}

/* Run until all agree; returns how long it took, or fails after limit_ns. */
static inline uint64_t until_converged(struct net *net, uint64_t limit_ns) {
  uint64_t begin_ns = now_ns(net);
  while (!converged(net)) {
    MUST(now_ns(net) - begin_ns < limit_ns);
    run(net, 10 * MILLISECOND);
  }
  return now_ns(net) - begin_ns;
}

/* `count` nodes, all with node 0 as their seed, converged. */
static inline struct net *cluster(uint64_t seed, uint32_t count, const char *profile) {
  struct net *net = net_open(seed, profile);
  for (uint32_t i = 0; i < count; i++) net_add(net);
  for (uint32_t i = 1; i < count; i++) join(net, i, 0);
  until_converged(net, 30 * SECOND);
  return net;
}

/* ---- programs of specs: [PART OF A NAME [TIMES AS MANY SEEDS]] ---- */

struct net_spec {
  const char *name;
  void (*run)(uint64_t seed);
  int seeds;
};
#define NET_SPEC(name, seeds) {#name, name, seeds}

static inline int net_specs(int argc, char **argv, const struct net_spec *specs, size_t count) {
  int times = argc > 2 ? atoi(argv[2]) : 1;
  for (size_t i = 0; i < count; i++) {
    if (argc > 1 && argv[1][0] && !strstr(specs[i].name, argv[1])) continue;
    for (int seed = 1; seed <= specs[i].seeds * times; seed++) {
      char context[128];
      (void)snprintf(context, sizeof context, "%s, seed %d", specs[i].name, seed);
      must_context = context;
      specs[i].run((uint64_t)seed);
    }
    printf("ok %s (%d seeds)\n", specs[i].name, specs[i].seeds * times);
    fflush(stdout);
  }
  return 0;
}

#endif
