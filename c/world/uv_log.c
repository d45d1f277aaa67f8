/* The log, puts off the loop, and locks of the real world. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "world/uv_private.h"

/* ---- the log ---- */

struct real_log {
  struct world_log base;
  int fd;
  uint64_t size;
  int failure; /* After a failed sync or repair the content of the disk is unknown: no later sync may report success. */
  bool syncing, again;
  uint64_t syncing_size;
  uv_work_t sync;
  int sync_status; /* Written by the worker. */
  char *path;
  struct world_log_events events;
  void *data;
  struct world_defer later; /* Reports a failed start of a sync; closes. */
};

static void start_sync(struct real_log *l);

static void log_end(struct real_log *l) {
  world_handle_closed(&l->base.handle);
  close(l->fd);
  if (l->events.on_closed) l->events.on_closed(l->data);
  free(l->path);
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

/* Is the open file still the one at its path? When its folder was removed or the file replaced, the kernel accepts all later writes
 * without an error, and they are lost. */
static int check_place(int fd, const char *path) {
  struct stat open_one, there;
  if (fstat(fd, &open_one) < 0) return -errno;
  if (open_one.st_nlink == 0) return ERR_GONE;
  if (stat(path, &there) < 0) return errno == ENOENT || errno == ENOTDIR ? ERR_GONE : -errno;
  return there.st_dev == open_one.st_dev && there.st_ino == open_one.st_ino ? 0 : ERR_GONE;
}

static void do_sync(uv_work_t *work) { /* In a worker thread. */
  struct real_log *l = CONTAINER(work, struct real_log, sync);
  l->sync_status = fdatasync(l->fd) < 0 ? -errno : check_place(l->fd, l->path);
}

static void on_sync(uv_work_t *work, int status) {
  struct real_log *l = CONTAINER(work, struct real_log, sync);
  synced(l, status < 0 ? status : l->sync_status);
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
  int rc = l->failure < 0 ? l->failure : uv_queue_work(real_world(w)->loop, &l->sync, do_sync, on_sync);
  if (rc == 0) return;
  l->failure = rc;
  world_defer(w, &l->later);
}

static int open_file(struct real_log *l, const char *path) {
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
  l->fd = fd;
  l->size = (uint64_t)about.st_size;
  return 0;
}

int real_log_open(struct shoal_world *w, const char *path, const struct world_log_events *events, void *data,
                  struct world_log **out) {
  struct real_log *l = calloc(1, sizeof *l);
  if (!l) return ERR_MEMORY;
  l->path = strdup(path);
  int rc = l->path ? open_file(l, path) : ERR_MEMORY;
  if (rc < 0) {
    free(l->path);
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
  if (done > 0 && ftruncate(l->fd, (off_t)l->size) < 0) l->failure = rc; /* Half a record is left in the file: append no more. */
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
  /* A sync under way does not cover bytes that will be written in place of those cut off. */
  if (l->syncing && l->syncing_size > size) l->syncing_size = size;
  return 0;
}

uint64_t real_log_size(const struct world_log *base) { return CONTAINER(base, struct real_log, base)->size; }

void real_log_close(struct world_log *base) {
  struct real_log *l = CONTAINER(base, struct real_log, base);
  if (l->syncing) return; /* The end of the sync closes it. */
  l->syncing = true;
  world_defer(base->handle.world, &l->later);
}

/* ---- puts off the loop ---- */

struct real_put {
  struct world_put base;
  struct real_put *next, *previous; /* Of its world. */
  uv_work_t work;
  int status; /* Written by the worker. */
  char *path, *temporary;
  const void *bytes;
  size_t length;
  void (*on_done)(void *data, int status);
  world_closed_fn *on_closed;
  void *data;
};

bool put_is_pending(const struct real_world *w, const char *path) {
  for (const struct real_put *p = w->puts; p; p = p->next)
    if (strcmp(p->path, path) == 0) return true;
  return false;
}

static void link_put(struct real_world *w, struct real_put *p) {
  p->next = w->puts;
  if (p->next) p->next->previous = p;
  w->puts = p;
  w->puts_count++;
}

static void unlink_put(struct real_world *w, struct real_put *p) {
  if (p->next) p->next->previous = p->previous;
  if (p->previous) p->previous->next = p->next;
  else w->puts = p->next;
  w->puts_count--;
}

static void free_put(struct real_put *p) {
  free(p->path);
  free(p->temporary);
  free(p);
}

static void do_put(uv_work_t *work) { /* In a worker thread. */
  struct real_put *p = CONTAINER(work, struct real_put, work);
  p->status = put_through(p->temporary, p->path, p->bytes, p->length);
}

static void on_put(uv_work_t *work, int status) {
  struct real_put *p = CONTAINER(work, struct real_put, work);
  unlink_put(real_world(p->base.handle.world), p); /* on_done may put the same path again. */
  bool early = p->base.handle.closing;
  p->base.handle.closing = true; /* It closes by itself: only on_closed follows. */
  if (!early) p->on_done(p->data, status < 0 ? status : p->status);
  world_handle_closed(&p->base.handle);
  if (p->on_closed) p->on_closed(p->data);
  free_put(p);
}

int real_put_later(struct shoal_world *base, const char *path, const void *bytes, size_t length,
                   void (*on_done)(void *data, int status), world_closed_fn *on_closed, void *data, struct world_put **out) {
  struct real_world *w = real_world(base);
  if (strlen(path) + sizeof ".later" > PATH_MAX) return -ENAMETOOLONG;
  if (put_is_pending(w, path)) return ERR_BUSY;
  if (w->puts_count >= WORLD_PUTS_MAX) return ERR_FULL;
  struct real_put *p = calloc(1, sizeof *p);
  if (!p) return ERR_MEMORY;
  p->path = strdup(path);
  /* Not the temporary name of world_put_durable, which may run for another spelling of this path. */
  if (!p->path || asprintf(&p->temporary, "%s.later", path) < 0) {
    p->temporary = NULL;
    free_put(p);
    return ERR_MEMORY;
  }
  p->bytes = bytes;
  p->length = length;
  p->on_done = on_done;
  p->on_closed = on_closed;
  p->data = data;
  int rc = uv_queue_work(w->loop, &p->work, do_put, on_put);
  if (rc < 0) {
    free_put(p);
    return rc;
  }
  link_put(w, p);
  world_handle_opened(base, &p->base.handle);
  *out = &p->base;
  return 0;
}

void real_put_close(struct world_put *base) {
  struct real_put *p = CONTAINER(base, struct real_put, base);
  (void)uv_cancel((uv_req_t *)&p->work); /* -EBUSY when it runs; on_put comes either way. */
}

/* ---- locks: flock belongs to the open file, which our children do not get (O_CLOEXEC) ---- */

/* The process that holds a flock of this file, by the kernel's list; 0 when it is not there (another namespace, another system). */
static int find_holder(int fd) {
  struct stat about;
  char line[256];
  int holder = 0;
  FILE *list = fopen("/proc/locks", "re");
  if (!list) return 0;
  while (fstat(fd, &about) == 0 && holder == 0 && fgets(line, sizeof line, list)) {
    char kind[16];
    int pid;
    unsigned long inode; /* Of the device the list gives other numbers than stat does on some file systems. */
    if (sscanf(line, "%*d: %15s %*s %*s %d %*x:%*x:%lu", kind, &pid, &inode) == 3 && strcmp(kind, "FLOCK") == 0 && inode == about.st_ino)
      holder = pid > 0 ? pid : 0;
  }
  fclose(list);
  return holder;
}

int real_log_lock(struct world_log *base, int *holder) {
  const struct real_log *l = CONTAINER(base, struct real_log, base);
  if (flock(l->fd, LOCK_EX | LOCK_NB) == 0) return 0;
  if (errno != EWOULDBLOCK) return -errno;
  *holder = find_holder(l->fd);
  return ERR_BUSY;
}

struct real_lock {
  struct world_lock base;
  int fd;
  char *path;
  world_closed_fn *on_closed;
  void *data;
  struct world_defer closed;
};

static void on_lock_closed(void *data) {
  struct real_lock *l = data;
  world_handle_closed(&l->base.handle);
  if (l->on_closed) l->on_closed(l->data);
  free(l->path);
  free(l);
}

static int read_holder(int fd) {
  char text[16] = "";
  ssize_t length = pread(fd, text, sizeof text - 1, 0);
  if (length <= 0) return 0;
  long pid = strtol(text, NULL, 10);
  return pid > 0 && pid <= INT_MAX ? (int)pid : 0;
}

static void write_holder(int fd) {
  size_t done;
  char text[16];
  int length = snprintf(text, sizeof text, "%d\n", (int)getpid());
  /* The pid serves only the message of a refused process: on a full disk the lock holds without it. */
  if (ftruncate(fd, 0) == 0) (void)write_all(fd, (const uint8_t *)text, (size_t)length, &done);
}

static int take_lock(const char *path, int *holder, int *out) {
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return -errno;
  int rc = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
  if (rc == 0) {
    write_holder(fd);
    *out = fd;
    return 0;
  }
  if (rc == -EWOULDBLOCK) {
    *holder = read_holder(fd);
    rc = ERR_BUSY;
  }
  close(fd);
  return rc;
}

int real_lock(struct shoal_world *w, const char *path, world_closed_fn *on_closed, void *data, int *holder,
              struct world_lock **out) {
  struct real_lock *l = calloc(1, sizeof *l);
  if (!l) return ERR_MEMORY;
  l->path = strdup(path);
  int rc = l->path ? take_lock(path, holder, &l->fd) : ERR_MEMORY;
  if (rc < 0) {
    free(l->path);
    free(l);
    return rc;
  }
  l->on_closed = on_closed;
  l->data = data;
  l->closed = (struct world_defer){.run = on_lock_closed, .data = l};
  world_handle_opened(w, &l->base.handle);
  *out = &l->base;
  return 0;
}

void real_lock_close(struct world_lock *base) {
  struct real_lock *l = CONTAINER(base, struct real_lock, base);
  close(l->fd); /* At once, so that it can be locked again in this turn. */
  world_defer(base->handle.world, &l->closed);
}

int real_lock_check(const struct world_lock *base) {
  const struct real_lock *l = CONTAINER(base, const struct real_lock, base);
  return check_place(l->fd, l->path);
}
