/* Rumours: what is to be told about a member, at most one each, for what is told is the newest of the table. A rumour stands in
 * the list of those sent as often as itself, so the least-sent is found at once, and of those the oldest. */
#include <assert.h>

#include "core/swim_private.h"

enum { MISFITS_MAX = 8 }; /* Rumours too long for what is left of a datagram that are passed over before it is closed. */

uint32_t swim_rumour_limit(const struct swim *s) {
  uint32_t digits = 0; /* ceil(log10(N + 1)) */
  for (uint64_t power = 1; power < (uint64_t)swim_live(s) + 1; power *= 10) digits++;
  uint32_t limit = s->config.retransmit_multiplier * (digits ? digits : 1);
  return limit < SENT_MAX ? limit : SENT_MAX;
}

static void unlink_rumour(struct swim *s, uint32_t id) {
  struct member *m = &s->members[id];
  struct list *list = &s->rumours[m->sent];
  if (m->rumour_previous != NONE) s->members[m->rumour_previous].rumour_next = m->rumour_next;
  else list->head = m->rumour_next;
  if (m->rumour_next != NONE) s->members[m->rumour_next].rumour_previous = m->rumour_previous;
  else list->tail = m->rumour_previous;
  m->rumour_next = m->rumour_previous = NONE;
}

static void link_rumour(struct swim *s, uint32_t id) {
  struct member *m = &s->members[id];
  struct list *list = &s->rumours[m->sent];
  m->rumour_previous = list->tail;
  m->rumour_next = NONE;
  if (list->tail != NONE) s->members[list->tail].rumour_next = id;
  else list->head = id;
  list->tail = id;
}

void swim_rumour_end(struct swim *s, uint32_t id) {
  struct member *m = &s->members[id];
  if (!m->rumoured) return;
  unlink_rumour(s, id);
  m->rumoured = m->payload_rumoured = false;
  s->counts.rumours = --s->rumours_count;
}

void swim_rumour(struct swim *s, uint32_t id, bool with_payload) {
  struct member *m = &s->members[id];
  if (m->rumoured) unlink_rumour(s, id);
  else s->counts.rumours = ++s->rumours_count;
  m->rumoured = true;
  m->payload_rumoured |= with_payload; /* A payload that was being told goes on being told. */
  m->sent = 0;
  link_rumour(s, id);
  if (s->gossip_ns == UINT64_MAX) /* A random phase, so that what all learn at once is not told by all at once. */
    s->gossip_ns = s->now_ns + rng_below(&s->rng, ms(s->config.gossip_interval_ms));
}

static void sent(struct swim *s, uint32_t id) {
  struct member *m = &s->members[id];
  assert(m->rumoured);
  if (m->sent + 1u >= swim_rumour_limit(s)) {
    swim_rumour_end(s, id);
    return;
  }
  unlink_rumour(s, id);
  m->sent++;
  link_rumour(s, id);
}

/* Write this member's record if it fits. */
static bool tell(struct swim *s, struct writer *w, uint32_t id, size_t *size) {
  struct record r = swim_members_record(s, id, s->members[id].payload_rumoured);
  *size = swim_wire_record_size(&r);
  if (*size > writer_room(w)) return false;
  swim_wire_write_record(w, &r);
  return true;
}

/* At most a datagram is saved up; what the last record went over is paid back first. The young may use four times as much, for
 * a burst of joins is a burst of the young. */
static void refill(struct swim *s) {
  uint64_t rate = s->config.gossip_bytes_per_s * (s->now_ns < s->young_ns ? UINT64_C(4) : 1);
  uint64_t bytes = (s->now_ns - s->budget_ns) / 1000 * rate / 1000000;
  if (bytes == 0) return; /* Not lost: budget_ns stays. */
  s->budget_ns = s->now_ns;
  s->budget_bytes += (int64_t)earlier(bytes, s->config.datagram_max);
  if (s->budget_bytes > (int64_t)s->config.datagram_max) s->budget_bytes = s->config.datagram_max;
}

static uint32_t tell_first(struct swim *s, struct writer *w, uint32_t id) {
  size_t size; /* Not counted: somebody's life hangs on it. */
  if (!tell(s, w, id, &size)) return 0;
  if (s->members[id].rumoured) sent(s, id);
  return 1;
}

uint32_t swim_piggyback(struct swim *s, struct writer *w, uint32_t about, bool self_first) {
  uint32_t told[SWIM_DATAGRAM_MAX / 14], count = 0, first = 0, misfits = 0;
  refill(s);
  if (self_first) first += tell_first(s, w, SELF);
  if (about != NONE && about != SELF) first += tell_first(s, w, about);
  for (uint32_t n = 0; n < SENT_MAX && s->rumours_count > 0 && misfits < MISFITS_MAX; n++) {
    for (uint32_t id = s->rumours[n].head; id != NONE && misfits < MISFITS_MAX && s->budget_bytes > 0;
         id = s->members[id].rumour_next) {
      bool already = (self_first && id == SELF) || (about != NONE && id == about);
      if (already) continue;
      assert(count < sizeof told / sizeof *told);
      size_t size;
      if (tell(s, w, id, &size)) told[count++] = id, s->budget_bytes -= (int64_t)size;
      else misfits++; /* Not sent, so not counted: it comes first again next time. */
    }
  }
  for (uint32_t i = 0; i < count; i++) sent(s, told[i]); /* Only now: it moves them between the lists walked above. */
  return first + count;
}

void swim_gossip_tick(struct swim *s) {
  if (s->now_ns < s->gossip_ns) return;
  if (s->rumours_count == 0) {
    s->gossip_ns = UINT64_MAX; /* swim_swim_rumour() wakes it. */
    return;
  }
  s->gossip_ns = s->now_ns + ms(s->config.gossip_interval_ms);
  uint32_t ids[FANOUT_MAX], count = swim_choose(s, ids, s->config.gossip_fanout, NONE);
  for (uint32_t i = 0; i < count; i++)
    swim_post(s, &(struct send){.type = GOSSIP, .to = s->members[ids[i]].address, .about = NONE});
  if (s->order.count == 0 && s->config.gossip_fanout > 0)
    s->gossip_ns = s->now_ns + ms(s->config.probe_interval_ms); /* Alone: nobody to tell. */
}
