#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/inside.h"

/* Sealing: between what this file calls a frame's bytes and the stream's stand two places, out() and on_read(). TLS goes
 * there, as a pair of byte filters: what out() is given is sealed before world_stream_write, what on_read is given is
 * opened before it is cut into frames; nothing above or below changes. */

enum { ASSEMBLY_KEEP = 64 * 1024 };

static struct link *make(struct net *n, struct net_peer *p, bool dialled) {
  struct link *l = calloc(1, sizeof *l);
  if (!l) return NULL;
  l->net = n;
  l->peer = p;
  l->serial = ++n->links_made;
  l->dialled = dialled;
  l->opened_at_ns = l->heard_at_ns = net_now(n);
  l->timer.kind = TIMER_LINK;
  l->next = n->links;
  if (l->next) l->next->previous = l;
  n->links = l;
  return l;
}

void link_free(struct link *l) {
  if (l->next) l->next->previous = l->previous;
  if (l->previous) l->previous->next = l->next;
  else l->net->links = l->next;
  for (int lane = 0; lane < NET_LANES; lane++) free(l->parts[lane].bytes);
  free(l->in);
  free(l);
}

/* ---- its end ---- */

void link_lose(struct link *l, int code, const char *text, bool orderly) {
  if (l->state == LINK_CLOSED) return;
  l->state = LINK_CLOSED;
  wheel_remove(&l->net->wheel, &l->timer);
  world_stream_close(l->stream);
  struct net_peer *p = l->peer;
  l->peer = NULL;
  if (!p) return;
  if (l->greeted && !orderly) l->net->counts.connections_lost++;
  if (!l->greeted && l->dialled) l->net->counts.dials_failed++;
  peer_lost(p, l, code, text, orderly);
}

__attribute__((format(printf, 3, 4))) static void lose(struct link *l, int code, const char *format, ...) {
  char text[256], whom[ADDRESS_TEXT_MAX];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (l->peer) {
    char full[sizeof text + sizeof whom + 4];
    address_format(&l->peer->address, whom);
    snprintf(full, sizeof full, "%s: %s", whom, text);
    link_lose(l, code, full, false);
  } else {
    link_lose(l, code, text, false);
  }
}

static void bad(struct link *l, enum frame_fault fault) {
  l->net->counts.faults[fault]++;
  lose(l, ERR_MALFORMED, "%s", frame_fault_text(fault));
}

/* ---- bytes out ---- */

static int out(struct link *l, const struct world_buffer *buffers, size_t count) {
  struct net *n = l->net;
  for (size_t i = 0; i < count; i++) n->counts.bytes_sent += buffers[i].length;
  n->counts.writes++;
  return world_stream_write(l->stream, buffers, count);
}

/* One frame past the lanes: the greeting, which comes before them, and the farewell, which comes after. */
static int out_link_frame(struct link *l, enum frame_link type, const void *body, size_t length) {
  uint8_t header[FRAME_HEADER];
  struct frame f = {.length = (uint32_t)length, .type = (uint16_t)type, .flags = FRAME_LINK | FRAME_LAST};
  frame_put(header, &f);
  struct world_buffer buffers[2] = {{header, sizeof header}, {body, length}};
  return out(l, buffers, length ? 2 : 1);
}

static int greet(struct link *l) {
  uint8_t body[FRAME_HELLO_MAX];
  return out_link_frame(l, FRAME_HELLO, body, frame_hello_put(body, &l->net->hello));
}

/* Say why, finish our side, and let the other end close; the linger bounds it. */
static void farewell(struct link *l, const char *name, const char *text) {
  uint8_t body[FRAME_REFUSAL_MAX];
  l->shut = true;
  int rc = out_link_frame(l, FRAME_BYE, body, frame_refusal_put(body, name, text, strlen(text)));
  if (rc == 0) rc = world_stream_shutdown(l->stream);
  if (rc < 0) link_lose(l, rc, text, true);
}

