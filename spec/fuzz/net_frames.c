/* A node's transport in a simulated world reads what the other end of a connection writes. The input:
 *
 *   u8 mode    1 the node dialled, sent eight requests and waits; else a peer connected to it
 *              2 a right greeting comes first          4 bytes follow as they are; else frames, below
 *              8 the connection ends after them
 *   u8 piece   bytes at a time, squared; 0 all at once
 *   then bytes, or frames of right length:
 *     u8 what    low 4 bits: the type · 0x10 the length counts 256 bytes of zeros each · 0x20 the id is one that was asked for
 *     u8 lane, u8 flags, u8 id, u8 length, the body */
#include "target.h"

#include "../c/net_sim.h"

enum { STREAM_MAX = 256 * 1024, ASKED = 8, FRAMES_MAX = 64 };

static uint8_t stream[STREAM_MAX];
static size_t stream_length;

static struct raw { /* The other end. */
  struct world_stream *stream;
  uint8_t got[16384];
  size_t length;
  int opened, ended;
} raw;

static void raw_open(void *data, int status) { (void)data, raw.opened += status == 0; }
static void raw_end(void *data, int status) { (void)data, (void)status, raw.ended++; }
static void raw_read(void *data, const uint8_t *bytes, size_t length) {
  (void)data;
  if (raw.length + length > sizeof raw.got) return; /* Enough was seen. */
  memcpy(raw.got + raw.length, bytes, length);
  raw.length += length;
}
static const struct world_stream_events raw_events = {.on_open = raw_open, .on_read = raw_read, .on_end = raw_end};

static void raw_accept(void *data, struct world_stream *accepted) {
  (void)data;
  raw.stream = accepted, raw.opened = 1;
  world_stream_attach(accepted, &raw_events, NULL);
}

static void add(uint16_t type, uint8_t lane, uint8_t flags, uint64_t id, const uint8_t *body, size_t length) {
  if (stream_length + FRAME_HEADER + length > STREAM_MAX) return;
  struct frame f = {.length = (uint32_t)length, .type = type, .lane = lane, .flags = flags, .id = id};
  frame_put(stream + stream_length, &f);
  stream_length += FRAME_HEADER;
  if (body) memcpy(stream + stream_length, body, length);
  else memset(stream + stream_length, 0, length);
  stream_length += length;
}

static void add_hello(void) {
  struct frame_hello hello = {.major = FRAME_MAJOR, .minor = FRAME_MINOR, .life = 7, .cluster = "spec", .node = "raw", .role = "worker", .dc = "x"};
  uint8_t body[FRAME_HELLO_MAX];
  add(FRAME_HELLO, 0, FRAME_LINK | FRAME_LAST, 0, body, frame_hello_put(body, &hello));
}

static void pour(size_t piece) {
  for (size_t at = 0; at < stream_length;) {
    size_t length = piece && piece < stream_length - at ? piece : stream_length - at;
    struct world_buffer buffer = {stream + at, length};
    if (world_stream_write(raw.stream, &buffer, 1) < 0) break; /* It was closed on us. */
    at += length;
    run_ms(1);
  }
  stream_length = 0;
  run_ms(5);
}

/* The id of the n-th question that came to us. */
static uint64_t asked(unsigned n) {
  for (size_t at = 0; raw.length - at >= FRAME_HEADER;) {
    struct frame f;
    frame_get(raw.got + at, &f);
    if (f.flags & FRAME_REQUEST && n-- == 0) return f.id;
    at += FRAME_HEADER + f.length;
    if (at > raw.length) break;
  }
  return 0;
}

static void add_frames(struct input *in) {
  for (int n = 0; n < FRAMES_MAX && input_left(in); n++) {
    uint8_t what = input_byte(in), lane = input_byte(in), flags = input_byte(in), id = input_byte(in);
    size_t length = input_byte(in);
    bool zeros = what & 0x10;
    if (!zeros && length > input_left(in)) length = input_left(in);
    const uint8_t *body = zeros ? NULL : input_bytes(in, length);
    add(what & 15, lane, flags, what & 0x20 ? asked(id % ASKED) : id, body, zeros ? length * 256 : length);
  }
}

static uint64_t refused(const struct net_counts *c) {
  uint64_t sum = c->handshakes_refused;
  for (int i = 0; i < FRAME_FAULTS_COUNT; i++) sum += c->faults[i];
  return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
  static const struct world_listener_events listener_events = {.on_connection = raw_accept};
  struct input in = {bytes, bytes + length};
  uint8_t mode = input_byte(&in);
  size_t piece = input_byte(&in);
  struct world_listener *listener;
  struct outcome outcomes[ASKED] = {0};
  memset(&raw, 0, sizeof raw);
  stream_length = 0;
  begin_sim(7, 2);
  struct node *a = open_node(0, NULL);
  MUST(world_listen(nodes[1].world, &nodes[1].address, &listener_events, NULL, &listener) == 0);
  if (mode & 1) {
    struct net_peer *p = peer_of(a, &nodes[1]);
    for (int i = 0; i < ASKED; i++) MUST(call(p, NET_DATA, "ask", 200, &outcomes[i]) == 0);
  } else {
    MUST(world_connect(nodes[1].world, &a->address, &raw_events, NULL, &raw.stream) == 0);
  }
  run_ms(5);
  MUST(raw.opened == 1);
  if (mode & 2) {
    add_hello();
    pour(0);
  }
  if (mode & 4) {
    stream_length = input_left(&in) < STREAM_MAX ? input_left(&in) : STREAM_MAX;
    memcpy(stream, input_bytes(&in, stream_length), stream_length);
  } else {
    add_frames(&in);
  }
  pour(piece * piece);
  if (mode & 8) world_stream_close(raw.stream);
  run_ms(250);
  MUST(refused(net_counts(a->net)) <= 1 || mode & 1); /* It may have dialled again. */
  if (mode & 1)
    for (int i = 0; i < ASKED; i++) MUST(outcomes[i].count == 1); /* on_outcome says: not twice. */
  if (!(mode & 8)) world_stream_close(raw.stream);
  run_ms(20);
  MUST(mode & 1 || (a->downs == 1 && a->gones == 1)); /* Reported once, whatever the fault was. */
  world_listener_close(listener);
  end_sim(); /* Which sees that nothing is left open. */
  return 0;
}
