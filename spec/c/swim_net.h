/* A small virtual network for programs that study core/swim: N cores, one virtual clock, a directed link for each pair with latency,
 * jitter, loss and cuts; each node has an epoch of its own. After every event of every node the invariants below are checked.
 * A run is its seed. */
#ifndef SWIM_NET_H
#define SWIM_NET_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"
#include "core/heap.h"
#include "core/rng.h"
#include "core/swim_private.h"

#define MUST(condition) must((condition), #condition, __FILE__, __LINE__)
static const char *must_context = "";
static inline void must(bool held, const char *text, const char *file, int line) {
  if (held) return;
  printf("FAILED %s:%d: %s (%s)\n", file, line, text, must_context);
  exit(1);
}

enum { NODES = 128, PACKETS_SEEN = 8 };
#define SECOND UINT64_C(1000000000)
#define MILLISECOND UINT64_C(1000000)

struct packet {
  uint32_t from, to;
  size_t length;
  uint8_t bytes[SWIM_DATAGRAM_MAX];
};
struct belief { /* What an observer last believed of a subject; subject's own life is `lives`. */
  bool known, member;
  struct swim_incarnation incarnation;
  uint8_t state;
};
struct node {
  struct swim *swim; /* NULL while it is down. */
  char name[16];
  struct shoal_address address;
  uint64_t epoch_ns;
  uint32_t handle; /* Of its deadline. */
  bool paused, left_done;
  uint32_t heard;
  struct belief beliefs[NODES];
  uint64_t events[6]; /* By kind, about anybody. */
  struct swim_incarnation highest; /* The greatest it ever had, over all its lives. */
};
struct net {
  struct rng rng;
  uint64_t now_ns;
  struct node nodes[NODES];
  uint32_t count;
  struct swim_config config;
  uint64_t latency_ns, jitter_ns; /* Floor, and mean of what is added. */
  double loss;
  bool cut[NODES][NODES]; /* From, to. */
  struct heap wakes, flights; /* Keys: node; packet. */
  struct packet **packets;
  uint32_t packets_count, *idle_packets, idle_count;
  uint64_t deaths, sent[SWIM_TYPES], bytes;
  /* What a spec may look at: each datagram as it is sent, each event as it is delivered. */
  void (*on_send)(struct net *net, uint32_t from, uint32_t to, uint8_t type, const uint8_t *bytes, size_t length);
  void (*on_event)(struct net *net, uint32_t node, const struct swim_action *action);
  void *data;
};

static inline uint64_t local_ns(const struct net *net, const struct node *n) { return net->now_ns + n->epoch_ns; }

