--- hearing: a leader's handlers for its executors: progress, results, their arrival, and their loss.
local attempts = require "shoal.job.attempts"
local backoff = require "shoal.base.backoff"
local errors = require "shoal.base.errors"
local stats = require "shoal.job.stats"
local tally = require "shoal.job.tally"
local task = require "shoal.base.task"

---@param lead table  the class of leaders, which gets these methods
return function (lead)
  --- The run that a message of an executor is about.
  ---@return string? key, table? entry
  function lead:find_run(body)
    for _, key in ipairs(self.options.keys(body)) do
      local entry = self.ledger.runs[key]
      if entry and entry.parts[body.part] then return key, entry end
    end
    for _, key in ipairs(self.options.keys(body)) do
      local entry = self.ledger:run(key)
      if entry then return key, entry end
    end
  end

  --- Progress of attempts; the newest of each wins. Returns the ack, which lists the attempts that this node does not know and those
  --- that no longer count.
  function lead:progress(body)
    if self.fence == 0 then return self:not_leading() end
    local unknown, stop, now = {}, {}, task.now_ms()
    self.progress_seen = self.progress_seen + #body.parts
    for i, item in ipairs(body.parts) do
      local key, entry = self:find_run(item)
      if not key then
        unknown[#unknown + 1] = i
      elseif not entry.parts or not self.attempts:hear(key, item) then
        stop[#stop + 1] = i
      else
        local run, a = self.runs[key], self.attempts:get(key, item.part)
        run:stats_changed(item.part)
        if a.waiting ~= item.waiting then run:waits_below(a, item.waiting) end
      end
    end
    self.heard_ms = now
    return attempts.ack(self, self.progress_level, unknown, stop)
  end

  --- A part's result. The answer is sent only once the result is durable. A result that no longer counts is answered too, so that the
  --- executor drops it.
  function lead:result(body)
    if self.fence == 0 then return self:not_leading() end
    local key, entry = self:find_run(body)
    if not key then return { accepted = false, stale = true } end
    local part = entry.parts and entry.parts[body.part]
    if not part or part.fence ~= body.fence or part.state ~= "dispatched" then return { accepted = true, stale = true } end
    local readable, problem, word = stats.readable(body.result)
    if not readable then
      errors.report("lead.result", { job = body.job, workflow = body.workflow, part = body.part, payload_bytes = #body.result }, problem, word)
      return nil, problem, word
    end
    local run = self.runs[key]
    local command
    local free <close> = setmetatable({}, { __close = function () tally.judged(body.result, nil) end })
    tally.judged(body.result, readable)
    if body.state == "lost" or body.state == "cancelled" and entry.state == "running" then
      -- Its child was killed, or (we did not request a cancel) its executor is shutting down: the attempt is lost, not failed.
      local a = self.attempts:get(key, body.part)
      if not run or not a then return nil, "the job is being taken up again here", "OVERLOADED" end
      command = { kind = "lost", parts = { self.attempts:loss(a, body) } }
    else
      command = {
        kind = "ended", run = key, part = body.part, fence = body.fence, state = body.state, reason = body.reason, result = body.result,
        progress = body.stats, retry = body.state == "failed" and self:again(run, part, "failed", body.stats),
        offset_ms = self.attempts:offset_ms(key, entry, body),
      }
      if run then -- If no result can be computed here, the driver retries.
        local ok, finish = errors.call("lead.run", { job = run.job }, run.finish_with, run, entry, command)
        command.finish = ok and finish or nil
      end
    end
    local facts, err, code = self:propose(command)
    if not facts then return nil, err, code end
    return { accepted = true, stale = facts.stale or false }
  end

  --- An executor appeared: send it `lead`, adopt the attempts that count, cancel those that do not; then it is up.
  ---@param about? table  its labels, or a datacenter's workers: see executors:hear
  function lead:hear(name, address, cores, generation, about)
    local e, ask = self.executors:hear(name, address, cores, generation, about)
    if self.suspects then self.suspects:executor(name, "alive", e.epoch) end
    if ask then self:ask(e) end
    return e
  end

  --- An executor renews the leases of its parts.
  function lead:renew(body)
    if self.fence == 0 then return self:not_leading() end
    return self.leases:renew(body)
  end

  --- A lease expired (the site lease.expired): begin orphan handling. Nothing to do for one whose attempt has ended since.
  ---@param event { key: string, holder: string, fence: integer }
  function lead:lease_expired(event)
    if self.leases then self.leases:orphaned(event) end
  end

  --- Send `lead` to an executor; its answer lists the parts that it runs, and makes it up. Retry until it answers or is down.
  local function ask(self, e)
    local wait = backoff.new(self.node.world, { base_ms = 100, cap_ms = 5000 })
    while self.fence > 0 and e.state == "known" do
      local epoch = e.epoch
      local reply, err, code = self.node.rpc:peer(e.address):call("lead", {
        tier = self.options.tier, fence = self.fence, node = self.node.name, address = self.node.address, group = self.tier:group(),
      }, { timeout_ms = 3000 })
      if e.state ~= "known" then return end
      if reply and e.epoch == epoch then
        e.cores = reply.cores
        self.attempts:reconcile(e, reply.parts)
        self.executors:up(e)
        self.placing:wake()
        return
      end
      if not reply then errors.report("lead.ask", { executor = e.name, address = e.address }, err, code) end
      if e.epoch == epoch then task.sleep(wait:next()) end -- The answer came from a past epoch: ask the new one now.
    end
  end

  function lead:ask(e)
    if e.asking or self.fence == 0 or e.state ~= "known" then return end
    e.asking = true
    self.term:keep("lead.ask", { executor = e.name, address = e.address }, function ()
      local free <close> = setmetatable({}, { __close = function () e.asking = false end })
      ask(self, e)
    end)
  end

  --- An executor is dead, left or silent: the reconcile step proposes the loss of its attempts until each loss is applied.
  function lead:gone(name, reason)
    local e = self.executors:down(name, reason)
    if not e then return end
    if self.suspects then self.suspects:executor(name, "dead", e.epoch) end
    if self.attempts then self.attempts:gone() else self.executors:remove(name) end
  end

  --- An executor gives no sign of one job while it lives: its parts of that job start elsewhere.
  function lead:job_gone(name, job)
    if self.suspects then self.suspects:give_up(name, job) end
  end

  --- Another leader of this tier gets no answer from an executor: see suspects.lua.
  function lead:look_for(body)
    if not self.suspects then return self:not_leading() end
    return self.suspects:look_for(body)
  end

  --- The backpressure level of acks: this second's progress against the leader's limit. It falls when the progress does.
  function lead:measure()
    local fill = self.progress_seen / self.node.config.progress_per_s
    self.progress_seen = 0
    self.progress_level = fill >= 0.95 and "reject" or fill >= 0.85 and "batch" or fill >= 0.70 and "throttle" or "none"
  end
end
