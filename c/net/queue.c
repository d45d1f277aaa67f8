#include "net/queue.h"

#include <assert.h>
#include <stdlib.h>

#include "core/errors.h"

enum {
  FIRST_CAPACITY = 1024,
  KEEP_CAPACITY = 256 * 1024,    /* An empty lane gives back more than this, */
  KEEP_IN_ALL = 16 * 1024 * 1024, /* and more than the first capacity when all lanes together hold more than this. */
};

static void set_easy(struct queue *q) {
  size_t most = q->head + q->bytes_max;
  q->easy = most < q->capacity ? most : q->capacity;
}

static int reserve(struct queue *q, size_t need) {
  if (q->capacity - q->tail >= need) return 0;
  size_t used = queue_bytes(q);
  if (q->head >= used && q->capacity - used >= need) { /* Half empty in front: moving costs no more than was sent. */
    memmove(q->bytes, q->bytes + q->head, used);
  } else {
    size_t capacity = q->capacity ? q->capacity : FIRST_CAPACITY;
    while (capacity - used < need) capacity *= 2;
    uint8_t *bytes = malloc(capacity);
    if (!bytes) return ERR_MEMORY;
    if (used) memcpy(bytes, q->bytes + q->head, used);
    free(q->bytes);
    q->total->capacity += capacity - q->capacity;
    q->bytes = bytes;
    q->capacity = capacity;
  }
  q->head = 0;
  q->tail = used;
  return 0;
}

int queue_push(struct queue *q, struct frame_head head, const void *body, size_t length) {
  size_t frames = length == 0 ? 1 : (length + FRAME_BODY_MAX - 1) / FRAME_BODY_MAX;
  int rc = reserve(q, length + frames * FRAME_HEADER);
  if (rc < 0) return rc;
  const uint8_t *from = body;
  uint8_t *to = q->bytes + q->tail;
  do {
    size_t part = length < FRAME_BODY_MAX ? length : FRAME_BODY_MAX;
    frame_put_head(to, head, part, part == length ? FRAME_LAST : 0);
    if (part) { /* `body` may be NULL otherwise, and adding even 0 to it is undefined. */
      memcpy(to + FRAME_HEADER, from, part);
      from += part;
    }
    to += FRAME_HEADER + part;
    length -= part;
  } while (length);
  q->total->bytes += (size_t)(to - q->bytes) - q->tail;
  q->tail = (size_t)(to - q->bytes);
  q->messages++;
  set_easy(q);
  return 0;
}

static void free_buffer(struct queue *q) {
  q->total->capacity -= q->capacity;
  free(q->bytes);
  q->bytes = NULL;
  q->capacity = 0;
}

static void advance(struct queue *q, size_t length) {
  q->head += length;
  q->taken += length;
  q->total->bytes -= length;
  assert(q->head <= q->tail);
  if (q->head < q->tail) {
    set_easy(q);
    return;
  }
  assert(q->messages == 0 && !q->inside);
  q->head = q->tail = 0;
  q->stale = false;
  if (q->capacity > (q->total->capacity > KEEP_IN_ALL ? FIRST_CAPACITY : KEEP_CAPACITY)) free_buffer(q);
  set_easy(q);
}

/* The length of the whole message whose first frame stands at `at`. */
static size_t message_length(const struct queue *q, size_t at) {
  size_t from = at;
  struct frame f;
  do {
    frame_get(q->bytes + at, &f);
    at += FRAME_HEADER + f.length;
  } while (!(f.flags & FRAME_LAST));
  return at - from;
}

const uint8_t *queue_peek(struct queue *q, size_t budget, bool (*drop)(void *data, const struct frame *f), void *data,
                          size_t *length, uint32_t *dropped) {
  *dropped = 0;
  if (!(q->stale && drop) && queue_bytes(q) <= budget) { /* All of it, without a look at its frames: the common case. */
    *length = queue_bytes(q);
    return *length ? q->bytes + q->head : NULL;
  }
  size_t run = 0;
  bool inside = q->inside;
  struct frame f;
  while (q->head + run < q->tail) {
    frame_get(q->bytes + q->head + run, &f);
    if (!inside && q->stale && drop && drop(data, &f)) {
      if (run) break; /* Send the run before it first. */
      size_t whole = message_length(q, q->head);
      q->messages--;
      ++*dropped;
      advance(q, whole);
      continue;
    }
    if (run + FRAME_HEADER + f.length > budget) break;
    run += FRAME_HEADER + f.length;
    inside = !(f.flags & FRAME_LAST);
  }
  *length = run;
  return run ? q->bytes + q->head : NULL;
}

void queue_take(struct queue *q, size_t length) {
  if (length == queue_bytes(q)) {
    q->messages = 0;
    q->inside = false;
    advance(q, length);
    return;
  }
  struct frame f;
  for (size_t at = q->head; at < q->head + length; at += FRAME_HEADER + f.length) {
    frame_get(q->bytes + at, &f);
    q->inside = !(f.flags & FRAME_LAST);
    if (!q->inside) q->messages--;
  }
  advance(q, length);
}

void queue_clear(struct queue *q) {
  q->messages = 0;
  q->inside = false;
  advance(q, queue_bytes(q));
}

void queue_free(struct queue *q) {
  queue_clear(q);
  free_buffer(q);
}
