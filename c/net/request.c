#include "net/request.h"

#include <assert.h>
#include <stdlib.h>

#include "net/circuit.h"
#include "net/link.h"
#include "net/peer.h"
#include "net/turn.h"

void line_add(struct request_line *line, struct request *r) {
  r->following = NULL;
  if (line->last) line->last->following = r;
  else line->first = r;
  line->last = r;
}

struct request *line_take(struct request_line *line) {
  struct request *r = line->first;
  if (!r) return NULL;
  line->first = r->following;
  if (!line->first) line->last = NULL;
  r->following = NULL;
  return r;
}

/* ---- the table ---- */

#define TIMEOUT_MAX_NS (UINT64_C(1) << 61) /* 73 years: no sum with it overflows. */

static struct request *at(struct net *n, uint32_t index) {
  return &n->chunks[index / REQUESTS_A_CHUNK][index % REQUESTS_A_CHUNK];
}

static int grow(struct net *n) {
  uint32_t chunk = n->requests_count / REQUESTS_A_CHUNK;
  if (chunk == REQUESTS_CHUNKS) return ERR_FULL;
  struct request *requests = calloc(REQUESTS_A_CHUNK, sizeof *requests);
  if (!requests) return ERR_MEMORY;
  n->chunks[chunk] = requests;
  for (uint32_t i = REQUESTS_A_CHUNK; i-- > 0;) {
    requests[i].index = n->requests_count + i;
    requests[i].following = n->free;
    n->free = &requests[i];
  }
  n->requests_count += REQUESTS_A_CHUNK;
  return 0;
}

int net_next_slot(struct net *n, uint32_t *slot) {
  int rc = n->free ? 0 : grow(n);
  if (rc == 0) *slot = n->free->index;
  return rc;
}

/* *id is made from what was just computed, not read back: a wide load behind a narrow store would wait for it. */
static inline int take(struct net *n, struct request **out, uint64_t *id) {
  if (!n->free) {
    int rc = grow(n);
    if (rc < 0) return rc;
  }
  struct request *r = n->free;
  n->free = r->following;
  assert(r->state == REQUEST_FREE);
  uint32_t generation = r->generation + 1;
  if (generation == 0) generation = 1; /* An id is never 0. */
  r->generation = generation;
  *id = (uint64_t)generation << 32 | r->index;
  *out = r;
  return 0;
}

static void give_back(struct net *n, struct request *r) {
  r->state = REQUEST_FREE;
  r->peer = NULL;
  r->following = n->free;
  n->free = r;
}

static uint64_t id_of(const struct request *r) { return (uint64_t)r->generation << 32 | r->index; }

struct request *request_find(struct net *n, uint64_t id) {
  uint32_t index = (uint32_t)id;
  if (index >= n->requests_count) return NULL;
  struct request *r = at(n, index);
  return r->generation == id >> 32 && r->state == REQUEST_WAITING && r->call ? r : NULL;
}

void request_free_all(struct net *n) {
  for (uint32_t i = 0; i < n->requests_count / REQUESTS_A_CHUNK; i++) free(n->chunks[i]);
}

/* ---- asking ---- */

static int drop(struct net *n, enum net_lane lane, enum net_drop reason, int code) {
  n->counts.drops[lane][reason]++;
  return code;
}

static inline int admit(struct net_peer *p, enum net_lane lane, size_t length, bool call, bool *trial) {
  struct net *n = p->net;
  *trial = false;
  if (!p->calm && (p->closing || n->closing)) return drop(n, lane, NET_DROP_CLOSED, ERR_CLOSED);
  if (length > FRAME_MESSAGE_MAX) return drop(n, lane, NET_DROP_TOO_LARGE, ERR_TOO_LARGE);
  if (call && lane != NET_CONTROL) {
    if (p->in_flight_all >= n->options.in_flight_max || p->in_flight[lane] >= n->options.lane_in_flight_max[lane])
      return drop(n, lane, NET_DROP_IN_FLIGHT, ERR_FULL);
  }
  if (p->calm || p->breaker.status == BREAKER_CLOSED) return 0;
  bool allowed = breaker_allow(&p->breaker, net_now(n), trial);
  if (p->breaker.status != p->circuit_told) net_mark(p);
  return allowed || lane == NET_CONTROL ? 0 : drop(n, lane, NET_DROP_CIRCUIT, ERR_CIRCUIT);
}

