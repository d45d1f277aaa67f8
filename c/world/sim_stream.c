#include "world/sim_private.h"

/* Streams, as two kernels and a wire would carry them.
 *
 * A connection has two ends and two flows, one each way. What one side sends travels as segments in a queue of its flow,
 * each with the instant it is due, never before the one ahead; one event serves the front. A flow stands still while
 * it is cut, or nobody answers; what stands is sent again when that ends, at the instant a doubling retransmission
 * timer would choose. The handshake travels the same way:
 *
 *   connect ---SYN--->  listener there?                      EMBRYO
 *   on_open <-SYNACK--  (or REFUSED)              OPEN
 *           ---ACK--->  on_connection                        OPEN
 *
 * Bytes not yet read count against the window, so that a reader who pauses stops the writer. */

enum kind { SYN, SYNACK, REFUSED, ACK, DATA, FIN, RST, LOST }; /* LOST: never got through; the kernels give up. */
static const char *const kind_names[] = {"syn", "synack", "refused", "ack", "data", "fin", "rst", "lost"};

enum state {
  CONNECTING, /* Side 0 only. */
  EMBRYO,     /* Side 1, until it is accepted. */
  OPEN,
  CLOSED, /* The process let go of it; its kernel answers with RST. */
  DEAD,   /* The machine crashed; when it is up again its kernel answers with RST. */
};

struct segment {
  struct segment *next, *previous;
  uint64_t due_ns, sent_ns;
  enum kind kind;
  uint32_t length, capacity;
  uint8_t bytes[];
};
enum { SEGMENT_BYTES_MAX = WORLD_READ_MAX - sizeof(struct segment) }; /* So that a full one is a power of two. */

struct fifo {
  struct segment *first, *last;
};

struct sim_flow {
  struct sim_connection *connection;
  int side; /* The sender's. */
  struct fifo queue;  /* The sender's own, for want of room in the window. */
  struct fifo flight; /* On the wire, or standing. */
  struct fifo unread; /* Arrived. */
  size_t queued_bytes, flying_bytes, unread_bytes, window_bytes;
  uint64_t last_due_ns, standing_ns;
  struct sim_event arrive, room;
  bool standing; /* Since standing_ns. */
  bool finish;   /* FIN follows the queue. */
  bool finished; /* FIN was sent: nothing follows. */
  bool reset;    /* So was RST, or the end was broken: nothing at all follows. */
  bool ended;    /* FIN arrived. */
};

struct sim_end {
  struct sim_connection *connection;
  int side;
  enum state state;
  struct sim_stream *stream; /* NULL: none yet, or no more. */
  struct sim_node *node;
  struct shoal_address address;
  struct sim_end *next, *previous; /* Of its node. */
};

struct sim_connection {
  struct sim *sim;
  bool pipe;
  bool sink; /* A pipe to a plain child, which takes all it is given. */
  struct sim_end ends[2];
  struct sim_flow flows[2]; /* flows[i] runs from end i. */
  struct sim_event timeout; /* Of the connect. */
};

struct sim_stream {
  union {
    struct world_stream base;
    struct sim_thing thing;
  };
  struct sim_connection *connection; /* NULL once closed. */
  int side;
  struct shoal_address peer; /* Family 0: a pipe. */
  struct world_stream_events events;
  struct sim_event wake; /* Something of what follows is to be told. */
  bool readable, writable; /* A pipe goes one way. */
  bool attached, reading, opened, broken;
  bool tell_open, tell_drain, told_end;
  int open_status, broken_code;
  struct sim_stream *next_accepted;
};

struct sim_listener {
  union {
    struct world_listener base;
    struct sim_thing thing;
  };
  struct sim_listener *next; /* Of its node. */
  struct shoal_address address;
  struct world_listener_events events;
  struct sim_event accept;
  struct sim_stream *accepted_first, *accepted_last; /* Not yet handed over. */
};

/* ---- segments ---- */

