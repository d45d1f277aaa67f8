--- Making the record of one failure: where it was, what it says, which ids it carries. Pure; decides nothing.

local line = require "shoal.base.log.line"

local incident = {}

--- Marks incidents, so that one that is raised again is not told twice.
incident.meta = { __name = "shoal.incident" }
--- Marks what the message handler caught: the error with what only the living stack knew.
incident.caught = { __name = "shoal.caught" }

local COPY_MAX = 64 -- Entries of a table among the ids that are kept.

--- Whether a function's source is the door's own.
function incident.is_door(source) return source:find("shoal/base/errors", 1, true) ~= nil or source:find("shoal/base/task", 1, true) ~= nil end

--- The first Lua function on the stack from `level` up: "file:line"; "?" when there is none.
---@param co thread?  nil: this one
---@param level integer
function incident.position(co, level)
  for at = level, level + 30 do
    local info
    if co then info = debug.getinfo(co, at, "Sl") else info = debug.getinfo(at + 1, "Sl") end
    if not info then return "?" end
    if info.currentline > 0 and not info.source:find("shoal/base/errors", 1, true) then -- The door itself is never the place.
      return info.short_src .. ":" .. info.currentline
    end
  end
  return "?"
end

--- Split "file.lua:12: words" into its place and its words; nil when there is no place before the words.
function incident.split(text)
  local where, words = text:match "^([^\n:]*%.lua:%d+): (.*)$"
  if not where then where, words = text:match '^(%[string "[^\n]-"%]:%d+): (.*)$' end
  return where, words
end

--- The words of an error value of any kind, without addresses. `quietly` calls a value's own __tostring protected.
---@param err any
---@param quietly fun(fn: function, ...): boolean, any
---@return string message
---@return string? where  when the words named a place
function incident.describe(err, quietly)
  local of = type(err)
  if of == "string" then
    local where, words = incident.split(err)
    return words or err, where
  end
  if of == "nil" then return "nil: an error without a value" end
  if of == "table" or of == "userdata" then
    local meta = debug.getmetatable(err)
    if type(meta) == "table" and rawget(meta, "__tostring") ~= nil then
      local ok, words = quietly(tostring, err)
      if ok and type(words) == "string" then
        local where, rest = incident.split(words)
        return rest or words, where
      end
    end
    if of == "table" then
      local words = rawget(err, "message")
      if type(words) == "string" then return words end
      return line.encode(err)
    end
    return line.kind(err)
  end
  if of == "number" or of == "boolean" then return tostring(err) end
  return line.kind(err)
end

local function copied(value)
  if type(value) ~= "table" then return value end
  local out, n = {}, 0
  for key, inner in next, value do -- order-free: a copy
    n = n + 1
    if n > COPY_MAX then break end
    if type(inner) == "table" then inner = line.encode(inner) end
    out[key] = inner
  end
  return out
end

--- The ids as they were now. A declared one that is missing is "?", and named in the second result.
---@param site table
---@param ids table?
---@param extra table?  what the caller of the failing function adds: a hook's name, an attempt
---@return table ids
---@return string[]? missing
function incident.ids(site, ids, extra)
  local out = setmetatable({}, site.ids_meta)
  if ids then
    for key, value in next, ids do out[key] = copied(value) end -- order-free: a copy
  end
  if extra then
    for key, value in next, extra do out[key] = copied(value) end -- order-free: a copy
  end
  local missing
  for _, id in ipairs(site.ids) do
    if out[id] == nil then
      out[id] = "?"
      missing = missing or {}
      missing[#missing + 1] = id
    end
  end
  return out, missing
end

--- The order in which an incident is written.
incident.fields = { "id", "site", "message", "code", "where", "count", "ids", "missing", "error", "escalated", "hint",
  "traceback" }

--- What the log writes of one; `fields` (of the policy) are those wanted besides the id and the site.
---@param record table
---@param fields? string[]
function incident.logged(record, fields)
  local err = record.error
  local all = {
    id = record.id, site = record.site, message = record.message, code = record.code, where = record.where,
    count = record.count, ids = next(record.ids) ~= nil and record.ids or nil, missing = record.missing,
    error = type(err) ~= "string" and record.raised and line.kind(err) or nil,
    escalated = record.escalated, hint = record.hint, traceback = record.traceback,
  }
  if not fields then return all end
  local some = { id = all.id, site = all.site, escalated = all.escalated }
  for _, name in ipairs(fields) do some[name] = all[name] end
  return some
end

--- The declared name nearest to a misspelt one, or nil: by edits, at most a third of its length.
---@param name string
---@param names string[]  sorted
---@param edits? integer  this many at most, instead of a third
function incident.nearest(name, names, edits)
  local best, distance = nil, (edits or #name // 3 + 1) + 1
  for _, candidate in ipairs(names) do
    local row = {}
    for j = 0, #candidate do row[j] = j end
    for i = 1, #name do
      local diagonal = row[0]
      row[0] = i
      for j = 1, #candidate do
        local cost = name:byte(i) == candidate:byte(j) and 0 or 1
        local value = math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
        diagonal, row[j] = row[j], value
      end
    end
    if row[#candidate] < distance then best, distance = candidate, row[#candidate] end
  end
  return best
end

--- A traceback names a function by a module that has it, any of them where a module is loaded under two names (`shoal.task`,
--- `shoal.base.task`): which one differs in every process. Always the first name in order, so that equal runs give equal logs.
---@param text string
---@return string
function incident.one_name(text)
  return (text:gsub("'(shoal%.[%w_.]+)%.([%w_]+)'", function (module, name)
    local value, first = package.loaded[module], module
    if type(value) ~= "table" then return nil end
    for other, same in next, package.loaded do -- order-free: the least name
      if rawequal(same, value) and type(other) == "string" and other < first then first = other end
    end
    return ("'%s.%s'"):format(first, name)
  end))
end

--- errors.lua puts the compiled door's in its place, which is quick on a stack that overflowed.
function incident.traceback(co, level)
  if co then return debug.traceback(co, nil, level) end
  return debug.traceback(nil, level + 1)
end

--- The traceback of a coroutine, or of the caller from `level` on.
---@param co thread?
---@param level? integer
---@return string
function incident.trace(co, level)
  if co then return incident.one_name(incident.traceback(co, 0)) end
  return incident.one_name(incident.traceback(nil, level + 1))
end

return incident
