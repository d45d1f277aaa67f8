#include "drive/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/swim_private.h"

static struct shoal_address address_of(uint32_t index) {
  struct shoal_address a = {.family = 4, .port = 7000};
  uint32_t host = index + 1;
  a.bytes[0] = 10, a.bytes[1] = (uint8_t)(host >> 16), a.bytes[2] = (uint8_t)(host >> 8), a.bytes[3] = (uint8_t)host;
  return a;
}

uint32_t fleet_index(const struct shoal_address *a) {
  return ((uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3]) - 1;
}

static uint32_t named(const char *name, size_t length) { /* "n12" */
  uint32_t index = 0;
  for (size_t i = 1; i < length; i++) index = index * 10 + (uint32_t)(name[i] - '0');
  return index;
}

static void trouble(struct fleet *f, int code) {
  if (code < 0 && f->error == 0) f->error = code;
}

static bool withheld(struct fleet *f, uint32_t at, bool came, const struct shoal_address *other, const uint8_t *bytes, size_t length) {
  if (!f->withhold) return false;
  return f->withhold(f, &(struct fleet_datagram){.at = at, .came = came, .other = *other, .bytes = bytes, .length = length});
}

void fleet_settle(struct fleet *f, uint32_t at) {
  struct fleet_node *n = &f->nodes[at];
  struct swim_action a;
  if (n->settling) return; /* A stream that could not be opened says so from within: what that gives is taken below. */
  n->settling = true;
  while (swim_next(n->swim, &a)) {
    if (a.kind == SWIM_SEND) {
      f->datagrams++, f->bytes += a.length;
      if (f->on_send) f->on_send(f, at, fleet_index(&a.to), a.bytes, a.length);
      if (!withheld(f, at, false, &a.to, a.bytes, a.length)) trouble(f, world_udp_send(n->udp, &a.to, a.bytes, a.length));
    } else if (a.kind == SWIM_EVENT) {
      if (f->on_event) f->on_event(f, at, &a, named(a.member.name, a.member.name_length));
    } else if (a.kind != SWIM_LEFT_DONE) {
      if (a.kind == SWIM_STREAM_SEND) f->bytes += a.length;
      tables_do(n->tables, &a);
    }
  }
  n->settling = false;
  uint64_t due = swim_deadline(n->swim);
  if (due == UINT64_MAX) world_timer_stop(n->timer);
  else world_timer_start(n->timer, due);
}

static uint32_t place(const struct fleet_node *n) { return (uint32_t)(n - n->fleet->nodes); }

static void on_timer(void *data) {
  struct fleet_node *n = data;
  swim_tick(n->swim, world_now_ns(n->world));
  fleet_settle(n->fleet, place(n));
}

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct fleet_node *n = data;
  if (withheld(n->fleet, place(n), true, from, bytes, length)) return;
  (void)swim_receive(n->swim, world_now_ns(n->world), from, bytes, length); /* Counted there. */
  fleet_settle(n->fleet, place(n));
}

void fleet_pass(struct fleet *f, const struct fleet_datagram *d) {
  struct fleet_node *n = &f->nodes[d->at];
  if (!n->swim) return;
  if (!d->came) trouble(f, world_udp_send(n->udp, &d->other, d->bytes, d->length));
  else (void)swim_receive(n->swim, world_now_ns(n->world), &d->other, d->bytes, d->length); /* Counted there. */
  fleet_settle(f, d->at);
}

static void on_opened(void *data, uint32_t stream) {
  struct fleet_node *n = data;
  swim_stream_opened(n->swim, world_now_ns(n->world), stream);
  fleet_settle(n->fleet, place(n));
}
static uint32_t on_accepted(void *data, const struct shoal_address *from) {
  struct fleet_node *n = data;
  return swim_stream_accepted(n->swim, world_now_ns(n->world), from);
}
static void on_received(void *data, uint32_t stream, const uint8_t *bytes, size_t length) {
  struct fleet_node *n = data;
  swim_stream_received(n->swim, world_now_ns(n->world), stream, bytes, length);
  fleet_settle(n->fleet, place(n));
}
static void on_ended(void *data, uint32_t stream) {
  struct fleet_node *n = data;
  swim_stream_ended(n->swim, world_now_ns(n->world), stream);
  fleet_settle(n->fleet, place(n));
}
static void on_trouble(void *data, int code) { trouble(((struct fleet_node *)data)->fleet, code); }

