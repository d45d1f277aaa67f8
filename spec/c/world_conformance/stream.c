/* Streams: opening, bytes, queues. How they end is in ending.c. */
#include <stdlib.h>

#include "harness.h"

static void echo(void) {
  struct pair p = {.far.echo = true};
  pair_open(&p);
  struct shoal_address peer = {0};
  CHECK(world_stream_peer(p.near.stream, &peer));
  CHECK(address_equal(&peer, &p.at));
  CHECK(world_stream_peer(p.far.stream, &peer));
  SAME(memcmp(peer.bytes, HERE.bytes, sizeof peer.bytes), 0);
  SAME(write_pattern(&p.near, 0, 1000), 0);
  UNTIL(p.near.received == 1000);
  SAME(p.near.opened, 1);
  SAME(p.far.opened, 0); /* Attached, not connected: it has no on_open. */
  SAME(world_stream_queued(p.near.stream), 0);
  SAME(p.near.drained, 0); /* Nothing was queued. */
  pair_close(&p);
}

static void refused(void) {
  struct pair p = {0};
  pair_listen(&p);
  CALL(world_listener_close(p.listener));
  UNTIL(p.listener_closed);
  pair_connect(&p);
  SAME(write_pattern(&p.near, 0, 10), -ENOTCONN);
  UNTIL(p.near.opened);
  SAME(p.near.open_status, -ECONNREFUSED);
  SAME(write_pattern(&p.near, 0, 10), -ENOTCONN);
  settle(5);
  SAME(p.near.opened, 1);
  SAME(p.near.ended, 0);
  pair_close(&p);
}

static void no_address(void) {
  struct shoal_address none = {0};
  struct world_stream *s = NULL;
  struct world_listener *l = NULL;
  static const struct world_listener_events events = {.on_connection = (void (*)(void *, struct world_stream *))abort};
  SAME(ASK(world_connect(W, &none, &END_EVENTS, NULL, &s)), -EINVAL);
  SAME(ASK(world_listen(W, &none, &events, NULL, &l)), -EINVAL);
  CHECK(!s && !l);
}

static void not_open_yet(void) {
  struct pair p = {0};
  pair_listen(&p);
  pair_connect(&p);
  SAME(write_pattern(&p.near, 0, 10), -ENOTCONN);
  SAME(ASK(world_stream_shutdown(p.near.stream)), -ENOTCONN);
  UNTIL(p.near.opened && p.accepted);
  pair_close(&p);
}

static void port_taken(void) {
  struct pair p = {0};
  struct world_listener *second = NULL;
  static const struct world_listener_events events = {.on_connection = (void (*)(void *, struct world_stream *))abort};
  pair_listen(&p);
  SAME(ASK(world_listen(W, &p.at, &events, NULL, &second)), -EADDRINUSE);
  CHECK(!second);
  struct shoal_address at = p.at;
  pair_close(&p);
  SAME(ASK(world_listen(W, &at, &events, NULL, &second)), 0); /* Free again once closed. */
  CALL(world_listener_close(second));
  settle(3);
}

static void waits_for_attach(void) {
  struct pair p = {.leave_unattached = true};
  pair_open(&p);
  SAME(write_pattern(&p.near, 0, 500), 0);
  settle(10);
  SAME(p.far.received, 0);
  CALL(world_stream_attach(p.far.stream, &END_EVENTS, &p.far));
  UNTIL(p.far.received == 500);
  pair_close(&p);
}

static void unattached_closed(void) {
  struct pair p = {.close_accepted = true};
  pair_open(&p);
  UNTIL(p.near.ended);
  pair_close(&p);
}

static void many_buffers(void) {
  struct pair p = {0};
  pair_open(&p);
  enum { COUNT = 300, EACH = 7 };
  static uint8_t bytes[COUNT * EACH];
  struct world_buffer buffers[COUNT];
  size_t offset = 0;
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = pattern(i);
  for (size_t i = 0; i < COUNT; i++) {
    size_t length = i % 5 == 0 ? 0 : EACH; /* Some are empty. */
    buffers[i] = (struct world_buffer){bytes + offset, length};
    offset += length;
  }
  SAME(ASK(world_stream_write(p.near.stream, buffers, COUNT)), 0);
  SAME(ASK(world_stream_write(p.near.stream, buffers, 0)), 0);
  UNTIL(p.far.received == offset);
  pair_close(&p);
}

enum { HUGE_BYTES = 24 * 1024 * 1024 };

static void queued_and_drained(void) {
  struct pair p = {0};
  pair_open(&p);
  CALL(world_stream_read(p.far.stream, false));
  SAME(write_pattern(&p.near, 0, HUGE_BYTES), 0);
  size_t queued = world_stream_queued(p.near.stream);
  CHECK(queued > 0 && queued < HUGE_BYTES);
  SAME(write_pattern(&p.near, HUGE_BYTES, 1000), 0); /* After the queued bytes. */
  SAME(world_stream_queued(p.near.stream), queued + 1000);
  settle(20);
  SAME(p.far.received, 0);
  SAME(p.near.drained, 0);
  CALL(world_stream_read(p.far.stream, true));
  UNTIL(p.far.received == HUGE_BYTES + 1000);
  UNTIL(p.near.drained);
  SAME(p.near.drained, 1);
  SAME(p.near.queued_at_drain, 0);
  SAME(world_stream_queued(p.near.stream), 0);
  pair_close(&p);
}

