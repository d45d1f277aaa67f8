/* node: one Lua state + one world, as a library: the `shoal` program runs one over libuv, the simulator many. */
#ifndef SHOAL_NODE_H
#define SHOAL_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "world/world.h"

struct lua_State;
struct node;
struct chunks;

struct node_options {
  struct shoal_world *world;
  const char *home;        /* The folder that holds lua/ and scripts/. */
  const char *shown_home;  /* What shoal.core.node.home() returns, if not `home`: a simulated node has its own disk. */
  const char *const *argv; /* Arguments of the entry, NULL-terminated, without the program's name. */
  const char *entry;       /* A module whose returned function is called with argv's strings: "shoal.cli.main". */
  bool simulated;          /* `pairs` in sorted order; io, os.execute, luv raise; random and time are the world's. */
  void *uv_loop;           /* The loop for luv; NULL in a simulated node. */
  void *uv_foreign;        /* The luv_handle_t in the data of the host's own handles on that loop; it receives the state's luv context. */
  struct chunks *chunks;   /* Compiled modules shared by many nodes (chunks.h); NULL: those of the program, or its own. */
  /* The node asked to end (shoal.core.node.exit(code)), or its entry failed (code 1). Called once, not from inside Lua. */
  void (*on_exit)(void *data, int code);
  /* One line of the node's log, without newline, from shoal.core.node.log_sink(line), from `print` in a simulated node and from
   * the door's last resort. NULL: there is no log_sink, `print` prints, and the last resort is stderr. */
  void (*on_log)(void *data, const char *line, size_t length);
  /* shoal.core.node.watch{}: watch the loop (watch.h). 0, or a code. NULL: nothing is watched, and that is well. */
  int (*on_watch)(void *data, const char *node, const char *log, uint32_t hang_ms);
  void *data;
};

/* Make the state, open the libraries, and call the entry through the door. Returns 0, or a code with nothing left open. */
int node_open(const struct node_options *options, struct node **out); /* *out is set before the entry runs. */
/* Close the state and everything that the node still has open in its world. The owner must then run the world until its
 * open_handles are 0. With `crash` the world is already gone: only free memory. */
void node_close(struct node *n, bool crash);
struct lua_State *node_state(struct node *n);

/* Deliver a signal of the process, or in a simulated node of the driver: "INT", "TERM" or "HUP". False: the node has no handler
 * for it. */
bool node_signal(struct node *n, const char *name);

/* Close everything it has open, without waiting. The state stays, for closed events still call into it. */
void node_stop(struct node *n);

/* Ask the node to end, as shoal.core.node.exit(code) does. */
void node_exit(struct node *n, int code);

/* Call with each thing that the state still has open in its world, as text such as "listener#3 (open)". Returns how many. */
size_t node_open_things(struct node *n, void (*on_name)(void *data, const char *name), void *data);

#endif
