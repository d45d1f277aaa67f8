#include "drive/swim_recording.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"

enum { ROOM = 64 * 1024, FLUSH_BYTES = 32 * 1024, PATH_LIMIT = 4096 };
static const uint64_t FLUSH_NS = 1000000000;

struct swim_recording {
  struct swim_recorder recorder;
  struct world_log *log;
  size_t used;
  uint64_t flushed_ns;
  int trouble; /* The code of a failed write; 1 once it was reported. */
  uint8_t buffer[ROOM];
};

static void on_synced(void *data, int status, uint64_t size) {
  (void)data, (void)status, (void)size; /* Never requested. */
}

int swim_recording_open(struct shoal_world *world, const char *path, const struct swim_config *config,
                        const struct swim_identity *identity, uint64_t seed, uint64_t now_ns, struct swim_recording **out) {
  static const struct world_log_events events = {.on_synced = on_synced};
  char old[PATH_LIMIT];
  if (snprintf(old, sizeof old, "%s.1", path) >= (int)sizeof old) return ERR_TOO_LARGE;
  struct swim_recording *r = malloc(sizeof *r);
  if (!r) return ERR_MEMORY;
  r->used = 0, r->trouble = 0, r->flushed_ns = now_ns;
  int rc = world_log_open(world, path, &events, r, &r->log);
  if (rc == 0 && world_log_size(r->log) > 0) { /* Of an earlier life: it may be the very one under investigation. */
    world_log_close(r->log);
    rc = world_rename(world, path, old);
    if (rc == 0) rc = world_log_open(world, path, &events, r, &r->log);
  }
  if (rc < 0) {
    free(r);
    return rc;
  }
  r->used = swim_record_begin(&r->recorder, config, identity, seed, now_ns, r->buffer);
  *out = r;
  return 0;
}

static void flush(struct swim_recording *r, uint64_t now_ns) {
  if (r->trouble == 0 && r->used > 0) r->trouble = world_log_append(r->log, r->buffer, r->used);
  r->used = 0;
  r->flushed_ns = now_ns;
}

static void flush_if_due(struct swim_recording *r, uint64_t now_ns) {
  if (r->used >= FLUSH_BYTES || now_ns - r->flushed_ns >= FLUSH_NS) flush(r, now_ns);
}

void swim_recording_step(struct swim_recording *r, enum swim_input input, uint64_t now_ns, const struct shoal_address *address,
                         const void *bytes, size_t length, const struct swim_config *config) {
  if (!r || r->trouble != 0) return;
  r->used += swim_record_step(&r->recorder, input, now_ns, address, bytes, length, config, r->buffer + r->used);
  flush_if_due(r, now_ns);
}

void swim_recording_stream(struct swim_recording *r, enum swim_input input, uint64_t now_ns, uint32_t stream, const void *bytes,
                           size_t length) {
  if (!r || r->trouble != 0) return;
  r->used += swim_record_stream(&r->recorder, input, now_ns, stream, bytes, length, r->buffer + r->used);
  flush_if_due(r, now_ns);
}

void swim_recording_action(struct swim_recording *r, const struct swim_action *action) {
  if (r) swim_record_action(&r->recorder, action);
}

int swim_recording_trouble(struct swim_recording *r) {
  if (!r || r->trouble >= 0) return 0;
  int trouble = r->trouble;
  r->trouble = 1;
  return trouble;
}

void swim_recording_close(struct swim_recording *r) {
  if (!r) return;
  flush(r, r->recorder.last_ns);
  world_log_close(r->log);
  free(r);
}

void swim_recording_abandon(struct swim_recording *r) { free(r); }
