#include "core/swim.h"

#include <assert.h>
#include <stdlib.h>

#include "core/crc.h"
#include "core/errors.h"
#include "core/swim_private.h"

/* ---- names of things ---- */

const char *swim_state_name(enum swim_state state) {
  static const char *const names[] = {"alive", "suspect", "dead", "left"};
  return names[state];
}

const char *swim_event_name(enum swim_event event) {
  static const char *const names[] = {"join", "suspect", "alive", "dead", "left", "update", "forgotten", "user"};
  return names[event];
}

const char *swim_type_name(unsigned type) {
  static const char *const names[SWIM_TYPES] = {NULL, "ping", "ack", "ping_req", "nack", "gossip", "sync", "table", "ack_at", "seen", "intro"};
  return type < SWIM_TYPES ? names[type] : NULL;
}

enum { FRAME_PREFIX = 2 };

#define NAME(name) #name,
const char *swim_refusal_name(enum swim_refusal reason) {
  static const char *const names[] = {SWIM_REFUSALS(NAME)};
  return names[reason];
}

/* ---- configuration ---- */

int swim_config_profile(const char *name, struct swim_config *out) {
  /* A probe's timeout leaves the other half of the period to the indirect ones. Gossip every 0.2 s with fanout 3 reaches 10,000
   * members in about 10 rounds, 2 s: within the least suspicion time. The longest wait for a seed is bearable for a person. */
  static const struct swim_config lan = {
      .probe_interval_ms = 1000, .probe_timeout_ms = 500, .indirect_probes = 3,
      .ping_repeats = 3, .health_max = 8, .buddy = 1, .verify_deaths = 1, .gossip_interval_ms = 200, .gossip_fanout = 3,
      .retransmit_multiplier = 4, .gossip_bytes_per_s = 2600, .user_bytes_per_s = 65536, .suspicion_multiplier = 1, .suspicion_max = 6, .confirmations = 2, .sync_interval_ms = 10000,
      .join_retry_ms = 500, .join_retry_max_ms = 5000, .leave_timeout_ms = 3000, .tombstone_ms = 24 * 3600 * 1000u,
      .datagram_max = SWIM_DATAGRAM_MAX, .members_max = 16384,
      .stream_bytes = 22400, .flap_limit = 6, .flap_half_life_ms = 60000,
  };
  *out = lan;
  if (strcmp(name, "lan") == 0) return 0;
  if (strcmp(name, "wan") == 0) { /* Round trips of 300 ms and bursts of loss: five times the timeouts, four times the suspicion. */
    out->probe_interval_ms = 5000, out->probe_timeout_ms = 3000, out->gossip_interval_ms = 500;
    out->suspicion_multiplier = 4, out->sync_interval_ms = 30000, out->join_retry_ms = 1000, out->join_retry_max_ms = 15000;
    out->leave_timeout_ms = 10000, out->flap_half_life_ms = 180000;
    return 0;
  }
  if (strcmp(name, "local") == 0) { /* One machine: there scheduling is slow, not the network. */
    out->probe_interval_ms = 200, out->probe_timeout_ms = 100, out->gossip_interval_ms = 50, out->gossip_bytes_per_s = 15000, out->user_bytes_per_s = 262144, out->sync_interval_ms = 2000;
    out->suspicion_multiplier = 3, out->join_retry_ms = 100, out->join_retry_max_ms = 1000, out->leave_timeout_ms = 1000;
    return 0;
  }
  return ERR_NOT_FOUND;
}

