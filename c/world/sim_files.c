#include "world/sim_private.h"

/* A disk is a sorted list of clean absolute paths; a directory is a path without a file. Small, and enough. */

enum { PATH_BYTES_MAX = 1024, SYNC_MIN_NS = 200000, SYNC_SPAN_NS = 1800000 };

/* ---- paths ---- */

/* Absolute, without ".", "..", doubled or trailing slashes. 0, or -ENAMETOOLONG. */
static int clean(const struct sim_world *w, const char *path, char *out) {
  size_t length = 0;
  const char *parts[] = {path[0] == '/' ? "" : sim_process_directory(w->process), path};
  for (int i = 0; i < 2; i++)
    for (const char *at = parts[i]; *at;) {
      size_t size = strcspn(at, "/");
      if (size == 2 && memcmp(at, "..", 2) == 0) {
        while (length > 0 && out[--length] != '/') continue;
      } else if (size > 0 && !(size == 1 && *at == '.')) {
        if (length + size + 2 > PATH_BYTES_MAX) return -ENAMETOOLONG;
        out[length++] = '/';
        memcpy(out + length, at, size);
        length += size;
      }
      at += size + (at[size] == '/');
    }
  if (length == 0) out[length++] = '/';
  out[length] = '\0';
  return 0;
}