/* The lanes in `set`, the highest first. */
#define EACH_LANE(lane, set) \
  for (unsigned left_ = (set), lane; left_ && (lane = (unsigned)__builtin_ctz(left_), true); left_ &= left_ - 1)

/* At most one frame's worth of bytes a write, the highest lane first, and none before the kernel took the last write: so
 * what comes next can still overtake what waits. taken[] is set for busy lanes. */
static size_t gather(struct net_peer *p, struct world_buffer buffers[NET_LANES], size_t taken[NET_LANES]) {
  size_t count = 0, budget = FRAME_MAX;
  EACH_LANE(lane, p->busy) {
    struct queue *q = &p->lanes[lane];
    uint32_t dropped;
    const uint8_t *bytes = budget ? queue_peek(q, budget, request_drop, p, &taken[lane], &dropped) : NULL;
    if (!bytes) taken[lane] = 0;
    else buffers[count++] = (struct world_buffer){bytes, taken[lane]};
    if (budget) p->net->counts.drops[lane][NET_DROP_EXPIRED] += dropped;
    /* A lower lane does not slip in where this one's next frame had no room. */
    budget = queue_bytes(q) > taken[lane] ? 0 : budget - taken[lane];
  }
  return count;
}

static void take(struct net_peer *p, const size_t taken[NET_LANES]) {
  EACH_LANE(lane, p->busy) {
    struct queue *q = &p->lanes[lane];
    uint32_t before = q->messages;
    if (taken[lane]) queue_take(q, taken[lane]);
    p->net->counts.messages_sent += before - q->messages;
    if (!q->messages) p->busy &= (uint8_t)~(1u << lane);
  }
}

static int flush_some(struct link *l) {
  struct world_buffer buffers[NET_LANES];
  size_t taken[NET_LANES];
  size_t count = gather(l->peer, buffers, taken);
  int rc = count ? out(l, buffers, count) : 0; /* 0: all of it had ended. */
  if (rc == 0) take(l->peer, taken);
  return rc;
}

/* The common case of the above: one lane, and all of it in one write. */
static int flush_one(struct link *l, struct queue *q) {
  struct world_buffer buffer = {q->bytes + q->head, queue_bytes(q)};
  int rc = out(l, &buffer, 1);
  if (rc < 0) return rc;
  l->net->counts.messages_sent += q->messages;
  queue_take(q, buffer.length);
  l->peer->busy = 0;
  return 0;
}

void link_flush(struct link *l) {
  struct net_peer *p = l->peer;
  if (!p || l->shut || (l->state != LINK_UP && l->state != LINK_DRAINING)) return;
  while (p->busy && world_stream_queued(l->stream) == 0) {
    struct queue *q = &p->lanes[__builtin_ctz(p->busy)];
    bool one = (p->busy & (p->busy - 1)) == 0 && q->messages && !q->stale && queue_bytes(q) <= FRAME_MAX;
    int rc = one ? flush_one(l, q) : flush_some(l);
    if (rc >= 0) continue;
    lose(l, rc, "the connection cannot be written: %s", error_text(rc));
    return;
  }
  if (p->sends_count) request_sent(p);
  if (l->state == LINK_DRAINING && !p->busy) farewell(l, "CLOSED", "closed by the other side");
}

void link_drain(struct link *l) {
  assert(l->state == LINK_UP);
  l->state = LINK_DRAINING;
  net_set_timer(l->net, &l->timer, net_now(l->net) + l->net->options.linger_ms * UINT64_C(1000000));
  l->peer->flush = true;
  net_mark(l->peer);
}

/* ---- the greeting ---- */

