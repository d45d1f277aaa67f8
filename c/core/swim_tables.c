/* Tables: requested by a SYNC, sent as datagrams when short, over a stream when long. */
#include <assert.h>
#include <stdlib.h>

#include "core/errors.h"
#include "core/swim_private.h"

enum {
  PATIENCE_MS = 10000, /* A stream without input for so long is closed. */
  RECORD_BYTES = 20,   /* Of a record without its name, address and payload: to estimate the length of a table. */
};

/* ---- asking ---- */

static void post_sync(struct swim *s, const struct shoal_address *to, uint32_t sequence, bool datagrams) {
  uint8_t flags = (uint8_t)((s->joined ? 0 : SYNC_NEW) | (datagrams || !s->stream_port ? SYNC_DATAGRAMS : 0));
  s->counts.syncs++;
  swim_post(s, &(struct send){.type = SYNC, .to = *to, .about = NONE, .sequence = sequence, .flags = flags});
}

uint32_t swim_send_sync(struct swim *s, const struct shoal_address *to) {
  uint32_t sequence = swim_next_sequence(s);
  post_sync(s, to, sequence, false);
  return sequence;
}

static void sync_with(struct swim *s, uint32_t id) {
  struct shoal_address to = swim_address(s, &s->members[id]);
  s->syncing = swim_send_sync(s, &to);
}

void swim_sync_if_differing(struct swim *s, uint32_t sender, uint32_t digest) {
  s->agreed = digest == s->digest ? s->agreed + 1 : 0;
  if (s->agreed >= AGREED) swim_rumours_moot(s);
  if (digest == s->digest) s->sync_wait_ns = ms(s->config.probe_interval_ms);
  if (digest == s->digest || s->leaving || s->now_ns < s->sync_ns) return;
  if (sender == NONE || sender == SELF || s->members[sender].state != SWIM_ALIVE) return;
  /* Rumours may still resolve the difference, unless there are so many that tables are cheaper. This wait is bounded, for there may
   * always be new ones. */
  bool bulk = s->rumours_count > BULK && s->rumours_count * UINT64_C(4) >= swim_living(s);
  if (s->rumours_count > 0 && !bulk && s->now_ns < s->sync_ns + 3 * ms(s->config.sync_interval_ms)) return;
  s->sync_ns = s->now_ns + s->sync_wait_ns * 4 / 5 + rng_below(&s->rng, s->sync_wait_ns * 2 / 5 + 1);
  if (bulk) s->sync_ns = s->now_ns + s->sync_wait_ns / 2;
  if (!bulk) s->sync_wait_ns = earlier(2 * s->sync_wait_ns, ms(s->config.sync_interval_ms));
  sync_with(s, sender);
}

/* ---- sending ---- */

/* A table; with cursor NONE only `first` and our digest. */
static void transfer_start(struct swim *s, const struct transfer *given) {
  struct transfer *free = NULL;
  for (int i = 0; i < TRANSFERS_MAX; i++) {
    struct transfer *t = &s->transfers[i];
    if (!t->active) free = t;
    else if (t->channel == given->channel && address_equal(&t->to, &given->to)) return; /* One at a time to each member. */
  }
  if (!free) return; /* The other asks again. */
  *free = *given;
  s->tables_busy = true;
  free->active = true;
  free->burst = TABLE_BURST;
  free->next_ns = s->now_ns;
}

static size_t table_bytes(const struct swim *s) { return (size_t)s->kept * RECORD_BYTES + (size_t)s->blobs.pages_count * BLOBS_PAGE; }

void swim_on_sync(struct swim *s, const struct shoal_address *from, uint32_t sender, uint32_t sequence, uint8_t flags,
             uint32_t digest) {
  if (swim_silent(s)) return;
  s->joined = true; /* The receiver of our table knows us in this life. */
  bool new = flags & SYNC_NEW, whole = digest != s->digest || new;
  bool by_stream = whole && !s->channel && s->stream_port && !(flags & SYNC_DATAGRAMS) && table_bytes(s) > s->config.stream_bytes;
  /* Our record of a new node goes first: it must rise above that before it announces itself. */
  transfer_start(s, &(struct transfer){.to = *from, .channel = s->channel, .first = new ? sender : NONE, .sequence = sequence,
                                       .cursor = whole && !by_stream ? SELF : NONE, .by_stream = by_stream});
}

bool swim_table_quiet(const struct swim *s, uint32_t sequence) { return !s->joined || (sequence && sequence == s->first_table); }

