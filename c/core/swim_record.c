#include "core/swim_record.h"

#include <assert.h>
#include <string.h>

#include "core/crc.h"
#include "core/errors.h"

static const char MAGIC[4] = {'S', 'W', 'R', '2'};
enum { CONFIG_COUNT = sizeof(struct swim_config) / sizeof(uint32_t), HOST_BYTES = 16 };
_Static_assert(sizeof(struct swim_config) == CONFIG_COUNT * sizeof(uint32_t), "all of its fields are uint32_t");

/* ---- writing ---- */

static void write_config(struct writer *w, const struct swim_config *config) {
  uint32_t values[CONFIG_COUNT];
  memcpy(values, config, sizeof values);
  write_varint(w, CONFIG_COUNT);
  for (size_t i = 0; i < CONFIG_COUNT; i++) write_varint(w, values[i]);
}

static void write_address(struct writer *w, const struct shoal_address *address) {
  write_u8(w, address->family);
  write_bytes(w, address->bytes, HOST_BYTES);
  write_u16(w, address->port);
}

static void write_short(struct writer *w, const char *text, size_t length) {
  write_u8(w, (uint8_t)length);
  write_bytes(w, text, length);
}

static void write_long(struct writer *w, const void *bytes, size_t length) {
  write_varint(w, length);
  write_bytes(w, bytes, length);
}

size_t swim_record_begin(struct swim_recorder *r, const struct swim_config *config, const struct swim_identity *identity,
                         uint64_t seed, uint64_t now_ns, uint8_t *out) {
  struct writer w = writer_of(out, SWIM_RECORD_BEGIN_MAX);
  *r = (struct swim_recorder){.last_ns = now_ns};
  write_bytes(&w, MAGIC, sizeof MAGIC);
  write_config(&w, config);
  write_short(&w, identity->name, identity->name_length);
  write_short(&w, identity->cluster, identity->cluster_length);
  write_address(&w, &identity->address);
  write_u32(&w, identity->generation);
  write_long(&w, identity->payload, identity->payload_length);
  write_u64(&w, seed);
  write_u64(&w, now_ns);
  assert(!w.failed);
  return (size_t)(w.at - out);
}

static struct writer begin_step(struct swim_recorder *r, enum swim_input input, uint64_t now_ns, uint8_t *out) {
  struct writer w = writer_of(out, SWIM_RECORD_STEP_MAX);
  assert(now_ns >= r->last_ns);
  write_u8(&w, (uint8_t)input);
  write_varint(&w, now_ns - r->last_ns);
  write_varint(&w, r->actions);
  write_u32(&w, r->crc);
  r->last_ns = now_ns;
  r->crc = r->actions = 0;
  return w;
}

size_t swim_record_stream(struct swim_recorder *r, enum swim_input input, uint64_t now_ns, uint32_t stream, const void *bytes,
                          size_t length, uint8_t *out) {
  struct writer w = begin_step(r, input, now_ns, out);
  assert(length <= SWIM_DATAGRAM_MAX);
  write_u32(&w, stream);
  write_long(&w, bytes, length);
  assert(!w.failed);
  return (size_t)(w.at - out);
}

size_t swim_record_step(struct swim_recorder *r, enum swim_input input, uint64_t now_ns, const struct shoal_address *address,
                        const void *bytes, size_t length, const struct swim_config *config, uint8_t *out) {
  struct writer w = begin_step(r, input, now_ns, out);
  if (address) write_address(&w, address);
  if (bytes) write_long(&w, bytes, length <= SWIM_DATAGRAM_MAX ? length : SWIM_DATAGRAM_MAX + 1);
  if (config) write_config(&w, config);
  assert(!w.failed);
  return (size_t)(w.at - out);
}

static uint32_t crc_u64(uint32_t crc, uint64_t value) {
  uint8_t bytes[8];
  struct writer w = writer_of(bytes, sizeof bytes);
  write_u64(&w, value);
  return crc32c(crc, bytes, sizeof bytes);
}

