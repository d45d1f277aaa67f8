--- Plant a fault in the code, or remove one of its rules, and check that a spec fails.
--
-- `scripts/study mutants [--only=WORD] [--list] [--keep]`. Each mutant is a file of c/core, or of another room by its path, a text that
-- occurs in it once, and its replacement; then the killers, the programs that must fail, quickest first. All is built in a temporary
-- folder: the unchanged objects once, then for each mutant the changed file and a link. A file of lua/ is changed in a copy of the tree,
-- and its killers are spec files, with an optional filter of titles; so are those of c/host and c/lua, for which the whole copy is built.
-- A mutant that no longer applies, does not compile or survives is a failure: update it with the code, or write the missing spec.
-- More rows are in mutants/, a file a subject.
--
-- Mutants cannot test cost: an O(N) scan at each gossip pick changes no behaviour. --cost=1 instead counts a member's instructions for a
-- crash at N = 1,000 and 10,000; it needs valgrind and takes ten minutes. The time until a death and the copies of a rumour grow with the
-- logarithm of N, so the instructions less than double. A scan would make them about ten times as many.

local function parts() return { "swim_parts_spec" } end
local function spec(behaviour) return { "swim_spec", behaviour } end
local function rule(behaviour) return { "swim_rules_spec", behaviour } end
local function flap(behaviour) return { "swim_flap_spec", behaviour } end
local function more(behaviour) return { "swim_more_spec", behaviour } end
local function chaos(seeds, from) return { "chaos_study", "--seeds=" .. seeds, "--from=" .. (from or 1) } end