/* Inlined into its two callers, whose constant arguments remove most of it. */
__attribute__((always_inline)) static inline int begin(struct net_peer *p, uint16_t type, enum net_lane lane, bool call,
                                                       const void *bytes, size_t length, uint64_t deadline_ns,
                                                       net_result_fn *fn, void *data, struct request **out,
                                                       uint64_t *id) {
  assert(lane < NET_LANES && fn);
  struct net *n = p->net;
  bool trial;
  struct request *r;
  int rc = admit(p, lane, length, call, &trial);
  if (rc < 0) return rc;
  rc = take(n, &r, id);
  if (rc == 0) {
    struct frame_head head = frame_head(type, (uint8_t)lane, call ? FRAME_REQUEST : 0, call ? *id : 0);
    rc = peer_push(p, lane, head, bytes, length, false);
    if (rc < 0) give_back(n, r);
  }
  if (rc < 0) {
    if (trial && p->breaker.trial) breaker_release(&p->breaker);
    return rc;
  }
  r->state = REQUEST_WAITING;
  r->peer = p;
  r->fn = fn;
  r->data = data;
  r->lane = (uint8_t)lane;
  r->call = call;
  r->trial = trial;
  r->passed = r->unread = false;
  if (p->breaker.status != BREAKER_CLOSED) {
    r->passed = call && !trial;
    /* A trial must not wait for a redial backoff: dial now. Control does not wait for the circuit either, but a caller that
     * repeats it at each failure must not make us dial at each. */
    peer_redial_by(p, trial ? net_now(n) : p->dialled_ns + n->options.backoff.base_ns);
  }
  struct request *last = p->outstanding.previous;
  if (!call) deadline_ns = last->deadline_ns; /* A send has none; this value keeps the ring in order. */
  else if (deadline_ns < last->deadline_ns) p->disordered = true; /* The head's own is 0. */
  r->deadline_ns = deadline_ns;
  r->next = &p->outstanding;
  r->previous = last;
  last->next = r;
  p->outstanding.previous = r;
  *out = r;
  return 0;
}

int net_call(struct net_peer *p, uint16_t type, enum net_lane lane, const void *bytes, size_t length,
             uint64_t timeout_ns, net_result_fn *fn, void *data, uint64_t *id) {
  assert(timeout_ns > 0);
  struct request *r;
  uint64_t made, deadline_ns = net_now(p->net) + (timeout_ns < TIMEOUT_MAX_NS ? timeout_ns : TIMEOUT_MAX_NS);
  int rc = begin(p, type, lane, true, bytes, length, deadline_ns, fn, data, &r, &made);
  if (rc < 0) return rc;
  struct net *n = p->net;
  if (deadline_ns < p->deadline_ns) {
    p->deadline_ns = deadline_ns;
    net_set_timer(n, &p->deadline, deadline_ns);
  }
  p->in_flight[lane]++;
  p->in_flight_all += lane != NET_CONTROL;
  n->counts.requests++;
  if (id) *id = made;
  return 0;
}

int net_send(struct net_peer *p, uint16_t type, enum net_lane lane, const void *bytes, size_t length, net_result_fn *fn,
             void *data, uint64_t *id) {
  struct request *r;
  uint64_t made;
  int rc = begin(p, type, lane, false, bytes, length, 0, fn, data, &r, &made);
  if (rc < 0) return rc;
  r->end = queue_end(&p->lanes[lane]);
  line_add(&p->sends[lane], r);
  p->sends_count++;
  if (id) *id = made;
  return 0;
}

/* ---- ending ---- */

static void release(struct request *r) {
  r->next->previous = r->previous;
  r->previous->next = r->next;
  if (!r->call) return;
  assert(r->peer->in_flight[r->lane] > 0);
  r->peer->in_flight[r->lane]--;
  r->peer->in_flight_all -= r->lane != NET_CONTROL;
}

void request_end(struct request *r, int code) {
  assert(r->state == REQUEST_WAITING);
  struct net *n = r->peer->net;
  release(r);
  r->state = REQUEST_ENDED;
  r->code = code;
  line_add(&n->ended, r);
  net_wake(n);
}

