/* Shared by the two kinds of members of membership_bench. */
#ifndef MEMBERSHIP_BENCH_H
#define MEMBERSHIP_BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "core/address.h"

#define BENCH_MUST(condition)                                                 \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

enum { BENCH_MEMBERS_MAX = 4096 };

struct bench_options {
  uint32_t port, interval_ms, timeout_ms;
  uint32_t n; /* Of the cluster: whom a bare member sends to. */
};
extern struct bench_options bench;

struct bench_kind {
  const char *name;
  void (*open)(void); /* May be NULL. */
  void (*start)(uint32_t index);
  void (*join)(uint32_t index, uint32_t seed); /* NULL: no member joins. */
  void (*kill)(uint32_t index);
  void (*table)(uint32_t index); /* NULL: it has none. */
};

void bench_say(uint32_t at, const char *what, uint32_t about);
struct shoal_address bench_address(uint32_t index);

void bare_start(uint32_t index);
void bare_kill(uint32_t index);

#endif
