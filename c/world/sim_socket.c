#include "world/sim_stream.h"

/* A process's side of its connections: streams, listeners, pipes. Each stream has one event, which makes one callback at a
 * time. Only bytes whose reader is idle are delivered straight from the wire. */

/* ---- streams ---- */

void sim_stream_wake(struct sim_stream *h) {
  if (h && h->attached && !h->thing.handle.closing && !sim_event_armed(&h->wake)) sim_event_at(sim_of(&h->thing), &h->wake, 0);
}

static bool has_news(const struct sim_stream *h) {
  const struct sim_flow *in = &h->connection->flows[1 - h->side];
  if (!h->opened || h->tell_drain) return h->tell_open || h->tell_drain;
  if (h->told_end) return false;
  return h->broken || (h->reading && (in->unread.first || in->ended));
}

static void on_wake(struct sim *s, struct sim_event *e) {
  struct sim_stream *h = SIM_AROUND(struct sim_stream, wake, e);
  struct sim_flow *in = &h->connection->flows[1 - h->side];
  void *data = h->thing.data;
  if (!has_news(h)) return;
  sim_enter(e->world);
  if (h->tell_open) {
    SIM_NOTE(s, "open %s %d", e->world->name, h->open_status);
    h->tell_open = false;
    h->opened = h->open_status == 0;
    h->told_end = !h->opened;
    if (has_news(h)) sim_stream_wake(h);
    h->events.on_open(data, h->open_status);
  } else if (h->broken && !h->told_end && !(h->reading && in->unread.first)) {
    SIM_NOTE(s, "end %s %d", e->world->name, h->broken_code);
    h->told_end = true;
    sim_flow_forget(in);
    h->events.on_end(data, h->broken_code);
  } else if (h->tell_drain) {
    SIM_NOTE(s, "drain %s", e->world->name);
    h->tell_drain = false;
    if (has_news(h)) sim_stream_wake(h);
    if (h->events.on_drain) h->events.on_drain(data);
  } else if (in->unread.first) {
    struct sim_segment *g = sim_flow_take(in);
    SIM_NOTE(s, "read %s %u", e->world->name, g->length);
    if (has_news(h)) sim_stream_wake(h);
    sim_flow_give(h, in, g);
  } else {
    SIM_NOTE(s, "end %s 0", e->world->name);
    h->told_end = true;
    h->events.on_end(data, 0);
  }
}

static void stream_drop(struct sim_thing *thing) {
  struct sim_stream *h = SIM_AROUND(struct sim_stream, thing, thing);
  struct sim *s = sim_of(thing);
  if (h->connection) sim_end_gone(h->connection, h->side, CLOSED); /* After a crash sim_streams_crashed undoes this. */
  sim_event_cancel(s, &h->wake);
  sim_thing_leave(thing);
  sim_give(s, h, sizeof *h);
}

struct sim_stream *sim_stream_new(struct sim_world *w, struct sim_connection *c, int side) {
  struct sim_stream *h = sim_take(w->node->sim, sizeof *h);
  *h = (struct sim_stream){.connection = c, .side = side, .reading = true, .readable = true, .writable = true,
                           .opened = c->ends[side].state != CONNECTING,
                           .wake = {.run = on_wake, .world = w}};
  if (!c->pipe) h->peer = c->ends[1 - side].address;
  c->ends[side].stream = h;
  sim_thing_open(w, &h->thing, stream_drop, NULL, NULL);
  return h;
}

static void take_events(struct sim_stream *h, const struct world_stream_events *events, void *data) {
  h->events = *events;
  h->thing.on_closed = events->on_closed;
  h->thing.data = data;
  h->attached = true;
}

