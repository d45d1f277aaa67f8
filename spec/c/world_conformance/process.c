/* Child processes: real ones. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"
#include "world/guard.h"

struct child {
  struct world_process *process;
  int exited, signal, closed;
  int64_t status;
  struct end in, out, err; /* Text of out is kept in `text`. */
  char text[300];
  bool close_on_exit;
};

static void on_exit_told(void *data, int64_t status, int sig) {
  struct child *c = data;
  EVENT();
  SAME(c->closed, 0);
  c->exited++;
  c->status = status;
  c->signal = sig;
  if (c->close_on_exit) {
    CALL(world_process_close(c->process));
    CALL(world_process_close(c->process));
  }
}
static void on_closed(void *data) {
  EVENT();
  ((struct child *)data)->closed++;
}
static const struct world_process_events EVENTS = {.on_exit = on_exit_told, .on_closed = on_closed};

static void on_text(void *data, const uint8_t *bytes, size_t length) {
  struct child *c = data;
  EVENT();
  size_t room = sizeof c->text - 1 - strlen(c->text);
  strncat(c->text, (const char *)bytes, length < room ? length : room);
  c->out.received += length;
}
static void on_text_end(void *data, int status) {
  EVENT();
  struct child *c = data;
  c->out.ended++;
  c->out.end_status = status;
}
static void on_text_closed(void *data) { ((struct child *)data)->out.closed++; }
static const struct world_stream_events TEXT = {.on_read = on_text, .on_end = on_text_end, .on_closed = on_text_closed};

static int run(struct child *c, const char *script, struct world_spawn options) {
  const char *argv[] = {"sh", "-c", script, NULL};
  if (!options.argv) options.argv = argv;
  return ASK(world_spawn(W, &options, &EVENTS, c, &c->process));
}
static void take_out(struct child *c) {
  c->out.stream = world_process_stream(c->process, 1);
  CHECK(c->out.stream);
  CALL(world_stream_attach(c->out.stream, &TEXT, c));
}
static void close_child(struct child *c) {
  if (c->out.stream) {
    CALL(world_stream_close(c->out.stream));
    UNTIL(c->out.closed);
  }
  if (c->in.stream) {
    CALL(world_stream_close(c->in.stream));
    UNTIL(c->in.closed);
  }
  if (!c->closed) CALL(world_process_close(c->process));
  UNTIL(c->closed);
  settle(3);
  SAME(c->closed, 1);
  CHECK(c->exited <= 1);
}

