/* The reconcile pass, and looking. */
#include <assert.h>

#include "core/detector_private.h"

static void rotate(struct detector_ring *head) {
  struct detector_ring *r = head->next;
  head->next = r->next, r->next->previous = head;
  r->next = head, r->previous = head->previous;
  head->previous->next = r, head->previous = r;
}

/* A running suspicion must stand in the wheel, else it would never end. */
static void check_armed(struct detector *d, struct detector_record *r) {
  assert(r->running);
  if (wheel_has(&r->due)) return;
  d->counts.mended++;
  detector_arm(d, r);
}

/* False: it was dropped. */
static bool look_at_node(struct detector *d, struct detector_node *n) {
  if (n->machine) check_armed(d, n->machine);
  for (uint32_t i = 0; i < n->count; i++) {
    struct detector_record *r = detector_node_at(n, i);
    if (r) check_armed(d, r);
  }
  if (n->state >= DETECTOR_HELD && (n->live > 0 || n->machine)) {
    d->counts.mended++;
    for (struct detector_record *r; (r = detector_node_last(n));) detector_end(d, r, DETECTOR_CLEARED, DETECTOR_WHY_NODE_DEAD);
    if (n->machine) detector_end(d, n->machine, DETECTOR_CLEARED, DETECTOR_WHY_NODE_DEAD);
  }
  if (n->state < DETECTOR_DEAD || !n->claimed || d->now_ns - n->changed_ns < d->config.dead_kept_ms * DETECTOR_MS) return true;
  d->counts.dropped_nodes++;
  n->claimed = false;
  bool kept = n->references > 0; /* By what was not taken yet, or a grant: its last one drops it. */
  detector_node_release(d, n);
  return kept;
}

static bool look_at_job(struct detector *d, struct detector_job *j) {
  for (uint32_t i = 0; i < j->extensions.capacity;) {
    struct detector_extension *x = j->extensions.slots[i].item;
    if (!x || x->life == x->node->life) i++;
    else detector_extension_drop(d, j, x), d->counts.dropped_grants++;
  }
  bool kept = j->references > 0;
  detector_job_release(d, j);
  return kept;
}

enum detector_looked detector_look(struct detector *d, uint64_t now_ns, struct detector_text *name) {
  detector_advance(d, now_ns);
  if (!d->looking) d->looking = true, d->look_nodes = d->nodes.count, d->look_jobs = d->jobs.count;
  for (; d->look_nodes > 0 && d->nodes.count > 0; d->look_nodes--) {
    struct detector_node *n = (struct detector_node *)d->node_ring.next;
    rotate(&d->node_ring);
    d->counts.looked++;
    if (!look_at_node(d, n)) continue;
    *name = (struct detector_text){n->name, n->length};
    return d->look_nodes--, DETECTOR_LOOKED_NODE;
  }
  for (; d->look_jobs > 0 && d->jobs.count > 0; d->look_jobs--) {
    struct detector_job *j = (struct detector_job *)d->job_ring.next;
    rotate(&d->job_ring);
    d->counts.looked++;
    if (!look_at_job(d, j)) continue;
    *name = (struct detector_text){j->name, j->length};
    return d->look_jobs--, DETECTOR_LOOKED_JOB;
  }
  d->looking = false, d->look_nodes = d->look_jobs = 0;
  d->counts.cycles++;
  return DETECTOR_LOOKED_ALL;
}

void detector_counts(const struct detector *d, struct detector_counts *out) {
  *out = d->counts;
  out->nodes = d->nodes.count, out->jobs = d->jobs.count;
}

static bool any(const void *item, const void *key) {
  (void)item, (void)key; /* The first of this hash. */
  return true;
}

static struct detector_text name_of(const struct detector *d, uint32_t accuser) {
  const struct detector_node *n = detector_set_find(&d->nodes, accuser, any, NULL);
  return n ? (struct detector_text){n->name, n->length} : (struct detector_text){0};
}

static void tell_suspicion(const struct detector *d, const struct detector_record *r, struct detector_evidence *out) {
  const struct suspicion *s = &r->suspicion;
  out->suspected = true;
  out->began_ns = r->began_ns, out->deadline_ns = detector_record_deadline(r);
  out->least_ns = s->min_ns, out->most_ns = s->max_ns, out->extended_ns = r->extended_ns, out->postponed_ns = r->returned_ns;
  out->confirmations = s->confirmed, out->wanted = s->wanted;
  for (uint32_t i = 0; i <= s->confirmed; i++) out->accusers[i] = s->accusers[i], out->accuser_names[i] = name_of(d, s->accusers[i]);
}

void detector_why(const struct detector *d, struct detector_text job, struct detector_text node, struct detector_evidence *out) {
  *out = (struct detector_evidence){0};
  const struct detector_node *n = detector_node_find(d, node);
  const struct detector_job *j = detector_job_find(d, job);
  if (!n) return;
  out->known = true;
  out->state = n->state, out->incarnation = n->incarnation, out->changed_ns = n->changed_ns;
  const struct detector_record *r = j ? detector_record_find(j, n) : NULL;
  if (r) tell_suspicion(d, r, out);
  const struct detector_extension *x = j ? detector_extension_find(j, n) : NULL;
  if (!x || x->count == 0) return;
  const struct detector_grants *g = &x->of[x->last];
  out->extension = true;
  out->grants = g->granted, out->graced = g->graced, out->progressed = g->progressed, out->granted_until_ns = x->until_ns;
}
