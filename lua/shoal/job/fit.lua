--- fit: which executors can run a part at all: labels, constraints, cores; and the reason when none can. Pure.
---
--- A worker has *labels* (`--label gpu=a100`). A workflow's constraint, `where`, names what a worker must have:
---
---     where = { gpu = "a100", disk = { "ssd", "nvme" }, zone = true, spot = false }
---
--- A text: this value. A list: one of these. `true`: any value. `false`: the worker has no label of that name.
---
--- A datacenter tells its gates its workers by *class*: those that have the same labels, with how many they are and the cores of the
--- largest. Past CLASSES_MAX it tells the rest only as a number (`more`), and a gate assumes that the rest may fit.
local msgpack = require "shoal.core.msgpack"
local sorted = require "shoal.base.sorted"

local fit = {}

fit.CLASSES_MAX = 64
fit.LABELS_MAX, fit.LABELS_BYTES_MAX = 16, 256 -- Of one worker: they travel in its membership payload.
fit.NAME, fit.TEXT_MAX = "^[%w_][%w_.-]*$", 64
fit.BUSY = "every worker that can run it is busy"
local HELD_NAMED = 5
local NOTHING = {}

--- Nil if these are labels of a worker; else the problem.
---@return string? problem
function fit.problem(labels)
  local count, bytes = 0, 0
  for name, value in sorted(labels) do
    if type(name) ~= "string" or #name > fit.TEXT_MAX or not name:find(fit.NAME) then
      return ("labels: %q is no name of a label; expected letters, digits, _ . - and at most %d of them"):format(tostring(name), fit.TEXT_MAX)
    end
    if type(value) ~= "string" or #value > fit.TEXT_MAX or value:find "[%c,=]" then
      return ("labels.%s: found %q; expected text of at most %d bytes, without control characters, commas and ="):format(name,
        tostring(value), fit.TEXT_MAX)
    end
    count, bytes = count + 1, bytes + #name + #value + 2
  end
  if count > fit.LABELS_MAX then return ("labels: %d of them; at most %d"):format(count, fit.LABELS_MAX) end
  if bytes > fit.LABELS_BYTES_MAX then return ("labels: %d bytes together; at most %d"):format(bytes, fit.LABELS_BYTES_MAX) end
end

--- Whether labels meet a constraint.
---@param labels table<string, string>
---@param where? table<string, string|string[]|boolean>
function fit.meets(labels, where)
  for name, wanted in next, where or NOTHING do -- order-free: all must hold
    local value = labels[name]
    if type(wanted) == "table" then
      local found = false
      for _, one in ipairs(wanted) do found = found or one == value end
      if not found then return false end
    elseif type(wanted) == "boolean" then
      if wanted ~= (value ~= nil) then return false end
    elseif value ~= wanted then
      return false
    end
  end
  return true
end

