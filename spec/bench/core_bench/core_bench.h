/* core_bench: the parts of the program that spec/bench/core.lua runs, one file each. A part prints a table and its bars. */
#ifndef SHOAL_CORE_BENCH_H
#define SHOAL_CORE_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BENCH_MUST(condition)                                                 \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(2);                                                                \
    }                                                                         \
  } while (0)

/* `bar NAME FIGURE want RELATION BOUND ok|short`; a short one makes the program exit with 1. `relation` is "<=" or ">=". */
void bench_bar(const char *name, double figure, const char *relation, double bound);
/* CPU time of this process, in ns: other processes of the machine do not enter. */
uint64_t bench_cpu_ns(void);
/* Keep the compiler from leaving out what only a bench computes. */
void bench_keep(uint64_t value);
/* A random order of 0 .. count - 1; the caller frees it. */
uint32_t *bench_order(uint32_t count, uint64_t seed);

/* Each row is measured in several rounds, and the least is printed: what disturbs a round only adds. */
struct bench_row {
  const char *name;
  double ns[3]; /* Per operation, at bench_sizes. */
};
extern const uint32_t bench_sizes[3]; /* 1,000, 100,000 and 1,000,000. */
void bench_print_head(const char *what);
void bench_print_row(const struct bench_row *row);
/* The greatest of the three over the least of them. */
double bench_spread(const struct bench_row *row);

/* The parts. `quick`: fewer rounds, figures that mean nothing. */
void bench_lease(bool quick);
void bench_detector(bool quick);
void bench_federation(bool quick);

#endif
