/* Peers of a net that are plain streams of the world: they write any bytes. */
#ifndef SPEC_NET_RAW_H
#define SPEC_NET_RAW_H

#include "net_sim.h"

struct raw {
  struct world_stream *stream;
  uint8_t got[16384]; /* The received bytes, as far as there is room. */
  size_t length;
  int opened, ended;
};

static inline void raw_on_open(void *data, int status) {
  struct raw *r = data;
  MUST(status == 0);
  r->opened++;
}
static inline void raw_on_read(void *data, const uint8_t *bytes, size_t length) {
  struct raw *r = data;
  size_t room = sizeof r->got - r->length;
  if (length > room) length = room;
  memcpy(r->got + r->length, bytes, length);
  r->length += length;
}
static inline void raw_on_end(void *data, int status) {
  (void)status;
  ((struct raw *)data)->ended++;
}
static const struct world_stream_events raw_stream_events = {.on_open = raw_on_open, .on_read = raw_on_read, .on_end = raw_on_end};

/* Connect machine `from` to a node. */
static inline void raw_connect(struct raw *r, int from, const struct node *to) {
  *r = (struct raw){0};
  MUST(world_connect(nodes[from].world, &to->address, &raw_stream_events, r, &r->stream) == 0);
}

static inline void raw_write(struct raw *r, const void *bytes, size_t length) {
  struct world_buffer buffer = {bytes, length};
  MUST(world_stream_write(r->stream, &buffer, 1) == 0);
}

/* A frame's header, and of its body of `length` bytes the first `present` ones. */
static inline void raw_frame(struct raw *r, uint16_t type, uint8_t lane, uint8_t flags, uint64_t id, size_t length, size_t present) {
  static uint8_t bytes[FRAME_MAX];
  struct frame f = {.length = (uint32_t)length, .type = type, .lane = lane, .flags = flags, .id = id};
  frame_put(bytes, &f);
  memset(bytes + FRAME_HEADER, 'z', present);
  raw_write(r, bytes, FRAME_HEADER + present);
}

static inline void raw_hello(struct raw *r) {
  uint8_t bytes[FRAME_HEADER + FRAME_HELLO_MAX];
  struct frame_hello hello = {.major = FRAME_MAJOR, .node = "raw", .cluster = "spec"};
  size_t length = frame_hello_put(bytes + FRAME_HEADER, &hello);
  struct frame f = {.length = (uint32_t)length, .type = FRAME_HELLO, .flags = FRAME_LINK | FRAME_LAST};
  frame_put(bytes, &f);
  raw_write(r, bytes, FRAME_HEADER + length);
}

/* Find the last refusal or BYE that came, and put its text and its header's fields there; false when none did. */
static inline bool raw_refusal(const struct raw *r, struct frame *f, char name[FRAME_NAME_MAX + 1], char text[FRAME_TEXT_MAX + 1]) {
  bool found = false;
  for (size_t at = 0; at + FRAME_HEADER <= r->length;) {
    struct frame one;
    struct frame_refusal refusal;
    frame_get(r->got + at, &one);
    at += FRAME_HEADER;
    if (at + one.length > r->length) break;
    bool says = one.flags & FRAME_REFUSAL || (one.flags & FRAME_LINK && one.type == FRAME_BYE);
    if (says && frame_refusal_get(r->got + at, one.length, &refusal)) {
      *f = one;
      snprintf(name, FRAME_NAME_MAX + 1, "%s", refusal.name);
      snprintf(text, FRAME_TEXT_MAX + 1, "%.*s", (int)refusal.text_length, (const char *)refusal.text);
      found = true;
    }
    at += one.length;
  }
  return found;
}

#endif
