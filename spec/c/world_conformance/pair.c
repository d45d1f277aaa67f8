/* Two ends of a stream that record what happens to them. */
#include <stdlib.h>

#include "harness.h"

uint8_t pattern(size_t offset) { return (uint8_t)(offset * 31 + (offset >> 8) * 7 + (offset >> 16)); }

int write_pattern(struct end *e, size_t offset, size_t length) {
  uint8_t *bytes = malloc(length + 1);
  for (size_t i = 0; i < length; i++) bytes[i] = pattern(offset + i);
  struct world_buffer halves[2] = {{bytes, length / 2}, {bytes + length / 2, length - length / 2}};
  int rc = ASK(world_stream_write(e->stream, halves, 2));
  memset(bytes, 0xee, length); /* The world has its own copy, or had no need of one. */
  free(bytes);
  return rc;
}

static void close_end(struct end *e) {
  e->shut = true;
  CALL(world_stream_close(e->stream));
  CALL(world_stream_close(e->stream));
}

static struct end *heard(void *data) {
  struct end *e = data;
  EVENT();
  if (e->shut) e->events_after_close++;
  return e;
}

static void on_open(void *data, int status) {
  struct end *e = heard(data);
  e->opened++;
  e->open_status = status;
  if (e->close_on_open) close_end(e);
}

static void on_read(void *data, const uint8_t *bytes, size_t length) {
  struct end *e = heard(data);
  CHECK(length > 0 && length <= WORLD_READ_MAX);
  SAME(e->ended, 0);
  for (size_t i = 0; i < length; i++) e->mismatches += bytes[i] != pattern(e->received + i);
  e->received += length;
  if (e->echo) {
    struct world_buffer b = {bytes, length};
    SAME(ASK(world_stream_write(e->stream, &b, 1)), 0);
  }
  if (e->pause_on_read) CALL(world_stream_read(e->stream, false));
  if (e->close_on_read) close_end(e);
}

static void on_end(void *data, int status) {
  struct end *e = heard(data);
  e->ended++;
  e->end_status = status;
  if (e->close_on_end) close_end(e);
}

static void on_drain(void *data) {
  struct end *e = heard(data);
  e->drained++;
  e->queued_at_drain = world_stream_queued(e->stream);
  if (e->close_on_drain) close_end(e);
}

static void on_closed(void *data) {
  struct end *e = data;
  EVENT();
  e->closed++;
  e->stream = NULL;
}

const struct world_stream_events END_EVENTS = {
    .on_open = on_open, .on_read = on_read, .on_end = on_end, .on_drain = on_drain, .on_closed = on_closed};

static void on_connection(void *data, struct world_stream *stream) {
  struct pair *p = data;
  EVENT();
  SAME(p->listener_closed, 0);
  p->accepted++;
  p->far.stream = stream;
  if (p->close_accepted) {
    CALL(world_stream_close(stream)); /* No handler is attached: there is no event. */
    p->far.stream = NULL;
  } else if (!p->leave_unattached) {
    CALL(world_stream_attach(stream, &END_EVENTS, &p->far));
  }
  if (p->close_listener) CALL(world_listener_close(p->listener));
}

static void on_listener_error(void *data, int code) {
  struct pair *p = data;
  EVENT();
  SAME(code, -EMFILE);
  p->listener_errors++;
}

static void on_listener_closed(void *data) {
  struct pair *p = data;
  EVENT();
  p->listener_closed++;
  p->listener = NULL;
}

void pair_listen(struct pair *p) {
  static const struct world_listener_events events = {
      .on_connection = on_connection, .on_error = on_listener_error, .on_closed = on_listener_closed};
  SAME(ASK(world_listen(W, &HERE, &events, p, &p->listener)), 0);
  world_listener_address(p->listener, &p->at);
  CHECK(p->at.port != 0);
  p->near.name = "near";
  p->far.name = "far";
}

void pair_connect(struct pair *p) { SAME(ASK(world_connect(W, &p->at, &END_EVENTS, &p->near, &p->near.stream)), 0); }

void pair_open(struct pair *p) {
  pair_listen(p);
  pair_connect(p);
  UNTIL(p->near.opened && p->accepted);
  SAME(p->near.open_status, 0);
}

void pair_close(struct pair *p) {
  if (p->near.stream && !p->near.shut) close_end(&p->near);
  if (p->far.stream && !p->far.shut) close_end(&p->far);
  if (p->listener) {
    CALL(world_listener_close(p->listener));
    CALL(world_listener_close(p->listener));
  }
  UNTIL(!p->near.stream && !p->far.stream && !p->listener);
  settle(5);
  SAME(p->near.events_after_close, 0);
  SAME(p->far.events_after_close, 0);
  CHECK(p->near.closed <= 1 && p->far.closed <= 1);
  SAME(p->listener_closed, 1);
  CHECK(p->near.ended <= 1 && p->far.ended <= 1);
  SAME(p->near.mismatches + p->far.mismatches, 0);
}
