/* sim_lua: what the files behind shoal.core.sim share. sim.c opens and runs a simulation, sim_call.c calls into its nodes,
 * sim_faults.c is crashes, cuts, links and clocks, sim_command.c is children that are functions. */
#ifndef SHOAL_HOST_SIM_LUA_H
#define SHOAL_HOST_SIM_LUA_H

#include <lauxlib.h>
#include <lua.h>

#include "host/sim_driver.h"

#define SIM_NAME "shoal.sim"
enum { SIM_COMMANDS = 1 }; /* The user value: name -> function. */

struct lua_sim {
  struct driver driver;
  lua_State *L; /* The controlling state's main thread. */
};

/* Argument 1's simulation; raises when it is none, or closed. */
struct lua_sim *lua_sim_check(lua_State *L);
/* The machine that the argument names; raises when there is none. */
struct machine *lua_sim_machine(lua_State *L, struct lua_sim *s, int index);
/* Raises within a step: an operation that ends a state is not allowed there, for it may be the running state. */
void lua_sim_outside(lua_State *L, const struct lua_sim *s, const char *what);
/* The machine's own world; NULL when it is down. */
struct shoal_world *lua_sim_world(const struct machine *m);
/* Abandon everything that the controlling state has open in the world of a machine without a program. The world is already
 * gone, for it may have held callbacks that those things deferred: the pointer only identifies it. */
void lua_sim_forget(lua_State *L, struct shoal_world *world);

/* The link of the table's fields; raises on a field that is wrong. */
struct sim_link lua_sim_link(lua_State *L, int table);
/* A whole number of 0 or more in the table's field. */
uint64_t lua_sim_field(lua_State *L, int table, const char *name, uint64_t otherwise);

/* driver.on_command: a child that is no shoal program. `data` is the struct lua_sim. */
int lua_sim_on_command(void *data, struct machine *parent, const struct world_spawn *options, struct sim_process *process);

/* The methods of each file. */
extern const luaL_Reg lua_sim_call_methods[], lua_sim_fault_methods[], lua_sim_command_methods[];

#endif