int sim_connect(struct shoal_world *base, const struct shoal_address *to, const struct world_stream_events *events,
                void *data, struct world_stream **out) {
  struct sim_world *w = sim_world_of(base);
  if ((to->family != 4 && to->family != 6) || to->port == 0) return -EINVAL;
  struct sim_node *node = sim_route(w->node, to);
  if (!node) return -ENETUNREACH;
  struct sim_connection *c = sim_connection_new(w->node, node);
  struct shoal_address any = {.family = to->family, .port = sim_next_port(w->node)};
  c->ends[0].address = sim_source(w->node, &any, to);
  c->ends[1].address = *to;
  if (sim_is_any(to)) {
    c->ends[1].address = c->ends[0].address;
    c->ends[1].address.port = to->port;
  }
  struct sim_stream *h = sim_stream_new(w, c, 0);
  take_events(h, events, data);
  sim_connection_start(c);
  *out = &h->base;
  return 0;
}

void sim_stream_attach(struct world_stream *base, const struct world_stream_events *events, void *data) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  assert(!h->attached);
  take_events(h, events, data);
  if (has_news(h)) sim_stream_wake(h);
}

static int can_write(const struct sim_stream *h) {
  const struct sim_flow *f = &h->connection->flows[h->side];
  if (h->told_end && !h->opened) return -ENOTCONN;
  if (h->broken || !h->writable || f->finish || f->finished) return h->opened ? -EPIPE : -ENOTCONN;
  return h->opened ? 0 : -ENOTCONN;
}

int sim_stream_write(struct world_stream *base, const struct world_buffer *buffers, size_t count) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  int rc = can_write(h);
  if (rc < 0) return rc;
  for (size_t i = 0; i < count; i++) sim_flow_write(h->connection, h->side, buffers[i].bytes, buffers[i].length);
  return 0;
}

size_t sim_stream_queued(const struct world_stream *base) {
  const struct sim_stream *h = (const struct sim_stream *)(const void *)base;
  return h->connection ? h->connection->flows[h->side].queued_bytes : 0;
}

void sim_stream_read(struct world_stream *base, bool on) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  h->reading = on && h->readable;
  if (has_news(h)) sim_stream_wake(h);
}

int sim_stream_shutdown(struct world_stream *base) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  int rc = can_write(h);
  if (h->connection->flows[h->side].finish && !h->broken) return 0; /* A second call does nothing. */
  if (rc < 0) return rc;
  sim_flow_finish(&h->connection->flows[h->side]);
  return 0;
}

void sim_stream_window(struct world_stream *base, size_t bytes) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  if (bytes < SIM_WINDOW_BYTES_MIN) bytes = SIM_WINDOW_BYTES_MIN; /* As Linux has a least SO_SNDBUF. */
  h->connection->flows[h->side].window_bytes = bytes < SIM_WINDOW_BYTES ? bytes : SIM_WINDOW_BYTES;
}

bool sim_stream_peer(const struct world_stream *base, struct shoal_address *out) {
  const struct sim_stream *h = (const struct sim_stream *)(const void *)base;
  if (h->peer.family == 0) return false;
  *out = h->peer;
  return true;
}

void sim_stream_close(struct world_stream *base) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  sim_event_cancel(sim_of(&h->thing), &h->wake);
  sim_end_gone(h->connection, h->side, CLOSED);
  h->connection = NULL;
  sim_thing_close(&h->thing);
}

/* ---- listeners ---- */

struct sim_listener *sim_find_listener(const struct sim_node *n, const struct shoal_address *to) {
  struct shoal_address host = *to;
  for (struct sim_listener *l = n->listeners; l; l = l->next)
    if (!l->thing.handle.closing && sim_binds_meet(&l->address, &host)) return l;
  return NULL;
}

void sim_listener_add(struct sim_listener *l, struct sim_stream *h) {
  if (l->accepted_last) l->accepted_last->next_accepted = h;
  else l->accepted_first = h;
  l->accepted_last = h;
  if (!sim_event_armed(&l->accept)) sim_event_at(sim_of(&l->thing), &l->accept, 0);
}

