/* node: one Lua state + one world, as a library: the `shoal` program runs one over libuv, the simulator many. */
#ifndef SHOAL_NODE_H
#define SHOAL_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "world/world.h"

struct lua_State;
struct node;

struct node_options {
  struct shoal_world *world;
  const char *home;        /* The folder that holds lua/ and scripts/. */
  const char *const *argv; /* What the entry gets, NULL-terminated, without the program's name. */
  const char *entry;       /* A module whose returned function is called with argv's strings: "shoal.main". */
  bool simulated;          /* pairs in sorted order; io, os.execute, luv raise; random and time are the world's. */
  void *uv_loop;           /* The loop luv is to use; NULL in a simulated node. */
  /* The node asked to end (shoal.core.node.exit(code)), or its entry failed (code 1). Called once, not from inside Lua. */
  void (*on_exit)(void *data, int code);
  void *data;
};

/* Make the state, open the libraries, and call the entry through the door. Returns 0, or a code with nothing left open. */
int node_open(const struct node_options *options, struct node **out);
/* Close the state: everything the node still had open in its world is closed; the world must then be run until its
 * open_handles are 0 before it goes. `crash` true: the world is already gone, free memory only. */
void node_close(struct node *n, bool crash);
struct lua_State *node_state(struct node *n);

#endif
