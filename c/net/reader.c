#include "net/reader.h"

#include <assert.h>
#include <stdlib.h>

#include "net/greeting.h"
#include "net/peer.h"
#include "net/turn.h"
#include "net/writer.h"

enum { ASSEMBLY_KEEP = 64 * 1024 };

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
    if (fault) link_bad(l, fault);
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
    greeting_on_frame(l, f, body);
    return;
  }
  if (l->state == LINK_HELLO) {
    link_bad(l, FRAME_FAULT_EARLY);
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
    link_bad(l, fault);
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
    link_bad(l, fault);
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
      link_fail(l, ERR_MEMORY, "no memory to read with");
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

void reader_on_bytes(void *data, const uint8_t *bytes, size_t length) {
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

