/* world: everything outside the program: clock, chance, network, disk, processes.
 *
 * The rooms above see only this header. uv.c makes a world over a libuv loop, sim.c one over a virtual clock; one
 * conformance suite (spec/c/world_conformance.c) holds both to what stands here.
 *
 * Rules that hold for every call:
 *  - No call calls back before it returns.
 *  - A function that can be refused returns 0, or a negative code of core/errors.h with nothing opened; it then will
 *    not call back.
 *  - Every opened thing is closed with its _close function, at any time, from any callback, its own included, twice
 *    without harm. After the call comes exactly one on_closed and nothing else; then the thing's memory is gone.
 *    A NULL on_closed is allowed.
 *  - `data` is the caller's pointer, given to every callback.
 *  - Bytes given to a callback are valid until it returns. Bytes given to a call are copied before it returns.
 *  - Instants are nanoseconds of this world's monotonic clock (uint64, `_ns`); two nodes share no epoch. */
#ifndef SHOAL_WORLD_H
#define SHOAL_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/address.h"
#include "core/errors.h"

struct shoal_world;
struct world_timer;
struct world_udp;
struct world_listener;
struct world_stream;
struct world_lookup;
struct world_log;
struct world_put;
struct world_lock;
struct world_process;

typedef void world_closed_fn(void *data);

enum {
  WORLD_DATAGRAM_MAX = 65507,      /* Largest datagram that can be sent; larger is ERR_TOO_LARGE. */
  WORLD_READ_MAX = 64 * 1024,      /* Most bytes given to one on_read. */
  WORLD_FILE_MAX = 256 * 1024 * 1024, /* Most bytes world_read_file returns. */
  WORLD_PUTS_MAX = 1024, /* Puts under way off the loop at once; one more is ERR_FULL. */
};

/* ---- clock and chance ---- */

uint64_t world_now_ns(struct shoal_world *w);  /* Monotonic; read once per turn of the loop, so it stands still in a callback. */
uint64_t world_fresh_ns(struct shoal_world *w); /* Monotonic, read now (for measuring how long a callback took). */
int64_t world_wall_ns(struct shoal_world *w);  /* Unix time; may jump; for people and logs only. */
uint64_t world_random(struct shoal_world *w);  /* The next 64 bits of this node's own stream. */
uint64_t world_seed(struct shoal_world *w);    /* The seed of that stream, to be logged. */
bool world_is_simulated(struct shoal_world *w);

/* ---- deferred work: run once, after the event being handled and before the world waits again ---- */

/* The caller owns the memory; zero it before first use. Deferring twice runs once. */
struct world_defer {
  void (*run)(void *data);
  void *data;
  struct world_defer *next;
  struct world_defer *previous;
  bool armed;
};
void world_defer(struct shoal_world *w, struct world_defer *d);
void world_undefer(struct shoal_world *w, struct world_defer *d); /* Harmless when not armed. */

/* ---- timers: one shot ---- */

int world_timer_open(struct shoal_world *w, void (*on_timer)(void *data), world_closed_fn *on_closed, void *data,
                     struct world_timer **out);
/* Fire once at at_ns, or in the next turn when that is past; replaces what was set. Never early. */
void world_timer_start(struct world_timer *t, uint64_t at_ns);
void world_timer_stop(struct world_timer *t);
void world_timer_close(struct world_timer *t);

/* ---- datagrams ---- */

struct world_udp_events {
  void (*on_datagram)(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length);
  void (*on_error)(void *data, int code); /* The socket could not receive; it stays open. May be NULL. */
  world_closed_fn *on_closed;
};
/* Bind and begin to receive. Port 0 asks for a free one. Received datagrams are never truncated in silence: a longer
 * one than the buffer goes to on_error as ERR_TOO_LARGE. */
int world_udp_open(struct shoal_world *w, const struct shoal_address *bind, const struct world_udp_events *events,
                   void *data, struct world_udp **out);
/* Hand one datagram to the network. 0 says nothing about arrival. Does not block: a full socket is -EAGAIN. */
int world_udp_send(struct world_udp *u, const struct shoal_address *to, const void *bytes, size_t length);
void world_udp_address(struct world_udp *u, struct shoal_address *out); /* Where it is bound. */
void world_udp_close(struct world_udp *u);

/* ---- streams: ordered, reliable bytes (TCP; a child's pipes; this process's own stdin, stdout, stderr) ---- */

struct world_buffer {
  const void *bytes;
  size_t length;
};
struct world_stream_events {
  void (*on_open)(void *data, int status); /* A connect ended: 0, or why not (then only close is of use). */
  void (*on_read)(void *data, const uint8_t *bytes, size_t length); /* length > 0 */
  /* Nothing more will be read: 0 when the other end finished, else why (-ECONNRESET). Once. Still to be closed. */
  void (*on_end)(void *data, int status);
  void (*on_drain)(void *data); /* The kernel now has all bytes that writes had queued. May be NULL. */
  world_closed_fn *on_closed;
};
/* Begin to connect; on_open gives the outcome. Reading starts by itself once open. */
int world_connect(struct shoal_world *w, const struct shoal_address *to, const struct world_stream_events *events,
                  void *data, struct world_stream **out);