static inline struct shoal_address address_of(uint32_t index) {
  struct shoal_address a = {.family = index % 5 == 4 ? 6 : 4, .port = 7000};
  if (a.family == 4) a.bytes[0] = 10, a.bytes[2] = (uint8_t)(index >> 8), a.bytes[3] = (uint8_t)index;
  else a.bytes[0] = 0xfd, a.bytes[15] = (uint8_t)index;
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

static inline struct net *net_open(uint64_t seed, const char *profile) {
  struct net *net = calloc(1, sizeof *net);
  MUST(net);
  rng_seed(&net->rng, seed);
  net->latency_ns = 500000;
  net->jitter_ns = 500000;
  MUST(swim_config_profile(profile, &net->config) == 0 && !swim_config_check(&net->config));
  return net;
}

static inline void net_close(struct net *net) {
  for (uint32_t i = 0; i < net->count; i++)
    if (net->nodes[i].swim) swim_close(net->nodes[i].swim);
  for (uint32_t i = 0; i < net->packets_count; i++) free(net->packets[i]);
  free(net->packets);
  free(net->idle_packets);
  heap_free(&net->wakes);
  heap_free(&net->flights);
  free(net);
}

static inline void fly(struct net *net, uint32_t from, const struct swim_action *a) {
  uint32_t to = node_at(net, &a->to);
  uint8_t type = a->bytes[2] & 15;
  MUST(a->length <= net->config.datagram_max && a->length <= SWIM_DATAGRAM_MAX);
  MUST(to != from);
  net->sent[type]++;
  net->bytes += a->length;
  if (net->on_send) net->on_send(net, from, to, type, a->bytes, a->length);
  if (to == NODES || net->cut[from][to] || rng_unit(&net->rng) < net->loss) return;
  if (net->idle_count == 0) {
    uint32_t grown = net->packets_count ? 2 * net->packets_count : 64;
    net->packets = realloc(net->packets, grown * sizeof *net->packets);
    net->idle_packets = realloc(net->idle_packets, grown * sizeof *net->idle_packets);
    MUST(net->packets && net->idle_packets);
    for (uint32_t i = net->packets_count; i < grown; i++) {
      net->packets[i] = malloc(sizeof **net->packets);
      MUST(net->packets[i]);
      net->idle_packets[net->idle_count++] = i;
    }
    net->packets_count = grown;
  }
  uint32_t index = net->idle_packets[--net->idle_count], handle;
  struct packet *p = net->packets[index];
  p->from = from, p->to = to, p->length = a->length;
  memcpy(p->bytes, a->bytes, a->length);
  uint64_t delay = net->latency_ns + (uint64_t)rng_exponential(&net->rng, (double)net->jitter_ns);
  MUST(heap_add(&net->flights, net->now_ns + delay, index, &handle) == 0);
}

/* The event stream replayed must give the table: join and leave the living in turn. */
static inline void replay(struct net *net, uint32_t at, const struct swim_action *a) {
  uint32_t subject = node_named(a->member.name, a->member.name_length);
  MUST(subject < net->count && subject != at); /* Nobody appears who never existed. */
  struct belief *b = &net->nodes[at].beliefs[subject];
  net->nodes[at].events[a->event]++;
  switch (a->event) {
    case SWIM_EVENT_JOIN: MUST(!b->member); b->member = true; break;
    case SWIM_EVENT_DEAD: MUST(b->member); b->member = false; net->deaths++; break;
    case SWIM_EVENT_LEFT: MUST(b->member); b->member = false; break;
    default: MUST(b->member); break;
  }
  if (net->on_event) net->on_event(net, at, a);
}

static inline void check_node(struct net *net, uint32_t at) {
  struct node *n = &net->nodes[at];
  struct swim_member m;
  uint32_t cursor = 0;
  swim_check(n->swim);
  MUST(n->swim->sends_count == 0 && n->swim->events_count == 0 && n->swim->counts.dropped == 0);
  while (swim_each(n->swim, &cursor, &m)) {
    uint32_t subject = node_named(m.name, m.name_length);
    MUST(subject < net->count);
    struct belief *b = &n->beliefs[subject];
    int order = incarnation_compare(m.incarnation, b->incarnation);
    MUST(!b->known || order > 0 || (order == 0 && m.state >= b->state)); /* Never down. */
    if (subject == at && incarnation_compare(m.incarnation, n->highest) > 0) n->highest = m.incarnation;
    /* Only the subject raises its incarnation: nobody ever believes more than it has claimed itself. */
    MUST(incarnation_compare(m.incarnation, net->nodes[subject].highest) <= 0);
    if (subject != at) MUST(b->member == (m.state == SWIM_ALIVE || m.state == SWIM_SUSPECT));
    b->known = true, b->incarnation = m.incarnation, b->state = (uint8_t)m.state;
  }
}

/* Take all actions of a node, and look at it. */
static inline void settle(struct net *net, uint32_t at) {
  struct node *n = &net->nodes[at];
  struct swim_action a;
  struct swim_member self;
  swim_self(n->swim, &self);
  if (incarnation_compare(self.incarnation, n->highest) > 0) n->highest = self.incarnation;
  while (swim_next(n->swim, &a)) {
    if (a.kind == SWIM_SEND) fly(net, at, &a);
    else if (a.kind == SWIM_EVENT) replay(net, at, &a);
    else n->left_done = true, n->heard = a.heard;
  }
  check_node(net, at);
  uint64_t due = swim_deadline(n->swim);
  heap_move(&net->wakes, n->handle, n->paused || due == UINT64_MAX ? UINT64_MAX : due < n->epoch_ns ? net->now_ns : due - n->epoch_ns);
}

static inline void start(struct net *net, uint32_t at, uint32_t generation) {
  struct node *n = &net->nodes[at];
  struct swim_identity identity = {.name = n->name, .name_length = strlen(n->name), .cluster = "spec", .cluster_length = 4,
                                   .address = n->address, .generation = generation, .payload = (const uint8_t *)n->name,
                                   .payload_length = strlen(n->name)};
  MUST(!n->swim);
  memset(n->beliefs, 0, sizeof n->beliefs);
  n->left_done = n->paused = false;
  n->epoch_ns = SECOND + rng_below(&net->rng, 1000 * SECOND);
  MUST(swim_open(&net->config, &identity, rng_next(&net->rng), local_ns(net, n), &n->swim) == 0);
  settle(net, at);
}

static inline uint32_t net_add(struct net *net) {
  uint32_t at = net->count++;
  struct node *n = &net->nodes[at];
  MUST(at < NODES);
  (void)snprintf(n->name, sizeof n->name, "n%u", at);
  n->address = address_of(at);
  MUST(heap_add(&net->wakes, UINT64_MAX, at, &n->handle) == 0);
  start(net, at, 1000);
  return at;
}

static inline void join(struct net *net, uint32_t at, uint32_t seed) {
  MUST(swim_join(net->nodes[at].swim, local_ns(net, &net->nodes[at]), &net->nodes[seed].address) == 0);
  settle(net, at);
}

static inline void crash(struct net *net, uint32_t at) {
  struct node *n = &net->nodes[at];
  swim_close(n->swim);
  n->swim = NULL;
  heap_move(&net->wakes, n->handle, UINT64_MAX);
}

static inline void leave(struct net *net, uint32_t at) {
  swim_leave(net->nodes[at].swim, local_ns(net, &net->nodes[at]));
  settle(net, at);
}

static inline void deliver(struct net *net) {
  const struct heap_entry *e = heap_first(&net->flights);
  uint32_t index = (uint32_t)e->key;
  struct packet *p = net->packets[index];
  struct node *to = &net->nodes[p->to];
  if (to->paused) { /* It lies in the socket's buffer. */
    heap_move(&net->flights, e->handle, net->now_ns + 10 * MILLISECOND);
    return;
  }
  heap_remove(&net->flights, e->handle);
  if (to->swim && !net->cut[p->from][p->to]) {
    (void)swim_receive(to->swim, local_ns(net, to), &net->nodes[p->from].address, p->bytes, p->length); /* Counted there. */
    settle(net, p->to);
  }
  net->idle_packets[net->idle_count++] = index;
}

static inline void run(struct net *net, uint64_t duration_ns) {
  uint64_t end_ns = net->now_ns + duration_ns;
  for (;;) {
    uint64_t wake = heap_deadline(&net->wakes), flight = heap_deadline(&net->flights), at = earlier(wake, flight);
    if (at > end_ns) break;
    if (at > net->now_ns) net->now_ns = at;
    if (flight <= wake) {
      deliver(net);
    } else {
      uint32_t index = (uint32_t)heap_first(&net->wakes)->key;
      swim_tick(net->nodes[index].swim, local_ns(net, &net->nodes[index]));
      settle(net, index);
    }
  }
  net->now_ns = end_ns;
}

static inline void pause_node(struct net *net, uint32_t at, bool paused) {
  net->nodes[at].paused = paused;
  settle(net, at);
}

static inline void cut_both(struct net *net, uint32_t a, uint32_t b, bool cut) { net->cut[a][b] = net->cut[b][a] = cut; }

static inline enum swim_state believes(const struct net *net, uint32_t at, uint32_t subject) {
  struct swim_member m;
  const char *name = net->nodes[subject].name;
  return swim_find(net->nodes[at].swim, name, strlen(name), &m) ? m.state : (enum swim_state)99;
}

/* Everybody up sees everybody up alive with the same incarnation and payload, and nobody else. */
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
  uint64_t begin_ns = net->now_ns;
  while (!converged(net)) {
    MUST(net->now_ns - begin_ns < limit_ns);
    run(net, 10 * MILLISECOND);
  }
  return net->now_ns - begin_ns;
}

/* `count` nodes, all with node 0 as their seed, converged. */
static inline struct net *cluster(uint64_t seed, uint32_t count, const char *profile) {
  struct net *net = net_open(seed, profile);
  for (uint32_t i = 0; i < count; i++) net_add(net);
  for (uint32_t i = 1; i < count; i++) join(net, i, 0);
  until_converged(net, 30 * SECOND);
  return net;
}

#endif