static struct segment *segment_new(struct sim *s, enum kind kind, size_t length) {
  assert(length <= SEGMENT_BYTES_MAX);
  size_t size = sim_room(sizeof(struct segment) + length);
  struct segment *g = sim_take(s, size);
  *g = (struct segment){.kind = kind, .capacity = (uint32_t)(size - sizeof *g)};
  return g;
}

static void segment_free(struct sim *s, struct segment *g) { sim_give(s, g, sizeof *g + g->capacity); }

static void push(struct fifo *f, struct segment *g) {
  g->next = NULL;
  g->previous = f->last;
  if (f->last) f->last->next = g;
  else f->first = g;
  f->last = g;
}

static struct segment *pop(struct fifo *f) {
  struct segment *g = f->first;
  f->first = g->next;
  if (f->first) f->first->previous = NULL;
  else f->last = NULL;
  return g;
}

static void clear(struct sim *s, struct fifo *f) {
  while (f->first) segment_free(s, pop(f));
}

static void clear_queue(struct sim *s, struct sim_flow *f) {
  clear(s, &f->queue);
  f->queued_bytes = 0;
}

static void clear_flight(struct sim *s, struct sim_flow *f) {
  clear(s, &f->flight);
  f->flying_bytes = 0;
  f->standing = false;
  sim_event_cancel(s, &f->arrive);
}

static void clear_unread(struct sim *s, struct sim_flow *f) {
  clear(s, &f->unread);
  f->unread_bytes = 0;
}

/* Bytes to the end of the last segment, growing it. */
static void append(struct sim *s, struct fifo *f, const uint8_t *bytes, size_t length) {
  struct segment *g = f->last;
  if (g->length + length > g->capacity) {
    struct segment *larger = segment_new(s, g->kind, g->length + length);
    uint32_t capacity = larger->capacity;
    memcpy(larger, g, sizeof *g + g->length);
    larger->capacity = capacity;
    if (g->previous) g->previous->next = larger;
    else f->first = larger;
    f->last = larger;
    segment_free(s, g);
    g = larger;
  }
  memcpy(g->bytes + g->length, bytes, length);
  g->length += (uint32_t)length;
}

/* ---- sending ---- */

static struct sim_node *sender(struct sim_connection *c, int side) { return c->ends[side].node; }
static struct sim_node *receiver(struct sim_connection *c, int side) { return c->ends[1 - side].node; }

/* Nothing gets from this side to the other: the way is cut, or the machine there is down. */
static bool is_cut(struct sim_connection *c, int side) {
  return !c->pipe && sim_is_cut(c->sim, sender(c, side), receiver(c, side));
}
static bool is_unanswered(struct sim_connection *c, int side) {
  return c->ends[1 - side].state == DEAD && !receiver(c, side)->world;
}

static uint64_t travel(struct sim_connection *c, int side) {
  static const struct sim_link pipe_link = {.latency_ns = 20000};
  struct sim *s = c->sim;
  const struct sim_link *link = c->pipe ? &pipe_link : sim_link_of(s, sender(c, side), receiver(c, side));
  uint64_t delay_ns = sim_link_delay(s, link), retransmit_ns = SIM_RETRANSMIT_MS * SIM_MS;
  while (link->loss > 0 && delay_ns < SIM_UNANSWERED_MS * SIM_MS && rng_unit(&s->chance) < link->loss) {
    delay_ns += retransmit_ns;
    retransmit_ns *= 2;
  }
  return delay_ns;
}

static void launch(struct sim_connection *c, int side, struct segment *g) {
  struct sim_flow *f = &c->flows[side];
  struct sim *s = c->sim;
  uint64_t delay_ns = travel(c, side), due_ns = s->now_ns + delay_ns;
  if (delay_ns >= SIM_UNANSWERED_MS * SIM_MS) g->kind = LOST;
  if (due_ns < f->last_due_ns) due_ns = f->last_due_ns;
  f->last_due_ns = g->due_ns = due_ns;
  g->sent_ns = s->now_ns;
  f->flying_bytes += g->length;
  bool alone = !f->flight.first;
  push(&f->flight, g);
  if (alone) sim_event_at(s, &f->arrive, due_ns);
}

