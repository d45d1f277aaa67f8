/* Files, the log, names. */
#include <stdlib.h>

#include "harness.h"

static bool holds(const char *path, const char *want) {
  uint8_t *bytes = NULL;
  size_t length = 0;
  int rc = world_read_file(W, path, &bytes, &length);
  bool same = rc == 0 && length == strlen(want) && memcmp(bytes, want, length + 1) == 0; /* The zero included. */
  if (rc == 0) free(bytes);
  return same;
}

static void put_and_read(void) {
  uint8_t *bytes = NULL;
  size_t length = 7;
  SAME(world_read_file(W, "absent", &bytes, &length), -ENOENT);
  CHECK(!bytes && length == 7);
  SAME(world_put_durable(W, "a", "one", 3), 0);
  CHECK(holds("a", "one"));
  SAME(world_put_durable(W, "a", "second", 6), 0);
  CHECK(holds("a", "second"));
  SAME(world_put_durable(W, "a", "", 0), 0);
  CHECK(holds("a", ""));
  SAME(world_put_durable(W, "nowhere/a", "x", 1), -ENOENT);
  SAME(world_rename(W, "a", "b"), 0);
  SAME(world_rename(W, "a", "b"), -ENOENT);
  CHECK(holds("b", "") && !holds("a", ""));
  SAME(world_unlink(W, "b"), 0);
  SAME(world_unlink(W, "b"), -ENOENT);
}

static void large_file(void) {
  size_t length = 3 * 1024 * 1024 + 1, got = 0;
  uint8_t *bytes = malloc(length), *back = NULL;
  for (size_t i = 0; i < length; i++) bytes[i] = pattern(i);
  SAME(world_put_durable(W, "large", bytes, length), 0);
  SAME(world_read_file(W, "large", &back, &got), 0);
  CHECK(got == length && memcmp(bytes, back, length) == 0);
  free(bytes);
  free(back);
  SAME(world_unlink(W, "large"), 0);
}

static void on_name(void *data, const char *name) {
  strcat(data, name);
  strcat(data, " ");
}
static void directories(void) {
  char names[100] = "";
  SAME(world_make_directory(W, "d/e/f"), 0);
  SAME(world_make_directory(W, "d/e/f"), 0);
  SAME(world_make_directory(W, "d"), 0);
  SAME(world_put_durable(W, "d/e/b", "", 0), 0);
  SAME(world_put_durable(W, "d/e/B", "", 0), 0);
  SAME(world_put_durable(W, "d/e/a10", "", 0), 0);
  SAME(world_put_durable(W, "d/e/a9", "", 0), 0);
  SAME(world_list(W, "d/e", on_name, names), 0);
  SAME(strcmp(names, "B a10 a9 b f "), 0); /* Bytewise, folders too. */
  SAME(world_list(W, "d/nothing", on_name, names), -ENOENT);
  CHECK(world_make_directory(W, "d/e/b/c") < 0); /* A file stands in the way. */
}

/* ---- the log ---- */

struct log {
  struct world_log *log;
  int synced, status, closed;
  uint64_t size;
  bool close_on_synced, sync_on_synced;
};
static void on_synced(void *data, int status, uint64_t size) {
  struct log *l = data;
  EVENT();
  SAME(l->closed, 0);
  l->synced++;
  l->status = status;
  l->size = size;
  if (l->sync_on_synced) {
    l->sync_on_synced = false;
    SAME(ASK(world_log_sync(l->log)), 0);
  }
  if (l->close_on_synced) {
    CALL(world_log_close(l->log));
    CALL(world_log_close(l->log));
  }
}
static void on_log_closed(void *data) {
  EVENT();
  ((struct log *)data)->closed++;
}
static void open_log(struct log *l, const char *path) {
  static const struct world_log_events events = {.on_synced = on_synced, .on_closed = on_log_closed};
  SAME(ASK(world_log_open(W, path, &events, l, &l->log)), 0);
}
static void close_log(struct log *l) {
  if (!l->closed) CALL(world_log_close(l->log));
  UNTIL(l->closed);
  settle(3);
  SAME(l->closed, 1);
}

