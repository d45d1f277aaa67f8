/* sim_private: declarations shared by the files of the simulated world.
 *
 *   sim.c          nodes, faults, lookups, the table of operations
 *   sim_clock.c    clocks and timers
 *   sim_queue.c    the event queue and the memory
 *   sim_link.c     links, cuts, clogs, rates
 *   sim_net.c      addresses, the path of a datagram, ports, datagram sockets
 *   sim_stream.c   the wire and the kernels of streams
 *   sim_socket.c   streams, listeners and pipes as a process holds them
 *   sim_files.c    disks, their faults
 *   sim_log.c      logs, puts off the loop, locks
 *   sim_process.c  children
 *
 * There are two kinds of event. An event with a `world` is a callback into that world: it is held while its node is paused or its
 * process stalled, and freed with its world. The others belong to the network and the kernels: a paused machine still acknowledges. */
#ifndef SHOAL_WORLD_SIM_PRIVATE_H
#define SHOAL_WORLD_SIM_PRIVATE_H

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "world/sim.h"
#include "world/world_private.h"

struct sim_world;

#define SIM_MS UINT64_C(1000000)
#define SIM_S UINT64_C(1000000000)
#define SIM_TURN_NS UINT64_C(1000) /* Each turn of a loop takes this long, so that work that is always due cannot stop the clock. */
#define SIM_AROUND(type, member, pointer) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

#define SIM_LINE_BYTES 64 /* Of the cache. */
#define SIM_BUCKETS 8192 /* Of the wheel of events. */
#define SIM_SLOTS_MAX (UINT32_C(1) << 24) /* Events that can wait at once; with more the simulator aborts. */

enum {
  SIM_CLASSES = 18,                    /* Memory in sizes of powers of two from 2^6 on. */
  SIM_CONNECT_TIMEOUT_MS = 5000,       /* sim.h */
  SIM_UNANSWERED_MS = 15000,           /* sim.h */
  SIM_RETRANSMIT_MS = 200,             /* The first retransmission, then doubling (the least RTO of Linux). */
  SIM_WINDOW_BYTES = 256 * 1024,       /* Of a stream: sent or arrived, and not yet read. */
  SIM_WINDOW_BYTES_MIN = 4096,
  SIM_REORDER_MS = 10,                 /* sim.h: the defaults of a link and of a slow consumer. */
  SIM_QUEUE_BYTES = 64 * 1024,
  SIM_SLOW_QUEUE = 64,
  SIM_PATH_MAX = 1024,
  /* Free ports are handed out in turn from here, so that a late packet does not reach the next user of its port. */
  SIM_PORTS_FIRST = 32768,
  SIM_PORTS = 28000,
};

/* ---- events ---- */

struct sim_event {
  void (*run)(struct sim *s, struct sim_event *e);
  struct sim_world *world; /* The world that it calls; NULL: none. */
  struct sim_event *next, *previous; /* In a ring: of a paused node, a stalled process, a clog or a slow consumer. */
  uint32_t slot;           /* In the queue, from 1; 0: not there. */
};
struct sim_entry {
  uint64_t at_ns;
  uint64_t order; /* Its number in sequence times SIM_SLOTS_MAX, and its slot: 10^12 events, 16 million of them at once. */
};
struct sim_slot { /* Of an event in the queue. */
  struct sim_entry entry;
  struct sim_event *event;
  uint32_t next, previous; /* In a list; of the free ones, next. 0: none. */
  uint32_t place;          /* In the heap; 0: it is in a list, */
  uint32_t list;           /* which is this. */
};

/* ---- things a world opens: the first member of each, laid over its base ---- */

struct sim_thing {
  struct world_handle handle;
  struct sim_thing *next, *previous; /* In its world's ring. */
  void (*drop)(struct sim_thing *t); /* Release all it holds and its memory; no callback. */
  world_closed_fn *on_closed;
  void *data;
  struct sim_event closed;
};

struct sim_world {
  struct shoal_world base;
  struct sim_node *node;
  struct sim_process *process; /* NULL: the node's first process. */
  struct sim_thing things;     /* Head of the ring. */
  struct sim_event wake;       /* Armed when deferred work was left, or came from outside an event. */
  bool stalled;                /* Its process does not run. */
  struct sim_event held;       /* Head of the ring of events that came due meanwhile. */
  struct sim_event go_on;      /* The end of the stall. */
  uint64_t stalled_until_ns;
  char name[72];               /* "a", and "a/7" for its child 7. */
};