static bool worth_sending(const struct swim *s, uint32_t id) {
  const struct member *m = &s->members[id];
  /* Old tombstones are kept but not sent, else they would circulate for ever. */
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

static void write_piece(struct swim *s, struct transfer *t, struct writer *w) {
  write_u32(w, t->sequence);
  uint8_t *flags = w->at;
  write_u8(w, 0);
  write_u32(w, s->digest);
  if (t->by_stream) write_u16(w, s->stream_port);
  if (t->first != NONE && t->first < s->members_count && s->members[t->first].name_length) write_one(s, w, t->first);
  t->first = NONE;
  while (t->cursor < s->members_count && write_one(s, w, t->cursor)) t->cursor++;
  if (t->cursor < s->members_count) return;
  *flags = t->by_stream ? TABLE_STREAM : TABLE_LAST;
  t->active = false;
}

bool swim_transfer_next(struct swim *s, struct writer *w, struct shoal_address *to, uint32_t *channel) {
  for (int i = 0; i < TRANSFERS_MAX; i++) {
    struct transfer *t = &s->transfers[i];
    if (!t->active || s->now_ns < t->next_ns) continue;
    *to = t->to;
    *channel = t->channel;
    write_piece(s, t, w);
    if (!t->channel && --t->burst == 0) { /* A stream paces itself. */
      t->burst = TABLE_BURST;
      t->next_ns = s->now_ns + ms(TABLE_GAP_MS);
    }
    return true;
  }
  return false;
}

/* ---- streams: a channel is the number of one ---- */

static struct conn *conn_find(struct swim *s, uint32_t channel) {
  for (int i = 0; i < CONNS_MAX; i++)
    if (channel && s->conns[i].channel == channel) return &s->conns[i];
  return NULL;
}

static struct conn *conn_new(struct swim *s, bool ours, const struct shoal_address *to) {
  int used = 0;
  struct conn *free = NULL;
  for (int i = 0; i < CONNS_MAX; i++) {
    if (!s->conns[i].channel) free = &s->conns[i];
    else used += s->conns[i].ours == ours;
  }
  if (!free || used >= CONNS_MAX / 2) return NULL;
  uint8_t *buffer = malloc(FRAME_MAX);
  if (!buffer) return NULL;
  if (++s->channels == 0) s->channels = 1;
  s->tables_busy = true;
  *free = (struct conn){.channel = s->channels, .ours = ours, .to = *to, .buffer = buffer, .open_due = ours,
                        .until_ns = s->now_ns + ms(PATIENCE_MS)};
  return free;
}

static void conn_free(struct swim *s, struct conn *c) {
  for (int i = 0; i < TRANSFERS_MAX; i++)
    if (s->transfers[i].active && s->transfers[i].channel == c->channel) s->transfers[i].active = false;
  free(c->buffer);
  *c = (struct conn){0};
}

void swim_conns_close(struct swim *s) {
  for (int i = 0; i < CONNS_MAX; i++) conn_free(s, &s->conns[i]);
}

/* It ended before the table was complete: ask for datagrams. */
static void conn_failed(struct swim *s, struct conn *c) {
  if (!c->ours || c->whole) return;
  s->counts.stream_failures++;
  post_sync(s, &c->back, c->sequence, true);
}

static void come_by_stream(struct swim *s, const struct shoal_address *from, uint32_t sequence, uint16_t port) {
  struct shoal_address to = *from;
  to.port = port;
  struct conn *c = port && s->stream_port ? conn_new(s, true, &to) : NULL;
  if (!c) {
    post_sync(s, from, sequence, true);
    return;
  }
  c->back = *from;
  c->sequence = sequence;
}

void swim_on_table(struct swim *s, const struct shoal_address *from, uint32_t sender_key, uint32_t sequence, uint8_t flags,
              uint32_t digest, uint16_t port) {
  bool asked = sequence != 0 && sequence == s->syncing;
  for (uint32_t i = 0; i < s->seeds_count; i++) {
    struct seed *seed = &s->seeds[i];
    if (sequence == 0 || seed->sequence != sequence) continue;
    seed->next_ns = UINT64_MAX;
    backoff_reset(&seed->backoff);
    seed->member = sender_key;
    seed->tries = 0, seed->refused = 0;
    asked = true;
  }
  if (!asked || s->leaving) return;
  if (flags & TABLE_STREAM) {
    if (!s->channel) come_by_stream(s, from, sequence, port);
    return; /* We have joined when that table has come. */
  }
  if (swim_silent(s)) return; /* It named another node of our name, which is being asked. */
  bool first = !s->joined;
  if (first) {
    s->joined = s->joining_more = true;
    s->first_table = sequence;
  }
  if (first) swim_post(s, &(struct send){.type = GOSSIP, .to = *from, .about = NONE, .self_first = true});
  if (!(flags & TABLE_LAST)) return;
  if (s->joining_more) { /* The first table may come from a node that has just joined itself: ask two more. */
    uint32_t ids[2], count = swim_choose(s, ids, 2, swim_members_by_key(s, sender_key, 0));
    for (uint32_t i = 0; i < count; i++) sync_with(s, ids[i]);
    s->joining_more = false;
  } else if (digest != s->digest) { /* It lacks something that we have. */
    transfer_start(s, &(struct transfer){.to = *from, .channel = s->channel, .first = NONE, .cursor = SELF});
  }
  struct conn *c = conn_find(s, s->channel);
  if (c && c->ours && !c->whole) c->whole = true, s->counts.streams++;
}

void swim_streams(struct swim *s, uint16_t port) { s->stream_port = port; }

void swim_stream_opened(struct swim *s, uint64_t now_ns, uint32_t stream) {
  swim_advance(s, now_ns);
  struct conn *c = conn_find(s, stream);
  if (!c || !c->ours) return;
  c->sync_due = true;
  c->until_ns = now_ns + ms(PATIENCE_MS);
}

uint32_t swim_stream_accepted(struct swim *s, uint64_t now_ns, const struct shoal_address *from) {
  swim_advance(s, now_ns);
  struct conn *c = conn_new(s, false, from);
  if (!c) s->counts.streams_refused++;
  return c ? c->channel : 0;
}

/* With the two bytes of the length. */
static size_t frame_length(const struct conn *c) { return 2u + ((size_t)c->buffer[0] << 8 | c->buffer[1]); }

void swim_stream_received(struct swim *s, uint64_t now_ns, uint32_t stream, const void *bytes, size_t length) {
  swim_advance(s, now_ns);
  struct conn *c = conn_find(s, stream);
  const uint8_t *at = bytes;
  if (!c || c->close_due) return;
  c->until_ns = now_ns + ms(PATIENCE_MS);
  while (length > 0 && !c->close_due) {
    size_t wanted = c->length < 2 ? 2 : frame_length(c);
    size_t take = wanted - c->length < length ? wanted - c->length : length;
    memcpy(c->buffer + c->length, at, take);
    c->length += (uint32_t)take;
    at += take, length -= take;
    if (c->length == 2 && (frame_length(c) == 2 || frame_length(c) > FRAME_MAX)) { /* No message is that short or that long. */
      s->counts.refused[SWIM_REFUSED_SHORT]++;
      c->close_due = true;
    }
    if (c->length <= 2 || c->length < wanted) continue;
    c->length = 0;
    if (swim_receive_framed(s, c->ours ? &c->back : &c->to, c->channel, c->buffer + 2, wanted - 2) < 0) c->close_due = true;
  }
  if (c->close_due) conn_failed(s, c);
}

void swim_stream_ended(struct swim *s, uint64_t now_ns, uint32_t stream) {
  swim_advance(s, now_ns);
  struct conn *c = conn_find(s, stream);
  if (!c) return;
  conn_failed(s, c);
  conn_free(s, c);
}

void swim_tables_tick(struct swim *s) {
  for (int i = 0; i < CONNS_MAX; i++) {
    struct conn *c = &s->conns[i];
    if (!c->channel || c->close_due || s->now_ns < c->until_ns) continue;
    c->close_due = true;
    conn_failed(s, c);
  }
}

uint64_t swim_tables_deadline(const struct swim *s) {
  uint64_t at = UINT64_MAX;
  if (!s->tables_busy) return at;
  for (int i = 0; i < TRANSFERS_MAX; i++)
    if (s->transfers[i].active) at = earlier(at, s->transfers[i].next_ns);
  for (int i = 0; i < CONNS_MAX; i++)
    if (s->conns[i].channel && !s->conns[i].close_due) at = earlier(at, s->conns[i].until_ns);
  return at;
}

/* A stream to open, or one on which to send SYNC; false: none. */
bool swim_conn_next(struct swim *s, struct swim_action *out, uint32_t *sync) {
  for (int i = 0; i < CONNS_MAX; i++) {
    struct conn *c = &s->conns[i];
    if (c->sync_due) {
      c->sync_due = false;
      *sync = c->sequence;
      out->stream = c->channel;
      return true;
    }
    if (!c->open_due) continue;
    c->open_due = false;
    *sync = 0;
    *out = (struct swim_action){.kind = SWIM_STREAM_OPEN, .stream = c->channel, .to = c->to};
    return true;
  }
  return false;
}

/* A finished stream to close; after the transfers. */
bool swim_conn_close_next(struct swim *s, struct swim_action *out) {
  for (int i = 0; i < CONNS_MAX; i++) {
    struct conn *c = &s->conns[i];
    if (!c->channel || !(c->close_due || (c->ours && c->whole))) continue;
    *out = (struct swim_action){.kind = SWIM_STREAM_CLOSE, .stream = c->channel};
    conn_free(s, c);
    return true;
  }
  s->tables_busy = swim_tables_deadline(s) != UINT64_MAX;
  return false;
}
