/* Introductions: nodes that must not be members together. Two nodes of one name, and nodes of two clusters, tell each other who they are,
 * so that people on both sides read it, and only one of two namesakes is a member. */
#include <assert.h>
#include <stdlib.h>

#include "core/swim_private.h"

enum {
  ASKS = 1, MEMBER = 2, REPORT = 4, /* Flags of an INTRO. */
  KNOCKS = 6,         /* Unanswered introductions, over one period, after which a namesake counts as gone; */
  KNOCKS_MIN_MS = 1000, /* but not in less than this, for a busy process may not turn its loop for a while. */
  ROUND_PERIODS = 10, /* Between two looks of a node that stays out whether its namesake still lives. */
  ROUND_MAX_MS = 30000,
  OUTBIDS_MAX = 2,    /* Claims from another address that we outbid in a row; then one each OUTBID_MS. */
  OUTBID_MS = 10000,
  REMIND_MS = 60000,  /* The same notice comes again after that. */
  ASK_MS = 10000,     /* Between two introductions to one node of another cluster. */
  SOURCE_MS = 1000,   /* A source may be forgotten for a new one after that. */
  REPORTS_MAX = 3,
};

struct body {
  uint8_t flags;
  uint32_t born;
  const char *cluster, *name;
  size_t cluster_length, name_length;
  struct shoal_address address, other;
};

static struct intro *intro_of(struct swim *s) {
  if (!s->intro) s->intro = calloc(1, sizeof *s->intro);
  return s->intro; /* NULL without memory: an introduction is then lost, as any datagram can be. */
}

static bool is_member(const struct swim *s) { return !s->apart && (s->joined || s->seeds_count == 0); }

bool swim_silent(const struct swim *s) { return s->apart || (s->rival.stage == RIVAL_ASKED && !s->joined); }

/* ---- out ---- */

static void introduce(struct swim *s, const struct shoal_address *to, uint8_t flags) {
  if (is_member(s)) flags |= MEMBER;
  swim_post(s, &(struct send){.type = INTRO, .flags = flags, .to = *to, .about = NONE, .target = s->rival.address});
}

static void write_text(struct writer *w, const char *text, size_t length) {
  write_u8(w, (uint8_t)length);
  write_bytes(w, text, length);
}

void swim_intro_write(const struct swim *s, struct writer *w, const struct send *send) {
  const struct member *self = &s->members[SELF];
  struct shoal_address ours = swim_address(s, self);
  write_u8(w, send->flags);
  write_u32(w, s->born);
  write_text(w, s->cluster_name, s->cluster_name_length);
  write_text(w, swim_name(s, self), self->name_length);
  swim_wire_write_address(w, send->flags & REPORT ? &send->target : &ours);
  if (send->flags & REPORT) swim_wire_write_address(w, &ours);
}

static void notify(struct swim *s, const struct swim_notice *notice) {
  struct intro *intro = intro_of(s);
  if (!intro || intro->notices_count == NOTICES_MAX) {
    s->counts.dropped++;
    return;
  }
  intro->notices[intro->notices_count++] = *notice;
}

static struct swim_notice notice_of(enum swim_notice_kind kind, const char *name, size_t name_length, const struct shoal_address *one,
                                    const struct shoal_address *other) {
  struct swim_notice n = {.kind = kind, .name_length = name_length, .one = *one, .other = *other};
  memcpy(n.name, name, name_length);
  return n;
}

bool swim_intro_next(struct swim *s, struct swim_action *out) {
  struct intro *intro = s->intro;
  if (!intro || intro->notices_count == 0) return false;
  intro->taken = intro->notices[0];
  intro->notices_count--;
  memmove(intro->notices, intro->notices + 1, intro->notices_count * sizeof *intro->notices);
  out->kind = SWIM_NOTICE;
  out->notice = &intro->taken;
  return true;
}

/* ---- namesakes ---- */

static uint64_t round_ns(const struct swim *s) { return ms(earlier(s->config.probe_interval_ms * (uint64_t)ROUND_PERIODS, ROUND_MAX_MS)); }

/* Those that brought us in, or some members, hear of the two. */
static void report(struct swim *s) {
  uint32_t ids[REPORTS_MAX], count = s->seeds_count ? 0 : swim_choose(s, ids, REPORTS_MAX, NONE);
  for (uint32_t i = 0; i < s->seeds_count; i++) introduce(s, &s->seeds[i].address, REPORT);
  for (uint32_t i = 0; i < count; i++) {
    struct shoal_address to = swim_address(s, &s->members[ids[i]]);
    introduce(s, &to, REPORT);
  }
}

