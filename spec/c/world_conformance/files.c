/* Files, the log, names. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* Sparse, so made beside the world, and only in the real one. */
static void largest_file(void) {
  uint8_t *bytes = NULL;
  size_t length = 0;
  int fd = open("largest", O_WRONLY | O_CREAT, 0600);
  CHECK(fd >= 0 && ftruncate(fd, WORLD_FILE_MAX) == 0);
  SAME(world_read_file(W, "largest", &bytes, &length), 0);
  SAME(length, WORLD_FILE_MAX);
  free(bytes);
  CHECK(ftruncate(fd, WORLD_FILE_MAX + 1) == 0);
  SAME(world_read_file(W, "largest", &bytes, &length), ERR_TOO_LARGE);
  close(fd);
  SAME(world_unlink(W, "largest"), 0);
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

static void stat_tells(void) {
  struct world_stat about = {.size = 7};
  SAME(world_stat(W, "nobody", &about), -ENOENT);
  SAME(about.size, 0);
  SAME(world_put_durable(W, "measured", "12345", 5), 0);
  SAME(world_stat(W, "measured", &about), 0);
  SAME(about.size, 5);
  CHECK(!about.directory);
  int64_t off_ns = world_wall_ns(W) - about.modified_ns;
  CHECK(off_ns > -1000 * (int64_t)MS && off_ns < 60000 * (int64_t)MS);
  SAME(world_stat(W, "measured/x", &about), -ENOTDIR);
  SAME(world_make_directory(W, "measured.d"), 0);
  SAME(world_stat(W, "measured.d", &about), 0);
  CHECK(about.directory && about.size == 0);
}

/* ---- puts off the loop ---- */

struct put {
  struct world_put *put;
  int done, status, closed;
  const char *again; /* Put this from on_done. */
  bool close_on_done;
};
static const struct put FRESH_PUT = {0};
static void on_done(void *data, int status);
static void on_put_closed(void *data) {
  EVENT();
  ((struct put *)data)->closed++;
}
static int begin(struct put *p, const char *path, const char *bytes) {
  return ASK(world_put_later(W, path, bytes, strlen(bytes), on_done, on_put_closed, p, &p->put));
}
static struct put second;
static void on_done(void *data, int status) {
  struct put *p = data;
  EVENT();
  SAME(p->closed, 0);
  p->done++;
  p->status = status;
  if (p->again) SAME(begin(&second, "later", p->again), 0); /* This one is over. */
  if (p->close_on_done) CALL(world_put_close(p->put));
}

static void put_later(void) {
  struct put a = {.again = "two", .close_on_done = true}, b = {0}, c = {0};
  second = FRESH_PUT;
  SAME(begin(&a, "later", "one"), 0);
  SAME(begin(&b, "later", "x"), ERR_BUSY);
  SAME(world_put_durable(W, "later", "x", 1), ERR_BUSY);
  SAME(begin(&c, "other", ""), 0); /* Of another path there may be one. */
  SAME(a.done, 0);
  UNTIL(a.closed && second.closed && c.closed);
  settle(3);
  SAME(a.done + second.done + c.done, 3);
  SAME(a.closed + second.closed + c.closed, 3);
  SAME(a.status | second.status | c.status, 0);
  SAME(b.done + b.closed, 0);
  CHECK(holds("later", "two") && holds("other", ""));
  SAME(world_put_durable(W, "later", "three", 5), 0);
  CHECK(holds("later", "three"));
}

static void put_later_fails(void) {
  struct put a = {0}, b = {0};
  char names[100] = "";
  SAME(world_make_directory(W, "put.d/full"), 0);
  SAME(begin(&a, "put.d/nowhere/a", "x"), 0);
  SAME(begin(&b, "put.d/full", "x"), 0);
  UNTIL(a.closed && b.closed);
  SAME(a.status, -ENOENT);
  CHECK(b.status < 0);
  SAME(world_list(W, "put.d", on_name, names), 0);
  SAME(strcmp(names, "full "), 0); /* The failed one leaves nothing. */
  char name[5000];
  memset(name, 'n', sizeof name);
  name[sizeof name - 1] = '\0';
  SAME(begin(&a, name, "x"), -ENAMETOOLONG);
}

static void put_later_closed(void) {
  struct put a = {0};
  SAME(begin(&a, "early", "x"), 0);
  CALL(world_put_close(a.put));
  CALL(world_put_close(a.put));
  UNTIL(a.closed);
  settle(3);
  SAME(a.done, 0);
  SAME(a.closed, 1);
  a = FRESH_PUT;
  SAME(begin(&a, "early", "y"), 0); /* The path is free again. */
  UNTIL(a.closed);
  CHECK(holds("early", "y"));
}

static void puts_at_their_limit(void) {
  static struct put puts[WORLD_PUTS_MAX];
  struct put more = {0};
  char name[20];
  SAME(world_make_directory(W, "many"), 0);
  for (int i = 0; i < WORLD_PUTS_MAX; i++) {
    snprintf(name, sizeof name, "many/%d", i);
    puts[i] = FRESH_PUT;
    SAME(begin(&puts[i], name, "x"), 0);
  }
  SAME(begin(&more, "many/more", "x"), ERR_FULL);
  for (int i = 0; i < WORLD_PUTS_MAX; i++) {
    if (i > 0 && !puts[i].closed) CALL(world_put_close(puts[i].put)); /* One is enough, and disks are slow. */
    UNTIL(puts[i].closed);
  }
  SAME(puts[0].done, 1);
  SAME(begin(&more, "many/more", "x"), 0);
  UNTIL(more.closed);
  SAME(more.status, 0);
}

/* ---- locks ---- */

static void locks(void) {
  struct world_lock *a = NULL, *b = NULL;
  int closed = 0, holder = 7;
  SAME(ASK(world_lock(W, "nowhere/lock", count_closed, &closed, &holder, &a)), -ENOENT);
  SAME(holder, 0);
  SAME(ASK(world_lock(W, "held", count_closed, &closed, &holder, &a)), 0);
  SAME(ASK(world_lock(W, "./held", count_closed, &closed, &holder, &b)), ERR_BUSY); /* In this process too. */
  CHECK(!b && holder == (world_is_simulated(W) ? 0 : (int)getpid()));
  SAME(ASK(world_lock(W, "other", count_closed, &closed, &holder, &b)), 0);
  CALL(world_lock_close(b));
  CALL(world_lock_close(a));
  CALL(world_lock_close(a));
  SAME(ASK(world_lock(W, "held", count_closed, &closed, &holder, &a)), 0); /* Free at once. */
  SAME(closed, 0);
  UNTIL(closed == 2);
  CALL(world_lock_close(a));
  UNTIL(closed == 3);
  settle(3);
  SAME(closed, 3);
  struct world_stat about;
  SAME(world_stat(W, "held", &about), 0); /* The file stays. */
}

/* A lock says when it guards its path no more. */
static void lock_check(void) {
  struct world_lock *a = NULL, *b = NULL;
  int closed = 0, holder = 0;
  SAME(world_make_directory(W, "folder"), 0);
  SAME(ASK(world_lock(W, "folder/lock", count_closed, &closed, &holder, &a)), 0);
  SAME(ASK(world_lock_check(a)), 0);
  SAME(world_rename(W, "folder", "away"), 0);
  SAME(ASK(world_lock_check(a)), ERR_GONE);
  SAME(world_make_directory(W, "folder"), 0);
  SAME(ASK(world_lock(W, "folder/lock", count_closed, &closed, &holder, &b)), 0); /* Another's, and free. */
  SAME(ASK(world_lock_check(a)), ERR_GONE);
  SAME(ASK(world_lock_check(b)), 0);
  SAME(world_unlink(W, "folder/lock"), 0);
  SAME(ASK(world_lock_check(b)), ERR_GONE);
  CALL(world_lock_close(a));
  CALL(world_lock_close(b));
  UNTIL(closed == 2);
}

static void log_lock(void) {
  static const struct world_log_events events = {.on_closed = count_closed};
  struct world_log *a = NULL, *b = NULL;
  int closed = 0, holder = 7;
  SAME(ASK(world_log_open(W, "shared", &events, &closed, &a)), 0);
  SAME(ASK(world_log_open(W, "shared", &events, &closed, &b)), 0);
  SAME(ASK(world_log_lock(a, &holder)), 0);
  SAME(holder, 0);
  SAME(ASK(world_log_lock(a, &holder)), 0); /* It is ours. */
  SAME(ASK(world_log_append(a, "x", 1)), 0);
  SAME(ASK(world_log_lock(b, &holder)), ERR_BUSY);
  CHECK(holder == (world_is_simulated(W) ? 0 : (int)getpid()));
  SAME(ASK(world_log_append(b, "y", 1)), 0); /* The lock refuses those who ask for it. */
  SAME(world_log_size(a), world_is_simulated(W) ? 2 : 1); /* The lock wrote nothing into it. */
  CALL(world_log_close(a));
  UNTIL(closed == 1);
  SAME(ASK(world_log_lock(b, &holder)), 0);
  CALL(world_log_close(b));
  SAME(ASK(world_log_lock(b, &holder)), ERR_CLOSED);
  UNTIL(closed == 2);
}

/* The temporary file of a put is locked while it is written. */
static void temporary_is_locked(void) {
  struct world_log *other = NULL;
  static const struct world_log_events events = {.on_closed = count_closed};
  int closed = 0, holder = 0;
  size_t length;
  uint8_t *bytes;
  SAME(ASK(world_log_open(W, "put.tmp", &events, &closed, &other)), 0);
  SAME(ASK(world_log_append(other, "theirs", 6)), 0);
  SAME(ASK(world_log_lock(other, &holder)), 0);
  SAME(world_put_durable(W, "put", "ours", 4), ERR_BUSY);
  SAME(world_read_file(W, "put.tmp", &bytes, &length), 0);
  CHECK(length == 6 && memcmp(bytes, "theirs", 6) == 0);
  free(bytes);
  CALL(world_log_close(other));
  UNTIL(closed == 1);
  SAME(world_put_durable(W, "put", "ours", 4), 0); /* A leftover is taken over. */
  SAME(world_read_file(W, "put", &bytes, &length), 0);
  CHECK(length == 4 && memcmp(bytes, "ours", 4) == 0);
  free(bytes);
}

/* A child that was started while we hold it does not hold it on. */
static void on_exit_ignored(void *data, int64_t status, int signal) {
  (void)data, (void)status, (void)signal;
}
static void lock_is_not_inherited(void) {
  static const char *const argv[] = {"sleep", "20", NULL};
  static const struct world_process_events events = {.on_exit = on_exit_ignored, .on_closed = count_closed};
  const struct world_spawn options = {.argv = argv};
  struct world_process *p;
  struct world_lock *l;
  int closed = 0, locks_closed = 0, holder;
  SAME(ASK(world_lock(W, "mine", count_closed, &locks_closed, &holder, &l)), 0);
  SAME(ASK(world_spawn(W, &options, &events, &closed, &p)), 0);
  CALL(world_lock_close(l));
  SAME(ASK(world_lock(W, "mine", count_closed, &locks_closed, &holder, &l)), 0);
  CALL(world_lock_close(l));
  SAME(world_process_kill(p, 9), 0);
  CALL(world_process_close(p));
  UNTIL(closed && locks_closed == 2);
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
  SAME(l.size, 4); /* It does not cover later writes. */
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

/* Bytes written to a log that has been moved are lost to the next process that opens it. */
static void log_gone(const char *path, int (*how)(const char *path)) {
  struct log l = {0};
  SAME(world_make_directory(W, "logs/in"), 0);
  open_log(&l, path);
  SAME(ASK(world_log_append(l.log, "x", 1)), 0);
  SAME(ASK(world_log_sync(l.log)), 0);
  UNTIL(l.synced == 1);
  SAME(l.status, 0);
  SAME(how(path), 0);
  SAME(ASK(world_log_append(l.log, "y", 1)), 0); /* No check has run yet. */
  SAME(ASK(world_log_sync(l.log)), 0);
  UNTIL(l.synced == 2);
  SAME(l.status, ERR_GONE);
  SAME(ASK(world_log_append(l.log, "z", 1)), ERR_GONE);
  SAME(ASK(world_log_truncate(l.log, 0)), ERR_GONE);
  SAME(ASK(world_log_sync(l.log)), 0);
  UNTIL(l.synced == 3);
  SAME(l.status, ERR_GONE);
  close_log(&l);
}
static int remove_it(const char *path) { return world_unlink(W, path); }
static int replace_it(const char *path) { return world_put_durable(W, path, "x", 1); }
static int put_another_there(const char *path) {
  SAME(world_rename(W, path, "logs/in/kept"), 0); /* It keeps a name. */
  return world_put_durable(W, path, "x", 1);
}
static int move_its_folder(const char *path) {
  (void)path;
  return world_rename(W, "logs/in", "logs/out");
}
static void log_removed(void) { log_gone("logs/in/removed", remove_it); }
static void log_replaced(void) { log_gone("logs/in/replaced", replace_it); }
static void log_moved_aside(void) { log_gone("logs/in/aside", put_another_there); }
static void log_moved(void) { log_gone("logs/in/moved", move_its_folder); }

static void private_folders(void) {
  SAME(world_make_directory(W, "p"), 0);
  SAME(world_make_private(W, "p/one"), 0);
  SAME(world_make_private(W, "p/one"), -EEXIST);
  SAME(world_make_private(W, "p/none/one"), -ENOENT);
  SAME(world_check_private(W, "p/one"), 0);
  SAME(world_check_private(W, "p/none"), -ENOENT);
  SAME(world_put_durable(W, "p/one/file", "x", 1), 0);
  SAME(world_check_private(W, "p/one"), -ENOTEMPTY);
  SAME(world_remove_directory(W, "p/one"), -ENOTEMPTY);
  SAME(world_unlink(W, "p/one/file"), 0);
  SAME(chmod("p/one", 0755), 0);
  SAME(world_check_private(W, "p/one"), -EPERM);
  SAME(symlink("one", "p/two"), 0);
  CHECK(world_check_private(W, "p/two") < 0); /* A link is not followed. */
  SAME(world_remove_directory(W, "p/one"), 0);
  SAME(world_remove_directory(W, "p/one"), -ENOENT);
}

const struct test_case file_cases[] = {
    {"private folders: new, empty, ours alone", private_folders, NEEDS_PROCESSES},
    {"files: put, read, replace, rename, unlink", put_and_read, 0},
    {"files: a large one", large_file, 0},
    {"files: the largest that is read, and one byte more", largest_file, NEEDS_REAL_TIME},
    {"files: directories with their parents; a list is sorted bytewise", directories, 0},
    {"files: stat tells size, kind and time", stat_tells, 0},
    {"puts off the loop: replace the file, one at a time for each path, and again from on_done", put_later, 0},
    {"puts off the loop: what fails is told, and leaves nothing", put_later_fails, 0},
    {"puts off the loop: closed early: no on_done, one on_closed", put_later_closed, 0},
    {"puts off the loop: at their limit, and one past", puts_at_their_limit, 0},
    {"locks: held once, free at the close", locks, 0},
    {"locks: tell when their file or folder was removed or replaced", lock_check, 0},
    {"locks: of a log, for those who ask; it writes nothing", log_lock, 0},
    {"locks: a put's temporary file is not written by two", temporary_is_locked, NEEDS_PROCESSES},
    {"locks: a child does not inherit them", lock_is_not_inherited, NEEDS_PROCESSES},
    {"log: removed under us: the next sync is GONE, and so is all after it", log_removed, 0},
    {"log: replaced under us is GONE", log_replaced, 0},
    {"log: moved aside, with another in its place, is GONE", log_moved_aside, 0},
    {"log: its folder moved away is GONE", log_moved, 0},
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
