#include "world/sim_stream.h"

/* Streams, as two kernels and a wire carry them.
 *
 * A connection has two ends and two flows, one each way. What one side sends travels as segments in a queue of its flow,
 * each with the instant it is due; one event serves the front, so segments keep their order. A flow stands still while
 * it is cut or the peer's machine is down; when that ends, its segments are sent again at the instant that a doubling
 * retransmission timer gives. The handshake travels the same way:
 *
 *   connect ---SYN--->  listener there?                      EMBRYO
 *   on_open <-SYNACK--  (or REFUSED)              OPEN
 *           ---ACK--->  on_connection                        OPEN
 *
 * Bytes not yet read count against the window, so that a reader that pauses stops the writer. */

static const char *const kind_names[] = {"syn", "synack", "refused", "ack", "data", "fin", "rst", "lost"};

/* ---- segments ---- */

static struct sim_segment *segment_new(struct sim *s, enum sim_kind kind, size_t length) {
  assert(length <= SEGMENT_BYTES_MAX);
  size_t size = sim_room(sizeof(struct sim_segment) + length);
  struct sim_segment *g = sim_take(s, size);
  *g = (struct sim_segment){.kind = kind, .capacity = (uint32_t)(size - sizeof *g)};
  return g;
}

static void segment_free(struct sim *s, struct sim_segment *g) { sim_give(s, g, sizeof *g + g->capacity); }

static void push(struct sim_fifo *f, struct sim_segment *g) {
  g->next = NULL;
  g->previous = f->last;
  if (f->last) f->last->next = g;
  else f->first = g;
  f->last = g;
}

static struct sim_segment *pop(struct sim_fifo *f) {
  struct sim_segment *g = f->first;
  f->first = g->next;
  if (f->first) f->first->previous = NULL;
  else f->last = NULL;
  return g;
}

