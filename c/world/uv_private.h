/* uv_private: declarations shared by the files of the real world.
 *
 *   uv.c          the world itself, clock, deferred work, timers, telemetry, the table of operations
 *   uv_udp.c      datagrams, names
 *   uv_stream.c   streams and connecting
 *   uv_listener.c accepting
 *   uv_process.c  child processes, stdin, stdout, stderr
 *   uv_launch.c   the start of one
 *   uv_strays.c   processes that became our children when their parent ended; uv_family.c: the process table
 *   uv_files.c    files
 *   uv_log.c      the log, puts off the loop, locks
 *
 * Every uv handle is embedded in its struct and found back by offset; `handle->data` is the one pointer of
 * world_uv_options and never read. A handle's close callback frees the struct. */
#ifndef SHOAL_WORLD_UV_PRIVATE_H
#define SHOAL_WORLD_UV_PRIVATE_H

#include <stddef.h>
#include <sys/socket.h>
#include <uv.h>

#include "world/uv.h"
#include "world/world_private.h"

#define CONTAINER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* ---- alarms: the base of timers. One heap by instant over one uv_timer_t, so that a thousand timers cost one
 *      libuv handle, nanoseconds order them, and setting one that is not the next costs no call of libuv. ---- */

struct alarm {
  uint64_t at_ns;
  uint64_t sequence; /* Those of one instant ring in the order they were set. */
  size_t place;      /* In the heap, from 1; 0 when not set. */
  void (*ring)(struct alarm *a);
};

struct real_process;
struct real_put;

struct real_world {
  struct shoal_world base;
  uv_loop_t *loop;
  void *handle_data;
  uv_prepare_t prepare; /* Before the loop waits, */
  uv_check_t check;     /* and after it: run what is deferred. */
  uv_idle_t idle;       /* Active while work is deferred, so that the loop neither waits nor ends. */
  uv_timer_t clock;     /* Active while an alarm is set. */
  uint64_t clock_ms;    /* When the clock fires, on the loop's clock; 0 when it is not set. */
  uint64_t epoch_ms;    /* Added to libuv's clock. */
  uint64_t now_ns;
  uint64_t now_loop_ms; /* uv_now() when now_ns was read. */
  bool now_known;       /* Within this turn. */
  struct alarm **alarms; /* A binary heap, from index 1. */
  size_t alarms_count, alarms_reserved, alarms_capacity;
  uint64_t alarms_sequence;
  bool alarm_soon; /* The next alarm was due when it was set: ring it in the next turn. */
  uv_signal_t reaper;           /* Hears of children that ended. */
  struct real_process *children; /* Running; those too that were closed, for no zombie may stay. */
  struct real_process *children_due; /* Ended, and about to be reported. */
  struct real_process *children_kept; /* Ended and reported, not closed yet. */
  uv_timer_t strays;            /* Runs while there may be some. */
  int strays_hunts;             /* Looks for strays to kill, still to come. */
  bool strays_adopted;
  pid_t strays_seen[32];        /* Zombies that the last look found. */
  size_t strays_seen_count;
  int children_watched;              /* Running and not closed: while there are any, the loop goes on. */
  struct real_put *puts; /* Under way, in no order. */
  uint32_t puts_count;
  uint8_t *datagrams;           /* Receive buffer of all datagram sockets; made by the first. */
  bool closing;
  int handles; /* Of our own, still open. */
  world_closed_fn *on_closed;
  void *data;
  uint8_t bytes[WORLD_READ_MAX]; /* Read buffer of all streams: a callback keeps nothing of it. */
};

static inline struct real_world *real_world(struct shoal_world *w) { return CONTAINER(w, struct real_world, base); }

/* Make room for one more alarm, so that setting it cannot fail; and give it back. */
int alarm_reserve(struct real_world *w);
void alarm_release(struct real_world *w, struct alarm *a);
void alarm_set(struct real_world *w, struct alarm *a, uint64_t at_ns);
void alarm_stop(struct real_world *w, struct alarm *a);

uint64_t real_now_ns(struct shoal_world *w);

/* libuv's code as ours: for names that are not found and for memory; errno codes stay. */
int code_from_uv(int code);
/* Returns the length of what was written to *out, or 0 when the address has no family. */
socklen_t address_to_socket(const struct shoal_address *address, struct sockaddr_storage *out);
bool address_from_socket(const struct sockaddr *from, struct shoal_address *out);
void address_of_socket(int fd, struct shoal_address *out);

/* ---- streams ---- */

enum stream_kind { STREAM_TCP, STREAM_PIPE, STREAM_TTY, STREAM_FILE /* No uv handle: blocking, delivered deferred. */ };

struct bytes {
  uint8_t *bytes;
  size_t length, capacity;
};

struct real_stream {
  struct world_stream base;
  enum stream_kind kind;
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
    uv_tty_t tty;
  } uv;
  const struct world_stream_events *events; /* Points to `own`, or is NULL while it is not attached. */
  struct world_stream_events own;
  void *data;
  bool open, readable, writable;
  bool reading_wanted, reading;
  bool ended;     /* on_end was called. */
  bool broken;    /* Nothing can be written any more; `failure` says why. */
  bool finishing; /* Shut down, once what is queued has left. */
  int failure;
  int file;             /* STREAM_FILE: its descriptor. */
  int shutdown_fd;      /* 1 or 2 for stdout or stderr, which must be closed too before the other end reads its end; else -1. */
  bool writing;         /* `write` is under way with `flight`. */
  struct bytes flight;  /* The bytes that libuv is writing, */
  struct bytes backlog; /* and the ones after them. */
  uv_write_t write;
  uv_connect_t connect;
  uv_shutdown_t shutdown;
  struct world_defer later; /* Ends a stream that failed in a call; reads a file; closes a file. */
};

