--- Mutants of federation: rows as in ../mutants.lua.
local CORE = { { "federation_spec", "20" } }
local function module(title) return { "spec/lua/federation_spec.lua", title } end

local rows = {
  { "suspects_an_interval_early",
    "return c->failures * c->interval_ns + timeout_ns;", "return (c->failures - 1) * c->interval_ns + timeout_ns;" },
  { "unreachable_without_a_suspicion", "federation_suspect_ns(c, timeout_ns) + c->suspicion_ns;", "federation_suspect_ns(c, timeout_ns);" },
  { "own_errors_end_no_row", "    if (sent_at(d, s) == ERRED) return;\n  d->own_errors = 0;", "    if (sent_at(d, s) == ERRED) return;" },
  { "an_older_answer_ends_a_row_of_own_errors", "    if (sent_at(d, s) == ERRED) return;\n", "    (void)s;\n" },
  { "own_errors_retry_in_step", "return ns - ns / 5 + rng_below(&f->rng, 2 * (ns / 5) + 1);", "return ns;" },
  { "own_errors_retry_past_the_most", "  ns = min_ns(ns, f->config.retry_max_ns);\n", "" },
  { "own_errors_retry_does_not_double", "ns < f->config.retry_max_ns; i++) ns *= 2;", "ns < f->config.retry_max_ns; i++) ns += 0;" },
  { "silence_backs_off_as_errors_of_ours", "  if (ours) {\n    f->counts.own_errors++;", "  if (true) {\n    f->counts.own_errors++;" },
  { "own_errors_delay_nothing", "d->probe_at_ns = f->now_ns + *delay_ns;", "d->probe_at_ns = f->now_ns + f->config.interval_ns;" },
  { "a_new_leader_has_the_old_incarnation", "  d->incarnation = ++f->incarnation;\n  leave_line", "  leave_line" },
  { "answers_of_the_old_leader_count", "if (incarnation != d->incarnation) {", "if (false) {" },
  { "answers_of_an_old_term_count", "if (term < d->term) {", "if (false) {" },
  { "an_answer_counts_twice", "  d->sent_ns[seq % FEDERATION_IN_FLIGHT] = 0;\n  d->term = term;", "  d->term = term;" },
  { "a_probes_timeout_is_fixed", "if (ns < f->config.timeout_ns) return f->config.timeout_ns;", "return f->config.timeout_ns;" },
  { "a_probes_timeout_has_no_bound", "return ns < f->config.timeout_max_ns ? ns : f->config.timeout_max_ns;", "return ns;" },
  { "our_stall_is_their_silence", "ns - due > f->config.interval_ns / 2) {", "false) {" },
  { "first_probes_all_at_once",
    "f->phase_ns = rng_below(&f->rng, f->config.interval_ns * count / FEDERATION_SPREAD + 1);",
    "f->phase_ns = 0 * count;" },
  { "a_million_begin_in_one_lump", "(many < FEDERATION_TOGETHER ? many : FEDERATION_TOGETHER) - 1", "many * FEDERATION_LUMPS" },
  { "few_first_probes_wait_an_interval", "f->config.interval_ns * count / FEDERATION_SPREAD + 1", "f->config.interval_ns + 1 + 0 * count" },
  { "one_past_dcs_max", "f->counts.dcs < f->config.dcs_max ?", "f->counts.dcs <= f->config.dcs_max ?" },
  { "silence_begins_at_an_older_answer", "if (!d->heard || sent_ns > d->heard_ns) d->heard_ns = sent_ns;", "d->heard_ns = sent_ns;" },
  { "a_new_leader_waits_for_the_interval", "  d->probe_at_ns = f->now_ns;\n  arm(f, dc);", "  arm(f, dc);" },
  { "a_new_leader_inherits_own_errors", "  d->own_errors = 0; /* They were of probes of another address. */\n", "" },
  { "an_answer_leaves_the_row_of_unanswered", "  d->heard = true;\n  d->unanswered = 0;", "  d->heard = true;" },
  { "a_refusal_is_counted_twice", "if (seq > d->counted) count_unanswered(f, d); /* Else", "count_unanswered(f, d); /* Else" },
  { "a_probe_is_over_at_its_timeout",
    "sent_at(d, waiting) + f->config.timeout_max_ns <= f->now_ns)", "sent_at(d, waiting) + timeout_of(f, d) <= f->now_ns)" },
}

