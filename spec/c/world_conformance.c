/* world_conformance: check a world against world.h.
 *
 *   world_conformance uv|sim [part of a title]
 *
 * Prints a line a case, `ok TITLE`, `skip TITLE # why` or `not ok TITLE` with the failed checks before it; exits 1 if any
 * failed. world_spec.lua runs it. */
#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "world/sim.h"
#include "world/uv.h"
#include "world_conformance/harness.h"

struct shoal_world *W;
struct shoal_address HERE;
const char *OWN_NAME, *PROGRAM;
int calls;
static int failures; /* Of this case. */

enum { LIMIT_MS = 20000 }; /* Longest that a case may wait: of real time, or of the simulation's. */

void failed(const char *file, int line, const char *what, long long got) {
  const char *slash = strrchr(file, '/');
  printf("# %s:%d: %s (got %lld)\n", slash ? slash + 1 : file, line, what, got);
  failures++;
}

void count_closed(void *data) {
  EVENT();
  ++*(int *)data;
}

/* ---- the real world ---- */

static uv_loop_t loop;
static uv_timer_t guard; /* So that a turn with nothing to do returns. */
static char marker;      /* What handle data must point to. */

static void on_guard(uv_timer_t *t) { (void)t; }

static void real_start(void) {
  CHECK(uv_loop_init(&loop) == 0);
  uv_timer_init(&loop, &guard);
  struct world_uv_options options = {.loop = &loop, .handle_data = &marker, .seed = 42};
  guard.data = &marker;
  CHECK(world_uv_open(&options, &W) == 0);
}

static void check_data(uv_handle_t *handle, void *data) {
  (void)data;
  CHECK(handle->data == &marker);
}

static bool real_turn(uint64_t *spent_ms) {
  uint64_t before = uv_hrtime();
  uv_timer_start(&guard, on_guard, 100, 100); /* Repeating: the first may be due before the loop waits. */
  uv_walk(&loop, check_data, NULL); /* Whatever is open, at every turn: luv may walk the loop at any time. */
  uv_run(&loop, UV_RUN_ONCE);
  uv_timer_stop(&guard);
  *spent_ms += (uv_hrtime() - before) / MS;
  return *spent_ms < LIMIT_MS;
}

static void real_end(void) {
  int closed = 0;
  world_uv_close(W, count_closed, &closed);
  uv_close((uv_handle_t *)&guard, NULL);
  uv_run(&loop, UV_RUN_DEFAULT);
  SAME(closed, 1);
  SAME(uv_loop_close(&loop), 0);
}

/* ---- the simulated one ---- */

static struct sim *simulation;
static struct sim_node *node;

static void simulated_start(void) {
  struct sim_config config = {.seed = 42, .link = {.latency_ns = MS, .jitter_ns = MS / 4}};
  CHECK(sim_open(&config, &simulation) == 0);
  CHECK(sim_node_add(simulation, "here", &HERE, &node) == 0);
  W = sim_node_world(node);
}

static bool simulated_turn(uint64_t *spent_ms) {
  uint64_t before = sim_now_ns(simulation);
  if (!sim_step(simulation)) return false;
  *spent_ms += (sim_now_ns(simulation) - before) / MS;
  return *spent_ms < LIMIT_MS;
}

static void simulated_end(void) { sim_close(simulation); }

/* ---- cases ---- */

static bool simulated;

bool turn(uint64_t *spent_ms) { return simulated ? simulated_turn(spent_ms) : real_turn(spent_ms); }

void settle(unsigned ms) {
  if (simulated) {
    sim_run_until(simulation, sim_now_ns(simulation) + ms * MS);
    return;
  }
  uv_timer_start(&guard, on_guard, 1, 1);
  for (uint64_t end_ns = uv_hrtime() + ms * MS; uv_hrtime() < end_ns;) uv_run(&loop, UV_RUN_ONCE);
  uv_timer_stop(&guard);
}

static uint32_t open_handles(void) {
  struct world_telemetry t;
  world_telemetry(W, &t);
  return t.open_handles;
}

static void run_case(const struct test_case *c) {
  int able = simulated ? NEEDS_SIMULATION : NEEDS_PROCESSES | NEEDS_REAL_TIME;
  if (c->needs & ~able) {
    printf("skip %s # %s\n", c->title, simulated ? "only a real world has it" : "only a simulated world has it");
    return;
  }
  failures = 0;
  calls = 0;
  simulated ? simulated_start() : real_start();
  CHECK(world_is_simulated(W) == simulated);
  c->run();
  SAME(open_handles(), 0);
  simulated ? simulated_end() : real_end();
  printf("%s %s\n", failures ? "not ok" : "ok", c->title);
  fflush(stdout);
}

/* Files of cases have relative names: give them a folder of their own. */
static void enter_folder(char *path) {
  if (!mkdtemp(path) || chdir(path) < 0) {
    perror(path);
    exit(2);
  }
}

int main(int argc, char **argv) {
  static char program[4096];
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length < 0) return 2;
  PROGRAM = program;
  signal(SIGPIPE, SIG_IGN);
  if (argc > 1 && strcmp(argv[1], "child") == 0) return child_main(argc, argv);
  if (argc < 2 || (strcmp(argv[1], "uv") != 0 && strcmp(argv[1], "sim") != 0)) {
    fprintf(stderr, "usage: world_conformance uv|sim [part of a title]\n");
    return 2;
  }
  simulated = strcmp(argv[1], "sim") == 0;
  const char *address = simulated ? "10.0.0.1:0" : "127.0.0.1:0";
  address_parse(address, strlen(address), &HERE);
  OWN_NAME = simulated ? "here" : "localhost";
  char folder[] = "/tmp/world_conformance.XXXXXX";
  enter_folder(folder);
  const struct test_case *const rooms[] = {clock_cases, datagram_cases, stream_cases,  ending_cases,
                                           file_cases,  name_cases,     process_cases, stdio_cases};
  int bad = 0, run = 0;
  for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
    for (const struct test_case *c = rooms[i]; c->title; c++) {
      if (argc > 2 && !strstr(c->title, argv[2])) continue;
      run_case(c);
      bad += failures > 0;
      failures = 0;
      run++;
    }
  if (chdir("/") < 0) return 2;
  const char *const remove_folder[] = {"rm", "-rf", folder, NULL};
  if (fork() == 0) execvp(remove_folder[0], (char *const *)(uintptr_t)remove_folder);
  return run == 0 ? 2 : bad > 0;
}