static void signal_kind(struct sim_connection *c, int side, enum kind kind) {
  struct sim_flow *f = &c->flows[side];
  if ((kind == FIN && f->finished) || f->reset) return;
  if (kind == FIN) f->finished = true;
  if (kind == RST) f->finished = f->reset = true;
  launch(c, side, segment_new(c->sim, kind, 0));
}

static size_t room(const struct sim_flow *f) {
  size_t wire = f->window_bytes > f->flying_bytes ? f->window_bytes - f->flying_bytes : 0;
  size_t held = f->flying_bytes + f->unread_bytes;
  size_t whole = SIM_WINDOW_BYTES > held ? SIM_WINDOW_BYTES - held : 0;
  return wire < whole ? wire : whole;
}

/* Onto the wire. What is sent in one instant travels together, mostly: now and then it is cut in two, for no reader may
 * take a segment for a message. */
static void transmit(struct sim_connection *c, int side, const uint8_t *bytes, size_t length) {
  enum { SPLIT_ONE_IN = 16 };
  struct sim_flow *f = &c->flows[side];
  struct sim *s = c->sim;
  while (length > 0) {
    struct segment *last = f->flight.last;
    if (last && last->kind == DATA && last->sent_ns == s->now_ns && last->length < SEGMENT_BYTES_MAX) {
      size_t some = SEGMENT_BYTES_MAX - last->length;
      if (some > length) some = length;
      append(s, &f->flight, bytes, some);
      f->flying_bytes += some;
      bytes += some, length -= some;
      continue;
    }
    size_t some = length < SEGMENT_BYTES_MAX ? length : SEGMENT_BYTES_MAX;
    bool split = !c->pipe && some > 1 && rng_below(&s->chance, SPLIT_ONE_IN) == 0;
    if (split) some = 1 + (size_t)rng_below(&s->chance, some - 1);
    struct segment *g = segment_new(s, DATA, some);
    memcpy(g->bytes, bytes, some);
    g->length = (uint32_t)some;
    launch(c, side, g);
    if (split) g->sent_ns = UINT64_MAX; /* Nothing joins it. */
    bytes += some, length -= some;
  }
}

static void wake(struct sim_stream *h) {
  if (h && h->attached && !h->thing.handle.closing && !sim_event_armed(&h->wake)) sim_event_at(sim_of(&h->thing), &h->wake, 0);
}

static void finish(struct sim_connection *c, int side) {
  struct sim_flow *f = &c->flows[side];
  if (f->finish && !f->queue.first) signal_kind(c, side, FIN);
}

/* The window has room again: as much as fits of what waits. */
static void pump(struct sim_connection *c, int side) {
  struct sim_flow *f = &c->flows[side];
  size_t space;
  if (!f->queue.first) return;
  while (f->queue.first && (space = room(f)) > 0) {
    struct segment *g = pop(&f->queue);
    size_t some = g->length < space ? g->length : space;
    transmit(c, side, g->bytes, some);
    f->queued_bytes -= some;
    if (some < g->length) { /* The rest goes back to the front. */
      memmove(g->bytes, g->bytes + some, g->length - some);
      g->length -= (uint32_t)some;
      g->next = f->queue.first;
      if (g->next) g->next->previous = g;
      else f->queue.last = g;
      f->queue.first = g;
      return;
    }
    segment_free(c->sim, g);
  }
  if (f->queue.first) return;
  if (c->ends[side].stream) {
    c->ends[side].stream->tell_drain = true;
    wake(c->ends[side].stream);
  }
  finish(c, side);
}