/* The reason leaves with BYE; the peer hears of it now, the connection ends when the other side has read it. */
__attribute__((format(printf, 2, 3))) static void refuse(struct link *l, const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  struct net *n = l->net;
  n->counts.handshakes_refused++;
  if (l->dialled) n->counts.dials_failed++;
  struct net_peer *p = l->peer;
  l->peer = NULL;
  l->state = LINK_DRAINING;
  net_set_timer(n, &l->timer, net_now(n) + n->options.linger_ms * UINT64_C(1000000));
  peer_lost(p, l, ERR_REFUSED, text, false);
  farewell(l, "REFUSED", text);
}

static void on_hello(struct link *l, const uint8_t *body, size_t length) {
  struct net *n = l->net;
  struct net_peer *p = l->peer;
  struct frame_hello hello;
  if (l->state != LINK_HELLO) {
    bad(l, FRAME_FAULT_EARLY);
    return;
  }
  if (!frame_hello_get(body, length, &hello)) {
    bad(l, FRAME_FAULT_HELLO);
    return;
  }
  if (hello.major != FRAME_MAJOR) {
    refuse(l, "node \"%.60s\" speaks protocol %d, the other node %d", n->hello.node, FRAME_MAJOR, hello.major);
    return;
  }
  memcpy(p->node, hello.node, sizeof p->node);
  memcpy(p->role, hello.role, sizeof p->role);
  memcpy(p->dc, hello.dc, sizeof p->dc);
  memcpy(p->advertise, hello.advertise, sizeof p->advertise);
  if (strcmp(hello.cluster, n->hello.cluster) != 0) {
    refuse(l, "node \"%.60s\" is of cluster \"%.60s\", node \"%.60s\" of cluster \"%.60s\"", n->hello.node,
           n->hello.cluster, hello.node, hello.cluster);
    return;
  }
  int rc = l->dialled ? 0 : greet(l);
  if (rc < 0) {
    lose(l, rc, "the greeting cannot be written: %s", error_text(rc));
    return;
  }
  l->state = LINK_UP;
  l->greeted = true;
  if (!l->dialled) peer_heard(n, p->advertise);
  p->keep = true;
  net_set_timer(n, &l->timer, net_now(n) + n->options.keepalive_ms * UINT64_C(1000000));
  p->flush = true;
  net_mark(p);
  net_peer_event(p, NET_UP, 0, "");
}

static void on_bye(struct link *l, const uint8_t *body, size_t length) {
  struct frame_refusal reason;
  if (!frame_refusal_get(body, length, &reason)) {
    bad(l, FRAME_FAULT_REFUSAL);
    return;
  }
  if (l->state == LINK_HELLO) {
    l->net->counts.handshakes_refused++;
    lose(l, ERR_REFUSED, "refused: %.*s", (int)reason.text_length, (const char *)reason.text);
    return;
  }
  char text[FRAME_TEXT_MAX + 1];
  memcpy(text, reason.text, reason.text_length);
  text[reason.text_length] = 0;
  link_lose(l, ERR_DISCONNECTED, text, true);
}

static void on_link_frame(struct link *l, const struct frame *f, const uint8_t *body) {
  struct frame_head pong = frame_head(FRAME_PONG, NET_CONTROL, FRAME_LINK, 0);
  switch (f->type) {
  case FRAME_HELLO: on_hello(l, body, f->length); return;
  case FRAME_BYE: on_bye(l, body, f->length); return;
  case FRAME_PONG: return;
  case FRAME_PING:
    if (l->state == LINK_HELLO) bad(l, FRAME_FAULT_EARLY);
    else if (l->state == LINK_UP) (void)peer_push(l->peer, NET_CONTROL, pong, NULL, 0, false); /* Full: that closed the connection. */
    return;
  default: bad(l, FRAME_FAULT_LINK);
  }
}

/* ---- bytes in ---- */

static inline void on_reply(struct link *l, uint64_t id, uint8_t lane, const uint8_t *bytes, size_t length) {
  struct net_result result = {.id = id, .name = "", .bytes = bytes, .length = length};
  request_answered(l, id, lane, &result);
}

