--- The policy in force: read from its file, read again when that changed, and asked at each incident. A file that is wrong
--- changes nothing; a policy that fails is replaced by the built-in one until its file changes; both are incidents.

local incidents = require "shoal.base.errors.incident"
local policies = require "shoal.base.errors.policy"
local log = require "shoal.base.log"
local sandbox = require "shoal.base.errors.sandbox"

local LOOK_EVERY_NS = 200 * 1000000
local UNREAD_LOOKS = 2

local judge = {}
judge.__index = judge

--- means: quietly(fn, ...) -> ok, values...; sandboxed(fn, ...) -> ok, value; fail(name, ids, caught); catalogue
function judge.new(means)
  policies.builtin.merged = {}
  return setmetatable({ means = means, policy = policies.builtin, look_ns = 0, unread = 0 }, judge)
end

local function read_whole(world, path)
  local err, code
  if world then
    local bytes
    bytes, err, code = world:read_file(path)
    if bytes then return bytes end
    if world:simulated() then return nil, err, code end
  end
  local file, why = io.open(path, "rb") -- A stock lua5.4 without a world, or a path that the world does not hold.
  if not file then return nil, err or why, code or "ENOENT" end
  local bytes = file:read "a"
  file:close()
  return bytes
end

local function put(self, policy)
  self.policy = policy
  for _, name in ipairs(self.means.catalogue:names()) do self.means.catalogue.records[name].merged = nil end
end

local function take(self, text, path)
  self.text = text
  local parsed, err = policies.parse(text, path, self.means.sandboxed, self.means.catalogue)
  if not parsed then return nil, err, "CONFIG" end
  put(self, parsed)
  return true
end

---@return true? ok
---@return string? err
---@return string? code
function judge:load(world, path)
  local ok, text, err, code = self.means.quietly(read_whole, world, path)
  if not ok then return nil, path .. ": " .. tostring(text), "FAILED" end
  if not text then return nil, path .. ": " .. tostring(err), code end
  ok, err, code = take(self, text, path)
  if not ok then return nil, err, code end
  self.path = path
  return true
end

--- The file could not be read. An editor's rename may be half-way, so it is reported at the second look in a row, and then once.
local function unread(self, path, err)
  self.unread = self.unread + 1
  if self.unread ~= UNREAD_LOOKS then return end
  self.means.fail("policy.load", { file = path }, { error = ("%s; the last good policy stays in use"):format(tostring(err)), where = path })
end

--- The file may have been edited since.
function judge:look(world, now_ns)
  local path = self.path
  if not path or world and now_ns < self.look_ns then return end
  self.look_ns = now_ns + LOOK_EVERY_NS
  local ok, text, err = self.means.quietly(read_whole, world, path)
  if not ok or not text then return unread(self, path, ok and err or text) end
  self.unread = 0
  if text == self.text then return end
  local taken
  taken, err = take(self, text, path)
  if taken then
    log.info("policy.loaded", { file = path })
  else
    self.means.fail("policy.load", { file = path }, { error = err, where = err:match "^[^\n]-:%d+" or path })
  end
end

local function merged_for(self, site)
  local merged = site.merged
  if not merged then
    merged = policies.of(self.policy, site.name, site.family)
    site.merged, site.traces = merged, merged.traces
  end
  return merged
end

--- The copy that `decide` gets; changing it has no effect.
local function own_copy(incident)
  return {
    id = incident.id, site = incident.site, message = incident.message, code = incident.code, where = incident.where,
    count = incident.count, node = incident.node, hint = incident.hint, traceback = incident.traceback,
    ids = sandbox.glimpse(incident.ids), error = sandbox.glimpse(incident.error), missing = sandbox.glimpse(incident.missing),
    escalated = incident.escalated, raised = incident.raised, at_ns = incident.at_ns, wall_ns = incident.wall_ns,
  }
end

--- The level, burst, window and fields for this incident. `ask`: whether the policy's own function has a say, which it
--- does not about failures of telling.
function judge:of(site, incident, ask)
  local merged = merged_for(self, site)
  local policy = self.policy
  if ask and policy.decide then
    local ok, value = self.means.sandboxed(policy.decide, own_copy(incident), sandbox.glimpse(merged))
    if ok then
      local level, burst, per_ms = policies.verdict(value, merged)
      if level then return level ~= "" and level or site.level, burst, per_ms, merged.fields end
      value = burst
    end
    put(self, policies.builtin)
    policies.builtin.merged = {}
    self.means.fail("policy.decide", { file = policy.path, incident = incident.id },
      { error = value, where = type(value) == "string" and incidents.split(value) or policy.path })
    merged = merged_for(self, site)
  end
  return merged.level or site.level, merged.burst, merged.per_ms, merged.fields
end

return judge