static void on_room(struct sim *s, struct sim_event *e) {
  struct sim_flow *f = SIM_AROUND(struct sim_flow, room, e);
  struct sim_connection *c = f->connection;
  if (is_cut(c, 1 - f->side)) { /* The word of it is lost: another comes. */
    sim_event_at(s, e, s->now_ns + SIM_RETRANSMIT_MS * SIM_MS);
    return;
  }
  SIM_NOTE(s, "room %s>%s", receiver(c, f->side)->name, sender(c, f->side)->name);
  pump(c, f->side);
}

/* The receiver has room for more. Only who waits for it must hear of it, half a round trip later. */
static void tell_room(struct sim_connection *c, int side) {
  struct sim_flow *f = &c->flows[side];
  if (!f->queue.first || sim_event_armed(&f->room)) return;
  const struct sim_link *link = sim_link_of(c->sim, receiver(c, side), sender(c, side));
  sim_event_at(c->sim, &f->room, c->sim->now_ns + link->latency_ns);
}

/* ---- connections: made, reset, gone ---- */

static void on_arrive(struct sim *s, struct sim_event *e);
static void on_timeout(struct sim *s, struct sim_event *e);

static void join_node(struct sim_end *e, struct sim_node *n) {
  e->node = n;
  e->previous = n->ends_last;
  if (n->ends_last) n->ends_last->next = e;
  else n->ends_first = e;
  n->ends_last = e;
}

static void leave_node(struct sim_end *e) {
  if (e->next) e->next->previous = e->previous;
  else e->node->ends_last = e->previous;
  if (e->previous) e->previous->next = e->next;
  else e->node->ends_first = e->next;
}

static struct sim_connection *connection_new(struct sim_node *from, struct sim_node *to) {
  struct sim *s = from->sim;
  struct sim_connection *c = sim_take(s, sizeof *c);
  *c = (struct sim_connection){.sim = s, .timeout = {.run = on_timeout}};
  for (int i = 0; i < 2; i++)
    c->flows[i] = (struct sim_flow){.connection = c, .side = i, .window_bytes = SIM_WINDOW_BYTES,
                                    .arrive = {.run = on_arrive}, .room = {.run = on_room}};
  for (int i = 0; i < 2; i++) c->ends[i].connection = c, c->ends[i].side = i;
  c->ends[1].state = to->world ? EMBRYO : DEAD;
  join_node(&c->ends[0], from);
  join_node(&c->ends[1], to);
  return c;
}

static void connection_free(struct sim_connection *c) {
  struct sim *s = c->sim;
  for (int i = 0; i < 2; i++) {
    assert(!c->ends[i].stream);
    clear_queue(s, &c->flows[i]);
    clear_flight(s, &c->flows[i]);
    clear_unread(s, &c->flows[i]);
    sim_event_cancel(s, &c->flows[i].room);
    leave_node(&c->ends[i]);
  }
  sim_event_cancel(s, &c->timeout);
  sim_give(s, c, sizeof *c);
}

static bool is_gone(const struct sim_end *e) { return e->state == CLOSED || e->state == DEAD; }

/* True when that was the last of it. */
static bool free_if_gone(struct sim_connection *c) {
  if (!is_gone(&c->ends[0]) || !is_gone(&c->ends[1])) return false;
  connection_free(c);
  return true;
}

/* This end hears that the connection is broken, or was not made: behind what arrived before, if it reads. */
static void break_end(struct sim_connection *c, int side, int code) {
  struct sim_end *e = &c->ends[side];
  struct sim_stream *h = e->stream;
  clear_queue(c->sim, &c->flows[side]);
  c->flows[side].finished = c->flows[side].reset = true;
  sim_event_cancel(c->sim, &c->flows[side].room);
  if (h && !h->broken) {
    h->broken = true;
    h->tell_drain = false;
    h->broken_code = code;
    if (e->state == CONNECTING) h->tell_open = true, h->open_status = code;
    wake(h);
  } else if (e->state == EMBRYO) {
    e->state = CLOSED;
  }
}

