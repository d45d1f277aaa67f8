/* Seeds, tables, and leaving. */
#include <assert.h>

#include "core/errors.h"
#include "core/swim_private.h"

/* ---- seeds ---- */

static struct seed *seed_find(struct swim *s, const struct shoal_address *address) {
  for (uint32_t i = 0; i < s->seeds_count; i++)
    if (address_equal(&s->seeds[i].address, address)) return &s->seeds[i];
  return NULL;
}

int swim_join(struct swim *s, uint64_t now_ns, const struct shoal_address *seed) {
  assert(now_ns >= s->now_ns);
  s->now_ns = now_ns;
  struct shoal_address ours = swim_address(s, &s->members[SELF]);
  if (address_equal(seed, &ours)) return 0; /* We need nobody to tell us about ourselves. */
  struct seed *known = seed_find(s, seed);
  if (!known && s->seeds_count == SWIM_SEEDS_MAX) return ERR_FULL;
  if (!known) known = &s->seeds[s->seeds_count++];
  *known = (struct seed){.address = *seed, .next_ns = now_ns};
  backoff_init(&known->backoff, &(struct backoff_config){ms(s->config.join_retry_ms), ms(s->config.join_retry_max_ms), 2});
  return 0;
}

bool swim_forget(struct swim *s, const struct shoal_address *seed) {
  struct seed *known = seed_find(s, seed);
  if (known) *known = s->seeds[--s->seeds_count];
  return known != NULL;
}

static uint32_t send_sync(struct swim *s, const struct shoal_address *to) {
  uint32_t sequence = swim_next_sequence(s);
  s->counts.syncs++;
  swim_post(s, &(struct send){.type = SYNC, .to = *to, .about = NONE, .sequence = sequence, .flags = s->joined ? 0 : SYNC_NEW});
  return sequence;
}

static void try_seed(struct swim *s, struct seed *seed) {
  seed->sequence = send_sync(s, &seed->address);
  seed->next_ns = s->now_ns + backoff_next(&seed->backoff, rng_next(&s->rng)); /* Jittered: nodes started together ask apart. */
}

void swim_join_tick(struct swim *s) {
  if (s->leaving) return;
  for (uint32_t i = 0; i < s->seeds_count; i++)
    if (s->now_ns >= s->seeds[i].next_ns) try_seed(s, &s->seeds[i]);
}

uint64_t swim_join_deadline(const struct swim *s) {
  uint64_t at = UINT64_MAX;
  for (uint32_t i = 0; i < s->seeds_count && !s->leaving; i++) at = earlier(at, s->seeds[i].next_ns);
  for (int i = 0; i < STREAMS_MAX; i++)
    if (s->streams[i].active) at = earlier(at, s->streams[i].next_ns);
  return at;
}

/* The member that answered at this seed lives there still. */
static bool seed_lives(const struct swim *s, const struct seed *seed) {
  uint32_t id = seed->member ? swim_members_by_key(s, seed->member, 0) : NONE;
  if (id == NONE || !swim_lives(&s->members[id])) return false;
  struct shoal_address known = swim_address(s, &s->members[id]);
  return address_equal(&known, &seed->address);
}

void swim_retry_dead_or_seed(struct swim *s) {
  if (s->leaving || rng_below(&s->rng, swim_live(s)) != 0) return;
  uint64_t choices = (uint64_t)s->dead + s->seeds_count;
  if (choices == 0) return;
  uint64_t pick = rng_below(&s->rng, choices);
  if (pick < s->dead) {
    swim_send_ping(s, swim_grave(s, (uint32_t)pick), 0);
    return;
  }
  struct seed *seed = &s->seeds[pick - s->dead];
  if (seed->next_ns == UINT64_MAX && !seed_lives(s, seed)) seed->sequence = send_sync(s, &seed->address);
}

/* ---- tables ---- */