static inline struct real_stream *real_stream(const struct world_stream *s) {
  return CONTAINER(s, struct real_stream, base);
}

/* A stream without events, its uv handle not yet made. NULL when out of memory. */
struct real_stream *stream_new(struct real_world *w, enum stream_kind kind);
/* It is open: count it as a thing of the world. */
void stream_opened(struct real_world *w, struct real_stream *s);
/* It could not be opened: close its uv handle, if that was initialized, and free it; no callback. */
void stream_discard(struct real_stream *s);
/* Take a connected TCP socket. Returns 0, or a code with the socket closed. */
int stream_from_socket(struct real_world *w, int fd, struct real_stream **out);

/* ---- operations, by file ---- */

int real_udp_open(struct shoal_world *w, const struct shoal_address *bind, const struct world_udp_events *events,
                  void *data, struct world_udp **out);
int real_udp_send(struct world_udp *u, const struct shoal_address *to, const void *bytes, size_t length);
void real_udp_address(struct world_udp *u, struct shoal_address *out);
void real_udp_close(struct world_udp *u);
int real_resolve(struct shoal_world *w, const char *host, uint16_t port,
                 void (*on_result)(void *data, int status, const struct shoal_address *addresses, size_t count),
                 world_closed_fn *on_closed, void *data, struct world_lookup **out);
void real_lookup_close(struct world_lookup *l);

int real_connect(struct shoal_world *w, const struct shoal_address *to, const struct world_stream_events *events,
                 void *data, struct world_stream **out);
void real_stream_attach(struct world_stream *s, const struct world_stream_events *events, void *data);
int real_stream_write(struct world_stream *s, const struct world_buffer *buffers, size_t count);
size_t real_stream_queued(const struct world_stream *s);
void real_stream_read(struct world_stream *s, bool on);
int real_stream_shutdown(struct world_stream *s);
void real_stream_window(struct world_stream *s, size_t bytes);
bool real_stream_peer(const struct world_stream *s, struct shoal_address *out);
void real_stream_close(struct world_stream *s);

int real_listen(struct shoal_world *w, const struct shoal_address *bind, const struct world_listener_events *events,
                void *data, struct world_listener **out);
void real_listener_address(struct world_listener *l, struct shoal_address *out);
void real_listener_close(struct world_listener *l);

int real_stdio(struct shoal_world *w, int fd, struct world_stream **out);
int real_spawn(struct shoal_world *w, const struct world_spawn *options, const struct world_process_events *events,
               void *data, struct world_process **out);
struct world_stream *real_process_stream(struct world_process *p, int fd);
int real_process_pid(const struct world_process *p);
int real_process_kill(struct world_process *p, int signal);
void real_process_close(struct world_process *p);
void real_process_ended(const struct world_process *p, struct world_ended *out);
/* The world is closing: forget the children that were left running. */
void orphans_close(struct real_world *w);
void on_children(uv_signal_t *handle, int number);
bool process_is_ours(const struct real_world *w, pid_t pid); /* Started here, and its end not taken yet. */

/* ---- strays: our children that nobody here started ---- */
void strays_open(struct real_world *w);
/* From here on the orphans of our descendants become our children. */
void strays_adopt(struct real_world *w);
/* Some child has ended: as process 1 we reap those of strangers. */
void strays_look(struct real_world *w);
/* A keeper was killed: kill and reap what it kept. */
void strays_hunt(struct real_world *w);

int real_read_file(struct shoal_world *w, const char *path, uint8_t **bytes, size_t *length);
int real_put_durable(struct shoal_world *w, const char *path, const void *bytes, size_t length);
/* Whether a put of this path is under way off the loop. */
bool put_is_pending(const struct real_world *w, const char *path);
/* Write `temporary`, sync, rename it to `path`, sync the folder. On any thread. */
int put_through(const char *temporary, const char *path, const void *bytes, size_t length);
int sync_parent(const char *path);
int write_all(int fd, const uint8_t *bytes, size_t length, size_t *done);
int real_put_later(struct shoal_world *w, const char *path, const void *bytes, size_t length,
                   void (*on_done)(void *data, int status), world_closed_fn *on_closed, void *data, struct world_put **out);
void real_put_close(struct world_put *p);
int real_stat(struct shoal_world *w, const char *path, struct world_stat *out);
int real_lock(struct shoal_world *w, const char *path, world_closed_fn *on_closed, void *data, int *holder,
              struct world_lock **out);
void real_lock_close(struct world_lock *l);
int real_lock_check(const struct world_lock *l);
int real_log_lock(struct world_log *l, int *holder);
int real_rename(struct shoal_world *w, const char *from, const char *to);
int real_unlink(struct shoal_world *w, const char *path);
int real_make_directory(struct shoal_world *w, const char *path);
int real_make_private(struct shoal_world *w, const char *path);
int real_check_private(struct shoal_world *w, const char *path);
int real_remove_directory(struct shoal_world *w, const char *path);
int real_list(struct shoal_world *w, const char *path, void (*on_name)(void *data, const char *name), void *data);
int real_log_open(struct shoal_world *w, const char *path, const struct world_log_events *events, void *data,
                  struct world_log **out);
int real_log_append(struct world_log *l, const void *bytes, size_t length);
int real_log_sync(struct world_log *l);
int real_log_truncate(struct world_log *l, uint64_t size);
uint64_t real_log_size(const struct world_log *l);
void real_log_close(struct world_log *l);

#endif
