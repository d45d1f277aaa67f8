--- exec.frames: what a worker and its child say to each other over the child's pipes.
---
---      0               4
---     +---------------+----------------------------------+
---     | length, u32 BE| MessagePack: a map with `type`   |      length: of the body, at most FRAME_MAX
---     +---------------+----------------------------------+
---
---   to the child (fd 0)       start{ job, workflow, part, attempt, fence, work, timeout_ms?, progress_ms }, once and first
---                             cancel{ reason }
---   from the child (fd 1)     progress{ record, at_us }, log{ text },
---                             result{ state, reason?, record, incidents, at_us }, once and last
---   `at_us` is the time since the start frame, and so are the instants of a record's load
local msgpack = require "shoal.core.msgpack"

local frames = {}

--- A start frame holds what a dispatch held, and that is a message (at most 3 MiB, c/net/frame.h); a result is smaller (stats.PART_MAX).
frames.FRAME_MAX = 4 * 1024 * 1024

---@param message table
---@return string bytes
function frames.encode(message)
  return string.pack(">s4", assert(msgpack.pack(message)))
end

--- A reader of one direction: feed it bytes, and it hands on whole messages. Pieces of a message are joined once, when it is whole.
---@param on_message fun(message: table)
---@return fun(bytes: string): true?, string?, string? feed  nil, message, "MALFORMED": the rest of the stream is lost
function frames.reader(on_message)
  local pieces, held, wanted, broken = {}, 0, 4, nil
  return function (bytes)
    if broken then return nil, broken, "MALFORMED" end
    pieces[#pieces + 1], held = bytes, held + #bytes
    if held < wanted then return true end
    local buffered, at = #pieces == 1 and bytes or table.concat(pieces), 1
    wanted = 4
    while #buffered - at + 1 >= 4 do
      local length = string.unpack(">I4", buffered, at)
      if length > frames.FRAME_MAX then
        broken = ("a frame of %d bytes; at most %d (it begins with %q)"):format(length, frames.FRAME_MAX, buffered:sub(at, at + 15))
        return nil, broken, "MALFORMED"
      end
      if #buffered - at + 1 < 4 + length then
        wanted = 4 + length
        break
      end
      local message, err = msgpack.unpack(buffered:sub(at + 4, at + 3 + length))
      if type(message) ~= "table" or type(message.type) ~= "string" then
        broken = "a frame that is no message: " .. (err or "no map with a type")
        return nil, broken, "MALFORMED"
      end
      at = at + 4 + length
      on_message(message)
    end
    pieces, held = { buffered:sub(at) }, #buffered - at + 1
    return true
  end
end

return frames
