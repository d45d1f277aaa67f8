#include "host/guard.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "world/guard.h"
#include "world/uv_family.h"

enum { ROUNDS = 200, ROUND_MS = 10 };

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

static void pause_round(void) {
  (void)nanosleep(&(struct timespec){.tv_nsec = ROUND_MS * 1000000L}, NULL); /* Woken early, the next round only comes sooner. */
}

static bool is_group(uint32_t id) { return getpgid((pid_t)id) == (pid_t)id; }

/* A keeper ends with what it kept, so its own group comes last. */
static void kill_all(void) {
  pid_t pids[FAMILY_MAX];
  for (int round = 0; round < ROUNDS; round++) {
    size_t alive = 0;
    for (size_t i = 0; i < groups.count; i++) {
      size_t count = is_group(groups.ids[i]) ? family_all((pid_t)groups.ids[i], pids, FAMILY_MAX) : 0;
      for (size_t at = 0; at < count; at++) (void)kill(pids[at], SIGKILL); /* It may have ended by now. */
      alive += count;
    }
    if (alive == 0) break;
    pause_round();
  }
  for (size_t i = 0; i < groups.count; i++)
    if (kill(-(pid_t)groups.ids[i], SIGKILL) < 0 && errno != ESRCH) perror("shoal guard: kill");
}

/* Returns how many it found. */
static size_t kill_marked(const char *mark) {
  size_t found = 0;
  DIR *table = opendir("/proc");
  if (!table) return 0;
  for (const struct dirent *entry; (entry = readdir(table));) {
    long pid = strtol(entry->d_name, NULL, 10);
    char state;
    pid_t session;
    if (pid < 2 || pid == getpid() || !family_has((pid_t)pid, mark) || !family_state((pid_t)pid, &state, &session) || state == 'Z') continue;
    (void)kill((pid_t)pid, SIGKILL); /* It may have ended by now. */
    found++;
  }
  (void)closedir(table); /* It was only read. */
  return found;
}

int guard_main(const char *word) {
  char mark[128];
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
  (void)snprintf(mark, sizeof mark, GUARD_MARK "%s", word);
  for (int round = 0; round < ROUNDS && *word && kill_marked(mark) > 0; round++)
    pause_round();
  free(groups.ids);
  return EXIT_SUCCESS;
}