static void time_out(struct request *r) {
  struct net_peer *p = r->peer;
  p->net->counts.timeouts++;
  if (p->lanes[r->lane].messages) p->lanes[r->lane].stale = true;
  /* While a peer is being dialled, its silence is one failure: the dial's own. */
  if (r->trial || (p->link && p->link->state == LINK_UP)) peer_failed(p, r->trial);
  request_end(r, ERR_TIMEOUT);
}

/* A peer has one timer for all its deadlines: setting one is a comparison, cancelling one is free, and the due ones are found when
 * the timer fires. While timeouts are alike the deadlines rise along the ring, and the search ends at the first that is not due. */
void request_on_deadline(struct net_peer *p) {
  uint64_t now = net_now(p->net), next_ns = UINT64_MAX;
  for (struct request *r = p->outstanding.next, *next; r != &p->outstanding; r = next) {
    next = r->next;
    if (!r->call) continue;
    if (r->deadline_ns <= now) {
      time_out(r);
      continue;
    }
    if (r->deadline_ns < next_ns) next_ns = r->deadline_ns;
    if (!p->disordered) break;
  }
  p->deadline_ns = next_ns;
  if (p->outstanding.next == &p->outstanding) p->disordered = false;
  if (next_ns != UINT64_MAX) net_set_timer(p->net, &p->deadline, next_ns);
}

static const char no_room[] = "its answer found no room here, beside other unfinished messages; try again in 1000 ms";

void request_deliver(struct net *n) {
  struct request *last = n->ended.last;
  for (bool end = !last; !end;) {
    struct request *r = line_take(&n->ended);
    end = r == last;
    struct net_peer *p = r->peer;
    bool named = r->code != 0 && r->code != ERR_TIMEOUT && r->code != ERR_CLOSED && p->down_text[0];
    const char *text = r->code == 0 ? "" : r->unread ? no_room : named ? p->down_text : error_text(r->code);
    struct net_result result = {.id = id_of(r),
                                .code = r->code,
                                .name = r->code ? error_name(r->code) : "",
                                .bytes = (const uint8_t *)text,
                                .length = strlen(text)};
    net_result_fn *fn = r->fn;
    void *data = r->data;
    give_back(n, r);
    fn(data, &result);
  }
}

/* An answer to a call that has ended, or that never was. */
static void count_late(struct net *n, uint64_t id) {
  uint32_t index = (uint32_t)id, generation = (uint32_t)(id >> 32);
  bool was = generation && index < n->requests_count && at(n, index)->generation >= generation &&
             !request_find(n, id); /* A call that waits on another peer or lane is not this peer's to answer. */
  ++*(was ? &n->counts.late_replies : &n->counts.stray_replies);
}

void request_answered(struct link *l, uint64_t id, uint8_t lane, const struct net_result *result) {
  struct net *n = l->net;
  struct net_peer *p = l->peer;
  struct request *r = request_find(n, id);
  if (!r || r->peer != p || r->lane != lane) {
    count_late(n, id);
    return;
  }
  n->counts.replies++;
  if (!p->calm) peer_answered(p, r);
  net_result_fn *fn = r->fn;
  void *data = r->data;
  release(r);
  give_back(n, r);
  fn(data, result);
}

void request_unread(struct link *l, uint64_t id, uint8_t lane, int code) {
  struct net *n = l->net;
  struct request *r = request_find(n, id);
  if (!r || r->peer != l->peer || r->lane != lane) {
    count_late(n, id);
    return;
  }
  n->counts.replies++;
  if (!l->peer->calm) peer_answered(l->peer, r);
  r->unread = true;
  request_end(r, code);
}

enum frame_fault request_refused(struct link *l, const struct frame *f, const uint8_t *bytes, size_t length) {
  struct frame_refusal refusal;
  if (!frame_refusal_get(bytes, length, &refusal)) return FRAME_FAULT_REFUSAL;
  int code = error_from_name(refusal.name);
  struct net_result result = {.id = f->id,
                              .code = code < 0 ? code : ERR_REFUSED,
                              .name = refusal.name,
                              .bytes = refusal.text,
                              .length = refusal.text_length};
  request_answered(l, f->id, f->lane, &result);
  return FRAME_FAULT_NONE;
}