/* Both ends, each by itself, give up. May free c. */
static void break_both(struct sim_connection *c, int code) {
  for (int i = 0; i < 2; i++) {
    break_end(c, i, code);
    clear_flight(c->sim, &c->flows[i]);
  }
  free_if_gone(c);
}

static void on_timeout(struct sim *s, struct sim_event *e) {
  struct sim_connection *c = SIM_AROUND(struct sim_connection, timeout, e);
  SIM_NOTE(s, "connect_timeout %s>%s", c->ends[0].node->name, c->ends[1].node->name);
  break_both(c, -ETIMEDOUT);
}

/* The process lets go of its end (or its machine died); its kernel does the rest. May free c. */
static void end_gone(struct sim_connection *c, int side, enum state state) {
  struct sim_end *e = &c->ends[side];
  struct sim_flow *out = &c->flows[side], *in = &c->flows[1 - side];
  bool open = e->state == OPEN;
  assert(state == CLOSED || state == DEAD);
  if (e->state == CONNECTING) c->ends[1].state = CLOSED; /* Nobody there knows of it yet. */
  e->state = state;
  e->stream = NULL;
  sim_event_cancel(c->sim, &c->timeout);
  clear_queue(c->sim, out);
  sim_event_cancel(c->sim, &out->room);
  if (state == DEAD) {
    clear_flight(c->sim, out);
    out->finished = out->reset = false; /* It may yet answer with RST. */
    out->last_due_ns = 0;
  } else if (open) {
    signal_kind(c, side, in->unread.first ? RST : FIN);
  }
  clear_unread(c->sim, in);
  free_if_gone(c);
}

/* ---- arriving ---- */

static struct sim_listener *find_listener(const struct sim_node *n, const struct shoal_address *to) {
  struct shoal_address host = *to;
  for (struct sim_listener *l = n->listeners; l; l = l->next)
    if (!l->thing.handle.closing && sim_binds_meet(&l->address, &host)) return l;
  return NULL;
}

static struct sim_stream *stream_new(struct sim_world *w, struct sim_connection *c, int side);

static void accept_one(struct sim_connection *c) {
  struct sim_listener *l = find_listener(c->ends[1].node, &c->ends[1].address);
  if (!l) {
    signal_kind(c, 1, RST);
    c->ends[1].state = CLOSED;
    free_if_gone(c);
    return;
  }
  struct sim_stream *h = stream_new(sim_world_of(l->thing.handle.world), c, 1);
  c->ends[1].state = OPEN;
  if (l->accepted_last) l->accepted_last->next_accepted = h;
  else l->accepted_first = h;
  l->accepted_last = h;
  if (!sim_event_armed(&l->accept)) sim_event_at(c->sim, &l->accept, 0);
}

static void opened(struct sim_connection *c) {
  struct sim_stream *h = c->ends[0].stream;
  if (c->ends[0].state != CONNECTING) return;
  sim_event_cancel(c->sim, &c->timeout);
  c->ends[0].state = OPEN;
  signal_kind(c, 0, ACK);
  h->tell_open = true;
  wake(h);
}

static bool idle_reader(const struct sim_stream *h, const struct sim_flow *f) {
  return h->attached && h->reading && !h->broken && !h->thing.handle.closing && !f->unread.first && !sim_event_armed(&h->wake) &&
         !h->wake.world->node->paused;
}

static void give(struct sim_stream *h, struct sim_flow *f, struct segment *g) {
  struct sim *s = f->connection->sim;
  tell_room(f->connection, f->side);
  sim_enter(h->wake.world);
  h->events.on_read(h->thing.data, g->bytes, g->length); /* May close h: no more of h, f, c. */
  segment_free(s, g);
}

static void arrive_data(struct sim_connection *c, int side, struct segment *g) {
  struct sim_flow *f = &c->flows[side];
  struct sim_stream *h = c->ends[1 - side].stream;
  if (h && idle_reader(h, f)) {
    give(h, f, g);
    return;
  }
  bool open = c->ends[1 - side].state == OPEN && !(h && h->broken);
  if (open && !(c->sink && side == 0)) {
    push(&f->unread, g);
    f->unread_bytes += g->length;
    if (h && h->reading) wake(h);
  } else {
    segment_free(c->sim, g);
  }
  if (open) tell_room(c, side); /* The wire has room, though the whole may not. */
  else signal_kind(c, 1 - side, RST);
}

