/* frame: the bytes on a stream. Encoding and decoding only: no connection, no clock.
 *
 * A stream carries frames one after the other, in both directions, and nothing else. All numbers are big-endian.
 *
 *   offset size field
 *    0      4   length   bytes of body that follow this header, 0..FRAME_BODY_MAX
 *    4      2   type     the message's type, the application's; in a LINK frame: enum frame_link
 *    6      1   lane     0 control, 1 dispatch, 2 data, 3 telemetry
 *    7      1   flags    below
 *    8      8   id       a REQUEST's or a REPLY's request id, > 0, drawn by the asking side; of a message that wants no
 *                        answer: 0, ignored
 *   16      n   body
 *
 * A message is one or more frames of one lane with equal type, flags and id, the last one marked LAST; between them no
 * other frame of that lane, but any of other lanes. So a receiver keeps at most one unfinished message a lane.
 *
 *   flag      bit   meaning
 *   LAST      0x01  the message ends with this frame
 *   REQUEST   0x02  wants a REPLY with the same id and lane
 *   REPLY     0x04  answers the request with this id
 *   REFUSAL   0x08  with REPLY: the body is a refusal
 *   LINK      0x10  between the two transports, never for the application: one frame, control lane, FRAME_LINK_MAX at most
 * At most one of REQUEST, REPLY, LINK; none of them: a message that wants no answer.
 *
 * Hello, the first frame each way (LINK, type FRAME_HELLO):
 *    0  4  magic    "shol"
 *    4  2  major    another one is refused
 *    6  2  minor    a greater one adds fields at the end, which an older receiver skips
 *    8     cluster, node, role, dc, advertised address: five strings, each 1 byte of length and its bytes
 *    n  8  life     since minor 1: a number of this process's own, not 0, made of its world's seed and the time. Another number at
 *                   the same address is another process
 *
 * A refusal (in a REPLY with REFUSAL, and in FRAME_BYE, the last frame before a connection is closed on purpose):
 *    0  1  n        length of the code's name, 1..FRAME_NAME_MAX
 *    1  n  name     such as "OVERLOADED"
 *   1+n    text     for people, to the end; at most FRAME_TEXT_MAX bytes are kept */
#ifndef SHOAL_FRAME_H
#define SHOAL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
  FRAME_HEADER = 16,
  FRAME_MAX = 64 * 1024, /* Header and body. The most bytes that a control message waits behind. */
  FRAME_BODY_MAX = FRAME_MAX - FRAME_HEADER,
  FRAME_LINK_MAX = 2048, /* The body of a LINK frame. */
  FRAME_MESSAGE_MAX = 3 * 1024 * 1024, /* A message's whole body. */
  FRAME_LANES = 4,
  FRAME_NAME_MAX = 64,
  FRAME_TEXT_MAX = 512,
  FRAME_MAJOR = 1,
  FRAME_MINOR = 1,
};

enum frame_flag {
  FRAME_LAST = 0x01,
  FRAME_REQUEST = 0x02,
  FRAME_REPLY = 0x04,
  FRAME_REFUSAL = 0x08,
  FRAME_LINK = 0x10,
  FRAME_FLAGS = 0x1f,
};

enum frame_link { FRAME_HELLO = 1, FRAME_BYE, FRAME_PING, FRAME_PONG };

/* Faults in the bytes of a peer. Each ends its connection, counted by name. */
#define FRAME_FAULTS(X)                                                       \
  X(NONE, "nothing is wrong")                                                 \
  X(LENGTH, "a frame is longer than the limit, or empty and not the last")    \
  X(LANE, "there is no such lane")                                            \
  X(FLAGS, "these flags do not go together")                                  \
  X(ID, "a request or a reply has no id")                                     \
  X(ORDER, "a frame does not continue the message before it")                 \
  X(HELLO, "the greeting is not one")                                         \
  X(EARLY, "something came before the greeting, or a second one after it")    \
  X(LINK, "an unknown transport frame")                                       \
  X(MESSAGE, "a message is larger than the limit")                            \
  X(REFUSAL, "a refusal is not of its form")