/* ---- disks ---- */

struct sim_file {
  uint32_t references; /* The name and each open log. */
  uint8_t *bytes;
  size_t length, capacity;
  size_t synced_bytes; /* A power loss would leave this much, once disks tear. */
  int64_t modified_ns; /* By its machine's wall clock. */
  bool locked;
  int holder; /* The process that holds the lock. */
};
struct sim_entry_file {
  char *path; /* Absolute and clean. */
  struct sim_file *file; /* NULL: a directory. */
};
struct sim_disk {
  struct sim_entry_file *entries; /* Sorted by path, bytewise. */
  size_t count, capacity;
  struct sim_disk_faults faults;
};

/* ---- machines ---- */

struct sim_node {
  /* Read for each datagram and each timer: one line of the cache. */
  struct sim *sim;
  struct sim_world *world; /* NULL while it is down. */
  struct sim_udp *udps;
  uint64_t epoch_ns;       /* Its clock is this + true time + the drift since drift_from_ns. Drawn again at each boot. */
  struct shoal_address address;
  uint32_t index;
  int32_t drift_ppm;
  bool paused, slow;
  /* The rest. */
  char *name;
  uint32_t boot; /* Counts its starts. */
  int64_t wall_offset_ns;
  uint64_t drift_from_ns;
  struct sim_event held; /* Head of the ring of events that came due while it was paused. */
  struct rng chance;     /* Of its disk and the like; not its world's. */
  struct sim_disk disk;
  struct sim_listener *listeners;
  struct sim_end *ends_first, *ends_last; /* Its ends of connections, oldest first. */
  struct sim_process *processes, *processes_last;
  int last_pid;
  uint16_t last_port;
  uint32_t slow_per_s, slow_queue;
  struct sim_event inbox; /* Head of the ring of datagrams that wait for a slow consumer. */
  uint32_t inbox_count;
  uint64_t serve_ns;      /* When it takes the next. */
  struct sim_event serve;
};
_Static_assert(offsetof(struct sim_node, name) <= SIM_LINE_BYTES, "what is hot is one line");

/* Settings of one directed pair of nodes. */
struct sim_pair {
  struct sim_node *from, *to;
  bool cut, linked, clogged;
  struct sim_link link;
  uint64_t wire_free_ns;    /* When everything put on a wire with a rate will have left. */
  struct sim_event clog;    /* Head of the ring of datagrams that wait for the end of a clog. */
  uint64_t clog_bytes;
  struct sim_event cut_long; /* The cut has lasted 15 s: streams across it end. */
};

struct sim {
  uint64_t now_ns, sequence, seed, events;
  /* The queue: sim_queue.c. */
  struct sim_entry *near;
  uint32_t near_count, near_capacity, armed_count, slots_count, slots_capacity, slot_free;
  struct sim_slot *slots;
  uint64_t cursor, far_from;           /* Buckets: that of the heap; the first that an event of the far list may have. */
  uint64_t filled[SIM_BUCKETS / 64];   /* A bit for each list of the wheel that is not empty. */
  uint32_t lists[SIM_BUCKETS + 1];     /* Their first slots; the last is the far list. */
  struct sim_world *running; /* The world an event has called. */
  void *free[SIM_CLASSES];
  struct rng chance; /* Of the network. */
  struct sim_counts counts;
  bool readdressed;  /* An address has moved: look the destination up again on arrival. */
  struct sim_link link;
  struct sim_node **nodes;
  uint32_t nodes_count, nodes_capacity;
  uint32_t *by_address; /* Open addressing; index + 1. */
  uint32_t by_address_size;
  uint32_t *by_name; /* Open addressing too. */
  uint32_t by_name_size;
  struct sim_pair **pairs; /* In the order they were made. */
  uint32_t pairs_count, pairs_capacity;
  uint32_t *by_pair;
  uint32_t by_pair_size;
  void (*on_event)(void *data, uint64_t now_ns, const char *text);
  void *on_event_data;
  sim_spawn_fn *on_spawn;
  void *on_spawn_data;
};