const char *swim_config_check(const struct swim_config *c) {
  const uint32_t day = 24 * 3600 * 1000u;
  if (c->probe_interval_ms < 10 || c->probe_interval_ms > 600000) return "probe_interval_ms must lie within 10 .. 600000";
  if (c->probe_timeout_ms < 1 || c->probe_timeout_ms >= c->probe_interval_ms)
    return "probe_timeout_ms must be at least 1 and less than probe_interval_ms";
  if (c->indirect_probes > FANOUT_MAX) return "indirect_probes must lie within 0 .. 8";
  if (c->ping_repeats > 8) return "ping_repeats must lie within 0 .. 8";
  if (c->health_max > 8) return "health_max must lie within 0 .. 8";
  if (c->buddy > 1) return "buddy must be 0 or 1";
  if (c->verify_deaths > 1) return "verify_deaths must be 0 or 1";
  if (c->gossip_interval_ms < 5 || c->gossip_interval_ms > 60000) return "gossip_interval_ms must lie within 5 .. 60000";
  if (c->gossip_fanout < 1 || c->gossip_fanout > FANOUT_MAX) return "gossip_fanout must lie within 1 .. 8";
  if (c->retransmit_multiplier < 1 || c->retransmit_multiplier > 8) return "retransmit_multiplier must lie within 1 .. 8";
  if (c->gossip_bytes_per_s < 300 || c->gossip_bytes_per_s > 10000000) return "gossip_bytes_per_s must lie within 300 .. 10000000";
  if (c->user_bytes_per_s < 300 || c->user_bytes_per_s > 10000000) return "user_bytes_per_s must lie within 300 .. 10000000";
  if (c->suspicion_multiplier < 1 || c->suspicion_multiplier > 16) return "suspicion_multiplier must lie within 1 .. 16";
  if (c->suspicion_max < 1 || c->suspicion_max > 16) return "suspicion_max must lie within 1 .. 16";
  if (c->confirmations > SUSPICION_CONFIRMATIONS_MAX) return "confirmations must lie within 0 .. 7";
  if (c->sync_interval_ms < 10 || c->sync_interval_ms > day) return "sync_interval_ms must lie within 10 .. 86400000";
  if (c->join_retry_ms < 10 || c->join_retry_ms > c->join_retry_max_ms)
    return "join_retry_ms must be at least 10 and at most join_retry_max_ms";
  if (c->join_retry_max_ms > day) return "join_retry_max_ms must be at most 86400000";
  if (c->leave_timeout_ms < 1 || c->leave_timeout_ms > 600000) return "leave_timeout_ms must lie within 1 .. 600000";
  if (c->tombstone_ms < c->probe_interval_ms) return "tombstone_ms must be at least probe_interval_ms";
  if (c->datagram_max < SWIM_DATAGRAM_MIN || c->datagram_max > SWIM_DATAGRAM_MAX)
    return "datagram_max must lie within 768 .. 1400";
  if (c->stream_bytes > 100000000) return "stream_bytes must be at most 100000000";
  if (c->flap_limit == 1 || c->flap_limit > 1000) return "flap_limit must be 0 or lie within 2 .. 1000";
  if (c->flap_half_life_ms < 100 || c->flap_half_life_ms > day) return "flap_half_life_ms must lie within 100 .. 86400000";
  if (c->members_max < 2 || c->members_max > 1000000) return "members_max must lie within 2 .. 1000000";
  return NULL;
}

/* ---- opening ---- */

static int check_identity(const struct swim_identity *identity) {
  if (identity->name_length == 0 || identity->address.port == 0) return ERR_MALFORMED;
  if (identity->address.family != 4 && identity->address.family != 6) return ERR_MALFORMED;
  if (identity->name_length > SWIM_NAME_MAX || identity->cluster_length > SWIM_CLUSTER_MAX) return ERR_TOO_LARGE;
  return identity->payload_length > SWIM_PAYLOAD_MAX ? ERR_TOO_LARGE : 0;
}

