--- asking: a leader's answers to people: one job, all jobs, the events of one job.
local feed = require "shoal.job.feed"
local ledger = require "shoal.job.ledger"
local log = require "shoal.base.log"
local outcome = require "shoal.job.outcome"
local task = require "shoal.base.task"

local REPLAY_FROM = 1 << 19 -- A replayed answer gets event numbers above every number of this leadership's live feeds.
local AGAIN_MS = 1000       -- A refusal for lack of room tells the client to retry after this.
local LIST_MAX = 2000       -- One answer lists at most so many jobs, the newest.

---@param lead table  the class of leaders, which gets these methods
return function (lead)
  --- One job as `shoal status` shows it; nil when this tier has none of that id.
  function lead:get(key)
    local entry, run = self.ledger:run(key), self.runs[key]
    if not entry then return nil end
    local out = { job = entry.run, name = entry.name, state = entry.state, reason = entry.reason or "", workflows = {} }
    if run then
      for _, name in ipairs(run.order) do
        out.workflows[#out.workflows + 1] = { workflow = name, state = run.told[name] or "waiting", waiting = run:why_waiting(name) }
      end
      out.elapsed_ms = run:elapsed_ms()
      local all = {}
      for name in next, entry.parts do all[name] = true end -- order-free: a set
      out.parts, out.more = outcome.by_part(entry, self.attempts:of_run(key), all)
    elseif ledger.FINAL[entry.state] then
      out.result = self:answer_of(entry)
    end
    return out
  end

  --- The newest jobs of this tier, at most LIST_MAX.
  function lead:list()
    local all, out, ended = self.ledger:list(), {}, self.ledger.ended
    for i = #ended, math.max(1, #ended - LIST_MAX), -1 do all[#all + 1] = self.ledger:ended_run(ended[i]) end
    table.sort(all, function (a, b) return a.index < b.index end)
    for i = math.max(1, #all - LIST_MAX + 1), #all do
      local entry = all[i]
      out[#out + 1] = { job = entry.run, name = entry.name, state = entry.state, reason = (entry.reason or ""):sub(1, 300) }
    end
    return out
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
