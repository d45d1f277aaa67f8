--- executors: the nodes that can run parts for a leader: workers for a manager, datacenters for a gate.
---
---   known --- lead answered ---> up --- death, silence ---> down --- heard again ---> known
---
--- Used cores are not counted here: the ledger derives them from the attempts of each executor.
local machine = require "shoal.base.machine"
local sorted = require "shoal.base.sorted"

local errors = require "shoal.base.errors"
local msgpack = require "shoal.core.msgpack"

local executors = {}
executors.__index = executors

local NO_LABELS = errors.view {}

---@class Executor
---@field name string      the worker's or the datacenter's name
---@field address string   its messages go there
---@field state "known"|"up"|"down"
---@field cores integer    offered
---@field epoch integer    grows at each return, move and new generation, so that an answer from before it does not count
---@field generation? integer  of its process
---@field labels? table<string, string>  of a worker; `shown` is the view that policies get
---@field classes? table[]  of a datacenter: its workers by their labels (fit.lua), `more` of them in none of these, the cores of its
---  `largest` worker, and how many of its workers are cordoned (`held`)
---@field why? string      the reason that it is down

local STATES = machine.define {
  name = "executor", first = "known", moves = { known = { "up", "down" }, up = { "known", "down" }, down = { "known" } },
}

function executors.new()
  return setmetatable({ byname = {}, version = 0 }, executors) -- `version` changes with what the executors can run.
end

local function move(self, e, to)
  if e.state == to then return end
  assert(STATES:move(e, to, e.name))
  self.version = self.version + 1
end

--- What it can run, as it says now.
local function describe(self, e, cores, about)
  about = about or {}
  local digest = msgpack.pack { cores, about.labels or false, about.classes or false, about.more or 0, about.largest or 0, about.held or 0 }
  if e.digest == digest then return end
  self.version = self.version + 1
  e.digest, e.labels, e.classes, e.more, e.largest, e.held = digest, about.labels or {}, about.classes, about.more, about.largest, about.held
  e.shown = about.labels and next(about.labels) and errors.view(about.labels) or NO_LABELS
  e.shown_classes = about.classes and errors.view(about.classes)
end

--- A member joined or a heartbeat came. Returns the executor, and whether `lead` must be sent to it (again).
---@param generation integer  of its process; after a change, only answers of the new generation count
---@param about? { labels?: table, classes?: table[], more?: integer, largest?: integer, held?: integer }
---@return Executor, boolean
function executors:hear(name, address, cores, generation, about)
  local e = self.byname[name]
  if e then describe(self, e, cores, about) end
  if not e then
    e = STATES:enter { name = name, address = address, cores = cores, epoch = 1, generation = generation }
    self.byname[name] = e
    describe(self, e, cores, about)
    return e, true
  end
  local other = e.address ~= address or e.generation ~= generation
  e.address, e.cores, e.generation = address, cores, generation
  if e.state == "down" or other then
    e.epoch = e.epoch + 1
    move(self, e, "known")
    return e, true
  end
  return e, e.state == "known"
end

--- It answered `lead`.
function executors:up(e)
  if self.byname[e.name] == e and e.state == "known" then move(self, e, "up") end
end

--- Mark it down. The entry stays until the leader has settled each of its parts; then `remove` follows.
---@return Executor?
function executors:down(name, why)
  local e = self.byname[name]
  if not e or e.state == "down" then return nil end
  move(self, e, "down")
  e.why, e.epoch = why, e.epoch + 1
  return e
end

--- A new leadership sends `lead` to every executor again.
function executors:ask_again()
  for _, e in sorted(self.byname) do
    if e.state == "up" then
      e.epoch = e.epoch + 1
      move(self, e, "known")
    end
  end
end

---@return Executor?
function executors:get(name) return self.byname[name] end

--- Remove an executor that is down and has no part of ours.
function executors:remove(name)
  local e = self.byname[name]
  if e and e.state == "down" then self.byname[name] = nil end
end

local function no_standing() return nil end

--- The executors that are up and not held, sorted by name: plain copies for a placement policy.
---@param load fun(name: string): integer  cores taken
---@param hold fun(name: string): string?  "cordoned", "draining" or nil
---@param standing? fun(name: string): table?  of a datacenter: eviction:standing
function executors:list(load, hold, standing)
  local out = {}
  standing = standing or no_standing
  for _, e in sorted(self.byname) do
    local s = standing(e.name)
    if e.state == "up" and not hold(e.name) and not (s and s.away) then
      out[#out + 1] = {
        name = e.name, address = e.address, cores = e.cores, free = math.max(0, e.cores - load(e.name)), labels = e.shown,
        classes = e.shown_classes, more = e.more, largest = e.largest, epoch = e.epoch, health = s and s.health, level = s and s.level,
        room = s and s.room, wait = s and s.wait,
      }
    end
  end
  return out
end

--- All executors, for display. One that is up and cannot be reached is `away`: it keeps its parts and gets none.
function executors:all(load, hold, standing)
  local out = {}
  standing = standing or no_standing
  for _, e in sorted(self.byname) do
    local s = standing(e.name)
    out[#out + 1] = {
      name = e.name, address = e.address, state = e.state, cores = e.cores, claimed = load(e.name), labels = e.labels, hold = hold(e.name),
      classes = e.classes, more = e.more, largest = e.largest, held = e.held, health = s and s.health, level = s and s.level,
      away = s and s.away,
    }
  end
  return out
end

return executors
