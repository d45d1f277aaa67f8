/* Copy a folder of the real disk onto a simulated machine's. */
#include "host/sim_driver.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { FILE_MAX = 16 * 1024 * 1024 };

static int copy_file(struct shoal_world *world, const char *from, const char *to) {
  FILE *file = fopen(from, "rb");
  if (!file) return -errno;
  char *bytes = malloc(FILE_MAX);
  int rc = bytes ? 0 : ERR_MEMORY;
  if (rc == 0) {
    size_t length = fread(bytes, 1, FILE_MAX, file);
    if (ferror(file)) rc = -EIO;
    else if (length == FILE_MAX) rc = ERR_TOO_LARGE;
    else rc = world_put_durable(world, to, bytes, length);
  }
  free(bytes);
  (void)fclose(file); /* It was only read. */
  return rc;
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

int driver_copy_folder(struct machine *m, const char *from, const char *to) {
  struct shoal_world *world = sim_node_world(m->sim);
  struct dirent **entries;
  if (!world) return ERR_CLOSED;
  int count = scandir(from, &entries, is_visible, alphasort);
  if (count < 0) return -errno;
  int rc = world_make_directory(world, to);
  for (int i = 0; i < count; i++) {
    char source[4352], target[4352];
    struct stat about;
    bool fits = (size_t)snprintf(source, sizeof source, "%s/%s", from, entries[i]->d_name) < sizeof source &&
                (size_t)snprintf(target, sizeof target, "%s/%s", to, entries[i]->d_name) < sizeof target;
    free(entries[i]);
    if (rc < 0) continue;
    if (!fits) rc = ERR_TOO_LARGE;
    else if (stat(source, &about) < 0) rc = -errno;
    else if (S_ISDIR(about.st_mode)) rc = driver_copy_folder(m, source, target);
    else if (S_ISREG(about.st_mode)) rc = copy_file(world, source, target);
  }
  free(entries);
  return rc;
}
