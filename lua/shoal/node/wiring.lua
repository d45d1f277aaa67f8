--- wiring: is what a script returned a role, and does it fit together? Every problem at once, with the script's line where it is known.
---
--- These checks need no node: the table's keys, the messages that it answers and sends, the hooks, and how many arguments each
--- function takes. `shoal check` and `shoal run` also start and stop the role in a simulated world (shoal.sim.trial).
local admin = require "shoal.node.admin"
local errors = require "shoal.base.errors"
local messages = require "shoal.wire.messages"
local near = require "shoal.base.near"
local sorted = require "shoal.base.sorted"
local text = require "shoal.base.text"

local wiring = {}

--- A role's keys: the type of each, and the arguments that a function gets.
local KEYS = {
  name = { "string" }, start = { "function", "node" }, stop = { "function", "state" }, ready = { "function", "state" },
  hooks = { "function", "state" }, members = { "function", "state", "members" }, answers = { "table" }, sends = { "table" },
}
local ANSWER = { "function", "state", "body", "peer" }
local REQUIRED = { "name", "start" }

--- Stands for a role's state while its hooks are only read: every field of it, and every call, gives itself.
local nobody = setmetatable({}, { __index = function (self) return self end, __call = function (self) return self end })

-- A checker gathers problems ------------------------------------------------------------------------------------------

local Checker = {}
Checker.__index = Checker

