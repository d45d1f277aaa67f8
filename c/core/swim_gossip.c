/* Rumours: news about members, at most one for each, because a datagram carries the newest record of the table. There is a list for each
 * number of transmissions, so the least-sent rumour is found at once, and among those the oldest. */
#include <assert.h>
#include <stdlib.h>

#include "core/swim_private.h"

enum { MISFITS_MAX = 8 }; /* Rumours that may be skipped as too long for the rest of a datagram before it is closed. */

uint32_t swim_rumour_limit(const struct swim *s) {
  uint32_t digits = 0; /* ceil(log10(N + 1)) */
  for (uint64_t power = 1; power < (uint64_t)swim_living(s) + 1; power *= 10) digits++;
  uint32_t limit = s->config.retransmit_multiplier * (digits ? digits : 1);
  return limit < SENT_MAX ? limit : SENT_MAX;
}

static void unlink_rumour(struct swim *s, uint32_t at) {
  struct rumour *r = &s->rumours[at];
  struct list *list = &s->lists[r->sent];
  if (r->previous != NONE) s->rumours[r->previous].next = r->next;
  else list->head = r->next;
  if (r->next != NONE) s->rumours[r->next].previous = r->previous;
  else list->tail = r->previous;
}

static void link_rumour(struct swim *s, uint32_t at) {
  struct rumour *r = &s->rumours[at];
  struct list *list = &s->lists[r->sent];
  r->previous = list->tail;
  r->next = NONE;
  if (list->tail != NONE) s->rumours[list->tail].next = at;
  else list->head = at;
  list->tail = at;
}

void swim_rumour_end(struct swim *s, uint32_t id) {
  uint32_t at = s->members[id].rumour;
  if (at == NONE) return;
  unlink_rumour(s, at);
  s->rumours[at].next = s->rumours_free;
  s->rumours_free = at;
  s->members[id].rumour = NONE;
  s->counts.rumours = --s->rumours_count;
}

/* A free one; NONE when there is no memory. */
static uint32_t take(struct swim *s) {
  if (s->rumours_free == NONE) {
    uint32_t capacity = s->rumours_capacity ? s->rumours_capacity * 2 : 16;
    struct rumour *grown = realloc(s->rumours, capacity * sizeof *grown);
    if (!grown) return NONE;
    s->rumours = grown;
    for (uint32_t at = s->rumours_capacity; at < capacity; at++) grown[at].next = at + 1 < capacity ? at + 1 : NONE;
    s->rumours_free = s->rumours_capacity;
    s->rumours_capacity = capacity;
  }
  uint32_t at = s->rumours_free;
  s->rumours_free = s->rumours[at].next;
  return at;
}

void swim_rumour(struct swim *s, uint32_t id, bool with_payload) {
  uint32_t at = s->members[id].rumour;
  bool payload = with_payload || (at != NONE && s->rumours[at].payload); /* A payload that was being sent is still sent. */
  if (at != NONE) {
    unlink_rumour(s, at);
  } else {
    at = take(s);
    if (at == NONE) { /* No memory: the tables then differ, and the digests show it. */
      s->counts.dropped++;
      return;
    }
    s->members[id].rumour = at;
    s->counts.rumours = ++s->rumours_count;
  }
  s->rumours[at] = (struct rumour){.id = id, .payload = payload};
  link_rumour(s, at);
  swim_gossip_wake(s);
}

/* Digests cover live members with incarnation and payload: when four members in a row send our own digest, they know everything that
 * rumours of live members could tell, and so does nearly everybody. After a burst of joins this ends rumours that would last for
 * minutes. Rumours of suspicions and deaths go on, for digests do not show them. */
void swim_rumours_moot(struct swim *s) {
  s->agreed = 0;
  if (s->rumours_count <= BULK) return; /* Up to BULK rumours, sending them all is cheaper than selecting. */
  for (uint32_t n = 1; n < SENT_MAX; n++)
    for (uint32_t at = s->lists[n].head, next; at != NONE; at = next) {
      next = s->rumours[at].next;
      if (s->members[s->rumours[at].id].state == SWIM_ALIVE) swim_rumour_end(s, s->rumours[at].id);
    }
}

void swim_gossip_wake(struct swim *s) {
  if (s->gossip_ns == UINT64_MAX) /* A random phase, so that members that learn something at once do not all send at once. */
    s->gossip_ns = s->now_ns + rng_below(&s->rng, ms(s->config.gossip_interval_ms));
}

