#include "world/uv_family.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BYTES = 4096 };

static int open_of(pid_t pid, const char *what) {
  char path[80];
  (void)snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, what);
  return open(path, O_RDONLY | O_CLOEXEC);
}

size_t family_children(pid_t of, pid_t *out, size_t max) {
  char what[48], bytes[BYTES];
  (void)snprintf(what, sizeof what, "task/%ld/children", (long)of);
  int fd = open_of(of, what);
  if (fd < 0) return 0;
  size_t count = 0;
  pid_t pid = 0;
  for (ssize_t n; count < max && (n = read(fd, bytes, sizeof bytes)) > 0;)
    for (ssize_t i = 0; i < n && count < max; i++) {
      if (bytes[i] >= '0' && bytes[i] <= '9') {
        pid = (pid_t)(pid * 10 + (bytes[i] - '0'));
      } else if (pid > 0) {
        out[count++] = pid;
        pid = 0;
      }
    }
  (void)close(fd); /* It was only read. */
  return count;
}

size_t family_all(pid_t of, pid_t *out, size_t max) {
  size_t count = family_children(of, out, max);
  for (size_t i = 0; i < count; i++) count += family_children(out[i], out + count, max - count);
  return count;
}

bool family_state(pid_t pid, char *state, pid_t *session) {
  char bytes[512];
  int fd = open_of(pid, "stat");
  if (fd < 0) return false;
  ssize_t n = read(fd, bytes, sizeof bytes - 1);
  (void)close(fd); /* It was only read. */
  if (n <= 0) return false;
  bytes[n] = '\0';
  const char *after = strrchr(bytes, ')'); /* A name may hold anything, brackets too. */
  long sid;
  if (!after || sscanf(after + 1, " %c %*d %*d %ld", state, &sid) != 2) return false;
  *session = (pid_t)sid;
  return true;
}

bool family_has(pid_t pid, const char *text) {
  char bytes[BYTES];
  size_t wanted = strlen(text), at = 0; /* at: how much of `text` was met; wanted + 1: this entry differs. */
  int fd = open_of(pid, "environ");
  if (fd < 0) return false;
  bool found = false;
  for (ssize_t n; !found && (n = read(fd, bytes, sizeof bytes)) > 0;)
    for (ssize_t i = 0; i < n && !found; i++) {
      if (bytes[i] == '\0') at = 0;
      else if (at < wanted && bytes[i] == text[at]) found = ++at == wanted;
      else at = wanted + 1;
    }
  (void)close(fd); /* It was only read. */
  return found;
}