int swim_open(const struct swim_config *config, const struct swim_identity *identity, uint64_t seed, uint64_t now_ns,
              struct swim **out) {
  if (swim_config_check(config)) return ERR_CONFIG;
  int rc = check_identity(identity);
  if (rc < 0) return rc;
  struct swim *s = calloc(1, sizeof *s);
  if (!s) return ERR_MEMORY;
  s->config = *config;
  s->cluster.crc = crc32c(0, identity->cluster, identity->cluster_length);
  if (identity->cluster_length) memcpy(s->cluster_name, identity->cluster, identity->cluster_length);
  s->cluster_name_length = identity->cluster_length;
  s->born = identity->generation;
  s->rival.next_ns = UINT64_MAX;
  rng_seed(&s->rng, seed);
  s->now_ns = now_ns;
  s->sequence = (uint32_t)rng_next(&s->rng); /* Random, so that acks to an earlier life match nothing. */
  s->gossip_ns = s->leave_ns = s->relay_ns = UINT64_MAX;
  s->budget_bytes = config->datagram_max;
  s->user_budget_bytes = swim_user_depth(s);
  s->seen_budget_bytes = s->user_budget_bytes / 4;
  s->user_budget_ns = now_ns;
  vivaldi_open(&s->place);
  s->budget_ns = now_ns;
  s->young_ns = now_ns + YOUNG * ms(config->probe_interval_ms);
  s->probe_ns = swim_in_step(s, now_ns + rng_below(&s->rng, ms(config->probe_interval_ms))); /* A random phase. */
  s->sync_wait_ns = ms(config->probe_interval_ms);
  s->sync_ns = now_ns + s->sync_wait_ns / 4;
  for (int i = 0; i < SENT_MAX; i++) s->lists[i] = (struct list){NONE, NONE};
  s->rumours_free = NONE;
  rc = swim_members_open(s, identity);
  if (rc < 0) {
    swim_close(s);
    return rc;
  }
  swim_raise_self(s);
  *out = s;
  return 0;
}

void swim_close(struct swim *s) {
  swim_members_close(s);
  swim_conns_close(s);
  free(s->sends);
  free(s->events);
  free(s->relays);
  swim_users_close(s);
  free(s->facts);
  swim_intro_close(s);
  free(s);
}

int swim_incarnation_compare(struct swim_incarnation a, struct swim_incarnation b) {
  if (a.generation != b.generation) return a.generation < b.generation ? -1 : 1;
  return (a.version > b.version) - (a.version < b.version);
}

uint32_t swim_next_sequence(struct swim *s) {
  if (++s->sequence > UINT32_MAX - 2 * FANOUT_MAX) s->sequence = 1; /* A probe also uses the next few. */
  return s->sequence;
}

/* ---- events in ---- */

void swim_advance(struct swim *s, uint64_t now_ns) {
  assert(now_ns >= s->now_ns);
  s->now_ns = now_ns;
}

/* Our timers ran late: answers may lie unread in our socket, so our own suspicions are unfounded. Accuse nobody until a period has
 * passed. */
static void excuse_stall(struct swim *s) {
  s->counts.stalls++;
  swim_ail(s, 1);
  swim_fact(s, SWIM_FACT_EXCUSED, SELF, 0, 0);
  swim_probe_forgive(s);
  heap_defer(&s->suspects, s->now_ns + ms(s->config.probe_interval_ms));
}

void swim_tick(struct swim *s, uint64_t now_ns) {
  uint64_t due = swim_deadline(s);
  swim_advance(s, now_ns);
  if (s->events_count > EVENTS_MAX - EVENTS_INPUT) return; /* swim_next() first. */
  bool late = now_ns > due && now_ns - due > ms(s->config.probe_timeout_ms);
  if (late && s->config.health_max > 0) excuse_stall(s);
  swim_intro_tick(s);
  swim_probe_tick(s);
  if (swim_silent(s)) heap_defer(&s->suspects, s->now_ns + ms(s->config.probe_interval_ms)); /* Refutations do not reach us. */
  swim_expire(s);
  swim_join_tick(s);
  if (s->tables_busy) swim_tables_tick(s);
  swim_leave_tick(s);
  swim_gossip_tick(s);
  if (!swim_silent(s)) swim_users_tick(s);
}

uint64_t swim_deadline(const struct swim *s) {
  uint64_t at = earlier(swim_probe_deadline(s), heap_deadline(&s->suspects));
  at = earlier(at, earlier(swim_join_deadline(s), s->gossip_ns));
  at = earlier(at, earlier(swim_tables_deadline(s), swim_silent(s) ? UINT64_MAX : swim_users_deadline(s)));
  at = earlier(at, swim_intro_deadline(s));
  return s->leaving && !s->left_told ? earlier(at, s->leave_ns) : at;
}

struct body { /* The part between header and records; the type decides which fields are set. */
  uint32_t sequence, digest, window_ms;
  uint16_t port;
  uint8_t flags;
  struct claim claim;
  struct shoal_address target;
  struct place place;
};