enum frame_fault {
#define FRAME_FAULT_ENUM(name, text) FRAME_FAULT_##name,
  FRAME_FAULTS(FRAME_FAULT_ENUM)
#undef FRAME_FAULT_ENUM
  FRAME_FAULTS_COUNT
};
const char *frame_fault_name(enum frame_fault fault); /* "length", lower case. */
const char *frame_fault_text(enum frame_fault fault);

struct frame {
  uint32_t length; /* Of the body. */
  uint16_t type;
  uint8_t lane;
  uint8_t flags;
  uint64_t id;
};

/* A header as its two numbers on the wire, so that it travels in registers. The length is 0 until it is written. */
struct frame_head {
  uint64_t word, id;
};
static inline struct frame_head frame_head(uint16_t type, uint8_t lane, uint8_t flags, uint64_t id) {
  return (struct frame_head){(uint64_t)type << 16 | (uint64_t)lane << 8 | flags, id};
}

/* Write a header, with this length and more flags, into out[FRAME_HEADER]. */
static inline void frame_put_head(uint8_t *out, struct frame_head head, size_t length, uint8_t flags) {
  uint64_t words[2] = {__builtin_bswap64((uint64_t)length << 32 | head.word | flags), __builtin_bswap64(head.id)};
  memcpy(out, words, FRAME_HEADER);
}
static inline void frame_put(uint8_t *out, const struct frame *f) {
  frame_put_head(out, frame_head(f->type, f->lane, f->flags, f->id), f->length, 0);
}

/* Read the header at bytes[FRAME_HEADER], unchecked. */
static inline void frame_get(const uint8_t *bytes, struct frame *out) {
  uint64_t words[2];
  memcpy(words, bytes, FRAME_HEADER);
  uint64_t head = __builtin_bswap64(words[0]);
  out->length = (uint32_t)(head >> 32);
  out->type = (uint16_t)(head >> 16);
  out->lane = (uint8_t)(head >> 8);
  out->flags = (uint8_t)head;
  out->id = __builtin_bswap64(words[1]);
}

/* Is this header, which came from outside, valid? */
enum frame_fault frame_check(const struct frame *f);

/* A whole message of ours, neither refusal nor transport frame, with an id: nearly all frames are. Given the first eight
 * bytes of a header as a number, and its id; says nothing about the frames it is false for. */
static inline bool frame_is_plain(uint64_t head, uint64_t id) {
  const uint32_t kinds = 1u << FRAME_LAST | 1u << (FRAME_LAST | FRAME_REQUEST) | 1u << (FRAME_LAST | FRAME_REPLY);
  return (head & 0xfce0) == 0 && kinds >> (head & 31) & 1 && head >> 32 <= FRAME_BODY_MAX && id != 0;
}
static inline uint64_t frame_word(const uint8_t *bytes) { /* Eight bytes as a number. */
  uint64_t word;
  memcpy(&word, bytes, sizeof word);
  return __builtin_bswap64(word);
}

struct frame_hello {
  uint16_t major, minor;
  uint64_t life; /* 0: the minor version has none. */
  char cluster[256], node[256], role[256], dc[256], advertise[256]; /* Zero-terminated. */
};
enum { FRAME_HELLO_MAX = 8 + 5 * 256 + 8 };
size_t frame_hello_put(uint8_t *out, const struct frame_hello *hello); /* Into out[FRAME_HELLO_MAX]; the body's length. */
/* False when it is malformed: the magic, a length, a zero byte inside a string, no node name. */
bool frame_hello_get(const uint8_t *bytes, size_t length, struct frame_hello *out);

struct frame_refusal {
  char name[FRAME_NAME_MAX + 1];
  const uint8_t *text; /* Into the frame. */
  size_t text_length;
};
enum { FRAME_REFUSAL_MAX = 1 + FRAME_NAME_MAX + FRAME_TEXT_MAX };
/* Into out[FRAME_REFUSAL_MAX]; longer names and texts are cut. Returns the body's length. */
size_t frame_refusal_put(uint8_t *out, const char *name, const char *text, size_t text_length);
bool frame_refusal_get(const uint8_t *bytes, size_t length, struct frame_refusal *out);

#endif
