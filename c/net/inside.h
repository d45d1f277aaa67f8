/* inside: what the files of the transport share. Nobody outside c/net includes this.
 *
 *   net.c      the net: opening, closing, listening, the one timer, what is due at the end of a turn
 *   peer.c     peers: dialling, backoff, circuit, queues, the end of what was outstanding
 *   link.c     one connection: greeting, bytes in, bytes out, keepalive, closing
 *   request.c  requests and sends: ids, deadlines, answers
 *   queue.c    one lane's bytes; frame.c the bytes themselves
 *
 * Memory: a link is freed when its stream is closed, a peer when it has no link and NET_GONE was told, the net last; each
 * only in a callback of the world or at the end of a turn, never inside a call from above. So a pointer taken before
 * user code ran is still good after it, and only its state must be looked at again. */
#ifndef SHOAL_NET_INSIDE_H
#define SHOAL_NET_INSIDE_H

#include "core/wheel.h"
#include "net/net.h"
#include "net/queue.h"

enum timer_kind { TIMER_DEADLINE = 1, TIMER_LINK, TIMER_REDIAL, TIMER_CIRCUIT };

enum request_state { REQUEST_FREE, REQUEST_WAITING, REQUEST_ENDED };

/* A call or a send from its acceptance to its callback. Its id on the wire is generation << 32 | index, so finding it is
 * one look, and an id that was used before is known to be late. */
struct request {
  struct request *next, *previous;  /* WAITING: the peer's ring of what is outstanding. */
  struct request *following;        /* A lane's sends in order; the net's ended ones; the free ones. */
  struct net_peer *peer;
  net_result_fn *fn;
  void *data;
  uint64_t deadline_ns;
  uint64_t end;                     /* Sends: position in the lane's queue behind their last byte. */
  uint32_t index, generation;
  int code;                         /* ENDED: what fn will hear. */
  uint8_t state, lane;
  bool call, trial;                 /* A call, not a send; the circuit's one trial. */
};

struct request_line { /* First in, first out, through `following`. */
  struct request *first, *last;
};

enum { REQUESTS_A_CHUNK = 256, REQUESTS_CHUNKS = 1024 };

enum link_state { LINK_CONNECTING, LINK_HELLO, LINK_UP, LINK_DRAINING, LINK_CLOSED };

struct assembly { /* An unfinished message. */
  uint8_t *bytes;
  size_t length, capacity;
  struct frame head; /* Of its first frame. */
  bool open;
};

