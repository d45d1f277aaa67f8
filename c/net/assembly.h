/* assembly: the bytes of messages whose end has not come, over all connections of a net.
 *
 * A frame that lies whole in what was read, and is a whole message, is handled where it lies. All other bytes are copied here at
 * once, so that a connection holds at most one unfinished message a lane and nothing beside. What they hold together is bounded
 * by assembly_bytes_max. When a message finds no room:
 *  - others that are stuck make room, the oldest first: those of which nothing came for ASSEMBLY_IDLE_MS, or which are open for
 *    ASSEMBLY_OPEN_MS (so that nobody keeps others out by sending a byte now and then);
 *  - else it is itself refused.
 * A refused message is skipped to its end, and its connection goes on. A request is answered FULL, with the time after which to
 * try again; an answer ends its call here with FULL; one that wants no answer is counted. A refused message of the control lane
 * closes its connection, loudly: a cancel that is skipped is worse than one that fails.
 * Messages of at most ASSEMBLY_SMALL bytes are counted, and never refused. A lack of memory is handled in the same way. */
#ifndef SHOAL_NET_ASSEMBLY_H
#define SHOAL_NET_ASSEMBLY_H

#include "net/net.h"
#include "net/ring.h"

struct link;

enum {
  ASSEMBLY_SMALL = 2048,
  ASSEMBLY_IDLE_MS = 1000,
  ASSEMBLY_OPEN_MS = 10000,
  ASSEMBLY_RETRY_MS = 1000, /* The hint to a refused sender. */
};

struct assembly {
  struct ring ring; /* Open: in the net's `open`. */
  struct link *link;
  uint8_t *bytes;
  size_t length, capacity; /* The length counts skipped bytes, too. */
  struct frame head;       /* Of its first frame. */
  uint64_t opened_ns, heard_ns;
  bool open;    /* Frames of it came, its last one has not. */
  bool skipped; /* It was refused: the rest of it is dropped as it comes. */
};

struct assemblies {
  struct ring open; /* The oldest first. */
  size_t bytes;     /* The sum of capacities. */
};

/* Add bytes of frame f; the first opens the message. It may be refused, others may be, and connections may end by that, its own
 * included. No user code runs. */
void assembly_add(struct link *l, struct assembly *a, const struct frame *f, const uint8_t *bytes, size_t length);
/* Its last frame is whole. Close it, and give its bytes to the caller to free; false when it was skipped. */
bool assembly_finish(struct assembly *a, uint8_t **bytes, size_t *length);
void assembly_drop(struct assembly *a); /* It will not be finished. Idempotent. */

#endif