static void on_accept(struct sim *s, struct sim_event *e) {
  struct sim_listener *l = SIM_AROUND(struct sim_listener, accept, e);
  struct sim_stream *h = l->accepted_first;
  SIM_NOTE(s, "accept %s", e->world->name);
  l->accepted_first = h->next_accepted;
  if (l->accepted_first) sim_event_at(s, e, 0);
  else l->accepted_last = NULL;
  sim_enter(e->world);
  l->events.on_connection(l->thing.data, &h->base);
}

static void listener_leave(struct sim_listener *l) {
  struct sim_listener **link = &l->accept.world->node->listeners;
  while (*link && *link != l) link = &(*link)->next;
  if (*link) *link = l->next;
}

static void listener_drop(struct sim_thing *thing) {
  struct sim_listener *l = SIM_AROUND(struct sim_listener, thing, thing);
  struct sim *s = sim_of(thing);
  listener_leave(l);
  sim_event_cancel(s, &l->accept);
  sim_thing_leave(thing);
  sim_give(s, l, sizeof *l);
}

static bool taken(const struct sim_node *n, const struct shoal_address *address) {
  for (const struct sim_listener *l = n->listeners; l; l = l->next)
    if (sim_binds_meet(&l->address, address)) return true;
  return false;
}

int sim_listen(struct shoal_world *base, const struct shoal_address *bind, const struct world_listener_events *events,
               void *data, struct world_listener **out) {
  struct sim_world *w = sim_world_of(base);
  struct sim_node *n = w->node;
  int rc = sim_can_bind(n, bind);
  if (rc < 0) return rc;
  struct shoal_address address = *bind;
  for (uint32_t tries = 0; bind->port == 0; tries++) {
    if (tries == SIM_PORTS) return -EADDRINUSE;
    address.port = sim_next_port(n);
    if (!taken(n, &address)) break;
  }
  if (taken(n, &address)) return -EADDRINUSE;
  struct sim_listener *l = sim_take(n->sim, sizeof *l);
  *l = (struct sim_listener){.address = address, .events = *events, .next = n->listeners,
                             .accept = {.run = on_accept, .world = w}};
  n->listeners = l;
  sim_thing_open(w, &l->thing, listener_drop, events->on_closed, data);
  *out = &l->base;
  return 0;
}

void sim_listener_address(struct world_listener *l, struct shoal_address *out) {
  *out = ((struct sim_listener *)(void *)l)->address;
}

void sim_listener_close(struct world_listener *base) {
  struct sim_listener *l = (struct sim_listener *)(void *)base;
  listener_leave(l);
  sim_event_cancel(sim_of(&l->thing), &l->accept);
  for (struct sim_stream *h = l->accepted_first, *next; h; h = next) { /* No on_connection will take them now. */
    next = h->next_accepted;
    world_stream_close(&h->base);
  }
  l->accepted_first = l->accepted_last = NULL;
  sim_thing_close(&l->thing);
}

/* ---- pipes ---- */

struct sim_connection *sim_pipe_new(struct sim_node *n) {
  struct sim_connection *c = sim_connection_new(n, n);
  c->pipe = c->sink = true; /* Until the child has a world. */
  c->ends[0].state = c->ends[1].state = OPEN;
  return c;
}

void sim_pipe_keep(struct sim_connection *c) { c->sink = false; }

struct world_stream *sim_pipe_open(struct sim_connection *c, int side, struct sim_world *w, bool reads) {
  assert(!c->ends[side].stream && c->ends[side].state == OPEN);
  struct sim_stream *h = sim_stream_new(w, c, side);
  h->reading = h->readable = reads;
  h->writable = !reads;
  return &h->base;
}

void sim_pipe_print(struct sim_connection *c, const void *bytes, size_t length) {
  if (c->ends[1].state == OPEN && !c->flows[1].finished) sim_flow_write(c, 1, bytes, length);
}

void sim_pipe_end(struct sim_connection *c, int side) {
  if (c->ends[side].state != OPEN || c->ends[side].stream) return;
  c->ends[side].state = CLOSED; /* Its written bytes are still delivered, as far as the peer reads, and then FIN. */
  sim_flow_finish(&c->flows[side]);
  sim_connection_free_if_gone(c);
}