static void arrive(struct sim_connection *c, int side, struct segment *g) {
  struct sim_end *to = &c->ends[1 - side];
  enum kind kind = g->kind;
  if (kind == DATA) {
    arrive_data(c, side, g);
    return;
  }
  segment_free(c->sim, g);
  if (kind == SYN) {
    if (to->state == DEAD) to->state = EMBRYO; /* Whoever listened there before: now it is up. */
    bool listened = to->state == EMBRYO && find_listener(to->node, &to->address);
    if (!listened) to->state = CLOSED;
    signal_kind(c, 1 - side, listened ? SYNACK : REFUSED);
  } else if (kind == SYNACK) {
    opened(c);
  } else if (kind == ACK) {
    if (to->state == EMBRYO) accept_one(c);
    else if (is_gone(to)) signal_kind(c, 1 - side, RST);
  } else if (kind == FIN) {
    c->flows[side].ended = true;
    if (to->stream && to->stream->reading) wake(to->stream);
  } else if (kind == LOST) {
    break_both(c, -ECONNRESET);
  } else {
    if (kind == REFUSED) sim_event_cancel(c->sim, &c->timeout);
    break_end(c, 1 - side, kind == REFUSED ? -ECONNREFUSED : -ECONNRESET);
    free_if_gone(c);
  }
}

static void on_arrive(struct sim *s, struct sim_event *e) {
  struct sim_flow *f = SIM_AROUND(struct sim_flow, arrive, e);
  struct sim_connection *c = f->connection;
  int side = f->side;
  bool cut = is_cut(c, side);
  if (cut || is_unanswered(c, side)) {
    SIM_NOTE(s, "stand %s>%s %s %s", sender(c, side)->name, receiver(c, side)->name,
             kind_names[f->flight.first->kind], cut ? "cut" : "down");
    if (!f->standing) f->standing_ns = s->now_ns;
    f->standing = true;
    uint64_t limit_ns = f->standing_ns + SIM_UNANSWERED_MS * SIM_MS;
    if (s->now_ns >= limit_ns) break_both(c, -ECONNRESET);
    else sim_event_at(s, &f->arrive, limit_ns);
    return;
  }
  f->standing = false;
  struct segment *g = pop(&f->flight);
  f->flying_bytes -= g->length;
  if (f->flight.first) sim_event_at(s, &f->arrive, f->flight.first->due_ns);
  SIM_NOTE(s, "segment %s>%s %s %u", sender(c, side)->name, receiver(c, side)->name, kind_names[g->kind], g->length);
  arrive(c, side, g);
}

/* What stands goes out again when its retransmission timer next fires. */
static void retry(struct sim_connection *c, int side) {
  struct sim_flow *f = &c->flows[side];
  if (!f->standing) return;
  uint64_t at_ns = f->standing_ns, interval_ns = SIM_RETRANSMIT_MS * SIM_MS;
  do {
    at_ns += interval_ns;
    interval_ns *= 2;
  } while (at_ns < c->sim->now_ns);
  at_ns += travel(c, side);
  if (at_ns > f->last_due_ns) f->last_due_ns = at_ns; /* Nothing sent now passes it. */
  sim_event_at(c->sim, &f->arrive, at_ns);
}

/* ---- faults ---- */

void sim_streams_healed(struct sim_node *from, struct sim_node *to) {
  for (struct sim_end *e = from->ends_first; e; e = e->next) {
    struct sim_connection *c = e->connection;
    if (!c->pipe && c->ends[1 - e->side].node == to) retry(c, e->side);
  }
}

