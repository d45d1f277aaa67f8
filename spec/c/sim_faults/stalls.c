#include "harness.h"

/* Stalled processes, and disks that are full, fail or are slow. */

/* ---- stalls ---- */

struct tick {
  struct world_timer *timer;
  uint64_t at_ns;
  int count, order;
};
static int orders; /* Counts events of any kind. */
static void on_tick(void *data) {
  struct tick *tick = data;
  tick->at_ns = sim_now_ns(sim);
  tick->order = ++orders;
  tick->count++;
}
static void tick_after(struct tick *tick, struct shoal_world *w, uint64_t ns) {
  if (!tick->timer) SAME(world_timer_open(w, on_tick, NULL, tick, &tick->timer), 0);
  world_timer_start(tick->timer, world_now_ns(w) + ns);
}

struct ear {
  struct world_udp *udp;
  int count, first_order;
};
static void on_heard(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct ear *ear = data;
  (void)from, (void)bytes, (void)length;
  ear->count++;
  if (ear->count == 1) ear->first_order = ++orders;
}
static void listen_for(struct ear *ear, struct sim_node *n) {
  static const struct world_udp_events events = {.on_datagram = on_heard};
  struct shoal_address bind = at("0.0.0.0:7000");
  SAME(world_udp_open(sim_node_world(n), &bind, &events, ear, &ear->udp), 0);
}

static void stalled_comes_late(void) {
  static struct box x;
  struct ear ear = {0};
  struct tick early = {0}, late = {0}, after = {0};
  struct shoal_world *w = sim_node_world(b);
  orders = 0;
  box_open(&x, a);
  listen_for(&ear, b);
  pair();
  uint64_t began_ns = sim_now_ns(sim);
  tick_after(&late, w, 900 * MS);
  tick_after(&early, w, 500 * MS);
  tick_after(&after, w, 1500 * MS);
  sim_node_stall(b, S);
  send_number(&x, "10.0.0.2:7000", 1); /* Due long before the timers. */
  send_number(&x, "10.0.0.2:7000", 2);
  SAME(put(&near_end, 0, 100), 0);
  pass(S - 1);
  SAME(early.count + late.count + ear.count, 0);
  SAME(far_end.received, 0);
  pass(1);
  SAME(early.order, 1); /* Timers first, by their due times; then reads. */
  SAME(late.order, 2);
  SAME(ear.first_order, 3);
  SAME(ear.count, 2);
  SAME(early.at_ns, began_ns + S);
  SAME(far_end.received, 100);
  SAME(after.count, 0);
  pass(500 * MS);
  SAME(after.at_ns, began_ns + 1500 * MS);
}

static void stalls_overlap(void) {
  struct tick tick = {0};
  uint64_t began_ns = sim_now_ns(sim);
  tick_after(&tick, sim_node_world(b), 1);
  sim_node_stall(b, 2 * S);
  pass(S);
  sim_node_stall(b, MS); /* Shorter: no change. */
  pass(MS);
  SAME(tick.count, 0);
  sim_node_stall(b, 3 * S); /* Longer. */
  pass(10 * S);
  SAME(tick.at_ns, began_ns + 4 * S + MS);
  sim_node_stall(b, 0);
  tick_after(&tick, sim_node_world(b), S);
  pass(S);
  SAME(tick.count, 2);
}

static void stall_and_pause(void) {
  struct tick tick = {0};
  uint64_t began_ns = sim_now_ns(sim);
  tick_after(&tick, sim_node_world(b), 1);
  sim_node_stall(b, S);
  sim_node_pause(b, true);
  pass(3 * S);
  SAME(tick.count, 0);
  sim_node_pause(b, false);
  pass(0);
  SAME(tick.at_ns, began_ns + 3 * S);
  sim_node_pause(b, true);
  sim_node_stall(b, 2 * S);
  tick_after(&tick, sim_node_world(b), 1);
  pass(S);
  sim_node_pause(b, false);
  pass(S - 1);
  SAME(tick.count, 1);
  pass(1);
  SAME(tick.count, 2);
}

static void crash_in_a_stall(void) {
  static struct box x;
  struct ear ear = {0}, heir = {0};
  struct tick tick = {0};
  box_open(&x, a);
  listen_for(&ear, b);
  pair();
  tick_after(&tick, sim_node_world(b), MS);
  sim_node_stall(b, 5 * S);
  send_number(&x, "10.0.0.2:7000", 1);
  SAME(put(&near_end, 0, 100), 0);
  pass(S);
  sim_node_crash(b);
  sim_node_stall(b, S); /* No process runs. */
  sim_node_restart(b);
  listen_for(&heir, b);
  memset(&tick, 0, sizeof tick);
  tick_after(&tick, sim_node_world(b), MS); /* The new process runs. */
  pass(MS);
  SAME(tick.count, 1);
  pass(10 * S);
  SAME(ear.count + heir.count, 0);
  SAME(put(&near_end, 100, 100), 0);
  pass(S);
  SAME(near_end.end_status, -ECONNRESET);
}