static void exit_status(void) {
  struct child c = {0};
  SAME(run(&c, "exit 7", (struct world_spawn){0}), 0);
  CHECK(world_process_pid(c.process) > 1);
  CHECK(!world_process_stream(c.process, 1)); /* Not asked for. */
  UNTIL(c.exited);
  SAME(c.status, 7);
  SAME(c.signal, 0);
  SAME(ASK(world_process_kill(c.process, SIGTERM)), -ESRCH);
  close_child(&c);
}
static void by_signal(void) {
  struct child c = {.close_on_exit = true};
  SAME(run(&c, "exec sleep 100", (struct world_spawn){0}), 0);
  SAME(ASK(world_process_kill(c.process, 0)), 0);
  SAME(ASK(world_process_kill(c.process, SIGTERM)), 0);
  UNTIL(c.closed);
  SAME(c.signal, SIGTERM);
  close_child(&c);
}
static void missing(void) {
  struct child c = {0};
  const char *argv[] = {"no-such-program-anywhere", NULL}, *here[] = {"sh", NULL};
  SAME(run(&c, NULL, (struct world_spawn){.argv = argv, .pipe = {true, true, true}}), -ENOENT);
  SAME(run(&c, NULL, (struct world_spawn){.argv = here, .cwd = "/no/such/folder"}), -ENOENT);
  CHECK(!c.process);
  settle(10);
  SAME(c.exited, 0);
}
static void stdin_to_stdout(void) {
  struct child c = {0};
  const char *argv[] = {"cat", NULL};
  SAME(run(&c, NULL, (struct world_spawn){.argv = argv, .pipe = {true, true, false}}), 0);
  take_out(&c);
  CHECK(!world_process_stream(c.process, 1)); /* Once. */
  c.in.stream = world_process_stream(c.process, 0);
  CALL(world_stream_attach(c.in.stream, &END_EVENTS, &c.in));
  SAME(write_pattern(&c.in, 0, 1000000), 0);
  SAME(ASK(world_stream_shutdown(c.in.stream)), 0); /* cat ends by this. */
  UNTIL(c.exited && c.out.ended);
  SAME(c.out.received, 1000000);
  SAME(c.out.end_status, 0);
  SAME(c.status, 0);
  struct shoal_address none;
  CHECK(!world_stream_peer(c.out.stream, &none));
  close_child(&c);
}
static void stdin_is_null(void) {
  struct child c = {0};
  SAME(run(&c, "cat; echo done", (struct world_spawn){.pipe = {false, true, false}}), 0);
  take_out(&c);
  UNTIL(c.out.ended && c.exited);
  SAME(strcmp(c.text, "done\n"), 0);
  close_child(&c);
}
static void bytes_after_exit(void) {
  struct child c = {0};
  SAME(run(&c, "echo late", (struct world_spawn){.pipe = {false, true, false}}), 0);
  UNTIL(c.exited);
  settle(5);
  take_out(&c);
  UNTIL(c.out.ended);
  SAME(strcmp(c.text, "late\n"), 0);
  close_child(&c);
}
static void untaken_pipes(void) {
  struct child c = {0};
  SAME(run(&c, "echo a; echo b >&2", (struct world_spawn){.pipe = {true, true, true}}), 0);
  UNTIL(c.exited);
  close_child(&c);
}
static void stdin_closed_by_child(void) {
  struct child c = {0};
  SAME(run(&c, "exit 0", (struct world_spawn){.pipe = {true, false, false}}), 0);
  c.in.stream = world_process_stream(c.process, 0);
  CALL(world_stream_attach(c.in.stream, &END_EVENTS, &c.in));
  UNTIL(c.exited);
  int rc = 0;
  for (int i = 0; i < 100 && rc == 0; i++) {
    rc = write_pattern(&c.in, 0, 1000);
    settle(1);
  }
  CHECK(rc == -EPIPE || rc == -ECONNRESET);
  UNTIL(c.in.ended); /* There is no reader: the write fails. */
  SAME(c.in.end_status, rc);
  close_child(&c);
}
static void environment_and_folder(void) {
  struct child c = {0};
  const char *const env[] = {"SHOAL_CASE=first", "SHOAL_CASE=new", "SHOAL_OTHER=", NULL};
  setenv("SHOAL_CASE", "old", 1);
  setenv("SHOAL_KEPT", "kept", 1);
  SAME(run(&c, "echo $SHOAL_CASE $SHOAL_KEPT ${SHOAL_OTHER-unset}. $(env | grep -c SHOAL_CASE); pwd",
           (struct world_spawn){.env = env, .cwd = "/usr", .pipe = {false, true, false}}), 0);
  take_out(&c);
  UNTIL(c.out.ended && c.exited);
  SAME(strcmp(c.text, "new kept . 1\n/usr\n"), 0);
  close_child(&c);
}
/* As /proc has it: 'S', 'Z'...; 0 when there is no such process. */
static char state_of(int pid) {
  char path[40], state = 0;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  if (fscanf(f, "%*d %*s %c", &state) != 1) state = 0;
  fclose(f);
  return state;
}
static void group_reaches_grandchildren(void) {
  struct child c = {0};
  SAME(run(&c, "sleep 100 & echo $!; sleep 100 & echo $!; wait",
           (struct world_spawn){.group = true, .pipe = {false, true, false}}), 0);
  take_out(&c);
  UNTIL(strchr(c.text, '\n') && strchr(strchr(c.text, '\n') + 1, '\n'));
  int first = atoi(c.text);
  CHECK(first > 1 && kill(first, 0) == 0);
  SAME(ASK(world_process_kill(c.process, SIGKILL)), 0);
  UNTIL(c.exited && c.out.ended); /* The pipe ends only when the last that holds it is dead. */
  SAME(c.signal, SIGKILL);
  /* A group of zombies is not empty, and not every container's init collects them. */
  for (int i = 0; i < 200 && state_of(first) != 'Z' && state_of(first) != 0; i++) settle(5);
  CHECK(state_of(first) == 'Z' || state_of(first) == 0);
  if (kill(-world_process_pid(c.process), 0) < 0) SAME(ASK(world_process_kill(c.process, SIGKILL)), -ESRCH);
  close_child(&c);
}
static void group_outlives_its_leader(void) {
  struct child c = {0};
  SAME(run(&c, "sleep 100 & exit 0", (struct world_spawn){.group = true, .pipe = {false, true, false}}), 0);
  take_out(&c);
  UNTIL(c.exited);
  SAME(c.out.ended, 0);
  SAME(ASK(world_process_kill(c.process, SIGKILL)), 0); /* The group still has one. */
  UNTIL(c.out.ended);
  close_child(&c);
}
static void closed_while_running(void) {
  struct child c = {0};
  SAME(run(&c, "sleep 0.1", (struct world_spawn){0}), 0);
  int pid = world_process_pid(c.process);
  CALL(world_process_close(c.process));
  UNTIL(c.closed);
  SAME(kill(pid, 0), 0); /* Left running, */
  for (int i = 0; i < 200 && kill(pid, 0) == 0; i++) settle(5);
  SAME(kill(pid, 0), -1); /* and no zombie after. */
  SAME(c.exited, 0);
}
static void closed_with_the_world(void) {
  struct child c = {0};
  SAME(run(&c, "sleep 0.05", (struct world_spawn){0}), 0);
  CALL(world_process_close(c.process));
  UNTIL(c.closed);
}
static void ends_before_on_closed(void) {
  struct child c = {0};
  SAME(run(&c, "exit 0", (struct world_spawn){0}), 0);
  usleep(100000); /* It has ended, without an event. */
  CALL(world_process_close(c.process));
  UNTIL(c.closed);
  settle(20);
  SAME(c.closed, 1);
  SAME(c.exited, 0);
}