static inline void on_request(struct link *l, uint16_t type, uint8_t lane, bool asks, uint64_t id, const uint8_t *bytes,
                              size_t length) {
  struct net *n = l->net;
  struct net_request request = {.link = l->serial, .id = asks ? id : 0, .peer = l->peer->index, .type = type, .lane = lane};
  bool shed = asks && lane != NET_CONTROL && l->unanswered++ >= n->options.unanswered_max;
  if (!shed && n->events.on_request) {
    n->events.on_request(n->data, l->peer, &request, bytes, length);
  } else if (shed) {
    n->counts.shed_requests++;
    (void)net_refuse(n, &request, "OVERLOADED", "too many requests wait for their answers here"); /* It counts. */
  } else if (asks) {
    (void)net_refuse(n, &request, "UNHANDLED", "this node answers no requests"); /* It counts. */
  }
}

static void on_message(struct link *l, const struct frame *f, const uint8_t *bytes, size_t length) {
  l->net->counts.messages_received++;
  if (f->flags & FRAME_REFUSAL) {
    enum frame_fault fault = request_refused(l, f, bytes, length);
    if (fault) bad(l, fault);
  } else if (f->flags & FRAME_REPLY) {
    on_reply(l, f->id, f->lane, bytes, length);
  } else {
    on_request(l, f->type, f->lane, f->flags & FRAME_REQUEST, f->id, bytes, length);
  }
}

/* Add a frame to its lane's unfinished message. */
static enum frame_fault assemble(struct link *l, const struct frame *f, const uint8_t *body) {
  struct assembly *part = &l->parts[f->lane];
  uint8_t same = FRAME_FLAGS & ~FRAME_LAST;
  if (!part->open) {
    part->open = true;
    l->assembling++;
    part->length = 0;
    part->head = *f;
  } else if (part->head.id != f->id || part->head.type != f->type || (part->head.flags ^ f->flags) & same) {
    return FRAME_FAULT_ORDER;
  }
  size_t length = part->length + f->length;
  if (length > FRAME_MESSAGE_MAX) return FRAME_FAULT_MESSAGE;
  if (length > part->capacity) {
    size_t capacity = part->capacity ? part->capacity : 2 * FRAME_MAX;
    while (capacity < length) capacity *= 2;
    uint8_t *bytes = realloc(part->bytes, capacity);
    if (!bytes) return FRAME_FAULT_MESSAGE; /* No memory for it is a limit, too. */
    part->bytes = bytes;
    part->capacity = capacity;
  }
  if (f->length) memcpy(part->bytes + part->length, body, f->length);
  part->length = length;
  return FRAME_FAULT_NONE;
}

static void on_frame(struct link *l, const struct frame *f, const uint8_t *body) {
  if (f->flags & FRAME_LINK) {
    on_link_frame(l, f, body);
    return;
  }
  if (l->state == LINK_HELLO) {
    bad(l, FRAME_FAULT_EARLY);
    return;
  }
  if (l->state != LINK_UP) return; /* Draining: nobody here waits for it any more. */
  struct assembly *part = &l->parts[f->lane];
  if (!part->open && f->flags & FRAME_LAST) { /* Whole, and read where it lies. */
    on_message(l, f, body, f->length);
    return;
  }
  enum frame_fault fault = assemble(l, f, body);
  if (fault) {
    bad(l, fault);
    return;
  }
  if (!(f->flags & FRAME_LAST)) return;
  part->open = false;
  l->assembling--;
  on_message(l, f, part->bytes, part->length);
  if (part->capacity <= ASSEMBLY_KEEP) return;
  free(part->bytes);
  part->bytes = NULL;
  part->capacity = 0;
}

/* Whether a whole frame stands at bytes; *f is its header when that is there. */
static bool whole(struct link *l, const uint8_t *bytes, size_t length, struct frame *f) {
  if (length < FRAME_HEADER) return false;
  frame_get(bytes, f);
  enum frame_fault fault = frame_check(f);
  if (fault) {
    bad(l, fault);
    return false;
  }
  return length >= FRAME_HEADER + f->length;
}