local out = {}
for i, row in ipairs(rows) do
  out[i] = { name = "federation_" .. row[1], file = "federation.c", killers = CORE, find = row[2], put = row[3] }
end

local FILE = "lua/shoal/member/federation.lua"
for _, row in ipairs {
  { "circuit_is_their_silence", "CLOSED = true, CIRCUIT = true,", "CLOSED = true,", "what our own transport" },
  { "a_raising_probe_is_silence",
    "function () return failed(self, d, probe) end, self.hooks.probe,",
    "function () return ids_of(self, d, probe) end, self.hooks.probe,",
    "one incident each time" },
  { "a_probe_that_raised_is_not_asked_again", "self.scope:keep(", "self.scope:spawn(", "raised.at.its.beginning",
    "spec/sim/mending_spec.lua" },
  { "a_raising_on_state_stops_the_others",
    [[errors.run("federation.state", { dc = d.name, from = from, to = to }, nil, self.hooks.on_state, event)]],
    "self.hooks.on_state(event)", "a raising on_state" },
  { "a_hook_that_waits_for_ever_piles_up",
    "      t:cancel()\n    end\n  end\n  d.over = {}", "    end\n  end\n  d.over = {}", "waits for ever" },
  { "the_same_leader_elsewhere_is_not_seen",
    "elseif d.leader ~= leader or d.address ~= address or d.life ~= life then", "elseif d.leader ~= leader then", "same leader at another" },
  { "a_lower_term_of_a_leader_is_taken", "elseif term < d.term then", "elseif false then", "an old incarnation or term" },
  { "the_loop_does_not_back_off",
    "local LOOP_BACKOFF_MS = { 1000, 30000 }", "local LOOP_BACKOFF_MS = { 1000, 1000 }", "a failure of the loop itself" },
  { "close_leaves_the_loop", "  self.closed = true\n  self.scope:close()", "  self.closed = true", "close interrupts" },
} do
  out[#out + 1] = { name = "federation_" .. row[1], file = FILE, killers = { row[5] and { row[5], row[4] } or module(row[4]) }, find = row[2],
    put = row[3] }
end

-- The wiring at gates and managers.
local function wired(title) return { "spec/sim/federation_spec.lua", title } end
for _, row in ipairs {
  { "a_probe_waits_for_what_a_cut_left", "registry", "timeout_ms = timeout_ms, hurry = true }", "timeout_ms = timeout_ms }", "any length" },
  { "an_unreachable_datacenter_is_not_evicted", "registry", "evict = function (name, why) self:evict(name, why) end,",
    "evict = function () end,", "federation.state" },
  { "another_manager_leads_a_living_datacenter", "registry", "if d.leader == m.name or self:vacant(d, m.dc) then", "if true then",
    "of two managers" },
  { "two_that_cannot_be_reached_take_turns", "registry",
    "if task.now_ms() - d.chosen_ms < c.interval_ms + c.timeout_ms then return false end", "", "of two managers" },
  { "one_that_does_not_lead_stays_the_leader", "registry", " or d.answer ~= nil and not d.answer.leads", "", "a new leader is taken" },
  { "one_that_does_not_lead_is_an_executor", "registry", "if not answer.leads then return end", "", "does not lead" },
  { "a_refused_datacenter_is_known", "registry", "self.managers[m.name], self.dcs[m.dc] = nil, nil\n", "\n", "dcs_max" },
  { "lists_cross_with_each_answer", "heart", "if body.digest ~= digest then", "if true then", "lists only" },
  { "lists_that_changed_do_not_cross", "heart", "if packed ~= self.packed then", "if not self.packed then", "lists only" },
  { "one_that_stays_out_answers", "heart", "if node.apart then return nil, node.name", "if false then return nil, node.name", "stays out" },
  { "anyone_answers_for_the_leader", "heart", "if body.dc ~= node.dc or body.node ~= node.name then", "if false then", "stays out" },
} do
  out[#out + 1] = { name = "federation_" .. row[1], file = ("lua/shoal/job/%s.lua"):format(row[2]), killers = { wired(row[5]) }, find = row[3],
    put = row[4] }
end
return out