static void standard_output_can_be_opened(void) {
  struct child c = {0};
  SAME(run(&c, "echo out > /dev/stdout; echo err > /dev/stderr", (struct world_spawn){.pipe = {false, true, true}}), 0);
  take_out(&c);
  UNTIL(c.out.ended && c.exited);
  SAME(strcmp(c.text, "out\n"), 0);
  SAME(c.status, 0);
  close_child(&c);
}
static void gets_no_other_descriptor(void) {
  struct child c = {0};
  int fd = open("/dev/null", O_RDONLY); /* As io.open makes them: without O_CLOEXEC. */
  CHECK(fd > 2);
  SAME(run(&c, "ls /proc/self/fd", (struct world_spawn){.pipe = {true, true, true}}), 0);
  take_out(&c);
  UNTIL(c.out.ended && c.exited);
  SAME(strcmp(c.text, "0\n1\n2\n3\n"), 0); /* 3 is the folder that ls reads. */
  close(fd);
  close_child(&c);
}
static void has_default_signals(void) {
  struct child c = {0};
  signal(SIGPIPE, SIG_IGN);
  signal(SIGUSR1, SIG_IGN);
  SAME(run(&c, "trap 'exit 3' USR1; kill -USR1 $$; exit 4", (struct world_spawn){0}), 0); /* sh cannot trap a signal ignored at its start. */
  UNTIL(c.exited);
  SAME(c.status, 3);
  signal(SIGUSR1, SIG_DFL);
  close_child(&c);
}
static void environment_gives_the_path(void) {
  struct child c = {0};
  const char *argv[] = {"sh", NULL};
  const char *const env[] = {"PATH=/no/such/folder", NULL};
  SAME(run(&c, NULL, (struct world_spawn){.argv = argv, .env = env}), -ENOENT);
  CHECK(getenv("PATH") && strcmp(getenv("PATH"), "/no/such/folder") != 0);
}
static void leader_keeps_its_id(void) {
  struct child c = {0}, other = {0};
  SAME(run(&c, "exit 0", (struct world_spawn){.group = true}), 0);
  int pid = world_process_pid(c.process);
  UNTIL(c.exited);
  SAME(state_of(pid), 'Z'); /* So no other process can have its id, and a kill of the group reaches no other process. */
  SAME(ASK(world_process_kill(c.process, SIGKILL)), 0);
  CALL(world_process_close(c.process));
  SAME(state_of(pid), 0);
  UNTIL(c.closed);
  SAME(run(&other, "exit 0", (struct world_spawn){0}), 0);
  int plain = world_process_pid(other.process);
  UNTIL(other.exited);
  SAME(state_of(plain), 0); /* Without a group, its id is not needed. */
  close_child(&c);
  close_child(&other);
}

/* ---- guards: here a child that copies its stdin to its stdout ---- */