static void log_grows(void) {
  struct log l = {0};
  open_log(&l, "log1");
  SAME(world_log_size(l.log), 0);
  SAME(ASK(world_log_append(l.log, "hello ", 6)), 0);
  SAME(ASK(world_log_append(l.log, "world", 5)), 0);
  SAME(ASK(world_log_append(l.log, "", 0)), 0);
  SAME(world_log_size(l.log), 11);
  SAME(ASK(world_log_sync(l.log)), 0);
  SAME(l.synced, 0);
  UNTIL(l.synced);
  SAME(l.status, 0);
  SAME(l.size, 11);
  CHECK(holds("log1", "hello world"));
  close_log(&l);
  SAME(l.synced, 1);
  struct log again = {0};
  open_log(&again, "log1");
  SAME(world_log_size(again.log), 11); /* Kept, and appended to. */
  SAME(ASK(world_log_append(again.log, "!", 1)), 0);
  CHECK(holds("log1", "hello world!"));
  close_log(&again);
}

static void log_is_cut(void) {
  struct log l = {0};
  open_log(&l, "log2");
  SAME(ASK(world_log_append(l.log, "0123456789", 10)), 0);
  SAME(ASK(world_log_truncate(l.log, 11)), -EINVAL);
  SAME(ASK(world_log_truncate(l.log, 10)), 0);
  SAME(ASK(world_log_truncate(l.log, 4)), 0);
  SAME(world_log_size(l.log), 4);
  SAME(ASK(world_log_append(l.log, "ab", 2)), 0);
  CHECK(holds("log2", "0123ab"));
  close_log(&l);
}

static void log_cut_under_a_sync(void) {
  struct log l = {0};
  open_log(&l, "log3");
  SAME(ASK(world_log_append(l.log, "0123456789", 10)), 0);
  SAME(ASK(world_log_sync(l.log)), 0);
  SAME(ASK(world_log_truncate(l.log, 4)), 0);
  SAME(ASK(world_log_append(l.log, "abcdef", 6)), 0);
  UNTIL(l.synced);
  SAME(l.size, 4); /* It says nothing of what was written since. */
  close_log(&l);
}

static void syncs_queue_one_more(void) {
  struct log l = {0};
  open_log(&l, "log4");
  SAME(ASK(world_log_append(l.log, "aa", 2)), 0);
  for (int i = 0; i < 5; i++) {
    SAME(ASK(world_log_sync(l.log)), 0);
    SAME(ASK(world_log_append(l.log, "b", 1)), 0);
  }
  UNTIL(l.synced == 1);
  SAME(l.size, 2);
  UNTIL(l.synced == 2);
  SAME(l.size, 7);
  settle(20);
  SAME(l.synced, 2);
  l.sync_on_synced = true; /* One from the callback counts too. */
  SAME(ASK(world_log_sync(l.log)), 0);
  UNTIL(l.synced == 4);
  close_log(&l);
}

static void log_closed_under_a_sync(void) {
  struct log l = {0}, m = {.close_on_synced = true};
  open_log(&l, "log5");
  SAME(ASK(world_log_append(l.log, "x", 1)), 0);
  SAME(ASK(world_log_sync(l.log)), 0);
  CALL(world_log_close(l.log));
  SAME(ASK(world_log_append(l.log, "x", 1)), ERR_CLOSED);
  SAME(ASK(world_log_sync(l.log)), ERR_CLOSED);
  close_log(&l);
  SAME(l.synced, 0);
  open_log(&m, "log5");
  SAME(ASK(world_log_sync(m.log)), 0);
  SAME(ASK(world_log_sync(m.log)), 0);
  UNTIL(m.closed);
  close_log(&m);
  SAME(m.synced, 1);
}

