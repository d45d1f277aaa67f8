/* uv_launch: start a program, without a copy of ourselves in between.
 *
 * uv_spawn forks: the kernel copies our page tables, and both sides then fault their pages in again. For a node of 10 MB that is 0.8 ms of
 * CPU a child, for one of 60 MB 3.5 ms; a child made with vfork, which borrows our memory until it is the program, costs 0.1 ms at any size. */
#ifndef SHOAL_WORLD_UV_LAUNCH_H
#define SHOAL_WORLD_UV_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "world/world.h"

struct launch {
  const char *const *argv; /* argv[0] is looked for in the PATH of `env`. */
  char **env;              /* The whole environment. */
  const char *cwd;         /* NULL: as ours. */
  int fds[3];              /* The sources of stdin, stdout, stderr, from 3 up; -1: the null device for stdin, ours for the others. */
  bool group;              /* A session of its own, so that no terminal's signal reaches it. */
  struct world_limits limits;
  int guard;               /* Where the child writes guard_records (world/guard.h), or -1. */
};

/* The parent of a program that must not be able to kill us as its parent. It leads the program's group, waits for it, kills what it left
 * behind, and exits. Everything that the program starts stays its descendant, for it is a subreaper (uv_family.h). */
struct keeper;

/* Returns the child's process id, which is running argv; or a negative errno, with no child left.
 * With `keeper` the id is the keeper's, which is in *keeper then; it makes a group whatever l->group is. */
int launch(const struct launch *l, struct keeper **keeper);

/* After the keeper's end: the program's end as waitpid has it, or false when the keeper was killed before it. */
bool keeper_status(const struct keeper *k, int *status);
/* The program's id while it runs, or 0. */
pid_t keeper_program(const struct keeper *k);
const struct world_ended *keeper_ended(const struct keeper *k); /* After the keeper's end. */
void keeper_free(struct keeper *k); /* Only after its end: it stands on this memory. */

#endif
