--- job.check: is this table a job, and what is its canonical form? All problems at once, each with its place.
---
--- The client applies these rules to a file, and the leader applies them again to each submission, for it trusts no client. They
--- differ in one thing: a file names scripts by path, and the client reads them; a leader takes their bytes and reads no file.
local document = require "shoal.base.document"
local fit = require "shoal.job.fit"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local check = {}

local WORKFLOWS_MAX, DATACENTERS_MAX, ENV_MAX, ARGUMENTS_MAX = 256, 64, 256, 256
local SCRIPT_BYTES_MAX = 1024 * 1024 -- A job travels in one message of at most 3 MiB.
local JOB_BYTES_MAX = 2 * 1024 * 1024
local VUS_MAX, ITERATIONS_MAX, RATE_MAX = 100000, 1000000000000, 1000000
local DURATION_MS_MAX = 7 * 24 * 3600 * 1000
local CORES_MAX, PARTS_MAX, RETRIES_MAX = 1024, 10000, 100
local BACKOFF_MS_MAX, FACTOR_MAX = 24 * 3600 * 1000, 100
local TEXT_MAX = 64 * 1024

check.TIMEOUT_MS = 3600000 -- The default, one hour: long for a load test, and still an end.
check.RETRY = { backoff_ms = 1000, factor = 2.0, max_ms = 60000 } -- Between executions of a part that fails.
check.RETRIES = 2 -- A part survives two deaths of its worker. A workflow that must not run twice sets retries = 0.

local JOB_FIELDS = { "datacenters", "env", "labels", "name", "timeout_ms", "where", "workflows" }
local SCRIPT_FIELDS = {
  "after", "cores", "duration_ms", "env", "graceful_ms", "iterations", "limits", "max_failed_checks_share", "max_failed_share",
  "max_p95_ms", "max_p99_ms", "parts", "rate", "retries", "retry", "script", "timeout_ms", "vus", "where",
}
local COMMAND_FIELDS = { "after", "command", "cores", "env", "limits", "parts", "retries", "retry", "timeout_ms", "where" }
local RETRY_FIELDS = { "backoff_ms", "factor", "failed", "max_ms" }
local EITHER_FIELDS = { "command", table.unpack(SCRIPT_FIELDS) } -- For a workflow of which it is not yet known which kind it is.
local SHARE_FIELDS = { executions = true, phase = true, stride = true } -- Only inside a dispatch.
local SCRIPT = { noun = "a workflow script", forms = "Lua" }
local NONE, OTHER_KIND = {}, { script = true, command = true }

--- The same names as a set, by the list.
local sets = {}
for _, list in ipairs { JOB_FIELDS, SCRIPT_FIELDS, COMMAND_FIELDS, EITHER_FIELDS, RETRY_FIELDS } do
  sets[list] = {}
  for _, name in ipairs(list) do sets[list][name] = true end
end

--- A value as an error message shows it, shortened.
local function show(value)
  if type(value) == "string" then
    if #value > 40 then value = value:sub(1, 37) .. "..." end
    return ("%q"):format(value):gsub("\\\n", "\\n")
  end
  if type(value) == "table" then return "a table" end
  if type(value) == "function" or type(value) == "userdata" or type(value) == "thread" then return "a " .. type(value) end
  return tostring(value)
end

local function hint(name, names)
  local near = schema.did_you_mean(name, names)
  return near and ("; did you mean %q?"):format(near) or ""
end

-- A checker gathers problems; `at` is the dotted path that names the place. ----------------------------------------------

local Checker = {}
Checker.__index = Checker