static void read_body(struct reader *r, enum type type, struct body *b) {
  if (type != GOSSIP && type != SEEN) b->sequence = read_u32(r);
  if (type == PING || type == PING_REQ) swim_wire_read_claim(r, &b->claim);
  if (type == PING_REQ) swim_wire_read_address(r, &b->target), b->window_ms = read_varint32(r);
  if (b->window_ms > WINDOW_MAX_MS) r->failed = true;
  if (type == SYNC || type == TABLE) b->flags = read_u8(r);
  if (type == ACK || type == ACK_AT || type == SYNC || type == TABLE) b->digest = read_u32(r);
  if (type == ACK_AT) swim_wire_read_place(r, &b->place);
  if (type == TABLE && b->flags & TABLE_STREAM) b->port = read_u16(r);
  if (b->flags > 3) r->failed = true;
}

/* Check all of it before any of it is used. 0, or minus (reason + 1). */
static int check(struct swim *s, const uint8_t *bytes, size_t length, struct header *header, struct body *body,
                 struct reader *r) {
  int rc = swim_wire_open(&s->cluster, bytes, length, header, r);
  if (rc < 0) return rc;
  const struct member *self = &s->members[SELF];
  if (header->key == self->key && header->incarnation.generation == self->incarnation.generation) return -1 - SWIM_REFUSED_OWN;
  read_body(r, header->type, body);
  if (r->failed) return -1 - SWIM_REFUSED_BODY;
  if ((header->type == NACK || header->type == SYNC) && reader_left(r) > 0) return -1 - SWIM_REFUSED_BODY;
  if (header->type == PING && body->claim.key != self->key) return -1 - SWIM_REFUSED_MISDIRECTED;
  struct record record;
  struct user_event user;
  struct reader records = *r;
  if (header->type == SEEN) return swim_seen_valid(&records) ? 0 : -1 - SWIM_REFUSED_BODY;
  while (swim_wire_read_record(&records, &record, &user)) continue;
  return records.failed ? -1 - SWIM_REFUSED_RECORD : 0;
}

static void dispatch(struct swim *s, const struct shoal_address *from, const struct header *header, uint32_t sender,
                     const struct body *b) {
  switch (header->type) {
    case PING: swim_on_ping(s, from, sender, b->sequence, &b->claim); break;
    case ACK_AT:
      if (sender != NONE && s->members[sender].incarnation.generation == header->incarnation.generation)
        swim_merge_place(s, sender, &b->place);
      /* fall through */
    case ACK: swim_on_ack(s, header->key, sender, b->sequence, b->digest); break;
    case PING_REQ: swim_on_ping_req(s, from, b->sequence, &b->claim, &b->target, b->window_ms); break;
    case NACK: swim_on_nack(s, b->sequence); break;
    case SYNC: swim_on_sync(s, from, sender, b->sequence, b->flags, b->digest); break;
    case TABLE: swim_on_table(s, from, header->key, b->sequence, b->flags, b->digest, b->port); break;
    default: break; /* GOSSIP was all records. */
  }
}

