/* Evidence: a ring of facts about members. The newest ones explain a member's state. */
#include <stdlib.h>

#include "core/swim_private.h"

#define NAME(name, text) #name,
#define TEXT(name, text) text,
const char *swim_fact_name(enum swim_fact_kind kind) {
  static const char *const names[] = {SWIM_FACTS(NAME)};
  return names[kind];
}
const char *swim_fact_text(enum swim_fact_kind kind) {
  static const char *const texts[] = {SWIM_FACTS(TEXT)};
  return texts[kind];
}

void swim_fact(struct swim *s, enum swim_fact_kind kind, uint32_t id, uint32_t other, uint32_t value) {
  if (s->facts_count == s->facts_capacity && s->facts_capacity < FACTS_MAX) {
    struct fact *grown = realloc(s->facts, (s->facts_capacity + FACTS_MAX / 8) * sizeof *grown);
    if (!grown) return; /* Facts decide nothing. */
    s->facts = grown;
    s->facts_capacity += FACTS_MAX / 8;
  }
  const struct member *m = &s->members[id];
  s->facts[s->facts_count++ % FACTS_MAX] = (struct fact){.at_ns = s->now_ns, .key = m->key, .other = other,
      .incarnation = m->incarnation, .value = value, .kind = (uint8_t)kind};
}

static const char *name_of_key(const struct swim *s, uint32_t key, size_t *length) {
  uint32_t id = key ? swim_members_by_key(s, key, 0) : NONE;
  *length = id != NONE ? s->members[id].name_length : 0;
  return id != NONE ? swim_name(s, &s->members[id]) : NULL;
}

static void tell_suspicion(const struct swim *s, const struct member *m, struct swim_why *out) {
  const struct suspicion *suspicion = &s->suspicions[m->suspicion].of;
  out->suspected_ns = suspicion->started_ns;
  out->deadline_ns = heap_at(&s->suspects, m->suspicion);
  out->least_ns = suspicion->started_ns + suspicion->min_ns;
  out->most_ns = suspicion->started_ns + suspicion->max_ns;
  out->wanted = suspicion->wanted;
  out->accusers_count = suspicion->confirmed + 1u;
  for (uint32_t i = 0; i < out->accusers_count; i++)
    out->accusers[i] = name_of_key(s, suspicion->accusers[i], &out->accusers_length[i]);
}

static void tell_facts(const struct swim *s, const struct member *m, struct swim_why *out) {
  uint64_t count = s->facts_count;
  for (uint64_t back = 1; back <= count && back <= FACTS_MAX && out->facts_count < SWIM_WHY_FACTS; back++) {
    const struct fact *fact = &s->facts[(count - back) % FACTS_MAX];
    if (fact->key != m->key && fact->kind != SWIM_FACT_EXCUSED) continue;
    uint32_t at = out->facts_count++;
    out->facts[at].kind = fact->kind;
    out->facts[at].at_ns = fact->at_ns;
    out->facts[at].incarnation = fact->incarnation;
    out->facts[at].other = name_of_key(s, fact->other, &out->facts[at].other_length);
    out->facts[at].value = fact->value;
  }
}

bool swim_why(const struct swim *s, const char *name, size_t name_length, struct swim_why *out) {
  uint32_t id = swim_members_find(s, name, name_length);
  if (id == NONE || s->members[id].forgotten) return false;
  const struct member *m = &s->members[id];
  *out = (struct swim_why){.answered = m->heard != 0, .health = s->health};
  swim_view(s, id, &out->member);
  if (m->heard) out->heard_s = (uint16_t)(s->now_ns / 1000 / NS_PER_MS - m->heard);
  for (int i = 0; i < PROBES_MAX; i++) {
    const struct probe *p = &s->probes[i];
    if (p->stage == PROBE_FREE || p->target != id || p->key != m->key) continue;
    out->probing = true, out->probe_ns = p->sent_ns, out->probe_end_ns = p->end_ns;
  }
  swim_flap_why(s, id, &out->flap_points, &out->held_until_ns);
  if (m->suspicion != NONE) tell_suspicion(s, m, out);
  tell_facts(s, m, out);
  return true;
}
