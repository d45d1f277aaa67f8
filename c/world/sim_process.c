#include "world/sim_private.h"

#include <signal.h>

/* A child has two halves: the running process, which the driver holds, and the parent's handle, which may be closed while the
 * child goes on. A child ends in an event of its own, never inside the call that ends it. */

struct sim_process {
  struct sim_node *node;
  struct sim_process *next, *previous; /* Of its node, oldest first. */
  struct sim_child *child;             /* The parent's half; NULL: closed, or the parent is gone. */
  struct sim_world *world;             /* NULL: a plain child. */
  char *directory;
  int pid, group;                   /* The group bears its leader's pid; 0 is the node's own. */
  struct sim_connection *pipes[3];  /* NULL: none, or the child has taken it as a stream. */
  bool taken[3];
  void (*on_kill)(void *data, int signal);
  void *on_kill_data;
  struct sim_event end;
  bool exiting, killed; /* The kind of `end`. */
  int64_t status;
  int signal;
};

struct sim_child {
  union {
    struct world_process base;
    struct sim_thing thing;
  };
  struct sim_process *process; /* NULL: ended. */
  struct world_stream *streams[3]; /* NULL: none, or taken. */
  struct world_process_events events;
  struct sim_event exit;
  int pid;
  bool group;
  int64_t status;
  int signal;
};

const char *sim_process_directory(const struct sim_process *p) { return p ? p->directory : "/home/node"; }

int sim_process_number(const struct sim_process *p) { return p->pid; }

/* ---- the machine's half ---- */

static void leave(struct sim_process *p) {
  struct sim_node *n = p->node;
  if (p->next) p->next->previous = p->previous;
  else n->processes_last = p->previous;
  if (p->previous) p->previous->next = p->next;
  else n->processes = p->next;
}

static void process_free(struct sim_process *p) {
  sim_event_cancel(p->node->sim, &p->end);
  leave(p);
  free(p->directory);
  sim_give(p->node->sim, p, sizeof *p);
}

static void let_go_of_pipes(struct sim_process *p) {
  for (int fd = 0; fd < 3; fd++)
    if (p->pipes[fd]) sim_pipe_end(p->pipes[fd], 1);
}

static void on_end(struct sim *s, struct sim_event *e) {
  struct sim_process *p = SIM_AROUND(struct sim_process, end, e);
  SIM_NOTE(s, "%s %s/%d %lld %d", p->killed ? "killed" : "exit", p->node->name, p->pid, (long long)p->status, p->signal);
  if (p->killed && p->on_kill && !p->exiting) {
    if (p->world) world_drop_deferred(&p->world->base); /* Before its memory is freed. */
    p->exiting = true;
    p->on_kill(p->on_kill_data, p->signal);
  }
  if (p->world) sim_world_free(p->world);
  let_go_of_pipes(p);
  if (p->child) {
    p->child->process = NULL;
    p->child->status = p->status;
    p->child->signal = p->signal;
    sim_event_at(s, &p->child->exit, s->now_ns);
  }
  process_free(p);
}

void sim_processes_retime(struct sim_node *n) {
  for (struct sim_process *p = n->processes; p; p = p->next)
    if (p->world) sim_world_retime(p->world);
}

void sim_processes_crash(struct sim_node *n, bool tell) {
  for (struct sim_process *p; (p = n->processes) != NULL; process_free(p)) {
    if (tell) SIM_NOTE(n->sim, "killed %s/%d 0 %d", n->name, p->pid, SIGKILL);
    if (tell && p->world) world_drop_deferred(&p->world->base);
    if (tell && p->on_kill && !p->exiting) {
      p->exiting = true;
      p->on_kill(p->on_kill_data, SIGKILL);
    }
    if (p->world) sim_world_free(p->world);
    if (p->child) p->child->process = NULL;
  }
}

/* ---- the driver's calls ---- */

void sim_on_spawn(struct sim *s, sim_spawn_fn *on_spawn, void *data) {
  s->on_spawn = on_spawn;
  s->on_spawn_data = data;
}

struct shoal_world *sim_process_world(struct sim_process *p) {
  struct sim_node *n = p->node;
  assert(!p->world);
  uint64_t number = (uint64_t)n->boot << 40 | (uint64_t)(uint32_t)p->pid << 4 | 5;
  p->world = sim_world_new(n, p, sim_derive(n->sim->seed, n->name, number));
  snprintf(p->world->name, sizeof p->world->name, "%s/%d", n->name, p->pid);
  for (int fd = 0; fd < 3; fd++)
    if (p->pipes[fd]) sim_pipe_keep(p->pipes[fd]);
  return &p->world->base;
}

void sim_process_write(struct sim_process *p, int fd, const void *bytes, size_t length) {
  assert(fd == 1 || fd == 2);
  if (p->pipes[fd]) sim_pipe_print(p->pipes[fd], bytes, length);
}

void sim_process_on_kill(struct sim_process *p, void (*on_kill)(void *data, int signal), void *data) {
  p->on_kill = on_kill;
  p->on_kill_data = data;
}

void sim_process_exit(struct sim_process *p, uint64_t after_ns, int64_t status, int signal) {
  struct sim *s = p->node->sim;
  if (p->exiting) return; /* A kill came first. */
  p->exiting = true;
  if (p->killed) return;
  p->status = status;
  p->signal = signal;
  sim_event_at(s, &p->end, s->now_ns + after_ns);
}

/* ---- the parent's half ---- */

