/* Child processes (those that nobody here started: uv_strays.c), and this process's own stdin, stdout and stderr. libuv waits for none of them: uv_launch.h says why. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "world/uv_family.h"
#include "world/uv_launch.h"
#include "world/uv_private.h"

extern char **environ;

/*      launch ----> RUNNING ----SIGCHLD----> DUE ----> on_exit ----> ENDED ----close----> gone     (each but the last in a list)
 *                      \---close: on_closed; its later end is reaped without a report----------/
 *
 * A group's leader is reaped when the process is closed, not before: until then its id, which is the group's, cannot be given to another,
 * so that a kill of the group can reach no stranger. */
enum state { RUNNING, DUE, ENDED };

struct real_process {
  struct world_process base;
  struct real_world *world;
  int pid;
  bool group;
  struct keeper *keeper; /* NULL: the child is the program itself. */
  enum state state;
  bool reaped;
  int64_t status;
  int signal;
  struct real_stream *pipes[3]; /* NULL: not asked for, or taken. */
  struct world_process_events events;
  void *data;
  struct world_defer closed; /* on_closed. */
  struct real_process *next, *previous; /* Of the world's running ones, of those that are due, or of those that are kept. */
};

static struct real_process *of_base(const struct world_process *p) { return CONTAINER(p, struct real_process, base); }

/* ---- the environment: what it inherits of ours, with some names replaced or added ---- */

static bool same_name(const char *a, const char *b) {
  size_t length = strcspn(a, "=");
  return strncmp(a, b, length + 1) == 0 && a[length] == '=';
}

static bool overridden(const char *entry, const char *const *env) {
  for (; *env; env++)
    if (same_name(entry, *env)) return true;
  return false;
}

static bool inherited(const char *entry, const char *const *names) {
  if (!names) return true;
  for (; *names; names++) {
    size_t length = strlen(*names);
    bool family = length > 0 && (*names)[length - 1] == '*';
    if (family ? strncmp(entry, *names, length - 1) == 0 : strncmp(entry, *names, length) == 0 && entry[length] == '=') return true;
  }
  return false;
}

/* Returns a malloc'ed array of borrowed strings; NULL when out of memory. */
static char **merge_environment(const char *const *env, const char *const *names) {
  static const char *const none[] = {NULL};
  if (!env) env = none;
  size_t count = 1, n = 0;
  for (char **e = environ; e && *e; e++) count++;
  for (const char *const *e = env; *e; e++) count++;
  char **merged = malloc(count * sizeof *merged);
  if (!merged) return NULL;
  for (char **e = environ; e && *e; e++)
    if (inherited(*e, names) && !overridden(*e, env)) merged[n++] = *e;
  for (const char *const *e = env; *e; e++)
    if (!overridden(*e, e + 1)) merged[n++] = (char *)(uintptr_t)*e; /* The last of a name wins. libuv only reads them. */
  merged[n] = NULL;
  return merged;
}

/* ---- the lists of a world ---- */

static void put_in(struct real_process **list, struct real_process *p) {
  p->previous = NULL;
  p->next = *list;
  if (p->next) p->next->previous = p;
  *list = p;
}

static void take_out(struct real_process **list, struct real_process *p) {
  if (p->next) p->next->previous = p->previous;
  if (p->previous) p->previous->next = p->next;
  else *list = p->next;
}

/* A watched child keeps the loop alive. */
static void watch(struct real_world *w, int more) {
  w->children_watched += more;
  if (w->children_watched > 0) uv_ref((uv_handle_t *)&w->reaper);
  else uv_unref((uv_handle_t *)&w->reaper);
}

/* ---- the end of a child ---- */

static void reap(struct real_process *p) {
  if (p->reaped) return;
  p->reaped = true;
  while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) continue;
}

/* Once it has ended. */
static void discard(struct real_process *p) {
  if (p->keeper) keeper_free(p->keeper);
  free(p);
}

