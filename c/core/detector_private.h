/* The state of core/detector, shared by its files and its specs. Records, nodes and jobs have stable addresses. */
#ifndef SHOAL_DETECTOR_PRIVATE_H
#define SHOAL_DETECTOR_PRIVATE_H

#include <assert.h>

#include "core/detector.h"
#include "core/wheel.h"

#define DETECTOR_MS UINT64_C(1000000)

/* A table of pointers by hash: open addressing, linear probing, at most three quarters full. */
struct detector_set {
  struct {
    uint32_t hash;
    void *item;
  } *slots;
  uint32_t count, capacity; /* A power of two, or 0. */
};
typedef bool detector_same(const void *item, const void *key);
void *detector_set_find(const struct detector_set *s, uint32_t hash, detector_same *same, const void *key);
int detector_set_add(struct detector_set *s, uint32_t hash, void *item); /* 0 or ERR_MEMORY. */
void detector_set_remove(struct detector_set *s, uint32_t hash, const void *item);
void detector_set_free(struct detector_set *s);

struct detector_ring { /* Of all nodes, or all jobs: the one looked at longest ago is first. */
  struct detector_ring *next, *previous;
};

struct detector_record;

struct detector_node {
  struct detector_ring ring; /* First. */
  uint32_t hash;             /* detector_number() of its name. */
  uint32_t references;       /* Records, also those whose end was not taken yet, and extensions. */
  uint32_t life;             /* Counts deaths and new lives; an extension of another life is void. */
  struct detector_incarnation incarnation;
  enum detector_state state;
  bool claimed;              /* detector_node() named it; else it is dropped with its last reference. */
  uint64_t changed_ns;
  struct detector_record *machine; /* Its own suspicion. */
  struct detector_record **of;     /* Its suspicions for jobs, as they came; those that have ended are skipped, and dropped by the way. */
  uint32_t count, capacity, live;  /* Of them, running. */
  uint32_t length;
  char name[];
};

struct detector_job {
  struct detector_ring ring; /* First. */
  uint32_t hash, references; /* Records and extensions. */
  struct detector_set suspicions, extensions;
  uint32_t length; /* 0: the one that stands for the machines. */
  char name[];
};

struct detector_grants { /* Of one workflow. */
  uint64_t workflow; /* A hash of its name. */
  uint64_t progress; /* The node's own count at the last grant; UINT64_MAX: it gave none. */
  uint32_t granted;
  bool progressed, graced;
};
struct detector_extension { /* Of a node for a job. */
  struct detector_node *node;
  uint32_t life, count, last; /* last: the workflow that asked last. */
  uint64_t until_ns;
  struct detector_grants *of;
};

struct detector_record { /* Three cache lines. */
  struct wheel_entry due;  /* First. In the wheel while it runs. */
  uint64_t armed_ns;       /* When its deadline was set; after its end: when it ended. */
  struct detector_node *node;
  struct detector_job *job;
  struct suspicion suspicion;
  uint64_t began_ns, extended_ns;
  uint64_t stalled_ns, returned_ns; /* The detector's stalled_ns up to which it was counted; what was given back of it. */
  struct detector_record *queued;   /* The next action. Free: the next free one. */
  struct detector_incarnation incarnation;
  uint32_t place;                   /* In its node's list. */
  uint8_t action, why;              /* What to report; NOTHING. */
  bool running : 1, waiting : 1, late : 1; /* Not ended; in the queue; got its one tick for a late one. */
};
static_assert(sizeof(struct detector_record) <= 192, "a record fills more than three cache lines");
enum { DETECTOR_NOTHING = 255, DETECTOR_CHUNK = 128 };

struct detector_chunk {
  _Alignas(64) struct detector_record records[DETECTOR_CHUNK];
  struct detector_chunk *next;
};

struct detector {
  struct detector_config config;
  struct wheel wheel;
  struct detector_set nodes, jobs;
  struct detector_ring node_ring, job_ring;
  struct detector_job *machines;
  struct detector_chunk *chunks;
  struct detector_record *free;
  uint32_t records; /* Running, or ended and not taken. */
  uint32_t running; /* Of them, in the wheel. */
  struct detector_record *first, **last; /* The queue of actions. */
  struct detector_record *taken;         /* The last action's, freed by the next detector_next(). */
  uint64_t now_ns, beat_ns, stalled_ns;  /* beat_ns: the last call. */
  uint32_t look_nodes, look_jobs;        /* Left in this reconcile cycle. */
  bool looking;
  struct detector_counts counts;
};

/* ---- detector_table.c: nodes, jobs, records ---- */
struct detector_node *detector_node_find(const struct detector *d, struct detector_text name);
/* The same; meanwhile the job's slot for it comes from memory. */
struct detector_node *detector_node_find_for(const struct detector *d, const struct detector_job *j, struct detector_text name);
int detector_node_need(struct detector *d, struct detector_text name, struct detector_node **out); /* FULL, TOO_LARGE, MEMORY. */
void detector_node_release(struct detector *d, struct detector_node *n); /* Frees it if nothing needs it. */
struct detector_job *detector_job_find(const struct detector *d, struct detector_text name);
int detector_job_need(struct detector *d, struct detector_text name, struct detector_job **out);
void detector_job_release(struct detector *d, struct detector_job *j);
struct detector_record *detector_record_find(const struct detector_job *j, const struct detector_node *n);
int detector_record_new(struct detector *d, struct detector_job *j, struct detector_node *n, struct detector_record **out);
void detector_record_detach(struct detector_record *r); /* From its job and node. */
struct detector_record *detector_node_last(struct detector_node *n); /* Its latest suspicion for a job; NULL: none. */
struct detector_record *detector_node_at(const struct detector_node *n, uint32_t place); /* NULL: it has ended. */
void detector_record_free(struct detector *d, struct detector_record *r);
struct detector_extension *detector_extension_find(const struct detector_job *j, const struct detector_node *n);
int detector_extension_need(struct detector *d, struct detector_job *j, struct detector_node *n, struct detector_extension **out);
void detector_extension_drop(struct detector *d, struct detector_job *j, struct detector_extension *x);

/* ---- detector.c ---- */
void detector_end(struct detector *d, struct detector_record *r, enum detector_kind kind, enum detector_why why);
void detector_arm(struct detector *d, struct detector_record *r);
uint64_t detector_record_deadline(const struct detector_record *r);
void detector_advance(struct detector *d, uint64_t now_ns); /* Each call begins with it. */

#endif
