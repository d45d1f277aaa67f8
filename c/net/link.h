/* link: one connection, dialled or accepted, from its opening to its end.
 *
 *   CONNECTING --> HELLO --> UP --> DRAINING --> CLOSED        [on_open, greeting.c, link_drain, link_lose]
 *        +------------+-------+----------------> CLOSED        [link_lose, link_on_timer]
 *
 * Memory: a link is freed in its stream's closed event, which the world sends later and never from within a call. So a pointer
 * to a link that was taken before a callback of the user ran still holds after it; only its state must be read again. */
#ifndef SHOAL_NET_LINK_H
#define SHOAL_NET_LINK_H

#include "core/wheel.h"
#include "net/net.h"

enum link_state { LINK_CONNECTING, LINK_HELLO, LINK_UP, LINK_DRAINING, LINK_CLOSED };

struct assembly { /* An unfinished message. */
  uint8_t *bytes;
  size_t length, capacity;
  struct frame head; /* Of its first frame. */
  bool open;
};

struct link {
  struct net *net;
  struct net_peer *peer; /* NULL once the link was lost or refused: nothing that it receives counts from then on. */
  struct link *next, *previous; /* The net's. */
  struct world_stream *stream;
  uint64_t serial;
  enum link_state state;
  bool dialled;
  bool greeted; /* It was UP once. */
  bool shut;    /* Our side is finished: nothing more is written. */
  uint64_t opened_at_ns, heard_at_ns;
  struct wheel_entry timer; /* CONNECTING, HELLO: give up; UP: keepalive; DRAINING: linger. */
  uint8_t *in; /* The beginning of a frame whose rest has not come. */
  size_t in_length, in_capacity;
  struct assembly parts[NET_LANES];
  uint32_t assembling; /* How many of them are open. */
  uint32_t unanswered; /* Requests of the other side's, control not counted. */
};

int link_dial(struct net_peer *p);
void link_accept(struct net *n, struct world_stream *stream);
void link_drain(struct link *l);                  /* Close it once its queues are empty. */
/* End it; its peer, if it has one still, learns why. Idempotent. */
void link_lose(struct link *l, int code, const char *text, bool orderly);
/* The same, not orderly, with a text that begins with the peer's address. */
__attribute__((format(printf, 3, 4))) void link_fail(struct link *l, int code, const char *format, ...);
void link_bad(struct link *l, enum frame_fault fault); /* The other side broke the protocol: count it and fail. */
void link_on_timer(struct link *l);
void link_free(struct link *l);

#endif