struct link {
  struct net *net;
  struct net_peer *peer; /* NULL once it was let go of. */
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

struct net_peer {
  struct net *net;
  uint32_t index;
  struct shoal_address address;
  bool dialled, closing;
  bool keep;                /* Was up once: dialled again also with nothing to say, for the other side may have. */
  bool marked;              /* Stands in the net's list of peers with something to do at the end of the turn. */
  bool flush, down, gone;   /* What: bytes to write, NET_DOWN to tell, or it is over. */
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
  enum breaker_status circuit_told;
  struct backoff backoff;
  struct wheel_entry deadline, redial, circuit;
  char node[256], role[256], dc[256], advertise[256];
  int down_code;
  char down_text[256];
  void *data;
};

struct listening {
  struct net *net;
  struct world_listener *listener;
  struct listening *next;
  bool closing;
};

struct net {
  struct shoal_world *world;
  struct net_events events;
  void *data;
  struct net_options options; /* With the defaults filled in; its strings are `hello`'s. */
  struct frame_hello hello;
  struct wheel wheel;
  struct world_timer *timer;
  uint64_t armed_at_ns; /* UINT64_MAX: not. */
  struct world_defer turn;
  struct net_peer *marked_first, *marked_last;
  struct request *chunks[REQUESTS_CHUNKS];
  uint32_t requests_count;
  struct request *free;
  struct request_line ended;
  struct net_peer **peers;
  uint32_t peers_count, peers_capacity; /* Holes are NULL. */
  uint64_t links_made;
  struct link *links;
  struct listening *listeners;
  bool closing, ending;
  struct link *reading; /* Not NULL: this one's on_read is running, and now_ns is now. */
  uint64_t now_ns;
  struct net_counts counts;
};

/* net.c */
void net_wake(struct net *n);                     /* Run the turn's end before the world waits. */
void net_mark(struct net_peer *p);                /* With net_wake. */
void net_set_timer(struct net *n, struct wheel_entry *e, uint64_t at_ns);
/* The world's clock stands still in a callback, so it is asked once in each that brings many messages. */
static inline uint64_t net_now(struct net *n) { return n->reading ? n->now_ns : world_now_ns(n->world); }
void net_peer_event(struct net_peer *p, enum net_peer_event event, int code, const char *text);

/* peer.c */
int peer_make(struct net *n, const struct shoal_address *address, bool dialled, struct net_peer **out);
void peer_dial(struct net_peer *p);               /* When it has something to say, no link, and may. */
void peer_lost(struct net_peer *p, struct link *link, int code, const char *text, bool orderly); /* Its link is no more. */
void peer_end_all(struct net_peer *p, int code, bool calls_only); /* What is outstanding ends with this. */
void peer_on_redial(struct net_peer *p);
void peer_on_circuit(struct net_peer *p);
/* A node that listens there came to us: what we hold against its address is looked at again, now. */
void peer_heard(struct net *n, const char *advertise);
void peer_failed(struct net_peer *p, bool trial); /* For the circuit. */
void peer_answered(struct net_peer *p, bool trial); /* Likewise, and for the backoff; not when calm. */
void peer_free(struct net_peer *p);
int peer_overflow(struct net_peer *p, enum net_lane lane); /* No room: counted; control closes the connection. ERR_FULL. */

/* This lane has something: it is written when the bytes now being read from this connection have been dealt with, or
 * else at the end of the turn. */
static inline void peer_to_flush(struct net_peer *p, unsigned lane) {
  p->busy |= (uint8_t)(1u << lane);
  if (p->flush) return;
  p->flush = true;
  if (!p->link || p->link != p->net->reading) net_mark(p);
}

/* Give the peer a message to carry, within the lane's bounds. A `free` one is let through: it is small, and there is one
 * for each unanswered request at most. 0, ERR_FULL, ERR_MEMORY. */
static inline int peer_push(struct net_peer *p, enum net_lane lane, struct frame_head head, const void *bytes,
                            size_t length, bool free) {
  struct queue *q = &p->lanes[lane];
  if (!queue_push_easily(q, head, bytes, length)) {
    if (!free && queue_full(q, length)) return peer_overflow(p, lane);
    int rc = queue_push(q, head, bytes, length);
    if (rc < 0) return rc;
  }
  peer_to_flush(p, lane);
  return 0;
}

/* link.c */
int link_dial(struct net_peer *p);
void link_accept(struct net *n, struct world_stream *stream);
void link_flush(struct link *l);
void link_drain(struct link *l);                  /* Close it once what is queued has left. */
void link_lose(struct link *l, int code, const char *text, bool orderly);
void link_on_timer(struct link *l);
void link_free(struct link *l);

/* request.c */
struct request *request_find(struct net *n, uint64_t id); /* The waiting call with this id, or NULL. */
void request_end(struct request *r, int code);    /* Its fn hears code at the end of the turn. */
void request_answered(struct link *l, uint64_t id, uint8_t lane, const struct net_result *result);
enum frame_fault request_refused(struct link *l, const struct frame *f, const uint8_t *bytes, size_t length);
void request_on_deadline(struct net_peer *p);
void request_deliver(struct net *n);              /* Those that ended before this call. */
bool request_drop(void *peer, const struct frame *f); /* For queue_peek: its request has ended. */
void request_sent(struct net_peer *p);            /* Sends whose bytes went to the stream, or further to the kernel. */
void request_free_all(struct net *n);

static inline bool line_empty(const struct request_line *line) { return line->first == NULL; }
void line_add(struct request_line *line, struct request *r);
struct request *line_take(struct request_line *line);

#endif
