--- executors: who can run parts for a leader, as far as it knows. For a manager they are workers, for a gate datacenters.
---
---   known --- lead answered ---> up --- death, silence ---> down --- heard again ---> known
---
--- A leader claims cores here before it dispatches and releases them when the attempt is over, on every path, so that
--- claimed + free = cores at each instant.
local sorted = require "shoal.base.sorted"

local executors = {}
executors.__index = executors

---@class Executor
---@field name string      the worker's or the datacenter's name
---@field address string   where its messages go
---@field state "known"|"up"|"down"
---@field cores integer    offered
---@field claimed integer  by this leader
---@field claims table<string, integer>  by "run part"
---@field epoch integer    grows with each return, so that an answer of an earlier life is told apart

function executors.new()
  return setmetatable({ byname = {} }, executors)
end

--- Heard of: a member joined, a heartbeat came. Returns the executor and whether it has to be asked (again).
---@return Executor, boolean
function executors:hear(name, address, cores)
  local e = self.byname[name]
  if not e then
    e = { name = name, address = address, state = "known", cores = cores, claimed = 0, claims = {}, epoch = 1 }
    self.byname[name] = e
    return e, true
  end
  local moved = e.address ~= address
  e.address, e.cores = address, cores
  if e.state == "down" or moved then
    e.state, e.epoch = "known", e.epoch + 1
    return e, true
  end
  return e, e.state == "known"
end

function executors:up(name)
  local e = self.byname[name]
  if e and e.state == "known" then e.state = "up" end
end

--- Gone. Its claims stay until the leader has settled each part; `remove` follows then.
function executors:down(name)
  local e = self.byname[name]
  if not e or e.state == "down" then return nil end
  e.state = "down"
  return e
end

function executors:get(name) return self.byname[name] end

function executors:remove(name)
  local e = self.byname[name]
  if e and e.state == "down" and e.claimed == 0 then self.byname[name] = nil end
end

--- Take cores for one attempt; false when they are not free.
function executors:claim(name, key, cores)
  local e = self.byname[name]
  if not e or e.state ~= "up" or e.cores - e.claimed < cores then return false end
  assert(not e.claims[key], "claimed twice: " .. key)
  e.claims[key], e.claimed = cores, e.claimed + cores
  return true
end

--- Take cores that are in use already: an attempt adopted after a restart.
function executors:adopt(name, key, cores)
  local e = self.byname[name]
  if not e or e.claims[key] then return end
  e.claims[key], e.claimed = cores, e.claimed + cores
end

--- Give them back; harmless when they were not taken. True when something was.
function executors:release(name, key)
  local e = self.byname[name]
  local cores = e and e.claims[key]
  if not cores then return false end
  e.claims[key], e.claimed = nil, e.claimed - cores
  assert(e.claimed >= 0)
  self:remove(name)
  return true
end

--- Those up, by name: plain copies for a placement policy.
function executors:list()
  local out = {}
  for _, e in sorted(self.byname) do
    if e.state == "up" then
      out[#out + 1] = { name = e.name, address = e.address, cores = e.cores, free = math.max(0, e.cores - e.claimed) }
    end
  end
  return out
end

--- All, for people.
function executors:all()
  local out = {}
  for _, e in sorted(self.byname) do
    out[#out + 1] = { name = e.name, address = e.address, state = e.state, cores = e.cores, claimed = e.claimed }
  end
  return out
end

return executors
