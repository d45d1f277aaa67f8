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

static uint32_t index_of(const struct shoal_address *a) {
  return ((uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3]) - 1;
}

static uint32_t named(const char *name, size_t length) { /* "n12" */
  uint32_t index = 0;
  for (size_t i = 1; i < length; i++) index = index * 10 + (uint32_t)(name[i] - '0');
  return index;
}

static bool withheld(struct fleet *f, uint32_t at, bool came, const struct shoal_address *other, const uint8_t *bytes, size_t length) {
  if (!f->withhold) return false;
  return f->withhold(f, &(struct fleet_datagram){.at = at, .came = came, .other = *other, .bytes = bytes, .length = length});
}

void fleet_settle(struct fleet *f, uint32_t at) { swim_driver_settle(f->nodes[at].driver); }

static uint32_t place(const struct fleet_node *n) { return (uint32_t)(n - n->fleet->nodes); }

static bool on_outgoing(void *data, const struct swim_action *a) {
  struct fleet_node *n = data;
  struct fleet *f = n->fleet;
  f->bytes += a->length;
  if (a->kind != SWIM_SEND) return false;
  f->datagrams++;
  if (f->on_send) f->on_send(f, place(n), index_of(&a->to), a->bytes, a->length);
  return withheld(f, place(n), false, &a->to, a->bytes, a->length);
}

static bool on_incoming(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct fleet_node *n = data;
  return withheld(n->fleet, place(n), true, from, bytes, length);
}

static void on_event(void *data, const struct swim_action *a) {
  struct fleet_node *n = data;
  if (n->fleet->on_event) n->fleet->on_event(n->fleet, place(n), a, named(a->member.name, a->member.name_length));
}

static void on_left(void *data, uint32_t heard) { (void)data, (void)heard; /* No study waits for it. */ }

static void on_trouble(void *data, enum swim_driver_trouble which, int code) {
  struct fleet *f = ((struct fleet_node *)data)->fleet;
  (void)which; /* Any of them spoils a study. */
  if (f->error == 0) f->error = code;
}

static const struct swim_driver_events events = {.event = on_event, .left = on_left, .trouble = on_trouble,
                                                 .outgoing = on_outgoing, .incoming = on_incoming};

void fleet_pass(struct fleet *f, const struct fleet_datagram *d) {
  struct fleet_node *n = &f->nodes[d->at];
  if (!n->swim) return;
  if (d->came) swim_driver_receive(n->driver, &d->other, d->bytes, d->length);
  else swim_driver_send(n->driver, &d->other, d->bytes, d->length);
}

static int start(struct fleet_node *n) {
  struct swim_driver_options options = {
      .config = n->fleet->config, .bind = n->address,
      .identity = {.name = n->name, .name_length = strlen(n->name), .cluster = "fleet", .cluster_length = 5,
                   .generation = ++n->generation}};
  int rc = swim_driver_open(n->world, &n->address, &events, n, &n->driver);
  if (rc == 0) rc = swim_driver_start(n->driver, &options);
  if (rc == 0) n->swim = swim_driver_core(n->driver);
  return rc;
}

static int add(struct fleet *f, uint32_t at) {
  struct fleet_node *n = &f->nodes[at];
  *n = (struct fleet_node){.fleet = f, .generation = 1000, .address = address_of(at)};
  (void)snprintf(n->name, sizeof n->name, "n%u", at); /* FLEET_MAX has 7 digits. */
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
    if (f->nodes[i].driver) swim_driver_abandon(f->nodes[i].driver);
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
  swim_driver_abandon(n->driver);
  n->driver = NULL, n->swim = NULL, n->world = NULL;
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
  int rc = swim_driver_join(n->driver, &f->nodes[seed].address);
  fleet_settle(f, at);
  return rc;
}
