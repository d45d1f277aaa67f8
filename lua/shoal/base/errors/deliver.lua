--- Must-deliver: an event is delivered again until it is accepted, withdrawn or escalated.
---
---   start --ok--> accepted
---     |raises: an incident
---     v
---   waiting 0.5, 1, 2, 4, 8 s --again--> accepted | waiting | escalated (a critical incident)
---     |withdraw, or start with the same key
---     v
---   gone

local deliver = {}

local RETRY_MS = { 500, 1000, 2000, 4000, 8000 }
local NS_PER_MS = 1000000

--- means: clock() -> now_ns; later(entry, due_ns); cancel(entry); run(site, ids, extra, fn) -> ok
function deliver.new(means) return { means = means, by_site = {}, count = 0 } end

local function forget(all, entry)
  local of_site = all.by_site[entry.site]
  local of_key = of_site and of_site[entry.key]
  if not of_key or of_key[entry.part] ~= entry then return false end
  of_key[entry.part] = nil
  all.count = all.count - 1
  if next(of_key) == nil then of_site[entry.key] = nil end
  if next(of_site) == nil then all.by_site[entry.site] = nil end
  return true
end

local function remember(all, entry)
  local of_site = all.by_site[entry.site] or {}
  all.by_site[entry.site] = of_site
  local of_key = of_site[entry.key] or {}
  of_site[entry.key] = of_key
  of_key[entry.part] = entry
  all.count = all.count + 1
end

local function attempt(all, entry)
  entry.attempt = entry.attempt + 1
  local wait_ms = RETRY_MS[entry.attempt]
  local extra = { attempt = entry.attempt, delivery = entry.key, next_retry_ms = wait_ms, escalated = not wait_ms or nil }
  for key, value in next, entry.extra or {} do extra[key] = value end -- order-free: a copy
  entry.running = true
  local ok = all.means.run(entry.site, entry.ids, extra, entry.fn)
  entry.running = false
  if ok or not wait_ms then
    forget(all, entry)
  elseif not entry.gone then
    all.means.later(entry, all.means.clock() + wait_ms * NS_PER_MS)
  end
  return ok == true
end

local function drop(all, entry)
  entry.gone = true
  if forget(all, entry) and not entry.running then all.means.cancel(entry) end
end

--- `part` tells apart what shares a key: the hooks of one event.
function deliver.start(all, record, ids, key, part, fn, extra)
  part = part or 0
  local of_site = all.by_site[record.name]
  local old = of_site and of_site[key] and of_site[key][part]
  if old then drop(all, old) end
  local entry = { record = record, site = record.name, ids = ids, key = key, part = part, fn = fn, extra = extra,
    attempt = 0 }
  remember(all, entry)
  return attempt(all, entry)
end

--- It is due. An entry that is gone never is: `drop` takes it off the agenda, and `attempt` puts it on no more.
function deliver.again(all, entry) attempt(all, entry) end

--- The node ends before it was accepted.
function deliver.give_up(all, entry)
  entry.gone = true
  forget(all, entry)
end

---@return integer how many were withdrawn
function deliver.withdraw(all, site, key)
  local of_site = all.by_site[site]
  local of_key = of_site and of_site[key]
  if not of_key then return 0 end
  local entries = {}
  for _, entry in next, of_key do entries[#entries + 1] = entry end -- order-free: all of them go
  for _, entry in ipairs(entries) do drop(all, entry) end
  return #entries
end

return deliver
