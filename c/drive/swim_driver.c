#include "drive/swim_driver.h"
#include "net/sealing.h"

#include <stdlib.h>
#include <string.h>

#include "core/errors.h"
#include "drive/swim_recording.h"
#include "drive/tables.h"

struct swim_driver {
  struct shoal_world *world;
  const struct swim_driver_events *events;
  void *data;
  struct swim *core;
  struct world_udp *udp;
  struct world_timer *timer;
  struct tables *tables;
  struct swim_recording *recording; /* NULL: none is made. */
  struct shoal_address bound;
  struct swim_driver_counts counts;
  int parts; /* Things of the world whose closed event is still to come. */
  bool draining, closing;
};

static uint64_t now_ns(const struct swim_driver *d) { return world_now_ns(d->world); }

/* ---- from the core to the world and to the owner ---- */

static void count_error(struct swim_driver_counts *c, int code, const struct shoal_address *to, size_t length) {
  uint32_t i = 0;
  c->send_failed++;
  while (i < c->errors_count && c->errors[i].code != code) i++;
  if (i == SWIM_DRIVER_ERRORS_MAX) return;
  if (i == c->errors_count) c->errors_count++, c->errors[i].code = code;
  c->errors[i].count++;
  c->errors[i].to = *to;
  c->errors[i].length = length;
}

void swim_driver_send(struct swim_driver *d, const struct shoal_address *to, const void *bytes, size_t length) {
  int rc = world_udp_send(d->udp, to, bytes, length);
  if (rc >= 0) return;
  count_error(&d->counts, rc, to, length);
  d->events->trouble(d->data, SWIM_DRIVER_SEND, rc);
}

static void deliver(struct swim_driver *d, const struct swim_action *a) {
  bool withheld = (a->kind == SWIM_SEND || a->kind == SWIM_STREAM_SEND) && d->events->outgoing && d->events->outgoing(d->data, a);
  switch (a->kind) {
    case SWIM_SEND:
      if (!withheld) swim_driver_send(d, &a->to, a->bytes, a->length);
      break;
    case SWIM_EVENT: d->events->event(d->data, a); break;
    case SWIM_NOTICE:
      if (d->events->notice) d->events->notice(d->data, a->notice);
      break;
    case SWIM_STREAM_OPEN:
    case SWIM_STREAM_SEND:
    case SWIM_STREAM_CLOSE: tables_do(d->tables, a); break;
    case SWIM_LEFT_DONE: d->events->left(d->data, a->heard); break;
  }
}

void swim_driver_settle(struct swim_driver *d) {
  struct swim_action action;
  if (d->draining) return; /* Called from an event: the outer call takes what is new, in order. */
  d->draining = true;
  while (!d->closing && swim_next(d->core, &action)) {
    swim_recording_action(d->recording, &action);
    deliver(d, &action);
  }
  d->draining = false;
  if (d->closing) return;
  int code = swim_recording_trouble(d->recording);
  if (code < 0) d->events->trouble(d->data, SWIM_DRIVER_RECORD, code);
  if (d->closing) return;
  uint64_t deadline_ns = swim_deadline(d->core);
  if (deadline_ns == UINT64_MAX) world_timer_stop(d->timer);
  else world_timer_start(d->timer, deadline_ns);
}

/* Take the actions in the next turn, so that no input calls back before it returns. */
static void wake(struct swim_driver *d) { world_timer_start(d->timer, now_ns(d)); }

/* ---- from the world to the core ---- */

/* Before each input, so that a replay sees the same order. */
static void record(struct swim_driver *d, enum swim_input input, const struct shoal_address *address, const void *bytes, size_t length) {
  if (d->recording) swim_recording_step(d->recording, input, now_ns(d), address, bytes, length, NULL);
}

static void record_stream(struct swim_driver *d, enum swim_input input, uint32_t stream, const void *bytes, size_t length) {
  if (d->recording) swim_recording_stream(d->recording, input, now_ns(d), stream, bytes, length);
}

static void on_timer(void *data) {
  struct swim_driver *d = data;
  if (d->closing) return;
  record(d, SWIM_INPUT_TICK, NULL, NULL, 0);
  swim_tick(d->core, now_ns(d));
  swim_driver_settle(d);
}