static void log_refused(void) {
  static const struct world_log_events events = {.on_synced = on_synced};
  struct world_log *l = NULL;
  SAME(ASK(world_log_open(W, "nowhere/log", &events, NULL, &l)), -ENOENT);
  SAME(world_make_directory(W, "folder"), 0);
  SAME(ASK(world_log_open(W, "folder", &events, NULL, &l)), -EISDIR);
  CHECK(!l);
}

const struct test_case file_cases[] = {
    {"files: put, read, replace, rename, unlink", put_and_read, 0},
    {"files: a large one", large_file, 0},
    {"files: directories with their parents; a list is sorted bytewise", directories, 0},
    {"log: grows, syncs, is kept", log_grows, 0},
    {"log: is cut, never lengthened", log_is_cut, 0},
    {"log: cut under a sync: the sync answers only for what it covered", log_cut_under_a_sync, 0},
    {"log: syncs while one runs are one more", syncs_queue_one_more, 0},
    {"log: closed under a sync, and in on_synced: no on_synced after", log_closed_under_a_sync, 0},
    {"log: what cannot be opened", log_refused, 0},
    {NULL, NULL, 0},
};

/* ---- names ---- */

struct answer {
  struct world_lookup *lookup;
  int results, status, closed;
  size_t count;
  struct shoal_address first;
  bool close_in_result;
};
static void on_result(void *data, int status, const struct shoal_address *addresses, size_t count) {
  struct answer *a = data;
  EVENT();
  SAME(a->closed, 0);
  a->results++;
  a->status = status;
  a->count = count;
  if (count > 0) a->first = addresses[0];
  if (a->close_in_result) CALL(world_lookup_close(a->lookup));
}
static void on_answer_closed(void *data) {
  EVENT();
  ((struct answer *)data)->closed++;
}
static void ask(struct answer *a, const char *host) {
  SAME(ASK(world_resolve(W, host, 4711, on_result, on_answer_closed, a, &a->lookup)), 0);
}
static void wait_closed(struct answer *a) {
  UNTIL(a->closed);
  settle(5);
  SAME(a->closed, 1);
}

static void numeric(void) {
  struct answer four = {0}, six = {0};
  ask(&four, "10.1.2.3");
  ask(&six, "fe80::1");
  wait_closed(&four);
  wait_closed(&six);
  SAME(four.results, 1);
  SAME(four.status, 0);
  SAME(four.count, 1);
  SAME(four.first.family, 4);
  SAME(four.first.port, 4711);
  SAME(four.first.bytes[3], 3);
  SAME(six.first.family, 6);
}
static void by_name(void) {
  struct answer a = {.close_in_result = true};
  ask(&a, OWN_NAME);
  wait_closed(&a);
  SAME(a.results, 1);
  SAME(a.status, 0);
  CHECK(a.count >= 1);
  SAME(a.first.port, 4711);
}
static void unknown_name(void) {
  struct answer a = {0};
  ask(&a, "no-such-host.invalid");
  wait_closed(&a);
  SAME(a.results, 1);
  SAME(a.status, ERR_NO_NAME);
  SAME(a.count, 0);
}
static void closed_early(void) {
  struct answer a = {0}, b = {0};
  ask(&a, OWN_NAME);
  ask(&b, "10.1.2.3");
  CALL(world_lookup_close(a.lookup));
  CALL(world_lookup_close(a.lookup));
  CALL(world_lookup_close(b.lookup));
  wait_closed(&a);
  wait_closed(&b);
  SAME(a.results + b.results, 0);
}

const struct test_case name_cases[] = {
    {"names: numeric ones", numeric, 0},
    {"names: a known one, closed in on_result", by_name, 0},
    {"names: an unknown one is NO_NAME", unknown_name, 0},
    {"names: closed early: no result, one on_closed", closed_early, 0},
    {NULL, NULL, 0},
};
