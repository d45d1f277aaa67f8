#include "world/uv_launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "world/guard.h"

extern char **environ;

/* ---- in the child, in borrowed memory: system calls only, and nothing of ours is changed but `failure` ---- */

/* (void): these fail only for arguments that we never pass, or the child ends at once and its status shows it. */
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

static int announce(const struct launch *l, pid_t group, bool started) {
  uint8_t record[GUARD_RECORD_BYTES];
  if (l->guard < 0) return 0;
  guard_record(record, (uint32_t)group, started);
  ssize_t written = send(l->guard, record, sizeof record, MSG_NOSIGNAL);
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
  rc = announce(l, getpid(), true);
  if (rc < 0) return rc;
  reset_signals();
  (void)execvp(l->argv[0], (char *const *)(uintptr_t)l->argv);
  rc = -errno;
  (void)announce(l, getpid(), false); /* There was room for the other record; a guard that has gone needs none. */
  return rc;
}

/* ---- the keeper ----
 *
 *      we            clone ---- wait until `starting` is 0 ---> go on                             waitid: read `status`
 *      keeper          \--- setsid, announce, clone ---- close all, starting = 0 ---- wait4 ---- status, done, exit
 *      the program                               \--- descriptors, exec --------------/
 *
 * It shares our memory, so it needs no program of its own, which would cost 0.4 ms. In return it keeps these rules: all signals stay
 * blocked, so that only KILL ends it and it never dumps the core of our memory, which would end us too; once we go on, it makes no call
 * that can fail, for `errno` is ours; it stands on a stack of its own, which stays until it is dead.
 *
 * The program may kill it at once, before it has written a word. So each of the two has a word that the kernel clears: the keeper's at its
 * death, the program's when it leaves our memory, by its exec or its end. */

enum { KEEPER_BYTES = 16 * 1024, EXEC_BYTES = 64 * 1024 };

struct keeper {
  const struct launch *launch; /* Valid until `starting` is 0. */
  char *stack;                 /* The program's, until it is the program. */
  size_t stack_bytes;
  _Atomic uint32_t starting;   /* 1; 0 once the keeper has done its part, or is dead. */
  _Atomic uint32_t here;       /* 1; 0 once the program has left our memory. */
  bool done;
  int failure;
  int status; /* Of wait4, when done. */
};

#define ON_OTHER_STACK __attribute__((noinline, no_sanitize("address", "undefined")))

ON_OTHER_STACK static int program_main(void *data) {
  struct keeper *k = data;
  const struct launch *l = k->launch;
  int rc = set_descriptors(l);
  if (rc == 0) {
    close_others(-1);
    if (l->cwd && chdir(l->cwd) < 0) rc = -errno;
  }
  if (rc == 0) {
    reset_signals();
    (void)execvp(l->argv[0], (char *const *)(uintptr_t)l->argv);
    rc = -errno;
  }
  k->failure = rc;
  (void)syscall(SYS_exit_group, 127);
  return 0; /* Not reached. */
}

ON_OTHER_STACK static pid_t start_program(struct keeper *k) {
  if (setsid() < 0) return -errno;
  int rc = announce(k->launch, (pid_t)syscall(SYS_getpid), true);
  if (rc < 0) return rc;
  pid_t pid = clone(program_main, k->stack + k->stack_bytes, CLONE_VM | CLONE_VFORK | CLONE_CHILD_CLEARTID | SIGCHLD, k, NULL, NULL, &k->here);
  return pid < 0 ? -errno : pid;
}

ON_OTHER_STACK static int keeper_main(void *data) {
  struct keeper *k = data;
  pid_t pid = start_program(k);
  if (pid < 0) k->failure = pid;
  (void)prctl(PR_SET_NAME, "shoal-keeper");
  (void)close_range(0, ~0u, 0); /* Before our parent goes on: close_others says why. */
  atomic_store(&k->starting, 0);
  (void)syscall(SYS_futex, &k->starting, FUTEX_WAKE, 1, NULL, NULL, 0);
  int status;
  if (pid > 0 && syscall(SYS_wait4, pid, &status, 0, NULL) == pid) {
    k->status = status;
    k->done = true;
  }
  (void)syscall(SYS_exit_group, 0);
  return 0; /* Not reached. */
}

static struct keeper *keeper_new(const struct launch *l) {
  size_t words = 0;
  while (l->argv[words]) words++;
  /* Not from malloc: a world that closes leaves it to a keeper that still runs. */
  struct keeper *k = mmap(NULL, KEEPER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (k == MAP_FAILED) return NULL;
  k->launch = l;
  k->stack_bytes = (EXEC_BYTES + words * sizeof *l->argv + 63) & ~(size_t)63; /* execvp copies argv there for a script without a "#!". */
  k->stack = malloc(k->stack_bytes);
  k->starting = k->here = 1;
  if (k->stack) return k;
  keeper_free(k);
  return NULL;
}

void keeper_free(struct keeper *k) { (void)munmap(k, KEEPER_BYTES); }

bool keeper_status(const struct keeper *k, int *status) {
  *status = k->status;
  return k->done;
}

static void bury(pid_t pid) {
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

static pid_t keep_program(const struct launch *l, struct keeper **out) {
  struct keeper *k = keeper_new(l);
  if (!k) return -ENOMEM;
  pid_t pid = clone(keeper_main, (char *)k + KEEPER_BYTES, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, k, NULL, NULL, &k->starting);
  int rc = pid < 0 ? -errno : 0;
  /* It returns early when the word has changed, or for no reason: the loop looks again. */
  while (pid > 0 && atomic_load(&k->starting)) (void)syscall(SYS_futex, &k->starting, FUTEX_WAIT, 1, NULL, NULL, 0);
  bool here = atomic_load(&k->here);
  if (pid > 0) rc = k->failure;
  if (rc == 0 && !here) {
    free(k->stack);
    *out = k;
    return pid;
  }
  if (pid > 0) {
    if (rc == 0) (void)kill(-pid, SIGKILL); /* A stranger killed the keeper before its program ran. */
    (void)announce(l, pid, false);
    bury(pid);
  }
  if (rc == 0) return -EAGAIN; /* The program may be about to die on its stack: that stays, and so does the keeper's. */
  free(k->stack);
  keeper_free(k);
  return rc;
}

/* ---- in the parent ---- */

/* A function of its own: a call that returns twice must not find its variables changed. */
__attribute__((noinline)) static pid_t split(const struct launch *l, volatile int *failure) {
  pid_t pid = vfork();
  if (pid == 0) {
    *failure = become(l);
    _exit(127);
  }
  return pid < 0 ? -errno : pid;
}

int launch(const struct launch *l, struct keeper **keeper) {
  volatile int failure = 0;
  sigset_t all, before;
  char **ours = environ;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* No handler of ours may run in the child. */
  environ = l->env; /* execvp looks for PATH there. */
  pid_t pid = keeper ? keep_program(l, keeper) : split(l, &failure);
  environ = ours;
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (pid < 0 || failure == 0) return pid;
  bury(pid);
  return failure;
}
