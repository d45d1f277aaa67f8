/* Events of users: bytes that one member sends to all others by gossip. The least-sent go first; each is sent as often as a rumour.
 * A window of 64 numbers for each sender distinguishes repetitions from news. */
#include <assert.h>
#include <stdlib.h>

#include "core/errors.h"
#include "core/swim_private.h"

static bool reserve(struct swim *s) {
  if (!s->users) s->users = calloc(1, sizeof *s->users);
  return s->users != NULL;
}

bool swim_users_waiting(const struct swim *s) { return s->users && s->users->count > 0; }

static void remove_at(struct users *u, uint32_t at) {
  u->count--;
  memmove(&u->at[at], &u->at[at + 1], (u->count - at) * sizeof *u->at);
}

/* Room for one more: the most-sent one goes. NULL when that one is still to be delivered here, or was never sent. */
static struct user *make_room(struct swim *s) {
  struct users *u = s->users;
  if (u->count < USERS_MAX) return &u->at[u->count++];
  uint32_t most = NONE;
  for (uint32_t i = 0; i < u->count; i++)
    if (!u->at[i].waiting && u->at[i].sent > 0 && (most == NONE || u->at[i].sent > u->at[most].sent)) most = i;
  if (most == NONE) return NULL;
  for (uint32_t i = most; i < u->count; i++)
    if (u->at[i].waiting) return NULL; /* Events refer to it by its index. They will be taken soon. */
  s->counts.user_dropped++;
  remove_at(u, most);
  return &u->at[u->count++];
}

static struct user *add(struct swim *s, const struct user_event *e) {
  struct user *user = make_room(s);
  if (!user) return NULL;
  *user = (struct user){.key = e->key, .generation = e->generation, .number = e->number, .length = (uint16_t)e->length};
  memcpy(user->bytes, e->bytes, e->length);
  swim_gossip_wake(s);
  return user;
}

int swim_tell(struct swim *s, uint64_t now_ns, const void *bytes, size_t length) {
  assert(now_ns >= s->now_ns);
  s->now_ns = now_ns;
  if (length == 0 || length > SWIM_USER_MAX) return ERR_TOO_LARGE;
  if (!reserve(s)) return ERR_MEMORY;
  const struct member *self = &s->members[SELF];
  struct user_event e = {self->key, self->incarnation.generation, s->user_number + 1, bytes, length};
  if (!add(s, &e)) return ERR_FULL;
  s->user_number++;
  s->counts.user_sent++;
  return 0;
}

static struct origin *origin_of(struct users *u, const struct user_event *e) {
  for (uint32_t i = 0; i < u->origins_count; i++)
    if (u->origins[i].key == e->key) return &u->origins[i];
  return NULL;
}

/* Numbers grow within a life; events of an older life are too late. */
static bool seen(struct swim *s, const struct user_event *e) {
  const struct origin *o = origin_of(s->users, e);
  if (!o || e->generation > o->generation || (e->generation == o->generation && e->number > o->newest)) return false;
  if (e->generation == o->generation && o->newest - e->number < 64) return o->seen >> (o->newest - e->number) & 1;
  s->counts.user_dropped++; /* It may have been delivered; the promise is at most once. */
  return true;
}

static void mark(struct users *u, const struct user_event *e) {
  struct origin *o = origin_of(u, e);
  if (!o) o = u->origins_count < ORIGINS_MAX ? &u->origins[u->origins_count++] : &u->origins[u->origins_next++ % ORIGINS_MAX];
  if (o->key != e->key || o->generation != e->generation) *o = (struct origin){.key = e->key, .generation = e->generation};
  if (e->number > o->newest) {
    uint32_t ahead = e->number - o->newest;
    o->seen = ahead < 64 ? o->seen << ahead : 0;
    o->newest = e->number;
  }
  o->seen |= UINT64_C(1) << (o->newest - e->number);
}

void swim_merge_user(struct swim *s, const struct user_event *e) {
  uint32_t id = swim_members_by_key(s, e->key, e->generation);
  if (id == NONE || id == SELF || !reserve(s)) return; /* The sender is not known yet: the event will come again. */
  if (seen(s, e)) return;
  struct user *user = add(s, e);
  if (!user) {
    s->counts.user_dropped++;
    return;
  }
  mark(s->users, e);
  const struct member *m = &s->members[id];
  struct event *event = swim_emit(s, SWIM_EVENT_USER, id, m->incarnation, m->held ? SWIM_DEAD : m->state);
  if (!event) return;
  event->user = (uint32_t)(user - s->users->at);
  user->waiting = true;
  s->counts.user_heard++;
}

uint32_t swim_tell_users(struct swim *s, struct writer *w) {
  struct users *u = s->users;
  uint32_t told = 0, limit = swim_rumour_limit(s);
  if (!u) return 0;
  for (uint8_t sent = 0; sent < limit && told < u->count && s->user_budget_bytes > 0; sent++) {
    for (uint32_t i = 0; i < u->count && s->user_budget_bytes > 0; i++) {
      struct user *user = &u->at[i];
      struct user_event e = {user->key, user->generation, user->number, user->bytes, user->length};
      size_t size = swim_wire_user_size(&e);
      if (user->sent != sent || size > writer_room(w)) continue;
      swim_wire_write_user(w, &e);
      s->user_budget_bytes -= (int64_t)size;
      user->sent |= 128; /* Sent in this datagram. */
      told++;
    }
  }
  for (uint32_t i = 0; i < u->count; i++)
    if (u->at[i].sent & 128) u->at[i].sent = (uint8_t)((u->at[i].sent & 127) + 1);
  for (uint32_t i = u->count; i-- > 0;) { /* Not past one that is still to be delivered: events refer to it by index. */
    if (u->at[i].waiting) break;
    if (u->at[i].sent >= limit) remove_at(u, i);
  }
  return told;
}
