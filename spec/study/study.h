/* Shared by the studies of membership: fleets of core/swim on the simulated world without Lua states, options, tables and bars.
 *
 * A study checks statistics, not invariants (spec/c/swim_net.h does those), so clusters of 10,000 run here. The seed determines a run.
 * Every field of the configuration is an option too: --suspicion_max=4. */
#ifndef STUDY_H
#define STUDY_H

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/errors.h"
#include "core/rng.h"
#include "core/swim_private.h"
#include "drive/fleet.h"
#include "world/sim.h"

#define SECOND UINT64_C(1000000000)
#define MILLISECOND UINT64_C(1000000)
#define STUDY_NEED(condition) study_need((condition), #condition, __FILE__, __LINE__)

static inline void study_need(bool held, const char *text, const char *file, int line) {
  if (held) return;
  printf("FAILED %s:%d: %s\n", file, line, text);
  exit(2);
}

/* ---- options: --name=number ---- */

struct study_option {
  const char *name;
  double value;
  const char *doc;
};
static struct { uint32_t value; bool given; size_t offset; const char *name; } study_fields[] = {
#define FIELD(name) {0, false, offsetof(struct swim_config, name), #name}
    FIELD(probe_interval_ms), FIELD(probe_timeout_ms), FIELD(indirect_probes), FIELD(ping_repeats),
    FIELD(health_max), FIELD(buddy), FIELD(verify_deaths), FIELD(gossip_interval_ms), FIELD(gossip_fanout),
    FIELD(retransmit_multiplier), FIELD(gossip_bytes_per_s), FIELD(suspicion_multiplier),
    FIELD(suspicion_max), FIELD(confirmations), FIELD(sync_interval_ms), FIELD(flap_limit), FIELD(flap_half_life_ms),
#undef FIELD
};
enum { STUDY_FIELDS = sizeof study_fields / sizeof *study_fields };

static inline void study_usage(const char *program, const struct study_option *options, size_t count) {
  printf("%s [--name=number ...]\n", program);
  for (size_t i = 0; i < count; i++) printf("  --%s=%g  %s\n", options[i].name, options[i].value, options[i].doc);
  printf("and any field of the configuration, such as --suspicion_max=4\n");
  exit(2);
}

static inline void study_options(int argc, char **argv, struct study_option *options, size_t count) {
  for (int a = 1; a < argc; a++) {
    const char *text = argv[a], *equals = strchr(text, '=');
    bool known = false;
    size_t length = equals ? (size_t)(equals - text) : 0;
    for (size_t i = 0; i < count && length > 2; i++)
      if (strlen(options[i].name) == length - 2 && strncmp(text + 2, options[i].name, length - 2) == 0)
        options[i].value = atof(equals + 1), known = true;
    for (size_t i = 0; i < STUDY_FIELDS && length > 2; i++)
      if (strlen(study_fields[i].name) == length - 2 && strncmp(text + 2, study_fields[i].name, length - 2) == 0)
        study_fields[i].value = (uint32_t)atoi(equals + 1), study_fields[i].given = true, known = true;
    if (!known) study_usage(argv[0], options, count);
  }
}

/* A row of a study: this field has this value, unless the command line says otherwise. */
static inline void study_set(struct swim_config *config, const char *name, uint32_t value) {
  for (size_t i = 0; i < STUDY_FIELDS; i++) {
    if (strcmp(study_fields[i].name, name) != 0) continue;
    if (!study_fields[i].given) memcpy((char *)config + study_fields[i].offset, &value, sizeof value);
    return;
  }
  STUDY_NEED(!"a field of the configuration that study_fields does not list");
}

/* ---- runs on several cores ---- */

/* Memory that children write and the parent reads. */
static inline void *study_share(size_t size) {
  void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  STUDY_NEED(at != MAP_FAILED);
  return at;
}

/* Run work(data, task) for each task below `tasks`, in `jobs` processes; it writes its results to memory of study_share. The seed
 * determines a run, so the figures are the same for any number of jobs. */
