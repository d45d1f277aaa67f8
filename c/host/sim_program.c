#include "host/sim_program.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  FORK_NS = 2000000,    /* The time of fork and exec. */
  DRAIN_NS = 100000,    /* Between two checks that an ended program has closed everything. */
};

static void on_line(void *data, const char *line, size_t length) {
  const struct program *p = data;
  driver_log(p->machine->driver, p->name, line, length);
}

static void say(struct program *p, const char *format, int number) {
  char text[96];
  int length = snprintf(text, sizeof text, format, number);
  driver_log(p->machine->driver, p->name, text, (size_t)length);
}

static void free_argv(char **argv) {
  for (size_t i = 0; argv && argv[i]; i++) free(argv[i]);
  free(argv);
}

static char **copy_argv(const char *const *argv) {
  size_t count = 0;
  while (argv && argv[count]) count++;
  char **out = calloc(count + 1, sizeof *out);
  for (size_t i = 0; out && i < count; i++) {
    out[i] = strdup(argv[i]);
    if (out[i]) continue;
    free_argv(out);
    return NULL;
  }
  return out;
}

static void free_program(struct program *p) {
  struct machine *m = p->machine;
  if (m->program == p) m->program = NULL;
  for (struct program **at = &m->children; *at; at = &(*at)->next) {
    if (*at != p) continue;
    *at = p->next;
    break;
  }
  free_argv(p->argv);
  free(p);
}

void program_drop(struct program *p) {
  if (p->node) node_close(p->node, true);
  free_program(p);
}

void program_reap(struct driver *d) {
  if (d->depth > 0) return;
  for (struct machine *m = d->machines; m; m = m->next) {
    for (struct program *p = m->children, *next; p; p = next) {
      next = p->next;
      if (p->dead) program_drop(p);
    }
  }
  d->dead = 0;
}

static void on_gone(void *data) {
  struct program *p = data;
  struct sim_process *process = p->process;
  int code = p->code;
  say(p, "exit %d", code);
  p->machine->driver->interrupted = true; /* The controlling state may wait for this. */
  if (!process) p->machine->code = code;
  free_program(p);
  if (process) sim_process_exit(process, 0, code, 0);
}

/* An ended program waits here until everything it had open is closed, as the kernel still holds a process that has exited. */
static void on_drain(void *data) {
  struct program *p = data;
  struct world_telemetry t;
  if (p->node) node_stop(p->node);
  world_telemetry(p->world, &t);
  if (t.open_handles > 1) { /* One is the timer itself. */
    world_timer_start(p->timer, world_now_ns(p->world) + DRAIN_NS);
    return;
  }
  if (p->node) node_close(p->node, false);
  p->node = NULL;
  world_timer_close(p->timer);
}

static void on_exit_asked(void *data, int code) {
  struct program *p = data;
  p->code = code;
  int rc = world_timer_open(p->world, on_drain, on_gone, p, &p->timer);
  assert(rc == 0); /* The simulator does not limit timers. */
  (void)rc;        /* Only the assertion reads it. */
  world_timer_start(p->timer, world_now_ns(p->world));
}

static struct program *new_program(struct machine *m, struct shoal_world *world, const char *const *argv) {
  struct program *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->machine = m;
  p->world = world;
  p->argv = copy_argv(argv);
  if (p->argv) return p;
  free(p);
  return NULL;
}

static int open_node(struct program *p, const char *entry) {
  struct node_options options = {.world = p->world,
                                 .home = p->machine->driver->home,
                                 .shown_home = "/shoal",
                                 .argv = (const char *const *)p->argv,
                                 .entry = entry,
                                 .simulated = true,
                                 .chunks = &p->machine->driver->chunks,
                                 .on_exit = on_exit_asked,
                                 .on_log = on_line,
                                 .data = p};
  return node_open(&options, &p->node);
}

int driver_start(struct machine *m, const char *entry, const char *const *argv) {
  if (!m->up) return ERR_CLOSED;
  if (m->program) return ERR_EXISTS;
  struct program *p = new_program(m, sim_node_world(m->sim), argv);
  if (!p) return ERR_MEMORY;
  (void)snprintf(p->name, sizeof p->name, "%s", m->name);
  m->program = p;
  int rc = open_node(p, entry);
  if (rc < 0) free_program(p);
  return rc;
}

/* ---- children ---- */

static void on_kill(void *data, int signal) {
  struct program *p = data;
  say(p, "killed by signal %d", signal);
  p->dead = true;
  p->machine->driver->dead++;
}

static void on_fork(void *data) {
  struct program *p = data;
  world_timer_close(p->timer);
  p->timer = NULL;
  if (open_node(p, "shoal.cli.main") == 0) return;
  struct sim_process *process = p->process;
  say(p, "cannot start: out of memory", 0);
  free_program(p);
  sim_process_exit(process, 0, 1, 0);
}

/* "shoal exec ..." by whatever path. */
static bool is_ours(const struct world_spawn *options) {
  const char *slash = strrchr(options->argv[0], '/'), *name = slash ? slash + 1 : options->argv[0];
  return strcmp(name, "shoal") == 0 && options->argv[1] && strcmp(options->argv[1], "exec") == 0;
}

int program_on_spawn(void *data, struct sim_node *parent, const struct world_spawn *options, struct sim_process *process) {
  struct driver *d = data;
  struct machine *m = d->machines;
  while (m && m->sim != parent) m = m->next;
  assert(m);
  if (!is_ours(options)) return d->on_command ? d->on_command(d->data, m, options, process) : -ENOENT;
  struct program *p = new_program(m, NULL, options->argv + 1);
  if (!p) return ERR_MEMORY;
  (void)snprintf(p->name, sizeof p->name, "%s/%u", m->name, ++m->children_made);
  p->world = sim_process_world(process);
  p->process = process;
  int rc = world_timer_open(p->world, on_fork, NULL, p, &p->timer);
  if (rc < 0) {
    free_argv(p->argv);
    free(p);
    return rc;
  }
  world_timer_start(p->timer, world_now_ns(p->world) + FORK_NS);
  struct program **last = &m->children;
  while (*last) last = &(*last)->next;
  *last = p;
  sim_process_on_kill(process, on_kill, p);
  return 0;
}
