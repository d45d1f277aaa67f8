--- questions: what suspects.lua asks executors about jobs that they give no sign of, by itself and through other leaders of its tier, and
--- what it takes from the answers. Like SWIM's probes: a direct one, and once that failed, indirect ones.
---
---   part.look       to the executor: how are your parts of these jobs? The answer names the jobs that it speaks for
---   part.look_for   to another manager of the datacenter, or another gate: ask it for us. Its answer counts as the executor's own; that it
---                   got none confirms a suspicion
---
--- A part that is not in an answer for its job is not there, and lost at once. One question to an executor is under way at a time.
local errors = require "shoal.base.errors"
local task = require "shoal.base.task"

local JOBS_MAX = 1000 -- Jobs in one question.
local OTHERS = 2      -- Other leaders that are asked in one round.
local WATCHED = { running = true, unheard = true }

---@param suspects table  the class, which gets these methods
return function (suspects)
  --- The attempts of these jobs on an executor that a question is about: an answer says nothing of later ones.
  local function asked_about(self, executor, jobs)
    local wanted, out = {}, {}
    for _, job in ipairs(jobs) do wanted[job], out[job] = true, {} end
    for _, at_part in ipairs(self.lead.ledger:on(executor)) do
      local a = self.lead.attempts:get(at_part.run, at_part.part)
      if a and a.executor == executor and wanted[a.job] and WATCHED[a.state] then table.insert(out[a.job], a) end
    end
    return out
  end

  --- One part as its executor has it. True: it moved, waits for its turn, or has its result under way.
  local function compare(self, a, report, now)
    if a.state == "unheard" then self.lead.attempts:found(a) end
    local moved = report.state ~= "running" or report.seq > math.max(a.seq, a.looked or 0)
    a.looked = math.max(a.looked or 0, report.seq)
    if report.state == "waiting" then a.seen_ms = now end -- It has not begun: its limit of silence has not, either.
    return moved
  end

  --- The executor answered for a job, to us or to another leader.
  local function judge(self, executor, job, asked, reported)
    local now, moved, there, waiting = task.now_ms(), false, false, true
    for _, a in ipairs(asked) do
      if self.lead.attempts:get(a.run, a.part) == a and WATCHED[a.state] then
        local report = reported[("%s %s %d"):format(a.job, a.part, a.fence)]
        if not report then
          self.lead.attempts:doom(a, "lost", executor .. " does not have it", false)
        else
          there, moved, waiting = true, compare(self, a, report, now) or moved, waiting and report.state == "waiting"
        end
      end
    end
    local pair = self:pair(executor, job)
    self:answered(executor, job)
    if pair then self:calm(pair, there and waiting) end
    if not pair or not pair.suspected then return end
    if moved or not there then
      self.detector:progress(job, executor)
    else
      local granted_ms, why = self.detector:extend(job, executor, pair.workflow)
      pair.note = granted_ms and ("it answers, and got %.1f s more"):format(granted_ms / 1000) or "it answers, and does not move: " .. why
    end
  end

  --- Take an answer; jobs that it does not name have none.
  ---@return table<string, boolean> named
  local function take(self, executor, jobs, asked, reply)
    local named, reported = {}, {}
    for _, job in ipairs(reply.jobs) do named[job] = true end
    for _, part in ipairs(reply.parts) do reported[("%s %s %d"):format(part.job, part.part, part.fence)] = part end
    for _, job in ipairs(jobs) do
      if named[job] then judge(self, executor, job, asked[job], reported) end
    end
    return named
  end

  --- It answered for these jobs only: one more question without an answer for each of the others.
  local function unanswered(self, executor, jobs, named)
    local failed = false
    for _, job in ipairs(jobs) do
      local pair = not named[job] and self:pair(executor, job)
      if pair then pair.failed, failed = pair.failed + 1, true end
    end
    if failed then self:hint(executor) end
  end

  --- Another leader got no answer for these jobs, either.
  local function confirmed(self, executor, jobs, named, who)
    for _, job in ipairs(jobs) do
      local pair = not named[job] and self:pair(executor, job)
      if pair and pair.suspected then self.detector:confirm(job, executor, who) end
    end
  end

  --- Put one question. `who` names the node that is asked: the executor, or another leader that asks it for us.
  local function put_question(self, who, address, executor, jobs, message, body)
    local id = who .. " " .. executor
    if self.asking[id] then return false end
    self.asking[id] = true
    local ids = { executor = executor, asked = who, jobs = #jobs, job = jobs[1] }
    local over = false
    self.scope:keep("detector.look", ids, function ()
      if over then return end -- It failed: the next look asks again what is still unanswered then.
      local free <close> = setmetatable({}, { __close = function () self.asking[id], over = nil, true end })
      local e = self.lead.executors:get(executor)
      local epoch, asked = e and e.epoch, asked_about(self, executor, jobs)
      local reply, err, code = self.lead.node.rpc:peer(address):call(message, body, { timeout_ms = self.answer_ms, hurry = true })
      e = self.lead.executors:get(executor)
      if not e or e.epoch ~= epoch then return end -- Another life: what was asked about is gone.
      local named = {}
      if reply and reply.answered ~= false then named = take(self, executor, jobs, asked, reply) end
      if not reply and code ~= "NOT_FOUND" then errors.report("detector.look", ids, err, code) end
      if who ~= executor then -- That another leader cannot be asked, or does not know the executor, says nothing of the executor.
        if reply then confirmed(self, executor, jobs, named, who) end
      elseif code == "UNHANDLED" then -- An older build, which answers.
        for _, job in ipairs(jobs) do self:answered(executor, job) end
      else
        unanswered(self, executor, jobs, named)
      end
    end)
    return true
  end

  --- Other living leaders of this tier.
  ---@return { name: string, address: string }[]
  function suspects:others()
    local node, out = self.lead.node, {}
    for _, m in ipairs(node:members()) do
      if m.role == node.role and m.name ~= node.name and m.state == "alive" then out[#out + 1] = { name = m.name, address = m.address } end
    end
    return out
  end

  --- Of how many the detector may expect a confirmation: the living leaders of this tier, ourselves included, and the suspect.
  function suspects:observers() return #self:others() + 2 end

  --- Let others ask an executor about the jobs for which it did not answer us; each round asks the next ones.
  local function ask_others(self, executor, jobs)
    local others = self:others()
    for i = 1, math.min(OTHERS, #others) do
      self.turn = self.turn % #others + 1
      local other = others[self.turn]
      put_question(self, other.name, other.address, executor, jobs, "part.look_for", { executor = executor, jobs = jobs })
      if i == #others then return end
    end
  end

  --- Ask an executor about the jobs that it gave no sign of.
  ---@param due (SuspectPair|SuspectDeath)[]
  function suspects:ask(executor, due, now)
    local e = self.lead.executors:get(executor)
    if not e or e.state == "down" then return end
    for first = 1, #due, JOBS_MAX do
      if self.asking[executor .. " " .. executor] then return end
      local jobs, silent = {}, {}
      for i = first, math.min(#due, first + JOBS_MAX - 1) do
        due[i].ask_ms = now + self.every_ms
        jobs[#jobs + 1] = due[i].job
        if (due[i].failed or 0) > 0 then silent[#silent + 1] = due[i].job end
      end
      put_question(self, executor, e.address, executor, jobs, "part.look", { jobs = jobs })
      if #silent > 0 then ask_others(self, executor, silent) end
    end
  end

  --- Another leader of our tier gets no answer from an executor: ask it, too.
  ---@param body { executor: string, jobs: string[] }
  function suspects:look_for(body)
    local e = self.lead.executors:get(body.executor)
    if not e or e.state == "down" then return nil, ("%s is not known here"):format(body.executor), "NOT_FOUND" end
    -- Half of what the asker waits, so that "no answer" reaches it in time. Else we would seem silent, and confirm nothing.
    local reply, err, code = self.lead.node.rpc:peer(e.address):call("part.look", { jobs = body.jobs }, { timeout_ms = self.answer_ms // 2 })
    if reply then return { answered = true, jobs = reply.jobs, parts = reply.parts } end
    local ids = { executor = body.executor, asked = body.executor, jobs = #body.jobs, job = body.jobs[1] or "none" }
    errors.report("detector.look", ids, err, code)
    return { answered = false, jobs = {}, parts = {} }
  end
end
