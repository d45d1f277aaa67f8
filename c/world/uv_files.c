/* Files and the log of the real world. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "world/uv_private.h"

/* Returns 0, or a code; how much was written stands in *done either way. */
static int write_all(int fd, const uint8_t *bytes, size_t length, size_t *done) {
  for (*done = 0; *done < length;) {
    ssize_t n = write(fd, bytes + *done, length - *done);
    if (n >= 0) *done += (size_t)n;
    else if (errno != EINTR) return -errno;
  }
  return 0;
}

static int read_all(int fd, uint8_t *bytes, size_t length, size_t *done) {
  for (*done = 0; *done < length;) {
    ssize_t n = read(fd, bytes + *done, length - *done);
    if (n == 0) break;
    if (n > 0) *done += (size_t)n;
    else if (errno != EINTR) return -errno;
  }
  return 0;
}

/* A name is durable once its directory is. */
static int sync_parent(const char *path) {
  char parent[PATH_MAX];
  const char *slash = strrchr(path, '/');
  size_t length = slash ? (size_t)(slash - path) : 0;
  if (length >= sizeof parent) return -ENAMETOOLONG;
  memcpy(parent, path, length);
  parent[length] = '\0';
  int fd = open(length ? parent : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0; /* EINVAL: a file system without such a thing. */
  close(fd);
  return rc;
}

/* ---- whole files ---- */

/* The size a file says it has is only where to start: those of /proc say 0. */
static int read_open(int fd, size_t expected, uint8_t **bytes, size_t *length) {
  size_t capacity = expected + 1, done = 0;
  uint8_t *buffer = malloc(capacity);
  for (;;) {
    size_t n;
    if (!buffer) return ERR_MEMORY;
    int rc = read_all(fd, buffer + done, capacity - done, &n);
    done += n;
    if (rc == 0 && done > WORLD_FILE_MAX) rc = ERR_TOO_LARGE;
    if (rc < 0) {
      free(buffer);
      return rc;
    }
    if (done < capacity) break;
    capacity = capacity * 2 + 4096;
    uint8_t *grown = realloc(buffer, capacity);
    if (!grown) free(buffer);
    buffer = grown;
  }
  buffer[done] = 0; /* done < capacity. */
  *bytes = buffer;
  *length = done;
  return 0;
}

int real_read_file(struct shoal_world *w, const char *path, uint8_t **bytes, size_t *length) {
  (void)w;
  struct stat about;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int rc = fstat(fd, &about) < 0 ? -errno : 0;
  if (rc == 0 && S_ISDIR(about.st_mode)) rc = -EISDIR;
  if (rc == 0 && about.st_size > WORLD_FILE_MAX) rc = ERR_TOO_LARGE;
  if (rc == 0) rc = read_open(fd, (size_t)about.st_size, bytes, length);
  close(fd);
  return rc;
}

static int write_synced(const char *path, const void *bytes, size_t length) {
  size_t done;
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return -errno;
  int rc = write_all(fd, bytes, length, &done);
  if (rc == 0 && fsync(fd) < 0) rc = -errno;
  if (close(fd) < 0 && rc == 0) rc = -errno;
  return rc;
}

int real_put_durable(struct shoal_world *w, const char *path, const void *bytes, size_t length) {
  (void)w;
  char temporary[PATH_MAX];
  if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary) return -ENAMETOOLONG;
  int rc = write_synced(temporary, bytes, length);
  if (rc == 0 && rename(temporary, path) < 0) rc = -errno;
  if (rc < 0) {
    (void)unlink(temporary); /* What is left of it harms nobody. */
    return rc;
  }
  return sync_parent(path);
}

int real_rename(struct shoal_world *w, const char *from, const char *to) {
  (void)w;
  return rename(from, to) < 0 ? -errno : 0;
}

int real_unlink(struct shoal_world *w, const char *path) {
  (void)w;
  return unlink(path) < 0 ? -errno : 0;
}

static int make_one(const char *path) {
  struct stat about;
  if (mkdir(path, 0777) == 0) return 0;
  if (errno != EEXIST) return -errno;
  if (stat(path, &about) < 0) return -errno;
  return S_ISDIR(about.st_mode) ? 0 : -ENOTDIR;
}

int real_make_directory(struct shoal_world *w, const char *path) {
  (void)w;
  char part[PATH_MAX];
  size_t length = strlen(path);
  if (length == 0) return -ENOENT;
  if (length >= sizeof part) return -ENAMETOOLONG;
  for (size_t i = 1; i <= length; i++) {
    if (path[i] != '/' && path[i] != '\0') continue;
    memcpy(part, path, i);
    part[i] = '\0';
    int rc = make_one(part);
    if (rc < 0) return rc;
  }
  return 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

int real_list(struct shoal_world *w, const char *path, void (*on_name)(void *data, const char *name), void *data) {
  (void)w;
  struct dirent **entries;
  int count = scandir(path, &entries, NULL, by_bytes);
  if (count < 0) return -errno;
  for (int i = 0; i < count; i++) {
    const char *name = entries[i]->d_name;
    if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) on_name(data, name);
    free(entries[i]);
  }
  free(entries);
  return 0;
}

