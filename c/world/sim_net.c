#include "world/sim_private.h"

/* ---- who has an address ---- */

static bool same_host(const struct shoal_address *a, const struct shoal_address *b) {
  return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool sim_is_any(const struct shoal_address *a) {
  static const uint8_t zero[16];
  return memcmp(a->bytes, zero, sizeof zero) == 0;
}

static uint32_t address_slot(const struct sim *s, const struct shoal_address *a) {
  uint64_t halves[2];
  memcpy(halves, a->bytes, sizeof halves);
  return (uint32_t)sim_mix(halves[0] + sim_mix(halves[1] + a->family)) & (s->by_address_size - 1);
}

static void place(struct sim *s, const struct sim_node *n) {
  uint32_t slot = address_slot(s, &n->address);
  while (s->by_address[slot]) slot = (slot + 1) & (s->by_address_size - 1);
  s->by_address[slot] = n->index + 1;
}

void sim_place_node(struct sim *s, struct sim_node *n) {
  if (s->nodes_count * 2 <= s->by_address_size) {
    place(s, n);
    return;
  }
  free(s->by_address);
  s->by_address_size = s->by_address_size ? s->by_address_size * 2 : 16;
  s->by_address = calloc(s->by_address_size, sizeof *s->by_address);
  if (!s->by_address) abort();
  for (uint32_t i = 0; i < s->nodes_count; i++) place(s, s->nodes[i]);
}

struct sim_node *sim_node_at(const struct sim *s, const struct shoal_address *address) {
  if (s->by_address_size == 0) return NULL;
  for (uint32_t slot = address_slot(s, address); s->by_address[slot]; slot = (slot + 1) & (s->by_address_size - 1)) {
    struct sim_node *n = s->nodes[s->by_address[slot] - 1];
    if (same_host(&n->address, address)) return n;
  }
  return NULL;
}

struct sim_node *sim_route(struct sim_node *from, const struct shoal_address *to) {
  struct sim_node *n = sim_node_at(from->sim, to);
  if (n) return n;
  return address_is_loopback(to) || sim_is_any(to) ? from : NULL;
}

/* ---- datagrams ---- */

struct sim_udp {
  union {
    struct world_udp base;
    struct sim_thing thing;
  };
  struct sim_udp *next; /* Of its node. */
  struct shoal_address address;
  struct world_udp_events events;
};

struct sim_datagram {
  struct sim_event arrive;
  struct sim_node *from, *to;
  struct shoal_address source, destination;
  uint32_t length;
  uint8_t bytes[];
};

static size_t datagram_size(size_t length) { return sizeof(struct sim_datagram) + length; }

/* All that can befall a datagram on its way is decided here, when it is sent. (A cut also takes what is under way.) */
struct fate {
  const char *dropped; /* Why; NULL: it arrives. */
  uint64_t delay_ns;
};

static struct fate decide(struct sim *s, const struct sim_node *from, const struct sim_node *to) {
  if (sim_is_cut(s, from, to)) return (struct fate){.dropped = "cut"};
  const struct sim_link *link = sim_link_of(s, from, to);
  if (link->loss > 0 && rng_unit(&s->chance) < link->loss) return (struct fate){.dropped = "loss"};
  return (struct fate){.delay_ns = sim_link_delay(s, link)};
}

static struct sim_udp *find_udp(const struct sim_node *n, const struct shoal_address *to) {
  for (struct sim_udp *u = n->udps; u; u = u->next)
    if (u->address.port == to->port && !u->thing.handle.closing &&
        (same_host(&u->address, to) || (sim_is_any(&u->address) && u->address.family == to->family)))
      return u;
  return NULL;
}

static void on_arrive(struct sim *s, struct sim_event *e) {
  struct sim_datagram *d = SIM_AROUND(struct sim_datagram, arrive, e);
  struct sim_udp *u = NULL;
  if (s->nodes_count > 0) { /* Not while all is closed. */
    if (d->to->paused) {
      sim_event_hold(d->to, e);
      return;
    }
    bool cut = sim_is_cut(s, d->from, d->to);
    if (!cut) u = find_udp(d->to, &d->destination);
    SIM_NOTE(s, "%s %s>%s udp %u%s", u ? "deliver" : "drop", d->from->name, d->to->name, d->length,
             u ? "" : cut ? " cut" : d->to->world ? " no socket" : " down");
  }
  if (u) {
    sim_enter(sim_world_of(u->thing.handle.world));
    u->events.on_datagram(u->thing.data, &d->source, d->bytes, d->length);
  }
  sim_give(s, d, datagram_size(d->length));
}

int sim_udp_send(struct world_udp *base, const struct shoal_address *to, const void *bytes, size_t length) {
  struct sim_udp *u = (struct sim_udp *)(void *)base;
  struct sim_node *from = sim_world_of(u->thing.handle.world)->node, *node;
  struct sim *s = from->sim;
  if (to->family != u->address.family || to->port == 0) return -EINVAL;
  node = sim_route(from, to);
  if (!node) {
    SIM_NOTE(s, "drop %s>nowhere udp %zu", from->name, length);
    return 0;
  }
  struct fate fate = decide(s, from, node);
  if (fate.dropped) {
    SIM_NOTE(s, "drop %s>%s udp %zu %s", from->name, node->name, length, fate.dropped);
    return 0;
  }
  struct sim_datagram *d = sim_take(s, datagram_size(length));
  *d = (struct sim_datagram){.arrive = {.run = on_arrive}, .from = from, .to = node, .length = (uint32_t)length,
                             .source = sim_source(from, &u->address, to), .destination = *to};
  if (sim_is_any(to)) d->destination = d->source, d->destination.port = to->port;
  if (length) memcpy(d->bytes, bytes, length);
  sim_event_at(s, &d->arrive, s->now_ns + fate.delay_ns);
  return 0;
}

/* ---- binding ---- */

uint16_t sim_next_port(struct sim_node *n) {
  n->last_port = (uint16_t)((n->last_port + 1) % SIM_PORTS);
  return (uint16_t)(SIM_PORTS_FIRST + n->last_port);
}

int sim_can_bind(const struct sim_node *n, const struct shoal_address *bind) {
  if (bind->family != 4 && bind->family != 6) return -EINVAL;
  if (sim_is_any(bind) || same_host(bind, &n->address)) return 0;
  return address_is_loopback(bind) && sim_route((struct sim_node *)n, bind) == n ? 0 : -EADDRNOTAVAIL;
}

bool sim_binds_meet(const struct shoal_address *a, const struct shoal_address *b) {
  return a->port == b->port && a->family == b->family && (same_host(a, b) || sim_is_any(a) || sim_is_any(b));
}

struct shoal_address sim_source(const struct sim_node *n, const struct shoal_address *local,
                                const struct shoal_address *to) {
  struct shoal_address source = *local;
  if (!sim_is_any(local)) return source;
  if (address_is_loopback(to) && !sim_is_any(to) && sim_route((struct sim_node *)n, to) == n) {
    memcpy(source.bytes, to->bytes, sizeof source.bytes);
  } else if (n->address.family == local->family) {
    memcpy(source.bytes, n->address.bytes, sizeof source.bytes);
  } else { /* It has no address of this family but its loopback. */
    memset(source.bytes, 0, sizeof source.bytes);
    if (source.family == 4) source.bytes[0] = 127;
    source.bytes[source.family == 4 ? 3 : 15] = 1;
  }
  return source;
}

static bool taken(const struct sim_node *n, const struct shoal_address *address) {
  for (const struct sim_udp *u = n->udps; u; u = u->next)
    if (sim_binds_meet(&u->address, address)) return true;
  return false;
}

static void udp_leave(struct sim_udp *u) {
  struct sim_udp **link = &sim_world_of(u->thing.handle.world)->node->udps;
  while (*link && *link != u) link = &(*link)->next;
  if (*link) *link = u->next;
}

static void udp_drop(struct sim_thing *thing) {
  struct sim_udp *u = SIM_AROUND(struct sim_udp, thing, thing);
  struct sim *s = sim_of(thing);
  udp_leave(u);
  sim_thing_leave(thing);
  sim_give(s, u, sizeof *u);
}

int sim_udp_open(struct shoal_world *base, const struct shoal_address *bind, const struct world_udp_events *events,
                 void *data, struct world_udp **out) {
  struct sim_world *w = sim_world_of(base);
  struct sim_node *n = w->node;
  int rc = sim_can_bind(n, bind);
  if (rc < 0) return rc;
  struct shoal_address address = *bind;
  if (address.port == 0) {
    uint32_t tries = 0;
    do {
      if (tries++ > SIM_PORTS) return -EADDRINUSE;
      address.port = sim_next_port(n);
    } while (taken(n, &address));
  } else if (taken(n, &address)) {
    return -EADDRINUSE;
  }
  struct sim_udp *u = sim_take(n->sim, sizeof *u);
  *u = (struct sim_udp){.address = address, .events = *events, .next = n->udps};
  n->udps = u;
  sim_thing_open(w, &u->thing, udp_drop, events->on_closed, data);
  *out = &u->base;
  return 0;
}

void sim_udp_address(struct world_udp *u, struct shoal_address *out) {
  *out = ((struct sim_udp *)(void *)u)->address;
}

void sim_udp_close(struct world_udp *base) {
  struct sim_udp *u = (struct sim_udp *)(void *)base;
  udp_leave(u); /* Its port is free at once. */
  sim_thing_close(&u->thing);
}