/* Take a stream that came without events (accepted, or a child's); reading starts with this call. The receiver of such a stream must
 * attach or close it. */
void world_stream_attach(struct world_stream *s, const struct world_stream_events *events, void *data);
/* Write all of these bytes, in order: the kernel gets what it takes now, the rest is copied and queued. 0, or a code
 * when the stream cannot be written (not open yet: -ENOTCONN; ended: -EPIPE). The caller bounds its own queue by
 * asking world_stream_queued. An error found later comes as on_end. */
int world_stream_write(struct world_stream *s, const struct world_buffer *buffers, size_t count);
size_t world_stream_queued(const struct world_stream *s); /* Bytes not yet taken by the kernel. */
void world_stream_read(struct world_stream *s, bool on); /* Pause or resume reading. */
/* Finish our side once everything written has left; the other end reads its end. */
int world_stream_shutdown(struct world_stream *s);
/* At most about this many bytes wait in the kernel (SO_SNDBUF), so that what is queued later can still be overtaken. */
void world_stream_window(struct world_stream *s, size_t bytes);
bool world_stream_peer(const struct world_stream *s, struct shoal_address *out); /* False when it is no socket. */
void world_stream_close(struct world_stream *s); /* Aborts: queued bytes are dropped. */

struct world_listener_events {
  void (*on_connection)(void *data, struct world_stream *stream); /* The callee owns it: attach or close it. */
  void (*on_error)(void *data, int code); /* An accept failed (out of descriptors); it goes on listening. */
  world_closed_fn *on_closed;
};
int world_listen(struct shoal_world *w, const struct shoal_address *bind, const struct world_listener_events *events,
                 void *data, struct world_listener **out);
void world_listener_address(struct world_listener *l, struct shoal_address *out);
void world_listener_close(struct world_listener *l);

/* fd 0 (read), 1 or 2 (write) of this process as a stream; attach it. -EBADF when that cannot be, ERR_UNSUPPORTED in a
 * simulated node that has none. Regular files work for reading and writing too. */
int world_stdio(struct shoal_world *w, int fd, struct world_stream **out);

/* ---- names ---- */

/* Look a host up (numeric ones too). on_result is called once with 0 and at least one address (port as given), or a
 * code; then on_closed. Closing it early cancels. */
int world_resolve(struct shoal_world *w, const char *host, uint16_t port,
                  void (*on_result)(void *data, int status, const struct shoal_address *addresses, size_t count),
                  world_closed_fn *on_closed, void *data, struct world_lookup **out);
void world_lookup_close(struct world_lookup *l);

/* ---- files; paths are the node's own, relative ones start at its directory. These block, and are meant for small
 *      things at start and for the log below. ---- */

/* The whole file in malloc'ed memory, one zero byte after it. -ENOENT when there is none. */
int world_read_file(struct shoal_world *w, const char *path, uint8_t **bytes, size_t *length);
/* Replace the file so that after a power loss it is wholly the old or wholly the new one (write, sync, rename, sync). */
int world_put_durable(struct shoal_world *w, const char *path, const void *bytes, size_t length);
/* The same off the loop. Unlike other bytes given to a call, `bytes` are not copied (a snapshot is large): they must stay as they are
 * until on_closed. on_done comes once, with 0 or why the old file stands; then on_closed. After an early close there is no on_done, and
 * whether the file was replaced is unknown. ERR_BUSY, from world_put_durable too: a put of this very path is under way. */
int world_put_later(struct shoal_world *w, const char *path, const void *bytes, size_t length,
                    void (*on_done)(void *data, int status), world_closed_fn *on_closed, void *data, struct world_put **out);
void world_put_close(struct world_put *p);

struct world_stat {
  uint64_t size;       /* In bytes; 0 for a directory. */
  int64_t modified_ns; /* Unix time of the last write. */
  bool directory;
};
int world_stat(struct shoal_world *w, const char *path, struct world_stat *out); /* -ENOENT when there is none. */
int world_rename(struct shoal_world *w, const char *from, const char *to);
int world_unlink(struct shoal_world *w, const char *path);
int world_make_directory(struct shoal_world *w, const char *path); /* With its parents; there already is 0. */
/* A new folder that only our user can enter; -EEXIST when something is there. ERR_UNSUPPORTED in a simulated world, as the next two. */
int world_make_private(struct shoal_world *w, const char *path);
/* Is it still as world_make_private made it? -ENOTEMPTY when it holds anything, -EPERM when its mode was changed. */
int world_check_private(struct shoal_world *w, const char *path);
int world_remove_directory(struct shoal_world *w, const char *path); /* -ENOTEMPTY when it holds anything. */
/* Each entry's name, sorted bytewise, during the call. */
int world_list(struct shoal_world *w, const char *path, void (*on_name)(void *data, const char *name), void *data);

/* Lock the file at this path, made when absent, until the close or the end of this process, by whatever cause. ERR_BUSY while this or
 * another process of this machine holds it: *holder is then its process id, or 0 when that is not known. Children do not inherit the
 * lock. The file stays. */