static void record_of(int pid, bool started, uint8_t out[GUARD_RECORD_BYTES]) { guard_record(out, (uint32_t)pid, started); }
static void open_guard(struct child *g, const char *script) {
  SAME(run(g, script, (struct world_spawn){.pipe = {true, true, false}, .group = true}), 0);
  g->in.stream = world_process_stream(g->process, 0);
  CALL(world_stream_attach(g->in.stream, &END_EVENTS, &g->in));
  take_out(g);
}
static void close_guard(struct child *g) {
  SAME(ASK(world_process_kill(g->process, SIGKILL)), 0);
  UNTIL(g->exited);
  close_child(g);
}
static void guard_hears_of_the_start(void) {
  struct child g = {0}, c = {0};
  uint8_t want[GUARD_RECORD_BYTES];
  open_guard(&g, "exec od -An -tu1 -v -w8");
  SAME(run(&c, "exit 0", (struct world_spawn){.group = true, .guard = g.in.stream}), 0);
  record_of(world_process_pid(c.process), true, want);
  UNTIL(c.exited);
  close_child(&c);
  const char *argv[] = {"no-such-program-anywhere", NULL};
  struct child wrong = {0};
  SAME(run(&wrong, NULL, (struct world_spawn){.argv = argv, .group = true, .guard = g.in.stream}), -ENOENT);
  SAME(ASK(world_stream_shutdown(g.in.stream)), 0);
  UNTIL(g.out.ended);
  unsigned got[3 * GUARD_RECORD_BYTES] = {0};
  char *at = g.text;
  for (size_t i = 0; i < sizeof got / sizeof *got; i++) got[i] = (unsigned)strtoul(at, &at, 10);
  SAME(strspn(at, " \n"), strlen(at)); /* Three records: started; started and ended for the one that could not become its program. */
  for (int i = 0; i < GUARD_RECORD_BYTES; i++) SAME(got[i], want[i]);
  for (int i = 0; i < 4; i++) SAME(got[8 + i], got[16 + i]);
  SAME(got[12], 1);
  SAME(got[20], 0);
  CHECK(memcmp(got, got + 8, 4 * sizeof *got) != 0);
  UNTIL(g.exited);
  close_child(&g);
}
static void guard_that_went(void) {
  struct child g = {0}, c = {0};
  open_guard(&g, "exit 0");
  UNTIL(g.exited);
  SAME(run(&c, "exit 0", (struct world_spawn){.group = true, .guard = g.in.stream}), -EPIPE);
  CHECK(!c.process);
  close_child(&g);
}
static void guard_that_does_not_read(void) {
  struct child g = {0}, c = {0};
  open_guard(&g, "exec sleep 100");
  for (int i = 0; i < 1000 && world_stream_queued(g.in.stream) == 0; i++) SAME(write_pattern(&g.in, 0, 4096), 0);
  SAME(run(&c, "exit 0", (struct world_spawn){.group = true, .guard = g.in.stream}), -EAGAIN);
  CHECK(!c.process);
  close_guard(&g);
}

/* ---- keepers ---- */

static const struct world_spawn KEPT = {.keeper = true, .pipe = {false, true, false}};