static int start(struct fleet_node *n) {
  static const struct tables_events table_events = {.opened = on_opened, .accepted = on_accepted, .received = on_received,
                                                    .ended = on_ended, .error = on_trouble};

  static const struct world_udp_events events = {.on_datagram = on_datagram};
  struct swim_identity identity = {.name = n->name, .name_length = strlen(n->name), .cluster = "fleet", .cluster_length = 5,
                                   .address = n->address, .generation = ++n->generation};
  n->settling = false;
  int rc = world_udp_open(n->world, &n->address, &events, n, &n->udp);
  if (rc == 0) rc = world_timer_open(n->world, on_timer, NULL, n, &n->timer);
  if (rc == 0) rc = swim_open(&n->fleet->config, &identity, world_random(n->world), world_now_ns(n->world), &n->swim);
  if (rc == 0) rc = tables_open(n->world, &n->address, &table_events, n, &n->tables);
  if (rc == 0) swim_streams(n->swim, tables_port(n->tables));
  return rc;
}

static int add(struct fleet *f, uint32_t at) {
  struct fleet_node *n = &f->nodes[at];
  *n = (struct fleet_node){.fleet = f, .generation = 1000, .address = address_of(at)};
  (void)snprintf(n->name, sizeof n->name, "n%u", at); /* FLEET_MAX is shorter. */
  struct shoal_address machine = n->address;
  machine.port = 0;
  int rc = sim_node_add(f->sim, n->name, &machine, &n->machine);
  if (rc < 0) return rc;
  n->world = sim_node_world(n->machine);
  f->count = at + 1;
  return start(n);
}

static int acquaint(struct fleet *f) {
  struct swim **all = calloc(f->count, sizeof *all);
  if (!all) return ERR_MEMORY;
  for (uint32_t i = 0; i < f->count; i++) all[i] = f->nodes[i].swim;
  int rc = swim_preset(all, f->count);
  free(all);
  return rc;
}

int fleet_open(uint64_t seed, uint32_t count, const struct swim_config *config, const struct sim_link *link, bool acquainted,
               struct fleet **out) {
  if (count == 0 || count > FLEET_MAX || swim_config_check(config)) return ERR_CONFIG;
  struct fleet *f = calloc(1, sizeof *f);
  if (!f) return ERR_MEMORY;
  f->config = *config;
  if (f->config.members_max < count + 1) f->config.members_max = count + 1;
  f->nodes = calloc(count, sizeof *f->nodes);
  int rc = f->nodes ? sim_open(&(struct sim_config){.seed = seed, .link = *link}, &f->sim) : ERR_MEMORY;
  for (uint32_t i = 0; i < count && rc == 0; i++) rc = add(f, i);
  if (rc == 0 && acquainted) rc = acquaint(f);
  if (rc < 0) {
    fleet_close(f);
    return rc;
  }
  for (uint32_t i = 0; i < count; i++) fleet_settle(f, i);
  *out = f;
  return 0;
}

void fleet_close(struct fleet *f) {
  for (uint32_t i = 0; i < f->count; i++) {
    if (f->nodes[i].swim) swim_close(f->nodes[i].swim);
    if (f->nodes[i].tables) tables_abandon(f->nodes[i].tables);
  }
  if (f->sim) sim_close(f->sim);
  free(f->nodes);
  free(f);
}

void fleet_run(struct fleet *f, uint64_t duration_ns) { sim_run_until(f->sim, sim_now_ns(f->sim) + duration_ns); }

void fleet_crash(struct fleet *f, uint32_t at) {
  struct fleet_node *n = &f->nodes[at];
  if (!n->swim) return;
  sim_node_crash(n->machine); /* Its socket and timer go with it. */
  tables_abandon(n->tables);
  swim_close(n->swim);
  n->swim = NULL;
  n->tables = NULL;
  n->world = NULL;
}

int fleet_restart(struct fleet *f, uint32_t at) {
  struct fleet_node *n = &f->nodes[at];
  n->world = sim_node_restart(n->machine);
  int rc = n->world ? start(n) : ERR_MEMORY;
  if (rc == 0) fleet_settle(f, at);
  return rc;
}

int fleet_join(struct fleet *f, uint32_t at, uint32_t seed) {
  struct fleet_node *n = &f->nodes[at];
  int rc = swim_join(n->swim, world_now_ns(n->world), &f->nodes[seed].address);
  fleet_settle(f, at);
  return rc;
}
