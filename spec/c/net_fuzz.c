/* Mutated bytes through the transport's real decoders: into a node that listens, and into one that dialled and waits for
 * answers. No crash and no leak (the sanitizer build says), every refusal counted, each call ends once, the node lives.
 *
 *   net_fuzz [frames [seed]]     default: 100000 frames */
#include "net_sim.h"

enum { STREAM_MAX = 512 * 1024 };

static uint8_t stream[STREAM_MAX];
static size_t stream_length;
static uint64_t frames_made;
static struct rng rng;

static struct raw {
  struct world_stream *stream;
  uint8_t got[65536];
  size_t length;
  int opened, ended;
} raw;

static void raw_open(void *data, int status) { (void)data, raw.opened += status == 0; }
static void raw_end(void *data, int status) { (void)data, (void)status, raw.ended++; }
static void raw_read(void *data, const uint8_t *bytes, size_t length) {
  (void)data;
  if (raw.length + length > sizeof raw.got) return;
  memcpy(raw.got + raw.length, bytes, length);
  raw.length += length;
}
static const struct world_stream_events raw_events = {.on_open = raw_open, .on_read = raw_read, .on_end = raw_end};

/* ---- making streams ---- */

static size_t skewed(size_t max) { return (size_t)(rng_below(&rng, max + 1) >> rng_below(&rng, 16)); }

static void add_frame(uint16_t type, uint8_t lane, uint8_t flags, uint64_t id, const void *body, size_t length) {
  if (stream_length + FRAME_HEADER + length > STREAM_MAX) return;
  struct frame f = {.length = (uint32_t)length, .type = type, .lane = lane, .flags = flags, .id = id};
  frame_put(stream + stream_length, &f);
  if (length) memcpy(stream + stream_length + FRAME_HEADER, body, length);
  stream_length += FRAME_HEADER + length;
  frames_made++;
}

static void add_hello(void) {
  struct frame_hello hello = {.major = FRAME_MAJOR, .minor = FRAME_MINOR, .life = 7, .cluster = "spec", .node = "raw", .role = "worker", .dc = "x"};
  uint8_t body[FRAME_HELLO_MAX];
  add_frame(FRAME_HELLO, 0, FRAME_LINK | FRAME_LAST, 0, body, frame_hello_put(body, &hello));
}

static void add_any(uint64_t id) {
  static uint8_t junk[FRAME_BODY_MAX];
  uint8_t lane = (uint8_t)rng_below(&rng, 4), body[FRAME_REFUSAL_MAX];
  size_t length = skewed(FRAME_BODY_MAX);
  switch (rng_below(&rng, 8)) {
  case 0: add_frame(FRAME_PING, 0, FRAME_LINK | FRAME_LAST, 0, NULL, 0); return;
  case 1: add_frame((uint16_t)rng_below(&rng, 7), 0, FRAME_LINK | FRAME_LAST, 0, junk, skewed(100)); return;
  case 2: add_frame(1, lane, FRAME_REPLY | FRAME_REFUSAL | FRAME_LAST, id, body, frame_refusal_put(body, "FULL", "is", 2)); return;
  case 3: /* A message of a few frames, now and then one that never ends or is continued wrongly. */
    for (uint64_t n = 1 + rng_below(&rng, 3); n > 0; n--) add_frame(9, lane, FRAME_REQUEST, 77, junk, 1 + length / 2);
    if (rng_below(&rng, 4)) add_frame(9, lane, FRAME_REQUEST | FRAME_LAST, rng_below(&rng, 4) ? 77 : 78, junk, length / 2);
    return;
  case 4: add_frame(2, lane, FRAME_LAST, rng_below(&rng, 3), junk, length); return;
  case 5: add_frame(1, lane, FRAME_REQUEST | FRAME_LAST, 1 + rng_below(&rng, 9), junk, length); return;
  default: add_frame(1, (uint8_t)(id ? NET_DATA : lane), FRAME_REPLY | FRAME_LAST, id ? id : rng_next(&rng), junk, length);
  }
}