static bool keep(struct link *l, const uint8_t *bytes, size_t length) {
  size_t need = l->in_length + length;
  assert(need <= FRAME_MAX);
  if (need > l->in_capacity) {
    size_t capacity = l->in_capacity ? l->in_capacity : 2048;
    while (capacity < need) capacity *= 2;
    uint8_t *in = realloc(l->in, capacity);
    if (!in) {
      lose(l, ERR_MEMORY, "no memory to read with");
      return false;
    }
    l->in = in;
    l->in_capacity = capacity;
  }
  memcpy(l->in + l->in_length, bytes, length);
  l->in_length = need;
  return true;
}

/* Complete the frame whose beginning came before; returns how many bytes that took. */
static size_t complete(struct link *l, const uint8_t *bytes, size_t length) {
  struct frame f;
  size_t used = 0;
  while (l->in_length && used < length && l->peer) {
    size_t want = FRAME_HEADER;
    if (l->in_length >= FRAME_HEADER) {
      frame_get(l->in, &f); /* Checked when its header was whole. */
      want += f.length;
    }
    size_t more = want - l->in_length < length - used ? want - l->in_length : length - used;
    if (!keep(l, bytes + used, more)) return length;
    used += more;
    if (whole(l, l->in, l->in_length, &f)) {
      l->in_length = 0;
      on_frame(l, &f, l->in + FRAME_HEADER);
    }
  }
  return used;
}

/* Small whole messages, of which most of the traffic is, without detours. Returns where it stopped. */
static size_t read_plain(struct link *l, const uint8_t *bytes, size_t length) {
  size_t at = 0;
  uint64_t count = 0;
  while (l->state == LINK_UP && length - at >= FRAME_HEADER) {
    uint64_t head = frame_word(bytes + at), id = frame_word(bytes + at + 8);
    size_t body = head >> 32;
    uint8_t lane = (uint8_t)(head >> 8);
    if (!frame_is_plain(head, id) || length - at - FRAME_HEADER < body || l->assembling) break;
    at += FRAME_HEADER + body;
    count++;
    if (head & FRAME_REPLY) on_reply(l, id, lane, bytes + at - body, body);
    else on_request(l, (uint16_t)(head >> 16), lane, head & FRAME_REQUEST, id, bytes + at - body, body);
  }
  l->net->counts.messages_received += count;
  return at;
}

static void read_bytes(struct link *l, const uint8_t *bytes, size_t length) {
  struct frame f;
  size_t at = l->in_length ? complete(l, bytes, length) : 0;
  at += read_plain(l, bytes + at, length - at);
  while (l->peer && whole(l, bytes + at, length - at, &f)) {
    on_frame(l, &f, bytes + at + FRAME_HEADER);
    at += FRAME_HEADER + f.length;
  }
  if (l->peer && at < length) (void)keep(l, bytes + at, length - at); /* False: the link was lost. */
}

static void on_read(void *data, const uint8_t *bytes, size_t length) {
  struct link *l = data;
  struct net *n = l->net;
  n->counts.bytes_received += length;
  if (!l->peer) return; /* Refused: what it still says matters to nobody. So above: a lost or refused link has no peer. */
  n->now_ns = l->heard_at_ns = net_now(n);
  n->reading = l;
  read_bytes(l, bytes, length);
  n->reading = NULL; /* The net goes only when its timer's closing was told: never within this. */
  struct net_peer *p = l->peer;
  if (!p || !p->flush || p->marked) return; /* Marked: there is more to say of it at the turn's end. */
  p->flush = false;
  link_flush(l);
}

/* ---- the stream's other events, and time ---- */

static void on_open(void *data, int status) {
  struct link *l = data;
  if (l->state == LINK_CLOSED) return;
  if (status < 0) {
    lose(l, status, "cannot connect: %s", error_text(status));
    return;
  }
  l->state = LINK_HELLO;
  world_stream_window(l->stream, NET_WINDOW);
  int rc = greet(l);
  if (rc < 0) lose(l, rc, "the greeting cannot be written: %s", error_text(rc));
}

