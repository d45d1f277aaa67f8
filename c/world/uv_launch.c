#include "world/uv_launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "world/guard.h"

extern char **environ;

/* ---- in the child, in borrowed memory: system calls only, and nothing of ours is changed but `failure` ---- */

/* (void): what these refuse, they refuse for arguments that are not ours, or the child ends at once and its status tells. */
static void reset_signals(void) {
  struct sigaction act = {.sa_handler = SIG_DFL};
  for (int number = 1; number < 32; number++)
    (void)sigaction(number, &act, NULL); /* Refused only for KILL and STOP, which have no handler. */
  sigset_t none;
  (void)sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* An inherited descriptor must block: the program expects it. A closed one would be taken by the first file the program opens. */
static int keep(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return open("/dev/null", O_RDWR) == fd ? 0 : -errno; /* The lowest free one: those below are set by now. */
  if (flags & O_NONBLOCK) (void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
  return 0;
}

static int set_descriptors(const struct launch *l) {
  for (int fd = 0; fd < 3; fd++) {
    int from = l->fds[fd];
    if (from < 0 && fd > 0) {
      int rc = keep(fd);
      if (rc < 0) return rc;
      continue;
    }
    int null = -1;
    if (from < 0) from = null = open("/dev/null", O_RDONLY);
    if (from < 0) return -errno;
    if (from != fd && dup2(from, fd) < 0) return -errno;
    if (null > 2) (void)close(null);
  }
  return 0;
}

static int announce(const struct launch *l, bool started) {
  uint8_t record[GUARD_RECORD_BYTES];
  if (l->guard < 0) return 0;
  guard_record(record, (uint32_t)getpid(), started);
  ssize_t written = write(l->guard, record, sizeof record);
  if (written < 0) return -errno;
  return written == (ssize_t)sizeof record ? 0 : -EAGAIN;
}

/* The program gets nothing but its three. Nearly all are closed by the exec too, but our parent goes on before that is done: a lock that it
 * lets go of at once would still be held. */
static void close_others(int but) {
  /* A kernel before 5.9 refuses, and then the exec is what closes. */
  if (but > 3) (void)close_range(3, (unsigned)but - 1, 0);
  (void)close_range(but < 3 ? 3 : (unsigned)but + 1, ~0u, 0);
}

/* Returns only what kept it from becoming the program. */
static int become(const struct launch *l) {
  if (l->group && setsid() < 0) return -errno;
  int rc = set_descriptors(l);
  if (rc < 0) return rc;
  close_others(l->guard);
  if (l->cwd && chdir(l->cwd) < 0) return -errno;
  rc = announce(l, true); /* While SIGPIPE is still ours to ignore. */
  if (rc < 0) return rc;
  reset_signals();
  (void)execvp(l->argv[0], (char *const *)(uintptr_t)l->argv);
  rc = -errno;
  (void)signal(SIGPIPE, SIG_IGN);  /* A guard that has gone must not kill us before we have said why. SIGPIPE can be ignored. */
  (void)announce(l, false); /* There was room for the other record; a guard that has gone needs none. */
  return rc;
}

/* ---- in the parent ---- */

/* A function of its own: what returns twice must not find its variables changed. */
__attribute__((noinline)) static pid_t split(const struct launch *l, volatile int *failure) {
  pid_t pid = vfork();
  if (pid == 0) {
    *failure = become(l);
    _exit(127);
  }
  return pid < 0 ? -errno : pid;
}

int launch(const struct launch *l) {
  volatile int failure = 0;
  sigset_t all, before;
  char **ours = environ;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* No handler of ours may run in the child. */
  environ = l->env; /* execvp looks for PATH there. */
  pid_t pid = split(l, &failure);
  environ = ours;
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (pid < 0 || failure == 0) return pid;
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
  return failure;
}
