--- Mutants of what stands on membership, and of nodes: rows as in ../mutants.lua.
local function journal(title) return { "spec/lua/swim_journal_spec.lua", title } end
local function partition(title) return { "spec/lua/swim_partition_spec.lua", title } end
local function settle(title) return { "spec/lua/swim_settle_spec.lua", title } end
local function config(title) return { "spec/lua/config_spec.lua", title } end

return {
  -- The journal.
  { name = "a_cursor_of_an_earlier_life_is_ours", file = "lua/shoal/member/swim/journal.lua", killers = { journal "of an earlier life" },
    find = "if cursor >> SEQUENCE_BITS ~= self.epoch or sequence > self.sequence then return nil end",
    put = "if sequence > self.sequence then return nil end" },
  { name = "a_cursor_of_the_future_is_ours", file = "lua/shoal/member/swim/journal.lua", killers = { journal "of an earlier life" },
    find = " or sequence > self.sequence then return nil end", put = " then return nil end" },
  { name = "a_gap_in_the_journal_is_not_told", file = "lua/shoal/member/swim/journal.lua", killers = { journal "TRUNCATED" },
    find = "  if from + 1 < oldest then", put = "  if from + 1 < 0 then" },
  { name = "one_event_less_is_kept", file = "lua/shoal/member/swim/journal.lua", killers = { journal "TRUNCATED" },
    find = "local oldest = math.max(1, self.sequence - self.kept + 1)", put = "local oldest = math.max(1, self.sequence - self.kept + 2)" },
  { name = "the_journal_keeps_the_callers_member", file = "lua/shoal/member/swim/journal.lua", killers = { journal "keeps copies" },
    find = "local sequence, member = self.sequence + 1, copy(event.member)", put = "local sequence, member = self.sequence + 1, event.member" },
  { name = "the_dead_are_in_the_snapshot", file = "lua/shoal/member/swim/journal.lua", killers = { journal "the same table as a fast one" },
    find = "not GONE[event.kind] and member or nil end", put = "member end" },
  { name = "who_waits_is_not_told_of_the_end", file = "lua/shoal/member/swim/journal.lua", killers = { journal "is told when the journal closes" },
    find = "  if news then news:set(true) end\nend\nJournal.__close", put = "end\nJournal.__close" },
  -- Partitions.
  { name = "one_fewer_is_a_partition", file = "lua/shoal/member/swim/partition.lua", killers = { partition "not with one fewer" },
    find = "    if self.lost >= threshold(self) then rise", put = "    if self.lost + 1 >= threshold(self) then rise" },
  { name = "one_death_is_a_partition", file = "lua/shoal/member/swim/partition.lua", killers = { partition "one death is none" },
    find = "return math.max(self.config.least, math.ceil(", put = "return math.max(1, math.ceil(" },
  { name = "losses_of_long_ago_count", file = "lua/shoal/member/swim/partition.lua", killers = { partition "within window_ms" },
    find = "  while self.lost_first and now_ns - self.lost_first.down_ns > window_ns do", put = "  while self.lost_first and window_ns < 0 do" },
  { name = "a_partition_heals_at_once", file = "lua/shoal/member/swim/partition.lua", killers = { partition "heals when they are back" },
    find = "sooner(e.changed_ns + c.heal_ms * NS_PER_MS, \"healed\")", put = "sooner(e.changed_ns, \"healed\")" },
  { name = "a_partition_never_ends_by_itself", file = "lua/shoal/member/swim/partition.lua", killers = { partition "give_up_ms ends it" },
    find = "e.detected_ns + c.give_up_ms * NS_PER_MS, \"gave_up\"", put = "math.maxinteger, \"gave_up\"" },
  { name = "a_refuted_suspicion_is_a_loss", file = "lua/shoal/member/swim/partition.lua", killers = { partition "that is refuted" },
    find = "  elseif kind == \"join\" or kind == \"alive\" then\n    unlist(self, m)", put = "  elseif kind == \"join\" or kind == \"alive\" then" },
  { name = "who_left_is_lost", file = "lua/shoal/member/swim/partition.lua", killers = { partition "that is refuted" },
    find = "  elseif kind == \"left\" then\n    unlist(self, m)\n    forget(self, m)", put = "  elseif kind == \"left\" then\n    list(self, m, \"dead\", now_ns)" },
  { name = "random_losses_are_a_partition", file = "lua/shoal/member/swim/evenness.lua", killers = { partition "random losses a storm" },
    find = "count - 1 + 3 * math.sqrt(2 * (count - 1))", put = "count - 1" },
  { name = "a_lost_group_is_a_storm", file = "lua/shoal/member/swim/evenness.lua", killers = { partition "whole groups lost" },
    find = " or whole and large then", put = " then" },
  -- Bursts.
  { name = "a_burst_has_no_end", file = "lua/shoal/member/swim/settle.lua", killers = { settle "at most_ms after the first" },
    find = "return math.min(self.to_ns + self.config.quiet_ms * NS_PER_MS, self.from_ns + self.config.most_ms * NS_PER_MS)",
    put = "return self.to_ns + self.config.quiet_ms * NS_PER_MS" },
  { name = "a_burst_ends_before_it_is_quiet", file = "lua/shoal/member/swim/settle.lua", killers = { settle "not 1 ms sooner" },
    find = "  if now_ns < due_ns(self) then return self:arm(now_ns) end\n", put = "" },
  { name = "a_life_that_came_and_went_is_told", file = "lua/shoal/member/swim/settle.lua", killers = { settle "nets a join and a death" },
    find = "  if not entry.before then self.entries[event.member.name] = nil end", put = "  if not entry.before then entry.ended, entry.how = event.member, event.kind end" },
  { name = "a_death_that_was_none_is_told", file = "lua/shoal/member/swim/settle.lua", killers = { settle "a death that was none" },
    find = "    entry.ended, entry.how = nil, nil\n", put = "" },
  -- Nodes.
  { name = "a_late_heartbeat_is_a_silence", file = "lua/shoal/node/config.lua", killers = { config "two heartbeats" },
    find = "if c.dc_silent_ms <= 2 * c.heartbeat_ms then return", put = "if c.dc_silent_ms < 0 then return" },
  { name = "two_heartbeats_are_enough", file = "lua/shoal/node/config.lua", killers = { config "two heartbeats" },
    find = "if c.dc_silent_ms <= 2 * c.heartbeat_ms then return", put = "if c.dc_silent_ms < 2 * c.heartbeat_ms then return" },
  { name = "forgotten_before_it_is_silent", file = "lua/shoal/node/config.lua", killers = { config "forget no datacenter" },
    find = "if c.dc_forget_ms < c.dc_silent_ms then return", put = "if c.dc_forget_ms < 0 then return" },
  { name = "any_name_of_a_datacenter", file = "lua/shoal/node/config.lua", killers = { config "no name" },
    find = "dc = schema.string { default = \"\", max = 64, pattern = NAME_OR_NONE },", put = "dc = schema.string { default = \"\", max = 64 }," },
}
