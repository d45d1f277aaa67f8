#include "host/sim_driver.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/host.h"

enum {
  LOG_MAX = 512 * 1024 * 1024,
  FORK_NS = 2000000,    /* What fork and exec take. */
  DRAIN_NS = 100000,    /* Between two looks whether an ended program's things have closed. */
  FILE_MAX = 16 * 1024 * 1024,
};

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
  (void)now_ns; /* It is the simulator's present. */
  if (d->trace) driver_log(d, "-", text, strlen(text));
}

static void on_line(void *data, const char *line, size_t length) {
  const struct program *p = data;
  driver_log(p->machine->driver, p->name, line, length);
}

static void say(struct program *p, const char *format, int number) {
  char text[96];
  int length = snprintf(text, sizeof text, format, number);
  driver_log(p->machine->driver, p->name, text, (size_t)length);
}

/* ---- programs ---- */

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

/* Its world has gone without a word to anyone. */
static void drop_program(struct program *p) {
  if (p->node) node_close(p->node, true);
  free_program(p);
}

/* Never within a step: the state may be the one that runs. */
static void reap(struct driver *d) {
  if (d->depth > 0) return;
  for (struct machine *m = d->machines; m; m = m->next) {
    for (struct program *p = m->children, *next; p; p = next) {
      next = p->next;
      if (p->dead) drop_program(p);
    }
  }
  d->dead = 0;
}

static void on_gone(void *data) {
  struct program *p = data;
  struct sim_process *process = p->process;
  int code = p->code;
  say(p, "exit %d", code);
  p->machine->driver->interrupted = true; /* Somebody may be waiting for this. */
  if (!process) p->machine->code = code;
  free_program(p);
  if (process) sim_process_exit(process, 0, code, 0);
}

/* A program that ended waits here for what it had open, as a process that has gone still lives in the kernel. */
static void on_drain(void *data) {
  struct program *p = data;
  struct world_telemetry t;
  if (p->node) node_stop(p->node);
  world_telemetry(p->world, &t);
  if (t.open_handles > 1) { /* One is this timer. */
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
  assert(rc == 0); /* The simulator has no limit on them. */
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

static int on_spawn(void *data, struct sim_node *parent, const struct world_spawn *options, struct sim_process *process) {
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
  (void)snprintf(m->name, sizeof m->name, "%s", name); /* It fits: looked at above. */
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
  sim_node_crash(m->sim); /* Its children hear on_kill. The worlds go first: they may still hold what states deferred. */
  if (m->program) drop_program(m->program);
  while (m->children) drop_program(m->children);
}

void driver_restart(struct machine *m) {
  driver_crash(m);
  (void)sim_node_restart(m->sim); /* The world is asked for where it is needed. */
  m->up = true;
}

/* ---- running ---- */

bool driver_step(struct driver *d) {
  d->depth++;
  bool ran = sim_step(d->sim);
  d->depth--;
  if (d->dead > 0) reap(d);
  return ran;
}

bool driver_run(struct driver *d, uint64_t at_ns) {
  d->interrupted = false;
  while (sim_next_ns(d->sim) <= at_ns) {
    if (!driver_step(d)) break;
    if (d->interrupted) return false;
  }
  d->depth++;
  sim_run_until(d->sim, at_ns); /* Nothing is left before it: this sets the clock. */
  d->depth--;
  return true;
}

int driver_open(struct driver *d, const struct sim_config *config, const char *home) {
  memset(d, 0, sizeof *d);
  (void)snprintf(d->home, sizeof d->home, "%s", home); /* Cut short, the first require says so. */
  int rc = sim_open(config, &d->sim);
  if (rc < 0) return rc;
  sim_trace(d->sim, on_event, d);
  sim_on_spawn(d->sim, on_spawn, d);
  return 0;
}

void driver_close(struct driver *d) {
  if (!d->sim) return;
  assert(d->depth == 0);
  sim_close(d->sim);
  for (struct machine *m = d->machines; m; m = m->next) {
    if (m->program) drop_program(m->program);
    while (m->children) drop_program(m->children);
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

/* ---- files ---- */

static int copy_file(struct shoal_world *world, const char *from, const char *to) {
  FILE *file = fopen(from, "rb");
  if (!file) return -errno;
  char *bytes = malloc(FILE_MAX);
  int rc = bytes ? 0 : ERR_MEMORY;
  if (rc == 0) {
    size_t length = fread(bytes, 1, FILE_MAX, file);
    if (ferror(file)) rc = -EIO;
    else if (length == FILE_MAX) rc = ERR_TOO_LARGE;
    else rc = world_put_durable(world, to, bytes, length);
  }
  free(bytes);
  (void)fclose(file); /* It was only read. */
  return rc;
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

int driver_copy_folder(struct machine *m, const char *from, const char *to) {
  struct shoal_world *world = sim_node_world(m->sim);
  struct dirent **entries;
  if (!world) return ERR_CLOSED;
  int count = scandir(from, &entries, is_visible, alphasort);
  if (count < 0) return -errno;
  int rc = world_make_directory(world, to);
  for (int i = 0; i < count; i++) {
    char source[4352], target[4352];
    struct stat about;
    bool fits = (size_t)snprintf(source, sizeof source, "%s/%s", from, entries[i]->d_name) < sizeof source &&
                (size_t)snprintf(target, sizeof target, "%s/%s", to, entries[i]->d_name) < sizeof target;
    free(entries[i]);
    if (rc < 0) continue;
    if (!fits) rc = ERR_TOO_LARGE;
    else if (stat(source, &about) < 0) rc = -errno;
    else if (S_ISDIR(about.st_mode)) rc = driver_copy_folder(m, source, target);
    else if (S_ISREG(about.st_mode)) rc = copy_file(world, source, target);
  }
  free(entries);
  return rc;
}