/* Where the path stands, or would. */
static size_t search(const struct sim_disk *d, const char *path) {
  size_t low = 0, high = d->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (strcmp(d->entries[middle].path, path) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

static struct sim_entry_file *find(struct sim_disk *d, const char *path) {
  size_t i = search(d, path);
  return i < d->count && strcmp(d->entries[i].path, path) == 0 ? &d->entries[i] : NULL;
}

static struct sim_entry_file *add(struct sim_disk *d, const char *path, struct sim_file *file) {
  if (d->count == d->capacity) {
    d->capacity = d->capacity ? d->capacity * 2 : 16;
    d->entries = realloc(d->entries, d->capacity * sizeof *d->entries);
    if (!d->entries) abort();
  }
  size_t i = search(d, path);
  memmove(&d->entries[i + 1], &d->entries[i], (d->count - i) * sizeof *d->entries);
  d->entries[i] = (struct sim_entry_file){.path = strdup(path), .file = file};
  if (!d->entries[i].path) abort();
  d->count++;
  return &d->entries[i];
}

static void release(struct sim_file *f) {
  if (!f || --f->references > 0) return;
  free(f->bytes);
  free(f);
}

static void remove_entry(struct sim_disk *d, struct sim_entry_file *e) {
  size_t i = (size_t)(e - d->entries);
  release(e->file);
  free(e->path);
  memmove(e, e + 1, (--d->count - i) * sizeof *e);
}

/* Is there a directory to hold this path? 0, -ENOENT or -ENOTDIR. */
static int check_parent(struct sim_disk *d, const char *path) {
  char parent[PATH_BYTES_MAX];
  size_t length = (size_t)(strrchr(path, '/') - path);
  memcpy(parent, path, length);
  parent[length] = '\0';
  if (length == 0) return 0;
  const struct sim_entry_file *e = find(d, parent);
  if (!e) return -ENOENT;
  return e->file ? -ENOTDIR : 0;
}

static bool is_below(const char *path, const char *directory, size_t length) {
  if (length == 1) return path[1] != '\0'; /* The root. */
  return strncmp(path, directory, length) == 0 && path[length] == '/';
}

static bool is_empty(struct sim_disk *d, const char *path) {
  size_t length = strlen(path);
  for (size_t i = 0; i < d->count; i++)
    if (is_below(d->entries[i].path, path, length)) return false;
  return true;
}

void sim_disk_init(struct sim_disk *d) {
  static const char *const directories[] = {"/", "/home", "/home/node", "/tmp"};
  *d = (struct sim_disk){0};
  for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) add(d, directories[i], NULL);
}

void sim_disk_free(struct sim_disk *d) {
  while (d->count > 0) remove_entry(d, &d->entries[d->count - 1]);
  free(d->entries);
}

/* ---- bytes ---- */

static struct sim_file *file_new(void) {
  struct sim_file *f = calloc(1, sizeof *f);
  if (!f) abort();
  f->references = 1;
  return f;
}

static int file_append(struct sim_file *f, const void *bytes, size_t length) {
  if (f->length + length > f->capacity) {
    size_t capacity = f->capacity ? f->capacity * 2 : 256;
    while (capacity < f->length + length) capacity *= 2;
    uint8_t *grown = realloc(f->bytes, capacity);
    if (!grown) return -ENOSPC;
    f->bytes = grown;
    f->capacity = capacity;
  }
  if (length) memcpy(f->bytes + f->length, bytes, length);
  f->length += length;
  return 0;
}

/* ---- whole files, names ---- */

int sim_read_file(struct shoal_world *base, const char *path, uint8_t **bytes, size_t *length) {
  struct sim_world *w = sim_world_of(base);
  char full[PATH_BYTES_MAX];
  int rc = clean(w, path, full);
  if (rc < 0) return rc;
  const struct sim_entry_file *e = find(&w->node->disk, full);
  if (!e) return check_parent(&w->node->disk, full) == -ENOTDIR ? -ENOTDIR : -ENOENT;
  if (!e->file) return -EISDIR;
  if (e->file->length > WORLD_FILE_MAX) return ERR_TOO_LARGE;
  uint8_t *copy = malloc(e->file->length + 1);
  if (!copy) return ERR_MEMORY;
  if (e->file->length) memcpy(copy, e->file->bytes, e->file->length);
  copy[e->file->length] = 0;
  *bytes = copy;
  *length = e->file->length;
  return 0;
}

int sim_put_durable(struct shoal_world *base, const char *path, const void *bytes, size_t length) {
  struct sim_world *w = sim_world_of(base);
  struct sim_disk *d = &w->node->disk;
  char full[PATH_BYTES_MAX];
  int rc = clean(w, path, full);
  if (rc == 0) rc = check_parent(d, full);
  if (rc < 0) return rc;
  struct sim_entry_file *e = find(d, full);
  if (e && !e->file) return -EISDIR;
  struct sim_file *f = file_new();
  rc = file_append(f, bytes, length);
  if (rc < 0) {
    release(f);
    return rc;
  }
  f->synced_bytes = length;
  if (e) {
    release(e->file);
    e->file = f;
  } else {
    add(d, full, f);
  }
  return 0;
}

int sim_rename(struct shoal_world *base, const char *from, const char *to) {
  struct sim_world *w = sim_world_of(base);
  struct sim_disk *d = &w->node->disk;
  char a[PATH_BYTES_MAX], b[PATH_BYTES_MAX], moved[PATH_BYTES_MAX];
  int rc = clean(w, from, a);
  if (rc == 0) rc = clean(w, to, b);
  if (rc == 0) rc = check_parent(d, b);
  if (rc < 0) return rc;
  struct sim_entry_file *source = find(d, a), *target = find(d, b);
  if (!source) return -ENOENT;
  if (strcmp(a, b) == 0) return 0;
  size_t length = strlen(a);
  bool directory = !source->file;
  if (directory && (length == 1 || is_below(b, a, length))) return -EINVAL;
  if (target && directory && target->file) return -ENOTDIR;
  if (target && !directory && !target->file) return -EISDIR;
  if (target && directory && !is_empty(d, b)) return -ENOTEMPTY;
  if (directory) /* Before anything moves: a path may become too long. */
    for (size_t i = 0; i < d->count; i++)
      if (is_below(d->entries[i].path, a, length) && strlen(d->entries[i].path) - length + strlen(b) + 2 > PATH_BYTES_MAX)
        return -ENAMETOOLONG;
  if (target) remove_entry(d, target);
  for (size_t i = 0; i < d->count;) {
    struct sim_entry_file *e = &d->entries[i];
    if (strcmp(e->path, a) != 0 && !(directory && is_below(e->path, a, length))) {
      i++;
      continue;
    }
    struct sim_file *file = e->file;
    snprintf(moved, sizeof moved, "%s%s", b, e->path + length);
    if (file) file->references++;
    remove_entry(d, e);
    add(d, moved, file);
    i = 0; /* They are few. What moved is not below `a` again. */
  }
  return 0;
}

int sim_unlink(struct shoal_world *base, const char *path) {
  struct sim_world *w = sim_world_of(base);
  char full[PATH_BYTES_MAX];
  int rc = clean(w, path, full);
  if (rc < 0) return rc;
  struct sim_entry_file *e = find(&w->node->disk, full);
  if (!e) return -ENOENT;
  if (!e->file) return -EISDIR;
  remove_entry(&w->node->disk, e);
  return 0;
}

int sim_make_directory(struct shoal_world *base, const char *path) {
  struct sim_world *w = sim_world_of(base);
  struct sim_disk *d = &w->node->disk;
  char full[PATH_BYTES_MAX];
  int rc = clean(w, path, full);
  if (rc < 0) return rc;
  for (size_t i = 1;; i++) {
    char c = full[i];
    if (c != '/' && c != '\0') continue;
    full[i] = '\0';
    const struct sim_entry_file *e = find(d, full);
    if (e && e->file) return c ? -ENOTDIR : -EEXIST;
    if (!e) add(d, full, NULL);
    full[i] = c;
    if (!c) return 0;
  }
}

int sim_list(struct shoal_world *base, const char *path, void (*on_name)(void *data, const char *name), void *data) {
  struct sim_world *w = sim_world_of(base);
  struct sim_disk *d = &w->node->disk;
  char full[PATH_BYTES_MAX], name[PATH_BYTES_MAX];
  int rc = clean(w, path, full);
  if (rc < 0) return rc;
  const struct sim_entry_file *e = find(d, full);
  if (!e) return -ENOENT;
  if (e->file) return -ENOTDIR;
  size_t length = strlen(full), skip = length == 1 ? 1 : length + 1;
  for (size_t i = 0; i < d->count; i++) { /* By index: on_name may add files. */
    const char *entry = d->entries[i].path;
    if (!is_below(entry, full, length) || strchr(entry + skip, '/')) continue;
    snprintf(name, sizeof name, "%s", entry + skip);
    on_name(data, name);
  }
  return 0;
}

/* ---- logs ---- */

struct sim_log {
  union {
    struct world_log base;
    struct sim_thing thing;
  };
  struct sim_file *file;
  struct world_log_events events;
  struct sim_event synced;
  size_t syncing_bytes; /* What the running sync will have made durable. */
  bool again;           /* Another is to follow it. */
};

static void start_sync(struct sim_log *l) {
  struct sim_node *n = l->synced.world->node;
  l->syncing_bytes = l->file->length;
  sim_event_at(n->sim, &l->synced, n->sim->now_ns + SYNC_MIN_NS + rng_below(&n->chance, SYNC_SPAN_NS));
}

static void on_synced(struct sim *s, struct sim_event *e) {
  struct sim_log *l = SIM_AROUND(struct sim_log, synced, e);
  size_t size = l->syncing_bytes < l->file->length ? l->syncing_bytes : l->file->length; /* By another log of it. */
  SIM_NOTE(s, "synced %s %zu", e->world->name, size);
  l->file->synced_bytes = size;
  if (l->again) start_sync(l);
  l->again = false;
  sim_enter(e->world);
  if (l->events.on_synced) l->events.on_synced(l->thing.data, 0, size);
}

static void log_drop(struct sim_thing *thing) {
  struct sim_log *l = SIM_AROUND(struct sim_log, thing, thing);
  struct sim *s = sim_of(thing);
  sim_event_cancel(s, &l->synced);
  release(l->file);
  sim_thing_leave(thing);
  sim_give(s, l, sizeof *l);
}

int sim_log_open(struct shoal_world *base, const char *path, const struct world_log_events *events, void *data,
                 struct world_log **out) {
  struct sim_world *w = sim_world_of(base);
  struct sim_disk *d = &w->node->disk;
  char full[PATH_BYTES_MAX];
  int rc = clean(w, path, full);
  if (rc == 0) rc = check_parent(d, full);
  if (rc < 0) return rc;
  struct sim_entry_file *e = find(d, full);
  if (e && !e->file) return -EISDIR;
  if (!e) e = add(d, full, file_new());
  e->file->references++;
  struct sim_log *l = sim_take(w->node->sim, sizeof *l);
  *l = (struct sim_log){.file = e->file, .synced = {.run = on_synced, .world = w}};
  if (events) l->events = *events;
  sim_thing_open(w, &l->thing, log_drop, l->events.on_closed, data);
  *out = &l->base;
  return 0;
}

static struct sim_log *log_of(const struct world_log *l) { return (struct sim_log *)(void *)l; }

int sim_log_append(struct world_log *l, const void *bytes, size_t length) {
  return file_append(log_of(l)->file, bytes, length);
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
  if (l->syncing_bytes > size) l->syncing_bytes = (size_t)size; /* The running sync answers for no more. */
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
