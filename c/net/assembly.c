#include "net/assembly.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/greeting.h"
#include "net/link.h"
#include "net/peer.h"
#include "net/request.h"
#include "net/turn.h"

static void open_message(struct link *l, struct assembly *a, const struct frame *f) {
  assert(!a->open && !a->bytes);
  a->link = l;
  a->head = *f;
  a->length = 0;
  a->opened_ns = net_now(l->net);
  a->open = true;
  a->skipped = false;
  l->assembling++;
  ring_add(&l->net->assemblies.open, &a->ring);
}

static void free_bytes(struct assembly *a) {
  a->link->net->assemblies.bytes -= a->capacity;
  free(a->bytes);
  a->bytes = NULL;
  a->capacity = 0;
}

void assembly_drop(struct assembly *a) {
  if (!a->open) return;
  free_bytes(a);
  a->open = false;
  a->link->assembling--;
  ring_remove(&a->ring);
}

bool assembly_finish(struct assembly *a, uint8_t **bytes, size_t *length) {
  bool whole = !a->skipped;
  *bytes = a->bytes;
  *length = a->length;
  a->link->net->assemblies.bytes -= a->capacity;
  a->bytes = NULL;
  a->capacity = 0;
  assembly_drop(a);
  return whole;
}

/* ---- refusing ---- */

/* Tell the sender, if a frame can. */
static void answer_refused(struct assembly *a, int code, const char *text) {
  struct link *l = a->link;
  struct net *n = l->net;
  if (a->head.flags & FRAME_LINK || a->head.lane == NET_CONTROL) {
    greeting_refuse(l, code, "FULL", text);
  } else if (a->head.flags & FRAME_REPLY) {
    request_unread(l, a->head.id, a->head.lane, code);
  } else if (a->head.flags & FRAME_REQUEST) {
    struct net_request request = {
        .link = l->serial, .id = a->head.id, .peer = l->peer->index, .type = a->head.type, .lane = a->head.lane};
    l->unanswered++, n->unanswered++; /* As all requests that are answered. */
    (void)net_refuse(n, &request, "FULL", text); /* It counts what it cannot send. */
  }
}

static void refuse(struct assembly *a, enum net_refusal why, int code) {
  struct net *n = a->link->net;
  char text[200];
  n->counts.refused[why]++;
  free_bytes(a);
  a->skipped = true;
  if (why == NET_REFUSED_MEMORY)
    snprintf(text, sizeof text, "out of memory for this message; try again in %d ms", ASSEMBLY_RETRY_MS);
  else if (why == NET_REFUSED_STUCK)
    snprintf(text, sizeof text, "this message was unfinished for %llu ms and made room for others; try again in %d ms",
             (unsigned long long)((net_now(n) - a->opened_ns) / 1000000), ASSEMBLY_RETRY_MS);
  else
    snprintf(text, sizeof text, "unfinished messages hold %u bytes here, the limit; try again in %d ms",
             n->options.assembly_bytes_max, ASSEMBLY_RETRY_MS);
  answer_refused(a, code, text);
}

/* One that is stuck makes room. Small ones hold too little to matter. */
static bool evict(struct net *n, const struct assembly *newcomer) {
  uint64_t now = net_now(n);
  struct ring *open = &n->assemblies.open;
  for (struct ring *e = ring_first(open); e; e = ring_after(open, e)) {
    struct assembly *a = OWNER(e, struct assembly, ring);
    bool stuck = now - a->heard_ns >= ASSEMBLY_IDLE_MS * UINT64_C(1000000) ||
                 now - a->opened_ns >= ASSEMBLY_OPEN_MS * UINT64_C(1000000);
    if (!stuck || a == newcomer || a->capacity <= ASSEMBLY_SMALL) continue;
    refuse(a, NET_REFUSED_STUCK, ERR_FULL);
    return true;
  }
  return false;
}

/* ---- growing ---- */

static size_t capacity_for(const struct assembly *a, size_t length) {
  size_t capacity = a->capacity ? a->capacity : ASSEMBLY_SMALL;
  while (capacity < length) capacity *= 2;
  size_t most = a->head.flags & FRAME_LAST ? a->head.length : FRAME_MESSAGE_MAX; /* A single frame's end is known. */
  if (most < ASSEMBLY_SMALL) most = ASSEMBLY_SMALL;
  return capacity < most ? capacity : most;
}

static int reserve(struct net *n, struct assembly *a, size_t length) {
  if (length <= a->capacity) return 0;
  size_t capacity = capacity_for(a, length), more = capacity - a->capacity;
  if (capacity > ASSEMBLY_SMALL)
    while (n->assemblies.bytes + more > n->options.assembly_bytes_max)
      if (!evict(n, a)) return ERR_FULL;
  uint8_t *bytes = realloc(a->bytes, capacity);
  if (!bytes) return ERR_MEMORY;
  a->bytes = bytes;
  a->capacity = capacity;
  n->assemblies.bytes += more;
  return 0;
}

void assembly_add(struct link *l, struct assembly *a, const struct frame *f, const uint8_t *bytes, size_t length) {
  if (!a->open) open_message(l, a, f);
  size_t before = a->length;
  a->heard_ns = net_now(l->net);
  a->length += length;
  assert(a->length <= FRAME_MESSAGE_MAX);
  if (a->skipped || length == 0) return;
  int rc = reserve(l->net, a, a->length);
  if (rc < 0) refuse(a, rc == ERR_MEMORY ? NET_REFUSED_MEMORY : NET_REFUSED_ASSEMBLY, rc);
  else memcpy(a->bytes + before, bytes, length);
}