bool request_drop(void *peer, const struct frame *f) {
  struct net_peer *p = peer;
  return f->flags & FRAME_REQUEST && !request_find(p->net, f->id);
}

void request_sent(struct net_peer *p) {
  for (int lane = 0; lane < NET_LANES; lane++)
    while (!line_empty(&p->sends[lane]) && p->sends[lane].first->end <= p->lanes[lane].taken)
      line_add(&p->written, line_take(&p->sends[lane]));
  if (line_empty(&p->written) || world_stream_queued(p->link->stream) > 0) return;
  struct request *r;
  while ((r = line_take(&p->written))) {
    p->sends_count--;
    if (r->trial) breaker_success(&p->breaker, true);
    request_end(r, 0);
  }
  if (p->breaker.status != p->circuit_told) net_mark(p);
}

/* ---- answering ---- */

static struct link *asker(struct net *n, const struct net_request *request) {
  struct net_peer *p = request->peer < n->peers_count ? n->peers[request->peer] : NULL;
  struct link *l = p ? p->link : NULL;
  return l && l->serial == request->link && !l->shut && (l->state == LINK_UP || l->state == LINK_DRAINING) ? l : NULL;
}

/* One request less waits for our answer, whether or not the answer can be sent. Once for each net_reply and net_refuse. */
static inline void answered(struct net *n, struct link *l, const struct net_request *request) {
  if (request->lane == NET_CONTROL) return;
  if (n->unanswered > 0) n->unanswered--;
  if (l && l->unanswered > 0) l->unanswered--;
}

static int answer(struct net *n, const struct net_request *request, uint8_t flags, const void *bytes, size_t length) {
  struct link *l = asker(n, request);
  if (!l) {
    n->counts.unsent_replies++;
    return ERR_DISCONNECTED;
  }
  struct frame_head head = frame_head(request->type, request->lane, FRAME_REPLY | flags, request->id);
  return peer_push(l->peer, (enum net_lane)request->lane, head, bytes, length, flags & FRAME_REFUSAL);
}

static int refuse(struct net *n, const struct net_request *request, const char *name, const char *text) {
  uint8_t body[FRAME_REFUSAL_MAX];
  int rc = answer(n, request, FRAME_REFUSAL, body, frame_refusal_put(body, name, text, strlen(text)));
  if (rc < 0 && rc != ERR_DISCONNECTED) n->counts.unsent_replies++;
  return rc;
}

int net_refuse(struct net *n, const struct net_request *request, const char *name, const char *text) {
  assert(request->id && name[0]);
  answered(n, asker(n, request), request);
  return refuse(n, request, name, text);
}

__attribute__((noinline)) static int reply_slowly(struct net *n, const struct net_request *request, const void *bytes,
                                                  size_t length) {
  answered(n, asker(n, request), request);
  int rc = length > FRAME_MESSAGE_MAX ? ERR_TOO_LARGE : answer(n, request, 0, bytes, length);
  if (rc == ERR_TOO_LARGE) n->counts.drops[request->lane][NET_DROP_TOO_LARGE]++;
  /* The asker learns it now, not by its timeout: a refusal passes a full queue. */
  if (rc == ERR_TOO_LARGE) (void)refuse(n, request, "TOO_LARGE", "the answer is larger than a message may be");
  if (rc == ERR_FULL) (void)refuse(n, request, "OVERLOADED", "the answers to this node wait in a full queue");
  if (rc == ERR_MEMORY) (void)refuse(n, request, "OVERLOADED", "out of memory for the answer; try again in 1000 ms");
  return rc;
}

int net_reply(struct net *n, const struct net_request *request, const void *bytes, size_t length) {
  struct link *l = n->reading;
  assert(request->id);
  if (!l || l->serial != request->link || l->state != LINK_UP) return reply_slowly(n, request, bytes, length);
  /* Most answers are given while the request is still being read, and are small. */
  struct net_peer *p = l->peer;
  struct frame_head head = frame_head(request->type, request->lane, FRAME_REPLY, request->id);
  if (!queue_push_easily(&p->lanes[request->lane], head, bytes, length)) return reply_slowly(n, request, bytes, length);
  answered(n, l, request);
  peer_to_flush(p, request->lane);
  return 0;
}
