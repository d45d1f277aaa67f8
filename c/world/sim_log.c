#include "world/sim_private.h"

/* Slow or long-lived uses of a disk: logs, puts off the loop, locks. */

enum { SYNC_MIN_NS = 200000, SYNC_SPAN_NS = 1800000 };

/* When a sync that begins now will be done. */
static uint64_t sync_end_ns(struct sim_node *n) {
  uint64_t slow_ns = n->disk.faults.sync_ns;
  return n->sim->now_ns + (slow_ns > 0 ? slow_ns : SYNC_MIN_NS + rng_below(&n->chance, SYNC_SPAN_NS));
}

/* ---- logs ---- */

struct sim_log {
  union {
    struct world_log base;
    struct sim_thing thing;
  };
  struct sim_file *file;
  char *path;
  int failure; /* After one failed sync the content of the disk is unknown: every later one fails with its code. */
  struct world_log_events events;
  bool locks; /* It holds the lock of its file. */
  struct sim_event synced;
  size_t syncing_bytes; /* The running sync makes this much durable. */
  bool again;           /* Another follows it. */
};

static void start_sync(struct sim_log *l) {
  struct sim_node *n = l->synced.world->node;
  l->syncing_bytes = l->file->length;
  sim_event_at(n->sim, &l->synced, sync_end_ns(n));
}

/* How a sync ends. */
static int look(const struct sim_log *l) {
  struct sim_node *n = l->synced.world->node;
  int rc = sim_disk_fault(n, SIM_DISK_SYNC);
  if (rc < 0) return rc;
  const struct sim_entry_file *there = sim_disk_find(&n->disk, l->path);
  return there && there->file == l->file ? 0 : ERR_GONE;
}

static void on_synced(struct sim *s, struct sim_event *e) {
  struct sim_log *l = SIM_AROUND(struct sim_log, synced, e);
  size_t size = l->syncing_bytes < l->file->length ? l->syncing_bytes : l->file->length; /* Another log may have cut the file. */
  if (l->failure == 0) l->failure = look(l);
  SIM_NOTE(s, "synced %s %zu %d", e->world->name, size, l->failure);
  if (l->failure == 0) l->file->synced_bytes = size;
  if (l->again) start_sync(l);
  l->again = false;
  sim_enter(e->world);
  if (l->events.on_synced) l->events.on_synced(l->thing.data, l->failure, size);
}

static void log_drop(struct sim_thing *thing) {
  struct sim_log *l = SIM_AROUND(struct sim_log, thing, thing);
  struct sim *s = sim_of(thing);
  sim_event_cancel(s, &l->synced);
  if (l->locks) l->file->locked = false;
  sim_file_release(l->file);
  free(l->path);
  sim_thing_leave(thing);
  sim_give(s, l, sizeof *l);
}

/* The file at the path, made when absent. */
static int open_file(struct sim_world *w, const char *path, char *full, struct sim_entry_file **out) {
  struct sim_disk *d = &w->node->disk;
  int rc = sim_path(w, path, full);
  if (rc == 0) rc = sim_disk_parent(d, full);
  if (rc == 0) rc = sim_disk_fault(w->node, SIM_DISK_READ);
  if (rc < 0) return rc;
  *out = sim_disk_find(d, full);
  if (*out) return (*out)->file ? 0 : -EISDIR;
  rc = sim_disk_fault(w->node, SIM_DISK_WRITE | SIM_DISK_SYNC);
  if (rc < 0) return rc;
  *out = sim_disk_add(d, full, sim_file_new());
  (*out)->file->modified_ns = sim_clock_wall_ns(&w->base);
  return 0;
}

