/* peer: the other end: dialling, backoff, its queues, the end of its outstanding requests.
 *
 * Memory: a peer is freed at the end of a turn, after NET_GONE, when it has no link. See link.h. */
#ifndef SHOAL_NET_PEER_H
#define SHOAL_NET_PEER_H

#include "net/queue.h"
#include "net/request.h"
#include "net/turn.h"

struct net_peer {
  struct net *net;
  uint32_t index;
  struct shoal_address address;
  bool dialled, closing;
  bool keep;                /* Was up once: redialled also with nothing to send, for the other side may have something. */
  bool marked;              /* Stands in the net's list of peers with work at the end of the turn. */
  bool flush, down, gone;   /* That work: bytes to write, NET_DOWN to send, or NET_GONE. */
  struct net_peer *mark_next;
  struct link *link;        /* The current one. */
  struct queue lanes[NET_LANES];
  uint8_t busy;             /* Bit by lane: something may wait there. */
  struct request_line sends[NET_LANES]; /* Accepted, not wholly given to the stream. */
  struct request_line written;          /* Given to the stream, not yet to the kernel. */
  uint32_t sends_count;                 /* In all of these lines. */
  struct request outstanding;           /* The head of the ring. */
  uint64_t deadline_ns;                 /* When `deadline` is set for: the earliest deadline in the ring, or earlier. */
  bool disordered;                      /* The ring's deadlines do not rise: all of it must be looked through. */
  uint32_t in_flight[NET_LANES], in_flight_all; /* All: control not counted. */
  bool calm;                /* Not closing, circuit closed with nothing counted, no wait drawn: an answer changes nothing. */
  struct breaker breaker;
  enum breaker_status circuit_told; /* The status that on_circuit was last called with. */
  struct backoff backoff;
  uint64_t life;            /* As the last hello said that came from its address; 0: none yet. */
  struct wheel_entry deadline, redial, circuit;
  uint64_t redial_ns;       /* When `redial` is set for, while it is. */
  uint64_t dialled_ns;      /* The last attempt. */
  char node[256], role[256], dc[256], advertise[256];
  int down_code;
  char down_text[256];
  void *data;
};

int peer_make(struct net *n, const struct shoal_address *address, bool dialled, struct net_peer **out);
void peer_dial(struct net_peer *p);               /* If it has something to send, has no link, and may dial now. */
void peer_redial_by(struct net_peer *p, uint64_t at_ns); /* It waits to dial: not longer than until then. */
void peer_lost(struct net_peer *p, struct link *link, int code, const char *text, bool orderly); /* Its link is no more. */
void peer_end_all(struct net_peer *p, int code, bool calls_only); /* Its outstanding requests end with this. */
void peer_free(struct net_peer *p);
int peer_overflow(struct net_peer *p, enum net_lane lane); /* No room: count it; a full control lane closes the connection. ERR_FULL. */
int peer_total_full(struct net_peer *p, enum net_lane lane); /* All peers' lanes together have no room: count it. ERR_FULL. */

/* This lane has something. The connection that is being read writes it when its bytes have been dealt with; others at the end
 * of the turn. */
static inline void peer_to_flush(struct net_peer *p, unsigned lane) {
  p->busy |= (uint8_t)(1u << lane);
  if (p->flush) return;
  p->flush = true;
  if (!p->link || p->link != p->net->reading) net_mark(p);
}

/* Queue a message for the peer, within the lane's bounds. A `free` one passes them: it is small, and there is at most one for
 * each unanswered request. 0, ERR_FULL, ERR_MEMORY. */
static inline int peer_push(struct net_peer *p, enum net_lane lane, struct frame_head head, const void *bytes,
                            size_t length, bool free) {
  struct queue *q = &p->lanes[lane];
  if (!queue_push_easily(q, head, bytes, length)) {
    if (!free && queue_full(q, length)) return peer_overflow(p, lane);
    if (!free && lane != NET_CONTROL && queue_total_full(q, length)) return peer_total_full(p, lane);
    int rc = queue_push(q, head, bytes, length);
    if (rc < 0) return rc;
  }
  peer_to_flush(p, lane);
  return 0;
}

#endif