void swim_sync_with(struct swim *s, uint32_t id) {
  struct shoal_address to = swim_address(s, &s->members[id]);
  s->syncing = send_sync(s, &to);
}

void swim_sync_if_differing(struct swim *s, uint32_t sender, uint32_t digest) {
  if (digest == s->digest) s->sync_wait_ns = ms(s->config.probe_interval_ms);
  if (digest == s->digest || s->leaving || s->now_ns < s->sync_ns) return;
  if (sender == NONE || sender == SELF || s->members[sender].state != SWIM_ALIVE) return;
  /* Rumours may still even it out, unless there are so many that tables are cheaper; but not for ever, for there may be new
   * ones all the time. */
  bool bulk = s->rumours_count > BULK && s->rumours_count * UINT64_C(4) >= swim_live(s);
  if (s->rumours_count > 0 && !bulk && s->now_ns < s->sync_ns + 3 * ms(s->config.sync_interval_ms)) return;
  s->sync_ns = s->now_ns + s->sync_wait_ns * 4 / 5 + rng_below(&s->rng, s->sync_wait_ns * 2 / 5 + 1);
  if (bulk) s->sync_ns = s->now_ns + s->sync_wait_ns / 2;
  if (!bulk) s->sync_wait_ns = earlier(2 * s->sync_wait_ns, ms(s->config.sync_interval_ms));
  swim_sync_with(s, sender);
}

static void stream_start(struct swim *s, const struct shoal_address *to, uint32_t sequence, uint32_t first, uint32_t cursor) {
  struct stream *free = NULL;
  for (int i = 0; i < STREAMS_MAX; i++) {
    struct stream *stream = &s->streams[i];
    if (!stream->active) free = stream;
    else if (address_equal(&stream->to, to)) return; /* One at a time to each; who asks again has patience. */
  }
  if (!free) return; /* It will ask again. */
  *free = (struct stream){.active = true, .to = *to, .first = first, .cursor = cursor, .sequence = sequence,
                          .burst = STREAM_BURST, .next_ns = s->now_ns};
}

void swim_on_sync(struct swim *s, const struct shoal_address *from, uint32_t sender, uint32_t sequence, uint8_t flags,
             uint32_t digest) {
  s->joined = true; /* Whoever hears our table knows us in this life. */
  bool new = flags & SYNC_NEW;
  /* What we remember of a new one goes first: it must rise above that before it announces itself. */
  stream_start(s, from, sequence, new ? sender : NONE, digest == s->digest && !new ? NONE : SELF);
}

bool swim_table_quiet(const struct swim *s, uint32_t sequence) { return !s->joined || (sequence && sequence == s->first_table); }

void swim_on_table(struct swim *s, const struct shoal_address *from, uint32_t sender_key, uint32_t sequence, uint8_t flags,
              uint32_t digest) {
  bool asked = sequence != 0 && sequence == s->syncing;
  for (uint32_t i = 0; i < s->seeds_count; i++) {
    struct seed *seed = &s->seeds[i];
    if (sequence == 0 || seed->sequence != sequence) continue;
    seed->next_ns = UINT64_MAX;
    backoff_reset(&seed->backoff);
    seed->member = sender_key;
    asked = true;
  }
  if (!asked || s->leaving) return;
  bool first = !s->joined;
  if (first) {
    s->joined = s->joining_more = true;
    s->first_table = sequence;
  }
  if (first) swim_post(s, &(struct send){.type = GOSSIP, .to = *from, .about = NONE, .self_first = true});
  if (!(flags & TABLE_LAST)) return;
  if (s->joining_more) { /* One table may be that of a node which has itself just joined: ask two more. */
    uint32_t ids[2], count = swim_choose(s, ids, 2, swim_members_by_key(s, sender_key, 0));
    for (uint32_t i = 0; i < count; i++) swim_sync_with(s, ids[i]);
    s->joining_more = false;
  } else if (digest != s->digest) {
    stream_start(s, from, 0, NONE, SELF); /* It lacks something that we have. */
  }
}