static struct tick kid;
static struct sim_process *kid_process;
static struct shoal_world *kid_world;
static int spawned(void *data, struct sim_node *node, const struct world_spawn *options, struct sim_process *p) {
  (void)data, (void)node, (void)options;
  kid_process = p;
  kid_world = sim_process_world(p);
  tick_after(&kid, kid_world, 100 * MS);
  return 0;
}
static void on_exit_of_kid(void *data, int64_t status, int signal) {
  (void)status, (void)signal;
  on_tick(data);
}
static void children_go_on(void) {
  static const struct world_process_events events = {.on_exit = on_exit_of_kid};
  static const char *const argv[] = {"kid", NULL};
  struct world_process *process;
  struct tick ended = {0};
  kid = (struct tick){0};
  sim_on_spawn(sim, spawned, NULL);
  uint64_t began_ns = sim_now_ns(sim);
  SAME(world_spawn(sim_node_world(a), &(struct world_spawn){.argv = argv}, &events, &ended, &process), 0);
  sim_node_stall(a, S);
  pass(200 * MS);
  SAME(kid.at_ns, began_ns + 100 * MS);
  sim_process_exit(kid_process, 0, 0, 0);
  pass(S);
  SAME(ended.at_ns, began_ns + S); /* The parent gets the event once it runs. */
}

/* ---- disks ---- */

struct syncs {
  int count, status;
  uint64_t size, at_ns;
};
static void on_synced(void *data, int status, uint64_t size) {
  struct syncs *s = data;
  s->count++;
  s->status = status;
  s->size = size;
  s->at_ns = sim_now_ns(sim);
}
static void on_put(void *data, int status) { on_synced(data, status, 0); }
static struct world_log *open_log(struct syncs *s) {
  struct world_log *log = NULL;
  SAME(world_log_open(sim_node_world(a), "log", &(struct world_log_events){.on_synced = on_synced}, s, &log), 0);
  return log;
}
static int put_later(struct syncs *s) {
  struct world_put *put;
  return world_put_later(sim_node_world(a), "file", "new", 3, on_put, NULL, s, &put);
}
static void disk(struct sim_disk_faults faults) { sim_node_disk(a, &faults); }
static bool file_is(const char *want) {
  uint8_t *bytes = NULL;
  size_t length;
  bool same = world_read_file(sim_node_world(a), "file", &bytes, &length) == 0 && strcmp((char *)bytes, want) == 0;
  free(bytes);
  return same;
}

static void full_disk(void) {
  struct shoal_world *w = sim_node_world(a);
  struct syncs synced = {0}, put = {0};
  struct world_log *log = open_log(&synced), *none;
  struct world_lock *lock;
  int holder;
  SAME(world_put_durable(w, "file", "old", 3), 0);
  SAME(world_lock(w, "lock", NULL, NULL, &holder, &lock), 0);
  world_lock_close(lock);
  disk((struct sim_disk_faults){.full = true});
  SAME(world_log_append(log, "x", 1), -ENOSPC);
  SAME(world_log_append(log, "", 0), 0);
  SAME(world_put_durable(w, "file", "new", 3), -ENOSPC);
  SAME(put_later(&put), 0);
  SAME(world_make_directory(w, "folder"), -ENOSPC);
  SAME(world_log_open(w, "log2", &(struct world_log_events){0}, NULL, &none), -ENOSPC);
  SAME(world_lock(w, "lock2", NULL, NULL, &holder, &lock), -ENOSPC);
  SAME(world_lock(w, "lock", NULL, NULL, &holder, &lock), 0); /* Existing bytes need no room. */
  SAME(world_log_sync(log), 0);
  pass(S);
  SAME(put.status, -ENOSPC);
  SAME(put.count, 1);
  SAME(synced.count, 1);
  SAME(synced.status, 0);
  CHECK(file_is("old"));
  SAME(world_log_size(log), 0);
  disk((struct sim_disk_faults){0});
  SAME(world_log_append(log, "x", 1), 0); /* Nothing was half done, so it goes on. */
  SAME(put_later(&put), 0);
  pass(S);
  SAME(put.status, 0);
  CHECK(file_is("new"));
}

static void failing_disk(void) {
  struct shoal_world *w = sim_node_world(a);
  struct syncs synced = {0}, put = {0};
  struct world_log *log = open_log(&synced);
  struct world_stat about;
  uint8_t *bytes;
  size_t length;
  SAME(world_put_durable(w, "file", "old", 3), 0);
  disk((struct sim_disk_faults){.fail = -EIO});
  SAME(world_read_file(w, "file", &bytes, &length), -EIO);
  SAME(world_stat(w, "file", &about), -EIO);
  SAME(world_unlink(w, "file"), -EIO);
  SAME(world_rename(w, "file", "other"), -EIO);
  SAME(world_make_directory(w, "folder"), -EIO);
  SAME(world_put_durable(w, "file", "new", 3), -EIO);
  SAME(world_log_append(log, "x", 1), -EIO);
  SAME(world_log_truncate(log, 0), -EIO);
  SAME(put_later(&put), 0);
  pass(S);
  SAME(put.status, -EIO);
  sim_node_crash(a);
  sim_node_restart(a);
  SAME(world_read_file(sim_node_world(a), "file", &bytes, &length), -EIO); /* A restart mends no disk. */
  disk((struct sim_disk_faults){0});
  CHECK(file_is("old"));
}