static int receive(struct swim *s, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct header header;
  struct body body = {0};
  struct record record;
  struct user_event user;
  struct reader r;
  if (s->events_count > EVENTS_MAX - EVENTS_INPUT) { /* swim_next() first: this datagram counts as lost. */
    s->counts.dropped++;
    return ERR_FULL;
  }
  s->counts.bytes_received += length;
  bool intro = length > 2 && !s->channel && (bytes[2] & 15) == INTRO;
  int rc = intro ? swim_intro_receive(s, from, bytes, length) : check(s, bytes, length, &header, &body, &r);
  if (rc < 0) {
    s->counts.refused[-rc - 1]++;
    s->counts.refused_from[-rc - 1] = *from;
    if (!s->channel) swim_seed_refused(s, from, -rc - 1);
    if (rc == -1 - SWIM_REFUSED_CLUSTER && !s->channel) swim_foreign_heard(s, from);
    return -rc - 1 >= SWIM_REFUSED_OWN ? ERR_REFUSED : ERR_MALFORMED;
  }
  if (intro) return 0;
  s->counts.received[header.type]++;
  struct swim_incarnation before = s->members[SELF].incarnation;
  bool table = header.type == TABLE, quiet = table && swim_table_quiet(s, body.sequence);
  uint32_t sender = swim_merge_sender(s, &header, from);
  while (header.type != SEEN && swim_wire_read_record(&r, &record, &user)) {
    if (record.name) swim_merge(s, &record, table, quiet);
    else swim_merge_user(s, &user);
  }
  if (sender == NONE) sender = swim_members_by_key(s, header.key, header.incarnation.generation); /* Its header may just have added it. */
  if (sender == SELF) sender = NONE; /* An earlier life of ours, or a namesake. */
  if (header.type == SEEN) swim_on_seen(s, from, sender, &r);
  else dispatch(s, from, &header, sender, &body);
  /* Send our refutation to the member that doubted us at once; an ACK carries it anyway. */
  if (header.type != PING && swim_incarnation_compare(s->members[SELF].incarnation, before) > 0 && s->joined && !swim_silent(s))
    swim_post(s, &(struct send){.type = GOSSIP, .to = *from, .about = NONE, .self_first = true});
  return 0;
}

int swim_receive(struct swim *s, uint64_t now_ns, const struct shoal_address *from, const void *bytes, size_t length) {
  swim_advance(s, now_ns);
  return receive(s, from, bytes, length);
}

int swim_receive_framed(struct swim *s, const struct shoal_address *from, uint32_t channel, const uint8_t *bytes, size_t length) {
  unsigned type = length > 2 ? bytes[2] & 15 : 0;
  if (type != SYNC && type != TABLE) {
    s->counts.refused[SWIM_REFUSED_TYPE]++;
    return ERR_REFUSED;
  }
  s->channel = channel;
  int rc = receive(s, from, bytes, length);
  s->channel = 0;
  return rc;
}

int swim_set_payload(struct swim *s, uint64_t now_ns, const void *bytes, size_t length) {
  swim_advance(s, now_ns);
  if (length > SWIM_PAYLOAD_MAX) return ERR_TOO_LARGE;
  int rc = swim_store_payload(s, SELF, bytes, length, s->members[SELF].payload_version + 1);
  if (rc == 0) swim_raise_self(s);
  return rc;
}

int swim_reconfigure(struct swim *s, uint64_t now_ns, const struct swim_config *config) {
  swim_advance(s, now_ns);
  if (swim_config_check(config)) return ERR_CONFIG;
  if (config->members_max < s->kept) return ERR_FULL;
  s->config = *config;
  swim_ail(s, 0); /* The bound of our health may have changed. */
  if (s->probe_ns != UINT64_MAX) s->probe_ns = swim_in_step(s, earlier(s->probe_ns, now_ns + swim_window_ns(s)));
  if (s->gossip_ns != UINT64_MAX) s->gossip_ns = earlier(s->gossip_ns, now_ns + ms(config->gossip_interval_ms));
  s->sync_wait_ns = ms(config->probe_interval_ms);
  return 0;
}

const struct swim_config *swim_config_now(const struct swim *s) { return &s->config; }

bool swim_hint(struct swim *s, uint64_t now_ns, const char *name, size_t name_length) {
  swim_advance(s, now_ns);
  uint32_t id = swim_members_find(s, name, name_length);
  return id != NONE && id != SELF && swim_lives(&s->members[id]) && !s->leaving && swim_probe_start(s, id, FOR_HINT);
}

/* ---- actions out ---- */

/* Room behind the last of a queue. */
static bool line_room(void **line, uint32_t *head, uint32_t count, uint32_t *capacity, size_t size) {
  if (*head + count < *capacity) return true;
  if (*head > 0) {
    memmove(*line, (char *)*line + *head * size, count * size);
    *head = 0;
    return true;
  }
  uint32_t wanted = *capacity ? *capacity * 2 : 4;
  void *grown = realloc(*line, wanted * size);
  if (!grown) return false;
  *line = grown;
  *capacity = wanted;
  return true;
}