static void mutate(void) {
  static uint8_t piece[4096];
  for (uint64_t n = rng_below(&rng, 4); n > 0 && stream_length > 0; n--) {
    size_t at = rng_below(&rng, stream_length), most = stream_length - at, length = 1 + skewed(most < 4096 ? most - 1 : 4095);
    switch (rng_below(&rng, 7)) {
    case 0: stream[at] ^= (uint8_t)(1u << rng_below(&rng, 8)); break;
    case 1: stream[at] = (uint8_t)rng_next(&rng); break;
    case 2: stream_length = at; break;
    case 3: /* A hole. */
      memmove(stream + at, stream + at + length, stream_length - at - length);
      stream_length -= length;
      break;
    case 4: /* Twice. */
      if (stream_length + length > STREAM_MAX) break;
      memcpy(piece, stream + at, length);
      memmove(stream + at + length, stream + at, stream_length - at);
      memcpy(stream + at, piece, length);
      stream_length += length;
      break;
    case 5: /* A header's field at its edges. */
      at = at / 16 * 16;
      stream[at + rng_below(&rng, stream_length - at < 16 ? stream_length - at : 16)] = rng_below(&rng, 2) ? 0xff : 0;
      break;
    default: /* The end of one becomes noise. */
      for (size_t i = at; i < at + length; i++) stream[i] = (uint8_t)rng_next(&rng);
    }
  }
}

static void pour(void) {
  for (size_t at = 0; at < stream_length;) {
    size_t length = 1 + skewed(stream_length - at - 1);
    if (rng_below(&rng, 3) == 0) length = stream_length - at;
    struct world_buffer buffer = {stream + at, length};
    if (world_stream_write(raw.stream, &buffer, 1) < 0) return; /* It was closed on us. */
    at += length;
    if (rng_below(&rng, 4) == 0) run_ms(1 + rng_below(&rng, 2));
  }
}

/* ---- counts ---- */

static uint64_t refusals(const struct net_counts *c) {
  uint64_t sum = c->handshakes_refused;
  for (int i = 0; i < FRAME_FAULTS_COUNT; i++) sum += c->faults[i];
  return sum;
}

static uint64_t faults_seen[FRAME_FAULTS_COUNT];

static void tally(const struct net_counts *c) {
  for (int i = 0; i < FRAME_FAULTS_COUNT; i++) faults_seen[i] += c->faults[i];
}

/* A stranger connects to a and sends the bytes. */
static void into_listener(struct node *a) {
  uint64_t before = refusals(net_counts(a->net));
  int downs = a->downs, gones = a->gones;
  memset(&raw, 0, sizeof raw);
  MUST(world_connect(nodes[1].world, &a->address, &raw_events, NULL, &raw.stream) == 0);
  run_ms(5);
  MUST(raw.opened == 1);
  stream_length = 0;
  if (rng_below(&rng, 50)) add_hello();
  for (uint64_t n = rng_below(&rng, 8); n > 0; n--) add_any(0);
  mutate();
  pour();
  run_ms(20);
  uint64_t refused = refusals(net_counts(a->net)) - before;
  MUST(refused <= 1);
  if (raw.ended && refused == 0) MUST(strcmp(a->down_text, "closed by the other side") != 0); /* It said BYE: in good order. */
  if (!raw.ended) MUST(refused == 0 || a->downs == downs + 1);
  world_stream_close(raw.stream);
  run_ms(20);
  MUST(a->downs == downs + 1 && a->gones == gones + 1); /* Reported once, whatever the fault was. */
  MUST(refused == refusals(net_counts(a->net)) - before || refused == 0);
}

static void raw_accept(void *data, struct world_stream *accepted) {
  (void)data;
  raw.stream = accepted;
  raw.opened = 1;
  world_stream_attach(accepted, &raw_events, NULL);
}