--- A constraint as people write it: "disk=ssd|nvme, gpu=a100, no spot".
function fit.text(where)
  local out = {}
  for name, wanted in sorted(where) do
    if type(wanted) == "table" then
      out[#out + 1] = name .. "=" .. table.concat(wanted, "|")
    elseif type(wanted) == "boolean" then
      out[#out + 1] = (wanted and "any " or "no ") .. name
    else
      out[#out + 1] = name .. "=" .. wanted
    end
  end
  return table.concat(out, ", ")
end

--- The classes of these workers, the most numerous first, and how many workers are in none of them.
---@param workers { cores: integer, labels: table }[]
---@return { labels: table, count: integer, cores: integer }[] classes, integer more
function fit.classes(workers)
  local list, known, more = {}, {}, 0
  for _, w in ipairs(workers) do
    local key = next(w.labels) == nil and "" or msgpack.pack(w.labels)
    local class = known[key]
    if not class then
      class = { labels = w.labels, count = 0, cores = 0 }
      known[key], list[#list + 1] = class, class
    end
    class.count, class.cores = class.count + 1, math.max(class.cores, w.cores)
  end
  if #list > fit.CLASSES_MAX then
    table.sort(list, function (a, b) return a.count > b.count or a.count == b.count and fit.text(a.labels) < fit.text(b.labels) end)
    for i = fit.CLASSES_MAX + 1, #list do more, list[i] = more + list[i].count, nil end
  end
  return list, more
end

--- The cores of an executor's largest worker, among those that meet a constraint; nil if none does.
---@param e { cores: integer, labels?: table, classes?: table[], more?: integer, largest?: integer }
local function largest(e, where)
  if not where then
    local most = e.largest or e.cores
    return most > 0 and most or nil -- 0: it has no worker.
  end
  if not e.classes then
    if e.labels and not fit.meets(e.labels, where) then return nil end
    return e.largest or e.cores
  end
  local most = (e.more or 0) > 0 and e.largest or nil
  for _, class in ipairs(e.classes) do
    if (not most or class.cores > most) and fit.meets(class.labels, where) then most = class.cores end
  end
  return most
end
fit.largest = largest

--- Whether an executor can run a part of so many cores, once it is free.
function fit.able(e, cores, where)
  local most = largest(e, where)
  return most ~= nil and most >= cores
end

local function plural(count, word) return count == 1 and "1 " .. word or ("%d %ss"):format(count, word) end

local function names_of(list)
  local out = table.concat(list, ", ", 1, math.min(#list, HELD_NAMED))
  return #list > HELD_NAMED and out .. (" and %d more"):format(#list - HELD_NAMED) or out
end

--- The reason that no executor can run a part, whatever becomes free; nil if one can.
---@param rows table[]  every executor that the leader knows, with `state`, `hold` or `held` when workers of it are cordoned, and `away`
---  when it cannot be reached
---@param cores integer
---@param where? table
---@param datacenters? string[]  at a gate: only these, and each of them must be able
---@return string?
function fit.why(rows, cores, where, datacenters)
  local named, found = {}, {}
  for _, name in ipairs(datacenters or {}) do named[name] = true end
  local only = next(named) ~= nil
  local able, up, held, away, small, small_of, tier_of_dcs, missing = 0, 0, {}, {}, nil, nil, false, nil
  for _, e in ipairs(rows) do
    if not only or named[e.name] then
      tier_of_dcs = tier_of_dcs or e.classes ~= nil or only
      if e.state == "up" and e.away then
        away[e.name], away[1] = e.away, away[1] or e.away
      elseif e.state == "up" then
        up, found[e.name] = up + 1, true
        local most = largest(e, where)
        if most and most >= cores then
          if e.hold then held[#held + 1] = e.name else able = able + 1 end
        elseif (e.held or 0) > 0 and #(e.classes or {}) == 0 then
          held[#held + 1] = ("%s of %s"):format(plural(e.held, "worker"), e.name)
        else
          missing = missing or e.name
          if most and (not small or most > small) then small, small_of = most, e.name end
        end
      end
    end
  end
  for _, name in ipairs(datacenters or {}) do
    if not found[name] then return away[name] or ("datacenter %s is not up"):format(name) end
  end
  if able > 0 and (not only or not missing and #held == 0) then return nil end
  if up == 0 and away[1] then return away[1] end
  if up == 0 then return tier_of_dcs and "no datacenter is up" or "no worker is up" end
  if #held > 0 then return ("every worker that can run it is cordoned: %s"):format(names_of(held)) end
  local of, with = tier_of_dcs and " of " .. (small_of or missing) or "", where and next(where) and " with " .. fit.text(where) or ""
  if small then return ("needs %s, the largest worker%s%s has %d"):format(plural(cores, "core"), of, with, small) end
  if with == "" then return ("no worker%s is up"):format(tier_of_dcs and " of " .. missing or "") end
  return ("no worker%s has %s"):format(only and " of " .. missing or "", fit.text(where))
end

return fit
