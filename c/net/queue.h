/* queue: one lane of one peer: whole messages, already cut into frames, in the order they were given.
 *
 * The bytes lie in one buffer, so that a write takes many messages with one pointer and without a copy. It grows to
 * what the lane needed and is given back when a burst is over. Positions count all bytes that ever went in.
 * The bounds stand here, and the caller keeps them (peer_push): an empty lane takes any one message, otherwise a lane holds at most
 * messages_max messages and bytes_max bytes, headers included. */
#ifndef SHOAL_NET_QUEUE_H
#define SHOAL_NET_QUEUE_H

#include "net/frame.h"

/* Sums over many queues. */
struct queue_total {
  size_t bytes;     /* Of messages that wait. */
  size_t bytes_max; /* The caller keeps it, too. */
  size_t capacity;  /* Of all buffers. */
};

struct queue {
  struct queue_total *total;
  uint8_t *bytes;
  size_t capacity, head, tail;
  size_t easy; /* The tail may grow to here without a check of bounds or capacity. */
  uint64_t taken;    /* Position of head. */
  uint32_t messages; /* Waiting; one that has begun to leave counts until its last frame has. */
  uint32_t messages_max, bytes_max;
  bool inside;       /* The first frame at head is not its message's first. */
  bool stale;        /* A request that waits here may have ended: ask before it is sent. */
};

static inline size_t queue_bytes(const struct queue *q) { return q->tail - q->head; }
static inline uint64_t queue_end(const struct queue *q) { return q->taken + queue_bytes(q); }

/* Whether the bounds let it in. */
static inline bool queue_full(const struct queue *q, size_t length) {
  return q->messages && (q->messages >= q->messages_max || queue_bytes(q) + length > q->bytes_max);
}

static inline bool queue_total_full(const struct queue *q, size_t length) {
  return q->total->bytes + FRAME_HEADER + length > q->total->bytes_max;
}

/* Add a message, whatever the bounds; LAST is set here. 0 or ERR_MEMORY. */
int queue_push(struct queue *q, struct frame_head head, const void *body, size_t length);

/* The common case, and most of the cost of a request, so it is inline: one frame, and there is room. False: take queue_push. */
static inline bool queue_push_easily(struct queue *q, struct frame_head head, const void *body, size_t length) {
  if (length > FRAME_BODY_MAX || q->tail + FRAME_HEADER + length > q->easy || q->messages >= q->messages_max || queue_total_full(q, length))
    return false;
  uint8_t *to = q->bytes + q->tail;
  frame_put_head(to, head, length, FRAME_LAST);
  if (length) memcpy(to + FRAME_HEADER, body, length);
  q->tail += FRAME_HEADER + length;
  q->total->bytes += FRAME_HEADER + length;
  q->messages++;
  return true;
}

/* The next bytes to send: whole frames, at most budget bytes, NULL when there are none (or the first does not fit).
 * Messages for which drop(data, frame) is true (NULL: none) are taken out on the way, and counted in *dropped. */
const uint8_t *queue_peek(struct queue *q, size_t budget, bool (*drop)(void *data, const struct frame *f), void *data,
                          size_t *length, uint32_t *dropped);
/* They were sent. */
void queue_take(struct queue *q, size_t length);

void queue_clear(struct queue *q); /* Drop all, keep the positions rising. */
void queue_free(struct queue *q);

#endif
