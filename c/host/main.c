/* shoal: one node over libuv. lua/shoal/cli/main.lua reads the arguments. */
#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <luv/lhandle.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>
#include <uv.h>

#include "host/guard.h"
#include "host/host.h"
#include "host/node.h"
#include "host/watch.h"
#include "lua/door.h"
#include "world/uv.h"

enum { CLOSE_LIMIT_MS = 2000 }; /* Limit for closing everything at the end. */

static const struct {
  int number;
  const char *name;
} signals[] = {{SIGINT, "INT"}, {SIGTERM, "TERM"}, {SIGHUP, "HUP"}};
enum { SIGNALS = sizeof signals / sizeof *signals };

/* The program owns its process, so it may be a static. */
static struct {
  uv_loop_t loop;
  luv_handle_t foreign; /* In the data of every handle that is not luv's, for uv.walk reads it. */
  uv_signal_t handles[SIGNALS];
  uv_timer_t limit;
  struct shoal_world *world;
  struct node *node;
  bool exiting, world_closed, late;
  int code;
} program;

static void on_exit_asked(void *data, int code) {
  (void)data;
  program.exiting = true;
  program.code = code;
  uv_stop(&program.loop);
}

static void on_signal(uv_signal_t *handle, int number) {
  (void)handle;
  for (size_t i = 0; i < SIGNALS; i++) {
    if (signals[i].number != number || !program.node) continue;
    if (node_signal(program.node, signals[i].name)) continue;
    if (number != SIGINT) (void)fprintf(stderr, "shoal: ended by SIG%s\n", signals[i].name); /* Who typed Ctrl-C knows. */
    node_exit(program.node, 128 + number);
  }
}

static void on_turning(void *data, const char *text) {
  (void)data;
  if (program.node) door_report(node_state(program.node), "node.stuck", text);
}

static int on_watch(void *data, const char *node, const char *log, uint32_t hang_ms) {
  (void)data;
  watch_set(node, log, hang_ms);
  return watch_open(&(struct watch_options){
      .loop = &program.loop, .handle_data = &program.foreign, .world = program.world, .on_turning = on_turning});
}

static void own(void *handle) {
  uv_handle_set_data(handle, &program.foreign);
  uv_unref(handle); /* Signals and the limit's timer do not keep the node alive. */
}

static int start_signals(void) {
  for (size_t i = 0; i < SIGNALS; i++) {
    int rc = uv_signal_init(&program.loop, &program.handles[i]);
    if (rc < 0) return rc;
    own(&program.handles[i]);
    rc = uv_signal_start(&program.handles[i], on_signal, signals[i].number);
    if (rc < 0) return rc;
  }
  int rc = uv_timer_init(&program.loop, &program.limit);
  if (rc == 0) own(&program.limit);
  return rc;
}

/* The first file that a program opens takes a closed standard descriptor, and gets what is written to that. The null device stands in for
 * one that is closed: supervisors and cron close what they do not want. */
static bool open_standard(void) {
  static const int modes[] = {O_RDONLY, O_WRONLY, O_WRONLY};
  for (int fd = 0; fd < 3; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd) return false; /* The lowest free one: those below are open. */
  return true;
}

static void raise_fd_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) perror("shoal: raising the limit of open files");
}

static void on_limit(uv_timer_t *timer) {
  (void)timer;
  program.late = true;
}

static void on_world_closed(void *data) {
  (void)data;
  program.world_closed = true;
}

static void tell_handle(uv_handle_t *handle, void *data) {
  (void)data;
  if (uv_has_ref(handle) && uv_handle_get_data(handle) != &program.foreign)
    (void)fprintf(stderr, "  luv: %s\n", uv_handle_type_name(uv_handle_get_type(handle)));
}

static void tell_thing(void *data, const char *name) {
  (void)data;
  (void)fprintf(stderr, "  %s\n", name);
}

/* Is anything open, apart from the limit's timer? */
static bool is_open(void) {
  struct world_telemetry t;
  world_telemetry(program.world, &t);
  uv_unref((uv_handle_t *)&program.limit);
  bool alive = uv_loop_alive(&program.loop);
  uv_ref((uv_handle_t *)&program.limit);
  return alive || t.open_handles > 0;
}

