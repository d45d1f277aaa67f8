--- machine: the one engine of state machines. A kind is a table of legal moves; an object of it has a `state`, which only this
--- engine changes. Each move is logged at debug; a move that the table does not hold is refused, and is an incident.
---
---     local kind = machine.define {
---       name = "attempt", first = "sending",
---       moves = { sending = { "running", "over" }, running = { "cancelling", "over" }, cancelling = { "over" }, over = {} },
---     }
---     local attempt = kind:enter({ fence = 7 })                   -- attempt.state == "sending"
---     local ok, err, code = kind:move(attempt, "running", ids)    -- nil, err, "ILLEGAL": the state is as before
---
--- A pure state machine (the ledger) asks `kind:may(from, to)` and `kind:step(object, to)`, which log nothing and report nothing:
--- a command that no longer applies is ordinary there.
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"
local sorted = require "shoal.base.sorted"

local machine = {}

---@class MachineKind
---@field name string
---@field first string
---@field refused integer  moves that were refused so far
local Kind = {}
Kind.__index = Kind

log.event("machine.move", { "machine", "from", "to", "of" })

--- Define a kind. A mistake in the table raises: it is this program's.
---@param definition { name: string, first: string, moves: table<string, string[]> }
---@return MachineKind
function machine.define(definition)
  local legal = {}
  for from, targets in sorted(definition.moves) do
    legal[from] = {}
    for _, to in ipairs(targets) do
      if not definition.moves[to] then error(("machine %s: %s leads to %s, which is no state"):format(definition.name, from, to), 2) end
      legal[from][to] = true
    end
  end
  if not legal[definition.first] then
    error(("machine %s: it begins as %s, which is no state"):format(definition.name, tostring(definition.first)), 2)
  end
  return setmetatable({ name = definition.name, first = definition.first, legal = legal, refused = 0 }, Kind)
end

--- Give an object its first state.
---@generic T: table
---@param object T
---@return T
function Kind:enter(object)
  object.state = self.first
  return object
end

---@param from string
---@param to string
---@return boolean
function Kind:may(from, to)
  local targets = self.legal[from]
  return targets ~= nil and targets[to] == true
end

--- Does nothing lead out of this state?
---@param state string
---@return boolean
function Kind:final(state)
  return next(self.legal[state] or {}) == nil
end

--- Move without a word: for pure code. False: the move is not legal, and nothing changed.
---@param object table
---@param to string
---@return boolean moved
function Kind:step(object, to)
  local targets = self.legal[object.state]
  if not (targets and targets[to]) then return false end
  object.state = to
  return true
end

--- Move, and log it. A move that the table does not hold is one incident at `machine.refused`, and changes nothing.
---@param object table
---@param to string
---@param of? string  which object, for people: "checkout-7 buy/2 attempt 1"
---@return true? moved, string? err, string? code "ILLEGAL"
function Kind:move(object, to, of)
  local from = object.state
  if self:step(object, to) then
    log.debug("machine.move", { machine = self.name, from = from, to = to, of = of })
    return true
  end
  self.refused = self.refused + 1
  local err = ("%s %s: there is no move from %s to %s"):format(self.name, of or "?", tostring(from), tostring(to))
  errors.report("machine.refused", { machine = self.name, from = tostring(from), to = tostring(to), of = of or "?" }, err, "ILLEGAL")
  return nil, err, "ILLEGAL"
end

return machine