static void kept(const char *script, int64_t status, int sig, const char *text) {
  struct child c = {0};
  SAME(run(&c, script, KEPT), 0);
  take_out(&c);
  UNTIL(c.out.ended && c.exited);
  SAME(c.exited, 1);
  SAME(c.status, status);
  SAME(c.signal, sig);
  SAME(strcmp(c.text, text), 0);
  SAME(state_of(world_process_pid(c.process)), 'Z');
  close_child(&c);
}
static void keeper_passes_the_end_on(void) {
  kept("exit 0", 0, 0, "");
  kept("echo said; exit 255", 255, 0, "said\n");
  kept("kill -9 $$", 0, SIGKILL, "");
  kept("kill -TERM $$", 0, SIGTERM, "");
  kept("ulimit -c unlimited; kill -ABRT $$", 0, SIGABRT, ""); /* Its core is its own, not ours. */
}
static void keeper_dies_instead_of_us(void) {
  kept("echo here; kill -9 $PPID; sleep 100", -1, SIGKILL, "here\n"); /* What it kept comes to us, and is killed too. */
  kept("kill -9 0", -1, SIGKILL, "");
  kept("for s in HUP INT QUIT ABRT SEGV PIPE ALRM TERM USR1 CHLD; do kill -$s $PPID; done; exit 7", 7, 0, ""); /* All but KILL are blocked there. */
}
static void keeper_leads_the_group(void) {
  struct child c = {0};
  SAME(run(&c, "exec 2> /dev/null; trap 'echo term; exit 5' TERM; echo $PPID; while :; do sleep 0.01; done", KEPT), 0);
  take_out(&c);
  UNTIL(strchr(c.text, '\n'));
  SAME(atoi(c.text), world_process_pid(c.process));
  SAME(getpgid(atoi(c.text)), world_process_pid(c.process));
  SAME(ASK(world_process_kill(c.process, SIGTERM)), 0);
  UNTIL(c.exited);
  SAME(c.status, 5); /* The command may end in its own way. */
  close_child(&c);
}
static void keeper_killed_leaves_the_group(void) {
  struct child c = {0};
  SAME(run(&c, "kill -9 $PPID; exec sleep 100", KEPT), 0);
  take_out(&c);
  UNTIL(c.exited);
  SAME(c.out.ended, 0);
  SAME(ASK(world_process_kill(c.process, SIGKILL)), 0);
  UNTIL(c.out.ended);
  close_child(&c);
}
static void keeper_of_what_cannot_start(void) {
  struct child c = {0};
  const char *missing_program[] = {"no-such-program-anywhere", NULL}, *folder[] = {"/", NULL};
  SAME(run(&c, NULL, (struct world_spawn){.argv = missing_program, .keeper = true}), -ENOENT);
  SAME(run(&c, NULL, (struct world_spawn){.argv = folder, .keeper = true}), -EACCES);
  SAME(run(&c, "exit 0", (struct world_spawn){.cwd = "/no/such/folder", .keeper = true}), -ENOENT);
  CHECK(!c.process);
}
static void keeper_keeps_no_descriptor(void) {
  struct child c = {0}, late = {0};
  SAME(run(&c, "exec >&-; sleep 100", KEPT), 0);
  take_out(&c);
  UNTIL(c.out.ended); /* Though its keeper is there. */
  SAME(c.exited, 0);
  char path[40];
  snprintf(path, sizeof path, "/proc/%d/fd/0", world_process_pid(c.process));
  SAME(access(path, F_OK), -1);
  SAME(ASK(world_process_kill(c.process, SIGKILL)), 0);
  UNTIL(c.exited);
  close_child(&c);
  SAME(run(&late, "sleep 0.1", (struct world_spawn){.keeper = true}), 0);
  CALL(world_process_close(late.process)); /* Left running; its end frees what it stands on. */
  UNTIL(late.closed);
  settle(200);
  SAME(late.exited, 0);
}
static void keeper_kills_what_is_left(void) {
  struct child c = {0};
  struct world_ended e;
  SAME(run(&c, "setsid sleep 100 & (sleep 101 &); sleep 0.1; echo done; exit 3", KEPT), 0);
  take_out(&c);
  UNTIL(c.exited && c.out.ended); /* Nothing holds the pipe. */
  SAME(c.status, 3);
  world_process_ended(c.process, &e);
  SAME(e.left_count, 2);
  SAME(e.left_named, 2);
  for (int i = 0; i < 2; i++) {
    CHECK(strncmp(e.left[i].command, "sleep 10", 8) == 0);
    SAME(kill(e.left[i].pid, 0), -1);
  }
  close_child(&c);
  c = (struct child){0};
  SAME(run(&c, "i=0; while [ $i -lt 150 ]; do setsid sleep 100 & i=$((i+1)); done; sleep 0.2", KEPT), 0);
  UNTIL(c.exited);
  world_process_ended(c.process, &e);
  SAME(e.left_count, 150);
  SAME(e.left_named, WORLD_LEFT_NAMED);
  close_child(&c);
}
static void keeper_passes_on_to_all(void) {
  struct child c = {0};
  SAME(run(&c, "trap : TERM; setsid sh -c 'trap \"echo term; exit\" TERM; echo up; while :; do sleep 0.01; done' & wait; wait", KEPT), 0);
  take_out(&c);
  UNTIL(strstr(c.text, "up"));
  SAME(ASK(world_process_kill(c.process, SIGTERM)), 0);
  UNTIL(c.exited && c.out.ended);
  CHECK(strstr(c.text, "term"));
  close_child(&c);
  c = (struct child){0};
  SAME(run(&c, "trap '' TERM; setsid sleep 100 & echo up; kill -STOP 0; sleep 100", KEPT), 0);
  take_out(&c);
  UNTIL(strstr(c.text, "up"));
  settle(50);
  SAME(ASK(world_process_kill(c.process, SIGKILL)), 0);
  UNTIL(c.exited && c.out.ended);
  SAME(c.signal, SIGKILL);
  close_child(&c);
}
static void keeper_stopped_at_its_start(void) {
  for (int i = 0; i < 20; i++) { /* The program races with its keeper. */
    struct child c = {0};
    SAME(run(&c, i % 2 ? "kill -STOP $PPID; exit 0" : "kill -STOP 0; exit 0", (struct world_spawn){.keeper = true}), 0);
    settle(2);
    SAME(ASK(world_process_kill(c.process, SIGKILL)), 0);
    UNTIL(c.exited);
    close_child(&c);
  }
}
static void keeper_killed_leaves_nobody(void) {
  struct child c = {0};
  SAME(run(&c, "setsid sh -c 'echo $$; exec sleep 100' & sleep 0.1; kill -9 $PPID; exec sleep 100", KEPT), 0);
  take_out(&c);
  UNTIL(c.exited && strchr(c.text, '\n'));
  SAME(c.status, -1);
  SAME(ASK(world_process_kill(c.process, SIGKILL)), 0);
  UNTIL(kill(atoi(c.text), 0) < 0); /* Killed, and no zombie. */
  UNTIL(c.out.ended);
  close_child(&c);
}
static void limits_are_set(void) {
  struct child c = {0};
  SAME(run(&c, "ulimit -d; ulimit -n; ulimit -t",
           (struct world_spawn){.keeper = true, .pipe = {false, true, false}, .limits = {64u << 20, 5, 40}}), 0);
  take_out(&c);
  UNTIL(c.exited && c.out.ended);
  SAME(strcmp(c.text, "65536\n40\n5\n"), 0);
  close_child(&c);
  c = (struct child){0};
  SAME(run(&c, "ulimit -n", (struct world_spawn){.pipe = {false, true, false}, .limits = {.files = 41}}), 0);
  take_out(&c);
  UNTIL(c.exited && c.out.ended);
  SAME(strcmp(c.text, "41\n"), 0);
  close_child(&c);
}
static void environment_is_chosen(void) {
  struct child c = {0};
  const char *inherit[] = {"PATH", "SPEC_A*", "SPEC_B", NULL}, *env[] = {"OWN=1", "SPEC_AB=2", NULL};
  setenv("SPEC_AA", "a", 1);
  setenv("SPEC_AB", "b", 1);
  setenv("SPEC_B", "c", 1);
  setenv("SPEC_BB", "d", 1);
  SAME(run(&c, "echo $OWN $SPEC_AA $SPEC_AB $SPEC_B ${SPEC_BB-none} ${PATH:+path}",
           (struct world_spawn){.pipe = {false, true, false}, .inherit = inherit, .env = env}), 0);
  take_out(&c);
  UNTIL(c.exited && c.out.ended);
  SAME(strcmp(c.text, "1 a 2 c none path\n"), 0);
  close_child(&c);
}
static void keepers_side_by_side(void) {
  struct child c[40] = {0};
  for (int i = 0; i < 40; i++) {
    char script[40];
    snprintf(script, sizeof script, "sleep 0.0%d; exit %d", i % 7, i);
    SAME(run(&c[i], script, (struct world_spawn){.keeper = true}), 0);
  }
  for (int i = 0; i < 40; i++) {
    UNTIL(c[i].exited);
    SAME(c[i].status, i);
    close_child(&c[i]);
  }
}
static void keeper_outlives_its_world(void) {
  struct child c = {0};
  SAME(run(&c, "sleep 0.3", (struct world_spawn){.keeper = true}), 0);
  CALL(world_process_close(c.process));
  UNTIL(c.closed);
}
static void guard_hears_of_a_keeper(void) {
  struct child g = {0}, c = {0}, wrong = {0};
  open_guard(&g, "exec od -An -tu4 -v -w8");
  SAME(run(&c, "exit 0", (struct world_spawn){.keeper = true, .guard = g.in.stream}), 0);
  int pid = world_process_pid(c.process);
  UNTIL(c.exited);
  close_child(&c);
  const char *argv[] = {"no-such-program-anywhere", NULL};
  SAME(run(&wrong, NULL, (struct world_spawn){.argv = argv, .keeper = true, .guard = g.in.stream}), -ENOENT);
  SAME(ASK(world_stream_shutdown(g.in.stream)), 0);
  UNTIL(g.out.ended);
  int got[6] = {0};
  char *at = g.text;
  for (int i = 0; i < 6; i++) got[i] = (int)strtol(at, &at, 10);
  SAME(got[0], pid);
  SAME(got[1], 1);
  SAME(got[2], got[4]); /* The one that could not start: begun, and over. */
  SAME(got[3], 1);
  SAME(got[5], 0);
  UNTIL(g.exited);
  close_child(&g);
  struct child gone = {0}, none = {0};
  open_guard(&gone, "exit 0");
  UNTIL(gone.exited);
  SAME(run(&none, "exit 0", (struct world_spawn){.keeper = true, .guard = gone.in.stream}), -EPIPE);
  CHECK(!none.process);
  close_child(&gone);
}