static void tell_namesake(struct swim *s, bool news) {
  struct rival *r = &s->rival;
  if (!news && s->now_ns - r->told_ns < ms(REMIND_MS)) return;
  const struct member *self = &s->members[SELF];
  struct shoal_address ours = swim_address(s, self);
  struct swim_notice n = notice_of(SWIM_NAMESAKE, swim_name(s, self), self->name_length, s->apart ? &r->address : &ours,
                                   s->apart ? &ours : &r->address);
  n.ours = true, n.out = s->apart;
  r->told_ns = s->now_ns;
  notify(s, &n);
}

/* Our incarnation rises above all that the rival announced, and everybody hears of us. */
static void rise(struct swim *s) {
  struct rival *r = &s->rival;
  if (r->generation >= s->members[SELF].incarnation.generation && r->generation < UINT32_MAX - 2)
    swim_refute(s, (struct swim_incarnation){r->generation + 1, 0}, SWIM_ALIVE);
  else swim_raise_self(s);
}

static void come_in(struct swim *s, bool was_out) {
  const struct member *self = &s->members[SELF];
  struct shoal_address ours = swim_address(s, self);
  s->apart = false;
  rise(s);
  for (uint32_t i = 0; i < s->seeds_count; i++) s->seeds[i].next_ns = s->now_ns;
  if (!was_out) return;
  struct swim_notice n = notice_of(SWIM_NAMESAKE_GONE, swim_name(s, self), self->name_length, &ours, &s->rival.address);
  n.ours = true;
  notify(s, &n);
}

/* One more outbidding is due: a claim that returns at once is another node's, and outbidding has no end while it does the same. */
static bool may_outbid(struct swim *s) {
  if (s->now_ns >= s->outbid_ns) s->outbids = 0;
  if (s->outbids >= OUTBIDS_MAX) return false;
  s->outbids++;
  s->outbid_ns = s->now_ns + ms(OUTBID_MS);
  return true;
}

bool swim_rival_heard(struct swim *s, const struct record *claim) {
  struct rival *r = &s->rival;
  struct shoal_address ours = swim_address(s, &s->members[SELF]);
  if (address_equal(&claim->address, &ours) || claim->state == SWIM_DEAD || claim->state == SWIM_LEFT) return false;
  if (s->joined && swim_incarnation_compare(claim->incarnation, s->members[SELF].incarnation) < 0) return false;
  bool known = r->stage != RIVAL_NONE && address_equal(&r->address, &claim->address);
  if (known && claim->incarnation.generation > r->generation && r->stage != RIVAL_GONE) r->generation = claim->incarnation.generation;
  if (s->apart) return true;
  if (known && r->stage == RIVAL_GONE && claim->incarnation.generation <= r->generation) return false; /* Its record outlives it. */
  if (r->stage != RIVAL_ASKED && !(known && r->stage == RIVAL_LIVES))
    *r = (struct rival){.stage = RIVAL_ASKED, .address = claim->address, .generation = claim->incarnation.generation, .next_ns = s->now_ns};
  return !s->joined || !may_outbid(s);
}

void swim_intro_tick(struct swim *s) {
  struct rival *r = &s->rival;
  if (s->leaving || s->now_ns < r->next_ns) return;
  if (r->stage == RIVAL_LIVES) r->stage = RIVAL_ASKED, r->knocks = 0;
  if (r->knocks < KNOCKS) {
    r->knocks++;
    uint32_t over_ms = s->config.probe_interval_ms;
    r->next_ns = s->now_ns + ms(over_ms > KNOCKS_MIN_MS ? over_ms : KNOCKS_MIN_MS) / KNOCKS;
    introduce(s, &r->address, ASKS);
    return;
  }
  bool was_out = s->apart, waits = swim_silent(s);
  r->stage = RIVAL_GONE;
  r->next_ns = UINT64_MAX;
  if (waits) come_in(s, was_out);
}

uint64_t swim_intro_deadline(const struct swim *s) { return s->leaving ? UINT64_MAX : s->rival.next_ns; }

/* Both sides come to the same result: a member stays before one that is not; of two, the one that was born first. */
static bool we_stay(const struct swim *s, const struct body *b, const struct shoal_address *ours) {
  bool they = b->flags & MEMBER, we = is_member(s);
  if (they != we) return we;
  if (b->born != s->born) return s->born < b->born;
  return swim_address_greater(&b->address, ours);
}

static void on_namesake(struct swim *s, const struct shoal_address *from, const struct header *header, const struct body *b) {
  struct rival *r = &s->rival;
  struct shoal_address ours = swim_address(s, &s->members[SELF]);
  bool stay = we_stay(s, b, &ours), waited = swim_silent(s), was_out = s->apart;
  if (!address_equal(&r->address, &b->address)) *r = (struct rival){.address = b->address};
  bool news = r->told_ns == 0 || r->stage == RIVAL_GONE || was_out == stay;
  if (header->incarnation.generation > r->generation) r->generation = header->incarnation.generation;
  r->stage = RIVAL_LIVES;
  r->next_ns = stay ? UINT64_MAX : s->now_ns + round_ns(s);
  s->apart = !stay;
  if (news) s->counts.conflicts++;
  if (stay && waited) come_in(s, was_out);
  /* Only what a member announced has been believed anywhere; to rise without need would end our life for every observer. */
  else if (stay && b->flags & MEMBER && r->generation >= s->members[SELF].incarnation.generation) rise(s);
  tell_namesake(s, news);
  if (s->apart) report(s); /* In each round, for one may be lost. */
  if (b->flags & ASKS) introduce(s, from, 0);
}

