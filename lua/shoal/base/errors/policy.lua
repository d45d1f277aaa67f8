--- The errors policy: read, checked, and asked. Its file is scripts/policies/errors.lua, which says what it may hold.
--- Nothing here runs an operator's code by itself: `run` is the sandbox that shoal.errors gives.

local sorted = require "shoal.base.sorted"
local incident = require "shoal.base.errors.incident"
local log = require "shoal.base.log"
local document = require "shoal.base.document"
local sandbox = require "shoal.base.errors.sandbox"
local text_of = require "shoal.base.text"

local policy = {}

local defaults = { burst = 5, per_ms = 10000, traces = 3 }
local POLICY = { noun = "the errors policy", forms = "Lua" }
local known = { "burst", "fields", "level", "per_ms", "traces" }

--- What rules when there is no file, or the file's policy failed.
policy.builtin = { default = defaults, sites = {}, merged = {} }

--- The line of the file on which `word` stands, at or after the line of `after`: for people, so a guess is good enough.
local function line_of(text, after, word)
  local from = after and (text:find(after, 1, true)) or 1
  local at = text:find(word, from, true) or from
  local _, lines = text:sub(1, at - 1):gsub("\n", "")
  return lines + 1
end

local function check_entry(text, path, name, entry, problems)
  local function problem(word, words)
    local place = path .. ":" .. line_of(text, name, word)
    problems[#problems + 1] = place .. ": " .. (name and name .. ": " or "") .. words
  end
  if type(entry) ~= "table" then return problem(name, "must be a table, not " .. type(entry)) end
  for key, value in sorted(entry) do
    if key == "level" then
      if not log.levels[value] then
        problem("level", 'level "' .. tostring(value) .. '" is none of debug, info, warning, error, critical'
          .. (value == "silent" and " (no level is silent: failures are always counted and told)" or ""))
      end
    elseif key == "fields" then
      if type(value) ~= "table" then
        problem(key, "fields must be a list of names, not " .. type(value))
      else
        for _, field in ipairs(value) do
          local is_field = false
          for _, one in ipairs(incident.fields) do is_field = is_field or one == field end
          if not is_field then
            problem(tostring(field), "an incident has no field " .. tostring(field) .. "; it has "
              .. table.concat(incident.fields, ", "))
          end
        end
      end
    elseif key == "burst" or key == "traces" or key == "per_ms" then
      local least = key == "per_ms" and 1 or key == "burst" and 1 or 0
      if math.type(value) ~= "integer" and key ~= "per_ms" then
        problem(key, key .. " must be a whole number, not " .. tostring(value))
      elseif type(value) ~= "number" or not (value >= least and value <= 1e9) then
        problem(key, key .. " must be from " .. least .. " to 1000000000, not " .. tostring(value))
      end
    else
      local near = incident.nearest(tostring(key), known)
      problem(tostring(key), "unknown field " .. tostring(key) .. (near and ", did you mean " .. near .. "?" or ""))
    end
  end
end

local function check(text, path, value, catalogue)
  local problems = {}
  if type(value) ~= "table" then return { path .. ":1: the policy must return a table, not " .. type(value) } end
  for key, part in sorted(value) do
    if key == "default" then
      check_entry(text, path, "default", part, problems)
    elseif key == "sites" then
      if type(part) ~= "table" then
        problems[#problems + 1] = path .. ":" .. line_of(text, nil, "sites") .. ": sites must be a table"
      else
        for name, entry in sorted(part) do
          local may, near = catalogue:may_name(name)
          if not may then
            problems[#problems + 1] = path .. ":" .. line_of(text, nil, tostring(name)) .. ": no site is named "
              .. tostring(name) .. (near and ", did you mean " .. near .. "?" or "")
          else
            check_entry(text, path, name, entry, problems)
          end
        end
      end
    elseif key == "decide" then
      if type(part) ~= "function" then
        problems[#problems + 1] = path .. ":" .. line_of(text, nil, "decide") .. ": decide must be a function"
      end
    else
      local near = incident.nearest(tostring(key), { "decide", "default", "sites" })
      problems[#problems + 1] = path .. ":" .. line_of(text, nil, tostring(key)) .. ": unknown field " .. tostring(key)
        .. (near and ", did you mean " .. near .. "?" or "")
    end
  end
  return problems
end

--- Read a policy from its text.
---@param text string
---@param path string
---@param run fun(fn: function): boolean, any  calls fn protected and bounded
---@param catalogue table  the sites that there are
---@return table? policy
---@return string? err  every problem, one a line, each with file:line
function policy.parse(text, path, run, catalogue)
  local opened, unfit = document.open(text, path, POLICY)
  if not opened then return nil, unfit end
  local chunk, err = load(opened, "@" .. path, "t", sandbox.environment())
  if not chunk then
    local other = document.other(opened, POLICY)
    return nil, other and ("%s: %s"):format(path, other) or err
  end
  local ran, value = run(chunk)
  if not ran then return nil, type(value) == "string" and value or path .. ": it raised a " .. type(value) end
  local problems = check(opened, path, value, catalogue)
  local twice = text_of.twice_lines(opened, path)
  table.move(twice, 1, #twice, #problems + 1, problems)
  if #problems > 0 then return nil, table.concat(problems, "\n") end
  return { default = value.default or {}, sites = value.sites or {}, decide = value.decide, path = path, merged = {} }
end

--- What the policy's data says of a site; a family's entry ("client.callback.*") holds for its members.
---@return { level: string?, burst: integer, per_ms: number, traces: integer, fields: string[]? }
function policy.of(p, name, family)
  local merged = p.merged[name]
  if merged then return merged end
  merged = {}
  for _, key in ipairs(known) do
    local own, kin = p.sites[name], family and p.sites[family]
    merged[key] = own and own[key] or kin and kin[key] or p.default[key] or defaults[key]
  end
  p.merged[name] = merged
  return merged
end

--- What `decide` answered, checked: level ("": the site's own), burst, per_ms; or nil and what is wrong with it.
function policy.verdict(value, merged)
  if value == nil then return merged.level or "", merged.burst, merged.per_ms end
  if type(value) == "string" then value = { level = value } end
  if type(value) ~= "table" then return nil, "decide must return a level, a table or nothing, not " .. type(value) end
  local level, burst, per_ms = value.level or merged.level, value.burst or merged.burst, value.per_ms or merged.per_ms
  if level ~= nil and not log.levels[level] then
    return nil, 'decide returned level "' .. tostring(level) .. '", none of debug, info, warning, error, critical'
  end
  if math.type(burst) ~= "integer" or burst < 1 then
    return nil, "decide returned burst " .. tostring(burst) .. ", want 1 or more"
  end
  if type(per_ms) ~= "number" or not (per_ms >= 1 and per_ms <= 1e9) then
    return nil, "decide returned per_ms " .. tostring(per_ms) .. ", want 1 or more"
  end
  return level or "", burst, per_ms
end

return policy
