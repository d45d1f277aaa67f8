--- taking: a leader accepts jobs (from clients, or as shares from a higher tier), cancels them, and gives them up.
local backoff = require "shoal.base.backoff"
local crc32c = require("shoal.core.crc").crc32c
local driver = require "shoal.job.driver"
local errors = require "shoal.base.errors"
local job = require "shoal.job.spec"
local ledger = require "shoal.job.ledger"
local outcome = require "shoal.job.outcome"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local ORIGIN_MAX = 128 -- Bytes of a submitter's user@host.
local AGAIN_MS = 1000 -- A refusal for lack of room tells the client to retry after this.

--- What tells one job's content from another's.
local function digest_of(spec) return ("%d-%08x"):format(#spec, crc32c(spec)) end

---@param lead table  the class of leaders, which gets these methods
return function (lead)
  --- Nil if there is room for one more run; else the reason that there is none.
  local function no_room(self, bytes)
    local limits = self.limits
    if #self.ledger.ended >= limits.ended then
      return ("%s keeps the answers of %d jobs that ended in the last minutes, as many as it can; try again in %d ms"):format(self.node.name,
        #self.ledger.ended, AGAIN_MS)
    end
    if self.ledger.live >= limits.runs or self.ledger.live_bytes + bytes > limits.run_bytes then
      return ("%s leads %d jobs of %d bytes already, at most %d of %d are taken; try again in %d ms"):format(self.node.name, self.ledger.live,
        self.ledger.live_bytes, limits.runs, limits.run_bytes, AGAIN_MS)
    end
  end

  --- Whether the placement policy accepts a job. One that fails accepts it: the job then waits, and says why, if nothing can run it.
  local function accepts(self, spec)
    return errors.policy("placement", self.options.placement.accepts, {
      ids = { job = spec.name }, fallback = true,
      check = function (answer, why, code)
        local texts = (why == nil or type(why) == "string") and (code == nil or type(code) == "string")
        return (answer == nil or type(answer) == "boolean") and texts,
          "placement.accepts: neither true nor nil, with a reason: " .. tostring(answer)
      end,
    }, errors.view(spec), errors.view(self:all_executors()))
  end

  --- Submit a client's job. Returns { job, duplicate }, or a refusal.
  function lead:submit(body)
    if self.fence == 0 then return self:not_leading() end
    local spec, problems, class = job.decode(body.spec)
    if not spec then return nil, problems, class end
    local digest = digest_of(body.spec)
    local asked = self.ledger:of_key(body.key)
    if asked then return self:answer_known(asked, body.key, not ledger.same_content(asked, digest)) end
    local full = no_room(self, #body.spec)
    if full then return nil, full, "OVERLOADED" end
    local accepted, why, code = accepts(self, spec)
    if not accepted then
      return nil, why or "placement.accepts refused the job and gave no reason", code or self:young() and "NOT_READY" or "CONFIG"
    end
    local facts, err
    facts, err, code = self:create({
      kind = "create", run = "", job = "", key = body.key, name = spec.name, salt = ("%04x"):format(self.node.world:random(65536) - 1),
      spec = body.spec, timeout_ms = spec.timeout_ms, digest = digest,
      origin = body.origin and body.origin ~= "" and body.origin:sub(1, ORIGIN_MAX) or nil,
    }, spec)
    if not facts then return nil, err, code end
    if facts.answer.duplicate then return self:answer_known(self.ledger:run(facts.answer.run), body.key, facts.answer.other) end
    return self:answer_submitted(facts.answer.run, false)
  end

  function lead:answer_submitted(id, duplicate)
    return { job = id, duplicate = duplicate, retention_ms = self.options.retention_ms, retention_bytes = self.options.retention_bytes }
  end

  --- A submission whose key is known: its job, or a refusal when the job is another one.
  function lead:answer_known(known, key, other)
    if not other then return self:answer_submitted(known.job, true) end
    return nil, ("the key %q is of %s, which is another job: its content differs; expected the same job, or a new key"):format(key, known.job),
      "CONFLICT"
  end

  --- Create a run. If no other run waits before it, the same command places its first parts.
  function lead:create(command, spec)
    command.place = self.placing:plan(command, spec)
    self.decoded[command.spec] = spec -- So that its driver need not decode it again.
    local facts, err, code = self:propose(command)
    self.decoded[command.spec] = nil
    return facts, err, code
  end

  --- Take a higher tier's dispatch of one workflow's share, as a run of one workflow. A repeated dispatch gets the same answer.
  function lead:take(body)
    if self.fence == 0 then return self:not_leading() end
    local counts, stale, word = self:of_a_gate(body.leader_name, body.led)
    if not counts then return nil, stale, word end
    local key = body.job .. "|" .. body.part
    local known = self.ledger:run(key)
    if known then
      if body.fence == known.upstream.fence then return { state = "accepted" } end
      if body.fence < known.upstream.fence then
        return nil, ("fence %d is older than %d"):format(body.fence, known.upstream.fence), "STALE"
      end
      if not ledger.FINAL[known.state] then
        local _, err, code = self:cancel(key, "a newer attempt was dispatched")
        return nil, "an earlier attempt of this part is still being ended here" .. (err and ": " .. err or ""), code or "OVERLOADED"
      end
      -- It has ended, and the higher tier has given it up, so its result no longer counts.
      local gone, err, code = self:propose { kind = "forget", runs = { { run = key, index = known.index } } }
      if not gone then return nil, err, code end
    end
    local full = no_room(self, #body.payload)
    if full then return nil, full, "OVERLOADED" end
    local spec, err = job.of_dispatch(body)
    if not spec then return nil, err, "MALFORMED" end
    local facts, problem, code = self:create({
      kind = "create", run = key, job = body.job, key = "", name = spec.name, salt = "", spec = job.encode(spec), timeout_ms = spec.timeout_ms,
      upstream = {
        address = body.leader, name = body.leader_name, part = body.part, workflow = body.workflow, attempt = body.attempt, fence = body.fence,
        lease_ms = body.lease_ms,
      },
    }, spec)
    if not facts then return nil, problem, code end
    return { state = "accepted" }
  end

  ---@param entry table
  ---@param again boolean  the run began under an earlier leadership
  function lead:start(entry, again)
    if self.runs[entry.run] then return end
    local run = driver.start(self, entry, again, self.decoded[entry.spec])
    self.runs[entry.run] = run
    self.leases:lead_run(entry)
    if entry.upstream then self:hold_share(entry, again) end
    for name in sorted(entry.split) do run.wanted[name] = true end
    if not again then return end -- Parts placed in the same command have facts of their own.
    for name, names in sorted(entry.split) do
      for _, part_name in ipairs(names) do
        local part = entry.parts[part_name]
        if part.state == "dispatched" then
          self.attempts:find(run, entry, part)
        elseif part.state == "pending" and part.attempt > 0 then
          self.placing:again(entry.run, part)
        end
      end
      local except = {}
      for _, part_name in ipairs(names) do except[part_name] = entry.parts[part_name].attempt > 0 or nil end
      self.placing:was_cut(entry.run, name, except)
    end
    if entry.state == "cancelling" then
      for _, a in sorted(self.attempts:of_run(entry.run)) do self.attempts:cancel(a, entry.reason) end
    end
  end

  --- Hold the lease of a higher tier's share.
  ---@param found boolean  an earlier leadership took it
  function lead:hold_share(entry, found)
    local up, held = entry.upstream, self.options.held
    if not held then return end
    held:take({
      job = entry.job, workflow = up.workflow, part = up.part, attempt = up.attempt, fence = up.fence, leader = up.address,
      leader_name = up.name,
    }, up.lease_ms, found)
  end

  --- Stop a run before its work is done. Idempotent.
  ---@param state "cancelled"|"timed_out"
  ---@return string? state  the run's state now
  function lead:stop_run(key, reason, state)
    local facts, err, code = self:propose { kind = "cancel", run = key, reason = reason, state = state }
    if not facts then return nil, err, code end
    if facts.answer then return facts.answer.state end
    local entry = self.ledger:run(key)
    return entry and entry.state or "unknown"
  end

  --- Cancel a run for a client or a higher tier. Returns its state now; a job that has ended keeps its result.
  function lead:cancel(key, reason)
    local entry = self.ledger:run(key)
    if not entry then return nil, "no job " .. key .. " here", "NOT_FOUND" end
    if ledger.FINAL[entry.state] then return { state = entry.state } end
    local state, err, code = self:stop_run(key, reason, "cancelled")
    if not state then return nil, err, code end
    return { state = state }
  end

  --- A higher tier cancels one attempt that it dispatched here.
  function lead:end_part(body)
    local key = body.job .. "|" .. body.part
    local entry = self.ledger:run(key)
    if not entry or entry.upstream.fence > body.fence then return { state = "unknown" } end
    local counts, stale, word = self:of_a_gate(entry.upstream.name, body.led)
    if not counts then return nil, stale, word end
    local done, err, code = self:cancel(key, body.reason)
    if not done then return nil, err, code end
    return { state = "cancelling" } -- Its result follows, even if it had just ended.
  end

  --- The higher tier does not know this attempt of ours, or no longer counts it: stop it.
  ---@param record { job: string, part: string, fence: integer }
  function lead:drop(record, reason)
    self.scope:keep("lead.cancel", { job = record.job, part = record.part, executor = self.node.name }, function ()
      local done, err, code = self:end_part { job = record.job, part = record.part, fence = record.fence, reason = reason }
      if not done then errors.report("lead.cancel", { job = record.job, part = record.part, executor = self.node.name }, err, code) end
    end)
  end

  --- Whether a message is of a gate's greatest leadership.
  function lead:of_a_gate(name, fence)
    if not self.options.held then return true end
    return self.options.held.options.led:check(name, fence)
  end

  --- A gate leads: renew the leases of its shares at once.
  ---@param body { node: string, address: string, fence: integer }
  function lead:gate_leads(body)
    self.options.held.options.led:leads(body.node, body.fence)
    self.options.held:heard(body.address)
  end

  --- The lease of a share ended, and no gate came back: end it. Its result waits for whichever gate leads.
  ---@param record { job: string, part: string, fence: integer }
  ---@return boolean found  false: it does not run
  function lead:stop_share(record, reason)
    local entry = self.ledger.runs[record.job .. "|" .. record.part]
    if not entry or entry.state ~= "running" or entry.upstream.fence ~= record.fence then return false end
    self:drop(record, reason)
    return true
  end

  --- The higher tier's parts on this node, for that tier's reconcile step.
  function lead:upstream_parts()
    local parts = {}
    local all = self.ledger:list()
    for key in sorted(self.ledger.handing) do all[#all + 1] = self.ledger:ended_run(key) end
    for _, entry in ipairs(all) do
      local up = entry.upstream
      if up then parts[#parts + 1] = { job = entry.job, part = up.part, fence = up.fence, attempt = up.attempt } end
    end
    return parts
  end

  --- A higher tier asks how its parts of these jobs are: one that has ended waits for the acceptance of its result, and one without a
  --- live attempt waits for its turn.
  ---@param body { jobs: string[] }
  function lead:look(body)
    if self.fence == 0 then return self:not_leading() end
    local parts = {}
    for _, job_id in ipairs(body.jobs) do
      for _, key in ipairs(self.ledger:of_job(job_id)) do
        local entry = self.ledger:run(key)
        local up = entry and entry.upstream
        if up and (self.ledger.runs[key] or self.ledger.handing[key]) then
          local state = ledger.FINAL[entry.state] and "reporting" or next(self.attempts:of_run(key)) and "running" or "waiting"
          local record = { job = entry.job, part = up.part }
          parts[#parts + 1] = {
            job = entry.job, part = up.part, fence = up.fence, state = state, seq = self.options.reports:seq_of(record),
          }
        end
      end
    end
    return { jobs = body.jobs, parts = parts }
  end

  --- The leader of this job, as far as this node knows.
  function lead:who(body)
    if self.fence > 0 then
      for _, key in ipairs(self.ledger:of_job(body.job)) do
        if self.ledger.runs[key] then return { node = self.node.name, address = self.node.address } end
      end
    end
    return { node = "", address = "" }
  end

  --- End a run that cannot be driven, as failed.
  function lead:give_up(key, reason)
    self.term:keep("lead.run", { job = key }, function ()
      local wait = backoff.new(self.node.world, { base_ms = 500, cap_ms = 5000 })
      while true do
        local entry, run = self.ledger.runs[key], self.runs[key]
        if not entry then return end
        local state = entry.state == "cancelling" and entry.ends_as or "failed"
        local facts, err, code = self:propose {
          kind = "finish", run = key, state = state, reason = reason, gave_up = true,
          result = outcome.small(entry, state, reason, self.node.name, run and run:elapsed_ms() or 0, reason),
        }
        if facts then return end
        errors.report("lead.run", { job = entry.job }, "the run is given up: " .. err, code)
        task.sleep(wait:next())
      end
    end)
  end
end
