#include "world/sim_private.h"

/* ---- addresses ---- */

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

/* Rebuild the table: with open addressing one slot cannot be emptied alone. */
static void place_all(struct sim *s) {
  memset(s->by_address, 0, s->by_address_size * sizeof *s->by_address);
  for (uint32_t i = 0; i < s->nodes_count; i++) place(s, s->nodes[i]);
}

int sim_node_readdress(struct sim_node *n, const struct shoal_address *address) {
  struct sim *s = n->sim;
  struct shoal_address plain = *address;
  plain.port = 0;
  if (plain.family == 0) return ERR_MALFORMED;
  if (n->world) return -EBUSY;
  struct sim_node *holder = sim_node_at(s, &plain);
  if (holder == n) return 0;
  if (holder && holder->world) return ERR_EXISTS;
  SIM_NOTE(s, "readdress %s%s%s", n->name, holder ? " swaps with " : "", holder ? holder->name : "");
  if (holder) holder->address = n->address;
  n->address = plain;
  place_all(s);
  s->readdressed = true;
  sim_streams_readdressed(n, holder);
  return 0;
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

static struct sim_udp *find_udp(const struct sim_node *n, const struct shoal_address *to) {
  for (struct sim_udp *u = n->udps; u; u = u->next)
    if (u->address.port == to->port && !u->thing.handle.closing &&
        (same_host(&u->address, to) || (sim_is_any(&u->address) && u->address.family == to->family)))
      return u;
  return NULL;
}

static void forget(struct sim *s, struct sim_datagram *d) { sim_give(s, d, datagram_size(d->length)); }

static void drop(struct sim *s, struct sim_datagram *d, const char *why) {
  SIM_NOTE(s, "drop %s>%s udp %u %s", d->from->name, d->to->name, d->length, why);
  forget(s, d);
}

/* Give it to the socket, if there is one. */
static void deliver(struct sim *s, struct sim_datagram *d) {
  struct sim_udp *u = find_udp(d->to, &d->destination);
  if (!u) {
    drop(s, d, d->to->world ? "no socket" : "down");
    return;
  }
  struct sim_world *w = sim_world_of(u->thing.handle.world);
  if (w->stalled) {
    sim_ring_push(&w->held, &d->arrive);
    return;
  }
  SIM_NOTE(s, "deliver %s>%s udp %u", d->from->name, d->to->name, d->length);
  s->counts.delivered++;
  sim_enter(w);
  u->events.on_datagram(u->thing.data, &d->source, d->bytes, d->length);
  forget(s, d);
}

static void on_arrive(struct sim *s, struct sim_event *e);

/* ---- slow consumers ---- */

static void served(struct sim_node *n) { n->serve_ns = n->sim->now_ns + SIM_S / n->slow_per_s; }

static void on_serve(struct sim *s, struct sim_event *e) {
  struct sim_node *n = SIM_AROUND(struct sim_node, serve, e);
  if (n->paused) {
    sim_ring_push(&n->held, e);
    return;
  }
  struct sim_event *first = sim_ring_take(&n->inbox);
  n->inbox_count--;
  served(n);
  if (n->inbox_count > 0) sim_event_at(s, e, n->serve_ns);
  deliver(s, SIM_AROUND(struct sim_datagram, arrive, first));
}

/* To a slow consumer: now, later, or never. */
static void queue_up(struct sim *s, struct sim_datagram *d) {
  struct sim_node *n = d->to;
  if (n->inbox_count == 0 && s->now_ns >= n->serve_ns) {
    served(n);
    deliver(s, d);
  } else if (n->inbox_count == n->slow_queue) {
    s->counts.slow_dropped++;
    drop(s, d, "slow");
  } else {
    s->counts.slowed++;
    sim_ring_push(&n->inbox, &d->arrive);
    if (n->inbox_count++ == 0) sim_event_at(s, &n->serve, n->serve_ns);
  }
}

void sim_inbox_init(struct sim_node *n) {
  sim_ring_init(&n->inbox);
  n->serve = (struct sim_event){.run = on_serve};
}

void sim_inbox_clear(struct sim_node *n) {
  for (struct sim_event *e; (e = sim_ring_take(&n->inbox)) != NULL; )
    forget(n->sim, SIM_AROUND(struct sim_datagram, arrive, e));
  n->inbox_count = 0;
  n->serve_ns = 0;
  sim_event_cancel(n->sim, &n->serve);
}

void sim_datagrams_drop(struct sim *s, struct sim_event *held) {
  for (struct sim_event *e; (e = sim_ring_take(held)) != NULL; ) {
    assert(e->run == on_arrive);
    forget(s, SIM_AROUND(struct sim_datagram, arrive, e));
  }
}

void sim_node_slow(struct sim_node *n, uint32_t datagrams_per_s, uint32_t queue) {
  SIM_NOTE(n->sim, "slow %s %u", n->name, datagrams_per_s);
  n->slow = datagrams_per_s > 0;
  n->slow_per_s = datagrams_per_s;
  n->slow_queue = queue ? queue : SIM_SLOW_QUEUE;
  if (datagrams_per_s > 0) return; /* Datagrams that wait already go on waiting. */
  sim_ring_release(n->sim, &n->inbox);
  sim_inbox_clear(n);
}

/* ---- on the way ---- */

static void on_arrive(struct sim *s, struct sim_event *e) {
  struct sim_datagram *d = SIM_AROUND(struct sim_datagram, arrive, e);
  if (s->nodes_count == 0) { /* All is being closed. */
    forget(s, d);
    return;
  }
  if (s->readdressed) {
    struct sim_node *holder = sim_route(d->from, &d->destination);
    if (!holder) {
      drop(s, d, "nowhere");
      return;
    }
    d->to = holder;
  }
  struct sim_pair *p = sim_pair_of(s, d->from, d->to);
  if (p && p->clogged) {
    if (!sim_clog_hold(s, p, e, d->length)) drop(s, d, "clog");
    return;
  }
  if (d->to->paused) {
    sim_ring_push(&d->to->held, e);
  } else if (p && p->cut) {
    s->counts.cut++;
    drop(s, d, "cut");
  } else if (d->to->slow) {
    queue_up(s, d);
  } else {
    deliver(s, d);
  }
}

/* Why a datagram is not sent at all; NULL: it is, *wait_ns later, when the wire has taken it. */
static const char *refused(struct sim *s, struct sim_node *from, struct sim_node *to, const struct sim_pair *p,
                           const struct sim_link *link, size_t length, uint64_t *wait_ns) {
  if (p && p->cut) return s->counts.cut++, "cut";
  if (link->size_max > 0 && length > link->size_max) return s->counts.too_large++, "size";
  if (link->loss > 0 && rng_unit(&s->chance) < link->loss) return s->counts.lost++, "loss";
  if (link->bytes_per_s > 0) *wait_ns = sim_wire_take(s, from, to, link, length, true);
  if (*wait_ns == UINT64_MAX) return s->counts.overflowed++, "full";
  return NULL;
}

/* 1 to 3 bits, no two the same. */
static void flip_bits(struct sim *s, struct sim_datagram *d) {
  uint64_t flipped[3];
  unsigned want = 1 + (unsigned)rng_below(&s->chance, 3);
  for (unsigned i = 0; i < want; i++) {
    bool again;
    do {
      flipped[i] = rng_below(&s->chance, (uint64_t)d->length * 8);
      again = (i > 0 && flipped[i] == flipped[0]) || (i > 1 && flipped[i] == flipped[1]);
    } while (again);
    d->bytes[flipped[i] / 8] ^= (uint8_t)(1 << flipped[i] % 8);
  }
}

static bool befalls(struct sim *s, double share) { return share > 0 && rng_unit(&s->chance) < share; }

/* Send one datagram or copy. Everything random about its path is decided here; later only a cut, a clog, a stall or a slow consumer
 * can stop it. */
static void launch(struct sim *s, struct sim_datagram *d, const struct sim_link *link, uint64_t wait_ns) {
  uint64_t due_ns = s->now_ns + wait_ns + sim_link_delay(s, link);
  if (befalls(s, link->reorder)) {
    due_ns += 1 + rng_below(&s->chance, link->reorder_ns ? link->reorder_ns : SIM_REORDER_MS * SIM_MS);
    s->counts.reordered++;
  }
  if (d->length > 0 && befalls(s, link->corrupt)) {
    flip_bits(s, d);
    s->counts.corrupted++;
  }
  sim_event_at(s, &d->arrive, due_ns);
}

int sim_udp_send(struct world_udp *base, const struct shoal_address *to, const void *bytes, size_t length) {
  struct sim_udp *u = (struct sim_udp *)(void *)base;
  struct sim_node *from = sim_world_of(u->thing.handle.world)->node, *node;
  struct sim *s = from->sim;
  if (to->family != u->address.family || to->port == 0) return -EINVAL;
  node = sim_route(from, to);
  s->counts.sent++;
  if (!node) {
    SIM_NOTE(s, "drop %s>nowhere udp %zu", from->name, length);
    return 0;
  }
  const struct sim_pair *p = sim_pair_of(s, from, node);
  const struct sim_link *link = sim_link_over(s, p, from, node);
  uint64_t wait_ns = 0;
  const char *why = refused(s, from, node, p, link, length, &wait_ns);
  if (why) {
    SIM_NOTE(s, "drop %s>%s udp %zu %s", from->name, node->name, length, why);
    return 0;
  }
  struct sim_datagram *d = sim_take(s, datagram_size(length));
  *d = (struct sim_datagram){.arrive = {.run = on_arrive}, .from = from, .to = node, .length = (uint32_t)length,
                             .source = sim_source(from, &u->address, to), .destination = *to};
  if (sim_is_any(to)) d->destination = d->source, d->destination.port = to->port;
  if (length) memcpy(d->bytes, bytes, length);
  struct sim_datagram *copy = NULL;
  if (befalls(s, link->duplicate)) {
    copy = sim_take(s, datagram_size(length));
    memcpy(copy, d, datagram_size(length));
    s->counts.duplicated++;
  }
  launch(s, d, link, wait_ns);
  if (copy) launch(s, copy, link, wait_ns);
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
  } else { /* Of this family it has only its loopback address. */
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