void swim_record_action(struct swim_recorder *r, const struct swim_action *a) {
  uint32_t crc = crc_u64(r->crc, (uint64_t)a->kind << 32 | (a->kind == SWIM_EVENT ? (uint32_t)a->event : 0));
  if (a->kind == SWIM_SEND) {
    crc = crc_u64(crc, (uint64_t)a->to.family << 16 | a->to.port);
    crc = crc32c(crc, a->to.bytes, HOST_BYTES);
    crc = crc32c(crc, a->bytes, a->length);
  } else if (a->kind == SWIM_EVENT) {
    crc = crc32c(crc, a->member.name, a->member.name_length);
    crc = crc_u64(crc, (uint64_t)a->member.incarnation.generation << 32 | a->member.incarnation.version);
    crc = crc_u64(crc, (uint64_t)a->member.state);
    if (a->event == SWIM_EVENT_USER) crc = crc32c(crc, a->told, a->told_length);
  } else if (a->kind == SWIM_LEFT_DONE) {
    crc = crc_u64(crc, a->heard);
  } else if (a->kind == SWIM_NOTICE) {
    crc = crc_u64(crc, (uint64_t)a->notice->kind);
    crc = crc32c(crc, a->notice->name, a->notice->name_length);
    crc = crc_u64(crc, (uint64_t)a->notice->one.port << 16 | a->notice->other.port);
  } else {
    crc = crc_u64(crc, a->stream);
    if (a->kind == SWIM_STREAM_SEND) crc = crc32c(crc, a->bytes, a->length);
  }
  r->crc = crc;
  r->actions++;
}

/* ---- reading ---- */

static void read_config(struct reader *r, struct swim_config *out) {
  uint32_t values[CONFIG_COUNT];
  if (read_varint(r) != CONFIG_COUNT) r->failed = true;
  for (size_t i = 0; i < CONFIG_COUNT; i++) values[i] = read_varint32(r);
  memcpy(out, values, sizeof values);
}

static void read_address(struct reader *r, struct shoal_address *out) {
  *out = (struct shoal_address){.family = read_u8(r)};
  const uint8_t *host = read_bytes(r, HOST_BYTES);
  if (host) memcpy(out->bytes, host, HOST_BYTES);
  out->port = read_u16(r);
  if (out->family != 4 && out->family != 6) r->failed = true;
}

static const uint8_t *read_long(struct reader *r, size_t *length) {
  uint64_t count = read_varint(r);
  if (count > reader_left(r)) r->failed = true;
  *length = r->failed ? 0 : (size_t)count;
  return read_bytes(r, *length);
}

static const char *read_short(struct reader *r, size_t *length) {
  *length = read_u8(r);
  const char *text = (const char *)read_bytes(r, *length);
  if (!text) *length = 0;
  return text;
}

/* The beginning of the next step. There is none at the end, or where the recording is damaged. */
static void read_head(struct swim_replay *r) {
  struct swim_replay_head *h = &r->head;
  *h = (struct swim_replay_head){0};
  if (r->reader.failed || reader_left(&r->reader) == 0) return;
  h->there = true;
  h->input = read_u8(&r->reader);
  h->after_ns = read_varint(&r->reader);
  h->actions = read_varint32(&r->reader);
  h->crc = read_u32(&r->reader);
  if (h->after_ns > UINT64_MAX / 2 - r->now_ns) r->reader.failed = true; /* 292 years: damage. */
  if (r->reader.failed) h->there = false;
}

int swim_replay_open(struct swim_replay *r, const void *bytes, size_t length) {
  struct swim_config config;
  struct swim_identity id = {0};
  *r = (struct swim_replay){.reader = reader_of(bytes, length), .begin = bytes};
  const uint8_t *magic = read_bytes(&r->reader, sizeof MAGIC);
  if (!magic || memcmp(magic, MAGIC, sizeof MAGIC) != 0) return ERR_MALFORMED;
  read_config(&r->reader, &config);
  id.name = read_short(&r->reader, &id.name_length);
  id.cluster = read_short(&r->reader, &id.cluster_length);
  read_address(&r->reader, &id.address);
  id.generation = read_u32(&r->reader);
  id.payload = read_long(&r->reader, &id.payload_length);
  uint64_t seed = read_u64(&r->reader);
  r->now_ns = r->began_ns = read_u64(&r->reader);
  if (r->reader.failed) return ERR_MALFORMED;
  r->recorder.last_ns = r->now_ns;
  read_head(r);
  return swim_open(&config, &id, seed, r->now_ns, &r->swim);
}

struct step {
  uint8_t input;
  struct shoal_address address;
  const uint8_t *bytes;
  size_t length;
  struct swim_config config;
  uint32_t stream;
};