static void report_closed(void *data) {
  struct real_process *p = data;
  world_handle_closed(&p->base.handle);
  if (p->events.on_closed) p->events.on_closed(p->data);
  if (p->state == ENDED) discard(p); /* Else its end frees it. */
}

/* What its keeper found; else the keeper's own end, and status -1. */
static void take_status(struct real_process *p) {
  int status;
  if (!keeper_status(p->keeper, &status)) {
    p->status = -1;
    return;
  }
  p->status = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  p->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* Has it ended? Its zombie stays. */
static bool look(struct real_process *p) {
  siginfo_t info = {.si_pid = 0};
  int rc;
  do rc = waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT);
  while (rc < 0 && errno == EINTR);
  if (rc == 0 && info.si_pid == 0) return false;
  if (rc < 0) { /* Other code in this process has reaped it: its status is unknown. */
    p->reaped = true;
    p->status = 255;
  } else if (info.si_code == CLD_EXITED) {
    p->status = info.si_status;
  } else {
    p->signal = info.si_status;
  }
  if (p->keeper) take_status(p);
  if (p->keeper && p->signal != 0 && info.si_code != CLD_EXITED) strays_hunt(p->world); /* Killed: what it kept comes to us. */
  return true;
}

static void finish(struct real_process *p) {
  take_out(&p->world->children_due, p);
  p->state = ENDED;
  if (!p->base.handle.closing) {
    watch(p->world, -1);
    if (!p->group) reap(p);
    put_in(&p->world->children_kept, p);
    p->events.on_exit(p->data, p->status, p->signal); /* May close it, and others. */
    return;
  }
  reap(p);
  if (!p->closed.armed) discard(p);
}

/* One signal may stand for many ends. All are found first, for a callback may start children and close them. */
void on_children(uv_signal_t *handle, int number) {
  struct real_world *w = CONTAINER(handle, struct real_world, reaper);
  struct real_process *next;
  (void)number;
  for (struct real_process *p = w->children; p; p = next) {
    next = p->next;
    if (!look(p)) continue;
    take_out(&w->children, p);
    put_in(&w->children_due, p);
    p->state = DUE;
  }
  while (w->children_due) finish(w->children_due);
  strays_look(w);
}

static bool in_list(const struct real_process *p, pid_t pid) {
  for (; p; p = p->next)
    if (p->pid == pid) return true;
  return false;
}

bool process_is_ours(const struct real_world *w, pid_t pid) {
  return in_list(w->children, pid) || in_list(w->children_due, pid) || in_list(w->children_kept, pid);
}

void orphans_close(struct real_world *w) {
  while (w->children) {
    struct real_process *p = w->children;
    take_out(&w->children, p);
    free(p); /* Not its keeper's memory: that process runs on. */
  }
}

/* ---- starting one ---- */

/* A descriptor that the child may put into place without covering another. */
static int above_standard(int fd) {
  if (fd < 0 || fd > 2) return fd;
  int other = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  close(fd);
  return other;
}

/* Our end of a pipe in ends[0], the child's in ends[1]. A child's stdin is a socket, so that it can be shut down; its stdout and stderr are
 * pipes, for programs open /dev/stdout, and a socket cannot be opened. */
static int make_ends(int fd, int ends[2]) {
  int rc = fd == 0 ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) : pipe2(ends, O_CLOEXEC);
  if (rc < 0) return -errno;
  ends[0] = above_standard(ends[0]);
  ends[1] = above_standard(ends[1]);
  if (ends[0] >= 0 && ends[1] >= 0) return 0;
  rc = -errno;
  for (int i = 0; i < 2; i++)
    if (ends[i] >= 0) close(ends[i]);
  return rc;
}

