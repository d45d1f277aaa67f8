/* fleet: many members of core/swim on one simulated world, without a Lua state: what swim.predict and the studies run.
 *
 * Each member is a machine of the simulator, driven by the swim_driver that drives a member on a real world. Their names are n0,
 * n1, ... and their addresses 10.0.0.1 and on. A run is its seed. */
#ifndef SHOAL_DRIVE_FLEET_H
#define SHOAL_DRIVE_FLEET_H

#include "core/swim.h"
#include "drive/swim_driver.h"
#include "world/sim.h"

struct fleet;
struct fleet_node {
  struct fleet *fleet;
  struct swim_driver *driver; /* NULL while it is down. */
  struct swim *swim;          /* The driver's core. */
  struct sim_node *machine;
  struct shoal_world *world;
  struct shoal_address address;
  char name[12];
  uint32_t generation;
};
struct fleet_datagram { /* Sent to a member, or by it. */
  uint32_t at;
  bool came;
  struct shoal_address other;
  const uint8_t *bytes;
  size_t length;
};
struct fleet {
  struct sim *sim;
  struct fleet_node *nodes;
  uint32_t count;
  struct swim_config config;
  uint64_t datagrams, bytes; /* Sent so far, by all. */
  int error;                 /* The first error of a socket or a start; 0: none. */
  /* Called with each datagram sent, and each event: `subject` is the member that it is about. Both may be NULL. */
  void (*on_send)(struct fleet *f, uint32_t from, uint32_t to, const uint8_t *bytes, size_t length);
  void (*on_event)(struct fleet *f, uint32_t at, const struct swim_action *action, uint32_t subject);
  /* Called, unless NULL, before each datagram is received or sent. True: it is withheld until the owner calls fleet_pass(). */
  bool (*withhold)(struct fleet *f, const struct fleet_datagram *d);
  void *data;
};

enum { FLEET_MAX = 1 << 20 };

/* `count` members that know nobody, or with `acquainted` all, as if they had joined long ago. members_max is raised to fit.
 * 0, ERR_CONFIG or ERR_MEMORY. */
int fleet_open(uint64_t seed, uint32_t count, const struct swim_config *config, const struct sim_link *link, bool acquainted,
               struct fleet **out);
void fleet_close(struct fleet *f);
void fleet_run(struct fleet *f, uint64_t duration_ns);
void fleet_crash(struct fleet *f, uint32_t at);
int fleet_restart(struct fleet *f, uint32_t at);                /* Its memory lost, its generation one more. */
int fleet_join(struct fleet *f, uint32_t at, uint32_t seed);
void fleet_settle(struct fleet *f, uint32_t at);                /* After a call into its swim: take all its actions. */
void fleet_pass(struct fleet *f, const struct fleet_datagram *d); /* Send or receive a withheld datagram. Its member may be down by now. */

#endif
