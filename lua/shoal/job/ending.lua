--- ending: after a run's final state. Clients or the higher tier get the result; it is kept for the retention time, then forgotten.
local backoff = require "shoal.base.backoff"
local errors = require "shoal.base.errors"
local outcome = require "shoal.job.outcome"
local task = require "shoal.base.task"

local FORGET_MS = 200           -- Runs whose results a higher tier accepted within this time are forgotten in one command.
local FORGET_MOST = 500
local EXPIRE_MOST = 500         -- One expire command forgets at most so many runs.
local MOVE_MOST = 2000          -- One command moves at most so many results to a file.
local KEY_MS = 300000           -- An idempotency key is kept at least this long after the end, however many runs are kept.
local FEEDS_MAX = 64            -- Feeds of ended runs that are kept for clients that come back a moment later ...
local FEED_BYTES_MAX = 4 << 20  -- ... and the bytes of their results.

---@param lead table  the class of leaders, which gets these methods
return function (lead)
  --- The run has its final state: push the stored result, and drop the volatile state.
  function lead:close_run(entry)
    local run = self.runs[entry.run]
    self.placing:forget(entry.run)
    self.attempts:forget(entry.run)
    self.leases:end_run(entry.run)
    if run then
      run.over = true
      run.wake_up:push(true) -- dropped: full means awake
      self.runs[entry.run] = nil
      if entry.upstream then
        run.feed:drop()
      else
        self:tell_end(run, entry)
      end
    end
    if entry.upstream then self:hand_over(entry) end
  end

  --- The result as people get it; a short one if the stored one cannot be read.
  function lead:answer_of(entry)
    local bytes, err = self.results:read(entry)
    local result
    if bytes then result, err = outcome.decode(bytes) end
    result = result or outcome.decode(outcome.small(entry, entry.state, entry.reason, self.node.name, 0, err))
    result.submitted_ms, result.started_ms, result.ended_ms, result.origin = entry.started_ms, entry.began_ms, entry.ended_ms, entry.origin
    return result
  end

  function lead:tell_end(run, entry)
    local at_ms, answer = math.max(0, entry.ended_ms - entry.started_ms), self:answer_of(entry)
    for _, w in ipairs(answer.workflows or {}) do -- Push final workflow states that the end overtook.
      if run.told[w.workflow] ~= w.state then
        local state = entry.state == "timed_out" and "cancelling" or "running"
        run.feed:push("status", { state = state, workflow = w.workflow, workflow_state = w.state, at_ms = at_ms })
      end
    end
    run.feed:push("result", { workflow = "", result = answer }, entry.result ~= nil)
    run.feed:push("status", { state = entry.state, reason = entry.reason, at_ms = at_ms })
    run.feed:close()
    run.bytes = entry.bytes
    self:keep_feed(run)
  end

  --- Keep the feed of an ended run for a while: as many as there is room for, the newest in any case.
  function lead:keep_feed(run)
    local list, bytes = self.old_feeds, 0
    list[#list + 1] = run
    for _, each in ipairs(list) do bytes = bytes + each.bytes end
    while #list > FEEDS_MAX or #list > 1 and bytes > FEED_BYTES_MAX do
      bytes = bytes - list[1].bytes
      self:drop_feed(list[1].key)
    end
  end

  --- Drop a feed. Clients that have not read it all ask again, and get the stored result.
  function lead:drop_feed(key)
    for i, run in ipairs(self.old_feeds) do
      if run.key == key then
        table.remove(self.old_feeds, i)
        run.feed:drop()
        return
      end
    end
  end

  --- Send the result to the higher tier until it accepts it; then forget the run.
  function lead:hand_over(entry)
    local up, index = entry.upstream, entry.index
    local bytes, err = self.results:read(entry)
    local result = bytes and outcome.decode(bytes)
    if not result then
      bytes = outcome.small(entry, "failed", nil, self.node.name, 0, "its result could not be read again: " .. tostring(err))
      result = outcome.decode(bytes)
    end
    self.options.reports:result({
      job = entry.job, workflow = up.workflow, part = up.part, attempt = up.attempt, fence = up.fence, leader = up.address,
      state = entry.state == "timed_out" and "failed" or entry.state, reason = entry.reason, result = bytes, stats = result.totals,
      began_ms = task.now_ms() - math.max(0, self:clock_ms() - entry.started_ms),
    }, function ()
      if self.options.held then self.options.held:drop { job = entry.job, part = up.part, fence = up.fence } end
      self:forget(entry.run, index)
    end)
  end

  --- Forget a run. The same part's next attempt may already be here, so the run is named by its index too. Nothing waits for this, so
  --- runs are forgotten in batches: a sync for each would cost more than the run did.
  function lead:forget(key, index)
    if not self.term or self.fence == 0 then return end
    local list = self.forgetting
    list[#list + 1] = { run = key, index = index }
    if #list > 1 then return end
    self.term:keep("lead.forget", { job = key }, function ()
      local wait = backoff.new(self.node.world, { base_ms = 500, cap_ms = 30000 })
      task.sleep(FORGET_MS)
      while self.forgetting[1] do
        local runs = table.move(self.forgetting, 1, math.min(FORGET_MOST, #self.forgetting), 1, {})
        local facts, err, code = self:propose { kind = "forget", runs = runs }
        if facts then
          self.forgetting = table.move(self.forgetting, #runs + 1, #self.forgetting, 1, {})
        elseif code == "NOT_LEADER" then
          return -- The next leader sends it again.
        else
          errors.report("lead.forget", { job = runs[1].run }, err, code)
          task.sleep(wait:next())
        end
      end
    end)
  end

  --- Forget runs that ended before this instant, the oldest first.
  function lead:expire(before_ms, most)
    local facts, err, code = self:propose { kind = "expire", before_ms = before_ms, most = most }
    if not facts then errors.report("lead.forget", { job = self.ledger.ended[1] or "any" }, err, code) end
  end

  --- Small results are held in memory up to a limit; beyond it, move the older half of them to one file.
  function lead:move_results()
    local list, bytes = {}, 0
    for i = self.moved_to, #self.ledger.ended do
      local key = self.ledger.ended[i]
      local run = self.ledger:ended_run(key)
      if bytes >= self.limits.inline // 2 or #list >= MOVE_MOST then break end
      if run and run.result and not run.upstream then list[#list + 1], bytes = { key = key, result = run.result }, bytes + #run.result end
      self.moved_to = i
    end
    if #list == 0 then
      self.moved_to = 1 -- The list of ended runs has been cut since.
      return
    end
    local moved, err, code = self.results:gather(list, self.ledger:run(list[1].key).index)
    if moved then moved, err, code = self:propose { kind = "move", file = moved.file, runs = moved.runs } end
    if not moved then errors.report("lead.results", { path = self.results.directory }, err, code) end
  end

  --- Forget runs past their retention, and remove results beyond retention_bytes.
  function lead:keep_house()
    local clock_ms = self:clock_ms()
    local oldest, run
    for _, key in ipairs(self.ledger.ended) do -- The oldest run that does not wait for a higher tier.
      oldest = key
      if not self.ledger.handing[key] then break end
    end
    run = oldest and self.ledger:ended_run(oldest)
    if oldest and (not run or not run.upstream and run.ended_ms + self.options.retention_ms < clock_ms) then
      self:expire(clock_ms - self.options.retention_ms, EXPIRE_MOST)
    elseif #self.ledger.ended > self.limits.ended_kept then
      self:expire(clock_ms - KEY_MS, math.min(EXPIRE_MOST, #self.ledger.ended - self.limits.ended_kept))
    end
    if self.ledger.inline_bytes > self.limits.inline then self:move_results() end
    local limit = self.options.retention_bytes
    if not limit or self.ledger.result_bytes <= limit then return end
    local over = self.ledger.result_bytes - limit
    local list = {}
    for _, key in ipairs(self.ledger.ended) do
      local entry = self.ledger:ended_run(key)
      if over <= 0 or #list >= EXPIRE_MOST then break end
      if entry and not entry.upstream and entry.bytes > 0 then list[#list + 1], over = key, over - entry.bytes end
    end
    if #list == 0 then return end
    local facts, err, code = self:propose { kind = "drop", runs = list }
    if not facts then errors.report("lead.forget", { job = list[1] }, err, code) end
  end
end
