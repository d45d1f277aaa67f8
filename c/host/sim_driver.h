/* sim_driver: simulated machines that run shoal programs. sim.c is its face in Lua.
 *
 * A machine is a sim_node. A program is a Lua state on one of its worlds: the machine's own, or a child's. Machines without a
 * program stand for the outside: HTTP hosts, clients of a spec. */
#ifndef SHOAL_HOST_SIM_DRIVER_H
#define SHOAL_HOST_SIM_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/chunks.h"
#include "host/node.h"
#include "world/sim.h"

struct driver;
struct machine;

/* One run of a program.
 *   WAITING --(2 ms: a child's fork and exec)--> RUNNING --exit--> STOPPING --(all it had open has closed)--> gone
 *      kill, crash: DEAD, and freed once its world has gone, at the latest after the step */
struct program {
  struct machine *machine;
  struct program *next; /* Of the machine. */
  char name[80];        /* "w1", its third child "w1/3". */
  struct shoal_world *world;
  struct sim_process *process; /* NULL: the machine's first program. */
  struct node *node;
  struct world_timer *timer;
  char **argv;
  int code;
  bool dead; /* Its world goes without events, then its memory is freed. */
};

struct machine {
  struct driver *driver;
  struct machine *next;
  char name[64];
  struct sim_node *sim;
  struct program *program; /* The first one; NULL: none is running. */
  struct program *children;
  unsigned children_made;
  bool up;
  int code; /* The last exit's; -1: none yet. */
};

struct driver {
  struct sim *sim;
  struct machine *machines, *last; /* In the order they were added. */
  char home[4096];
  struct chunks chunks;
  char *log;
  size_t log_length, log_room;
  bool log_full, trace, interrupted;
  unsigned dead; /* Programs to be freed. */
  int depth; /* Steps in progress. While > 0 no state may be closed, for it may be the running one. */
  /* A child that is no shoal program. Returns 0 when the driver's owner takes it, or a code. */
  int (*on_command)(void *data, struct machine *parent, const struct world_spawn *options, struct sim_process *process);
  void *data;
};

int driver_open(struct driver *d, const struct sim_config *config, const char *home);
void driver_close(struct driver *d);
struct machine *driver_find(struct driver *d, const char *name);
int driver_add(struct driver *d, const char *name, const struct shoal_address *address, struct machine **out);
/* Start the machine's program. argv is copied. */
int driver_start(struct machine *m, const char *entry, const char *const *argv);
/* The machine stops at once; the memory of its programs is freed. */
void driver_crash(struct machine *m);
/* Up again, with its disk and no program. */
void driver_restart(struct machine *m);
/* Run events up to at_ns; false when `interrupted` was set first. */
bool driver_run(struct driver *d, uint64_t at_ns);
bool driver_step(struct driver *d);
/* One line of the log, at the present true time. */
void driver_log(struct driver *d, const char *who, const char *line, size_t length);
/* Copy the folder `from` of the real disk to `to` on the machine's. */
int driver_copy_folder(struct machine *m, const char *from, const char *to);

#endif