static void clear(struct sim *s, struct sim_fifo *f) {
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

void sim_flow_forget(struct sim_flow *f) {
  clear(f->connection->sim, &f->unread);
  f->unread_bytes = 0;
}

/* Bytes to the end of the last segment, growing it. */
static void append(struct sim *s, struct sim_fifo *f, const uint8_t *bytes, size_t length) {
  struct sim_segment *g = f->last;
  if (g->length + length > g->capacity) {
    struct sim_segment *larger = segment_new(s, g->kind, g->length + length);
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

/* Nothing gets from this side to the other: the link is cut, or the machine there is down. */
static bool is_cut(struct sim_connection *c, int side) {
  return !c->pipe && sim_is_cut(c->sim, sender(c, side), receiver(c, side));
}
static bool is_clogged(struct sim_connection *c, int side) {
  return !c->pipe && sim_is_clogged(c->sim, sender(c, side), receiver(c, side));
}
static bool is_unanswered(struct sim_connection *c, int side) {
  const struct sim_end *e = &c->ends[1 - side];
  return e->state == ADRIFT || (e->state == DEAD && !e->node->world);
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

/* The rate of the link: how long until these bytes have left. Pipes have none. */
static uint64_t wire(struct sim_connection *c, int side, size_t length) {
  if (c->pipe) return 0;
  const struct sim_link *link = sim_link_of(c->sim, sender(c, side), receiver(c, side));
  return link->bytes_per_s ? sim_wire_take(c->sim, sender(c, side), receiver(c, side), link, length, false) : 0;
}

static void launch(struct sim_connection *c, int side, struct sim_segment *g) {
  struct sim_flow *f = &c->flows[side];
  struct sim *s = c->sim;
  uint64_t delay_ns = travel(c, side), due_ns = s->now_ns + delay_ns + wire(c, side, g->length);
  if (delay_ns >= SIM_UNANSWERED_MS * SIM_MS) g->kind = LOST;
  g->due_ns = due_ns;
  g->sent_ns = s->now_ns;
  f->flying_bytes += g->length;
  bool alone = !f->flight.first;
  push(&f->flight, g);
  if (alone) sim_event_at(s, &f->arrive, due_ns);
}

static void signal_kind(struct sim_connection *c, int side, enum sim_kind kind) {
  struct sim_flow *f = &c->flows[side];
  if ((kind == FIN && f->finished) || f->reset) return;
  if (kind == FIN) f->finished = true;
  if (kind == RST) f->finished = f->reset = true;
  launch(c, side, segment_new(c->sim, kind, 0));
}

/* The last segment in flight has grown: on a link with a rate it arrives later by the time of the added bytes. */
static void join_wire(struct sim_connection *c, int side, size_t length) {
  struct sim_flow *f = &c->flows[side];
  struct sim_segment *last = f->flight.last;
  uint64_t wait_ns = wire(c, side, length);
  if (wait_ns == 0) return;
  uint64_t due_ns = c->sim->now_ns + wait_ns + sim_link_of(c->sim, sender(c, side), receiver(c, side))->latency_ns;
  if (due_ns <= last->due_ns) return;
  last->due_ns = due_ns;
  if (f->flight.first == last && !f->standing) sim_event_at(c->sim, &f->arrive, due_ns);
}

static size_t room(const struct sim_flow *f) {
  size_t wire = f->window_bytes > f->flying_bytes ? f->window_bytes - f->flying_bytes : 0;
  size_t held = f->flying_bytes + f->unread_bytes;
  size_t whole = SIM_WINDOW_BYTES > held ? SIM_WINDOW_BYTES - held : 0;
  return wire < whole ? wire : whole;
}

/* Put bytes on the wire. Bytes sent in one instant travel in one segment; sometimes it is split in two, because no reader may
 * rely on segments as messages. */
static void transmit(struct sim_connection *c, int side, const uint8_t *bytes, size_t length) {
  enum { SPLIT_ONE_IN = 16 };
  struct sim_flow *f = &c->flows[side];
  struct sim *s = c->sim;
  while (length > 0) {
    struct sim_segment *last = f->flight.last;
    if (last && last->kind == DATA && last->sent_ns == s->now_ns && last->length < SEGMENT_BYTES_MAX) {
      size_t some = SEGMENT_BYTES_MAX - last->length;
      if (some > length) some = length;
      append(s, &f->flight, bytes, some);
      join_wire(c, side, some);
      f->flying_bytes += some;
      bytes += some, length -= some;
      continue;
    }
    size_t some = length < SEGMENT_BYTES_MAX ? length : SEGMENT_BYTES_MAX;
    bool split = !c->pipe && some > 1 && rng_below(&s->chance, SPLIT_ONE_IN) == 0;
    if (split) some = 1 + (size_t)rng_below(&s->chance, some - 1);
    struct sim_segment *g = segment_new(s, DATA, some);
    memcpy(g->bytes, bytes, some);
    g->length = (uint32_t)some;
    launch(c, side, g);
    if (split) g->sent_ns = UINT64_MAX; /* Nothing joins it. */
    bytes += some, length -= some;
  }
}

static void finish(struct sim_connection *c, int side) {
  struct sim_flow *f = &c->flows[side];
  if (f->finish && !f->queue.first) signal_kind(c, side, FIN);
}

/* The window has room again: send as much of the queue as fits. */
static void pump(struct sim_connection *c, int side) {
  struct sim_flow *f = &c->flows[side];
  size_t space;
  if (!f->queue.first) return;
  while (f->queue.first && (space = room(f)) > 0) {
    struct sim_segment *g = pop(&f->queue);
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
    sim_stream_wake(c->ends[side].stream);
  }
  finish(c, side);
}

static void enqueue(struct sim_connection *c, int side, const uint8_t *bytes, size_t length) {
  enum { QUEUED_BYTES_MAX = 16 * 1024 - sizeof(struct sim_segment) };
  struct sim_flow *f = &c->flows[side];
  f->queued_bytes += length;
  while (length > 0) {
    struct sim_segment *last = f->queue.last;
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

void sim_flow_write(struct sim_connection *c, int side, const uint8_t *bytes, size_t length) {
  struct sim_flow *f = &c->flows[side];
  size_t now = f->queue.first ? 0 : room(f);
  if (now > length) now = length;
  if (now > 0) transmit(c, side, bytes, now);
  if (length > now) enqueue(c, side, bytes + now, length - now);
}

void sim_flow_finish(struct sim_flow *f) {
  f->finish = true;
  finish(f->connection, f->side);
}

struct sim_segment *sim_flow_take(struct sim_flow *f) {
  struct sim_segment *g = pop(&f->unread);
  f->unread_bytes -= g->length;
  return g;
}

static void on_room(struct sim *s, struct sim_event *e) {
  struct sim_flow *f = SIM_AROUND(struct sim_flow, room, e);
  struct sim_connection *c = f->connection;
  if (is_cut(c, 1 - f->side) || is_clogged(c, 1 - f->side)) { /* This update is lost; another follows. */
    sim_event_at(s, e, s->now_ns + SIM_RETRANSMIT_MS * SIM_MS);
    return;
  }
  SIM_NOTE(s, "room %s>%s", receiver(c, f->side)->name, sender(c, f->side)->name);
  pump(c, f->side);
}

/* The receiver has room for more. Only a sender that waits for room needs to learn it, half a round trip later. */
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

struct sim_connection *sim_connection_new(struct sim_node *from, struct sim_node *to) {
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
    sim_flow_forget(&c->flows[i]);
    sim_event_cancel(s, &c->flows[i].room);
    leave_node(&c->ends[i]);
  }
  sim_event_cancel(s, &c->timeout);
  sim_give(s, c, sizeof *c);
}

static bool is_gone(const struct sim_end *e) { return e->state == CLOSED || e->state == DEAD || e->state == ADRIFT; }

bool sim_connection_free_if_gone(struct sim_connection *c) {
  if (!is_gone(&c->ends[0]) || !is_gone(&c->ends[1])) return false;
  connection_free(c);
  return true;
}

/* Report to this end that the connection is broken or was not made, after the bytes that arrived before, if it reads. */
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
    sim_stream_wake(h);
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
  sim_connection_free_if_gone(c);
}

void sim_connection_start(struct sim_connection *c) {
  sim_event_at(c->sim, &c->timeout, c->sim->now_ns + SIM_CONNECT_TIMEOUT_MS * SIM_MS);
  signal_kind(c, 0, SYN);
}

static void on_timeout(struct sim *s, struct sim_event *e) {
  struct sim_connection *c = SIM_AROUND(struct sim_connection, timeout, e);
  SIM_NOTE(s, "connect_timeout %s>%s", c->ends[0].node->name, c->ends[1].node->name);
  break_both(c, -ETIMEDOUT);
}

void sim_end_gone(struct sim_connection *c, int side, enum sim_state state) {
  struct sim_end *e = &c->ends[side];
  struct sim_flow *out = &c->flows[side], *in = &c->flows[1 - side];
  bool open = e->state == OPEN;
  assert(state == CLOSED || state == DEAD);
  if (e->state == CONNECTING) c->ends[1].state = CLOSED; /* The peer does not know of it yet. */
  e->state = state;
  e->stream = NULL;
  sim_event_cancel(c->sim, &c->timeout);
  clear_queue(c->sim, out);
  sim_event_cancel(c->sim, &out->room);
  if (state == DEAD) {
    clear_flight(c->sim, out);
    out->finished = out->reset = false; /* It may yet answer with RST. */
  } else if (open) {
    signal_kind(c, side, in->unread.first ? RST : FIN);
  }
  sim_flow_forget(in);
  sim_connection_free_if_gone(c);
}

/* ---- arriving ---- */

static void accept_one(struct sim_connection *c) {
  struct sim_listener *l = sim_find_listener(c->ends[1].node, &c->ends[1].address);
  if (!l) {
    signal_kind(c, 1, RST);
    c->ends[1].state = CLOSED;
    sim_connection_free_if_gone(c);
    return;
  }
  struct sim_stream *h = sim_stream_new(sim_world_of(l->thing.handle.world), c, 1);
  c->ends[1].state = OPEN;
  sim_listener_add(l, h);
}

static void opened(struct sim_connection *c) {
  struct sim_stream *h = c->ends[0].stream;
  if (c->ends[0].state != CONNECTING) return;
  sim_event_cancel(c->sim, &c->timeout);
  c->ends[0].state = OPEN;
  signal_kind(c, 0, ACK);
  h->tell_open = true;
  sim_stream_wake(h);
}

static bool idle_reader(const struct sim_stream *h, const struct sim_flow *f) {
  return h->attached && h->reading && !h->broken && !h->thing.handle.closing && !f->unread.first && !sim_event_armed(&h->wake) &&
         !h->wake.world->stalled && !h->wake.world->node->paused;
}

void sim_flow_give(struct sim_stream *h, struct sim_flow *f, struct sim_segment *g) {
  struct sim *s = f->connection->sim;
  tell_room(f->connection, f->side);
  sim_enter(h->wake.world);
  h->events.on_read(h->thing.data, g->bytes, g->length); /* May close h: no more of h, f, c. */
  segment_free(s, g);
}

static void arrive_data(struct sim_connection *c, int side, struct sim_segment *g) {
  struct sim_flow *f = &c->flows[side];
  struct sim_stream *h = c->ends[1 - side].stream;
  if (h && idle_reader(h, f)) {
    sim_flow_give(h, f, g);
    return;
  }
  bool open = c->ends[1 - side].state == OPEN && !(h && h->broken);
  if (open && !(c->sink && side == 0)) {
    push(&f->unread, g);
    f->unread_bytes += g->length;
    if (h && h->reading) sim_stream_wake(h);
  } else {
    segment_free(c->sim, g);
  }
  if (open) tell_room(c, side); /* The wire has room, though the window may be full. */
  else signal_kind(c, 1 - side, RST);
}

static void arrive(struct sim_connection *c, int side, struct sim_segment *g) {
  struct sim_end *to = &c->ends[1 - side];
  enum sim_kind kind = g->kind;
  if (kind == DATA) {
    arrive_data(c, side, g);
    return;
  }
  segment_free(c->sim, g);
  if (kind == SYN) {
    if (to->state == DEAD) to->state = EMBRYO; /* The machine is up again, whatever listened there before. */
    bool listened = to->state == EMBRYO && sim_find_listener(to->node, &to->address);
    if (!listened) to->state = CLOSED;
    signal_kind(c, 1 - side, listened ? SYNACK : REFUSED);
  } else if (kind == SYNACK) {
    opened(c);
  } else if (kind == ACK) {
    if (to->state == EMBRYO) accept_one(c);
    else if (is_gone(to)) signal_kind(c, 1 - side, RST);
  } else if (kind == FIN) {
    c->flows[side].ended = true;
    if (to->stream && to->stream->reading) sim_stream_wake(to->stream);
  } else if (kind == LOST) {
    break_both(c, -ECONNRESET);
  } else {
    if (kind == REFUSED) sim_event_cancel(c->sim, &c->timeout);
    break_end(c, 1 - side, kind == REFUSED ? -ECONNREFUSED : -ECONNRESET);
    sim_connection_free_if_gone(c);
  }
}

static void on_arrive(struct sim *s, struct sim_event *e) {
  struct sim_flow *f = SIM_AROUND(struct sim_flow, arrive, e);
  struct sim_connection *c = f->connection;
  int side = f->side;
  bool cut = is_cut(c, side), clogged = is_clogged(c, side);
  if (cut || clogged || is_unanswered(c, side)) {
    SIM_NOTE(s, "stand %s>%s %s %s", sender(c, side)->name, receiver(c, side)->name,
             kind_names[f->flight.first->kind], cut ? "cut" : clogged ? "clog" : "down");
    if (!f->standing) f->standing_ns = s->now_ns;
    f->standing = true;
    uint64_t limit_ns = f->standing_ns + SIM_UNANSWERED_MS * SIM_MS;
    if (s->now_ns >= limit_ns) break_both(c, -ECONNRESET);
    else sim_event_at(s, &f->arrive, limit_ns);
    return;
  }
  f->standing = false;
  struct sim_segment *g = pop(&f->flight);
  f->flying_bytes -= g->length;
  if (f->flight.first) sim_event_at(s, &f->arrive, f->flight.first->due_ns);
  SIM_NOTE(s, "segment %s>%s %s %u", sender(c, side)->name, receiver(c, side)->name, kind_names[g->kind], g->length);
  arrive(c, side, g);
}

/* Segments that stand are sent again when their retransmission timer next fires. */
static void retry(struct sim_connection *c, int side) {
  struct sim_flow *f = &c->flows[side];
  if (!f->standing) return;
  uint64_t at_ns = f->standing_ns, interval_ns = SIM_RETRANSMIT_MS * SIM_MS;
  do {
    at_ns += interval_ns;
    interval_ns *= 2;
  } while (at_ns < c->sim->now_ns);
  sim_event_at(c->sim, &f->arrive, at_ns + travel(c, side));
}

/* ---- faults ---- */

void sim_streams_healed(struct sim_node *from, struct sim_node *to) {
  for (struct sim_end *e = from->ends_first; e; e = e->next) {
    struct sim_connection *c = e->connection;
    if (!c->pipe && c->ends[1 - e->side].node == to) retry(c, e->side);
  }
}

void sim_streams_unclogged(struct sim_node *from, struct sim_node *to) {
  for (struct sim_end *e = from->ends_first; e; e = e->next) {
    struct sim_connection *c = e->connection;
    struct sim_flow *f = &c->flows[e->side];
    if (!c->pipe && c->ends[1 - e->side].node == to && f->standing) sim_event_at(c->sim, &f->arrive, 0);
  }
}

/* Both machines are down, so all their ends are dead. */
void sim_streams_readdressed(struct sim_node *from, struct sim_node *to) {
  struct sim_end *ours = from->ends_first, *theirs = to ? to->ends_first : NULL;
  if (to) {
    struct sim_end *last = from->ends_last;
    from->ends_first = to->ends_first, from->ends_last = to->ends_last;
    to->ends_first = ours, to->ends_last = last;
  }
  for (struct sim_end *e = ours; e; e = e->next) {
    if (to) e->node = to;
    else e->state = ADRIFT;
  }
  for (struct sim_end *e = theirs; e; e = e->next) e->node = from;
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
      sim_end_gone(c, e->side, DEAD);
    }
  }
}

void sim_streams_restarted(struct sim_node *n) {
  for (struct sim_end *e = n->ends_first; e; e = e->next) retry(e->connection, 1 - e->side);
}
