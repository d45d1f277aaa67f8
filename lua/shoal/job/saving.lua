--- saving: a snapshot of the ledger at one instant, packed piece by piece while commands go on, so that no turn of the loop is long. A
--- run or part that is about to change is packed first, so that the snapshot is of that instant.
---
---     u32 length | head: { clock_ms, ended, held, outbox = { last, dropped } }
---     then in any order, each after its u32 length:
---       a live run         a map without its parts (`run` is its key)
---       parts of a run     { of = key, parts = { part, ... } }, after their run
---       an ended run       a list (past.lua)
---       events             { events = { event, ... } }, in order (outbox.lua)
---
--- Equal states give equal bytes if nothing changed meanwhile: runs are in order of their index, parts in order of their split, ended
--- runs in order of their end, and maps are packed sorted.
local msgpack = require "shoal.core.msgpack"
local past = require "shoal.job.past"
local sorted = require "shoal.base.sorted"
local tally = require "shoal.job.tally"

local saving = {}
saving.__index = saving

local RUNS_A_STEP = 64
local PARTS_A_STEP = 1000
local ROWS_A_STEP = 2000
local EVENTS_A_STEP = 1000
local BYTES_A_STEP = 256 * 1024

local function pack(value) return string.pack("<s4", msgpack.pack(value)) end

local function pack_run(run)
  local copy = {}
  for key, value in next, run do copy[key] = value end
  copy.parts, copy.work = nil, {}
  for name, work in next, run.work do copy.work[name] = tally.packed(work) end -- order-free: by name
  return pack(copy)
end

---@param ledger table
function saving.new(ledger)
  local rows, count, seen, held = {}, 0, {}, {}
  for name, h in next, ledger.held do held[name] = h end -- order-free: a copy; an entry is replaced, never changed
  for _, key in ipairs(ledger.ended) do -- Holds each ended run, a forgotten and repeated one twice; sorting them all would take too long.
    if ledger.past[key] and not seen[key] then
      count, seen[key] = count + 1, true
      rows[count] = ledger.past[key]
    end
  end
  return setmetatable({
    head = { clock_ms = ledger.clock_ms, ended = table.move(ledger.ended, 1, #ledger.ended, 1, {}), held = held,
      outbox = { last = ledger.outbox.last, dropped = ledger.outbox.dropped } }, runs = ledger:list(), at = 1,
    known = {}, early = {}, rows = rows, row_at = 0, events = ledger.outbox:list(), event_at = 0,
  }, saving)
end

--- Leave out a run that was created after the instant.
function saving:skip(run) self.known[run] = { names = {}, done = {}, at = 1 } end

--- Pack a run as it is; its parts follow.
local function begin(self, run, put)
  local names = {}
  for _, list in sorted(run.split) do table.move(list, 1, #list, #names + 1, names) end
  self.known[run] = { names = names, done = {}, at = 1 }
  put(pack_run(run))
end

local function early(self) return function (piece) self.early[#self.early + 1] = piece end end

--- This run is about to change: pack it first, unless it is packed already.
function saving:before_change(run)
  if not self.known[run] then begin(self, run, early(self)) end
end

--- Leave out a part that was created after the instant.
function saving:new_part(run, name) self.known[run].done[name] = true end

--- This part of a run is about to change. Call it after `before_change` of the run.
function saving:before_part(run, part)
  local k = self.known[run]
  if k.done[part.part] then return end
  k.done[part.part] = true
  self.early[#self.early + 1] = pack { of = run.run, parts = { part } }
end

--- The next parts of a run. True: these were the last.
local function parts_of(self, run, put)
  local k, list, count = self.known[run], {}, 0
  while k.at <= #k.names and count < PARTS_A_STEP do
    local name = k.names[k.at]
    if not k.done[name] then
      count = count + 1
      list[count], k.done[name] = run.parts[name], true
    end
    k.at = k.at + 1
  end
  if count > 0 then put(pack { of = run.run, parts = list }) end
  return k.at > #k.names
end

--- The next piece of bytes; nil after the last, when `ended` has been called.
---@param ended fun()
---@return string?
function saving:next(ended)
  local out, bytes, count = {}, 0, 0
  local function put(piece)
    out[#out + 1], bytes, count = piece, bytes + #piece, count + 1
  end
  if self.head then
    put(pack(self.head))
    self.head = nil
    return table.concat(out)
  end
  for _, piece in ipairs(self.early) do put(piece) end
  self.early = {}
  while self.at <= #self.runs and count < RUNS_A_STEP and bytes < BYTES_A_STEP do
    local run = self.runs[self.at]
    if not self.known[run] then begin(self, run, put) end
    if not parts_of(self, run, put) then break end
    self.at = self.at + 1
  end
  if self.event_at < #self.events then
    local from = self.event_at + 1
    self.event_at = math.min(#self.events, self.event_at + EVENTS_A_STEP)
    put(pack { events = table.move(self.events, from, self.event_at, 1, {}) })
    return table.concat(out)
  end
  while self.at > #self.runs and self.row_at < #self.rows and count < ROWS_A_STEP and bytes < BYTES_A_STEP do
    self.row_at = self.row_at + 1
    put(string.pack("<s4", self.rows[self.row_at]))
  end
  if #out > 0 then return table.concat(out) end
  if self.at <= #self.runs then return "" end
  ended()
  return nil
end

---@param bytes string
---@return table head, table[] runs, table[] ended, table[] events  raises if the bytes are no snapshot
function saving.read(bytes)
  local head, runs, ended, events, at, by_key = nil, {}, {}, {}, 1, {}
  while at <= #bytes do
    local piece
    piece, at = string.unpack("<s4", bytes, at)
    local value, err = msgpack.unpack(piece)
    if type(value) ~= "table" then error("ledger: snapshot: " .. (err or "no table")) end
    if not head then
      head = value
    elseif value[1] then
      ended[#ended + 1] = past.of(value)
    elseif value.events then
      table.move(value.events, 1, #value.events, #events + 1, events)
    elseif value.of then
      local run = by_key[value.of] or error("ledger: snapshot: parts of a run that is not there: " .. tostring(value.of))
      for _, part in ipairs(value.parts) do run.parts[part.part] = part end
    else
      for name, packed in next, value.work do value.work[name] = tally.unpacked(packed) end -- order-free: by name
      value.parts = {}
      runs[#runs + 1], by_key[value.run] = value, value
    end
  end
  if not head then error "ledger: snapshot: it is empty" end
  return head, runs, ended, events
end

return saving
