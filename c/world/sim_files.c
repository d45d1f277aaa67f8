#include "world/sim_private.h"

/* A disk is a sorted list of clean absolute paths; a directory is a path without a file. */

/* ---- paths ---- */

/* Absolute, without ".", "..", doubled or trailing slashes. 0, or -ENAMETOOLONG. */
int sim_path(const struct sim_world *w, const char *path, char *out) {
  size_t length = 0;
  const char *parts[] = {path[0] == '/' ? "" : sim_process_directory(w->process), path};
  for (int i = 0; i < 2; i++)
    for (const char *at = parts[i]; *at;) {
      size_t size = strcspn(at, "/");
      if (size == 2 && memcmp(at, "..", 2) == 0) {
        while (length > 0 && out[--length] != '/') continue;
      } else if (size > 0 && !(size == 1 && *at == '.')) {
        if (length + size + 2 > SIM_PATH_MAX) return -ENAMETOOLONG;
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

/* The index of the path, or where it would be inserted. */
static size_t search(const struct sim_disk *d, const char *path) {
  size_t low = 0, high = d->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (strcmp(d->entries[middle].path, path) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

struct sim_entry_file *sim_disk_find(struct sim_disk *d, const char *path) {
  size_t i = search(d, path);
  return i < d->count && strcmp(d->entries[i].path, path) == 0 ? &d->entries[i] : NULL;
}

struct sim_entry_file *sim_disk_add(struct sim_disk *d, const char *path, struct sim_file *file) {
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

void sim_file_release(struct sim_file *f) {
  if (!f || --f->references > 0) return;
  free(f->bytes);
  free(f);
}

static void remove_entry(struct sim_disk *d, struct sim_entry_file *e) {
  size_t i = (size_t)(e - d->entries);
  sim_file_release(e->file);
  free(e->path);
  memmove(e, e + 1, (--d->count - i) * sizeof *e);
}

/* Does the parent directory exist? 0, -ENOENT or -ENOTDIR. */
int sim_disk_parent(struct sim_disk *d, const char *path) {
  char parent[SIM_PATH_MAX];
  size_t length = (size_t)(strrchr(path, '/') - path);
  memcpy(parent, path, length);
  parent[length] = '\0';
  if (length == 0) return 0;
  const struct sim_entry_file *e = sim_disk_find(d, parent);
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

/* ---- faults ---- */

int sim_disk_fault(const struct sim_node *n, unsigned uses) {
  const struct sim_disk_faults *f = &n->disk.faults;
  if (f->fail < 0) return f->fail;
  if ((uses & SIM_DISK_WRITE) && f->full) return -ENOSPC;
  if ((uses & SIM_DISK_SYNC) && f->fail_sync < 0) return f->fail_sync;
  return 0;
}

void sim_node_disk(struct sim_node *n, const struct sim_disk_faults *faults) {
  SIM_NOTE(n->sim, "disk %s full=%d fail=%d fail_sync=%d sync=%llu", n->name, faults->full, faults->fail, faults->fail_sync,
           (unsigned long long)faults->sync_ns);
  n->disk.faults = *faults;
}

/* ---- making ---- */

void sim_disk_init(struct sim_disk *d) {
  static const char *const directories[] = {"/", "/home", "/home/node", "/tmp"};
  *d = (struct sim_disk){0};
  for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) sim_disk_add(d, directories[i], NULL);
}

void sim_disk_free(struct sim_disk *d) {
  while (d->count > 0) remove_entry(d, &d->entries[d->count - 1]);
  free(d->entries);
}

/* ---- bytes ---- */

struct sim_file *sim_file_new(void) {
  struct sim_file *f = calloc(1, sizeof *f);
  if (!f) abort();
  f->references = 1;
  return f;
}

int sim_file_append(struct sim_file *f, const void *bytes, size_t length) {
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
  char full[SIM_PATH_MAX];
  int rc = sim_path(w, path, full);
  if (rc == 0) rc = sim_disk_fault(w->node, SIM_DISK_READ);
  if (rc < 0) return rc;
  const struct sim_entry_file *e = sim_disk_find(&w->node->disk, full);
  if (!e) return sim_disk_parent(&w->node->disk, full) == -ENOTDIR ? -ENOTDIR : -ENOENT;
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

int sim_disk_put(struct sim_world *w, const char *full, const void *bytes, size_t length) {
  struct sim_disk *d = &w->node->disk;
  int rc = sim_disk_parent(d, full);
  if (rc == 0) rc = sim_disk_fault(w->node, length > 0 ? SIM_DISK_WRITE | SIM_DISK_SYNC : SIM_DISK_SYNC);
  if (rc < 0) return rc;
  struct sim_entry_file *e = sim_disk_find(d, full);
  if (e && !e->file) return -EISDIR;
  struct sim_file *f = sim_file_new();
  rc = sim_file_append(f, bytes, length);
  if (rc < 0) {
    sim_file_release(f);
    return rc;
  }
  f->synced_bytes = length;
  f->modified_ns = sim_clock_wall_ns(&w->base);
  if (e) {
    sim_file_release(e->file);
    e->file = f;
  } else {
    sim_disk_add(d, full, f);
  }
  return 0;
}

int sim_put_durable(struct shoal_world *base, const char *path, const void *bytes, size_t length) {
  struct sim_world *w = sim_world_of(base);
  char full[SIM_PATH_MAX];
  int rc = sim_path(w, path, full);
  if (rc < 0) return rc;
  if (sim_put_is_pending(w, full)) return ERR_BUSY;
  rc = sim_disk_put(w, full, bytes, length);
  /* A call takes no virtual time, so the time it would have blocked is spent right after it. */
  if (w->node->disk.faults.sync_ns > 0) sim_world_stall(w, w->node->disk.faults.sync_ns);
  return rc;
}

int sim_stat(struct shoal_world *base, const char *path, struct world_stat *out) {
  struct sim_world *w = sim_world_of(base);
  char full[SIM_PATH_MAX];
  int rc = sim_path(w, path, full);
  if (rc == 0) rc = sim_disk_fault(w->node, SIM_DISK_NAMES);
  if (rc < 0) return rc;
  const struct sim_entry_file *e = sim_disk_find(&w->node->disk, full);
  if (!e) return sim_disk_parent(&w->node->disk, full) == -ENOTDIR ? -ENOTDIR : -ENOENT;
  out->directory = !e->file;
  if (!e->file) return 0;
  out->size = e->file->length;
  out->modified_ns = e->file->modified_ns;
  return 0;
}

int sim_rename(struct shoal_world *base, const char *from, const char *to) {
  struct sim_world *w = sim_world_of(base);
  struct sim_disk *d = &w->node->disk;
  char a[SIM_PATH_MAX], b[SIM_PATH_MAX], moved[SIM_PATH_MAX];
  int rc = sim_path(w, from, a);
  if (rc == 0) rc = sim_path(w, to, b);
  if (rc == 0) rc = sim_disk_fault(w->node, SIM_DISK_NAMES);
  if (rc == 0) rc = sim_disk_parent(d, b);
  if (rc < 0) return rc;
  struct sim_entry_file *source = sim_disk_find(d, a), *target = sim_disk_find(d, b);
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
      if (is_below(d->entries[i].path, a, length) && strlen(d->entries[i].path) - length + strlen(b) + 2 > SIM_PATH_MAX)
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
    sim_disk_add(d, moved, file);
    i = 0; /* Start over: they are few, and a moved entry is no longer below `a`. */
  }
  return 0;
}

int sim_unlink(struct shoal_world *base, const char *path) {
  struct sim_world *w = sim_world_of(base);
  char full[SIM_PATH_MAX];
  int rc = sim_path(w, path, full);
  if (rc == 0) rc = sim_disk_fault(w->node, SIM_DISK_NAMES);
  if (rc < 0) return rc;
  struct sim_entry_file *e = sim_disk_find(&w->node->disk, full);
  if (!e) return -ENOENT;
  if (!e->file) return -EISDIR;
  remove_entry(&w->node->disk, e);
  return 0;
}

int sim_make_directory(struct shoal_world *base, const char *path) {
  struct sim_world *w = sim_world_of(base);
  struct sim_disk *d = &w->node->disk;
  char full[SIM_PATH_MAX];
  int rc = sim_path(w, path, full);
  if (rc == 0) rc = sim_disk_fault(w->node, SIM_DISK_NAMES);
  if (rc < 0) return rc;
  for (size_t i = 1;; i++) {
    char c = full[i];
    if (c != '/' && c != '\0') continue;
    full[i] = '\0';
    const struct sim_entry_file *e = sim_disk_find(d, full);
    if (e && e->file) return c ? -ENOTDIR : -EEXIST;
    if (!e && (rc = sim_disk_fault(w->node, SIM_DISK_WRITE)) < 0) return rc;
    if (!e) sim_disk_add(d, full, NULL);
    full[i] = c;
    if (!c) return 0;
  }
}

int sim_list(struct shoal_world *base, const char *path, void (*on_name)(void *data, const char *name), void *data) {
  struct sim_world *w = sim_world_of(base);
  struct sim_disk *d = &w->node->disk;
  char full[SIM_PATH_MAX], name[SIM_PATH_MAX];
  int rc = sim_path(w, path, full);
  if (rc == 0) rc = sim_disk_fault(w->node, SIM_DISK_NAMES);
  if (rc < 0) return rc;
  const struct sim_entry_file *e = sim_disk_find(d, full);
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
