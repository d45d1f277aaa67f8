--- past: an ended run packed into one string. A leader keeps many, and a table for each would be ten times as large.
local msgpack = require "shoal.core.msgpack"

local past = {}

--- In this order: { run, job, key, name, index, state, reason, started_ms, ended_ms, upstream, bytes, dropped, file, result, began_ms,
--- origin, digest }.
---@param run table
---@return string bytes
function past.pack(run)
  return msgpack.pack {
    run.run, run.job ~= run.run and run.job or false, run.key, run.name, run.index, run.state, run.reason or false, run.started_ms,
    run.ended_ms, run.upstream or false, run.bytes, run.dropped or false, run.file or false, run.result or false,
    run.began_ms or false, run.origin or false, run.digest or false,
  }
end

--- The run of a row.
---@param row table
---@return table run
function past.of(row)
  return {
    run = row[1], job = row[2] or row[1], key = row[3], name = row[4], index = row[5], state = row[6], reason = row[7] or nil,
    started_ms = row[8], ended_ms = row[9], upstream = row[10] or nil, bytes = row[11], dropped = row[12] or nil, file = row[13] or nil,
    result = row[14] or nil, began_ms = row[15] or nil, origin = row[16] or nil, digest = row[17] or nil,
  }
end

---@param bytes string
---@return table run
function past.unpack(bytes) return past.of((assert(msgpack.unpack(bytes)))) end

return past