/* ---- other clusters ---- */

static struct source *source_of(struct swim *s, const struct shoal_address *from) {
  struct intro *intro = intro_of(s);
  if (!intro) return NULL;
  struct source *oldest = &intro->sources[0];
  for (int i = 0; i < SOURCES_MAX; i++) {
    struct source *source = &intro->sources[i];
    if (address_equal(&source->address, from)) return source;
    if (source->used_ns < oldest->used_ns) oldest = source;
  }
  if (oldest->used_ns > 0 && s->now_ns - oldest->used_ns < ms(SOURCE_MS)) return NULL; /* A flood from many addresses. */
  *oldest = (struct source){.address = *from, .used_ns = s->now_ns};
  return oldest;
}

void swim_foreign_heard(struct swim *s, const struct shoal_address *from) {
  struct source *source = source_of(s, from);
  if (!source || s->now_ns < source->ask_ns) return;
  source->used_ns = s->now_ns;
  source->ask_ns = s->now_ns + ms(ASK_MS);
  introduce(s, from, ASKS);
}

static void on_foreigner(struct swim *s, const struct shoal_address *from, const struct body *b) {
  struct source *source = source_of(s, from);
  if (!source) return;
  source->used_ns = s->now_ns;
  if (b->flags & ASKS && s->now_ns >= source->answer_ns) {
    source->answer_ns = s->now_ns + ms(SOURCE_MS);
    introduce(s, from, 0);
  }
  if (s->now_ns < source->told_ns) return;
  source->told_ns = s->now_ns + ms(REMIND_MS);
  struct swim_notice n = notice_of(SWIM_FOREIGN, b->name, b->name_length, from, from);
  n.cluster_length = b->cluster_length;
  memcpy(n.cluster, b->cluster, b->cluster_length);
  notify(s, &n);
}

/* ---- in ---- */

/* Two others have one name. */
static void on_report(struct swim *s, const struct shoal_address *from, const struct body *b) {
  struct source *source = source_of(s, from);
  if (!source || s->now_ns < source->told_ns) return;
  source->used_ns = s->now_ns;
  source->told_ns = s->now_ns + ms(REMIND_MS);
  struct swim_notice n = notice_of(SWIM_NAMESAKE, b->name, b->name_length, &b->address, &b->other);
  notify(s, &n);
}

static const char *read_text(struct reader *r, size_t most, size_t *length) {
  *length = read_u8(r);
  if (*length > most) r->failed = true;
  return (const char *)read_bytes(r, r->failed ? 0 : *length);
}

static bool same(const char *a, size_t a_length, const char *b, size_t b_length) {
  return a_length == b_length && (a_length == 0 || memcmp(a, b, a_length) == 0);
}

int swim_intro_receive(struct swim *s, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct header header;
  struct reader r;
  struct body b = {0};
  int rc = swim_wire_open(&s->cluster, bytes, length, &header, &r);
  if (rc < 0) return rc;
  b.flags = read_u8(&r);
  b.born = read_u32(&r);
  b.cluster = read_text(&r, SWIM_CLUSTER_MAX, &b.cluster_length);
  b.name = read_text(&r, SWIM_NAME_MAX, &b.name_length);
  swim_wire_read_address(&r, &b.address);
  if (b.flags & REPORT) swim_wire_read_address(&r, &b.other);
  if (r.failed || b.name_length == 0 || b.flags > (ASKS | MEMBER | REPORT) || reader_left(&r) > 0) return -1 - SWIM_REFUSED_BODY;
  const struct member *self = &s->members[SELF];
  struct shoal_address ours = swim_address(s, self);
  s->counts.received[INTRO]++;
  if (!same(b.cluster, b.cluster_length, s->cluster_name, s->cluster_name_length)) {
    swim_seed_refused(s, from, SWIM_REFUSED_CLUSTER);
    on_foreigner(s, from, &b);
    return 0;
  }
  bool namesake = same(b.name, b.name_length, swim_name(s, self), self->name_length);
  if (b.flags & REPORT) {
    if (!namesake) on_report(s, from, &b);
    return 0;
  }
  if (!namesake) return -1 - SWIM_REFUSED_MISDIRECTED; /* It looks for another node that was here before us. */
  if (address_equal(&b.address, &ours)) return -1 - SWIM_REFUSED_OWN;
  if (!s->leaving) on_namesake(s, from, &header, &b);
  return 0;
}

void swim_intro_close(struct swim *s) { free(s->intro); }