static int make_pipe(struct real_world *w, int fd, struct real_stream **out, int *theirs) {
  int ends[2], rc = make_ends(fd, ends);
  if (rc < 0) return rc;
  *theirs = ends[1];
  struct real_stream *s = stream_new(w, STREAM_PIPE);
  if (!s) {
    close(ends[0]);
    return ERR_MEMORY;
  }
  uv_pipe_init(w->loop, &s->uv.pipe, 0); /* Cannot fail: it makes no descriptor. */
  s->readable = fd != 0;
  s->writable = fd == 0;
  *out = s;
  rc = uv_pipe_open(&s->uv.pipe, ends[0]);
  if (rc < 0) close(ends[0]);
  return rc;
}

static int launch_with(struct real_process *p, const struct world_spawn *options, struct launch *l) {
  char **env = NULL;
  int rc = 0;
  for (int fd = 0; fd < 3 && rc == 0; fd++)
    if (options->pipe[fd]) rc = make_pipe(p->world, fd, &p->pipes[fd], &l->fds[fd]);
  if (rc == 0 && (options->env || options->inherit) && !(env = merge_environment(options->env, options->inherit))) rc = ERR_MEMORY;
  l->env = env ? env : environ;
  if (rc == 0) rc = launch(l, options->keeper ? &p->keeper : NULL);
  free(env);
  for (int fd = 0; fd < 3; fd++)
    if (l->fds[fd] >= 0) close(l->fds[fd]);
  return rc;
}

/* The descriptor of a stream of ours to the guard; -EPIPE when that has gone, -EAGAIN while it does not read. */
static int guard_of(const struct world_stream *guard, int *out) {
  const struct real_stream *s = real_stream(guard);
  uv_os_fd_t fd;
  if (guard->handle.closing || s->broken || s->ended || uv_fileno(&s->uv.handle, &fd) < 0) return -EPIPE;
  if (real_stream_queued(guard) > 0) return -EAGAIN; /* Records must not overtake each other. */
  *out = fd;
  return 0;
}

int real_spawn(struct shoal_world *base, const struct world_spawn *options, const struct world_process_events *events,
               void *data, struct world_process **out) {
  struct real_world *w = real_world(base);
  struct launch l = {.argv = options->argv, .cwd = options->cwd, .fds = {-1, -1, -1}, .group = options->group, .limits = options->limits,
                     .guard = -1};
  struct real_process *p = calloc(1, sizeof *p);
  if (!p) return ERR_MEMORY;
  *p = (struct real_process){.world = w, .group = options->group || options->keeper, .events = *events, .data = data};
  p->closed = (struct world_defer){.run = report_closed, .data = p};
  int rc = options->guard ? guard_of(options->guard, &l.guard) : 0;
  if (rc == 0) rc = uv_signal_start(&w->reaper, on_children, SIGCHLD);
  if (rc == 0 && options->keeper) strays_adopt(w);
  if (rc == 0) rc = launch_with(p, options, &l);
  if (rc < 0) {
    for (int fd = 0; fd < 3; fd++)
      if (p->pipes[fd]) stream_discard(p->pipes[fd]);
    free(p);
    return rc;
  }
  p->pid = rc;
  put_in(&w->children, p);
  watch(w, 1);
  world_handle_opened(base, &p->base.handle);
  for (int fd = 0; fd < 3; fd++) {
    if (!p->pipes[fd]) continue;
    p->pipes[fd]->open = true;
    stream_opened(w, p->pipes[fd]);
  }
  *out = &p->base;
  return 0;
}

struct world_stream *real_process_stream(struct world_process *base, int fd) {
  struct real_process *p = of_base(base);
  struct real_stream *s = p->pipes[fd];
  p->pipes[fd] = NULL;
  return s ? &s->base : NULL;
}

int real_process_pid(const struct world_process *base) { return of_base(base)->pid; }

void real_process_ended(const struct world_process *base, struct world_ended *out) {
  const struct real_process *p = of_base(base);
  if (p->keeper && p->state == ENDED) *out = *keeper_ended(p->keeper);
}