/* ---- the log ---- */

struct real_log {
  struct world_log base;
  int fd;
  uint64_t size;
  int failure; /* Once a sync or a repair failed nobody knows what is on the disk: no later success may claim it. */
  bool syncing, again;
  uint64_t syncing_size;
  uv_fs_t sync;
  struct world_log_events events;
  void *data;
  struct world_defer later; /* Reports a failed start of a sync; closes. */
};

static void start_sync(struct real_log *l);

static void log_end(struct real_log *l) {
  world_handle_closed(&l->base.handle);
  close(l->fd);
  if (l->events.on_closed) l->events.on_closed(l->data);
  free(l);
}

static void synced(struct real_log *l, int status) {
  l->syncing = false;
  if (l->base.handle.closing) {
    log_end(l);
    return;
  }
  if (status < 0 && l->failure == 0) l->failure = status;
  uint64_t size = l->syncing_size;
  if (l->again) start_sync(l); /* Before the callback, which may ask for another. */
  if (l->events.on_synced) l->events.on_synced(l->data, l->failure, size);
}

static void on_sync(uv_fs_t *request) {
  struct real_log *l = CONTAINER(request, struct real_log, sync);
  int status = (int)request->result;
  uv_fs_req_cleanup(request);
  synced(l, status);
}

static void on_later(void *data) {
  struct real_log *l = data;
  synced(l, l->failure);
}

static void start_sync(struct real_log *l) {
  struct shoal_world *w = l->base.handle.world;
  l->again = false;
  l->syncing = true;
  l->syncing_size = l->size;
  int rc = l->failure < 0 ? l->failure : uv_fs_fdatasync(real_world(w)->loop, &l->sync, l->fd, on_sync);
  if (rc == 0) return;
  l->failure = rc;
  world_defer(w, &l->later);
}

static int open_file(const char *path, int *out, uint64_t *size) {
  struct stat about;
  int flags = O_RDWR | O_APPEND | O_CLOEXEC, fd = open(path, flags), rc = 0;
  bool made = fd < 0 && errno == ENOENT;
  if (made) fd = open(path, flags | O_CREAT, 0666);
  if (fd < 0) return -errno;
  if (made) rc = sync_parent(path);
  if (rc == 0 && fstat(fd, &about) < 0) rc = -errno;
  if (rc == 0 && !S_ISREG(about.st_mode)) rc = -EINVAL;
  if (rc < 0) {
    close(fd);
    return rc;
  }
  *out = fd;
  *size = (uint64_t)about.st_size;
  return 0;
}

int real_log_open(struct shoal_world *w, const char *path, const struct world_log_events *events, void *data,
                  struct world_log **out) {
  struct real_log *l = calloc(1, sizeof *l);
  if (!l) return ERR_MEMORY;
  int rc = open_file(path, &l->fd, &l->size);
  if (rc < 0) {
    free(l);
    return rc;
  }
  l->events = *events;
  l->data = data;
  l->later = (struct world_defer){.run = on_later, .data = l};
  world_handle_opened(w, &l->base.handle);
  *out = &l->base;
  return 0;
}

int real_log_append(struct world_log *base, const void *bytes, size_t length) {
  struct real_log *l = CONTAINER(base, struct real_log, base);
  size_t done;
  if (l->failure < 0) return l->failure;
  int rc = write_all(l->fd, bytes, length, &done);
  if (rc == 0) {
    l->size += length;
    return 0;
  }
  if (done > 0 && ftruncate(l->fd, (off_t)l->size) < 0) l->failure = rc; /* Half a record stays: append no more. */
  return rc;
}

int real_log_sync(struct world_log *base) {
  struct real_log *l = CONTAINER(base, struct real_log, base);
  if (l->syncing) l->again = true;
  else start_sync(l);
  return 0;
}

int real_log_truncate(struct world_log *base, uint64_t size) {
  struct real_log *l = CONTAINER(base, struct real_log, base);
  if (size > l->size) return -EINVAL;
  if (l->failure < 0) return l->failure;
  if (ftruncate(l->fd, (off_t)size) < 0) return -errno;
  l->size = size;
  /* A sync under way may not answer for bytes that will be written in the place of those cut off. */
  if (l->syncing && l->syncing_size > size) l->syncing_size = size;
  return 0;
}

uint64_t real_log_size(const struct world_log *base) { return CONTAINER(base, struct real_log, base)->size; }

void real_log_close(struct world_log *base) {
  struct real_log *l = CONTAINER(base, struct real_log, base);
  if (l->syncing) return; /* Its end closes. */
  l->syncing = true;
  world_defer(base->handle.world, &l->later);
}
