#include <assert.h>

#include "core/crc.h"
#include "core/swim_private.h"

enum { MAGIC = 0x5377, VERSION = 1, CHECKSUM_AT = 5, CHECKSUM_END = 9, HEADER_MIN = CHECKSUM_END + 4 + 4 + 1 };
enum { RECORD_STATE = 3, RECORD_IPV6 = 4, RECORD_PAYLOAD = 8, RECORD_PLACE = 16, RECORD_FORGOTTEN = 32, RECORD_KNOWN = 63, USER_EVENT = 128 };

uint32_t swim_wire_key(const char *name, size_t name_length) {
  uint32_t key = crc32c(0, name, name_length);
  return key ? key : 1; /* 0 means nobody. */
}

static uint32_t checksum(const uint8_t *bytes, size_t length, const struct cluster *cluster) {
  bool open = (bytes[2] & 15) == INTRO; /* Read by other clusters too. */
  uint32_t crc = crc32c(open ? 0 : cluster->crc >> 16, bytes, CHECKSUM_AT);
  return crc32c(crc, bytes + CHECKSUM_END, length - CHECKSUM_END);
}

static void write_incarnation(struct writer *w, struct swim_incarnation incarnation) {
  write_u32(w, incarnation.generation);
  write_varint(w, incarnation.version);
}

static struct swim_incarnation read_incarnation(struct reader *r) {
  struct swim_incarnation incarnation;
  incarnation.generation = read_u32(r);
  incarnation.version = read_varint32(r);
  /* The greatest values stay free, so that the member can always answer with a greater one. */
  if (incarnation.generation == UINT32_MAX || incarnation.version == UINT32_MAX) r->failed = true;
  return incarnation;
}

void swim_wire_header(struct writer *w, const struct cluster *cluster, const struct header *header) {
  write_u16(w, MAGIC);
  write_u8(w, (uint8_t)(VERSION << 4 | header->type));
  write_u16(w, (uint16_t)cluster->crc);
  write_u32(w, 0); /* The checksum. */
  write_u32(w, header->key);
  write_incarnation(w, header->incarnation);
}

void swim_wire_seal(uint8_t *bytes, size_t length, const struct cluster *cluster) {
  assert(length >= HEADER_MIN);
  struct writer w = writer_of(bytes + CHECKSUM_AT, 4);
  write_u32(&w, checksum(bytes, length, cluster));
}

int swim_wire_open(const struct cluster *cluster, const uint8_t *bytes, size_t length, struct header *out, struct reader *r) {
  if (length < HEADER_MIN || length > SWIM_DATAGRAM_MAX) return -1 - SWIM_REFUSED_SHORT;
  *r = reader_of(bytes, length);
  if (read_u16(r) != MAGIC) return -1 - SWIM_REFUSED_MAGIC;
  uint8_t kind = read_u8(r);
  if (kind >> 4 != VERSION) return -1 - SWIM_REFUSED_VERSION;
  bool ours = read_u16(r) == (uint16_t)cluster->crc;
  if (!ours && (kind & 15) != INTRO) return -1 - SWIM_REFUSED_CLUSTER;
  if (read_u32(r) != checksum(bytes, length, cluster)) return -1 - SWIM_REFUSED_CHECKSUM;
  out->type = kind & 15;
  if (out->type < PING || out->type > INTRO) return -1 - SWIM_REFUSED_TYPE;
  out->key = read_u32(r);
  out->incarnation = read_incarnation(r);
  return r->failed || out->key == 0 ? -1 - SWIM_REFUSED_BODY : 0;
}

void swim_wire_write_claim(struct writer *w, const struct claim *claim) {
  write_u32(w, claim->key);
  write_incarnation(w, claim->incarnation);
  write_u8(w, (uint8_t)(claim->state | claim->place << 2));
}

void swim_wire_read_claim(struct reader *r, struct claim *out) {
  out->key = read_u32(r);
  out->incarnation = read_incarnation(r);
  uint8_t last = read_u8(r);
  out->state = last & 3;
  out->place = last >> 2;
  if (out->key == 0) r->failed = true;
}

void swim_wire_write_place(struct writer *w, const struct place *place) {
  write_varint(w, place->version);
  write_u8(w, place->error);
  for (int i = 0; i < VIVALDI_DIMENSIONS; i++) write_u16(w, (uint16_t)place->at.at[i]);
  write_u16(w, place->at.height);
}

void swim_wire_read_place(struct reader *r, struct place *out) {
  *out = (struct place){.version = read_varint32(r)};
  out->error = read_u8(r);
  for (int i = 0; i < VIVALDI_DIMENSIONS; i++) out->at.at[i] = (int16_t)read_u16(r);
  out->at.height = read_u16(r);
  if (out->version == 0 || out->version > PLACE_VERSION_MAX || out->at.height > INT16_MAX) r->failed = true;
}

static size_t address_size(uint8_t family) { return family == 6 ? 16 : 4; }