#define REAL NEEDS_PROCESSES
const struct test_case process_cases[] = {
    {"process: its exit status, once; killing it then is ESRCH", exit_status, REAL},
    {"process: ended by a signal; closed in on_exit", by_signal, REAL},
    {"process: a missing program or folder is ENOENT with nothing opened", missing, REAL},
    {"process: a megabyte through stdin and stdout; a shutdown is its end of input", stdin_to_stdout, REAL},
    {"process: without a pipe stdin is the null device", stdin_is_null, REAL},
    {"process: bytes in its pipe outlive it", bytes_after_exit, REAL},
    {"process: pipes nobody took are closed with it", untaken_pipes, REAL},
    {"process: writing to one that ended fails, and ends the stream", stdin_closed_by_child, REAL},
    {"process: names added to the environment, and its folder", environment_and_folder, REAL},
    {"process: a group's kill reaches grandchildren, then ESRCH", group_reaches_grandchildren, REAL},
    {"process: a group can be killed after its leader ended", group_outlives_its_leader, REAL},
    {"process: closed while running goes on, and leaves no zombie", closed_while_running, REAL},
    {"process: left running when the world goes", closed_with_the_world, REAL},
    {"process: one that ended before it was closed", ends_before_on_closed, REAL},
    {"process: /dev/stdout and /dev/stderr can be opened", standard_output_can_be_opened, REAL},
    {"process: gets no descriptor but its three", gets_no_other_descriptor, REAL},
    {"process: begins with signals as by default", has_default_signals, REAL},
    {"process: is looked for in the PATH that it gets", environment_gives_the_path, REAL},
    {"process: a group's leader keeps its id until it is closed", leader_keeps_its_id, REAL},
    {"guard: hears of each start, and of one that failed", guard_hears_of_the_start, REAL},
    {"guard: that went: EPIPE, and nothing runs", guard_that_went, REAL},
    {"guard: that does not read: EAGAIN, and nothing runs", guard_that_does_not_read, REAL},
    {"keeper: the program's status or signal is on_exit's", keeper_passes_the_end_on, REAL},
    {"keeper: dies in our place by KILL, and by no other signal", keeper_dies_instead_of_us, REAL},
    {"keeper: leads the group, which is killed as any other", keeper_leads_the_group, REAL},
    {"keeper: when killed, the rest of its group can still be killed", keeper_killed_leaves_the_group, REAL},
    {"keeper: what cannot start is refused as without one", keeper_of_what_cannot_start, REAL},
    {"keeper: holds no descriptor open; closed while running it leaves nothing", keeper_keeps_no_descriptor, REAL},
    {"keeper: kills what is left in any group or session, and says what that was", keeper_kills_what_is_left, REAL},
    {"keeper: a signal reaches all, whatever their group; KILL a group that stopped itself too", keeper_passes_on_to_all, REAL},
    {"keeper: when killed, what left its group is killed and reaped by us", keeper_killed_leaves_nobody, REAL},
    {"keeper: a program that stops it, at once too, makes nobody wait", keeper_stopped_at_its_start, REAL},
    {"process: limits hold for the program", limits_are_set, REAL},
    {"process: inherits the names that it is given, and a family of names", environment_is_chosen, REAL},
    {"keeper: many at once, each with its own end", keepers_side_by_side, REAL},
    {"keeper: left running when the world goes", keeper_outlives_its_world, REAL},
    {"keeper: the guard hears of its start, and of one that failed", guard_hears_of_a_keeper, REAL},
    {NULL, NULL, 0},
};