local mutants = {
  -- Faults found in others (MEMBERSHIP.md).
  { name = "indirect_pings_to_all", file = "swim_probe.c", killers = { spec "exactly_k_indirect" },
    find = "swim_choose(s, ids, s->config.indirect_probes, p->target)", put = "swim_choose(s, ids, FANOUT_MAX, p->target)" },
  { name = "suspected_before_indirect_probes", file = "swim_probe.c", killers = { spec "exactly_k_indirect" },
    find = "  p->stage = PROBE_INDIRECT;\n",
    put = "  p->stage = PROBE_INDIRECT;\n  swim_suspect(s, p->target, target->incarnation, s->members[SELF].key);\n" },
  { name = "rumours_that_did_not_fit_counted", file = "swim_gossip.c", killers = { parts() },
    find = "else misfits++;", put = "else misfits++, told[count++] = id;" },
  { name = "most_sent_first", file = "swim_gossip.c", killers = { parts() },
    find = "at != NONE && misfits < MISFITS_MAX && s->budget_bytes > 0; at = s->rumours[at].next) {\n      uint32_t id = s->rumours[at].id;",
    put = "at != NONE && misfits < MISFITS_MAX && s->budget_bytes > 0; at = s->rumours[at].next) {\n      uint32_t id = s->rumours[at].id;\n" ..
      "      if (n == 0 && s->lists[1].head != NONE) break;" },
  { name = "nack_a_timeout_late", file = "swim_probe.c", killers = { spec "costs_no_healthy_prober" },
    find = ".nack_ns = s->now_ns + ms(window_ms) * 4 / 5", put = ".nack_ns = s->now_ns + ms(window_ms) * 6 / 5" },
  { name = "nacks_not_counted", file = "swim_probe.c", killers = { spec "costs_no_healthy_prober" },
    find = "swim_ail(s, p->asked - p->nacks);", put = "swim_ail(s, p->asked);" },
  { name = "no_two_more_tables", file = "swim_tables.c", killers = { rule "two_more_tables" },
    find = "uint32_t ids[2], count = swim_choose(s, ids, 2, swim_members_by_key(s, sender_key, 0));", put = "uint32_t ids[2], count = 0;" },
  { name = "seeds_and_dead_never_retried", file = "swim_join.c", killers = { spec "a_partition_heals" },
    find = "if (s->leaving || rng_below(&s->rng, swim_living(s)) != 0) return;", put = "if (s->leaving || s->now_ns) return;" },
  { name = "seeds_forgotten_after_the_first_join", file = "swim_join.c", killers = { rule "seeds_are_remembered" },
    find = "if (seed->next_ns == UINT64_MAX && !seed_lives(s, seed)) seed->sequence", put = "if (seed->next_ns == 0) seed->sequence" },
  { name = "address_reused_is_the_old_member", file = "swim.c", killers = { spec "another_name_at_the_old_address" },
    find = "if (header->type == PING && body->claim.key != self->key) return -1 - SWIM_REFUSED_MISDIRECTED;", put = "" },
  { name = "name_reused_is_the_old_life", file = "swim_members.c", killers = { spec "a_restarted_node", parts() },
    find = "    end_life(s, id);\n    begin(s, id, &r, quiet);", put = "    begin(s, id, &r, quiet);" },
  { name = "twins_address_outlives_it", file = "swim_members.c", killers = { rule "comes_with_its_incarnation", chaos(1, 111) },
    find = "> 0 && address_equal(&known, from)) {", put = "> 0 && from) {" },
  { name = "old_generation_not_outdone", file = "swim_members.c", killers = { spec "a_restarted_node" },
    find = "answer = (struct swim_incarnation){incarnation.generation + 1, 0};",
    put = "answer = (struct swim_incarnation){self->incarnation.generation, self->incarnation.version + 1};" },
  -- Rules of ours.
  { name = "confirmations_restart_the_timer", file = "suspicion.c", killers = { parts() },
    find = "  s->accusers[++s->confirmed] = accuser;\n", put = "  s->accusers[++s->confirmed] = accuser;\n  s->started_ns += s->min_ns;\n" },
  { name = "an_accuser_counts_twice", file = "suspicion.c", killers = { parts() },
    find = "if (suspicion_accused_by(s, accuser)) return false;", put = "" },
  { name = "confirmations_ignored", file = "suspicion.c", killers = { parts() },
    find = "if (s->confirmed >= s->wanted) return false;", put = "if (s) return false;" },
  { name = "tombstones_not_kept", file = "swim_table.c", killers = { spec "the_dead_are_reaped", chaos(20) },
    find = ">= ms(s->config.tombstone_ms)) reap", put = ">= ms(1000)) reap" },
  { name = "never_reaped", file = "swim_table.c", killers = { spec "the_dead_are_reaped" },
    find = ">= ms(s->config.tombstone_ms)) reap", put = "== UINT64_MAX) reap" },
  { name = "old_tombstones_handed_on", file = "swim_tables.c", killers = { rule "tombstones_do_not_go_round" },
    find = "swim_lives(m) || s->now_ns - swim_changed_ns(m) < ms(s->config.tombstone_ms) / 2)", put = "true)" },
  { name = "refutation_not_higher", file = "swim_members.c", killers = { spec "refutes_with_its_first_answer" },
    find = "return (struct swim_incarnation){i.generation, i.version + 1};", put = "return i;" },
  { name = "an_old_claim_wins", file = "swim_members.c", killers = { parts() },
    find = "if (claim_compare(r.incarnation, r.state, m->incarnation, m->state) > 0) advance",
    put = "if (r.state != m->state) advance" },
  { name = "budget_of_bytes_ignored", file = "swim_gossip.c", killers = { spec "keeps_to_its_budget" },
    find = "told[count++] = id, s->budget_bytes -= (int64_t)size;", put = "told[count++] = id;" },
  { name = "stall_not_excused", file = "swim.c", killers = { parts(), spec "a_paused_node" },
    find = "if (late && s->config.health_max > 0) excuse_stall(s);", put = "(void)late, (void)excuse_stall;" },
  { name = "suspicions_not_deferred_by_a_stall", file = "swim.c", killers = { parts(), spec "a_paused_node", chaos(40) },
    find = "  heap_defer(&s->suspects, s->now_ns + ms(s->config.probe_interval_ms));\n", put = "" },
  { name = "digest_omits_the_payload", file = "swim_table.c", killers = { rule "digests_tell" },
    find = "mix(m->incarnation.version ^ mix(m->payload_version))", put = "mix(m->incarnation.version)" },
  { name = "digest_omits_the_version", file = "swim_table.c", killers = { rule "digests_tell" },
    find = "mix(m->incarnation.version ^ mix(m->payload_version))", put = "mix(m->payload_version)" },
  { name = "digest_omits_the_generation", file = "swim_table.c", killers = { rule "digests_tell" },
    find = "mix(m->incarnation.generation ^ mix(", put = "mix(mix(" },
  { name = "differing_digests_ignored", file = "swim_tables.c", killers = { spec "joins_while", chaos(60) },
    find = "if (digest == s->digest || s->leaving ||", put = "if (true || s->leaving ||" },
  { name = "a_seed_is_not_asked_at_once", file = "swim_join.c", killers = { rule "asked_at_once" },
    find = "    if (s->now_ns >= s->seeds[i].next_ns) try_seed(s, &s->seeds[i]);",
    put = "    if (s->now_ns >= s->seeds[i].next_ns) s->seeds[i].next_ns = UINT64_MAX, (void)try_seed;" },
  { name = "unconfirmed_seed_suspected", file = "swim_join.c", killers = { spec "a_seed_that_never_answers" },
    find = "  seed->sequence = swim_send_sync(s, &seed->address);\n  seed->next_ns",
    put = "  seed->sequence = swim_send_sync(s, &seed->address);\n" ..
      "  struct record r = {.name = \"n1\", .name_length = 2, .address = seed->address, " ..
      ".incarnation = {1, 0}, .state = SWIM_SUSPECT, .accuser = 1};\n  swim_merge(s, &r, false, false);\n  seed->next_ns" },
  { name = "a_tables_dead_are_dead", file = "swim_members.c", killers = { spec "a_partition_heals" },
    find = "unheard(s, m, table);", put = "!table && unheard(s, m, table);" },
  { name = "a_death_that_one_hears_of_is_a_death", file = "swim_members.c", killers = { parts(), spec "harms_nobody_when" },
    find = "unheard(s, m, table);", put = "table && unheard(s, m, table);" },
  { name = "haste_is_lateness", file = "swim_members.c", killers = { spec "keeps_to_its_budget" },
    find = "  if (at_ns < s->now_ns) at_ns = s->now_ns;\n", put = "" },
  { name = "hearsay_is_believed_unasked", file = "swim_members.c", killers = { parts() },
    find = "if (s->config.verify_deaths && !suspect->asked && ", put = "if (false && " },
  { name = "hearsay_is_asked_when_it_need_not", file = "swim_members.c", killers = { parts() },
    find = "if (s->config.verify_deaths && !suspect->asked && ", put = "if (!suspect->asked && " },
  { name = "deaths_are_verified_when_they_need_not", file = "swim_members.c", killers = { parts() },
    find = "if (!table && !s->config.verify_deaths) return false;", put = "" },
  { name = "periods_begin_anywhere", file = "swim_probe.c", killers = { parts() },
    find = "return (at_ns + step_ns - 1) / step_ns * step_ns;", put = "return at_ns + 0 * step_ns;" },
  { name = "periods_begin_anywhere_after_a_pause", file = "swim_probe.c", killers = { parts() },
    find = "s->probe_ns = swim_in_step(s, s->now_ns + interval);", put = "s->probe_ns = s->now_ns + interval;" },
  { name = "a_doubted_node_does_not_hear_it", file = "swim_probe.c", killers = { spec "refutes_with_its_first_answer", parts() },
    find = "swim_refute(s, claim->incarnation, claim->state);\n  bool unsure", put = "bool unsure" },
  -- (That a PING to a suspect carries its record too (`about` in swim_send_ping) is no rule of its own: the claim says the same.)
  { name = "who_pings_while_doubted_is_not_told", file = "swim_probe.c", killers = { rule "a_doubted_one_that_pings" },
    find = "bool doubted = s->config.buddy && sender != NONE && sender != SELF && s->members[sender].state != SWIM_ALIVE;",
    put = "bool doubted = s->config.buddy && sender == SELF;" },
  { name = "pings_not_repeated", file = "swim_probe.c", killers = { spec "sent_again_evenly" },
    find = "if (s->now_ns >= p->again_ns) ping_again(s, p);", put = "(void)ping_again;" },
  { name = "health_never_worsens", file = "swim_probe.c", killers = { spec "hears_badly" },
    find = "s->health = (uint32_t)(health < 0 ? 0 : health > most ? most : health);", put = "s->health = (uint32_t)(health > most ? 0 : 0);" },
  { name = "health_never_recovers", file = "swim_probe.c", killers = { spec "hears_badly", spec "gives_it_back" },
    find = "else swim_ail(s, -1);", put = "else swim_ail(s, 0);" },
  { name = "nobody_checks_a_suspicion", file = "swim_probe.c", killers = { { "crash_study", "--crashes=200" } },
    find = "if (hash % swim_living(s) < CHECKERS && !s->leaving)", put = "if (hash == 0 && !s->leaving)" },
  { name = "a_newcomer_is_not_told_what_is_remembered", file = "swim_tables.c", killers = { parts() },
    find = ".first = new ? sender : NONE,", put = ".first = NONE," },
  { name = "the_round_is_not_shuffled", file = "swim_table.c", killers = { spec "within_two_rounds" },
    find = "uint32_t pick = s->cursor + (uint32_t)rng_below(&s->rng, s->living - s->cursor);", put = "uint32_t pick = s->cursor;" },
  { name = "the_round_is_chance", file = "swim_table.c", killers = { spec "within_two_rounds", { "detection_study", "--largest=100" } },
    find = "uint32_t pick = s->cursor + (uint32_t)rng_below(&s->rng, s->living - s->cursor);",
    put = "s->cursor = 0;\n  uint32_t pick = (uint32_t)rng_below(&s->rng, s->living);" },
  { name = "a_digest_of_another_cluster_is_ours", file = "swim_wire.c", killers = { spec "two_clusters" },
    find = "if (read_u16(r) != (uint16_t)cluster->crc) return -1 - SWIM_REFUSED_CLUSTER;", put = "(void)read_u16(r);" },
  { name = "the_checksum_is_not_looked_at", file = "swim_wire.c", killers = { parts() },
    find = "if (read_u32(r) != checksum(bytes, length, cluster)) return",
    put = "if (read_u32(r) == 1 && checksum(bytes, length, cluster) == 2) return" },
  { name = "members_max_is_no_limit", file = "swim_table.c", killers = { parts() },
    find = "s->config.members_max", put = "(s->config.members_max + 1000000)" },
  { name = "leaving_tells_nobody", file = "swim_members.c", killers = { spec "leaving_is_heard" },
    find = "  self->state = SWIM_LEFT;\n", put = "" },
  -- Damping.
  { name = "deaths_are_no_points", file = "swim_flap.c", killers = { flap "comes_and_goes_is_held" },
    find = "{ trouble(s, id, DEATH_POINTS); }", put = "{ trouble(s, id, 0); }" },
  { name = "suspicions_are_no_points", file = "swim_flap.c", killers = { flap "hears_a_tenth" },
    find = "if (accuser) trouble(s, id, 1);", put = "" },
  { name = "points_do_not_decay", file = "swim_flap.c", killers = { flap "comes_and_goes_is_held", chaos(20) },
    find = "return points * exp2(", put = "return points + 0 * exp2(" },
  { name = "points_have_no_bound", file = "swim_flap.c", killers = { flap "have_a_bound" },
    find = "fmin(before + more, CAP * limit)", put = "before + more" },
  { name = "whoever_is_held_stays_so", file = "swim_flap.c", killers = { flap "comes_and_goes_is_held", chaos(20) },
    find = "if (!m->held || !may_go(s, f)) continue;", put = "if (m->held || !may_go(s, f)) continue;" },
  { name = "whoever_is_held_is_let_go_at_once", file = "swim_flap.c", killers = { flap "comes_and_goes_is_held" },
    find = "points <= RELEASE * s->config.flap_limit;", put = "points >= 0;" },
  { name = "many_are_held_at_once", file = "swim_flap.c", killers = { flap "a_network_that" },
    find = "points * others >= OUTLIER * theirs;", put = "theirs >= 0;" },
  { name = "of_two_one_is_held", file = "swim_flap.c", killers = { flap "of_two" },
    find = "return others > 0 && points", put = "return points" },
  { name = "the_held_are_asked_like_others", file = "swim_table.c", killers = { flap "others_are_asked" },
    find = "if (s->members[id].state == SWIM_ALIVE && !s->members[id].held) ids", put = "if (s->members[id].state == SWIM_ALIVE) ids" },
  { name = "the_first_of_many_stays_held", file = "swim_flap.c", killers = { flap "a_network_that" },
    find = "if (s->config.flap_limit == 0 || !is_outlier(s, points)) return true;", put = "if (s->config.flap_limit == 0) return true;" },
  { name = "doubted_deaths_are_accusations", file = "swim_flap.c", killers = { flap "is_no_trouble" },
    find = "if (accuser) trouble(s, id, 1);", put = "trouble(s, id, 1);" },
  { name = "a_restart_inherits_points", file = "swim_members.c", killers = { flap "a_restart_ends_it" },
    find = "  swim_flap_forget(s, id);\n  assert(!swim_lives(m));", put = "  assert(!swim_lives(m));" },
  { name = "whoever_left_stays_held", file = "swim_members.c", killers = { flap "may_die_or_leave" },
    find = "  if (r->state == SWIM_LEFT) swim_flap_forget(s, id);\n", put = "" },
  { name = "points_are_kept_for_ever", file = "swim_flap.c", killers = { flap "comes_and_goes_is_held" },
    find = "  sweep(s);\n", put = "  (void)sweep;\n" },
  { name = "events_of_the_held_are_told", file = "swim.c", killers = { flap "comes_and_goes_is_held" },
    find = "if (s->members[id].held && kind != SWIM_EVENT_USER) return NULL;", put = "" },
  { name = "the_held_are_shown_alive", file = "swim.c", killers = { flap "comes_and_goes_is_held" },
    find = ".state = m->held ? SWIM_DEAD : m->state", put = ".state = m->state" },
  -- Coordinates.
  { name = "the_others_error_is_no_weight", file = "vivaldi.c", killers = { { "vivaldi_spec" } },
    find = "v->error / (v->error + theirs)", put = "v->error / (v->error + 0.5 + 0 * theirs)" },
  { name = "the_own_error_is_no_weight", file = "vivaldi.c", killers = { { "vivaldi_spec" } },
    find = "v->error / (v->error + theirs)", put = "1 / (1 + theirs)" },
  { name = "on_one_spot_nobody_parts", file = "vivaldi.c", killers = { { "vivaldi_spec" } },
    find = "away[i] = rng_unit(rng) - 0.5, length += away[i] * away[i];", put = "away[i] = 0 * rng_unit(rng), length += away[i] * away[i];" },
  { name = "coordinates_leave_the_box", file = "vivaldi.c", killers = { { "vivaldi_spec" } },
    find = "limit(v->at[i] + push * away[i] / flat, -most, most)", put = "v->at[i] + push * away[i] / flat" },
  { name = "an_untold_place_is_sure", file = "swim_place.c", killers = { more "is_sure_of_its_place" },
    find = "m->place_version ? m->place_error : UINT8_MAX", put = "m->place_error" },
  { name = "a_told_error_is_not_used", file = "swim_place.c", killers = { more "is_sure_of_its_place" },
    find = "m->place_version ? m->place_error : UINT8_MAX", put = "UINT8_MAX" },
  { name = "a_queue_is_a_distance", file = "swim_place.c", killers = { more "waited_in_a_queue" },
    find = "if (known_ns && rtt_ns > 2 * known_ns) rtt_ns = 2 * known_ns;", put = "" },
  { name = "round_trips_are_not_smoothed", file = "swim_place.c", killers = { more "waited_in_a_queue" },
    find = "known_ns - known_ns / 8 + rtt_ns / 8", put = "rtt_ns" },
  { name = "every_step_is_announced", file = "swim_place.c", killers = { more "cost_nothing" },
    find = "if (moved <= NEAR_MS * VIVALDI_UNITS_PER_MS + far / 10 ||", put = "if (moved == 0 * far + 0 * NEAR_MS ||" },
  { name = "an_old_place_replaces_a_new_one", file = "swim_place.c", killers = { more "older_coordinates" },
    find = "place->version > m->place_version) set_place", put = "place->version != m->place_version) set_place" },
  -- Events of users, and evidence.
  { name = "what_was_seen_is_told_again", file = "swim_user.c", killers = { more "all_hear_once" },
    find = "  mark(s->users, e);\n", put = "  (void)mark;\n" },
  { name = "events_of_the_old_life_hide_the_new", file = "swim_user.c", killers = { more "begins_its_numbers_anew" },
    find = "if (o->key != e->key || o->generation != e->generation) *o", put = "if (o->key != e->key) *o" },
  { name = "events_of_users_have_no_budget", file = "swim_user.c", killers = { more "neither_starves" },
    find = "s->user_budget_bytes -= (int64_t)size;", put = "" },
  { name = "events_are_told_once", file = "swim_user.c", killers = { more "all_hear_once" },
    find = "uint32_t told = 0, limit = swim_rumour_limit(s);", put = "uint32_t told = 0, limit = 1;" },
  { name = "whoever_accuses_is_not_named", file = "swim_why.c", killers = { more "why_tells" },
    find = "uint32_t id = key ? swim_members_by_key(s, key, 0) : NONE;",
    put = "uint32_t id = key == 1 ? swim_members_by_key(s, key, 0) : NONE;" },
  { name = "facts_of_others_are_told", file = "swim_why.c", killers = { more "why_tells" },
    find = "if (fact->key != m->key && fact->kind != SWIM_FACT_EXCUSED) continue;", put = "" },
  -- Streams of tables, in the core.
  { name = "streams_accepted_without_bound", file = "swim_tables.c", killers = { { "swim_tables_spec" } },
    find = "if (!free || used >= CONNS_MAX / 2) return NULL;", put = "if (!free) return NULL;" },
  { name = "a_silent_stream_is_waited_for", file = "swim_tables.c", killers = { { "swim_tables_spec" } },
    find = "if (!c->channel || c->close_due || s->now_ns < c->until_ns) continue;", put = "if (s->now_ns) continue;" },
  { name = "a_stream_that_failed_is_not_made_up_for", file = "swim_tables.c", killers = { { "swim_tables_spec" } },
    find = "  post_sync(s, &c->back, c->sequence, true);\n}", put = "}" },
  { name = "frames_of_any_length", file = "swim_tables.c", killers = { { "swim_tables_spec" } },
    find = "if (c->length == 2 && (frame_length(c) == 2 || frame_length(c) > FRAME_MAX))",
    put = "if (c->length == 2 && frame_length(c) > FRAME_MAX)" },
  -- Values of c/core.
  { name = "a_heap_does_not_sink", file = "heap.c", killers = { parts() },
    find = "  rise(h, index);\n  sink(h, h->where[handle]);", put = "  rise(h, index);" },
  { name = "equal_deadlines_in_any_order", file = "heap.c", killers = { parts() },
    find = "return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->key < b->key;", put = "return a->at_ns < b->at_ns;" },
  { name = "deferred_deadlines_are_not_sorted", file = "heap.c", killers = { parts() },
    find = "for (uint32_t i = h->count / 2; i-- > 0;) sink(h, i);", put = "" },
  { name = "a_wheel_is_early", file = "wheel.c", killers = { { "net_cores" } },
    find = "(deadline_ns >> WHEEL_TICK_BITS) + (part != 0)", put = "(deadline_ns >> WHEEL_TICK_BITS) + 0 * part" },
  { name = "a_backoff_has_no_cap", file = "backoff.c", killers = { { "net_cores" } },
    find = "ceiling > b->config.cap_ns / b->config.factor ? b->config.cap_ns : ceiling * b->config.factor",
    put = "ceiling * b->config.factor" },
  { name = "a_backoff_does_not_grow", file = "backoff.c", killers = { { "net_cores" } },
    find = "ceiling > b->config.cap_ns / b->config.factor ? b->config.cap_ns : ceiling * b->config.factor", put = "ceiling" },
  { name = "a_backoff_has_no_floor", file = "backoff.c", killers = { { "net_cores" } },
    find = "floor = ceiling / 10;", put = "floor = 0;" },
  { name = "given_bytes_are_not_taken_again", file = "blobs.c", killers = { { "blobs_spec" } },
    find = "  if (grains > 0) push(b, handle, grains);", put = "  (void)handle, (void)grains;" },
  { name = "the_rest_of_a_page_is_lost", file = "blobs.c", killers = { { "blobs_spec" } },
    find = "if (rest > 0) push(b, last, rest);", put = "(void)last, (void)rest;" },
  { name = "a_resized_blob_loses_its_bytes", file = "blobs.c", killers = { { "blobs_spec" } },
    find = "if (kept) memcpy(blobs_at(b, moved), blobs_at(b, handle), kept);", put = "(void)kept;" },
  -- Recordings.
  { name = "a_replay_takes_all_that_waits", file = "swim_record.c", killers = { { "swim_driver_spec" } },
    find = "if (r->head.there && r->recorder.actions >= r->head.actions) return false;", put = "" },
  { name = "a_replay_does_not_compare", file = "swim_record.c", killers = { { "swim_record_spec" } },
    find = "(r->head.crc != r->recorder.crc || r->head.actions != r->recorder.actions)", put = "r->head.actions != r->recorder.actions" },
  { name = "a_recorded_jump_of_ages_is_believed", file = "swim_record.c", killers = { { "swim_record_spec" } },
    find = "if (h->after_ns > UINT64_MAX / 2 - r->now_ns) r->reader.failed = true;", put = "" },
  -- c/drive.
  { name = "refused_datagrams_are_not_counted", file = "drive/swim_driver.c", killers = { { "swim_driver_spec" } },
    find = "  count_error(&d->counts, rc);\n", put = "  (void)count_error;\n" },
  { name = "codes_of_refusals_have_no_bound", file = "drive/swim_driver.c", killers = { { "swim_driver_spec" } },
    find = "if (i == SWIM_DRIVER_ERRORS_MAX) return;", put = "if (i == SWIM_DRIVER_ERRORS_MAX) i = 0;" },
  { name = "an_input_waits_for_the_next_deadline", file = "drive/swim_driver.c", killers = { { "swim_driver_spec" } },
    find = "static void wake(struct swim_driver *d) { world_timer_start(d->timer, now_ns(d)); }",
    put = "static void wake(struct swim_driver *d) { (void)d; }" },
  { name = "events_come_within_events", file = "drive/swim_driver.c", killers = { { "swim_driver_spec" } },
    find = "if (d->draining) return;", put = "" },
  { name = "a_closed_driver_still_tells", file = "drive/swim_driver.c", killers = { { "swim_driver_spec" } },
    find = "while (!d->closing && swim_next(", put = "while (swim_next(" },
  { name = "ticks_are_not_recorded", file = "drive/swim_driver.c", killers = { { "swim_driver_spec" } },
    find = "  record(d, SWIM_INPUT_TICK, NULL, NULL, 0);\n", put = "" },
  { name = "datagrams_are_not_recorded", file = "drive/swim_driver.c", killers = { { "swim_driver_spec" } },
    find = "  record(d, SWIM_INPUT_RECEIVE, from, bytes, length);\n", put = "" },
  { name = "any_address_is_bound", file = "drive/swim_driver.c", killers = { { "swim_driver_spec" } },
    find = "if (is_wildcard(&o->bind) && o->identity.address.family == 0)", put = "if (!o)" },
  { name = "the_stored_generation_is_not_looked_at", file = "drive/swim_driver.c", killers = { { "swim_driver_spec" } },
    find = "return wall_s > stored ? (uint32_t)wall_s : stored;", put = "return (uint32_t)wall_s + 0 * stored;" },
  { name = "streams_held_without_bound", file = "drive/tables.c", killers = { { "tables_spec" } },
    find = "bool room = t->open <= LINKS_MAX;", put = "bool room = t->open >= 0;" },
  { name = "one_stream_less_is_held", file = "drive/tables.c", killers = { { "tables_spec" } },
    find = "bool room = t->open <= LINKS_MAX;", put = "bool room = t->open < LINKS_MAX;" },
  { name = "finished_streams_make_no_room", file = "drive/tables.c", killers = { { "tables_spec" } },
    find = "if (old->number == 0) world_stream_close(old->stream);", put = "if (!old) world_stream_close(old->stream);" },
  { name = "running_streams_make_room", file = "drive/tables.c", killers = { { "tables_spec" } },
    find = "if (old->number == 0) world_stream_close(old->stream);", put = "world_stream_close(old->stream);" },
  { name = "a_refused_stream_stays_open", file = "drive/tables.c", killers = { { "tables_spec" } },
    find = "if (l->number == 0) world_stream_close(stream);", put = "" },
  { name = "bytes_come_in_one_piece", file = "drive/tables.c", killers = { { "tables_spec" } },
    find = "size_t piece = length < SWIM_DATAGRAM_MAX ? length : SWIM_DATAGRAM_MAX;", put = "size_t piece = length;" },
  { name = "a_finished_stream_is_still_read", file = "drive/tables.c", killers = { { "tables_spec" } },
    find = "while (length > 0 && l->number && !l->tables->closing)", put = "while (length > 0 && !l->tables->closing)" },
  { name = "a_taken_port_is_an_error", file = "drive/tables.c", killers = { { "tables_spec" } },
    find = "if (rc < 0) rc = world_listen(world, &any, &listener_events, t, &t->listener);", put = "(void)any;" },
  { name = "a_failed_connect_is_silence", file = "drive/tables.c", killers = { { "tables_spec" } },
    find = "if (status < 0) end(l);", put = "if (status < 0) return;" },
  { name = "the_earlier_recording_is_written_on", file = "drive/swim_recording.c", killers = { { "swim_driver_spec" } },
    find = "if (rc == 0 && world_log_size(r->log) > 0) {", put = "if (rc == 0 && world_log_size(r->log) == 1) {" },
  { name = "a_recording_reaches_the_file_at_the_end_only", file = "drive/swim_recording.c", killers = { { "swim_driver_spec" } },
    find = "if (r->used >= FLUSH_BYTES || now_ns - r->flushed_ns >= FLUSH_NS) flush(r, now_ns);",
    put = "if (r->used >= FLUSH_BYTES) flush(r, now_ns);" },
  { name = "a_recording_has_gaps", file = "drive/swim_recording.c", killers = { { "swim_driver_spec" } },
    find = "  r->trouble = 1;\n  return trouble;", put = "  r->trouble = 0;\n  return trouble;" },
  { name = "members_max_is_not_raised", file = "drive/fleet.c", killers = { { "fleet_spec" } },
    find = "if (f->config.members_max < count + 1) f->config.members_max = count + 1;", put = "" },
  { name = "a_restart_is_the_same_life", file = "drive/fleet.c", killers = { { "fleet_spec" } },
    find = ".generation = ++n->generation", put = ".generation = n->generation + 1" },
  { name = "withheld_datagrams_come_all_the_same", file = "drive/fleet.c", killers = { { "fleet_spec" } },
    find = "  return withheld(n->fleet, place(n), true, from, bytes, length);",
    put = "  (void)withheld(n->fleet, place(n), true, from, bytes, length);\n  return false;" },
  { name = "one_death_counts_for_each_who_tells_it", file = "drive/predict.c", killers = { { "fleet_spec" } },
    find = "a->event == SWIM_EVENT_DEAD && !w->wronged[subject]", put = "a->event == SWIM_EVENT_DEAD" },
  { name = "half_of_them_may_crash", file = "drive/predict.c", killers = { { "fleet_spec" } },
    find = "q->crashes * 2 < q->members", put = "q->crashes * 2 <= q->members" },
  { name = "the_news_of_a_crash_is_not_waited_for", file = "drive/predict.c", killers = { { "fleet_spec" } },
    find = "while (w->told < alive && since(f, w) < limit_ns)", put = "while (w->told < 1 && since(f, w) < limit_ns)" },
}

