--- mending: what follows when an effect of an applied command failed (lead.fact). The ledger has the command, the volatile state has not:
--- a run without its driver, a part that nobody places or sends, a run that ended and is still driven. Such a run is in doubt; once a
--- second each is compared with the ledger and put right, until that succeeds. Nothing is walked while nothing failed.
local errors = require "shoal.base.errors"
local sorted = require "shoal.base.sorted"

local MEND_MS = 1000

--- A run that is over in the ledger: end its volatile state, and hand its result over.
local function mend_ended(lead, key)
  local ended = lead.ledger:ended_run(key)
  if ended then return lead:close_run(ended) end
  local run = lead.runs[key]
  lead.placing:forget(key)
  lead.attempts:forget(key)
  lead:drop_feed(key)
  if run then
    run.over, lead.runs[key] = true, nil
    run.feed:drop()
    run:wake()
  end
end

local function mend_part(lead, run, entry, part)
  local a = lead.attempts:get(run.key, part.part)
  local unsent = a and a.state == "unheard" -- Perhaps it never went out.
  if a and (part.state ~= "dispatched" or a.fence ~= part.fence or unsent) then
    lead.attempts:over(run.key, part.part, a.fence)
    a = nil
  end
  if part.state == "dispatched" and not a then
    lead.attempts:begin(run, entry, part) -- Its executor may have it: the same fence gets the same answer.
  elseif part.state == "pending" and not run.held[part.part] and not lead.placing:has(run.key, part.part) then
    lead.placing:again(run.key, part)
  end
end

--- A live run: its driver, its parts, its workflows.
local function mend_live(lead, entry)
  local run = lead.runs[entry.run]
  if not run then
    lead:start(entry, true)
    run = lead.runs[entry.run]
  end
  if entry.state == "cancelling" then
    lead.placing:forget(entry.run)
    for _, part in sorted(entry.parts) do -- One whose dispatch had no effect is cancelled at its executor, too: it may have it.
      if part.state == "dispatched" and not lead.attempts:get(entry.run, part.part) then lead.attempts:find(run, entry, part) end
    end
    for _, a in sorted(lead.attempts:of_run(entry.run)) do lead.attempts:cancel(a, entry.reason) end
  else
    for _, names in sorted(entry.split) do
      for _, name in ipairs(names) do mend_part(lead, run, entry, entry.parts[name]) end
    end
    for name in sorted(run.wanted) do -- Asked for, and forgotten: ask again.
      if not entry.split[name] then lead.placing:want(entry.run, name) end
    end
  end
  run:wake()
end

---@param lead table  the class of leaders, which gets these methods
return function (lead)
  --- An effect on this run failed, or code that stood for it.
  ---@param key string?  nil: an effect on no run
  function lead:doubt(key)
    if key then self.doubtful[key] = true end
    self.doubts = true
  end

  --- Put right what is in doubt. A run that cannot be, stays so.
  function lead:mend()
    if not self.doubts then return end
    self.doubts = false
    self.placing:wake()
    self.attempts:gone()
    for _, key in ipairs(sorted.keys(self.doubtful)) do
      local entry = self.ledger.runs[key]
      local ok = errors.call("lead.mend", { job = entry and entry.job or key }, function ()
        if entry then mend_live(self, entry) else mend_ended(self, key) end
      end)
      if ok then self.doubtful[key] = nil else self.doubts = true end
    end
  end

  --- A task of a leadership: looks once a second.
  function lead:keep_mending()
    self.doubtful, self.doubts = {}, false
    self.term:loop("lead.mend", { job = "any" }, { interval_ms = MEND_MS, first_ms = MEND_MS }, function () self:mend() end)
  end
end