static inline uint64_t sim_mix(uint64_t x) { /* The finisher of splitmix64. */
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}
static inline struct sim_world *sim_world_of(struct shoal_world *w) { return (struct sim_world *)(void *)w; }
static inline struct sim *sim_of(const struct sim_thing *t) {
  return sim_world_of(t->handle.world)->node->sim;
}

/* sim_queue.c */
/* Arm the event, or move it, to this instant, behind those armed for it already. An instant in the past means now. */
void sim_event_at(struct sim *s, struct sim_event *e, uint64_t at_ns);
void sim_event_cancel(struct sim *s, struct sim_event *e); /* Take it out of the queue or a ring; harmless when it is in neither. */
static inline bool sim_event_armed(const struct sim_event *e) { return e->slot != 0 || e->next; }
bool sim_event_is_at(const struct sim *s, const struct sim_event *e, uint64_t at_ns); /* In the queue, at this instant? */
uint64_t sim_event_next_ns(struct sim *s);       /* When the next is due; UINT64_MAX: there is none. */
struct sim_event *sim_event_take(struct sim *s); /* Take the next one and set the clock to it; NULL: there is none. */
/* Rings of events that wait for something other than time. */
static inline void sim_ring_init(struct sim_event *ring) { ring->next = ring->previous = ring; }
void sim_ring_push(struct sim_event *ring, struct sim_event *e);
struct sim_event *sim_ring_take(struct sim_event *ring); /* The first; NULL when there is none. */
void sim_ring_release(struct sim *s, struct sim_event *ring); /* Arm all of it for now, in order. */
void sim_queue_free(struct sim *s);
void *sim_take(struct sim *s, size_t size); /* Not zeroed. Without memory the simulator aborts. */
void sim_give(struct sim *s, void *memory, size_t size);
size_t sim_room(size_t size); /* How many bytes sim_take(size) really gives. */
void sim_memory_free(struct sim *s);
void *sim_grow(void *array, uint32_t *capacity, uint32_t count, size_t size);

