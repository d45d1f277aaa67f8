#include "host/guard.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "world/guard.h"

/* Groups that run now. Few: a worker has at most one a core. */
static struct {
  uint32_t *ids;
  size_t count, room;
} groups;

static int add(uint32_t id) {
  if (groups.count == groups.room) {
    size_t room = groups.room ? groups.room * 2 : 64;
    uint32_t *grown = realloc(groups.ids, room * sizeof *grown);
    if (!grown) return -1;
    groups.ids = grown;
    groups.room = room;
  }
  groups.ids[groups.count++] = id;
  return 0;
}

static void drop(uint32_t id) {
  for (size_t i = 0; i < groups.count; i++)
    if (groups.ids[i] == id) {
      groups.ids[i] = groups.ids[--groups.count];
      return;
    }
}

static uint32_t read_u32(const uint8_t *bytes) {
  return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int take(const uint8_t record[GUARD_RECORD_BYTES]) {
  uint32_t id = read_u32(record);
  if (id < 2 || id > INT32_MAX) return 0; /* A kill of group 0, or of -1, is for others. */
  if (read_u32(record + 4) != 0) return add(id);
  drop(id);
  return 0;
}

static void kill_all(void) {
  for (size_t i = 0; i < groups.count; i++)
    if (kill(-(pid_t)groups.ids[i], SIGKILL) < 0 && errno != ESRCH) perror("shoal guard: kill");
}

int guard_main(void) {
  static const int stops[] = {SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGPIPE};
  uint8_t bytes[64 * GUARD_RECORD_BYTES];
  size_t length = 0;
  for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
    if (signal(stops[i], SIG_IGN) == SIG_ERR) perror("shoal guard: signal"); /* Its end is that of the pipe. */
  if (chdir("/") < 0) perror("shoal guard: chdir"); /* It would only keep the folder busy. */
  (void)close(1); /* It has nothing to say there, and others may wait for the end of it. */
  for (;;) {
    ssize_t n = read(0, bytes + length, sizeof bytes - length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    length += (size_t)n;
    size_t at = 0;
    for (; length - at >= GUARD_RECORD_BYTES; at += GUARD_RECORD_BYTES)
      if (take(bytes + at) < 0) return EXIT_FAILURE; /* Out of memory: the worker sees our exit and starts another guard. */
    for (size_t i = at; i < length; i++) bytes[i - at] = bytes[i];
    length -= at;
  }
  kill_all();
  free(groups.ids);
  return EXIT_SUCCESS;
}