static bool worth_sending(const struct swim *s, uint32_t id) {
  const struct member *m = &s->members[id];
  /* Old tombstones are kept but not handed on, or they would go round for ever. */
  return m->name_length && (id == SELF || swim_lives(m) || s->now_ns - swim_changed_ns(m) < ms(s->config.tombstone_ms) / 2);
}

/* The next record if it fits; false when it does not. */
static bool write_one(struct swim *s, struct writer *w, uint32_t id) {
  if (!worth_sending(s, id)) return true;
  struct record r = swim_members_record(s, id, true);
  if (swim_wire_record_size(&r) > writer_room(w)) return false;
  swim_wire_write_record(w, &r);
  return true;
}

static void write_piece(struct swim *s, struct stream *stream, struct writer *w) {
  write_u32(w, stream->sequence);
  uint8_t *flags = w->at;
  write_u8(w, 0);
  write_u32(w, s->digest);
  if (stream->first != NONE && stream->first < s->members_count && s->members[stream->first].name_length)
    write_one(s, w, stream->first);
  stream->first = NONE;
  while (stream->cursor < s->members_count && write_one(s, w, stream->cursor)) stream->cursor++;
  if (stream->cursor < s->members_count) return;
  *flags = TABLE_LAST;
  stream->active = false;
}

bool swim_stream_next(struct swim *s, struct writer *w, struct shoal_address *to) {
  for (int i = 0; i < STREAMS_MAX; i++) {
    struct stream *stream = &s->streams[i];
    if (!stream->active || s->now_ns < stream->next_ns) continue;
    *to = stream->to;
    write_piece(s, stream, w);
    if (--stream->burst == 0) {
      stream->burst = STREAM_BURST;
      stream->next_ns = s->now_ns + ms(STREAM_GAP_MS);
    }
    return true;
  }
  return false;
}

/* ---- leaving ---- */

void swim_leave(struct swim *s, uint64_t now_ns) {
  assert(now_ns >= s->now_ns);
  s->now_ns = now_ns;
  if (s->leaving) return;
  swim_probe_forgive(s);
  s->leaving = true;
  s->probe_ns = UINT64_MAX;
  s->leave_ns = now_ns + ms(s->config.leave_timeout_ms);
  s->witnesses_wanted = s->living < WITNESSES ? s->living : WITNESSES;
  swim_self_left(s);
  swim_leave_tick(s);
}

bool swim_is_leaving(const struct swim *s) { return s->leaving; }

void swim_leave_heard(struct swim *s, uint32_t id) {
  for (uint32_t i = 0; i < s->witnesses_count; i++)
    if (s->witnesses[i] == id) return;
  if (s->witnesses_count < WITNESSES) s->witnesses[s->witnesses_count++] = id;
}

bool swim_leave_over(const struct swim *s) {
  return s->leaving && (s->witnesses_count >= s->witnesses_wanted || s->now_ns >= s->leave_ns);
}

void swim_leave_tick(struct swim *s) {
  if (!s->leaving || swim_leave_over(s)) return;
  uint32_t running = 0, ids[FANOUT_MAX];
  for (int i = 0; i < PROBES_MAX; i++)
    if (s->probes[i].stage != PROBE_FREE && s->probes[i].purpose == FOR_LEAVE) running++;
  uint32_t count = swim_choose(s, ids, FANOUT_MAX, NONE);
  for (uint32_t i = 0; i < count && s->witnesses_count + running < s->witnesses_wanted; i++) {
    bool heard = false;
    for (uint32_t j = 0; j < s->witnesses_count; j++) heard |= s->witnesses[j] == ids[i];
    for (int j = 0; j < PROBES_MAX; j++) heard |= s->probes[j].stage != PROBE_FREE && s->probes[j].target == ids[i];
    if (!heard && swim_probe_start(s, ids[i], FOR_LEAVE)) running++;
  }
}