static void on_end(void *data, int status) {
  struct link *l = data;
  if (l->state == LINK_DRAINING) link_lose(l, ERR_CLOSED, "closed here", true);
  else if (status == 0) lose(l, ERR_DISCONNECTED, "the other side ended the connection");
  else lose(l, status, "the connection broke: %s", error_text(status));
}

static void on_drain(void *data) {
  struct link *l = data;
  link_flush(l);
}

static void on_closed(void *data) {
  struct link *l = data;
  struct net *n = l->net;
  link_free(l);
  net_wake(n);
}

static const struct world_stream_events stream_events = {
    .on_open = on_open, .on_read = on_read, .on_end = on_end, .on_drain = on_drain, .on_closed = on_closed};

void link_on_timer(struct link *l) {
  struct frame_head ping = frame_head(FRAME_PING, NET_CONTROL, FRAME_LINK, 0);
  struct net *n = l->net;
  uint64_t keepalive_ns = n->options.keepalive_ms * UINT64_C(1000000);
  uint64_t idle_ns = n->options.idle_timeout_ms * UINT64_C(1000000);
  uint64_t now = net_now(n), silent_ns = now - l->heard_at_ns;
  switch (l->state) {
  case LINK_CONNECTING: lose(l, ERR_TIMEOUT, "not connected within %u ms", n->options.connect_timeout_ms); return;
  case LINK_HELLO: lose(l, ERR_TIMEOUT, "no greeting within %u ms", n->options.connect_timeout_ms); return;
  case LINK_DRAINING: link_lose(l, ERR_CLOSED, "closed here", true); return;
  case LINK_CLOSED: return;
  case LINK_UP:
    if (silent_ns >= idle_ns) {
      n->counts.idle_closed++;
      lose(l, ERR_TIMEOUT, "nothing heard for %u ms", n->options.idle_timeout_ms);
      return;
    }
    if (silent_ns < keepalive_ns) {
      net_set_timer(n, &l->timer, l->heard_at_ns + keepalive_ns);
    } else {
      uint64_t next = now + keepalive_ns, end = l->heard_at_ns + idle_ns;
      net_set_timer(n, &l->timer, next < end ? next : end);
      (void)peer_push(l->peer, NET_CONTROL, ping, NULL, 0, false); /* Full: that closed the connection. */
    }
  }
}

/* ---- its beginning ---- */

int link_dial(struct net_peer *p) {
  struct net *n = p->net;
  struct link *l = make(n, p, true);
  if (!l) return ERR_MEMORY;
  int rc = world_connect(n->world, &p->address, &stream_events, l, &l->stream);
  if (rc < 0) {
    n->counts.dials_failed++;
    link_free(l);
    return rc;
  }
  p->link = l;
  net_set_timer(n, &l->timer, l->opened_at_ns + n->options.connect_timeout_ms * UINT64_C(1000000));
  return 0;
}

void link_accept(struct net *n, struct world_stream *stream) {
  struct shoal_address from = {0};
  struct net_peer *p = NULL;
  struct link *l = NULL;
  (void)world_stream_peer(stream, &from); /* False: a stream without an address; it then has none in its info. */
  if (n->closing || peer_make(n, &from, false, &p) < 0 || !(l = make(n, p, false))) {
    if (!n->closing) n->counts.accept_errors++;
    if (p) peer_free(p);
    world_stream_close(stream);
    return;
  }
  n->counts.accepted++;
  p->link = l;
  l->stream = stream;
  l->state = LINK_HELLO;
  net_set_timer(n, &l->timer, l->opened_at_ns + n->options.connect_timeout_ms * UINT64_C(1000000));
  world_stream_attach(stream, &stream_events, l);
  world_stream_window(stream, NET_WINDOW);
}
