#include "world/sim_private.h"

/* Settings of directed pairs of nodes: links, cuts and clogs; and the queue of a wire with a rate. */

static const struct sim_link self_link = {.latency_ns = 20000}; /* sim.h */

/* ---- links ---- */

static uint32_t pair_slot(const struct sim *s, const struct sim_node *from, const struct sim_node *to) {
  return (uint32_t)sim_mix((uint64_t)from->index << 32 | to->index) & (s->by_pair_size - 1);
}

struct sim_pair *sim_pair_of(const struct sim *s, const struct sim_node *from, const struct sim_node *to) {
  if (s->pairs_count == 0) return NULL;
  for (uint32_t slot = pair_slot(s, from, to); s->by_pair[slot]; slot = (slot + 1) & (s->by_pair_size - 1)) {
    struct sim_pair *p = s->pairs[s->by_pair[slot] - 1];
    if (p->from == from && p->to == to) return p;
  }
  return NULL;
}

static void place_pair(struct sim *s, uint32_t index) {
  uint32_t slot = pair_slot(s, s->pairs[index]->from, s->pairs[index]->to);
  while (s->by_pair[slot]) slot = (slot + 1) & (s->by_pair_size - 1);
  s->by_pair[slot] = index + 1;
}

static void on_cut_long(struct sim *s, struct sim_event *e) {
  struct sim_pair *p = SIM_AROUND(struct sim_pair, cut_long, e);
  SIM_NOTE(s, "cut_long %s>%s", p->from->name, p->to->name);
  sim_streams_cut_long(p->from, p->to);
}

static struct sim_pair *make_pair(struct sim *s, struct sim_node *from, struct sim_node *to) {
  struct sim_pair *p = sim_pair_of(s, from, to);
  if (p) return p;
  p = sim_take(s, sizeof *p);
  *p = (struct sim_pair){.from = from, .to = to, .cut_long = {.run = on_cut_long}};
  sim_ring_init(&p->clog);
  s->pairs = sim_grow(s->pairs, &s->pairs_capacity, s->pairs_count, sizeof *s->pairs);
  s->pairs[s->pairs_count++] = p;
  if (s->pairs_count * 2 <= s->by_pair_size) {
    place_pair(s, s->pairs_count - 1);
    return p;
  }
  free(s->by_pair);
  s->by_pair_size = s->by_pair_size ? s->by_pair_size * 2 : 64;
  s->by_pair = calloc(s->by_pair_size, sizeof *s->by_pair);
  if (!s->by_pair) abort();
  for (uint32_t i = 0; i < s->pairs_count; i++) place_pair(s, i);
  return p;
}

bool sim_is_cut(struct sim *s, const struct sim_node *from, const struct sim_node *to) {
  const struct sim_pair *p = sim_pair_of(s, from, to);
  return p && p->cut;
}

const struct sim_link *sim_link_over(const struct sim *s, const struct sim_pair *p, const struct sim_node *from,
                                     const struct sim_node *to) {
  if (p && p->linked) return &p->link;
  return from == to ? &self_link : &s->link;
}
const struct sim_link *sim_link_of(struct sim *s, const struct sim_node *from, const struct sim_node *to) {
  return sim_link_over(s, sim_pair_of(s, from, to), from, to);
}

uint64_t sim_link_delay(struct sim *s, const struct sim_link *link) {
  return link->latency_ns + (link->jitter_ns ? (uint64_t)rng_exponential(&s->chance, (double)link->jitter_ns) : 0);
}

void sim_set_default_link(struct sim *s, const struct sim_link *link) { s->link = *link; }

/* ---- rates ---- */

static uint32_t queue_bytes(const struct sim_link *link) { return link->queue_bytes ? link->queue_bytes : SIM_QUEUE_BYTES; }

uint64_t sim_wire_take(struct sim *s, struct sim_node *from, struct sim_node *to, const struct sim_link *link, size_t length,
                       bool bounded) {
  struct sim_pair *p = make_pair(s, from, to);
  uint64_t free_ns = p->wire_free_ns > s->now_ns ? p->wire_free_ns : s->now_ns;
  unsigned __int128 waiting = (unsigned __int128)(free_ns - s->now_ns) * link->bytes_per_s / SIM_S;
  if (bounded && waiting > 0 && waiting + length > queue_bytes(link)) return UINT64_MAX;
  if (free_ns > s->now_ns) s->counts.throttled++;
  p->wire_free_ns = free_ns + (uint64_t)((unsigned __int128)length * SIM_S / link->bytes_per_s);
  return p->wire_free_ns - s->now_ns;
}

