/* This process's own streams. The child below copies its stdin to its stdout through the world; the cases start it with
 * every kind of descriptor. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "harness.h"
#include "world/uv.h"

/* ---- the child ---- */

static struct shoal_world *world;
static struct world_stream *in, *out;

static void copy(void *data, const uint8_t *bytes, size_t length) {
  (void)data;
  struct world_buffer b = {bytes, length};
  if (world_stream_write(out, &b, 1) < 0) exit(4);
  if (world_stream_queued(out) > 0) world_stream_read(in, false);
}
static void out_drained(void *data) {
  (void)data;
  if (in) world_stream_read(in, true);
}
static void in_ended(void *data, int status) {
  (void)data;
  if (status < 0) exit(5);
  world_stream_close(in);
  in = NULL;
  if (world_stream_shutdown(out) < 0) exit(6);
}
static void out_ended(void *data, int status) { (void)data, exit(status < 0 ? 7 : 8); }

int child_main(int argc, char **argv) {
  static const struct world_stream_events reading = {.on_read = copy, .on_end = in_ended};
  static const struct world_stream_events writing = {.on_read = copy, .on_end = out_ended, .on_drain = out_drained};
  struct world_uv_options options = {.loop = uv_default_loop(), .seed = 1};
  int rc = world_uv_open(&options, &world);
  if (rc == 0) rc = world_stdio(world, 0, &in);
  if (rc == 0) rc = world_stdio(world, 1, &out);
  if (argc > 2 && strcmp(argv[2], "expect-ebadf") == 0) return rc == -EBADF ? 0 : 3;
  if (rc < 0) return 3;
  world_stream_attach(out, &writing, NULL);
  world_stream_attach(in, &reading, NULL);
  uv_run(uv_default_loop(), UV_RUN_DEFAULT); /* Ends when there is nothing left to read or write. */
  if (in || world_stream_queued(out) > 0) return 9;
  if (argc > 2 && strcmp(argv[2], "linger") == 0) sleep(100); /* Its reader must see the end all the same. */
  return 0;
}

/* ---- the cases ---- */

static int exited, closed;
static int64_t exit_status;
static void on_child_exit(void *data, int64_t status, int sig) {
  (void)data;
  EVENT();
  exited++;
  exit_status = sig ? 1000 + sig : status;
}

/* Run a line of shell, where $P is the child; its status must be 0. */
static void shell(const char *line) {
  static const struct world_process_events events = {.on_exit = on_child_exit, .on_closed = count_closed};
  const char *argv[] = {"sh", "-c", line, NULL};
  struct world_spawn options = {.argv = argv};
  struct world_process *p;
  exited = closed = 0;
  setenv("P", PROGRAM, 1);
  SAME(ASK(world_spawn(W, &options, &events, &closed, &p)), 0);
  UNTIL(exited);
  SAME(exit_status, 0);
  CALL(world_process_close(p));
  UNTIL(closed);
}

/* 300,000 bytes: more than a pipe holds. */
#define MAKE "head -c 300000 /dev/zero | tr '\\0' x > in; "
#define SAME_FILES "; s=$?; cmp in out && exit $s"

static void files(void) { shell(MAKE "$P child < in > out" SAME_FILES); }
static void appended(void) { shell(MAKE "printf head > both; $P child < in >> both && test $(stat -c %s both) = 300004"); }
static void pipes(void) { shell(MAKE "cat in | $P child | (sleep 0.2; cat) > out" SAME_FILES); }
static void null_device(void) {
  shell("$P child < /dev/null > /dev/null && printf abc | $P child > /dev/null && "
        "$P child < /dev/null > out && test ! -s out");
}
static void closed_ones(void) { shell("$P child expect-ebadf <&- && $P child expect-ebadf >&-"); }
static void end_through_a_pipe(void) {
  shell("echo x > in; { $P child linger < in & echo $! > pid; } | (cat > out; kill $(cat pid)); cmp in out");
}
static void pipe_left_blocking(void) {
  /* The child makes its own description non-blocking, not the one it shares with dd. */
  shell("(printf a | $P child; dd if=/dev/zero bs=1000000 count=1 2> err) | (sleep 0.2; cat) | wc -c > out; "
        "test $(cat out) = 1000001");
}
static void terminal(void) {
  if (access("/usr/bin/script", X_OK) < 0) {
    printf("# no script(1): a terminal was not tried\n");
    return;
  }
  shell("(printf 'abc\\n\\004'; sleep 1) | script -qec \"$P child\" /dev/null > out; grep -q abc out");
}

static void unsupported(void) {
  struct world_stream *s = NULL;
  SAME(ASK(world_stdio(W, 0, &s)), ERR_UNSUPPORTED);
  SAME(ASK(world_stdio(W, 3, &s)), -EBADF);
  CHECK(!s);
}

/* The pipes of a spawn are sockets. */
static struct end socket_in;
static size_t socket_out;
static int socket_ended;
static void on_socket_read(void *data, const uint8_t *bytes, size_t length) {
  (void)data, (void)bytes;
  EVENT();
  socket_out += length;
}
static void on_socket_end(void *data, int status) {
  (void)data;
  EVENT();
  SAME(status, 0);
  socket_ended++;
}
static void sockets(void) {
  static const struct world_process_events events = {.on_exit = on_child_exit, .on_closed = count_closed};
  static const struct world_stream_events reading = {.on_read = on_socket_read, .on_end = on_socket_end};
  const char *argv[] = {PROGRAM, "child", NULL};
  struct world_spawn options = {.argv = argv, .pipe = {true, true, false}};
  struct world_process *p;
  exited = closed = 0;
  socket_out = 0;
  socket_ended = 0;
  socket_in = (struct end){0};
  SAME(ASK(world_spawn(W, &options, &events, &closed, &p)), 0);
  struct world_stream *from = world_process_stream(p, 1);
  socket_in.stream = world_process_stream(p, 0);
  CALL(world_stream_attach(from, &reading, NULL));
  CALL(world_stream_attach(socket_in.stream, &END_EVENTS, &socket_in));
  SAME(write_pattern(&socket_in, 0, 2000000), 0);
  CALL(world_stream_shutdown(socket_in.stream));
  UNTIL(exited && socket_ended);
  SAME(exit_status, 0);
  SAME(socket_out, 2000000);
  CALL(world_stream_close(from));
  CALL(world_stream_close(socket_in.stream));
  CALL(world_process_close(p));
  UNTIL(closed && socket_in.closed);
  settle(3);
}

const struct test_case stdio_cases[] = {
    {"stdio: regular files", files, NEEDS_PROCESSES},
    {"stdio: a file opened for appending", appended, NEEDS_PROCESSES},
    {"stdio: pipes, with a slow reader", pipes, NEEDS_PROCESSES},
    {"stdio: sockets", sockets, NEEDS_PROCESSES},
    {"stdio: the null device", null_device, NEEDS_PROCESSES},
    {"stdio: a terminal", terminal, NEEDS_PROCESSES},
    {"stdio: closed descriptors are EBADF", closed_ones, NEEDS_PROCESSES},
    {"stdio: a shutdown ends a pipe while the process lives", end_through_a_pipe, NEEDS_PROCESSES},
    {"stdio: a pipe shared with others stays blocking for them", pipe_left_blocking, NEEDS_PROCESSES},
    {"stdio: a simulated node has none", unsupported, NEEDS_SIMULATION},
    {NULL, NULL, 0},
};
