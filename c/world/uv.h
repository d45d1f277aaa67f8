/* The real world, over a libuv loop that the caller owns and runs. */
#ifndef SHOAL_WORLD_UV_H
#define SHOAL_WORLD_UV_H

#include "world/world.h"

struct uv_loop_s;

struct world_uv_options {
  struct uv_loop_s *loop;
  /* Every libuv handle's `data` is set to this pointer, which we never read: luv wants a luv_handle_t there, when the
   * loop is shared with it. Structs are found by offset from the handle. */
  void *handle_data;
  uint64_t seed; /* Of the random stream, and of the epoch of the clock. */
};
/* Returns 0 or a code. The world holds idle handles of its own on the loop that do not keep it alive. */
int world_uv_open(const struct world_uv_options *options, struct shoal_world **out);
/* Everything opened in it must have been closed, with its on_closed called. on_closed comes from the loop; then the world is freed. */
void world_uv_close(struct shoal_world *w, world_closed_fn *on_closed, void *data);

#endif