void swim_post(struct swim *s, const struct send *send) {
  struct shoal_address ours = swim_address(s, &s->members[SELF]);
  if (address_equal(&send->to, &ours))
    return; /* Another name at this address before us, or a wrong claim. */
  if (s->sends_count == SENDS_MAX ||
      !line_room((void **)&s->sends, &s->sends_head, s->sends_count, &s->sends_capacity, sizeof *s->sends)) {
    s->counts.dropped++;
    return;
  }
  s->sends[s->sends_head + s->sends_count++] = *send;
}

struct event *swim_emit(struct swim *s, enum swim_event kind, uint32_t id, struct swim_incarnation incarnation, uint8_t state) {
  assert(s->events_count < EVENTS_MAX);
  if (s->members[id].held && kind != SWIM_EVENT_USER) return NULL; /* It is shown as dead. */
  if (!line_room((void **)&s->events, &s->events_head, s->events_count, &s->events_capacity, sizeof *s->events)) {
    s->counts.dropped++;
    return NULL;
  }
  struct event *e = &s->events[s->events_head + s->events_count++];
  *e = (struct event){.kind = kind, .id = id, .incarnation = incarnation, .state = state};
  bool ends = kind == SWIM_EVENT_ALIVE || kind == SWIM_EVENT_DEAD || kind == SWIM_EVENT_LEFT; /* The move that was just made. */
  if (ends) e->suspected_ms = s->ended_ms, e->confirmations = s->ended_confirmations;
  return e;
}

static void write_start(struct swim *s, struct writer *w, enum type type) {
  const struct member *self = &s->members[SELF];
  *w = writer_of(s->out + FRAME_PREFIX, s->config.datagram_max);
  swim_wire_header(w, &s->cluster, &(struct header){(uint8_t)type, self->key, self->incarnation});
}

/* As a datagram, or on a stream with its length in front. */
static bool finish(struct swim *s, struct writer *w, enum type type, uint32_t channel, struct swim_action *out) {
  assert(!w->failed);
  uint8_t *message = s->out + FRAME_PREFIX;
  size_t length = (size_t)(w->at - message);
  swim_wire_seal(message, length, &s->cluster);
  s->out[0] = (uint8_t)(length >> 8), s->out[1] = (uint8_t)length;
  out->kind = channel ? SWIM_STREAM_SEND : SWIM_SEND;
  out->stream = channel;
  out->bytes = channel ? s->out : message;
  out->length = channel ? FRAME_PREFIX + length : length;
  s->counts.sent[type]++;
  s->counts.bytes_sent += out->length;
  return true;
}

/* False when there is nothing to send after all. */
static bool write_send(struct swim *s, const struct send *send, struct swim_action *out) {
  struct writer w;
  write_start(s, &w, send->type);
  out->to = send->to;
  if (send->type == SEEN) {
    swim_seen_write(s, &w, send->flags);
    return finish(s, &w, SEEN, 0, out);
  }
  if (send->type != GOSSIP && send->type != INTRO) write_u32(&w, send->sequence);
  if (send->type == PING || send->type == PING_REQ) swim_wire_write_claim(&w, &send->claim);
  if (send->type == PING_REQ) swim_wire_write_address(&w, &send->target), write_varint(&w, send->window_ms);
  if (send->type == SYNC) write_u8(&w, send->flags);
  if (send->type == ACK || send->type == ACK_AT || send->type == SYNC) write_u32(&w, s->digest);
  if (send->type == INTRO) swim_intro_write(s, &w, send);
  if (send->type == ACK_AT) {
    struct place ours = swim_place(&s->members[SELF]);
    swim_wire_write_place(&w, &ours);
  }
  if (send->type != SYNC && send->type != NACK && send->type != INTRO) {
    bool known = send->about != NONE && s->members[send->about].name_length; /* It may have been reaped since. */
    uint32_t told = swim_piggyback(s, &w, known ? send->about : NONE, send->self_first);
    if (send->type == GOSSIP && told == 0) return false;
  }
  return finish(s, &w, send->type, 0, out);
}

static bool next_send(struct swim *s, struct swim_action *out) {
  while (s->sends_count > 0) {
    struct send send = s->sends[s->sends_head++];
    if (--s->sends_count == 0) s->sends_head = 0;
    if (write_send(s, &send, out)) return true;
  }
  return false;
}

