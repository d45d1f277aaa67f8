--- saving: a snapshot of the ledger as it stands at one instant, packed run by run while commands go on. A run that is about to
--- change is packed first, so that what is written is that instant, and no turn of the loop is long.
---
---     u32 length | head: { clock_ms, ended }      then for each run      u32 length | run, a map when it is live, else a list (past.lua)
---
--- Equal states give equal bytes: runs come in the order of their index (ended ones: of their end) where none changed meanwhile, and
--- maps are packed sorted.
local msgpack = require "shoal.core.msgpack"
local past = require "shoal.job.past"
local tally = require "shoal.job.tally"

local saving = {}
saving.__index = saving

local RUNS_A_STEP = 64
local ROWS_A_STEP = 2000
local BYTES_A_STEP = 256 * 1024

local function pack(value) return string.pack("<s4", msgpack.pack(value)) end

local function pack_run(run)
  local copy = {}
  for key, value in next, run do copy[key] = value end
  copy.work = {}
  for name, work in next, run.work do copy.work[name] = tally.packed(work) end -- order-free: by name
  return pack(copy)
end

---@param ledger table
function saving.new(ledger)
  local rows, count, seen = {}, 0, {}
  for _, key in ipairs(ledger.ended) do -- Each ended run is in it, one that came back twice; sorting them all would take long.
    if ledger.past[key] and not seen[key] then
      count, seen[key] = count + 1, true
      rows[count] = ledger.past[key]
    end
  end
  return setmetatable({
    head = pack { clock_ms = ledger.clock_ms, ended = ledger.ended }, runs = ledger:list(), at = 0, done = {}, early = {}, rows = rows,
    row_at = 0,
  }, saving)
end

--- A run that came after the instant is no part of it.
function saving:skip(run) self.done[run] = true end

--- This run changes now: pack it as it is, unless it is packed already.
function saving:before_change(run)
  if self.done[run] then return end
  self.done[run] = true
  self.early[#self.early + 1] = pack_run(run)
end

--- The next piece of bytes; nil when all was given, which `ended` hears first.
---@param ended fun()
---@return string?
function saving:next(ended)
  local out, bytes, count = {}, 0, 0
  local function put(piece)
    out[#out + 1], bytes, count = piece, bytes + #piece, count + 1
  end
  if self.head then
    put(self.head)
    self.head = nil
  end
  for _, piece in ipairs(self.early) do put(piece) end
  self.early = {}
  while self.at < #self.runs and count < RUNS_A_STEP and bytes < BYTES_A_STEP do
    self.at = self.at + 1
    local run = self.runs[self.at]
    if not self.done[run] then
      self.done[run] = true
      put(pack_run(run))
    end
  end
  while self.at == #self.runs and self.row_at < #self.rows and count < ROWS_A_STEP and bytes < BYTES_A_STEP do
    self.row_at = self.row_at + 1
    put(string.pack("<s4", self.rows[self.row_at]))
  end
  if #out > 0 then return table.concat(out) end
  ended()
  return nil
end

---@param bytes string
---@return table head, table[] runs, table[] ended  raises on what is no snapshot
function saving.read(bytes)
  local head, runs, ended, at = nil, {}, {}, 1
  while at <= #bytes do
    local piece
    piece, at = string.unpack("<s4", bytes, at)
    local value, err = msgpack.unpack(piece)
    if type(value) ~= "table" then error("ledger: snapshot: " .. (err or "no table")) end
    if not head then
      head = value
    elseif value[1] then
      ended[#ended + 1] = past.of(value)
    else
      for name, packed in next, value.work do value.work[name] = tally.unpacked(packed) end -- order-free: by name
      runs[#runs + 1] = value
    end
  end
  if not head then error "ledger: snapshot: it is empty" end
  return head, runs, ended
end

return saving