static void on_exit_due(struct sim *s, struct sim_event *e) {
  struct sim_child *c = SIM_AROUND(struct sim_child, exit, e);
  SIM_NOTE(s, "exited %s %d", e->world->name, c->pid);
  sim_enter(e->world);
  c->events.on_exit(c->thing.data, c->status, c->signal);
}

static void child_drop(struct sim_thing *thing) {
  struct sim_child *c = SIM_AROUND(struct sim_child, thing, thing);
  struct sim *s = sim_of(thing);
  if (c->process) c->process->child = NULL;
  sim_event_cancel(s, &c->exit);
  sim_thing_leave(thing);
  sim_give(s, c, sizeof *c);
}

static char *directory_of(const struct sim_world *parent, const char *cwd) {
  const char *base = sim_process_directory(parent->process);
  char *text = NULL;
  if (asprintf(&text, "%s%s%s", cwd && cwd[0] == '/' ? "" : base, cwd && cwd[0] != '/' ? "/" : "", cwd ? cwd : "") < 0)
    abort();
  return text;
}

static struct sim_process *process_new(struct sim_world *parent, const struct world_spawn *options) {
  struct sim_node *n = parent->node;
  struct sim_process *p = sim_take(n->sim, sizeof *p);
  *p = (struct sim_process){.node = n, .pid = ++n->last_pid, .previous = n->processes_last, .end = {.run = on_end}};
  p->group = options->group || options->keeper ? p->pid : parent->process ? parent->process->group : 0;
  p->directory = directory_of(parent, options->cwd);
  for (int fd = 0; fd < 3; fd++)
    if (options->pipe[fd]) p->pipes[fd] = sim_pipe_new(n);
  if (n->processes_last) n->processes_last->next = p;
  else n->processes = p;
  n->processes_last = p;
  return p;
}

static void process_refused(struct sim_process *p, struct sim_connection *const pipes[3]) {
  if (p->world) sim_world_free(p->world);
  let_go_of_pipes(p);
  for (int fd = 0; fd < 3; fd++)
    if (pipes[fd]) sim_pipe_end(pipes[fd], 0);
  process_free(p);
}

int sim_spawn(struct shoal_world *base, const struct world_spawn *options, const struct world_process_events *events,
              void *data, struct world_process **out) {
  struct sim_world *w = sim_world_of(base);
  struct sim *s = w->node->sim;
  if (!s->on_spawn) return -ENOENT;
  struct sim_process *p = process_new(w, options);
  struct sim_connection *pipes[3]; /* The child may take its ends at once. */
  memcpy(pipes, p->pipes, sizeof pipes);
  int rc = s->on_spawn(s->on_spawn_data, w->node, options, p);
  if (rc < 0) {
    process_refused(p, pipes);
    return rc;
  }
  SIM_NOTE(s, "spawn %s/%d %s", w->node->name, p->pid, options->argv[0]);
  struct sim_child *c = sim_take(s, sizeof *c);
  *c = (struct sim_child){.process = p, .events = *events, .pid = p->pid, .group = options->group || options->keeper,
                          .exit = {.run = on_exit_due, .world = w}};
  p->child = c;
  sim_thing_open(w, &c->thing, child_drop, events->on_closed, data);
  for (int fd = 0; fd < 3; fd++)
    if (pipes[fd]) c->streams[fd] = sim_pipe_open(pipes[fd], 0, w, fd != 0);
  *out = &c->base;
  return 0;
}

static struct sim_child *child_of(const struct world_process *p) { return (struct sim_child *)(void *)p; }

struct world_stream *sim_process_stream(struct world_process *p, int fd) {
  struct sim_child *c = child_of(p);
  struct world_stream *stream = c->streams[fd];
  c->streams[fd] = NULL;
  return stream;
}

int sim_process_pid(const struct world_process *p) { return child_of(p)->pid; }

static void kill_one(struct sim_process *p, int signal) {
  struct sim *s = p->node->sim;
  if (p->killed) return;
  p->killed = true;
  p->status = 0;
  p->signal = signal;
  sim_event_at(s, &p->end, s->now_ns);
}

int sim_process_kill(struct world_process *base, int signal) {
  struct sim_child *c = child_of(base);
  struct sim_node *n = c->exit.world->node;
  bool any = false;
  for (struct sim_process *p = n->processes; p; p = p->next) {
    if (c->group ? p->group != c->pid : p != c->process) continue;
    if (signal != 0) kill_one(p, signal);
    any = true;
  }
  return any ? 0 : -ESRCH;
}

void sim_process_close(struct world_process *base) {
  struct sim_child *c = child_of(base);
  for (int fd = 0; fd < 3; fd++)
    if (c->streams[fd]) world_stream_close(c->streams[fd]); /* It was not taken. */
  if (c->process) c->process->child = NULL;
  c->process = NULL;
  sim_event_cancel(sim_of(&c->thing), &c->exit);
  sim_thing_close(&c->thing);
}

/* ---- the child's own ends ---- */

int sim_stdio(struct shoal_world *base, int fd, struct world_stream **out) {
  struct sim_world *w = sim_world_of(base);
  struct sim_process *p = w->process;
  if (!p) return ERR_UNSUPPORTED;
  if (p->taken[fd]) return -EBADF;
  if (!p->pipes[fd]) return ERR_UNSUPPORTED;
  *out = sim_pipe_open(p->pipes[fd], 1, w, fd == 0);
  p->pipes[fd] = NULL; /* The stream owns it now. */
  p->taken[fd] = true;
  return 0;
}
