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
#include "net/assembly.h"
#include "net/net.h"
#include "net/ring.h"

enum link_state { LINK_CONNECTING, LINK_HELLO, LINK_UP, LINK_DRAINING, LINK_CLOSED };

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
  struct ring ungreeted; /* Accepted, and no hello came yet: in the net's. */
  enum { LINK_UNCOUNTED, LINK_ACCEPTED, LINK_TURNED_AWAY } counted; /* In the net's `accepted`, or its `turned_away`. */
  uint8_t header[FRAME_HEADER]; /* The beginning of a header whose rest has not come; */
  uint8_t header_length;        /* so many bytes of it. */
  bool inside;                  /* The header of `frame` came, and `missing` bytes of its body did not. */
  uint32_t missing;
  struct frame frame;
  struct assembly parts[NET_LANES + 1]; /* By lane, and one for LINK frames, which may come between those of a message. */
  uint32_t assembling; /* How many of them are open. */
  uint8_t unheard; /* Calls of net_hurry since something was heard. */
  uint32_t unanswered; /* Requests of the other side's, control not counted. */
};

struct link *link_make(struct net *n, struct net_peer *p, bool dialled); /* NULL: no memory. */
int link_dial(struct net_peer *p);
/* Begin to read from an accepted stream; `state` is HELLO, or DRAINING for one that is turned away. */
void link_attach(struct link *l, struct world_stream *stream, enum link_state state, uint32_t timeout_ms);
/* It counts no more as a connection of ours: what it holds is dropped. */
void link_uncount(struct link *l);
void link_drain(struct link *l);                  /* Close it once its queues are empty. */
/* End it; its peer, if it has one still, learns why. Idempotent. */
void link_lose(struct link *l, int code, const char *text, bool orderly);
/* The same, not orderly, with a text that begins with the peer's address. */
__attribute__((format(printf, 3, 4))) void link_fail(struct link *l, int code, const char *format, ...);
void link_bad(struct link *l, enum frame_fault fault); /* The other side broke the protocol: count it and fail. */
void link_on_timer(struct link *l);
void link_free(struct link *l);

#endif