for _, subject in ipairs { "net", "world", "host" } do
  for _, m in ipairs(dofile("spec/study/mutants/" .. subject .. ".lua")) do mutants[#mutants + 1] = m end
end

---- The workshop: a folder with its own copy of the sources, and objects of them.

local only, list, keep, cost
for _, a in ipairs(arg) do
  only = a:match "^%-%-only=(.+)$" or only
  list, keep, cost = list or a == "--list", keep or a == "--keep", cost or a == "--cost=1"
  if not (a:match "^%-%-only=." or a == "--list" or a == "--keep" or a == "--cost=1") then
    io.stderr:write("mutants: unknown option ", a, "; there are --only=WORD, --list, --keep, --cost=1\n")
    os.exit(2)
  end
end

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read "a"
  local ok, _, status = pipe:close()
  return ok, output, status
end
local function must_run(command)
  local ok, output = run(command)
  if not ok then error("mutants: " .. command .. "\n" .. output, 0) end
  return output
end
local function read(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "a"
  f:close()
  return text
end
local function write(path, text)
  local f = assert(io.open(path, "wb"))
  assert(f:write(text))
  assert(f:close())
end

local shop = must_run("mktemp -d"):gsub("%s+$", "")
local flags = "gcc -std=gnu11 -O1 -D_GNU_SOURCE -w -I" .. shop .. "/c -c "
local objects, built = {}, {} -- by source; programs that have their own object
local sound_ones = {} -- true, or the problem, by killer

local function compile(source, object) return run(flags .. source .. " -o " .. object) end

local function prepare()
  must_run("cp -r c spec lua scripts .busted " .. shop)
  local sources = must_run("cd " .. shop .. " && ls c/core/*.c c/world/*.c c/net/*.c c/drive/*.c")
  local commands = {}
  for source in sources:gmatch "%S+" do
    objects[source] = shop .. "/" .. source:gsub("/", "_"):gsub("%.c$", ".o")
    commands[#commands + 1] = ("%s%s/%s -o %s"):format(flags, shop, source, objects[source])
  end
  write(shop .. "/commands", table.concat(commands, "\n") .. "\n")
  must_run("xargs -P2 -I{} sh -c '{}' <" .. shop .. "/commands")
end

--- The objects of a program's own parts, spec/c/PROGRAM/*.c.
local function parts_of(program, where)
  local out = {}
  local folder = ("%s/spec/%s/%s"):format(shop, where, program)
  for part in must_run(("find %s/spec/%s -path '%s/*.c'"):format(shop, where, folder)):gmatch "%S+" do
    out[#out + 1] = part:gsub("%.c$", ".o")
    must_run(("%s-I%s/spec/%s %s -o %s"):format(flags, shop, where, part, out[#out]))
  end
  return table.concat(out, " ")
end

--- The program's own object, once; then a link with this object in place of the one of `source`.
local function link(program, source, object)
  if not built[program] then
    built[program] = shop .. "/" .. program .. ".o"
    local where = program:find "_study$" and "study" or "c"
    must_run(("%s-I%s/spec/%s %s/spec/%s/%s.c -o %s"):format(flags, shop, where, shop, where, program, built[program]))
    built[program] = built[program] .. " " .. parts_of(program, where)
  end
  local all = { built[program] }
  for known, its in pairs(objects) do all[#all + 1] = known == source and object or its end
  table.sort(all)
  local path = shop .. "/" .. program
  must_run("gcc -o " .. path .. " " .. table.concat(all, " ") .. " -luv -lm")
  return path
end

--- Run a killer of Lua in the copy of the tree.
local root = must_run("pwd"):gsub("%s+$", "")
local function run_spec(killer, build)
  local filter = killer[2] and "--filter='" .. killer[2]:gsub("%W", ".") .. "' " or "" -- busted re-executes itself, and loses quotes.
  return run(("cd %s && SHOAL_BUILD=%s/build/release timeout 120 busted %s%s"):format(shop, build or root, filter, killer[1]))
end

local function try_lua(m, mutated)
  local path = shop .. "/" .. m.file
  local sound_text = read(path)
  write(path, mutated)
  local killed
  for _, killer in ipairs(m.killers) do
    if not killed and not run_spec(killer) then killed = killer[1] end
  end
  write(path, sound_text)
  return killed, "survived"
end

--- A file of c/host or c/lua: the program is built with it, in the copy of the tree.
local built_whole
local function try_program(m, source, mutated)
  local path, sound_text = shop .. "/" .. source, read(source)
  local build = ("nice cmake --build %s/build/release --target shoal shoal_module"):format(shop)
  if not built_whole then
    must_run(("cp CMakeLists.txt CMakePresets.json %s && cd %s && cmake --preset release && %s -j2"):format(shop, shop, build))
    built_whole = true
  end
  write(path, mutated)
  local ok, output = run(build)
  local killed
  for _, killer in ipairs(ok and m.killers or {}) do
    if not killed and not run_spec(killer, shop) then killed = table.concat(killer, " ") end
  end
  write(path, sound_text)
  return killed, ok and "survived" or "does not compile: " .. output
end

--- Run a mutant. Returns the killer's name, or nil and the reason.
local function try(m)
  local of_lua = m.file:find "%.lua$"
  local source = of_lua and m.file or m.file:find "/" and "c/" .. m.file or "c/core/" .. m.file
  local text = read(source)
  local from, to = text:find(m.find, 1, true)
  if not from then return nil, "no longer applies: its text is not in " .. source end
  if text:find(m.find, to + 1, true) then return nil, "its text stands more than once in " .. source end
  if of_lua then return try_lua(m, text:sub(1, from - 1) .. m.put .. text:sub(to + 1)) end
  if m.file:find "^host/" or m.file:find "^lua/" then
    return try_program(m, source, text:sub(1, from - 1) .. m.put .. text:sub(to + 1))
  end
  local mutated, object = shop .. "/c/core/mutated.c", shop .. "/mutated.o"
  write(mutated, text:sub(1, from - 1) .. m.put .. text:sub(to + 1))
  local ok, output = compile(mutated, object)
  if not ok then return nil, "does not compile: " .. output end
  for _, killer in ipairs(m.killers) do
    local command = "timeout 120 " .. link(killer[1], source, object) .. " " .. table.concat(killer, " ", 2)
    local held, said = run(command)
    local ran = killer[1]:find "_study$" or #killer < 2 or said:find "ok " or not held -- A filter without a behaviour must not count as a kill.
    if not ran then return nil, killer[1] .. " has no " .. killer[2] end
    if not held then return table.concat(killer, " ") end
  end
  return nil, "survived"
end

--- Check that the unchanged code passes the killers.
local function sound(killers)
  for _, killer in ipairs(killers) do
    local key = table.concat(killer, " ")
    if sound_ones[key] == nil then
      local of_lua = killer[1]:find "_spec%.lua$"
      local held, said
      if of_lua then held, said = run_spec(killer)
      else held, said = run("timeout 300 " .. link(killer[1]) .. " " .. table.concat(killer, " ", 2)) end
      local none = not of_lua and not killer[1]:find "_study$" and not said:find "ok "
      sound_ones[key] = none and "has no such behaviour" or not held and "fails without a mutant:\n" .. said or true
    end
    if sound_ones[key] ~= true then return nil, key .. " " .. sound_ones[key] end
  end
  return true
end

local short = 0
if list then
  for _, m in ipairs(mutants) do print(m.name, m.file) end
  os.exit(0)
end
prepare()
for _, m in ipairs(mutants) do
  if not only or m.name:find(only, 1, true) then
    local killer, why = sound(m.killers)
    if killer then killer, why = try(m) end
    if not killer then short = short + 1 end
    print(("bar mutant_%s %d want <= 0 %s  %s"):format(m.name, killer and 0 or 1, killer and "ok" or "short",
      killer and "killed by " .. killer or why))
    io.stdout:flush()
  end
end
if cost then
  local function instructions(members, crashes)
    local _, output = run(("valgrind --tool=callgrind --callgrind-out-file=/dev/null %s --n=%d --seeds=1 --crashes=%d")
      :format(link "crash_study", members, crashes))
    return tonumber(output:match "Collected : (%d+)") or error("mutants: valgrind counted nothing: " .. output, 0)
  end
  local function of_a_crash(members) return (instructions(members, 3) - instructions(members, 1)) / 2 / members end
  local small, large = of_a_crash(1000), of_a_crash(10000)
  print(("instructions a member and crash: %.0f at 1,000, %.0f at 10,000"):format(small, large))
  local ok = large / small <= 2
  if not ok then short = short + 1 end
  print(("bar mutants_cost_growth %.2f want <= 2 %s"):format(large / small, ok and "ok" or "short"))
end
if keep then print("kept in " .. shop) else must_run("rm -rf " .. shop) end
os.exit(short == 0 and 0 or 1)
