#include "host/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/watch_place.h"

enum {
  TICK_MS = 1000,     /* Between two looks while all is well, */
  NEAR_MS = 50,       /* and while it is not. */
  LATE_MS = 1000,     /* So much later than asked for: we were not run, so the loop was not either. */
  HOOK_WAIT_MS = 500, /* For the hook; then a C function runs. */
  LOOK_WAIT_MS = 2000, /* On a machine that is busy with others a signal may take its time. */
  AGAIN_MS = 1000,    /* Between two interruptions. */
};

static struct {
  bool open;
  struct watch_options options;
  pthread_t loop_thread, thread;
  sem_t wake;
  uv_prepare_t prepare;
  uv_async_t ping;
  atomic_bool stopping, signalled;
  atomic_uint_fast64_t turns;
  atomic_uint_fast64_t stands_since_ns; /* Not 0: a report of a standing loop is out, and owed its end. */
  /* Signals since the loop turned last. */
  atomic_int asked, asked_number;
  atomic_uint_fast64_t asked_turns, asked_ns;
  struct sigaction before_int, before_term;
  pthread_mutex_t lock; /* Over what follows; held for copies only. */
  char node[128], log[PATH_MAX];
  uint32_t hang_ms;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t since_ms(uint64_t at_ns) {
  uint64_t now_ns = clock_ns();
  return now_ns > at_ns ? (now_ns - at_ns) / 1000000 : 0;
}

/* ---- lines, as lua/shoal/base/log writes them ---- */

struct line {
  char text[2048];
  size_t length;
};

static void put(struct line *l, const char *text) {
  for (; *text && l->length < sizeof l->text - 8; text++) l->text[l->length++] = *text;
}

static void put_number(struct line *l, uint64_t number) {
  char text[24];
  (void)snprintf(text, sizeof text, "%" PRIu64, number);
  put(l, text);
}

static void put_text(struct line *l, const char *name, const char *text) {
  if (!text[0]) return;
  put(l, ",\"");
  put(l, name);
  put(l, "\":\"");
  for (; *text && l->length < sizeof l->text - 8; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') l->text[l->length++] = '\\';
    l->text[l->length++] = c < 32 || c == 127 ? '?' : *text;
  }
  put(l, "\"");
}

static void begin(struct line *l, const char *event, const char *node) {
  struct tm tm;
  char wall[64], fine[16];
  int64_t wall_ns = world_wall_ns(watch.options.world);
  time_t seconds = (time_t)(wall_ns / 1000000000);
  gmtime_r(&seconds, &tm);
  strftime(wall, sizeof wall, "%Y-%m-%dT%H:%M:%S", &tm);
  (void)snprintf(fine, sizeof fine, ".%06dZ", (int)(wall_ns % 1000000000 / 1000));
  l->length = 0;
  put(l, "{\"wall\":\"");
  put(l, wall);
  put(l, fine);
  put(l, "\",\"at_ns\":\"");
  put_number(l, world_fresh_ns(watch.options.world));
  put(l, "\",\"level\":\"critical\"");
  put_text(l, "node", node);
  put_text(l, "event", event);
}

static void put_ms(struct line *l, const char *name, uint64_t ms) {
  put(l, ",\"");
  put(l, name);
  put(l, "\":");
  put_number(l, ms);
}

/* A pipe that nobody reads must not hold us. */
static void write_stderr(const struct line *l) {
  struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
  if (poll(&fd, 1, 0) != 1 || !(fd.revents & POLLOUT)) return;
  (void)!write(STDERR_FILENO, l->text, l->length); /* There is nobody left to tell. */
}

static void end(struct line *l, const char *log) {
  put(l, "}");
  l->text[l->length++] = '\n';
  int fd = log[0] ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;
  if (fd >= 0) {
    (void)!write(fd, l->text, l->length); /* stderr has it as well. */
    close(fd);
  }
  write_stderr(l);
}

struct settings {
  char node[128], log[PATH_MAX];
  uint32_t hang_ms;
};

static void settings(struct settings *s) {
  pthread_mutex_lock(&watch.lock);
  memcpy(s->node, watch.node, sizeof s->node);
  memcpy(s->log, watch.log, sizeof s->log);
  s->hang_ms = watch.hang_ms;
  pthread_mutex_unlock(&watch.lock);
}

/* ---- signals ---- */

static void on_stop_signal(int number) {
  int saved = errno;
  uint64_t turns = atomic_load(&watch.turns);
  if (atomic_load(&watch.asked) == 0 || atomic_load(&watch.asked_turns) != turns) {
    atomic_store(&watch.asked_turns, turns);
    atomic_store(&watch.asked_ns, clock_ns());
    atomic_store(&watch.asked, 0);
  }
  atomic_store(&watch.asked_number, number);
  atomic_fetch_add(&watch.asked, 1);
  sem_post(&watch.wake);
  const struct sigaction *before = number == SIGINT ? &watch.before_int : &watch.before_term;
  before->sa_handler(number); /* libuv's: to the loop. */
  errno = saved;
}

static void take_signal(int number, struct sigaction *before) {
  struct sigaction ours = {.sa_handler = on_stop_signal, .sa_flags = SA_RESTART};
  sigfillset(&ours.sa_mask);
  if (sigaction(number, NULL, before) < 0 || before->sa_handler == SIG_DFL || before->sa_handler == SIG_IGN) return;
  sigaction(number, &ours, NULL);
}

static void give_signal(int number, const struct sigaction *before) {
  if (before->sa_handler && before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN) sigaction(number, before, NULL);
}

/* Somebody asked the process to end. True while the loop has not heard it. */
static bool mind_signals(bool *hinted) {
  int asked = atomic_load(&watch.asked);
  if (asked == 0) return false;
  if (atomic_load(&watch.turns) != atomic_load(&watch.asked_turns)) {
    atomic_store(&watch.asked, 0);
    *hinted = false;
    return false;
  }
  uint64_t ms = since_ms(atomic_load(&watch.asked_ns));
  if (ms < WATCH_INSIST_MS || (asked < 2 && *hinted)) return true;
  struct settings s;
  struct line l;
  int number = atomic_load(&watch.asked_number);
  settings(&s);
  begin(&l, asked < 2 ? "node.signal" : "node.exit", s.node);
  put_text(&l, "signal", number == SIGINT ? "INT" : "TERM");
  put_ms(&l, "for_ms", ms);
  put_text(&l, "message", asked < 2 ? "the loop does not turn and cannot hear it; a second signal ends the process"
                                    : "the loop does not turn: the second signal ends the process");
  end(&l, s.log);
  if (asked >= 2) _exit(128 + number);
  *hinted = true;
  return true;
}

/* ---- a loop that stands ---- */

static void pause_ms(uint64_t ms) {
  struct timespec until;
  uint64_t at_ns = clock_ns() + ms * 1000000;
  until = (struct timespec){.tv_sec = (time_t)(at_ns / 1000000000), .tv_nsec = (long)(at_ns % 1000000000)};
  while (sem_clockwait(&watch.wake, CLOCK_MONOTONIC, &until) < 0 && errno == EINTR) continue;
}

/* Ask until there is an answer, the loop turns, or ms have passed. */
static bool ask(enum place_request request, uint64_t turns, uint64_t ms) {
  bool hinted = true; /* Signals come first: they may end all this. */
  for (uint64_t began_ns = clock_ns(); since_ms(began_ns) < ms;) {
    place_ask(request);
    pthread_kill(watch.loop_thread, PLACE_SIGNAL);
    pause_ms(NEAR_MS);
    if (place_ready()) return true;
    if (atomic_load(&watch.turns) != turns || atomic_load(&watch.stopping)) return false;
    (void)mind_signals(&hinted); /* Whether they wait does not matter here. */
  }
  return false;
}

static void report(uint64_t turns, uint64_t since_ns) {
  struct settings s;
  struct line l;
  struct place place = {0};
  bool found = ask(PLACE_HOOK, turns, HOOK_WAIT_MS) || ask(PLACE_LOOK, turns, LOOK_WAIT_MS);
  if (found) place_take(&place);
  if (atomic_load(&watch.turns) != turns) return; /* It went on: what was found is of later. */
  settings(&s);
  begin(&l, "node.stuck", s.node);
  put_ms(&l, "for_ms", since_ms(since_ns));
  put_text(&l, "site", place.site);
  put_text(&l, "at", place.at);
  put_text(&l, "function", place.function);
  put_text(&l, "within", place.within);
  put_text(&l, "message", found ? "the loop does not turn" : "the loop does not turn, and its thread does not answer");
  end(&l, s.log);
  atomic_store(&watch.stands_since_ns, since_ns);
}

struct standing {
  uint64_t next_ms; /* When it is reported next. */
  uint64_t interrupted_ns;
  int interruptions;
};

static void mind_standing(struct standing *st, uint64_t turns, uint64_t since_ns) {
  struct settings s;
  uint64_t ms = since_ms(since_ns);
  if (ms >= st->next_ms) {
    report(turns, since_ns);
    st->next_ms = ms < 10000 ? 10000 : ms / 60000 * 60000 + 60000;
  }
  settings(&s);
  if (s.hang_ms == 0 || ms < s.hang_ms || (st->interruptions > 0 && since_ms(st->interrupted_ns) < AGAIN_MS)) return;
  st->interruptions++;
  st->interrupted_ns = clock_ns();
  place_interrupt(st->interruptions, ms);
  pthread_kill(watch.loop_thread, PLACE_SIGNAL);
}

static void *run(void *unused) {
  uint64_t turns = atomic_load(&watch.turns), since_ns = clock_ns();
  struct standing calm = {.next_ms = WATCH_STANDING_MS}, st = calm;
  bool hinted = false, near = false;
  (void)unused;
  while (!atomic_load(&watch.stopping)) {
    uint64_t began_ns = clock_ns(), wait_ms = near ? NEAR_MS : TICK_MS;
    pause_ms(wait_ms);
    bool late = since_ms(began_ns) > wait_ms + LATE_MS, turned = atomic_load(&watch.turns) != turns;
    if (turned || late) {
      turns = atomic_load(&watch.turns);
      since_ns = clock_ns();
      st = calm;
    }
    near = mind_signals(&hinted);
    if (turned || late) continue;
    if (since_ms(since_ns) < WATCH_STANDING_MS) {
      (void)uv_async_send(&watch.ping); /* It fails for a handle of another kind only. */
    } else {
      mind_standing(&st, turns, since_ns);
      near = true;
    }
  }
  return NULL;
}

/* ---- on the loop's thread ---- */

static void on_prepare(uv_prepare_t *handle) {
  (void)handle;
  atomic_fetch_add_explicit(&watch.turns, 1, memory_order_relaxed);
  uint64_t since_ns = atomic_load_explicit(&watch.stands_since_ns, memory_order_relaxed);
  place_over();
  if (since_ns == 0) return;
  struct place place = {0};
  char text[1024];
  atomic_store(&watch.stands_since_ns, 0);
  place_last(&place);
  (void)snprintf(text, sizeof text, "the loop did not turn for %" PRIu64 " ms: %s%s%s%s%s%s", since_ms(since_ns),
                 place.at[0] ? "at " : "it is not known where", place.at, place.function[0] ? " in the C function " : "",
                 place.function, place.site[0] ? ", site " : "", place.site);
  if (watch.options.on_turning) watch.options.on_turning(watch.options.data, text);
}

static void on_ping(uv_async_t *handle) { (void)handle; /* That the loop turned is the answer. */ }

static void own(void *handle) {
  uv_handle_set_data(handle, watch.options.handle_data);
  uv_unref(handle);
}

static int start_thread(void) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* Signals are for the loop's thread. */
  int rc = pthread_create(&watch.thread, NULL, run, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return -rc;
}

int watch_open(const struct watch_options *options) {
  if (watch.open) return 0;
  watch.options = *options;
  watch.loop_thread = pthread_self();
  int rc = uv_async_init(options->loop, &watch.ping, on_ping);
  if (rc < 0) return rc;
  own(&watch.ping);
  rc = uv_prepare_init(options->loop, &watch.prepare); /* This one and its start cannot fail. */
  own(&watch.prepare);
  if (rc == 0) rc = uv_prepare_start(&watch.prepare, on_prepare);
  if (rc == 0 && sem_init(&watch.wake, 0, 0) < 0) rc = -errno;
  if (rc == 0) rc = place_open();
  if (rc == 0) rc = start_thread();
  watch.open = true;
  if (rc < 0) {
    atomic_store(&watch.stopping, true);
    uv_close((uv_handle_t *)&watch.ping, NULL);
    uv_close((uv_handle_t *)&watch.prepare, NULL);
    watch.open = false;
    return rc;
  }
  take_signal(SIGINT, &watch.before_int);
  take_signal(SIGTERM, &watch.before_term);
  return 0;
}

void watch_set(const char *node, const char *log, uint32_t hang_ms) {
  pthread_mutex_lock(&watch.lock);
  (void)snprintf(watch.node, sizeof watch.node, "%s", node); /* Cut short, it is still a name. */
  (void)snprintf(watch.log, sizeof watch.log, "%s", log);
  watch.hang_ms = hang_ms;
  pthread_mutex_unlock(&watch.lock);
}

void watch_close(void) {
  if (!watch.open) return;
  watch.open = false;
  give_signal(SIGINT, &watch.before_int);
  give_signal(SIGTERM, &watch.before_term);
  atomic_store(&watch.stopping, true);
  sem_post(&watch.wake);
  pthread_join(watch.thread, NULL);
  uv_close((uv_handle_t *)&watch.ping, NULL);
  uv_close((uv_handle_t *)&watch.prepare, NULL);
}
