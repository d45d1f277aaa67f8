/* MUST: an assertion of a C spec. On failure it prints the place and the condition, and ends the program. */
#ifndef SPEC_MUST_H
#define SPEC_MUST_H

#include <stdio.h>
#include <stdlib.h>

#define MUST(condition) \
  do { \
    if (!(condition)) { \
      printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1); \
    } \
  } while (0)

#endif
