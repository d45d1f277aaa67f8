/* core/detector when memory runs out: each allocation of a mixed run fails once. The call returns ERR_MEMORY with nothing changed, the run
 * goes on, and at its end nothing is left (the sanitizers look, too). */
#include <stdint.h>
#include <string.h>

#include "core/detector_private.h"
#include "core/errors.h"
#include "must.h"

static uint64_t allocations, fails_at;
static bool fails(void) { return ++allocations == fails_at; }

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *at, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *at, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }
void *__wrap_realloc(void *at, size_t size) { return fails() ? NULL : __real_realloc(at, size); }
void *__wrap_aligned_alloc(size_t alignment, size_t size) { return fails() ? NULL : __real_aligned_alloc(alignment, size); }

static struct detector_text named(char *room, const char *kind, int index) {
  return (struct detector_text){room, (size_t)snprintf(room, 32, "%s%d", kind, index)};
}

static bool same(const struct detector_counts *a, const struct detector_counts *b) {
  return a->nodes == b->nodes && a->jobs == b->jobs && a->suspicions == b->suspicions && a->machines == b->machines &&
         a->extensions == b->extensions;
}

/* One call; when it fails for memory nothing has changed, and it works the second time. Returns whether it failed. */
static bool call(struct detector *d, int what, int job, int node) {
  char rooms[3][32];
  struct detector_counts before, after;
  enum detector_grant grant;
  uint32_t ms;
  struct detector_text j = what == 1 ? (struct detector_text){"", 0} : named(rooms[0], "job", job), n = named(rooms[1], "node", node);
  for (int attempt = 0;; attempt++) {
    detector_counts(d, &before);
    int rc = what == 3   ? detector_node(d, 1, n, DETECTOR_ALIVE, (struct detector_incarnation){1, 0})
             : what == 2 ? detector_extend(d, 1, j, n, named(rooms[2], "flow", node % 3), UINT64_MAX, &grant, &ms)
                         : detector_suspect(d, 1, j, n, 1, UINT32_MAX, (struct detector_scale){0, 0});
    if (rc >= 0) return attempt > 0;
    detector_counts(d, &after);
    MUST(rc == ERR_MEMORY && attempt == 0 && same(&before, &after));
  }
}

/* Returns whether an allocation failed. */
static bool run(uint64_t at) {
  struct detector_config config;
  struct detector_action a;
  struct detector_text name;
  MUST(detector_config_profile("lan", DETECTOR_WORKERS, &config) == 0);
  allocations = 0, fails_at = at;
  struct detector *d = detector_new(&config, 0);
  if (!d) return true; /* The first two are its own. */
  bool failed = false;
  for (int i = 0; i < 600; i++) failed |= call(d, i % 4, i % 7, i % 90);
  fails_at = 0;
  while (detector_next(d, &a)) continue;
  while (detector_look(d, 2, &name) != DETECTOR_LOOKED_ALL) continue;
  struct detector_counts c;
  detector_counts(d, &c);
  MUST(c.mended == 0 && c.nodes == 90 && c.suspicions > 0 && c.extensions > 0);
  for (int i = 0; i < 7; i++) {
    char room[32];
    (void)detector_over(d, 3, named(room, "job", i), (struct detector_text){"", 0}); /* How many is counted below. */
  }
  for (int i = 0; i < 90; i++) {
    char room[32];
    (void)detector_forget(d, 3, named(room, "node", i));
  }
  while (detector_next(d, &a)) continue;
  detector_counts(d, &c);
  MUST(c.nodes == 0 && c.jobs == 0 && c.suspicions == 0 && c.machines == 0 && c.extensions == 0 && d->records == 0);
  detector_free(d);
  return failed;
}

int main(void) {
  uint64_t at = 1;
  while (run(at)) at++;
  MUST(at > 100); /* So many allocations have failed, one a run. */
  printf("ok each_allocation_fails_once_and_nothing_is_lost (%d)\n", (int)at - 1);
  return 0;
}