/* sim.c */
#define SIM_NOTE(s, ...) ((s)->on_event ? sim_note((s), __VA_ARGS__) : (void)0)
void sim_note(struct sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t sim_derive(uint64_t seed, const char *name, uint64_t number);
/* The event calls this world now: run its deferred work afterwards. */
static inline void sim_enter(struct sim_world *w) { w->node->sim->running = w; }
void sim_thing_open(struct sim_world *w, struct sim_thing *t, void (*drop)(struct sim_thing *t),
                    world_closed_fn *on_closed, void *data);
void sim_thing_close(struct sim_thing *t); /* Schedule its on_closed. */
void sim_thing_leave(struct sim_thing *t); /* For drop(): take it out of its ring and cancel its event. */
struct sim_world *sim_world_new(struct sim_node *n, struct sim_process *process, uint64_t seed);
void sim_world_stall(struct sim_world *w, uint64_t for_ns); /* From after this event on. */
void sim_world_free(struct sim_world *w); /* With all it opened; no callback. */
extern const struct world_ops sim_ops;

/* sim_clock.c */
uint64_t sim_clock_now_ns(struct shoal_world *w);
int64_t sim_clock_wall_ns(struct shoal_world *w);
void sim_clock_boot(struct sim_node *n); /* A new epoch, without what it had gained. */
int sim_timer_open(struct shoal_world *w, void (*on_timer)(void *data), world_closed_fn *on_closed, void *data,
                   struct world_timer **out);
void sim_timer_start(struct world_timer *t, uint64_t at_ns);
void sim_timer_stop(struct world_timer *t);
void sim_timer_close(struct world_timer *t);
bool sim_event_is_timer(const struct sim_event *e);
void sim_world_retime(struct sim_world *w); /* Its timers, as the clock now runs. */

/* sim_link.c */
struct sim_pair *sim_pair_of(const struct sim *s, const struct sim_node *from, const struct sim_node *to); /* NULL: nothing was said. */
const struct sim_link *sim_link_over(const struct sim *s, const struct sim_pair *p, const struct sim_node *from,
                                     const struct sim_node *to); /* p is theirs, or NULL. */
bool sim_is_clogged(struct sim *s, const struct sim_node *from, const struct sim_node *to);
/* A datagram under way meets a clog: it waits, or goes when there is no room (false). */
bool sim_clog_hold(struct sim *s, struct sim_pair *p, struct sim_event *e, size_t length);
/* Put so many bytes on the wire of a link with a rate: how long until the last has left; UINT64_MAX: the queue, if it is bounded
 * for them, has no room. */
uint64_t sim_wire_take(struct sim *s, struct sim_node *from, struct sim_node *to, const struct sim_link *link, size_t length,
                       bool bounded);
bool sim_is_cut(struct sim *s, const struct sim_node *from, const struct sim_node *to);
const struct sim_link *sim_link_of(struct sim *s, const struct sim_node *from, const struct sim_node *to);
uint64_t sim_link_delay(struct sim *s, const struct sim_link *link);
void sim_links_free(struct sim *s);

/* sim_net.c */
struct sim_node *sim_node_at(const struct sim *s, const struct shoal_address *address); /* Whatever its port; or NULL. */
struct sim_node *sim_route(struct sim_node *from, const struct shoal_address *to); /* NULL: no node has this address. */
bool sim_is_any(const struct shoal_address *a);
/* 0, or why a socket of this node cannot have this address. */
int sim_can_bind(const struct sim_node *n, const struct shoal_address *bind);
bool sim_binds_meet(const struct shoal_address *a, const struct shoal_address *b); /* Would one take the other's? */
uint16_t sim_next_port(struct sim_node *n); /* The next of the free ports; it may be in use. */
/* The address that a packet from `local` to `to` bears. */
struct shoal_address sim_source(const struct sim_node *n, const struct shoal_address *local, const struct shoal_address *to);
void sim_place_node(struct sim *s, struct sim_node *n); /* Into the table of addresses. */
void sim_inbox_init(struct sim_node *n);
void sim_inbox_clear(struct sim_node *n); /* Drop the datagrams that wait for a slow receiver. */
/* Free the datagrams in the ring of a process that is gone; the ring holds nothing else. */
void sim_datagrams_drop(struct sim *s, struct sim_event *held);
int sim_udp_open(struct shoal_world *w, const struct shoal_address *bind, const struct world_udp_events *events,
                 void *data, struct world_udp **out);
int sim_udp_send(struct world_udp *u, const struct shoal_address *to, const void *bytes, size_t length);
void sim_udp_address(struct world_udp *u, struct shoal_address *out);
void sim_udp_close(struct world_udp *u);

/* sim_stream.c */
void sim_streams_healed(struct sim_node *from, struct sim_node *to); /* Retransmit the waiting segments between them. */
void sim_streams_unclogged(struct sim_node *from, struct sim_node *to); /* Deliver the waiting segments between them. */
/* Both are down (to NULL: no machine has the address): traffic to the ends of `from` now reaches `to`. */
void sim_streams_readdressed(struct sim_node *from, struct sim_node *to);
void sim_streams_cut_long(struct sim_node *from, struct sim_node *to);
void sim_streams_crashed(struct sim_node *n);  /* Its ends answer no more. */
void sim_streams_restarted(struct sim_node *n); /* Now the machine answers for the ends it has forgotten. */

/* sim_socket.c */
int sim_connect(struct shoal_world *w, const struct shoal_address *to, const struct world_stream_events *events,
                void *data, struct world_stream **out);
void sim_stream_attach(struct world_stream *s, const struct world_stream_events *events, void *data);
int sim_stream_write(struct world_stream *s, const struct world_buffer *buffers, size_t count);
size_t sim_stream_queued(const struct world_stream *s);
void sim_stream_read(struct world_stream *s, bool on);
int sim_stream_shutdown(struct world_stream *s);
void sim_stream_window(struct world_stream *s, size_t bytes);
bool sim_stream_peer(const struct world_stream *s, struct shoal_address *out);
void sim_stream_close(struct world_stream *s);
int sim_listen(struct shoal_world *w, const struct shoal_address *bind, const struct world_listener_events *events,
               void *data, struct world_listener **out);
void sim_listener_address(struct world_listener *l, struct shoal_address *out);
void sim_listener_close(struct world_listener *l);
/* A pipe on one machine: its ends are 0 (the parent's) and 1 (the child's). It lives until both are gone; it is
 * reachable only through the pointers of its holders, so a holder that releases an end must drop its pointer. */
struct sim_connection *sim_pipe_new(struct sim_node *n);
void sim_pipe_keep(struct sim_connection *c); /* The child will read: keep incoming bytes for it. */
struct world_stream *sim_pipe_open(struct sim_connection *c, int side, struct sim_world *w, bool reads);
void sim_pipe_print(struct sim_connection *c, const void *bytes, size_t length); /* From side 1, which has no stream. */
void sim_pipe_end(struct sim_connection *c, int side); /* The process is gone and never took its stream. May free c. */

/* sim_files.c */
/* Absolute, without ".", "..", doubled or trailing slashes. 0, or -ENAMETOOLONG. */
int sim_path(const struct sim_world *w, const char *path, char *out);
struct sim_entry_file *sim_disk_find(struct sim_disk *d, const char *full); /* NULL: there is none. */
struct sim_entry_file *sim_disk_add(struct sim_disk *d, const char *full, struct sim_file *file);
int sim_disk_parent(struct sim_disk *d, const char *full); /* Can its directory hold this path? 0, -ENOENT or -ENOTDIR. */
int sim_disk_put(struct sim_world *w, const char *full, const void *bytes, size_t length);
struct sim_file *sim_file_new(void);
void sim_file_release(struct sim_file *f);
int sim_file_append(struct sim_file *f, const void *bytes, size_t length);
enum { SIM_DISK_READ = 1, SIM_DISK_NAMES = 2, SIM_DISK_WRITE = 4, SIM_DISK_SYNC = 8 };
int sim_disk_fault(const struct sim_node *n, unsigned uses); /* The code with which these uses of the disk fail now; 0: they succeed. */
void sim_disk_init(struct sim_disk *d);
void sim_disk_free(struct sim_disk *d);
int sim_read_file(struct shoal_world *w, const char *path, uint8_t **bytes, size_t *length);
int sim_put_durable(struct shoal_world *w, const char *path, const void *bytes, size_t length);
bool sim_put_is_pending(const struct sim_world *w, const char *full);
int sim_put_later(struct shoal_world *w, const char *path, const void *bytes, size_t length,
                  void (*on_done)(void *data, int status), world_closed_fn *on_closed, void *data, struct world_put **out);
void sim_put_close(struct world_put *p);
int sim_stat(struct shoal_world *w, const char *path, struct world_stat *out);
int sim_lock(struct shoal_world *w, const char *path, world_closed_fn *on_closed, void *data, int *holder,
             struct world_lock **out);
void sim_lock_close(struct world_lock *l);
int sim_lock_check(const struct world_lock *l);
int sim_log_lock(struct world_log *l, int *holder);
int sim_rename(struct shoal_world *w, const char *from, const char *to);
int sim_unlink(struct shoal_world *w, const char *path);
int sim_make_directory(struct shoal_world *w, const char *path);
int sim_list(struct shoal_world *w, const char *path, void (*on_name)(void *data, const char *name), void *data);
int sim_log_open(struct shoal_world *w, const char *path, const struct world_log_events *events, void *data,
                 struct world_log **out);
int sim_log_append(struct world_log *l, const void *bytes, size_t length);
int sim_log_sync(struct world_log *l);
int sim_log_truncate(struct world_log *l, uint64_t size);
uint64_t sim_log_size(const struct world_log *l);
void sim_log_close(struct world_log *l);

/* sim_process.c */
int sim_stdio(struct shoal_world *w, int fd, struct world_stream **out);
int sim_spawn(struct shoal_world *w, const struct world_spawn *options, const struct world_process_events *events,
              void *data, struct world_process **out);
struct world_stream *sim_process_stream(struct world_process *p, int fd);
int sim_process_pid(const struct world_process *p);
int sim_process_kill(struct world_process *p, int signal);
void sim_process_close(struct world_process *p);
int sim_process_number(const struct sim_process *p);
const char *sim_process_directory(const struct sim_process *p); /* Where its relative paths start. */
void sim_processes_retime(struct sim_node *n); /* Its children's timers, as the clock now runs. */
void sim_processes_crash(struct sim_node *n, bool tell); /* All of the machine's children are gone, without a word to it. */

#endif