static void read_step(struct reader *r, struct step *out) {
  switch (out->input) {
    case SWIM_INPUT_RECEIVE:
      read_address(r, &out->address);
      out->bytes = read_long(r, &out->length);
      break;
    case SWIM_INPUT_JOIN:
    case SWIM_INPUT_ACCEPTED:
    case SWIM_INPUT_FORGET: read_address(r, &out->address); break;
    case SWIM_INPUT_PAYLOAD:
    case SWIM_INPUT_HINT:
    case SWIM_INPUT_ERASE:
    case SWIM_INPUT_TELL: out->bytes = read_long(r, &out->length); break;
    case SWIM_INPUT_RECONFIGURE: read_config(r, &out->config); break;
    case SWIM_INPUT_STREAMS:
    case SWIM_INPUT_OPENED:
    case SWIM_INPUT_STREAM:
    case SWIM_INPUT_ENDED:
      out->stream = read_u32(r);
      out->bytes = read_long(r, &out->length);
      break;
    case SWIM_INPUT_TICK:
    case SWIM_INPUT_LEAVE: break;
    default: r->failed = true;
  }
}

/* Refusals are part of the recording: the node got the same. */
static void give(struct swim *s, uint64_t now_ns, const struct step *step) {
  switch ((enum swim_input)step->input) {
    case SWIM_INPUT_RECEIVE: (void)swim_receive(s, now_ns, &step->address, step->bytes, step->length); break; /* As in the recording. */
    case SWIM_INPUT_TICK: swim_tick(s, now_ns); break;
    case SWIM_INPUT_JOIN: (void)swim_join(s, now_ns, &step->address); break; /* As in the recording. */
    case SWIM_INPUT_FORGET: (void)swim_forget(s, &step->address); break; /* As in the recording. */
    case SWIM_INPUT_LEAVE: swim_leave(s, now_ns); break;
    case SWIM_INPUT_PAYLOAD: (void)swim_set_payload(s, now_ns, step->bytes, step->length); break; /* As in the recording. */
    case SWIM_INPUT_HINT: (void)swim_hint(s, now_ns, (const char *)step->bytes, step->length); break; /* As in the recording. */
    case SWIM_INPUT_ERASE: (void)swim_erase(s, now_ns, (const char *)step->bytes, step->length); break; /* As in the recording. */
    case SWIM_INPUT_TELL: (void)swim_tell(s, now_ns, step->bytes, step->length); break; /* As in the recording. */
    case SWIM_INPUT_RECONFIGURE: (void)swim_reconfigure(s, now_ns, &step->config); break; /* As in the recording. */
    case SWIM_INPUT_STREAMS: swim_streams(s, (uint16_t)step->stream); break;
    case SWIM_INPUT_OPENED: swim_stream_opened(s, now_ns, step->stream); break;
    case SWIM_INPUT_ACCEPTED: (void)swim_stream_accepted(s, now_ns, &step->address); break; /* As in the recording. */
    case SWIM_INPUT_STREAM: swim_stream_received(s, now_ns, step->stream, step->bytes, step->length); break;
    case SWIM_INPUT_ENDED: swim_stream_ended(s, now_ns, step->stream); break;
    case SWIM_INPUTS_COUNT: break;
  }
}

int swim_replay_step(struct swim_replay *r) {
  if (r->reader.failed) return ERR_MALFORMED;
  if (!r->head.there) return 0;
  struct step step = {.input = r->head.input};
  read_step(&r->reader, &step);
  if (r->reader.failed) return ERR_MALFORMED;
  r->steps++;
  if ((r->head.crc != r->recorder.crc || r->head.actions != r->recorder.actions) && r->diverged == 0) r->diverged = r->steps;
  r->recorder.crc = r->recorder.actions = 0;
  r->now_ns += r->head.after_ns;
  give(r->swim, r->now_ns, &step);
  read_head(r);
  return 1;
}

bool swim_replay_next(struct swim_replay *r, struct swim_action *out) {
  if (r->head.there && r->recorder.actions >= r->head.actions) return false; /* The node took no more before its next input. */
  if (!swim_next(r->swim, out)) return false;
  swim_record_action(&r->recorder, out);
  return true;
}

size_t swim_replay_offset(const struct swim_replay *r) { return (size_t)(r->reader.at - r->begin); }

void swim_replay_close(struct swim_replay *r) {
  if (r->swim) swim_close(r->swim);
  r->swim = NULL;
}
