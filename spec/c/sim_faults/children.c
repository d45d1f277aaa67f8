#include "harness.h"

/* ---- children ---- */

struct kid {
  struct sim_process *process;
  struct shoal_world *world;
  struct end in, out; /* Its own streams. */
  int killed;
};
static struct kid kids[4];
static int kids_count;
static struct {
  int exited, signal;
  int64_t status;
} parent[4];
static struct world_process *process;
static struct end to_kid, from_kid;

static void on_exit_status(void *data, int64_t status, int signal) {
  int i = (int)(intptr_t)data;
  parent[i].exited++;
  parent[i].status = status;
  parent[i].signal = signal;
}
static const struct world_process_events process_events = {.on_exit = on_exit_status};

static void on_kill(void *data, int signal) { ((struct kid *)data)->killed = signal; }

static void kid_echo(void *data, const uint8_t *bytes, size_t length) {
  struct kid *kid = data;
  struct world_buffer buffer = {bytes, length};
  SAME(world_stream_write(kid->out.stream, &buffer, 1), 0);
}
static void kid_end(void *data, int status) { end_end(&((struct kid *)data)->in, status); }
static const struct world_stream_events kid_in = {NULL, kid_echo, kid_end, NULL, NULL};

static int spawned(void *data, struct sim_node *node, const struct world_spawn *options, struct sim_process *p) {
  (void)data;
  CHECK(node == a);
  struct kid *kid = &kids[kids_count];
  if (strcmp(options->argv[0], "missing") == 0) return -ENOENT;
  *kid = (struct kid){.process = p};
  sim_process_on_kill(p, on_kill, kid);
  if (strcmp(options->argv[0], "print") == 0) {
    static const uint8_t big[100000];
    sim_process_write(p, 1, big, sizeof big);
    sim_process_write(p, 2, "oops", 4);
    sim_process_exit(p, S, 3, 0);
  } else if (strcmp(options->argv[0], "node") == 0) {
    kid->world = sim_process_world(p);
    if (options->pipe[0]) {
      SAME(world_stdio(kid->world, 0, &kid->in.stream), 0);
      SAME(world_stdio(kid->world, 1, &kid->out.stream), 0);
      SAME(world_stdio(kid->world, 0, &kid->in.stream), -EBADF);
      world_stream_attach(kid->in.stream, &kid_in, kid);
      world_stream_attach(kid->out.stream, &end_events, &kid->out);
    }
  }
  kids_count++;
  return 0;
}

static int spawn(struct shoal_world *w, const char *program, bool pipes, bool group) {
  const char *argv[] = {program, NULL};
  struct world_spawn options = {.argv = argv, .pipe = {pipes, pipes, pipes}, .group = group};
  intptr_t i = kids_count;
  if (i == 0) memset(parent, 0, sizeof parent);
  sim_on_spawn(sim, spawned, NULL);
  int rc = world_spawn(w, &options, &process_events, (void *)i, &process);
  if (rc < 0 || !pipes) return rc;
  to_kid = from_kid = (struct end){0};
  to_kid.stream = world_process_stream(process, 0);
  from_kid.stream = world_process_stream(process, 1);
  CHECK(world_process_stream(process, 1) == NULL);
  world_stream_attach(to_kid.stream, &end_events, &to_kid);
  world_stream_attach(from_kid.stream, &end_events, &from_kid);
  return 0;
}

static void plain_child(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "print", true, false), 0);
  int pid = world_process_pid(process);
  pass(S - 1);
  SAME(from_kid.received, 100000);
  SAME(from_kid.ended, 0);
  SAME(parent[0].exited, 0);
  pass(MS);
  SAME(from_kid.ended, 1);
  SAME(from_kid.end_status, 0);
  SAME(parent[0].exited, 1);
  SAME(parent[0].status, 3);
  SAME(world_process_kill(process, SIGKILL), -ESRCH);
  SAME(kids[0].killed, 0);
  SAME(spawn(sim_node_world(a), "missing", true, false), -ENOENT);
  SAME(spawn(sim_node_world(a), "print", false, false), 0);
  CHECK(world_process_pid(process) > pid);
  pass(2 * S);
  SAME(parent[1].exited, 1);
}

static void no_hook_no_child(void) {
  const char *argv[] = {"anything", NULL};
  struct world_spawn options = {.argv = argv, .pipe = {true, true, true}};
  SAME(world_spawn(sim_node_world(a), &options, &process_events, NULL, &process), -ENOENT);
}

static void output_outlives_the_child(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "print", true, false), 0);
  world_stream_read(from_kid.stream, false);
  static const uint8_t more[600000];
  sim_process_write(kids[0].process, 1, more, sizeof more); /* More than a window. */
  pass(2 * S);
  SAME(parent[0].exited, 1);
  SAME(from_kid.received, 0);
  world_stream_read(from_kid.stream, true);
  pass(S);
  SAME(from_kid.received, 700000);
  SAME(from_kid.ended, 1);
  SAME(from_kid.end_status, 0);
}