void swim_driver_receive(struct swim_driver *d, const struct shoal_address *from, const void *bytes, size_t length) {
  record(d, SWIM_INPUT_RECEIVE, from, bytes, length);
  (void)swim_receive(d->core, now_ns(d), from, bytes, length); /* The core counts a refusal by its reason. */
  swim_driver_settle(d);
}

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct swim_driver *d = data;
  if (d->closing) return;
  if (d->events->incoming && d->events->incoming(d->data, from, bytes, length)) return;
  swim_driver_receive(d, from, bytes, length);
}

static void on_error(void *data, int code) {
  struct swim_driver *d = data;
  if (!d->closing) d->events->trouble(d->data, SWIM_DRIVER_RECEIVE, code);
}

static void on_stream_opened(void *data, uint32_t stream) {
  struct swim_driver *d = data;
  if (d->closing) return;
  record_stream(d, SWIM_INPUT_OPENED, stream, NULL, 0);
  swim_stream_opened(d->core, now_ns(d), stream);
  swim_driver_settle(d);
}

static uint32_t on_stream_accepted(void *data, const struct shoal_address *from) {
  struct swim_driver *d = data;
  if (d->closing) return 0;
  record(d, SWIM_INPUT_ACCEPTED, from, NULL, 0);
  uint32_t stream = swim_stream_accepted(d->core, now_ns(d), from);
  swim_driver_settle(d);
  return stream;
}

static void on_stream_received(void *data, uint32_t stream, const uint8_t *bytes, size_t length) {
  struct swim_driver *d = data;
  if (d->closing) return;
  record_stream(d, SWIM_INPUT_STREAM, stream, bytes, length);
  swim_stream_received(d->core, now_ns(d), stream, bytes, length);
  swim_driver_settle(d);
}

static void on_stream_ended(void *data, uint32_t stream) {
  struct swim_driver *d = data;
  if (d->closing) return;
  record_stream(d, SWIM_INPUT_ENDED, stream, NULL, 0);
  swim_stream_ended(d->core, now_ns(d), stream);
  swim_driver_settle(d);
}

/* ---- opening and closing ---- */

static void free_all(struct swim_driver *d) {
  if (d->core) swim_close(d->core);
  free(d);
}

static void on_part_closed(void *data) {
  struct swim_driver *d = data;
  const struct swim_driver_events *events = d->events;
  void *owner = d->data;
  if (--d->parts > 0) return;
  swim_recording_close(d->recording);
  free_all(d);
  events->closed(owner);
}

void swim_driver_close(struct swim_driver *d) {
  if (d->closing) return;
  d->closing = true;
  if (d->timer) world_timer_close(d->timer);
  if (d->tables) tables_close(d->tables);
  world_udp_close(d->udp);
}

void swim_driver_abandon(struct swim_driver *d) {
  if (d->tables) tables_abandon(d->tables);
  swim_recording_abandon(d->recording);
  free_all(d);
}

static bool is_wildcard(const struct shoal_address *a) {
  static const struct shoal_address none;
  return memcmp(a->bytes, none.bytes, sizeof a->bytes) == 0;
}

/* Unsealed datagrams can be anybody's; simulated ones cannot. */
const char *swim_driver_refuses(struct shoal_world *world, const struct swim_driver_options *o) {
  const char *unsealed = sealing_refusal(world, &o->bind);
  if (unsealed) return unsealed;
  if (is_wildcard(&o->bind) && o->identity.address.family == 0)
    return "needs `advertise`, the address at which others reach this node";
  return NULL;
}

uint32_t swim_driver_generation(struct shoal_world *world, uint32_t stored) {
  uint64_t wall_s = (uint64_t)(world_wall_ns(world) / 1000000000);
  if (wall_s > UINT32_MAX) wall_s = UINT32_MAX;
  return wall_s > stored ? (uint32_t)wall_s : stored;
}