int sim_log_open(struct shoal_world *base, const char *path, const struct world_log_events *events, void *data,
                 struct world_log **out) {
  struct sim_world *w = sim_world_of(base);
  char full[SIM_PATH_MAX];
  struct sim_entry_file *e;
  int rc = open_file(w, path, full, &e);
  if (rc < 0) return rc;
  e->file->references++;
  struct sim_log *l = sim_take(w->node->sim, sizeof *l);
  *l = (struct sim_log){.file = e->file, .path = strdup(full), .synced = {.run = on_synced, .world = w}};
  if (!l->path) abort();
  if (events) l->events = *events;
  sim_thing_open(w, &l->thing, log_drop, l->events.on_closed, data);
  *out = &l->base;
  return 0;
}

static struct sim_log *log_of(const struct world_log *l) { return (struct sim_log *)(void *)l; }

int sim_log_lock(struct world_log *base, int *holder) {
  struct sim_log *l = log_of(base);
  const struct sim_world *w = l->synced.world;
  if (l->locks) return 0;
  *holder = l->file->holder;
  if (l->file->locked) return ERR_BUSY;
  l->locks = l->file->locked = true;
  l->file->holder = w->process ? sim_process_number(w->process) : 0;
  return 0;
}

int sim_log_append(struct world_log *base, const void *bytes, size_t length) {
  struct sim_log *l = log_of(base);
  struct sim_world *w = l->synced.world;
  int rc = l->failure;
  if (rc == 0) rc = sim_disk_fault(w->node, length > 0 ? SIM_DISK_WRITE : SIM_DISK_READ);
  if (rc == 0) rc = sim_file_append(l->file, bytes, length);
  if (rc == 0) l->file->modified_ns = sim_clock_wall_ns(&w->base);
  return rc;
}

int sim_log_sync(struct world_log *base) {
  struct sim_log *l = log_of(base);
  if (sim_event_armed(&l->synced)) l->again = true;
  else start_sync(l);
  return 0;
}

int sim_log_truncate(struct world_log *base, uint64_t size) {
  struct sim_log *l = log_of(base);
  struct sim_file *f = l->file;
  if (size > f->length) return -EINVAL;
  int rc = l->failure < 0 ? l->failure : sim_disk_fault(l->synced.world->node, SIM_DISK_READ);
  if (rc < 0) return rc;
  if (l->syncing_bytes > size) l->syncing_bytes = (size_t)size; /* The running sync covers no more than this. */
  f->length = (size_t)size;
  if (f->synced_bytes > f->length) f->synced_bytes = f->length;
  return 0;
}

uint64_t sim_log_size(const struct world_log *l) { return log_of(l)->file->length; }

void sim_log_close(struct world_log *base) {
  struct sim_log *l = log_of(base);
  sim_event_cancel(sim_of(&l->thing), &l->synced);
  sim_thing_close(&l->thing);
}

/* ---- puts off the loop ---- */

struct sim_put {
  union {
    struct world_put base;
    struct sim_thing thing;
  };
  struct sim_event done;
  char *path;
  const void *bytes;
  size_t length;
  void (*on_done)(void *data, int status);
};

static void put_drop(struct sim_thing *thing) {
  struct sim_put *p = SIM_AROUND(struct sim_put, thing, thing);
  struct sim *s = sim_of(thing);
  sim_event_cancel(s, &p->done);
  free(p->path);
  sim_thing_leave(thing);
  sim_give(s, p, sizeof *p);
}

/* The put of this path that is under way, and how many there are. */
static const struct sim_put *find_put(const struct sim_world *w, const char *full, uint32_t *count) {
  const struct sim_put *found = NULL;
  for (const struct sim_thing *t = w->things.next; t != &w->things; t = t->next) {
    if (t->drop != put_drop) continue;
    const struct sim_put *p = SIM_AROUND(struct sim_put, thing, t);
    if (!sim_event_armed(&p->done)) continue;
    ++*count;
    if (strcmp(p->path, full) == 0) found = p;
  }
  return found;
}

bool sim_put_is_pending(const struct sim_world *w, const char *full) {
  uint32_t count = 0;
  return find_put(w, full, &count) != NULL;
}

