/* Files of the real world. */
#include <assert.h>
#include <dirent.h>
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

/* Returns 0, or a code; how much was written stands in *done either way. */
int write_all(int fd, const uint8_t *bytes, size_t length, size_t *done) {
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
int sync_parent(const char *path) {
  char parent[PATH_MAX];
  const char *slash = strrchr(path, '/');
  size_t length = slash ? (size_t)(slash - path) : 0;
  if (length >= sizeof parent) return -ENAMETOOLONG;
  memcpy(parent, path, length);
  parent[length] = '\0';
  int fd = open(length ? parent : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0; /* EINVAL: a file system that cannot sync folders. */
  close(fd);
  return rc;
}

/* ---- whole files ---- */

/* The size from fstat is only a first guess: files of /proc say 0. */
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

/* The temporary file, empty and locked: ERR_BUSY while another process writes it. Whoever held the lock before may have renamed the
 * file since it was opened here; then the name is opened again. */
static int open_temporary(const char *path, int *out) {
  struct stat mine, there;
  for (int tries = 0; tries < 8; tries++) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) return -errno;
    int rc = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno == EWOULDBLOCK ? ERR_BUSY : -errno;
    if (rc == 0 && fstat(fd, &mine) < 0) rc = -errno;
    bool same = rc == 0 && stat(path, &there) == 0 && mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
    if (same && ftruncate(fd, 0) < 0) rc = -errno;
    if (same && rc == 0) {
      *out = fd;
      return 0;
    }
    close(fd);
    if (rc < 0) return rc;
  }
  return ERR_BUSY;
}

int put_through(const char *temporary, const char *path, const void *bytes, size_t length) {
  size_t done;
  int fd, rc = open_temporary(temporary, &fd);
  if (rc < 0) return rc;
  rc = write_all(fd, bytes, length, &done);
  if (rc == 0 && fsync(fd) < 0) rc = -errno;
  if (rc == 0 && rename(temporary, path) < 0) rc = -errno;
  if (rc < 0) (void)unlink(temporary); /* A leftover does no harm. */
  if (close(fd) < 0 && rc == 0) rc = -errno; /* The last thing: it ends the lock. */
  return rc < 0 ? rc : sync_parent(path);
}

int real_put_durable(struct shoal_world *w, const char *path, const void *bytes, size_t length) {
  char temporary[PATH_MAX];
  if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary) return -ENAMETOOLONG;
  if (put_is_pending(real_world(w), path)) return ERR_BUSY;
  return put_through(temporary, path, bytes, length);
}

int real_stat(struct shoal_world *w, const char *path, struct world_stat *out) {
  (void)w;
  struct stat about;
  if (stat(path, &about) < 0) return -errno;
  out->directory = S_ISDIR(about.st_mode);
  out->size = out->directory ? 0 : (uint64_t)about.st_size;
  out->modified_ns = (int64_t)about.st_mtim.tv_sec * 1000000000 + about.st_mtim.tv_nsec;
  return 0;
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

int real_make_private(struct shoal_world *w, const char *path) {
  (void)w;
  return mkdir(path, 0700) < 0 ? -errno : 0;
}

/* Not readdir: its buffer of 32 KiB would cost as much as all the rest. */
static int check_open(int fd) {
  struct stat about;
  _Alignas(struct dirent64) char bytes[1024];
  if (fstat(fd, &about) < 0) return -errno;
  if ((about.st_mode & 07777) != 0700 || about.st_uid != geteuid()) return -EPERM;
  for (ssize_t n; (n = getdents64(fd, bytes, sizeof bytes)) != 0;) {
    if (n < 0) return -errno;
    for (ssize_t at = 0; at < n;) {
      const struct dirent64 *entry = (const void *)(bytes + at);
      if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) return -ENOTEMPTY;
      at += entry->d_reclen;
    }
  }
  return 0;
}

int real_check_private(struct shoal_world *w, const char *path) {
  (void)w;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -errno;
  int rc = check_open(fd);
  close(fd);
  return rc;
}

int real_remove_directory(struct shoal_world *w, const char *path) {
  (void)w;
  return rmdir(path) < 0 ? -errno : 0;
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
