#include "world/sim_private.h"

/* What was said of directed pairs of nodes: links and cuts. */

static const struct sim_link self_link = {.latency_ns = 20000}; /* sim.h */

/* ---- links ---- */

static uint32_t pair_slot(const struct sim *s, const struct sim_node *from, const struct sim_node *to) {
  return (uint32_t)sim_mix((uint64_t)from->index << 32 | to->index) & (s->by_pair_size - 1);
}

static struct sim_pair *find_pair(const struct sim *s, const struct sim_node *from, const struct sim_node *to) {
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
  struct sim_pair *p = find_pair(s, from, to);
  if (p) return p;
  p = sim_take(s, sizeof *p);
  *p = (struct sim_pair){.from = from, .to = to, .cut_long = {.run = on_cut_long}};
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
  const struct sim_pair *p = find_pair(s, from, to);
  return p && p->cut;
}

const struct sim_link *sim_link_of(struct sim *s, const struct sim_node *from, const struct sim_node *to) {
  const struct sim_pair *p = find_pair(s, from, to);
  if (p && p->linked) return &p->link;
  return from == to ? &self_link : &s->link;
}

uint64_t sim_link_delay(struct sim *s, const struct sim_link *link) {
  return link->latency_ns + (link->jitter_ns ? (uint64_t)rng_exponential(&s->chance, (double)link->jitter_ns) : 0);
}

void sim_set_default_link(struct sim *s, const struct sim_link *link) { s->link = *link; }

void sim_set_link(struct sim *s, struct sim_node *from, struct sim_node *to, const struct sim_link *link) {
  struct sim_pair *p = make_pair(s, from, to);
  p->linked = link;
  if (link) p->link = *link;
}

static void cut_one(struct sim *s, struct sim_node *from, struct sim_node *to, bool cut) {
  struct sim_pair *p = cut ? make_pair(s, from, to) : find_pair(s, from, to);
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

void sim_cut(struct sim *s, struct sim_node *from, struct sim_node *to, bool cut) {
  if (from && to) {
    cut_one(s, from, to, cut);
    return;
  }
  for (uint32_t i = 0; i < s->nodes_count; i++)
    for (uint32_t j = 0; j < s->nodes_count; j++) {
      struct sim_node *a = s->nodes[i], *b = s->nodes[j];
      if (a != b && (!from || from == a) && (!to || to == b)) cut_one(s, a, b, cut); /* Not a machine from itself. */
    }
}

void sim_links_free(struct sim *s) {
  for (uint32_t i = 0; i < s->pairs_count; i++) {
    sim_event_cancel(s, &s->pairs[i]->cut_long);
    sim_give(s, s->pairs[i], sizeof *s->pairs[i]);
  }
  s->pairs_count = 0;
  free(s->pairs);
  free(s->by_pair);
}