static void sent(struct swim *s, uint32_t id) {
  uint32_t at = s->members[id].rumour;
  assert(at != NONE);
  if (s->rumours[at].sent + 1u >= swim_rumour_limit(s)) {
    swim_rumour_end(s, id);
    return;
  }
  unlink_rumour(s, at);
  s->rumours[at].sent++;
  link_rumour(s, at);
}

/* Write this member's record if it fits. */
static bool tell(struct swim *s, struct writer *w, uint32_t id, size_t *size) {
  uint32_t at = s->members[id].rumour;
  struct record r = swim_members_record(s, id, at != NONE && s->rumours[at].payload);
  *size = swim_wire_record_size(&r);
  if (*size > writer_room(w)) return false;
  swim_wire_write_record(w, &r);
  return true;
}

/* At most a datagram is saved up; an overdraft by the last record is paid back first. Young nodes may use four times as much, because
 * in a burst of joins all are young. */
static void refill(struct swim *s) {
  uint64_t rate = s->config.gossip_bytes_per_s * (s->now_ns < s->young_ns ? UINT64_C(4) : 1);
  uint64_t bytes = (s->now_ns - s->budget_ns) / 1000 * rate / 1000000;
  if (bytes == 0) return; /* Not lost: budget_ns stays. */
  s->budget_ns = s->now_ns;
  s->budget_bytes += (int64_t)earlier(bytes, s->config.datagram_max);
  if (s->budget_bytes > (int64_t)s->config.datagram_max) s->budget_bytes = s->config.datagram_max;
}

static uint32_t tell_first(struct swim *s, struct writer *w, uint32_t id) {
  size_t size; /* Not counted: a member's life may depend on it. */
  if (!tell(s, w, id, &size)) return 0;
  if (s->members[id].rumour != NONE) sent(s, id);
  return 1;
}

uint32_t swim_piggyback(struct swim *s, struct writer *w, uint32_t about, bool self_first) {
  uint32_t told[SWIM_DATAGRAM_MAX / 14], count = 0, first = 0, misfits = 0;
  refill(s);
  size_t reserved = swim_users_waiting(s) ? s->config.datagram_max / 4 : 0; /* Reserved for events of users until all records are in. */
  if (self_first) first += tell_first(s, w, SELF);
  if (about != NONE && about != SELF) first += tell_first(s, w, about);
  uint8_t *end = w->end;
  if (writer_room(w) > reserved) w->end -= reserved;
  for (uint32_t n = 0; n < SENT_MAX && s->rumours_count > 0 && misfits < MISFITS_MAX; n++) {
    for (uint32_t at = s->lists[n].head; at != NONE && misfits < MISFITS_MAX && s->budget_bytes > 0; at = s->rumours[at].next) {
      uint32_t id = s->rumours[at].id;
      bool already = (self_first && id == SELF) || (about != NONE && id == about);
      if (already) continue;
      assert(count < sizeof told / sizeof *told);
      size_t size;
      if (tell(s, w, id, &size)) told[count++] = id, s->budget_bytes -= (int64_t)size;
      else misfits++; /* Not sent, so not counted: it comes first again in the next datagram. */
    }
  }
  for (uint32_t i = 0; i < count; i++) sent(s, told[i]); /* Only now, for it moves them between the lists walked above. */
  w->end = end;
  return first + count + swim_tell_users(s, w);
}

void swim_gossip_tick(struct swim *s) {
  if (s->now_ns < s->gossip_ns) return;
  if (swim_silent(s)) {
    s->gossip_ns = s->now_ns + ms(s->config.probe_interval_ms);
    return;
  }
  if (s->rumours_count == 0) {
    s->gossip_ns = UINT64_MAX; /* swim_rumour() wakes it. */
    return;
  }
  s->gossip_ns = s->now_ns + ms(s->config.gossip_interval_ms);
  uint32_t ids[FANOUT_MAX], count = swim_choose(s, ids, s->config.gossip_fanout, NONE);
  for (uint32_t i = 0; i < count; i++)
    swim_post(s, &(struct send){.type = GOSSIP, .to = swim_address(s, &s->members[ids[i]]), .about = NONE});
  if (s->living == 0 && s->config.gossip_fanout > 0)
    s->gossip_ns = s->now_ns + ms(s->config.probe_interval_ms); /* We are alone. */
}
