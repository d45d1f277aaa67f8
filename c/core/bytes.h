/* bytes: read and write binary forms without a cast and without reading past an end.
 *
 * A reader that reaches the end, or meets a varint that is not in its shortest form, fails for good: it then yields
 * zeros, and `failed` is set. So a decoder reads all its fields first and checks once; it must check before it uses a
 * length that it has read. A writer that runs out of room fails likewise and writes nothing more.
 * Integers are big-endian. A varint holds 7 bits a byte, least first; a set top bit means that more follow. */
#ifndef SHOAL_BYTES_H
#define SHOAL_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { VARINT_MAX = 10 }; /* Most bytes of a 64-bit varint. */

struct reader {
  const uint8_t *at, *end;
  bool failed;
};
struct writer {
  uint8_t *at, *end;
  bool failed;
};

static inline struct reader reader_of(const void *bytes, size_t length) {
  const uint8_t *at = bytes;
  return (struct reader){at, length ? at + length : at, false};
}
static inline size_t reader_left(const struct reader *r) { return r->failed ? 0 : (size_t)(r->end - r->at); }

/* The next `length` bytes, or NULL when there are fewer. */
static inline const uint8_t *read_bytes(struct reader *r, size_t length) {
  if (r->failed || (size_t)(r->end - r->at) < length) {
    r->failed = true;
    return NULL;
  }
  const uint8_t *here = r->at;
  r->at += length;
  return here;
}
static inline uint64_t read_big_endian(struct reader *r, size_t length) {
  const uint8_t *bytes = read_bytes(r, length);
  uint64_t value = 0;
  for (size_t i = 0; bytes && i < length; i++) value = value << 8 | bytes[i];
  return value;
}
static inline uint8_t read_u8(struct reader *r) { return (uint8_t)read_big_endian(r, 1); }
static inline uint16_t read_u16(struct reader *r) { return (uint16_t)read_big_endian(r, 2); }
static inline uint32_t read_u32(struct reader *r) { return (uint32_t)read_big_endian(r, 4); }
static inline uint64_t read_u64(struct reader *r) { return read_big_endian(r, 8); }

static inline uint64_t read_varint(struct reader *r) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    uint8_t byte = read_u8(r);
    if (r->failed) return 0;
    uint64_t bits = byte & 0x7f;
    if ((shift == 63 && bits > 1) || (byte == 0 && shift > 0)) break; /* Too great, or not the shortest form. */
    value |= bits << shift;
    if (!(byte & 0x80)) return value;
  }
  r->failed = true;
  return 0;
}
/* A varint that must fit 32 bits. */
static inline uint32_t read_varint32(struct reader *r) {
  uint64_t value = read_varint(r);
  if (value <= UINT32_MAX) return (uint32_t)value;
  r->failed = true;
  return 0;
}

static inline struct writer writer_of(void *bytes, size_t room) {
  uint8_t *at = bytes;
  return (struct writer){at, room ? at + room : at, false};
}
static inline size_t writer_room(const struct writer *w) { return w->failed ? 0 : (size_t)(w->end - w->at); }

static inline void write_bytes(struct writer *w, const void *bytes, size_t length) {
  if (w->failed || (size_t)(w->end - w->at) < length) {
    w->failed = true;
    return;
  }
  if (length) memcpy(w->at, bytes, length);
  w->at += length;
}
static inline void write_big_endian(struct writer *w, uint64_t value, size_t length) {
  uint8_t bytes[8];
  for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)(value >> 8 * (length - 1 - i));
  write_bytes(w, bytes, length);
}
static inline void write_u8(struct writer *w, uint8_t value) { write_big_endian(w, value, 1); }
static inline void write_u16(struct writer *w, uint16_t value) { write_big_endian(w, value, 2); }
static inline void write_u32(struct writer *w, uint32_t value) { write_big_endian(w, value, 4); }
static inline void write_u64(struct writer *w, uint64_t value) { write_big_endian(w, value, 8); }
static inline void write_varint(struct writer *w, uint64_t value) {
  uint8_t bytes[VARINT_MAX];
  size_t length = 0;
  for (; value >= 0x80; value >>= 7) bytes[length++] = (uint8_t)(value | 0x80);
  bytes[length++] = (uint8_t)value;
  write_bytes(w, bytes, length);
}
static inline size_t varint_size(uint64_t value) {
  size_t size = 1;
  while (value >= 0x80) value >>= 7, size++;
  return size;
}

#endif
