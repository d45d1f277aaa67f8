/* Feeds files to a fuzz target as libFuzzer would, without it, for scripts/test and any compiler.
 *   fuzz_TARGET FILE|FOLDER...      prints how many inputs it took; a finding ends the program before that */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "target.h"

static size_t inputs, total;

static void feed(const char *path) {
  FILE *file = fopen(path, "rb");
  MUST(file && fseek(file, 0, SEEK_END) == 0);
  long length = ftell(file);
  MUST(length >= 0 && fseek(file, 0, SEEK_SET) == 0);
  uint8_t *bytes = malloc((size_t)length + !length); /* Exactly so long: a read past its end is seen. */
  MUST(bytes && fread(bytes, 1, (size_t)length, file) == (size_t)length);
  MUST(fclose(file) == 0);
  MUST(LLVMFuzzerTestOneInput(bytes, (size_t)length) == 0);
  free(bytes);
  inputs++, total += (size_t)length;
}

static void walk(const char *path) {
  struct stat info;
  if (stat(path, &info) != 0) {
    printf("%s: %s\n", path, strerror(errno));
    exit(1);
  }
  if (!S_ISDIR(info.st_mode)) {
    feed(path);
    return;
  }
  struct dirent **entries;
  int count = scandir(path, &entries, NULL, alphasort);
  MUST(count >= 0);
  for (int i = 0; i < count; i++) {
    char inner[4096];
    MUST((size_t)snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name) < sizeof inner);
    if (entries[i]->d_name[0] != '.') walk(inner);
    free(entries[i]);
  }
  free(entries);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) walk(argv[i]);
  MUST(inputs > 0);
  printf("ok %zu inputs, %zu bytes\n", inputs, total);
  return 0;
}