int world_lock(struct shoal_world *w, const char *path, world_closed_fn *on_closed, void *data, int *holder,
               struct world_lock **out);
void world_lock_close(struct world_lock *l);
/* Whether the lock still guards its path: 0; ERR_GONE when the file or its folder was removed or replaced, so that another process can
 * lock that path; or the code of a look that failed. */
int world_lock_check(const struct world_lock *l);

/* A file that only grows. */
struct world_log_events {
  /* All up to `size` bytes is durable, or why not. ERR_GONE: the file or its folder was removed or replaced, so that no
   * restart will read what was written. After one failure each later append, truncate and sync fails with its code. */
  void (*on_synced)(void *data, int status, uint64_t size);
  world_closed_fn *on_closed;
};
/* Opened for appending, made when absent. */
int world_log_open(struct shoal_world *w, const char *path, const struct world_log_events *events, void *data,
                   struct world_log **out);
/* Lock it until its close: ERR_BUSY while another open log of the same file is locked, with that process's id or 0 in *holder. Logs that
 * do not ask for the lock are not refused. */
int world_log_lock(struct world_log *l, int *holder);
int world_log_append(struct world_log *l, const void *bytes, size_t length); /* All, or a code and nothing. */
/* Completes later, off the loop; while one runs, the next call queues exactly one more. */
int world_log_sync(struct world_log *l);
int world_log_truncate(struct world_log *l, uint64_t size);
uint64_t world_log_size(const struct world_log *l);
void world_log_close(struct world_log *l);

/* ---- child processes ---- */

/* Limits of a program, which its children inherit, each for itself; 0: as ours. */
struct world_limits {
  uint64_t memory_bytes; /* Private memory that can be written (RLIMIT_DATA): what it asks for beyond is refused. */
  uint64_t cpu_s;        /* CPU time: SIGXCPU at so many seconds, KILL a second later. */
  uint64_t files;        /* Open files. */
};

struct world_spawn {
  const char *const *argv; /* NULL-terminated; argv[0] is looked for in PATH. */
  const char *const *env;  /* NULL-terminated "NAME=value", added to this process's own; NULL for none. */
  const char *const *inherit; /* The names of this process's own environment that the child gets; "LC_*" stands for all that begin so.
                               * NULL: all. */
  struct world_limits limits;
  const char *cwd;         /* NULL: as ours. */
  bool pipe[3];            /* stdin, stdout, stderr as pipes; else: stdin is the null device, the others are ours. */
  bool group;              /* Its own process group; world_process_kill then reaches all of it. */
  /* Its parent is a process of its own, which leads its group, so that a program that kills its parent harms only itself. When that parent
   * was killed, on_exit has status -1 and the parent's signal: nobody knows the program's own end, and the rest of its group still runs.
   * Whatever the program leaves behind when it ends, in any group or session, is killed before on_exit; see world_process_ended. */
  bool keeper;
  /* The stdin of a child that runs guard.h's program, or NULL. Right before argv runs, the new process writes there that it has started;
   * -EPIPE when that child has gone, -EAGAIN when it does not read: then argv does not run. The caller writes that the group has ended,
   * before it closes the process. A simulated world has none: its children go with their machine. */
  struct world_stream *guard;
};
struct world_process_events {
  void (*on_exit)(void *data, int64_t status, int signal); /* Once. status -1: see keeper. Its pipes may still hold bytes to read. */
  world_closed_fn *on_closed;
};
int world_spawn(struct shoal_world *w, const struct world_spawn *options, const struct world_process_events *events,
                void *data, struct world_process **out);
/* The pipe for fd 0, 1 or 2, once each; NULL when it was not asked for or was taken. Attach it, or close it. Pipes
 * that were not taken are closed with the process. */
struct world_stream *world_process_stream(struct world_process *p, int fd);
int world_process_pid(const struct world_process *p);
/* -ESRCH once it has ended. A group's leader stays a zombie until it is closed: a kill of the group then succeeds, and reaches the
 * processes that are left of it, if any, but never another process. With a keeper all descendants get the signal, whatever their group. */
int world_process_kill(struct world_process *p, int signal);
void world_process_close(struct world_process *p);           /* Leaves the child running. */

enum { WORLD_LEFT_NAMED = 4, WORLD_LEFT_BYTES = 64 };
/* How a program with a keeper ended; all 0 before on_exit, without a keeper, and in a simulated world. */
struct world_ended {
  uint64_t cpu_ms;     /* Of the program and of those of its descendants that were waited for. */
  uint32_t left_count; /* Processes that it left behind, which were killed, */
  uint32_t left_named; /* and what the first of them were: */
  struct {
    int pid;
    char command[WORLD_LEFT_BYTES]; /* The command line, cut. */
  } left[WORLD_LEFT_NAMED];
};
void world_process_ended(const struct world_process *p, struct world_ended *out);

/* ---- telemetry of this process ---- */

struct world_telemetry {
  uint64_t cpu_ns;       /* User and system time so far. */
  uint64_t resident_bytes;
  uint32_t open_handles; /* Things of this world now open; 0 once all was closed. */
};
void world_telemetry(struct shoal_world *w, struct world_telemetry *out);

#endif