static inline void study_each(unsigned jobs, uint64_t tasks, void (*work)(void *data, uint64_t task), void *data) {
  uint64_t *next = study_share(sizeof *next), task;
  fflush(stdout);
  for (unsigned job = 1; job < jobs; job++) {
    pid_t child = fork();
    STUDY_NEED(child >= 0);
    if (child > 0) continue;
    while ((task = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < tasks) work(data, task);
    fflush(stdout);
    _exit(0);
  }
  while ((task = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < tasks) work(data, task);
  for (unsigned job = 1; job < jobs; job++) {
    int status;
    STUDY_NEED(wait(&status) > 0);
    STUDY_NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  munmap(next, sizeof *next);
}

/* ---- bars ---- */

static int study_short;
static inline void study_bar(const char *name, double figure, const char *relation, double bound) {
  bool ok = strcmp(relation, "<=") == 0 ? figure <= bound : figure >= bound;
  if (!ok) study_short = 1;
  printf("bar %s %.4g want %s %.4g %s\n", name, figure, relation, bound, ok ? "ok" : "short");
  fflush(stdout);
}

/* ---- samples ---- */

struct study_samples {
  double *at;
  size_t count, capacity;
};
static inline void study_add(struct study_samples *s, double value) {
  if (s->count == s->capacity) {
    s->capacity = s->capacity ? 2 * s->capacity : 1024;
    s->at = realloc(s->at, s->capacity * sizeof *s->at);
    STUDY_NEED(s->at);
  }
  s->at[s->count++] = value;
}
static inline int study_compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
/* The nearest-rank quantile; sorts. */
static inline double study_quantile(struct study_samples *s, double q) {
  if (s->count == 0) return NAN;
  qsort(s->at, s->count, sizeof *s->at, study_compare);
  size_t rank = (size_t)ceil(q * (double)s->count);
  return s->at[rank ? rank - 1 : 0];
}
static inline double study_mean(const struct study_samples *s) {
  double sum = 0;
  for (size_t i = 0; i < s->count; i++) sum += s->at[i];
  return s->count ? sum / (double)s->count : NAN;
}
static inline void study_clear(struct study_samples *s) {
  free(s->at);
  *s = (struct study_samples){0};
}

static inline double study_cpu_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static inline double study_kernel_s(void) { /* Of it, in the kernel: mostly to give memory. */
  struct rusage usage;
  (void)getrusage(RUSAGE_SELF, &usage); /* It cannot fail. */
  return (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
}
/* Of this process now, from the kernel. */
static inline double study_resident_bytes(void) {
  FILE *f = fopen("/proc/self/statm", "r");
  long pages = 0;
  if (f) {
    if (fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
    fclose(f);
  }
  return (double)pages * 4096;
}

/* ---- clusters: a fleet (c/drive/fleet.h), and operations on it ---- */

struct study_withheld { /* A datagram of a member that neither reads nor sends. */
  struct study_withheld *next;
  struct fleet_datagram datagram; /* Its bytes follow. */
  uint8_t bytes[];
};
struct study_line {
  bool on;
  struct study_withheld *first, **end;
};
struct study_cluster {
  struct fleet *fleet;
  struct sim *sim;           /* These three are the fleet's. */
  struct fleet_node *nodes;
  uint32_t count;
  struct rng rng; /* The study's own draws. */
  struct sim_link link;
  struct study_line *lines; /* By member. */
  bool held; /* In on_event: whether the event's member is held. */
  void (*on_send)(struct study_cluster *c, uint32_t from, uint32_t to, uint8_t type, size_t length);
  void (*on_event)(struct study_cluster *c, uint32_t at, enum swim_event event, uint32_t subject);
  void *data;
};

static inline uint64_t study_now(const struct study_cluster *c) { return sim_now_ns(c->sim); }

static inline void study_sent(struct fleet *f, uint32_t from, uint32_t to, const uint8_t *bytes, size_t length) {
  struct study_cluster *c = f->data;
  if (c->on_send) c->on_send(c, from, to, bytes[2] & 15, length);
}

static inline void study_event(struct fleet *f, uint32_t at, const struct swim_action *a, uint32_t subject) {
  struct study_cluster *c = f->data;
  c->held = a->member.held;
  if (c->on_event) c->on_event(c, at, a->event, subject);
}

static inline bool study_withhold(struct fleet *f, const struct fleet_datagram *d) {
  struct study_line *line = &((struct study_cluster *)f->data)->lines[d->at];
  if (!line->on) return false;
  struct study_withheld *w = malloc(sizeof *w + d->length);
  STUDY_NEED(w);
  *w = (struct study_withheld){.datagram = *d};
  memcpy(w->bytes, d->bytes, d->length);
  w->datagram.bytes = w->bytes;
  *line->end = w;
  line->end = &w->next;
  return true;
}

/* Block a member: it reads nothing and sends nothing, though its timers run. At the end all datagrams come, in order and late. */
static inline void study_hold(struct study_cluster *c, uint32_t at, bool on) {
  struct study_line *line = &c->lines[at];
  if (line->on == on) return;
  struct study_withheld *w = line->first, *next;
  *line = (struct study_line){.on = on, .end = &line->first};
  for (; w; w = next) {
    next = w->next;
    fleet_pass(c->fleet, &w->datagram);
    free(w);
  }
}

static inline void study_join(struct study_cluster *c, uint32_t at, uint32_t seed) { STUDY_NEED(fleet_join(c->fleet, at, seed) == 0); }
static inline void study_crash(struct study_cluster *c, uint32_t at) { fleet_crash(c->fleet, at); }
static inline void study_start(struct study_cluster *c, uint32_t at) { STUDY_NEED(fleet_restart(c->fleet, at) == 0); } /* A new life. */

/* A study's own changes to each cluster's configuration, by study_set. */
static void (*study_configure)(void *data, struct swim_config *config);
static void *study_configure_data;

static inline struct study_cluster *study_open(uint64_t seed, uint32_t count, bool acquainted) {
  struct study_cluster *c = calloc(1, sizeof *c);
  struct swim_config config;
  STUDY_NEED(c && (c->lines = calloc(count, sizeof *c->lines)));
  rng_seed(&c->rng, seed);
  c->link = (struct sim_link){.latency_ns = 500000, .jitter_ns = 500000};
  STUDY_NEED(swim_config_profile("lan", &config) == 0);
  for (size_t i = 0; i < STUDY_FIELDS; i++)
    if (study_fields[i].given) memcpy((char *)&config + study_fields[i].offset, &study_fields[i].value, sizeof(uint32_t));
  if (study_configure) study_configure(study_configure_data, &config);
  const char *wrong = swim_config_check(&config);
  if (wrong) printf("%s\n", wrong), exit(2);
  STUDY_NEED(fleet_open(seed, count, &config, &c->link, acquainted, &c->fleet) == 0);
  struct fleet *f = c->fleet;
  f->data = c, f->on_send = study_sent, f->on_event = study_event, f->withhold = study_withhold;
  c->sim = f->sim, c->nodes = f->nodes, c->count = count;
  for (uint32_t i = 0; i < count; i++) c->lines[i].end = &c->lines[i].first;
  for (uint32_t i = 0; i < count && acquainted && count <= 100; i++) swim_check(c->nodes[i].swim);
  return c;
}

/* `count` nodes that know no other. */
static inline struct study_cluster *study_blank(uint64_t seed, uint32_t count) { return study_open(seed, count, false); }
/* `count` nodes that all know each other, without a join. */
static inline struct study_cluster *study_preset(uint64_t seed, uint32_t count) { return study_open(seed, count, true); }

static inline void study_close(struct study_cluster *c) {
  STUDY_NEED(c->fleet->error == 0);
  for (uint32_t i = 0; i < c->count; i++) study_hold(c, i, false);
  fleet_close(c->fleet);
  free(c->lines);
  free(c);
}

static inline void study_run(struct study_cluster *c, uint64_t duration_ns) { fleet_run(c->fleet, duration_ns); }

static inline void study_link(struct study_cluster *c, double loss) {
  c->link.loss = loss;
  sim_set_default_link(c->sim, &c->link);
}

/* All nodes that are up agree that exactly they are up. */
static inline bool study_agree(const struct study_cluster *c) {
  uint32_t up = 0, digest = 0;
  bool first = true;
  for (uint32_t i = 0; i < c->count; i++) up += c->nodes[i].swim != NULL;
  for (uint32_t i = 0; i < c->count; i++) {
    const struct swim *s = c->nodes[i].swim;
    if (!s) continue;
    if (first) digest = swim_digest(s), first = false;
    if (swim_live(s) != up || swim_digest(s) != digest || s->suspects.count > 0) return false;
  }
  return true;
}

/* Run until all agree, checked each step_ns. Returns how long it took, or limit_ns. */
static inline uint64_t study_until_agree(struct study_cluster *c, uint64_t step_ns, uint64_t limit_ns) {
  uint64_t began_ns = study_now(c);
  while (!study_agree(c) && study_now(c) - began_ns < limit_ns) study_run(c, step_ns);
  return study_now(c) - began_ns;
}

#endif