/* Close everything that the node has open, run the loop until it is closed, and report what did not close in time. The state
 * is closed only after that: luv's close callbacks need it. */
static bool shut_down(void) {
  int rc = uv_timer_start(&program.limit, on_limit, CLOSE_LIMIT_MS, 0);
  assert(rc == 0);
  (void)rc; /* Only the assertion reads it. */
  for (node_stop(program.node); is_open() && !program.late; node_stop(program.node))
    (void)uv_run(&program.loop, UV_RUN_ONCE); /* is_open() decides instead. */
  if (program.late) {
    (void)fprintf(stderr, "shoal: still open %d ms after the end:\n", CLOSE_LIMIT_MS);
    (void)node_open_things(program.node, tell_thing, NULL); /* The number does not matter. */
    uv_walk(&program.loop, tell_handle, NULL);
    return false;
  }
  struct node *node = program.node;
  program.node = NULL; /* A loop that stood while finalizers run has nobody left to tell. */
  node_close(node, false);
  watch_close();
  world_uv_close(program.world, on_world_closed, NULL);
  for (size_t i = 0; i < SIGNALS; i++) uv_close((uv_handle_t *)&program.handles[i], NULL);
  uv_close((uv_handle_t *)&program.limit, NULL);
  (void)uv_run(&program.loop, UV_RUN_DEFAULT); /* It ends by itself: everything left is closing. */
  assert(program.world_closed);
  return uv_loop_close(&program.loop) == 0;
}

static int fail(const char *what, int code) {
  (void)fprintf(stderr, "shoal: %s: %s (%s)\n", what, error_text(code), error_name(code));
  return EXIT_FAILURE;
}

/* What a user's own file printed (`shoal sim`, `shoal lua`) is lost when stdout did not take it, now or earlier; lua/shoal/cli/out.lua
 * has the same codes for our own data. Whoever stopped reading, as `head` does, need not be told. */
static void flush_prints(void) {
  bool lost = ferror(stdout) != 0;
  if (fflush(stdout) == 0 && !lost) return;
  struct pollfd reader = {.fd = STDOUT_FILENO};
  bool gone = poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR) != 0;
  if (!gone) (void)fputs("shoal: stdout: cannot write\n", stderr);
  if (program.code == 0) program.code = gone ? 128 + SIGPIPE : EX_IOERR;
}

int main(int argc, char **argv) {
  char home[PATH_MAX];
  if (!open_standard()) return EXIT_FAILURE; /* Nobody can be told. */
  if ((argc == 2 || argc == 3) && strcmp(argv[1], "guard") == 0) return guard_main(argc == 3 ? argv[2] : "");
  argv = uv_setup_args(argc, argv);
  if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) perror("shoal: ignoring SIGPIPE");
  raise_fd_limit();
  host_home(home, sizeof home);
  int rc = uv_loop_init(&program.loop);
  if (rc < 0) return fail("loop", rc);
  program.foreign.ref = LUA_REFNIL;
  program.foreign.callbacks[0] = program.foreign.callbacks[1] = LUA_NOREF;
  struct world_uv_options options = {.loop = &program.loop, .handle_data = &program.foreign, .seed = host_seed()};
  rc = world_uv_open(&options, &program.world);
  if (rc < 0) return fail("world", rc);
  rc = start_signals();
  if (rc < 0) return fail("signals", rc);
  struct node_options node = {.world = program.world,
                              .home = home,
                              .argv = (const char *const *)(argv + 1),
                              .entry = "shoal.cli.main",
                              .uv_loop = &program.loop,
                              .uv_foreign = &program.foreign,
                              .on_exit = on_exit_asked,
                              .on_watch = on_watch};
  rc = node_open(&node, &program.node);
  if (rc < 0) return fail("node", rc);
  while (!program.exiting && uv_run(&program.loop, UV_RUN_DEFAULT) != 0)
    continue; /* A script may stop the loop through luv; only the node ends the program. */
  bool clean = shut_down();
  flush_prints();
  if (!clean) _Exit(program.code); /* To free memory that is still in use would hide the cause. */
  return program.code;
}