function Checker:problem(at, text)
  local line, place = nil, at
  while not line and place do -- Go outward to the nearest enclosing place that has a line.
    line = self.lines[place]
    place = place:match("^(.*)%.[^.]*$")
  end
  local where = self.name and self.name .. (line and ":" .. line or "") .. ": " or ""
  self.problems[#self.problems + 1] = { line = line or 0, order = #self.problems, text = where .. (at ~= "" and at .. ": " or "") .. text }
end

--- The entries of a table in order; a key that cannot be written in a file's or message's terms is a problem.
function Checker:entries(at, t)
  local only, value = next(t)
  if only == nil then return next, NONE end
  if type(only) == "string" and next(t, only) == nil then -- One: nothing to sort.
    return function (_, last)
      if last == nil then return only, value end
    end
  end
  local plain, strange = {}, nil
  for k, v in next, t do -- order-free: sorted below
    if type(k) == "string" or type(k) == "number" then plain[k] = v else strange = type(k) end
  end
  if strange then self:problem(at, ("a key is a %s; expected names"):format(strange)) end
  return sorted(plain)
end

function Checker:integer(at, value, min, max, default)
  if value == nil then return default end
  local whole = type(value) == "number" and math.tointeger(value)
  if not whole then
    self:problem(at, ("%s is not a whole number; expected %d to %d"):format(show(value), min, max))
  elseif whole < min or whole > max then
    self:problem(at, ("%d is %s %d"):format(whole, whole < min and "below" or "above", whole < min and min or max))
  else
    return whole
  end
  return default
end

function Checker:name_of(at, value, what)
  if type(value) ~= "string" then
    self:problem(at, ("%s; expected %s"):format(value == nil and "missing" or "found " .. show(value), what))
  elseif #value > 64 or not value:find("^[%w_][%w_.-]*$") then
    self:problem(at, ("found %s; %s has letters, digits, _ . - and at most 64 of them"):format(show(value), what))
  else
    return value
  end
end

--- The elements of a list, or nil and a problem.
function Checker:list(at, value, max, what)
  if type(value) ~= "table" then
    self:problem(at, ("found %s; expected a list of %s"):format(show(value), what))
    return nil
  end
  local count = 0
  for key in next, value do -- order-free: a count, and the same message for any bad key
    count = count + 1
    if math.type(key) ~= "integer" or key < 1 then
      self:problem(at, ("has the key %s; expected a plain list of %s"):format(show(key), what))
      return nil
    end
  end
  if count ~= #value then
    self:problem(at, ("has a hole; expected a plain list of %s"):format(what))
    return nil
  end
  if count > max then
    self:problem(at, ("%d %s; at most %d"):format(count, what, max))
    return nil
  end
  return value
end

--- Values for the environment; numbers and booleans become text.
function Checker:env(at, value, base)
  local out = {}
  for k, v in next, base or {} do out[k] = v end
  if value == nil then return out end
  if type(value) ~= "table" then
    self:problem(at, ("found %s; expected a table of NAME = \"value\""):format(show(value)))
    return out
  end
  local count = 0
  for k, v in self:entries(at, value) do
    count = count + 1
    local place = at .. "." .. tostring(k)
    if type(k) ~= "string" or not k:find("^[%a_][%w_]*$") then
      self:problem(at, ("%s is not a variable name"):format(show(k)))
    elseif k:find "^SHOAL_" then
      self:problem(place, "names that begin with SHOAL_ are shoal's own (SHOAL_JOB, SHOAL_PART, ...); expected another name")
    elseif type(v) ~= "string" and type(v) ~= "number" and type(v) ~= "boolean" then
      self:problem(place, ("found %s; expected text"):format(show(v)))
    elseif type(v) == "string" and (#v > TEXT_MAX or v:find("\0", 1, true)) then
      self:problem(place, ("%d bytes; at most %d and no zero byte"):format(#v, TEXT_MAX))
    else
      if math.type(v) == "float" and math.tointeger(v) then v = math.tointeger(v) end -- 8080.0 is the same number as 8080.
      out[k] = tostring(v)
    end
  end
  if count > ENV_MAX then self:problem(at, ("%d variables; at most %d"):format(count, ENV_MAX)) end
  return out
end

--- A constraint on workers, over the job's own: { name = text | { texts } | true (any value) | false (no such label) }.
function Checker:where(at, value, base)
  local out = {}
  for name, wanted in next, base or {} do out[name] = wanted end
  if value == nil then return next(out) ~= nil and out or nil end
  if type(value) ~= "table" then
    self:problem(at, ("found %s; expected a table of labels, such as { gpu = \"a100\" }"):format(show(value)))
    return nil
  end
  local count = 0
  for name, wanted in self:entries(at, value) do
    local place, texts = at .. "." .. tostring(name), wanted
    count = count + 1
    if type(wanted) == "number" then wanted = tostring(math.tointeger(wanted) or wanted) end
    if type(wanted) == "string" then texts = { wanted } end
    if type(name) ~= "string" or #name > fit.TEXT_MAX or not name:find(fit.NAME) then
      self:problem(at, ("%s is no name of a label"):format(show(name)))
    elseif type(wanted) == "boolean" then
      out[name] = wanted
    elseif type(texts) ~= "table" or #texts == 0 or #texts > fit.LABELS_MAX then
      self:problem(place, ("found %s; expected text, a list of 1 to %d texts, true or false"):format(show(wanted), fit.LABELS_MAX))
    else
      local list = {}
      for i, text in ipairs(texts) do
        list[i] = type(text) == "number" and tostring(math.tointeger(text) or text) or text
        local problem = type(list[i]) ~= "string" and ("found %s; expected text"):format(show(text)) or fit.problem { [name] = list[i] }
        if problem then self:problem(place, (problem:gsub("^labels[^:]*: ", ""))) end
      end
      out[name] = type(wanted) == "string" and wanted or list
    end
  end
  if count > fit.LABELS_MAX then self:problem(at, ("%d labels; at most %d"):format(count, fit.LABELS_MAX)) end
  return next(out) ~= nil and out or nil
end

--- Whether failures are executed again, and after which backoff: nil (they are not), or the times. A command whose file gives `retries`
--- retries failures too; a script does with `retry`, for most that fail would fail again.
function Checker:retry(at, w, is_command)
  local value = w.retry
  if value == nil then value = self.read ~= nil and is_command and (math.tointeger(w.retries) or 0) > 0 end
  if value == false then return nil end
  local out = {}
  for key, default in next, check.RETRY do out[key] = default end
  if value == true then return out end
  if type(value) ~= "table" then
    local count = type(value) == "number" and '; did you mean "retries"?' or ""
    self:problem(at, ("found %s; expected true, false or a table such as { backoff_ms = 1000, factor = 2, max_ms = 60000 }" .. count):format(
      show(value)))
    return nil
  end
  self:unknown(at, value, RETRY_FIELDS)
  out.backoff_ms = self:integer(at .. ".backoff_ms", value.backoff_ms, 0, BACKOFF_MS_MAX, out.backoff_ms)
  out.max_ms = self:integer(at .. ".max_ms", value.max_ms, 0, BACKOFF_MS_MAX, math.max(out.max_ms, out.backoff_ms))
  if value.factor ~= nil then
    if type(value.factor) ~= "number" or not (value.factor >= 1 and value.factor <= FACTOR_MAX) then
      self:problem(at .. ".factor", ("found %s; expected a number from 1 to %d"):format(show(value.factor), FACTOR_MAX))
    else
      out.factor = value.factor + 0.0
    end
  end
  if out.max_ms < out.backoff_ms then
    self:problem(at .. ".max_ms", ("%d is below backoff_ms = %d"):format(out.max_ms, out.backoff_ms))
  end
  if value.failed ~= nil and type(value.failed) ~= "boolean" then
    self:problem(at .. ".failed", ("found %s; expected true or false: how often stands in `retries`"):format(show(value.failed)))
  end
  return value.failed ~= false and out or nil
end

--- What a job says of itself, for workers and policies.
function Checker:labels(at, value)
  if value == nil then return nil end
  if type(value) ~= "table" then
    self:problem(at, ("found %s; expected a table of texts, such as { team = \"shop\" }"):format(show(value)))
    return nil
  end
  local out = {}
  for name, text in self:entries(at, value) do out[name] = type(text) == "number" and tostring(math.tointeger(text) or text) or text end
  local problem = fit.problem(out)
  if problem then
    local name, text = problem:match "^labels%.?([^:]*): (.*)$"
    self:problem(name ~= "" and at .. "." .. name or at, text)
  end
  return next(out) ~= nil and out or nil
end

local SIZES = { B = 1, KiB = 1 << 10, MiB = 1 << 20, GiB = 1 << 30 }
local LIMITS = { -- Each with its least and its most, and whether it is a size.
  cpu_s = { 1, 7 * 24 * 3600 }, disk = { 1 << 20, 1 << 50, true }, memory = { 1 << 20, 1 << 50, true }, nofile = { 32, 1 << 20 },
}

--- Limits of each process of a part; of `disk`, what a command's working folder may hold. Sizes are text with a unit, or bytes.
function Checker:limits(at, value, is_command)
  if value == nil then return nil end
  if type(value) ~= "table" then
    self:problem(at, ("found %s; expected a table such as { memory = \"512MiB\", cpu_s = 10, nofile = 256 }"):format(show(value)))
    return nil
  end
  local out = {}
  for name, given in self:entries(at, value) do
    local limit, place = LIMITS[name], at .. "." .. tostring(name)
    if not limit then
      self:problem(place, "unknown limit; known are " .. table.concat(sorted.keys(LIMITS), ", "))
    elseif name == "disk" and not is_command then
      self:problem(place, "is for commands; a script writes no files")
    else
      local number, unit = nil, nil
      if limit[3] and type(given) == "string" then number, unit = given:match "^(%d+)(%a+)$" end
      if number and SIZES[unit] and #number <= 12 then given = math.tointeger(number) * SIZES[unit] end
      if limit[3] and type(given) ~= "number" then
        self:problem(place, ("found %s; expected a size such as \"512MiB\", or bytes"):format(show(given)))
      else
        out[name] = self:integer(place, given, limit[1], limit[2])
      end
    end
  end
  return next(out) ~= nil and out or nil
end

function Checker:unknown(at, value, known, extra)
  local set, all = sets[known], true
  extra = extra or NONE
  for key in next, value do -- order-free: one answer for all
    if not (set[key] or extra[key]) then all = false end
  end
  if all then return end
  for key in self:entries(at, value) do
    if not (set[key] or extra[key]) then
      local text = type(key) == "string" and key or show(key)
      self:problem(at == "" and text or at .. "." .. text, "unknown option" .. hint(text, known))
    end
  end
end

function Checker:script(at, value)
  local path, bytes = value
  if self.read then
    if type(value) ~= "string" then
      self:problem(at, ("found %s; expected the path of a Lua file"):format(show(value)))
      return nil
    end
    local err
    bytes, err = self.read(value)
    if not bytes then
      self:problem(at, ("cannot read %s: %s"):format(show(value), err))
      return nil
    end
  else
    if type(value) ~= "table" or type(value.path) ~= "string" or type(value.bytes) ~= "string" then
      self:problem(at, ("found %s; expected { path, bytes }"):format(show(value)))
      return nil
    end
    path, bytes = value.path, value.bytes
  end
  if #bytes > SCRIPT_BYTES_MAX then
    self:problem(at, ("%s has %d bytes; at most %d"):format(path, #bytes, SCRIPT_BYTES_MAX))
    return nil
  end
  local opened, unfit = document.open(bytes, path, SCRIPT)
  if not opened then
    self:problem(at, unfit)
    return nil
  end
  local chunk, err = load(opened, "@" .. path, "t", {}) -- Compiled, never run, here.
  if not chunk then
    local other = document.other(opened, SCRIPT)
    self:problem(at, other and path .. ": " .. other or "syntax: " .. err)
    return nil
  end
  return { path = path, bytes = opened }
end

--- The further check of a script, once for each problem: several workflows may name one script.
function Checker:run_script(at, script, env)
  if not (self.check_script and script and env) then return end
  for problem in (self.check_script(script.path, script.bytes, env) or ""):gmatch "[^\n]+" do
    if not self.told[problem] then
      self.told[problem] = true
      self:problem(at, problem)
    end
  end
end

function Checker:command(at, value)
  if type(value) == "string" then value = { "sh", "-c", value } end
  local list = self:list(at, value, ARGUMENTS_MAX, "arguments")
  if not list then return nil end
  if #list == 0 or list[1] == "" or list[3] == "" and list[1] == "sh" then
    self:problem(at, "is empty; expected a command line or { program, arguments... }")
    return nil
  end
  local out = {}
  for i, argument in ipairs(list) do
    if type(argument) ~= "string" or #argument > TEXT_MAX or argument:find("\0", 1, true) then
      self:problem(at, ("argument %d is %s; expected text of at most %d bytes"):format(i, show(argument), TEXT_MAX))
      return nil
    end
    out[i] = argument
  end
  return out
end

--- Bounds that fail a workflow whose numbers are beyond them.
function Checker:thresholds(at, w, out)
  local function bound(field, what, fits)
    local value = w[field]
    if value == nil then return end
    if type(value) ~= "number" or not fits(value) then
      self:problem(at .. "." .. field, ("found %s; expected %s"):format(show(value), what))
    else
      out[field] = value + 0.0
    end
  end
  local function is_share(v) return v >= 0 and v < 1 end
  local function is_time(v) return v > 0 and v <= DURATION_MS_MAX end
  bound("max_failed_share", "a share of all requests, from 0 to below 1", is_share)
  bound("max_failed_checks_share", "a share of all checks, from 0 to below 1", is_share)
  bound("max_p95_ms", "milliseconds above 0, for 95 % of the requests that work", is_time)
  bound("max_p99_ms", "milliseconds above 0, for 99 % of the requests that work", is_time)
end

--- How much a script workflow does: users, and iterations or a duration, and perhaps a rate.
function Checker:load(at, w, out)
  out.vus = self:integer(at .. ".vus", w.vus, 1, VUS_MAX, 1)
  out.duration_ms = self:integer(at .. ".duration_ms", w.duration_ms, 1, DURATION_MS_MAX)
  out.iterations = self:integer(at .. ".iterations", w.iterations, 1, ITERATIONS_MAX)
  if w.duration_ms ~= nil and w.iterations ~= nil then
    self:problem(at .. ".duration_ms", "is given together with iterations; expected one of them")
  elseif w.duration_ms == nil and w.iterations == nil then
    out.iterations = out.vus -- Default: each user runs once.
  elseif out.iterations and out.iterations < out.vus then
    self:problem(at .. ".iterations", ("%d for %d vus; each user needs at least one"):format(out.iterations, out.vus))
  end
  if w.rate ~= nil then
    if type(w.rate) ~= "number" or not (w.rate > 0 and w.rate <= RATE_MAX) then
      self:problem(at .. ".rate", ("found %s; expected iterations per second, above 0 and at most %d"):format(show(w.rate), RATE_MAX))
    else
      out.rate = w.rate + 0.0
    end
  end
  out.graceful_ms = self:integer(at .. ".graceful_ms", w.graceful_ms, 0, DURATION_MS_MAX)
  if w.graceful_ms ~= nil and w.duration_ms == nil then
    self:problem(at .. ".graceful_ms", "is given without duration_ms, which it prolongs for iterations that are under way")
  end
  self:thresholds(at, w, out)
  if w.parts ~= nil then
    out.parts = self:integer(at .. ".parts", w.parts, 1, PARTS_MAX)
    if out.parts and out.parts > out.vus then
      self:problem(at .. ".parts", ("%d for %d vus; each part needs at least one user"):format(out.parts, out.vus))
    end
  end
end

function Checker:workflow(name, w, shared_env, shared_where)
  local at = "workflows." .. name
  if type(w) ~= "table" then
    self:problem(at, ("found %s; expected a table with script or command"):format(show(w)))
    return nil
  end
  local is_command = w.command ~= nil
  local out = { after = {} }
  if is_command and w.script ~= nil then
    self:problem(at, "has both script and command; expected one of them")
  elseif not is_command and w.script == nil then
    self:problem(at, "has neither script nor command; expected one of them")
  end
  self:unknown(at, w, is_command and w.script == nil and COMMAND_FIELDS or w.script == nil and EITHER_FIELDS or SCRIPT_FIELDS,
    self.share and SHARE_FIELDS or is_command and OTHER_KIND or nil)
  if w.script ~= nil then out.script = self:script(at .. ".script", w.script) end
  if is_command then
    out.command = self:command(at .. ".command", w.command)
    out.parts = self:integer(at .. ".parts", w.parts, 1, PARTS_MAX, 1)
  else
    self:load(at, w, out)
    out.phase = self.share and self:integer(at .. ".phase", w.phase, 0, PARTS_MAX * PARTS_MAX) or nil
    out.stride = self.share and self:integer(at .. ".stride", w.stride, 1, PARTS_MAX * PARTS_MAX) or nil
  end
  out.limits = self:limits(at .. ".limits", w.limits, is_command)
  out.cores = self:integer(at .. ".cores", w.cores, 1, CORES_MAX, 1)
  out.retries = self:integer(at .. ".retries", w.retries, 0, RETRIES_MAX, check.RETRIES)
  out.retry = self:retry(at .. ".retry", w, is_command)
  out.executions = self.share and self:integer(at .. ".executions", w.executions, 0, RETRIES_MAX + 1) or nil
  out.timeout_ms = self:integer(at .. ".timeout_ms", w.timeout_ms, 1, DURATION_MS_MAX)
  if out.timeout_ms and out.duration_ms and out.timeout_ms <= out.duration_ms then
    self:problem(at .. ".timeout_ms", ("%d ends the workflow before its duration_ms = %d"):format(out.timeout_ms, out.duration_ms))
  end
  out.env = self:env(at .. ".env", w.env, shared_env)
  out.where = self:where(at .. ".where", w.where, shared_where)
  self:run_script(at .. ".script", out.script, out.env)
  local after = w.after == nil and {} or self:list(at .. ".after", w.after, WORKFLOWS_MAX, "workflow names") or {}
  local seen = {}
  for _, other in ipairs(after) do
    if type(other) ~= "string" then
      self:problem(at .. ".after", ("found %s; expected names of workflows"):format(show(other)))
    elseif seen[other] then
      self:problem(at .. ".after", ("%q is given twice; expected each name once"):format(other))
    else
      seen[other] = true
      out.after[#out.after + 1] = other
    end
  end
  table.sort(out.after)
  return out
end

--- Check that every name in `after` exists and that the graph has no cycle. Each cycle is reported once.
function Checker:graph(workflows, names)
  for _, name in ipairs(names) do
    for _, other in ipairs(workflows[name].after) do
      if not self.raw[other] then
        self:problem("workflows." .. name .. ".after", ("no workflow is named %q%s"):format(other, hint(other, names)))
      end
    end
  end
  local state, trail = {}, {}
  local function visit(name)
    state[name] = "open"
    trail[#trail + 1] = name
    for _, other in ipairs(workflows[name].after) do
      if state[other] == "open" then
        local round, i = { other }, #trail
        while trail[i] ~= other do
          table.insert(round, 2, trail[i])
          i = i - 1
        end
        round[#round + 1] = other
        self:problem("workflows." .. name .. ".after", "a cycle, each waits for the next: " .. table.concat(round, " -> "))
      elseif workflows[other] and not state[other] then
        visit(other)
      end
    end
    state[name] = "done"
    trail[#trail] = nil
  end
  for _, name in ipairs(names) do
    if not state[name] then visit(name) end
  end
end

function Checker:workflows(value, env, where)
  if type(value) ~= "table" or next(value) == nil then
    self:problem("workflows", ("%s; expected a table of at least one: workflows = { name = { script = ... } }"):format(
      value == nil and "missing" or type(value) == "table" and "empty" or "found " .. show(value)))
    return {}
  end
  self.raw = value
  local out, names = {}, {}
  for name, w in self:entries("workflows", value) do
    local good = self:name_of(type(name) == "string" and "workflows." .. name or "workflows", name, "a workflow's name")
    local checked = good and self:workflow(name, w, env, where)
    if checked then
      out[name] = checked
      names[#names + 1] = name
    end
  end
  if #names > WORKFLOWS_MAX then self:problem("workflows", ("%d of them; at most %d"):format(#names, WORKFLOWS_MAX)) end
  self:graph(out, names)
  return out
end

function Checker:bytes(workflows)
  local total = 0
  for _, w in next, workflows do total = total + (w.script and #w.script.bytes or 0) end -- order-free: a sum
  if total > JOB_BYTES_MAX then
    self:problem("workflows", ("their scripts have %d bytes together; at most %d"):format(total, JOB_BYTES_MAX))
  end
end

--- How long a workflow takes at least, in ms, and what says so.
local function least_ms(w)
  if w.duration_ms then return w.duration_ms, ".duration_ms", ("duration_ms %d"):format(w.duration_ms) end
  if not (w.rate and w.iterations) then return 0 end
  local ms = math.ceil((w.iterations - 1) * 1000 / w.rate)
  return ms, ".rate", ("%d iterations at a rate of %.14g a second, which take %d ms,"):format(w.iterations, w.rate, ms)
end

--- Does the work fit into the time limits? Each workflow by itself, and workflows that wait for each other together.
function Checker:times(workflows, timeout_ms, given)
  local limit = ("the job's timeout_ms %d%s"):format(timeout_ms, given and "" or " (the default)")
  local long = false
  for name, w in sorted(workflows) do
    local ms, field, what = least_ms(w)
    local at = "workflows." .. name
    if ms >= timeout_ms then
      long = true
      self:problem(at .. field, ("%s is not shorter than %s; expected a timeout_ms above it"):format(what, limit))
    end
    if w.timeout_ms and field == ".rate" and ms >= w.timeout_ms then
      self:problem(at .. field, ("%s end after the workflow's timeout_ms %d"):format(what, w.timeout_ms))
    end
  end
  if long then return end -- Also the sums are then too long.
  local sums = {}
  local function visit(name)
    if not sums[name] then
      local before_ms, before = 0, nil
      sums[name] = { ms = 0, own_ms = 0 } -- Meanwhile, for a cycle, which is a problem of its own.
      for _, other in ipairs(workflows[name].after) do
        local ms = workflows[other] and visit(other).ms or 0
        if ms > before_ms then before_ms, before = ms, other end
      end
      local own_ms = least_ms(workflows[name])
      sums[name] = { ms = before_ms + own_ms, own_ms = own_ms, before = before }
    end
    return sums[name]
  end
  for name in sorted(workflows) do
    local sum = visit(name)
    if sum.ms >= timeout_ms and sum.own_ms > 0 and (not sum.before or sums[sum.before].ms < timeout_ms) then
      local trail, at = {}, name
      while at do
        table.insert(trail, 1, at)
        at = sums[at].before
      end
      self:problem("workflows." .. name .. ".after", ("%s take %d ms one after the other, not less than %s"):format(
        table.concat(trail, ", "), sum.ms, limit))
    end
  end
end

---@class JobCheckOptions
---@field name? string  the file's, put before each problem
---@field lines? table<string, integer>  where keys stand
---@field problems? { line: integer, text: string }[]  what is wrong with the text itself
---@field read? fun(path: string): string?, string?  reads a script; without it, scripts must carry their bytes
---@field check_script? fun(path: string, bytes: string, env: table): string?  more problems of a script, one a line
---@field share? boolean  a dispatched share: `phase` and `stride` are known

--- Check a job and give its canonical form: only known keys, defaults put in, scripts as bytes, `after` sorted.
---@param value any
---@param options? JobCheckOptions
---@return table? spec
---@return string[]? problems  in the order of their lines
function check.job(value, options)
  options = options or {}
  local self = setmetatable({
    name = options.name, lines = options.lines or {}, read = options.read, share = options.share, problems = {}, raw = {},
    check_script = options.check_script, told = {},
  }, Checker)
  for i, problem in ipairs(options.problems or {}) do self.problems[i] = { line = problem.line, order = i - 1, text = problem.text } end
  if type(value) ~= "table" then
    self:problem("", ("found %s; expected a table with name and workflows"):format(show(value)))
    return nil, { self.problems[1].text }
  end
  self:unknown("", value, JOB_FIELDS)
  local spec = { name = self:name_of("name", value.name, "the job's name") }
  if value.datacenters ~= nil then
    spec.datacenters = {}
    local seen = {}
    for _, dc in ipairs(self:list("datacenters", value.datacenters, DATACENTERS_MAX, "datacenter names") or {}) do
      local name = self:name_of("datacenters", dc, "a datacenter's name")
      if name and seen[name] then
        self:problem("datacenters", ("%q is given twice; expected each name once"):format(name))
      elseif name then
        seen[name] = true
        table.insert(spec.datacenters, name)
      end
    end
    if type(value.datacenters) == "table" and next(value.datacenters) == nil then
      self:problem("datacenters", "is empty; leave it out to mean all")
    end
    table.sort(spec.datacenters)
  end
  spec.timeout_ms = self:integer("timeout_ms", value.timeout_ms, 1, DURATION_MS_MAX, check.TIMEOUT_MS)
  spec.env = self:env("env", value.env)
  spec.labels = self:labels("labels", value.labels)
  spec.workflows = self:workflows(value.workflows, spec.env, self:where("where", value.where))
  self:bytes(spec.workflows)
  if not self.share then -- A share's limit is what is left of the job's time.
    self:times(spec.workflows, spec.timeout_ms, value.timeout_ms ~= nil)
  end
  if #self.problems == 0 then return spec end
  table.sort(self.problems, function (a, b)
    if a.line ~= b.line then return a.line < b.line end
    return a.order < b.order
  end)
  local texts = {}
  for i, p in ipairs(self.problems) do texts[i] = p.text end
  return nil, texts
end

return check