static bool next_answer(struct swim *s, struct swim_action *out) {
  struct writer w;
  if (!s->users) return false;
  write_start(s, &w, GOSSIP);
  return swim_answer_next(s, &w, &out->to) && finish(s, &w, GOSSIP, 0, out);
}

static bool next_table(struct swim *s, struct swim_action *out) {
  struct writer w;
  uint32_t sync, channel;
  if (!s->tables_busy) return false;
  if (swim_conn_next(s, out, &sync)) {
    if (sync == 0) return true; /* A stream to open. */
    write_start(s, &w, SYNC);
    write_u32(&w, sync);
    write_u8(&w, s->joined ? 0 : SYNC_NEW);
    write_u32(&w, s->digest);
    return finish(s, &w, SYNC, out->stream, out);
  }
  write_start(s, &w, TABLE);
  if (swim_transfer_next(s, &w, &out->to, &channel)) return finish(s, &w, TABLE, channel, out);
  return swim_conn_close_next(s, out);
}

static bool next_event(struct swim *s, struct swim_action *out) {
  if (s->events_count == 0) return false;
  struct event e = s->events[s->events_head++];
  if (--s->events_count == 0) s->events_head = 0;
  out->kind = SWIM_EVENT;
  out->event = e.kind;
  if (e.kind == SWIM_EVENT_USER) swim_user_deliver(s, e.user, out);
  swim_view(s, e.id, &out->member);
  out->member.incarnation = e.incarnation;
  out->member.state = e.state;
  if (e.kind == SWIM_EVENT_SUSPECT) return true;
  out->member.suspected_ms = e.suspected_ms;
  out->member.confirmations = e.confirmations;
  return true;
}

bool swim_next(struct swim *s, struct swim_action *out) {
  if (next_send(s, out) || next_answer(s, out) || next_table(s, out) || next_event(s, out) || swim_intro_next(s, out)) return true;
  if (s->left_told || !swim_leave_over(s)) return false;
  s->left_told = true;
  out->kind = SWIM_LEFT_DONE;
  out->heard = s->witnesses_count;
  return true;
}

/* ---- looking ---- */

void swim_view(const struct swim *s, uint32_t id, struct swim_member *out) {
  const struct member *m = &s->members[id];
  *out = (struct swim_member){
      .name = swim_name(s, m), .name_length = m->name_length, .address = swim_address(s, m),
      .state = m->held ? SWIM_DEAD : m->state, .held = m->held,
      .incarnation = m->incarnation, .payload = swim_payload(s, m), .payload_length = m->payload_length,
      .payload_version = m->payload_version, .changed_ns = swim_changed_ns(m),
      .rtt_ns = swim_rtt_ns(m->rtt),
  };
  if (m->suspicion == NONE) return;
  const struct suspicion *now = &s->suspicions[m->suspicion].of;
  out->suspected_ms = (uint32_t)((s->now_ns - now->started_ns) / NS_PER_MS);
  out->confirmations = now->confirmed;
}

bool swim_each(const struct swim *s, uint32_t *cursor, struct swim_member *out) {
  while (*cursor < s->members_count && (!s->members[*cursor].name_length || s->members[*cursor].forgotten)) ++*cursor;
  if (*cursor >= s->members_count) return false;
  swim_view(s, (*cursor)++, out);
  return true;
}

bool swim_find(const struct swim *s, const char *name, size_t name_length, struct swim_member *out) {
  uint32_t id = swim_members_find(s, name, name_length);
  if (id == NONE || s->members[id].forgotten) return false;
  swim_view(s, id, out);
  return true;
}

void swim_self(const struct swim *s, struct swim_member *out) { swim_view(s, SELF, out); }
uint32_t swim_live(const struct swim *s) { return swim_living(s) - swim_flap_held_living(s); }
uint32_t swim_records(const struct swim *s) { return s->kept; }
uint32_t swim_digest(const struct swim *s) { return s->digest; }

const struct swim_counts *swim_counts(const struct swim *s) {
  return &s->counts;
}
