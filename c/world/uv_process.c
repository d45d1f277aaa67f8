/* Child processes, and this process's own stdin, stdout and stderr. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world/uv_private.h"

extern char **environ;

struct real_process {
  struct world_process base;
  struct real_world *world;
  uv_process_t uv;
  int pid; /* 0 once there is nothing left to kill. */
  bool group, exited;
  struct real_stream *pipes[3]; /* NULL: not asked for, or taken. */
  struct world_process_events events;
  void *data;
  struct world_defer closed; /* on_closed of one left running; the struct stays on as an orphan. */
  struct real_process *next_orphan;
};

static struct real_process *of_base(const struct world_process *p) { return CONTAINER(p, struct real_process, base); }

/* ---- the environment: ours, with some names replaced or added ---- */

static bool same_name(const char *a, const char *b) {
  size_t length = strcspn(a, "=");
  return strncmp(a, b, length + 1) == 0 && a[length] == '=';
}

static bool overridden(const char *entry, const char *const *env) {
  for (; *env; env++)
    if (same_name(entry, *env)) return true;
  return false;
}

/* Returns a malloc'ed array of borrowed strings; NULL when out of memory. */
static char **merge_environment(const char *const *env) {
  size_t count = 1, n = 0;
  for (char **e = environ; e && *e; e++) count++;
  for (const char *const *e = env; *e; e++) count++;
  char **merged = malloc(count * sizeof *merged);
  if (!merged) return NULL;
  for (char **e = environ; e && *e; e++)
    if (!overridden(*e, env)) merged[n++] = *e;
  for (const char *const *e = env; *e; e++)
    if (!overridden(*e, e + 1)) merged[n++] = (char *)(uintptr_t)*e; /* The last of a name wins. libuv only reads them. */
  merged[n] = NULL;
  return merged;
}

/* ---- the end of a child ---- */

static void remove_orphan(struct real_process *p) {
  for (struct real_process **at = &p->world->orphans; *at; at = &(*at)->next_orphan)
    if (*at == p) {
      *at = p->next_orphan;
      return;
    }
}

static void on_freed(uv_handle_t *handle) { free(CONTAINER(handle, struct real_process, uv)); }

static void report_closed(struct real_process *p) {
  world_handle_closed(&p->base.handle);
  if (p->events.on_closed) p->events.on_closed(p->data);
}

static void on_closed(uv_handle_t *handle) {
  struct real_process *p = CONTAINER(handle, struct real_process, uv);
  report_closed(p);
  free(p);
}

static void on_closed_running(void *data) { report_closed(data); }

static void on_exit_status(uv_process_t *handle, int64_t status, int term_signal) {
  struct real_process *p = CONTAINER(handle, struct real_process, uv);
  p->exited = true;
  if (!p->base.handle.closing) {
    p->events.on_exit(p->data, status, term_signal);
    return;
  }
  if (p->closed.armed) { /* It ended before its on_closed came, so it is no orphan: one close does both. */
    world_undefer(&p->world->base, &p->closed);
    remove_orphan(p);
    uv_close((uv_handle_t *)&p->uv, on_closed);
    return;
  }
  remove_orphan(p);
  uv_close((uv_handle_t *)&p->uv, on_freed);
}

void orphans_close(struct real_world *w) {
  while (w->orphans) {
    struct real_process *p = w->orphans;
    w->orphans = p->next_orphan;
    uv_close((uv_handle_t *)&p->uv, on_freed);
  }
}

/* ---- starting one ---- */

static int make_pipe(struct real_world *w, int fd, struct real_stream **out, uv_stdio_container_t *stdio) {
  struct real_stream *s = stream_new(w, STREAM_PIPE);
  if (!s) return ERR_MEMORY;
  uv_pipe_init(w->loop, &s->uv.pipe, 0); /* Cannot fail: it makes no descriptor. */
  s->readable = fd != 0;
  s->writable = fd == 0;
  stdio->flags = (uv_stdio_flags)(UV_CREATE_PIPE | (fd == 0 ? UV_READABLE_PIPE : UV_WRITABLE_PIPE));
  stdio->data.stream = &s->uv.stream;
  *out = s;
  return 0;
}

