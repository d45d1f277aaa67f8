#include "core/errors.h"

#include <stddef.h>
#include <string.h>

static const struct {
  const char *name, *text;
} table[] = {
#define ENTRY(name, text) {#name, text},
    SHOAL_ERRORS(ENTRY)
#undef ENTRY
};

static int ours(int code) { return code > SHOAL_ERROR_BASE && code < SHOAL_ERROR_END; }

const char *error_name(int code) {
  if (ours(code)) return table[code - SHOAL_ERROR_BASE - 1].name;
  const char *name = code < 0 ? strerrorname_np(-code) : NULL;
  return name ? name : "UNKNOWN_CODE";
}

const char *error_text(int code) {
  if (ours(code)) return table[code - SHOAL_ERROR_BASE - 1].text;
  const char *text = code < 0 ? strerrordesc_np(-code) : NULL;
  return text ? text : "a code nobody gave a text";
}

int error_from_name(const char *name) {
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (strcmp(table[i].name, name) == 0) return SHOAL_ERROR_BASE + 1 + (int)i;
  for (int number = 1; number < 200; number++) {
    const char *known = strerrorname_np(number);
    if (known && strcmp(known, name) == 0) return -number;
  }
  return 0;
}
