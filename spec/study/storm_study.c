/* A tenth of the members dies at once: how long until all survivors agree, and how many bytes each of them sends a second. */
#include "study.h"

struct windows {
  uint64_t *bytes; /* Of each member in this second. */
};

static void on_send(struct study_cluster *c, uint32_t from, uint32_t to, uint8_t type, size_t length) {
  struct windows *w = c->data;
  (void)to, (void)type;
  w->bytes[from] += length;
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"n", 1000, "members"}, {"share", 0.1, "of them that dies"}, {"seeds", 10, ""}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  uint32_t count = (uint32_t)options[0].value, dying = (uint32_t)(options[1].value * count);
  struct study_samples agree = {0}, windows = {0};
  for (uint32_t seed = 1; seed <= options[2].value; seed++) {
    struct study_cluster *c = study_preset(seed, count);
    struct windows w = {.bytes = calloc(count, sizeof *w.bytes)};
    STUDY_NEED(w.bytes);
    study_run(c, 5 * SECOND);
    for (uint32_t i = 0; i < dying; i++) {
      uint32_t victim;
      do victim = (uint32_t)rng_below(&c->rng, count);
      while (!c->nodes[victim].swim);
      study_crash(c, victim);
    }
    c->data = &w, c->on_send = on_send;
    uint64_t began_ns = study_now(c), took_ns = 0;
    while (study_now(c) - began_ns < 60 * SECOND) {
      if (!took_ns && study_agree(c)) took_ns = study_now(c) - began_ns;
      study_run(c, SECOND);
      for (uint32_t i = 0; i < count; i++) {
        if (c->nodes[i].swim && !took_ns) study_add(&windows, (double)w.bytes[i]);
        w.bytes[i] = 0;
      }
    }
    study_add(&agree, took_ns ? (double)took_ns / 1e9 : INFINITY);
    free(w.bytes);
    study_close(c);
  }
  printf("members dying  agree_p50 agree_max (s)  bytes in 1 s until then: p50 p99 max\n");
  printf("%-7u %-6u %-9.1f %-14.1f %.0f %.0f %.0f\n", count, dying, study_quantile(&agree, 0.5), study_quantile(&agree, 1),
         study_quantile(&windows, 0.5), study_quantile(&windows, 0.99), study_quantile(&windows, 1));
  study_bar("storm_agree_s", study_quantile(&agree, 1), "<=", 30);
  study_bar("storm_bytes_p99", study_quantile(&windows, 0.99), "<=", 4096);
  study_clear(&agree), study_clear(&windows);
  return study_short;
}
