/* request: calls and sends from their acceptance to their callback; ids, deadlines, answers.
 *
 * A request's id on the wire is generation << 32 | index: one look finds it, and an id that was used before is known to be
 * late. Requests lie in chunks that never move, REQUESTS_CHUNKS * REQUESTS_A_CHUNK of them at most. */
#ifndef SHOAL_NET_REQUEST_H
#define SHOAL_NET_REQUEST_H

#include "net/net.h"

struct link;

enum { REQUESTS_A_CHUNK = 256, REQUESTS_CHUNKS = 1024 };

enum request_state { REQUEST_FREE, REQUEST_WAITING, REQUEST_ENDED };

struct request {
  struct request *next, *previous;  /* WAITING: the peer's ring of outstanding ones. */
  struct request *following;        /* A lane's sends in order; the net's ended ones; the free ones. */
  struct net_peer *peer;
  net_result_fn *fn;
  void *data;
  uint64_t deadline_ns;
  uint64_t end;                     /* Sends: position in the lane's queue behind their last byte. */
  uint32_t index, generation;
  int code;                         /* ENDED: fn's result. */
  uint8_t state, lane;
  bool call, trial;                 /* A call, not a send; the circuit's one trial. */
  bool unread;                      /* ENDED: its answer found no room here. */
  bool passed;                      /* A control call that an open circuit let pass: its answer closes it. */
};

struct request_line { /* First in, first out, through `following`. */
  struct request *first, *last;
};

struct request *request_find(struct net *n, uint64_t id); /* The waiting call with this id, or NULL. */
void request_end(struct request *r, int code);    /* Its fn is run with code at the end of the turn. */
void request_answered(struct link *l, uint64_t id, uint8_t lane, const struct net_result *result);
/* Its answer came and found no room here: it ends with code. */
void request_unread(struct link *l, uint64_t id, uint8_t lane, int code);
enum frame_fault request_refused(struct link *l, const struct frame *f, const uint8_t *bytes, size_t length);
void request_on_deadline(struct net_peer *p);
void request_deliver(struct net *n);              /* Run the callbacks of those that ended before this call. */
bool request_drop(void *peer, const struct frame *f); /* For queue_peek: its request has ended. */
void request_sent(struct net_peer *p);            /* Some of the sends' bytes went to the stream, or from there to the kernel. */
void request_free_all(struct net *n);

static inline bool line_empty(const struct request_line *line) { return line->first == NULL; }
void line_add(struct request_line *line, struct request *r);
struct request *line_take(struct request_line *line);

#endif