static void paused_in_own_callback(void) {
  struct pair p = {.far.pause_on_read = true};
  pair_open(&p);
  SAME(write_pattern(&p.near, 0, 4 * WORLD_READ_MAX), 0);
  UNTIL(p.far.received > 0);
  size_t first = p.far.received;
  settle(10);
  SAME(p.far.received, first);
  SAME(p.far.ended, 0);
  p.far.pause_on_read = false;
  CALL(world_stream_read(p.far.stream, true));
  UNTIL(p.far.received == 4 * WORLD_READ_MAX);
  pair_close(&p);
}

/* How much the network takes from a writer whose reader does not read. */
static size_t taken(size_t window) {
  struct pair p = {0};
  pair_open(&p);
  if (window) CALL(world_stream_window(p.near.stream, window));
  CALL(world_stream_read(p.far.stream, false));
  SAME(write_pattern(&p.near, 0, HUGE_BYTES), 0);
  size_t at_once = HUGE_BYTES - world_stream_queued(p.near.stream);
  CALL(world_stream_read(p.far.stream, true));
  UNTIL(p.far.received == HUGE_BYTES);
  pair_close(&p);
  return at_once;
}
static void window(void) {
  size_t wide = taken(0), narrow = taken(128 * 1024);
  CHECK(narrow < wide);
}

static int drains_left;
static struct pair *chatter;
static void on_drain_writes(void *data) {
  (void)data;
  EVENT();
  if (--drains_left > 0) SAME(write_pattern(&chatter->near, chatter->far.received, HUGE_BYTES), 0);
}
static void written_from_on_drain(void) {
  struct pair p = {0};
  struct world_stream_events events = END_EVENTS;
  events.on_drain = on_drain_writes;
  chatter = &p;
  drains_left = 2;
  pair_listen(&p);
  SAME(ASK(world_connect(W, &p.at, &events, &p.near, &p.near.stream)), 0); /* The world keeps its own copy of events. */
  memset(&events, 0, sizeof events);
  UNTIL(p.near.opened && p.accepted);
  SAME(write_pattern(&p.near, 0, HUGE_BYTES), 0);
  UNTIL(drains_left == 1);
  UNTIL(p.far.received >= HUGE_BYTES && drains_left <= 0);
  p.far.mismatches = 0; /* The second part was written from where the reader stood: only the calls matter here. */
  pair_close(&p);
}

enum { CROWD = 100 };
static struct end crowd[2 * CROWD];
static int crowd_accepted;
static void on_one_of_many(void *data, struct world_stream *stream) {
  (void)data;
  EVENT();
  struct end *e = &crowd[CROWD + crowd_accepted++];
  e->stream = stream;
  e->echo = true;
  CALL(world_stream_attach(stream, &END_EVENTS, e));
}
static void a_crowd(void) {
  static const struct world_listener_events events = {.on_connection = on_one_of_many};
  struct world_listener *l;
  struct shoal_address at;
  memset(crowd, 0, sizeof crowd);
  crowd_accepted = 0;
  SAME(ASK(world_listen(W, &HERE, &events, NULL, &l)), 0);
  world_listener_address(l, &at);
  for (int i = 0; i < CROWD; i++) SAME(ASK(world_connect(W, &at, &END_EVENTS, &crowd[i], &crowd[i].stream)), 0);
  for (int i = 0; i < CROWD; i++) {
    UNTIL(crowd[i].opened);
    SAME(write_pattern(&crowd[i], 0, 100), 0);
  }
  for (int i = 0; i < CROWD; i++) UNTIL(crowd[i].received == 100);
  CALL(world_listener_close(l));
  for (int i = 0; i < 2 * CROWD; i++) CALL(world_stream_close(crowd[i].stream));
  for (int i = 0; i < 2 * CROWD; i++) {
    UNTIL(crowd[i].closed);
    SAME(crowd[i].mismatches, 0);
    SAME(crowd[i].ended, 0);
  }
  settle(3);
}

const struct test_case stream_cases[] = {
    {"stream: bytes there and back, with addresses; one on_open", echo, 0},
    {"stream: connect refused is told once, by on_open", refused, 0},
    {"stream: no address is EINVAL with nothing opened", no_address, 0},
    {"stream: before it is open a write is ENOTCONN", not_open_yet, 0},
    {"stream: a port taken is EADDRINUSE with nothing opened, and free after close", port_taken, 0},
    {"stream: an accepted one waits until somebody attaches", waits_for_attach, 0},
    {"stream: an accepted one may be closed unattached", unattached_closed, 0},
    {"stream: many buffers, empty ones among them, keep their order", many_buffers, 0},
    {"stream: a slow reader: the rest is queued, then one on_drain at 0", queued_and_drained, 0},
    {"stream: paused in its own on_read, resumed later, nothing lost", paused_in_own_callback, 0},
    {"stream: a window lets the network hold less", window, 0},
    {"stream: writing from on_drain", written_from_on_drain, 0},
    {"stream: a hundred at once through one listener", a_crowd, 0},
    {NULL, NULL, 0},
};