void sim_streams_cut_long(struct sim_node *from, struct sim_node *to) {
  for (struct sim_end *e = from->ends_first, *next; e; e = next) {
    struct sim_connection *c = e->connection;
    next = e->next;
    if (c->pipe || c->ends[1 - e->side].node != to || c->ends[0].state == CONNECTING) continue;
    if (next && next->connection == c) next = next->next; /* A machine cut from itself: both its ends are here. */
    break_both(c, -ECONNRESET);
  }
}

void sim_streams_crashed(struct sim_node *n) {
  for (struct sim_end *e = n->ends_first, *next; e; e = next) {
    struct sim_connection *c = e->connection;
    next = e->next;
    if (c->ends[1 - e->side].node == n) { /* Both its ends are here, one behind the other. */
      next = next && next->connection == c ? next->next : next;
      connection_free(c);
    } else {
      end_gone(c, e->side, DEAD);
    }
  }
}

void sim_streams_restarted(struct sim_node *n) {
  for (struct sim_end *e = n->ends_first; e; e = e->next) retry(e->connection, 1 - e->side);
}

/* ---- the stream as its process sees it ---- */

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
    if (has_news(h)) wake(h);
    h->events.on_open(data, h->open_status);
  } else if (h->broken && !h->told_end && !(h->reading && in->unread.first)) {
    SIM_NOTE(s, "end %s %d", e->world->name, h->broken_code);
    h->told_end = true;
    clear_unread(s, in);
    h->events.on_end(data, h->broken_code);
  } else if (h->tell_drain) {
    SIM_NOTE(s, "drain %s", e->world->name);
    h->tell_drain = false;
    if (has_news(h)) wake(h);
    if (h->events.on_drain) h->events.on_drain(data);
  } else if (in->unread.first) {
    struct segment *g = pop(&in->unread);
    in->unread_bytes -= g->length;
    SIM_NOTE(s, "read %s %u", e->world->name, g->length);
    if (has_news(h)) wake(h);
    give(h, in, g);
  } else {
    SIM_NOTE(s, "end %s 0", e->world->name);
    h->told_end = true;
    h->events.on_end(data, 0);
  }
}

static void stream_drop(struct sim_thing *thing) {
  struct sim_stream *h = SIM_AROUND(struct sim_stream, thing, thing);
  struct sim *s = sim_of(thing);
  struct sim_node *n = h->wake.world->node;
  if (h->connection) end_gone(h->connection, h->side, n->crashing ? DEAD : CLOSED);
  sim_event_cancel(s, &h->wake);
  sim_thing_leave(thing);
  sim_give(s, h, sizeof *h);
}

static struct sim_stream *stream_new(struct sim_world *w, struct sim_connection *c, int side) {
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
  struct sim *s = w->node->sim;
  struct sim_connection *c = connection_new(w->node, node);
  struct shoal_address any = {.family = to->family, .port = sim_next_port(w->node)};
  c->ends[0].address = sim_source(w->node, &any, to);
  c->ends[1].address = *to;
  if (sim_is_any(to)) {
    c->ends[1].address = c->ends[0].address;
    c->ends[1].address.port = to->port;
  }
  struct sim_stream *h = stream_new(w, c, 0);
  take_events(h, events, data);
  sim_event_at(s, &c->timeout, s->now_ns + SIM_CONNECT_TIMEOUT_MS * SIM_MS);
  signal_kind(c, 0, SYN);
  *out = &h->base;
  return 0;
}

void sim_stream_attach(struct world_stream *base, const struct world_stream_events *events, void *data) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  assert(!h->attached);
  take_events(h, events, data);
  if (has_news(h)) wake(h);
}

static int can_write(const struct sim_stream *h) {
  const struct sim_flow *f = &h->connection->flows[h->side];
  if (h->told_end && !h->opened) return -ENOTCONN;
  if (h->broken || !h->writable || f->finish || f->finished) return h->opened ? -EPIPE : -ENOTCONN;
  return h->opened ? 0 : -ENOTCONN;
}

