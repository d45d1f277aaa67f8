/* Strays: children of ours that nobody here started.
 *
 *   we are process 1 (of a container)   every orphan becomes our child, and stays a zombie until we wait for it
 *   a keeper was killed                 what it kept becomes our child, for we are a subreaper too: it is killed
 *
 * A zombie is reaped when two looks found it: code of this process that waits for its own children (luv, io.popen) takes them sooner. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "world/guard.h"
#include "world/uv_family.h"
#include "world/uv_private.h"

enum { LOOK_MS = 500, HUNT_MS = 50, HUNTS = 100 };

struct search { pid_t pid; bool found; };

static void compare(uv_handle_t *handle, void *data) {
  struct search *s = data;
  if (handle->type == UV_PROCESS && uv_process_get_pid((uv_process_t *)handle) == s->pid) s->found = true;
}

/* Started through the loop by others, such as luv. */
static bool is_loops(struct real_world *w, pid_t pid) {
  struct search s = {.pid = pid};
  uv_walk(w->loop, compare, &s);
  return s.found;
}

/* Orphans of a container are none of our business, unless they bear a guard's mark. */
static bool is_prey(pid_t pid, pid_t session) { return (getpid() != 1 && session != getsid(0)) || family_has(pid, GUARD_MARK); }

static bool seen_before(const struct real_world *w, pid_t pid) {
  for (size_t i = 0; i < w->strays_seen_count; i++)
    if (w->strays_seen[i] == pid) return true;
  return false;
}

/* Returns whether another look is needed. */
static bool look(struct real_world *w) {
  pid_t pids[FAMILY_MAX], zombies[sizeof w->strays_seen / sizeof *w->strays_seen], session;
  size_t count = family_children(getpid(), pids, FAMILY_MAX), found = 0, prey = 0;
  char state;
  for (size_t i = 0; i < count; i++) {
    if (process_is_ours(w, pids[i]) || !family_state(pids[i], &state, &session) || is_loops(w, pids[i])) continue;
    if (state == 'Z') {
      if (seen_before(w, pids[i])) (void)waitpid(pids[i], NULL, WNOHANG); /* Nobody asks how it ended. */
      else if (found < sizeof zombies / sizeof *zombies) zombies[found++] = pids[i];
    } else if (w->strays_hunts > 0 && is_prey(pids[i], session)) {
      (void)kill(pids[i], SIGKILL); /* Refused for a program of another user: then nobody can end it. */
      prey++;
    }
  }
  for (size_t i = 0; i < found; i++) w->strays_seen[i] = zombies[i];
  w->strays_seen_count = found;
  if (w->strays_hunts > 0) w->strays_hunts--;
  if (prey == 0 && found == 0 && w->strays_hunts < HUNTS - 2) w->strays_hunts = 0; /* The first look may come too early. */
  return found > 0 || w->strays_hunts > 0;
}

static void on_timer(uv_timer_t *timer);

static void start(struct real_world *w, uint64_t ms) {
  (void)uv_timer_start(&w->strays, on_timer, ms, 0); /* It fails only without a callback. */
}

static void on_timer(uv_timer_t *timer) {
  struct real_world *w = CONTAINER(timer, struct real_world, strays);
  if (look(w)) start(w, w->strays_hunts > 0 ? HUNT_MS : LOOK_MS);
}

void strays_open(struct real_world *w) {
  uv_unref((uv_handle_t *)&w->strays);
  w->strays_adopted = getpid() == 1;
  if (!w->strays_adopted) return;
  (void)uv_signal_start(&w->reaper, on_children, SIGCHLD); /* On a refusal the first spawn tries it again, and reports it. */
  uv_unref((uv_handle_t *)&w->reaper);
}

void strays_adopt(struct real_world *w) {
  if (w->strays_adopted) return;
  w->strays_adopted = true;
  (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* Known to every kernel since 3.4. */
}

void strays_look(struct real_world *w) {
  if (getpid() == 1 && !uv_is_active((uv_handle_t *)&w->strays)) start(w, LOOK_MS);
}

void strays_hunt(struct real_world *w) {
  w->strays_hunts = HUNTS;
  start(w, 0);
}
