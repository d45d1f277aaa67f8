/* The cost of a cluster at rest: bytes and datagrams of each member, memory of each view, and the simulator's own speed. */
#include "study.h"

static double first_bytes;

struct cost {
  double bytes, datagrams, took_s, set_up_s, pages_s, view_bytes, resident_bytes; /* Of all seeds, but the last four: of the dearest. */
};

static void rest(struct cost *cost, uint64_t seed, uint32_t count, uint32_t seconds) {
  double began_s = study_cpu_s(), kernel_s = study_kernel_s(), resident = study_resident_bytes();
  struct study_cluster *c = study_preset(seed, count);
  cost->set_up_s = fmax(cost->set_up_s, study_cpu_s() - began_s);
  cost->pages_s = fmax(cost->pages_s, study_kernel_s() - kernel_s);
  cost->view_bytes = fmax(cost->view_bytes, (study_resident_bytes() - resident) / ((double)count * count));
  study_run(c, 2 * SECOND);
  began_s = study_cpu_s();
  uint64_t bytes = c->fleet->bytes, datagrams = c->fleet->datagrams;
  study_run(c, seconds * SECOND);
  cost->took_s += study_cpu_s() - began_s;
  cost->bytes += (double)(c->fleet->bytes - bytes), cost->datagrams += (double)(c->fleet->datagrams - datagrams);
  cost->resident_bytes = fmax(cost->resident_bytes, study_resident_bytes());
  study_close(c);
}

static void study(uint32_t count, uint32_t seconds, uint32_t seeds) {
  char name[64];
  struct cost cost = {0};
  for (uint64_t seed = 1; seed <= seeds; seed++) rest(&cost, seed, count, seconds);
  double members = (double)count * seconds * seeds, rate = cost.bytes / members, sent = cost.datagrams / members;
  double speed = (double)seconds * seeds / cost.took_s;
  printf("%-7u %-8.2f %-11.3f %-13.0f %-9.2f %-6.2f %.1f\n", count, rate, sent, speed, cost.set_up_s, cost.pages_s,
         cost.view_bytes);
  (void)snprintf(name, sizeof name, "idle_bytes_%u", count);
  study_bar(name, rate, "<=", 60);
  (void)snprintf(name, sizeof name, "idle_datagrams_%u", count);
  study_bar(name, sent, "<=", 2.005);
  if (first_bytes > 0) {
    (void)snprintf(name, sizeof name, "idle_bytes_off_flat_%u", count);
    study_bar(name, fabs(rate / first_bytes - 1), "<=", 0.05);
  } else {
    first_bytes = rate;
  }
  if (count >= 1000) {
    (void)snprintf(name, sizeof name, "simulator_times_real_%u", count);
    study_bar(name, speed, ">=", count >= 10000 ? 10 : 300);
    (void)snprintf(name, sizeof name, "view_bytes_%u", count);
    study_bar(name, cost.view_bytes, "<=", 96);
  }
  if (count >= 10000) {
    study_bar("simulator_set_up_s_10000", cost.set_up_s, "<=", 10);
    study_bar("simulator_resident_gib_10000", cost.resident_bytes / (1024.0 * 1024 * 1024), "<=", 10);
  }
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"largest", 10000, "members, from 100 on in decades"}, {"seconds", 60, "of virtual time"},
                                   {"seeds", 10, "clusters of each size"}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  printf("members bytes/s  datagrams/s x_real_time   set_up_s  kernel bytes_a_view (names of 2-6 bytes)\n");
  for (uint32_t count = 100; count <= options[0].value; count *= 10) study(count, (uint32_t)options[1].value, (uint32_t)options[2].value);
  return study_short;
}
