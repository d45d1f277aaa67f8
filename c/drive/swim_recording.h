/* swim_recording: a member's recording (core/swim_record.h) on its way to a file. */
#ifndef SHOAL_DRIVE_SWIM_RECORDING_H
#define SHOAL_DRIVE_SWIM_RECORDING_H

#include "core/swim_record.h"
#include "world/world.h"

struct swim_recording;

/* Begin one at `path`. An existing file is moved to `path`.1 first, which replaces an older one. 0 or a code. */
int swim_recording_open(struct shoal_world *world, const char *path, const struct swim_config *config,
                        const struct swim_identity *identity, uint64_t seed, uint64_t now_ns, struct swim_recording **out);
/* As swim_record_step() and swim_record_action(). Bytes reach the file each second, each 32 KiB, and at the close. After a failed
 * write nothing more is recorded. Does nothing for NULL. */
void swim_recording_step(struct swim_recording *r, enum swim_input input, uint64_t now_ns, const struct shoal_address *address,
                         const void *bytes, size_t length, const struct swim_config *config);
void swim_recording_stream(struct swim_recording *r, enum swim_input input, uint64_t now_ns, uint32_t stream, const void *bytes,
                           size_t length);
void swim_recording_action(struct swim_recording *r, const struct swim_action *action);
/* 0, or the code of a failed write, once. */
int swim_recording_trouble(struct swim_recording *r);
void swim_recording_close(struct swim_recording *r);
void swim_recording_abandon(struct swim_recording *r); /* The world is gone: unwritten bytes are lost. */

#endif