function Checker:problem(line, format, ...)
  self.problems[#self.problems + 1] = ("%s:%s %s"):format(self.path, line and line .. ":" or "", format:format(...))
end

--- The line of a word of the script, as a name or a string.
function Checker:line_of(word) return self.bytes and text.line_of(self.bytes, word) or nil end

local function hint(word, names)
  local meant = near.of(word, names)
  return meant and (", did you mean %s?"):format(meant) or ""
end

local function has(list, wanted)
  for _, one in ipairs(list) do
    if one == wanted then return true end
  end
  return false
end

--- Its arguments as a function's head has them.
local function head(shape) return "(" .. table.concat(shape, ", ", 2) .. ")" end

--- Whether fn may be called with the arguments of this shape: fewer than it names would be nil in it.
function Checker:arity(what, fn, shape)
  local info = debug.getinfo(fn, "uS")
  if info.isvararg or info.nparams <= #shape - 1 then return end
  local line = info.source == "@" .. self.path and info.linedefined or self:line_of(what)
  self:problem(line, "%s: the function takes %d arguments, expected %s", what, info.nparams, head(shape))
end

function Checker:keys(role)
  for _, key in ipairs(REQUIRED) do
    if role[key] == nil then self:problem(nil, "%s: expected a %s, found nil", key, KEYS[key][1]) end
  end
  for key, value in sorted(role) do
    local shape = KEYS[key]
    if not shape then
      self:problem(self:line_of(tostring(key)), "%s: a role has no such key%s; it has %s", tostring(key), hint(key, sorted.keys(KEYS)),
        table.concat(sorted.keys(KEYS), ", "))
    elseif type(value) ~= shape[1] then
      self:problem(self:line_of(key), "%s: expected a %s, found %s", key, shape[1], type(value))
    elseif shape[1] == "function" then
      self:arity(key, value, shape)
    end
  end
  if type(role.name) == "string" then
    if has(messages.roles, role.name) then return true end
    self:problem(self:line_of(role.name), "name: there is no role %q%s; expected one of %s", role.name,
      hint(role.name, messages.roles), table.concat(messages.roles, ", "))
  end
end

local function known(name) return has(messages.names(), name) end

function Checker:message(key, name)
  if known(name) then return true end
  self:problem(type(name) == "string" and self:line_of(name) or self:line_of(key), "%s: there is no message %s%s", key, tostring(name),
    type(name) == "string" and hint(name, messages.names()) or "; expected names of messages")
end

--- The messages that a node of this kind handles by itself.
local function own_answers(role)
  local names = {}
  if role ~= "client" then admin.open { rpc = { handle = function (_, name) names[#names + 1] = name end } } end
  return names
end

--- Whether its start wires handlers by itself, as a client's does: then a missing one is seen only when it is started.
function Checker:wires_itself(role)
  return role.name == "client" or not self.bytes or self.bytes:find "[:.]handle%s*%(" ~= nil or self.bytes:find "[:.]raw%s*%(" ~= nil
end

function Checker:messages(role)
  local handled, sent = own_answers(role.name), {}
  for name, fn in sorted(type(role.answers) == "table" and role.answers or {}) do
    if self:message("answers", name) then
      handled[#handled + 1] = name
      if type(fn) ~= "function" then
        self:problem(self:line_of(name), "answers[%q]: expected a function, found %s", name, type(fn))
      else
        self:arity(("answers[%q]"):format(name), fn, ANSWER)
      end
    end
  end
  for _, name in ipairs(type(role.sends) == "table" and role.sends or {}) do
    if self:message("sends", name) then sent[#sent + 1] = name end
  end
  local _, wrong = messages.check(role.name, handled, sent)
  for problem in ((wrong or "") .. "; "):gmatch "(.-); " do
    local name = problem:match "%f[%w][%l_]+%.[%l_]+%f[^%w._]" or problem:match "handle (%w+)," or problem:match "sends (%w+),"
    local missing = problem:find(" does not handle ", 1, true)
    if problem ~= "" and not (missing and self:wires_itself(role)) then
      self:problem(self:line_of(missing and "answers" or name or ""), "%s", problem)
    end
  end
end

--- Are these hooks on sites that this role has, and does something fire them? Every problem at once.
function Checker:hooks(role_name, hooks)
  local all = errors.hooks()
  for site, fn in sorted(hooks) do
    local declared = errors.declared(site)
    local line = type(site) == "string" and self:line_of(site)
    local hook = declared and declared.hook
    local fires = hook and (hook.fires or declared.role ~= "any" and { declared.role })
    if fires and not has(fires, role_name) then
      self:problem(line, "hooks[%q]: a site of the %s, which a %s never fires", site, table.concat(fires, " and the "), role_name)
    else
      local ok, err = errors.handle("role.hooks", { role = role_name }, all.wire, all, site, fn)
      if ok then
        self.wired[site] = true
      else
        self:problem(line, "%s", tostring(err):gsub("^[^:]+:%d+: ", ""))
      end
    end
  end
end

function Checker:role_hooks(role)
  local hooks = {}
  if type(role.hooks) == "function" then
    local ok, value = errors.handle("role.hooks", { role = role.name }, role.hooks, nobody)
    if not ok then return self:problem(nil, "hooks: %s", tostring(value)) end
    if type(value) ~= "table" then return self:problem(self:line_of "hooks", "hooks: expected a table, found %s", type(value)) end
    hooks = value
  end
  self:hooks(role.name, hooks)
  local set = errors.hooks()
  for site in sorted(self.wired) do set:wire(site, hooks[site]) end
  local ok, err = set:check(role.name)
  if not ok then self:problem(self:line_of "hooks", "%s", err) end
end

local function new(path, bytes)
  return setmetatable({ path = path, bytes = bytes, problems = {}, wired = {} }, Checker)
end

local function answer(self)
  if #self.problems == 0 then return true end
  return nil, table.concat(self.problems, "\n"), "CONFIG"
end

--- Is what a script returned a role?
---@param path string   of the script, for messages
---@param role any
---@param bytes? string  its text, for lines
---@return true? ok, string? err, string? code  every problem, one a line
function wiring.check(path, role, bytes)
  local self = new(path, bytes)
  if self:keys(role) then -- Its name is a role's: the rest depends on it.
    self:messages(role)
    self:role_hooks(role)
  end
  return answer(self)
end

--- Are these hooks, which a started role gave, on sites that it has?
---@param hooks table<string, function>
---@return true? ok, string? err, string? code
function wiring.check_hooks(path, role_name, hooks)
  local self = new(path)
  self:hooks(role_name, hooks)
  return answer(self)
end

--- The hooks of a role script that is not started.
---@return true? ok, string? err, string? code
function wiring.check_role_hooks(path, role)
  local self = new(path)
  self:role_hooks(role)
  return answer(self)
end

return wiring