int swim_driver_open(struct shoal_world *world, const struct shoal_address *bind, const struct swim_driver_events *events,
                     void *data, struct swim_driver **out) {
  static const struct world_udp_events udp_events = {on_datagram, on_error, on_part_closed};
  struct swim_driver *d = calloc(1, sizeof *d);
  if (!d) return ERR_MEMORY;
  *d = (struct swim_driver){.world = world, .events = events, .data = data, .parts = 1};
  int rc = world_udp_open(world, bind, &udp_events, d, &d->udp);
  if (rc < 0) {
    free(d);
    return rc;
  }
  world_udp_address(d->udp, &d->bound);
  *out = d;
  return 0;
}

int swim_driver_start(struct swim_driver *d, const struct swim_driver_options *o) {
  static const struct tables_events table_events = {on_stream_opened,  on_stream_accepted, on_stream_received,
                                                    on_stream_ended, on_error,           on_part_closed};
  struct swim_identity identity = o->identity;
  if (identity.address.family == 0) identity.address = d->bound;
  uint64_t seed = world_random(d->world);
  int rc = swim_open(&o->config, &identity, seed, now_ns(d), &d->core);
  if (rc < 0) return rc;
  if (o->record) rc = swim_recording_open(d->world, o->record, &o->config, &identity, seed, now_ns(d), &d->recording);
  if (rc < 0) return rc;
  rc = world_timer_open(d->world, on_timer, on_part_closed, d, &d->timer);
  if (rc < 0) return rc;
  d->parts = 2;
  rc = tables_open(d->world, &d->bound, &table_events, d, &d->tables);
  if (rc < 0) return rc;
  d->parts = 3;
  record_stream(d, SWIM_INPUT_STREAMS, tables_port(d->tables), NULL, 0);
  swim_streams(d->core, tables_port(d->tables));
  for (size_t i = 0; i < o->seeds_count && rc == 0; i++) rc = swim_driver_join(d, &o->seeds[i]);
  if (rc == 0) wake(d);
  return rc;
}

/* ---- inputs ---- */

int swim_driver_join(struct swim_driver *d, const struct shoal_address *seed) {
  record(d, SWIM_INPUT_JOIN, seed, NULL, 0);
  int rc = swim_join(d->core, now_ns(d), seed);
  wake(d);
  return rc;
}

bool swim_driver_forget(struct swim_driver *d, const struct shoal_address *seed) {
  record(d, SWIM_INPUT_FORGET, seed, NULL, 0);
  return swim_forget(d->core, seed);
}

int swim_driver_erase(struct swim_driver *d, const char *name, size_t length) {
  record(d, SWIM_INPUT_ERASE, NULL, name, length);
  int rc = swim_erase(d->core, now_ns(d), name, length);
  wake(d);
  return rc;
}

int swim_driver_leave(struct swim_driver *d) {
  if (swim_is_leaving(d->core)) return ERR_EXISTS;
  record(d, SWIM_INPUT_LEAVE, NULL, NULL, 0);
  swim_leave(d->core, now_ns(d));
  wake(d);
  return 0;
}

int swim_driver_payload(struct swim_driver *d, const void *bytes, size_t length) {
  record(d, SWIM_INPUT_PAYLOAD, NULL, bytes, length);
  int rc = swim_set_payload(d->core, now_ns(d), bytes, length);
  wake(d);
  return rc;
}

bool swim_driver_hint(struct swim_driver *d, const char *name, size_t length) {
  record(d, SWIM_INPUT_HINT, NULL, name, length);
  bool begun = swim_hint(d->core, now_ns(d), name, length);
  wake(d);
  return begun;
}

int swim_driver_tell(struct swim_driver *d, const void *bytes, size_t length) {
  record(d, SWIM_INPUT_TELL, NULL, bytes, length);
  int rc = swim_tell(d->core, now_ns(d), bytes, length);
  wake(d);
  return rc;
}

int swim_driver_reconfigure(struct swim_driver *d, const struct swim_config *config) {
  swim_recording_step(d->recording, SWIM_INPUT_RECONFIGURE, now_ns(d), NULL, NULL, 0, config);
  int rc = swim_reconfigure(d->core, now_ns(d), config);
  wake(d);
  return rc;
}

/* ---- looking ---- */

struct swim *swim_driver_core(const struct swim_driver *d) { return d->core; }
const struct shoal_address *swim_driver_address(const struct swim_driver *d) { return &d->bound; }
const struct swim_driver_counts *swim_driver_counts(const struct swim_driver *d) { return &d->counts; }