static void on_put(struct sim *s, struct sim_event *e) {
  struct sim_put *p = SIM_AROUND(struct sim_put, done, e);
  bool early = p->thing.handle.closing;
  int status = early ? 0 : sim_disk_put(e->world, p->path, p->bytes, p->length);
  SIM_NOTE(s, "put %s %zu %d", e->world->name, p->length, status);
  sim_enter(e->world);
  p->thing.handle.closing = true; /* It closes by itself: only on_closed follows. */
  sim_thing_close(&p->thing);
  if (!early) p->on_done(p->thing.data, status);
}

int sim_put_later(struct shoal_world *base, const char *path, const void *bytes, size_t length,
                  void (*on_done)(void *data, int status), world_closed_fn *on_closed, void *data, struct world_put **out) {
  struct sim_world *w = sim_world_of(base);
  struct sim *s = w->node->sim;
  char full[SIM_PATH_MAX];
  uint32_t count = 0;
  int rc = sim_path(w, path, full);
  if (rc < 0) return rc;
  if (find_put(w, full, &count)) return ERR_BUSY;
  if (count >= WORLD_PUTS_MAX) return ERR_FULL;
  struct sim_put *p = sim_take(s, sizeof *p);
  *p = (struct sim_put){.done = {.run = on_put, .world = w}, .path = strdup(full), .bytes = bytes, .length = length,
                        .on_done = on_done};
  if (!p->path) abort();
  sim_thing_open(w, &p->thing, put_drop, on_closed, data);
  sim_event_at(s, &p->done, sync_end_ns(w->node));
  *out = &p->base;
  return 0;
}

/* The worker may have begun, and uses the bytes until it is done. */
void sim_put_close(struct world_put *base) { (void)base; }

/* ---- locks ---- */

struct sim_lock {
  union {
    struct world_lock base;
    struct sim_thing thing;
  };
  struct sim_file *file;
  struct sim_node *node;
  char *path;
};

static void unlock(struct sim_lock *l) {
  if (!l->file) return;
  l->file->locked = false;
  sim_file_release(l->file);
  l->file = NULL;
}

static void lock_drop(struct sim_thing *thing) {
  struct sim_lock *l = SIM_AROUND(struct sim_lock, thing, thing);
  unlock(l);
  free(l->path);
  sim_thing_leave(thing);
  sim_give(sim_of(thing), l, sizeof *l);
}

int sim_lock(struct shoal_world *base, const char *path, world_closed_fn *on_closed, void *data, int *holder,
             struct world_lock **out) {
  struct sim_world *w = sim_world_of(base);
  char full[SIM_PATH_MAX];
  struct sim_entry_file *e;
  int rc = open_file(w, path, full, &e);
  if (rc < 0) return rc;
  if (e->file->locked) {
    *holder = e->file->holder;
    return ERR_BUSY;
  }
  e->file->locked = true;
  e->file->holder = w->process ? sim_process_number(w->process) : 0; /* A machine's first process has no number. */
  e->file->references++;
  struct sim_lock *l = sim_take(w->node->sim, sizeof *l);
  *l = (struct sim_lock){.file = e->file, .node = w->node, .path = strdup(full)};
  if (!l->path) abort();
  sim_thing_open(w, &l->thing, lock_drop, on_closed, data);
  *out = &l->base;
  return 0;
}

void sim_lock_close(struct world_lock *base) {
  struct sim_lock *l = (struct sim_lock *)(void *)base;
  unlock(l);
  sim_thing_close(&l->thing);
}

int sim_lock_check(const struct world_lock *base) {
  const struct sim_lock *l = (const struct sim_lock *)(const void *)base;
  const struct sim_entry_file *there = l->file ? sim_disk_find(&l->node->disk, l->path) : NULL;
  return there && there->file == l->file ? 0 : ERR_GONE;
}
