#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "host/host.h"

/* `file` without its last `levels` parts, then `tail`; true when it holds lua/shoal. */
static int beside(const char *file, int levels, const char *tail, char *out, size_t size) {
  char path[PATH_MAX], probe[PATH_MAX + 16];
  if (!realpath(file, path)) return 0;
  while (levels-- > 0) {
    char *slash = strrchr(path, '/');
    if (!slash) return 0;
    *slash = '\0';
  }
  if ((size_t)snprintf(out, size, "%s/%s", path, tail) >= size) return 0;
  if ((size_t)snprintf(probe, sizeof probe, "%s/lua/shoal", out) >= sizeof probe) return 0;
  return access(probe, R_OK) == 0;
}

void host_home(char *out, size_t size) {
  const char *set = getenv("SHOAL_HOME");
  if (set && *set) {
    (void)snprintf(out, size, "%s", set); /* A path that was cut short does not exist: the first require reports it. */
    return;
  }
  if (beside("/proc/self/exe", 2, "share/shoal", out, size)) return; /* bin/shoal */
  Dl_info info;
  if (dladdr((void *)(uintptr_t)host_home, &info) && info.dli_fname && beside(info.dli_fname, 4, "share/shoal", out, size))
    return; /* lib/lua/5.4/shoal.so */
  (void)snprintf(out, size, "%s", SHOAL_SOURCE_DIR);
}

void host_program(char *out, size_t size) {
  char path[PATH_MAX];
  if (realpath("/proc/self/exe", path)) {
    const char *slash = strrchr(path, '/');
    if (slash && strcmp(slash, "/shoal") == 0) {
      (void)snprintf(out, size, "%s", path);
      return;
    }
  }
  Dl_info info;
  static const struct { int levels; const char *tail; } places[] = {{2, "bin/shoal"}, {4, "bin/shoal"}};
  if (dladdr((void *)(uintptr_t)host_program, &info) && info.dli_fname && realpath(info.dli_fname, path))
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) { /* build/X/lib/shoal.so; lib/lua/5.4/shoal.so */
      char base[PATH_MAX];
      (void)snprintf(base, sizeof base, "%s", path);
      for (int up = places[i].levels; up > 0; up--) {
        char *slash = strrchr(base, '/');
        if (slash) *slash = '\0';
      }
      if ((size_t)snprintf(out, size, "%s/%s", base, places[i].tail) < size && access(out, X_OK) == 0) return;
    }
  (void)snprintf(out, size, "shoal"); /* From PATH; a spawn that does not find it reports that. */
}

uint64_t host_seed(void) {
  uint64_t seed = 0;
  ssize_t got;
  do got = getrandom(&seed, sizeof seed, 0);
  while (got < 0 && errno == EINTR);
  assert(got == (ssize_t)sizeof seed); /* getrandom(2) never returns fewer of so few bytes. */
  return seed;
}
