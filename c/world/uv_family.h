/* uv_family: what the process table says of descendants.
 *
 * A process that leaves its group or session (setsid, set -m, timeout, a daemon) stays a descendant: when its parent ends, it goes to the
 * nearest ancestor that is a subreaper, and keepers and workers are (prctl(2), PR_SET_CHILD_SUBREAPER). So a walk from such an ancestor
 * finds everything that was started under it. */
#ifndef SHOAL_WORLD_UV_FAMILY_H
#define SHOAL_WORLD_UV_FAMILY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { FAMILY_MAX = 4096 }; /* Processes in one look; the others are seen by the next. */

/* Children of a process of one thread, or of a main thread; 0 when it has gone or the kernel cannot tell. */
size_t family_children(pid_t of, pid_t *out, size_t max);

/* All descendants, parents before children, without `of`. They may end, and start others, at any time. */
size_t family_all(pid_t of, pid_t *out, size_t max);

/* The letter of ps(1), such as 'Z', and its session; false when it has gone. */
bool family_state(pid_t pid, char *state, pid_t *session);

/* Whether NAME or NAME=value is in the environment that it began with: `text` as the environment has it, up to its length. */
bool family_has(pid_t pid, const char *text);

#endif