/* KILL goes to the program alone, for its keeper kills the others as soon as it has ended. */
static int kill_kept(const struct real_process *p, int signal) {
  pid_t pids[FAMILY_MAX], program = keeper_program(p->keeper);
  if (signal == SIGKILL && program > 0) {
    (void)kill(p->pid, SIGCONT); /* The program may have stopped its group, and its keeper with it. */
    return kill(program, SIGKILL) == 0 || errno == ESRCH ? 0 : -errno;
  }
  size_t count = family_all(p->pid, pids, FAMILY_MAX); /* Before the group gets it: who ends leaves no trace to its children. */
  int rc = kill(-p->pid, signal) == 0 ? 0 : -errno;
  for (size_t i = 0; i < count; i++)
    if (getpgid(pids[i]) != p->pid) (void)kill(pids[i], signal); /* It may have ended by now. */
  return rc;
}

int real_process_kill(struct world_process *base, int signal) {
  const struct real_process *p = of_base(base);
  if (p->reaped) return -ESRCH; /* Its id may be another's by now. */
  if (p->keeper && p->state != ENDED) return kill_kept(p, signal);
  return kill(p->group ? -p->pid : p->pid, signal) == 0 ? 0 : -errno;
}

void real_process_close(struct world_process *base) {
  struct real_process *p = of_base(base);
  for (int fd = 0; fd < 3; fd++)
    if (p->pipes[fd]) world_stream_close(&p->pipes[fd]->base);
  if (p->state == ENDED) {
    take_out(&p->world->children_kept, p);
    reap(p);
  } else {
    watch(p->world, -1);
  }
  world_defer(base->handle.world, &p->closed);
}

/* ---- this process's own ---- */

/* A descriptor of our own for the same pipe: making it non-blocking does not affect the shell, or other sharers. */
static int reopen(int fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int own = open(path, (fd == 0 ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_CLOEXEC);
  if (own < 0) own = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* A socket, or another user's pipe. */
  return own < 0 ? -errno : own;
}

static int open_pipe(struct real_world *w, struct real_stream *s, int fd, bool tcp) {
  int own = reopen(fd);
  if (own < 0) return own;
  int rc = tcp ? uv_tcp_init(w->loop, &s->uv.tcp) : uv_pipe_init(w->loop, &s->uv.pipe, 0);
  if (rc == 0) rc = tcp ? uv_tcp_open(&s->uv.tcp, own) : uv_pipe_open(&s->uv.pipe, own);
  if (rc < 0) close(own);
  return rc;
}

static int open_file(struct real_stream *s, int fd) {
  s->file = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  return s->file < 0 ? -errno : 0;
}

static int open_standard(struct real_world *w, struct real_stream *s, int fd) {
  if (s->kind == STREAM_FILE) return open_file(s, fd);
  if (s->kind == STREAM_TTY) return uv_tty_init(w->loop, &s->uv.tty, fd, 0);
  return open_pipe(w, s, fd, s->kind == STREAM_TCP);
}

static int kind_of(int fd, enum stream_kind *out) {
  if (fcntl(fd, F_GETFD) < 0) return -EBADF;
  switch (uv_guess_handle(fd)) {
  case UV_TTY: *out = STREAM_TTY; return 0;
  case UV_NAMED_PIPE: *out = STREAM_PIPE; return 0;
  case UV_TCP: *out = STREAM_TCP; return 0;
  case UV_FILE: *out = STREAM_FILE; return 0;
  default: return -EBADF; /* A datagram socket, an epoll: no stream. */
  }
}

int real_stdio(struct shoal_world *base, int fd, struct world_stream **out) {
  struct real_world *w = real_world(base);
  enum stream_kind kind;
  int rc = kind_of(fd, &kind);
  if (rc < 0) return rc;
  struct real_stream *s = stream_new(w, kind);
  if (!s) return ERR_MEMORY;
  s->readable = fd == 0;
  s->writable = fd != 0;
  s->shutdown_fd = fd == 0 ? -1 : fd;
  rc = open_standard(w, s, fd);
  if (rc < 0) {
    stream_discard(s);
    return rc;
  }
  s->open = true;
  stream_opened(w, s);
  *out = &s->base;
  return 0;
}