static void write_host(struct writer *w, const struct shoal_address *address) {
  write_bytes(w, address->bytes, address_size(address->family));
  write_u16(w, address->port);
}

static void read_host(struct reader *r, uint8_t family, struct shoal_address *out) {
  *out = (struct shoal_address){.family = family};
  const uint8_t *host = read_bytes(r, address_size(family));
  if (host) memcpy(out->bytes, host, address_size(family));
  out->port = read_u16(r);
  if (out->port == 0) r->failed = true;
}

void swim_wire_write_address(struct writer *w, const struct shoal_address *address) {
  write_u8(w, address->family);
  write_host(w, address);
}

void swim_wire_read_address(struct reader *r, struct shoal_address *out) {
  uint8_t family = read_u8(r);
  if (family != 4 && family != 6) r->failed = true;
  read_host(r, family, out);
}

size_t swim_wire_record_size(const struct record *record) {
  size_t size = 2 + record->name_length + 4 + varint_size(record->incarnation.version) +
                address_size(record->address.family) + 2 + (record->state == SWIM_SUSPECT ? 4 : 0);
  if (record->payload_version > 0)
    size += varint_size(record->payload_version) + varint_size(record->payload_length) + record->payload_length;
  if (record->place.version > 0) size += varint_size(record->place.version) + 1 + 2 * VIVALDI_DIMENSIONS + 2;
  return size;
}

void swim_wire_write_record(struct writer *w, const struct record *record) {
  assert(record->name_length >= 1 && record->name_length <= SWIM_NAME_MAX);
  write_u8(w, (uint8_t)(record->state | (record->address.family == 6 ? RECORD_IPV6 : 0) |
                        (record->forgotten ? RECORD_FORGOTTEN : 0) | (record->payload_version > 0 ? RECORD_PAYLOAD : 0) | (record->place.version > 0 ? RECORD_PLACE : 0)));
  write_u8(w, (uint8_t)record->name_length);
  write_bytes(w, record->name, record->name_length);
  write_incarnation(w, record->incarnation);
  write_host(w, &record->address);
  if (record->state == SWIM_SUSPECT) write_u32(w, record->accuser);
  if (record->payload_version > 0) {
    write_varint(w, record->payload_version);
    write_varint(w, record->payload_length);
    write_bytes(w, record->payload, record->payload_length);
  }
  if (record->place.version > 0) swim_wire_write_place(w, &record->place);
}

size_t swim_wire_user_size(const struct user_event *user) {
  return 1 + 4 + 4 + varint_size(user->number) + varint_size(user->length) + user->length;
}

void swim_wire_write_user(struct writer *w, const struct user_event *user) {
  write_u8(w, USER_EVENT);
  write_u32(w, user->key);
  write_u32(w, user->generation);
  write_varint(w, user->number);
  write_varint(w, user->length);
  write_bytes(w, user->bytes, user->length);
}

static void read_user(struct reader *r, struct user_event *out) {
  *out = (struct user_event){.key = read_u32(r), .generation = read_u32(r), .number = read_varint32(r)};
  uint64_t length = read_varint(r);
  if (out->key == 0 || out->number == 0 || out->number > USER_NUMBER_MAX || length == 0 || length > SWIM_USER_MAX) r->failed = true;
  if (r->failed) return;
  out->length = (size_t)length;
  out->bytes = read_bytes(r, out->length);
}

static void read_payload(struct reader *r, struct record *out) {
  out->payload_version = read_varint32(r);
  uint64_t length = read_varint(r);
  if (out->payload_version == 0 || out->payload_version == UINT32_MAX || length > SWIM_PAYLOAD_MAX) r->failed = true;
  if (r->failed) return;
  out->payload_length = (size_t)length;
  out->payload = read_bytes(r, out->payload_length);
}

bool swim_wire_read_record(struct reader *r, struct record *out, struct user_event *user) {
  if (reader_left(r) == 0) return false;
  *out = (struct record){0};
  uint8_t head = read_u8(r);
  if (head == USER_EVENT) return read_user(r, user), !r->failed;
  if (head & ~RECORD_KNOWN) r->failed = true;
  out->state = head & RECORD_STATE;
  out->forgotten = (head & RECORD_FORGOTTEN) != 0;
  if (out->forgotten && out->state != SWIM_LEFT) r->failed = true;
  out->name_length = read_u8(r);
  if (out->name_length == 0 || out->name_length > SWIM_NAME_MAX) r->failed = true;
  out->name = (const char *)read_bytes(r, out->name_length);
  out->incarnation = read_incarnation(r);
  read_host(r, head & RECORD_IPV6 ? 6 : 4, &out->address);
  if (out->state == SWIM_SUSPECT) out->accuser = read_u32(r);
  if (head & RECORD_PAYLOAD) read_payload(r, out);
  if (head & RECORD_PLACE) swim_wire_read_place(r, &out->place);
  return !r->failed;
}
