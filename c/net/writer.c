#include "net/writer.h"

#include "net/greeting.h"
#include "net/peer.h"
#include "net/turn.h"

static int link_write(struct link *l, const struct world_buffer *buffers, size_t count) {
  struct net *n = l->net;
  for (size_t i = 0; i < count; i++) n->counts.bytes_sent += buffers[i].length;
  n->counts.writes++;
  return world_stream_write(l->stream, buffers, count);
}

/* One frame past the lanes: the greeting, which comes before them, and the farewell, which comes after. */
int writer_frame(struct link *l, enum frame_link type, const void *body, size_t length) {
  uint8_t header[FRAME_HEADER];
  struct frame f = {.length = (uint32_t)length, .type = (uint16_t)type, .flags = FRAME_LINK | FRAME_LAST};
  frame_put(header, &f);
  struct world_buffer buffers[2] = {{header, sizeof header}, {body, length}};
  return link_write(l, buffers, length ? 2 : 1);
}

/* The lanes in `set`, the highest first. */
#define EACH_LANE(lane, set) \
  for (unsigned left_ = (set), lane; left_ && (lane = (unsigned)__builtin_ctz(left_), true); left_ &= left_ - 1)

/* A write is at most one frame long, takes the highest lane first, and begins when the kernel has taken the last one: so a later
 * urgent message can still overtake. Sets taken[] of busy lanes. */
static size_t gather(struct net_peer *p, struct world_buffer buffers[NET_LANES], size_t taken[NET_LANES]) {
  size_t count = 0, budget = FRAME_MAX;
  EACH_LANE(lane, p->busy) {
    struct queue *q = &p->lanes[lane];
    uint32_t dropped;
    const uint8_t *bytes = budget ? queue_peek(q, budget, request_drop, p, &taken[lane], &dropped) : NULL;
    if (!bytes) taken[lane] = 0;
    else buffers[count++] = (struct world_buffer){bytes, taken[lane]};
    if (budget) p->net->counts.drops[lane][NET_DROP_EXPIRED] += dropped;
    /* A lower lane must not slip in because this lane's next frame had no room. */
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
  int rc = count ? link_write(l, buffers, count) : 0; /* 0: all of the requests had ended. */
  if (rc == 0) take(l->peer, taken);
  return rc;
}

/* The common case of the above: one lane, and all of it in one write. */
static int flush_one(struct link *l, struct queue *q) {
  struct world_buffer buffer = {q->bytes + q->head, queue_bytes(q)};
  int rc = link_write(l, &buffer, 1);
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
    link_fail(l, rc, "the connection cannot be written: %s", error_text(rc));
    return;
  }
  if (p->sends_count) request_sent(p);
  if (l->state == LINK_DRAINING && !p->busy) greeting_end(l, "CLOSED", "closed by the other side");
}