static void child_with_a_world(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", true, false), 0);
  struct kid *kid = &kids[0];
  CHECK(world_now_ns(kid->world) == world_now_ns(sim_node_world(a)));
  CHECK(world_seed(kid->world) != world_seed(sim_node_world(a)));
  SAME(put(&to_kid, 0, 50000), 0);
  SAME(put(&from_kid, 0, 1), -EPIPE); /* A pipe goes one way. */
  pass(S);
  SAME(from_kid.received, 50000);
  SAME(from_kid.wrong, 0);
  static struct box x; /* It has the machine's disk and address. */
  struct shoal_address own = at("10.0.0.1:7100");
  SAME(world_udp_open(kid->world, &own, &box_events, &x, &x.udp), 0);
  SAME(world_udp_open(sim_node_world(a), &own, &box_events, &x, &x.udp), -EADDRINUSE);
  SAME(world_put_durable(kid->world, "here", "1", 1), 0);
  SAME(world_unlink(sim_node_world(a), "here"), 0);
  world_stream_close(to_kid.stream); /* The end of its input. */
  pass(S);
  SAME(kid->in.ended, 1);
  SAME(kid->in.end_status, 0);
  sim_process_exit(kid->process, 0, 5, 0);
  pass(S);
  SAME(parent[0].exited, 1);
  SAME(parent[0].status, 5);
  SAME(from_kid.ended, 1);
  SAME(from_kid.end_status, 0);
  SAME(world_udp_open(sim_node_world(a), &own, &box_events, &x, &x.udp), 0); /* Its port is free. */
}

static void killed_child(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", true, false), 0);
  SAME(world_process_kill(process, 0), 0); /* Is it there? */
  SAME(world_process_kill(process, SIGKILL), 0);
  SAME(kids[0].killed, 0); /* Not within the call. */
  pass(S);
  SAME(kids[0].killed, SIGKILL);
  SAME(parent[0].exited, 1);
  SAME(parent[0].signal, SIGKILL);
  SAME(from_kid.ended, 1);
  SAME(put(&to_kid, 0, 10), 0); /* It has no reader now. */
  pass(S);
  SAME(to_kid.end_status, -ECONNRESET);
  SAME(world_process_kill(process, SIGKILL), -ESRCH);
  SAME(parent[0].exited, 1);
}

static void killed_group(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", false, true), 0);
  struct world_process *leader = process;
  SAME(spawn(kids[0].world, "node", false, false), 0);
  SAME(spawn(kids[0].world, "node", false, true), 0); /* A group of its own. */
  SAME(world_process_kill(leader, SIGTERM), 0);
  pass(S);
  SAME(kids[0].killed, SIGTERM);
  SAME(kids[1].killed, SIGTERM);
  SAME(kids[2].killed, 0); /* An orphan now. */
  SAME(parent[0].signal, SIGTERM);
  SAME(parent[1].exited + parent[2].exited, 0); /* The handle that would get the event is gone. */
  SAME(world_process_kill(leader, SIGTERM), -ESRCH);
}

static void crash_kills_children(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", true, false), 0);
  SAME(spawn(kids[0].world, "node", true, false), 0);
  SAME(put(&to_kid, 0, 1000), 0);
  sim_node_crash(a);
  SAME(kids[0].killed, SIGKILL);
  SAME(kids[1].killed, SIGKILL);
  pass(S);
  SAME(parent[0].exited, 0);
  CHECK(sim_next_ns(sim) == UINT64_MAX); /* Nothing of theirs is left. */
  sim_node_restart(a);
}

static void closed_parent_half(void) {
  kids_count = 0;
  SAME(spawn(sim_node_world(a), "node", true, false), 0);
  world_process_close(process);
  pass(S);
  SAME(kids[0].killed, 0); /* It runs on, its streams too. */
  SAME(put(&to_kid, 0, 100), 0);
  pass(S);
  SAME(from_kid.received, 100);
  sim_process_exit(kids[0].process, 0, 0, 0);
  pass(S);
  SAME(parent[0].exited, 0);
  SAME(from_kid.ended, 1);
}

const struct test_case children_cases[] = {
    {"children: a plain one prints and exits", plain_child},
    {"children: without a hook there is no program", no_hook_no_child},
    {"children: what one printed outlives it", output_outlives_the_child},
    {"children: one with a world, its streams, port and disk", child_with_a_world},
    {"children: a kill reaches driver and parent, later", killed_child},
    {"children: a group is killed, another group is not", killed_group},
    {"children: a crash of the machine takes them along", crash_kills_children},
    {"children: one whose process was closed runs on", closed_parent_half},
    {NULL, NULL},
};
