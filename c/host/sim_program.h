/* sim_program: the programs of simulated machines, for sim_driver.c: a Lua state each, on the machine's world or a child's.
 * driver_start (sim_driver.h) starts a machine's own. */
#ifndef SHOAL_HOST_SIM_PROGRAM_H
#define SHOAL_HOST_SIM_PROGRAM_H

#include "host/sim_driver.h"

/* Its world is gone without events: free the state and the program. */
void program_drop(struct program *p);
/* Drop all that were killed. Does nothing within a step: the state may be the one that runs. */
void program_reap(struct driver *d);
/* The simulator's spawn: `shoal exec ...` is a program of its own; anything else goes to driver.on_command. */
int program_on_spawn(void *data, struct sim_node *parent, const struct world_spawn *options, struct sim_process *process);

#endif