static int plan_stdio(struct real_process *p, const struct world_spawn *options, uv_stdio_container_t stdio[3]) {
  for (int fd = 0; fd < 3; fd++) {
    stdio[fd].flags = fd == 0 || fcntl(fd, F_GETFD) < 0 ? UV_IGNORE : UV_INHERIT_FD;
    stdio[fd].data.fd = fd;
    if (!options->pipe[fd]) continue;
    int rc = make_pipe(p->world, fd, &p->pipes[fd], &stdio[fd]);
    if (rc < 0) return rc;
  }
  return 0;
}

static void discard(struct real_process *p) {
  for (int fd = 0; fd < 3; fd++)
    if (p->pipes[fd]) stream_discard(p->pipes[fd]);
  if (p->uv.type == UV_PROCESS) uv_close((uv_handle_t *)&p->uv, on_freed);
  else free(p);
}

static int start(struct real_process *p, const struct world_spawn *options) {
  uv_stdio_container_t stdio[3];
  char **env = NULL;
  int rc = plan_stdio(p, options, stdio);
  if (rc == 0 && options->env && !(env = merge_environment(options->env))) rc = ERR_MEMORY;
  if (rc < 0) return rc;
  uv_process_options_t spawn = {
      .exit_cb = on_exit_status,
      .file = options->argv[0],
      .args = (char **)(uintptr_t)options->argv, /* libuv only reads them. */
      .env = env,
      .cwd = options->cwd,
      .flags = options->group ? UV_PROCESS_DETACHED : 0,
      .stdio_count = 3,
      .stdio = stdio,
  };
  rc = uv_spawn(p->world->loop, &p->uv, &spawn);
  free(env);
  return rc;
}

int real_spawn(struct shoal_world *base, const struct world_spawn *options, const struct world_process_events *events,
               void *data, struct world_process **out) {
  struct real_process *p = calloc(1, sizeof *p);
  if (!p) return ERR_MEMORY;
  p->world = real_world(base);
  p->group = options->group;
  p->events = *events;
  p->data = data;
  p->closed = (struct world_defer){.run = on_closed_running, .data = p};
  p->uv.data = p->world->handle_data;
  int rc = start(p, options);
  if (rc < 0) {
    discard(p);
    return rc;
  }
  p->pid = p->uv.pid;
  world_handle_opened(base, &p->base.handle);
  for (int fd = 0; fd < 3; fd++) {
    if (!p->pipes[fd]) continue;
    p->pipes[fd]->open = true;
    stream_opened(p->world, p->pipes[fd]);
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

int real_process_pid(const struct world_process *base) { return of_base(base)->uv.pid; }

int real_process_kill(struct world_process *base, int signal) {
  struct real_process *p = of_base(base);
  if (p->pid == 0 || (p->exited && !p->group)) return -ESRCH; /* The pid may have been reused. */
  if (kill(p->group ? -p->pid : p->pid, signal) == 0) return 0;
  if (errno == ESRCH) p->pid = 0;
  return -errno;
}

void real_process_close(struct world_process *base) {
  struct real_process *p = of_base(base);
  for (int fd = 0; fd < 3; fd++)
    if (p->pipes[fd]) world_stream_close(&p->pipes[fd]->base);
  if (p->exited) {
    uv_close((uv_handle_t *)&p->uv, on_closed);
    return;
  }
  uv_unref((uv_handle_t *)&p->uv);
  p->next_orphan = p->world->orphans;
  p->world->orphans = p;
  world_defer(base->handle.world, &p->closed);
}

/* ---- this process's own ---- */

/* A descriptor of our own for the same pipe: making it non-blocking does not affect the shell or other processes that share it. */
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