/* ---- cuts and clogs ---- */

static void cut_one(struct sim *s, struct sim_node *from, struct sim_node *to, bool cut) {
  struct sim_pair *p = cut ? make_pair(s, from, to) : sim_pair_of(s, from, to);
  if (!p || p->cut == cut) return;
  p->cut = cut;
  SIM_NOTE(s, "%s %s>%s", cut ? "cut" : "heal", from->name, to->name);
  if (cut) {
    sim_event_at(s, &p->cut_long, s->now_ns + SIM_UNANSWERED_MS * SIM_MS);
  } else {
    sim_event_cancel(s, &p->cut_long);
    sim_streams_healed(from, to);
  }
}

static void clog_one(struct sim *s, struct sim_node *from, struct sim_node *to, bool clogged) {
  struct sim_pair *p = clogged ? make_pair(s, from, to) : sim_pair_of(s, from, to);
  if (!p || p->clogged == clogged) return;
  p->clogged = clogged;
  SIM_NOTE(s, "%s %s>%s", clogged ? "clog" : "unclog", from->name, to->name);
  if (clogged) return;
  p->clog_bytes = 0;
  sim_ring_release(s, &p->clog);
  sim_streams_unclogged(from, to);
}

static void link_one(struct sim *s, struct sim_node *from, struct sim_node *to, const struct sim_link *link) {
  struct sim_pair *p = make_pair(s, from, to);
  p->linked = link;
  if (link) p->link = *link;
}

/* Apply it to each pair; NULL: any node. */
enum say { CUT, CLOG, LINK };
static void say_one(struct sim *s, struct sim_node *from, struct sim_node *to, enum say what, bool on, const struct sim_link *link) {
  if (what == CUT) cut_one(s, from, to, on);
  else if (what == CLOG) clog_one(s, from, to, on);
  else link_one(s, from, to, link);
}
static void say(struct sim *s, struct sim_node *from, struct sim_node *to, enum say what, bool on, const struct sim_link *link) {
  if (from && to) {
    say_one(s, from, to, what, on, link);
    return;
  }
  for (uint32_t i = from ? from->index : 0; i < (from ? from->index + 1 : s->nodes_count); i++)
    for (uint32_t j = to ? to->index : 0; j < (to ? to->index + 1 : s->nodes_count); j++)
      if (i != j) say_one(s, s->nodes[i], s->nodes[j], what, on, link); /* A machine is not cut from itself. */
}

void sim_cut(struct sim *s, struct sim_node *from, struct sim_node *to, bool cut) { say(s, from, to, CUT, cut, NULL); }

void sim_clog(struct sim *s, struct sim_node *from, struct sim_node *to, bool clogged) {
  say(s, from, to, CLOG, clogged, NULL);
}

void sim_set_link(struct sim *s, struct sim_node *from, struct sim_node *to, const struct sim_link *link) {
  say(s, from, to, LINK, false, link);
}

bool sim_is_clogged(struct sim *s, const struct sim_node *from, const struct sim_node *to) {
  const struct sim_pair *p = sim_pair_of(s, from, to);
  return p && p->clogged;
}

bool sim_clog_hold(struct sim *s, struct sim_pair *p, struct sim_event *e, size_t length) {
  assert(p->clogged);
  if (p->clog_bytes > 0 && p->clog_bytes + length > queue_bytes(sim_link_of(s, p->from, p->to))) {
    s->counts.clog_dropped++;
    return false;
  }
  s->counts.clogged++;
  p->clog_bytes += length;
  sim_ring_push(&p->clog, e);
  return true;
}

void sim_links_free(struct sim *s) {
  for (uint32_t i = 0; i < s->pairs_count; i++) {
    sim_event_cancel(s, &s->pairs[i]->cut_long);
    sim_ring_release(s, &s->pairs[i]->clog);
    sim_give(s, s->pairs[i], sizeof *s->pairs[i]);
  }
  s->pairs_count = 0;
  free(s->pairs);
  free(s->by_pair);
}