/* a dials, asks, and gets mutated answers to what it asked. */
static void into_dialler(struct node *a) {
  struct outcome o[8] = {0};
  struct net_peer *p = peer_of(a, &nodes[1]);
  memset(&raw, 0, sizeof raw);
  for (int i = 0; i < 8; i++) MUST(call(p, NET_DATA, "ask", 200, &o[i]) == 0);
  run_ms(5);
  MUST(raw.opened == 1);
  stream_length = 0;
  if (rng_below(&rng, 50)) add_hello();
  if (rng_below(&rng, 10)) { /* First the greeting alone: then the questions come, with their ids. */
    struct world_buffer buffer = {stream, stream_length};
    MUST(world_stream_write(raw.stream, &buffer, stream_length > 0) == 0);
    stream_length = 0;
    run_ms(5);
  }
  for (size_t at = 0; raw.length - at >= FRAME_HEADER;) {
    struct frame f;
    frame_get(raw.got + at, &f);
    if (f.flags & FRAME_REQUEST && rng_below(&rng, 4)) add_any(f.id);
    at += FRAME_HEADER + f.length;
    if (at > raw.length) break;
  }
  mutate();
  pour();
  run_ms(250);
  for (int i = 0; i < 8; i++) MUST(o[i].count == 1); /* on_outcome says: not twice. */
  net_peer_close(p);
  run_ms(5);
  world_stream_close(raw.stream);
  run_ms(20);
}

int main(int argc, char **argv) {
  static const struct world_listener_events listener_events = {.on_connection = raw_accept};
  uint64_t frames = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000, seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  uint64_t streams = 0, refused = 0, answered = 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  rng_seed(&rng, seed);
  while (frames_made < frames) { /* A new world now and then: what leaks in it is seen. */
    struct world_listener *listener;
    struct net_options options = {.unanswered_max = 100000};
    begin_sim(rng_next(&rng), 3);
    struct node *a = open_node(0, &options), *c = open_node(2, NULL);
    MUST(world_listen(nodes[1].world, &nodes[1].address, &listener_events, NULL, &listener) == 0);
    for (int i = 0; i < 250; i++, streams++) {
      if (i % 3 == 0) into_dialler(a);
      else into_listener(a);
      if (i % 25) continue;
      struct outcome healthy = {0};
      MUST(call(peer_of(c, a), NET_DATA, "are you there?", 1000, &healthy) == 0);
      run_ms(50);
      MUST(healthy.count == 1 && healthy.code == 0);
    }
    refused += refusals(net_counts(a->net));
    answered += net_counts(a->net)->replies;
    tally(net_counts(a->net));
    world_listener_close(listener);
    end_sim();
  }
  /* The decoders of bodies, alone. */
  for (uint64_t i = 0; i < frames; i++) {
    struct frame_hello hello;
    struct frame_refusal refusal;
    stream_length = 0;
    add_hello();
    mutate();
    size_t head = stream_length < FRAME_HEADER ? stream_length : FRAME_HEADER;
    uint8_t *exact = malloc(stream_length - head + 1); /* So that the sanitizer sees a byte too far. */
    MUST(exact);
    memcpy(exact, stream + head, stream_length - head);
    if (frame_hello_get(exact, stream_length - head, &hello)) MUST(strlen(hello.node) < 256 && strlen(hello.advertise) < 256);
    if (frame_refusal_get(exact, stream_length - head, &refusal)) MUST(refusal.text_length <= FRAME_TEXT_MAX);
    free(exact);
  }
  for (int i = 1; i < FRAME_FAULTS_COUNT; i++) MUST(faults_seen[i] > 0 || i == FRAME_FAULT_MESSAGE); /* It met each of them. */
  MUST(refused > streams / 4 && answered > 1000);
  printf("ok F70 %llu mutated frames: the node lives, each refusal is counted, each call ends once\n",
         (unsigned long long)frames);
  return 0;
}
