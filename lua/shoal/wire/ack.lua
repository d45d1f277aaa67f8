--- ack: the answer to a message of progress, which carries the newest records of many parts.
---
--- An ack is either the legacy two bytes `ok`, recognised first and exactly, or a MessagePack map. It is read whole and
--- checked before anything of it counts: the caller gets a value to apply as a whole, level none included, or an error with
--- which it changes nothing. An error never holds bytes of the ack, only its size, its first byte and a class.
local msgpack = require "shoal.core.msgpack"

local ack = {}

ack.levels = { "none", "throttle", "batch", "reject" }

--- Larger than any ack of ours, which names each of ack.PARTS_MAX parts at most once in a list; a larger one is not read at all.
ack.max_bytes = 4096

--- Parts in one message of progress: its sender splits there.
ack.PARTS_MAX = 500

local body = msgpack.compile({
  { "level", "enum:none|throttle|batch|reject" },
  { "leader", "string?" }, -- the node that leads these jobs now, when it is not the one that answers
  { "leader_address", "string?" },
  { "fence", "integer?" }, -- of that leadership
  { "delay_ms", "integer?" }, -- wait this much longer between two flushes
  { "unknown", "array:integer?" }, -- positions in the message, from 1: the answering node knows no such job
  { "stop", "array:integer?" }, -- positions: these attempts no longer count, and their executor ends them
}, nil, "ack")

---@class Ack
---@field level "none"|"throttle"|"batch"|"reject"  none too is applied: it clears what an earlier ack raised
---@field leader? string
---@field leader_address? string
---@field fence? integer
---@field delay_ms? integer
---@field unknown? integer[]  positions of parts in the message that was answered
---@field stop? integer[]
---@field legacy boolean

--- The class of an error: "empty", "too_large", "truncated", "not_a_map", "field" or "trailing".
local function class_of(bytes, err)
  if err:find("after the end", 1, true) then return "trailing" end
  if err:find("ends inside", 1, true) or err:find("needs more than", 1, true) then return "truncated" end
  local first = bytes:byte()
  if not (first >= 0x80 and first <= 0x8f or first == 0xde or first == 0xdf) then return "not_a_map" end
  return "field"
end

local function refuse(bytes, class)
  local first = bytes:byte()
  return nil, ("ack: %d bytes, the first %s: %s"):format(#bytes, first and ("0x%02x"):format(first) or "absent", class),
    class
end

--- Is each of these a position in a message of so many parts?
local function are_positions(list, parts)
  for _, position in ipairs(list or {}) do
    if position < 1 or position > parts then return false end
  end
  return true
end

---@param bytes string
---@param parts? integer  of the message that was answered; PARTS_MAX without
---@return Ack? ack
---@return string? err    size, first byte, class; never the payload
---@return string? class  "empty"|"too_large"|"truncated"|"not_a_map"|"field"|"trailing"
function ack.parse(bytes, parts)
  parts = parts or ack.PARTS_MAX
  if bytes == "ok" then return { level = "none", legacy = true } end
  if bytes == "" then return refuse(bytes, "empty") end
  if #bytes > ack.max_bytes then return refuse(bytes, "too_large") end
  local parsed, err = body:decode(bytes)
  if not parsed then return refuse(bytes, class_of(bytes, err)) end
  if (parsed.leader == nil) ~= (parsed.leader_address == nil) or (parsed.delay_ms or 0) < 0
    or not are_positions(parsed.unknown, parts) or not are_positions(parsed.stop, parts) then
    return refuse(bytes, "field")
  end
  parsed.legacy = false
  return parsed
end

--- Write an ack. Its value comes from this program, so a wrong field raises.
---@param value Ack  without `legacy`
---@return string bytes
function ack.encode(value)
  local bytes, err = body:encode(value)
  if not bytes then error(err, 2) end
  return bytes
end

return ack
