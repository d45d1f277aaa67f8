--- asking: a leader's answers to people: one job, all jobs, the events of one job.
local feed = require "shoal.job.feed"
local ledger = require "shoal.job.ledger"
local log = require "shoal.base.log"
local outcome = require "shoal.job.outcome"
local task = require "shoal.base.task"

local REPLAY_FROM = 1 << 19 -- A replayed answer gets event numbers above every number of this leadership's live feeds.
local AGAIN_MS = 1000       -- A refusal for lack of room tells the client to retry after this.
local OUTPUTS_MAX = 2 << 20  -- Bytes of outputs in one answer.
local LOOK_AT_ONCE = 1000   -- Ended jobs that one turn of the loop unpacks for a filter.
local LIST_MAX = 2000       -- One answer lists at most so many jobs, the newest.

--- What every answer says of a run. Times are of the tier's clock, so they go on over restarts.
local function row_of(entry)
  return {
    job = entry.run, name = entry.name, state = entry.state, submitted_ms = entry.started_ms, started_ms = entry.began_ms,
    ended_ms = entry.ended_ms, origin = entry.origin,
  }
end

local function matches(entry, filter, since_ms)
  return (not filter.state or entry.state == filter.state) and (not filter.name or entry.name:find(filter.name, 1, true) ~= nil)
    and (not since_ms or entry.started_ms >= since_ms)
end

---@param lead table  the class of leaders, which gets these methods
return function (lead)
  --- The outputs of the parts that have ended, by workflow, within a message.
  local function outputs_of(entry, order)
    local out, left = {}, OUTPUTS_MAX
    for _, name in ipairs(order) do
      local work = entry.work[name]
      local record = work and work.detail and work.detail:record()
      for _, run in ipairs(record and record.commands or {}) do
        left = left - #(run.head or "") - #(run.tail or "") - 200
        if left < 0 then return out, true end
        out[#out + 1] = { workflow = name, output = run }
      end
    end
    return out
  end

  --- One job as `shoal status` shows it; nil when this tier has none of that id.
  ---@param key string
  ---@param outputs? boolean  also the outputs of its parts that have ended, while it runs
  function lead:get(key, outputs)
    local entry, run = self.ledger:run(key), self.runs[key]
    if not entry then return nil end
    local out = row_of(entry)
    out.reason, out.workflows = entry.reason or "", {}
    if run then
      out.limit_ms, out.executions, out.retries = entry.limit_ms, 0, 0
      for _, part in next, entry.parts do -- order-free: sums
        out.executions, out.retries = out.executions + part.attempt, out.retries + math.max(0, part.attempt - 1)
      end
      for _, name in ipairs(run.order) do
        out.workflows[#out.workflows + 1] = { workflow = name, state = run.told[name] or "waiting", waiting = run:why_waiting(name) }
      end
      out.elapsed_ms = run:elapsed_ms()
      local suspicions = self.suspects:list(entry.job)
      out.suspicions = #suspicions > 0 and suspicions or nil
      out.lease, out.leases, out.more_leases = self.leases:of_run(key)
      if outputs then out.outputs, out.outputs_cut = outputs_of(entry, run.order) end
      local all = {}
      for name in next, entry.parts do all[name] = true end -- order-free: a set
      out.parts, out.more = outcome.by_part(entry, self.attempts:of_run(key), all)
    elseif ledger.FINAL[entry.state] then
      out.result = self:answer_of(entry)
    end
    return out
  end

  --- How many leases this leader has granted and holds; {} when it does not lead.
  function lead:lease_counts() return self.leases and self.leases:counts() or {} end

  --- The newest jobs of this tier, at most LIST_MAX, in order of their submission; and how many more there are that the filter takes.
  ---@param filter? { state?: string, name?: string, within_ms?: integer, limit?: integer }
  ---@return table[] rows, integer more
  function lead:list(filter)
    filter = filter or {}
    local all, ended, most = {}, self.ledger.ended, math.max(0, math.min(filter.limit or LIST_MAX, LIST_MAX))
    local since_ms = filter.within_ms and self.fence > 0 and self:clock_ms() - filter.within_ms or nil
    local function take(entry)
      if entry and matches(entry, filter, since_ms) then all[#all + 1] = entry end
    end
    for _, entry in ipairs(self.ledger:list()) do take(entry) end
    local plain = not filter.state and not filter.name and not since_ms
    for i = #ended, plain and math.max(1, #ended - most) or 1, -1 do
      take(self.ledger:ended_run(ended[i]))
      if not plain and i % LOOK_AT_ONCE == 0 then task.yield() end -- Many to unpack: the node does other things in between.
    end
    table.sort(all, function (a, b) return a.index < b.index end)
    local out = {}
    for i = math.max(1, #all - most + 1), #all do
      local row = row_of(all[i])
      row.reason = (all[i].reason or ""):sub(1, 300)
      out[#out + 1] = row
    end
    return out, (plain and #ended + self.ledger.live or #all) - #out
  end

  --- The feed of a run that is live or has just ended; else a new feed that holds only the stored answer.
  local function feed_of(self, entry)
    local run = self.runs[entry.run]
    if run then return run.feed end
    for _, old in ipairs(self.old_feeds) do
      if old.key == entry.run then return old.feed end
    end
    local replay = { key = entry.run, job = entry.job, scope = task.scope("replay " .. entry.run, self.term) }
    replay.feed = feed.new(entry.job, replay.scope, self.fence, true, self.watching)
    replay.feed:go_on((self.fence << 20) + REPLAY_FROM)
    replay.feed:push("result", { workflow = "", result = self:answer_of(entry) }, entry.result ~= nil)
    replay.feed:push("status", { state = entry.state, reason = entry.reason, at_ms = math.max(0, entry.ended_ms - entry.started_ms) })
    replay.feed:close()
    replay.bytes = entry.bytes
    self:keep_feed(replay)
    return replay.feed
  end

  --- Push a job's events to `peer`, from a number on. If the job has ended, replay its answer.
  function lead:watch(key, peer, from)
    local entry = self.ledger:run(key)
    if not entry then return nil, "no job " .. key .. " here", "NOT_FOUND" end
    if self.fence == 0 or not self.runs[key] and not ledger.FINAL[entry.state] then
      return nil, self.node.name .. " does not lead job " .. key .. " now", "NOT_LEADER"
    end
    if self.watching.count >= self.limits.watchers then
      return nil, ("%d clients watch jobs here already; try again in %d ms"):format(self.limits.watchers, AGAIN_MS), "OVERLOADED"
    end
    local found = feed_of(self, entry)
    found:watch(peer, from)
    return { seq = found.last, state = entry.state }
  end

  function lead:stop_watching(run, peer)
    if run and run.feed:leave(peer) then log.info("lead.watcher_left", { job = run.job, watcher = peer:name() }) end
  end

  --- Stop pushing a job to this peer. Does nothing for a peer that is not watching, or a job that is gone.
  function lead:unwatch(key, peer) self:stop_watching(self.runs[key], peer) end

  --- Events by poll.
  function lead:events(key, from, max)
    local entry = self.ledger:run(key)
    if not entry or self.fence == 0 or not self.runs[key] and not ledger.FINAL[entry.state] then
      return nil, "no events of job " .. key .. " are kept here", "NOT_FOUND"
    end
    local found = feed_of(self, entry)
    local list, truncated = found:since(from, max)
    return { events = list, truncated_from = truncated or 0, last = found.last }
  end
end
