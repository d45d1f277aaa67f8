#include "host/sim_driver.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/sim_program.h"

enum { LOG_MAX = 512 * 1024 * 1024 };

/* ---- the log ---- */

void driver_log(struct driver *d, const char *who, const char *line, size_t length) {
  char head[128];
  uint64_t now = sim_now_ns(d->sim);
  int head_length = snprintf(head, sizeof head, "%" PRIu64 ".%06" PRIu64 " %s ", now / 1000000, now % 1000000, who);
  assert(head_length > 0 && (size_t)head_length < sizeof head);
  size_t want = (size_t)head_length + length + 1;
  if (d->log_full) return;
  if (d->log_length + want > d->log_room) {
    size_t room = (d->log_room + want) * 2;
    char *grown = room <= LOG_MAX ? realloc(d->log, room) : NULL;
    if (!grown) {
      d->log_full = true;
      (void)fprintf(stderr, "shoal: the simulation's log is full at %zu bytes\n", d->log_length);
      return;
    }
    d->log = grown;
    d->log_room = room;
  }
  memcpy(d->log + d->log_length, head, (size_t)head_length);
  memcpy(d->log + d->log_length + head_length, line, length);
  d->log_length += want;
  d->log[d->log_length - 1] = '\n';
}

static void on_event(void *data, uint64_t now_ns, const char *text) {
  struct driver *d = data;
  (void)now_ns; /* The log takes the simulator's time. */
  if (d->trace) driver_log(d, "-", text, strlen(text));
}

/* ---- machines ---- */

struct machine *driver_find(struct driver *d, const char *name) {
  for (struct machine *m = d->machines; m; m = m->next)
    if (strcmp(m->name, name) == 0) return m;
  return NULL;
}

int driver_add(struct driver *d, const char *name, const struct shoal_address *address, struct machine **out) {
  if (driver_find(d, name)) return ERR_EXISTS;
  if (strlen(name) >= sizeof(*out)->name) return ERR_TOO_LARGE;
  struct machine *m = calloc(1, sizeof *m);
  if (!m) return ERR_MEMORY;
  int rc = sim_node_add(d->sim, name, address, &m->sim);
  if (rc < 0) {
    free(m);
    return rc;
  }
  m->driver = d;
  m->up = true;
  m->code = -1;
  (void)snprintf(m->name, sizeof m->name, "%s", name); /* It fits: checked above. */
  if (d->last) d->last->next = m;
  else d->machines = m;
  d->last = m;
  *out = m;
  return 0;
}

void driver_crash(struct machine *m) {
  if (!m->up) return;
  assert(m->driver->depth == 0);
  m->up = false;
  sim_node_crash(m->sim); /* Its children get on_kill. Worlds go first, for they may still hold callbacks that states deferred. */
  if (m->program) program_drop(m->program);
  while (m->children) program_drop(m->children);
}

void driver_restart(struct machine *m) {
  driver_crash(m);
  (void)sim_node_restart(m->sim); /* Its world is looked up where it is needed. */
  m->up = true;
}

/* ---- running ---- */

bool driver_step(struct driver *d) {
  d->depth++;
  bool ran = sim_step(d->sim);
  d->depth--;
  if (d->dead > 0) program_reap(d);
  return ran;
}

bool driver_run(struct driver *d, uint64_t at_ns) {
  d->interrupted = false;
  while (sim_next_ns(d->sim) <= at_ns) {
    if (!driver_step(d)) break;
    if (d->interrupted) return false;
  }
  d->depth++;
  sim_run_until(d->sim, at_ns); /* No event is left before at_ns: this sets the clock. */
  d->depth--;
  return true;
}

int driver_open(struct driver *d, const struct sim_config *config, const char *home) {
  memset(d, 0, sizeof *d);
  (void)snprintf(d->home, sizeof d->home, "%s", home); /* If it was cut short, the first require reports it. */
  int rc = sim_open(config, &d->sim);
  if (rc < 0) return rc;
  sim_trace(d->sim, on_event, d);
  sim_on_spawn(d->sim, program_on_spawn, d);
  return 0;
}

void driver_close(struct driver *d) {
  if (!d->sim) return;
  assert(d->depth == 0);
  sim_close(d->sim);
  for (struct machine *m = d->machines; m; m = m->next) {
    if (m->program) program_drop(m->program);
    while (m->children) program_drop(m->children);
  }
  d->sim = NULL;
  while (d->machines) {
    struct machine *m = d->machines;
    d->machines = m->next;
    free(m);
  }
  chunks_free(&d->chunks);
  free(d->log);
  d->log = NULL;
}
