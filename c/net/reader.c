#include "net/reader.h"

#include <assert.h>
#include <stdlib.h>

#include "net/greeting.h"
#include "net/peer.h"
#include "net/turn.h"
#include "net/writer.h"

/* ---- messages ---- */

static inline void on_reply(struct link *l, uint64_t id, uint8_t lane, const uint8_t *bytes, size_t length) {
  struct net_result result = {.id = id, .name = "", .bytes = bytes, .length = length};
  request_answered(l, id, lane, &result);
}

/* Count a request, and say whether it is too many. */
static inline bool crowded(struct link *l) {
  struct net *n = l->net;
  bool full = l->unanswered >= n->options.unanswered_max || n->unanswered >= n->options.unanswered_all_max;
  l->unanswered++;
  n->unanswered++;
  return full;
}

static inline void on_request(struct link *l, uint16_t type, uint8_t lane, bool asks, uint64_t id, const uint8_t *bytes,
                              size_t length) {
  struct net *n = l->net;
  struct net_request request = {.link = l->serial, .id = asks ? id : 0, .peer = l->peer->index, .type = type, .lane = lane};
  bool shed = asks && lane != NET_CONTROL && crowded(l);
  if (!shed && n->events.on_request) {
    n->events.on_request(n->data, l->peer, &request, bytes, length);
  } else if (shed) {
    n->counts.refused[NET_REFUSED_REQUESTS]++;
    (void)net_refuse(n, &request, "OVERLOADED", "too many requests wait for their answers here"); /* It counts. */
  } else if (asks) {
    (void)net_refuse(n, &request, "UNHANDLED", "this node answers no requests"); /* It counts. */
  }
}

static void on_message(struct link *l, const struct frame *f, const uint8_t *bytes, size_t length) {
  if (f->flags & FRAME_LINK) {
    greeting_on_frame(l, f, bytes);
    return;
  }
  l->net->counts.messages_received++;
  if (f->flags & FRAME_REFUSAL) {
    enum frame_fault fault = request_refused(l, f, bytes, length);
    if (fault) link_bad(l, fault);
  } else if (f->flags & FRAME_REPLY) {
    on_reply(l, f->id, f->lane, bytes, length);
  } else {
    on_request(l, f->type, f->lane, f->flags & FRAME_REQUEST, f->id, bytes, length);
  }
}

/* ---- frames ---- */

static struct assembly *part_of(struct link *l, const struct frame *f) {
  return &l->parts[f->flags & FRAME_LINK ? NET_LANES : f->lane];
}

/* Whether a frame with this header may come now. */
static enum frame_fault check(struct link *l, const struct frame *f) {
  const uint8_t same = FRAME_FLAGS & ~FRAME_LAST;
  enum frame_fault fault = frame_check(f);
  if (fault) return fault;
  if (l->state == LINK_HELLO && !(f->flags & FRAME_LINK)) return FRAME_FAULT_EARLY;
  const struct assembly *a = part_of(l, f);
  if (!a->open) return FRAME_FAULT_NONE;
  if (a->head.id != f->id || a->head.type != f->type || (a->head.flags ^ f->flags) & same) return FRAME_FAULT_ORDER;
  return a->length + f->length > FRAME_MESSAGE_MAX ? FRAME_FAULT_MESSAGE : FRAME_FAULT_NONE;
}

/* More of the current frame's body came. */
static void on_body(struct link *l, const uint8_t *bytes, size_t length) {
  struct frame f = l->frame;
  struct assembly *a = part_of(l, &f);
  l->missing -= (uint32_t)length;
  l->inside = l->missing > 0;
  if (l->state != LINK_UP && !(f.flags & FRAME_LINK)) return; /* Draining: nobody here waits for it any more. */
  if (!a->open && !l->inside && length == f.length && f.flags & FRAME_LAST) { /* Whole, and read where it lies. */
    on_message(l, &f, bytes, length);
    return;
  }
  assembly_add(l, a, &f, bytes, length);
  if (!l->peer || l->inside || !(f.flags & FRAME_LAST)) return;
  uint8_t *whole;
  size_t whole_length;
  f = a->head;
  f.length = (uint32_t)a->length;
  if (assembly_finish(a, &whole, &whole_length)) on_message(l, &f, whole, whole_length);
  free(whole);
}

/* ---- bytes ---- */

/* Reads the rest of a header, then of its body. Returns how many bytes that took. */
static size_t step(struct link *l, const uint8_t *bytes, size_t length) {
  size_t used = 0;
  if (!l->inside) {
    used = FRAME_HEADER - l->header_length;
    if (used > length) used = length;
    memcpy(l->header + l->header_length, bytes, used);
    l->header_length += (uint8_t)used;
    if (l->header_length < FRAME_HEADER) return used;
    l->header_length = 0;
    frame_get(l->header, &l->frame);
    enum frame_fault fault = check(l, &l->frame);
    if (fault) {
      link_bad(l, fault);
      return used;
    }
    l->inside = true;
    l->missing = l->frame.length;
  }
  size_t piece = l->missing < length - used ? l->missing : length - used;
  if (piece > 0 || l->missing == 0) on_body(l, bytes + used, piece);
  return used + piece;
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

/* A lost or refused link has no peer: nothing counts that is still in hand. */
static void read_bytes(struct link *l, const uint8_t *bytes, size_t length) {
  size_t at = 0;
  while (at < length && l->peer) {
    if (!l->inside && !l->header_length) at += read_plain(l, bytes + at, length - at);
    if (at < length && l->peer) at += step(l, bytes + at, length - at);
  }
}

void reader_on_bytes(void *data, const uint8_t *bytes, size_t length) {
  struct link *l = data;
  struct net *n = l->net;
  n->counts.bytes_received += length;
  if (!l->peer) return;
  n->now_ns = l->heard_at_ns = net_now(n);
  l->unheard = 0;
  n->reading = l;
  read_bytes(l, bytes, length);
  n->reading = NULL; /* The net goes only when its timer's closed event came: never within this. */
  struct net_peer *p = l->peer;
  if (!p || !p->flush || p->marked) return; /* Marked: it has more work at the turn's end. */
  p->flush = false;
  link_flush(l);
}