static void failing_sync(void) {
  struct shoal_world *w = sim_node_world(a);
  struct syncs synced = {0}, put = {0};
  struct world_log *log = open_log(&synced);
  SAME(world_put_durable(w, "file", "old", 3), 0);
  SAME(world_log_append(log, "abc", 3), 0);
  SAME(world_log_sync(log), 0);
  disk((struct sim_disk_faults){.fail_sync = -EIO}); /* While it runs. */
  SAME(world_log_append(log, "d", 1), 0);
  SAME(put_later(&put), 0);
  pass(S);
  SAME(synced.count, 1);
  SAME(synced.status, -EIO);
  SAME(put.status, -EIO);
  SAME(world_put_durable(w, "file", "new", 3), -EIO);
  CHECK(file_is("old"));
  disk((struct sim_disk_faults){0});
  SAME(world_log_append(log, "e", 1), -EIO); /* The content of the disk is unknown from here on. */
  SAME(world_log_truncate(log, 0), -EIO);
  SAME(world_log_sync(log), 0);
  pass(S);
  SAME(synced.count, 2);
  SAME(synced.status, -EIO);
}

static void slow_disk(void) {
  struct shoal_world *w = sim_node_world(a);
  struct syncs synced = {0}, put = {0};
  struct world_log *log = open_log(&synced);
  struct tick tick = {0};
  disk((struct sim_disk_faults){.sync_ns = 5 * S});
  uint64_t began_ns = sim_now_ns(sim);
  SAME(world_log_append(log, "abc", 3), 0);
  SAME(world_log_sync(log), 0);
  SAME(put_later(&put), 0);
  tick_after(&tick, w, MS);
  pass(10 * S);
  SAME(synced.at_ns, began_ns + 5 * S);
  SAME(put.at_ns, began_ns + 5 * S);
  SAME(tick.at_ns, began_ns + MS); /* Off the loop. */
  began_ns = sim_now_ns(sim);
  SAME(world_put_durable(w, "file", "new", 3), 0);
  tick_after(&tick, w, MS);
  pass(10 * S);
  SAME(tick.at_ns, began_ns + 5 * S); /* On the loop. */
}

static void longest_path(void) {
  char path[1026];
  memset(path, 'p', sizeof path);
  path[0] = '/';
  path[1023] = '\0';
  SAME(world_put_durable(sim_node_world(a), path, "x", 1), 0);
  path[1023] = 'p';
  path[1024] = '\0';
  SAME(world_put_durable(sim_node_world(a), path, "x", 1), -ENAMETOOLONG);
}

static void lock_ends_with_its_process(void) {
  static const char *const argv[] = {"kid", NULL};
  static const struct world_process_events events = {.on_exit = on_exit_of_kid};
  struct world_process *process;
  struct tick ended = {0};
  struct world_lock *lock;
  int holder;
  kid = (struct tick){0};
  sim_on_spawn(sim, spawned, NULL);
  SAME(world_spawn(sim_node_world(a), &(struct world_spawn){.argv = argv}, &events, &ended, &process), 0);
  SAME(world_lock(kid_world, "/home/node/lock", NULL, NULL, &holder, &lock), 0);
  SAME(world_lock(sim_node_world(a), "lock", NULL, NULL, &holder, &lock), ERR_BUSY); /* The machine's, not the process's. */
  SAME(holder, world_process_pid(process));
  SAME(world_lock(sim_node_world(b), "lock", NULL, NULL, &holder, &lock), 0); /* Another machine, another disk. */
  SAME(world_process_kill(process, SIGKILL), 0);
  pass(S);
  SAME(world_lock(sim_node_world(a), "lock", NULL, NULL, &holder, &lock), 0);
  sim_node_crash(a);
  sim_node_restart(a);
  SAME(world_lock(sim_node_world(a), "lock", NULL, NULL, &holder, &lock), 0);
  sim_node_stall(a, S); /* It keeps what it holds. */
  SAME(world_lock(sim_node_world(a), "lock", NULL, NULL, &holder, &lock), ERR_BUSY);
}

const struct test_case stalls_cases[] = {
    {"stall: what came due meanwhile comes at its end, timers first", stalled_comes_late},
    {"stall: the longer one stands", stalls_overlap},
    {"stall: and a pause of the machine", stall_and_pause},
    {"stall: a crash ends it, and what was held is gone", crash_in_a_stall},
    {"stall: children go on", children_go_on},
    {"disk: full", full_disk},
    {"disk: failing", failing_disk},
    {"disk: failing in syncs alone: what failed once stands", failing_sync},
    {"disk: the longest path, and one byte more", longest_path},
    {"disk: a lock is its machine's, and ends with the process that holds it", lock_ends_with_its_process},
    {"disk: slow, off the loop and on it", slow_disk},
    {NULL, NULL},
};