static void enqueue(struct sim_connection *c, int side, const uint8_t *bytes, size_t length) {
  enum { QUEUED_BYTES_MAX = 16 * 1024 - sizeof(struct segment) };
  struct sim_flow *f = &c->flows[side];
  f->queued_bytes += length;
  while (length > 0) {
    struct segment *last = f->queue.last;
    size_t space = last && last->length < QUEUED_BYTES_MAX ? QUEUED_BYTES_MAX - last->length : 0;
    size_t some = length < QUEUED_BYTES_MAX ? length : QUEUED_BYTES_MAX;
    if (space > 0) {
      some = length < space ? length : space;
    } else {
      push(&f->queue, segment_new(c->sim, DATA, some));
    }
    append(c->sim, &f->queue, bytes, some);
    bytes += some, length -= some;
  }
}

static void write_bytes(struct sim_connection *c, int side, const uint8_t *bytes, size_t length) {
  struct sim_flow *f = &c->flows[side];
  size_t now = f->queue.first ? 0 : room(f);
  if (now > length) now = length;
  if (now > 0) transmit(c, side, bytes, now);
  if (length > now) enqueue(c, side, bytes + now, length - now);
}

int sim_stream_write(struct world_stream *base, const struct world_buffer *buffers, size_t count) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  int rc = can_write(h);
  if (rc < 0) return rc;
  for (size_t i = 0; i < count; i++) write_bytes(h->connection, h->side, buffers[i].bytes, buffers[i].length);
  return 0;
}

size_t sim_stream_queued(const struct world_stream *base) {
  const struct sim_stream *h = (const struct sim_stream *)(const void *)base;
  return h->connection ? h->connection->flows[h->side].queued_bytes : 0;
}

void sim_stream_read(struct world_stream *base, bool on) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  h->reading = on && h->readable;
  if (has_news(h)) wake(h);
}

int sim_stream_shutdown(struct world_stream *base) {
  struct sim_stream *h = (struct sim_stream *)(void *)base;
  int rc = can_write(h);
  if (h->connection->flows[h->side].finish && !h->broken) return 0; /* Twice is once. */
  if (rc < 0) return rc;
  h->connection->flows[h->side].finish = true;
  finish(h->connection, h->side);
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
  end_gone(h->connection, h->side, CLOSED);
  h->connection = NULL;
  sim_thing_close(&h->thing);
}

/* ---- listeners ---- */

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
  for (struct sim_stream *h = l->accepted_first, *next; h; h = next) { /* Nobody will take them now. */
    next = h->next_accepted;
    world_stream_close(&h->base);
  }
  l->accepted_first = l->accepted_last = NULL;
  sim_thing_close(&l->thing);
}

/* ---- pipes ---- */

struct sim_connection *sim_pipe_new(struct sim_node *n) {
  struct sim_connection *c = connection_new(n, n);
  c->pipe = c->sink = true; /* Until the child has a world. */
  c->ends[0].state = c->ends[1].state = OPEN;
  return c;
}

void sim_pipe_keep(struct sim_connection *c) { c->sink = false; }

struct world_stream *sim_pipe_open(struct sim_connection *c, int side, struct sim_world *w, bool reads) {
  assert(!c->ends[side].stream && c->ends[side].state == OPEN);
  struct sim_stream *h = stream_new(w, c, side);
  h->reading = h->readable = reads;
  h->writable = !reads;
  return &h->base;
}

void sim_pipe_print(struct sim_connection *c, const void *bytes, size_t length) {
  if (c->ends[1].state == OPEN && !c->flows[1].finished) write_bytes(c, 1, bytes, length);
}

void sim_pipe_end(struct sim_connection *c, int side) {
  if (c->ends[side].state != OPEN || c->ends[side].stream) return;
  c->ends[side].state = CLOSED; /* What it printed still leaves, as far as it is read, and then FIN. */
  c->flows[side].finish = true;
  finish(c, side);
  free_if_gone(c);
}
